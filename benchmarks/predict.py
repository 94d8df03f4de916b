"""Images per second and memory of bn-predict, against a bare PyTorch loop over the same files in the same run.

The bare loop is what one would write without this package: a torch Dataset that opens, resizes and normalizes with Pillow and torchvision,
a DataLoader with a worker per core, the same network, batches of the same size. Both write nothing but keep the probabilities.
Folding is timed too: the same batch through the network as trained and with its final BN folded away.

    python benchmarks/predict.py [--images 600]               speed, as a ratio of medians over rounds that take turns
    python benchmarks/predict.py --memory                      peak memory on 200 and on 20,000 images, each in a process of its own
"""
import os, re, subprocess, sys, tempfile, time
from pathlib import Path
from fastcore.script import call_parse


def folder(root, n, size):
    "n images, of which 50 are different; the others are links to them"
    from bn_imbalance.leaves import leaf_image
    root.mkdir()
    for i in range(min(n, 50)): leaf_image(i, i % 2 == 0, size).save(root/f'{i:06d}.jpg', quality=92)
    for i in range(50, n): os.link(root/f'{i % 50:06d}.jpg', root/f'{i:06d}.jpg')
    return root


def make_model(out, size, seeds=2):
    "A model of the embedded network, fitted on few images"
    from bn_imbalance.core import load_settings
    from bn_imbalance.data import read_data
    from bn_imbalance.deploy import fit_model
    from bn_imbalance.leaves import save_leaves
    data = read_data(save_leaves(out.parent/'train', 60, 20, size=size))
    return fit_model(data, 'final_bn', load_settings(size=size, seeds=seeds, epochs=2, batch_size=16), out=out, backend='serial', progress=False)


def bare(paths, model, size, bs):
    "The loop one would write"
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional as F
    mean, std = (torch.tensor(model.about['network'][k])[:, None, None] for k in ('mean', 'std'))
    class Files(torch.utils.data.Dataset):
        def __len__(self): return len(paths)
        def __getitem__(self, i):
            return (F.pil_to_tensor(Image.open(paths[i]).convert('RGB').resize((size, size), Image.BILINEAR)).float()/255 - mean)/std
    dl = torch.utils.data.DataLoader(Files(), bs, num_workers=os.cpu_count())
    net = model.net.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return torch.cat([net(x.to(memory_format=torch.channels_last)).softmax(1)[:, 1] for x in dl])


@call_parse
def main(
    images:int=600,    # how many
    size:int=224,      # pixels
    rounds:int=3,      # each of both, taking turns
    memory:bool=False, # measure memory in place of speed
    one:str=None,      # used by --memory: predict this folder by this model and tell the peak
):
    import torch
    from bn_imbalance.deploy import load_model, predict_csv, predictions
    if one:
        where, out = one.split(':')
        predict_csv(load_model(Path(where).parent/'model'), [where], out, progress=False)
        # not getrusage: its maximum is handed down from the process that started this one
        print(int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1024)
        return
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        model = make_model(d/'model', 32 if memory else size)
        if memory:
            peaks = {}
            for n in 200, 20_000:
                folder(d/f'n{n}', n, 96)
                r = subprocess.run([sys.executable, __file__, '--one', f'{d/f"n{n}"}:{d/f"{n}.csv"}'], capture_output=True, text=True, check=True)
                peaks[n] = float(r.stdout)
                assert len((d/f'{n}.csv').read_text().splitlines()) == n + 1
                print(f'{n} images: {peaks[n]:.0f} MB')
            print(f'difference: {peaks[20_000] - peaks[200]:.0f} MB (at most 200)')
            return
        paths = sorted(folder(d/'images', images, size).iterdir())
        times = {'ours': [], 'bare': []}
        for _ in range(rounds + 1): # the first round warms up
            start = time.perf_counter()
            ours = torch.tensor([p for t, _ in predictions(model, paths) for p in t.probability])
            times['ours'].append(time.perf_counter() - start)
            start = time.perf_counter()
            theirs = bare(paths, model, size, 32)
            times['bare'].append(time.perf_counter() - start)
        assert (ours - theirs).abs().max() < 1e-4
        median = {k: sorted(v[1:])[rounds//2] for k, v in times.items()}
        for k, t in median.items(): print(f'{k}: {images/t:.1f} images per second')
        print(f'ours takes {median["ours"]/median["bare"]:.2f} times as long as the bare loop (at most 1.3)')
        from bn_imbalance.export import Deployed
        folded, x = Deployed(model).net, torch.rand(32, 3, size, size).contiguous(memory_format=torch.channels_last)
        folded.to(memory_format=torch.channels_last)
        speed = {'as trained': [], 'folded': []}
        with torch.inference_mode():
            for _ in range(3*rounds):
                for (k, v), net in zip(speed.items(), (model.net, folded)):
                    start = time.perf_counter()
                    net(x)
                    v.append(time.perf_counter() - start)
        a, b = (sorted(v)[len(v)//2] for v in speed.values())
        print(f'a batch of 32: {a:.2f} s as trained, {b:.2f} s folded ({b/a:.2f} times)')
