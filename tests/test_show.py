"""The page that shows a model: what it may be sent, what it answers, what its sliders do in a browser."""
import base64, json
import pytest
from scipy.special import expit, logit
from browser import Browser, needs_browser
from deployed import images, one_line, saved # noqa: F401, fixtures
pytest.importorskip('fasthtml', reason="pip install 'bn_imbalance[find]'")
from bn_imbalance.deploy.model import load_model # noqa: E402
from bn_imbalance.deploy.predict import predict_images # noqa: E402
from bn_imbalance.find.show import ModelServer, show_model # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def model(saved): return load_model(saved)


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
