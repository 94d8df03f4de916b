"""Images per second, start and memory of bn-predict, against a bare PyTorch loop over the same files in the same run.

The bare loop is what one would write without this package: a torch Dataset that opens, resizes and normalizes with
Pillow and torchvision, a DataLoader with a worker per core, the same network, batches of the same size. Both write
nothing but keep the probabilities. Folding is timed too: the same batch through the network as trained and with its
final BN folded away.

    python benchmarks/predict.py [--images 600]  speed, as a ratio of medians over rounds that take turns
    python benchmarks/predict.py --start         seconds until one image is predicted, and what the imports take
    python benchmarks/predict.py --memory        peak memory on 200 and on 20,000 images, each in its own process
"""
import os, re, subprocess, sys, tempfile, time
from pathlib import Path
from fastcore.script import call_parse


def folder(root, n, size):
    "n images, of which 50 are different; the others are links to them"
    from bn_imbalance.data.leaves import leaf_image
    root.mkdir()
    for i in range(min(n, 50)): leaf_image(i, i % 2 == 0, size).save(root/f'{i:06d}.jpg', quality=92)
    for i in range(50, n): os.link(root/f'{i % 50:06d}.jpg', root/f'{i:06d}.jpg')
    return root


def make_model(out, size, seeds=2):
    "A model of the embedded network, fitted on few images"
    from bn_imbalance.core import load_settings
    from bn_imbalance.data.items import read_data
    from bn_imbalance.deploy.fitting import fit
    from bn_imbalance.data.leaves import save_leaves
    from bn_imbalance.training.sweep import Execution
    data = read_data(save_leaves(out.parent/'train', 60, 20, size=size))
    s = load_settings(size=size, seeds=seeds, epochs=2, batch_size=16)
    return fit(data, 'final_bn', s, execution=Execution(out, 'serial', progress=False))


def bare(paths, model, size, bs):
    "The loop one would write"
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional as F
    mean, std = (torch.tensor(o)[:, None, None] for o in model.stats)
    class Files(torch.utils.data.Dataset):
        def __len__(self): return len(paths)
        def __getitem__(self, i):
            im = Image.open(paths[i]).convert('RGB').resize((size, size), Image.BILINEAR)
            return (F.pil_to_tensor(im).float()/255 - mean)/std
    dl = torch.utils.data.DataLoader(Files(), bs, num_workers=os.cpu_count())
    net = model.net.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return torch.cat([net(x.to(memory_format=torch.channels_last)).softmax(1)[:, 1] for x in dl])


def turns(rounds, **calls):
    "Seconds of each call, a median over rounds that take turns; the first round warms up"
    times = {k: [] for k in calls}
    for _ in range(rounds + 1):
        for k, f in calls.items():
            start = time.perf_counter()
            f()
            times[k].append(time.perf_counter() - start)
    return {k: sorted(v[1:])[rounds//2] for k, v in times.items()}


def tell_start(d, model_dir):
    "The whole command on one image, and each import that took most"
    one = next(folder(d/'one', 1, 224).iterdir())
    code = 'import sys, bn_imbalance.cli as cli; sys.argv[0] = "bn-predict"; cli.bn_predict.cli()'
    def run(*flags):
        return subprocess.run([sys.executable, *flags, '-c', code, model_dir, one], capture_output=True, text=True,
                              check=True)
    t = turns(3, command=run, torch=lambda: subprocess.run([sys.executable, '-c', 'import torch, timm'], check=True))
    print(f'{t["command"]:.1f} s for one image; import torch, timm alone: {t["torch"]:.1f} s')
    lines = [l.split('|') for l in run('-X', 'importtime').stderr.splitlines() if l.startswith('import time:')][1:]
    took = {name.strip(): int(total)/1e6 for _, total, name in lines}
    tops = 'torch timm torchvision pandas scipy.special pydantic fastcore.script fastai sklearn matplotlib'.split()
    print(', '.join(f'{k} {took[k]:.2f} s' for k in tops if k in took))


def tell_memory(d, model_dir):
    "Peaks, each in a process of its own"
    code = '''import sys
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import predict_csv
predict_csv(load_model(sys.argv[1]), [sys.argv[2]], sys.argv[3], progress=False)
print(open("/proc/self/status").read())''' # not getrusage: its maximum is handed down from the process that started it
    peaks = {}
    for n in 200, 20_000:
        args = model_dir, folder(d/f'n{n}', n, 96), d/f'{n}.csv'
        r = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True, check=True)
        peaks[n] = float(re.search(r'VmHWM:\s+(\d+)', r.stdout)[1])/1024
        assert len((d/f'{n}.csv').read_text().splitlines()) == n + 1
        print(f'{n} images: {peaks[n]:.0f} MB')
    print(f'difference: {peaks[20_000] - peaks[200]:.0f} MB (at most 200)')


def tell_speed(d, model, images, size, rounds):
    "Images per second, and what folding is worth"
    import torch
    from bn_imbalance.deploy.export import Deployed
    from bn_imbalance.deploy.predict import predictions
    paths, got = sorted(folder(d/'images', images, size).iterdir()), {}
    def ours(): got['ours'] = torch.tensor([p for t, _ in predictions(model, paths) for p in t.probability])
    def theirs(): got['bare'] = bare(paths, model, size, 32)
    t = turns(rounds, ours=ours, bare=theirs)
    assert (got['ours'] - got['bare']).abs().max() < 1e-4
    for k, v in t.items(): print(f'{k}: {images/v:.1f} images per second')
    print(f'ours takes {t["ours"]/t["bare"]:.2f} times as long as the bare loop (at most 1.3)')
    folded, x = Deployed(model).net, torch.rand(32, 3, size, size).contiguous(memory_format=torch.channels_last)
    folded.to(memory_format=torch.channels_last)
    with torch.inference_mode(): t = turns(3*rounds, trained=lambda: model.net(x), folded=lambda: folded(x))
    print(f'a batch of 32: {t["trained"]:.2f} s as trained, {t["folded"]:.2f} s folded '
          f'({t["folded"]/t["trained"]:.2f} times)')


@call_parse
def main(
    images:int=600,    # how many
    size:int=224,      # pixels
    rounds:int=3,      # each of both, taking turns
    start:bool=False,  # measure the start in place of speed
    memory:bool=False  # measure memory in place of speed
):
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        model = make_model(d/'model', 32 if memory else size)
        if memory: tell_memory(d, d/'model')
        elif start: tell_start(d, d/'model')
        else: tell_speed(d, model, images, size, rounds)
