"""Our numbers against scikit-learn's and against brute force."""
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit
from sklearn import metrics as sk
from bn_imbalance.metrics import best_cut, expected_calibration_error, margin, mean_interval, minority_metrics, paired_difference

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


def test_intervals_cover():
    rng = np.random.default_rng(0)
    hits = [lo <= 0 <= hi for _, lo, hi in (mean_interval(rng.normal(0, 1, 20), n=500) for _ in range(300))]
    assert .88 < np.mean(hits) < .98
    assert mean_interval([.7]) == (.7, .7, .7)
    assert paired_difference([1, 2], [1, 2]) == (0, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.floats(-9, 9)), min_size=4, max_size=40), st.floats(.01, .99))
def test_as_scikit_learn_has_it(pairs, share):
    from sklearn.metrics import brier_score_loss, f1_score, precision_recall_fscore_support
    from scipy.special import expit
    from bn_imbalance.metrics import brier_score, precision_recall_f1, share_weights
    y, m = np.array([True, False] + [a for a, _ in pairs]), np.array([1., -1.] + [b for _, b in pairs])
    w = share_weights(y.astype(int), share)
    assert w[y].sum()/w.sum() == pytest.approx(share)
    p, r, f, _ = precision_recall_fscore_support(y, m > 0, average='binary', zero_division=0)
    assert precision_recall_f1(y, m > 0) == pytest.approx((p, r, f))
    assert precision_recall_f1(y, m > 0, w)[2] == pytest.approx(f1_score(y, m > 0, sample_weight=w))
    assert brier_score(y.astype(int), m, share) == pytest.approx(brier_score_loss(y, expit(m), sample_weight=w))
