"""Why does final batch normalization rank better? Heads, remedies and learning rates on features of a fixed body.

    python benchmarks/heads.py PLANTVILLAGE [--folders CELLS.csv,TILES.csv] [--seeds 20] [--only Apple]

Rows go to bn_imbalance/results/heads.csv, seed by seed; a stopped run goes on behind the last seed that is there.
A CSV has columns path, label[, group]; its rare class is the smaller one, and images are drawn in the paper's
numbers, or in smaller ones (`FEW`) where there are not as many.
"""
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastcore.script import call_parse
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import SPLITS, draw_split
from bn_imbalance.training.features import backbone_features
from bn_imbalance.models.heads import HEADS
from bn_imbalance.training.loaders import split_labels, tensor_dls
from bn_imbalance.metrics import best_threshold, precision_recall_f1
from bn_imbalance.recipes.base import Recipe
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.engine import train_heads

STORED = stored_results()/'heads.csv'
LRS = 3e-4, 1e-3, 3e-3
PLANTS = 'Apple', 'Pepper,_bell'
FEW = dict(train_majority=450, valid_majority=120, test_majority=250, test_minority=150)


class CenterNorm(nn.BatchNorm1d):
    "Batch normalization that only takes the mean away, with a learnt shift"
    def forward(self, x):
        if not self.training: return x - self.running_mean + self.bias
        mean = x.mean(0)
        with torch.no_grad(): self.running_mean.lerp_(mean, self.momentum)
        return x - mean + self.bias

class ScaleNorm(nn.BatchNorm1d):
    "Batch normalization that only divides by the standard deviation, with a learnt scale"
    def forward(self, x):
        var = self.running_var
        if self.training:
            var = x.var(0, unbiased=False)
            with torch.no_grad(): self.running_var.lerp_(var*len(x)/(len(x) - 1), self.momentum)
        return x*(var + self.eps).rsqrt()*self.weight

def on_logits(head, bn): return nn.Sequential(*head, bn(head[-1].out_features, momentum=.01))
PARTS = [Recipe('final_bn_center', 'its mean alone', head=partial(on_logits, bn=CenterNorm)),
         Recipe('final_bn_scale', 'its deviation alone', head=partial(on_logits, bn=ScaleNorm))]


def judged(test, y, valid, y_valid):
    "How well one training ranks, where its line is, and where both classes lie: margins in nats"
    m = test[:, 1] - test[:, 0]
    rare, common = m[y == 1], m[y == 0]
    spread = lambda x: dict(zip(('mean', 'std', 'low', 'high'), (x.mean(), x.std(), *np.quantile(x, (.05, .95)))))
    precision, recall, f1 = precision_recall_f1(y == 1, m > 0)
    threshold = best_threshold(y, m)
    return (dict(auroc=roc_auc_score(y, m), ap=average_precision_score(y, m), f1=f1, precision=precision,
                 recall=recall, f1_oracle=precision_recall_f1(y == 1, m > threshold)[2], cut_oracle=threshold,
                 # the line in the majority's own terms: how many deviations above its mean, how many of it beyond
                 line=-common.mean()/common.std(), alarms=(common > 0).mean(),
                 auroc_valid=roc_auc_score(y_valid, valid[:, 1] - valid[:, 0])) |
            {f'minority_{k}': v for k, v in spread(rare).items()} |
            {f'majority_{k}': v for k, v in spread(common).items()})


def one_seed(data, features, s, seed):
    "A row per head, remedy and learning rate"
    split = draw_split(data, s, seed, 'paper')
    y = {side: split_labels(split, side) for side in SPLITS}
    recipes = [*get_recipes('plain, balanced_softmax, final_bn, final_bn_no_affine'), *PARTS]
    for head in HEADS:
        for lr in LRS:
            dls = tensor_dls(split, dict.fromkeys(SPLITS, features), s, 'cpu')
            trained = train_heads(dls, recipes, replace(s, head=head, lr=lr), seed)
            for r in recipes:
                _, valid, test = trained[r.training].epochs[-1]
                yield dict(data=data.name, head=head, recipe=r.name, lr=lr, seed=seed,
                           **judged(test, y['test'], valid, y['valid']))


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str,  # the folder with the plants
    folders:str='',    # CSV files of other images, with commas
    seeds:int=20,      # draws
    only:str='',       # the beginning of a data set's name; empty: all
):
    "Train every head with every remedy and store how well each ranks"
    s = load_settings()
    sets = [read_data(plantvillage, f'{p}___*', f'{p}___healthy') for p in PLANTS]
    sets += [read_data(f) for f in folders.split(',') if f]
    have = pd.read_csv(STORED) if STORED.exists() else pd.DataFrame(columns=['data', 'seed'])
    for data in sets:
        if not data.name.startswith(only): continue
        features = backbone_features(data.items, s)
        sized = s if data.counts['majority'] >= 1300 else replace(s, **FEW)
        for seed in range(seeds):
            if ((have.data == data.name) & (have.seed == seed)).any(): continue
            have = pd.concat([have, pd.DataFrame(one_seed(data, features, sized, seed)).round(5)], ignore_index=True)
            write_atomic(STORED, have.to_csv(index=False))
            print(data.name, seed, flush=True)
    means = have.groupby(['data', 'head', 'recipe', 'lr'], sort=False)[['auroc', 'f1', 'f1_oracle', 'line']].mean()
    print(means.round(3).to_string())
