"""The prevalence among new images: estimated, refused, and what a model must hold for it."""
import json
import numpy as np, pytest
from PIL import Image
from scipy.special import expit, logit
from bn_imbalance.deploy import prevalence
from bn_imbalance.deploy.model import load_model, read_held_out
from bn_imbalance.deploy.predict import predict_images
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.deploy.prevalence import (
    PrevalenceEstimate, prevalence_text,
    counted_prevalence, log_density_ratio, score_images, mixture_test, em_prevalence, resampled,
    prevalence_interval)
from deployed import images, copy, one_line, rewritten, saved # noqa: F401, fixtures


def known(n0=200, n1=40, seed=0, networks=3, apart=2.):
    "Held-out predictions: two images per subject, by several networks"
    rng, y = np.random.default_rng(seed), np.repeat([0, 1], [n0, n1])
    y, subject, network = (np.tile(o, 2*networks) for o in (y, np.arange(len(y)), np.zeros(len(y), int)))
    network = np.repeat(np.arange(networks), len(y)//networks)
    m = rng.normal(apart*y, 1)
    return dict(y=y, subject=subject, network=network, margin=m, features=rng.normal(y[:, None], 1, (len(y), 3)))


def mixed(prevalence, n=600, seed=1, apart=2.):
    y = np.arange(n) < round(prevalence*n)
    return np.random.default_rng(seed).normal(apart*y, 1)


@pytest.mark.parametrize('p', [0, .01, .1, .5, 1])
def test_a_known_prevalence_is_found(p):
    e, m = known(), mixed(p)
    for value, low, high in prevalence_interval(e, m, draws=60), counted_prevalence(e, m, 1):
        assert low - .02 <= p <= high + .02 and abs(value - p) < .08 and 0 <= low <= value + .03 and high <= 1


def test_em_converges_to_the_most_likely():
    e, m = known(), mixed(.2)
    scale, shift = log_density_ratio(e['y'], e['margin'])
    p = .7
    for _ in range(3000): p = expit(logit(p) + scale*m + shift).mean()
    assert em_prevalence(scale*m + shift) == pytest.approx(p, abs=1e-4)
    assert em_prevalence(np.full(30, -9.)) == 0 and em_prevalence(np.full(30, 900.)) == 1


def test_more_subjects_narrow_the_interval():
    "Images and networks are not subjects"
    def width(e): return np.diff(prevalence_interval(e, mixed(.3), draws=60)[1:]).item()
    few, many = known(50, 8), known(800, 128)
    assert width(many) < width(few)
    rows = resampled(few, np.random.default_rng(0))
    assert set(few['y'][rows]) == {0, 1} and len(set(few['subject'][rows])) < 58


def test_false_refusals_are_rare_and_other_images_are_refused():
    e, p = known(), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = rng.random(300) < .1
        p.append(mixture_test(e, e['features'], rng.normal(y[:, None], 1, (300, 3)), .1, draws=99))
    assert np.mean(np.array(p) <= .05) < .3 and np.median(p) > .2
    other = np.random.default_rng(0).normal([0, 0, 4], 1, (300, 3))
    assert mixture_test(e, e['features'], other, .1, draws=99) == .01


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


@pytest.mark.parametrize('likely,n,flag,text', [
    ((.0004, .0001, .0009), 20_000, '0.0004', '0.04 % (95 % interval 0.01 % to 0.09 %)'),
    ((0., 0., .002), 2000, '0.00025', '0 % (95 % interval 0 % to 0.2 %)'),
    ((.9996, .999, 1.), 5000, '0.9996', '99.96 % (95 % interval 99.9 % to 100 %)')])
def test_a_very_small_prevalence_is_neither_rounded_nor_clamped(likely, n, flag, text):
    "What is printed is what was found, and the flag that it names is one that bn-fit takes"
    about = dict(classes=['good', 'bad'], validation_subjects=[100, 20])
    got = ' '.join(prevalence_text(PrevalenceEstimate(likely, likely, dict(margins=.00002), n, 0, about, .05)))
    assert got.startswith(f'{text} of these') and f'--prevalence {flag}.' in got
    assert Goal(prevalence=float(flag)).given and 'p = 0.00002' in got and 'a prevalence of 5 %' in got
