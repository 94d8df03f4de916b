"""Groups proposed where there are some and not where there are none; their effective number; what files give away."""
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score
from bn_imbalance.audit.shortcuts import FAMILIES, clustered_auroc, shortcut_table, shortcut_texts
from bn_imbalance.audit.subjects import effective_number, propose_groups

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('seed', range(5))
def test_runs_of_one_subject_are_found(seed):
    "Numbers without a sign where a subject ends: looks tell it, and strangers in the same light do not count"
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 7, 80)
    subject = np.repeat(np.arange(80), size)
    looks = 3*rng.normal(size=(80, 200))[subject] + rng.normal(size=(len(subject), 200))
    looks += 3*np.sin(np.arange(len(subject))/200)[:, None]*rng.normal(size=200) # the day goes by
    files = [f'a/exp{k % 6}_num_{7*k}.jpg' for k in range(len(subject))]
    p = propose_groups(pd.DataFrame({'path': files, 'label': 'a', 'group': files}), looks)
    pairs = lambda g: {(i, j) for i in range(len(g)) for j in range(i) if g[i] == g[j]}
    true, told = pairs(subject), pairs(p.groups)
    assert len(true & told) > .85*len(told) and len(true & told) > .85*len(true)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_effective_number_lies_between_subjects_and_images(k, m, prevalence, seed):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(k), m)
    looks = prevalence**.5*rng.normal(size=(k, 40))[group] + (1 - prevalence)**.5*rng.normal(size=(k*m, 40))
    alike, n = effective_number(looks, group)
    assert k - 1e-6 <= n <= k*m + 1e-6 and (m == 1 or 0 <= alike <= 1)
    assert m == 1 or k < 20 or abs(alike - prevalence) < .12


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 9), st.integers(0, 1000))
def test_auroc_is_scikit_learns(m, n, values, seed):
    rng = np.random.default_rng(seed)
    rare, score = np.arange(m + n) < m, rng.integers(0, values, m + n)
    a, low, high = clustered_auroc(score, rare, rng.integers(0, 10, m + n))
    assert abs(a - roc_auc_score(rare, score)) < 1e-9 and 0 <= low <= a <= high <= 1


def test_nothing_is_found_where_nothing_is():
    "A dozen data sets without a shortcut, three families each: none is suspected"
    suspected = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, rare = 200, np.random.default_rng(seed).random(200) < .2
        looks = pd.DataFrame({k: rng.normal(size=n) for v in FAMILIES.values() for k in v})
        looks = looks.assign(mode='L', format=rng.choice(['PNG', 'JPEG'], n), exif=rng.random(n) < .5)
        suspected += len(shortcut_texts(shortcut_table(looks, rare, np.arange(n))))
    assert suspected == 0
