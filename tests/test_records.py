"""Runs on disk: those of yesterday are read, damaged ones are left out, others are not mixed with them."""
import json, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from conftest import numbers
from bn_imbalance.core import BadInput, stored_results
from bn_imbalance.evaluate.leaderboard import failures, results
from bn_imbalance.evaluate.runs import (
    FORMAT, OPTIMIZER, Damaged, Run, Predictions, Store, read_run, read_runs, run_json, written_by)

APPLE = stored_results()/'apple'
STORED = sorted((APPLE/'runs').glob('*.json'))


@pytest.fixture
def apple(tmp_path):
    shutil.copytree(APPLE, tmp_path/'apple')
    return tmp_path/'apple'


def of_format_3(path):
    "A stored run as an earlier version wrote it; returns the text"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), format=3)))
    return path.read_text()


def test_stored_runs_of_the_package_are_read():
    runs = read_runs(APPLE)
    assert [(r.recipe, r.seed) for r in runs] == [('final_bn', 0), ('plain', 0)] and len(STORED) == 2
    for r, path in zip(runs, STORED):
        d = json.loads(path.read_text())
        assert r.config == d['config'] and r.config['optimizer'] != OPTIMIZER # they are older
        assert r.history == d['history'] and r.versions == d['versions'] and r.doc == d.get('doc', '')
        assert r.data['name'] == 'Apple' and r.rare == [1] and not r.multiclass
        assert r.settings['epochs'] == len(r.history)
        for side in 'valid', 'test':
            got = getattr(r, side)
            assert got.y.tolist() == d[side]['y'] and got.logits.tolist() == d[side]['logits']
            assert got.logits.shape == (len(got.y), 2) and (got.pred == got.logits.argmax(1)).all()
        assert r.metrics()['f1_minority'] == pytest.approx(r.history[-1]['test']['f1_minority'])
    assert list(results(runs).recipe) == ['final_bn', 'plain'] and not len(failures(runs))


def test_runs_of_an_older_format_are_refused(apple):
    "In one line that says who wrote them; nothing is changed"
    before = {path: of_format_3(path) for path in (apple/'runs').glob('*.json')}
    with pytest.raises(BadInput, match='written by bn_imbalance .*: format 3, but this version'): read_runs(apple)
    assert {path: path.read_text() for path in before} == before


def test_runs_of_two_optimizers_are_not_mixed(apple):
    paths = sorted((apple/'runs').glob('*.json'))
    run, store = read_run(paths[0]), Store(apple)
    new = replace(run, config=changed(run.config, 'optimizer', OPTIMIZER))
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
    assert set(new) - set(old) <= {'doc', 'rare', 'note'}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_classes=st.integers(2, 5), failed=st.none() | st.text(),
       note=st.none() | st.text(), loss=st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_round_trip_of_any_run(tmp_path_factory, seed, n_classes, failed, note, loss):
    rng = np.random.default_rng(seed)
    def side(): return None if failed else Predictions(rng.integers(0, n_classes, 9), rng.normal(size=(9, n_classes)))
    config = dict(data={}, recipe=dict(name='plain:lr=0.01'), settings={}, seed=seed, optimizer='any')
    run = Run(config, [n_classes - 1], side(), side(), [dict(train_loss=loss)], failed, note, doc='ä "quoted" word')
    store = Store(tmp_path_factory.mktemp('any'))
    store.put(run)
    again, = read_runs(store.out)
    assert numbers([again]) == numbers([run]) and again.recipe == 'plain:lr=0.01' and again.seed == seed


def replaced(a, b): return lambda text: text.replace(a, b)

DAMAGES = dict(cut=lambda t: t[:500], empty=lambda t: '', text=lambda t: 'hello', number=lambda t: '7',
               list=lambda t: '[]', deep=lambda t: '['*10**5, no_format=replaced('"format"', '"form"'),
               no_config=lambda t: lacking(t, 'config'), no_side=lambda t: lacking(t, 'valid'),
               odd_side=replaced('"logits"', '"lodgings"'), ragged=replaced('"logits": [[', '"logits": [[0.5, '))
FORMATS = dict(newer=(replaced(f'"format": {FORMAT}', '"format": 9'), 'format 9'),
               oldest=(replaced(f'"format": {FORMAT}', '"format": 1'), 'format 1'),
               odd=(replaced(f'"format": {FORMAT}', '"format": ["a"]'), "format ['a']"),
               unknown_field=(replaced('"format"', '"colour": 1, "format"'), "holds 'colour'"))


def lacking(text, key):
    d = json.loads(text)
    del d[key]
    return json.dumps(d)


def bytes_of(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_runs_are_left_out_and_made_anew(apple, damage, capsys):
    path = apple/'runs'/STORED[0].name
    run, text = read_run(path), DAMAGES[damage](path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    before = bytes_of(apple)
    with pytest.raises(Damaged, match=f'^{path}: '): read_run(path)
    for _ in range(2): # told each time
        assert [r.recipe for r in read_runs(apple)] == ['plain']
        err = capsys.readouterr().err
        assert f'{apple}: 1 of 2 runs are damaged and left out, {path.name}. ' in err and err.count('\n') == 1
    assert bytes_of(apple) == before # reading changes nothing
    store = Store(apple)
    assert store.get(run.config, run.versions) is None # the run counts as not done
    err = capsys.readouterr().err
    assert f'{path}: ' in err and 'counts as not done' in err and err.count('\n') == 1 and bytes_of(apple) == before
    store.put(run)
    assert numbers(read_runs(apple)) == numbers([run, read_run(apple/'runs'/STORED[1].name)])
    for p in (apple/'runs').glob('*.json'): p.write_text(text)
    with pytest.raises(BadInput, match='no stored runs that can be read: 2 of 2 runs are damaged'): read_runs(apple)
    for p in (apple/'runs').glob('*.json'): p.unlink()
    with pytest.raises(BadInput, match=r'no stored runs\. Give'): read_runs(apple)


@pytest.mark.parametrize('kind', FORMATS)
def test_runs_of_another_format_are_refused_and_left_alone(apple, kind, command):
    "An older version does not disable the folder of a newer one"
    path, (change, told) = apple/'runs'/STORED[0].name, FORMATS[kind]
    run = read_run(path)
    path.write_text(run_json(replace(run, versions=dict(bn_imbalance='7.5', torch='9.1'))))
    path.write_text(change(path.read_text()))
    before = bytes_of(apple)
    for f in (lambda: read_run(path), lambda: read_runs(apple), lambda: Store(apple).get(run.config, run.versions)):
        with pytest.raises(BadInput) as e: f()
        assert not isinstance(e.value, Damaged) and '\n' not in str(e.value)
        assert all(o in str(e.value) for o in (str(path), 'bn_imbalance 7.5, torch 9.1', told, 'this version'))
    code, out, err = command('bn-report', apple)
    assert code == 1 and err.count('\n') == 1 and told in err and bytes_of(apple) == before


def test_a_run_that_is_not_text_or_cannot_be_read(apple, monkeypatch):
    path = apple/'runs'/STORED[0].name
    def denied(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    with monkeypatch.context() as m:
        m.setattr(Path, 'read_text', denied)
        with pytest.raises(BadInput, match='cannot be read .Permission denied') as e: read_runs(apple)
    assert not isinstance(e.value, Damaged) # it is whole, so it is not overwritten
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(Damaged, match='not a text'): read_run(path)
    path.unlink()
    assert read_run(path) is None # there is none


@pytest.mark.parametrize('versions', [None, [], 'one', {}, dict(bn_imbalance=3), dict(bn_imbalance='1\n2')])
def test_whoever_wrote_it(versions): assert written_by(versions) == 'an unknown version'


def test_a_report_says_what_it_leaves_out(apple, command):
    path = apple/'runs'/STORED[0].name
    path.write_text(path.read_text()[:500])
    code, out, err = command('bn-report', apple)
    assert code == 0 and '1 of 2 runs are damaged and left out' in err and err.count('\n') == 1
    assert (apple/'report.html').exists() and path.exists()


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


def test_a_run_without_its_configuration_is_damaged(tmp_path):
    path = tmp_path/'plain-seed0.json'
    empty = dict(format=FORMAT, config={}, rare=[1], valid=None, test=None)
    path.write_text(json.dumps(empty))
    with pytest.raises(Damaged, match='something is missing'): read_run(path)
    assert path.exists()
