"""What becomes of each notebook on its way to a page, after nbdev's own processing. Not exported: written by hand.

nbdev finds it by the line `doc_procs` in pyproject.toml.
"""
import ast, base64, json, re
from pathlib import Path
from fastcore.nbio import mk_cell
from nbdev.config import get_config
from nbdev.process import Processor


def constants(source):
    "The lines of `source` that give a public name a value"
    lines = source.splitlines()
    def public(node):
        names = [n.id for t in getattr(node, 'targets', []) for n in ast.walk(t) if isinstance(n, ast.Name)]
        return names and not any(n.startswith('_') for n in names)
    return ['\n'.join(lines[node.lineno - 1:node.end_lineno]) for node in ast.parse(source).body if public(node)]


class Page(Processor):
    "Links on top, constants at the end, outputs as Quarto wants them, links that hold wherever the site stands"
    def begin(self):
        self.cfg, path = get_config(), Path(self.nb.path_).resolve()
        self.rel = path.relative_to(self.cfg.nbs_path.resolve())
        nb = json.loads(path.read_text(encoding='utf-8'))
        code = [c for c in nb['cells'] if c['cell_type'] == 'code']
        for c in code: c['outputs'] = []
        links = []
        if 'github.com/' in self.cfg.git_url:
            repo, at = self.cfg.git_url.split('github.com/')[1], f'{self.cfg.nbs_path.name}/{self.rel.as_posix()}'
            url = f'https://colab.research.google.com/github/{repo}/blob/{self.cfg.branch}/{at}'
            links.append(f'<a class="notebook-link" href="{url}">Open in Colab</a>')
        # inside the page: it needs no address, works from a disk, and Quarto does not make it a link to the page itself
        data = base64.b64encode(json.dumps(nb, ensure_ascii=False).encode()).decode()
        links.append(f'<a class="notebook-link" download="{path.name}" href="data:application/x-ipynb+json;base64,{data}">'
                     'Download the notebook</a>')
        html = '```{=html}\n<p class="notebook-links">' + '\n'.join(links) + '</p>\n```'
        self.nb.cells.insert(1, mk_cell(f'::: {{.content-visible when-format="html"}}\n{html}\n:::', 'markdown'))
        # show_doc knows functions and classes only
        exported = [s for c in code if re.match(r'#\|\s*export\s*$', s := ''.join(c['source']), re.M)]
        if values := [v for s in exported for v in constants(s)]:
            self.nb.cells.append(mk_cell('## Constants\n\n```python\n' + '\n'.join(values) + '\n```', 'markdown'))

    def _mend(self, text):
        "Links to our own pages by the way from this one; no link to a source when there is no repository"
        home, up = f'{self.cfg.doc_host}{self.cfg.doc_baseurl.rstrip("/")}/', '../'*(len(self.rel.parts) - 1)
        text = re.sub(rf'\]\({re.escape(home)}(?=[\w/]+\.html)', f']({up}', text).replace('__main__.', '')
        return text if self.cfg.git_url else re.sub(r'^\[source\]\(/blob/.*\n+', '', text, flags=re.M)

    def cell(self, cell):
        cell.metadata.pop('execution', None) # execnb's; Quarto wraps outputs that have it, and headings in them are lost
        if cell.cell_type == 'markdown': cell.source = self._mend(cell.source)
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = self._mend(''.join(data['text/markdown']))
            if 'image/png' in data: # matplotlib's pixels are half of a page's
                width = int.from_bytes(base64.b64decode(''.join(data['image/png']))[16:20], 'big')//2
                cell.source = f'#| out-width: {width}px\n{cell.source}'
