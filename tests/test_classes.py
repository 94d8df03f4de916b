"""More than two classes, several of them rare: from the folder to the exported model, and each part against a plain
computation."""
import json, shutil
import numpy as np, pandas as pd, pytest
from PIL import Image
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from bn_imbalance.evaluate.choice import validation_f1
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data, targets
from bn_imbalance.data.splits import draw_split
from bn_imbalance.evaluate.decision import decide, evaluate_decision, performance
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.thresholds import calibrate
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.adapters.learners import model_learner
from bn_imbalance.metrics import margin, minority_metrics
from bn_imbalance.deploy.model import load_model
from bn_imbalance.recipes.base import recipes
from bn_imbalance.evaluate.runs import Run, Predictions
from bn_imbalance.training.sweep import Execution

CLASSES = {'good': 60, '1': 50, 'scratch': 15, 'NA': 12} # names that a table would read as a number, or as nothing
FLAGS = '--arch mobilenetv3_small_050 --weights random --size 32 --epochs 2 --batch-size 8 --backend serial'.split()
RARE = ['--minority', 'scratch,NA', '--multiclass']


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp('classes')/'parts'
    for k, (name, n) in enumerate(CLASSES.items()):
        (root/name).mkdir(parents=True)
        for i in range(n):
            pixels = 60 + 30*k + 60*rng.random((32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root/name/f'{i}.png')
    return root


@pytest.fixture(scope='module')
def data(root): return read_data(root, minority='scratch, NA', multiclass=True)


def logits(rng, y, k): return 3*np.eye(k)[y] + rng.normal(size=(len(y), k))


@pytest.mark.slow # every command, export too
def test_all_commands(root, tmp_path, command):
    def ok(*args):
        code, out, err = command(*args)
        assert code == 0, err
        return out
    assert 'images of NA' in ok('bn-data', 'check', root, *RARE, '--out', tmp_path/'check.html')
    out = ok('bn-compare', root, *RARE, '--seeds', 2, '--recipes', 'plain,final_bn,plain_threshold',
             '--out', tmp_path/'cmp', '--verbose', *FLAGS)
    assert '4 classes' in out and 'F1 of each rare class' in out
    page = (tmp_path/'cmp'/'report.html').read_text()
    assert 'Class by class' in page and 'predicted ' in page and '>NA<' in page
    for goal in ['--cost-miss', 20, '--cost-alarm', 1], ['--min-recall', .9]: # judged anew, for each rare class
        out = ok('bn-report', tmp_path/'cmp', '--prevalence', .02, *goal)
        assert 'per 1000, 2 % rare' in out or 'recall 0.9, 2 % rare' in out
        assert 'Of 1000 images 20 are ' in ' '.join(out.split())
    ok('bn-fit', root, '--minority', 'scratch,NA', '--compare', tmp_path/'cmp', '--out', tmp_path/'m',
       '--recipe', 'final_bn')
    about, card = json.loads((tmp_path/'m'/'model.json').read_text()), (tmp_path/'m'/'card.md').read_text()
    assert about['classes'] == ['1', 'good', 'NA', 'scratch'] and about['rare'] == [2, 3]
    assert set(about['by_class']) == {'NA', 'scratch'}
    assert about['decision']['offset'][:2] == [0, 0] and '| NA | scratch |' in card and '- **scratch**: rare' in card
    ok('bn-predict', tmp_path/'m', root, '--csv', tmp_path/'p.csv', '--explain', tmp_path/'heat')
    t = pd.read_csv(tmp_path/'p.csv', dtype=str, keep_default_na=False)
    assert len(t) == sum(CLASSES.values()) and set(t.label) <= set(CLASSES)
    assert (t.threshold == '').all() and (t.error == '').all()
    assert len(list((tmp_path/'heat').glob('[!.]*'))) == len(t)
    ok('bn-export', tmp_path/'m', '--onnx', tmp_path/'m.onnx')
    onnx = pytest.importorskip('onnx')
    meta = {o.key: o.value for o in onnx.load(tmp_path/'m.onnx').metadata_props}
    assert json.loads(meta['rare']) == [2, 3] and len(json.loads(meta['offset'])) == 4


def test_a_model_for_several_classes_goes_on(data, tmp_path):
    s = load_settings(arch='mobilenetv3_small_050', weights='random', size=32, epochs=1, seeds=1, batch_size=8)
    fit(data, 'lws', s, Goal(min_recall=.8), Execution(tmp_path/'m', 'serial', progress=False))
    model = load_model(tmp_path/'m')
    learn = model_learner(model, data)
    assert list(learn.dls.vocab) == data.names and learn.dls.one_batch()[1].max() < 4
    with pytest.raises(BadInput, match='2 classes, the model has 4'):
        model_learner(model, read_data(data.source, minority='NA'))


def test_splits_are_stratified_by_class(data, root):
    sizes = dict(valid_majority=5, train_majority=20, test_majority=5)
    s = load_settings(train_minority=4, valid_minority=2, test_minority=5, **sizes)
    n = pd.crosstab((t := draw_split(data, s, 0, 'paper')).split, t['class'])
    assert n.loc['train'].to_dict() == {'1': 20, 'good': 20, 'NA': 4, 'scratch': 4} and (n.loc['test'] == 5).all()
    n = pd.crosstab((t := draw_split(data, s, 0, 'all')).split, t['class'])
    assert n.loc['test'].to_dict() == pytest.approx({'1': 10, 'good': 12, 'NA': 2.5, 'scratch': 3}, abs=.6)
    assert (np.array(data.names)[targets(t)] == t['class']).all()
    with pytest.raises(BadInput, match='18 images of NA .*there are 12'):
        draw_split(data, load_settings(train_minority=11, valid_minority=6, test_minority=1, **sizes), 0, 'paper')
    two = read_data(root, minority='NA', majority='good', multiclass=True) # with two there is nothing to tell apart
    assert 'target' not in two.items and two.name == 'parts'


def test_a_class_that_appears_once(root, tmp_path, command):
    shutil.copytree(root, tmp_path/'parts')
    for p in sorted((tmp_path/'parts'/'NA').iterdir())[1:]: p.unlink()
    code, _, err = command('bn-compare', tmp_path/'parts', *RARE, '--out', tmp_path/'cmp', *FLAGS)
    assert code == 1 and 'at least 3 images of NA, there are 1' in err and err.strip().count('\n') == 0
    assert not (tmp_path/'cmp').exists()


@pytest.mark.parametrize('rare', [[2], [1, 3], [0, 1, 2]])
def test_metrics_are_means_over_the_rare(rare):
    rng = np.random.default_rng(0)
    y, yv = rng.integers(0, 4, 300), rng.integers(0, 4, 100)
    z, zv = logits(rng, y, 4), logits(rng, yv, 4)
    got, pred = minority_metrics(y, z, yv, zv, rare), z.argmax(1)
    assert got['f1_minority'] == pytest.approx(f1_score(y, pred, labels=rare, average='macro'))
    assert got['recall_minority'] == pytest.approx(recall_score(y, pred, labels=rare, average='macro'))
    assert got['auroc'] == pytest.approx(np.mean([roc_auc_score(y == c, softmax(z, 1)[:, c]) for c in rare]))
    np.testing.assert_allclose(expit(margin(z, rare)), softmax(z, 1)[:, rare].sum(1))
    run = Run({}, rare, Predictions(yv, zv), Predictions(yv, -zv)) # the same shares
    assert validation_f1(run) == pytest.approx(f1_score(yv, zv.argmax(1), labels=rare, average='macro'))
    run = Run({}, rare, Predictions(yv, zv), Predictions(y, z))
    assert run.metrics() == got


def test_threshold_of_each_rare_class():
    rng, counts = np.random.default_rng(0), [500, 400, 10, 20]
    y = rng.integers(0, 4, 400)
    z = logits(rng, y, 4) + [4, 4, 0, 0] # the rare ones are hardly ever named
    change = recipes['plain_threshold'].part('adjust_logits')(counts, y, z)(z) - z
    assert (change[:, :2] == 0).all() and (change[:, 2:] > 1).all() and np.ptp(change, axis=0).max() < 1e-12
    assert f1_score(y, (z + change).argmax(1), average='macro') > f1_score(y, z.argmax(1), average='macro') + .2


def test_calibration_with_two_classes_is_platts_for_the_shares():
    rng = np.random.default_rng(0)
    y = (rng.random(400) < .1).astype(int)
    z = np.c_[rng.normal(size=400), rng.normal(2*y)]
    n, prevalences = np.bincount(y), np.array([.7, .3])
    scale, (first, shift) = calibrate(y, z, prevalences, n)
    m, w, t = z[:, 1] - z[:, 0], (prevalences/n)[y], np.where(y == 1, (n[1] + 1)/(n[1] + 2), .6/(n[0] + 2)) # 2 x .3
    platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000)
    platt.fit(np.r_[m, m][:, None], np.repeat([1, 0], 400), np.r_[w*t, w*(1 - t)]*400)
    assert first == 0
    np.testing.assert_allclose([scale, shift], [platt.coef_[0, 0], platt.intercept_[0]], rtol=1e-3)


def test_calibration_of_four_classes():
    rng, prevalences = np.random.default_rng(0), np.array([.4, .3, .2, .1])
    y = rng.choice(4, 20000, p=prevalences)
    true = 2*np.eye(4)[y] + rng.normal(size=(len(y), 4)) # log-odds, but for the prior
    scale, shift = calibrate(y, 3*true + [5, 0, -2, 1], np.bincount(y)/len(y), np.bincount(y))
    assert scale == pytest.approx(2/3, rel=.05)
    p = softmax(scale*(3*true + [5, 0, -2, 1]) + np.array(shift), axis=1)
    np.testing.assert_allclose(p.mean(0), prevalences, atol=.01)
    for lo, hi in (0, .1), (.1, .5), (.5, .9), (.9, 1):
        at = (p[:, 3] >= lo) & (p[:, 3] < hi)
        assert abs((y[at] == 3).mean() - p[at, 3].mean()) < .04


def made_up(n=600, seed=0):
    rng, parts = np.random.default_rng(seed), []
    y = rng.choice(3, n, p=[.8, .12, .08])
    for k in range(3):
        split = rng.permutation(np.repeat(['valid', 'test', ''], n//3))
        t = pd.DataFrame(logits(rng, y, 3) + [2, 0, 0]).add_prefix('z')
        t = t.assign(path=range(n), digest=range(n), group=[f'{i}' for i in range(n)], seed=k, split=split, y=y)
        parts.append(t[t.split != ''])
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize('goal', [Goal(), Goal(min_recall=.9), Goal(cost_miss=20, cost_alarm=1), Goal(prevalence=.02)])
def test_decision_for_several_rare_classes(goal):
    oof, rare = made_up(), [1, 2]
    d = decide(oof[oof.split == 'valid'], goal, rare)
    assert sum(d.prevalences) == pytest.approx(1)
    assert d.prevalence(rare) == pytest.approx(goal.prevalence or d.prevalence(rare))
    assert d.offset[0] == 0
    t = evaluate_decision(oof, goal, rare)
    assert np.allclose(t[['p0', 'p1', 'p2']].sum(axis=1), 1)
    every, each = performance(t, goal, d.prevalences, rare), [performance(t, goal, d.prevalences, [c]) for c in rare]
    for k, (mean, low, high) in every.items():
        assert mean == pytest.approx(np.mean([e[k][0] for e in each])) and low <= high
    if goal.min_recall: assert every['recall'][0] > .85
    assert every['missed_unflagged'][0] < .1
