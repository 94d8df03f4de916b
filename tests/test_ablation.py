"""The switches, the effects, the three engines, the backends, and what happens when something breaks."""
import os, shutil, signal, tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from conftest import COMMON, SMALL, numbers
from hypothesis import given, strategies as st
from torch import nn
from bn_imbalance.training import run as runs
from bn_imbalance.core import BadInput
from bn_imbalance.data.splits import draw_split
from bn_imbalance.recipes.ablation import grid, switched
from bn_imbalance.core import ray_cluster
from bn_imbalance.training.loaders import imbalanced_dls, read_pixels
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.evaluate.runs import read_runs
from bn_imbalance.training.run import run_together
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.evaluate.switches import SWITCHES, config_id, config_switches
from bn_imbalance.training.engine import choose_engine, fit_learner, make_learner


@pytest.fixture(scope='module')
def local_ray():
    "Ray on this machine, started once"
    pytest.importorskip('ray')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('PYTHONPATH', str(Path(__file__).parent)) # its workers import this file
        with ray_cluster(2): yield


@pytest.fixture(params=['process', 'ray'])
def backend(request):
    if request.param == 'ray': request.getfixturevalue('local_ray')
    return request.param


@given(st.sets(st.sampled_from(list(SWITCHES))))
def test_numbers_of_configurations(on):
    r = switched(on)
    assert set(config_switches(r.name)) == on and 0 <= config_id(on) < 64
    assert config_id(on) == sum((k not in on)*2**(5 - i) for i, k in enumerate(SWITCHES))
    assert (r.final_bn, bool(r.mix), bool(r.augment)) == ('logits' if 'BN' in on else None, 'MX' in on, 'DA' in on)
    assert r.train_bn == ('UF' in on)
    assert r.params['wd'][0] == (None if 'WD' in on else 0)


@given(st.sets(st.sampled_from(list(SWITCHES))))
def test_mixup_of_the_paper_is_of_images(on):
    "The registered recipe mixes features of a fixed body, and says so; the switch mixes images, as the paper does"
    r = switched(on)
    assert r.on_images == ('MX' in on)
    if 'MX' in on and 'UF' not in on: assert choose_engine(r, SMALL) == 'forward'
    assert not recipes['mixup'].on_images and choose_engine(recipes['mixup'], SMALL) == 'features'
    assert 'features on frozen backbones' in recipes['mixup'].doc and 'mixup' in recipes['remix'].doc
    assert choose_engine(recipes['mixup'], replace(SMALL, engine='images')) == 'images' # where images are mixed


def test_forward_engine_is_end_to_end(data):
    "Heads side by side on a body that runs forward only, against whole networks one by one"
    split = draw_split(data, SMALL, 0)
    some = [r for r in grid() if 'UF' not in config_switches(r.name)][::2]
    assert {choose_engine(r, SMALL) for r in some} == {'features', 'forward'}
    both = [run_together(split, some, replace(SMALL, engine=e), 0) for e in ('auto', 'images')]
    for r, fast, slow in zip(some, *both):
        assert slow.engine == 'images'
        a, b = fast.test.logits, slow.test.logits
        np.testing.assert_allclose(a, b, atol=5e-3*max(1, a.std()), err_msg=r.name)
        for x, y in zip(fast.history, slow.history): assert x['train_loss'] == pytest.approx(y['train_loss'], abs=5e-3)


def test_configurations_together_are_configurations_alone(data):
    split, some = draw_split(data, SMALL, 0), grid(['BN', 'WL', 'MX', 'WD'])
    for r, run in zip(some, run_together(split, some, SMALL, 0)):
        assert numbers([run]) == numbers(run_together(split, [r], SMALL, 0)), r.name


def test_switches_do_something(data):
    split, each = draw_split(data, SMALL, 0), [switched([]), *(switched([k]) for k in SWITCHES)]
    z = [run.test.logits.tobytes() for r in each for run in run_together(split, [r], SMALL, 0)]
    assert len(set(z)) == 7


def test_body_learns_only_when_it_shall(data):
    split = draw_split(data, SMALL, 0)
    for on, changed in (['UF'], {'weight', 'bias', 'running_mean', 'running_var'}), ([], set()):
        learn = make_learner(split, switched(on), SMALL, 0)
        before = {k: v.clone() for k, v in learn.model[0].state_dict().items()}
        fit_learner(learn, SMALL, 0)
        after = learn.model[0].state_dict()
        kinds = {k.split('.')[-1] for k, v in after.items() if v.is_floating_point() and not torch.equal(v, before[k])}
        assert kinds == changed
        convs = {n for n, m in learn.model[0].named_modules() if isinstance(m, nn.Conv2d)}
        assert all(torch.equal(after[f'{n}.weight'], before[f'{n}.weight']) for n in convs)


def test_pixels_are_those_of_the_datablock(data):
    split = draw_split(data, SMALL, 0)
    px = read_pixels(split, SMALL.size)
    valid = split[split.split == 'valid']
    xb, _ = next(iter(imbalanced_dls(split, SMALL).valid))
    assert torch.equal((px[valid.digest[:len(xb)]]/255).float(), xb.as_subclass(torch.Tensor))


def test_images_too_large_for_memory(data, monkeypatch):
    monkeypatch.setattr('bn_imbalance.training.loaders.virtual_memory', lambda: SimpleNamespace(available=1000))
    with pytest.raises(BadInput, match='need 0.0 GB of memory, 0.0 are free. Give a smaller --size'):
        read_pixels(data.items, 32)


@pytest.mark.slow # starts processes, and Ray
def test_same_table_from_all_backends(data, tmp_path, backend):
    some = grid(['BN', 'WL', 'WD']) + [switched(['DA', 'BN']), switched(['UF'])]
    here = compare(data, SMALL, execution=Execution(None, 'serial', progress=False), recipes=some)
    there = compare(data, SMALL, execution=Execution(tmp_path/'out', backend, workers=2, progress=False), recipes=some)
    assert numbers(here) == numbers(there) and len(list((tmp_path/'out'/'runs').glob('*.json'))) == 20


DEADLY = Path(tempfile.gettempdir())/'bn_imbalance-deadly' # known to workers that were started long before

class Deadly(nn.Module): # a loss that breaks, as often as there is a file to take away
    def forward(self, z, y):
        for f in sorted(DEADLY.glob('*'))[:1]:
            f.unlink()
            if f.name.startswith('kill'): os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('a library gave up\nwith a long story')
        return nn.functional.cross_entropy(z, y)

def deadly(counts): return Deadly()


@pytest.mark.slow # kills processes
@pytest.mark.parametrize('kind,times', [('kill', 1), ('kill', 9), ('raise', 1), ('raise', 9)])
def test_broken_jobs_are_tried_twice(data, tmp_path, backend, kind, times):
    shutil.rmtree(DEADLY, ignore_errors=True)
    DEADLY.mkdir()
    for i in range(times): (DEADLY/f'{kind}{i}').touch()
    s = replace(SMALL, seeds=1, engine='images', size=16)
    some = [switched([]), Recipe('deadly', 'a loss that breaks', loss=deadly), switched(['BN'])]
    found = compare(data, s, execution=Execution(tmp_path/'out', backend, workers=2, progress=False), recipes=some)
    why = {r.recipe: r.failed for r in found}
    assert why['none'] is None and why['BN'] is None
    if times == 1: assert why['deadly'] is None
    else: assert ('process died twice' if kind == 'kill' else 'RuntimeError: a library gave up (') in why['deadly']
    assert len(list(DEADLY.glob('*'))) == max(0, times - 2)
    assert numbers(read_runs(tmp_path/'out')) == numbers(sorted(found, key=lambda r: r.recipe))


def test_a_job_that_raises_is_tried_twice_here_too(data, monkeypatch):
    real, tries = runs.train, []
    def train(engine, split, recipes, *args):
        tries.append([r.name for r in recipes])
        if len(tries) < fails: raise RuntimeError('a library gave up\nwith a long story')
        return real(engine, split, recipes, *args)
    monkeypatch.setattr(runs, 'train', train)
    for fails, why in (2, None), (3, 'RuntimeError: a library gave up (test_ablation.py, line '):
        tries.clear()
        run, = compare(data, replace(SMALL, seeds=1), recipes=[switched([])],
                       execution=Execution(None, 'serial', progress=False))
        assert tries == [['none'], ['none']]
        assert run.failed is None if why is None else run.failed.startswith(why)


def test_out_of_memory_halves_the_batch_once(data, monkeypatch, capsys):
    real, sizes = runs.train, []
    def train(engine, split, recipes, s, *args):
        sizes.append(s.batch_size)
        if s.batch_size > fits: raise torch.OutOfMemoryError('CUDA out of memory')
        return real(engine, split, recipes, s, *args)
    monkeypatch.setattr(runs, 'train', train)
    split, fits = draw_split(data, SMALL, 0), 4
    run, = run_together(split, [switched(['BN'])], SMALL, 0)
    assert sizes == [8, 4] and run.note == 'out of memory: batches of 4 instead of 8' and run.failed is None
    assert 'batches of 4 instead of 8' in capsys.readouterr().err
    fits = 2
    run, = compare(data, replace(SMALL, seeds=1), recipes=[switched(['BN'])],
                   execution=Execution(None, 'serial', progress=False))
    assert 'OutOfMemoryError: CUDA out of memory' in run.failed


def test_command(folder, tmp_path, command):
    code, out, err = command('bn-ablate', folder, '--factors', 'BN,DA', *COMMON, '--out', tmp_path/'out')
    assert code == 0, err
    assert '4 configurations, 2 seeds' in out and 'Effect of each switch' in out
    df = pd.read_csv(tmp_path/'out'/'results.csv')
    assert len(df) == 8 and {'id', 'BN', 'WD', 'f1_best_test_epoch', 'epochs_to_best'} <= set(df)
    page = (tmp_path/'out'/'report.html').read_text()
    assert 'configurations of 2 switches' in page
    (tmp_path/'out'/'report.html').unlink()
    code, out, err = command('bn-report', tmp_path/'out')
    assert code == 0 and 'Effect of each switch' in out and (tmp_path/'out'/'report.html').exists()


@pytest.mark.parametrize('args,said', [
    (['--factors', 'BN,XX'], '--factors XX: there is no such switch'),
    (['--position', 'middle'], '--position = middle: expected one of logits, features, both'),
    (['--backend', 'slurm'], '--backend slurm: expected serial, process, ray'),
    (['--workers', '0'], '--workers 0: expected a whole number from 1'),
    (['--device', 'cuda'], '--device cuda: cannot be used here'),
])
def test_command_says_what_is_wrong(folder, tmp_path, command, args, said):
    if '--device' in args and torch.cuda.is_available(): pytest.skip('there is a GPU')
    code, out, err = command('bn-ablate', folder, '--arch', 'resnet18', '--weights', 'random', '--size', 32,
                             '--out', tmp_path/'out', *args)
    assert code == 1 and said in err and len(err.strip().splitlines()) == 1


def test_stores_are_not_mixed(folder, tmp_path, command):
    args = [*COMMON, '--seeds', 1, '--epochs', 1, '--factors', 'BN', '--out', tmp_path/'out']
    assert command('bn-ablate', folder, *args)[::2] == (0, '')
    code, _, err = command('bn-ablate', folder, *args, '--position', 'features')
    assert code == 1 and 'recipe.final_bn = logits, now it is features' in err
