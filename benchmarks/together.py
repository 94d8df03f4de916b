"""Supervised, one-class, and both together: which ranks rare images best, and by which rule to add two margins.

    python benchmarks/together.py PLANTVILLAGE MAGNETIC_TILES --out together

Margins of every recipe on every data set and seed go to files in --out, where a stopped run goes on; from them the
rules are judged, and the table goes to bn_imbalance/results/together.csv. No rule sees a test image. The solar
cells come with the package elpv-dataset.
"""
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastcore.script import call_parse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import SPLITS, draw_split
from bn_imbalance.training.features import backbone_features, patch_features
from bn_imbalance.training.loaders import split_labels
from bn_imbalance.metrics import best_threshold, margin, precision_recall_f1
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.engine import finish_head, threads, train

STORED = stored_results()/'together.csv'
SUPERVISED = 'plain', 'final_bn', 'logistic_regression', 'lda', 'nearest_mean', 'ridge'
ONE_CLASS = 'mahalanobis', 'knn', 'padim', 'patchcore'
TILES = dict(train_majority=450, valid_majority=120, test_majority=250)


def data_sets(plantvillage, tiles):
    "name -> how to read it, settings that differ from the paper's"
    def tile(kinds, n):
        return lambda: read_data(Path(tiles)/'groups.csv', kinds, 'MT_Free'), TILES | dict(test_minority=n)
    return {'Apple': (lambda: read_data(plantvillage, 'Apple___*', 'Apple___healthy'), {}),
            'solar cells': (lambda: read_data('elpv'), {}),
            'tiles, all defects': tile('MT_*', 150), 'tiles, blowhole': tile('MT_Blowhole', 40),
            'tiles, break': tile('MT_Break', 40)}


def margins(split, s, seed, features, patches):
    "recipe/side -> margins (n,), and y/side -> labels"
    recipes = get_recipes(', '.join(SUPERVISED + ONE_CLASS))
    trained = train('features', split, recipes, s, seed, features, None, 'cpu', patches)
    out = {f'y/{side}': split_labels(split, side) for side in SPLITS}
    for r in recipes:
        t = trained[r.training]
        with threads(1), torch.no_grad():
            head = finish_head(r, t, out['y/train'], s, seed)
            sides = SPLITS[1:] if r.one_class else SPLITS # a one-class margin is in units of images left out already
            out |= {f'{r.name}/{side}': margin(head(t.seen(r.inputs, side)).numpy()) for side in sides}
    return out


def spread(m): return max(np.subtract(*np.quantile(m, [.75, .25]))/1.349, 1e-6)


def added(m, a, b, rule):
    "Margins of validation and test images of two recipes together; nothing but training and validation is looked at"
    usual = {side: m[f'y/{side}'] == 0 for side in SPLITS}
    if rule == 'spread on training':
        scale = spread(m[f'{a}/train'][usual['train']]), 1
    else: scale = [spread(m[f'{r}/valid'][usual['valid']]) for r in (a, b)]
    x = {side: np.stack([m[f'{r}/{side}']/s for r, s in zip((a, b), scale)], 1) for side in ('valid', 'test')}
    if rule != 'weights learnt on validation': return {side: o.sum(1) for side, o in x.items()}
    model = LogisticRegression(class_weight='balanced').fit(x['valid'], m['y/valid'])
    return {side: model.decision_function(o) for side, o in x.items()}


RULES = 'spread on training', 'spread on validation', 'weights learnt on validation'


def judged(m):
    "A row per recipe and per pair and rule"
    y = {side: m[f'y/{side}'] == 1 for side in SPLITS}
    def row(recipe, rule, valid, test):
        f1 = lambda threshold: precision_recall_f1(y['test'], test > threshold)[2]
        return dict(recipe=recipe, rule=rule, auroc=roc_auc_score(y['test'], test), f1_minority=f1(0),
                    f1_minority_tuned=f1(best_threshold(y['valid'], valid)))
    for r in SUPERVISED + ONE_CLASS: yield row(r, '', m[f'{r}/valid'], m[f'{r}/test'])
    for a in 'plain', 'final_bn', 'logistic_regression':
        for b in ONE_CLASS:
            for rule in RULES: yield row(f'{a}+{b}', rule, **added(m, a, b, rule))


@call_parse
def main(
    plantvillage:str,   # folder with class folders such as Apple___healthy
    tiles:str,          # folder with MT_Free and so on, and groups.csv
    out:str='together', # folder for the margins
    seeds:int=10,       # per data set
    only:str=''         # a data set
):
    "Compute margins that are not there yet, judge all, store the table"
    rows = []
    for name, (read, sizes) in data_sets(plantvillage, tiles).items():
        if only not in name: continue
        s, files = load_settings(**sizes), [Path(out)/f'{name}-{seed}.npz' for seed in range(seeds)]
        if not all(f.exists() for f in files):
            data = read()
            features, patches = backbone_features(data.items, s, 'cpu'), patch_features(data.items, s, 'cpu')
        for seed, file in enumerate(files):
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                m = margins(draw_split(data, s, seed, 'paper'), s, seed, features, patches)
                with open(file.with_suffix('.part'), 'wb') as f: np.savez(f, **m)
                file.with_suffix('.part').rename(file)
            rows += [dict(data=name, seed=seed, **row) for row in judged(np.load(file))]
    table = pd.DataFrame(rows)
    if not only: table.round(5).to_csv(STORED, index=False)
    print(table.pivot_table(index=['recipe', 'rule'], columns='data', values='auroc', sort=False).round(3).to_string())
