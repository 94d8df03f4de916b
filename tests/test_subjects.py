"""Groups proposed where there are some and not where there are none; their effective number; what files give away."""
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score
from bn_imbalance.audit.shortcuts import FAMILIES, clustered_auroc, shortcut_table, shortcut_texts
from bn_imbalance.audit.subjects import (
    effective_number, effective_table, mutual_neighbors, propose_groups, whitened, write_groups)

RNG = np.random.default_rng(0)


def proposed(files, drift=0., seed=0):
    "Is there a proposal for these files, if those that follow each other look alike by `drift`?"
    rng = np.random.default_rng(seed)
    looks, now = [], rng.normal(size=768)
    for _ in files:
        now = drift*now + (1 - drift**2)**.5*rng.normal(size=768)
        looks.append(now)
    items = pd.DataFrame({'path': files, 'label': [Path(f).parent.parts[0] for f in files], 'group': files})
    return propose_groups(items, np.array(looks))


def test_names_that_suggest_groups():
    p = proposed([f'a/leaf{i}_{j}.jpg' for i in range(30) for j in range(3)])
    assert '90 images share a name' in p.text and len(set(p.groups)) == 30
    assert len({n.split('_')[0] for n in p.examples}) == 1
    two = [f'{c}/leaf {i} ({j}).jpg' for c, n in (('a', 20), ('b', 10)) for i in range(n) for j in (1, 2)]
    assert len(set(proposed(two).groups)) == 30
    assert len(set(proposed([f'a/leaf{i}{j}.jpg' for i in range(20) for j in 'abc']).groups)) == 20
    folders = [f'a/patient{i}/{j}.jpg' for i in range(12) for j in range(5)]
    p = proposed(folders)
    assert '60 images lie in folders' in p.text and len(set(p.groups)) == 12
    camera = [f'a/0000000{k % 10}-1111-2222-3333-44444444444{k % 7}___FREC_Scab {k + k // 9}.JPG'
              for k in range(300)]
    p = proposed(camera, drift=.5)
    assert 'follow another by number' in p.text and 'FREC_Scab' in p.examples[0]


@pytest.mark.parametrize('files', [
    [f'a/{k:04d}.jpg' for k in range(400)],                              # an index
    [f'a/IMG_{k}.jpg' for k in range(400)],                              # a camera, no likeness
    [f'{c}/{c}_{k}.jpg' for c in 'abcdefgh' for k in range(15)],         # the class and an index
    [f'a/{np.random.default_rng(k).bytes(8).hex()}.jpg' for k in range(400)], # checksums
    [f'a/{k:08x}-1111-2222-3333-444444444444.jpg' for k in range(400)],  # uuids
    [f'{s}/{k}.jpg' for s in ('good', 'bad') for k in range(3)],         # too few to tell
    ['a/x.jpg'], ['a/x.jpg', 'b/y.jpg'],
], ids=str)
def test_names_that_suggest_nothing(files): assert proposed(files) is None


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


def test_groups_that_are_given_are_kept():
    files = [f'a/leaf{i}_{j}.jpg' for i in range(30) for j in range(3)]
    items = pd.DataFrame({'path': files, 'label': 'a', 'group': [f.split('_')[0] for f in files]})
    assert propose_groups(items, RNG.normal(size=(90, 768)), network=True) is None


def test_mutual_neighbors_need_no_names():
    looks = RNG.normal(size=(300, 100))
    looks[1:100:10] = looks[0:100:10] + .1*RNG.normal(size=(10, 100))
    labels = np.where(np.arange(300) < 200, 'a', 'b')
    assert mutual_neighbors(whitened(looks), labels).tolist() == [[k, k + 1] for k in range(0, 100, 10)]
    files = [f'{RNG.bytes(8).hex()}.jpg' for _ in range(300)]
    items = pd.DataFrame({'path': files, 'label': labels, 'group': files})
    assert len(set(propose_groups(items, looks, network=True).groups)) == 290
    assert propose_groups(items, looks) is None # thumbnails alone are not trusted


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000))
def test_effective_number_lies_between_subjects_and_images(k, m, prevalence, seed):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(k), m)
    looks = prevalence**.5*rng.normal(size=(k, 40))[group] + (1 - prevalence)**.5*rng.normal(size=(k*m, 40))
    alike, n = effective_number(looks, group)
    assert k - 1e-6 <= n <= k*m + 1e-6 and (m == 1 or 0 <= alike <= 1)
    assert m == 1 or k < 20 or abs(alike - prevalence) < .12


def test_effective_number_of_odd_groups():
    assert effective_number(np.zeros((5, 3)), ['a']*5)[1] == 1 and effective_number(np.eye(5), list('abcde'))[1] == 5
    t = effective_table(['x']*4 + ['y']*2, [1, 1, 2, 2, 3, 4], RNG.normal(size=(6, 9)))
    assert list(t.images) == [4, 2] and list(t.subjects) == [2, 2] and t.effective['y'] == 2


def test_groups_are_written_beside_any_images(tmp_path):
    items = pd.DataFrame({'path': [tmp_path/'data'/'a'/'x, y.jpg', '/elsewhere/z.jpg'], 'label': ['a', 'b']})
    df = pd.read_csv(write_groups(items, ['s 1', 's 2'], tmp_path/'out'/'g.csv'))
    assert [(tmp_path/'out'/p).resolve() for p in df.path] == [Path(p).resolve() for p in items.path]
    assert list(df.group) == ['s 1', 's 2'] and list(df.columns) == ['path', 'label', 'group']


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 9), st.integers(0, 1000))
def test_auroc_is_scikit_learns(m, n, values, seed):
    rng = np.random.default_rng(seed)
    rare, score = np.arange(m + n) < m, rng.integers(0, values, m + n)
    a, low, high = clustered_auroc(score, rare, rng.integers(0, 10, m + n))
    assert abs(a - roc_auc_score(rare, score)) < 1e-9 and 0 <= low <= a <= high <= 1


def test_without_groups_it_is_delongs_variance():
    rare = np.arange(90) < 30
    score = RNG.normal(size=90) + rare
    x, y = score[rare], score[~rare]
    below = (x[:, None] > y).astype(float)
    var = below.mean(1).var(ddof=1)/30 + below.mean(0).var(ddof=1)/60
    a, low, high = clustered_auroc(score, rare, np.arange(90))
    assert abs((high - low)/2/1.959964 - var**.5) < .02*var**.5


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


def test_too_few_to_tell():
    looks = pd.DataFrame({k: RNG.normal(size=40) for v in FAMILIES.values() for k in v}).assign(mode='L', format='PNG')
    assert shortcut_table(looks, np.arange(40) < 8, np.arange(40)) is None
    assert shortcut_table(looks, np.arange(40) < 20, np.arange(40)//4) is None # five groups
