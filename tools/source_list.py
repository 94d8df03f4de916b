"""Make bn_imbalance/NAME.csv.xz, the list that `bn-data fetch NAME` works from, out of the published files.

usage: python tools/source_list.py NAME FOLDER   (class folders such as Apple___healthy, and groups.csv)"""
import csv, io, lzma, sys
from pathlib import Path
from bn_imbalance.data import from_folder
from bn_imbalance.sources import blob_sha1, tile_groups

name, root = sys.argv[1], Path(sys.argv[2])
items, text = from_folder(root), io.StringIO()
if name == 'magnetic_tile': # their groups are told by the names alone
    tiles = {k: tile_groups(Path(p).name for p in g.path) for k, g in items.groupby('label')}
    items['group'] = [f'{k}-{tiles[k][Path(p).name]}' for p, k in zip(items.path, items.label)]
rows = csv.writer(text, lineterminator='\n')
rows.writerow(['class', 'file', 'sha1', 'group'])
for path, label, group in items.itertuples(index=False):
    p = Path(path)
    if 'GHLB_PS' in p.name: continue # photographed on black: a network would learn the background
    known = group != f'{label}/{p.name}'
    rows.writerow([label, p.name, blob_sha1(p.read_bytes()), group if known else ''])
dest = Path(__file__).parents[1]/'bn_imbalance'/f'{name}.csv.xz'
dest.write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
print(f'{dest.name}: {text.getvalue().count(chr(10)) - 1} images, {dest.stat().st_size} bytes')
