"""What `bn-data check` must notice, what it must not suspect, and the odd things that folders hold."""
import os, struct, subprocess, sys, zlib
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from bn_imbalance.audit.checks import check_data
from bn_imbalance.data.copies import near_pairs
from bn_imbalance.data.items import read_data

RNG = np.random.default_rng(0)


def blocks(seed, size=64):
    "A picture unlike all others"
    rng = np.random.default_rng(seed)
    return Image.fromarray(np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((size//8, size//8, 1))).astype(np.uint8))


def write_classes(root, n_good=40, n_bad=12, name='{}.png'):
    for label, n, start in ('good', n_good, 0), ('bad', n_bad, 1000):
        (root/label).mkdir(parents=True)
        for i in range(n): blocks(start + i).save(root/label/name.format(3*i))
    return root


@pytest.fixture
def images(tmp_path): return write_classes(tmp_path/'images')


def told(c, level, *words): return [t for l, t, _ in c.findings if l == level and all(w in t for w in words)]
def names(c, *words): return next(e for _, t, e in c.findings if all(w in t for w in words))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 600), st.integers(0, 40), st.integers(0, 10**6))
def test_near_pairs_against_brute_force(n, limit, seed):
    rng = np.random.default_rng(seed)
    h = rng.random((n, 256)) > .5
    h[n//2:] = h[:n - n//2] ^ (rng.random((n - n//2, 256)) < .1) # near copies, about 26 bits off
    d = (h[:, None] != h[None]).sum(2) if n <= 200 else np.array([(h != row).sum(1) for row in h])
    i, j = np.nonzero(np.triu(d <= limit, 1))
    found = near_pairs(h, limit)
    assert sorted(map(tuple, found.tolist())) == sorted(zip(i.tolist(), j.tolist(), d[i, j].tolist()))


def bomb(path, side):
    "A PNG of a few bytes that says it is `side` x `side`"
    chunk = lambda t, d: struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)) +
                     chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


def test_odd_folders(command, tmp_path, recwarn):
    root = write_classes(tmp_path/'odd', name='bild {} ü ☘.png')
    (root/'good').rename(root/'gut $x$ <b>'); good = root/'gut $x$ <b>'
    turned = blocks(501, 256); exif = turned.getexif(); exif[0x0112] = 6; turned.save(good/'turned.jpg', exif=exif)
    blocks(502).save(good/'moving.gif', save_all=True, append_images=[blocks(503), blocks(504)])
    Image.new('RGB', (300, 300), 'red').save(good/'red.png')
    blocks(505, 256).crop((0, 0, 256, 64)).save(good/'wide.png')
    Image.new('RGB', (1, 1)).save(good/'dot.png')
    bomb(good/'huge.png', 20_000); bomb(good/'large.png', 11_000)
    (good/'circle.png').symlink_to(good/'circle.png'); (good/'deeper').symlink_to(good)
    (good/'text.jpg').write_text('hello'); (root/'empty').mkdir()
    try: blocks(506).save(os.fsdecode(os.fsencode(good) + b'/\xff\xfe.png'))
    except OSError: pass # a file system that wants UTF-8
    c = check_data(root)
    unread = ' '.join(names(c, 'cannot be read'))
    for o in ('dot.png: cannot be read (1x1', 'huge.png: more pixels than the limit', 'circle.png',
              'large.png: more pixels than the limit', 'text.jpg: not an image'): assert o in unread
    assert '5 images' in told(c, 'error', 'cannot')[0]
    assert 'deeper' not in ' '.join(c.items.name)
    seen = dict(red='single color', moving='frames', turned='EXIF orientation', wide='twice as long')
    assert [Path(names(c, w)[0]).stem for w in seen.values()] == list(seen)
    assert told(c, 'error', 'Class empty has no readable image')
    assert told(c, 'note', '--minority') == [] # two classes hold images
    code, text, err = command('bn-data', 'check', root, '--out', tmp_path/'page.html')
    page = (tmp_path/'page.html').read_text()
    assert code == 0 and 'huge.png' in text and '<b>' not in page.replace('&lt;b&gt;', '')
    assert '<script' not in page and 'http' not in page
    assert not [w for w in recwarn if 'Glyph' in str(w.message) or 'Decompression' in str(w.message)]


def test_subjects_from_looking_to_comparing(command, tmp_path):
    "Names that tell subjects are found, told with what it means, written down, and taken by the commands that train"
    root = tmp_path/'images'
    for label, n, start in ('good', 30, 0), ('bad', 12, 100):
        (root/label).mkdir(parents=True)
        for i in range(n):
            for j in range(3): # three views of it
                im = np.asarray(blocks(start + i)) + RNG.integers(-60, 60, (64, 64, 3))
                Image.fromarray(im.clip(0, 255).astype(np.uint8)).save(root/label/f'leaf{i}_{j}.png')
    code, text, err = command('bn-data', 'check', root, '--quick', '--groups', tmp_path/'groups.csv', '--out',
                              tmp_path/'page.html')
    said = ' '.join(text.split())
    assert code == 0 and '126 images share a name' in said and 'there are 42 subjects' in said, (text, err)
    assert '90 of good count as about' in said and f'Groups: {tmp_path/"groups.csv"}' in text
    assert 'Effective number of images' in (tmp_path/'page.html').read_text()
    data = read_data(tmp_path/'groups.csv')
    assert data.items.group.nunique() == 42 and data.counts == {'majority': 90, 'minority': 36}
    again = check_data(tmp_path/'groups.csv')
    assert not again.proposed and list(again.effective.subjects) == [12, 30]
    code, text, _ = command('bn-data', 'check', write_classes(tmp_path/'other'), '--quick', '--groups',
                            tmp_path/'no.csv', '--out', tmp_path/'page.html')
    assert code == 0 and 'nothing is written' in text and not (tmp_path/'no.csv').exists()


def test_bad_input_is_one_line(command, images, tmp_path):
    (tmp_path/'none'/'a').mkdir(parents=True); (tmp_path/'bare').mkdir(); (tmp_path/'file').write_text('')
    (tmp_path/'broken'/'a').mkdir(parents=True); (tmp_path/'broken'/'a'/'x.png').write_text('')
    (tmp_path/'loop'/'a').mkdir(parents=True); (tmp_path/'loop'/'b').symlink_to(tmp_path/'loop')
    (tmp_path/'lines.csv').write_text('path,lable\n')
    for args, message in (([tmp_path/'nowhere'], 'no such folder'), ([tmp_path/'bare'], 'no sub-folders'),
                          ([tmp_path/'none'], 'no images'),
                          ([tmp_path/'broken'], 'none of its 1 images can be read'),
                          ([tmp_path/'loop'], 'leads back above it'),
                          ([tmp_path/'lines.csv'], 'column label is missing'),
                          ([images, '--minority', 'bda'], 'Did you mean bad?'),
                          ([images, '--out', tmp_path/'file'/'p.html'], 'cannot be written')):
        out = [] if '--out' in args else ['--out', tmp_path/'p.html']
        code, text, err = command('bn-data', 'check', *args, *out)
        assert code == 1 and message in err and err.strip().count('\n') == 0 and 'Traceback' not in err, (args, err)
    assert not (tmp_path/'p.html').exists()


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root may read everything')
def test_no_permission(images):
    (images/'good'/'0.png').chmod(0)
    assert 'Permission denied' in names(check_data(images), 'cannot be read')[0]
    (images/'bad').chmod(0)
    try: assert len(names(check_data(images), 'cannot be read')) == 2
    finally: (images/'bad').chmod(0o755)


def test_needs_neither_pytorch_nor_fastai():
    code = 'import bn_imbalance.audit.page, sys; print({"torch", "fastai", "timm"} & set(sys.modules) or "none")'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == 'none'
