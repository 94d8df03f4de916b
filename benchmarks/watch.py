"""What does bn-watch say in a year in which nothing changes, the prevalence rises, or a new camera comes?

    python benchmarks/watch.py [--plantvillage FOLDER] [--tiles FOLDER] [--years 200] [--changed 40]

A model is made from half of the subjects of the drawn leaves, apple leaves and tiles. The other half is scored
once, as it is and as another camera would have taken it; months are drawn from these with replacement, so a year
costs no network. In years called `nothing` what training knows is drawn from the same images, too: otherwise a year
holds the accidental difference between two halves that are not large, as it does in those called `other_half`.
Writes bn_imbalance/results/watch.csv, a row per set, kind of year, images in a month and false alarms allowed.
Takes about 20 minutes on one core.
"""
import io
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
import numpy as np, pandas as pd
from fastcore.script import call_parse
from PIL import Image, ImageEnhance
from scipy.stats import ks_2samp
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.images import CAMERA, image_properties
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.prevalence import score_images
from bn_imbalance.deploy.watching import changes, expected_flags, ordinary
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.training.sweep import Execution

STORED, SAMPLE = stored_results()/'watch.csv', 200
YEARS = dict(nothing=(False, False), other_half=(False, False), prevalence=(True, False), camera=(False, True),
             both=(True, True)) # does the prevalence rise, does a new camera come?


def other_camera(im):
    w, h = im.size
    im = ImageEnhance.Brightness(im.resize((3*w//4, 3*h//4)).resize((w, h))).enhance(.8)
    im.save(b := io.BytesIO(), 'JPEG', quality=85)
    return b.getvalue()


def measured(model, paths): # margins, name -> values
    m, x, bad = score_images(model, model.held_out, paths)
    assert not bad
    camera = image_properties(paths)[0][list(CAMERA)].to_numpy(float)
    return m, dict(zip(CAMERA, camera.T)) | {f'feature {i}': v for i, v in enumerate(x.T, 1)} | dict(scores=m)


def model_and_field(d, n=300):
    "A model of half of the subjects; of n ordinary and n/2 rare images of the others label, old and new camera"
    rng, s, groups = np.random.default_rng(0), load_settings(seeds=5), np.array(d.items.group.unique(), object)
    mine = d.items.group.isin(set(rng.permutation(groups)[:len(groups)//2]))
    model = fit(replace(d, items=d.items[mine].reset_index(drop=True)), None, s,
                Goal(cost_miss=20, cost_alarm=1, prevalence=.01), Execution(backend='serial', progress=False))
    rest = d.items[~mine].sample(frac=1, random_state=0)
    rest = pd.concat([rest[rest.label == k].head(m) for k, m in (('majority', n), ('minority', n//2))])
    with TemporaryDirectory() as folder:
        new = [f'{folder}/{i}.jpg' for i in range(len(rest))]
        for a, b in zip(rest.path, new): Path(b).write_bytes(other_camera(Image.open(a).convert('RGB')))
        return model, (rest.label == 'minority').to_numpy(), measured(model, list(rest.path)), measured(model, new)


def year(rng, sick, cameras, threshold, rises, renewed, n): # flagged and all images, name -> values; of each month
    flagged, seen = [], []
    for month in range(12):
        m, values = cameras[renewed and month >= 6]
        k = rng.binomial(n, .01 + .03*rises*month/11)
        rows = np.r_[rng.choice(np.flatnonzero(sick), k), rng.choice(np.flatnonzero(~sick), n - k)]
        passed = rng.permutation(rows[m[rows] <= threshold])
        flagged.append((n - len(passed), n))
        seen.append({o: v[passed[:1000 if o == 'scores' else SAMPLE]] for o, v in values.items()})
    return flagged, seen


def row(found): # of what `changes` says in many years
    def months(what): return [[i for i, c in enumerate(y, 1) if any(what(o) for o in c)] for y in found]
    every, flags, looks = (months(o) for o in (lambda o: True, lambda o: o == 'flagged', lambda o: o != 'flagged'))
    first = [o[0] for o in flags if o]
    return dict(any=np.mean(list(map(bool, every))), january=np.mean([1 in o for o in every]),
                before_july=np.mean([any(i < 7 for i in o) for o in looks]), july=np.mean([7 in o for o in looks]),
                after_july=np.mean([any(i > 7 for i in o) for o in looks]), flagged=np.mean(list(map(bool, flags))),
                flagged_month=np.median(first) if first else np.nan)


@call_parse
def main(
    plantvillage:str=None, # the folder with the plants
    tiles:str=None,        # the folder with the tiles
    years:int=200,         # without a change
    changed:int=40,        # of each other kind
    out:str=None           # the table; by default where the package keeps it
):
    "Simulate years"
    sets, rows = {'leaves': ('leaves',)}, []
    if tiles: sets['tiles'] = tiles, 'MT_[!F]*,MT_Fray', 'MT_Free'
    if plantvillage: sets['Apple'] = plantvillage, 'Apple___*', 'Apple___healthy'
    for name, args in sets.items():
        model, sick, *cameras = model_and_field(read_data(*args))
        e, threshold, rng = model.held_out, model.decision.threshold, np.random.default_rng(0)
        known, rates, usual = ordinary(e, threshold), expected_flags(model), e['margin'][e['y'] == 0]
        gap = ks_2samp(usual[usual <= threshold], cameras[0][0][~sick & (cameras[0][0] <= threshold)]).statistic
        quiet = np.flatnonzero(~sick & (cameras[0][0] <= threshold))
        def same(): # as `known`, of the images that years are drawn from
            mine = rng.choice(quiet, len(known['feature 1']))
            return {o: v[mine] for o, v in cameras[0][1].items() if o in known}
        for kind, (rises, renewed) in YEARS.items():
            for n in (300, 1000) if rises or renewed else (300,):
                k = changed if rises or renewed else years
                drawn = [year(rng, sick, cameras, threshold, rises, renewed, n) for _ in range(k)]
                for alarms in (.01, .2) if kind == 'nothing' else (.01,):
                    found = [changes(*o, same() if kind == 'nothing' else known, rates, alarms/12) for o in drawn]
                    rows.append(dict(data=name, year=kind, images=n, alarms=alarms, years=k) | row(found)
                                | dict(score_gap=gap))
        print(pd.DataFrame(rows).tail(9).round(3).to_string(), flush=True)
        pd.DataFrame(rows).round(4).to_csv(Path(out or STORED), index=False)
