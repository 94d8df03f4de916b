"""The page to label on: who may come in, what may be asked, what a browser does, what a kill leaves behind."""
import json, os, random, re, signal, socket, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from browser import Browser, needs_browser
from bn_imbalance.find.queue import Queue, add_round, new_queue
pytest.importorskip('fasthtml', reason="pip install 'bn_imbalance[find]'")
from starlette.testclient import TestClient # noqa: E402
from bn_imbalance.find.labelling import ( # noqa: E402
    LabelServer, AccessControl, label_app, offline_page)

HOME, JSON = 'http://127.0.0.1:8642', {'content-type': 'application/json'}
SERVER = '''
import sys
from bn_imbalance.find.labelling import serve
serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
'''


def pictures(root, n=60, size=40):
    rng = np.random.default_rng(0)
    root.mkdir()
    for i in range(n): Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(root/f'{i:03d}.jpg')
    return [f'{i:03d}.jpg' for i in range(n)]


def make(where, n=60, names=None, source=''):
    names = pictures(where/'field', n) if names is None else names
    q = new_queue(where/'find', dict(root=str(where/'field'), source=str(source), majority='healthy', minority='sick',
                                     goal={}, n_images=n))
    add_round(q, pd.DataFrame(dict(path=names, score=1., strategy=['random' if i % 20 == 7 else 'margin'
                                                                   for i in range(len(names))])))
    return q


@pytest.fixture
def q(tmp_path): return make(tmp_path)


class Served:
    "The program in a process of its own"
    def __init__(self, folder, port=0, who='Ann'):
        self.process = subprocess.Popen([sys.executable, '-c', SERVER, folder, str(port), who], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert (m := re.search(r'Open ((http://127\.0\.0\.1:(\d+))/\S+)', line)), line + self.process.stderr.read()
        self.address, self.home, self.port = m[1], m[2], int(m[3])
    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
    def __enter__(self): return self
    def __exit__(self, *_): self.process.kill(); self.process.wait()


def inside(app, door, who='Ann', **kw):
    "Somebody who has come in"
    client = TestClient(app, base_url=HOME, headers=dict(origin=HOME), **kw)
    assert client.get(door.invite(who)).status_code == 200
    return client


@pytest.fixture
def app(q):
    door = AccessControl(8642)
    app = label_app(LabelServer(q), door)
    app.door = door
    return app


def said(i, label, n=60): return dict(i=i, label=label, n=n)


def test_the_door(app):
    client = TestClient(app, base_url=HOME, headers=dict(origin=HOME))
    for path in '/', '/state', '/image/0', '/large/0', '/heat/0', '/nothing', '/?token=', '/?token=' + 'a'*43:
        r = client.get(path)
        assert r.status_code == 401 and 'set-cookie' not in r.headers, path
    for path in '/answer', '/retrain', '/invite', '/': assert client.post(path, json=said(0, 'sick')).status_code == 401
    address = app.door.invite('Ann')
    assert client.head(address).status_code == 401 # whoever only looks does not use it up
    cookie = client.get(address).headers['set-cookie']
    assert all(o in cookie for o in ('HttpOnly', 'SameSite=strict', 'bn-find-8642=')) and 'Ann' not in cookie
    assert client.get('/').status_code == 200 and client.get(address).status_code == 200 # reloaded
    other = TestClient(app, base_url=HOME)
    assert other.get(address).status_code == 401
    assert other.get('/', headers=dict(cookie='bn-find-8642=x')).status_code == 401


def test_headers(app):
    client = inside(app, app.door)
    for path in '/', '/state', '/image/0', '/image/99', '/nothing':
        h = client.get(path).headers
        assert h['x-content-type-options'] == 'nosniff' and h['cache-control'] == 'no-store', path
        assert h['referrer-policy'] == 'no-referrer' and h['x-frame-options'] == 'DENY'
        assert 'access-control-allow-origin' not in h and 'server' not in h
    policy = client.get('/').headers['content-security-policy']
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and 'unsafe' not in policy


@pytest.mark.parametrize('headers,code', [
    (dict(host='evil.example'), 421), (dict(host='127.0.0.1.evil.example:8642'), 421), (dict(host=''), 421),
    (dict(origin='http://evil.example'), 403), (dict(origin='null'), 403), (dict(origin='http://127.0.0.1:9999'), 403),
    (dict(origin=''), 403), ({'sec-fetch-site': 'cross-site'}, 403), ({'sec-fetch-site': 'same-site'}, 403),
    ({'content-type': 'text/plain'}, 415), ({'content-type': 'application/x-www-form-urlencoded'}, 415),
    ({'content-type': 'multipart/form-data'}, 415)])
def test_foreign_requests(app, q, headers, code):
    client = inside(app, app.door)
    r = client.post('/answer', content=json.dumps(said(0, 'sick')), headers=JSON | headers)
    assert r.status_code == code and len(q.answers()) == 0
    if 'host' in headers: assert client.get('/state', headers=headers).status_code == 421


def test_a_notebook_does_not_open_the_door(q, monkeypatch):
    import fasthtml.core
    monkeypatch.setattr(fasthtml.core, 'IN_NOTEBOOK', True)
    door = AccessControl(8642)
    r = inside(label_app(LabelServer(q), door), door).get('/state', headers=dict(origin='http://evil.example'))
    assert 'access-control-allow-origin' not in r.headers


def test_no_write_by_get(app, q):
    client = inside(app, app.door)
    for path in '/answer?i=0&label=sick&n=60', '/retrain', '/invite?who=Bob', '/answer/0/sick':
        assert client.get(path).status_code in (404, 405)
    for method in 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE':
        assert client.request(method, '/answer').status_code == 405
    assert len(q.answers()) == 0 and not (q.folder/'answers.csv').exists()


@pytest.mark.parametrize('path', ['..%2ffind.json', '%2e%2e%2ffind.json', '0%2f..%2f..%2ffind.json', '-1', '60', '9'*20,
                                  '9'*90, '9'*5000, '0.jpg', '%00', 'a', '', '1e3', '٣'])
def test_no_path_outside(app, q, path):
    client = inside(app, app.door)
    for kind in 'image', 'large', 'heat':
        r = client.get(f'/{kind}/{path}')
        assert r.status_code in (404, 414, 422)
        assert b'majority' not in r.content and b'root' not in r.content


@pytest.mark.parametrize('body,code', [
    (b'', 422), (b'null', 422), (b'[]', 422), (b'{', 422), (b'['*2000, 422), (b'\xff\xfe', 422), (b'{"i": 0}', 422),
    (json.dumps(said('0', 'sick')).encode(), 422), (json.dumps(said(-1, 'sick')).encode(), 422),
    (json.dumps(said(60, 'sick')).encode(), 422), (json.dumps(said(10**30, 'sick')).encode(), 422),
    (json.dumps(said(0, 'Sick')).encode(), 422), (json.dumps(said(0, 'sick\nx')).encode(), 422),
    (json.dumps(said(True, 'sick')).encode(), 422), (json.dumps(said(0, ['sick'])).encode(), 422),
    (json.dumps(said(0, 'sick') | dict(who='Bob')).encode(), 422), (b'{"i": NaN, "label": "sick", "n": 0}', 422),
    (json.dumps(said(0, 'x'*5000)).encode(), 413), (b'x'*10**7, 413)])
def test_hostile_uploads(app, q, body, code):
    client = inside(app, app.door, raise_server_exceptions=False)
    r = client.post('/answer', content=body, headers=JSON)
    assert r.status_code == code and len(q.answers()) == 0 and len(r.text) < 200
    assert client.post('/answer', content=(b'x' for _ in range(9)), headers=JSON).status_code == 411
    for who in '', '<script>', '=1+1', 'a'*41, 'a\nb':
        assert client.post('/invite', json=dict(who=who)).status_code == 422


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/net/tcp').exists(), reason='not Linux')
def test_only_this_machine(q):
    with Served(q.folder) as s:
        listening = [l.split() for t in ('tcp', 'tcp6') for l in Path(f'/proc/net/{t}').read_text().splitlines()[1:]]
        at = [l[1] for l in listening if l[1].endswith(f':{s.port:04X}') and l[3] == '0A']
        assert at == [f'0100007F:{s.port:04X}'] # 127.0.0.1


def test_little_is_loaded():
    code = 'import sys, bn_imbalance.find.labelling; ' \
           'print(*{"torch", "fastai", "fasthtml", "uvicorn"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split() == []


@pytest.mark.slow
def test_a_thousand_requests_at_once(q):
    "Each is answered, and what was asked for is what comes"
    import httpx
    with Served(q.folder) as s, httpx.Client(base_url=s.home, headers=dict(origin=s.home), timeout=300,
                                             limits=httpx.Limits(max_connections=200)) as client:
        assert client.get(s.address).status_code == 200
        paths, labels = list(q.rows.path), ['healthy', 'sick']
        def one(k):
            i = k % 50
            label = labels[i % 2]
            if k % 4 == 0: return client.post('/answer', json=said(i, label)).json()['mine'][str(i)] == label
            if k % 4 == 1: return client.get(f'/image/{i}').content[:2] == b'\xff\xd8'
            if k % 4 == 2: return client.get('/state').json()['labels'] == labels
            return httpx.get(f'{s.home}/state', timeout=300).status_code == 401
        with ThreadPoolExecutor(100) as ex: assert all(ex.map(one, range(1000)))
        cookie = f'bn-find-{s.port}={client.cookies[f"bn-find-{s.port}"]}'
        for path in '/../find.json', '/image/../../find.json', '//etc/passwd', '/image/%2e%2e/find.json':
            with socket.create_connection(('127.0.0.1', s.port)) as raw: # as it stands: no client that tidies it
                lines = f'GET {path} HTTP/1.1', 'Host: 127.0.0.1', f'Cookie: {cookie}', 'Connection: close', '', ''
                raw.sendall('\r\n'.join(lines).encode())
                got = b''.join(iter(lambda: raw.recv(65536), b''))
                assert got.split()[1] == b'404' and b'majority' not in got and b'root:' not in got, (path, got)
    a = Queue(q.folder).answers()
    assert len(a) == 25 == (q.folder/'answers.csv').read_text().count('\n') - 1 and set(a.path) == set(paths[0:50:2])


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='no SIGKILL')
def test_killed_ten_times(q):
    "Whatever was acknowledged is in the file, once; the same port is free again at once"
    import httpx
    rng, port, paths, acked = random.Random(0), 0, list(q.rows.path), 0
    for _ in range(10):
        s = Served(q.folder, port)
        port = s.port
        with s, httpx.Client(base_url=s.home, headers=dict(origin=s.home), timeout=120) as client:
            client.get(s.address)
            killer = threading.Timer(rng.uniform(0, 1), s.kill)
            try:
                while acked < 60: # what was not acknowledged is sent again
                    r = client.post('/answer', json=said(acked, 'sick' if acked % 7 == 0 else 'healthy'))
                    assert r.status_code == 200
                    acked += 1
                    if not killer.ident: killer.start()
            except httpx.TransportError: pass
            if killer.ident: killer.join()
        lines = (q.folder/'answers.csv').read_text().split('\n')
        kept = list(Queue(q.folder).answers().path)
        assert kept == paths[:len(kept)] and acked <= len(kept) <= acked + 1, (acked, kept)
        assert lines[-1] == '' and len(lines) == len(kept) + 2
    assert acked >= 10


READY = "document.querySelectorAll('.tile').length && !document.body.classList.contains('saving')"
# as the page asks: an image has a width before the last of it has come
SEEN = READY + " && (i => i.complete && i.naturalWidth > 0)(document.querySelector('[aria-current] img'))"


def label(page, keys):
    "Press keys as somebody does who looks: the next one when the image is there and the last answer is kept"
    for k in keys:
        page.until(SEEN)
        page.press(k)
        page.until(READY)


def told(page): return page.js("document.getElementById('says').textContent")


@pytest.mark.slow
def test_a_browser_labels_fifty_images(q, tmp_path):
    needs_browser()
    with Browser(tmp_path/'profile') as browser, Served(q.folder) as s:
        page = browser.page(s.address)
        label(page, '1121s' + '1'*15)
        assert list(q.answers().label[:5]) == ['healthy', 'healthy', 'sick', 'healthy', 'skip']
        label(page, 'uu')
        assert len(q.answers()) == 18 and told(page) == 'Taken back.'
        label(page, '21') # the one that was taken back last comes first
        a = q.answers()
        assert list(a.path) == [f'{i:03d}.jpg' for i in range(20)] and list(a.label[18:]) == ['sick', 'healthy']
        page.open(s.home + '/') # reload in the middle
        page.until(SEEN)
        assert page.js("document.getElementById('place').textContent").startswith('21 of 60')
        label(page, ['ArrowDown', 'ArrowUp', 'ArrowRight', 'ArrowLeft', 'z'])
        page.until("document.querySelector('#stage img').naturalWidth > 0")
        page.press('2')
        page.until("document.getElementById('place').textContent.startsWith('22 of 60')")
        page.press('Escape')
        label(page, '1'*29)
        a = q.answers()
        assert list(a.path) == [f'{i:03d}.jpg' for i in range(50)] and set(a.who) == {'Ann'} and a.label[20] == 'sick'
        line = page.js("document.getElementById('line').textContent")
        assert line == 'found 3 in 50 looked at; by chance: not known yet'

        with Browser(tmp_path/'another') as guests: # Bob has a browser of his own
            address = page.js("fetch('invite', {method: 'POST', headers: {'Content-Type': 'application/json'}, "
                              "body: JSON.stringify({who: 'Bob'})}).then(r => r.json()).then(r => r.address)")
            bob = guests.page(address)
            label(bob, '12')
            label(page, '1')
            a = q.answers()
            assert list(a.label[a.who == 'Bob']) == ['healthy', 'sick'] and len(a) == 53
            bob.until("document.querySelectorAll('.disputed').length == 1")
            assert bob.js("document.querySelector('.disputed .others').textContent") == 'Ann: healthy'
            page.js("document.dispatchEvent(new Event('visibilitychange'))")
            page.until("document.querySelectorAll('.disputed').length == 1")
            assert not bob.complaints()

        port = s.port
        s.kill() # the program is gone, and comes back
        page.until(SEEN)
        page.press('1')
        page.until("document.getElementById('says').classList.contains('bad')")
        assert 'Not saved: the program does not answer' in told(page) and len(q.answers()) == 53
        with Served(q.folder, port) as s:
            page.press('1')
            page.until("document.getElementById('says').textContent.includes('Open its new address')")
            browser.page(s.address).until(READY)
            label(page, '1')
            assert told(page) == 'Saved: healthy.' and len(q.answers()) == 54


@pytest.mark.slow
def test_a_browser_is_closed_and_opened(q, tmp_path):
    needs_browser()
    with Served(q.folder) as s:
        with Browser(tmp_path/'profile') as browser:
            label(browser.page(s.address), '12')
            time.sleep(1)
            browser.page('about:blank').do('Browser.close')
            browser.process.wait(30)
        assert len(q.answers()) == 2
        with Browser(tmp_path/'profile') as browser:
            page = browser.page(s.home)
            label(page, '1')
            assert list(q.answers().path) == ['000.jpg', '001.jpg', '002.jpg']


@pytest.mark.slow
def test_the_offline_page_in_a_browser(tmp_path):
    needs_browser()
    names = pictures(tmp_path/'field', 8)
    odd = ['<b>, "x".jpg', "it's.jpg", 'ein Blättchen ☘.jpg', '<img src=x onerror=alert(1)>.jpg']
    for name in odd: (tmp_path/'field'/names.pop(0)).rename(tmp_path/'field'/name)
    q = make(tmp_path, names=[*odd, *names])
    file, n, _ = offline_page(q.folder, tmp_path/'label.html')
    with Browser(tmp_path/'profile') as browser:
        page = browser.page(file.as_uri())
        label(page, '121')
        page.open(file.as_uri()) # closed and opened: the browser has kept them
        page.until(READY)
        label(page, 's2u')
        assert page.js("document.getElementById('line').textContent") == 'found 1 in 4 looked at'
        assert not page.complaints()
        page.js("window.made = []; URL.createObjectURL = b => (made.push(b), 'blob:x');"
                "document.getElementById('who').value = 'Ann'; document.getElementById('save').click()")
        (tmp_path/'answers.csv').write_text(page.js('made[0].text()'))
    assert [q.merge(tmp_path/'answers.csv') for _ in range(2)] == [4, 0]
    a = q.answers()
    assert list(a.path) == odd and list(a.label) == ['healthy', 'sick', 'healthy', 'skip'] and set(a.who) == {'Ann'}
