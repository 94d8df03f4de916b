"""How sure may a member of the blend be? Costs in the field of `advice.py`, for several limits of its log odds.

    python benchmarks/limits.py --out advice

Takes the margins that `advice.py` has left in --out (three runs a case); trains nothing. The table goes to
bn_imbalance/results/limits.csv, a row per image set, number of known rare images, goal and limit (0: none), means over
the draws: `value` in the field, as in advice.csv, and `auroc`. `elsewhere`, among the rows of limit 0, is the value
with the limit that costs least on the nine other sets, over all numbers and both prices.
"""
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from sklearn.metrics import roc_auc_score
from tqdm import tqdm
from advice import BLEND, GOALS, Case, worth
from bn_imbalance.core import stored_results, write_atomic
from bn_imbalance.evaluate.decision import bayes_threshold
from bn_imbalance.evaluate.thresholds import fit_log_odds, log_odds, soft_clip
from bn_imbalance.metrics import margin

LIMITS = 0, 1, 2, 3, 4, 6, 10
KEY = ['data', 'rare', 'goal', 'limit']


def rows_of(folder):
    "The blend of a case at each limit"
    case, known, field, (name, draw, rare) = Case(folder, 3), [], [], folder.name.rsplit('-', 2)
    for o in BLEND.blend_of:
        runs, t = [r for r in case.runs if r.recipe == o.name], case.oof[o.name]
        n = [t.group[t.y == c].nunique() for c in (0, 1)]
        scale, shift = fit_log_odds(t.y, t.z1, n)
        field.append(scale*case.fm[o.name] + shift)
        known.append(np.concatenate([a*margin(side.logits) + b for r, (a, b) in zip(runs, log_odds(runs))
                                     for side in (r.valid, r.test)]))
    for limit in LIMITS:
        m, f = (np.mean([soft_clip(z, limit) for z in o], axis=0) for o in (known, field))
        fit = fit_log_odds(t.y, m, n)
        for text, goal in GOALS.items():
            threshold = bayes_threshold(t.y == 1, m, goal, goal.prevalence, fit)
            yield dict(zip(KEY, (name, int(rare), text, limit)), value=worth(goal, case.fy, f, threshold),
                       auroc=roc_auc_score(case.fy, f))


@call_parse
def main(
    out:str='advice' # folder of the margins
):
    "The table"
    folders = sorted(p.parent for p in Path(out).glob('*/final.npz'))
    t = pd.DataFrame([row for p in tqdm(folders) for row in rows_of(p)]).groupby(KEY).mean().reset_index()
    yard = t[(t.data != 'scab') & (t.rare < 230) & t.goal.str.contains(':')]
    costs = yard.set_index(KEY).value.unstack('limit')
    relative = np.log(costs).sub(np.log(costs[0]), axis=0)
    for name in yard.data.unique():
        best = relative.drop(name, level='data').mean().idxmin()
        at = t[(t.data == name) & (t.limit == best)].set_index(KEY[:3]).value
        mine = (t.data == name) & (t.limit == 0)
        t.loc[mine, 'elsewhere'] = at.reindex(pd.MultiIndex.from_frame(t.loc[mine, KEY[:3]])).to_numpy()
    write_atomic(stored_results()/'limits.csv', t.round(4).to_csv(index=False))
    print(costs.groupby(['goal', 'rare']).mean().round(1), relative.mean().round(3), sep='\n')
