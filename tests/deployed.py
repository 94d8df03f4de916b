"A small model for several test files: its images, its folder, a copy to damage"
import json, shutil
from pathlib import Path
import pytest
from bn_imbalance.core import load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.model import with_checksum
from bn_imbalance.training.sweep import Execution
from conftest import write_folder

ARCH = 'mobilenetv3_small_050'
SMALL = dict(arch=ARCH, weights='random', size=32, epochs=2, seeds=2, batch_size=8)
FLAGS = [o for k, v in SMALL.items() for o in (f'--{k.replace("_", "-")}', str(v))] + ['--backend', 'serial']
COSTS = Goal(cost_miss=20, cost_alarm=1)


def execution(out=None): return Execution(out, 'serial', progress=False)


@pytest.fixture(scope='module')
def images(tmp_path_factory): return write_folder(tmp_path_factory.mktemp('images')/'two', 40, 12)


@pytest.fixture(scope='module')
def saved(images, tmp_path_factory):
    out = tmp_path_factory.mktemp('model')/'model'
    fit(read_data(images), 'final_bn', load_settings(**SMALL), COSTS, execution(out))
    return out


@pytest.fixture
def copy(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'copy'))


def one_line(result, *parts):
    code, out, err = result
    assert code == 1 and err.strip().count('\n') == 0 and 'Traceback' not in err, err
    assert all(p in err for p in parts), err


def rewritten(folder, change):
    "Change a model.json as somebody would who can make the checksum fit"
    about = json.loads((folder/'model.json').read_text())
    change(about)
    (folder/'model.json').write_text(json.dumps(with_checksum(about)))
