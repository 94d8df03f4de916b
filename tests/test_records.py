"""Runs on disk: those of yesterday are read, damaged ones are set aside, others are not mixed with them."""
import json, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from conftest import numbers
from bn_imbalance.core import BadInput, stored_results
from bn_imbalance.leaderboard import failures, results
from bn_imbalance.records import FORMAT, OPTIMIZERS, Run, Side, Store, read_run, read_runs, run_json

APPLE = stored_results()/'apple'
STORED = sorted((APPLE/'runs').glob('*.json'))


@pytest.fixture
def apple(tmp_path):
    shutil.copytree(APPLE, tmp_path/'apple')
    return tmp_path/'apple'


def of_format_2(path):
    "A stored run as it was written when files had format 2"
    d = json.loads(path.read_text())
    for later in 'doc', 'rare', 'note': d.pop(later, None)
    d['config'].pop('optimizer', None)
    path.write_text(json.dumps(dict(d, format=2)))


def test_stored_runs_of_the_package_are_read():
    runs = read_runs(APPLE)
    assert [(r.recipe, r.seed) for r in runs] == [('final_bn', 0), ('plain', 0)] and len(STORED) == 2
    for r, path in zip(runs, STORED):
        d = json.loads(path.read_text())
        assert r.config == {'optimizer': OPTIMIZERS[d['format']]} | d['config']
        assert r.history == d['history'] and r.versions == d['versions'] and r.doc == d.get('doc', '')
        assert r.data['name'] == 'Apple' and r.settings['epochs'] == len(r.history) and r.rare == [1] and not r.apart
        for side in 'valid', 'test':
            got = getattr(r, side)
            assert got.y.tolist() == d[side]['y'] and got.logits.tolist() == d[side]['logits']
            assert got.logits.shape == (len(got.y), 2) and (got.said == got.logits.argmax(1)).all()
        assert r.metrics()['f1_minority'] == pytest.approx(r.history[-1]['test']['f1_minority'])
    assert list(results(runs).recipe) == ['final_bn', 'plain'] and not len(failures(runs))


def test_runs_of_format_2_are_read(apple):
    now = read_runs(apple)
    for path in (apple/'runs').glob('*.json'): of_format_2(path)
    runs = read_runs(apple)
    assert {r.config['optimizer'] for r in runs} == {OPTIMIZERS[2]} != {OPTIMIZERS[FORMAT]}
    assert all((r.doc, r.rare, r.note) == ('', [1], None) for r in runs) # what came later has a value nevertheless
    assert [r.metrics() for r in runs] == [r.metrics() for r in now]
    assert [r.config | {'optimizer': ''} for r in runs] == [r.config | {'optimizer': ''} for r in now]
    assert results(runs).equals(results(now))


def test_runs_of_two_optimizers_are_not_mixed(apple):
    paths = sorted((apple/'runs').glob('*.json'))
    for path in paths: of_format_2(path)
    run, store = read_run(paths[0]), Store(apple)
    new = replace(run, config=changed(run.config, 'optimizer', OPTIMIZERS[FORMAT]))
    with pytest.raises(BadInput, match='made with optimizer = AdamW.*, now it is fastai'):
        store.get(new.config, new.versions)
    store.put(new)
    assert json.loads(paths[0].read_text())['format'] == FORMAT
    with pytest.raises(BadInput, match='runs of two optimizers.* Delete those of one of them'): read_runs(apple)


@pytest.mark.parametrize('path', STORED, ids=lambda p: p.stem)
def test_round_trip(path, tmp_path):
    run = read_run(path)
    text = run_json(run)
    (tmp_path/'run.json').write_text(text)
    again = read_run(tmp_path/'run.json')
    assert run_json(again) == text and numbers([again]) == numbers([run]) and again.metrics() == run.metrics()
    old, new = json.loads(path.read_text()), json.loads(text)
    assert {k: new[k] for k in old} == dict(old, format=FORMAT, config=run.config)
    assert set(new) - set(old) <= {'doc', 'rare', 'note', 'cross'}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_classes=st.integers(2, 5), failed=st.none() | st.text(),
       note=st.none() | st.text(), loss=st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_round_trip_of_any_run(tmp_path_factory, seed, n_classes, failed, note, loss):
    rng = np.random.default_rng(seed)
    def side(): return None if failed else Side(rng.integers(0, n_classes, 9), rng.normal(size=(9, n_classes)))
    config = dict(data={}, recipe=dict(name='plain:lr=0.01'), settings={}, seed=seed, optimizer='any')
    run = Run(config, [n_classes - 1], side(), side(), [dict(train_loss=loss)], failed, note, doc='ä "quoted" word')
    store = Store(tmp_path_factory.mktemp('any'))
    store.put(run)
    again, = read_runs(store.out)
    assert numbers([again]) == numbers([run]) and again.recipe == 'plain:lr=0.01' and again.seed == seed


def replaced(a, b): return lambda text: text.replace(a, b)

DAMAGES = dict(cut=lambda t: t[:500], empty=lambda t: '', text=lambda t: 'hello', number=lambda t: '7',
               list=lambda t: '[]', other_format=replaced('"format": ', '"format": 9'),
               no_format=replaced('"format"', '"form"'), no_config=replaced('"config"', '"c"'),
               unknown_field=replaced('"format"', '"colour": 1, "format"'), no_side=replaced('"valid"', '"walid"'),
               odd_side=replaced('"logits"', '"lodgings"'), ragged=replaced('"logits": [[', '"logits": [[0.5, '))

@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_runs_are_set_aside(apple, damage, capsys):
    path = apple/'runs'/STORED[0].name
    text = DAMAGES[damage](path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    assert [r.recipe for r in read_runs(apple)] == ['plain']
    err = capsys.readouterr().err
    assert f'{path}: damaged' in err and err.count('\n') == 1
    assert not path.exists() and path.with_suffix('.damaged').read_text() == text
    assert len(read_runs(apple)) == 1 and capsys.readouterr().err == '' # told once
    for p in (apple/'runs').glob('*.json'): p.unlink()
    with pytest.raises(BadInput, match='no stored runs'): read_runs(apple)


def test_a_run_that_is_not_text_is_set_aside(apple):
    path = apple/'runs'/STORED[0].name
    path.write_bytes(b'\xff\xfe\x00')
    assert read_run(path) is None and path.with_suffix('.damaged').exists()
    assert read_run(path) is None # there is none


def changed(d, at, value):
    "A copy of nested dicts with another value in one place"
    key, *rest = at.split('.', 1)
    return {**d, key: changed(d[key], rest[0], value) if rest else value}


@pytest.mark.parametrize('at,value', [('data.fingerprint', '0'), ('data.protocol', 'all'), ('settings.epochs', 3),
                                      ('settings.lr', .1), ('recipe.final_bn', 'both'),
                                      ('recipe.params', dict(lr=[.1])), ('optimizer', 'SGD')])
def test_a_store_refuses_another_configuration(apple, at, value):
    store, run = Store(apple), read_runs(apple)[0]
    before = store.path(run.config).read_text()
    assert numbers([store.get(run.config, run.versions)]) == numbers([run])
    with pytest.raises(BadInput, match='now it is .* Give another --out') as e:
        store.get(changed(run.config, at, value), run.versions)
    assert at.split('.')[-1] in str(e.value) and '\n' not in str(e.value)
    assert store.path(run.config).read_text() == before


def test_a_store_refuses_other_versions_and_knows_other_seeds(apple):
    store, run = Store(apple), read_runs(apple)[0]
    with pytest.raises(BadInput, match='torch = .*, now it is 9'): store.get(run.config, {**run.versions, 'torch': '9'})
    assert store.get(dict(run.config, seed=5), run.versions) is None
    store.put(replace(run, config=dict(run.config, seed=5)))
    assert [r.seed for r in read_runs(apple)] == [0, 5, 0]
    assert not list((apple/'runs').glob('.*')) # nothing is left of the writing


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(BadInput, match='cannot be written'): Store(tmp_path/'file'/'out')


def test_a_run_without_its_configuration_is_set_aside(tmp_path, capsys):
    path = tmp_path/'plain-seed0.json'
    path.write_text('{"format": 3, "config": {}, "rare": [1], "valid": null, "test": null}')
    assert read_run(path) is None and path.with_suffix('.damaged').exists()
    assert 'Set aside' in capsys.readouterr().err
