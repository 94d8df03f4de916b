"""Splits are disjoint, exact, grouped and reproducible, whatever the groups look like; readers and image formats."""
import os, subprocess, sys
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from conftest import QUICK, write_folder
from hypothesis import given, settings, strategies as st
from PIL import Image
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import SPLITS, draw_split, stratified_split, paper_split
from bn_imbalance.data.images import decode, read_image
from bn_imbalance.training.loaders import imbalanced_dls

SMALL = replace(load_settings(), train_majority=20, train_minority=4, valid_majority=6, valid_minority=3,
                test_majority=5, test_minority=5)


@st.composite
def item_tables(draw):
    "Majority and minority images in groups of 1 to 6; some groups hold both"
    sizes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=25, max_size=60))
    rows = [(f'{g}-{l}-{i}', l, f'g{g}') for g, (a, b) in enumerate(sizes)
            for l, n in (('majority', a), ('minority', b)) for i in range(n)]
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
    assert all(n.loc[s, l] == getattr(SMALL, f'{s}_{l}') for s in SPLITS for l in ('majority', 'minority'))
    pd.testing.assert_frame_equal(split, paper_split(items, SMALL, seed))


@settings(max_examples=30, deadline=None)
@given(item_tables(), st.integers(0, 1000))
def test_fifths_split(items, seed):
    try: split = stratified_split(items, SMALL, seed)
    except BadInput: return
    if items.group[items.label == 'minority'].nunique() < 3: # the one that is tested is in validation, too
        split = split[(split.split != 'valid') | (split.label == 'majority')]
        if split.group[split.label == 'minority'].nunique() < 2: return # none of the rare is trained on
    assert sorted(split.path) == sorted(items.path) # every image, once
    assert split.groupby('group').split.nunique().max() == 1
    assert pd.crosstab(split.split, split.label).to_numpy().min() > 0
    pd.testing.assert_frame_equal(split, stratified_split(items, SMALL, seed))


MODES = '1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', 'I', 'YCbCr'

def write_mode(folder, mode, size=(30, 20), noise=False):
    "An image file of any mode, of one color or of noise"
    path = folder/('x.tif' if mode in ('CMYK', 'YCbCr', 'I') else 'x.png')
    rng = np.random.default_rng(sum(map(ord, mode)))
    pixels = rng.integers(0, 255, (*size[::-1], 3)) if noise else np.full((*size[::-1], 3), (200, 120, 40))
    if mode == 'I;16': im = Image.fromarray((pixels[..., 0]*257 if noise else pixels[..., 0]*200).astype(np.uint16))
    else: im = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    im.save(path)
    return path


@pytest.mark.parametrize('mode', MODES)
def test_networks_see_what_fastai_would_show_them(tmp_path, mode):
    "`decode` is fastai's `Resize` with `Squish`, bit for bit: numbers from before it was written stay what they are"
    from fastai.vision.all import PILImage, Resize, ResizeMethod
    for size in (64, 64), (30, 20), (23, 91), (301, 200), (8, 9):
        path = write_mode(tmp_path, mode, size, noise=True)
        for side in 64, 33:
            want = Resize(side, method=ResizeMethod.Squish)(PILImage(read_image(path)), split_idx=1)
            x = decode(path, side)
            assert x.dtype == np.uint8 and x.shape == (3, side, side) and x.flags.c_contiguous
            np.testing.assert_array_equal(x, np.asarray(want).transpose(2, 0, 1))


def test_jpeg_turned_and_decoded_like_fastai(tmp_path):
    from fastai.vision.all import PILImage, Resize, ResizeMethod
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    im = Image.fromarray(pixels)
    exif = im.getexif()
    exif[0x0112] = 6 # to be turned by 90 degrees
    im.save(tmp_path/'x.jpg', exif=exif)
    assert read_image(tmp_path/'x.jpg').size == (40, 70)
    want = Resize(64, method=ResizeMethod.Squish)(PILImage(read_image(tmp_path/'x.jpg')), split_idx=1)
    np.testing.assert_array_equal(decode(tmp_path/'x.jpg', 64), np.asarray(want).transpose(2, 0, 1))


def test_the_test_set_reaches_the_network_as_it_is(folder):
    "No shuffling, no dropped images, labels in place"
    s = replace(load_settings(), size=32, batch_size=16)
    split = draw_split(read_data(folder), s, 0)
    dls = imbalanced_dls(split, s)
    y = np.concatenate([y.numpy() for _, y in dls[2]])
    assert (y == (split.label[split.split == 'test'] == 'minority').to_numpy()).all()
    pixels = np.concatenate([x.mean((1, 2, 3)).numpy() for x, _ in dls[2]])
    assert ((pixels < .5) == y).all() # the minority is dark


@pytest.mark.parametrize('first', ['', 'import mimetypes; mimetypes.init()', 'import fastai.vision.all'])
def test_the_same_images_whatever_is_imported(tmp_path, first):
    write_folder(tmp_path, 6, 6)
    for p in list((tmp_path/'bad').glob('*.jpg'))[:4]: Image.open(p).save(p.with_suffix('.webp')), p.unlink()
    (tmp_path/'bad'/'note.svg').write_text('<svg/>')
    code = f'{first}\nfrom bn_imbalance.data.items import from_folder; print(len(from_folder({str(tmp_path)!r})))'
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == '12'


def odd_names(root):
    "A folder in which a class and some files have names that are no UTF-8"
    write_folder(root)
    try:
        for p in (root/'bad').iterdir(): os.rename(p, os.fsencode(root/'bad') + b'/\xff\xe4 ' + p.name.encode())
        os.rename(root/'bad', os.fsencode(root) + b'/krank \xe4')
    except OSError: pytest.skip('a file system that wants UTF-8')
    return root


def test_names_that_are_no_utf8(command, tmp_path):
    "pandas keeps texts in pyarrow where that is installed, and pyarrow's must be UTF-8; paths need not be"
    root = odd_names(tmp_path/'images')
    data = read_data(root)
    assert data.counts == {'majority': 40, 'minority': 20} and data.classes('minority') == ['krank \udce4']
    assert draw_split(data, load_settings(), 0).path.map(os.path.exists).all()
    out = tmp_path/'out'
    code, text, err = command('bn-compare', root, '--recipes', 'plain', '--out', out, *QUICK)
    assert code == 0 and (out/'report.html').exists(), err
    assert b'/krank \xe4/\xff\xe4 ' in (out/'splits'/'seed0.csv').read_bytes()
    assert command('bn-report', out)[0] == 0
    code, text, err = command('bn-data', 'check', root, '--out', tmp_path/'check.html', '--groups', tmp_path/'g.csv',
                              '--doubtful', tmp_path/'s.csv')
    assert code == 0 and (tmp_path/'check.html').exists(), err
    (tmp_path/'images.csv').write_bytes(b'path,label\n' + b''.join(
        os.fsencode(p) + b',' + os.fsencode(p.parent.name) + b'\n' for p in root.rglob('*.jpg')))
    assert read_data(tmp_path/'images.csv').counts == data.counts
