"""Our numbers against scikit-learn's and against brute force."""
import re
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from conftest import COMMON, QUICK
from hypothesis import given, settings, strategies as st
from scipy.special import expit
from sklearn import metrics as sk
from test_controls import made_up
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import rank_recipes
from bn_imbalance.metrics import (
    METRICS, Metric, best_threshold, minority_metrics, precision_recall_f1, register_metric, prevalence_weights)
from bn_imbalance.deploy.model import load_model, model_card
from bn_imbalance.evaluate.runs import Run, Predictions
from bn_imbalance.evaluate.answer import make_answer
from bn_imbalance.evaluate.prevalence import evaluate_at

margins = st.lists(st.integers(-12, 12).map(lambda i: i/2), min_size=4, max_size=40) # many ties


@settings(max_examples=200, deadline=None)
@given(margins, st.randoms(use_true_random=False))
def test_best_cut_is_best(m, rnd):
    y = np.array([0, 1] + [rnd.randint(0, 1) for _ in m[2:]])
    m = np.array(m)
    got = sk.f1_score(y, m > best_threshold(y, m))
    tried = [sk.f1_score(y, m >= t, zero_division=0) for t in np.unique(m)]
    assert got == pytest.approx(max(tried))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y, z = np.r_[0, 1, rng.integers(0, 2, 60)], rng.normal(0, 3, (62, 2))
    yv, zv = np.r_[0, 1, rng.integers(0, 2, 30)], rng.normal(0, 3, (32, 2))
    got, pred, p = minority_metrics(y, z, yv, zv), z.argmax(1), expit(z[:, 1] - z[:, 0])
    assert got['f1_minority'] == pytest.approx(sk.f1_score(y, pred, zero_division=0))
    assert got['f1_majority'] == pytest.approx(sk.f1_score(y, pred, pos_label=0, zero_division=0))
    assert got['precision_minority'] == pytest.approx(sk.precision_score(y, pred, zero_division=0))
    assert got['recall_minority'] == pytest.approx(sk.recall_score(y, pred))
    assert got['auroc'] == pytest.approx(sk.roc_auc_score(y, p))
    assert got['ap'] == pytest.approx(sk.average_precision_score(y, p))
    assert got['brier'] == pytest.approx(sk.brier_score_loss(y, p))
    w = np.where(y == 1, yv.mean()/y.mean(), (1 - yv.mean())/(1 - y.mean())) # as rare as on validation
    assert got['brier_rare'] == pytest.approx(sk.brier_score_loss(y, p, sample_weight=w))
    assert got['f1_rare'] == pytest.approx(sk.f1_score(y, pred, sample_weight=w, zero_division=0))
    assert got['f1_minority_tuned'] == pytest.approx(sk.f1_score(y, p > got['threshold'], zero_division=0))
    assert 0 <= got['ece'] <= 1


@given(st.lists(st.tuples(st.booleans(), st.floats(-9, 9)), min_size=4, max_size=40), st.floats(.01, .99))
def test_as_scikit_learn_has_it(pairs, prevalence):
    y, m = np.array([True, False] + [a for a, _ in pairs]), np.array([1., -1.] + [b for _, b in pairs])
    w = prevalence_weights(y.astype(int), prevalence)
    assert w[y].sum()/w.sum() == pytest.approx(prevalence) and w.sum() == pytest.approx(len(y))
    p, r, f, _ = sk.precision_recall_fscore_support(y, m > 0, average='binary', zero_division=0)
    assert precision_recall_f1(y, m > 0) == pytest.approx((p, r, f))
    assert precision_recall_f1(y, m > 0, w)[2] == pytest.approx(sk.f1_score(y, m > 0, sample_weight=w))
    n_rare = min(max(round(100*prevalence), 1), 99) # of 100 on validation
    valid = (np.arange(100) < n_rare).astype(int)
    got = minority_metrics(y.astype(int), np.stack([0*m, m], 1), valid, np.zeros((100, 2)))
    w = prevalence_weights(y.astype(int), n_rare/100)
    assert got['brier'] == pytest.approx(sk.brier_score_loss(y, expit(m)))
    assert got['brier_rare'] == pytest.approx(sk.brier_score_loss(y, expit(m), sample_weight=w))


def test_no_number_for_readers_has_an_exponent():
    goals = [Goal(1_234_567, 1, prevalence=.9999), Goal(.00001, 1, prevalence=.9999),
             Goal(min_recall=.9999999, prevalence=.9999)]
    runs = [made_up(n, k, seed) for n, k in dict(plain=1.5, better=3).items() for seed in range(3)]
    for goal in goals:
        lb = rank_recipes(runs, goal)
        text = ' '.join([str(goal), lb.label, *make_answer(lb, runs[0]).parts.values()])
        assert not re.search(r'\d(\.\d+)?e[+-]?\d', text) and '99.99 %' in lb.label, text


@pytest.fixture
def own_metrics():
    "One metric of a cut and one of the ranking, registered for a test"
    mine = [Metric('specificity', 'specificity', rates=lambda prevalence, recall, alarms, goal: 1 - alarms),
            Metric('log_score', 'log score', lower_is_better=True, format='count',
                   ranks=lambda y, m, w: sk.log_loss(y, expit(m), sample_weight=w))]
    yield [register_metric(m) for m in mine]
    for m in mine: METRICS.pop(m.name)


def test_a_metric_of_somebody_else_is_seen_everywhere(own_metrics, folder, command, tmp_path, monkeypatch):
    "Registered once, it is in the tables of bn-compare, in the report, on the card; with a goal, told for its share"
    monkeypatch.setenv('COLUMNS', '300') # a narrow screen lacks the last columns
    for goal in [], ['--prevalence', '.02', '--cost-miss', '20', '--cost-alarm', '1']:
        out = tmp_path/f'compared{len(goal)}'
        code, text, err = command('bn-compare', folder, '--recipes', 'plain,final_bn', '--out', out, *QUICK, *goal,
                                  '--verbose')
        page, df = (out/'report.html').read_text(), pd.read_csv(out/'results.csv')
        assert code == 0, err
        for m in own_metrics:
            assert f' {m.label}' in text and page.count(f'>{m.label}</th>') == 2 and m.name in df
        if goal: np.testing.assert_allclose(df.goal_specificity, 1 - df.goal_alarms/980)
    code, text, err = command('bn-fit', folder, *COMMON, '--out', tmp_path/'model')
    card = (tmp_path/'model'/'card.md').read_text()
    assert code == 0 and '| specificity | ' in card and '| log score | ' in card and 'Brier and log score are' in card
    own = load_model(tmp_path/'model').about['metrics']['log_score']
    assert own[2] > 1 or own[1] < own[2] < 1 # its interval is not cut at one
    for m in own_metrics: METRICS.pop(m.name)
    again = model_card(load_model(tmp_path/'model')) # where nobody has registered it
    assert '| log score | ' in again and '| specificity | ' in again
    for m in own_metrics: register_metric(m)


def test_metrics_of_a_cut_are_those_of_a_weighted_test_set():
    "And several rare classes are summed or averaged as the list says"
    y, z = np.repeat([0, 1, 2], [50, 20, 30]), np.random.default_rng(0).normal(size=(100, 3))
    run = Run(dict(recipe=dict(name='plain'), seed=0, data={}), [1, 2], Predictions(y, z), Predictions(y, z))
    both = evaluate_at(run, Goal(2, 1), .1)
    each = [evaluate_at(replace(run, rare=[c]), Goal(2, 1), .1*part) for c, part in ((1, .4), (2, .6))]
    for k, m in METRICS.items():
        if m.rates: assert both[k] == pytest.approx((np.sum if m.summed else np.mean)([o[k] for o in each])), k


def test_intervals_of_the_leaderboard_are_possible():
    "Two runs far apart: Student's interval would go from below 0 to above 1"
    from bn_imbalance.evaluate.leaderboard import summarize
    df = pd.DataFrame(dict(data='d', recipe=np.repeat(['plain', 'final_bn'], 2), seed=[0, 1]*2,
                           f1_minority=[.1, .9, .5, 1.], auroc=[.4, 1., .9, 1.]))
    t = summarize(df).table
    assert (t[['f1_minority', 'auroc']].to_numpy() >= 0).all() and (t[['f1_minority', 'auroc']].to_numpy() <= 1).all()
    assert t['f1_minority', 'high'].max() == 1 and t['vs_plain', 'high'].max() > 1 # a difference may be
