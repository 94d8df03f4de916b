"""Data sets that go by a name: solar cells from their package, folders that only have the name of one."""
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
import pandas as pd, pytest
from bn_imbalance.data import sources
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.download import blob_sha1, fetch
from bn_imbalance.data.items import from_csv, read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.data.sources import (
    SOURCES, Source, check_source, locate_fetched, register_source, short_class, source_text)
from conftest import QUICK, write_folder

needs_cells = pytest.mark.skipif(not SOURCES['elpv'].ready(), reason='elpv-dataset is not installed')


@needs_cells
def test_solar_cells():
    data = read_data('elpv')
    assert data.counts == {'majority': 1508, 'minority': 715} and data.protocol == 'all'
    assert data.items.group.nunique() == 2220 # three pairs are near copies
    assert (data.name, data.source, data.classes('minority')) == ('elpv', 'elpv', ['defective'])
    assert draw_split(data, load_settings(), 0, 'paper').split.value_counts().to_dict() == {
        'train': 1010, 'valid': 157, 'test': 300}
    pooled = read_data('elpv', minority='defective, unsure_67', majority='functional')
    assert pooled.counts == {'majority': 1508, 'minority': 715 + 106}
    assert read_data('elpv', majority='functional').counts['minority'] == 715 + 106 + 295
    assert not data.items.group.str.contains('/').any() # no path of this machine gets into a run


@needs_cells
def test_commands_take_a_name(command, monkeypatch, tmp_path):
    cells = SOURCES['elpv']
    def few(size): # twenty of each class
        pd.read_csv(all_cells := cells.locate(size)).groupby('label').head(20).to_csv(all_cells, index=False)
        return all_cells
    monkeypatch.setitem(SOURCES, 'elpv', replace(cells, locate=few))
    code, text, err = command('bn-compare', 'elpv', '--recipes', 'plain,final_bn', '--out', tmp_path/'out', *QUICK)
    assert code == 0 and 'elpv: 20 images of the majority, 20 of the minority; protocol all' in text, err
    assert 'CC BY-NC-SA' in text and 'no groups are known' in ' '.join(text.split()) and 'Deitsch' in text
    code, text, err = command('bn-data', 'check', 'elpv', '--minority', 'unsure*', '--out', tmp_path/'check.html')
    assert code == 0 and 'unsure_33' in text and 'Deitsch' in text, err


def test_without_the_package(command, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, 'find_spec', lambda name: None)
    for args in ('bn-compare', 'elpv'), ('bn-data', 'check', 'elpv'), ('bn-fit', 'elpv'), ('bn-ablate', 'elpv'):
        code, _, err = command(*args)
        assert code == 1 and "pip install 'bn_imbalance[data]'" in err and err.strip().count('\n') == 0, (args, err)


@pytest.mark.parametrize('name', SOURCES)
def test_a_folder_called_like_a_source_is_a_folder(name, folder, monkeypatch):
    mine = folder.rename(folder.parent/name)
    monkeypatch.chdir(mine.parent)
    for given in f'./{name}', Path(name), mine, str(mine):
        check_source(given)
        data = read_data(given)
        assert (data.counts, data.protocol, data.name) == ({'majority': 40, 'minority': 20}, 'all', name)
        assert data.source not in SOURCES and Path(data.source).samefile(mine)
    assert source_text(name) == name and source_text(Path('other')) == 'other'


def test_missing_data_is_reported_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path))
    monkeypatch.setenv('BN_IMBALANCE_DATA', '') # nor beside this clone
    for name in 'plantvillage', 'magnetic_tile':
        monkeypatch.delenv(f'BN_IMBALANCE_{name.upper()}', raising=False)
        assert locate_fetched(name) is None
        with pytest.raises(BadInput, match=f'To get it: bn-data fetch {name}'): read_data(name)
        monkeypatch.setenv(f'BN_IMBALANCE_{name.upper()}', str(write_folder(tmp_path/f'{name} of mine')))
        assert read_data(name).counts == {'majority': 40, 'minority': 20}
        write_folder(tmp_path/name) # in the cache, but the variable says that there are none
        monkeypatch.setenv(f'BN_IMBALANCE_{name.upper()}', '')
        assert locate_fetched(name) is None
    with pytest.raises(BadInput, match='one of leaves, elpv, plantvillage, magnetic_tile'): check_source('elvp')


def test_only_a_clone_has_images_beside_it(monkeypatch, tmp_path):
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path/'cache'))
    for name in 'BN_IMBALANCE_PLANTVILLAGE', 'BN_IMBALANCE_DATA': monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sources, 'find_spec', lambda name: SimpleNamespace(origin=str(tmp_path/'clone'/name/'core.py')))
    mine = write_folder(tmp_path/'shared'/'plantvillage')
    assert locate_fetched('plantvillage') is None # as with an installed package
    (tmp_path/'clone'/'nbs').mkdir(parents=True)
    (tmp_path/'clone'/'nbs'/'00_core.ipynb').touch()
    monkeypatch.chdir('/')
    assert locate_fetched('plantvillage') == mine


def test_this_clone_finds_what_is_beside_it():
    "The notebooks by which a clone is recognized are where they are looked for"
    root = Path(sources.__file__).parents[2]
    if not (root/'pyproject.toml').exists(): pytest.skip('an installed package')
    assert sources._data_folder() == root.parent/'shared'


@pytest.fixture
def registry():
    "What a test registers is forgotten afterwards"
    before = dict(SOURCES)
    yield
    SOURCES.clear()
    SOURCES.update(before)


def test_a_source_from_outside(registry, folder, command, tmp_path):
    "One call: where it is, what is rare, which images show one subject, parts, captions, protocol, a note"
    for old, new in ('good', 'oak=fine'), ('bad', 'oak=ill'): (folder/old).rename(folder/new)
    register_source('oaks', Source(lambda size: folder, minority='*ill', about='Oaks. Cite nobody.',
        groups=lambda files: {f: int(f[:3])//4 for f in files}, classes=frozenset({'oak=fine', 'oak=ill'}),
        part=lambda c: c.split('=')[0], short=lambda c: c.split('=')[1]))
    data = read_data('oaks')
    assert (data.name, data.source, data.protocol) == ('oak', 'oaks', 'all')
    assert data.counts == {'majority': 40, 'minority': 20} and data.items.group.nunique() == 15
    assert draw_split(data, load_settings(), 0).groupby('group').split.nunique().max() == 1
    assert (short_class('oak=ill'), short_class('elm=ill')) == ('ill', 'elm=ill')
    out = tmp_path/'out'
    code, text, err = command('bn-compare', 'oaks', '--recipes', 'plain', '--out', out, *QUICK)
    assert code == 0 and 'Cite nobody' in text, err
    report = (out/'report.html').read_text()
    assert 'alt="ill"' in report and 'alt="oak=ill' not in report
    with pytest.raises(BadInput, match='one of leaves, elpv, plantvillage, magnetic_tile, oaks'): check_source('x')


def test_a_source_from_outside_is_fetched(registry, folder, monkeypatch, tmp_path):
    "With a list of its files and an address; once fetched it is a data set with a name"
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('BN_IMBALANCE_DATA', '')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    rows = [f'{p.parent.name},{p.name},{blob_sha1(p.read_bytes())},' for p in folder.glob('*/*.jpg')]
    (tmp_path/'list.csv').write_text('\n'.join(['class,file,sha1,group', *rows]))
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    register_source('oaks', Source(url=f'http://127.0.0.1:{server.server_port}', listing=tmp_path/'list.csv'))
    with pytest.raises(BadInput, match='bn-data fetch oaks'): read_data('oaks')
    try: assert fetch('oaks') == tmp_path/'cache'/'oaks'
    finally: server.shutdown(), server.server_close()
    assert read_data('oaks').counts == {'majority': 40, 'minority': 20}

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def test_tiles_with_their_groups():
    root = locate_fetched('magnetic_tile')
    if not root: pytest.skip('magnetic_tile is not here')
    for data in read_data(root/'groups.csv', majority='MT_Free'), read_data(root, majority='MT_Free'):
        assert data.counts == {'majority': 952, 'minority': 392}
        assert data.items.group.nunique() == 233 # of 244, eleven show near copies
        assert data.classes('minority') == ['MT_Blowhole', 'MT_Break', 'MT_Crack', 'MT_Fray', 'MT_Uneven']
        split = draw_split(data, load_settings(), 0)
        assert split.groupby('group').split.nunique().max() == 1 and data.protocol == 'all'
    assert from_csv(root/'groups.csv').path.map(Path).map(Path.exists).all()
