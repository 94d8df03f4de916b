"A small model for several test files: its images, its folder, a copy to be damaged"
import json, shutil
from pathlib import Path
import pytest
from bn_imbalance.core import load_settings
from bn_imbalance.data import read_data
from bn_imbalance.decide import Goal
from bn_imbalance.fit import fit_model
from bn_imbalance.model import checksum
from bn_imbalance.sweep import How
from conftest import write_folder

ARCH = 'mobilenetv3_small_050'
SMALL = dict(arch=ARCH, weights='random', size=32, epochs=2, seeds=2, batch_size=8)
FLAGS = [o for k, v in SMALL.items() for o in (f'--{k.replace("_", "-")}', str(v))] + ['--backend', 'serial']
COSTS = Goal(cost_miss=20, cost_alarm=1)


def how(out=None): return How(out, 'serial', progress=False)


@pytest.fixture(scope='module')
def images(tmp_path_factory): return write_folder(tmp_path_factory.mktemp('images')/'two', 40, 12)


@pytest.fixture(scope='module')
def saved(images, tmp_path_factory):
    out = tmp_path_factory.mktemp('model')/'model'
    fit_model(read_data(images), 'final_bn', load_settings(**SMALL), COSTS, how(out))
    return out


@pytest.fixture
def copy(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'copy'))


def one_line(result, *parts):
    code, out, err = result
    assert code == 1 and err.strip().count('\n') == 0 and 'Traceback' not in err, err
    assert all(p in err for p in parts), err


def rewritten(folder, change):
    "A model.json with something changed by somebody who knows how to make the checksum fit"
    about = json.loads((folder/'model.json').read_text())
    change(about)
    (folder/'model.json').write_text(json.dumps(about | {'checksum': checksum(about)}))
