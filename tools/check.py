"""Fail if the package, the notebooks and README.md have drifted apart, or if a notebook holds noise."""
import filecmp, json, shutil, subprocess, sys, tempfile
from pathlib import Path

root = Path(__file__).resolve().parents[1]
bin_ = Path(sys.executable).parent
problems = []

with tempfile.TemporaryDirectory() as d: # export a copy, compare it with what is committed
    copy = Path(d)/'copy'
    ignore = shutil.ignore_patterns('.venv', '.git', '__pycache__', '_docs', '_proc', 'demo', 'build', '*.egg-info')
    shutil.copytree(root, copy, symlinks=True, ignore=ignore)
    for tool in 'nbdev-export', 'nbdev-clean': subprocess.run([bin_/tool], cwd=copy, check=True)
    for p in sorted([*copy.glob('bn_imbalance/*.py'), *copy.glob('nbs/**/*.ipynb')]):
        rel = p.relative_to(copy)
        if not (root/rel).exists() or not filecmp.cmp(p, root/rel, shallow=False):
            problems.append(f'{rel}: not in sync. Run nbdev-export and nbdev-clean, and commit what they change.')
    for p in sorted(root.glob('bn_imbalance/*.py')):
        if not (copy/p.relative_to(root)).exists(): problems.append(f'{p.relative_to(root)}: no notebook exports it.')

for p in sorted(root.glob('nbs/**/*.ipynb')):
    for cell in json.loads(p.read_text())['cells']:
        source, outputs = ''.join(cell['source']), json.dumps(cell.get('outputs', []))
        if not isinstance(cell['source'], list): problems.append(f'{p.relative_to(root)}: a cell\'s source is not a list of lines.')
        if cell['cell_type'] == 'code' and any(len(l) > 120 and not l.startswith('#|') for l in source.split('\n')):
            problems.append(f'{p.relative_to(root)}: a line is over 120 characters: {source[:40]!r}')
        for bad in 'Traceback (most recent', 'Warning:', str(Path.home()) + '/', str(root.parent) + '/':
            if bad in outputs: problems.append(f'{p.relative_to(root)}: an output holds {bad!r}, after {source[:60]!r}')

if subprocess.run([sys.executable, root/'tools'/'readme.py', '--check']).returncode: problems.append('README.md: not made from nbs/index.ipynb. Run make readme.')
print('\n'.join(problems) or 'In sync: package, notebooks, README.md')
sys.exit(bool(problems))
