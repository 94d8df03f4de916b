"""Write the first code cell of every notebook: on Colab it installs the package from the project's repository.

The address stands in pyproject.toml, under [project.urls]; run this again when it changes. With --check, only say which
notebooks lack the cell.
"""
import json, sys
from pathlib import Path
from nbdev.config import get_config

root = Path(__file__).resolve().parents[1]
ID = 'start'

def source(repository, home=False):
    "The cell; on the home page of the site, and so in README.md, it is not shown"
    on_colab = '! [ -z "$COLAB_RELEASE_TAG" ] ||' # Colab sets this variable
    if repository: run = f'pip install -q "bn_imbalance[course] @ git+{repository}"'
    else: run = 'echo "No address: name the repository in pyproject.toml and run tools/start.py"'
    if home: head = '#| hide\n'
    else: head = '#| code-fold: true\n#| code-summary: "On Colab: install the package"\n'
    return f'{head}{on_colab} {run}'

def with_start(nb, text):
    "The notebook with the cell behind its title"
    cells = [c for c in nb['cells'] if c.get('id') != ID]
    cell = dict(cell_type='code', execution_count=None, id=ID, metadata={}, outputs=[], source=text.splitlines(True))
    return nb | dict(cells=[cells[0], cell, *cells[1:]])

if __name__ == '__main__':
    repository, lacking = get_config(root).git_url, []
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in p.parts: continue
        nb = json.loads(p.read_text())
        new = with_start(nb, source(repository, p == root/'nbs'/'index.ipynb'))
        if new == nb: continue
        lacking.append(p.relative_to(root))
        if '--check' not in sys.argv: p.write_text(json.dumps(new, indent=1, ensure_ascii=False) + '\n')
    if '--check' in sys.argv and lacking:
        print('\n'.join(f'{p}: its first cell does not install the package. Run tools/start.py.' for p in lacking))
        sys.exit(1)
