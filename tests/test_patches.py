"""Models that score patches: saved and loaded to the bit, used, exported, explained, refused."""
import pickle, sys
from dataclasses import replace
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.explain import heat_maps
from bn_imbalance.deploy.export import check_pixels
from bn_imbalance.training import features
from bn_imbalance.training.features import backbone_features, patch_features
from bn_imbalance.find.search import start_search, check_searchable, next_round, search_with_model
from bn_imbalance.deploy.fitting import check_portable, fit, recommended_recipe
from bn_imbalance.data.images import decode
from bn_imbalance.adapters.learners import model_learner
from bn_imbalance.deploy.model import MODEL_FORMAT, load_model, read_held_out
from bn_imbalance.models.backbones import cut_backbone, find_backbone, patch_backbone, new_network, normalized
from bn_imbalance.deploy.predict import model_logits, predict_images, predictions
from bn_imbalance.recipes.base import Recipe, recipes
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.deploy.prevalence import score_images
from deployed import ARCH, COSTS, FLAGS, SMALL, copy, execution, images, one_line, rewritten # noqa: F401, fixtures

BOTH = 'final_bn+padim'


@pytest.fixture(scope='module')
def saved(images, tmp_path_factory): # noqa: F811
    "Sixteen patches: enough for maps to be wrong"
    out = tmp_path_factory.mktemp('model')/'model'
    fit(read_data(images), BOTH, load_settings(**SMALL | dict(size=64)), COSTS, execution(out))
    return out


@pytest.mark.parametrize('name,kinds', [('padim', ['onnx']), ('patchcore', ['torch']), (BOTH, ['onnx', 'torch'])])
def test_from_the_command_line(name, kinds, images, command, tmp_path): # noqa: F811
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('captum')
    m, t = tmp_path/'m', tmp_path/'t.csv'
    code, _, err = command('bn-fit', images, '--recipe', name, '--out', m, *FLAGS)
    assert code == 0, err
    code, _, err = command('bn-predict', m, images, '--csv', t, '--explain', tmp_path/'maps')
    assert code == 0, err
    model, pred = load_model(m), pd.read_csv(t)
    assert len(pred) == 52 and len(list((tmp_path/'maps').glob('[!.]*'))) == 52
    alone = pd.concat([predict_images(model, p) for p in pred.path[[0, 20, 51]]], ignore_index=True)
    np.testing.assert_array_equal(alone.probability.astype(float).round(6),
                                  pred.probability[[0, 20, 51]].round(6))
    code, _, err = command('bn-export', m, *[o for k in kinds for o in (f'--{k}', tmp_path/k)])
    assert code == 0, err
    x = check_pixels(model, n=40)
    want, runs = model_logits(model, x), []
    if 'onnx' in kinds: runs.append(partial(onnxruntime.InferenceSession(tmp_path/'onnx').run, ['logits']))
    if 'torch' in kinds: runs.append(lambda d: torch.export.load(tmp_path/'torch').module()(torch.tensor(d['pixels'])))
    for run in runs:
        for n in 1, 40: # also more than are scored at once here
            z = run({'pixels': x[:n].numpy().astype('float32')/255})[0]
            np.testing.assert_allclose(torch.as_tensor(z).detach(), want[:n], atol=1e-4, rtol=1e-4)


def test_saved_is_loaded_to_the_bit(saved, images): # noqa: F811
    model = fit(read_data(images), BOTH, load_settings(**SMALL | dict(size=64)), COSTS, execution())
    again, x = load_model(saved), torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    assert again.about == model.about and {'0.projection', '1.1.0.heads.1.0.w'} <= set(again.net.state_dict())
    np.testing.assert_array_equal(model_logits(again, x), model_logits(model, x))
    together = model_logits(again, x)
    np.testing.assert_array_equal(np.concatenate([model_logits(again, o[None]) for o in x]), together) # no neighbours
    other = replace(again, net=pickle.loads(pickle.dumps(again.net))) # as it goes to other machines
    np.testing.assert_array_equal(model_logits(other, x), together)


def test_one_pass_sees_what_two_see(images): # noqa: F811
    s, items = load_settings(**SMALL | dict(size=64)), read_data(images).items[:7]
    x = torch.from_numpy(np.stack([decode(p, 64) for p in items.path] + [decode(items.path.iloc[-1], 64)]*25))
    net = patch_backbone(s.arch, s.weights, 64).to(memory_format=torch.channels_last)
    x = normalized(x, find_backbone(s.arch).stats).to(memory_format=torch.channels_last)
    with torch.inference_mode(): pooled, patches = net(x)
    assert torch.equal(pooled[:7], backbone_features(items, s, 'cpu')[items.digest])
    assert torch.equal(patches[:7].half(), patch_features(items, s, 'cpu')[items.digest])


def test_patches_bring_the_features(images, tmp_path, monkeypatch): # noqa: F811
    "Both are stored after one pass through the network"
    s, items = load_settings(**SMALL | dict(size=64)), read_data(images).items[:9]
    want = backbone_features(items, s, 'cpu').x
    monkeypatch.setenv('BN_IMBALANCE_CACHE', str(tmp_path))
    patch_features(items, s, 'cpu')
    monkeypatch.setattr(features, 'forward_batches', None)
    assert torch.equal(backbone_features(items, s, 'cpu').x, want)


def test_models_of_features_are_as_they_were(images): # noqa: F811
    "Of the same format, with the same tensors"
    model = fit(read_data(images), 'knn', load_settings(**SMALL | dict(seeds=1)), execution=execution())
    backbone = {f'0.{k}' for k in cut_backbone(new_network(ARCH), ARCH).state_dict()}
    head = {f'1.1.0.{k}' for k in ('threshold', 'scale', 'mean', 'std', 'bank')}
    assert model.about['format'] == MODEL_FORMAT and set(model.net.state_dict()) == backbone | head


HOSTILE = {
    'model.safetensors: does not fit': lambda n: n['layers'][0][1]['heads'][1][0][1].update(patches=10**9),
    'network.layers do not fit together': lambda n: n.update(size=128), # more patches than it has Gaussians
    'network.layers make no network': lambda n: n['layers'][0][1]['heads'][1][0].__setitem__(0, 'PatchNearest'),
    'network.layers is missing or not': lambda n: n['layers'][0][1]['heads'][1][0][1].update(n_in=float('nan')),
    'network.layers make no network (KeyError)': lambda n: n['layers'][0][1].pop('heads'),
    'model.safetensors: does not fit ': lambda n: n.update(layers=n['layers'][0][1]['heads'][1]), # half of it
    'makes no maps': lambda n: n.update(arch='vit_tiny_patch16_224', size=224)}


@pytest.mark.parametrize('message', HOSTILE)
def test_hostile(message, copy, images, command): # noqa: F811
    rewritten(copy, lambda a: HOSTILE[message](a['network']))
    one_line(command('bn-predict', copy, images), message)


def test_recipes_that_make_no_model(images, tmp_path): # noqa: F811
    "Refused before anything is computed"
    def refused(message, name, **changes):
        with pytest.raises(BadInput, match=message):
            fit(read_data(images), name, load_settings(**SMALL | changes), execution=execution(tmp_path/'m'))
        assert not (tmp_path/'m').exists()
    refused('makes no maps', 'padim', arch='vit_tiny_patch16_224', size=224)
    refused('the backbone learns', BOTH, train_bn=True)
    s = load_settings(**SMALL)
    def mean_of_patches(head, x, y, seed, refit):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(512, 2))
    flat = Recipe('flat', 'a Linear layer on patches', fit_head=mean_of_patches, trains=False, inputs=('patches',))
    with pytest.raises(BadInput, match='recipe flat'): check_portable(flat, s)
    linear = replace(flat, fit_head=lambda *args: torch.nn.Sequential(torch.nn.Linear(128, 2)))
    with pytest.raises(BadInput, match='recipe flat: its input is patches, but'): check_portable(linear, s)
    twice = replace(recipes['padim'], ensemble_with=recipes['patchcore'])
    check_portable(twice, s) # both halves are given patches


@pytest.fixture(scope='module')
def spots(tmp_path_factory):
    "Noise, and the same with a bright square in one of four corners, which the number in the name determines"
    root, rng = tmp_path_factory.mktemp('spots'), np.random.default_rng(0)
    for label, n in ('good', 40), ('bad', 12):
        (root/label).mkdir()
        for i in range(n):
            pixels = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
            if label == 'bad': pixels[32*(i//2%2) + 8:, 32*(i%2) + 8:][:16, :16] = 250
            Image.fromarray(pixels).save(root/label/f'{i}.png')
    return root


@pytest.mark.parametrize('name', ['padim', 'patchcore', BOTH])
def test_a_heat_map_points_at_the_anomaly(name, spots):
    if name == BOTH: pytest.importorskip('captum')
    data = read_data(spots)
    model = fit(data, name, load_settings(**SMALL | dict(size=64, seeds=1, arch='resnet18')), execution=execution())
    paths = [spots/'bad'/f'{i}.png' for i in range(12)]
    x = torch.from_numpy(np.stack([decode(p, 64) for p in paths]))
    heat = heat_maps(model, x)
    assert heat.shape == (12, 64, 64) and heat.min() >= 0 and heat.max() == pytest.approx(1)
    corner = heat.reshape(12, 2, 32, 2, 32).mean((2, 4)).reshape(12, 4).argmax(1)
    assert (corner == np.arange(12) % 4).mean() > .9
    np.testing.assert_allclose(heat_maps(model, x[:1])[0], heat[0], atol=1e-4)
    if name == 'padim': # evidence for the majority is elsewhere
        usual = heat_maps(model, x, 0).reshape(12, 2, 32, 2, 32).mean((2, 4)).reshape(12, 4)
        assert (usual.argmax(1) != np.arange(12) % 4).all()


def test_a_map_of_patches_needs_no_library(spots, monkeypatch):
    monkeypatch.setitem(sys.modules, 'captum.attr', None)
    x, s = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), load_settings(**SMALL | dict(size=64, seeds=1))
    heat_maps(fit(read_data(spots), 'padim', s, execution=execution()), x)
    model = fit(read_data(spots), BOTH, s, execution=execution())
    with pytest.raises(BadInput, match='needs captum'): heat_maps(model, x)


def test_what_compare_recommends(images, command, tmp_path): # noqa: F811
    "A recipe that scores patches may be taken; a search passes it over"
    c = tmp_path/'c'
    code, _, err = command('bn-compare', images, '--recipes', 'padim,ridge', '--tuned', 'none', '--out', c, *FLAGS)
    assert code == 0, err
    assert recommended_recipe(c, load_settings())[3] == []
    assert recommended_recipe(c, load_settings(), check=check_searchable)[0] == 'ridge'
    code, _, err = command('bn-fit', images, '--compare', c, '--recipe', 'padim', '--out', tmp_path/'m')
    assert code == 0, err
    run = 'padim-seed0.json'
    assert (tmp_path/'m'/'runs'/run).read_text() == (c/'runs'/run).read_text() # taken, not repeated


def test_margins_and_features(saved, images): # noqa: F811
    "To estimate a prevalence: margins as in a prediction, features of the backbone"
    model, paths = load_model(saved), sorted(images.glob('*/*.jpg'))
    e = read_held_out(saved, model.about)
    m, features, bad = score_images(model, e, paths, 10)
    x = torch.from_numpy(np.stack([decode(p, 64) for p in paths]))
    np.testing.assert_allclose(m, np.diff(model_logits(model, x))[:, 0], rtol=1e-3, atol=1e-3)
    assert bad == 0 and features.shape == (52, e['features'].shape[1]) and features.shape[1] > 1


def test_a_search_goes_by_the_margin_of_the_model(saved, images, tmp_path): # noqa: F811
    search = search_with_model(saved)
    q = start_search(search, [images], tmp_path/'find', progress=False)
    n, strange = next_round(q, search, 20, 'likely')
    rows = q.rows[q.rows.strategy == 'likely']
    table, _ = next(predictions(load_model(saved), [q.locate(p) for p in rows.path]))
    z = model_logits(load_model(saved), torch.from_numpy(np.stack([decode(q.locate(p), 64) for p in rows.path])))
    assert n == 20 and len(table) == len(rows) and 0 <= strange <= 1
    margin = np.diff(z)[:, 0]
    assert (np.diff(margin) <= 1e-3*np.abs(margin).max()).all() # the first is the most likely
    with pytest.raises(BadInput, match='padim: looks at patches'): search_with_model(saved, 'padim')


def test_as_a_learner(saved, images): # noqa: F811
    model, data = load_model(saved), read_data(images)
    learn = model_learner(model, data)
    with learn.no_bar(): p, _ = learn.get_preds(dl=learn.dls.test_dl(data.items, with_labels=True))
    table, _ = next(predictions(model, data.items.path, bs=60))
    np.testing.assert_allclose(p[:, 1], table.probability.astype(float), atol=1e-3)


def test_every_recipe_has_a_model():
    for r in get_recipes('all'): check_portable(r, load_settings(**SMALL))
