"One or two rare subjects: judged by what has not seen them, no threshold knows them, ranges say how little that is"
import numpy as np, pandas as pd, pytest
from conftest import blobs
from bn_imbalance import Goal, load_model, load_settings, read_data
from bn_imbalance.evaluate.answer import make_answer
from bn_imbalance.evaluate.leaderboard import rank_recipes
from bn_imbalance.evaluate.thresholds import log_odds
from bn_imbalance.metrics import rate_interval
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.sweep import Execution, compare

COSTS = Goal(prevalence=.02, cost_miss=20, cost_alarm=1)


@pytest.fixture(scope='module', params=[1, 2])
def few(request, tmp_path_factory):
    root = tmp_path_factory.mktemp('few')
    blobs(root/'images'/'good', 60, 0, 1)
    blobs(root/'images'/'spot', request.param, 120, 2)
    blobs(root/'new', 8, 120, 3)
    return root, request.param

def settings(): return load_settings(size=64, seeds=4)
def quiet(out=None): return Execution(out, backend='serial', progress=False)


def test_thresholds_do_not_know_them(few):
    "Other margins of the rare image, the same thresholds and false alarms"
    data = read_data(few[0]/'images', 'spot')
    runs = compare(data, settings(), execution=quiet(), recipes=get_recipes('knn, blend'))
    before = {g: rank_recipes(runs, g).by_prevalence for g in (COSTS, Goal())}
    odds = log_odds([r for r in runs if r.recipe == 'knn'])
    for r in runs:
        for o in r.valid, r.test: o.logits[o.y == 1, 1] += 100
    assert odds == log_odds([r for r in runs if r.recipe == 'knn'])
    for g, was in before.items():
        now = rank_recipes(runs, g).by_prevalence
        assert (now.threshold == was.threshold).all() and (now.alarms == was.alarms).all()
        assert np.isnan(runs[0].metrics()['f1_minority_tuned'])


def test_answer(few, command):
    root, n = few
    out = root/'out'
    code, text, err = command('bn-compare', root/'images', '--minority', 'spot', '--size', 64, '--seeds', 4,
                              '--backend', 'serial', '--recipes', 'plain,knn,final_bn,blend', '--prevalence', .02,
                              '--cost-miss', 20, '--cost-alarm', 1, '--out', out)
    assert code == 0, err
    assert ('each in turn is left out' if n == 2 else 'learnt from by none') in text
    assert 'with probability' not in text and 'cannot tell recipes apart' in ' '.join(text.split())
    data = read_data(root/'images', 'spot')
    runs = compare(data, settings(), execution=quiet(), recipes=get_recipes('knn, blend'))
    lb = rank_recipes(runs, COSTS)
    assert lb.subjects == n and lb.recommended == 'blend' and lb.standing.drop('blend').eq('undecided').all()
    mean, low, high = make_answer(lb, runs[0]).numbers['in_1000']['blend']['found']
    assert (low, high) == pytest.approx(tuple(20*o for o in rate_interval(mean/20*n, n)))
    page = (root/'out'/'report.html').read_text()
    assert 'from the other images alone' in page and 'type="range"' not in page # sliders would choose by them


def test_model(few, command):
    root, n = few
    args = '--minority', 'spot', '--size', 64, '--seeds', 4, '--backend', 'serial'
    code, _, err = command('bn-fit', root/'images', *args, '--prevalence', .02, '--cost-miss', 20, '--cost-alarm', 1,
                           '--out', root/'m')
    assert code == 0, err
    model = load_model(root/'m')
    low, high = model.about['metrics']['recall'][1:]
    assert high - low > .6 and model.about['trained_on']['minority'] == n
    assert f'{n} different image' in (root/'m'/'card.md').read_text()
    assert command('bn-predict', root/'m', root/'new', '--csv', root/'out.csv')[0] == 0
    assert (pd.read_csv(root/'out.csv').label == 'spot').sum() > 4


def test_classes_kept_apart_need_more(few, command, tmp_path):
    code, _, err = command('bn-fit', few[0]/'images', '--minority', 'spot', '--size', 64, '--out', tmp_path/'m',
                           '--min-recall', .9)
    assert code == 1 and 'cannot tell' in err and err.strip().count('\n') == 0
