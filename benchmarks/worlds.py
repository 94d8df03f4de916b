"""Where will a model be used? Remedies with cross-fitted logits, closed forms, one-class recipes and tuned
baselines, on four data sets.

    python benchmarks/worlds.py PLANTVILLAGE [--seeds 20] [--out worlds]

Runs go to sub-folders of --out, where a stopped run goes on. What they are worth by several goals goes to
bn_imbalance/results/worlds.csv, what each way to a cut is worth to cuts.csv and odds.csv, and what the controls of the
course need to controls/. Takes about two hours on 2 cores.
"""
import json
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse
from bn_imbalance.choice import tuning_trials, with_tuned
from bn_imbalance.controls import controls_data
from bn_imbalance.core import load_settings, stored_results, write_whole
from bn_imbalance.cuts import WAYS
from bn_imbalance.data import read_data
from bn_imbalance.goal import Goal
from bn_imbalance.records import read_runs
from bn_imbalance.recipes import get_recipes
from bn_imbalance.sweep import How, compare
from bn_imbalance.tuning import baseline_tries
from bn_imbalance.worlds import in_world

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
    for goal, share in [('argmax', .5), *((g, s) for g in GOALS for s in SHARES)]:
        g = replace(GOALS[goal], share=share) if goal in GOALS else Goal()
        for r in with_tuned(runs, tuning_trials(runs, names, g)):
            value = in_world(r, g, share)['value'] if g else r.metrics()['f1_minority']
            rows.append(dict(data=r.data['name'], recipe=r.recipe, seed=r.seed, value=value, goal=goal, share=share))
    return pd.DataFrame(rows)


def by_way(folder):
    "What cuts made in each way are worth, mean over recipes: a row per seed, goal, share and way"
    rows = [dict(data=r.data['name'], seed=r.seed, goal=goal, share=share, way=way,
                 value=in_world(r, GOALS[goal], share, way)['value'])
            for r in read_runs(folder/'field') for goal in GOALS for share in SHARES for way in WAYS]
    return pd.DataFrame(rows).groupby(['data', 'seed', 'goal', 'share', 'way'], sort=False).value.mean().reset_index()


def by_odds(folder):
    "What two ways to a cut cost, mean over recipes, for several prices of a miss and shares: a row per seed"
    rows = [dict(data=r.data['name'], seed=r.seed, ratio=ratio, share=share, way=way,
                 value=in_world(r, Goal(cost_miss=ratio, cost_alarm=1), share, way)['value'])
            for r in read_runs(folder/'field') for ratio in (5, 20, 100)
            for share in (.1, .03, .01, .003, .001, .0005) for way in ('weighted', 'calibrated')]
    t = pd.DataFrame(rows).groupby(['data', 'seed', 'ratio', 'share', 'way'], sort=False).value.mean()
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
    "Train what the stored tables of the chapter on worlds are made of"
    s = load_settings(seeds=seeds, folds=5)
    for first in range(0, seeds, 10):
        some = range(first, min(first + 10, seeds))
        for name in only.split(';'):
            d = read(name, plantvillage)
            compare(d, s, 'paper', How(Path(out)/name/'field'), some, get_recipes(FIELD))
            compare(d, replace(s, folds=0), 'paper', How(Path(out)/name/'more'), some, get_recipes(MORE))
            tries = [v for r in get_recipes('plain,final_bn') for v in baseline_tries(r, s)]
            compare(d, replace(s, folds=0), 'paper', How(Path(out)/name/'tries'), some, tries)
    done = [worth(Path(out)/name) for name in only.split(';')]
    pd.concat(done).round(4).to_csv(stored_results()/'worlds.csv', index=False)
    ways = [by_way(Path(out)/name) for name in only.split(';')]
    for name in {'Apple', 'elpv'} & set(only.split(';')):
        write_whole(stored_results()/f'controls/{name.lower()}.json', shown(Path(out)/name))
    odds = [by_odds(Path(out)/name) for name in only.split(';')]
    pd.concat(odds).round(4).to_csv(stored_results()/'odds.csv', index=False)
    pd.concat(ways).round(4).to_csv(stored_results()/'cuts.csv', index=False)
