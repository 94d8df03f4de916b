"""What if the body learns, as in the paper? Remedies fine-tuned end to end, on apple leaves and magnetic tiles.

    python benchmarks/fine_tune.py PLANTVILLAGE TILES [--seeds 5] [--out fine_tune]

One epoch of the head alone and then --unfreeze epochs of everything, with discriminative rates (fastai's
`fine_tune`), beside the same recipes on a fixed body. EfficientNet-Lite0 at 128 pixels. Runs go to --out, where a
stopped run goes on; the table goes to bn_imbalance/results/fine_tune.csv. A run takes about two minutes of one core,
seconds on a GPU.
"""
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.metrics import interval_text
from bn_imbalance.evaluate.leaderboard import results
from bn_imbalance.metrics import mean_interval
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.sweep import Execution, compare

RECIPES = 'plain,weighted,final_bn,final_bn_weighted'
TILES = dict(train_majority=450, valid_majority=120, test_majority=250, test_minority=150)


@call_parse
def main(
    plantvillage:str,       # the folder with the plants
    tiles:str,              # folder with MT_Free and so on, and groups.csv
    seeds:int=5,            # runs per recipe
    unfreeze:int=5,         # epochs of everything
    out:str='fine_tune',    # folder for the runs
    only:str='Apple;tiles'  # data sets, with semicolons
):
    "Fine-tune, train the head alone, and store both"
    sets = {'Apple': (lambda: read_data(plantvillage, 'Apple___*', 'Apple___healthy'), {}),
            'tiles': (lambda: read_data(Path(tiles)/'groups.csv', 'MT_*', 'MT_Free'), TILES)}
    stored = stored_results()/'fine_tune.csv'
    for name in only.split(';'):
        read, sizes = sets[name]
        d, s = read(), load_settings(size=128, seeds=seeds, **sizes)
        for way, s in ('fixed body', s), ('fine-tuned', replace(s, epochs=1, unfreeze=unfreeze)):
            for seed in range(seeds): # all recipes of a seed before the next one
                compare(d, s, 'paper', Execution(Path(out)/name/way), [seed], get_recipes(RECIPES))
            runs = compare(d, s, 'paper', Execution(Path(out)/name/way), None, get_recipes(RECIPES))
            new = results(runs).assign(data=name, backbone=way).round(4)
            old = pd.read_csv(stored) if stored.exists() else new.iloc[:0]
            old = old[(old.data != name) | (old.backbone != way)]
            write_atomic(stored, pd.concat([old, new]).to_csv(index=False))
            t = new.groupby('recipe').f1_minority.agg(lambda x: interval_text(*mean_interval(x)))
            print(name, way, t.to_dict(), flush=True)
