"Large images seen in tiles: the same numbers wherever a model of them goes"
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from bn_imbalance import load_model, load_settings, read_data
from bn_imbalance.core import BadInput
from bn_imbalance.deploy.explain import heat_maps
from bn_imbalance.deploy.export import export_onnx
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.predict import predictions
from bn_imbalance.deploy.prevalence import score_images
from bn_imbalance.data.images import decode
from bn_imbalance.find.pool import embed, model_embedder
from bn_imbalance.models.anomaly import PatchNearest
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.engine import choose_engine
from bn_imbalance.training.sweep import Execution
from bn_imbalance.training.tiles import best_grid, grids, Pilot, with_tiles

HEIGHT, WIDTH = 180, 240


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Noise; the rare ones have a bright spot in one corner"
    root, rng = tmp_path_factory.mktemp('wide'), np.random.default_rng(0)
    for name, n in dict(good=24, spot=12).items():
        (root/name).mkdir()
        for i in range(n):
            a = rng.normal(110, 12, (HEIGHT, WIDTH))
            if name == 'spot': a[10:22, 200:212] += 90
            Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(root/name/f'{i}.png')
    return root


@pytest.fixture(scope='module')
def data(folder): return read_data(folder, minority='spot')


@pytest.mark.parametrize('recipe', ['ridge', 'padim', 'blend'])
def test_a_model_of_tiles_goes_everywhere(data, tmp_path, recipe):
    s = load_settings(size=64, tiles='3x4', seeds=2)
    assert s.shape == (64 + 2*56, 64 + 3*56)
    model = fit(data, recipe, s, execution=Execution(tmp_path/'m', backend='serial', progress=False))
    assert model.shape == s.shape and model.about['metrics']['recall'][0] > .8
    again, paths = load_model(tmp_path/'m'), list(data.items.path[::6])
    tables, x = zip(*predictions(again, paths))
    t, x = pd.concat(tables), torch.cat(x)
    assert x.shape == (len(paths), 3, *s.shape)
    with torch.no_grad():
        mean, std = (torch.tensor(o)[:, None, None] for o in model.stats)
        z = model.net((x/255 - mean)/std)
    assert np.allclose(t.probability, z.softmax(1)[:, 1], atol=1e-4)
    heat = heat_maps(again, x[-1:])
    assert heat.shape == (1, *s.shape) and heat.max() == 1
    y, xx = np.unravel_index(heat[0].argmax(), heat[0].shape)
    assert y < 60 and xx > 160, 'the spot is in the upper right corner'
    export_onnx(again, tmp_path/'m.onnx') # compares with the model itself
    *_, x = zip(*embed(paths, model_embedder(again, 'cpu')))
    assert len(x[0][0]) and np.isfinite(x[0][0]).all()


def test_wide_images_keep_their_proportions():
    assert grids((900, 1600), 224)[-1] == (5, 8)
    assert grids((224, 2000), 224)[-1][0] == 1
    assert grids((224, 224), 224) == [(1, 1)]
    assert all(np.prod(g) <= 64 for g in grids((20000, 20000), 224))


def test_an_image_in_tiles_is_as_strange_as_its_strangest_tile():
    head = PatchNearest(3, 5)
    head.bank.normal_()
    x = torch.randn(40, 6, 7, 5)
    each = head.score(x.flatten(0, 1)).view(40, 6)
    assert torch.allclose(head.score(x), each.amax(1), atol=1e-6)


def test_noise_chooses_nothing():
    rng, y = np.random.default_rng(0), np.arange(60) < 20
    from sklearn.metrics import roc_auc_score
    def pilot(grid, shift):
        m = rng.normal(size=60) + shift*y
        return Pilot(grid, 'ridge', roc_auc_score(y, m), m, np.nan)
    noise = [best_grid([pilot((1, 1), 1), pilot((3, 3), 1)], y).grid for _ in range(40)]
    assert noise.count((3, 3)) < 12
    assert best_grid([pilot((1, 1), 0), pilot((3, 3), 3)], y).grid == (3, 3)


def test_tiles_are_for_a_frozen_backbone(data):
    s = load_settings(size=64, unfreeze=1)
    final_bn, = get_recipes(['final_bn'])
    with pytest.raises(BadInput, match='--tiles 1x1'):
        choose_engine(final_bn, load_settings(size=64, tiles='2x2', unfreeze=1))
    assert with_tiles(data, load_settings(unfreeze=1), [final_bn]).grid == (1, 1)
    assert s.tiles == '1x1', 'a size of your own'


@pytest.mark.parametrize('tiles', ['0x2', '2', 'x', '2x100', 'two', '-1x2'])
def test_bad_tiles(tiles):
    with pytest.raises(BadInput, match='--tiles'): load_settings(tiles=tiles)


def test_size_auto_is_the_default():
    assert load_settings(size='auto') == load_settings()
    with pytest.raises(BadInput, match='--size'): load_settings(size='automatic')


def test_the_users_test_images_choose_nothing(folder, tmp_path):
    files = [(p, p.parent.name) for p in sorted(folder.rglob('*.png'))]
    t = pd.DataFrame(files, columns=['path', 'label'])
    t['split'] = np.where(np.arange(len(t)) % 3 == 0, 'test', 'train')
    t.to_csv(tmp_path/'t.csv', index=False)
    from bn_imbalance.training.tiles import pilot_sample
    d = read_data(tmp_path/'t.csv', minority='spot')
    assert set(pilot_sample(d).given) == {'train'}
