"""One contract for all recipes; the losses against their definitions; failed runs; what the tables say."""
import copy, re, subprocess, sys
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from conftest import SMALL, numbers, write_folder
from fastai.data.core import DataLoaders
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from bn_imbalance.core import BadInput
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import SPLITS, draw_split
from bn_imbalance.evaluate.leaderboard import failures, summarize, rank_table, results
from bn_imbalance.training.loaders import TensorDL
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.recipes.registry import USUAL, ENSEMBLES as ADDED, get_recipes
from bn_imbalance.recipes.sampling import remix_labels
from bn_imbalance.evaluate.runs import Run, read_run, run_json
from bn_imbalance.training.run import evaluate_run, run_together
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.training.engine import finish_head, train_heads
from bn_imbalance.evaluate.answer import make_answer

SUMS = ['final_bn+knn', 'logistic_regression+mahalanobis', 'plain+patchcore']
ALL = [*recipes, *SUMS]


def made_up_dls(n_classes, n_in=12):
    "Three imbalanced sides of well separated classes, whose features go together as those of images do"
    rng = np.random.default_rng(0)
    mix = .5*rng.normal(size=(4, n_in))
    def side(counts):
        y = np.repeat(np.arange(len(counts)), counts)
        x = rng.normal(size=(len(y), 4)) @ mix + .5*rng.normal(size=(len(y), n_in)) + 2*np.eye(n_in)[y]
        return TensorDL(torch.tensor(x, dtype=torch.float), torch.tensor(y), bs=16, num_workers=0)
    counts = [60, 8, 20][:n_classes]
    return DataLoaders(side(counts), side([20, 6, 10][:n_classes]), side([20, 20, 20][:n_classes]), device='cpu')


def made_up_patches(x):
    "Four places per image (n, 4, 12); what is odd about an image is odd at one of them"
    rng = torch.Generator().manual_seed(1)
    return torch.cat([x[:, None], .3*torch.randn(len(x), 3, x.shape[1], generator=rng)], 1).half()


def go(name, n_classes):
    dls, (recipe,), s = made_up_dls(n_classes), get_recipes(name), replace(SMALL, epochs=4)
    ys = {side: dl.y.numpy() for side, dl in zip(SPLITS, dls)}
    trained = train_heads(dls, [recipe], s, 0)[recipe.training]
    trained.patches = lambda side: made_up_patches(trained.x(side))
    config = dict(data={}, recipe=dict(name=name), settings={}, seed=0, optimizer='any')
    run = Run(config, [1], **evaluate_run(recipe, trained, ys, s, 0))
    return run, finish_head(recipe, trained, ys['train'], s, 0), dls, ys


@pytest.mark.parametrize('n_classes', [2, 3])
@pytest.mark.parametrize('name', ALL)
def test_contract(name, n_classes, tmp_path):
    recipe, = get_recipes(name)
    if recipe.one_class and n_classes > 2:
        with pytest.raises(BadInput, match='not of which'): get_recipes(name, n_classes)
        if not recipe.ensemble_with:
            with pytest.raises(BadInput, match='--multiclass'): go(name, n_classes)
        return
    run, head, dls, ys = go(name, n_classes)
    assert run.failed is None and run.history
    z = run.test.logits
    assert z.shape == (20*n_classes, n_classes) and np.isfinite(z).all()
    assert run.test.y.tolist() == ys['test'].tolist()
    (tmp_path/'run.json').write_text(run_json(run))
    assert numbers([read_run(tmp_path/'run.json')]) == numbers([run])
    assert run.history[-1]['test']['auroc'] > .7 # it has learnt something
    assert numbers([go(name, n_classes)[0]]) == numbers([run]) # same seed, same numbers
    seen = {'features': dls[2].x, 'patches': made_up_patches(dls[2].x)}
    x = [seen[o] for o in recipe.needs]
    if len(x) == 1: x, = x
    with torch.no_grad(): out = head(x)
    if not recipe.adjust_logits: np.testing.assert_allclose(out, z, atol=2e-6)
    save_file(head.state_dict(), tmp_path/'head.safetensors')
    again = copy.deepcopy(head)
    for v in again.state_dict().values(): v.zero_()
    again.load_state_dict(load_file(tmp_path/'head.safetensors'))
    with torch.no_grad(): assert torch.equal(again(x), out)


@pytest.mark.parametrize('name', ALL)
def test_recipe_is_documented(name):
    r, = get_recipes(name)
    assert '\n' not in r.doc and 10 < len(r.doc) < 120
    for k, (v, w) in r.params.items():
        assert v is None or w.low <= v <= w.high, (name, k)
        assert w.tune is None or w.low <= w.tune[0] < w.tune[1] <= w.high, (name, k)
        for wrong in (w.high*1.1 + 1, 'much', float('nan')):
            with pytest.raises(BadInput, match=rf'{re.escape(name)}: {k} = .*: expected a (whole )?number'):
                r.set(**{k: wrong})


@pytest.fixture(scope='module')
def data(tmp_path_factory): return read_data(write_folder(tmp_path_factory.mktemp('data')/'images'))


@pytest.mark.slow # every recipe on images, one network after the other
def test_recipes_end_to_end(data):
    "On images, and the same as on features; mixtures of images are not mixtures of features"
    split, chosen = draw_split(data, SMALL, 0), get_recipes('all')
    both = [run_together(split, chosen, replace(SMALL, engine=e), 0) for e in ('features', 'images')]
    for r, fast, slow in zip(chosen, *both):
        assert slow.engine == 'images' and slow.failed is None
        a, b = fast.test.logits, slow.test.logits
        assert a.shape == b.shape
        if not r.mix: np.testing.assert_allclose(a, b, atol=5e-3*max(1, a.std()), err_msg=r.name)


def test_a_sum_adds_margins():
    "Its margin is that of its halves, the first in units of its spread on the training majority"
    run, head, dls, ys = go('final_bn+knn', 2)
    a, b = (go(n, 2)[1] for n in ('final_bn', 'knn'))
    with torch.no_grad(): (xt, ma), (_, mb) = [(o(dls[0].x), o(dls[2].x)) for o in (a, b)]
    gap = lambda z: (z[:, 1] - z[:, 0]).numpy()
    low, high = np.quantile(gap(xt)[ys['train'] == 0], [.25, .75])
    z = run.test.logits
    np.testing.assert_allclose(z[:, 1] - z[:, 0], gap(ma)*1.349/(high - low) + gap(mb), atol=1e-4)


rows = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3)
@settings(max_examples=30, deadline=None)
@given(z=st.lists(rows, min_size=1, max_size=8), counts=st.lists(st.integers(1, 2000), min_size=3, max_size=3),
       seed=st.integers(0, 99))
def test_losses_are_their_formulas(z, counts, seed):
    "Each loss against a loop over images written from the paper's formula"
    y = np.random.default_rng(seed).integers(0, 3, len(z))
    n, prior = np.array(counts, float), np.array(counts)/sum(counts)
    def log_p(z): return z - np.log(np.exp(z - z.max()).sum()) - z.max()
    def mean(f): return np.mean([f(np.array(row, float), c) for row, c in zip(z, y)])
    def loss(name):
        return recipes[name].part('loss')(counts)(torch.tensor(z, dtype=torch.float), torch.tensor(y)).item()
    eff = (1 - .9999)/(1 - .9999**n); eff = eff/eff.sum()*3
    w = n.sum()/(3*n)
    spread = (n - n.min())/max(1, n.max() - n.min())
    smooth = .3*np.sin(spread*np.pi/2)
    delta = .5*(n.min()/n)**.25
    expected = {
        'plain': mean(lambda z, c: -log_p(z)[c]),
        'weighted': sum(-w[c]*log_p(np.array(r, float))[c] for r, c in zip(z, y))/w[y].sum(),
        'weighted_effective': sum(-eff[c]*log_p(np.array(r, float))[c] for r, c in zip(z, y))/eff[y].sum(),
        'focal': mean(lambda z, c: -(1 - np.exp(log_p(z)[c]))**2*log_p(z)[c]),
        'cb_focal': mean(lambda z, c: -eff[c]*(1 - np.exp(log_p(z)[c]))**2*log_p(z)[c]),
        'balanced_softmax': mean(lambda z, c: -log_p(z + np.log(prior))[c]),
        'cdt': mean(lambda z, c: -log_p(z/(n.max()/n)**.2)[c]),
        'ldam_drw': mean(lambda z, c: -log_p(z - 30*delta*(np.arange(3) == c))[c]),
        'label_aware_smoothing': mean(lambda z, c: -(1 - smooth[c])*log_p(z)[c] - smooth[c]*log_p(z).mean())}
    for name, value in expected.items(): assert loss(name) == pytest.approx(value, rel=1e-4, abs=1e-5), name


@given(lam=st.floats(.5, 1, width=32), i=st.integers(0, 1), j=st.integers(0, 1))
def test_remix_leans_to_the_rarer_class(lam, i, j):
    n = torch.tensor([1000., 10.])
    out = remix_labels(torch.tensor([lam]), n[[i]]/n[[j]], 3, .5).item()
    if i == 1 and j == 0: assert out == (1 if 1 - lam < .5 else pytest.approx(lam))
    else: assert out == pytest.approx(lam)


class Broken(nn.Module):
    def forward(self, z, y): return z.mean()*float('nan')
def broken(counts): return Broken()


def test_a_failed_run_is_recorded_and_the_sweep_goes_on(data, tmp_path, monkeypatch, command):
    monkeypatch.setitem(recipes, 'broken', Recipe('broken', 'not a number', loss=broken))
    s, quiet = replace(SMALL, recipes=['plain', 'broken', 'final_bn']), Execution(None, 'serial', progress=False)
    alone, execution = compare(data, SMALL, execution=quiet), replace(quiet, out=tmp_path)
    runs = compare(data, s, execution=execution)
    assert [r.failed is None for r in runs] == [True, True, False, False, True, True]
    assert 'diverged in epoch 1' in runs[2].failed and runs[2].test is None and runs[2].valid is None
    assert numbers(alone) == numbers([r for r in runs if not r.failed]) # nobody else is touched
    assert numbers(compare(data, s, execution=Execution(tmp_path, progress=False))) == numbers(runs) # from the store
    assert len(failures(runs)) == 2 and set(results(runs).recipe) == {'plain', 'final_bn'}
    code, text, err = command('bn-report', tmp_path)
    assert code == 0 and 'Failed and left out' in text and 'diverged' in (tmp_path/'report.html').read_text()
    with pytest.raises(BadInput, match='every run failed'): results(runs[2:4])


def test_overview_of_several(data, tmp_path, command):
    for k, names in enumerate((['plain', 'weighted', 'final_bn'], ['plain', 'final_bn', 'cosine'])):
        execution = Execution(tmp_path/str(k), 'serial', progress=False)
        compare(replace(data, name=f'data{k}'), replace(SMALL, recipes=names), execution=execution)
    code, text, err = command('bn-report', tmp_path/'0', tmp_path/'1', '--out', tmp_path/'both')
    assert code == 0, err
    ranks = pd.read_csv(tmp_path/'both'/'ranks.csv')
    assert set(ranks.recipe) == {'plain', 'final_bn'} and ranks['rank'].sum() == 3
    code, _, err = command('bn-report')
    assert code == 1 and 'at least one folder' in err


def made_up_results(n=8, **means):
    rng = np.random.default_rng(0)
    df = pd.DataFrame([dict(data='d', arch='a', recipe=r, seed=k, f1_minority=np.clip(m + .02*rng.normal(), 0, 1))
                       for r, m in means.items() for k in range(n)])
    others = 'f1_minority_tuned recall_minority precision_minority auroc ap ece brier ece_rare brier_rare f1_rare'
    return df.assign(**{m: df.f1_minority for m in others.split()})


def test_an_answer_says_what_the_numbers_say():
    "From a table of runs alone, too"
    def said(df): return make_answer(summarize(df))
    a = said(made_up_results(plain=.6, good=.9, same=.601, bad=.3))
    assert a.take == 'good.' and 'good has F1 0.88' in a.expect and 'plain training F1 0.6' in a.expect and not a.next
    assert a.numbers['standing'] == dict(good='recommended', plain='worse', same='worse', bad='worse')
    assert a.numbers['p_better']['good'] > .99 > .01 > a.numbers['p_better']['bad']
    assert said(made_up_results(plain=.9, other=.5)).take.startswith('plain: no remedy is seen to be better')
    df = made_up_results(a=.9)
    near = df.assign(recipe='b', f1_minority=df.f1_minority - 1e-4)
    assert 'Practically as good: b.' in said(pd.concat([df, near])).take
    wild = df.assign(recipe='b', f1_minority=df.f1_minority[::-1].to_numpy() - 1e-4)
    assert 'Too close to call: b.' in said(pd.concat([df, wild])).take


def test_a_missing_run_takes_nothing_away():
    df = made_up_results(plain=.6, good=.9)
    lb = summarize(df.drop(df.index[(df.recipe == 'good') & (df.seed == 3)]))
    assert lb['good']['runs', ''] == 7 and lb['good']['vs_plain', 'mean'] == pytest.approx(.3, abs=.03)


def test_ranks():
    df = pd.concat([made_up_results(a=.9, b=.5, c=.1).assign(data=d) for d in 'xyz'])
    t = rank_table(df)
    assert list(t.index) == ['a', 'b', 'c'] and t['rank'].tolist() == [1, 2, 3]


def test_the_registry_does_not_depend_on_imports():
    "Whoever imports the recipes has all of them, whatever else is imported"
    code = ('from bn_imbalance.recipes.registry import get_recipes\n'
            'print(len(get_recipes("usual")), len(get_recipes("all")))\n'
            'import bn_imbalance.training.engine\nprint(len(get_recipes("usual")), len(get_recipes("all")))')
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    first, then = r.stdout.splitlines()
    assert first == then == f'{len(USUAL)} {len(recipes) + len(ADDED)}'
