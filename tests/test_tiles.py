"Large images seen in tiles: the same numbers wherever a model of them goes"
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from bn_imbalance import load_model, load_settings, read_data
from bn_imbalance.core import BadInput
from bn_imbalance.deploy.explain import heat_maps
from bn_imbalance.deploy.export import export_onnx
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.predict import predictions
from bn_imbalance.find.pool import embed, model_embedder
from bn_imbalance.training.sweep import Execution

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


@pytest.mark.parametrize('tiles', ['0x2', '2', 'x', '2x100', 'two', '-1x2'])
def test_bad_tiles(tiles):
    with pytest.raises(BadInput, match='--tiles'): load_settings(tiles=tiles)


def test_size_auto_is_the_default():
    assert load_settings(size='auto') == load_settings()
    with pytest.raises(BadInput, match='--size'): load_settings(size='automatic')
