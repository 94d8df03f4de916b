"""What does it change to add one missed image? Thirty missed defects of tiles, one by one.

    python benchmarks/adding.py TILES --out adding

A model is made of 500 tiles without a defect and 20 with one, for 2 % and 20:1. Of the defects on other tiles that it
misses thirty are added, each alone, as `bn-fit MODEL --add` does. The table goes to bn_imbalance/results/adding.csv, a
row per image: is it found now, and of its six likes how many; recall for other defects of its kind, and false positive
rate for tiles without one, before and after, on tiles that none of the models has seen. A stopped run goes on.
Needs the extra bodies.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from tqdm import tqdm
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.adding import add_examples
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import predict_images
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.training.sweep import Execution

GOAL, FREE, DEFECTS, ADDED = Goal(prevalence=.02, cost_miss=20, cost_alarm=1), 500, 20, 30


def shuffled(t, rng): return t.iloc[rng.permutation(len(t))]


def found(model, field): # which of the field's images are called rare
    t = predict_images(model, list(field.path)).set_index('path').loc[list(map(str, field.path))]
    return np.isin(t.label, [model.classes[c] for c in model.rare])


@call_parse(pos=['tiles'])
def main(
    tiles:str,         # folder of the magnetic tiles
    out:str='adding',  # folder for the models
):
    "One missed defect at a time"
    out, rng = Path(out), np.random.default_rng(0)
    t = read_data(tiles, 'MT_*', 'MT_Free').items
    subjects = rng.permutation(t.group.unique())
    known, field = (t[t.group.isin(o)] for o in (subjects[:len(subjects)*3//5], subjects[len(subjects)*3//5:]))
    known = pd.concat([shuffled(known[known.label == k], rng)[:n]
                       for k, n in (('majority', FREE), ('minority', DEFECTS))])
    out.mkdir(parents=True, exist_ok=True)
    known.assign(label=known.label.map(dict(majority='free', minority='defect')))[['path', 'label', 'group']].to_csv(
        out/'known.csv', index=False)
    s, first = load_settings(seeds=3), out/'first'
    if not first.exists():
        fit(read_data(out/'known.csv', 'defect'), 'blend', s, GOAL, Execution(first, progress=False))
    hits, sick = found(load_model(first), field), field.label == 'minority'
    missed = shuffled(field[sick & ~hits], rng)[:ADDED]
    print(f'{hits[sick].mean():.2f} of {sick.sum()} defects found, {hits[~sick].mean():.3f} of {(~sick).sum()} falsely')
    rows = []
    for i, (path, kind, tile) in enumerate(tqdm(missed[['path', 'class', 'group']].to_numpy())):
        keep = out/f'{i}.csv'
        if not keep.exists():
            a = add_examples(first, [(path, 'defect')], execution=Execution(out/f'model{i}', progress=False))
            r, now = a.rows.iloc[0], found(a.model, field)
            like = sick & (field['class'] == kind) & (field.group != tile)
            row = dict(image=Path(path).name, kind=kind, found=r.found_after, before=r.before, after=r.after,
                       likes_before=r.likes_before, likes_after=r.likes_after, same_kind=like.sum())
            for name, of in (('recall', like), ('recall_all', sick & (field.group != tile)), ('alarms', ~sick)):
                row |= {f'{name}_before': hits[of].mean(), f'{name}_after': now[of].mean()}
            write_atomic(keep, pd.DataFrame([row]).to_csv(index=False))
        rows.append(pd.read_csv(keep))
    t = pd.concat(rows, ignore_index=True)
    write_atomic(stored_results()/'adding.csv', t.round(4).to_csv(index=False))
    print(t.drop(columns=['image', 'kind']).mean().round(3).to_string())
    print('recall of its kind falls:', (t.recall_after < t.recall_before).mean().round(2))
