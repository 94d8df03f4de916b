"""Runs on disk: those of yesterday are read, damaged ones are left out, others are not mixed with them."""
import json, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from conftest import numbers
from bn_imbalance.core import BadInput, stored_results
from bn_imbalance.evaluate.runs import FORMAT, Damaged, Run, Predictions, Store, read_run, read_runs, run_json

APPLE = stored_results()/'apple'
STORED = sorted((APPLE/'runs').glob('*.json'))


@pytest.fixture
def apple(tmp_path):
    shutil.copytree(APPLE, tmp_path/'apple')
    return tmp_path/'apple'


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


def test_a_report_says_what_it_leaves_out(apple, command):
    path = apple/'runs'/STORED[0].name
    path.write_text(path.read_text()[:500])
    code, out, err = command('bn-report', apple)
    assert code == 0 and '1 of 2 runs are damaged and left out' in err and err.count('\n') == 1
    assert (apple/'report.html').exists() and path.exists()
