"""How much time do stored features save? The plain fastai way and ours, on the same split, in the same run.

The plain way sends the images through `vision_learner` with a frozen body, epoch after epoch. Each of its epochs costs
the same, so one is timed (`--plain-epochs`) and the rest is multiplied. Ours starts with an empty cache: features are
computed, then heads are trained.

    python benchmarks/engines.py [FOLDER --majority NAME --minority PATTERN] [--write]
"""
import os, tempfile, time
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse


@call_parse(pos=['data'])
def main(
    data:str='leaves',     # as for bn-compare
    minority:str=None,     # as for bn-compare
    majority:str=None,     # as for bn-compare
    seeds:int=10,          # for the large comparison
    plain_epochs:int=1,    # epochs of the plain way that are really run
    write:bool=False,      # keep the table in benchmarks/engines.csv?
):
    "Time one recipe, and all recipes on all seeds, the plain way and ours"
    import torch
    from fastai.vision.all import CrossEntropyLossFlat, default_device, vision_learner
    from bn_imbalance.core import load_settings
    from bn_imbalance.data.items import read_data
    from bn_imbalance.data.splits import draw_split
    from bn_imbalance.training.loaders import imbalanced_dls
    from bn_imbalance.training.sweep import compare
    six = 'plain, weighted, final_bn, final_bn_features, final_bn_both, final_bn_weighted'
    d, s = read_data(data, minority, majority), load_settings(seeds=seeds, recipes=six)
    split = draw_split(d, s, 0, 'paper')

    dls = imbalanced_dls(split, s)
    learn = vision_learner(dls, s.arch, pretrained=False, loss_func=CrossEntropyLossFlat(), train_bn=False)
    learn.freeze()
    start = time.time()
    with learn.no_bar(): learn.fit_one_cycle(plain_epochs, s.lr)
    epoch = (time.time() - start)/plain_epochs
    start = time.time()
    learn.get_preds(dl=dls[2])
    plain = epoch*s.epochs + time.time() - start

    timed = {}
    one = replace(s, recipes=['final_bn'], seeds=1)
    kinds = {'one recipe, one seed': one, f'{len(s.recipes)} recipes, {seeds} seeds': s}
    for name, settings in kinds.items():
        with tempfile.TemporaryDirectory() as cache:
            os.environ['BN_IMBALANCE_CACHE'] = cache
            start = time.time(); compare(d, settings, 'paper'); cold = time.time() - start
            start = time.time(); compare(d, settings, 'paper'); warm = time.time() - start
        runs = len(settings.recipes)*settings.seeds
        timed[name] = dict(plain_s=plain*runs, cold_s=cold, warm_s=warm, ratio_cold=plain*runs/cold,
                           ratio_warm=plain*runs/warm)
    table = pd.DataFrame(timed).T.round(1)
    device = torch.cuda.get_device_name() if default_device().type == 'cuda' else f'CPU, {os.cpu_count()} cores'
    table['device'] = device
    print(f'{d.name}, {s.arch}, {s.size} px, {s.epochs} epochs; one plain epoch took {epoch:.0f} s')
    print(table.to_string())
    if write: table.rename_axis('what').to_csv(Path(__file__).with_name('engines.csv'))
