"""One contract for all recipes; the losses against their definitions; tuning; failed runs."""
import copy, json
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from fastai.data.core import DataLoaders
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data import draw_split, read_data
from bn_imbalance.leaderboard import critical_difference, failures, leaderboard, rank_table, results, verdict
from bn_imbalance.recipes import Recipe, get_recipes, recipes, remix_labels
from bn_imbalance.sweep import compare
from bn_imbalance.training import TensorDL, finish_head, judge, run_together, train_heads
from bn_imbalance.tuning import best_variants, settings_to_try, tune

S = replace(load_settings(), size=32, batch_size=8, epochs=2, arch='resnet18', weights='random', seeds=2,
            recipes=['plain', 'final_bn'])
ALL = list(recipes)


def made_up_dls(n_classes, n_in=12):
    "Three imbalanced sides of well separated classes"
    rng = np.random.default_rng(0)
    def side(counts):
        y = np.repeat(np.arange(len(counts)), counts)
        x = rng.normal(size=(len(y), n_in)) + 2*np.eye(n_in)[y]
        return TensorDL(torch.tensor(x, dtype=torch.float), torch.tensor(y), bs=16, num_workers=0)
    counts = [60, 8, 20][:n_classes]
    return DataLoaders(side(counts), side([20, 6, 10][:n_classes]), side([20, 20, 20][:n_classes]), device='cpu')


def go(name, n_classes):
    dls, recipe, s = made_up_dls(n_classes), recipes[name], replace(S, epochs=4)
    ys = {side: dl.y.numpy() for side, dl in zip(('train', 'valid', 'test'), dls)}
    trained = train_heads(dls, [recipe], s, 0)[recipe.training]
    return judge(recipe, trained, ys, s, 0), finish_head(recipe, trained, ys['train'], s, 0), dls, ys


@pytest.mark.parametrize('n_classes', [2, 3])
@pytest.mark.parametrize('name', ALL)
def test_contract(name, n_classes, tmp_path):
    rec, head, dls, ys = go(name, n_classes)
    assert rec['failed'] is None and rec['history']
    z = np.array(rec['test']['logits'])
    assert z.shape == (20*n_classes, n_classes) and np.isfinite(z).all()
    assert rec['test']['y'] == ys['test'].tolist()
    assert json.loads(json.dumps(rec)) == rec
    assert rec['history'][-1]['test']['auroc'] > .7 # it has learnt something
    assert go(name, n_classes)[0] == rec # same seed, same numbers
    with torch.no_grad(): out = head(dls[2].x)
    if not recipes[name].after: np.testing.assert_allclose(out, z, atol=2e-6)
    save_file(head.state_dict(), tmp_path/'head.safetensors')
    again = copy.deepcopy(head)
    for v in again.state_dict().values(): v.zero_()
    again.load_state_dict(load_file(tmp_path/'head.safetensors'))
    with torch.no_grad(): assert torch.equal(again(dls[2].x), out)


@pytest.mark.parametrize('name', ALL)
def test_recipe_is_documented(name):
    r = recipes[name]
    assert '\n' not in r.doc and 10 < len(r.doc) < 110
    for k, (v, w) in r.params.items():
        assert v is None or w.low <= v <= w.high, (name, k)
        assert w.tune is None or w.low <= w.tune[0] < w.tune[1] <= w.high, (name, k)
        for wrong in (w.high*1.1 + 1, 'much', float('nan')):
            with pytest.raises(BadInput, match=rf'{name}: {k} = .*: expected a number from'): r.set(**{k: wrong})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    from conftest import write_folder
    return read_data(write_folder(tmp_path_factory.mktemp('data')/'images'))


def test_recipes_end_to_end(data):
    "On images, and the same as on features; mixtures of images are not mixtures of features"
    split, chosen = draw_split(data, S, 0), get_recipes('all')
    both = [run_together(split, chosen, replace(S, engine=e), 0) for e in ('features', 'images')]
    for r, fast, slow in zip(chosen, *both):
        assert slow['engine'] == 'images' and slow['failed'] is None
        a, b = np.array(fast['test']['logits']), np.array(slow['test']['logits'])
        assert a.shape == b.shape
        if not r.mix: np.testing.assert_allclose(a, b, atol=5e-3*max(1, a.std()), err_msg=r.name)


rows = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3)
@settings(max_examples=30, deadline=None)
@given(z=st.lists(rows, min_size=1, max_size=8), counts=st.lists(st.integers(1, 2000), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_losses_are_their_formulas(z, counts, seed):
    "Each loss against a loop over images written from the paper's formula"
    y = np.random.default_rng(seed).integers(0, 3, len(z))
    n, prior = np.array(counts, float), np.array(counts)/sum(counts)
    def log_p(z): return z - np.log(np.exp(z - z.max()).sum()) - z.max()
    def mean(f): return np.mean([f(np.array(row, float), c) for row, c in zip(z, y)])
    def loss(name): return recipes[name].part('loss')(counts)(torch.tensor(z, dtype=torch.float), torch.tensor(y)).item()
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


def test_options_in_names():
    r, = get_recipes('ldam_drw:margin=0.3:lr=0.01')
    assert r.params['margin'][0] == .3 and r.params['lr'][0] == .01 and r.base == 'ldam_drw'
    assert get_recipes(r.name) == [r] and r.training != recipes['ldam_drw'].training
    assert recipes['tau_norm'].set(tau=.2).training == recipes['plain'].training


class Broken(nn.Module):
    def forward(self, z, y): return z.mean()*float('nan')
def broken(counts): return Broken()


def test_a_failed_run_is_recorded_and_the_sweep_goes_on(data, tmp_path, monkeypatch, command):
    monkeypatch.setitem(recipes, 'broken', Recipe('broken', 'not a number', loss=broken))
    s = replace(S, recipes=['plain', 'broken', 'final_bn'])
    alone = compare(data, replace(s, recipes=['plain', 'final_bn']), backend='serial', progress=False)
    recs = compare(data, s, out=tmp_path, backend='serial', progress=False)
    assert [r['failed'] is None for r in recs] == [True, True, False, False, True, True]
    assert 'diverged in epoch 1' in recs[2]['failed'] and recs[2]['test'] is None
    for a, b in zip(alone, [r for r in recs if not r['failed']]): assert a['test'] == b['test'] # nobody else is touched
    strip = lambda rs: [{k: v for k, v in r.items() if k != 'seconds'} for r in rs]
    assert strip(compare(data, s, out=tmp_path, progress=False)) == strip(recs)
    assert len(failures(recs)) == 2 and set(results(recs).recipe) == {'plain', 'final_bn'}
    code, text, err = command('bn-report', tmp_path)
    assert code == 0 and 'Failed and left out' in text and 'diverged' in (tmp_path/'report.html').read_text()
    with pytest.raises(BadInput, match='every run failed'): results(recs[2:4])


def test_tuning(data, tmp_path, command):
    assert [r.name for r in settings_to_try(recipes['plain'], 1)] == ['plain']
    for r in get_recipes('all'):
        tries = settings_to_try(r, 7)
        assert len({t.name for t in tries}) == 7 and tries[0] == r, r.name
        assert [get_recipes(t.name)[0] for t in tries] == tries # the names tell everything
    s = replace(S, recipes=['plain', 'tau_norm'], tune=3, tune_seeds=2)
    trials = tune(data, s, out=tmp_path/'a', backend='serial', progress=False)
    assert len(trials) == 12 and set(trials.seed) == {1000, 1001}
    assert trials.equals(tune(data, s, out=tmp_path/'a', progress=False)) # from the store
    best = best_variants(trials)
    mean = trials.groupby(['recipe', 'variant']).score.mean()
    for r, v in best.items(): assert mean[r, v] == mean[r].max()
    out = tmp_path/'out'
    quick = '--arch resnet18 --weights random --size 32 --epochs 2 --seeds 2 --batch-size 8 --backend serial'.split()
    code, text, err = command('bn-compare', data.source, *quick, '--recipes', 'plain,focal', '--tune', '3', '--out', out)
    assert code == 0, err
    assert 'Tuned and not tuned' in (out/'report.html').read_text() and len(pd.read_csv(out/'tuning.csv')) == 18
    code, text, err = command('bn-report', out)
    assert code == 0 and 'Tuned and not tuned' in (out/'report.html').read_text()


def test_overview_of_several(data, tmp_path, command):
    for k, recipe_names in enumerate((['plain', 'weighted', 'final_bn'], ['plain', 'final_bn', 'cosine'])):
        d = replace(data, name=f'data{k}')
        compare(d, replace(S, recipes=recipe_names), out=tmp_path/str(k), backend='serial', progress=False)
    code, text, err = command('bn-report', tmp_path/'0', tmp_path/'1', '--out', tmp_path/'both')
    assert code == 0, err
    ranks = pd.read_csv(tmp_path/'both'/'ranks.csv')
    assert set(ranks.recipe) == {'plain', 'final_bn'} and ranks['rank'].sum() == 3
    code, _, err = command('bn-report')
    assert code == 1 and 'at least one folder' in err


def made_up_results(n=8, **means):
    rng = np.random.default_rng(0)
    rows = [dict(data='d', arch='a', recipe=r, seed=k, f1_minority=np.clip(m + .02*rng.normal(), 0, 1)) for r, m in means.items() for k in range(n)]
    df = pd.DataFrame(rows)
    for m in 'f1_minority_tuned recall_minority precision_minority auroc ap ece brier ece_rare brier_rare f1_rare'.split(): df[m] = df.f1_minority
    return df


def test_verdict_says_what_the_numbers_say():
    text = ' '.join(verdict(made_up_results(plain=.6, good=.9, same=.601, bad=.3)))
    assert text.startswith('Use good') and 'Do not bother with same' in text and 'Worse than plain training: bad' in text
    assert 'ranks the images better' in text and 'Not distinguishable' not in text
    text = ' '.join(verdict(made_up_results(plain=.9, other=.5)))
    assert text.startswith('Use plain') and 'Worse than plain training: other' in text
    assert 'Not distinguishable from it: b' in ' '.join(verdict(made_up_results(a=.9).pipe(lambda d: pd.concat([d, d.assign(recipe='b', f1_minority=d.f1_minority[::-1].to_numpy() - 1e-4)]))))
    assert 'One run is too few' in verdict(made_up_results(1, plain=.6, good=.9))[0]


def test_a_missing_run_takes_nothing_away():
    df = made_up_results(plain=.6, good=.9)
    lb = leaderboard(df.drop(df.index[(df.recipe == 'good') & (df.seed == 3)]))
    assert lb.loc['good', ('runs', '')] == 7 and lb.loc['good', ('vs_plain', 'mean')] == pytest.approx(.3, abs=.03)


def test_ranks():
    df = pd.concat([made_up_results(a=.9, b=.5, c=.1).assign(data=d) for d in 'xyz'])
    t = rank_table(df)
    assert list(t.index) == ['a', 'b', 'c'] and t['rank'].tolist() == [1, 2, 3]
    assert critical_difference(5, 30) == pytest.approx(1.11, abs=.01) # q = 2.728 in Demšar's table
