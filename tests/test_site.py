"""The site: what holds for the notebooks, for nbdev's processing of them, and for the pages that Sphinx builds."""
import ast, base64, json, os, re, shutil, subprocess, sys
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile
import pytest, yaml
from fastcore.basics import AttrDict
from fastcore.nbio import read_nb

root = Path(__file__).resolve().parents[1]
nbs = root/'nbs'
sys.path.insert(0, str(root/'tools'))
import docs, start
from readme import directives

notebooks = sorted(p for p in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
COURSE = 'course', 'appendix'
an_api_page = next(p for p in notebooks if p.parent.name == 'data' and '"#| export\\n",\n    "def ' in p.read_text())
each = pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
PICTURES = 'image/png', 'image/jpeg', 'image/svg+xml'


def outputs(cell): return [(o, o.get('data', {})) for o in cell.get('outputs', [])]
def pictured(cell): return any(m in data for _, data in outputs(cell) for m in PICTURES)
def prose(path): return re.sub(r'^```.*?^```', '', '\n\n'.join(
    c.source for c in read_nb(path).cells if c.cell_type == 'markdown'), flags=re.S|re.M)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "`(folder of processed notebooks, folder of pages)`, made in a process of its own: exported cells are run for it"
    out = tmp_path_factory.mktemp('site')
    before = (nbs/'nbdev.yml').read_text()
    code = f'import docs, os; os.chdir(docs.root); exit(docs.build_sphinx(docs.processed(), docs.Path({str(out)!r})))'
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
        drawn, alt = pictured(cell), directives(cell.source).get('fig-alt')
        assert drawn == bool(alt), f'a picture without alt text, or alt text without a picture: {cell.source[:80]}'
        if drawn: assert re.fullmatch(r'"[^"]{25,}"', alt), f'{alt!r} in: {cell.source[:80]}'
        assert not any('<img' in ''.join(data.get('text/html', '')) for _, data in outputs(cell))


@each
def test_outputs_tell_of_no_machine(path):
    for cell in read_nb(path).cells:
        if cell.cell_type != 'code': continue
        text = json.dumps(cell.get('outputs', []))
        assert not [p for p in (gettempdir(), str(Path.home())) if f'{p}/' in text], cell.source[:80]


@each
def test_no_output_is_missing(path):
    for cell in read_nb(path).cells:
        silent = {'hide', 'export', 'eval', 'default_exp'} & directives(cell.source).keys()
        if cell.cell_type != 'code' or outputs(cell) or silent or cell.source.rstrip().endswith(';'): continue
        if cell.id == start.ID: continue
        for node in ast.parse(cell.source).body[-1:]:
            text = ast.unparse(node)
            assert not isinstance(node, ast.Expr) or text.startswith('test_'), f'a value that is not shown: {text}'


def test_chapters_have_numbers_and_are_linked_by_them():
    chapters = {re.match(r'0*(\w+?)_', p.name)[1].upper(): p for p in notebooks if p.parent.name in COURSE}
    for n, p in chapters.items(): # not "1. ": Pandoc would read a list
        assert read_nb(p).cells[0].source.startswith(f'# {n} · ')
    for path in notebooks:
        text = prose(path)
        for n, link in re.findall(r'\[(?:[Cc]hapter |[Aa]ppendix )?(\d|[A-H])(?: ·[^]]*)?\]\((.*?)(?:#.*?)?\)', text):
            assert (path.parent/link).resolve() == chapters[n], (path.name, n, link)
        found = re.findall(r'(?<!\[)\b(?:[Cc]hapters? \d|[Aa]ppendix [A-H]\b).*', text)
        assert not found, f'{path.name}: not linked: {found}'


def test_notebooks_start_anywhere():
    text = start.source('https://github.com/me/bn')
    assert text.splitlines()[-1].endswith('pip install -q "bn_imbalance[course] @ git+https://github.com/me/bn"')
    assert 'name the repository in pyproject.toml' in start.source('')
    nb = dict(cells=[dict(id='title'), dict(id='next')])
    once = start.with_start(nb, text)
    assert [c['id'] for c in once['cells']] == ['title', start.ID, 'next']
    assert start.with_start(start.with_start(once, start.source('')), text) == once
    for path in notebooks:
        assert read_nb(path).cells[1].id == start.ID, f'{path.name}: run tools/start.py'
    for colab, says in ('', ''), ('1', 'name the repository in pyproject.toml'):
        line = start.source('').splitlines()[-1].removeprefix('! ')
        env = os.environ | dict(COLAB_RELEASE_TAG=colab)
        done = subprocess.run(['bash', '-c', line], env=env, capture_output=True, text=True)
        assert not done.returncode and says in done.stdout and bool(says) == bool(done.stdout)


@pytest.mark.parametrize('path', [p for p in notebooks if p.parent.name in COURSE], ids=lambda p: p.stem)
def test_chapters_hide_no_import(path):
    for cell in read_nb(path).cells:
        hidden = cell.cell_type == 'code' and 'hide' in directives(cell.source)
        assert not (hidden and re.search(r'^\s*(from|import) ', cell.source, re.M)), cell.source[:80]


@each
def test_outputs_are_not_large(path):
    assert path.stat().st_size < 1.2e6, 'Run tools/pictures.py: it makes the pictures smaller.'


# What the site is told

def test_every_notebook_is_in_the_sidebar_in_order():
    sections = docs.sidebar()
    rooms = [p.name for p in sorted((root/'bn_imbalance').iterdir()) if (p/'__init__.py').exists()]
    names = [name for name, _ in sections]
    assert names[:4] == [None, 'Course', 'Appendices', 'Foundations'] and names[-1] == 'Commands'
    assert sorted(names[4:-1]) == rooms
    listed = [nbs/p for _, ps in sections for p in ps]
    assert listed[0] == nbs/'index.ipynb' and sorted(listed) == notebooks
    for _, ps in sections[1:]:
        numbers = [re.match(r'\d+|[a-h]|index', p.name)[0].replace('index', '') for p in ps]
        assert numbers == sorted(numbers)
    assert len({docs.nbpath2html(p) for p in listed}) == len(listed), 'two notebooks become the same page'


def test_settings_name_files_that_exist():
    assert (nbs/'_quarto.yml').resolve() == root/'_quarto.yml'
    site, html = docs.site, docs.quarto['format']['html']
    keys = ('title favicon image image-alt open-graph twitter-card search page-navigation back-to-top-navigation '
            'repo-subdir repo-actions page-footer sidebar') # Quarto stops at one that it does not know
    assert set(site) <= set(keys.split()), 'look it up in Quarto\'s reference, then add it here'
    themes = [o for theme in html['theme'].values() for o in theme if o.endswith('scss')]
    named = [*docs.quarto['metadata-files'], *docs.quarto['project']['resources'], site['favicon'], site['image'][1:]]
    named += themes
    assert not [o for o in named if not (nbs/o).is_file()]
    assert (nbs/site['image'][1:]).stat().st_size < 150_000
    assert html['keep-md'], 'without it Quarto 1.9 removes index.html.md as an intermediate file, and stops'
    assert html['canonical-url'] and html['code-overflow'] == 'wrap' and html['html-math-method'] == 'mathml'
    missing = (nbs/'404.qmd').read_text()
    assert yaml.safe_load(missing.split('---')[1])['format']['html'], 'or it gets a Markdown page, too'
    for text in site['page-footer']['left'], missing: # what starts with a slash holds on pages of every depth
        for link in re.findall(r'\]\((?!https?:)(.*?)\)', text):
            assert link[0] == '/' and (nbs/urlsplit(link).path[1:]).is_file(), link
    assert '/index.ipynb#sources' in site['page-footer']['left'] and '## Sources' in prose(nbs/'index.ipynb')
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


def test_workflow_of_the_site_leads_to_the_sources(tmp_path):
    jobs = yaml.safe_load((root/'.github'/'workflows'/'docs.yml').read_text())['jobs']
    steps = [s.get('run', '') for s in jobs['build']['steps']]
    at = [next(i for i, s in enumerate(steps) if word in s) for word in ('[project.urls]', 'nbdev-export', 'make docs')]
    assert at == sorted(at)
    copy = tmp_path/'copy'
    ignore = shutil.ignore_patterns('.venv', '.git', '__pycache__', '_docs', '_proc', 'tests')
    shutil.copytree(root, copy, symlinks=True, ignore=ignore)
    env = os.environ | dict(REPOSITORY='https://github.com/me/bn', SITE='https://me.github.io/bn/')
    paths = os.pathsep.join([str(copy), str(copy/'tools')]) # as `make docs` has them
    run = lambda *command: subprocess.run(command, cwd=copy, env=env | dict(PYTHONPATH=paths), check=True)
    run('bash', '-c', steps[at[0]])
    run(Path(sys.executable).parent/'nbdev-export')
    code = f"from nbdev.serve import proc_nbs; proc_nbs(n_workers=0, force=True, file_glob='{an_api_page.name}')"
    run(sys.executable, '-c', code)
    text = (copy/'_proc'/an_api_page.relative_to(nbs)).read_text()
    link = r'\[source\]\(https://github\.com/me/bn/blob/main/bn_imbalance/data/\w+\.py#L\d+\)'
    assert text.count('[source](') == len(re.findall(link, text)) > 0
    assert f'https://colab.research.google.com/github/me/bn/blob/main/nbs/data/{an_api_page.name}' in text


# Processing

@each
def test_processed_notebook(built, path):
    cells = json.loads((built[0]/path.relative_to(nbs)).read_text())['cells']
    head = yaml.safe_load(''.join(cells[0]['source']).strip().strip('-'))
    assert head['title'] and head['description'] and head['output-file'] == docs.nbpath2html(path).name
    assert (head['image'], head['image-alt']) == (docs.site['image'], docs.site['image-alt'])
    assert head['title'] == read_nb(path).cells[0].source.splitlines()[0][2:]
    assert not [c for c in cells if 'execution' in c['metadata']]
    for c in cells:
        lines = [l for l in c['source'] if not l.startswith('#|')]
        folded = '#| code-fold: true\n' in c['source']
        drawn = path.parent.name in COURSE and pictured(c) and len(lines) > 7
        assert folded == (drawn or c['id'] == start.ID or 'code-summary' in ''.join(c['source'])), lines
        assert r'\,' not in ''.join(c['source']), 'becomes a backslash on the Markdown page'
        for out, data in outputs(c): # for others Quarto loads RequireJS and jQuery from elsewhere
            assert set(data) <= {'text/plain', 'text/markdown', *PICTURES}
            shown = ''.join(data.get('text/markdown', ''))
            own = '<figure class="two-logits">', 'class="controls"' # which have all they need
            assert '<script' not in shown or any(o in shown for o in own)
            assert not re.search(r'\d \[[-+.\d]+, [-+.\d]+\]', shown), shown # a table may break before the bracket
            if 'image/png' in data: # from here Quarto 1.9 reads how wide it shall be, not from `#| out-width`
                pixels = int.from_bytes(base64.b64decode(''.join(data['image/png']))[16:20], 'big')
                assert out['metadata']['image/png'] == {'width': pixels//2}
        assert 'out-width' not in ''.join(c['source'])
    figure = re.compile(r'^#\| fig-cap: "Figure (\w+)\.(\d+): ', re.M)
    captions = [m for c in cells for m in figure.findall(''.join(c['source']))]
    numbered = [c for c in cells if path.parent.name in COURSE and pictured(c)]
    assert captions == [(head['title'].split()[0], str(k + 1)) for k in range(len(numbered))]
    bare = lambda source: re.sub(r'^#\|.*\n?', '', ''.join(source), flags=re.M).strip()
    hidden = {bare(c.source) for c in read_nb(path).cells if c.cell_type == 'code' and 'hide' in directives(c.source)}
    assert not hidden & {bare(c['source']) for c in cells}


def slug(heading): # as Pandoc makes it
    plain = re.sub(r'\[([^]]*)\]\([^)]*\)|[`*]', r'\1', heading.lower())
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', plain).strip()))


@each
def test_identifiers_are_unique_and_tables_parse(built, path):
    ids = []
    for c in json.loads((built[0]/path.relative_to(nbs)).read_text())['cells']:
        texts = [''.join(data.get('text/markdown', '')) for _, data in outputs(c)]
        if c['cell_type'] == 'markdown': texts = [''.join(c['source'])]
        for text in texts:
            text = re.sub(r'^ *```.*?^ *```', '', text, flags=re.S|re.M)
            for heading in re.findall(r'^#{2,6} (.*)$', text, re.M):
                named = re.search(r'\{#(\S+)', heading)
                ids.append(named[1] if named else slug(heading))
            for table in re.findall(r'(?:^\|.*\|$\n?)+', text, re.M): # a pipe within code divides cells, too
                assert len({row.replace(r'\|', '').count('|') for row in table.splitlines()}) == 1, table
    assert len(set(ids)) == len(ids), sorted(o for o in set(ids) if ids.count(o) > 1)


def test_page_follows_the_address_of_the_project(monkeypatch):
    import page as _docs
    def page(**address):
        cfg = dict(git_url='', doc_host='', doc_baseurl='/', branch='main', nbs_path=nbs, version='1')
        cfg = AttrDict(cfg | address)
        monkeypatch.setattr(_docs, 'get_config', lambda: cfg)
        nb = read_nb(an_api_page)
        home = f'{cfg.doc_host}{cfg.doc_baseurl.rstrip("/")}/'
        links = f'[`suggest`]({home}data/images.html#near) [x](https://x.org/api/y.html)'
        text = f'[source]({cfg.git_url}/blob/main/x.py)\n\n### near\n\n{links}'
        cell = _docs.mk_cell(text, 'markdown', metadata={'execution': 1})
        proc = _docs.Page(nb)
        proc.begin(); proc(cell)
        return cell, nb.cells[1].source
    cell, top = page()
    assert cell.source == '### near\n\n[`suggest`](../data/images.html#near) [x](https://x.org/api/y.html)'
    assert cell.metadata == {}
    assert 'Colab' not in top
    name, data = re.search(r'download="(.*?)" href="data:.*?;base64,(.*?)"', top).groups()
    got, want = json.loads(base64.b64decode(data))['cells'], json.loads((nbs/'data'/name).read_text())['cells']
    assert [c['source'] for c in got] == [c['source'] for c in want] and not any(c.get('outputs') for c in got)
    cell, top = page(git_url='https://github.com/me/bn', doc_host='https://me.github.io', doc_baseurl='/bn')
    assert cell.source.startswith('[source](https://github.com/me/bn/blob/main/x.py)')
    assert '](../data/images.html#near)' in cell.source
    assert f'"https://colab.research.google.com/github/me/bn/blob/main/nbs/data/{an_api_page.name}"' in top
    assert 'download=' in top


def test_constants():
    from page import constants
    assert constants('A = 1 # one\n_b = 2\ndef f(): C = 3\nD, E = (4,\n5)') == ['A = 1 # one', 'D, E = (4,\n5)']
    assert constants('Model.save = save_model\nx[0] = 1') == []


def test_entries_of_the_library():
    from page import api_entry, unbroken
    entry = '---\n\n### {0}\n\n```python\ndef {0}(\n    n:int=2, # how many\n){1}:\n```\n\n*It*'
    want = '---\n\n## {0} {{#{2} .api}}\n\n```python\n{3} {0}(\n    n:int=2, # how many\n){1}\n```\n\n*It*'
    assert api_entry(entry.format('Body', '->None')) == want.format('Body', '', 'body', 'class')
    assert api_entry(entry.format('LDAM', '')) == want.format('LDAM', '', 'ldam', 'class')
    assert api_entry(entry.format('fit', '->Body')) == want.format('fit', '->Body:', 'fit', 'def')
    assert unbroken('a .95 [.9, 1.0], +.1 [-.2, +.3] x') == 'a .95\xa0[.9,\xa01.0], +.1\xa0[-.2,\xa0+.3] x'
    assert unbroken('<td>.95 [.9, 1.0]', table=True) == '<td>.95 [.9,\xa01.0]'
    assert unbroken('95 % of `5 % 3`\n```\n5 % 3\n```') == '95\xa0% of `5 % 3`\n```\n5 % 3\n```'
    assert api_entry('*n / (C * n_c)*\n**b**') == '*n / (C \\* n_c)*\n**b**'
    assert api_entry('w:NoneType=None, # weights') == 'w=None, # weights'
    assert api_entry('### A.__repr__') == '## `A.__repr__` {#a.__repr__ .api}'


def test_a_table_has_one_head():
    import pandas as pd
    from page import one_head
    t = pd.DataFrame(dict(a=[1], b=[2]), index=pd.Index(['x'], name='recipe'))
    made = one_head(t.to_html())
    assert made.count('<tr') == 2 and re.findall('<th>(.*?)</th>', made) == ['recipe', 'a', 'b', 'x']
    assert one_head(t.rename_axis('set', axis=1).to_html()) == made
    for other in t.rename_axis(None), pd.concat({'k': t}, axis=1): # no name; two levels
        assert one_head(other.to_html()) == other.to_html()


def test_markdown_pages_share_pictures(tmp_path):
    for page, pictures in dict(one='ab', two='a').items():
        (tmp_path/f'{page}.html.md').write_text(f'![]({page}_files/figure-commonmark/b.png)')
        for kind in 'html', 'commonmark': (tmp_path/f'{page}_files'/f'figure-{kind}').mkdir(parents=True)
        for p in pictures: (tmp_path/f'{page}_files'/'figure-html'/f'{p}.png').touch()
        (tmp_path/f'{page}_files'/'figure-commonmark'/'b.png').touch()
    docs.share_pictures(tmp_path)
    assert (tmp_path/'one.html.md').read_text() == '![](one_files/figure-html/b.png)'
    assert (tmp_path/'two.html.md').read_text() == '![](two_files/figure-commonmark/b.png)', 'the other is not there'
    assert [p.parent.name for p in tmp_path.rglob('figure-commonmark')] == ['two_files']


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
    for css in built[1].rglob('*.css'):
        assert not re.search(r'(url\(|@import )[\'" ]*(https?:)?//', css.read_text()), css


@each
def test_page_shows_what_the_notebook_shows(built, pages, path):
    soup = pages[built[1]/docs.nbpath2html(path.relative_to(nbs))]
    article, cells = soup.find('article'), read_nb(path).cells
    shown = [c for c in cells if 'hide' not in directives(c.source)]
    drawn = [alt for c in shown for alt in (re.findall(r'!\[([^]]*)\]\(', c.source) if c.cell_type == 'markdown' else
             [directives(c.source)['fig-alt'].strip('"')] if pictured(c) else [])]
    assert [i['alt'] for i in article.find_all('img')] == drawn
    tables = [d for c in shown for _, d in outputs(c) if 'class="dataframe"' in ''.join(d.get('text/html', ''))]
    assert len(article.select('table.dataframe')) == len(tables)
    code = [re.sub(r'^#\|.*\n', '', c.source, flags=re.M).strip() for c in cells if 'echo' in directives(c.source)]
    assert not [c for c in code if c in article.get_text()]
    folded = sum(c.source.count('collapse="true"') for c in cells if c.cell_type == 'markdown')
    assert len(article.select('details.callout > summary')) == folded and ':::' not in article.get_text()
    done = json.loads((built[0]/path.relative_to(nbs)).read_text())['cells']
    assert len(article.select('details.code > summary')) == sum('#| code-fold: true\n' in c['source'] for c in done)
    assert article.find('math') or '$' not in re.sub(r'`.*?`', '', prose(path), flags=re.S)
    assert '{=html}' not in article.get_text() and '.api}' not in article.get_text()
    assert soup.select_one('a.notebook-link[download]') and soup.select_one('.cite a[href$="index.html#sources"]')
    titles = [read_nb(p).cells[0].source.splitlines()[0][2:] for p in notebooks if p.name != 'index.ipynb']
    assert set(titles) <= {a.get_text() for a in soup.select('.sidebar-tree a')}
    contents = {a.get_text() for a in soup.select('.toc-tree a')}
    assert {h.get_text().rstrip('¶') for h in article.find_all(['h2', 'h3'])} <= contents


def test_chapters_come_as_one_file(built):
    with ZipFile(built[1]/'notebooks.zip') as z:
        found = {n: json.loads(z.read(n)) for n in z.namelist()}
    assert sorted(found) == sorted(f'bn_imbalance/{p.relative_to(nbs)}' for p in notebooks if p.parent.name in COURSE)
    assert not any(c.get('outputs') for nb in found.values() for c in nb['cells'])


def test_api_pages_name_the_chapters_that_use_them(built, pages):
    shown = lambda name: pages[built[1]/f'{name}.html'].find('article').get_text()
    assert re.search(r'Used in chapter 1, .*chapter 8, .*appendix G', shown('core'))
    assert 'Used in chapter 7.' in shown('find/search') and 'Used in' not in shown('report/html')
    assert 'Version 0' in shown('index')


def test_every_public_symbol_is_on_a_page(pages):
    ids = {t['id'] for soup in pages.values() for t in soup.find_all(id=True)}
    code = '\n'.join(t.get_text() for soup in pages.values() for t in soup.find_all('pre'))
    missing = []
    for module in (root/'bn_imbalance').glob('[a-z]*.py'):
        body = ast.parse(module.read_text()).body
        listed = next(n.value for n in body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')
        defined = {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        constant = lambda n: n not in defined and re.search(rf'^[\w, ]*\b{n}\b[\w, ]* = ', code, re.M)
        missing += [f'{module.stem}.{n}' for n in ast.literal_eval(listed) if n.lower() not in ids and not constant(n)]
    assert not missing
