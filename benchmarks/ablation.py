"""How fast is the ablation? The plain fastai way, ours, and the arithmetic limit of the device, in the same run.

The plain way reads the files anew each epoch in worker processes, computes in float32, one run after the other. Each of
its epochs costs the same, so one is timed and the rest is multiplied. Ours is what `bn-ablate` does. The limit is the
floating-point operations that our way cannot avoid, divided by the speed of a large matrix product on this device.

    python benchmarks/ablation.py [FOLDER --majority NAME --minority PATTERN] [--size 224] [--arch resnet34] [--write]
"""
import os, time
from dataclasses import replace
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse

KINDS = {'features': 'same pixels, fixed body', 'forward': 'changing pixels, fixed body', 'images': 'body learns'}


def matmul_speed(device, dtype, threads):
    "Floating-point operations per second of a large matrix product"
    import torch
    n = 8192 if device.type == 'cuda' else 2048
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    def once():
        start = time.time()
        for _ in range(4): a @ b
        if device.type == 'cuda': torch.cuda.synchronize()
        return time.time() - start
    once()
    best = min(once() for _ in range(5))
    torch.set_num_threads(before)
    return 4*2*n**3/best


@call_parse(pos=['data'])
def main(
    data:str='leaves',     # as for bn-ablate
    minority:str=None,     # as for bn-ablate
    majority:str=None,     # as for bn-ablate
    arch:str=None,         # as for bn-ablate
    weights:str=None,      # as for bn-ablate; random will do for timing
    size:int=None,         # as for bn-ablate
    epochs:int=2,          # epochs of ours that are really run
    learning:int=2,        # configurations with a learning body that are really run
    workers:int=None,      # as for bn-ablate
    seeds:int=10,          # for the projection
    write:bool=False,      # keep the table in benchmarks/ablation-DEVICE-ARCH-SIZE.csv?
):
    "Images per second, runs per minute and the projected time of all configurations"
    import torch
    from fastai.vision.all import CrossEntropyLossFlat, default_device
    from torch.utils.flop_counter import FlopCounterMode
    from bn_imbalance.core import load_settings
    from bn_imbalance.data.items import read_data
    from bn_imbalance.data.splits import draw_split
    from bn_imbalance.training.features import backbone_features
    from bn_imbalance.recipes.ablation import grid
    from bn_imbalance.models.heads import final_bn_learner
    from bn_imbalance.training.loaders import imbalanced_dls
    from bn_imbalance.models.backbones import pooled_backbone
    from bn_imbalance.training.sweep import Execution, compare
    from bn_imbalance.training.engine import choose_engine
    s = load_settings(arch=arch, weights=weights, size=size, seeds=1)
    cores, device = os.cpu_count() or 1, default_device()
    d = read_data(data, minority, majority, size=s.size)
    split = draw_split(d, s, 0, 'paper')
    n_train, n_seen = (int(split.split.isin(o).sum()) for o in (['train'], ['valid', 'test']))
    name = torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {cores} cores'
    print(f'{d.name}, {s.arch}, {s.size} pixels, {s.epochs} epochs, {name}', flush=True)

    plain = {} # seconds per epoch; a fixed body and a learning one
    for learns in False, True:
        dls = imbalanced_dls(split, s, num_workers=cores)
        learn = final_bn_learner(dls, s.arch, None, weights=s.weights, train_bn=learns,
                                 loss_func=CrossEntropyLossFlat())
        with learn.no_bar(), learn.no_logging():
            if device.type == 'cuda': learn.fit_one_cycle(1, s.lr) # the first epoch warms up
            start = time.time(); learn.fit_one_cycle(1, s.lr); plain[learns] = time.time() - start
    start = time.time()
    with learn.no_bar(): learn.get_preds(dl=dls[2])
    test_pass = time.time() - start

    with FlopCounterMode(display=False) as count:
        pooled_backbone(s.arch, s.weights)(torch.zeros(1, 3, s.size, s.size))
    flop = count.get_total_flops()
    at_once = 1 if device.type == 'cuda' else cores
    speed = at_once * matmul_speed(device, torch.bfloat16 if device.type == 'cuda' else torch.float32, 1)
    # forward for all; a learning body needs the way back through its activations too, which costs as much again
    per_epoch = {'features': 0, 'forward': n_train, 'images': 2*n_train + n_seen}

    rows = {}
    backbone_features(split, s) # of all configurations, computed once for ever
    for engine, what in KINDS.items():
        field = [r for r in grid() if choose_engine(r, s) == engine]
        run = field[::max(1, len(field)//learning)][:learning] if engine == 'images' else field
        start = time.time()
        compare(d, replace(s, epochs=epochs), 'paper', Execution(workers=workers, progress=False), recipes=run)
        ours = (time.time() - start)/len(run)*s.epochs/epochs
        slow = plain[engine == 'images']*s.epochs + test_pass
        images = s.epochs*(n_train + n_seen)
        limit = s.epochs*per_epoch[engine]*flop/speed*(3/24 if engine == 'forward' else 1) # three bodies see for 24
        rows[what] = dict(configurations=len(field), plain_images_per_s=images/slow, our_images_per_s=images/ours,
                          plain_s_per_run=slow, our_s_per_run=ours, limit_s_per_run=limit, runs_per_minute=60/ours,
                          times_faster=slow/ours)
    table = pd.DataFrame(rows).T
    total = lambda c: (table.configurations*table[c]).sum()
    hours = {c: total(f'{c}_s_per_run')*seeds/3600 for c in ('plain', 'our', 'limit')}
    print(table.round(2).to_string())
    print(f'64 configurations x {seeds} seeds: {hours["plain"]:.2f} h the plain way, {hours["our"]:.2f} h ours '
          f'({hours["plain"]/hours["our"]:.1f} times faster), {hours["limit"]:.2f} h at the speed of a matrix product '
          f'({speed/1e9:,.0f} GFLOP/s)')
    if write:
        file = f'ablation-{name.split()[0].strip(",").lower()}-{s.arch}-{s.size}.csv'
        table.round(3).assign(device=name).rename_axis('what').to_csv(Path(__file__).with_name(file))
