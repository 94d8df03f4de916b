"""Build the site in _docs: by Quarto where there is one, otherwise by Sphinx, from the same processed notebooks.

Both take title, footer and sidebar from _quarto.yml and colors from nbs/styles. What Sphinx builds needs no server and
no network, so it can be read from a disk. `docs.py llms` only writes nbs/llms.txt, the list for language models.
"""
import json, os, re, shutil, subprocess, sys, tempfile, warnings
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile
import yaml
from fastcore.nbio import nb_frontmatter, read_nb
from nbdev.config import get_config, nbpath2html
from page import COURSE
from readme import convert

tools = Path(__file__).resolve().parent
sys.path.insert(0, str(tools)) # where nbdev finds page.py, whatever the working directory is
root = tools.parent
nbs = root/'nbs'
quarto = yaml.safe_load((root/'_quarto.yml').read_text())
site = quarto['website']

def sidebar():
    "`[(section or None, its notebooks in order)]`, paths from nbs/"
    def of(pattern): return sorted(p.relative_to(nbs) for p in nbs.glob(pattern))
    def section(o): return o['section'], [p for k in ('href', 'contents') if k in o for p in of(o[k])]
    return [(None, of(o)) if isinstance(o, str) else section(o) for o in site['sidebar']['contents']]

def llms():
    "Text of llms.txt (llmstxt.org): every page as Markdown, with what its notebook says it is about"
    lines = [f'# {site["title"]}', f'> {get_config(root).description}']
    for section, notebooks in sidebar():
        if section: lines.append(f'## {section}')
        about = [(nbpath2html(p).as_posix(), nb_frontmatter(read_nb(nbs/p))) for p in notebooks]
        lines.append('\n'.join(f'- [{d["title"]}]({p}.md): {d["description"]}' for p, d in about))
    return '\n\n'.join(lines) + '\n'

def callout(m):
    "A Quarto callout in HTML, folded if it was; its text stays Markdown"
    attrs, title, text = m.groups()
    kind = attrs.split()[0].removeprefix('.callout-')
    title = re.sub(r'`(.+?)`', r'<code>\1</code>', title or kind.capitalize())
    tag, head = ('details', 'summary') if 'collapse="true"' in attrs else ('div', 'p')
    return f'<{tag} class="callout callout-{kind}">\n<{head}>{title}</{head}>\n\n{text.strip()}\n\n</{tag}>'

def page(path):
    "A processed notebook as Markdown: `(for Sphinx, for readers of llms.txt, pictures by name)`"
    nb = read_nb(path)
    head = yaml.safe_load(''.join(nb['cells'].pop(0)['source']).strip().strip('-'))
    text, pictures = convert(nb, Path(head['output-file']).stem)
    sub = lambda pattern, to, text: re.sub(pattern, to, text, flags=re.M|re.S)
    text = sub(r'\]\(([\w/.]+\.ipynb)', lambda m: f']({nbpath2html(m[1]).as_posix()}', text)
    text = f'# {head["title"]}\n\n> {head["description"]}\n\n' + sub(r'<!-- W[^>]*-->\n*|\{target=[^}]*\}', '', text)
    html_only, raw = r'^::: \{\.content-visible when-format="html"\}\n(.*?)\n:::$', r'^```\{=html\}\n(.*?)\n```$'
    plain = sub(html_only + r'| \{#\S+ \.api\}$', '', text)
    plain = sub(r'!\[[^\n]*\]\([^)\n]*\)(\{[^}\n]*\})?\n+<p class="figcaption">(.*?)</p>', r'*\2*', plain)
    plain = sub(r'!\[([^\n]*)\]\([^)\n]*\)(\{[^}\n]*\})?', r'*Figure: \1*', plain)
    def entry(m): # Sphinx makes the identifier of a heading that is one plain word
        rule = '<hr>' if m[3].isalnum() else f'<hr id="{m[3]}">'
        return f'{rule}\n\n{m[1] or ""}### {m[2]}'
    text = sub(r'^---\n\n(\[source\][^\n]*\n+)?## (\S+) \{#(\S+) \.api\}$', entry, text)
    text = sub(r'^::: ?\{(\.callout-[^}]*)\}\n(?:#+ ([^\n]*)\n)?(.*?)^:::$', callout, sub(html_only, r'\1', text))
    return sub(raw, r'\1', text), sub(raw, r'\1', plain), pictures

def write_zip(folder):
    "`notebooks.zip` in a folder: chapters and appendices without their outputs"
    with ZipFile(folder/'notebooks.zip', 'w', ZIP_DEFLATED) as z:
        for p in sorted(p for part in COURSE for p in (nbs/part).glob('*.ipynb')):
            nb = json.loads(p.read_text())
            for c in nb['cells']: c |= dict(outputs=[]) if c['cell_type'] == 'code' else {}
            z.writestr(f'bn_imbalance/{p.relative_to(nbs)}', json.dumps(nb, indent=1, ensure_ascii=False))

def write_source(cache, src):
    "What Sphinx needs, in the folder `src`: pages, pictures, styles; in `src/extra` what it only copies"
    trees = []
    for section, notebooks in sidebar():
        pages = [nbpath2html(p).with_suffix('') for p in notebooks]
        for p, to in zip(notebooks, pages):
            text, plain, pictures = page(cache/p)
            foot = re.sub(r'\(/(\w+)\.ipynb', rf'({"../"*(len(p.parts) - 1)}\1.html', site['page-footer']['left'])
            for d in src/to, src/'extra'/to: d.parent.mkdir(parents=True, exist_ok=True)
            (src/f'{to}.md').write_text(f'{text}\n\n<div class="cite">\n\n{foot}\n\n</div>\n')
            (src/'extra'/f'{to}.html.md').write_text(plain)
            for name, data in pictures.items(): (src/to.with_name(name)).write_bytes(data)
        names = '\n'.join(p.as_posix() for p in pages)
        if section: trees.append(f'```{{toctree}}\n:hidden:\n:caption: {section}\n\n{names}\n```\n')
    with open(src/'index.md', 'a') as f: f.write('\n' + '\n'.join(trees))
    shutil.copy(nbs/'llms.txt', src/'extra')
    write_zip(src/'extra')
    (src/'images').mkdir(exist_ok=True)
    for p in (nbs/'images').glob('report.png'): shutil.copy(p, src/'images')
    (src/'site.css').write_text((nbs/'styles'/'site.scss').read_text().split('/*-- scss:rules --*/')[1])

def build_sphinx(cache, out):
    "Build the site from the processed notebooks in `cache`; the exit status, 1 after any warning"
    from sphinx.application import Sphinx
    def colors(theme):
        link = re.search(r'\$link-color: (\S+)', (nbs/'styles'/f'{theme}.scss').read_text())[1]
        return {f'color-brand-{o}': link for o in ('primary', 'content', 'visited')}
    settings = dict(
        project=site['title'], html_title=site['title'], html_favicon=str(nbs/site['favicon']), html_theme='furo',
        extensions=['myst_parser', 'docs'], exclude_patterns=['extra'], suppress_warnings=['myst.header'],
        myst_enable_extensions=['dollarmath', 'attrs_inline'], myst_all_links_external=True, highlight_language='none',
        html_theme_options={f'{t}_css_variables': colors(t) for t in ('light', 'dark')}, html_math_renderer='mathml',
        html_static_path=['site.css'], html_css_files=['site.css'], html_extra_path=['extra'], html_use_index=False,
        html_show_copyright=False, html_copy_source=False, html_show_search_summary=False) # that would need a server
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write_source(cache, tmp/'src')
        app = Sphinx(tmp/'src', None, tmp/'out', tmp/'trees', 'html', settings, status=None, warningiserror=True)
        app.build()
        if not app.statuscode:
            shutil.rmtree(out, ignore_errors=True)
            shutil.move(tmp/'out', out)
        return app.statuscode

def setup(app):
    "Sphinx: write formulas as MathML, which browsers show without a script"
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml
    def show(self, node):
        block = isinstance(node, nodes.math_block)
        math = re.sub(r'<mo>\.</mo>\s*<mn>', '<mn>.', tex2mathml(node.astext(), as_block=block)) # ".5" is one number
        self.body.append(f'<div class="math">{math}</div>' if block else math)
        raise nodes.SkipNode
    app.add_html_math_renderer('mathml', (show, None), (show, None))
    def dark(app): app.config.pygments_dark_style = 'a11y-dark' # only now does Sphinx know this setting of Furo's
    app.connect('builder-inited', dark, priority=1)

def processed():
    "The folder of the notebooks as nbdev processes them for the site"
    from nbdev.quarto import proc_nbs, refresh_quarto_yml
    warnings.filterwarnings('ignore', 'Found cells containing imports')
    refresh_quarto_yml()
    return proc_nbs(n_workers=0, force=True) # in one process: the heavy imports happen once

def share_pictures(out):
    "Quarto stores each picture twice, for HTML and for Markdown; let the Markdown pages show the first"
    for twin in list(out.rglob('figure-commonmark')):
        if any(not (twin.with_name('figure-html')/p.name).exists() for p in twin.iterdir()): continue
        for p in twin.parent.parent.glob('*.md'):
            p.write_text(p.read_text().replace(f'{twin.parent.name}/{twin.name}', f'{twin.parent.name}/figure-html'))
        shutil.rmtree(twin)

if __name__ == '__main__':
    os.chdir(root)
    out = get_config().doc_path
    (nbs/'llms.txt').write_text(llms())
    if 'llms' in sys.argv: sys.exit()
    if shutil.which('quarto'):
        env = os.environ | dict(PYTHONPATH=str(tools)) # where nbdev finds page.py
        subprocess.run([Path(sys.executable).parent/'nbdev-docs'], check=True, env=env)
        share_pictures(out)
        write_zip(out)
    else:
        print('Quarto is not installed (https://quarto.org): building a plainer site with Sphinx.')
        sys.exit(build_sphinx(processed(), out) or print(f'Open {out.relative_to(root)}/index.html'))
