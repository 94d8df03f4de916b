"""Whatever lies in the folder: what is read, what is left out, whose split it is, copies, and what pixels mean."""
import shutil, unicodedata
from collections import Counter
from itertools import product
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from conftest import QUICK
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.images import MARKER, check_images, image_files, left_text, read_image
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

def said(data, *words): return [t for t in data.notes if all(w in t for w in words)]


def test_images_by_suffix_and_by_signature_and_the_rest_is_counted(tmp_path):
    root = classes(tmp_path/'images')
    for name, kind in (('b.webp', 'WEBP'), ('d.jfif', 'JPEG'), ('e.JPG_large', 'JPEG'), ('noext', 'PNG'),
                       ('f.jp2', 'JPEG2000')):
        image(hash(name) % 1000 + 2000).save(root/'good'/name, kind)
    for name in 'notes.txt', 'Thumbs.db', 'more.txt', 'LICENCE': (root/'good'/name).write_text('no image')
    files = list(image_files(root, left := Counter()))
    assert len(files) == 25 and sum(left.values()) == 4 == sum(1 for p in root.rglob('*') if p.is_file()) - 25
    assert left_text(left) == 'Left out: 4 files (2 .txt, 1 .db, 1 without suffix).'
    data = read_data(root)
    assert data.counts == {'majority': 17, 'minority': 8} and said(data, '2 .txt')


def test_folders_that_are_no_classes(tmp_path):
    root = classes(tmp_path/'images')
    for other in '__MACOSX/good', 'good/@eaDir/000.png', 'heat', 'model', 'masks', 'checkpoints':
        (root/other).mkdir(parents=True)
    image(1).save(root/'__MACOSX'/'good'/'000.png'); image(2).save(root/'good'/'@eaDir'/'000.png'/'THUMB_M.jpg')
    image(3).save(root/'heat'/'000-1.jpg'); (root/'heat'/MARKER).touch(); (root/'model'/'model.json').touch()
    for i in range(8): image(i).save(root/'masks'/f'{i:03d}.png')
    image(9).save(root/'good'/'003_mask.png'); image(4).save(root/'beside.png')
    data = read_data(root)
    assert data.counts == {'majority': 12, 'minority': 8} and set(data.items['class']) == {'good', 'bad'}
    note, = said(data, 'Left out')
    for o in '__MACOSX (of a tool)', '@eaDir (of a tool)', 'heat (of results)', 'model (of results)', 'masks (of masks':
        assert o in note
    assert '1 masks or thumbnails' in note and '1 images beside the class folders' in note and said(data,
        'checkpoints', 'no class')


def test_names_of_one_class(tmp_path):
    root = classes(tmp_path/'images')
    lines = [(p, l + ' \xa0'[i % 3 == 1: i % 3]) for i, (p, l) in enumerate(rows(root))]
    data = read_data(table(tmp_path/'items.csv', [(p, l.upper() if i % 4 == 0 else l) for i,
                                                  (p, l) in enumerate(lines)]))
    assert data.counts == {'majority': 12, 'minority': 8} and said(data, 'one class, bad')
    nfd = classes(tmp_path/'nfd', bad=unicodedata.normalize('NFD', 'malformé'))
    assert read_data(nfd, minority='malformé').counts['minority'] == 8
    with pytest.raises(BadInput, match='several labels .bad;good'):
        read_data(table(tmp_path/'multi.csv', [(p, 'bad;good' if not i else l) for i, (p, l) in enumerate(rows(root))]))


def test_levels_and_sides(tmp_path):
    classes(tmp_path/'nested'/'dataset')
    with pytest.raises(BadInput, match='holds bad, good: one level too high'): read_data(tmp_path/'nested')
    with pytest.raises(BadInput, match='12 images itself: one level too low'):
        read_data(tmp_path/'nested'/'dataset'/'good')
    for side in 'train', 'test': (tmp_path/'flat'/side).mkdir(parents=True); image(1).save(tmp_path/'flat'/side/'a.png')
    with pytest.raises(BadInput, match='train.*like parts of a split'): read_data(tmp_path/'flat')
    lines = [(p, 'train' if i % 2 else 'test') for i, (p, _) in enumerate(rows(tmp_path/'nested'/'dataset'))]
    with pytest.raises(BadInput, match='like parts of a split'): read_data(table(tmp_path/'nested'/'items.csv', lines))


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


def test_folders_of_a_split(tmp_path):
    for side, start in ('train', 0), ('Val', 100), ('test', 200): classes(tmp_path/'above'/side, start=start, n=(8, 5))
    for c, start in ('good', 0), ('bad', 300):
        for side, k in ('train', 0), ('test', 50):
            (tmp_path/'below'/c/side).mkdir(parents=True)
            for i in range(6 if c == 'bad' else 7): image(start + k + i).save(tmp_path/'below'/c/side/f'{i}.png')
    above, below = read_data(tmp_path/'above'), read_data(tmp_path/'below')
    assert above.protocol == below.protocol == 'given' and Counter(above.items.given) == dict(train=13, valid=13,
        test=13)
    assert set(below.items['class']) == {'good', 'bad'} and set(below.items.given) == {'train', 'test'}
    for p in (tmp_path/'above'/'train'/'bad').iterdir():
        p.unlink() # as in anomaly detection: only good ones to train on
    lacking = read_data(tmp_path/'above')
    assert lacking.protocol == 'all' and said(lacking, 'no image of the minority for train')


def test_copies_are_one_subject(tmp_path):
    root = classes(tmp_path/'images')
    (root/'good'/'again.png').write_bytes((root/'good'/'000.png').read_bytes())
    image(1, 96).save(root/'good'/'001.png'); image(1, 96).resize((64, 64)).save(root/'good'/'small.jpg', quality=80)
    data = read_data(root)
    group = data.items.set_index(data.items.path.str.replace(f'{root}/', '')).group
    assert group['good/again.png'] == group['good/000.png'] and group['good/small.jpg'] == group['good/001.png']
    assert group.nunique() == 20 and said(data, '1 are copies', '1 are nearly copies')
    (root/'bad'/'again.png').write_bytes((root/'good'/'000.png').read_bytes())
    with pytest.raises(BadInput, match='bad/again.png .bad. and .*good/000.png .good.'): read_data(root)
    data = read_data(root, skip_bad=True)
    assert data.counts == {'majority': 12, 'minority': 8} and said(data, 'Left out', 'two labels')


def test_noise_four_times_is_noise(tmp_path):
    "Splits never have a copy on the other side"
    def noise(s, p): Image.fromarray(np.random.default_rng(s).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(p)
    root = classes(tmp_path/'noise', n=(16, 10), save=noise)
    for p in list(root.glob('*/*.png')):
        [(p.with_name(f'{k}_copy_{p.name}')).write_bytes(p.read_bytes()) for k in range(3)]
    data = read_data(root)
    assert data.items.group.nunique() == 26
    for seed in range(3):
        assert draw_split(data, load_settings(), seed).groupby('digest').split.nunique().max() == 1


def test_the_same_file_twice(tmp_path):
    root = classes(tmp_path/'images', n=(6, 5))
    lines = rows(root)
    (tmp_path/'link.png').symlink_to(tmp_path/lines[0][0])
    for again, label in ('./' + lines[0][0], 'bad'), ('images/../' + lines[0][0], 'good'), ('link.png', 'bad'):
        with pytest.raises(BadInput, match='is listed twice' + (', as bad and as good' if label == 'good' else '')):
            read_data(table(tmp_path/'items.csv', [*lines, (again, label)]))


@pytest.mark.parametrize('sep,encoding,end', [(';', 'utf-8-sig', '\r\n'), ('\t', 'utf-16', '\n'),
                                              (',', 'cp1252', '\n')])
def test_tables_of_spreadsheets(tmp_path, sep, encoding, end):
    root = classes(tmp_path/'images', bad='schlecht')
    lines = [f'{p.replace("/", chr(92))}{sep} {"mäßig" if l == "schlecht" else l} ' for p, l in rows(root)]
    (tmp_path/'items.csv').write_bytes(end.join([f'Path{sep}Label', *lines, sep]).encode(encoding))
    data = read_data(tmp_path/'items.csv', minority='mäßig')
    assert data.counts == {'majority': 12, 'minority': 8} and said(data, 'backslashes')


def test_many_missing_files_are_one_line(tmp_path):
    lines = [(f'nowhere/{i}.jpg', 'bad' if i % 20 == 0 else 'good') for i in range(300)]
    with pytest.raises(BadInput) as e: read_data(table(tmp_path/'items.csv', lines))
    assert '300 of 300 images are missing, such as' in str(e.value) and '\n' not in str(e.value)
    for header, word in ('filename,label', 'Is it called filename'), ('path,class', 'Is it called class'):
        with pytest.raises(BadInput, match=word): read_data(table(tmp_path/'items.csv', lines, header))


DEEP = dict(b10=1023, b12=4095, b16=65535, f1=1., f4000=4095.)

@pytest.mark.parametrize('kind', DEEP)
def test_a_pixel_means_the_same_in_any_bits(tmp_path, kind):
    top = DEEP[kind]
    def save(s, p):
        a = pixels(s)*top
        Image.fromarray(a.astype(np.uint16) if kind[0] == 'b' else a.astype(np.float32)).save(p)
    root = classes(tmp_path/'images', save=save, ext='png' if kind[0] == 'b' else 'tif', n=(8, 5))
    data = read_data(root)
    low, high = map(float, data.range.split(','))
    assert (low, high) == (0, top) and said(data, '--range')
    for p in data.items.path[:3]:
        a = np.asarray(read_image(p, span=(low, high)), float)[..., 0]
        assert np.abs(a - pixels(int(p[-7:-4]) + 500*('bad' in p))*255).max() < 2.1
    assert read_data(root, span='0,123').range == '0,123'


def test_pages(tmp_path):
    root = classes(tmp_path/'images', n=(6, 5))
    image(900).save(root/'good'/'stack.tif', save_all=True, append_images=[image(901), image(902)])
    assert np.array_equal(read_image(f'{root}/good/stack.tif[2]'), image(902))
    first, every = read_data(root), read_data(root, pages='all')
    assert first.counts['majority'] == 7 and said(first, 'several pages',
                                                  '--pages all') and every.counts['majority'] == 9
    assert every.items[every.items.path.str.contains('stack')].group.nunique() == 1
    assert every.items.digest.is_unique and not check_images(every.items.path).error.any()


def test_images_much_larger_than_the_network_sees(tmp_path):
    root = classes(tmp_path/'images', save=lambda s, p: image(s, 200).save(p), n=(6, 5))
    assert said(read_data(root, size=64), '3.1 times as wide',
                'tries tiles') and not said(read_data(root, size=128), 'times')


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)).save(path)


@pytest.mark.parametrize('name, content, line', [
    ('t.csv', 'filename;class\na.png;good', 'path and label are missing. Are they filename and class? Rename them.'),
    ('t.csv', 'path,good,bad\na.png,1,0', 'column label is missing. There are path, good, bad.'),
    ('t.csv', 'a.png,good\nb.png,bad', 'The first line is an image already'),
    ('t.json', '{"images": []}', 'json, not CSV'),
    ('t.zip', b'PK\3\4', 'an archive. Unpack it'), ('t.tar.gz', b'\x1f\x8b\x08', 'an archive. Unpack it'),
    ('t.xlsx', b'PK\3\4', 'an Excel file'), ('t.png', None, 'an image, not a table'),
    ('t.csv', 'path,label\n' + ''.join(f'good/{i},{i % 2}\n' for i in range(5)), 'Without the suffix? There is 0.png.'),
    ('t.csv', 'path,label\n' + ''.join(f'C:\\a\\{i}.png,{i % 2}\n' for i in range(5)), 'of a Windows machine')])
def test_a_table_that_is_none(tmp_path, name, content, line):
    for i in range(5): noise(tmp_path/'good'/f'{i}.png', i)
    if content is None: noise(tmp_path/name, 5)
    else: (tmp_path/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput) as e: read_data(tmp_path/name)
    assert line in str(e.value) and '\n' not in str(e.value)


def test_bins_thumbnails_and_folders_that_every_class_has(tmp_path):
    for k, (site, label) in enumerate(product(['site1', 'site2'], ['bad', 'good'])):
        for i in range(3): noise(tmp_path/site/label/f'{i}.png', 10*k + i)
        noise(tmp_path/'@Recycle'/site/f'{k}.png', 100 + k)
    noise(tmp_path/'site1'/'good'/'thumb_0.png', 200)
    d = read_data(tmp_path, minority='site2')
    assert d.counts == dict(majority=6, minority=6)
    notes = ' '.join(d.notes)
    assert '@Recycle (of a tool)' in notes and '1 masks or thumbnails' in notes
    assert 'Each holds bad, good: if those are the classes, list the images in a CSV file' in notes


def test_a_trainers_logs_and_boxes_of_object_detection(tmp_path):
    root = classes(tmp_path/'images', n=(6, 5))
    for o in 'runs/detect/train/weights', 'logs': (root/o).mkdir(parents=True)
    image(1).save(root/'runs'/'detect'/'train'/'confusion_matrix.png'); image(2).save(root/'logs'/'a.png')
    (root/'runs'/'detect'/'train'/'weights'/'best.pt').write_bytes(b'')
    data = read_data(root, minority='bad')
    assert said(data, 'runs (of a trainer)') and data.counts['majority'] == 7 # logs hold nothing of a trainer's
    yolo = classes(tmp_path/'yolo', good='images', bad='x', n=(6, 0))
    (yolo/'x').rename(yolo/'labels')
    for i in range(6): (yolo/'labels'/f'{i:03d}.txt').write_text('0 .5 .5 .1 .1')
    with pytest.raises(BadInput, match='labels beside images, as for object detection'): read_data(yolo)


def test_floats_beside_whole_numbers(tmp_path):
    root = classes(tmp_path/'images', n=(4, 3), ext='tif', save=lambda s, p: Image.fromarray(
        pixels(s).astype(np.float32) if s % 2 else (pixels(s)*4095).astype(np.uint16)).save(p))
    with pytest.raises(BadInput, match='numbers up to .*whole numbers up to 4095: no range suits both'):
        read_data(root)
    assert read_data(root, span='0,4095').range == '0,4095'


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


@pytest.mark.parametrize('header, line, change, word', [
    ('path,label,label', '{p},{l},x', '', 'there are two columns label. Keep one'),
    ('"path,label"', '"{p},{l}"', '', 'Each line is quoted as a whole'),
    ('path,label', '{p},{l}\0', '', 'holds zero bytes'), ('path,label', '~/{p},{l}', '', 'A table knows no ~'),
    ('path,label', '{p},{l}', '%20', 'They are escaped as in an address')])
def test_tables_that_are_refused(tmp_path, header, line, change, word):
    root = classes(tmp_path/'my images', n=(6, 5))
    lines = [line.format(p=p.replace(' ', change or ' '), l=l) for p, l in rows(root)]
    (tmp_path/'items.csv').write_text('\n'.join([header, *lines]))
    with pytest.raises(BadInput, match=word) as e: read_data(tmp_path/'items.csv')
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('before, header, line, word', [
    ('sep=;\n', 'path;label', '{p};{l}', ''), ('', 'path,label', 'file://{here}/{p},{l}', ''),
    ('', 'path,label\npath,label', '{p},{l}', 'names the columns again'),
    ('', 'path,label,is_valid', '{p},{l},True', 'column is_valid is not used')])
def test_tables_that_are_understood(tmp_path, before, header, line, word):
    lines = [line.format(p=p, l=l, here=tmp_path) for p, l in rows(classes(tmp_path/'images', n=(6, 5)))]
    (tmp_path/'items.csv').write_text(before + '\n'.join([header, *lines]))
    data = read_data(tmp_path/'items.csv')
    assert data.counts == {'majority': 6, 'minority': 5} and said(data, word) == data.notes
