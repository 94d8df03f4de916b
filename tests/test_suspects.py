"""Labels that look wrong: found where they were planted, few where nothing was, and told whole."""
import shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import Ridge
from bn_imbalance.audit.checks import check_data
from bn_imbalance.data.items import read_data
from bn_imbalance.data.leaves import leaf_image
from bn_imbalance.data.sources import locate_fetched
from bn_imbalance.audit.labels import DOUBT, LeaveOut, check_labels, find_doubtful, influence, probability_of_label


def clouds(n=(200, 12), d=40, apart=4., seed=0):
    "Features of classes that lie apart, in standard deviations along an axis of each, and class numbers"
    rng = np.random.default_rng(seed)
    y = np.repeat(range(len(n)), n)
    return rng.normal(size=(len(y), d)) + apart*np.eye(len(n), d)[y], y


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(2, 80), st.integers(2, 4), st.integers(5, 60), st.integers(0, 10**6))
def test_left_out_is_fitted_without(n, d, k, subjects, seed):
    "Every subject, and one more image: as if the ridge regression had been fitted without them"
    rng = np.random.default_rng(seed)
    x, y, group = rng.normal(size=(n, d))*3 + 5, np.r_[:k, rng.integers(0, k, n - k)], rng.integers(0, subjects, n)
    lo, gone = LeaveOut(x, y, group), int(rng.integers(n))
    z, less = (x - x.mean(0))/x.std(0), lo.without(gone)
    def fitted(train, rows): return Ridge(lo.penalty).fit(z[train], np.eye(k)[y][train]).predict(z[rows])
    for g in set(group):
        mine = group == g
        if mine.all(): continue
        np.testing.assert_allclose(lo.scores[mine], fitted(~mine, mine), atol=1e-7)
        other = ~mine & (np.arange(n) != gone)
        if other.any() and not mine[gone]: np.testing.assert_allclose(less[mine], fitted(other, mine), atol=1e-7)


def spoil(y, *rows):
    given = y.copy()
    for i in rows: given[i] = 1 - y[i]
    return given


def test_planted_errors_are_found_and_little_else():
    x, y = clouds((400, 40))
    wrong = [3, 50, 77, 420, 430]
    t = find_doubtful(x, spoil(y, *wrong), np.arange(len(y)))
    assert set(wrong) <= set(t.index) and len(t) <= 7
    assert (t.given != y[t.index])[wrong].all() and (t.looks_like == y[t.index])[wrong].all()
    assert t.probability.is_monotonic_increasing and t.probability.max() < 1 - DOUBT
    assert len(find_doubtful(x, y, np.arange(len(y)))) <= 2


@pytest.mark.parametrize('seed', range(3))
def test_ten_rare_images(seed):
    x, y = clouds((300, 10), apart=8., seed=seed)
    called, each = spoil(y, 0, 1, 309), np.arange(310) # two of the rare are ordinary, and a rare one is hidden
    t, lo = find_doubtful(x, called, each), LeaveOut(x, called, each)
    assert 309 in t.index and {0, 1} & set(t.index) and len(t) <= 4
    ten = np.flatnonzero(called == 1)
    assert set(ten[lo.scores[ten, 1].argsort()[:2]]) == {0, 1}
    for i, o in t.iterrows(): # of ten images each one matters, of three hundred it does not
        assert np.isnan(o.influence) if o.given == 0 else o.influence == influence(lo, i)


def test_a_subject_never_judges_itself():
    "Five images of one subject with the same wrong label vouch for each other, unless they are known to be one"
    x, y = clouds((200, 30), d=300)
    rng = np.random.default_rng(1)
    mine = np.arange(5)
    x[mine] = x[0] + .1*rng.normal(size=(5, 300))
    alone, group = np.arange(len(y)), np.arange(len(y))
    group[mine] = 0
    known, unknown = (LeaveOut(x, spoil(y, *mine), g).scores[mine, 1] for g in (group, alone))
    assert known.max() < unknown.min()
    t = find_doubtful(x, spoil(y, *mine), group)
    assert set(mine) <= set(t.index)
    for i in mine: assert not set(mine) & {*t.like_given[i], *t.like_other[i]}


def test_one_rare_image_is_not_judged():
    x, y = clouds((60, 1), apart=9.)
    assert probability_of_label(LeaveOut(x, y, np.arange(61)).scores, y).shape == (61,)
    assert 60 not in find_doubtful(x, y, np.arange(61)).index
    group = np.r_[np.arange(60), 60, 60, 60] # three images of one subject are not judged either
    x, y = clouds((60, 3), apart=9.)
    assert not {60, 61, 62} & set(find_doubtful(x, y, group).index)


def test_three_classes():
    x, y = clouds((200, 60, 20), apart=7.)
    given = y.copy(); given[[0, 205, 262]] = 2, 0, 1
    t = find_doubtful(x, given, np.arange(len(y)))
    assert {0, 205, 262} <= set(t.index) and len(t) <= 5
    assert list(t.looks_like[[0, 205, 262]]) == [0, 1, 2]


def test_the_same_again_and_in_another_order():
    x, y = clouds((150, 15), apart=3.)
    given, order = spoil(y, 4, 155), np.random.default_rng(0).permutation(165)
    one, two = (find_doubtful(x, given, np.arange(165)) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    other = find_doubtful(x[order], given[order], order)
    assert list(order[other.index]) == list(one.index)
    np.testing.assert_allclose(other.probability, one.probability, atol=1e-3)


def write_leaves(root, n=(60, 16), wrong=2):
    "Drawn leaves in folders of classes, the last ones of each under the wrong name"
    for sick, count in enumerate(n):
        for i in range(count):
            label = ('healthy', 'sick')[sick if i < count - wrong else 1 - sick]
            (root/label).mkdir(parents=True, exist_ok=True)
            leaf_image(1000*sick + i, bool(sick), 96).save(root/label/f'{"hs"[sick]}{i:02d}.png')
    return root


@pytest.fixture(scope='module')
def leaves(tmp_path_factory): return write_leaves(tmp_path_factory.mktemp('leaves')/'drawn')


def test_from_folder_to_page_and_csv(leaves, command, tmp_path):
    "The command tells, shows and writes the same images"
    code, text, err = command('bn-data', 'check', leaves, '--doubtful', tmp_path/'sub'/'suspects.csv', '--out',
                              tmp_path/'page.html')
    assert code == 0, err
    t = pd.read_csv(tmp_path/'sub'/'suspects.csv')
    assert list(t) == ['path', 'label', 'looks_like', 'probability'] and t.probability.between(0, 1 - DOUBT).all()
    files = [(tmp_path/'sub'/p).resolve() for p in t.path]
    assert all(f.is_file() and f.parent.name == label for f, label in zip(files, t.label))
    assert all(a != b for a, b in zip(t.label, t.looks_like))
    page = BeautifulSoup((tmp_path/'page.html').read_text(), 'html.parser')
    section = next(s for s in page.find_all('section') if s.h2.text == 'Doubtful labels')
    assert all(f'{f.parent.name}/{f.name}' in section.text for f in files)
    assert 'Doubtful labels' in text and f'Doubtful labels: {tmp_path/"sub"/"suspects.csv"}' in text
    assert '<script' not in str(page)


def test_no_labels_are_looked_at_unless_asked(leaves, command, tmp_path):
    code, text, _ = command('bn-data', 'check', leaves, '--quick', '--out', tmp_path/'page.html')
    assert code == 0 and 'oubtful' not in text + (tmp_path/'page.html').read_text()


def test_bad_input_is_one_line(leaves, command, tmp_path):
    (tmp_path/'one'/'healthy').mkdir(parents=True); (tmp_path/'file').write_text('')
    for p in sorted((leaves/'healthy').iterdir())[:3]: shutil.copy(p, tmp_path/'one'/'healthy')
    for args, message in (([tmp_path/'one', '--labels'], 'one class only (healthy)'),
                          ([leaves, '--labels', '--quick'], 'give one'),
                          ([leaves, '--doubtful', tmp_path/'file'/'s.csv'], 'cannot be written')):
        code, text, err = command('bn-data', 'check', *args, '--out', tmp_path/'p.html')
        assert code == 1 and message in err and err.strip().count('\n') == 0 and 'Traceback' not in err, (args, err)


def test_copies_do_not_vouch_for_each_other(leaves, tmp_path):
    "An image saved again is judged without its copy"
    root = shutil.copytree(leaves, tmp_path/'leaves')
    for k in range(3): shutil.copy(root/'sick'/'h59.png', root/'sick'/f'again{k}.png')
    c = check_data(root); check_labels(c)
    copies = set(c.items.index[c.items.digest.duplicated(keep=False)])
    assert len(copies) == 4
    for o in c.doubtful.itertuples():
        if o.Index in copies: assert not copies & {*o.like_given, *o.like_other}


@pytest.mark.slow
def test_real_leaves_with_planted_errors(tmp_path):
    village = locate_fetched('plantvillage', 'Apple___healthy')
    if not village: pytest.skip('no PlantVillage beside the repository')
    data = read_data(village, majority='Apple___healthy', minority='Apple___Apple_scab')
    rows = [data.items[data.items.label == k].drop_duplicates('group').head(n)
            for k, n in (('majority', 150), ('minority', 40))]
    items = pd.concat(rows, ignore_index=True)
    given = items['class'].where(~items.index.isin([5, 6, 180, 181]), items['class'].map(
        {'Apple___healthy': 'Apple___Apple_scab', 'Apple___Apple_scab': 'Apple___healthy'}))
    items.assign(label=given)[['path', 'label', 'group']].to_csv(tmp_path/'leaves.csv', index=False)
    c = check_data(tmp_path/'leaves.csv'); check_labels(c)
    found = {Path(p) for p in c.items.path[c.doubtful.index]} & {Path(p) for p in items.path[[5, 6, 180, 181]]}
    assert len(found) >= 3 and len(c.doubtful) <= 12
