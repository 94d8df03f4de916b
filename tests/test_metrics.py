"""Our numbers against scikit-learn's and against brute force."""
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit
from sklearn import metrics as sk
from bn_imbalance.metrics import (best_cut, expected_calibration_error, margin, mean_interval, minority_metrics,
                                  paired_difference, precision_recall_f1, rate_interval, share_weights)

margins = st.lists(st.integers(-12, 12).map(lambda i: i/2), min_size=4, max_size=40) # many ties


@settings(max_examples=200, deadline=None)
@given(margins, st.randoms(use_true_random=False))
def test_best_cut_is_best(m, rnd):
    y = np.array([0, 1] + [rnd.randint(0, 1) for _ in m[2:]])
    m = np.array(m)
    got = sk.f1_score(y, m > best_cut(y, m))
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


def test_margin_of_many_classes_is_log_odds():
    z = np.random.default_rng(0).normal(0, 3, (20, 5))
    p = np.exp(z)/np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(expit(margin(z)), p[:, 1])


def test_extreme_logits_keep_their_order():
    m = margin([[0, 800], [0, 900], [900, 0]])
    assert list(m) == [800, 900, -900]
    assert expected_calibration_error([1, 1, 0], m) == 0


def test_a_calibrated_network_has_no_calibration_error():
    rng = np.random.default_rng(0)
    m = rng.normal(0, 2, 200_000)
    assert expected_calibration_error(rng.random(len(m)) < expit(m), m) < .01
    assert expected_calibration_error(rng.random(len(m)) < expit(m), 4*m) > .1


def coverage(draw, n, mean, times=4000):
    "How often the interval of `n` scores holds the true mean"
    rng = np.random.default_rng(n)
    intervals = (mean_interval(draw(rng, n)) for _ in range(times))
    return np.mean([low <= mean <= high for _, low, high in intervals])


@pytest.mark.parametrize('n', [3, 5, 10, 20])
def test_intervals_cover(n):
    "Scores of few seeds: 95 % where they are normal, nearly as many where they crowd below 1, as F1 and AUROC do"
    assert .94 < coverage(lambda rng, n: rng.normal(.7, .1, n), n, .7) < .96
    assert coverage(lambda rng, n: rng.beta(18, 2, n), n, .9) > .91


def test_intervals_are_students():
    from scipy.stats import ttest_1samp, ttest_rel
    rng = np.random.default_rng(0)
    a, b = rng.normal(.8, .1, 7), rng.normal(.7, .1, 7)
    for got, want in (mean_interval(a), ttest_1samp(a, 0)), (paired_difference(a, b), ttest_rel(a, b)):
        assert got[1:] == pytest.approx(tuple(want.confidence_interval()))
    assert mean_interval(a) == (pytest.approx(a.mean()), *mean_interval(a)[1:])
    assert mean_interval(a, .5)[1] > mean_interval(a)[1]
    assert mean_interval([.7]) == (.7, .7, .7)
    assert paired_difference([1, 2], [1, 2]) == (0, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.floats(-9, 9)), min_size=4, max_size=40), st.floats(.01, .99))
def test_as_scikit_learn_has_it(pairs, share):
    y, m = np.array([True, False] + [a for a, _ in pairs]), np.array([1., -1.] + [b for _, b in pairs])
    w = share_weights(y.astype(int), share)
    assert w[y].sum()/w.sum() == pytest.approx(share) and w.sum() == pytest.approx(len(y))
    p, r, f, _ = sk.precision_recall_fscore_support(y, m > 0, average='binary', zero_division=0)
    assert precision_recall_f1(y, m > 0) == pytest.approx((p, r, f))
    assert precision_recall_f1(y, m > 0, w)[2] == pytest.approx(sk.f1_score(y, m > 0, sample_weight=w))
    n_rare = min(max(round(100*share), 1), 99) # of 100 on validation
    valid = (np.arange(100) < n_rare).astype(int)
    got = minority_metrics(y.astype(int), np.stack([0*m, m], 1), valid, np.zeros((100, 2)))
    w = share_weights(y.astype(int), n_rare/100)
    assert got['brier'] == pytest.approx(sk.brier_score_loss(y, expit(m)))
    assert got['brier_rare'] == pytest.approx(sk.brier_score_loss(y, expit(m), sample_weight=w))


def test_the_interval_of_a_rate_covers_it():
    "Over many draws at least as often as it says"
    rng, rate, n = np.random.default_rng(0), .05, 60
    inside = [low <= rate <= high for k in rng.binomial(n, rate, 2000) for low, high in [rate_interval(k, n)]]
    assert np.mean(inside) >= .95 and rate_interval(0, 10)[0] == 0 and rate_interval(10, 10)[1] == 1
