"""The site: what holds for the notebooks, for nbdev's processing of them, and for the pages that Sphinx builds."""
import ast, base64, json, re, subprocess, sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest, yaml
from fastcore.basics import AttrDict
from fastcore.nbio import read_nb

root = Path(__file__).resolve().parents[1]
nbs = root/'nbs'
sys.path.insert(0, str(root/'tools'))
import docs
from readme import directives

notebooks = sorted(p for p in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
each = pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
PICTURES = 'image/png', 'image/jpeg', 'image/svg+xml'


def outputs(cell): return [(o, o.get('data', {})) for o in cell.get('outputs', [])]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "`(folder of processed notebooks, folder of pages)`, made in a process of its own: exported cells are run for it"
    out = tmp_path_factory.mktemp('site')
    before = (nbs/'nbdev.yml').read_text()
    code = f'import os, docs; os.chdir({str(root)!r}); assert not docs.build_sphinx(docs.processed(), docs.Path({str(out)!r}))'
    done = subprocess.run([sys.executable, '-c', code], cwd=root/'tools', capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    assert (nbs/'nbdev.yml').read_text() == before, 'nbs/nbdev.yml is not what pyproject.toml says. Commit it.'
    return root/'_proc', out


# The notebooks

@each
def test_fences_of_callouts_balance(path):
    for cell in read_nb(path).cells:
        if cell.cell_type != 'markdown': continue
        text = re.sub(r'^```.*?^```', '', cell.source, flags=re.S|re.M)
        assert not re.search(r'^> \[!', text, re.M), 'Quarto shows this as a quotation; write ::: {.callout-note}'
        depth = 0
        for line in text.splitlines():
            if ':::' not in line: continue
            opens, closes = re.fullmatch(r'::: \{\.[^{}]+\}', line), line == ':::'
            assert opens or closes, f'not alone on its line: {line}'
            depth += 1 if opens else -1
            assert depth in (0, 1), line
        assert depth == 0, cell.source[:80]


@each
def test_figures_have_alt_text(path):
    for cell in read_nb(path).cells:
        drawn, alt = any(m in data for _, data in outputs(cell) for m in PICTURES), directives(cell.source).get('fig-alt')
        assert drawn == bool(alt), f'a picture without alt text, or alt text without a picture: {cell.source[:80]}'
        if drawn: assert re.fullmatch(r'"[^"]{25,}"', alt), f'{alt!r} in: {cell.source[:80]}'
        assert not any('<img' in ''.join(data.get('text/html', '')) for _, data in outputs(cell))


@each
def test_no_output_is_missing(path):
    for cell in read_nb(path).cells:
        silent = {'hide', 'export', 'eval', 'default_exp'} & directives(cell.source).keys()
        if cell.cell_type != 'code' or outputs(cell) or silent or cell.source.rstrip().endswith(';'): continue
        for node in ast.parse(cell.source).body[-1:]:
            text = ast.unparse(node)
            assert not isinstance(node, ast.Expr) or text.startswith('test_'), f'ends in a value, but shows none: {text}'


def test_outputs_are_not_large():
    size = sum(len(json.dumps(c.get('outputs', []))) for p in notebooks for c in json.loads(p.read_text())['cells'])
    assert size < 25e6


# What the site is told

def test_every_notebook_is_in_the_sidebar_in_order():
    sections = docs.sidebar()
    assert [name for name, _ in sections] == [None, 'Course', 'Library']
    listed = [nbs/p for _, ps in sections for p in ps]
    assert listed[0] == nbs/'index.ipynb' and sorted(listed) == notebooks
    for _, ps in sections[1:]:
        numbers = [re.match(r'\d+', p.name)[0] for p in ps]
        assert numbers == sorted(numbers)
    assert len({docs.nbpath2html(p) for p in listed}) == len(listed), 'two notebooks become the same page'


def test_settings_name_files_that_exist():
    assert (nbs/'_quarto.yml').resolve() == root/'_quarto.yml'
    site, html = docs.site, docs.quarto['format']['html']
    keys = ('title favicon image image-alt open-graph twitter-card search page-navigation back-to-top-navigation repo-subdir '
            'repo-actions page-footer sidebar') # Quarto stops at one that it does not know
    assert set(site) <= set(keys.split()), 'look it up in Quarto\'s reference, then add it here'
    themes = [o for theme in html['theme'].values() for o in theme if o.endswith('scss')]
    named = [*docs.quarto['metadata-files'], *docs.quarto['project']['resources'], site['favicon'], site['image'][1:], *themes]
    assert not [o for o in named if not (nbs/o).is_file()]
    assert (nbs/site['image'][1:]).stat().st_size < 150_000
    rules = (nbs/'styles'/'site.scss').read_text().split('/*-- scss:rules --*/')[1]
    assert not re.search(r'[$@]|//|&', rules), 'only plain CSS works without Quarto, too'


def test_list_for_language_models_is_in_sync():
    assert (nbs/'llms.txt').read_text() == docs.llms(), 'run make readme'


def test_citation():
    cff = yaml.safe_load((root/'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(cff) and cff['license'] == 'Apache-2.0'


@pytest.mark.parametrize('path', sorted((root/'.github'/'workflows').glob('*.yml')), ids=lambda p: p.stem)
def test_workflows_are_pinned_and_may_do_little(path):
    for action in re.findall(r'uses: *(.*)', path.read_text()):
        assert action.startswith('./') or re.fullmatch(r'[\w./-]+@[0-9a-f]{40} # v[\d.]+', action), action
    assert yaml.safe_load(path.read_text())['permissions'] == {'contents': 'read'}


# Processing

@each
def test_processed_notebook(built, path):
    cells = json.loads((built[0]/path.relative_to(nbs)).read_text())['cells']
    head = yaml.safe_load(''.join(cells[0]['source']).strip().strip('-'))
    assert head['title'] and head['description'] and head['output-file'] == docs.nbpath2html(path).name
    assert not [c for c in cells if 'execution' in c['metadata']]
    bare = lambda source: re.sub(r'^#\|.*\n?', '', ''.join(source), flags=re.M).strip()
    hidden = {bare(c.source) for c in read_nb(path).cells if c.cell_type == 'code' and 'hide' in directives(c.source)}
    assert not hidden & {bare(c['source']) for c in cells}


def test_page_follows_the_address_of_the_project(monkeypatch):
    from bn_imbalance import _docs
    def page(**address):
        cfg = AttrDict(dict(git_url='', doc_host='', doc_baseurl='/', branch='main', nbs_path=nbs) | address)
        monkeypatch.setattr(_docs, 'get_config', lambda: cfg)
        nb = read_nb(nbs/'api'/'00_core.ipynb')
        home = f'{cfg.doc_host}{cfg.doc_baseurl.rstrip("/")}/'
        links = f'[`near`]({home}api/core.html#near) [x](https://x.org/api/y.html)'
        text = f'[source]({cfg.git_url}/blob/main/x.py)\n\n### near\n\n{links}'
        cell = _docs.mk_cell(text, 'markdown', metadata={'execution': 1})
        proc = _docs.Page(nb)
        proc.begin(); proc(cell)
        return cell, nb.cells[1].source
    cell, top = page()
    assert cell.source == '### near\n\n[`near`](../api/core.html#near) [x](https://x.org/api/y.html)' and cell.metadata == {}
    assert 'Colab' not in top
    name, data = re.search(r'download="(.*?)" href="data:.*?;base64,(.*?)"', top).groups()
    got, want = json.loads(base64.b64decode(data))['cells'], json.loads((nbs/'api'/name).read_text())['cells']
    assert [c['source'] for c in got] == [c['source'] for c in want] and not any(c.get('outputs') for c in got)
    cell, top = page(git_url='https://github.com/me/bn', doc_host='https://me.github.io', doc_baseurl='/bn')
    assert cell.source.startswith('[source](https://github.com/me/bn/blob/main/x.py)')
    assert '](../api/core.html#near)' in cell.source
    assert 'href="https://colab.research.google.com/github/me/bn/blob/main/nbs/api/00_core.ipynb"' in top and 'download=' in top


def test_constants():
    from bn_imbalance._docs import constants
    assert constants('A = 1 # one\n_b = 2\ndef f(): C = 3\nD, E = (4,\n5)') == ['A = 1 # one', 'D, E = (4,\n5)']


# The pages

@pytest.fixture(scope='module')
def pages(built):
    from bs4 import BeautifulSoup
    return {p: BeautifulSoup(p.read_text(), 'html.parser') for p in built[1].rglob('*.html')}


def test_links_anchors_and_pictures_resolve(built, pages):
    out, broken = built[1], []
    for page, soup in pages.items():
        links = [(t.get('href') or t.get('src')) for t in soup.find_all(['a', 'img', 'script', 'link'])]
        for link in filter(None, links):
            url = urlsplit(link)
            if url.scheme in ('http', 'https', 'data'): continue
            target = (page.parent/unquote(url.path)).resolve() if url.path else page
            there = target.is_file() and target.is_relative_to(out)
            anchored = not url.fragment or target not in pages or pages[target].find(id=unquote(url.fragment))
            if not there or not anchored: broken.append(f'{page.relative_to(out)}: {link}')
    for page in out.rglob('*.md'):
        text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.S|re.M)
        for link in re.findall(r'\]\(([^)\s]+)\)', text):
            url = urlsplit(link)
            if not url.scheme and not (page.parent/url.path).is_file(): broken.append(f'{page.name}: {link}')
    for link in re.findall(r'\]\((.*?)\)', (out/'llms.txt').read_text()):
        if not (out/link).is_file(): broken.append(f'llms.txt: {link}')
    assert not broken


def test_pages_ask_no_other_machine(built, pages):
    for page, soup in pages.items():
        asked = [t.get('src') or t.get('href') for t in soup.find_all(['script', 'img', 'iframe', 'source', 'link'])]
        assert not [u for u in asked if u and re.match(r'(https?:)?//', u)], page
        assert str(root) not in page.read_text() and '/tmp/' not in page.read_text()
    for css in built[1].rglob('*.css'): assert not re.search(r'(url\(|@import )[\'" ]*(https?:)?//', css.read_text()), css


@each
def test_page_shows_what_the_notebook_shows(built, pages, path):
    soup = pages[built[1]/docs.nbpath2html(path.relative_to(nbs))]
    article, cells = soup.find('article'), read_nb(path).cells
    shown = [c for c in cells if 'hide' not in directives(c.source)]
    drawn = [directives(c.source)['fig-alt'].strip('"') for c in shown if any(m in d for _, d in outputs(c) for m in PICTURES)]
    assert [i['alt'] for i in article.find_all('img')] == drawn
    tables = [d for c in shown for _, d in outputs(c) if 'class="dataframe"' in ''.join(d.get('text/html', ''))]
    assert len(article.select('table.dataframe')) == len(tables)
    code = [re.sub(r'^#\|.*\n', '', c.source, flags=re.M).strip() for c in cells if 'echo' in directives(c.source)]
    assert not [c for c in code if c in article.get_text()]
    folded = sum(c.source.count('collapse="true"') for c in cells if c.cell_type == 'markdown')
    assert len(article.select('details.callout > summary')) == folded and ':::' not in article.get_text()
    prose = '\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    formulas = '$' in re.sub(r'^```.*?^```|`.*?`', '', prose, flags=re.S|re.M)
    assert article.find('math') or not formulas
    assert soup.select_one('a.notebook-link[download]') and soup.select_one('.cite a')
    contents = {a.get_text() for a in soup.select('.toc-tree a')}
    assert {h.get_text().rstrip('¶') for h in article.find_all(['h2', 'h3'])} <= contents


def test_every_public_symbol_is_on_a_page(pages):
    ids = {t['id'] for soup in pages.values() for t in soup.find_all(id=True)}
    code = '\n'.join(t.get_text() for soup in pages.values() for t in soup.find_all('pre'))
    missing = []
    for module in (root/'bn_imbalance').glob('[a-z]*.py'):
        body = ast.parse(module.read_text()).body
        public = next(ast.literal_eval(n.value) for n in body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')
        defined = {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        missing += [f'{module.stem}.{n}' for n in public
                    if n.lower() not in ids and (n in defined or not re.search(rf'^[\w, ]*\b{n}\b[\w, ]* = ', code, re.M))]
    assert not missing
