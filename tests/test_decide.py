"""The decision against brute force, its promises against simulation, and that no test image has a say in its own
threshold."""
import numpy as np, pandas as pd, pytest
from scipy.special import logit
from bn_imbalance.evaluate.decision import evaluate_decision, performance, review_bounds
from bn_imbalance.evaluate.goal import Goal


def two(m): return np.c_[0*np.asarray(m), m] # logits with this margin


def made_up(seed=0, n=400, rare=.06, gap=2.):
    "Out-of-fold predictions of three seeds"
    rng, parts = np.random.default_rng(seed), []
    y = (rng.random(n) < rare).astype(int)
    for k in range(3):
        split = rng.permutation(np.repeat(['valid', 'test', ''], [n//3, n//3, n - 2*(n//3)]))
        z = np.c_[np.zeros(n), rng.normal(gap*y - gap/2, 1)]
        ids = [f'{i}' for i in range(n)]
        t = pd.DataFrame(dict(path=ids, digest=ids, group=ids, seed=k, split=split, y=y, z0=z[:, 0], z1=z[:, 1]))
        parts.append(t[t.split != ''])
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize('n', [4, 9, 30])
def test_few_images_promise_what_they_can(n):
    rng, out = np.random.default_rng(n), []
    y = np.repeat([0, 1], [300, n])
    for _ in range(400):
        low = review_bounds(y, np.c_[0*y, rng.normal(y, 1)], np.arange(len(y)), .9)
        out.append(np.mean(rng.normal(1, 1, 50) < low[1]))
    assert np.mean(out) < max(.1, 1/(n + 1)) + .02


def bound(m, group):
    "Of the second class, which has the margins"
    return review_bounds(np.r_[0, np.ones(len(m), int)], two(np.r_[0, m]), np.r_[-1, group], .9)[1]


@pytest.mark.parametrize('each', [1, 4, 10, None]) # images a subject; None: 1 to 12
@pytest.mark.parametrize('between,within', [(1, .3), (1, 1), (.5, 1)])
def test_the_promise_holds_for_single_images_of_subjects(each, between, within):
    "Images of one subject resemble each other; of new subjects' images at most one in ten is below the bound"
    rng, below, n = np.random.default_rng(0), [], 40
    def margins(subject): # of images, given whom they show
        return rng.normal(0, between, subject.max() + 1)[subject] + rng.normal(0, within, len(subject))
    for _ in range(400):
        group = np.repeat(np.arange(n), each or rng.integers(1, 13, n))
        low = bound(margins(group), group)
        below.append((margins(np.arange(500)) < low).mean())
    assert .07 < np.mean(below) < .107


def test_a_subject_counts_once():
    "Nine subjects at level .9: the lowest of all images; more images of one change nothing, copies of all neither"
    m, group = np.arange(1., 10), np.arange(9)
    assert bound(m, group) == 1
    for many in np.repeat(group, [1, 1, 1, 1, 1, 1, 1, 1, 50]), np.tile(group, 7): assert bound(m[many], many) == 1
    m, group = np.arange(20.), np.arange(20)
    assert bound(m, group) == 1 # the second of twenty
    assert bound(np.r_[m, [-5.]*3], np.r_[group, [0]*3]) == 1 # three more of the first: its four weigh a quarter each


def test_no_say_in_its_own_threshold():
    oof, goal = made_up(), Goal(cost_miss=10, cost_alarm=1)
    first = evaluate_decision(oof, goal)
    turned = oof.copy()
    mine = turned.group.isin(oof.group[(oof.split == 'test') & (oof.seed == 0)])
    turned.loc[mine, 'y'] = 1 - turned.y[mine] # whatever the labels of seed 0's test images are ...
    second = evaluate_decision(turned, goal)
    for c in 'pred', 'flagged', 'p1': # ... they are judged alike
        assert (first[c][first.seed == 0] == second[c][second.seed == 0]).all()


def test_performance_follows_from_its_two_rates():
    oof, goal = made_up(n=3000), Goal(cost_miss=10, cost_alarm=2, prevalence=.02)
    p = performance(evaluate_decision(oof, goal), goal, [.98, .02])
    r, f = p['recall'][0], p['false_alarms'][0]
    assert p['precision'][0] == pytest.approx(.02*r/(.02*r + .98*f))
    assert p['f1'][0] == pytest.approx(2*p['precision'][0]*r/(p['precision'][0] + r))
    assert p['cost'][0] == pytest.approx(1000*(.02*(1 - r)*10 + .98*f*2))
    assert all(lo <= mean <= hi for mean, lo, hi in p.values())
    assert p['recall'][2] - p['recall'][1] > .01


def test_perfect_is_not_certain():
    t = evaluate_decision(made_up(gap=40.), Goal())
    mean, low, high = performance(t, Goal(), [.9, .1])['recall']
    assert mean == 1 == high and low < .95 # a handful of images


def test_promises_allow_for_a_better_model():
    "The model that is kept has seen more images than those of the cross-validation"
    p = performance(evaluate_decision(made_up(n=3000), Goal()), Goal(), [.9, .1])
    def arms(k): return abs(np.diff(logit([p[k][1], p[k][0], p[k][2]]))) # of the interval, on the logit scale
    assert arms('recall')[1] > arms('recall')[0] and arms('false_alarms')[0] > arms('false_alarms')[1]
