"""Make README.md from nbs/index.ipynb and its stored outputs; with --check, only say whether it is up to date.

nbdev's own step needs Quarto, which not every machine has. Pictures go to nbs/images.
"""
import base64, json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]

def directives(source): return dict(re.findall(r'^#\|\s*([\w-]+):?\s*(.*)$', source, re.M))

def convert(nb, pictures_at):
    "Markdown text, and {path: bytes} of its pictures; the paths start with `pictures_at`"
    text, pictures = [], {}
    for cell in nb['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code': text.append(source); continue
        d = directives(source)
        if 'hide' in d: continue
        code = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip()
        if d.get('echo') != 'false' and code:
            code = f'```{"bash" if code[0] == "!" else "python"}\n{code}\n```'
            fold = d.get('code-fold') == 'true'
            summary = d.get('code-summary', 'Code').strip('"')
            folded = f'<details class="code">\n<summary>{summary}</summary>\n\n{code}\n\n</details>'
            text.append(folded if fold else code)
        for out in cell['outputs']:
            data = out.get('data', {})
            if picture := next((m for m in ('image/png', 'image/jpeg') if m in data), None):
                path = f'{pictures_at}-{len(pictures) + 1}.{picture[6:]}'
                pictures[path] = base64.b64decode(''.join(data[picture]))
                width = out.get('metadata', {}).get(picture, {}).get('width')
                width = f'{{width={width}px}}' if width else ''
                text.append(f'![{d.get("fig-alt", "").strip(chr(34))}]({path}){width}')
                if 'fig-cap' in d: text.append(f'<p class="figcaption">{d["fig-cap"].strip(chr(34))}</p>')
            elif 'text/markdown' in data: text.append(''.join(data['text/markdown']))
            else: text.append('```text\n' + ''.join(data.get('text/plain') or out.get('text', '')).rstrip() + '\n```')
    return '\n\n'.join(t.strip() for t in text if t.strip()) + '\n', pictures

if __name__ == '__main__':
    text, pictures = convert(json.loads((root/'nbs'/'index.ipynb').read_text()), 'nbs/images/index')
    text = re.sub(r'\]\((?=[\w/]+\.ipynb|images/)', '](nbs/', text) # links in the notebook start from its folder
    text = f'<!-- Made from nbs/index.ipynb by tools/readme.py. Edit the notebook. -->\n\n{text}'
    if '--check' in sys.argv:
        same = (root/'README.md').exists() and (root/'README.md').read_text() == text
        sys.exit(not (same and all((root/p).exists() and (root/p).read_bytes() == b for p, b in pictures.items())))
    (root/'README.md').write_text(text)
    for p, b in pictures.items():
        (root/p).parent.mkdir(parents=True, exist_ok=True)
        (root/p).write_bytes(b)
