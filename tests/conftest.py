import json, os, sys
from dataclasses import replace
import hypothesis, numpy as np, pytest
from PIL import Image
from bn_imbalance.core import load_settings
from bn_imbalance.evaluate.runs import run_json

SMALL = load_settings(size=32, batch_size=8, epochs=2, arch='resnet18', weights='random', seeds=2,
                      recipes=['plain', 'final_bn'])
COMMON = '--arch resnet18 --weights random --size 32 --epochs 2 --seeds 2 --batch-size 8 --backend serial'.split()
QUICK = ['--tuned', 'none', *COMMON] # for bn-compare

os.environ.setdefault('RAY_worker_niceness', '0') # or they wait while other tests compute

# a busy machine is no failure
hypothesis.settings.register_profile('patient', deadline=None,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('patient')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Building the whole site takes a minute"
    for o in items:
        if 'built' in o.fixturenames: o.add_marker('slow')


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    "Tests neither use nor fill the user's cache"
    os.environ['BN_IMBALANCE_CACHE'] = str(tmp_path_factory.mktemp('cache'))


def write_folder(root, n_good=40, n_bad=20, size=32):
    "A class-per-folder tree: bright and dark noise"
    rng = np.random.default_rng(0)
    for label, n, level in ('good', n_good, 150), ('bad', n_bad, 80):
        (root/label).mkdir(parents=True)
        for i in range(n):
            pixels = (level + 60*rng.random((size, size, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root/label/f'{i:03d}.jpg')
    return root


def blobs(path, n, level, seed=0):
    "Images of noise with a square, brighter by `level`"
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    for i in range(n):
        a = rng.normal(100, 15, (40, 40, 3))
        a[8:20, 8:20] += level
        Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(path/f'{i}.png')


def numbers(runs):
    "All that runs hold but the time they took, to be compared to the last bit"
    return [json.loads(run_json(replace(r, seconds=0))) for r in runs]


@pytest.fixture
def folder(tmp_path): return write_folder(tmp_path/'images')


@pytest.fixture
def data(folder):
    from bn_imbalance.data.items import read_data
    return read_data(folder)


@pytest.fixture
def command(capsys, monkeypatch):
    "Run a command in this process as its console script does: exit code, what it printed, the error"
    from bn_imbalance import cli
    def run(name, *args):
        monkeypatch.setattr('sys.argv', [name, *map(str, args)])
        code = 0
        try: getattr(cli, name.replace('-', '_')).cli()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
            if isinstance(e.code, str): print(e.code, file=sys.stderr)
        out = capsys.readouterr()
        return code, out.out, out.err
    return run
