"""How well is a prevalence estimated, and are images refused that do not allow it? On Apple leaves.

    python benchmarks/prevalence_estimates.py PLANTVILLAGE [--pools 3]

Models are made from half of the healthy leaves and 20 sick ones (about 6 photographs each); the other leaves are mixed
anew, or darkened, compressed, blurred, or replaced by pepper leaves and by drawn ones. Writes
bn_imbalance/results/prevalence_estimates.csv, a row per set of 500 or 250 images. With the package
quapy installed, its EM is run on the same probabilities (column quapy). Takes about 10 minutes on one core.
"""
import io
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
import numpy as np, pandas as pd, torch
from fastcore.script import call_parse
from PIL import Image, ImageEnhance, ImageFilter
from scipy.special import expit
from bn_imbalance.core import load_settings, stored_results
from bn_imbalance.data.items import read_data
from bn_imbalance.training.features import backbone_features
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.data.images import check_images
from bn_imbalance.metrics import margin
from bn_imbalance.deploy.prevalence import (
    counted_prevalence, log_density_ratio, mixture_test, prevalence_interval)
from bn_imbalance.training.sweep import Execution

STORED = stored_results()/'prevalence_estimates.csv'


def compressed(im):
    im.save(b := io.BytesIO(), 'JPEG', quality=30)
    return Image.open(b).convert('RGB')


CHANGES = dict(darkened=lambda im: ImageEnhance.Brightness(im).enhance(.5), compressed=compressed,
               blurred=lambda im: im.filter(ImageFilter.GaussianBlur(2)))


def quapy_prevalence(y, m, new):
    try: from quapy.method.aggregative import EMQ
    except ImportError: return np.nan
    scale, shift = log_density_ratio(y, m)
    p = expit(scale*new + shift)
    return EMQ.EM([.5, .5], np.c_[1 - p, p], epsilon=1e-6)[0][1]


def estimated(model, f, y):
    "A row of the table; f: features (n, d), y: labels that the estimate does not see"
    e, threshold = model.held_out, model.decision.threshold
    with torch.inference_mode(): m = margin(model.net[1][1](torch.from_numpy(f)).numpy())
    features = np.c_[(f - e['mean']) @ e['components'].T, np.linalg.norm(f, axis=1)]
    likely, counted = prevalence_interval(e, m), counted_prevalence(e, m, threshold)
    return dict(n=len(y), prevalence=y.mean(), called=(m > threshold).mean(), recall=(m > threshold)[y == 1].mean(),
                false_alarms=(m > threshold)[y == 0].mean(), likely=likely[0], low=likely[1], high=likely[2],
                counted=counted[0], counted_low=counted[1], counted_high=counted[2],
                quapy=quapy_prevalence(e['y'], e['margin'], m),
                p_margins=mixture_test(e, e['margin'][:, None], m[:, None], likely[0]),
                p_features=mixture_test(e, e['features'], features, likely[0]))


def some(items, rng, sick, healthy):
    return pd.concat([items[items.label == k].sample(n, random_state=rng)
                      for k, n in (('minority', sick), ('majority', healthy))])


@call_parse(pos=['plantvillage'])
def main(
    plantvillage:str, # the folder with the plants
    pools:int=3,      # models
    out:str=None      # the table; by default where the package keeps it
):
    "Estimate known prevalences"
    s, rows = load_settings(), []
    d, peppers, drawn = (read_data(*o) for o in ((plantvillage, 'Apple___*', 'Apple___healthy'),
                                                 (plantvillage, 'Pepper*Bacterial*', 'Pepper*healthy'), ('leaves',)))
    def features(items): return backbone_features(items, s, 'cpu')[items.digest].numpy()
    def labels(items): return (items.label == 'minority').to_numpy().astype(int)
    for pool in range(pools):
        rng = np.random.RandomState(pool)
        sick, subjects = d.items.label == 'minority', lambda rows: rng.permutation(d.items.group[rows].unique())
        healthy = subjects(~sick)
        mine = d.items.group.isin({*subjects(sick)[:20], *healthy[:len(healthy)//2]})
        model = fit(replace(d, items=d.items[mine].reset_index(drop=True)), 'final_bn', s,
                          execution=Execution(backend='serial', device='cpu', progress=False))
        field, about = d.items[~mine], dict(pool=pool, trained_for=model.decision.prevalence())
        for prevalence in .5, .1, .01:
            for _ in range(2):
                part = some(field, rng, round(500*prevalence), round(500*(1 - prevalence)))
                rows.append(about | dict(kind='leaves', **estimated(model, features(part), labels(part))))
        part = some(field, rng, 25, 225)
        for kind, items in ('pepper leaves', peppers.items), ('drawn leaves', drawn.items):
            other = some(items, rng, 25, 225)
            rows.append(about | dict(kind=kind, **estimated(model, features(other), labels(other))))
        for kind, change in CHANGES.items():
            with TemporaryDirectory() as folder:
                paths = [f'{folder}/{i}.png' for i in range(len(part))]
                for old, new in zip(part.path, paths): change(Image.open(old).convert('RGB')).save(new)
                changed = part.assign(path=paths, digest=check_images(paths).digest.to_numpy())
                rows.append(about | dict(kind=kind, **estimated(model, features(changed), labels(part))))
        print(pd.DataFrame(rows).tail(11).round(3).to_string(), flush=True)
    pd.DataFrame(rows).round(5).to_csv(Path(out or STORED), index=False)
