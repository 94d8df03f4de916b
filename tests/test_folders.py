"""A folder that changes while it is read, a split of the user's own; and small folders for other tests."""
import shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from conftest import QUICK
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.images import check_images
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.training.features import backbone_features


def pixels(seed, size=32):
    "A texture unlike all others, 0 to 1"
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))/255

def image(seed, size=32): return Image.fromarray((pixels(seed, size)*255).astype(np.uint8)).convert('RGB')

def classes(root, good='good', bad='bad', n=(12, 8), start=0, save=lambda s, p: image(s).save(p), ext='png'):
    for c, k, first in (good, n[0], start), (bad, n[1], start + 500):
        (root/c).mkdir(parents=True)
        for i in range(k): save(first + i, root/c/f'{i:03d}.{ext}')
    return root

def rows(root): return [(p.relative_to(root.parent).as_posix(), p.parent.name) for p in sorted(root.glob('*/*.png'))]

def table(path, lines, header='path,label', sep=','):
    path.write_text('\n'.join([header, *(sep.join(o) for o in lines)]) + '\n')
    return path


def test_not_one_of_the_users_test_images_is_trained_on(tmp_path, command):
    root = classes(tmp_path/'images', n=(20, 12))
    lines = [(p, l, 'Test' if i % 4 == 0 else 'train') for i, (p, l) in enumerate(rows(root))]
    mine = table(tmp_path/'items.csv', lines, 'path,label,split')
    test = {str(tmp_path/p) for p, _, s in lines if s == 'Test'}
    code, out, err = command('bn-compare', mine, '--recipes', 'ridge', *QUICK, '--out', tmp_path/'out')
    assert code == 0 and 'protocol given (your split; seeds vary training only)' in out, err
    for f in (tmp_path/'out'/'splits').glob('*.csv'):
        split = pd.read_csv(f)
        assert set(split.path[split.split == 'test']) == test
    data, seen = read_data(mine), []
    from bn_imbalance.deploy import fitting
    before, draws = fitting.train_on, [draw_split(data, load_settings(), k) for k in (0, 5)]
    assert draws[0].equals(draws[1]) and 'valid' in set(draws[0].split)
    fitting.train_on = lambda items, *args, **kwargs: seen.append(set(items.path)) or before(items, *args, **kwargs)
    try: model = fitting.fit(data, 'ridge', load_settings(arch='resnet18', weights='random', size=32, seeds=2))
    finally: fitting.train_on = before
    assert len(seen) == 1 and not seen[0] & test and len(seen[0]) == 32 - len(test)
    assert model.about['data']['protocol'] == 'given' and model.about['trained_on']['majority'] == 15
    assert not draw_split(data, load_settings(), 0, 'all').split.equals(draws[0].split)


def later(monkeypatch, change): # after the images were listed, before they are read
    def check(paths, *args):
        change()
        return check_images(paths, *args)
    monkeypatch.setattr('bn_imbalance.data.items.check_images', check)


@pytest.mark.parametrize('change, line', [
    (lambda r: (r/'good'/'003.png').unlink(), '003.png: no such file'),
    (lambda r: shutil.rmtree(r/'bad'), '5 of 11 images are missing'),
    (lambda r: (r/'good'/'003.png').write_bytes((r/'good'/'003.png').read_bytes()[:300]), 'image file is truncated'),
    (lambda r: [(r/'good'/'003.png').unlink(), (r/'good'/'003.png').mkdir()], 'a folder, not an image')])
def test_a_folder_that_changes_while_it_is_read(tmp_path, monkeypatch, change, line):
    root = classes(tmp_path/'images', n=(6, 5))
    later(monkeypatch, lambda: change(root))
    with pytest.raises(BadInput, match=line): read_data(root)


def test_an_image_that_changes_before_it_is_used(tmp_path):
    "Its features would be stored for another image"
    data = read_data(root := classes(tmp_path/'images', n=(6, 5), start=7000))
    s = load_settings(arch='resnet18', weights='random', size=40)
    image(4242).save(root/'good'/'003.png')
    with pytest.raises(BadInput, match='003.png: has changed since'): backbone_features(data.items, s)
    (root/'good'/'003.png').unlink()
    with pytest.raises(BadInput, match='003.png: cannot be read'): backbone_features(data.items, s)


def test_files_without_permission(tmp_path, monkeypatch):
    root, before = classes(tmp_path/'images', n=(6, 5)), Path.read_bytes
    def denied(path): # to whoever runs the tests, perhaps root
        if path.name == '003.png': raise PermissionError(13, 'Permission denied')
        return before(path)
    monkeypatch.setattr(Path, 'read_bytes', denied)
    with pytest.raises(BadInput, match='2 of 11 images cannot be used') as e: read_data(root)
    assert '003.png: cannot be read (Permission denied)' in str(e.value)
    assert read_data(root, skip_bad=True).counts == {'majority': 5, 'minority': 4}
