"""How many rare images are found in so many looks? Rounds of a hundred on real and drawn images, against chance.

    python benchmarks/find.py PLANTVILLAGE TILES [--seeds 20] [--only apple,leaves,cells,tiles]

One image in a hundred of a pool is rare; 5, 10 or no rare ones and 200 ordinary ones are labelled, none of a subject
that is in the pool. As long as no rare one is known the strangest are looked at. After each round of 100 looks
everything is learnt anew, and the rank is judged on images that are neither labelled nor in the pool. Rows go to
bn_imbalance/results/find.csv, seed by seed; a stopped run goes on. The oracle looks at every rare image first, but for
the looks by lot. About 80 minutes of one core, features included.

    python benchmarks/find.py PLANTVILLAGE TILES --speed-on 10000

measures bn-find against bn-predict on so many images instead.
"""
import itertools, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from sklearn.metrics import roc_auc_score
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.training.features import backbone_features
from bn_imbalance.find.search import MIX, fit_on_features, holdout_fraction, margins, select_round
from bn_imbalance.recipes.registry import get_recipes

STORED = stored_results()/'find.csv'
WAYS = [*MIX, 'mix', 'random', 'likely:final_bn']
# most images in the pool, rare ones in it, ordinary ones and rare ones to judge by
SIZES = dict(apple=(3000, 30, 150, 150), leaves=(1200, 12, 50, 150), cells=(1200, 12, 100, 150),
             tiles=(650, 7, 100, 150))


def sources(plantvillage, tiles):
    "Name -> data set; with apples, the healthy leaves of all three plants are what is ordinary"
    apple = dict(minority='Apple___[!h]*', majority='*healthy')
    return dict(apple=lambda: read_data(plantvillage, **apple), leaves=lambda: read_data('leaves'),
                cells=lambda: read_data('elpv'), tiles=lambda: read_data(tiles, 'MT_*', 'MT_Free'))


def deal(items, name, known, seed):
    "Rows that are labelled, in the pool, and judged by; subjects on one side only"
    n, rare, judge, judge_rare = SIZES[name]
    rng = np.random.default_rng(seed)
    groups = rng.permutation(items.group.unique())
    rows = items.assign(place=items.group.map(dict(zip(groups, range(len(groups)))))).sort_values('place')
    sides = {k: [] for k in ('known', 'pool', 'judge')}
    for label, want in ('minority', (known, rare, judge_rare)), ('majority', (200, n - rare, judge)):
        left = rows[rows.label == label]
        for side, k in zip(sides, want):
            sides[side] += left.index[:k].tolist()
            left = left.iloc[k:]
            taken = set(items.group[sides[side]])
            left = left[~left.group.isin(taken)]
    return {k: np.array(v) for k, v in sides.items()}


def rounds(x, y, digests, sides, way, s, n=100, most=5):
    "Yields looks, found, AUROC after each round"
    strategy, _, recipe = way.partition(':')
    (recipe, knn), pool = get_recipes([recipe or 'ridge', 'knn']), sides['pool']
    known, looked = sides['known'], np.zeros(0, int)
    aside, judge, row = holdout_fraction(len(pool)), sides['judge'], {d: i for i, d in enumerate(digests)}
    for _ in range(most + 1):
        rows = np.concatenate([known, looked])
        usual = x[rows[y[rows] == 0]]
        odd = fit_on_features(usual, np.zeros(len(usual)), knn, s)
        head = fit_on_features(x[rows], y[rows], recipe, s) if y[rows].any() else odd
        yield len(looked), int(y[looked].sum()), roc_auc_score(y[judge], margins(head, x[judge]))
        left = np.setdiff1d(pool, looked)
        if not len(left): return
        t = pd.DataFrame(dict(digest=digests[left], likely=margins(head, x[left]), strange=margins(odd, x[left])), left)
        way = strategy if y[rows].any() else 'strange'
        looked = np.r_[looked, select_round(t, way, n, lambda d: x[[row[k] for k in d]], aside).index]


def one_start(items, x, s, name, known, seed):
    "A row for each way and round"
    y, sides = (items.label == 'minority').to_numpy().astype(int), deal(items, name, known, seed)
    for way in WAYS if known else ['mix']:
        if ':' in way and (known, name in ('apple', 'cells'), seed < 10) != (10, True, True): continue
        for looks, found, auroc in rounds(x, y, items.digest.to_numpy(), sides, way, s):
            yield dict(data=name, known=known, strategy=way, seed=seed, looks=looks, found=found, auroc=auroc,
                       pool=len(sides['pool']), rare=int(y[sides['pool']].sum()))


def speed(n):
    "Seconds of bn-predict, of bn-find and of its second round on n images, each in a process of its own"
    where = Path(tempfile.mkdtemp())
    leaves = read_data('leaves').items
    (where/'field').mkdir()
    for i, p in zip(range(n), np.resize(leaves.path, n)): # what follows a picture in its file is not part of it
        (where/'field'/f'{i:06d}{Path(p).suffix}').write_bytes(Path(p).read_bytes() + str(i).encode())
    def run(*args):
        start, bin_ = time.time(), Path(sys.executable).parent
        subprocess.run([bin_/args[0], *map(str, args[1:])], check=True, capture_output=True)
        return time.time() - start
    run('bn-fit', 'leaves', '--seeds', 2, '--out', where/'model')
    took = dict(images=n, predict=run('bn-predict', where/'model', where/'field', '--csv', where/'out.csv'))
    search = 'bn-find', where/'model', where/'field', '--out', where/'find'
    took['find'] = run(*search)
    rows = pd.read_csv(where/'find'/'queue.csv')
    from bn_imbalance.find.queue import Queue
    q = Queue(where/'find')
    for i, p in enumerate(rows.path): q.answer(p, q.classes[i % 2])
    took['second round'] = run(*search)
    print({k: round(v, 1) for k, v in took.items()}, f'ratio {took["find"]/took["predict"]:.2f}')
    shutil.rmtree(where)


@call_parse
def main(
    plantvillage:str,   # the folder with the plants
    tiles:str,          # folder with MT_Free and so on, and groups.csv
    seeds:int=20,       # draws
    only:str='apple,leaves,cells,tiles', # data sets
    speed_on:int=0      # measure the speed on so many images instead
):
    "Search, round by round, and store what is found"
    if speed_on: return speed(speed_on)
    s = load_settings()
    old = pd.read_csv(STORED) if STORED.exists() else pd.DataFrame(columns=['data', 'seed', 'known'])
    for name in only.split(','):
        data = sources(plantvillage, tiles)[name]()
        items = data.items.drop_duplicates('digest').reset_index(drop=True)
        x = backbone_features(items, s).x
        for seed, known in itertools.product(range(seeds), (0, 5, 10)):
            if ((old.data == name) & (old.seed == seed) & (old.known == known)).any(): continue
            rows = pd.DataFrame(one_start(items, x, s, name, known, seed))
            old = pd.concat([old, rows]) if len(old) else rows
            write_atomic(STORED, old.round(4).to_csv(index=False))
            print(name, seed, known, rows[rows.looks == 200].set_index('strategy').found.to_dict(), flush=True)
