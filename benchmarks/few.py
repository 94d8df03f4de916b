"""One or two rare images: what does the advice cost in the field, and do its intervals hold?

    python benchmarks/few.py PLANTVILLAGE TILES FIELD_SETS --out few

The sets and their division into known images and a field part are those of `advice.py`; of the rare images one or two
are known, beside 500 ordinary ones. They are compared as bn-compare does, each in turn left out, and trained on as
bn-fit does (about half a minute a case). The table goes to bn_imbalance/results/few.csv, a row per case, goal and
recipe:

value          cost per 1000 images in the field
best_threshold the same with the best threshold that the field allows, known in hindsight
auroc          in the field
recall         in the field; recall_low, recall_high: what the answer says of it
low, high      what the answer says of the cost; card_low, card_high: what the model's card says

That log odds are taken as they are (in units of the majority's spread, less .7) was chosen on final models of the same
sets, by their cost; `elsewhere` is the cost with the best of nine such rules on the nine other sets.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from dataclasses import replace
from itertools import product
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from scipy.special import logit
from sklearn.metrics import roc_auc_score
from tqdm import tqdm
from advice import GOALS, divided, sources
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.evaluate.answer import make_answer
from bn_imbalance.evaluate.decision import decide, evaluate_decision, oof_logits, out_of_fold, performance
from bn_imbalance.evaluate.leaderboard import rank_recipes
from bn_imbalance.evaluate.prevalence import outcome
from bn_imbalance.evaluate.thresholds import fit_log_odds
from bn_imbalance.metrics import best_threshold, margin, prevalence_weights
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.run import for_few, run_together, with_members
from bn_imbalance.training.sweep import Execution, compare

DRAWS, RARE, RULES = 3, (1, 2), list(product((.7, 1., 1.4), (-.4, -.7, -1.)))
ALL = get_recipes('plain, logistic_regression:C=0.01, knn, padim, final_bn+knn, blend')
COSTS = {k: g for k, g in GOALS.items() if g.cost_miss}


def in_field(known, field, recipes, s):
    "Margins in the field of recipes trained on all that is known"
    few = known.groupby('label').head(2)
    split = pd.concat([known.assign(split='train'), few.assign(split='valid'), field.assign(split='test')])
    return {r.name: margin(o.test.logits) for r, o in zip(recipes, run_together(split, recipes, s, 0))}

def blended(by, oofs, recipe, y):
    "As bn-fit makes it: the mean of the members' log odds, calibrated on held-out predictions"
    def log_odds(name):
        t = oofs[name]
        n = [t.group[t.y == c].nunique() for c in (0, 1)]
        scale, shift = fit_log_odds(t.y, margin(oof_logits(t)), n)
        return scale*by[name] + shift
    return np.mean([log_odds(r.name) for r in recipe.blend_of], axis=0) + logit(y.mean())

def cost(goal, y, flagged): return outcome(goal, goal.prevalence, flagged[y].mean(), flagged[~y].mean())['cost']

def judged(goal, oof, m, y):
    "A recipe in the field, with the decision that held-out predictions make"
    d, p = decide(oof, goal), goal.prevalence
    flagged = d.labels(np.c_[0*m, m]) == 1
    hindsight = best_threshold(y, m, prevalence_weights(y, p), goal.score)
    card = performance(evaluate_decision(oof, goal), goal, d.prevalences)['cost']
    return dict(value=cost(goal, y, flagged), best_threshold=cost(goal, y, m > hindsight), auroc=roc_auc_score(y, m),
                recall=flagged[y].mean(), alarms=flagged[~y].mean(), card_low=card[1], card_high=card[2])

def by_rules(goal, oof, m, y): # costs with other log odds than the package's
    t = margin(oof_logits(oof))[oof.y == 0]
    low, median, high = np.quantile(t, [.25, .5, .75])
    u, at = (m - median)*1.349/(high - low), logit(goal.prevalence) + np.log(goal.cost_miss/goal.cost_alarm)
    return {f'rule {a} {b}': cost(goal, y, a*u + b + at > 0) for a, b in RULES}

def case(out, read, which):
    "All rows of a case; None if there is none"
    name, rare, draw = which
    file = Path(out)/f'{name}-{draw}-{rare}.csv'
    if file.exists(): return pd.read_csv(file)
    data, s, rows = read_data(*read[name]), load_settings(seeds=4), []
    known, field = divided(data, rare, draw)
    data, y = replace(data, items=known, protocol='all'), (field.label == 'minority').to_numpy()
    recipes = for_few(ALL, data)
    trained = [r for r in with_members(recipes, s) if not r.blend_of]
    runs = compare(data, s, 'all', Execution(backend='serial', progress=False), recipes=recipes)
    splits = {k: draw_split(data, s, k, 'all') for k in range(s.seeds)}
    oofs = {n: out_of_fold([r for r in runs if r.recipe == n], splits) for n in {r.recipe for r in runs}}
    by = in_field(known, field, trained, s)
    for r in (r for r in recipes if r.blend_of): by[r.name] = blended(by, oofs, r, (known.label == 'minority'))
    for label, goal in COSTS.items():
        lb = rank_recipes(runs, goal)
        told = make_answer(lb, runs[0]).numbers['in_1000']
        for n in by:
            said, rare_ones = told[n], 1000*goal.prevalence
            rows.append(dict(data=name, draw=draw, rare=rare, goal=label, recipe=n, **judged(goal, oofs[n], by[n], y),
                             low=said['cost'][1], high=said['cost'][2], recall_low=said['found'][1]/rare_ones,
                             recall_high=said['found'][2]/rare_ones, **by_rules(goal, oofs[n], by[n], y)))
    write_atomic(file, (t := pd.DataFrame(rows)).to_csv(index=False))
    return t


@call_parse
def main(
    plantvillage:str, # folder of PlantVillage's classes
    tiles:str,        # folder of the magnetic tiles' classes
    field_sets:str,   # folder of folders with an items.csv
    out:str='few'     # folder for what is done
):
    "All cases; see above"
    read = {k: v for k, v in sources(plantvillage, tiles, field_sets).items() if k != 'scab'}
    todo = list(product(read, RARE, range(DRAWS)))
    t = pd.concat([case(out, read, o) for o in tqdm(todo)])
    rules = [c for c in t if c.startswith('rule')]
    def elsewhere(g): # the rule that is cheapest on the other sets, for the same number, goal and recipe
        rest = t[(t.data != g.data.iloc[0]) & (t.rare == g.rare.iloc[0]) & (t.goal == g.goal.iloc[0]) &
                 (t.recipe == g.recipe.iloc[0])]
        return g.assign(elsewhere=g[rest[rules].mean().idxmin()])
    parts = [elsewhere(g) for _, g in t.groupby(['data', 'rare', 'goal', 'recipe'], sort=False)]
    write_atomic(stored_results()/'few.csv', pd.concat(parts).drop(columns=rules).round(4).to_csv(index=False))
