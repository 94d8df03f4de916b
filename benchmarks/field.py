"""Make the stored results of the course: every recipe on six sets of images with two networks, on two with a third.

    python benchmarks/field.py PLANTVILLAGE TILES VGG16.safetensors --out field

Runs go to sub-folders of --out, where a stopped run goes on; the tables go to bn_imbalance/results: field/ has a row
per recipe and seed, families.csv what eight families are worth in three worlds. Plain training is tuned as everywhere:
its learning rate and its length, by validation. With --tune N every recipe gets N tries, on the set named by --only
(such as apple-vgg16). Takes three hours on 2 cores.
Needs the extras data and bodies.
"""
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse
from bn_imbalance.evaluate.choice import tuning_trials, with_tuned
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import results
from bn_imbalance.training.sweep import Execution, compare, recipes_to_run
from bn_imbalance.evaluate.prevalence import evaluate_at

PLANTS = 'Apple', 'Pepper,_bell', 'Tomato'
STORED = stored_results()/'field'
BODIES = {'tf_efficientnet_lite0': None, 'vgg16': None, 'tf_efficientnet_lite1': ('apple', 'tiles')} # None: all sets
# one recipe for each family, chosen before the runs (predictions.md)
FAMILIES = {'plain': 'plain', 'plain:tuned': 'plain, tuned', 'weighted': 'weighted',
            'balanced_softmax': 'balanced softmax', 'logistic_regression': 'closed form', 'padim': 'one-class',
            'final_bn': 'final BN', 'final_bn+padim': 'final BN + one-class'}
WORLDS = {'half': Goal(), '1 %': Goal(prevalence=.01), '1 %, 20:1': Goal(prevalence=.01, cost_miss=20, cost_alarm=1)}
FEW = dict(train_majority=600, valid_majority=120) # of the tiles: there are 952 without a defect


def sources(plantvillage, tiles):
    "Name -> data set"
    def plant(p): return lambda: read_data(plantvillage, f'{p}___*', f'{p}___healthy')
    return ({p.split(',')[0].lower(): plant(p) for p in PLANTS} |
            dict(leaves=lambda: read_data('leaves'), elpv=lambda: read_data('elpv'),
                 tiles=lambda: replace(read_data(tiles, 'MT_*', 'MT_Free'), name='tiles')))


def store(df, name): df.drop(columns=['head', 'final_bn', 'epochs']).round(4).to_csv(STORED/f'{name}.csv', index=False)


def families(runs, tries, name):
    "What each family is worth in each world: a row per family, seed and world"
    rows = []
    for world, goal in WORLDS.items():
        for r in with_tuned(runs, tuning_trials(runs, tries, goal)):
            if r.recipe not in FAMILIES or r.failed: continue
            value = evaluate_at(r, goal, goal.prevalence)['value'] if goal.prevalence else r.metrics()['f1_minority']
            rows.append(dict(data=name, arch=r.settings['arch'], family=FAMILIES[r.recipe], seed=r.seed, world=world,
                             value=value))
    return pd.DataFrame(rows)


def add_families(new):
    "Put rows in the place of older ones of the same data and network"
    path = stored_results()/'families.csv'
    old = pd.read_csv(path) if path.exists() else new.iloc[:0]
    old = old[~((old.data == new.data[0]) & (old.arch == new.arch[0]))]
    pd.concat([old, new.round(4)]).sort_values(['arch', 'data'], kind='stable').to_csv(path, index=False)


@call_parse(pos=['plantvillage', 'tiles', 'vgg16'])
def main(
    plantvillage:str,   # folder with class folders such as Apple___healthy
    tiles:str,          # CSV file of the magnetic tiles: path, label, group
    vgg16:str,          # safetensors file with VGG16's convolution body
    out:str='field',    # folder for the runs
    seeds:int=20,       # runs per recipe
    tune:int=0,         # tries per recipe; 0: plain training alone is tuned
    only:str=''         # data sets with their networks, such as apple-vgg16,tiles-vgg16; empty: all
):
    "Make the stored results of the course"
    STORED.mkdir(parents=True, exist_ok=True)
    for arch, sets in BODIES.items():
        for short, read in sources(plantvillage, tiles).items():
            name = f'{short}-{arch}'
            if (sets and short not in sets) or (only and name not in only.lower().split(',')): continue
            s = load_settings(arch=arch, weights=vgg16 if arch == 'vgg16' else '', seeds=seeds, recipes='all',
                              tune=tune, tuned='none' if tune else 'plain', **FEW if short == 'tiles' else {})
            field, tries = recipes_to_run(s)
            runs = compare(read(), s, 'paper', Execution(Path(out)/name), recipes=field)
            trials = tuning_trials(runs, tries)
            df = results(with_tuned(runs, trials))
            tuned = df.recipe.str.endswith(':tuned')
            if tune:
                trials.round(4).to_csv(STORED/f'{name}-tuning.csv', index=False)
                store(df[tuned], f'{name}-tuned')
            else:
                store(df[~tuned | (df.recipe == 'plain:tuned')], name)
                add_families(families(runs, tries, short))
            print(name, flush=True)
