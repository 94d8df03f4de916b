"""The commands as a user runs them, and every kind of bad input: one line, exit code 1, nothing written."""
import os, re, subprocess, sys, time, zipfile
from pathlib import Path
import numpy as np, pandas as pd, pytest
from conftest import QUICK
from PIL import Image
from bn_imbalance import core
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.evaluate.runs import read_runs

COLUMNS = ('data,recipe,head,final_bn,arch,seed,epochs,f1_minority,f1_majority,precision_minority,recall_minority,'
           'f1_minority_tuned,threshold,f1_rare,ece,ece_rare,brier_rare,auroc,ap,brier,seconds').split(',')


def test_compare_and_report(command, folder, tmp_path):
    out = tmp_path/'out'
    code, text, err = command('bn-compare', folder, *QUICK, '--out', out)
    assert code == 0, err
    df = pd.read_csv(out/'results.csv')
    assert list(df)[:len(COLUMNS)] == COLUMNS and 'goal_value' in df and len(df) == 28 and df.recipe.nunique() == 14
    assert df[['recipe', 'seed']].equals(df[['recipe', 'seed']].sort_values(['recipe', 'seed'], ignore_index=True))
    page = (out/'report.html').read_text()
    assert '8 of 14 recipes' in text and all(r in page for r in df.recipe) and str(out/'report.html') in text
    assert page.count('data:image/webp') > 20 and 'src="http' not in page and 'href="http:' not in page
    table = lambda d: pd.read_csv(d/'results.csv').drop(columns='seconds')
    first = table(out)
    code, text, _ = command('bn-report', out)
    assert code == 0
    pd.testing.assert_frame_equal(table(out), first)
    code, *_ = command('bn-compare', folder, *QUICK, '--out', tmp_path/'again') # the same numbers a second time
    pd.testing.assert_frame_equal(table(tmp_path/'again'), first)


def test_bad_images_are_listed_and_skipped(command, folder, tmp_path):
    (folder/'good'/'note.jpg').write_text('hello')
    (folder/'bad'/'cut.jpg').write_bytes((folder/'bad'/'000.jpg').read_bytes()[:300])
    Image.new('L', (1, 1)).save(folder/'bad'/'dot.png')
    Image.fromarray(np.full((40, 40), 30000, np.uint16)).save(folder/'good'/'deep.png')
    Image.new('CMYK', (40, 40)).save(folder/'good'/'print.jpg')
    out = tmp_path/'out'
    code, text, err = command('bn-compare', folder, *QUICK, '--out', out)
    assert code == 1 and '3 of 65 images cannot be used' in err and '--skip-bad' in err
    assert all(n in err for n in ('note.jpg', 'cut.jpg', 'dot.png')) and 'deep' not in err and not out.exists()
    code, text, err = command('bn-compare', folder, *QUICK, '--out', out, '--skip-bad')
    assert code == 0 and '42 images of the majority, 20 of the minority' in text


def bad_inputs(folder, tmp_path):
    "arguments -> what the message must hold"
    (tmp_path/'one'/'only').mkdir(parents=True)
    Image.new('RGB', (20, 20)).save(tmp_path/'one'/'only'/'a.png')
    (tmp_path/'bare').mkdir()
    (tmp_path/'empty'/'a').mkdir(parents=True); (tmp_path/'empty'/'b').mkdir()
    Image.new('RGB', (20, 20)).save(tmp_path/'empty'/'a'/'a.png')
    (tmp_path/'bad.ini').write_text('[training]\nepochs = many\n')
    (tmp_path/'odd.ini').write_text('[training]\nlearning_rate = 1\n')
    (tmp_path/'noini.ini').write_text('epochs = 3\n')
    (tmp_path/'file').write_text('')
    (tmp_path/'items.csv').write_text('file,label\na,b\n')
    for label, n in ('many', 30), ('few', 2):
        (tmp_path/'few'/label).mkdir(parents=True)
        for i in range(n): Image.new('RGB', (20, 20), (i*8, n, 0)).save(tmp_path/'few'/label/f'{i}.png')
    return [
        ([tmp_path/'nowhere'], 'no such folder or file'),
        ([tmp_path/'bare'], 'no sub-folders'),
        ([tmp_path/'one'], 'one class only (only). Without an image of the rare class nothing can be judged'),
        ([tmp_path/'one', '--majority', 'only', '--minority', 'none'], 'use bn-find'),
        ([tmp_path/'empty'], 'class b holds no images'),
        ([tmp_path/'items.csv'], 'column path is missing'),
        ([folder, '--protocol', 'paper'], 'needs 167 images of the minority (10+7+150), there are 20'),
        ([folder, '--protocol', 'some'], 'expected paper or all'),
        ([folder, '--minority', 'bda'], 'Did you mean bad?'),
        ([folder, '--minority', '*', '--majority', '*'], 'both match'),
        ([folder, '--minority', 'bad', '--majority', 'bad'], 'both match'),
        ([folder, '--recipes', 'final_bm'], 'Did you mean final_bn'),
        ([folder, '--recipes', 'focal:gamma=20'], 'recipe focal: gamma = 20.0: expected a number from 0 to 10'),
        ([folder, '--recipes', 'focal:alpha=1'], 'recipe focal: there is no parameter alpha'),
        ([folder, '--recipes', 'plain,final_bn:lr'], 'expected name=value, not lr'),
        ([folder, '--tune', '-1'], '--tune = -1: expected a whole number from 0'),
        ([tmp_path/'few', '--tune', '3'], 'tuning takes three rare subjects'),
        ([tmp_path/'few', '--min-recall', '.9'], '2 rare subjects cannot tell at which threshold'),
        ([folder, '--arch', 'resnet19'], 'Did you mean resnet18'),
        ([folder, '--weights', tmp_path/'none.safetensors'], 'no such file'),
        ([folder, '--weights', tmp_path/'file'], 'cannot be read as safetensors'),
        ([folder, '--settings', tmp_path/'bad.ini'], '[training] epochs = many: expected a whole number'),
        ([folder, '--settings', tmp_path/'odd.ini'], '[training] learning_rate: no such setting'),
        ([folder, '--settings', tmp_path/'noini.ini'], 'not a settings file'),
        ([folder, '--settings', tmp_path/'none.ini'], 'cannot be read'),
        ([folder, '--epochs', '0'], '--epochs = 0: expected a whole number from 1'),
        ([folder, '--seeds', 'ten'], "invalid int value: 'ten'"),
        ([folder, '--head', 'tail'], 'expected one of fastai, plain, linear'),
        ([folder, '--backend', 'cloud'], '--backend cloud: expected serial, process, ray'),
        ([folder, '--device', 'cuda:7'], '--device cuda:7'),
        ([folder, '--device', 'gpu'], '--device gpu'),
        ([folder, '--out', tmp_path/'file'/'out'], 'cannot be written'),
        ([folder, '--colour', 'red'], 'unrecognized arguments'),
    ]


def test_bad_input(command, folder, tmp_path):
    base = QUICK
    for args, message in bad_inputs(folder, tmp_path):
        args = list(map(str, args))
        rest = [o for i in range(0, len(base), 2) if base[i] not in args for o in base[i:i+2]]
        out = [] if '--out' in args else ['--out', str(tmp_path/'never')]
        code, text, err = command('bn-compare', *args, *rest, *out)
        assert code == 1 and message in err, (args, err)
        assert err.strip().count('\n') == 0 and 'Traceback' not in err, (args, err)
        assert not list(tmp_path.glob('never/*.*')), args


@pytest.mark.parametrize('args', [['--help'], ['nowhere']])
def test_help_and_a_mistyped_folder_need_no_torch(args):
    code = ('import sys, bn_imbalance.cli as cli; sys.argv[0] = "bn-compare"\n'
            'try: cli.bn_compare.cli()\n'
            'finally: print([m for m in ("torch", "fastai", "pandas", "numpy") if m in sys.modules])')
    r = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True)
    assert r.stdout.endswith('[]\n')
    assert '--minority' in r.stdout if args == ['--help'] else 'no such folder' in r.stderr


@pytest.mark.slow # starts processes and kills one
@pytest.mark.skipif(not Path('/proc').exists(), reason='looks for processes in /proc')
def test_workers_end_with_the_main_process(folder, tmp_path):
    "Killed outright, it cannot tell them"
    script = Path(sys.executable).parent/'bn-compare'
    args = [folder, *QUICK[:-1], 'process', '--recipes', 'all', '--seeds', '50', '--out', 'o']
    p = subprocess.Popen([script, *args], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 300
    while not list((tmp_path/'o'/'runs').glob('*.json')) and time.time() < deadline: time.sleep(.5)
    children = _descendants(p.pid)
    assert children
    p.kill(); p.wait()
    deadline = time.time() + 120 # a busy machine may need a while
    while any(map(_alive, children)) and time.time() < deadline: time.sleep(.5)
    assert not [c for c in children if _alive(c)]


def _parent(pid):
    try: return int(Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[1])
    except (OSError, ValueError): return 0

def _alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def _descendants(pid):
    found, pids = {pid}, [int(o) for o in os.listdir('/proc') if o.isdigit()]
    for _ in range(4): found |= {o for o in pids if _parent(o) in found}
    return found - {pid}


@pytest.mark.parametrize('name,flags', [
    ('bn-compare', ['--arch', 'resnet999']), ('bn-compare', ['--arch', 'resnet18, resnet999']),
    ('bn-ablate', ['--arch', 'resnet999']), ('bn-fit', ['--arch', 'resnet999.a1_in1k']),
    ('bn-compare', ['--weights', 'nowhere.safetensors'])])
def test_a_mistyped_network_needs_no_torch(name, flags, folder):
    code = (f'import sys, bn_imbalance.cli as cli; sys.argv = {[name, str(folder), *flags]!r}\n'
            f'try: cli.{name.replace("-", "_")}.cli()\nexcept SystemExit as e: print(e)\n'
            'import time; assert "torch" not in sys.modules and time.process_time() < 2')
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert flags[-1].split()[-1] in r.stdout and r.stdout.count('\n') == 1
    assert 'arch' not in flags[0] or 'Did you mean resnet' in r.stdout


def test_no_network_that_there_is_is_refused(monkeypatch):
    "Without what the libraries know when they are loaded"
    import timm, torchvision
    archs = {*timm.list_models(), *timm.list_pretrained()[::20], *torchvision.models.list_models()}
    archs |= set(timm.models._registry._deprecated_models) | {'hf-hub:timm/resnet18', 'self'}
    texts = [*core._model_sources()]
    monkeypatch.setattr(core, '_model_sources', lambda: texts)
    monkeypatch.delitem(sys.modules, 'timm')
    with pytest.raises(BadInput): core.check_arch('resnet999')
    words = set(re.findall(r'\w+', ' '.join(texts))) # a thousand searches take a minute
    assert len(archs) > 1000 and not [a for a in archs if a.split('.')[0] not in words and ':' not in a]
    for a in sorted(archs)[::60] + ['hf-hub:timm/resnet18', 'resnet18.a1_in1k', 'self', '']: core.check_arch(a)
    monkeypatch.setattr(core, '_model_sources', lambda: []) # as where there are no sources to be read
    core.check_arch('resnet999')


def test_the_network_of_an_ablation_is_that_of_the_settings(command, folder, tmp_path, monkeypatch):
    "Whatever lies in PyTorch's cache"
    weights = tmp_path/'hub'/'checkpoints'/'resnet34-b627a593.pth'
    weights.parent.mkdir(parents=True)
    weights.touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    code, text, err = command('bn-ablate', folder, '--factors', 'BN', '--size', 32, '--epochs', 1, '--seeds', 1,
                              '--batch-size', 8, '--backend', 'serial', '--out', tmp_path/'out')
    assert code == 0 and f'{load_settings().arch}, 32 pixels' in text, err
    assert {r.config['settings']['arch'] for r in read_runs(tmp_path/'out')} == {load_settings().arch}


def test_one_file_of_settings():
    "The package's is a file, not a link, so that it is whole on Windows and in archives; on top is a link to it"
    root = Path(__file__).parents[1]
    mine, top = root/'bn_imbalance'/'settings.ini', root/'settings.ini'
    assert mine.is_file() and not mine.is_symlink()
    # where links are not made, Git writes what they point to
    assert top.samefile(mine) if top.is_symlink() else top.read_text() == 'bn_imbalance/settings.ini'


@pytest.mark.slow # starts processes
def test_console_script_end_to_end(folder, tmp_path):
    script = Path(sys.executable).parent/'bn-compare'
    args = [folder, *QUICK[:-1], 'process', '--recipes', 'plain,final_bn', '--out', 'o']
    r = subprocess.run([script, *args], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert len(pd.read_csv(tmp_path/'o'/'results.csv')) == 4 and 'Traceback' not in r.stderr
    r = subprocess.run([script, 'nowhere'], cwd=tmp_path, capture_output=True, text=True)
    assert (r.returncode, r.stderr.count('\n'), r.stdout) == (1, 1, '')


def test_wheel_holds_what_it_needs(tmp_path):
    root = Path(__file__).parents[1]
    pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path, root]
    subprocess.run(pip, check=True, capture_output=True)
    wheel, = tmp_path.glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert 'bn_imbalance/settings.ini' in names and 'bn_imbalance/cli.py' in names
    assert not [n for n in names if n.endswith(('.jpg', '.safetensors', '.pth'))]
    zipfile.ZipFile(wheel).extractall(tmp_path/'site')
    code = 'import bn_imbalance.core as c; print(c.__file__, c.load_settings().epochs)'
    env = {**os.environ, 'PYTHONPATH': str(tmp_path/'site')}
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True,
                         check=True).stdout
    assert str(tmp_path/'site') in out and out.strip().endswith(' 10')
