"""The fast way is the same as the slow way, alone or together, here or in processes."""
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from conftest import SMALL, numbers
from torch import nn
from bn_imbalance.core import BadInput
from bn_imbalance.data.splits import draw_split
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.recipes.losses import weighted_cross_entropy
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.run import run_together
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


@pytest.mark.slow # starts processes
def test_same_table_from_both_backends(data, tmp_path):
    here, there = (compare(data, SMALL, execution=Execution(tmp_path/b, b, progress=False))
                   for b in ('serial', 'process'))
    assert numbers(here) == numbers(there) and len(here) == 4
