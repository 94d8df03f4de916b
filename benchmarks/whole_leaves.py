"""Make the stored results of the chapter on whole leaves: a comparison with leaves kept whole, and image by image.

    python benchmarks/whole_leaves.py PLANTVILLAGE

Writes bn_imbalance/results/whole_leaves.csv: one line per plant, kind of split, recipe and seed, with F1 and with the
share of right answers among test images whose leaf was (seen) and was not (new) in the training set, for each class.
"""
from dataclasses import replace
import pandas as pd
from fastcore.script import call_parse
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.metrics import margin
from bn_imbalance.training.sweep import compare

STORED = stored_results()/'whole_leaves.csv'


def seen_and_new(run, split, leaf):
    "Share of right answers among test images of seen and of new leaves, by class"
    side = split.split.to_numpy()
    test = split[side == 'test'].assign(leaf=leaf[side == 'test'], right=(margin(run.test.logits) > 0))
    test['right'] = test.right == (test.label == 'minority')
    test['seen'] = test.leaf.isin(leaf[side == 'train'])
    out = {}
    for (label, seen), g in test.groupby(['label', 'seen']):
        out[f'{label}_{"seen" if seen else "new"}'] = g.right.mean()
        out[f'n_{label}_{"seen" if seen else "new"}'] = len(g)
    return out


@call_parse
def main(
    plantvillage:str,   # folder with class folders such as Apple___healthy, and leaf_groups.csv
    seeds:int=20        # runs per recipe
):
    "Make the stored results of the chapter on whole leaves"
    s, rows = load_settings(seeds=seeds, recipes='plain, weighted, final_bn, logistic_regression'), []
    for plant in 'Apple', 'Pepper,_bell':
        leaves = read_data(plantvillage, f'{plant}___*', f'{plant}___healthy')
        group = leaves.items.set_index('path').group
        images = replace(leaves, items=leaves.items.assign(group=range(len(leaves.items))))
        for kind, data in ('leaf', leaves), ('image', images):
            for run in compare(data, s):
                split = draw_split(data, s, run.seed)
                rows.append(dict(plant=plant.split(',')[0], split=kind, recipe=run.recipe, seed=run.seed,
                                 **run.metrics(), **seen_and_new(run, split, split.path.map(group).to_numpy())))
    pd.DataFrame(rows).round(4).to_csv(STORED, index=False)
