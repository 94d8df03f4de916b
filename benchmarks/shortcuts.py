"""What files give away of the rare class without looking, on real images; the parts that CleanVision has, side by side.

usage: pip install cleanvision; python benchmarks/shortcuts.py   (PlantVillage, tiles and elpv-dataset at hand)"""
import time
import pandas as pd
from cleanvision import Imagelab
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from bn_imbalance.audit.checks import image_properties
from bn_imbalance.data.copies import hash_bits, near_pairs
from bn_imbalance.data.images import check_images
from bn_imbalance.core import stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.data.sources import locate_fetched
from bn_imbalance.audit.shortcuts import clustered_auroc, shortcut_table

VILLAGE = locate_fetched('plantvillage')
SETS = {'magnetic tiles': (locate_fetched('magnetic_tile'), 'MT_Free', None), 'solar cells': ('elpv', None, None),
        'Apple': (VILLAGE, 'Apple___healthy', 'Apple___*'), 'Pepper': (VILLAGE, 'Pepper,_bell___healthy', 'Pepper*')}


def told(auroc, low, high): return f'{auroc:.2f} [{low:.2f}, {high:.2f}]'


def cleanvision(items, rare, groups):
    "Its scores as one family of properties, its pairs, its seconds"
    start = time.process_time()
    lab = Imagelab(filepaths=list(items.path))
    lab.find_issues(n_jobs=1, verbose=False)
    seconds = time.process_time() - start
    scores = lab.issues.filter(like='_score').reindex(items.path)
    scores = scores.drop(columns=[c for c in scores if 'duplicate' in c])
    forest = RandomForestClassifier(40, min_samples_leaf=3, random_state=0,
                                    class_weight='balanced_subsample')
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(rare, rare, groups))
    p = cross_val_predict(forest, scores.to_numpy(), rare, cv=folds, method='predict_proba')[:, 1]
    sets = [s for kind in ('exact_duplicates', 'near_duplicates') for s in lab.info[kind]['sets']]
    return told(*clustered_auroc(p, rare, groups)), {frozenset(o) for s in sets for o in pairs(s)}, seconds


def pairs(paths): return [(a, b) for i, a in enumerate(paths) for b in paths[:i]]


if __name__ == '__main__':
    out, families, beside = stored_results()/'subjects', [], []
    for name, (place, majority, minority) in SETS.items():
        data = read_data(place, minority, majority)
        items, rare = data.items, (data.items.label == 'minority').to_numpy()
        groups = pd.factorize(items.group)[0]
        start = time.process_time()
        looks, _ = image_properties(items.path)
        near = near_pairs(hash_bits(check_images(items.path).hash))
        ours, paths = time.process_time() - start, items.path.to_numpy()
        ours_pairs = {frozenset((paths[i], paths[j])) for i, j, _ in near}
        table = shortcut_table(looks, rare, items.group)
        for family, g in table.groupby('family', sort=False):
            best = g.iloc[1:].sort_values('AUROC').iloc[-1]
            families.append({'data': name, 'family': family, 'AUROC': told(*g.iloc[0, 2:]),
                             'best alone': best.property, 'its AUROC': told(*best.iloc[2:])})
        auroc, theirs_pairs, seconds = cleanvision(items, rare, groups)
        beside.append({'data': name, 'images': len(items), 'pairs ours': len(ours_pairs),
                       'pairs CleanVision': len(theirs_pairs), 'pairs of both': len(ours_pairs & theirs_pairs),
                       'AUROC of its scores': auroc, 'seconds ours': round(ours, 1),
                       'seconds CleanVision': round(seconds, 1)})
        print(beside[-1], flush=True)
    pd.DataFrame(families).to_csv(out/'shortcuts.csv', index=False)
    pd.DataFrame(beside).to_csv(out/'cleanvision.csv', index=False)
