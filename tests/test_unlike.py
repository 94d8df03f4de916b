"Unlike what was trained on: the rate on known images, something new, and models that say nothing"
import json
import numpy as np, pandas as pd, pytest
from PIL import Image
from bn_imbalance import load_model, load_settings, read_data
from bn_imbalance.core import BadInput, stored_results
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.predict import COLUMNS, predict_images
from bn_imbalance.evaluate.unlike import FOUND, UNLIKE, typicality
from bn_imbalance.training.sweep import Execution

KINDS = dict(plain=0, bright=100, dark=-90, striped=0) # the last one is new


def draw(path, n, kinds, seed=0):
    rng = np.random.default_rng(seed)
    for kind in kinds:
        (path/kind).mkdir(parents=True)
        for i in range(n):
            a = rng.normal(120, 15, (40, 40, 3))
            x, y = rng.integers(0, 16, 2)
            a[x:x + 20, y:y + 20] += KINDS[kind]
            if kind == 'striped': a[::4] += 80
            Image.fromarray(a.clip(0, 255).astype(np.uint8)).save(path/kind/f'{i}.png')
    return path


def fitted(folder, out, n):
    data = read_data(draw(folder, n, ('plain', 'bright', 'dark')), majority='plain', multiclass=True)
    return fit(data, 'ridge', load_settings(size=64, seeds=3), execution=Execution(out, backend='serial',
                                                                                  progress=False))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('unlike')
    model = fitted(root/'known', root/'m', 60)
    draw(root/'field', 40, KINDS, 1)
    return root, model


@pytest.mark.parametrize('n, each', [(19, 1), (40, 1), (25, 4), (150, 1)])
def test_the_rate_holds_on_known_images(n, each):
    "Also of new subjects, if the known ones have several images each"
    rng, said = np.random.default_rng(n), []
    e = dict(classes=np.array([0]), y=np.zeros(n*each, int), weight=np.full(n*each, 1/each/(n + 1), 'float32'),
             components=np.ones((1, 1)), mean=np.zeros((1, 1)), w=np.ones((1, 1, 1)))
    for _ in range(400):
        of = rng.normal(size=(n, 2))[np.repeat(np.arange(n), each)]
        e['strange'] = [9, 0] + of + rng.normal(size=of.shape)/2
        x, m = (rng.normal(size=(50, 2)) + rng.normal(size=(50, 2))/2).T
        said.append(typicality(e, np.expm1(x + 9)[:, None], np.c_[-m, 0*m], np.zeros(50, int)))
    said = np.array(said)
    assert (said <= UNLIKE).mean() < UNLIKE + .01 and said.min() == pytest.approx(1/(n + 1), abs=1e-5)
    assert abs(np.median(said) - .5) < .06


def test_something_new_is_found(made, command):
    root, model = made
    assert min(model.about['recognised']) >= 19
    t = predict_images(load_model(root/'m'), root/'field')
    kind = t.path.str.split('/').str[-2]
    share = (t.typicality <= UNLIKE).groupby(kind).mean()
    assert share.striped > .5 and share.drop('striped').max() <= .15, share
    code, out, err = command('bn-predict', root/'m', root/'field', '--csv', root/'t.csv')
    n = int((t.typicality <= UNLIKE).sum())
    assert code == 0 and f'{n} of 160 images are unlike' in err and 'at most 5 %' in err and 'Look first at' in err
    same = pd.read_csv(root/'t.csv')
    assert list(same)[-3:] == ['typicality', 'error', 'model']
    np.testing.assert_allclose(same.typicality, t.typicality, atol=1e-5)
    assert FOUND in (root/'m'/'card.md').read_text()


def test_saved_is_loaded_to_the_bit(made):
    root, model = made
    again = load_model(root/'m')
    assert set(again.known) == set(model.known)
    assert all(np.array_equal(v, again.known[k]) for k, v in model.known.items())
    pd.testing.assert_frame_equal(*(predict_images(m, root/'field'/'dark') for m in (model, again)))
    st = root/'m'/'known.safetensors'
    blob = st.read_bytes()
    st.write_bytes(blob[:-1])
    with pytest.raises(BadInput, match='known.safetensors: not the file that was saved'): load_model(root/'m')
    st.write_bytes(blob)


def test_of_few_images_nothing_is_said(tmp_path, command):
    "Eighteen subjects of a class allow no p-value of .05"
    model = fitted(tmp_path/'few', tmp_path/'m', 18)
    assert model.known is None and max(model.about['recognised']) < 19
    assert not (tmp_path/'m'/'known.safetensors').exists()
    code, out, err = command('bn-predict', tmp_path/'m', tmp_path/'few', '--csv', tmp_path/'t.csv')
    assert code == 0 and 'unlike' not in err and list(pd.read_csv(tmp_path/'t.csv')) == COLUMNS
    assert 'too few subjects are recognised' in (tmp_path/'m'/'card.md').read_text()


def test_two_classes_say_nothing(tmp_path):
    data = read_data(draw(tmp_path/'two', 20, ('plain', 'bright')), minority='bright')
    model = fit(data, 'ridge', load_settings(size=64, seeds=2), execution=Execution(tmp_path/'m',
               backend='serial', progress=False))
    assert load_model(tmp_path/'m').known is None and 'recognised' not in model.about
    assert list(predict_images(model, tmp_path/'two'/'plain')) == COLUMNS


def test_what_is_promised_was_measured():
    "5 % of the recognised images of each class, and what the card says of new kinds"
    t = pd.read_csv(stored_results()/'unlike.csv')
    known, new = t[~t.new].groupby('data').sum(numeric_only=True), t[t.new].groupby('data').sum(numeric_only=True)
    assert (known.right_unlike/known.right <= UNLIKE).all()
    share = (100*new.unlike/new.images).round().astype(int)
    assert FOUND.startswith(f'{share.tiles} % of the images with tile defects and {share.apple} % of those with')
