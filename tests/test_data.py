"""Splits are disjoint, exact, grouped and reproducible, whatever the groups look like; readers and image formats."""
import numpy as np, pandas as pd, pytest
from dataclasses import replace
from hypothesis import given, settings, strategies as st
from PIL import Image
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data import (SIDES, check_images, draw_split, fifths_split, from_csv, from_folder, imbalanced_dls, paper_split,
                               read_data, read_image)

SMALL = replace(load_settings(), train_majority=20, train_minority=4, valid_majority=6, valid_minority=3, test_majority=5, test_minority=5)


@st.composite
def item_tables(draw):
    "Majority and minority images in groups of 1 to 6; some groups hold both"
    sizes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=25, max_size=60))
    rows = [(f'{g}-{l}-{i}', l, f'g{g}') for g, (a, b) in enumerate(sizes) for l, n in (('majority', a), ('minority', b)) for i in range(n)]
    return pd.DataFrame(rows, columns=['path', 'label', 'group'])


@settings(max_examples=60, deadline=None)
@given(item_tables(), st.integers(0, 1000))
def test_paper_split(items, seed):
    try: split = paper_split(items, SMALL, seed)
    except BadInput as e:
        assert 'needs' in str(e) or 'groups are too large' in str(e)
        return
    assert split.path.is_unique
    assert split.groupby('group').split.nunique().max() == 1
    n = pd.crosstab(split.split, split.label)
    assert all(n.loc[s, l] == getattr(SMALL, f'{s}_{l}') for s in SIDES for l in ('majority', 'minority'))
    pd.testing.assert_frame_equal(split, paper_split(items, SMALL, seed))


@settings(max_examples=30, deadline=None)
@given(item_tables(), st.integers(0, 1000))
def test_fifths_split(items, seed):
    try: split = fifths_split(items, SMALL, seed)
    except BadInput: return
    assert list(split.path) == list(items.path) # every image, once
    assert split.groupby('group').split.nunique().max() == 1
    assert pd.crosstab(split.split, split.label).to_numpy().min() > 0
    pd.testing.assert_frame_equal(split, fifths_split(items, SMALL, seed))


def test_exactly_enough_images():
    rows = [(f'{l}{i}', l, f'{l}{i}') for l, n in (('majority', 31), ('minority', 12)) for i in range(n)]
    items = pd.DataFrame(rows, columns=['path', 'label', 'group'])
    assert len(paper_split(items, SMALL, 0)) == 43
    with pytest.raises(BadInput, match=r'needs 12 images of the minority \(4\+3\+5\), there are 11'): paper_split(items.iloc[:-1], SMALL, 0)


def test_seeds_draw_other_minorities():
    rows = [(f'{l}{i}', l, f'{l}{i}') for l, n in (('majority', 60), ('minority', 60)) for i in range(n)]
    items = pd.DataFrame(rows, columns=['path', 'label', 'group'])
    drawn = [frozenset(s.path[(s.split == 'train') & (s.label == 'minority')]) for s in (paper_split(items, SMALL, k) for k in range(10))]
    assert len(set(drawn)) == 10


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'I;16', 'I', 'YCbCr'])
def test_modes_are_converted(tmp_path, mode):
    path = tmp_path/('x.tif' if mode in ('CMYK', 'YCbCr', 'I') else 'x.png')
    if mode == 'I;16': Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(path)
    else: Image.new('RGB', (30, 20), (200, 120, 40)).convert(mode).save(path)
    im = read_image(path)
    assert (im.mode, im.size) == ('RGB', (30, 20))
    if mode == 'I;16': assert im.getpixel((0, 0)) == (156,)*3


def test_bad_images_are_named(tmp_path):
    (tmp_path/'text.jpg').write_text('hello')
    (tmp_path/'empty.jpg').write_bytes(b'')
    Image.new('RGB', (1, 1)).save(tmp_path/'dot.png')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), dtype=np.uint8)).save(tmp_path/'cut.jpg')
    (tmp_path/'cut.jpg').write_bytes((tmp_path/'cut.jpg').read_bytes()[:2000])
    errors = check_images([*map(str, sorted(tmp_path.iterdir())), str(tmp_path/'none.jpg')]).set_index('path').error
    assert all(str(p) in e for p, e in errors.items())
    for name, why in dict(text='not an image', empty='not an image', dot='1x1', cut='truncated', none='no such file').items():
        assert any(why in e for p, e in errors.items() if f'{name}.' in p), name


def test_csv_reader(tmp_path, folder):
    table = pd.DataFrame([(f'images/{l}/{i:03d}.jpg', l, '7' if i < 2 else '') for l, n in (('good', 40), ('bad', 20)) for i in range(n)],
                         columns=['path', 'label', 'group'])
    table.to_csv(tmp_path/'items.csv', index=False)
    data = read_data(tmp_path/'items.csv', minority='bad')
    assert data.counts == {'majority': 40, 'minority': 20} and data.grouped
    assert (data.items.group == 'group 7').sum() == 4
    for text, message in (('path,lable\na,b\n', 'column label is missing'), ('path,label\n', 'no rows'),
                          ('path,label\na,x\na,x\n', 'listed twice'), ('path,label\na,\n', 'line 2')):
        (tmp_path/'items.csv').write_text(text)
        with pytest.raises(BadInput, match=message): from_csv(tmp_path/'items.csv')


def test_leaf_groups(folder):
    (folder/'leaf_groups.csv').write_text('class,file,leaf\ngood,000.jpg,1\ngood,001.jpg,1\nbad,000.jpg,1\n')
    groups = from_folder(folder).set_index('path').group
    assert (groups == 'good/leaf 1').sum() == 2 and (groups == 'bad/leaf 1').sum() == 1
    assert groups.nunique() == 59


def test_the_test_set_reaches_the_network_as_it_is(folder):
    "No shuffling, no dropped images, labels in place"
    s = replace(load_settings(), size=32, batch_size=16)
    split = draw_split(read_data(folder), s, 0)
    dls = imbalanced_dls(split, s)
    y = np.concatenate([y.numpy() for _, y in dls[2]])
    assert (y == (split.label[split.split == 'test'] == 'minority').to_numpy()).all()
    pixels = np.concatenate([x.mean((1, 2, 3)).numpy() for x, _ in dls[2]])
    assert ((pixels < .5) == y).all() # the minority is dark
