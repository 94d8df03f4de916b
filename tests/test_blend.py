"""The blend: the mean of calibrated log odds in comparisons and in a model, chosen unless another is better."""
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.export import check_pixels
from bn_imbalance.deploy.fitting import check_portable, default_recipe, fit
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import model_logits
from bn_imbalance.evaluate.decision import out_of_fold
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import rank_recipes, split_overlap
from bn_imbalance.evaluate.runs import Run, read_runs
from bn_imbalance.evaluate.thresholds import MAX_LOG_ODDS, bayes_threshold, fit_log_odds, soft_clip
from bn_imbalance.data.splits import draw_split
from bn_imbalance.metrics import margin, mean_interval, precision_recall_f1
from bn_imbalance.recipes.registry import BLEND, get_recipes
from bn_imbalance.training.run import blend_runs, for_network, run_together
from bn_imbalance.training.sweep import compare
from deployed import COSTS, FLAGS, SMALL, execution, images # noqa: F401, fixtures
from test_controls import made_up

S = load_settings(**SMALL)
blend, = get_recipes('blend')


@pytest.fixture(scope='module')
def compared(images): # noqa: F811
    return compare(read_data(images), S, execution=execution(), recipes=[blend])


def test_a_comparison_has_the_members_too(compared):
    assert list(dict.fromkeys(r.recipe for r in compared)) == [*BLEND, 'blend']
    assert compared[-1].config['recipe']['blend_of'] == list(BLEND)
    for r in compared:
        assert len(r.test.group) == len(r.test.y) and not set(r.test.group) & set(r.valid.group)


def test_no_tested_subject_helps_to_calibrate(compared):
    "Other answers for them in other runs change nothing"
    first = compared[0].test.group
    def other(side): # another answer for the subjects that seed 0 is tested on
        z = side.logits.copy()
        z[np.isin(side.group, first)] += np.random.default_rng(0).normal(0, 9, z[np.isin(side.group, first)].shape)
        return replace(side, logits=z)
    changed = [r if r.seed == 0 else replace(r, valid=other(r.valid), test=other(r.test)) for r in compared]
    assert any((a.valid.logits != b.valid.logits).any() for a, b in zip(changed, compared))
    configs = [r.config for r in compared if r.recipe == 'blend']
    before, after = (blend_runs(blend, runs, configs) for runs in (compared, changed))
    np.testing.assert_array_equal(before[0].test.logits, after[0].test.logits)
    assert (before[1].test.logits != after[1].test.logits).any()


def test_none_outvotes_the_others(compared):
    "A member that extrapolates to -1000 on an image unlike training moves the blend by little"
    wild = []
    for r in compared:
        z = r.test.logits.copy()
        if r.recipe == BLEND[0]: z[0] = 1000, 0
        wild.append(replace(r, test=replace(r.test, logits=z)))
    configs = [r.config for r in compared if r.recipe == 'blend']
    before, after = (blend_runs(blend, o, configs) for o in (compared, wild))
    for a, b in zip(before, after): assert abs(margin(a.test.logits - b.test.logits)[0]) <= 2*MAX_LOG_ODDS/len(BLEND)


def test_a_single_run(images): # noqa: F811
    "Calibrated on its validation images alone"
    data = read_data(images)
    r, plain = run_together(draw_split(data, S, 0), get_recipes('blend, plain'), S, 0)
    assert (r.recipe, plain.recipe) == ('blend', 'plain') and np.isfinite(r.test.logits).all() and r.history


def test_a_stopped_comparison_goes_on(images, tmp_path): # noqa: F811
    data, s = read_data(images), replace(S, recipes=['plain', 'blend'])
    compare(data, replace(s, seeds=1), execution=execution(tmp_path))
    compare(data, s, execution=execution(tmp_path))
    again, new = read_runs(tmp_path), compare(data, s, execution=execution())
    for r in new:
        same, = [o for o in again if (o.recipe, o.seed) == (r.recipe, r.seed)]
        np.testing.assert_array_equal(same.test.logits, r.test.logits)


@pytest.mark.parametrize('changes', [dict(arch='vit_tiny_patch16_224', size=224), dict(unfreeze=1)])
def test_networks_without_patches(changes):
    "The members that need patches are left out"
    mine = for_network(blend, replace(S, **changes))
    assert [r.name for r in mine.blend_of] == list(BLEND[:2]) and 'padim' not in mine.doc
    if 'unfreeze' in changes:
        with pytest.raises(BadInput, match='share one frozen backbone'): check_portable(blend, replace(S, **changes))
        assert default_recipe(replace(S, **changes)) == 'final_bn'
    else: check_portable(blend, replace(S, **changes))
    assert (default_recipe(S), default_recipe(S, 3)) == ('blend', 'final_bn')


def test_the_model_is_the_mean_of_its_members(images): # noqa: F811
    data = read_data(images)
    runs = compare(data, S, 'all', execution(), recipes=[blend])
    model, x = fit(data, None, S, COSTS, execution()), torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8)
    splits, z = {k: draw_split(data, S, k, 'all') for k in range(S.seeds)}, []
    for name in BLEND:
        oof = out_of_fold([r for r in runs if r.recipe == name], splits)
        n = [oof.group[oof.y == c].nunique() for c in (0, 1)]
        scale, shift = fit_log_odds(oof.y, margin(oof[['z0', 'z1']].to_numpy()), n)
        mine = margin(model_logits(fit(data, name, S, COSTS, execution()), x))
        z.append(soft_clip(scale*mine + shift, MAX_LOG_ODDS))
    prior = np.log(12/40)
    assert margin(model_logits(model, x)) == pytest.approx(np.mean(z, 0) + prior, abs=2e-3)
    assert model.about['recipe']['name'] == 'blend'
    heads = model.net[1][1][0].heads
    assert [type(h[0]).__name__ for h in heads] == ['Linear', 'BatchNorm1d', 'KNearest', 'PatchGaussian'] # each once


def test_from_the_command_line(images, command, tmp_path): # noqa: F811
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('captum')
    m, t = tmp_path/'m', tmp_path/'t.csv'
    code, _, err = command('bn-fit', images, '--out', m, '--cost-miss', 20, '--cost-alarm', 1, *FLAGS)
    assert code == 0 and 'Recipe `blend`: mean of the calibrated log odds' in (m/'card.md').read_text(), err
    code, _, err = command('bn-predict', m, images, '--csv', t, '--explain', tmp_path/'maps')
    assert code == 0 and len(pd.read_csv(t)) == 52 and len(list((tmp_path/'maps').glob('[!.]*'))) == 52, err
    code, _, err = command('bn-export', m, '--onnx', tmp_path/'m.onnx')
    assert code == 0, err
    x, model = check_pixels(load_model(m), n=8), load_model(m)
    z, = ort.InferenceSession(tmp_path/'m.onnx').run(['logits'], {'pixels': x.numpy().astype('float32')/255})
    np.testing.assert_allclose(z, model_logits(model, x), atol=1e-4, rtol=1e-4)


def test_it_is_recommended_unless_another_is_better():
    def board(**skills):
        return rank_recipes([made_up(n, k, seed) for n, k in skills.items() for seed in range(4)])
    lb = board(plain=1.5, lucky=2.55, blend=2.5)
    assert lb.recommended == 'blend'
    assert board(plain=1.5, better=6, blend=2.5).recommended == 'better'
    assert board(plain=1.5, better=3).recommended == 'better'


def test_bayes_rule():
    "With costs the threshold is where the calibrated odds are those of the costs, at every prevalence"
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [4000, 400])
    m = 2*y + rng.normal(size=len(y)) # log odds at equal prevalence: 2m - 2
    def at(m, p, goal): return bayes_threshold(y, m, goal, p, fit_log_odds(y, m, [4000, 400]))
    for p in .01, .1, .5:
        want = (np.log(1/20) - np.log(p/(1 - p)) + 2)/2
        assert at(m, p, Goal(cost_miss=20, cost_alarm=1)) == pytest.approx(want, abs=.15)
    noise = np.random.default_rng(1).permutation(m) # without a ranking everything is one class
    assert (-m > at(-m, .5, Goal(cost_miss=20, cost_alarm=1))).all() and np.isfinite(at(noise, .1, Goal()))


def difference(x, y, train, test):
    "Accuracy of a nearest-mean classifier on one column minus that of one on three"
    def hits(k):
        a, b = (x[train][y[train] == c][:, :k].mean(0) for c in (0, 1))
        return ((x[test][:, :k] - (a + b)/2) @ (b - a) > 0) == y[test]
    return hits(1).mean() - hits(3).mean()


def test_the_interval_over_overlapping_splits_covers():
    "Nadeau and Bengio (2003): Student's interval over splits of one data set is too narrow, the corrected one is not"
    rng, covered = np.random.default_rng(0), {0.: [], 1/3: []}
    def draw(n):
        y = rng.integers(0, 2, n)
        return rng.normal(size=(n, 3)) + np.c_[y, 0*y, 0*y], y
    true = np.mean([difference(*draw(2060), slice(60), slice(60, None)) for _ in range(500)])
    for _ in range(200):
        data, orders = draw(100), [rng.permutation(100) for _ in range(10)]
        d = [difference(*data, o[:60], o[80:]) for o in orders]
        for overlap, inside in covered.items():
            _, low, high = mean_interval(d, overlap=overlap)
            inside.append(low <= true <= high)
    assert np.mean(covered[0.]) < .9 and .93 <= np.mean(covered[1/3]) <= 1


def test_the_interval_of_the_papers_protocol_covers():
    "Ten rare images for training and 150 to test, drawn from 450: neither Student's interval nor the test fraction"
    def run(protocol, **settings):
        data = dict(protocol=protocol, images=dict(majority=1450, minority=450))
        return Run(dict(recipe=dict(name='any'), seed=0, data=data, settings=settings), [1], None, None)
    sizes = dict(train_minority=10, test_minority=150, valid_fifths=1, test_fifths=1)
    overlap = split_overlap(run('paper', **sizes))
    assert overlap == pytest.approx(.086/(1 - .086), abs=1e-3) and split_overlap(run('all', **sizes)) == 1/3
    assert split_overlap(run('paper')) == 0
    rng, covered = np.random.default_rng(0), {0.: [], overlap: [], .5: []}
    def draw(n0, n1):
        y = np.repeat([0, 1], [n0, n1])
        return rng.normal(size=(n0 + n1, 8)) + np.outer(y, [1.5, .7, *[0]*6]), y
    def f1_difference(x, y, train, test):
        def f1(k):
            a, b = (x[train][y[train] == c][:, :k].mean(0) for c in (0, 1))
            return precision_recall_f1(y[test] == 1, (x[test][:, :k] - (a + b)/2) @ (b - a) > 0)[2]
        return f1(1) - f1(8)
    parts = slice(0, 210), slice(210, None)
    def fresh(): # another draw of everything
        (x, y), (u, v) = draw(200, 10), draw(1500, 1500)
        return f1_difference(np.r_[x, u], np.r_[y, v], *parts)
    true = np.mean([fresh() for _ in range(1500)])
    for _ in range(150):
        (x, y), d = draw(1450, 450), []
        for _ in range(10):
            a, b = rng.permutation(1450), 1450 + rng.permutation(450)
            d.append(f1_difference(x, y, np.r_[a[:200], b[:10]], np.r_[a[200:350], b[10:160]]))
        for o, inside in covered.items():
            _, low, high = mean_interval(d, overlap=o)
            inside.append(low <= true <= high)
    assert np.mean(covered[0.]) < .93 <= np.mean(covered[overlap]) <= .98 < np.mean(covered[.5])


def test_every_recipe_has_one_standing():
    "Recommended, practically as good, worse or undecided; probabilities as scipy's t distribution gives them"
    skills = dict(plain=2, blend=4, final_bn=4.1, lda=1)
    lb = rank_recipes([made_up(name, skill, k) for name, skill in skills.items() for k in range(8)])
    assert set(lb.standing) <= {'recommended', 'practically as good', 'worse', 'undecided'}
    assert lb.standing[lb.recommended] == 'recommended' and (lb.standing == 'recommended').sum() == 1
    assert lb.standing['lda'] == lb.standing['plain'] == 'worse'
    d = (v := lb.seeds()).blend - v.plain
    t = stats.t(len(d) - 1, d.mean(), d.std()*(1/len(d) + lb.overlap)**.5)
    assert lb.p_better('blend') == pytest.approx(t.sf(0)) and lb.probabilities('blend', 'plain') == pytest.approx(
        (t.sf(.01), t.cdf(.01) - t.cdf(-.01), t.cdf(-.01)))
    assert lb.p_better('blend', 'final_bn') == pytest.approx(1 - lb.p_better('final_bn', 'blend'))
    assert 0 <= lb.optimism < .1


def test_with_one_run_nothing_is_decided():
    lb = rank_recipes([made_up('plain', 2, 0), made_up('final_bn', 4, 0)])
    assert lb.standing.tolist() == ['recommended', 'undecided'] and lb.optimism is None
    assert np.isnan(lb.p_better('final_bn'))
