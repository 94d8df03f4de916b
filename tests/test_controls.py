"""The controls of a report, moved in a real browser: their numbers are Python's. Needs Chromium (Debian: chromium)."""
import json, re
import numpy as np, pytest
from browser import driven, needs_chromium
from bn_imbalance.goal import Goal
from bn_imbalance.leaderboard import board
from bn_imbalance.records import Run, Side
from bn_imbalance.report import report_html

# set the controls, let the page follow, read the table; one setting after the other
DRIVER = '''<script>
async function drive(settings) {
  const at = name => document.querySelector(`#controls [name=${name}]`), out = []
  for (const s of settings) {
    for (const k of ['share', 'ratio', 'recall']) at(k).value = s[k]
    document.querySelector(`#controls [name=kind][value=${s.kind}]`).checked = true
    at('share').dispatchEvent(new Event('input', {bubbles: true}))
    await new Promise(done => setTimeout(done, 100))
    out.push({share: at('share').value, ratio: at('ratio').value, recall: at('recall').value,
      says: document.querySelector('#controls .says').textContent,
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
        return Side(y, np.c_[-m/2, m/2].round(6))
    settings = dict(head='fastai', arch='none', epochs=10, size=224, train_majority=1000, train_minority=10)
    data = dict(name='made up', protocol='paper', source='made up', fingerprint='', minority=['b'], majority=['a'])
    config = dict(recipe=dict(name=name, final_bn=None), seed=seed, data=data, settings=settings, optimizer='any')
    return Run(config, [1], side(150, 7), side(150, 150), versions={}, engine='features', device='cpu')


@pytest.fixture(scope='module')
def runs():
    return [made_up(n, k, seed) for n, k in dict(plain=1.5, better=2.5, best_of_all=3.).items() for seed in range(4)]


def test_a_page_without_script_can_be_read(runs):
    page = report_html(runs, board(runs))
    assert re.search(r'<form[^>]*id="controls"[^>]*hidden', page) and page.count('<table') >= 3
    assert 'src="http' not in page and '<label' in page and 'aria-live' in page


@pytest.mark.slow
@needs_chromium
def test_the_page_computes_as_python_does(runs, tmp_path):
    rng = np.random.default_rng(0)
    kinds = ['f1', 'cost', 'recall']
    settings = [dict(kind=kinds[i % 3], share=round(rng.uniform(-3.3, -.3), 2), ratio=round(rng.uniform(0, 3), 2),
                     recall=round(rng.uniform(.5, .99), 2)) for i in range(21)]
    out = driven(report_html(runs, board(runs)) + DRIVER.replace('SETTINGS', json.dumps(settings)), tmp_path)
    assert len(out) == 21
    for s, o in zip(settings, out):
        share, costs = (float(f'{10**float(o[k]):.2g}') for k in ('share', 'ratio')) # as they are shown
        recall = float(o['recall'])
        goal = {'f1': Goal(share=share), 'cost': Goal(cost_miss=costs, cost_alarm=1, share=share),
                'recall': Goal(min_recall=recall, share=share)}[s['kind']]
        lb = board(runs, goal)
        means = [r[1] for r in o['rows']]
        assert means == sorted(means, reverse=not lb.lower) and {r[0] for r in o['rows']} == set(lb.names), s
        for name, *value in o['rows']:
            ours = lb[name]['goal_value'].to_numpy(float)
            np.testing.assert_allclose(value, ours, rtol=1e-3, atol=1e-3, err_msg=str(s))
        first = o['rows'][0][0]
        tied = {n for n in lb.names if n != first and not lb.ahead(first, n)}
        told = re.search('Not distinguishable from it: (.*)[.]$', o['says'])
        assert f'{first} is first' in o['says'] and tied == set(told[1].split(', ') if told else ()), s
