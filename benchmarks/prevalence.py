"""Where will a model be used? Remedies with cross-fitted logits, closed forms, one-class recipes and tuned
baselines, on four data sets.

    python benchmarks/prevalence.py PLANTVILLAGE [--seeds 20] [--out worlds]

Runs go to sub-folders of --out, where a stopped run goes on. What they are worth by several goals goes to
bn_imbalance/results/prevalence.csv, what each way to a threshold is worth to thresholds.csv and
odds.csv, and what the controls of the
course need to controls/. Takes about two hours on 2 cores.
"""
import json
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from bn_imbalance.evaluate.choice import tuning_trials, with_tuned
from bn_imbalance.report.controls import controls_data
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data, targets
from bn_imbalance.data.splits import draw_split, stratified_folds
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.runs import Predictions, Store, read_runs
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.run import run_together
from bn_imbalance.training.sweep import Execution, baseline_trials, compare
from bn_imbalance.evaluate.prevalence import evaluate_at

FIELD = 'plain,weighted,balanced_softmax,ldam_drw,final_bn,final_bn_weighted'
MORE = 'logistic_regression,ridge,knn,padim,final_bn+knn,final_bn+padim' # not cross-fitted
GOALS = {'F1': Goal(), 'cost 20:1': Goal(cost_miss=20, cost_alarm=1)}
SHARES = .5, .1, .01, .001


def read(name, plantvillage):
    if name == 'elpv': return read_data('elpv')
    return read_data(plantvillage, f'{name}___*', f'{name}___healthy')


def worth(folder):
    "What the runs of a data set are worth by each goal at each share, and at argmax: a row per recipe, seed and world"
    field, more, tries = (read_runs(folder/k) for k in ('field', 'more', 'tries'))
    names, runs, rows = {r.recipe for r in tries}, field + more + [r for r in tries if ':' in r.recipe], []
    for goal, prevalence in [('argmax', .5), *((g, s) for g in GOALS for s in SHARES)]:
        g = replace(GOALS[goal], prevalence=prevalence) if goal in GOALS else Goal()
        for r in with_tuned(runs, tuning_trials(runs, names, g)):
            value = evaluate_at(r, g, prevalence)['value'] if g.given else r.metrics()['f1_minority']
            rows.append(dict(data=r.data['name'], recipe=r.recipe, seed=r.seed, value=value, goal=goal,
                             prevalence=prevalence))
    return pd.DataFrame(rows)


WAYS = {k: k for k in ('argmax', 'validation', 'weighted', 'calibrated')} | dict(
    cross='weighted', cross_calibrated='calibrated')


def cross_fit(data, s, seed, recipes, n=5):
    "Out-of-fold logits of training and validation images (Wolpert 1992), a `Predictions` per recipe"
    split = draw_split(data, s, seed, 'paper')
    known = split[split.split != 'test']
    y, fold, out = targets(known), stratified_folds(known, n, seed), {}
    for k in range(n):
        held = known[fold == k]
        parts = [known[fold != k].assign(split='train'), held.assign(split='valid'), held.assign(split='test')]
        for r in run_together(pd.concat(parts), recipes, s, seed):
            out.setdefault(r.recipe, np.full((len(y), len(data.names)), np.nan))[fold == k] = r.test.logits
    return {name: Predictions(y, z) for name, z in out.items()}


def keep_cross_fits(data, s, seeds, recipes, out):
    "The runs of a folder as they are, with cross-fitted logits in place of those of validation, in another folder"
    store, field = Store(out/'cross'), read_runs(out/'field')
    for seed in seeds:
        missing = [r for r in field if r.seed == seed and not store.path(r.config).exists()]
        crossed = cross_fit(data, s, seed, recipes) if missing else {}
        for r in missing: store.put(replace(r, valid=crossed[r.recipe]))


def by_way(folder):
    "What thresholds chosen in each way are worth, mean over recipes: a row per seed, goal, prevalence and way"
    runs = {k: {(r.recipe, r.seed): r for r in read_runs(folder/k)} for k in ('field', 'cross')}
    def value(key, goal, prevalence, way):
        run = runs['cross' if way.startswith('cross') else 'field'][key]
        return evaluate_at(run, GOALS[goal], prevalence, WAYS[way])['value']
    rows = [dict(data=r.data['name'], seed=r.seed, goal=goal, prevalence=prevalence, way=way,
                 value=value(key, goal, prevalence, way))
            for key, r in runs['field'].items() for goal in GOALS for prevalence in SHARES for way in WAYS]
    by = ['data', 'seed', 'goal', 'prevalence', 'way']
    return pd.DataFrame(rows).groupby(by, sort=False).value.mean().reset_index()


def by_odds(folder):
    "What two ways to a cut cost, mean over recipes, for several prices of a miss and shares: a row per seed"
    rows = [dict(data=r.data['name'], seed=r.seed, ratio=ratio, prevalence=prevalence, way=way,
                 value=evaluate_at(r, Goal(cost_miss=ratio, cost_alarm=1), prevalence, way)['value'])
            for r in read_runs(folder/'field') for ratio in (5, 20, 100)
            for prevalence in (.1, .03, .01, .003, .001, .0005) for way in ('weighted', 'calibrated')]
    t = pd.DataFrame(rows).groupby(['data', 'seed', 'ratio', 'prevalence', 'way'], sort=False).value.mean()
    return t.unstack('way').reset_index()


SHOWN = 'plain', 'weighted', 'ridge', 'knn', 'padim', 'final_bn', 'final_bn+padim'

def shown(folder):
    "Margins of the first ten seeds, for the controls"
    runs = [r for k in ('field', 'more') for r in read_runs(folder/k) if r.recipe in SHOWN and r.seed < 10]
    return json.dumps(controls_data(sorted(runs, key=lambda r: SHOWN.index(r.recipe))))


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str,  # the folder with the plants
    seeds:int=20,      # runs per recipe
    out:str='worlds',  # folder for the runs
    only:str='Apple;Pepper,_bell;Tomato;elpv' # data sets, with semicolons
):
    "Train what the stored tables of the chapter on deployment are made of"
    s = load_settings(seeds=seeds)
    for first in range(0, seeds, 10):
        some = range(first, min(first + 10, seeds))
        for name in only.split(';'):
            d = read(name, plantvillage)
            compare(d, s, 'paper', Execution(Path(out)/name/'field'), some, get_recipes(FIELD))
            keep_cross_fits(d, s, some, get_recipes(FIELD), Path(out)/name)
            compare(d, s, 'paper', Execution(Path(out)/name/'more'), some, get_recipes(MORE))
            tries = [v for r in get_recipes('plain,final_bn') for v in baseline_trials(r, s)]
            compare(d, s, 'paper', Execution(Path(out)/name/'tries'), some, tries)
    done = [worth(Path(out)/name) for name in only.split(';')]
    pd.concat(done).round(4).to_csv(stored_results()/'prevalence.csv', index=False)
    ways = [by_way(Path(out)/name) for name in only.split(';')]
    for name in {'Apple', 'elpv'} & set(only.split(';')):
        write_atomic(stored_results()/f'controls/{name.lower()}.json', shown(Path(out)/name))
    odds = [by_odds(Path(out)/name) for name in only.split(';')]
    pd.concat(odds).round(4).to_csv(stored_results()/'odds.csv', index=False)
    pd.concat(ways).round(4).to_csv(stored_results()/'thresholds.csv', index=False)
