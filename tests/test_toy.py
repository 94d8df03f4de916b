"""The figure of chapter 3 in a real browser: its model is the chapter's. Needs Chromium (Debian: chromium)."""
import json, re
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from fastcore.nbio import read_nb
from browser import driven, needs_chromium

NAMES = 'prevalence', 'steps', 'lr', 'momentum'
# move the sliders, wait until the page has trained, read both rows of its table; one setting after the other
DRIVER = '''<script>
async function drive(settings) {
  const at = name => document.querySelector(`.two-logits [name=${name}]`), out = []
  for (const s of settings) {
    for (const k in s) at(k).value = s[k]
    at('prevalence').dispatchEvent(new Event('input', {bubbles: true}))
    do { await new Promise(done => setTimeout(done, 200)) } while (document.querySelector('.two-logits[aria-busy]'))
    const row = kind => ({...document.querySelector(`.two-logits tr.${kind}`).dataset})
    const values = Object.fromEntries(Object.keys(s).map(k => [k, at(k).value]))
    const hidden = document.querySelector('.two-logits form').hidden
    out.push({values, hidden, plain: row('plain'), layer: row('layer')})
  }
  const pre = document.createElement('pre')
  pre.id = 'driven'; pre.textContent = JSON.stringify(out); document.body.append(pre)
}
drive(SETTINGS)
</script>'''


@pytest.fixture(scope='module')
def toy():
    "The chapter's model and its figure, from its own cells"
    nb = read_nb(Path(__file__).parents[1]/'nbs'/'course'/'03_why_it_works.ipynb')
    names, needed = {}, ('fastai.vision.all', 'def toy_data(', 'def toy(', 'def toy_metrics(', 'def panel(',
                         "= r'''", 'def toy_figure(')
    for c in nb.cells:
        if c.cell_type == 'code' and any(k in c.source for k in needed): exec(c.source, names)
    return SimpleNamespace(**{k: names[k] for k in ('toy', 'toy_figure', 'toy_metrics', 'uniform')})


def test_numbers_are_drawn_evenly(toy):
    for stream in 0, 1, 2**31 + 7:
        u = toy.uniform(stream, 50_000)
        assert 0 < u.min() < u.max() < 1 and abs(np.histogram(u, 20, (0, 1))[0] - 2500).max() < 250
        assert abs(np.corrcoef(u, toy.uniform(stream + 1, 50_000))[0, 1]) < .02


def test_the_figure_is_a_picture_without_a_script(toy):
    page = re.sub('<script>.*</script>', '', toy.toy_figure(), flags=re.S)
    assert '<form hidden>' in page and page.count('<svg') == 2 and page.count('role="img"') == 2
    assert len(re.findall(r'<td class="\w+">-?\d', page)) == 8 and 'http' not in page and '<label>' in page


@pytest.mark.slow
@needs_chromium
def test_the_page_trains_as_the_chapter_does(toy, tmp_path):
    rng, inside = np.random.default_rng(0), lambda low, high: round(.05*round(rng.uniform(low, high)/.05), 2)
    settings = [dict(prevalence=inside(-2.5, -.3), steps=inside(1, 3.2), lr=inside(-4, -1), momentum=inside(-3, 0))
                for _ in range(10)]
    script = DRIVER.replace('SETTINGS', json.dumps(settings))
    out = driven(f'<!doctype html><meta charset=utf-8>{toy.toy_figure()}{script}', tmp_path)
    assert len(out) == 10 and not out[0]['hidden']
    for s, o in zip(settings, out):
        assert {k: float(v) for k, v in o['values'].items()} == s
        knobs = {k: 10**s[k] for k in NAMES} | dict(steps=round(10**s['steps']))
        for kind, final_bn in ('plain', False), ('layer', True):
            ours = toy.toy_metrics(*toy.toy(**knobs, final_bn=final_bn))
            for k, v in ours.items():
                np.testing.assert_allclose(float(o[kind][k]), v, rtol=1e-4, atol=1e-4, err_msg=f'{s} {kind} {k}')
