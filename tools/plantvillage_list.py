"""Make bn_imbalance/plantvillage.csv.xz, the list that `bn-data fetch` works from, out of PlantVillage's own files.

usage: python tools/plantvillage_list.py FOLDER   (class folders such as Apple___healthy, and leaf_groups.csv)"""
import csv, io, lzma, sys
from pathlib import Path
from PIL import Image
from bn_imbalance.sources import blob_sha1

root = Path(sys.argv[1])
with open(root/'leaf_groups.csv', newline='', encoding='utf-8') as f:
    leaf = {(r['class'], r['file']): r['leaf'] for r in csv.DictReader(f)}
text = io.StringIO()
rows = csv.writer(text, lineterminator='\n')
rows.writerow(['class', 'file', 'sha1', 'leaf'])
for p in sorted(root.glob('*___*/*')):
    if 'GHLB_PS' in p.name: continue # photographed on black: a network would learn the background
    with Image.open(p) as im: assert im.size == (256, 256), p
    rows.writerow([p.parent.name, p.name, blob_sha1(p.read_bytes()), leaf.get((p.parent.name, p.name), '')])
dest = Path(__file__).parents[1]/'bn_imbalance'/'plantvillage.csv.xz'
dest.write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
print(f'{dest.name}: {text.getvalue().count(chr(10)) - 1} images, {dest.stat().st_size} bytes')
