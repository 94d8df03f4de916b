"""Beyond one machine: images and results in a store; Ray's workers; what is killed on the way loses nothing."""
import io, os, shutil, signal, subprocess, sys, time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
import fsspec, numpy as np, pandas as pd, psutil, pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings, strategies as st
from PIL import Image
from bn_imbalance.deploy import csv_lines as lines
from bn_imbalance.core import BadInput
from bn_imbalance.data.images import (
    decoded, file_bytes, image_files, is_address, local_path, matches)
from bn_imbalance.deploy.csv_lines import CsvLines, RemoteCsvLines, left_to_do, open_lines
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import find_images, predict_csv
import store # noqa: F401, makes onedisk:// known
from deployed import images, one_line, saved # noqa: F401, fixtures

COLUMNS, ME = ['path', 'label', 'model'], 'm1'


@pytest.fixture
def memory():
    "An empty store in memory"
    fs = fsspec.filesystem('memory')
    fs.store.clear(), fs.pseudo_dirs.clear()
    yield fs
    fs.store.clear(), fs.pseudo_dirs.clear()


def line(key): return f'"{key}",sick,{ME}\n'


def add(out, keys):
    for k in keys: out.add(line(k))


# Addresses

def test_what_an_address_is():
    for o in ('s3://b/c', 'memory://a', 'abfs://x', 'zip://a::s3://b', 'file:///a'): assert is_address(o), o
    for o in ('field', '/field', 'C:/field', 'C:\\field', '://b', Path('s3://b')): assert not is_address(o), o
    assert local_path('file:///a b/c') == '/a b/c' and local_path('s3://b') == 's3://b' and local_path('x') == 'x'


def test_a_store_is_listed_like_a_folder(memory, tmp_path):
    buffer = io.BytesIO()
    Image.new('RGB', (9, 9)).save(buffer, 'PNG')
    for name in ('b.png', 'A.PNG', 'ä ☘.jpg', '.hidden.png', 'notes.txt', 'a/z.png', 'a/.x/h.png', 'a b/1.png',
                 'a/b/2.png', 'c[1].png'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_bytes(buffer.getvalue())
        memory.pipe_file(f'/field/{name}', buffer.getvalue())
    here = [p.relative_to(tmp_path).as_posix() for p in image_files(tmp_path)]
    assert [p.removeprefix('memory:///field/') for p in image_files('memory://field')] == here and len(here) == 7
    assert list(image_files(f'file://{tmp_path}')) == list(image_files(tmp_path)) # a plain path
    for pattern in '*.png', 'a*', 'a/*', '*/*.png', 'c[1].png', '[A-b].*', 'none*':
        far, near = matches(f'memory://field/{pattern}'), matches(tmp_path/pattern)
        assert [(p.split('field/')[1], d) for p, d in far] == [(p.relative_to(tmp_path).as_posix(), d) for p, d in near]
    assert list(find_images(['memory://field/a', tmp_path/'b.png'])) == [
        'memory:///field/a/z.png', 'memory:///field/a/b/2.png', tmp_path/'b.png']
    assert file_bytes('memory://field/b.png') == file_bytes(tmp_path/'b.png')
    read = [(x.shape, e) for _, x, e in decoded(image_files('memory://field'), 16)]
    assert read == [((3, 16, 16), '')]*7


def test_bad_addresses(memory, saved, command, monkeypatch, tmp_path):
    memory.pipe_file('/bare/notes.txt', b'')
    memory.pipe_file('/field/text.jpg', b'hello')
    for source, message in (('s4://bucket/field', 'there is no s4://. Did you mean s3'),
                            ('oci://bucket/field', 'needs the package ocifs. pip install ocifs'),
                            ('memory://none', 'no such file or folder'), ('memory://bare', 'a folder without images'),
                            ('memory://bare/*.jpg', 'no such file or folder'),
                            ('memory://field', '1 of them cannot be read')):
        one_line(command('bn-predict', saved, source), 'bn-predict: ', message)
    one_line(command('bn-predict', saved, 'memory://field', '--csv', 's4://bucket/out.csv'), 'there is no s4://')
    one_line(command('bn-predict', saved, 'memory://field', '--explain', 's3://bucket/maps'), 'on a disk only')
    def closed(*args, **kwargs): raise PermissionError('Access Denied')
    for name in 'ls', 'put_file':
        with monkeypatch.context() as m:
            m.setattr(MemoryFileSystem, name, closed)
            result = command('bn-predict', saved, 'memory://field', '--csv', 'memory://out.csv')
            one_line(result, 'Access Denied', 'cannot be listed' if name == 'ls' else 'cannot be written')


def test_a_long_file_is_not_taken_in(memory, monkeypatch):
    memory.pipe_file('/long.png', b'0'*1001)
    monkeypatch.setattr('bn_imbalance.data.images.MAX_BYTES', 1000)
    with pytest.raises(BadInput, match='more bytes'): file_bytes('memory://long.png')
    monkeypatch.setattr('bn_imbalance.data.images.MAX_BYTES', 1001)
    assert len(file_bytes('memory://long.png')) == 1001


# Lines

@settings(deadline=None)
@given(st.lists(st.sampled_from('abcdef'), max_size=12), st.lists(st.sampled_from('abcdef'), max_size=12))
def test_what_is_left_to_do(paths, done):
    left, want, there = list(left_to_do(paths, iter(done))), [], Counter(done)
    for p in paths:
        if there[p]: there[p] -= 1
        else: want.append(p)
    assert Counter(left) == Counter(want)


def test_lines_in_step_are_not_remembered():
    "A million lines pass by; a generator tells how far it was read, and nothing is kept"
    read = []
    def done():
        for i in range(100): read.append(i); yield str(i)
    it = left_to_do(map(str, range(200)), done())
    assert next(it) == '100' and len(read) == 100 and not it.gi_frame.f_locals['ahead']


class Stopped(Exception): pass


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=6))
def test_a_store_holds_what_a_disk_holds(runs):
    "Runs of some lines each, stopped or not, uploaded line by line"
    fs, keys = fsspec.filesystem('memory'), []
    fs.store.clear()
    with pytest.MonkeyPatch.context() as m:
        m.setattr(lines, 'SECONDS', 0), m.setattr(lines, 'TIMES', 0)
        for n, stopped in runs:
            try:
                with RemoteCsvLines('memory://r/out.csv', COLUMNS, ME) as out:
                    assert list(out.keys()) == keys and out.n == len(keys)
                    new = [f'{len(keys) + i}, "x"\n.jpg'.replace('"', "'") for i in range(n)]
                    add(out, new)
                    keys += new
                    if stopped: raise Stopped
            except Stopped: pass
            assert fs.cat_file('/r/out.csv').decode() == ','.join(COLUMNS) + '\n' + ''.join(map(line, keys))
            assert list(fs.find('/r')) == ['/r/out.csv']


@pytest.mark.parametrize('step', range(1, 12))
def test_a_store_that_fails_at_any_moment(memory, monkeypatch, step):
    "Each write, copy or removal in its turn raises; then the same run again"
    monkeypatch.setattr(lines, 'SECONDS', 0), monkeypatch.setattr(lines, 'TIMES', 0)
    with RemoteCsvLines('memory://r/out.csv', COLUMNS, ME) as out: add(out, 'abc')
    calls = Counter()
    def failing(name):
        real = getattr(MemoryFileSystem, name)
        def f(*args, **kwargs):
            calls['all'] += 1
            if calls['all'] == step: raise OSError(5, 'the store is gone')
            return real(*args, **kwargs)
        return f
    with monkeypatch.context() as m:
        for name in 'put_file', 'cp_file', 'rm_file': m.setattr(MemoryFileSystem, name, failing(name))
        try:
            with RemoteCsvLines('memory://r/out.csv', COLUMNS, ME) as out: add(out, 'defgh')
        except (BadInput, OSError) as e: assert 'the store is gone' in str(e)
    with RemoteCsvLines('memory://r/out.csv', COLUMNS, ME) as out:
        add(out, left_to_do('abcdefgh', out.keys()))
    text = ','.join(COLUMNS) + '\n' + ''.join(map(line, 'abcdefgh'))
    assert memory.cat_file('/r/out.csv').decode() == text and memory.find('/r') == ['/r/out.csv']


@pytest.mark.parametrize('there', [0, 1, 16, 17, 24, 30, 31])
def test_a_file_that_was_cut_off(memory, there):
    "As on a disk: what is complete is kept"
    text = ','.join(COLUMNS) + '\n' + line('a') + line('b')
    memory.pipe_file('/r/out.csv', text[:there].encode())
    with RemoteCsvLines('memory://r/out.csv', COLUMNS, ME) as out: add(out, left_to_do('abc', out.keys()))
    assert out.n == max(0, text[:there].count('\n') - 1)
    assert pd.read_csv('memory://r/out.csv').path.tolist() == ['a', 'b', 'c']


def test_a_file_address_is_a_path(tmp_path):
    with open_lines(f'file://{tmp_path}/out.csv', COLUMNS, ME) as out: add(out, 'ab')
    assert isinstance(out, CsvLines) and (tmp_path/'out.csv').read_text().count('\n') == 3


# Predictions

def near_and_far(memory, saved, images, tmp_path):
    memory.put(str(images), '/field', recursive=True)
    memory.pipe_file('/field/good/text.jpg', b'hello')
    shutil.copytree(images, tmp_path/'field')
    (tmp_path/'field'/'good'/'text.jpg').write_text('hello')
    return load_model(saved)


def test_predictions_in_a_store(memory, saved, images, command, tmp_path):
    model = near_and_far(memory, saved, images, tmp_path)
    predict_csv(model, [tmp_path/'field'], tmp_path/'near.csv', progress=False)
    assert predict_csv(model, ['memory://field'], 'memory://r/far.csv', progress=False) == (53, 1, 0)
    want = (tmp_path/'near.csv').read_text().replace(f'{tmp_path}/', 'memory:///')
    assert memory.cat_file('/r/far.csv').decode() == want
    code, _, err = command('bn-predict', saved, 'memory://field', '--csv', 'memory://r/far.csv')
    assert code == 0 and '0 images (53 were done before)' in err and memory.cat_file('/r/far.csv').decode() == want
    memory.pipe_file('/r/other.csv', b'a,b\n')
    result = command('bn-predict', saved, 'memory://field', '--csv', 'memory://r/other.csv')
    one_line(result, 'line 1 is of another model')
    code, _, err = command('bn-predict', saved, f'file://{tmp_path}/field', '--csv', f'file://{tmp_path}/near.csv')
    assert code == 0 and '0 images (53 were done before)' in err


CODE = '''import sys
sys.path.insert(0, sys.argv[1])
import store
from functools import partial
from bn_imbalance.deploy import csv_lines as lines, predict
from bn_imbalance.deploy.model import load_model
lines.SECONDS = lines.TIMES = 0
run = predict.predictions
if sys.argv[5:]:
    from bn_imbalance.find import distributed as far
    far.PIECE, run = 2, partial(far.ray_predictions, workers=2, device='cpu')
print(*predict.predict_csv(load_model(sys.argv[2]), [sys.argv[3]], sys.argv[4], 2, progress=False, run=run))
'''


def started(*args):
    cmd = [sys.executable, '-c', CODE, Path(__file__).parent, *args]
    return subprocess.Popen(list(map(str, cmd)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(true, p, seconds=300):
    end = time.time() + seconds
    while not (found := true()):
        assert not p or p.poll() is None, p.stderr.read()
        assert time.time() < end, 'too long'
        time.sleep(.005)
    return found


def written(root): return max(0, (p := root/'out.csv').exists() and p.read_bytes().count(b'\n') - 1)


@pytest.mark.slow
def test_the_main_process_is_killed_again_and_again(saved, images, tmp_path):
    "A store on this disk; SIGKILL after some uploads, until the run is through"
    far = f'onedisk://{tmp_path}/out.csv'
    predict_csv(load_model(saved), [images], tmp_path/'want.csv', bs=2, progress=False)
    for kill in range(4):
        before = written(tmp_path)
        p = started(saved, images, far)
        wait_for(lambda: written(tmp_path) >= before + 6, p)
        p.kill()
        p.communicate()
    kept = written(tmp_path)
    p = started(saved, images, far)
    out, err = p.communicate()
    n, bad, before = map(int, out.split())
    assert n + before == 52 and before == kept >= 20 and bad == 0, err
    assert (tmp_path/'out.csv').read_bytes() == (tmp_path/'want.csv').read_bytes()
    assert not list(tmp_path.glob('out.csv?*'))


# Ray

def test_ray_that_is_not_there(saved, images, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'ray', None)
    one_line(command('bn-predict', saved, images, '--csv', tmp_path/'out.csv', '--backend', 'ray'),
             "pip install 'bn_imbalance[ray]'")


def test_bad_flags(saved, images, command, tmp_path):
    for args, message in ((['--backend', 'slurm'], 'expected serial, ray'),
                          (['--workers', '0'], '--workers 0: expected'),
                          (['--backend', 'ray', '--explain', tmp_path/'maps'], 'with --backend serial only')):
        one_line(command('bn-predict', saved, images, *args), message)


def test_memory_is_of_one_process(memory, saved, images, command, tmp_path):
    pytest.importorskip('ray')
    near_and_far(memory, saved, images, tmp_path)
    one_line(command('bn-predict', saved, 'memory://field', '--backend', 'ray'), 'cannot see the memory of this one')


@pytest.mark.slow
def test_everything_is_killed_and_gone_on_with(saved, images, tmp_path):
    "Ray's main process and, with it, its workers; a store on this disk"
    pytest.importorskip('ray')
    predict_csv(load_model(saved), [images], tmp_path/'want.csv', bs=2, progress=False)
    p = started(saved, images, f'onedisk://{tmp_path}/out.csv', 'ray')
    wait_for(lambda: written(tmp_path) >= 12, p)
    family = psutil.Process(p.pid).children(recursive=True)
    assert len(family) > 3
    p.kill()
    p.communicate()
    def lives(o):
        try: return o.is_running() and o.status() != psutil.STATUS_ZOMBIE # where nobody reaps the dead
        except psutil.NoSuchProcess: return False # gone in between
    wait_for(lambda: not any(map(lives, family)), None) # no worker outlives it
    kept = written(tmp_path)
    p = started(saved, images, f'onedisk://{tmp_path}/out.csv', 'ray')
    out, err = p.communicate()
    n, bad, before = map(int, out.split())
    assert n + before == 52 and before == kept >= 12 and bad == 0, err
    assert (tmp_path/'out.csv').read_bytes() == (tmp_path/'want.csv').read_bytes()


@pytest.fixture(scope='module')
def local_ray(): # later than the test before, which has a Ray of its own
    ray = pytest.importorskip('ray')
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__]) # workers cannot import this file
    from bn_imbalance.core import ray_cluster
    with ExitStack() as stack: # it tries three times
        try: stack.enter_context(ray_cluster(2))
        except BadInput as e: pytest.skip(str(e)) # a machine on which nothing else would run, either
        yield ray


@pytest.mark.slow
def test_ray_writes_the_same_bytes(local_ray, saved, images, command, monkeypatch, tmp_path):
    shutil.copytree(images, tmp_path/'field')
    (tmp_path/'field'/'bad'/'text, "x".jpg').write_text('hello')
    shutil.copy(images/'bad'/'000.jpg', os.fsencode(tmp_path/'field') + b'/\xff.jpg') # a name that is no UTF-8
    Image.fromarray(np.arange(0, 4096, 4, np.uint16).reshape(32, 32)).save(tmp_path/'field'/'deep.png')
    monkeypatch.chdir(tmp_path)
    flags = '--batch-size', 4, '--device', 'cpu'
    flags += '--range', '0,3500'
    code, _, err = command('bn-predict', saved, 'field', '--csv', 'serial.csv', *flags)
    assert code == 0 and '55 images' in err
    def notes(err): return [line for line in err.splitlines() if 'such as' in line]
    noticed = notes(err)
    assert any('deep.png: values outside' in o for o in noticed), err
    code, _, err = command('bn-predict', saved, 'field', '--csv', 'ray.csv', '--backend', 'ray', '--workers', 2, *flags)
    assert code == 0 and '55 images, 1 of them cannot be read' in err and notes(err) == noticed
    whole = (tmp_path/'serial.csv').read_bytes()
    assert (tmp_path/'ray.csv').read_bytes() == whole and whole.count(b'\n') == 56
    (tmp_path/'ray.csv').write_bytes(whole[:len(whole)//2])
    code, _, err = command('bn-predict', saved, 'field', '--csv', 'ray.csv', '--backend', 'ray', *flags)
    assert code == 0 and 'were done before' in err and (tmp_path/'ray.csv').read_bytes() == whole


@pytest.mark.slow
def test_a_slow_piece_holds_up_only_a_few(local_ray, tmp_path):
    "Results stay in order, and pieces are taken as they are needed"
    from bn_imbalance.find.distributed import AHEAD, in_order
    taken = []
    def pieces():
        for i in range(60):
            taken.append(i)
            yield i
    got = []
    for y in in_order(first_slow, (), pieces(), 2, 'cpu'):
        if not got: assert len(taken) <= 2*AHEAD + 2
        got.append(y)
    assert got == list(range(60)) == taken


def first_slow(device):
    def f(x):
        if not x: time.sleep(2)
        return x
    return f


@pytest.mark.slow
def test_errors_of_workers_are_one_line(local_ray, saved, images, command):
    from bn_imbalance.find.distributed import in_order
    for device in 'cuda', 'cuda:1':
        one_line(command('bn-predict', saved, images, '--backend', 'ray', '--device', device), 'Ray knows no GPU')
    one_line(command('bn-predict', saved, images, '--backend', 'ray', '--device', 'gpu'), '--device gpu')
    with pytest.raises(BadInput, match='^no luck$'): list(in_order(unlucky, (), range(3), 2, 'cpu'))


def unlucky(device):
    def f(x): raise BadInput('no luck')
    return f


def slow_square(folder, device):
    def f(x):
        (folder/f'{x}-{os.getpid()}-{time.time_ns()}').touch()
        time.sleep(.3)
        return x*x
    return f


@pytest.mark.slow
def test_a_worker_that_dies_on_the_same_piece_again_and_again(local_ray, monkeypatch):
    from bn_imbalance.find import distributed as far
    monkeypatch.setattr(far, 'TRIES', 2)
    with pytest.raises(BadInput, match='^2: workers died 2 times'):
        list(far.in_order(deadly, (), [[i] for i in range(4)], 2, 'cpu'))


def deadly(device):
    def f(piece): return piece if piece != [2] else os.kill(os.getpid(), signal.SIGKILL)
    return f


@pytest.mark.slow
def test_a_worker_is_killed(local_ray, tmp_path):
    "Its piece is done again by somebody else; results are whole and in order"
    from bn_imbalance.find.distributed import in_order
    got, killed = [], []
    for y in in_order(slow_square, (tmp_path,), range(20), 2, 'cpu'):
        got.append(y)
        if len(got) in (3, 8):
            last = max(tmp_path.iterdir(), key=lambda p: int(p.name.split('-')[2]))
            killed.append(int(last.name.split('-')[1]))
            os.kill(killed[-1], signal.SIGKILL)
    assert got == [x*x for x in range(20)] and len(killed) == 2
    assert len({p.name.split('-')[1] for p in tmp_path.iterdir()}) > 2 # others went on


# The projection in benchmarks/far.py

def test_the_slowest_part_decides(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1]/'benchmarks')
    from far import projected
    parts = dict(images=10**6, machines=1, price=2., decode=100., network=1600., megabytes=.1, written=10**6, start=0.)
    t = projected(**parts)
    assert t['hours'] == t['decoding'] == t['network'] == pytest.approx(10**6/1600/3600) and t['cost'] == pytest.approx(
        2*t['hours'] + .4)
    twice = projected(**parts | dict(machines=2))
    assert twice['hours'] == t['hours']/2 and twice['cost'] == t['cost']
    assert projected(**parts | dict(decode=50.))['slowest'] == 'decoding'
    slow = projected(**parts | dict(machines=100, written=1000.)) # more machines do not help the one that writes
    assert slow['slowest'] == 'writing' and slow['hours'] == pytest.approx(1000/3600)
    assert projected(**parts | dict(start=3600.))['hours'] == pytest.approx(t['hours'] + 1)
