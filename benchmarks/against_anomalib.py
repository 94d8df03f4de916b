"""Do padim and patchcore rank images as anomalib's own code does, on the same features?

    pip download --no-deps anomalib && unzip anomalib-*.whl -d anomalib
    python benchmarks/against_anomalib.py anomalib MAGNETIC_TILES

anomalib needs other versions of many libraries, so only the files with the mathematics are loaded, without its
dependencies. Both are given the stored patches of 450 usual images and judge the same test images, before anomalib
enlarges and blurs its maps. Its greedy choice takes long, so both keep 500 of the same 10,000 places; "weighted" is its
distance weighted by the neighbours of the nearest place, against our plain one, and "as shipped" is that against our
2,000 of 20,000. Writes benchmarks/against_anomalib.csv: AUROC of both, and the correlation of their scores.

    python benchmarks/against_anomalib.py anomalib MAGNETIC_TILES --speed

Patches of 2,000 solar cells and PatchCore's memory of them, each in the same run: seconds, and the peak of the process.
Both choose 2,000 of the same 20,000 places; anomalib's own default, a tenth of all 392,000, would take it hours. Writes
benchmarks/against_anomalib_speed.csv.
"""
import importlib.util, os, resource, sys, tempfile, time, types
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, psutil, torch
from fastcore.script import call_parse
from sklearn.metrics import roc_auc_score
from bn_imbalance.core import load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.training.features import patch_features
from bn_imbalance.training.loaders import split_labels
from bn_imbalance.recipes.anomaly import fit_patch_gaussian, fit_patch_memory


def stand_in(name, **names):
    sys.modules[name] = m = types.ModuleType(name)
    m.__dict__.update(names, __path__=[])


def load(root, name):
    "One file of anomalib as a module"
    spec = importlib.util.spec_from_file_location(name, Path(root)/(name.replace('.', '/') + '.py'))
    sys.modules[name] = m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def anomalib_parts(root):
    "Its greedy choice, its Gaussians, its distances, its score"
    parts, image = 'anomalib.models.components', 'anomalib.models.image'
    mixin, nothing = type('DynamicBufferMixin', (), {}), type('Nothing', (), {})
    for name in 'anomalib', 'anomalib.models', image, f'{image}.padim', f'{image}.patchcore': stand_in(name)
    stand_in('anomalib.data', InferenceBatch=nothing)
    stand_in('anomalib.utils', deprecate=lambda *a, **k: lambda f: f)
    stand_in(parts, DynamicBufferMixin=mixin, TimmFeatureExtractor=nothing, GaussianBlur2d=nothing)
    stand_in(f'{parts}.filters', GaussianBlur2d=nothing)
    stand_in(f'{parts}.base', DynamicBufferMixin=mixin)
    projection = load(root, f'{parts}.dimensionality_reduction.random_projection')
    stand_in(f'{parts}.dimensionality_reduction', SparseRandomProjection=projection.SparseRandomProjection)
    greedy = load(root, f'{parts}.sampling.k_center_greedy').KCenterGreedy
    sys.modules[parts].KCenterGreedy = greedy
    load(root, f'{image}.patchcore.anomaly_map')
    return (greedy, load(root, f'{parts}.stats.multi_variate_gaussian').MultiVariateGaussian,
            load(root, f'{image}.padim.anomaly_map').AnomalyMapGenerator.compute_distance,
            load(root, f'{image}.patchcore.torch_model').PatchcoreModel)


def their_padim(gaussian, distance, x, test):
    maps = lambda x: x.transpose(1, 2).unflatten(2, (14, 14))
    return distance(maps(test), gaussian().fit(maps(x))).flatten(1).amax(1)


def their_memory(greedy, x, seed, drawn=10_000, prevalence=.05): # of the places that `fit_patch_memory` draws
    torch.manual_seed(seed)
    x = x.flatten(0, 1)
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:drawn]
    return greedy(x[some].float(), prevalence).sample_coreset()


def their_patchcore(model, bank, test, neighbours):
    me, out = SimpleNamespace(memory_bank=bank, num_neighbors=neighbours, euclidean_dist=model.euclidean_dist), []
    me.nearest_neighbors = lambda embedding, n_neighbors: model.nearest_neighbors(me, embedding, n_neighbors)
    for part in test.split(32):
        d, at = model.nearest_neighbors(me, part.flatten(0, 1), 1)
        out.append(model.compute_anomaly_score(me, d.view(len(part), -1), at.view(len(part), -1), part.flatten(0, 1)))
    return torch.cat(out)


def timed(greedy, rounds=3):
    "Seconds of the parts of a fit on 2,000 images, and memory in MB"
    data, s, me, rows = read_data('elpv'), load_settings(), psutil.Process(), {}
    rows['memory at the start'] = me.memory_info().rss/2**20
    os.environ['BN_IMBALANCE_CACHE'] = tempfile.mkdtemp() # nothing is known yet
    start = time.time()
    x = patch_features(data.items[:2000], s, 'cpu')[data.items.digest[:2000]]
    rows['patches of 2000 images, seconds'] = time.time() - start
    times = {'memory here': [], "memory, anomalib's choice": []}
    for seed in range(rounds):
        fits = (lambda: fit_patch_memory(x, seed)), (lambda: their_memory(greedy, x, seed, 20_000, .1))
        for name, f in zip(times, fits):
            start = time.time()
            f()
            times[name].append(time.time() - start)
        if not seed: rows['peak of the process'] = peak()
    rows |= {f'{k}, seconds': np.median(v) for k, v in times.items()}
    rows['ratio'] = np.median(np.divide(*times.values()))
    return pd.Series(rows, name='value').rename_axis('what').round(3)


def peak(): # of this process
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


@call_parse
def main(
    anomalib:str, # folder with the unpacked wheel
    tiles:str,    # folder with MT_Free and so on, and groups.csv
    speed:bool=False # seconds and memory in place of AUROC?
):
    "Compare, and store the table"
    greedy, gaussian, distance, model = anomalib_parts(anomalib)
    if speed:
        table = timed(greedy)
        print(table.to_string())
        return table.to_csv(Path(__file__).with_name('against_anomalib_speed.csv'))
    s, rows = load_settings(train_majority=450, valid_majority=120), []
    for name, data in {'magnetic tiles': read_data(Path(tiles)/'groups.csv', 'MT_*', 'MT_Free'),
                       'solar cells': read_data('elpv')}.items():
        split, table = draw_split(data, s, 0, 'paper'), patch_features(data.items, s, 'cpu')
        usual = split[(split.split == 'train') & (split.label == 'majority')]
        x, test = (table[o.digest].float() for o in (usual, split[split.split == 'test']))
        bank, small = their_memory(greedy, x, 0), fit_patch_memory(x, 0, 10000, 500).score(test)
        weighted = their_patchcore(model, bank, test, 9)
        scores = {'padim': (their_padim(gaussian, distance, x, test), fit_patch_gaussian(x).score(test)),
                  'patchcore': (their_patchcore(model, bank, test, 1), small),
                  'patchcore, weighted': (weighted, small),
                  'patchcore, as shipped': (weighted, fit_patch_memory(x, 0).score(test))}
        rows += [dict(data=name, recipe=k, **{who: roc_auc_score(split_labels(split, 'test'), m)
                                              for who, m in zip(('anomalib', 'here'), both)},
                      correlation=np.corrcoef(*both)[0, 1]) for k, both in scores.items()]
    pd.DataFrame(rows).round(4).to_csv(Path(__file__).with_suffix('.csv'), index=False)
