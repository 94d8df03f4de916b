"""What does it cost in the field to follow the advice? Ten image sets, with few rare images known.

    python benchmarks/advice.py PLANTVILLAGE TILES FIELD_SETS --out advice

Each set is divided by subjects into images that are known and a field part. Of the known ones 500 of the majority and
12, 30 or 100 (--rare) of the minority are taken, compared as bn-compare does, and each recipe is trained on all of
them as bn-fit does. Then the field part is predicted. Margins go to sub-folders of --out, one file for each training,
where a stopped run goes on; the table goes to bn_imbalance/results/advice.csv, a row per case, goal and recipe:

value          in the field: cost per 1000 images, F1, or precision at the recall
best_threshold the same with the best threshold that the field allows, known in hindsight (costs only)
half_threshold with one chosen on half of the field's subjects, judged on the others; mean of ten halves, both ways
auroc          in the field
promised, low, high: what the model's card says of the value (some recipes only)
holds_...      does the card's 95 % interval hold what comes in the field?

The recipes `recommended` (what `bn-fit --compare` makes) and `first` (the first of the leaderboard) are choices among
the others. FIELD_SETS holds folders with an items.csv: path, label (rare or ordinary), group.
Needs the extras data and bodies. A training takes about 12 seconds on one core, with features stored.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from sklearn.metrics import roc_auc_score
from tqdm import tqdm
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split, stratified_folds
from bn_imbalance.evaluate.decision import decide, evaluate_decision, performance
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import rank_recipes
from bn_imbalance.evaluate.prevalence import outcome
from bn_imbalance.evaluate.runs import Predictions, Run
from bn_imbalance.evaluate.thresholds import MAX_LOG_ODDS, fit_log_odds, soft_clip
from bn_imbalance.metrics import best_threshold, margin, prevalence_weights
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.run import blend_runs, run_together

MAJORITY, DRAWS = 500, 3
RECIPES = [r for r in get_recipes('usual, logistic_regression:C=0.01, final_bn+padim, lda, ridge, padim')
           if not r.adjust_logits and not r.blend_of] # moved thresholds are thresholds of our own here
BLEND, = get_recipes('blend')
PROMISED = 'plain', 'weighted', 'final_bn', 'final_bn+knn', 'logistic_regression:C=0.01', 'blend'
GOALS = {'2 %, 20:1': Goal(prevalence=.02, cost_miss=20, cost_alarm=1),
         '1 %, 100:1': Goal(prevalence=.01, cost_miss=100, cost_alarm=1),
         'F1 at 10 %': Goal(prevalence=.1), 'recall .95 at 2 %': Goal(prevalence=.02, min_recall=.95)}


def sources(plantvillage, tiles, field_sets):
    "Name -> arguments of `read_data`"
    plants = {p.split(',')[0].lower(): (plantvillage, f'{p}___*', f'{p}___healthy')
              for p in ('Apple', 'Pepper,_bell', 'Tomato')}
    field = {p.parent.name: (p, 'rare', 'ordinary') for p in sorted(Path(field_sets).glob('*/items.csv'))}
    scab = plantvillage, 'Apple___Apple_scab', 'Apple___Black_rot,Apple___Cedar_apple_rust'
    return plants | field | dict(leaves=('leaves',), elpv=('elpv',), tiles=(tiles, 'MT_*', 'MT_Free'), scab=scab)


def divided(data, rare, draw):
    "Known images and the field part (all subjects apart); None if there are too few rare ones"
    fold, rng = stratified_folds(data.items, 5, draw), np.random.default_rng([draw, 7])
    known, field = data.items[fold >= 2], data.items[fold < 2]
    def some(label, n):
        t = known[known.label == label]
        return t.iloc[rng.permutation(len(t))[:n]]
    if (known.label == 'minority').sum() < rare: return None
    return pd.concat([some('majority', MAJORITY), some('minority', rare)]).sort_index().reset_index(drop=True), field


def train(known, data, field, part):
    "Margins of one training: of all known images (`final`), or of the split of a seed"
    s = load_settings()
    if part == 'final':
        few = known.groupby('label').head(2)
        split = pd.concat([known.assign(split='train'), few.assign(split='valid'), field.assign(split='test')])
        runs = run_together(split, RECIPES, s, 0)
        return dict(names=[r.name for r in RECIPES], y=known.label == 'minority', group=known.group.factorize()[0],
                    fy=field.label == 'minority', fgroup=field.group.factorize()[0],
                    fm=np.stack([margin(r.test.logits) for r in runs], 1).astype('f4'))
    split = draw_split(replace(data, items=known), s, int(part), 'all')
    runs, at = run_together(split, RECIPES, s, int(part)), dict(zip(known.digest, known.index))
    sides = [split[split.split == o] for o in ('valid', 'test')]
    m = [np.stack([margin(getattr(r, o).logits) for r in runs], 1) for o in ('valid', 'test')]
    return dict(i=np.concatenate([t.digest.map(at) for t in sides]), test=np.repeat([False, True], list(map(len, m))),
                m=np.concatenate(m).astype('f4'))


def collect(out, read, runs, case):
    "Do what is missing of a case; its folder, or None"
    name, rare, draw = case
    folder, parts = Path(out)/f'{name}-{draw}-{rare}', ['final', *map(str, range(runs))]
    todo = [p for p in parts if not (folder/f'{p}.npz').exists()]
    if todo:
        data = read_data(*read[name])
        both = divided(data, rare, draw)
        if both is None: return None
        folder.mkdir(parents=True, exist_ok=True)
        for p in todo:
            np.savez(folder/f'.{p}.npz', **train(both[0], data, both[1], p))
            (folder/f'.{p}.npz').rename(folder/f'{p}.npz')
    return folder


class Case:
    "A case as the package's own functions take it: runs, held-out predictions, margins in the field"
    def __init__(self, folder, n):
        final, self.runs, rows = np.load(folder/'final.npz'), [], []
        names, y, group = final['names'].tolist(), final['y'].astype(int), final['group']
        self.fgroup = final['fgroup']
        self.fy, self.fm = final['fy'].astype(int), dict(zip(names, final['fm'].T.astype(float)))
        about = dict(name=folder.name, protocol='all', minority=['rare'], majority=['ordinary'], source='',
                     fingerprint='')
        settings = dict(head='fastai', arch='tf_efficientnet_lite0', epochs=10, test_fifths=1, valid_fifths=1)
        for seed, part in ((k, np.load(folder/f'{k}.npz')) for k in range(n)):
            i, test = part['i'], part['test']
            for name, m in zip(names, part['m'].T.astype(float)):
                if name not in self.fm: continue
                config = dict(recipe=dict(name=name, final_bn=None), seed=seed, data=about, settings=settings)
                valid, tested = (Predictions(y[i[o]], np.c_[0*m[o], m[o]], group[i[o]]) for o in (~test, test))
                self.runs.append(Run(config, [1], valid, tested, versions={}))
                rows += [pd.DataFrame(dict(recipe=name, seed=seed, split=split, y=o.y, group=o.group, digest=i[t],
                                           z0=0., z1=margin(o.logits)))
                         for split, o, t in (('valid', valid, ~test), ('test', tested, test))]
        self.oof = {k: t.reset_index(drop=True) for k, t in pd.concat(rows).groupby('recipe')}
        self.add_blend(n, about, settings)

    def add_blend(self, n, about, settings):
        made = blend_runs(BLEND, self.runs, [dict(recipe=dict(name='blend', final_bn=None), seed=k, data=about,
                                                  settings=settings) for k in range(n)])
        self.runs += made
        t = self.oof[BLEND.blend_of[0].name].copy()
        z = {(r.seed, split): margin(getattr(r, split).logits) for r in made for split in ('valid', 'test')}
        t['z1'] = np.concatenate([z[k] for k in dict.fromkeys(zip(t.seed, t.split))])
        self.oof['blend'], each = t.assign(recipe='blend'), []
        for name in (r.name for r in BLEND.blend_of):
            o = self.oof[name]
            scale, shift = fit_log_odds(o.y, o.z1, [o.group[o.y == c].nunique() for c in (0, 1)])
            each.append(soft_clip(scale*self.fm[name] + shift, MAX_LOG_ODDS))
        p = np.mean([r.test.y.mean() for r in made])
        self.fm['blend'] = np.mean(each, axis=0) + np.log(p/(1 - p))


def worth(goal, y, m, threshold):
    "What a threshold gives on the field part"
    if goal.min_recall: threshold = np.sort(m[y == 1])[::-1][int(np.ceil(goal.min_recall*y.sum() - 1e-9)) - 1] - 1e-9
    rates = ((m[y == c] > threshold).mean() for c in (1, 0))
    name = 'precision' if goal.min_recall else goal.metric.name
    return outcome(goal, goal.prevalence, *rates)[name]


def by_halves(goal, y, m, group):
    "What a threshold gives that was chosen with labels from the field, on other subjects than those it is judged on"
    out = []
    for k in range(10):
        here = (np.random.default_rng(k).random(group.max() + 1) < .5)[group]
        for a, b in (here, ~here), (~here, here):
            if not 0 < y[a].sum() < len(y[a]) or not 0 < y[b].sum() < len(y[b]): continue
            t = best_threshold(y[a], m[a], prevalence_weights(y[a], goal.prevalence), goal.score)
            out.append(worth(goal, y[b], m[b], t))
    return np.mean(out)


def rows_of(folder, n):
    "All rows of a case"
    case, (name, draw, rare) = Case(folder, n), folder.name.rsplit('-', 2)
    about, out = dict(data=name, rare=int(rare), draw=int(draw), runs=n), []
    for text, goal in GOALS.items():
        lb, rows = rank_recipes(case.runs, goal), {}
        for recipe, m in case.fm.items():
            w, d = prevalence_weights(case.fy, goal.prevalence), decide(case.oof[recipe], goal)
            row = dict(value=worth(goal, case.fy, m, d.threshold), auroc=roc_auc_score(case.fy, m))
            if goal.cost_miss:
                row['best_threshold'] = worth(goal, case.fy, m, best_threshold(case.fy, m, w, goal.score))
                if recipe in PROMISED: row['half_threshold'] = by_halves(goal, case.fy, m, case.fgroup)
            if recipe in PROMISED and goal.metric.name in ('cost', 'f1'):
                said = performance(evaluate_decision(case.oof[recipe], goal), goal, d.prevalences)
                row |= dict(zip(('promised', 'low', 'high'), said[goal.metric.name]))
                recall, alarms = ((m[case.fy == c] > d.threshold).mean() for c in (1, 0))
                truth = dict(auroc=row['auroc'], recall=recall, false_alarms=alarms)
                truth[goal.metric.name] = row['value']
                row |= {f'holds_{k}': said[k][1] <= v <= said[k][2] for k, v in truth.items()}
            rows[recipe] = row
        rows |= dict(recommended=rows[lb.recommended], first=rows[lb.best])
        if goal.cost_miss:
            rows |= dict(never=dict(value=1000*goal.prevalence*goal.cost_miss),
                         always=dict(value=1000*(1 - goal.prevalence)))
        out += [about | dict(goal=text, recipe=k) | row for k, row in rows.items()]
    return out


@call_parse(pos=['plantvillage', 'tiles', 'field_sets'])
def main(
    plantvillage:str,  # folder with class folders such as Apple___healthy
    tiles:str,         # folder of the magnetic tiles
    field_sets:str,    # folder with a folder for each other set
    out:str='advice',  # folder for the margins
    runs:int=3,        # runs per recipe, as --seeds of bn-compare
    draws:int=DRAWS,   # known images and field part, drawn anew
    first:int=0,       # the first of these draws
    rare:str='12,30,100', # known images of the minority, at most
    sets:str='',       # only these data sets (comma-separated); the yardstick's ten when empty
    table:str='advice.csv', # among the stored results
    only_table:bool=False # of what has been computed; train nothing
):
    "What following the advice costs"
    read = sources(plantvillage, tiles, field_sets)
    names = sets.split(',') if sets else [o for o in read if o != 'scab'] # which nobody had seen
    cases = [(name, n, draw) for draw, n, name in product(range(first, draws), map(int, rare.split(',')), names)]
    if only_table:
        need = ['final', *map(str, range(runs))]
        folders = [Path(out)/f'{name}-{draw}-{rare}' for name, rare, draw in cases]
        folders = [p for p in folders if all((p/f'{k}.npz').exists() for k in need)]
    else:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context('spawn')) as ex:
            done = ex.map(partial(collect, out, read, runs), cases)
            folders = [p for p in tqdm(done, total=len(cases), unit='case') if p]
    t = pd.DataFrame([row for p in folders for row in rows_of(p, runs)])
    stored = stored_results()/table
    if stored.exists(): # what is stored of other cases stays
        old, key = pd.read_csv(stored), ['data', 'rare', 'draw', 'runs']
        mine = pd.MultiIndex.from_frame(t[key])
        t = pd.concat([old[~pd.MultiIndex.from_frame(old[key]).isin(mine)], t]).sort_values(key, kind='stable')
    write_atomic(stored, t.round(4).to_csv(index=False))
    costs = t[(t.runs == runs) & t.goal.isin(list(GOALS)[:2])]
    print(costs.pivot_table(index='recipe', columns=['goal', 'rare'], values='value').round(0).to_string())
