"""The page that shows a model: what it may be sent, what it answers, what its sliders do in a browser."""
import base64, json
import numpy as np, pytest
from bs4 import BeautifulSoup
from scipy.special import expit, logit
from browser import Browser, needs_browser
from deployed import images, one_line, saved # noqa: F401, fixtures
pytest.importorskip('fasthtml', reason="pip install 'bn_imbalance[find]'")
from starlette.testclient import TestClient # noqa: E402
from bn_imbalance.deploy.model import load_model # noqa: E402
from bn_imbalance.deploy.predict import predict_images # noqa: E402
from bn_imbalance.find.labelling import AccessControl # noqa: E402
from bn_imbalance.find.show import MOST, ModelServer, show_app, show_model # noqa: E402

HOME, BYTES = 'http://127.0.0.1:8643', {'content-type': 'application/octet-stream'}
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(saved): return load_model(saved)


def test_what_may_be_sent(model, images):
    access = AccessControl(8643, accepts=('application/octet-stream', MOST))
    client = TestClient(show_app(ModelServer(model), access), base_url=HOME, headers=dict(origin=HOME))
    assert client.get('/').status_code == client.post('/predict', content=b'x', headers=BYTES).status_code == 401
    page = client.get(access.invite().removeprefix(HOME))
    policy = client.get('/').headers['content-security-policy']
    assert page.status_code == 200 and policy.startswith("default-src 'none'")
    paths = sorted(images.rglob('*.jpg'))[:2] + sorted(images.rglob('*.jpg'))[-2:]
    table = predict_images(model, paths)
    for path, row in zip(paths, table.itertuples()):
        got = client.post('/predict', content=path.read_bytes(), headers=BYTES).json()
        assert got['label'] == row.label and got['review'] == (row.review == 'yes')
        assert np.isclose(expit(got['log_odds']), row.calibrated_probability)
        assert (row.label == model.classes[1]) == (expit(got['log_odds']) > ModelServer(model).about()['threshold'])
    for sent, status, says in [(b'no image', 422, 'not an image'), (b'', 422, '')]:
        r = client.post('/predict', content=sent, headers=BYTES)
        assert r.status_code == status and says in r.text and '/tmp' not in r.text and '\n' not in r.text.strip()
    assert client.post('/predict', content=b'{}', headers={'content-type': 'application/json'}).status_code == 415
    assert client.post('/predict', content=b'x', headers=BYTES | {'origin': 'http://evil.example'}).status_code == 403
    assert client.post('/predict', content=b'x', headers=BYTES | {'content-length': str(MOST + 1)}).status_code == 413


def test_a_slider_reaches_the_value_of_the_model(model, monkeypatch):
    server = ModelServer(model)
    monkeypatch.setattr(server, 'about', lambda: dict(classes=['a', 'b'], sliders=True, prevalence=1e-4, threshold=1.))
    access = AccessControl(8643)
    client = TestClient(show_app(server, access), base_url=HOME)
    client.get(access.invite().removeprefix(HOME))
    sliders = {o['id']: o for o in BeautifulSoup(client.get('/').text, 'html.parser').find_all('input', type='range')}
    assert float(sliders['prevalence']['min']) < -9.2 and float(sliders['threshold']['max']) > 13.8


def test_no_model_is_one_line(command, tmp_path):
    one_line(command('bn-serve', tmp_path/'none'), 'none')
    one_line(command('bn-serve', tmp_path/'none', '--people', '0'), 'none')


def test_a_browser_drops_images_and_moves_the_sliders(model, images, tmp_path, capsys):
    needs_browser()
    server = show_model(model, port=0, wait=False)
    address = capsys.readouterr().out.split()[1]
    paths = sorted(images.rglob('*.jpg'))[::6]
    data = [[p.name, base64.b64encode(p.read_bytes()).decode()] for p in paths] + [['notes.txt', 'bm8gaW1hZ2U=']]
    with Browser(tmp_path/'profile') as browser:
        page = browser.page(address)
        page.until("!!document.getElementById('drop')")
        page.js('''{const t = new DataTransfer()
            const file = (name, bytes) => new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name)
            for (const [name, bytes] of %s) t.items.add(file(name, bytes))
            document.dispatchEvent(new DragEvent('drop', {dataTransfer: t, bubbles: true}))}''' % json.dumps(data))
        page.until(f"[...document.querySelectorAll('#cards li b')].filter(b => b.textContent).length === {len(data)}")
        shown = "[...document.querySelectorAll('#cards li')].reverse().map(li => li.querySelector('b').textContent)"
        table, about = predict_images(model, paths), ModelServer(model).about()
        assert page.js(shown) == [*table.label, 'not read']
        page.js("document.getElementById('prevalence').value = 0; document.getElementById('prevalence').oninput()")
        odds = logit(table.calibrated_probability) + logit(.5) - logit(about['prevalence'])
        assert page.js(shown)[:-1] == [model.classes[int(p > about['threshold'])] for p in expit(odds)]
        page.js("document.getElementById('reset').click()")
        assert page.js(shown)[:-1] == [*table.label]
        # a file that is no image is refused with 422, which the browser writes to its console as well
        assert all('422' in json.dumps(c) for c in page.complaints())
    server.should_exit = True
