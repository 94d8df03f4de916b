"""Damaged and hostile input: an answer or one clear line, never a crash, a hang or another exception.

A few hundred, and ten thousand where slow tests are run too."""
import csv, io, json, time
import numpy as np, pytest, torch
from PIL import Image
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.data.images import read_image
from bn_imbalance.deploy.csv_lines import CsvLines, complete_lines
from bn_imbalance.deploy.model import load_model, model_card, with_checksum
from bn_imbalance.deploy.predict import COLUMNS, model_logits
from bn_imbalance.training.sweep import Execution
from conftest import write_folder

SLOW = 20 # seconds; a hang
# seeds that failed once: kind -> seeds
FAILED_ONCE = dict(image=[], bytes=[], fields=[80, 101, 178, 348, 2139], lines=[])


def each(kind, n): return [*FAILED_ONCE[kind], *range(n)]


many = pytest.mark.parametrize('n', [80, pytest.param(800, marks=pytest.mark.slow)]) # of each kind


def answer(seed, f, *args):
    "What `f` gives, or None if it refuses in one line; anything else fails the test"
    start = time.time()
    try: return f(*args)
    except BadInput as e: assert 0 < len(str(e)) < 2000 and '\n' not in str(e), seed
    except Exception as e: raise AssertionError(f'seed {seed}') from e
    finally: assert time.time() - start < SLOW, seed


def mutated(rng, data):
    "Bytes with a few changed, cut out, doubled, or put elsewhere"
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if not data: break
        i, n, kind = rng.integers(len(data)), rng.integers(1, 40), rng.integers(6)
        if kind == 0: data[i] = rng.integers(256)
        elif kind == 1: data[i] ^= 1 << rng.integers(8)
        elif kind == 2: del data[i:i+n]
        elif kind == 3: data[i:i] = rng.bytes(n)
        elif kind == 4: data[i:i] = data[i//2:i//2+n]
        else: del data[max(i, 20):]
    return bytes(data)


@pytest.fixture(scope='module')
def pictures():
    rng, out = np.random.default_rng(0), []
    noise = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    exif = noise.getexif(); exif[0x0112] = 6; exif[0x010F] = 'maker'
    for kwargs in (dict(format='JPEG', exif=exif), dict(format='JPEG', progressive=True), dict(format='PNG'),
                   dict(format='PNG', interlace=1), dict(format='JPEG', quality=30, subsampling=2)):
        noise.save(b := io.BytesIO(), **kwargs)
        out.append(b.getvalue())
    deep = Image.fromarray(rng.integers(0, 65536, (24, 20), dtype=np.uint16))
    for im in noise.convert('P'), noise.convert('LA'), deep, noise.convert('1'):
        im.save(b := io.BytesIO(), 'PNG', **(dict(transparency=0) if im.mode == 'P' else {}))
        out.append(b.getvalue())
    noise.convert('CMYK').save(b := io.BytesIO(), 'JPEG')
    return out + [b.getvalue()]


@many
def test_image_bytes(n, pictures, tmp_path):
    path, read = tmp_path/'a.img', 0
    for seed in each('image', n) + each('image', n): # twice as many: they are quick
        rng = np.random.default_rng([seed, read % 2, 1])
        path.write_bytes(mutated(rng, pictures[rng.integers(len(pictures))]))
        im = answer(seed, read_image, path)
        assert im is None or im.mode == 'RGB', seed
        read += 1


@pytest.fixture(scope='module', params=['final_bn', 'final_bn+padim'])
def model(request, tmp_path_factory):
    root = tmp_path_factory.mktemp('fuzz')
    s = load_settings(arch='mobilenetv3_small_050', weights='random', size=32, epochs=1, seeds=1, batch_size=8)
    fit(read_data(write_folder(root/'images', 20, 10)), request.param, s,
        execution=Execution(root/'model', 'serial', progress=False))
    return root/'model'


def used(path):
    "Everything that can be done with a model, in small"
    m = load_model(path)
    model_card(m), repr(m), m.decision.threshold
    with np.errstate(all='ignore'):
        z = model_logits(m, torch.zeros(1, 3, *[m.about['network']['size']]*2, dtype=torch.uint8), 1)
        m.decision.labels(z), m.decision.calibrated(z), m.decision.review(z)


@many
def test_model_bytes(n, model):
    text = (whole := model/'model.json').read_bytes()
    try:
        for seed in each('bytes', n):
            whole.write_bytes(mutated(np.random.default_rng([seed, 2]), text))
            answer(seed, load_model, model)
    finally: whole.write_bytes(text)


STRANGE = [None, True, False, 0, -1, 1, 2, 1e308, -1e308, 1e-308, float('nan'), float('inf'), 10**400, 2**63,
           '', 'a', '\0', '\ud800', 'x'*10**5, [], [[]], {}, {'a': 1}, [None]*5, [1e308]*2,
           'Linear', '../../x', '1', [0, 0], [[['Linear']]]]


def patches(o, at=()):
    "Every place in nested JSON"
    for k, v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
        yield (*at, k)
        yield from patches(v, (*at, k))


@many
def test_model_fields(n, model):
    "Changed by somebody who makes the checksum fit"
    text = (path := model/'model.json').read_text()
    try:
        for seed in each('fields', n):
            rng, about = np.random.default_rng([seed, 3]), json.loads(text)
            for _ in range(rng.integers(1, 4)):
                at = list(patches(about))
                *to, key = at[rng.integers(len(at))]
                d = about
                for k in to: d = d[k]
                kind = rng.integers(4)
                if kind == 0: del d[key]
                elif kind == 1 and isinstance(d[key], (int, float)): d[key] = d[key]*rng.choice([-1, 0, 2, 1e9, .5])
                else: d[key] = STRANGE[rng.integers(len(STRANGE))]
            path.write_text(json.dumps(with_checksum(about)))
            answer(seed, used, model)
    finally: path.write_text(text)


@many
def test_csv_lines(n, tmp_path):
    "A CSV file that bn-predict is to resume"
    f, path = io.StringIO(), tmp_path/'a.csv'
    names = ['a.jpg', 'b c.jpg', 'a "quoted", one.jpg', 'two\nlines.jpg', 'ä☘.jpg']
    rows = [[n, 'good', '.1', '.2', '.5', 'no', '', 'abc'] for n in names]
    csv.writer(f, lineterminator='\n').writerows([COLUMNS, *rows])
    whole = f.getvalue().encode()
    def ends():
        with open(path, 'rb') as f:
            return [at for _, at in complete_lines(f, COLUMNS, 'abc', path)] or [0]
    def opened():
        with CsvLines(path, COLUMNS, 'abc') as out: return list(out.keys())
    for seed in each('lines', n):
        path.write_bytes(data := mutated(np.random.default_rng([seed, 4]), whole))
        found, keys = answer(seed, ends), answer(seed, opened)
        if found: assert found[-1] <= len(data) and data[:found[-1]][-1:] in (b'', b'\n'), seed
        if found == [0] and keys is None: # no complete line, and not the start of our header: refused
            assert path.read_bytes() == data, seed
        elif found:
            assert len(keys) == max(len(found) - 1, 0), seed
            assert len(path.read_bytes()) == (found[-1] or len(','.join(COLUMNS)) + 1), seed
