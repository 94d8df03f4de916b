"""Is a new kind said to be unlike what was trained on? One kind of tile defect or apple disease left out at a time.

    python benchmarks/unlike.py TILES LEAVES --out unlike

A model (`bn-fit --multiclass`, 2 % and 20:1) knows all classes of a set but one, and two thirds of their subjects. It
judges the images of the other third, and all those of the class it does not know; three times, until every subject was
left out once. The table goes to bn_imbalance/results/unlike.csv, a row per class: how many images, are they recognised,
called unlike, and would they pass in silence otherwise (called free or healthy, not for review). A stopped run goes on.
Needs the extra bodies.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from sklearn.metrics import roc_auc_score
from tqdm import tqdm
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.predict import predict_images
from bn_imbalance.evaluate.unlike import UNLIKE
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.training.sweep import Execution

GOAL = Goal(prevalence=.02, cost_miss=20, cost_alarm=1)


def judged(items, frequent, left_out, third, folder): # a row per class; fitted to some, asked about the others
    mine = (items['class'] != left_out).to_numpy()
    out = items.group.isin(third).to_numpy()
    folder.mkdir(parents=True, exist_ok=True)
    items[mine & ~out].assign(label=items['class'])[['path', 'label', 'group']].to_csv(folder/'known.csv', index=False)
    data = read_data(folder/'known.csv', majority=frequent, multiclass=True)
    model = fit(data, None, load_settings(seeds=5), GOAL, Execution(progress=False))
    asked = items[~mine | out]
    t = predict_images(model, list(asked.path)).assign(kind=asked['class'].to_numpy())
    t['typicality'] = t.typicality if 'typicality' in t else np.nan
    new, rare = t.kind == left_out, (t.kind != frequent) & t.typicality.notna()
    t = t.assign(new=new, judged=t.typicality.notna(), right=t.label == t.kind, unlike=t.typicality <= UNLIKE)
    t['silent'] = (t.label == frequent) & (t.review == 'no')
    t['right_unlike'], t['silent_unlike'] = t.right & t.unlike, t.silent & t.unlike
    sums = ['judged', 'right', 'unlike', 'right_unlike', 'silent', 'silent_unlike']
    rows = t.groupby(['kind', 'new']).agg(images=('path', 'size'), typicality=('typicality', 'median'),
                                          **{k: (k, 'sum') for k in sums}).reset_index()
    rows['auroc'] = roc_auc_score(new[rare], -t.typicality[rare]) if new[rare].nunique() > 1 else np.nan # of known ones
    return rows


@call_parse(pos=['tiles', 'leaves'])
def main(
    tiles:str,         # folder of the magnetic tiles
    leaves:str,        # folder of PlantVillage
    out:str='unlike',  # folder for what is finished
):
    "One kind left out at a time"
    rows, sets = [], [('tiles', tiles, 'MT_*', 'MT_Free'), ('apple', leaves, 'Apple*', 'Apple___healthy')]
    for name, folder, pattern, frequent in sets:
        items = read_data(folder, pattern, frequent).items
        subjects = np.random.default_rng(0).permutation(items.group.unique())
        kinds = sorted(set(items['class']) - {frequent})
        for left_out, k in tqdm([(c, k) for c in kinds for k in range(3)], desc=name):
            keep = Path(out)/f'{name}-{left_out}-{k}.csv'
            if not keep.exists():
                t = judged(items, frequent, left_out, subjects[k::3], Path(out)/'data')
                write_atomic(keep, t.assign(data=name, left_out=left_out, third=k).to_csv(index=False))
            rows.append(pd.read_csv(keep))
    t = pd.concat(rows, ignore_index=True).groupby(['data', 'left_out', 'kind', 'new'], as_index=False)
    mean = t[['typicality', 'auroc']].mean()
    t = t[['images', 'judged', 'right', 'unlike', 'right_unlike', 'silent', 'silent_unlike']].sum().merge(mean)
    write_atomic(stored_results()/'unlike.csv', t.round(4).to_csv(index=False))
    print(t.groupby(['data', 'new']).sum(numeric_only=True).to_string())
