"""Build the site in _docs: by Quarto where there is one, otherwise by Sphinx, from the same processed notebooks.

Both take title, footer and sidebar from _quarto.yml and colors from nbs/styles. What Sphinx builds needs no server and no
network, so it can be read from a disk. `docs.py llms` only writes nbs/llms.txt, the list of pages for language models.
"""
import json, os, re, shutil, subprocess, sys, tempfile, warnings
from pathlib import Path
import yaml
from fastcore.nbio import nb_frontmatter, read_nb
from nbdev.config import get_config, nbpath2html
from readme import convert

root = Path(__file__).resolve().parents[1]
nbs = root/'nbs'
quarto = yaml.safe_load((root/'_quarto.yml').read_text())
site = quarto['website']

def sidebar():
    "`[(section or None, its notebooks in order)]`, paths from nbs/"
    found = lambda pattern: sorted((p.relative_to(nbs) for p in nbs.glob(pattern)), key=lambda p: p.name.lower())
    items = [(None, o) if isinstance(o, str) else (o['section'], o['contents']) for o in site['sidebar']['contents']]
    return [(section, found(pattern)) for section, pattern in items]

def llms():
    "Text of llms.txt (llmstxt.org): every page as Markdown, with what its notebook says it is about"
    lines = [f'# {site["title"]}', f'> {get_config(root).description}']
    for section, notebooks in sidebar():
        if section: lines.append(f'## {section}')
        about = [(nbpath2html(p), nb_frontmatter(read_nb(nbs/p))) for p in notebooks]
        lines.append('\n'.join(f'- [{d["title"]}]({p.as_posix()}.md): {d["description"]}' for p, d in about))
    return '\n\n'.join(lines) + '\n'

def callout(m):
    "A Quarto callout in HTML, folded if it was; its text stays Markdown"
    attrs, title, text = m.groups()
    kind = re.search(r'callout-(\w+)', attrs)[1]
    title = re.sub(r'`(.+?)`', r'<code>\1</code>', title or kind.capitalize())
    tag, head = ('details', 'summary') if 'collapse="true"' in attrs else ('div', 'p')
    return f'<{tag} class="callout callout-{kind}">\n<{head}>{title}</{head}>\n\n{text.strip()}\n\n</{tag}>'

def page(path):
    "A processed notebook as Markdown: `(for Sphinx, for readers of llms.txt, pictures by name)`"
    nb = json.loads(path.read_text(encoding='utf-8'))
    head = yaml.safe_load(''.join(nb['cells'].pop(0)['source']).strip().strip('-'))
    stem = Path(head['output-file']).stem
    text, pictures = convert(nb, stem)
    text = re.sub(r'<!-- WARNING.*?-->\n*', '', text)
    text = re.sub(r'\]\(([\w/.]+\.ipynb)', lambda m: f']({nbpath2html(m[1]).as_posix()}', text)
    text = re.sub(r'\{target="_blank"[^}]*\}', '', text)
    text = f'# {head["title"]}\n\n> {head["description"]}\n\n{text}'
    html_only = r'^::: \{\.content-visible when-format="html"\}\n```\{=html\}\n(.*?)\n```\n:::'
    plain = re.sub(r'!\[(.*)\]\([^)]*\)(\{.*\})?', r'*Figure: \1*', re.sub(html_only, '', text, flags=re.M|re.S))
    text = re.sub(html_only, r'\1', text, flags=re.M|re.S)
    text = re.sub(r'^::: ?\{(\.callout-[^}]*)\}\n(?:#+ ([^\n]*)\n)?(.*?)^:::$', callout, text, flags=re.M|re.S)
    named = lambda m: f'<hr id="{m[2].lower()}">\n\n{m[1] or ""}### {m[2]}\n' # Quarto's anchor for what show_doc shows
    text = re.sub(r'^---\n\n(\[source\].*\n+)?### (\S+)\n', named, text, flags=re.M)
    return stem, text, plain, pictures

def write_source(cache, src):
    "What Sphinx needs, in the folder `src`: pages, pictures, styles; in `src/extra` what it only copies"
    trees, footer = [], site['page-footer']['left']
    for section, notebooks in sidebar():
        names = []
        for p in notebooks:
            stem, text, plain, pictures = page(cache/p)
            foot = re.sub(r'\((\w+)\.ipynb', rf'({"../"*(len(p.parts) - 1)}\1.html', footer)
            for d in src, src/'extra': (d/p).parent.mkdir(parents=True, exist_ok=True)
            (src/p.with_name(f'{stem}.md')).write_text(f'{text}\n\n<div class="cite">\n\n{foot}\n\n</div>\n')
            (src/'extra'/p.with_name(f'{stem}.html.md')).write_text(plain)
            for name, data in pictures.items(): (src/p.with_name(name)).write_bytes(data)
            names.append(p.with_name(stem).as_posix())
        if section: trees.append(f'```{{toctree}}\n:hidden:\n:caption: {section}\n\n' + '\n'.join(names) + '\n```\n')
    with open(src/'index.md', 'a') as f: f.write('\n' + '\n'.join(trees))
    shutil.copy(nbs/'llms.txt', src/'extra')
    (src/'static').mkdir()
    (src/'static'/'site.css').write_text((nbs/'styles'/'site.scss').read_text().split('/*-- scss:rules --*/')[1])

def sphinx_settings():
    "Sphinx's, MyST's and Furo's settings"
    def colors(theme):
        link = re.search(r'\$link-color: (\S+)', (nbs/'styles'/f'{theme}.scss').read_text())[1]
        return {f'color-brand-{o}': link for o in ('primary', 'content', 'visited')}
    return dict(
        project=site['title'], html_title=site['title'], html_favicon=str(nbs/site['favicon']), html_show_copyright=False,
        extensions=['myst_parser', 'docs'], exclude_patterns=['extra'], suppress_warnings=['myst.header'],
        myst_enable_extensions=['dollarmath', 'attrs_inline'], myst_all_links_external=True,
        html_theme='furo', html_theme_options={f'{t}_css_variables': colors(t) for t in ('light', 'dark')},
        html_static_path=['static'], html_css_files=['site.css'], html_extra_path=['extra'], html_math_renderer='mathml',
        html_use_index=False, html_copy_source=False, html_show_search_summary=False, # it would need a server
        highlight_language='none')

def build_sphinx(cache, out):
    "Build the site from the processed notebooks in `cache`; the exit status, 1 after any warning"
    from sphinx.application import Sphinx
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write_source(cache, tmp/'src')
        app = Sphinx(tmp/'src', None, tmp/'out', tmp/'trees', 'html', sphinx_settings(), status=None, warningiserror=True)
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
    dark = lambda app: setattr(app.config, 'pygments_dark_style', 'a11y-dark') # only now does Sphinx know Furo's setting
    app.connect('builder-inited', dark, priority=1)
    return dict(parallel_read_safe=True, parallel_write_safe=True)

def processed():
    "The folder of the notebooks as nbdev processes them for the site"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    warnings.filterwarnings('ignore', 'Found cells containing imports')
    refresh_quarto_yml()
    return proc_nbs(n_workers=0, force=True) # in one process: the heavy imports happen once

if __name__ == '__main__':
    os.chdir(root)
    (nbs/'llms.txt').write_text(llms())
    if 'llms' in sys.argv: sys.exit()
    if shutil.which('quarto'): sys.exit(subprocess.run([Path(sys.executable).parent/'nbdev-docs']).returncode)
    print('Quarto is not installed (https://quarto.org): building a plainer site with Sphinx.')
    out = get_config().doc_path
    if status := build_sphinx(processed(), out): sys.exit(status)
    print(f'Open {out.relative_to(root)}/index.html')
