"""The prevalence among new images: estimated, refused, and what a model must hold for it."""
import json
import numpy as np, pytest
from PIL import Image
from scipy.special import expit
from bn_imbalance.deploy import prevalence
from bn_imbalance.deploy.model import load_model, read_held_out
from bn_imbalance.deploy.predict import predict_images
from bn_imbalance.deploy.prevalence import score_images
from deployed import images, copy, one_line, rewritten, saved # noqa: F401, fixtures


def test_margins_and_features(saved, images):
    "Margins and features of a folder are those of the network, whatever the size of a batch"
    model, paths = load_model(saved), sorted(images.glob('*/*.jpg'))
    e = read_held_out(saved, model.about)
    m, features, bad = score_images(model, e, paths, 32)
    again = score_images(model, e, paths, 5)
    np.testing.assert_allclose(m, again[0], atol=1e-4)
    np.testing.assert_allclose(features, again[1], rtol=1e-3, atol=1e-3)
    assert bad == 0 and len(m) == len(paths) and features.shape[1] == e['features'].shape[1] > 1
    p = predict_images(model, [images]).probability
    np.testing.assert_allclose(expit(m), p, atol=1e-4)
    assert len(set(e['network'])) == 2 and e['y'].sum() > 0


def test_command(saved, images, command, tmp_path):
    code, out, err = command('bn-data', 'prevalence', saved, images, '--device', 'cpu', '--batch-size', '7')
    assert code == 0 and '52 images are bad' in ' '.join(out.split()) and '95 % interval' in out, err
    (images.parent/'mixed').mkdir()
    for i, p in enumerate(sorted(images.glob('*/*.jpg'))):
        (images.parent/'mixed'/f'{i}.jpg').write_bytes(p.read_bytes())
    (images.parent/'mixed'/'cut.jpg').write_bytes(b'no image')
    code, out, _ = command('bn-data', 'prevalence', saved, images.parent/'mixed')
    assert code == 0 and '1 more cannot be read' in ' '.join(out.split())
    (images.parent/'mixed'/'drawing.svg').write_text('<svg/>')
    pages = [Image.open(p) for p in sorted(images.glob('good/*.jpg'))[:2]]
    pages[0].save(images.parent/'mixed'/'stack.tif', save_all=True, append_images=pages[1:])
    for pages, n, said in ('first', 53, True), ('all', 54, False):
        code, out, _ = command('bn-data', 'prevalence', saved, images.parent/'mixed', '--pages', pages)
        out = ' '.join(out.split())
        assert code == 0 and f'of these {n} images' in out and ('several pages or frames' in out) == said
        assert 'Left out: 1 file (1 .svg)' in out


def test_bad_input(saved, images, command, monkeypatch, tmp_path):
    (tmp_path/'bare').mkdir(); (tmp_path/'broken').mkdir()
    for i in range(25): (tmp_path/'broken'/f'{i}.png').write_text('')
    for args, message in (([tmp_path/'bare'], 'a folder without images'), ([tmp_path/'none'], 'no such file or folder'),
                          ([], 'no images given'), ([tmp_path/'broken'], '0 readable images (25 are not)'),
                          ([*images.glob('bad/00*.jpg')], 'at least 20'), ([images, '--batch-size', '0'], 'from 1'),
                          ([images, '--range', '5'], 'LOW,HIGH'),
                          ([images, '--device', 'gpu'], '--device gpu')):
        one_line(command('bn-data', 'prevalence', saved, *args), message)
    one_line(command('bn-data', 'prevalence', tmp_path/'gone', images), 'model.json: cannot be read')
    monkeypatch.setattr(prevalence, 'mixture_test', lambda *args: .0025)
    one_line(command('bn-data', 'prevalence', saved, images), 'no mixture of good and bad', 'features (p = 0.0025)')


def test_models_without_held_out_predictions(copy, images, command):
    about = json.loads((copy/'model.json').read_text())
    st = copy/'held_out.safetensors'
    st.write_bytes(st.read_bytes()[:-3])
    one_line(command('bn-data', 'prevalence', copy, images), 'not the file that was saved with model.json')
    st.unlink()
    one_line(command('bn-data', 'prevalence', copy, images), 'held_out.safetensors: cannot be read')
    assert about.pop('held_out')
    rewritten(copy, lambda a: a.pop('held_out'))
    one_line(command('bn-data', 'prevalence', copy, images), 'no held-out predictions', 'bn-fit')
    assert predict_images(load_model(copy), [images]).label.notna().all() # it predicts as ever
