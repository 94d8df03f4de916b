"""Make the stored results of the course: every recipe on three plants and the embedded leaves, with two networks.

    python benchmarks/field.py PLANTVILLAGE VGG16.safetensors --out field

Runs go to sub-folders of --out, where a stopped run goes on; the tables go to bn_imbalance/results/field. With --tune N the
recipes get N tries each on the data sets named by --only (such as Apple-vgg16). Takes hours on 2 cores.
"""
from dataclasses import replace
from pathlib import Path
from fastcore.script import call_parse
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data import read_data
from bn_imbalance.leaderboard import results
from bn_imbalance.recipes import get_recipes
from bn_imbalance.sweep import compare
from bn_imbalance.tuning import best_variants, tune as tune_recipes

PLANTS = 'Apple', 'Pepper,_bell', 'Tomato', 'leaves'
STORED = stored_results()/'field'


def store(df, name): df.drop(columns=['head', 'final_bn', 'epochs']).round(4).to_csv(STORED/f'{name}.csv', index=False)


@call_parse
def main(
    plantvillage:str,   # folder with class folders such as Apple___healthy
    vgg16:str,          # safetensors file with VGG16's convolution body
    out:str='field',    # folder for the runs
    seeds:int=20,       # runs per recipe
    tune:int=0,         # tries per recipe; 0: no tuning
    only:str=''         # one data set, such as Apple-vgg16; empty: all
):
    "Make the stored results of the course"
    STORED.mkdir(parents=True, exist_ok=True)
    for arch, weights in ('tf_efficientnet_lite0', ''), ('vgg16', vgg16):
        for plant in PLANTS:
            name = f'{plant.split(",")[0].lower()}-{arch}'
            if only and only.lower() != name: continue
            s = load_settings(arch=arch, weights=weights, seeds=seeds, recipes='all', tune=tune)
            data = (read_data('leaves') if plant == 'leaves' else
                    read_data(plantvillage, f'{plant}___*', f'{plant}___healthy'))
            runs = Path(out)/f'{plant}-{arch}'
            store(results(compare(data, s, out=runs)), name)
            if tune:
                trials = tune_recipes(data, s, out=runs/'tuning')
                trials.round(4).to_csv(STORED/f'{name}-tuning.csv', index=False)
                variants = list(dict.fromkeys(best_variants(trials).values()))
                known = {r.name for r in get_recipes('all')}
                tuned = replace(s, recipes=[v for v in variants if v not in known])
                store(results(compare(data, tuned, out=runs)), f'{name}-tuned')
