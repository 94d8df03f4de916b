"""What runs are worth at a prevalence: thresholds against brute force, metrics against their definitions."""
from dataclasses import replace
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import f1_score, precision_recall_curve
from test_controls import made_up
from bn_imbalance.evaluate.thresholds import choose_threshold, platt_probabilities
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import leaderboard_text, rank_recipes, results, summarize
from bn_imbalance.metrics import margin, prevalence_weights
from bn_imbalance.evaluate.runs import Run, Predictions
from bn_imbalance.evaluate.prevalence import (
    cost_map, best_per_prevalence, evaluate_at, known_prevalences, resolution, evaluate_prevalences)

COSTS = Goal(cost_miss=20, cost_alarm=1)
goals = st.sampled_from([Goal(), COSTS, Goal(cost_miss=1, cost_alarm=5), Goal(min_recall=.9)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), goals, st.floats(.001, .9))
def test_the_weighted_threshold_is_the_best_there_is(seed, goal, prevalence):
    run = made_up('plain', 2, seed)
    y, m = run.valid.y, margin(run.valid.logits)
    w = prevalence_weights(y, prevalence)
    def worth(threshold):
        over = m > threshold
        return goal.score(np.array([(w*y*over).sum()]), np.array([(w*(1 - y)*over).sum()]), (w*y).sum())[0]
    every = [m.min() - 1, *m]
    best = max(map(worth, every))
    assert worth(choose_threshold(y, m, goal, prevalence, 'weighted')) >= best - 2e-5*abs(best)
    if not goal.min_recall: # as if the probabilities were true
        p = platt_probabilities(y, m, prevalence)
        def believed(threshold):
            return goal.score((w*p)[m > threshold].sum(), (w*(1 - p))[m > threshold].sum(), (w*p).sum())
        best = max(map(believed, every)) # near ties count as ties, and the widest gap decides
        assert believed(choose_threshold(y, m, goal, prevalence, 'calibrated')) >= best - 2e-5*abs(best)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(.001, .9))
def test_measures_are_those_of_a_test_set_with_the_prevalence(seed, prevalence):
    run = made_up('plain', 2, seed)
    o, y, m = evaluate_at(run, COSTS, prevalence), run.test.y, margin(run.test.logits)
    w, pred = prevalence_weights(y, prevalence), m > o['threshold']
    assert o['f1'] == pytest.approx(f1_score(y, pred, sample_weight=w, zero_division=0))
    cost = 1000*np.average(20*((y == 1) & ~pred) + ((y == 0) & pred), weights=w)
    assert o['cost'] == o['value'] == pytest.approx(cost)
    assert o['net_benefit'] == pytest.approx(prevalence - cost/20/1000)
    assert o['found'] + o['missed'] == pytest.approx(1000*prevalence)
    p, r, _ = precision_recall_curve(y, m, sample_weight=w)
    assert evaluate_at(run, Goal(min_recall=.9), prevalence)['value'] == pytest.approx(p[r >= .9 - 1e-9][-1])


def test_rare_and_certain_is_not_dear():
    "A calibrated probability may fall below 1/(n+2): otherwise everything is an alarm where the minority is very rare"
    run = made_up('plain', 3, 0)
    assert evaluate_at(run, Goal(cost_miss=275, cost_alarm=1), .00056)['cost'] < 1000*.00056*275


def test_prevalences_and_words():
    runs = [made_up(n, k, seed) for n, k in dict(plain=1.5, better=3.5).items() for seed in range(4)]
    assert known_prevalences(runs[0]) == {.5: 'the test set', .0099: 'training'}
    w = evaluate_prevalences(runs, COSTS)
    assert set(w.prevalence) >= {.0099, .5} and .01 not in set(w.prevalence) # nearly one that is known
    assert set(best_per_prevalence(w, lower=True)['first']) == {'better'}
    assert cost_map(runs)['first'].eq('better').mean() > .9
    assert cost_map(runs, overlap=1e4).tied.map(len).min() == 1 # as in the answer, splits that overlap tell less
    lb = rank_recipes(runs, replace(COSTS, prevalence=.01))
    assert lb.lower and lb.best == 'better' and lb.ahead('better', 'plain') and not lb.ahead('plain', 'better')
    assert 'cost per 1000, 1 % rare' in leaderboard_text(lb)
    assert not resolution(runs[0], .5) and 'up to 20 in 1000' in resolution(runs[0], .001)


def test_the_winner_of_a_goal_may_be_another():
    "Good margins and a threshold in the wrong place lose at argmax, and win where every recipe gets a threshold"
    def moved(run, by):
        side = lambda s: replace(s, logits=s.logits + [0, by])
        return replace(run, valid=side(run.valid), test=side(run.test))
    runs = [moved(made_up('ranks', 4, seed), -4) for seed in range(4)]
    runs += [made_up('cuts', 2.5, seed) for seed in range(4)]
    assert summarize(results(runs)).best == 'cuts'
    assert rank_recipes(runs).best == rank_recipes(runs, replace(COSTS, prevalence=.01)).best == 'ranks'


def test_several_rare_classes_share_the_prevalence():
    "Each rare class against all others, at its part of the prevalence; costs add up, ratios are means"
    rng, y = np.random.default_rng(0), np.repeat([0, 1, 2], [200, 40, 60])
    side = lambda: Predictions(y, 2*np.eye(3)[y] + rng.normal(size=(len(y), 3)))
    run = Run(dict(recipe=dict(name='plain'), seed=0, data=dict(classes=['a', 'b', 'c'])), [1, 2], side(), side())
    both, cost = evaluate_at(run, COSTS, .1), 0
    for c, part in (1, .04), (2, .06):
        one = Predictions((y == c).astype(int), np.c_[0*y, margin(run.test.logits, c)])
        valid = Predictions(one.y, np.c_[0*y, margin(run.valid.logits, c)])
        cost += evaluate_at(Run(run.config, [1], valid, one), COSTS, part)['cost']
    assert both['cost'] == pytest.approx(cost) and both['found'] + both['missed'] == pytest.approx(100)
