"""Make README.md from nbs/index.ipynb and its stored outputs; with --check, only say whether it is up to date.

nbdev's own step needs Quarto, which not every machine has. Pictures go to nbs/images.
"""
import base64, json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
images = Path('nbs')/'images'

def directives(source): return dict(re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', source, re.M))

def convert(nb):
    "Markdown text, and {path: bytes} of its pictures"
    text, pictures = [], {}
    for cell in nb['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': text.append(source); continue
        d = directives(source)
        if 'hide' in d: continue
        code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
        if d.get('echo') != 'false' and code: text.append(f'```python\n{code}\n```')
        for out in cell['outputs']:
            data = out.get('data', {})
            if 'image/png' in data:
                path = images/f'index-{len(pictures) + 1}.png'
                pictures[path] = base64.b64decode(''.join(data['image/png']))
                text.append(f'![{d.get("fig-alt", "").strip(chr(34))}]({path.as_posix()})')
            elif 'text/markdown' in data: text.append(''.join(data['text/markdown']))
            else: text.append('```\n' + ''.join(data.get('text/plain') or out.get('text', '')).rstrip() + '\n```')
    note = '<!-- Made from nbs/index.ipynb by tools/readme.py. Edit the notebook. -->\n\n'
    return note + '\n\n'.join(t.strip() for t in text if t.strip()) + '\n', pictures

text, pictures = convert(json.loads((root/'nbs'/'index.ipynb').read_text()))
if '--check' in sys.argv:
    same = (root/'README.md').exists() and (root/'README.md').read_text() == text
    sys.exit(not (same and all((root/p).exists() and (root/p).read_bytes() == b for p, b in pictures.items())))
(root/'README.md').write_text(text)
for p, b in pictures.items():
    (root/p).parent.mkdir(parents=True, exist_ok=True)
    (root/p).write_bytes(b)
