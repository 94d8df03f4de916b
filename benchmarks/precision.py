"""What does `precision = fast` save on a CPU, and does it change the verdict? Both ways in turn, in the same run.

    python benchmarks/precision.py PLANTVILLAGE [--seeds 20] [--out precision]

Runs go to sub-folders of --out, where a stopped run goes on; the table goes to bn_imbalance/results/precision.csv.
"""
import time
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.metrics import interval_text
from bn_imbalance.evaluate.leaderboard import summarize, results
from bn_imbalance.metrics import paired_difference
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.evaluate.answer import make_answer

WAYS = {'exact': 'mixed', 'fast': 'fast'} # on a CPU mixed is exact


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str,     # the folder with the plants
    seeds:int=20,         # runs per recipe
    recipes:str='all',    # as for bn-compare
    out:str='precision'   # folder for the runs
):
    "Train all recipes exactly and fast, and compare"
    d, s = read_data(plantvillage, majority='Apple___healthy', minority='Apple___*'), load_settings(recipes=recipes)
    took, tables = dict.fromkeys(WAYS, 0.), {w: [] for w in WAYS}
    for first in range(0, seeds, 2): # both workers get a seed
        for way, precision in WAYS.items():
            start = time.time()
            two = range(first, min(first + 2, seeds))
            runs = compare(d, replace(s, precision=precision), 'paper', Execution(Path(out)/way), two)
            took[way] += time.time() - start
            tables[way].append(results(runs))
    exact, fast = (pd.concat(tables[w], ignore_index=True) for w in WAYS)
    print(', '.join(f'{w}: {t:.0f} s' for w, t in took.items()) + f', ratio {took["fast"]/took["exact"]:.2f}')
    for m in 'f1_minority', 'auroc':
        a, b = (t.pivot(index='seed', columns='recipe', values=m) for t in (exact, fast))
        for r in a: print(f'{m:12} {r:28} fast minus exact {interval_text(*paired_difference(b[r], a[r]), True)}')
    for way, t in ('exact', exact), ('fast', fast): print(f'{way}: {make_answer(summarize(t)).take}')
    both = pd.concat([exact.assign(precision='exact'), fast.assign(precision='fast')])
    keep = ['precision', 'recipe', 'seed', 'f1_minority', 'auroc']
    both[keep].round(4).to_csv(stored_results()/'precision.csv', index=False)
