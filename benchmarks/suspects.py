"""Are planted label errors found? On leaves, magnetic tiles and solar cells, against chance and against cleanlab.

    python benchmarks/suspects.py [--seeds 20] [--only Apple]

From each data set 300 ordinary images and 10 or 30 rare ones are drawn, groups as they are known. Then some swap their
labels: as many ordinary ones are called rare as rare ones are hidden among the ordinary. Writes
bn_imbalance/results/suspects.csv, a line per data set, number of errors and method, over all seeds. With the package
cleanlab (pip install cleanlab) its list is made twice: from our left-out scores, and as it comes, with scikit-learn's
logistic regression on five folds that know no groups. Takes about five minutes on one core.
"""
import warnings
import numpy as np, pandas as pd, torch
from fastcore.script import call_parse
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from bn_imbalance.recipes.linear import row_space, standardized
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.evaluate.thresholds import calibrate
from bn_imbalance.data.items import read_data
from bn_imbalance.training.features import backbone_features
from bn_imbalance.metrics import mean_interval
from bn_imbalance.data.sources import locate_fetched
from bn_imbalance.audit.subjects import whitened
from bn_imbalance.audit.labels import DOUBT, LeaveOut, influence, probability_of_label

STORED = stored_results()/'suspects.csv'
VILLAGE = locate_fetched('plantvillage')
SETS = {'Apple': (VILLAGE, 'Apple___*', 'Apple___healthy'), 'Pepper': (VILLAGE, 'Pepper*', 'Pepper,_bell___healthy'),
        'magnetic tiles': (locate_fetched('magnetic_tile'), None, 'MT_Free'), 'solar cells': ('elpv', None, None)}
ORDINARY = 300
PLANTED = {'10 rare, none': (10, 0), '10 rare, 2 and 2': (10, 2), '30 rare, none': (30, 0), '30 rare, 3 and 3': (30, 3),
           '30 rare, 9 and 9': (30, 9)} # rare by their labels, wrong of these


def drawn(items, n, wrong, seed):
    "Rows, and for each whether it is rare and whether it is called so"
    rng, rare = np.random.default_rng(seed), (items.label == 'minority').to_numpy()
    r, o = (rng.permutation(np.flatnonzero(k))[:m] for k, m in ((rare, n), (~rare, ORDINARY)))
    called = np.r_[np.ones(n, int), np.zeros(ORDINARY, int)]
    called[:wrong], called[n:n + wrong] = 0, 1
    return np.r_[r, o], np.r_[np.ones(n, int), np.zeros(ORDINARY, int)], called


def by_folds(z, y, group):
    "Left-out margins of balanced logistic regression, ten folds, groups kept whole"
    model, folds = LogisticRegression(C=1e-3, class_weight='balanced'), GroupKFold(10, shuffle=True, random_state=0)
    return cross_val_predict(model, z, y, groups=group, cv=folds, method='decision_function')


def by_neighbors(x, y, group):
    "How much nearer are the two nearest rare images than the two nearest ordinary ones? Of other subjects"
    z = whitened(x)
    alike = np.where(group[:, None] == group, -2, z @ z.T)
    near = [np.sort(np.where(y == c, alike, -2), axis=1)[:, -2:].mean(1) for c in (0, 1)]
    return near[1] - near[0]


def without_each(lo):
    "Doubt in each image: minus its influence for the rare, the left-out margin for the ordinary"
    doubt = lo.scores[:, 1] - lo.scores[:, 0]
    for i in np.flatnonzero(lo.y == 1): doubt[i] = -influence(lo, i)
    return doubt


def with_cleanlab(z, y, lo, units):
    "name -> doubt, what is listed; nothing if cleanlab is not there"
    try:
        from cleanlab.classification import CleanLearning
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError: return {}
    scale, shift = calibrate(y, lo.scores, np.bincount(y)/len(y), units)
    p = softmax(scale*lo.scores + np.array(shift), axis=1)
    own = CleanLearning(seed=0).find_label_issues(z, y)
    return {'cleanlab on ours': (-get_label_quality_scores(y, p), find_label_issues(y, p)),
            'cleanlab': (-own.label_quality.to_numpy(), own.is_label_issue.to_numpy())}


def judged(x, y, items, planted):
    "name -> doubt in each label, and what is listed (None: it makes no list); probabilities of ours"
    lo, sign = LeaveOut(x, y, items.group), np.where(y == 1, -1, 1)
    p, units = probability_of_label(lo.scores, y), items.group.groupby(y).nunique().to_numpy()
    z = row_space(standardized(torch.from_numpy(x))[0])[0].numpy() # the same to a logistic regression, and faster
    out = {'ours': (1 - p, p < 1 - DOUBT), **with_cleanlab(z, y, lo, units)}
    if planted:
        out |= {'logistic regression': (sign*by_folds(z, y, items.group), None),
                'neighbors': (sign*by_neighbors(x, y, items.group.to_numpy()), None)}
        if (y == 1).sum() <= 10: out['influence'] = without_each(lo), None
    return out, p


def told(doubt, listed, p, wrong, y):
    "What is counted, for images called rare and for those called ordinary"
    out = {}
    for name, side in ('rare', y == 1), ('ordinary', y == 0):
        out[f'errors_{name}'] = (wrong & side).sum()
        if (wrong & side).any(): out[f'ap_{name}'] = average_precision_score(wrong[side], doubt[side])
        if listed is not None:
            out |= {f'listed_{name}': (listed & side).sum(), f'found_{name}': (listed & side & wrong).sum()}
    return out | dict(said_right=p[listed].sum() if listed is not None else np.nan) # by our probabilities


def summed(rows):
    "Counts over all seeds, means of average precision with their intervals"
    df = pd.DataFrame(rows)
    out = {k: df[k].sum(min_count=1) for k in df if not k.startswith('ap_')} | {'seeds': len(df)}
    for k in [k for k in df if k.startswith('ap_')]:
        out |= dict(zip((k, f'{k}_low', f'{k}_high'), mean_interval(df[k])))
    return out


@call_parse
def main(
    seeds:int=20, # draws
    only:str=None # one data set; the others stay as they are stored
):
    warnings.filterwarnings('ignore')
    rows = pd.read_csv(STORED).query('data != @only').to_dict('records') if only else []
    for name in [only] if only else SETS:
        data = read_data(*SETS[name])
        x = backbone_features(data.items, load_settings())[data.items.digest].numpy()
        for planted, (n, wrong) in PLANTED.items():
            each = {}
            for seed in range(seeds):
                idx, truth, y = drawn(data.items, n, wrong, seed)
                items = data.items.iloc[idx].reset_index(drop=True)
                methods, p = judged(x[idx], y, items, wrong)
                for k, (doubt, listed) in methods.items():
                    each.setdefault(k, []).append(told(doubt, listed, p, truth != y, y))
            rows += [dict(data=name, planted=planted, method=k) | summed(o) for k, o in each.items()]
            print(pd.DataFrame(rows[-len(each):]).round(3).to_string(), flush=True)
            pd.DataFrame(rows).round(4).to_csv(STORED, index=False)
