"""Where will a model be used? Remedies with cross-fitted logits, and tuned baselines, on four data sets.

    python benchmarks/worlds.py PLANTVILLAGE [--seeds 20] [--out worlds]

Runs go to sub-folders of --out, where a stopped run goes on. Takes about two hours on 2 cores.
"""
from pathlib import Path
from fastcore.script import call_parse
from bn_imbalance.core import load_settings
from bn_imbalance.data import read_data
from bn_imbalance.recipes import get_recipes
from bn_imbalance.sweep import How, compare
from bn_imbalance.tuning import baseline_tries

FIELD = 'plain,weighted,balanced_softmax,ldam_drw,final_bn,final_bn_weighted'
PLANTS = 'Apple', 'Pepper,_bell', 'Tomato'


def read(name, plantvillage):
    if name == 'elpv': return read_data('elpv')
    return read_data(plantvillage, f'{name}___*', f'{name}___healthy')


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
            tries = [v for r in get_recipes('plain,final_bn') for v in baseline_tries(r, s)]
            compare(d, load_settings(seeds=seeds), 'paper', How(Path(out)/name/'tries'), some, tries)
