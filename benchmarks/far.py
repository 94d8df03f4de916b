"""bn-predict beyond one process: one worker of Ray against two and against none, memory, and the parts of the work.

Predictions of what comes out stand in predictions.md. The tables are compared byte by byte. Rates are of the last two
thirds of the images: the workers have started by then. They need a machine that is otherwise idle; the parts do not.

    python benchmarks/far.py                everything, into bn_imbalance/results/far.csv
    python benchmarks/far.py parts memory   some of it; the other lines of the file stay
    python benchmarks/far.py --quick        a tenth of the images, on the screen only
    python benchmarks/far.py cost           hours and cost of ten million images, from far.csv

The embedded leaves are drawn at 224 pixels; photographs are one of them at 4000 x 3000 pixels with noise.
"""
import os, subprocess, sys, tempfile, threading, time
from functools import partial
from pathlib import Path
import pandas as pd, psutil
from fastcore.script import call_parse
from bn_imbalance.core import stored_results
from predict import folder, make_model

RUN = '''import sys, time
from functools import partial
from bn_imbalance.find.distributed import ray_predictions
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import predict_csv, predictions
model, images, csv, workers = sys.argv[1:]
start, times, run = time.time(), [], predictions if workers == '0' else partial(
    ray_predictions, workers=int(workers), device='cpu')
def timed(*args):
    for t in run(*args):
        times.append(time.time())
        yield t
n, *_ = predict_csv(load_model(model), [images], csv, progress=False, run=timed)
skip = len(times)//3
print(n, times[0] - start, (len(times) - 1 - skip)*32/(times[-1] - times[skip]))
'''


def watched(*args):
    "What a run prints, and the peak memory in MB of its main process and of its largest worker"
    p = subprocess.Popen([sys.executable, '-c', RUN, *map(str, args)], stdout=subprocess.PIPE, text=True)
    peaks = {'main': 0, 'worker': 0}
    def watch():
        while p.poll() is None:
            for o in psutil.process_iter(['pid', 'cmdline', 'memory_info']):
                command = ' '.join(o.info['cmdline'] or ())
                name = 'main' if o.pid == p.pid else 'worker' if '(_Worker)' in command else ''
                if name and o.info['memory_info']: peaks[name] = max(peaks[name], o.info['memory_info'].rss/2**20)
            time.sleep(.2)
    thread = threading.Thread(target=watch)
    thread.start()
    out, _ = p.communicate()
    thread.join()
    assert p.returncode == 0
    return list(map(float, out.split())), peaks


def photograph(path):
    "A leaf as large as a phone's camera takes it, with noise"
    import numpy as np
    from PIL import Image
    from bn_imbalance.data.leaves import leaf_image
    a = np.asarray(leaf_image(0, True, 1024).resize((4000, 3000)), dtype=np.int16)
    a = a + np.random.default_rng(0).normal(0, 5, a.shape).astype(np.int16)
    Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def parts(d, model, say):
    "What one core does in a second of its time, whoever else is on the machine"
    import numpy as np, torch
    from bn_imbalance.data.images import decode
    from bn_imbalance.deploy.predict import model_logits
    def rate(f, n):
        f()
        start = time.process_time()
        for _ in range(n): f()
        return n/(time.process_time() - start)
    torch.set_num_threads(1)
    photograph(d/'photograph.jpg')
    leaf = next(folder(d/'leaf', 1, 224).iterdir())
    def median(f, n): return sorted(rate(f, n) for _ in range(3))[1]
    for name, path, n in ('leaf', leaf, 400), ('photograph', d/'photograph.jpg', 12):
        say(f'decode {name}', median(partial(decode, path, 224), n), 'images a second, one core')
        say(f'size {name}', path.stat().st_size/1e6, 'megabytes')
    model.net.to(memory_format=torch.channels_last)
    x = torch.from_numpy(np.stack([decode(leaf, 224)]*32))
    say('network', 32*median(partial(model_logits, model, x), 4), 'images a second, one core')


def writing(d, say, pieces=40):
    "Lines that the main process takes from workers and writes in a second of its time"
    import pickle
    from types import SimpleNamespace
    import numpy as np
    from bn_imbalance.deploy.predict import COLUMNS, predict_csv
    folder(d/'one', 1, 224)
    p = np.random.default_rng(0).random((3, 32))
    table = pd.DataFrame({'path': [f'/images/field/{i:08}.jpg' for i in range(32)], 'label': 'healthy',
                          'probability': p[0], 'calibrated_probability': p[1], 'threshold': .5, 'review': 'no',
                          'error': '', 'model': 'm'*12})
    piece = pickle.dumps([table[COLUMNS]]*8)
    def run(*_): return ((t, None) for _ in range(pieces) for t in pickle.loads(piece))
    start = time.process_time()
    n, *_ = predict_csv(SimpleNamespace(id='m'*12), [d/'one'], d/'written.csv', progress=False, run=run)
    say('written', n/(time.process_time() - start), 'lines a second of the main process')


def speed(d, images, rounds, say):
    "Serial, one worker, two; they take turns"
    folder(d/'images', images, 224)
    got = {k: [] for k in range(3)}
    for i in range(rounds):
        for k in got: got[k].append(watched(d/'model', d/'images', d/f'{i}-{k}.csv', k)[0])
    tables = {(d/f'{i}-{k}.csv').read_bytes() for i in range(rounds) for k in got}
    say('different tables', len(tables), 'of all runs')
    for k, name in enumerate(('serial', 'one worker', 'two workers')):
        for j, what, unit in (2, 'rate', 'images a second'), (1, 'start', 'seconds to the first table'):
            say(f'{what} {name}', sorted(o[j] for o in got[k])[rounds//2], unit)


def memory(d, sizes, say):
    "Peaks on small images, with two workers"
    for n in sizes:
        _, peaks = watched(d/'small', folder(d/f'n{n}', n, 96), d/f'{n}.csv', 2)
        assert (d/f'{n}.csv').read_bytes().count(b'\n') == n + 1
        for name, mb in peaks.items(): say(f'memory {name} {n}', mb, 'MB at the peak')


def projected(
    images:int,       # how many
    machines:int,     # with a GPU each
    price:float,      # of a machine for an hour
    decode:float,     # images a second that one core decodes
    network:float,    # images a second that the network sees on one machine
    megabytes:float,  # of an image
    written:float,    # lines a second that the main process writes
    start:float,      # seconds until the workers have started
    kept:float=1.,    # fraction of a machine's rate that is left when many share the work
    cores:int=16,     # of a machine
    bandwidth:float=1250, # megabytes a second from the store to one machine
    listed:float=10_000, # names a second that the store lists
    request:float=4e-7 # price of reading one image
)->dict: # hours of each part if it were alone, `hours` in all, `slowest` part, `cost`
    "Time and cost of predicting images on many machines: all parts go on at the same time, the slowest decides"
    parts = dict(decoding=images/(decode*cores*machines*kept), network=images/(network*machines*kept),
                 transfer=images*megabytes/(bandwidth*machines), writing=images/written, listing=images/listed)
    slowest = max(parts, key=parts.get)
    hours = (parts[slowest] + start)/3600
    parts = {k: v/3600 for k, v in parts.items()}
    return parts | dict(hours=hours, slowest=slowest, cost=hours*machines*price + images*request)


def ten_million(m, kind, **kwargs):
    """The projection from measured parts. Assumed: a GPU sees 2000 images a second; a machine has 16 cores and
    costs one currency unit an hour; nine tenths of its rate are left when ten share the work; 10,000 names are
    listed and 1250 megabytes sent a second; a million requests cost .4"""
    return projected(10**7, price=1, decode=m[f'decode {kind}'], megabytes=m[f'size {kind}'], written=m['written'],
                     start=m['start two workers'], kept=.9, **dict(machines=10, network=2000) | kwargs)


def cost():
    "By the number of machines, and on ten machines by the rate of the GPU"
    m, kinds = pd.read_csv(stored_results()/'far.csv').set_index('what').value, ('leaf', 'photograph')
    for name, values in dict(machines=(1, 10), network=(200, 2000, 20_000)).items():
        t = pd.DataFrame({(k, n): ten_million(m, k, **{name: n}) for k in kinds for n in values})
        print(t.map(lambda o: o if isinstance(o, str) else f'{o:.2f}').rename_axis(columns=['', name]), '\n')


@call_parse
def main(
    *what:str,       # parts, speed, memory; by default these three; or cost
    quick:bool=False # a tenth of the images, and write nothing?
):
    if what == ('cost',): return cost()
    what, rows, path = what or ('parts', 'speed', 'memory'), {}, stored_results()/'far.csv'
    if not quick and path.exists(): rows = {k: tuple(v) for k, *v in pd.read_csv(path).to_numpy()}
    def say(name, value, unit):
        rows[name] = float(f'{value:.4g}'), unit
        print(f'{name:24} {value:10.4g} {unit}', flush=True)
        table = pd.DataFrame([(k, *v) for k, v in rows.items()], columns=['what', 'value', 'unit'])
        if not quick: table.to_csv(path, index=False)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        def made(name, size): # both are trained on images in the folder above
            (d/f'for {name}').mkdir()
            model = make_model(d/f'for {name}'/name, size)
            os.rename(d/f'for {name}'/name, d/name)
            return model
        if {'parts', 'speed'} & set(what): model = made('model', 224)
        if 'parts' in what:
            parts(d, model, say)
            writing(d, say)
        if 'speed' in what: speed(d, 200 if quick else 2000, 1 if quick else 3, say)
        if 'memory' in what:
            made('small', 32)
            memory(d, (200, 800) if quick else (2000, 8000), say)
