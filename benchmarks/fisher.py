"""Does final batch normalization go towards Fisher's discriminant? Trained heads beside LDA and ridge regression.

    python benchmarks/fisher.py PLANTVILLAGE TILES [--seeds 5]

Rows go to bn_imbalance/results/fisher.csv, seed by seed; a stopped run goes on behind the last seed that is there.
`lda` and `ridge` are Spearman's rank correlations of the margins within each class of the test images, the mean of both
classes. Needs the extra data. Ten minutes on two cores, with features stored.
"""
from dataclasses import replace
import numpy as np, pandas as pd
from fastcore.script import call_parse
from scipy.stats import spearmanr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifierCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.engine import train_heads
from bn_imbalance.training.features import backbone_features
from bn_imbalance.training.loaders import split_labels, tensor_dls

STORED = stored_results()/'fisher.csv'
FEW = dict(train_majority=450, valid_majority=120, test_majority=150, test_minority=150)
RECIPES = get_recipes('plain, final_bn, final_bn_no_affine')
SPLITS = 'train', 'valid', 'test'


def one_seed(data, features, s, seed):
    "A row per trained head, and one for each linear classifier"
    split = draw_split(data, s, seed, 'paper')
    x = {k: features[split.digest[split.split == k]].numpy() for k in ('train', 'test')}
    y = {k: split_labels(split, k) for k in SPLITS}
    linear = dict(lda=LinearDiscriminantAnalysis(solver='lsqr', shrinkage='auto'),
                  ridge=RidgeClassifierCV(np.logspace(0, 6, 13), class_weight='balanced'))
    linear = {k: make_pipeline(StandardScaler(), m).fit(x['train'], y['train']) for k, m in linear.items()}
    linear = {k: m.decision_function(x['test']) for k, m in linear.items()}
    def within(a, b): return np.mean([spearmanr(a[y['test'] == c], b[y['test'] == c])[0] for c in (0, 1)])
    def row(m, **more):
        return dict(data=data.name, seed=seed, **more, auroc=roc_auc_score(y['test'], m),
                    **{k: within(m, o) for k, o in linear.items()})
    for k, m in linear.items(): yield row(m, head='', epochs=0, recipe=k)
    dls = tensor_dls(split, dict.fromkeys(SPLITS, features), s, 'cpu')
    for head, epochs in ('linear', 10), ('linear', 100), ('fastai', 10):
        trained = train_heads(dls, RECIPES, replace(s, head=head, epochs=epochs), seed)
        for r in RECIPES:
            test = trained[r.training].epochs[-1][2]
            yield row(test[:, 1] - test[:, 0], head=head, epochs=epochs, recipe=r.name)


@call_parse(pos=['plantvillage', 'tiles'])
def main(
    plantvillage:str, # the folder with the plants
    tiles:str,        # the folder with the magnetic tiles
    seeds:int=5       # random splits
):
    "Train heads with and without the layer and store what their margins have in common with Fisher's discriminant"
    s = load_settings()
    sets = [read_data(plantvillage, f'{p}___*', f'{p}___healthy') for p in ('Apple', 'Tomato')]
    sets += [read_data('elpv'), read_data(tiles, 'MT_*', 'MT_Free')]
    have = pd.read_csv(STORED, keep_default_na=False) if STORED.exists() else pd.DataFrame(columns=['data', 'seed'])
    features = {data.name: backbone_features(data.items, s) for data in sets}
    for seed in range(seeds):
        for data in sets:
            if ((have.data == data.name) & (have.seed == seed)).any(): continue
            sized = s if data.counts['majority'] >= 1300 else replace(s, **FEW)
            new = pd.DataFrame(one_seed(data, features[data.name], sized, seed)).round(4)
            have = pd.concat([have, new], ignore_index=True)
            write_atomic(STORED, have.to_csv(index=False))
            print(data.name, seed, flush=True)
    print(have.groupby(['head', 'epochs', 'data', 'recipe'])[['auroc', 'lda', 'ridge']].mean().round(3).to_string())
