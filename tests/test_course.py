"""The chapters as their readers find them: a fresh Python with the wheel, no repository, no photographs, no network."""
import json, os, re, shutil, subprocess, sys, sysconfig, venv
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))
import start

CHAPTERS = sorted(p for folder in ('course', 'appendix') for p in (root/'nbs'/folder).glob('*.ipynb'))
TRAINS = r'compare\(|\bfit\(|fit_one_cycle|fit_model\(|body_features\(|vision_learner\(|final_bn_learner\('
# in IPython, as Colab does: each chapter up to its first training, then whatever it imports later on
RUN = '''
import json, re, sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
import matplotlib; matplotlib.use('agg')
shell, trains, told = InteractiveShell.instance(), sys.argv[1], {}
for path in map(Path, sys.argv[2:]):
    shell.reset(new_session=False)
    out, started, ran = StringIO(), False, 0
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or '#| eval: false' in source: continue
        started = started or bool(re.search(trains, source))
        if started: source = '\\n'.join(re.findall(r'^(?:from|import) .*(?:\\n +.*)*', source, re.M))
        with redirect_stdout(out): shell.run_cell(source).raise_error()
        ran += not started
    told[path.name] = dict(printed=out.getvalue(), ran=ran)
import bn_imbalance
print('TOLD', json.dumps(dict(told, package=bn_imbalance.__file__)))
'''


def python_with_dependencies(folder):
    "A virtual environment that has everything that the package needs, and not the package; its folder of programs"
    venv.create(folder/'env')
    dependencies, bin_ = folder/'dependencies', folder/'env'/'bin'
    dependencies.mkdir()
    for p in Path(sysconfig.get_path('purelib')).iterdir():
        if not re.match(r'bn_imbalance|__editable__|.*[.]pth$', p.name): (dependencies/p.name).symlink_to(p)
    site, = (folder/'env'/'lib').glob('python*/site-packages')
    (site/'dependencies.pth').write_text(f'{dependencies}\n')
    (bin_/'pip').write_text(f'#!{bin_}/python\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n')
    (bin_/'pip').chmod(0o755)
    return bin_

@pytest.fixture(scope='module')
def cache(tmp_path_factory): return tmp_path_factory.mktemp('leaves') # drawn once for both tests

def environment(bin_, folder, cache, **more):
    "Nothing of this machine but its programs; whatever asks the network is refused at once"
    nowhere = 'http://127.0.0.1:9'
    return dict(PATH=f'{bin_}:{os.environ["PATH"]}', HOME=str(folder), BN_IMBALANCE_CACHE=str(cache),
                OMP_NUM_THREADS='1', http_proxy=nowhere, https_proxy=nowhere, PIP_NO_INDEX='1',
                PIP_DISABLE_PIP_VERSION_CHECK='1', BN_IMBALANCE_PLANTVILLAGE='', BN_IMBALANCE_MAGNETIC_TILE='', **more)

def run_chapters(bin_, cwd, env, chapters):
    code = [bin_/'python', '-c', RUN, TRAINS, *chapters]
    r = subprocess.run(code, cwd=cwd, env=env, capture_output=True, text=True)
    assert r.returncode == 0 and 'TOLD ' in r.stdout, r.stdout[-2000:] + r.stderr[-3000:]
    return json.loads(r.stdout.split('TOLD ')[-1])


@pytest.mark.slow
def test_every_chapter_starts_with_the_wheel_alone(cache, tmp_path):
    bin_ = python_with_dependencies(tmp_path)
    env = environment(bin_, tmp_path, cache)
    wheel = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', tmp_path, root]
    subprocess.run(wheel, check=True, capture_output=True)
    install = [bin_/'pip', 'install', '-q', '--no-deps', *tmp_path.glob('*.whl')]
    subprocess.run(install, env=env, check=True, capture_output=True)
    desk = tmp_path/'desk' # the notebooks, and nothing else of the repository
    desk.mkdir()
    chapters = [shutil.copy(p, desk) for p in CHAPTERS]
    told = run_chapters(bin_, desk, env, chapters)
    assert str(tmp_path/'env') in told['package']
    for p in CHAPTERS:
        assert told[p.name]['ran'] >= 1, p.name
        if 'example_data()' in p.read_text(): assert 'the embedded leaves' in told[p.name]['printed'], p.name


@pytest.mark.slow
def test_the_first_cell_installs_the_package_on_colab(cache, tmp_path):
    "From a repository that this machine serves, into a folder `content`, where nothing else is"
    bin_, repository, content = python_with_dependencies(tmp_path), tmp_path/'repository', tmp_path/'content'
    content.mkdir()
    shutil.copytree(root/'bn_imbalance', repository/'bn_imbalance', ignore=shutil.ignore_patterns('__pycache__'))
    for name in 'pyproject.toml', 'README.md', 'LICENSE': shutil.copy(root/name, repository)
    who = ['-c', 'user.name=me', '-c', 'user.email=me@example.org']
    for command in ['init', '-q'], ['add', '.'], [*who, 'commit', '-qm', 'all']:
        subprocess.run(['git', *command], cwd=repository, check=True)
    subprocess.run(['git', 'update-server-info'], cwd=repository, check=True)
    serve = partial(SimpleHTTPRequestHandler, directory=repository)
    server = ThreadingHTTPServer(('127.0.0.1', 0), serve)
    Thread(target=server.serve_forever, daemon=True).start()
    nb = json.loads(CHAPTERS[0].read_text())
    opened = start.with_start(nb, start.source(f'http://127.0.0.1:{server.server_port}/.git'))
    (content/CHAPTERS[0].name).write_text(json.dumps(opened))
    # 0 is how this variable says yes: pip reads it as the option's opposite
    env = environment(bin_, tmp_path, cache, COLAB_RELEASE_TAG='release', PIP_NO_BUILD_ISOLATION='0',
                      no_proxy='127.0.0.1')
    told = run_chapters(bin_, content, env, [content/CHAPTERS[0].name])
    assert str(tmp_path/'env') in told['package'] and 'the embedded leaves' in told[CHAPTERS[0].name]['printed']
