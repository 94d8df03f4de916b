"A real browser for tests: pages that drive themselves, and the DevTools protocol. Needs Chromium (Debian: chromium)."
import base64, html, json, re, shutil, subprocess, time
from pathlib import Path
import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium: apt-get install chromium')
DUMP = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
        '--disable-component-update --disable-sync --virtual-time-budget=120000 --dump-dom').split()
FLAGS = ('--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0 '
         '--disable-renderer-backgrounding --disable-backgrounding-occluded-windows').split()
CODES = dict(ArrowLeft=37, ArrowRight=39, ArrowUp=38, ArrowDown=40, Escape=27, Enter=13, Tab=9, Home=36, End=35)


def driven(page, folder):
    "What the script of a page has written into its `pre` called driven"
    (folder/'page.html').write_text(page)
    r = subprocess.run([CHROMIUM, *DUMP, f'--user-data-dir={folder}/browser', (folder/'page.html').as_uri()],
                       capture_output=True, text=True, timeout=300)
    return json.loads(html.unescape(re.search(r'<pre id="driven">(.*?)</pre>', r.stdout, re.S)[1]))


def needs_browser():
    if not CHROMIUM: pytest.skip('there is no Chromium: apt-get install chromium')
    pytest.importorskip('websockets', reason='pip install websockets')


class Browser:
    "One Chromium with one profile: what it keeps is kept as long as the folder is"
    def __init__(self, profile):
        self.profile, self.pages = Path(profile), []
        (self.profile/'DevToolsActivePort').unlink(missing_ok=True)
        self.process = subprocess.Popen([CHROMIUM, *FLAGS, f'--user-data-dir={profile}', 'about:blank'],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = waiting(lambda: (self.profile/'DevToolsActivePort').read_text().split()[0])
    def page(self, url='about:blank', **kw):
        self.pages.append(p := Page(self, url, **kw))
        return p
    def close(self):
        for p in self.pages: p.ws.close()
        self.process.kill()
        self.process.wait()
    def __enter__(self): return self
    def __exit__(self, *_): self.close()


def waiting(f, seconds=120):
    "What `f` gives as soon as it is something"
    end = time.time() + seconds
    while True:
        try:
            if out := f(): return out
        except (OSError, IndexError, KeyError): pass
        assert time.time() < end, 'waited in vain'
        time.sleep(.05)


class Page:
    "A tab"
    def __init__(self, browser, url, width=1280, height=900, dark=False, phone=False):
        import urllib.request
        from websockets.sync.client import connect
        new = urllib.request.Request(f'http://127.0.0.1:{browser.port}/json/new?about:blank', method='PUT')
        about = json.loads(urllib.request.urlopen(new, timeout=60).read())
        self.ws = connect(about['webSocketDebuggerUrl'], max_size=None, open_timeout=60).__enter__()
        self.n, self.events = 0, []
        for domain in 'Page', 'Runtime', 'Log', 'Network': self.do(f'{domain}.enable')
        self.do('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)
        if dark: self.do('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark')])
        if url != 'about:blank': self.open(url)

    def do(self, method, **params):
        self.n += 1
        self.ws.send(json.dumps(dict(id=self.n, method=method, params=params)))
        while True:
            m = json.loads(self.ws.recv(timeout=120))
            if m.get('id') == self.n:
                assert 'error' not in m, m
                return m['result']
            self.events.append(m)

    def open(self, url): self.do('Page.navigate', url=url)
    def js(self, code):
        r = self.do('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in r, r['exceptionDetails']
        return r['result'].get('value')
    def until(self, code, seconds=120): return waiting(lambda: self.js(code), seconds)
    def press(self, key):
        code = CODES.get(key, ord(key.upper()[0]))
        text = {} if key in CODES else dict(text=key)
        down = dict(type='keyDown', key=key, windowsVirtualKeyCode=code, **text)
        for event in down, dict(type='keyUp', key=key, windowsVirtualKeyCode=code):
            self.do('Input.dispatchKeyEvent', **event)
    def picture(self, path):
        Path(path).write_bytes(base64.b64decode(self.do('Page.captureScreenshot', format='png')['data']))
    def complaints(self):
        "Errors that the browser has written: scripts that failed, what the policy has refused"
        self.js('1')
        found = [e['params'] for e in self.events if e.get('method') in ('Runtime.exceptionThrown', 'Log.entryAdded')]
        return [f for f in found if f.get('entry', {}).get('level') in (None, 'error')]
