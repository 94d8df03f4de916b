"""Where does final batch normalization stop working? The runs behind chapters 4 and 7, one experiment after the other.

    python benchmarks/when_it_stops.py PLANTVILLAGE [--out when] [--seeds 5] [--only ratio,batch]

Runs go to sub-folders of --out, where a stopped run goes on; the tables go to bn_imbalance/results/when_it_stops.csv.
"""
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.data.core import DataLoaders
from fastcore.script import call_parse
from sklearn.datasets import load_digits
from torch import nn
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import SPLITS
from bn_imbalance.evaluate.leaderboard import results
from bn_imbalance.recipes.base import Recipe
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.loaders import TensorDL
from bn_imbalance.metrics import METRICS, minority_metrics
from bn_imbalance.training.run import evaluate_run
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.training.engine import train_heads

STORED = stored_results()/'when_it_stops.csv'


class TwoLogits(nn.Module):
    "One logit z as two, -z/2 and z/2: their cross-entropy is the binary cross-entropy of z"
    def forward(self, z): return torch.cat([-z/2, z/2], 1)

def _one_logit(head, *bn):
    lin = head[-1]
    return nn.Sequential(*head[:-1], nn.Linear(lin.in_features, 1, bias=lin.bias is not None), *bn, TwoLogits())

def sigmoid(head): return _one_logit(head)
def sigmoid_bn(head): return _one_logit(head, nn.BatchNorm1d(1, momentum=.01))

SIGMOID = [Recipe('sigmoid', 'one logit and a sigmoid', head=sigmoid),
           Recipe('sigmoid_bn', 'batch normalization on it', head=sigmoid_bn)]
PAIR = get_recipes('plain, final_bn')

def experiments(s):
    "name -> list of (value, settings, recipes)"
    def long(rs, lrs, es):
        return [(f'{e} epochs, lr {lr:g}', replace(s, epochs=e, lr=lr), rs) for lr in lrs for e in es]
    bare = get_recipes('final_bn_no_affine')
    return dict(
        ratio=[(f'1000:{k}', replace(s, train_minority=k), get_recipes('plain, weighted, final_bn'))
               for k in (5, 10, 30, 100, 300, 500)],
        balanced=[(f'{k}:{k}', replace(s, train_majority=k, train_minority=k), PAIR) for k in (100, 500)],
        batch=[(str(b), replace(s, batch_size=b), PAIR) for b in (16, 32, 64, 128, 256)],
        steps=[(f'{b}, {e} epochs', replace(s, batch_size=b, epochs=e), PAIR)
               for b, e in ((16, 2), (32, 5), (64, 10), (128, 21), (256, 50))],
        momentum=[(str(m), replace(s, bn_momentum=m), PAIR[1:]) for m in (.001, .01, .1, .5)],
        length=long(PAIR, (.0003, .003, .03), (3, 10, 30, 100)),
        no_shift=long(bare, (.003, .03), (10, 30, 100)),
        parts=[('as it is', s, get_recipes('plain, final_bn, final_bn_removed, final_bn_no_affine, final_bn_exact'))],
        sigmoid=[('one logit', s, SIGMOID)],
        features=[(f'{n} pixels', replace(s, size=n), PAIR) for n in (32, 64, 128, 224)] +
                 [('untrained body', replace(s, weights='random'), PAIR)],
        # small images, as in the sixty-four configurations: is it the shift that makes F1 fall again?
        small=[(f'{e} epochs', replace(s, size=64, epochs=e), [*PAIR, *bare]) for e in (3, 10, 30)] +
              [(f'momentum {m:g}', replace(s, size=64, bn_momentum=m), [PAIR[1], *bare]) for m in (.001, .01, .1)],
    )

def digits(s, seeds):
    "Handwritten digits: eights are rare; no body at all, the pixels are the features, a small network or one layer"
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x/16, dtype=torch.float), (y == 8).astype(int)
    sizes = [(getattr(s, f'{side}_majority'), getattr(s, f'{side}_minority')) for side in SPLITS]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        pools = [rng.permutation(np.flatnonzero(y == c)) for c in (0, 1)]
        sides, at = [], [0, 0]
        for ns in sizes:
            sides.append(np.concatenate([p[a:a + n] for p, a, n in zip(pools, at, ns)]))
            at = [a + n for a, n in zip(at, ns)]
        for head in 'plain', 'linear':
            st = replace(s, head=head)
            dls = DataLoaders(*[TensorDL(x[i], torch.tensor(y[i]), bs=64 if k == 0 else len(i), shuffle=k == 0,
                                         drop_last=k == 0, num_workers=0) for k, i in enumerate(sides)], device='cpu')
            recipes = [*PAIR, *get_recipes('final_bn_exact, final_bn_no_affine')]
            trained = train_heads(dls, recipes, st, seed)
            for r in recipes:
                judged = evaluate_run(r, trained[r.training], {side: y[i] for side, i in zip(SPLITS, sides)}, st, seed)
                test, valid = judged['test'], judged['valid']
                yield dict(experiment='digits', value={'plain': 'small network', 'linear': 'one layer'}[head],
                           data='digits', recipe=r.name, seed=seed,
                           **minority_metrics(test.y, test.logits, valid.y, valid.logits))


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str,   # the folder with the plants
    out:str='when',     # folder for the runs
    seeds:int=5,        # runs per setting
    only:str='',        # names of experiments, with commas; empty: all
):
    "Run every experiment on Apple leaves and store the table"
    s = load_settings(seeds=seeds)
    d = read_data(plantvillage, majority='Apple___healthy', minority='Apple___*')
    tables = [pd.read_csv(STORED)] if STORED.exists() else []
    for name, settings in experiments(s).items():
        if only and name not in only.split(','): continue
        parts = []
        for k, (value, st, recipes) in enumerate(settings):
            runs = compare(d, st, 'paper', Execution(Path(out)/name/str(k)), recipes=recipes)
            parts.append(results(runs).assign(experiment=name, value=value))
        tables.append(pd.concat(parts))
    if not only or 'digits' in only: tables.append(pd.DataFrame(digits(s, seeds)))
    table = pd.concat(tables)
    keep = ['experiment', 'value', 'data', 'recipe', 'seed', *(m for m in METRICS if m in table)]
    table = table[keep].drop_duplicates(keep[:5], keep='last').round(5)
    table.to_csv(STORED, index=False)
    means = table.groupby(['experiment', 'value', 'recipe'], sort=False)[['f1_minority', 'auroc']].mean()
    print(means.round(3).to_string())
