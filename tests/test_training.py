"""The fast way is the same as the slow way; the stored features; the store."""
import json, os
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from conftest import SMALL, numbers
from safetensors.torch import save_file
from PIL import Image
from torch import nn
from bn_imbalance.training import features
from bn_imbalance.core import BadInput
from bn_imbalance.data.splits import draw_split
from bn_imbalance.training.features import backbone_features, feature_store, forward_batches
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.recipes.losses import weighted_cross_entropy
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.evaluate.runs import read_run, read_runs
from bn_imbalance.training.run import run_config, run_together
from bn_imbalance.training import stack
from bn_imbalance.training.stack import HeadStack, dropout_rates
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.training.engine import recipe_head


def alone(split, recipe, s, seed=0): return run_together(split, [recipe], s, seed)[0]


@pytest.mark.parametrize('arch', ['resnet18', pytest.param('vgg11', marks=pytest.mark.slow), 'tf_efficientnet_lite0',
                                  'mobilenetv3_small_050'])
@pytest.mark.parametrize('recipe', ['plain', 'final_bn_both'])
def test_both_engines_agree(data, arch, recipe):
    s = replace(SMALL, arch=arch)
    split = draw_split(data, s, 0)
    fast, slow = (alone(split, recipes[recipe], replace(s, engine=e)) for e in ('features', 'images'))
    assert (fast.engine, slow.engine) == ('features', 'images')
    for a, b in (fast.valid, slow.valid), (fast.test, slow.test):
        assert a.y.tolist() == b.y.tolist()
        np.testing.assert_allclose(a.logits, b.logits, atol=5e-3*max(1, a.logits.std()))
    for a, b in zip(fast.history, slow.history): assert a['train_loss'] == pytest.approx(b['train_loss'], abs=5e-3)


def test_recipes_together_are_recipes_alone(data):
    split, chosen = draw_split(data, SMALL, 0), get_recipes('all')
    for r, run in zip(chosen, run_together(split, chosen, SMALL, 0)):
        assert numbers([run]) == numbers([alone(split, r, SMALL)]), r.name


TINY = [(1, 1, 2, 1, {}), (3, 1, 2, 2, {}), (2, 1, 64, 4, {}), (3, 1, 2, 1, dict(engine='images')),
        (3, 1, 2, 2, dict(unfreeze=1)), (3, 1, 64, 1, dict(train_bn=True))]


@pytest.mark.parametrize('majority,minority,bs,epochs,more', TINY)
def test_tiny_trainings(data, majority, minority, bs, epochs, more):
    "A step or a few, of all recipes that are trained; those that train a second time as well"
    s = replace(SMALL, arch='mobilenetv3_small_050', batch_size=bs, epochs=epochs, **more)
    split = draw_split(data, s, 0)
    n = {('train', 'majority'): majority, ('train', 'minority'): minority}
    split = pd.concat([t.head(n.get(k, 6)) for k, t in split.groupby(['split', 'label'])])
    chosen = [r for r in get_recipes('all') if r.trains and not (r.augment or r.ensemble_with)]
    if more: chosen = get_recipes('plain,final_bn,ldam_drw,lws') # end to end takes longer
    for r in run_together(split, chosen, s, 0):
        assert not r.failed and r.history and np.isfinite(r.test.logits).all(), r.recipe


def half_dropout(head):
    for m in head.modules():
        if isinstance(m, nn.Dropout): m.p /= 2
    return head


def test_other_dropout_rates_are_not_stacked(data):
    split, others = draw_split(data, SMALL, 0), get_recipes('plain,weighted,final_bn')
    chosen = [others[0], Recipe('half', 'dropout halved', head=half_dropout), *others[1:],
              Recipe('half_weighted', 'the same, weighted', head=half_dropout, loss=weighted_cross_entropy)]
    together = run_together(split, chosen, SMALL, 0)
    for r, run in zip(chosen, together): assert numbers([run]) == numbers([alone(split, r, SMALL)]), r.name
    assert (together[0].test.logits != together[1].test.logits).any() # the rates do make a difference
    heads = [recipe_head(r, 8, 2, SMALL, 0) for r in chosen[:2]]
    assert dropout_rates(heads[0]) == (.25, .5) and dropout_rates(heads[1]) == (.125, .25)
    with pytest.raises(BadInput, match='other dropout rates'): HeadStack(heads)


def test_without_the_private_operator(data, monkeypatch):
    "`onednn_linear` makes it quicker and nothing else; a PyTorch that lacks it trains the same heads"
    def f1():
        runs = compare(data, big, execution=Execution(progress=False))
        return [r.history[-1]['test']['f1_minority'] for r in runs]
    big = replace(SMALL, seeds=1) # a fastai head, whose layer of 512 x 1024 is large enough
    quick = f1()
    def gone(*args): raise AttributeError('_linear_pointwise')
    monkeypatch.setattr(stack, 'has_onednn_linear', lambda: False)
    monkeypatch.setattr(stack, 'onednn_linear', gone)
    np.testing.assert_allclose(f1(), quick, atol=.05)
    monkeypatch.setattr(stack, 'has_onednn_linear', lambda: True)
    with pytest.raises(AttributeError): HeadStack([torch.nn.Linear(512, 512)])(torch.randn(4, 512)) # it is used


def test_missing_features_are_computed_again(data):
    items = data.items
    good, store = backbone_features(items, SMALL, 'cpu'), feature_store(SMALL, 'cpu')
    gone = items.digest.iloc[5]
    assert gone in store.get(items.digest)
    with store.db: store.db.execute('delete from features where key = ?', (gone,))
    assert gone not in store.get([gone]) and len(store.get(items.digest)) == len(items) - 1
    torch.testing.assert_close(backbone_features(items, SMALL, 'cpu').x, good.x, rtol=0, atol=0)
    store.db.close()
    whole = store.path.read_bytes()
    for junk in b'junk', whole[:5000] + os.urandom(3000):
        store.path.write_bytes(junk)
        with pytest.raises(BadInput, match='cannot be used .* Delete it') as e: backbone_features(items, SMALL, 'cpu')
        assert str(store.path) in str(e.value) and '\n' not in str(e.value)
        store.path.unlink() # as it says
        torch.testing.assert_close(backbone_features(items, SMALL, 'cpu').x, good.x, rtol=0, atol=0)


def test_features_do_not_depend_on_what_was_there(data):
    part, s = data.items.iloc[7:30:3], replace(SMALL, size=40)
    some, whole = backbone_features(part, s), backbone_features(data.items, s)
    torch.testing.assert_close(some[part.digest], whole[part.digest], rtol=1e-5, atol=1e-5)


def test_anything_that_changes_features_changes_the_store(tmp_path, monkeypatch):
    def path(device='cpu', **changes): return feature_store(replace(SMALL, **changes), device).path
    paths = [path(), path('cuda'), path('mps'), path(size=64), path(arch='resnet34')]
    paths.append(path(arch='tf_efficientnet_lite0'))
    for k in range(2):
        torch.manual_seed(k)
        save_file(nn.Linear(1, 1).state_dict(), tmp_path/f'{k}.safetensors')
        paths.append(path(weights=str(tmp_path/f'{k}.safetensors')))
    with monkeypatch.context() as m:
        m.setattr(features, 'DECODING', features.DECODING + 1)
        paths.append(path())
    with monkeypatch.context() as m:
        m.setattr(features, 'version', lambda name: '0')
        paths.append(path())
    assert len(set(paths)) == len(paths)
    assert path() == paths[0] and path('cuda:1') == path('cuda') # the type of the device counts, not its number


@pytest.mark.slow # starts processes
def test_same_table_from_both_backends(data, tmp_path):
    here, there = (compare(data, SMALL, execution=Execution(tmp_path/b, b, progress=False))
                   for b in ('serial', 'process'))
    assert numbers(here) == numbers(there) and len(here) == 4


def test_same_table_after_a_stop(data, tmp_path):
    execution = Execution(tmp_path, 'serial', progress=False)
    whole = compare(data, SMALL, execution=execution)
    (tmp_path/'runs/plain-seed1.json').unlink()
    cut = tmp_path/'runs/final_bn-seed0.json'
    cut.write_text(cut.read_text()[:500]) # a record cut off in the middle
    assert numbers(compare(data, SMALL, execution=execution)) == numbers(whole)
    assert not list((tmp_path/'runs').glob('*.damaged'))
    assert numbers(read_runs(tmp_path)) == numbers(sorted(whole, key=lambda r: (r.recipe, r.seed)))


def test_a_store_is_not_mixed(data, tmp_path):
    execution = Execution(tmp_path, progress=False)
    compare(data, SMALL, execution=execution)
    with pytest.raises(BadInput, match='settings.epochs = 2, now it is 3'):
        compare(data, replace(SMALL, epochs=3), execution=execution)
    assert len(list((tmp_path/'runs').iterdir())) == 4


def test_runs_are_json_and_hold_what_judges_them(data, tmp_path):
    run, = compare(data, replace(SMALL, seeds=1, recipes=['final_bn']), execution=Execution(tmp_path, progress=False))
    path, = (tmp_path/'runs').iterdir()
    again = read_run(path)
    assert again.metrics() == run.metrics()
    assert again.settings['epochs'] == 2 and again.versions['torch'] and len(again.history) == 2
    assert json.loads(path.read_text())['config'] == run.config


def test_batches_are_padded_and_tell_what_cannot_be_read(tmp_path):
    "The last batch has the shape of the others; a file that is no image has an error, not an output"
    files, shapes = [tmp_path/f'{i}.png' for i in range(5)], []
    for i, f in enumerate(files):
        Image.fromarray(np.full((8, 8, 3), 50*i, np.uint8)).save(f)
    files[3].write_text('no image')
    class Means(torch.nn.Module):
        def forward(self, x):
            shapes.append(tuple(x.shape))
            return x.mean((2, 3)), x.amax((2, 3))
    batches = list(forward_batches(Means(), files, 8, ((0,)*3, (1,)*3), 3, 'cpu'))
    assert shapes == [(3, 3, 8, 8)]*2
    assert [[bool(error) for *_, error in rows] for rows, _ in batches] == [[False]*3, [True, False]]
    means = torch.cat([out[0] for _, out in batches])[:, 0]
    assert torch.allclose(means*255, torch.tensor([0., 50, 100, 200]), atol=1e-4)
    assert [out for _, out in forward_batches(Means(), files[3:4], 8, ((0,)*3, (1,)*3), 3, 'cpu')] == [None]


def test_the_record_says_whether_a_recipe_is_one_class():
    "`one_class` stands in the configuration of a one-class recipe and of a sum with one, only there"
    def about(name): return run_config({}, get_recipes(name)[0], SMALL, 0)['recipe']
    assert about('knn')['one_class'] is True and about('plain+knn')['one_class'] is True
    assert 'one_class' not in about('plain')


def test_settings_of_a_comparison_are_not_those_of_a_run():
    "Runs are found again whatever else is compared; the position of an ablation is part of its recipes"
    changes = dict(recipes=['plain'], seeds=9, tune=3, tuned=['none'], factors=['BN'], position='features',
                   prevalence=.1, cost_miss=2., cost_alarm=1., min_recall=.9)
    plain = recipes['plain']
    assert run_config({}, plain, replace(SMALL, **changes), 0) == run_config({}, plain, SMALL, 0)
