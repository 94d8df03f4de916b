"""What the paper says of the layer beside F1: losses, epochs, confidence, images from elsewhere. For the scorecard.

    python benchmarks/claims.py PLANTVILLAGE [--seeds 5]

Rows go to bn_imbalance/results/claims.csv: two plants, each with the other's healthy leaves as images from elsewhere.
"""
import numpy as np, pandas as pd, torch
from fastcore.script import call_parse
from scipy.special import expit, log_softmax
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.training.features import backbone_features
from bn_imbalance.training.loaders import split_labels
from bn_imbalance.metrics import f1_from_counts, margin
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.engine import fit_learner, make_learner

PLANTS = 'Apple', 'Pepper,_bell'


def best_epoch(epochs, y):
    "The first epoch with the highest F1, from 1"
    pred = [z[:, 1] > z[:, 0] for z in epochs]
    rare = y == 1
    f1 = [f1_from_counts((o & rare).sum(), (o & ~rare).sum(), rare.sum()) for o in pred]
    return 1 + int(np.argmax(f1))


def one_training(split, recipe, s, seed, features, strangers):
    "Everything that is claimed of one training"
    learn = make_learner(split, recipe, s, seed, features=features)
    epochs = fit_learner(learn, s, seed).epochs
    y = {side: split_labels(split, side) for side in ('valid', 'test')}
    (loss,), valid, test = epochs[-1]
    m = margin(test)
    with torch.no_grad(): others = margin(learn.model.eval()(features[strangers.digest]).numpy())
    return dict(accuracy=((m > 0) == y['test']).mean(), confidence=expit(abs(m)).mean(), train_loss=loss,
                valid_loss=-log_softmax(valid, axis=1)[np.arange(len(valid)), y['valid']].mean(),
                best_epoch_valid=best_epoch([e[1] for e in epochs], y['valid']),
                best_epoch_test=best_epoch([e[2] for e in epochs], y['test']),
                confidence_strangers=expit(abs(others)).mean(), sick_strangers=(others > 0).mean())


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str, # the folder with the plants
    seeds:int=5,      # draws
):
    "Train with and without the layer and store what the scorecard shows"
    s, rows = load_settings(), []
    sets = [read_data(plantvillage, majority=f'{p}___healthy', minority=f'{p}___*') for p in PLANTS]
    features = backbone_features(pd.concat([d.items for d in sets]), s)
    for data, other in zip(sets, sets[::-1]):
        strangers = other.items[other.items.label == 'majority'].head(100)
        for seed in range(seeds):
            split = draw_split(data, s, seed, 'paper')
            for r in get_recipes('plain, final_bn'):
                told = one_training(split, r, s, seed, features, strangers)
                rows.append(dict(data=data.name, recipe=r.name, seed=seed) | told)
        write_atomic(stored_results()/'claims.csv', pd.DataFrame(rows).round(5).to_csv(index=False))
    print(pd.DataFrame(rows).groupby(['data', 'recipe']).mean(numeric_only=True).round(3).T.to_string())
