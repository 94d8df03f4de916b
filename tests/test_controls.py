"""The controls of a report, moved in a real browser: their numbers are Python's. Needs Chromium (Debian: chromium)."""
import json, re
from pathlib import Path
import numpy as np, pytest
from browser import driven, needs_chromium
from bn_imbalance.report import controls
from bn_imbalance.report.controls import dots, waffle_html
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.answer import measure_word, most_possible
from bn_imbalance.evaluate.leaderboard import STATS, rank_recipes
from bn_imbalance.metrics import METRICS, percent, range_text
from bn_imbalance.evaluate.runs import Run, Predictions
from bn_imbalance.report.comparison import report_html

# set the controls, wait for the page, read the table, for each setting
DRIVER = '''<script>
async function drive(settings) {
  const at = name => document.querySelector(`#controls [name=${name}]`), out = []
  for (const s of settings) {
    for (const k of ['prevalence', 'ratio', 'recall']) if (k in s) at(k).value = s[k]
    if (s.kind) document.querySelector(`#controls [name=kind][value=${s.kind}]`).checked = true
    at('prevalence').dispatchEvent(new Event('input', {bubbles: true}))
    await new Promise(done => setTimeout(done, 100))
    out.push({prevalence: at('prevalence').value, ratio: at('ratio').value, recall: at('recall').value,
      says: document.querySelector('#controls .says').textContent,
      dots: document.querySelector('#controls .waffle svg').getAttribute('aria-label'),
      paths: [...document.querySelectorAll('#controls .waffle path')].map(p =>
        [p.getAttribute('class'), p.getAttribute('d')]),
      heads: [...document.querySelectorAll('#controls .board thead th')].map(o => o.textContent),
      rows: [...document.querySelectorAll('#controls .board tbody tr')].map(r => [r.cells[0].textContent,
             ...r.dataset.value.split(' ').map(Number)])})
  }
  const pre = document.createElement('pre')
  pre.id = 'driven'; pre.textContent = JSON.stringify(out); document.body.append(pre)
}
drive(SETTINGS)
</script>'''


def made_up(name, skill, seed):
    rng = np.random.default_rng([seed, len(name)])
    def side(n0, n1):
        y = np.repeat([0, 1], [n0, n1])
        m = rng.normal(skill*y - 2, 1 + .5*y)
        return Predictions(y, np.c_[-m/2, m/2].round(6))
    settings = dict(head='fastai', arch='none', epochs=10, size=224, train_majority=1000, train_minority=10)
    data = dict(name='made up', protocol='paper', source='made up', fingerprint='', minority=['b'], majority=['a'])
    config = dict(recipe=dict(name=name, final_bn=None), seed=seed, data=data, settings=settings, optimizer='any')
    return Run(config, [1], side(150, 7), side(150, 150), versions={}, engine='features', device='cpu')


@pytest.fixture(scope='module')
def runs():
    return [made_up(n, k, seed) for n, k in dict(plain=1.5, better=2.5, best_of_all=3.).items() for seed in range(4)]


@pytest.fixture(scope='module')
def pooled(runs):
    "The same as if all known images were drawn from anew for each run: thresholds by Bayes' rule"
    def of(side, start): return Predictions(side.y, side.logits, start + np.arange(len(side.y)))
    return [Run(dict(r.config, data=dict(r.data, protocol='all')), [1], of(r.valid, 1000*r.seed),
                of(r.test, 1000*r.seed + 500), versions={}, engine='features', device='cpu') for r in runs]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize('drawn', ['runs', 'pooled'])
def test_the_page_computes_as_python_does(drawn, request, tmp_path):
    runs = request.getfixturevalue(drawn)
    rng = np.random.default_rng(0)
    kinds = ['f1', 'cost', 'recall']
    settings = [dict(kind=kinds[i % 3], prevalence=round(rng.uniform(-3.3, 0), 2), ratio=round(rng.uniform(0, 3), 2),
                     recall=round(rng.uniform(0, 2), 2)) for i in range(21)]
    out = driven(report_html(runs, rank_recipes(runs)) + DRIVER.replace('SETTINGS', json.dumps(settings)), tmp_path)
    assert len(out) == 21
    for s, o in zip(settings, out):
        prevalence, recall = (odds(float(o[k])) for k in ('prevalence', 'recall'))
        costs = float(f'{10**float(o["ratio"]):.2g}') # as they are shown
        goal = {'f1': Goal(prevalence=prevalence), 'cost': Goal(cost_miss=costs, cost_alarm=1, prevalence=prevalence),
                'recall': Goal(min_recall=recall, prevalence=prevalence)}[s['kind']]
        same_as_python(o, rank_recipes(runs, goal))


def odds(at): # the prevalence or recall of a slider
    rest = float(f'{1/(1 + 10**abs(at)):.2g}')
    return rest if at < 0 else 1 - rest


def same_as_python(o, lb):
    "A page that has answered, and a leaderboard"
    means = [r[1] for r in o['rows']]
    assert means == sorted(means, reverse=not lb.lower) and {r[0] for r in o['rows']} == set(lb.names), o
    for name, *value in o['rows']:
        ours = lb[name]['goal_value'].to_numpy(float)
        np.testing.assert_allclose(value, ours, rtol=1e-3, atol=1e-3, err_msg=str(o))
    name, rare = lb.recommended, 1000*lb.prevalence
    assert f'Where {percent(lb.goal.prevalence)} of the images are b and' in o['says'], o
    stats = {k: [lb[name][f'goal_{k}', s] for s in STATS] for k in ('found', 'missed', 'alarms', 'value')}
    most = most_possible(lb.goal, lb.prevalence)
    top = most['cost' if lb.goal.cost_miss else 'value']
    found, missed, alarms = (range_text(*stats[k], most[k]) for k in ('found', 'missed', 'alarms'))
    assert f': {name} finds {found} of ' in o['says'] and f', misses {missed} and raises {alarms} false' in o['says'], o
    assert f'; {measure_word(lb.goal)} {range_text(*stats["value"], top)}.' in o['says'], o
    shown = waffle_html(dots(*(stats[k][0] for k in ('found', 'missed', 'alarms'))), 'b')
    assert f'aria-label="{o["dots"]}"' in shown, (o, shown[:200])
    assert [list(p) for p in re.findall('<path class="([a-z]+)" d="([^"]*)"/>', shown)] == o['paths']
    columns = [METRICS[k].label for k in ('found', 'missed', 'alarms', 'precision')]
    assert o['heads'][1:] == [lb.goal.metric.label, *columns]


ASKED = [dict(prevalence=.0001), dict(prevalence=.997), dict(prevalence=.0123),
         dict(prevalence=.01, cost_miss=1, cost_alarm=40), dict(prevalence=.01, cost_miss=27_500, cost_alarm=1),
         dict(prevalence=.3, min_recall=.995), dict(prevalence=.2, min_recall=.3)]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize('asked', ASKED, ids=str)
def test_the_page_answers_what_was_asked(runs, asked, tmp_path):
    "Untouched, the live section is the leaderboard of the flags, to the digit"
    lb = rank_recipes(runs, Goal(**asked))
    out, = driven(report_html(runs, lb) + DRIVER.replace('SETTINGS', '[{}]'), tmp_path)
    same_as_python(out, lb)


TEXTS = '''<script>
const pre = document.createElement('pre')
pre.id = 'driven'
pre.textContent = JSON.stringify(NUMBERS.map(x =>
  [formats.ratio(x), formats.count(x), x < 0 || x > 1 ? '' : percent(x)]))
document.body.append(pre)
</script>'''


@pytest.mark.slow
@needs_chromium
def test_the_page_rounds_as_python_does(tmp_path):
    "A tie goes to the even digit in both, and only what is exactly a tie is one; no number is minus zero"
    rng = np.random.default_rng(0)
    eighths = [161.25, 161.75, 12.5, .0625, .1875, .3125, .9375, .03125, .8125, -.0625, -.0004, -12.25,
               10.25, .5, 0., 1.]
    halves = [*np.arange(20)/16, *(np.arange(40) + .5)/1000, *(161 + np.arange(20)/20), .9996, .99995, 9.9996]
    numbers = [float(x) for x in [*eighths, *halves, *rng.uniform(0, 1, 100), *rng.uniform(-20, 20, 100)]]
    script = (Path(controls.__file__).parent/'controls.js').read_text()
    page = f'<meta charset="utf-8"><body><script>{script}</script>' + TEXTS.replace('NUMBERS', json.dumps(numbers))
    for x, (ratio, count, share) in zip(numbers, driven(page, tmp_path), strict=True):
        for o in x, np.float64(x): # as tables have them
            assert (ratio, share) == (METRICS['f1'].text(o), percent(o) if 0 <= x <= 1 else ''), x
            assert x < 0 or count == METRICS['alarms'].text(o), x # no number of images is negative
