"""The shape of the house: who imports whom, where PyTorch is, how long a cell and a line may be."""
import ast, json, re, shutil, subprocess, sys
from functools import cache
from pathlib import Path
import pytest
from bn_imbalance.core import stored_results

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT/'bn_imbalance'
NETWORKS = 'torch', 'torchvision', 'timm', 'fastai'
HEADER = re.compile(r'File to edit: \.\./nbs/api/(\d\d)_(\w+)\.ipynb')
ROOMS = {p.stem: int(m[1]) for p in sorted(PACKAGE.glob('*.py')) if (m := HEADER.search(p.read_text()))}
# what stored runs are read and judged with
JUDGING = [name for name, n in ROOMS.items() if n < 10 or 30 <= n < 40 or name == 'decide']
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
SCRIPTS = [p for folder in ('tests', 'tools', 'benchmarks') for p in sorted((ROOT/folder).glob('*.py'))]


@cache
def tree(room): return ast.parse((PACKAGE/f'{room}.py').read_text())


def imports_in(node):
    "(line, module of the package or None, what else is imported, names) of each import, in functions too"
    for o in ast.walk(node):
        if isinstance(o, ast.Import):
            for a in o.names: yield o.lineno, *_place(a.name), []
        elif isinstance(o, ast.ImportFrom):
            path = 'bn_imbalance' + ('.' + o.module if o.module else '') if o.level else o.module
            if path == 'bn_imbalance': # from . import core
                for a in o.names: yield o.lineno, *_place(f'{path}.{a.name}'), []
            else: yield o.lineno, *_place(path), [a.name for a in o.names]


def _place(path):
    first, *rest = path.split('.')
    return (rest[0] if rest else None, None) if first == 'bn_imbalance' else (None, first)


@cache
def reached(room):
    "{library: rooms on the way} of everything that importing or calling a room may import"
    out = {}
    for _, mine, other, _ in imports_in(tree(room)):
        if other: out.setdefault(other, (room,))
        elif mine in ROOMS and mine != room:
            for library, way in reached(mine).items(): out.setdefault(library, (room, *way))
    return out


def test_imports_are_found():
    "The tests below would pass if they saw nothing"
    code = ('import os.path, bn_imbalance.leaves\nfrom .core import *\nfrom . import data\n'
            'def f():\n    from bn_imbalance.sweep import How, _no\n    from fastai.vision.all import Learner')
    assert [o[1:] for o in imports_in(ast.parse(code))] == [
        (None, 'os', []), ('leaves', None, []), ('core', None, ['*']), ('data', None, []),
        ('sweep', None, ['How', '_no']), (None, 'fastai', ['Learner'])]
    assert {'core', 'recipes', 'sweep', 'leaderboard', 'fit', 'cli'} <= set(ROOMS) and len(ROOMS) > 30
    assert {'core', 'records', 'leaderboard', 'report', 'ablation'} <= set(JUDGING) and 'recipes' not in JUDGING
    assert reached('sweep')['fastai'] and 'torch' in reached('cli') and len(NOTEBOOKS) > 40 and len(SCRIPTS) > 20


def test_every_room_has_a_number_of_its_own():
    numbers = [p.name[:2] for p in (ROOT/'nbs/api').glob('*.ipynb')]
    assert len(set(numbers)) == len(numbers) == len(ROOMS) and sorted(map(int, numbers)) == sorted(ROOMS.values())


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_stands_on_lower_ones(room):
    bad = [f'line {line}: imports {mine} ({ROOMS.get(mine)})' for line, mine, _, _ in imports_in(tree(room))
           if mine and ROOMS.get(mine, 100) >= ROOMS[room]]
    assert not bad, f'{room} ({ROOMS[room]}): {bad}'


@pytest.mark.parametrize('room', ROOMS)
def test_private_names_stay_at_home(room):
    names = [f'line {line}: {name} of {mine}' for line, mine, _, names in imports_in(tree(room)) if mine
             for name in names if name.startswith('_')]
    modules = {m for m in ROOMS if m != room}
    def private(o): # othermodule._name, bn_imbalance.othermodule._name
        return (isinstance(o, ast.Attribute) and o.attr.startswith('_') and not o.attr.startswith('__')
                and getattr(o.value, 'id', getattr(o.value, 'attr', None)) in modules - _variables(tree(room)))
    names += [f'line {o.lineno}: {ast.unparse(o)}' for o in ast.walk(tree(room)) if private(o)]
    exported = next(ast.literal_eval(o.value) for o in tree(room).body if isinstance(o, ast.Assign)
                    and o.targets[0].id == '__all__')
    assert not names and not [n for n in exported if n.startswith('_')], names


def _variables(node): # a variable may be called like a module, say `data`
    args = {o.arg for o in ast.walk(node) if isinstance(o, ast.arg)}
    return args | {o.id for o in ast.walk(node) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}


@pytest.mark.parametrize('room', JUDGING)
def test_judging_needs_no_network(room):
    bad = {library: ' -> '.join(way) for library, way in reached(room).items() if library in NETWORKS}
    assert not bad, bad


def cells(path):
    for c in json.loads(path.read_text())['cells']:
        if c['cell_type'] == 'code' and (lines := ''.join(c['source']).splitlines()): yield lines


def test_exported_cells_fit_a_screen():
    long = [f'{p.name}: {len(c)} lines from {c[1][:40]}' for p in NOTEBOOKS for c in cells(p)
            if c[0].startswith('#| export') and len(c) > 40]
    assert not long, '\n'.join(long)


def test_lines_fit_a_screen():
    "But for directives such as fig-alt, which cannot be wrapped"
    long = [f'{p.name}: {line[:60]}...' for p in NOTEBOOKS for c in cells(p) for line in c
            if len(line) > 120 and not line.startswith('#|')]
    long += [f'{p.name}, line {i}' for p in SCRIPTS for i, line in enumerate(p.read_text().splitlines(), 1)
             if len(line) > 120]
    assert not long, '\n'.join(long)


def loaded(code, *args, cwd=None):
    "Modules that a fresh Python has loaded after some code, and what it printed"
    code = f'{code}\nfinally: print("LOADED", *sorted(sys.modules))'
    r = subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=cwd, capture_output=True, text=True)
    said, _, modules = r.stdout.rpartition('LOADED')
    assert modules, r.stderr
    return set(modules.split()), said + r.stderr


def run_command(name, *args, cwd=None):
    f = name.replace('-', '_')
    return loaded(f'import sys, bn_imbalance.cli as cli; sys.argv[0] = {name!r}\ntry: cli.{f}.cli()', *args, cwd=cwd)


@pytest.mark.parametrize('name', ['bn-report', 'bn-compare', 'bn-ablate', 'bn-fit', 'bn-predict', 'bn-export'])
def test_help_loads_no_network(name):
    modules, said = run_command(name, '--help')
    assert 'usage:' in said and 'bn_imbalance.cli' in modules and not modules & {*NETWORKS, 'sklearn', 'matplotlib'}


def test_a_report_is_made_again_without_a_network(tmp_path):
    shutil.copytree(stored_results()/'apple', tmp_path/'apple')
    modules, said = run_command('bn-report', 'apple', cwd=tmp_path)
    assert 'Report: apple/report.html' in said and (tmp_path/'apple'/'results.csv').exists(), said
    assert 'matplotlib' in modules and not modules & set(NETWORKS)


def test_judging_rooms_load_no_network():
    modules, said = loaded(f'import sys\ntry: import {", ".join("bn_imbalance." + room for room in JUDGING)}')
    assert {f'bn_imbalance.{room}' for room in JUDGING} <= modules, said
    assert not modules & set(NETWORKS)


@pytest.mark.parametrize('room', ['model', 'predict'])
def test_prediction_loads_little(room):
    if room not in ROOMS: pytest.skip(f'there is no {room}.py yet')
    modules, said = loaded(f'import sys\ntry: import bn_imbalance.{room}')
    assert f'bn_imbalance.{room}' in modules and 'torch' in modules, said
    assert not modules & {'fastai', 'matplotlib', 'sklearn'}
