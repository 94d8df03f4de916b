"""Fetching from a server that drops, cuts, delays and refuses: files whole or absent, and nothing asked for twice."""
import io, os, signal, subprocess, sys, threading, time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote
import numpy as np, pandas as pd, pytest
from PIL import Image
from bn_imbalance.data import download
from bn_imbalance.core import BadInput
from bn_imbalance.data.items import from_folder, read_data
from bn_imbalance.data.sources import locate_fetched
from bn_imbalance.data.download import blob_sha1, fetch_files, file_list


def picture(k, size=256):
    pixels = np.random.default_rng(k).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(b := io.BytesIO(), 'JPEG')
    return b.getvalue()


class Server(ThreadingHTTPServer):
    "Serves `files`; `plan[file]`: for its first requests drop, cut, cut_unseen, rubbish, stall, or a status"
    daemon_threads = True

    def __init__(self, files):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.plan, self.asked, self.at_once, self.most = files, {}, Counter(), 0, 0
        self.when, self.lock, self.pause = {}, threading.Lock(), 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self): return f'http://127.0.0.1:{self.server_port}/raw/color'
    @property
    def files_url(self): return self.url + '/{class}/{file}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        s, name = self.server, unquote(self.path).removeprefix('/raw/color/')
        with s.lock:
            s.asked[name] += 1
            s.when.setdefault(name, []).append(time.time())
            s.at_once += 1
            s.most = max(s.most, s.at_once)
            plan = s.plan.get(name, [])
            what = plan.pop(0) if plan else 'serve'
        try:
            time.sleep(s.pause)
            self.answer(s.files.get(name), what)
        finally:
            with s.lock: s.at_once -= 1

    def answer(self, body, what):
        if what == 'drop': return self.close()
        if what == 'stall': time.sleep(3)
        status = what if isinstance(what, int) else 200 if body else 404
        body = body if status == 200 else b''
        if what == 'rubbish': body = body[::-1]
        self.send_response(status)
        if what != 'cut_unseen': self.send_header('Content-Length', len(body))
        if status == 429: self.send_header('Retry-After', 1)
        self.end_headers()
        try: self.wfile.write(body[:len(body)//2] if what in ('cut', 'cut_unseen') else body)
        except OSError: pass
        if what in ('cut', 'cut_unseen'): self.close()

    def close(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def log_message(self, *args): pass


PLANTS = ['Apple___Apple_scab', 'Apple___healthy', 'Pepper,_bell___healthy']


@pytest.fixture
def village(monkeypatch):
    "A server with twenty images for each of three classes, and a list of them instead of the package's"
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    files = {f'{c}/{k:08x}-1111-2222-3333-444444444444___X {k}.JPG': picture(100*i + k)
             for i, c in enumerate(PLANTS) for k in range(20)}
    rows = [dict(zip(('class', 'file'), n.split('/')), sha1=blob_sha1(b), group=f'leaf {k // 2}')
            for k, (n, b) in enumerate(files.items())]
    monkeypatch.setattr(download, 'file_list', lambda name: rows)
    server = Server(files)
    server.rows = rows
    yield server
    server.shutdown(), server.server_close()


def held(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in Path(out).rglob('*.JPG') if p.is_file()}

def strays(out): return [p for p in Path(out).rglob('.*')]


@pytest.mark.parametrize('name', ['plantvillage', 'magnetic_tile'])
def test_the_list_is_that_of_the_real_images(name):
    root = locate_fetched(name)
    if not root: pytest.skip(f'{name} is not here')
    for r in file_list(name)[::97]: assert blob_sha1((root/r['class']/r['file']).read_bytes()) == r['sha1']


def test_every_fault_is_retried(village, tmp_path):
    names = list(village.files)
    faults = [['drop'], ['cut'], ['cut_unseen'], ['rubbish'], ['stall'], [429], [500], [503], ['drop', 'cut'],
              [429, 'drop']]
    village.plan = dict(zip(names, map(list, faults)))
    assert fetch_files(village.rows, tmp_path, village.files_url, timeout=.5) == {}
    assert held(tmp_path) == village.files and not strays(tmp_path)
    for name, fault in zip(names, faults): assert village.asked[name] == 1 + len(fault), fault
    assert all(village.asked[n] == 1 for n in names[len(faults):])
    first, second = village.when[names[5]][:2]
    assert second - first >= 1 # as Retry-After said
    assert 2 <= village.most <= download.WORKERS


def test_what_is_there_is_not_fetched_again(village, tmp_path):
    fetch_files(village.rows, tmp_path, village.files_url)
    cut, gone = sorted(held(tmp_path))[:2]
    (tmp_path/cut).write_bytes(village.files[cut][:-1]); (tmp_path/gone).unlink()
    village.asked.clear()
    assert fetch_files(village.rows, tmp_path, village.files_url) == {}
    assert held(tmp_path) == village.files and dict(village.asked) == {cut: 1, gone: 1}


def test_missing_files_are_named_and_the_rest_is_kept(command, village, tmp_path):
    gone = [f'{r["class"]}/{r["file"]}' for r in village.rows if r['class'] == PLANTS[0]][:3]
    for n in gone: del village.files[n]
    code, text, err = command('bn-data', 'fetch', 'plantvillage', '--out', tmp_path/'pv', '--url', village.url)
    assert code == 1 and '3 of 40 images could not be fetched' in err and 'Traceback' not in err
    assert all(f'{n}: HTTP 404' in err for n in gone)
    assert len(held(tmp_path/'pv')) == 37 and all(village.asked[n] == 1 for n in gone)


def test_wrong_content_is_never_kept(village, tmp_path):
    name, text = (f'{PLANTS[0]}/{village.rows[k]["file"]}' for k in (0, 2))
    village.files[name] = picture(999)
    village.files[text], village.rows[2]['sha1'] = b'hello', blob_sha1(b'hello')
    failed = fetch_files(village.rows, tmp_path, village.files_url)
    assert set(failed) == {name, text} and len(held(tmp_path)) == 58
    assert 'other content' in failed[name] and 'not an image' in failed[text]


def test_groups_and_plants(command, village, tmp_path, monkeypatch):
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('BN_IMBALANCE_PLANTVILLAGE', raising=False)
    monkeypatch.setenv('BN_IMBALANCE_DATA', '') # nothing shared beside it
    code, text, err = command('bn-data', 'fetch', 'plantvillage', '--parts', 'Apple', '--url', village.url + '/')
    root = tmp_path/'cache'/'plantvillage'
    assert code == 0 and str(root) in text, err
    assert locate_fetched('plantvillage', 'Apple___healthy') == root
    assert locate_fetched('plantvillage', 'Tomato___healthy') is None
    items = from_folder(root)
    assert sorted(items.label.unique()) == PLANTS[:2] and (items.groupby('group').size() == 2).all()
    code, *_ = command('bn-data', 'fetch', '--parts', 'pepper,apple', '--url', village.url)
    assert code == 0 and sorted(from_folder(root).label.unique()) == PLANTS
    assert max(village.asked.values()) == 1


@pytest.fixture
def tiles(monkeypatch, tmp_path):
    "A server that lays tiles out as GitHub does, the real ones if they are at hand, and the list of them"
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    root, rows = locate_fetched('magnetic_tile'), file_list('magnetic_tile')[::40]
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('BN_IMBALANCE_DATA', '')
    def content(k, r): return (root/r['class']/r['file']).read_bytes() if root else picture(k)
    files = {f'{r["class"]}/Imgs/{r["file"]}': content(k, r) for k, r in enumerate(rows)}
    if not root: rows = [{**r, 'sha1': blob_sha1(b)} for r, b in zip(rows, files.values())]
    monkeypatch.setattr(download, 'file_list', lambda name: rows)
    server = Server(files)
    server.rows = rows
    yield server
    server.shutdown(), server.server_close()


def test_tiles(command, tiles, tmp_path):
    "Fetched once, resumed, and from then on a data set with a name"
    code, _, err = command('bn-data', 'check', 'magnetic_tile')
    assert code == 1 and 'To get it: bn-data fetch magnetic_tile.' in err
    code, text, err = command('bn-data', 'fetch', 'magnetic_tile', '--url', tiles.url)
    root = tmp_path/'cache'/'magnetic_tile'
    assert code == 0 and str(root) in text and 'No licence is stated' in text and 'Huang' in text, err
    assert sorted(p.name for p in root.rglob('*.jpg')) == sorted(r['file'] for r in tiles.rows)
    cut = next(root.rglob('*.jpg'))
    cut.write_bytes(cut.read_bytes()[:-1])
    tiles.asked.clear()
    assert command('bn-data', 'fetch', 'magnetic_tile', '--url', tiles.url)[0] == 0
    assert dict(tiles.asked) == {f'{cut.parent.name}/Imgs/{cut.name}': 1}
    data = read_data('magnetic_tile', majority='MT_Free')
    assert (data.name, data.source, data.protocol) == ('magnetic_tile',)*2 + ('all',)
    assert set(data.items.group) == {r['group'] for r in tiles.rows} and set(data.classes('majority')) == {'MT_Free'}


def test_bad_input_is_one_line(command, village, tmp_path):
    (tmp_path/'file').write_text('')
    for args, message in ((['fetch', 'imagenet'], 'plantvillage and magnetic_tile can'),
                          (['fetch', 'magnetic_tile', '--parts', 'apple'], 'magnetic_tile has no parts'),
                          (['fetch', '--parts', 'aple'], 'Did you mean apple?'),
                          (['fetch', '--parts', ','], 'There are: apple, pepper'),
                          (['fetch', '--url', 'nowhere'], 'expected https://'),
                          (['fetch', '--url', village.url, '--out', tmp_path/'file'/'x'], 'cannot be written'),
                          (['fetch', '--colour', 'red'], 'unrecognized arguments'),
                          ([], 'expected fetch, check, prevalence'),
                          (['fetsch'], 'expected fetch, check, prevalence, not fetsch'), (['check'], 'required: data')):
        code, _, err = command('bn-data', *args)
        assert code == 1 and message in err and err.strip().count('\n') == 0 and 'Traceback' not in err, (args, err)


def test_no_connection_ends_soon(village, tmp_path, monkeypatch):
    monkeypatch.setattr(download.urllib3.Retry, 'sleep', lambda *args: None)
    with pytest.raises(BadInput, match='32 images in a row could not be fetched .*refused'):
        fetch_files(village.rows, tmp_path, 'http://127.0.0.1:9/{class}/{file}')


def test_disk_full(village, tmp_path, monkeypatch):
    "What was written is whole, and the error names the file"
    write, count = Path.write_bytes, Counter()
    def full(self, data):
        count['n'] += 1
        if count['n'] > 10: raise OSError(28, 'No space left on device')
        return write(self, data)
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(BadInput, match='No space left on device'):
        fetch_files(village.rows, tmp_path, village.files_url)
    assert len(held(tmp_path)) == 10 and not strays(tmp_path)
    assert all(village.files[n] == b for n, b in held(tmp_path).items())


def test_ctrl_c_leaves_whole_files(village, tmp_path):
    village.pause = .5
    code = ('import sys, json, signal; ' # a background job may ignore the signal
            'signal.signal(signal.SIGINT, signal.default_int_handler); '
            'from bn_imbalance import cli; from bn_imbalance.data import download; '
            'rows = json.load(open(sys.argv.pop(1))); download.file_list = lambda name: rows; '
            'sys.argv[0] = "bn-data"; cli.bn_data.cli()')
    pd.DataFrame(village.rows).to_json(tmp_path/'rows.json', orient='records')
    args = 'fetch', '--parts', 'apple', '--out', tmp_path/'pv', '--url', village.url
    p = subprocess.Popen([sys.executable, '-c', code, tmp_path/'rows.json', *args], stderr=subprocess.PIPE, text=True,
                         env={**os.environ, 'NO_PROXY': '127.0.0.1'})
    deadline = time.time() + 60
    while len(held(tmp_path/'pv')) < 5 and time.time() < deadline: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=20)[1]
    got = held(tmp_path/'pv')
    assert p.returncode == 1 and 'stopped' in err and 'Traceback' not in err
    assert 5 <= len(got) < 40 and all(village.files[n] == b for n, b in got.items()) and not strays(tmp_path/'pv')


def test_help_lists_both_actions():
    code = 'import sys; sys.argv[0] = "bn-data"; from bn_imbalance import cli; cli.bn_data.cli()'
    r = subprocess.run([sys.executable, '-c', code, '--help'], capture_output=True, text=True)
    shown = 'bn-data fetch', '--parts', '--url', 'bn-data check', '--minority', '--out'
    assert r.returncode == 0 and all(o in r.stdout for o in shown)
