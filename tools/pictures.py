"""Make the pictures in the notebooks smaller: each with 256 colors, if that saves a third of it.

Charts have few colors, so nothing is seen of it. A picture that has a palette already is left as it is.
"""
import base64, io, json
from pathlib import Path
from PIL import Image

root = Path(__file__).resolve().parents[1]

def smaller(png):
    "The bytes of a PNG file with a palette, or the same bytes"
    with Image.open(io.BytesIO(png)) as im:
        if im.mode == 'P' or im.convert('RGBA').getextrema()[3][0] < 255: return png
        few = im.convert('RGB').quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(out := io.BytesIO(), 'PNG', optimize=True, dpi=im.info.get('dpi'))
    return out.getvalue() if len(out.getvalue()) < len(png)*2/3 else png

def with_smaller(nb):
    "The notebook with smaller pictures"
    for cell in nb['cells']:
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if png := data.get('image/png'):
                data['image/png'] = base64.b64encode(smaller(base64.b64decode(''.join(png)))).decode()
    return nb

if __name__ == '__main__':
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in p.parts: continue
        text = p.read_text()
        new = json.dumps(with_smaller(json.loads(text)), indent=1, ensure_ascii=False) + '\n'
        if len(new) < len(text): p.write_text(new)
