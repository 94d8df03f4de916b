"""What becomes of each notebook on its way to a page, after nbdev's own processing.

nbdev finds it by the line `doc_procs` in pyproject.toml; tools/docs.py puts this folder on its path.
"""
import ast, base64, json, re
from functools import lru_cache
from importlib import import_module
from pathlib import Path
import yaml
from fastcore.nbio import mk_cell
from nbdev.config import get_config
from nbdev.process import Processor

COURSE = dict(course='chapter', appendix='appendix') # folders of notebooks, and what one of them is called


def constants(source):
    "The lines of `source` that give a public name a value"
    lines = source.splitlines()
    def public(node):
        parts = [o for t in getattr(node, 'targets', []) for o in ast.walk(t)]
        names = [o.id for o in parts # no `Model.save = …`
                 if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)]
        return names and not any(n.startswith('_') for n in names)
    return ['\n'.join(lines[node.lineno - 1:node.end_lineno]) for node in ast.parse(source).body if public(node)]


def api_entry(text):
    "What show_doc says, with a heading of the second level (Quarto's search lists no others) and `class` for classes"
    def heading(m): # underscores would be bold
        return f'## {f"`{m[1]}`" if "__" in m[1] else m[1]} {{#{m[1].lower()} .api}}'
    text = re.sub(r'^### (\S+)$', heading, text, flags=re.M)
    text = re.sub(r'^\*(?!\*)(.+)\*$', lambda m: '*' + m[1].replace('*', r'\*') + '*', text, flags=re.M) # a docstring
    text = text.replace(':NoneType=None', '=None')
    return re.sub(r'^```python\ndef ([A-Z].*?)(->None)?:\n```', r'```python\nclass \1\n```', text, flags=re.M|re.S)


def unbroken(text, table=False):
    "No line ends inside `.95 [.93, .97]` (in a table before the bracket) or `95 %`; code stays as it is"
    spaces = r'(?<=\d,) (?=[-+−.\d]+\])|(?<=\d) (?=%)' + (r'|(?<=\d) (?=\[[-+−.\d]+, )' if not table else '')
    return re.sub(rf'(```.*?```|`[^`\n]+`)|{spaces}', lambda m: m[1] or '\xa0', text, flags=re.S)


def one_head(html):
    "The names to which pandas gives a row of their own, those of an index, go into the first cells of the row above"
    def merged(m):
        upper, lower = (re.findall(r'<th[^>]*>(.*?)</th>', o, re.S) for o in m.groups())
        k = sum(map(bool, lower)) # the name of the columns, if any, makes room for that of the index
        if 'span=' in m[1] or len(upper) != len(lower) or not all(lower[:k]) or any(upper[:k-1]): return m[0]
        return f'<thead><tr>{"".join(f"<th>{o}</th>" for o in lower[:k] + upper[k:])}</tr></thead>'
    return re.sub(r'<thead>\s*<tr[^>]*>(.*?)</tr>\s*<tr[^>]*>(.*?)</tr>\s*</thead>', merged, html, flags=re.S)


@lru_cache
def unshown(folder):
    "Anchors of what is exported but has no entry on a page; nbdev links to it all the same"
    names = {'export': set(), 'exporti': set()}
    for path in folder.rglob('*.ipynb'):
        for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            if kind := re.match(r'#\|\s*(exporti?)\s*$', source, re.M):
                names[kind[1]] |= {m.lower() for m in re.findall(r'^(?:def|class) (\w+)', source, re.M)}
    return names['exporti'] - names['export']


def title_number(nb): return ''.join(nb['cells'][0]['source'])[2:].split(' ')[0] # of a chapter: 3, or A

def imported(nb):
    "Modules of the package that the code of a notebook takes names from, the ones where they are written"
    code = '\n'.join(''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code')
    for node in ast.walk(ast.parse(re.sub(r'^[!%].*', '', code, flags=re.M))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or '').startswith('bn_imbalance'): continue
        there = import_module(node.module)
        for o in node.names: yield getattr(getattr(there, o.name), '__module__', node.module)

@lru_cache
def users(folder):
    "Module -> `(what, number, path from `folder`)` of the chapters and appendices that use it, in order"
    out = {}
    for path in (p for part in COURSE for p in sorted((folder/part).glob('*.ipynb'))):
        nb = json.loads(path.read_text(encoding='utf-8'))
        told = COURSE[path.parent.name], title_number(nb), path.relative_to(folder).as_posix()
        for module in dict.fromkeys(imported(nb)): out.setdefault(module, []).append(told)
    return out


class Page(Processor):
    "Links on top, constants at the end, outputs as Quarto wants them, links that hold wherever the site stands"
    def begin(self):
        self.cfg, path = get_config(), Path(self.nb.path_).resolve()
        self.rel = path.relative_to(self.cfg.nbs_path.resolve())
        # the site's card on each page; Quarto would take the first figure
        site = yaml.safe_load((self.cfg.nbs_path/'_quarto.yml').read_text(encoding='utf-8'))['website']
        card = yaml.dump({k: site[k] for k in ('image', 'image-alt')}, width=1000)
        self.nb.cells[0].source = re.sub(r'^---\n', lambda m: f'---\n{card}', self.nb.cells[0].source)
        nb = json.loads(path.read_text(encoding='utf-8'))
        self.figures, self.number = 0, title_number(nb)
        code = [c for c in nb['cells'] if c['cell_type'] == 'code']
        for c in code: c['outputs'] = []
        links = []
        if 'github.com/' in self.cfg.git_url:
            repo, at = self.cfg.git_url.split('github.com/')[1], f'{self.cfg.nbs_path.name}/{self.rel.as_posix()}'
            url = f'https://colab.research.google.com/github/{repo}/blob/{self.cfg.branch}/{at}'
            links.append(f'<a class="notebook-link" href="{url}">Open in Colab</a>')
        # inside the page: it needs no address, works from a disk, and Quarto does not make it a link to the page itself
        data = base64.b64encode(json.dumps(nb, ensure_ascii=False).encode()).decode()
        links.append(f'<a class="notebook-link" download="{path.name}" '
                     f'href="data:application/x-ipynb+json;base64,{data}">Download the notebook</a>')
        up = '../'*(len(self.rel.parts) - 1)
        links.append(f'<a class="notebook-link" download href="{up}notebooks.zip">All notebooks (zip)</a>')
        links.append(f'<span>Version {self.cfg.version}</span>')
        html = '```{=html}\n<p class="notebook-links">' + '\n'.join(links) + '</p>\n```'
        self.nb.cells.insert(1, mk_cell(f'::: {{.content-visible when-format="html"}}\n{html}\n:::', 'markdown'))
        module = re.search(r'^#\|\s*default_exp (\S+)', '\n'.join(''.join(c['source']) for c in code), re.M)
        if module and (told := users(self.cfg.nbs_path.resolve()).get(f'bn_imbalance.{module[1]}')):
            used = ', '.join(f'[{what} {number}]({up}{path})' for what, number, path in told)
            self.nb.cells.insert(2, mk_cell(f'Used in {used}.', 'markdown'))
        # show_doc knows functions and classes only
        exported = [s for c in code if re.match(r'#\|\s*export\s*$', s := ''.join(c['source']), re.M)]
        if values := [v for s in exported for v in constants(s)]:
            self.nb.cells.append(mk_cell('## Constants\n\n```python\n' + '\n'.join(values) + '\n```', 'markdown'))

    def _mend(self, text):
        "Links to our own pages by the way from this one; no link to a source when there is no repository"
        home, up = f'{self.cfg.doc_host}{self.cfg.doc_baseurl.rstrip("/")}/', '../'*(len(self.rel.parts) - 1)
        text = re.sub(rf'\]\({re.escape(home)}(?=[\w/]+\.html)', f']({up}', text).replace('__main__.', '')
        hidden = unshown(self.cfg.nbs_path.resolve())
        text = re.sub(r'\[(`[^`\]]+`)\]\([^)\s]+\.html#([\w.]+)\)', lambda m: m[1 if m[2] in hidden else 0], text)
        # on Quarto's Markdown pages a formula's thin space would become a backslash; it is needed only after log
        text = re.sub(r'(\\log|logit\})?\\,', lambda m: f'{m[1]}~' if m[1] else ' ', text)
        return text if self.cfg.git_url else re.sub(r'^\[source\]\(/blob/.*\n+', '', text, flags=re.M)

    def cell(self, cell):
        cell.metadata.pop('execution', None) # execnb's; Quarto wraps outputs that have it, and loses headings in them
        if cell.cell_type == 'markdown': cell.source = unbroken(self._mend(cell.source))
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if 'text/html' in data: # as Markdown: beside HTML, Quarto loads jQuery and RequireJS from elsewhere
                html = re.sub(r'<style scoped>.*?</style>|\n\s*(?=\n)', '', ''.join(data.pop('text/html')), flags=re.S)
                data['text/markdown'] = f'```{{=html}}\n{unbroken(one_head(html), table=True).strip()}\n```'
            if 'text/markdown' in data:
                data['text/markdown'] = unbroken(api_entry(self._mend(''.join(data['text/markdown']))))
            if 'image/png' in data: # matplotlib's pixels are half of a page's
                width = int.from_bytes(base64.b64decode(''.join(data['image/png']))[16:20], 'big')//2
                out['metadata'] = {'image/png': {'width': width}}
        drawn = any(m.startswith('image/') for out in cell.get('outputs', []) for m in out.get('data', {}))
        lines = [l for l in cell.source.splitlines() if not l.startswith('#|')]
        if self.rel.parts[0] not in COURSE or not drawn: return
        if len(lines) > 7 and 'code-fold' not in cell.source: cell.source = f'#| code-fold: true\n{cell.source}'
        self.figures += 1
        number, alt = self.number, re.search(r'^#\| fig-alt: "(.*)"', cell.source, re.M)[1]
        cell.source = f'#| fig-cap: "Figure {number}.{self.figures}: {alt}"\n{cell.source}'
