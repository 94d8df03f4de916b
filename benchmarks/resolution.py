"""Does the pilot choose well how large images are seen: whole, or in tiles? Its regret.

    python benchmarks/resolution.py PLANTVILLAGE TILES --out resolution

Six image sets are made: mosaics of healthy leaves or of flawless tiles, 896 x 896 pixels, 150 ordinary and 30 rare
ones, which have one dark spot of 9, 20 or 60 pixels somewhere. Two real sets are added whose images are larger than
what the network sees, if not by much (tiles, and cells of `elpv`, if it is installed). Each is compared at every grid
that the pilot may choose, and at 2 x 2: out-of-sample AUROC of the blend and of its best recipe, means over three
splits. Then the pilot chooses. Runs go to --out, where a stopped measurement goes on; the table goes to
bn_imbalance/results/resolution.csv, a row per set and grid:

blend, best    AUROC of the blend, and of the best of ridge, knn, padim and the blend
chosen         is it what the pilot takes?
pilot          AUROC in the pilot, if it was tried there
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd
from fastcore.script import call_parse
from PIL import Image, ImageDraw, ImageFilter
from bn_imbalance.core import load_settings, stored_results, write_atomic
from bn_imbalance.data.items import read_data
from bn_imbalance.evaluate.leaderboard import rank_recipes
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.training.tiles import best_grid, grids, pilot_sample, try_grid, with_tiles

SPOTS, PIXELS, CELL = (9, 20, 60), 896, 224
RECIPES = get_recipes('ridge, knn, padim, blend')


def mosaic(files, rng):
    "A large image of 4 x 4 small ones"
    im = Image.new('RGB', (PIXELS, PIXELS))
    for i in range((PIXELS//CELL)**2):
        part = Image.open(files[rng.integers(len(files))]).convert('RGB').resize((CELL, CELL))
        im.paste(part, (i % 4*CELL, i//4*CELL))
    return im

def with_spot(im, size, rng):
    "A dark spot with a soft edge, on the image itself"
    x, y = rng.integers(size, PIXELS - size, 2)
    mask = Image.new('L', im.size)
    ImageDraw.Draw(mask).ellipse((x - size/2, y - size/2, x + size/2, y + size/2), fill=170)
    return Image.composite(Image.new('RGB', im.size, (45, 30, 20)), im, mask.filter(ImageFilter.GaussianBlur(size/12)))

def make(folder, files, size, n=(150, 30)):
    "One set; made again if it is not complete"
    if (folder/'done').exists(): return
    for kind, count in zip(('ordinary', 'spot'), n):
        (folder/kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng([size, i, kind == 'spot'])
            im = mosaic(files, rng)
            if kind == 'spot': im = with_spot(im, size, rng)
            im.save(folder/kind/f'{i:03d}.jpg', quality=95)
    (folder/'done').touch()


def judged(data, s, grid, out):
    "AUROC of each recipe, mean over the splits"
    s = replace(s, tiles='x'.join(map(str, grid)))
    runs = compare(data, s, 'all', Execution(out/s.tiles, progress=False), recipes=RECIPES)
    return rank_recipes(runs).runs.groupby('recipe').auroc.mean()

def one(name, data, out):
    "The rows of a set"
    s, rows = load_settings(seeds=3), []
    items, offered = pilot_sample(data), grids(data.pixels, s.size)
    y = (items.label == 'minority').to_numpy()
    chosen = with_tiles(data, s, RECIPES).grid
    pilots = {g: try_grid(data, items, replace(s, tiles='x'.join(map(str, g)), range=data.range)) for g in offered}
    assert chosen in ((1, 1), best_grid([*pilots.values()], y).grid)
    for grid in dict.fromkeys([*offered, (2, 2)]):
        auroc = judged(data, s, grid, out/name)
        rows.append(dict(data=name, height=data.pixels[0], width=data.pixels[1], grid='x'.join(map(str, grid)),
                         blend=auroc['blend'], best=auroc.max(), recipe=auroc.idxmax(), chosen=grid == chosen,
                         pilot=pilots[grid].auroc if grid in pilots else np.nan))
        print(rows[-1], flush=True)
    return rows


@call_parse
def main(
    plantvillage:str, # folder of PlantVillage's classes
    tiles:str,        # folder of the magnetic tiles' classes
    out:str='resolution' # for images and runs
):
    "Made sets and real ones; see above"
    out, rows = Path(out), []
    files = dict(leaves=sorted(Path(plantvillage).glob('Apple___healthy/*')),
                 tiles=sorted(Path(tiles).glob('MT_Free/**/*.jpg')))
    for kind, size in ((k, n) for k in files for n in SPOTS):
        make(out/'images'/f'{kind}-{size}', files[kind], size)
        rows += one(f'{kind}-{size}', read_data(out/'images'/f'{kind}-{size}', 'spot', 'ordinary'), out)
    for name, source in dict(tiles=(tiles, 'MT_*', 'MT_Free'), elpv=('elpv',)).items():
        rows += one(name, read_data(*source), out)
    write_atomic(stored_results()/'resolution.csv', pd.DataFrame(rows).round(4).to_csv(index=False))
