"""Every command with odd inputs: one clear line or a result, nothing half-written, nothing silently dropped."""
import io, re
import numpy as np, pytest
from PIL import Image
from test_folders import classes, image, rows, table

pytestmark = pytest.mark.slow

def one_file(name, content):
    def make(root):
        classes(root, n=(6, 5))
        p = root/'good'/name
        p.write_bytes(content) if isinstance(content, bytes) else content(p)
        return root
    return make

def saved(kind, **kwargs): return lambda p: image(77).save(p, kind, **kwargs)

def png(): b = io.BytesIO(); image(5).save(b, 'PNG'); return b.getvalue()

def folder_with(*names): # folders with a copy of nothing in them
    def make(root):
        classes(root, n=(6, 5))
        for i, name in enumerate(names):
            (root/name).mkdir(parents=True, exist_ok=True)
            image(900 + i).save(root/name/f'x{i}.png')
        return root
    return make

def named(good, bad): return lambda root: classes(root, good=good, bad=bad, n=(6, 5))

def csv(change, header='path,label', sep=',', encoding='utf-8', end='\n'):
    def make(root):
        lines = change(rows(classes(root, n=(6, 5))))
        path = root.parent/'items.csv'
        text = end.join([header, *(sep.join(o) for o in lines)]) + end
        path.write_bytes(text.encode(encoding, 'surrogateescape'))
        return path
    return make

def arrays(f, ext): # images of other bits
    return lambda root: classes(root, n=(6, 5), ext=ext, save=lambda s,
                                p: f(np.random.default_rng(s).random((24, 24)), p))

def as_array(top, kind): return lambda a, p: Image.fromarray((a*top).astype(kind)).save(p)

def linked(where):
    def make(root):
        classes(root, n=(6, 5))
        (root/'good'/'link').symlink_to(where if where.startswith('/') else root/where)
        return root
    return make

def split_csv(names):
    return csv(lambda r: [(p, l, names[i % len(names)]) for i, (p, l) in enumerate(r)], 'path,label,split')

def bare(content):
    def make(root):
        root.mkdir(); (root.parent/'items.csv').write_bytes(content)
        return root.parent/'items.csv'
    return make

FILES = {name: png() for name in ('a b.png', 'ü☘.png', "it's.png", 'a;b,c.png', '$HOME.png', '-rf.png', '[1].png',
                                  'a[2].png',
                                  'new\nline.png', 'tab\t.png', 'é'*100 + '.png', 'x.PNG', 'noext', 'x.jpg_large',
                                  '\udcff.png', '%s.png')}
FILES |= {'empty.jpg': b'', 'zeros.png': bytes(999), 'text.jpg': b'hello', 'page.jpg': b'<html>404</html>',
          'cut.png': png()[:200],
          'lfs.png': b'version https://git-lfs.github.com/spec/v1\n', 'x.heic': b'\0\0\0\x18ftypheic' + bytes(99),
          'x.dcm': bytes(128) + b'DICM' + bytes(99), 'pdf.png': b'%PDF-1.4', 'z.png': b'PK\3\4' + bytes(99),
          'notes.txt': b'no',
          'Thumbs.db': b'x', 'x.svg': b'<svg/>', 'x.cr2': b'II*\0', '._x.png': b'x', 'x.tga': b'nothing',
          'LICENCE': b'text'}
FILES |= {'x.webp': saved('WEBP'), 'x.jp2': saved('JPEG2000'), 'x.jfif': saved('JPEG'), 'x.gif': saved('GIF'),
          'x.ico': saved('ICO'),
          'many.tif': saved('TIFF', save_all=True, append_images=[image(78)]), 'x_mask.png': png(),
          'moving.gif': saved('GIF', save_all=True, append_images=[image(79)]),
          'dot.png': lambda p: Image.new('L', (1, 1)).save(p),
          'long.png': lambda p: Image.effect_noise((9, 999), 50).save(p), 'fifo.png': lambda p: p.symlink_to(p)}
BOTH = lambda r: r
TABLES = dict(
    plain=csv(BOTH), semicolon=csv(BOTH, 'path;label', ';'), tab=csv(BOTH, 'path\tlabel', '\t'),
    bom=csv(BOTH, encoding='utf-8-sig'),
    utf16=csv(BOTH, encoding='utf-16'), crlf=csv(BOTH, end='\r\n'), upper=csv(BOTH, 'Path,LABEL'),
    blank=csv(BOTH, ' path , label '),
    filename=csv(BOTH, 'filename,label'), target=csv(BOTH, 'path,target'),
    noheader=csv(lambda r: r[1:], ','.join(('a.png', 'good'))),
    latin=csv(lambda r: [(p, l + 'é') for p, l in r], encoding='latin-1'), nothing=bare(b''),
    header=bare(b'path,label\n'),
    binary=bare(bytes(range(256))), excel=bare(b'PK\3\4' + bytes(99)), html=bare(b'<html></html>'),
    quotes=bare(b'path,label\n"a,b\n'),
    ragged=csv(lambda r: r + [('a', 'b', 'c')]), nolabel=csv(lambda r: [(p, '' if i == 3 else l) for i,
                                                                        (p, l) in enumerate(r)]),
    nan=csv(lambda r: [(p, 'nan' if i < 3 else l) for i, (p, l) in enumerate(r)]), twice=csv(lambda r: r + r[:1]),
    dots=csv(lambda r: r + [('./' + p, l) for p, l in r[:2]]), two=csv(lambda r: r + [(r[0][0], 'good')]),
    missing=csv(lambda r: r + [('nowhere.png', 'good')]), gone=csv(lambda r: [('x/' + p, l) for p, l in r]),
    slashes=csv(lambda r: [(p.replace('/', '\\'), l) for p, l in r]),
    windows=csv(lambda r: [('C:\\' + p, l) for p, l in r]),
    url=csv(lambda r: r + [('https://example.org/a.png', 'good')]), directory=csv(lambda r: r + [('images', 'good')]),
    bools=csv(lambda r: [(p, str(l == 'bad')) for p, l in r]),
    floats=csv(lambda r: [(p, '1.0' if i % 2 else '1') if l == 'bad' else
                                                                              (p, '0') for i, (p, l) in enumerate(r)]),
    several=csv(lambda r: [(p, 'bad;good' if i == 2 else l) for i, (p, l) in enumerate(r)]),
    one=csv(lambda r: [(p, 'good') for p, _ in r]),
    case=csv(lambda r: [(p, l.title() if i % 2 else l) for i, (p, l) in enumerate(r)]),
    many=csv(lambda r: [(p, str(i)) for i, (p, _) in enumerate(r)]),
    sides=csv(lambda r: [(p, 'train' if l == 'good' else 'test') for p, l in r]), split=split_csv(['train', 'test']),
    val=split_csv(['train', 'val', 'TEST']), folds=split_csv(['0', '1', '2']),
    typo=split_csv(['train', 'tets', 'test']),
    onlytrain=split_csv(['train']), half=split_csv(['train', 'test', '']))
FOLDERS = dict(
    mac=folder_with('__MACOSX/good'), nas=folder_with('good/@eaDir'), masks=folder_with('masks'),
    third=folder_with('other'),
    hidden=folder_with('.git'), deep=folder_with('good/a/b/c'), checkpoints=folder_with('.ipynb_checkpoints'),
    test=folder_with('test/good'),
    empty=lambda root: [classes(root, n=(6, 5)), (root/'none').mkdir()][0],
    nothing=lambda root: [root.mkdir(), root][1],
    flat=lambda root: [root.mkdir(), image(1).save(root/'a.png'), root][2],
    nested=lambda root: classes(root/'data', n=(6, 5)).parent,
    sides=lambda root: [classes(root/s, n=(6, 5), start=k*50) for k, s in enumerate(('train', 'test'))][0].parent,
    below=folder_with('good/train', 'good/test', 'bad/train'), same=named('bad', 'Bad'), blank=named('good', 'good '),
    newline=named('good', 'two\nlines'), full=named('良', '不良\u3000品'), emoji=named('👩\u200d🌾', 'bad'),
    surrogate=named('good', '\udce9'),
    comma=named('a,b', 'c*'), star=named('*', '[x]'), long=named('g'*200, 'b'*200), dash=named('--help', 'bad'),
    up=linked('..'), loop=linked('good'), out=linked('/usr/share/doc/bash'), broken=linked('nowhere'),
    copies=lambda root: [classes(root, n=(6, 5)), [image(i).save(root/'good'/f'c{i}.png') for i in range(5)]][0],
    wrong=lambda root: [classes(root, n=(6, 5)), image(0).save(root/'bad'/'w.png')][0],
    black=lambda root: classes(root, n=(6, 5), save=lambda s, p: Image.new('L', (24, 24), s % 250).save(p)))
BITS = {f'{top:g}-{np.dtype(kind).name}': arrays(as_array(top, kind), 'tif') for top, kind in (
    (1, 'f4'), (255, 'f4'), (4000, 'f4'), (1e9, 'f4'), (np.nan, 'f4'), (1023, 'u2'), (65535, 'u2'), (0, 'u2'),
    (2**30, 'i4'), (-900, 'i4'))}
INPUTS = {**{f'file {k!r}': one_file(k, v) for k, v in FILES.items()}, **{f'table {k}': v for k, v in TABLES.items()},
          **{f'folder {k}': v for k, v in FOLDERS.items()}, **{f'bits {k}': v for k, v in BITS.items()}}


@pytest.fixture
def reached(monkeypatch):
    "Commands stop where training would begin: what they were given by then"
    from bn_imbalance.core import BadInput
    seen = []
    def stop(data, *args, **kwargs):
        seen.append(data)
        raise BadInput('trained.')
    monkeypatch.setattr('bn_imbalance.training.compare', stop)
    monkeypatch.setattr('bn_imbalance.deploy.fit', stop)
    return seen

COMMON = ['--recipes', 'ridge', '--tuned', 'none', '--seeds', '2', '--size', '32', '--arch', 'resnet18', '--weights',
          'random']
FLAGS = {'bn-compare': COMMON, 'bn-fit': ['--recipe', 'ridge', *COMMON[4:]], 'bn-data': ['--quick']}
EVERY = {'bn-compare': 1, 'bn-fit': 4, 'bn-data': 2} # the commands read images alike

def counted(data, root):
    "Files that are there, and those that are images of the data or named as left out"
    there = [p for p in root.rglob('*') if p.is_file() and not p.name.startswith('.')]
    told = sum(int(n) for note in data.notes for n in re.findall(r'(\d+) files? \(', note))
    return len(there), data.items.path.nunique() + told

@pytest.mark.parametrize('name', FLAGS)
def test_odd_inputs(name, command, reached, tmp_path, monkeypatch):
    wrong = []
    for i, (what, make) in enumerate([*INPUTS.items()][::EVERY[name]]):
        here = tmp_path/str(i)
        here.mkdir()
        try: data = make(here/'images')
        except (OSError, UnicodeError): continue # not a name for this file system
        out, sub = here/'out', ['check'] if name == 'bn-data' else []
        before = len(reached)
        try: code, text, err = command(name, *sub, data, *FLAGS[name], '--out', out)
        except Exception as e:
            wrong.append(f'{what}: {type(e).__name__} {e}')
            continue
        ours = [o for o in err.splitlines() if not re.match(r'^(  |and \d+ more|.*it/s|.*\| )', o)]
        if code not in (0, 1) or 'Traceback' in err: wrong.append(f'{what}: exit {code}, {err[-300:]}')
        if code and len([o for o in ours if o.startswith(name)]) != 1:
            wrong.append(f'{what}: not one line: {err[-500:]!r}')
        if code and name != 'bn-data' and out.exists(): wrong.append(f'{what}: refused, but {out} was written')
        if what.startswith('file') and len(reached) > before and 'mask' not in what:
            there, known = counted(reached[-1], here/'images')
            if there != known: wrong.append(f'{what}: {there} files, {known} accounted for: {reached[-1].notes}')
    assert not wrong, '\n'.join(wrong)
    assert name == 'bn-data' or len(reached) > len(INPUTS)/EVERY[name]/3
