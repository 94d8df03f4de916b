"""What becomes of each notebook on its way to a page, after nbdev's own processing. Not exported: written by hand.

nbdev finds it by the line `doc_procs` in pyproject.toml.
"""
import base64, json, re
from pathlib import Path
from nbdev.config import get_config
from nbdev.process import Processor
from fastcore.nbio import mk_cell


class Page(Processor):
    "Links to Colab and to the notebook on top; outputs as Quarto wants them; links that hold wherever the site stands"
    def begin(self):
        self.cfg, path = get_config(), Path(self.nb.path_).resolve()
        self.rel = path.relative_to(self.cfg.nbs_path.resolve())
        self.home = f'{self.cfg.doc_host}{self.cfg.doc_baseurl.rstrip("/")}/'
        links = []
        if 'github.com' in self.cfg.git_url:
            repo = self.cfg.git_url.split('github.com/')[1]
            url = f'https://colab.research.google.com/github/{repo}/blob/{self.cfg.branch}/{self.cfg.nbs_path.name}/{self.rel.as_posix()}'
            links.append(f'<a class="notebook-link" href="{url}">Open in Colab</a>')
        nb = json.loads(path.read_text(encoding='utf-8'))
        for cell in nb['cells']:
            if cell['cell_type'] == 'code': cell['outputs'] = []
        # inside the page, so that it needs no address, works from a disk, and Quarto does not turn it into a link to the page
        data = base64.b64encode(json.dumps(nb, ensure_ascii=False).encode()).decode()
        links.append(f'<a class="notebook-link" download="{path.name}" href="data:application/x-ipynb+json;base64,{data}">Download the notebook</a>')
        html = '```{=html}\n<p class="notebook-links">' + '\n'.join(links) + '</p>\n```'
        self.nb.cells.insert(1, mk_cell(f'::: {{.content-visible when-format="html"}}\n{html}\n:::', 'markdown'))

    def _relative(self, text):
        "Links to our own pages by the way from this one; no link to a source when there is no repository"
        up = '../'*(len(self.rel.parts) - 1)
        text = re.sub(rf'\]\({re.escape(self.home)}(?=[\w/]+\.html)', f']({up}', text)
        return text if self.cfg.git_url else re.sub(r'^\[source\]\(/blob/.*\n+', '', text, flags=re.M)

    def cell(self, cell):
        cell.metadata.pop('execution', None) # execnb's; Quarto wraps outputs that have it, and headings in them are lost
        if cell.cell_type == 'markdown': cell.source = self._relative(cell.source)
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = self._relative(''.join(data['text/markdown']))
