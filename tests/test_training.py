"""The fast way is the same as the slow way; faults of the cache; the store."""
import json, os
import numpy as np, pytest, torch
from dataclasses import replace
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data import draw_split, read_data
from bn_imbalance.recipes import get_recipes, recipes
from bn_imbalance.sweep import compare, read_runs
from bn_imbalance.training import _store_for, body_features, choose_engine, record_metrics, run, run_together

S = replace(load_settings(), size=32, batch_size=8, epochs=2, arch='resnet18', weights='random', seeds=2, recipes=['plain', 'final_bn'])


@pytest.fixture
def data(folder): return read_data(folder)


@pytest.mark.parametrize('arch', ['resnet18', 'vgg11', 'tf_efficientnet_lite0', 'mobilenetv3_small_050'])
@pytest.mark.parametrize('recipe', ['plain', 'final_bn_both'])
def test_both_engines_agree(data, arch, recipe):
    s = replace(S, arch=arch)
    split = draw_split(data, s, 0)
    fast, slow = (run(split, recipes[recipe], replace(s, engine=e), 0) for e in ('features', 'images'))
    assert (fast['engine'], slow['engine']) == ('features', 'images')
    for side in 'valid', 'test':
        a, b = np.array(fast[side]['logits']), np.array(slow[side]['logits'])
        assert fast[side]['y'] == slow[side]['y']
        np.testing.assert_allclose(a, b, atol=5e-3*max(1, a.std()))
    for a, b in zip(fast['history'], slow['history']): assert a['train_loss'] == pytest.approx(b['train_loss'], abs=5e-3)


def test_recipes_together_are_recipes_alone(data):
    split, chosen = draw_split(data, S, 0), get_recipes('all')
    together = run_together(split, chosen, S, 0)
    for r, rec in zip(chosen, together):
        alone = run(split, r, S, 0)
        assert rec['test'] == alone['test'] and rec['history'] == alone['history'], r.name


def test_engine_choice():
    plain = recipes['plain']
    assert choose_engine(plain, S) == 'features'
    assert choose_engine(plain, replace(S, train_bn=True)) == 'images'
    assert choose_engine(replace(plain, on_images=True), S) == 'forward'
    assert choose_engine(replace(plain, on_images=True), replace(S, engine='images')) == 'images'
    with pytest.raises(BadInput, match='body learns'): choose_engine(plain, replace(S, train_bn=True, engine='features'))
    with pytest.raises(BadInput, match='must see its images'): choose_engine(replace(plain, on_images=True), replace(S, engine='features'))


def test_features_are_recomputed_when_damaged(data):
    items = data.items
    good = body_features(items, S)
    store = _store_for(S)
    some = items.digest.iloc[3]
    with store.db: store.db.execute("update features set data = zeroblob(length(data)) where key = ?", (some,))
    with store.db: store.db.execute('delete from features where key = ?', (items.digest.iloc[5],))
    assert some not in store.get([some])
    torch.testing.assert_close(body_features(items, S).x, good.x, rtol=0, atol=0)
    store.db.close()
    for junk in (b'junk', store.path.read_bytes()[:5000] + os.urandom(3000)):
        store.path.write_bytes(junk)
        torch.testing.assert_close(body_features(items, S).x, good.x, rtol=0, atol=0)


def test_features_do_not_depend_on_what_was_there(data):
    part = data.items.iloc[7:30:3]
    alone = body_features(part, replace(S, size=40))
    whole = body_features(data.items, replace(S, size=40))
    torch.testing.assert_close(alone[part.digest], whole[part.digest], rtol=1e-5, atol=1e-5)


def test_anything_that_changes_features_changes_the_store(tmp_path):
    from safetensors.torch import save_file
    paths = [_store_for(s).path for s in (S, replace(S, size=64), replace(S, arch='resnet34'), replace(S, arch='tf_efficientnet_lite0'))]
    for k in range(2):
        torch.manual_seed(k)
        save_file(torch.nn.Linear(1, 1).state_dict(), tmp_path/f'{k}.safetensors')
        paths.append(_store_for(replace(S, weights=str(tmp_path/f'{k}.safetensors'))).path)
    assert len(set(paths)) == len(paths)


def test_same_table_from_both_backends_and_after_a_stop(data, tmp_path):
    whole = compare(data, S, out=tmp_path/'a', backend='serial', progress=False)
    by_process = compare(data, S, out=tmp_path/'b', backend='process', progress=False)
    strip = lambda recs: [{k: v for k, v in r.items() if k != 'seconds'} for r in recs]
    assert strip(whole) == strip(by_process)
    (tmp_path/'a/runs/plain-seed1.json').unlink()
    cut = tmp_path/'a/runs/final_bn-seed0.json'
    cut.write_text(cut.read_text()[:500]) # a record cut off in the middle
    assert strip(compare(data, S, out=tmp_path/'a', backend='serial', progress=False)) == strip(whole)
    assert cut.with_suffix('.damaged').exists()
    assert strip(read_runs(tmp_path/'a')) == strip(whole)


def test_a_store_is_not_mixed(data, tmp_path):
    compare(data, S, out=tmp_path, progress=False)
    with pytest.raises(BadInput, match='settings.epochs = 2, now it is 3'): compare(data, replace(S, epochs=3), out=tmp_path, progress=False)
    assert len(list((tmp_path/'runs').iterdir())) == 4


def test_records_are_json_and_hold_what_judges_them(data):
    rec = compare(data, replace(S, seeds=1, recipes=['final_bn']), progress=False)[0]
    again = json.loads(json.dumps(rec))
    assert record_metrics(again) == record_metrics(rec)
    assert again['config']['settings']['epochs'] == 2 and again['versions']['torch'] and len(again['history']) == 2
