"""The shape of the house: which room may import which, where PyTorch is, how long a cell and a line may be."""
import ast, json, re, shutil, subprocess, sys
from functools import cache
from importlib import import_module
from pathlib import Path
import pytest
from bn_imbalance.core import stored_results

ROOT = Path(__file__).parents[1]
PACKAGE, NBS = ROOT/'bn_imbalance', ROOT/'nbs'
NETWORKS = 'torch', 'torchvision', 'timm', 'fastai'

# Which room may import which: only rooms above it, and of these only the ones that it names
MAY_IMPORT = dict(
    core     = '',
    metrics  = 'core',
    data     = 'core',
    evaluate = 'core metrics',
    models   = 'core',
    recipes  = 'core metrics evaluate models',
    training = 'core metrics data evaluate models recipes',
    report   = 'core metrics data evaluate',
    deploy   = 'core metrics data evaluate models recipes training report',
    audit    = 'core metrics data recipes training report',
    adapters = 'core data evaluate models recipes training deploy',
    find     = 'core metrics data evaluate models recipes training report deploy',
    cli      = 'core metrics data evaluate models recipes training report deploy audit find')
WITHOUT_NETWORK = 'core', 'metrics', 'data', 'evaluate', 'report'
ROOMS = [r for r in MAY_IMPORT if (PACKAGE/r).is_dir()]

MODULES = {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts): p for p in sorted(PACKAGE.rglob('*.py'))
           if p.name not in ('_modidx.py', '__init__.py')}
DOORS = {room: PACKAGE/room/'__init__.py' for room in ROOMS}
NOTEBOOKS = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
SCRIPTS = [p for folder in ('tests', 'tools', 'benchmarks') for p in sorted((ROOT/folder).glob('*.py'))]
HEADER = re.compile(r'File to edit: ((?:\.\./)+nbs/[\w/]+\.ipynb)')


@cache
def tree(path): return ast.parse(path.read_text())

def room_of(module): return module.split('.')[0]

def imports_in(node, module):
    "(line, module or room of the package or None, what else is imported, names) of each import, in functions too"
    def place(path):
        first, *rest = path.split('.')
        return ('.'.join(rest) or None, None) if first == 'bn_imbalance' else (None, first)
    for o in ast.walk(node):
        if isinstance(o, ast.Import):
            for a in o.names: yield o.lineno, *place(a.name), []
        elif isinstance(o, ast.ImportFrom):
            here = ['bn_imbalance', *module.split('.')][:-o.level] if o.level else []
            path = '.'.join([*here, *([o.module] if o.module else [])])
            yield o.lineno, *place(path), [a.name for a in o.names]

def ours(module):
    "(line, module of the package, names) of each import from it"
    for line, mine, _, names in imports_in(tree(MODULES[module]), module):
        if mine in MODULES: yield line, mine, names
        elif mine in ROOMS:
            for n in names: yield line, f'{mine}.{n}' if f'{mine}.{n}' in MODULES else mine, [n]
        elif not mine:
            for n in names:
                if n in ROOMS: yield line, n, [n] # a door

@cache
def reached(module):
    "{library: modules on the way} of everything that importing or calling a module may import"
    out = {}
    for _, mine, other, _ in imports_in(tree(MODULES[module]), module):
        if other: out.setdefault(other, (module,))
        elif mine in MODULES and mine != module:
            for library, way in reached(mine).items(): out.setdefault(library, (module, *way))
    return out


def test_imports_are_found():
    "The tests below would pass if they saw nothing"
    code = ('import os.path, bn_imbalance.data.leaves\nfrom ..core import *\nfrom .items import Data\n'
            'def f():\n    from bn_imbalance.training.sweep import compare, _no\n'
            '    from fastai.vision.all import Learner')
    assert [o[1:] for o in imports_in(ast.parse(code), 'data.splits')] == [
        (None, 'os', []), ('data.leaves', None, []), ('core', None, ['*']), ('data.items', None, ['Data']),
        ('training.sweep', None, ['compare', '_no']), (None, 'fastai', ['Learner'])]
    assert {'core', 'recipes.base', 'training.sweep', 'evaluate.leaderboard', 'deploy.fitting', 'cli'} <= set(MODULES)
    assert reached('training.sweep')['fastai'] and 'torch' in reached('deploy.predict')
    assert len(NOTEBOOKS) > 40 and len(SCRIPTS) > 20


def test_the_table_names_rooms_above():
    names = list(MAY_IMPORT)
    for i, (room, may) in enumerate(MAY_IMPORT.items()): assert set(may.split()) <= set(names[:i]), room
    folders = {p.name for p in PACKAGE.iterdir() if (p/'__init__.py').exists()}
    assert folders == set(ROOMS) and {room_of(m) for m in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize('module', MODULES)
def test_a_module_imports_what_its_room_may(module):
    room = room_of(module)
    bad = [f'line {line}: {mine}' for line, mine, _ in ours(module)
           if room_of(mine) != room and room_of(mine) not in MAY_IMPORT[room].split()]
    assert not bad, f'{room} may import {MAY_IMPORT[room] or "nothing"}: {bad}'


@pytest.mark.parametrize('module', MODULES)
def test_a_module_imports_earlier_ones_of_its_room(module):
    "In the order of the notebooks, so without circles; never through its own door, which would import everything"
    def number(m): return int(HEADER.search(MODULES[m].read_text())[1].rsplit('/', 1)[-1][:2])
    mine = [m for _, m, _ in ours(module) if room_of(m) == room_of(module) and '.' in module]
    assert not [m for m in mine if m not in MODULES or number(m) >= number(module)], module


def test_every_name_is_imported_by_name():
    stars = [f'{m}: line {line}' for m, p in MODULES.items()
             for line, _, _, names in imports_in(tree(p), m) if '*' in names]
    assert not stars


@pytest.mark.parametrize('room', ROOMS)
def test_a_door_says_what_its_room_is_for(room):
    door = import_module(f'bn_imbalance.{room}')
    assert len(door.__doc__) > 40 and 2 <= len(door.__all__) <= 40
    modules = {m.split('.')[1] for m in MODULES if m.startswith(f'{room}.')}
    assert not modules & set(door.__all__), 'a name at the door that is also a module: whichever is imported last wins'
    assert all(hasattr(door, n) for n in door.__all__)


def test_notebooks_lie_where_their_modules_lie():
    for module, path in [*MODULES.items(), *((f'{r}.__init__', p) for r, p in DOORS.items())]:
        nb = (path.parent/HEADER.search(path.read_text())[1]).resolve()
        name = 'index' if module.endswith('__init__') else path.stem
        assert nb.parent.relative_to(NBS) == path.parent.relative_to(PACKAGE), module
        assert re.sub(r'^\d\d_', '', nb.stem) == name, module
    for folder in {p.parent for p in NOTEBOOKS}:
        if folder.name in ('course', 'appendix'): continue
        numbers = [p.name[:2] for p in folder.glob('*.ipynb') if p.name[0].isdigit()]
        assert len(set(numbers)) == len(numbers), folder


@pytest.mark.parametrize('module', MODULES)
def test_private_names_stay_at_home(module):
    names = [f'line {line}: {name} of {mine}' for line, mine, names in ours(module) for name in names
             if name.startswith('_')]
    stems = {m.split('.')[-1] for m in MODULES if m != module}
    def private(o): # othermodule._name, bn_imbalance.room.othermodule._name
        return (isinstance(o, ast.Attribute) and o.attr.startswith('_') and not o.attr.startswith('__')
                and getattr(o.value, 'id', getattr(o.value, 'attr', None)) in stems - _variables(tree(MODULES[module])))
    names += [f'line {o.lineno}: {ast.unparse(o)}' for o in ast.walk(tree(MODULES[module])) if private(o)]
    assert not names and not [n for n in public_names(module) if n.startswith('_')], names

def public_names(module):
    return next(ast.literal_eval(o.value) for o in tree(MODULES[module]).body if isinstance(o, ast.Assign)
                and getattr(o.targets[0], 'id', '') == '__all__')

def _variables(node): # a variable may be called like a module, say `model`
    args = {o.arg for o in ast.walk(node) if isinstance(o, ast.arg)}
    return args | {o.id for o in ast.walk(node) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}


@pytest.mark.parametrize('module', [m for m in MODULES if room_of(m) in WITHOUT_NETWORK])
def test_judging_needs_no_network(module):
    bad = {library: ' -> '.join(way) for library, way in reached(module).items() if library in NETWORKS}
    assert not bad, bad


def cells(path):
    for c in json.loads(path.read_text())['cells']:
        if c['cell_type'] == 'code' and (lines := ''.join(c['source']).splitlines()): yield lines


def test_exported_cells_fit_a_screen():
    long = [f'{p.name}: {len(c)} lines from {c[1][:40]}' for p in NOTEBOOKS for c in cells(p)
            if c[0].startswith('#| export') and len(c) > 40]
    assert not long, '\n'.join(long)


def test_lines_fit_a_screen():
    "Exported ones in 100 characters; but for directives such as fig-alt, which cannot be wrapped"
    long = [f'{p.name}: {line[:60]}...' for p in NOTEBOOKS for c in cells(p) for line in c
            if len(line) > (100 if c[0].startswith('#| export') else 120) and not line.startswith('#|')]
    long += [f'{p.name}, line {i}' for p in SCRIPTS for i, line in enumerate(p.read_text().splitlines(), 1)
             if len(line) > 120]
    assert not long, '\n'.join(long)


def loaded(code, *args, cwd=None):
    "Modules that a fresh Python has loaded after some code, and what it printed"
    code = f'{code}\nfinally: print("LOADED", *sorted(sys.modules))'
    r = subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=cwd, capture_output=True, text=True)
    printed, _, modules = r.stdout.rpartition('LOADED')
    assert modules, r.stderr
    return set(modules.split()), printed + r.stderr


def run_command(name, *args, cwd=None):
    f = name.replace('-', '_')
    return loaded(f'import sys, bn_imbalance.cli as cli; sys.argv[0] = {name!r}\ntry: cli.{f}.cli()', *args, cwd=cwd)


def test_the_front_door_is_light():
    modules, printed = loaded('import sys\ntry:\n    import bn_imbalance\n    print(bn_imbalance.__all__)')
    assert not modules & {*NETWORKS, 'numpy', 'pandas', 'sklearn', 'matplotlib'}
    names = ('add_final_bn fold_final_bn final_bn_learner imbalanced_dls read_data compare fit load_model '
             'FinalBNClassifier compare_learner Goal load_settings')
    assert all(repr(n) in printed for n in names.split())
    import bn_imbalance
    assert all(hasattr(bn_imbalance, n) for n in bn_imbalance.__all__)
    assert not set(bn_imbalance.__all__) & set(MAY_IMPORT), 'a name that is also a room'


@pytest.mark.parametrize('name', ['bn-report', 'bn-compare', 'bn-ablate', 'bn-fit', 'bn-predict', 'bn-export'])
def test_help_loads_no_network(name):
    modules, printed = run_command(name, '--help')
    assert 'usage:' in printed and 'bn_imbalance.cli' in modules
    assert not modules & {*NETWORKS, 'sklearn', 'matplotlib'}


@pytest.mark.parametrize('name,known', [('bn-compare', 'serial, process, ray'), ('bn-ablate', 'serial, process, ray'),
    ('bn-fit', 'serial, process, ray'), ('bn-predict', 'serial, ray'), ('bn-find', 'serial, ray')])
def test_a_bad_backend_is_refused_before_a_network_is_loaded(name, known):
    modules, printed = run_command(name, 'leaves', '--backend', 'cloud')
    assert printed == f'{name}: --backend cloud: expected {known}.\n'
    assert not modules & set(NETWORKS)


def test_a_report_is_made_again_without_a_network(tmp_path):
    shutil.copytree(stored_results()/'apple', tmp_path/'apple')
    modules, printed = run_command('bn-report', 'apple', cwd=tmp_path)
    assert 'Report: apple/report.html' in printed and (tmp_path/'apple'/'results.csv').exists(), printed
    assert 'matplotlib' in modules and not modules & set(NETWORKS)


def test_judging_rooms_load_no_network():
    judging = [f'bn_imbalance.{m}' for m in MODULES if room_of(m) in WITHOUT_NETWORK]
    modules, printed = loaded(f'import sys\ntry: import {", ".join(judging)}')
    assert set(judging) <= modules, printed
    assert not modules & set(NETWORKS)


@pytest.mark.parametrize('module', ['deploy.model', 'deploy.predict'])
def test_prediction_loads_little(module):
    modules, printed = loaded(f'import sys\ntry: import bn_imbalance.{module}')
    assert f'bn_imbalance.{module}' in modules and 'torch' in modules, printed
    assert not modules & {'fastai', 'matplotlib', 'sklearn'}


def test_the_makefile_exports_values_without_blanks():
    "make keeps what lies between a value and a comment behind it, and Ray crashes when it imports with '0 '"
    exports = re.findall(r'export \w+ *:?= *(.*)', (ROOT/'Makefile').read_text())
    assert exports and all(o == o.strip() and '#' not in o for o in exports)


@pytest.mark.parametrize('module', MODULES)
def test_a_class_has_its_methods_whoever_imports_it(module):
    "`@patch` adds methods to classes of the same module only: what a class can do does not depend on other imports"
    body = tree(MODULES[module]).body
    own = {o.name for o in body if isinstance(o, ast.ClassDef)}
    def patches(o): return any(ast.unparse(d).split('(')[0] == 'patch' for d in o.decorator_list)
    foreign = [f'line {o.lineno}: {ast.unparse(o.args.args[0].annotation)}.{o.name}' for o in body
               if isinstance(o, ast.FunctionDef) and patches(o) and ast.unparse(o.args.args[0].annotation) not in own]
    assert not foreign, foreign
    others = {(other or '').split('.')[0] for _, _, other, _ in imports_in(tree(MODULES[module]), module)}
    assert 'unittest' not in others


@pytest.mark.slow # it imports everything, twice
def test_importing_the_package_changes_nothing_global():
    "Neither pandas' options nor which warnings a program shows; and fastai's own warning stays away"
    modules = ', '.join(f'bn_imbalance.{m}' for m in MODULES)
    code = f"""
import os, sys, warnings
def state():
    import matplotlib, numpy, pandas, PIL.Image, torch
    options = {{k: pandas.get_option(k) for k in ('mode.string_storage', 'display.width', 'display.max_rows')}}
    return (list(warnings.filters), options, dict(matplotlib.rcParams), numpy.geterr(), PIL.Image.MAX_IMAGE_PIXELS,
            torch.get_num_threads(), torch.get_default_dtype(), dict(os.environ))
with warnings.catch_warnings(record=True) as shown:
    warnings.simplefilter('always')
    import {modules}
print('shown', [o for o in shown if issubclass(o.category, FutureWarning)])
for name in [o for o in sys.modules if o.startswith('bn_imbalance')]: del sys.modules[name]
before = state() # what others do when they are imported is not ours
import {modules}
print('same', [a == b for a, b in zip(before, state())])
"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.splitlines() == ['shown []', f'same {[True]*8}'], r.stdout + r.stderr


def test_workers_get_what_they_need_loaded():
    "The commands name a module without importing it"
    from bn_imbalance.training import sweep
    named, = re.findall(r"worker_context\('(.+?)'\)", (PACKAGE/'cli.py').read_text())
    assert named == sweep.run_together.__module__
