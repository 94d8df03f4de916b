"""Fitting a model: any recipe, trained on every image, cross-validated; resumed; refused early."""
import json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from bn_imbalance.deploy import fitting
from bn_imbalance.core import load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.export import Deployed, check_pixels
from bn_imbalance.deploy.fitting import fit, recommended_recipe
from bn_imbalance.deploy.model import load_model, model_card
from bn_imbalance.models.backbones import load_network
from bn_imbalance.deploy.predict import model_logits
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.evaluate.runs import Store, read_runs
from bn_imbalance.training.sweep import compare
from conftest import write_folder
from deployed import ARCH, FLAGS, SMALL, execution, images, one_line # noqa: F401, fixtures


@pytest.mark.parametrize('name,head', [
    ('logistic_regression', 'fastai'), ('ldam_drw', 'linear'), ('lws', 'plain'), ('final_bn_both', 'fastai'),
    ('logit_adjusted_tuned', 'linear'), ('focal:gamma=1', 'plain'), ('knn:k=3', 'fastai'), ('mahalanobis', 'fastai'),
    ('final_bn+knn', 'fastai'), ('padim', 'fastai'), ('patchcore', 'linear'), ('final_bn+padim', 'linear')])
def test_any_recipe_can_be_deployed(name, head, images, tmp_path):
    s = load_settings(**SMALL | dict(head=head, seeds=1))
    model = fit(read_data(images), name, s, execution=execution(tmp_path/'m'))
    again = load_model(tmp_path/'m')
    x = check_pixels(again, n=6)
    np.testing.assert_array_equal(model_logits(again, x), model_logits(model, x))
    with torch.no_grad(): z = Deployed(again)(x.float()/255)[0]
    np.testing.assert_allclose(z, model_logits(again, x), atol=1e-4, rtol=1e-4)


def test_a_trained_backbone_is_saved(images, tmp_path):
    s = load_settings(**SMALL | dict(train_bn=True, seeds=1, epochs=1))
    model = fit(read_data(images), 'final_bn', s, execution=execution(tmp_path/'m'))
    mean = next(k for k in model.net[0].state_dict() if k.endswith('running_mean'))
    before = dict(zip(model.net[0].state_dict(), load_network(ARCH, 'random').state_dict().values()))
    assert not torch.equal(model.net[0].state_dict()[mean], before[mean])
    assert torch.equal(load_model(tmp_path/'m').net[0].state_dict()[mean], model.net[0].state_dict()[mean])


@pytest.mark.parametrize('protocol', ['paper', 'all'])
def test_trained_on_every_image(images, protocol, tmp_path, monkeypatch):
    "Whatever the protocol of the comparison; its estimate is of networks that had fewer, and says how many"
    sizes = dict(train_majority=20, train_minority=3, valid_majority=5, valid_minority=2, test_majority=5,
                 test_minority=2)
    data, s = replace(read_data(images), protocol=protocol), load_settings(**SMALL | sizes)
    compare(data, s, execution=execution(tmp_path/'c'), recipes=[recipes['final_bn']])
    name, found, known, _ = recommended_recipe(tmp_path/'c', s)
    seen, real = [], fitting.train_on
    monkeypatch.setattr(fitting, 'train_on', lambda items, *args: seen.append(items) or real(items, *args))
    model = fit(data, name, load_settings(**SMALL | sizes), execution=execution(tmp_path/'m'), known=known)
    assert sorted(seen[0].path) == sorted(data.items.path)
    a = model.about
    assert {k: a['trained_on'][k] for k in ('majority', 'minority')} == data.counts
    assert a['data']['protocol'] == 'all' and {r.data['protocol'] for r in read_runs(tmp_path/'m')} == {'all'}
    splits = pd.concat(map(pd.read_csv, (tmp_path/'m'/'splits').iterdir())).query('split == "train"') # of two seeds
    n = (splits.label.value_counts()/2).round().astype(int).to_dict()
    assert a['runs_trained_on'] == n and 23 <= n['majority'] <= 25 and 6 <= n['minority'] <= 8 # three fifths
    prevalence = a['decision']['prevalences'][1] # of the networks and of the threshold
    assert prevalence == pytest.approx(12/52, abs=.06)
    card = ' '.join(model_card(model).split())
    assert 'trained on all images: 40 of the majority, 12 of the minority' in card
    assert f'about {n["majority"]} of the majority and {n["minority"]} of the minority' in card


def test_recipes_that_cannot_be_deployed(images, command, monkeypatch, tmp_path):
    adjust_logits = Recipe('odd_after', 'squares', adjust_logits=lambda counts, y, z: lambda z: z**2)
    head = Recipe('odd_head', 'a layer of its own', head=lambda head: torch.nn.Sequential(*head, torch.nn.Softplus()))
    for r, message in (adjust_logits, 'more than a threshold'), (head, 'a layer Softplus'):
        monkeypatch.setitem(recipes, r.name, r)
        one_line(command('bn-fit', images, '--recipe', r.name, '--out', tmp_path/'m', *FLAGS), f'recipe {r.name}',
                 message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', [b'two/ba\xffd', b'tw\xffo/bad', b'two/ba\td'])
def test_names_that_no_model_can_hold(name, command, tmp_path):
    "A model is read back only if its names are texts without control characters: others are refused first"
    write_folder(tmp_path/'images', 12, 8)
    where = os.fsdecode(os.fsencode(tmp_path) + b'/' + name)
    os.makedirs(os.path.dirname(where))
    try: os.rename(tmp_path/'images'/'bad', where)
    except OSError: pytest.skip('this file system refuses such names')
    os.rename(tmp_path/'images'/'good', os.path.join(os.path.dirname(where), 'good'))
    one_line(command('bn-fit', os.path.dirname(where), '--out', tmp_path/'m', *FLAGS), 'a model cannot store a name')
    assert sorted(p.name for p in tmp_path.iterdir())[0] == 'images' and not list(tmp_path.glob('m*'))


def test_fit_is_complete_or_absent_and_resumes(images, command, monkeypatch, tmp_path):
    out, real = tmp_path/'m', fitting.train_on
    args = 'bn-fit', images, '--out', out, '--min-recall', '.9', *FLAGS
    def stopped(*args): raise KeyboardInterrupt
    monkeypatch.setattr(fitting, 'train_on', stopped)
    one_line(command(*args), 'rerun the command to resume')
    runs = sorted((tmp_path/'m.part'/'runs').iterdir())
    stamps = [p.stat().st_mtime_ns for p in runs]
    assert not out.exists() and len(runs) == 6 # two of each member of the blend
    monkeypatch.setattr(fitting, 'train_on', real)
    code, text, err = command(*args)
    assert code == 0 and str(out/'card.md') in text and not (tmp_path/'m.part').exists(), err
    assert [p.stat().st_mtime_ns for p in sorted((out/'runs').iterdir())] == stamps # not done again
    assert 'a recall of 0.9 or more' in (out/'card.md').read_text()
    one_line(command(*args), 'exists already')


def test_fit_what_compare_recommends(images, command, tmp_path):
    c = tmp_path/'c'
    command('bn-compare', images, '--recipes', 'plain,weighted,plain_threshold', '--out', c, *FLAGS)
    first = pd.read_csv(c/'results.csv').groupby('recipe').goal_value.mean().idxmax()
    code, text, err = command('bn-fit', images, '--compare', c, '--out', tmp_path/'m')
    assert code == 0, err
    about = json.loads((tmp_path/'m'/'model.json').read_text())
    assert about['network']['arch'] == ARCH and about['settings']['epochs'] == 2 and about['evaluated_on']['seeds'] == 2
    assert about['recipe']['name'] == first != 'plain_threshold'
    run = f'{about["recipe"]["trained_as"]}-seed0.json'
    assert (tmp_path/'m'/'runs'/run).read_text() == (c/'runs'/run).read_text() # taken, not repeated
    said, card = json.loads((c/'answer.json').read_text()), (tmp_path/'m'/'card.md').read_text()
    for sentence in [said['take'], said['expect'], said['sure'], *said['beware'], said['next']]: assert sentence in card
    assert model_card(load_model(tmp_path/'m')) == card
    other = write_folder(tmp_path/'other', 20, 10)
    one_line(command('bn-fit', other, '--compare', c, '--out', tmp_path/'m2'), 'made from other images')


def test_fit_takes_the_first_for_the_goal(images, command, monkeypatch, tmp_path):
    "Not one of which no model can be kept; without a goal F1 counts, at a threshold of its own"
    odd = Recipe('odd', 'a layer of its own', head=lambda head: torch.nn.Sequential(*head, torch.nn.Softplus()))
    monkeypatch.setitem(recipes, 'odd', odd)
    c, costs = tmp_path/'c', ['--prevalence', '.01', '--cost-miss', '20', '--cost-alarm', '1']
    command('bn-compare', images, '--recipes', 'plain,final_bn,odd', '--tuned', 'none', '--out', c, *FLAGS)
    skill = dict(plain=(2.5, -5), final_bn=(.5, 0), odd=(9, -9)) # separation of the classes, shift of the margins
    for r in read_runs(c):
        (far, by), rng = skill[r.recipe], np.random.default_rng(r.seed)
        def made(side): # logits of the majority are 0
            return replace(side, logits=np.c_[0*side.y, far*(side.y - .5) + by + rng.normal(size=len(side.y))])
        Store(c).put(replace(r, valid=made(r.valid), test=made(r.test)))
    first = lambda: pd.read_csv(c/'results.csv').groupby('recipe').f1_minority.mean().idxmax()
    code, text, err = command('bn-report', c)
    assert code == 0 and first() == 'final_bn' and 'Take    odd' in text, err
    for args, out in ([], tmp_path/'f1'), (costs, tmp_path/'costs'):
        code, text, err = command('bn-fit', images, '--compare', c, *args, '--out', out)
        assert code == 0 and 'Passed over, though ahead: recipe odd' in ' '.join(text.split()), err
        assert json.loads((out/'model.json').read_text())['recipe']['name'] == 'plain'


def test_a_first_seed_that_failed(images, command, tmp_path):
    "Pages and recommendations come from the others"
    c, costs = tmp_path/'c', ['--prevalence', '.01', '--cost-miss', '20', '--cost-alarm', '1']
    command('bn-compare', images, '--recipes', 'plain,final_bn', '--tuned', 'none', '--out', c, *FLAGS)
    for r in read_runs(c):
        if r.seed == 0: Store(c).put(replace(r, valid=None, test=None, history=[], failed='the training diverged'))
    name, s, runs, _ = recommended_recipe(c, load_settings())
    assert name in ('plain', 'final_bn') and s.seeds == 2 and len(runs) == 4
    for flags in [], costs:
        code, out, err = command('bn-report', c, *flags)
        assert code == 0 and 'the training diverged' in out and not err, err
    code, out, err = command('bn-fit', images, '--compare', c, '--out', tmp_path/'m')
    assert code == 0 and json.loads((tmp_path/'m'/'model.json').read_text())['evaluated_on']['seeds'] == 1, err


BAD_FIT = [(['--recipe', 'final_bm'], 'Did you mean final_bn'), (['--cost-miss', '3'], 'belong together'),
           (['--min-recall', '95'], '--min-recall = 95'), (['--prevalence', '0'], '--prevalence 0'),
           (['--compare', 'nowhere'], 'no stored runs'), (['--arch', 'resnet19'], 'Did you mean resnet18'),
           (['--cost-miss', 'much'], 'invalid float value'), (['--minority', 'bda'], 'Did you mean bad')]


@pytest.mark.parametrize('args,message', BAD_FIT)
def test_bad_fit(args, message, images, command, tmp_path):
    one_line(command('bn-fit', images, *FLAGS, *args, '--out', tmp_path/'m'), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow # every command in a process of its own
def test_own_images(tmp_path):
    "The example, as a user runs it"
    from bn_imbalance import cli
    bin_ = tmp_path/'bin'
    bin_.mkdir()
    for name in 'bn-data', 'bn-compare', 'bn-fit', 'bn-predict', 'bn-export':
        f = name.replace('-', '_')
        assert hasattr(cli, f)
        (bin_/name).write_text(f'#!{sys.executable}\nimport sys; sys.argv[0] = {name!r}\nfrom bn_imbalance import cli\n'
                               f'if __name__ == "__main__": cli.{f}.cli()\n')
        (bin_/name).chmod(0o755)
    (bin_/'python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n') # a link would lose the virtual environment
    (bin_/'python').chmod(0o755)
    root = Path(__file__).parents[1]
    env = {**os.environ, 'PATH': f'{bin_}:{os.environ["PATH"]}', 'PYTHONPATH': str(root)}
    r = subprocess.run(['bash', root/'examples'/'own_images.sh', tmp_path/'work'], capture_output=True, text=True,
                       env=env)
    assert r.returncode == 0, r.stderr[-2000:]
    t = pd.read_csv(tmp_path/'work'/'predictions.csv')
    eights = t.path.str.contains('new') & (t.path.str.extract(r'(\d+)\.png')[0].astype(int) > 9)
    assert (t.label[eights] == 'eight').mean() > .5 and (tmp_path/'work'/'model.onnx').exists()
