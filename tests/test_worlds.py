"""What runs are worth in a world: cuts against brute force, measures against their definitions, verdicts."""
from dataclasses import replace
import numpy as np, pytest
from conftest import SMALL, write_folder
from hypothesis import given, settings, strategies as st
from sklearn.metrics import f1_score, precision_recall_curve
from test_controls import made_up
from bn_imbalance.core import BadInput
from bn_imbalance.cuts import WAYS, calibrated, cut_for
from bn_imbalance.data import draw_split, read_data, targets
from bn_imbalance.goal import Goal
from bn_imbalance.leaderboard import board, leaderboard_text
from bn_imbalance.metrics import margin, share_weights
from bn_imbalance.recipes import get_recipes
from bn_imbalance.records import Run, Side
from bn_imbalance.runs import run_together
from bn_imbalance.verdict import verdict
from bn_imbalance.worlds import cost_map, firsts, in_world, known_shares, ranges, resolution, worlds

COSTS = Goal(cost_miss=20, cost_alarm=1)
goals = st.sampled_from([Goal(), COSTS, Goal(cost_miss=1, cost_alarm=5), Goal(min_recall=.9)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), goals, st.floats(.001, .9))
def test_the_weighted_cut_is_the_best_there_is(seed, goal, share):
    run = made_up('plain', 2, seed)
    y, m = run.valid.y, margin(run.valid.logits)
    w = share_weights(y, share)
    def worth(cut):
        over = m > cut
        return goal.score(np.array([(w*y*over).sum()]), np.array([(w*(1 - y)*over).sum()]), (w*y).sum())[0]
    every = [m.min() - 1, *m]
    best = max(map(worth, every))
    assert worth(cut_for(run, goal, share, 'weighted')) >= best - 2e-5*abs(best)
    if not goal.min_recall: # as if the probabilities were true
        p = calibrated(y, m, share)
        def believed(cut): return goal.score((w*p)[m > cut].sum(), (w*(1 - p))[m > cut].sum(), (w*p).sum())
        best = max(map(believed, every)) # near ties count as ties, and the widest gap decides
        assert believed(cut_for(run, goal, share, 'calibrated')) >= best - 2e-5*abs(best)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(.001, .9))
def test_measures_are_those_of_a_test_set_with_the_share(seed, share):
    run = made_up('plain', 2, seed)
    o, y, m = in_world(run, COSTS, share), run.test.y, margin(run.test.logits)
    w, said = share_weights(y, share), m > o['cut']
    assert o['f1'] == pytest.approx(f1_score(y, said, sample_weight=w, zero_division=0))
    cost = 1000*np.average(20*((y == 1) & ~said) + ((y == 0) & said), weights=w)
    assert o['cost'] == o['value'] == pytest.approx(cost)
    assert o['net_benefit'] == pytest.approx(share - cost/20/1000)
    assert o['found'] + o['missed'] == pytest.approx(1000*share)
    p, r, _ = precision_recall_curve(y, m, sample_weight=w)
    assert in_world(run, Goal(min_recall=.9), share)['value'] == pytest.approx(p[r >= .9 - 1e-9][-1])


def test_rare_and_certain_is_not_dear():
    "A calibrated probability may fall below 1/(n+2): otherwise everything is an alarm where the minority is very rare"
    run = made_up('plain', 3, 0)
    assert in_world(run, Goal(cost_miss=275, cost_alarm=1), .00056)['cost'] < 1000*.00056*275


def test_worlds_and_words():
    runs = [made_up(n, k, seed) for n, k in dict(plain=1.5, better=3.5).items() for seed in range(4)]
    assert known_shares(runs[0]) == {.5: 'the test set', .0099: 'training'}
    w = worlds(runs, COSTS)
    assert set(w.share) >= {.0099, .5} and .01 not in set(w.share) # nearly a share that is known
    assert set(firsts(w, lower=True)['first']) == {'better'}
    assert cost_map(runs)['first'].eq('better').mean() > .9
    assert ranges([.1, .5], [.01, .1, .5]) == 'from 10 % to 50 %'
    lb = board(runs, replace(COSTS, share=.01))
    assert lb.lower and lb.best == 'better' and lb.ahead('better', 'plain') and not lb.ahead('plain', 'better')
    assert 'cost per 1000, 1 % rare' in leaderboard_text(lb)
    text = ' '.join(verdict(lb))
    assert text.startswith('Where 1 % of the images') and 'use better' in text
    assert 'nearly that of training' in text and 'the share of the test set (50 %)' in text
    assert '150 images of the majority' in text and not resolution(runs[0], .5)
    assert 'up to 20 in 1000' in resolution(runs[0], .001)
    assert 'at the share of training (0.99 %)' in ' '.join(verdict(board(runs)))


def test_the_winner_of_a_goal_may_be_another():
    "Good margins and a cut in the wrong place lose at argmax, and win where every recipe gets a cut"
    def moved(run, by):
        side = lambda s: replace(s, logits=s.logits + [0, by])
        return replace(run, valid=side(run.valid), test=side(run.test))
    runs = [moved(made_up('ranks', 4, seed), -4) for seed in range(4)]
    runs += [made_up('cuts', 2.5, seed) for seed in range(4)]
    assert board(runs).best == 'cuts' and board(runs, replace(COSTS, share=.01)).best == 'ranks'


def test_what_the_rare_images_are_worth():
    def told(**skills):
        runs = [made_up(n.replace('_plus_', '+'), k, seed) for n, k in skills.items() for seed in range(4)]
        return ' '.join(verdict(board(runs)))
    text = told(plain=3, knn=1, plain_plus_knn=3)
    assert 'in training are worth +' in text and 'knn, which sees none of them' in text
    assert 'The anomaly score in plain+knn makes no difference that could be seen' in text
    text = told(plain=1, knn=3, plain_plus_knn=2)
    assert 'in training lead astray: -' in text and 'The anomaly score in plain+knn helps: +' in text
    assert 'The images of the minority in training' not in told(plain=1, better=2)


def test_several_rare_classes_share_the_share():
    "Each rare class against all others, at its part of the share; costs add up, ratios are means"
    rng, y = np.random.default_rng(0), np.repeat([0, 1, 2], [200, 40, 60])
    side = lambda: Side(y, 2*np.eye(3)[y] + rng.normal(size=(len(y), 3)))
    run = Run(dict(recipe=dict(name='plain'), seed=0, data=dict(classes=['a', 'b', 'c'])), [1, 2], side(), side())
    both, cost = in_world(run, COSTS, .1), 0
    for c, part in (1, .04), (2, .06):
        one = Side((y == c).astype(int), np.c_[0*y, margin(run.test.logits, c)])
        valid = Side(one.y, np.c_[0*y, margin(run.valid.logits, c)])
        cost += in_world(Run(run.config, [1], valid, one), COSTS, part)['cost']
    assert both['cost'] == pytest.approx(cost) and both['found'] + both['missed'] == pytest.approx(100)


def test_cross_fitting_never_sees_the_image(tmp_path):
    data, s = read_data(write_folder(tmp_path/'images')), replace(SMALL, folds=3)
    split, field = draw_split(data, s, 0), get_recipes('plain,final_bn')
    runs = run_together(split, field, s, 0)
    known = split[split.split != 'test']
    for r, alone in zip(runs, run_together(split, field, SMALL, 0)):
        assert r.cross.y.tolist() == targets(known).tolist() and np.isfinite(r.cross.logits).all()
        assert np.array_equal(r.test.logits, alone.test.logits) and alone.cross is None # nothing else changes
        assert np.isfinite([cut_for(r, COSTS, .1, way) for way in WAYS]).all()
    with pytest.raises(BadInput, match='no cross-fitted logits. Set folds'): cut_for(alone, COSTS, .1, 'cross')
