"""Make bn_imbalance/data/NAME.csv.xz, the list that `bn-data fetch NAME` works from, out of the published files.

usage: python tools/source_list.py NAME FOLDER   (class folders such as Apple___healthy, and groups.csv)"""
import csv, io, lzma, sys
from pathlib import Path
from bn_imbalance.data.download import blob_sha1
from bn_imbalance.data.items import from_folder, groups_by_name
from bn_imbalance.data.sources import SOURCES

name, root = sys.argv[1], Path(sys.argv[2])
items, text = from_folder(root), io.StringIO()
if groups := SOURCES[name].groups: items = groups_by_name(items, groups)
rows = csv.writer(text, lineterminator='\n')
rows.writerow(['class', 'file', 'sha1', 'group'])
for path, label, group in items.itertuples(index=False):
    p = Path(path)
    if 'GHLB_PS' in p.name: continue # photographed on black: a network would learn the background
    known = group != f'{label}/{p.name}'
    rows.writerow([label, p.name, blob_sha1(p.read_bytes()), group if known else ''])
dest = Path(__file__).parents[1]/'bn_imbalance'/'data'/f'{name}.csv.xz'
dest.write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
print(f'{dest.name}: {text.getvalue().count(chr(10)) - 1} images, {dest.stat().st_size} bytes')
