"""Data sets that go by a name: solar cells from their package, folders that only have the name of one."""
from dataclasses import replace
from pathlib import Path
import pandas as pd, pytest
from bn_imbalance import cli, places
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data import draw_split, from_csv, from_folder, read_data
from bn_imbalance.places import SOURCES, as_text, check_source, find_fetched
from conftest import QUICK, write_folder

needs_cells = pytest.mark.skipif(not SOURCES['elpv'].ready(), reason='elpv-dataset is not installed')


@needs_cells
def test_solar_cells():
    data = read_data('elpv')
    assert data.counts == {'majority': 1508, 'minority': 715} and not data.grouped and data.protocol == 'all'
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
        pd.read_csv(all_cells := cells.place(size)).groupby('label').head(20).to_csv(all_cells, index=False)
        return all_cells
    monkeypatch.setitem(SOURCES, 'elpv', replace(cells, place=few))
    code, text, err = command('bn-compare', 'elpv', '--recipes', 'plain,final_bn', '--out', tmp_path/'out', *QUICK)
    assert code == 0 and 'elpv: 20 images of the majority, 20 of the minority; protocol all' in text, err
    assert 'CC BY-NC-SA' in text and 'no groups are known' in ' '.join(text.split()) and 'Deitsch' in text
    code, text, err = command('bn-data', 'check', 'elpv', '--minority', 'unsure*', '--out', tmp_path/'check.html')
    assert code == 0 and 'unsure_33' in text and 'Deitsch' in text, err


def test_without_the_package(command, monkeypatch, tmp_path):
    monkeypatch.setattr(places, 'find_spec', lambda name: None)
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
    assert as_text(name) == name and as_text(Path('other')) == 'other'


def test_what_is_not_there_is_told_with_the_way_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path))
    monkeypatch.chdir('/')
    for name in 'plantvillage', 'magnetic_tile':
        monkeypatch.delenv(f'BN_IMBALANCE_{name.upper()}', raising=False)
        assert find_fetched(name) is None
        with pytest.raises(BadInput, match=f'To get it: bn-data fetch {name}'): read_data(name)
        monkeypatch.setenv(f'BN_IMBALANCE_{name.upper()}', str(write_folder(tmp_path/f'{name} of mine')))
        assert read_data(name).counts == {'majority': 40, 'minority': 20}
        write_folder(tmp_path/name) # in the cache, but the variable says that there are none
        monkeypatch.setenv(f'BN_IMBALANCE_{name.upper()}', '')
        assert find_fetched(name) is None
    with pytest.raises(BadInput, match='one of leaves, elpv, plantvillage, magnetic_tile'): check_source('elvp')


def test_what_can_be_fetched_says_whom_to_cite():
    for s in (o for o in SOURCES.values() if o.url):
        assert 'Cite' in s.about and '{class}' in s.file and '{file}' in s.file and s.url.startswith('https://')


def test_groups_beside_the_images(folder):
    "A folder with groups.csv, and that file itself, are the same data set; the majority alone says what is rare"
    names = [f'{c}/{k:03d}.jpg' for c, n in (('good', 40), ('bad', 20)) for k in range(n)]
    df = pd.DataFrame({'path': names, 'label': [n.split('/')[0] for n in names],
                       'group': [f'{n[:-5]}' for n in names]})
    df.to_csv(folder/'groups.csv', index=False)
    assert from_folder(folder).groupby('group').size().tolist() == [10]*6
    a, b = read_data(folder), read_data(folder/'groups.csv', majority='good')
    assert a.counts == b.counts == {'majority': 40, 'minority': 20} and b.classes('minority') == ['bad']
    assert a.grouped and b.grouped and len(a.items) == 60
    def sets(d): return {frozenset(Path(p).name for p in o) for _, o in d.items.groupby('group').path}
    assert sets(a) == sets(b)
    df.assign(group='').head(3).to_csv(folder/'groups.csv', index=False)
    assert from_folder(folder).group.nunique() == 60
    (folder/'groups.csv').write_text('image,tile\n')
    with pytest.raises(BadInput, match='groups.csv: column path is missing'): from_folder(folder)


def test_tiles_with_their_groups():
    root = find_fetched('magnetic_tile')
    if not root: pytest.skip('magnetic_tile is not here')
    for data in read_data(root/'groups.csv', majority='MT_Free'), read_data(root, majority='MT_Free'):
        assert data.counts == {'majority': 952, 'minority': 392} and data.items.group.nunique() == 244
        assert data.classes('minority') == ['MT_Blowhole', 'MT_Break', 'MT_Crack', 'MT_Fray', 'MT_Uneven']
        split = draw_split(data, load_settings(), 0)
        assert split.groupby('group').split.nunique().max() == 1 and data.protocol == 'all'
    assert from_csv(root/'groups.csv').path.map(Path).map(Path.exists).all()
