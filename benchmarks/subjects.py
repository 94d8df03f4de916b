"""Subjects behind images: are forgotten groups proposed again, and what are ten images of three tiles worth?

usage: python benchmarks/subjects.py   (PlantVillage and magnetic tiles at hand; some minutes)"""
import numpy as np, pandas as pd
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from bn_imbalance.audit.checks import image_properties
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.training.features import backbone_features
from bn_imbalance.data.sources import locate_fetched
from bn_imbalance.audit.subjects import effective_number, propose_groups

DRAWS = 40
VILLAGE = locate_fetched('plantvillage')
SETS = {'magnetic tiles': (locate_fetched('magnetic_tile'), 'MT_Free', None),
        'Apple': (VILLAGE, 'Apple___healthy', 'Apple___*'), 'Pepper': (VILLAGE, 'Pepper,_bell___healthy', 'Pepper*'),
        'drawn leaves': ('leaves', None, None)}


def pairs(groups):
    n = pd.Series(groups).value_counts().to_numpy()
    return (n*(n - 1)//2).sum()


def agreement(true, proposed):
    both = pairs([f'{a}|{b}' for a, b in zip(true, proposed)])
    return {'images': len(true), 'subjects': len(set(true)), 'proposed': len(set(proposed)),
            'adjusted Rand': adjusted_rand_score(true, proposed),
            'precision': both/pairs(proposed) if pairs(proposed) else np.nan,
            'recall': both/pairs(true) if pairs(true) else np.nan}


def proposed(data, looks, network):
    items = data.items.assign(group=data.items.path, label=data.items['class'])
    found = propose_groups(items, looks, network)
    return found.groups if found else np.arange(len(items))


def ten_images(items, x, rare, seed):
    "AUROC with ten images of three tiles, with one of each of ten and of five, on the same other tiles; Kish's number"
    rng, group = np.random.default_rng(seed), items.group.to_numpy()
    y = (items.label == 'minority' if rare == 'any defect' else items['class'] == rare).to_numpy()
    free, tiles = (items.label == 'majority').to_numpy(), rng.permutation(np.unique(group[y]))
    half = np.isin(group, rng.permutation(np.unique(group[free]))[::2])
    test = (free & ~half) | (y & ~np.isin(group, tiles[:10]))
    def images(tiles): return [rng.permutation(np.flatnonzero(group == g)) for g in tiles]
    while len(np.concatenate(few := images(rng.permutation(tiles[:10])[:3]))) < 10: pass
    out, first = {}, np.array([o[0] for o in few]) # each of the three is there
    ten = {3: np.concatenate([first, rng.permutation(np.concatenate([o[1:] for o in few]))])[:10],
           10: np.array([o[0] for o in images(tiles[:10])]), 5: np.array([o[0] for o in images(tiles[:5])])}
    for n, mine in ten.items():
        rows = np.concatenate([np.flatnonzero(free & half), mine])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=.01, class_weight='balanced', max_iter=2000))
        model.fit(x[rows], y[rows])
        out[n] = roc_auc_score(y[test], model.decision_function(x[test]))
    return {**out, 'worth': effective_number(x[ten[3]], group[ten[3]])[1]}


def interval(a):
    m, h = a.mean(), t.ppf(.975, len(a) - 1)*a.std(ddof=1)/len(a)**.5
    return f'{m:.3f} [{m - h:.3f}, {m + h:.3f}]'


if __name__ == '__main__':
    out, rows = stored_results()/'subjects', []
    out.mkdir(exist_ok=True)
    for name, (place, majority, minority) in SETS.items():
        data = read_data(place, minority, majority)
        x = backbone_features(data.items, load_settings())[data.items.digest].numpy()
        for looks, values in ('features', x), ('thumbnails', image_properties(data.items.path)[1]):
            groups = proposed(data, values, looks == 'features')
            rows.append({'data': name, 'looks': looks, **agreement(data.items.group, groups)})
            print(rows[-1], flush=True)
        if name == 'magnetic tiles': tiles, features = data.items, x
    pd.DataFrame(rows).round(3).to_csv(out/'proposed.csv', index=False)
    rows = []
    for rare in 'any defect', 'MT_Blowhole', 'MT_Break', 'MT_Uneven': # of the others there are too few tiles
        df = pd.DataFrame([ten_images(tiles, features, rare, seed) for seed in range(DRAWS)])
        rows.append({'rare class': rare, 'ten of ten tiles': interval(df[10]), 'ten of three tiles': interval(df[3]),
                     'difference': interval(df[10] - df[3]), 'five of five tiles': interval(df[5]),
                     'ten of three are worth': round(df.worth.mean(), 1)})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).assign(draws=DRAWS).to_csv(out/'ten_images.csv', index=False)
