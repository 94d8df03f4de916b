"""The share of the rare class among new images: told, refused, and what a model must know for it."""
import json
import numpy as np, pytest
from scipy.special import expit, logit
from bn_imbalance import share
from bn_imbalance.model import load_model, read_evidence
from bn_imbalance.share import (counted_share, log_density_ratio, look_at, mixture_test, most_likely_share, resampled,
                                share_interval)
from deployed import images, copy, one_line, rewritten, saved # noqa: F401, fixtures


def known(n0=200, n1=40, seed=0, networks=3, apart=2.):
    "Subjects with two images each, seen by several networks"
    rng, y = np.random.default_rng(seed), np.repeat([0, 1], [n0, n1])
    y, subject, network = (np.tile(o, 2*networks) for o in (y, np.arange(len(y)), np.zeros(len(y), int)))
    network = np.repeat(np.arange(networks), len(y)//networks)
    m = rng.normal(apart*y, 1)
    return dict(y=y, subject=subject, network=network, margin=m, seen=rng.normal(y[:, None], 1, (len(y), 3)))


def mixed(share, n=600, seed=1, apart=2.):
    y = np.arange(n) < round(share*n)
    return np.random.default_rng(seed).normal(apart*y, 1)


@pytest.mark.parametrize('p', [0, .01, .1, .5, 1])
def test_a_known_share_is_found(p):
    e, m = known(), mixed(p)
    for value, low, high in share_interval(e, m, draws=60), counted_share(e, m, 1):
        assert low - .02 <= p <= high + .02 and abs(value - p) < .08 and 0 <= low <= value + .03 and high <= 1


def test_em_ends_where_the_likelihood_is_highest():
    e, m = known(), mixed(.2)
    scale, shift = log_density_ratio(e['y'], e['margin'])
    p = .7
    for _ in range(3000): p = expit(logit(p) + scale*m + shift).mean()
    assert most_likely_share(scale*m + shift) == pytest.approx(p, abs=1e-4)
    assert most_likely_share(np.full(30, -9.)) == 0 and most_likely_share(np.full(30, 900.)) == 1


def test_more_subjects_make_it_surer():
    "Images and networks are not subjects"
    def width(e): return np.diff(share_interval(e, mixed(.3), draws=60)[1:]).item()
    few, many = known(50, 8), known(800, 128)
    assert width(many) < width(few)
    rows = resampled(few, np.random.default_rng(0))
    assert set(few['y'][rows]) == {0, 1} and len(set(few['subject'][rows])) < 58


def test_false_refusals_are_rare_and_strangers_are_refused():
    e, p = known(), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = rng.random(300) < .1
        p.append(mixture_test(e, e['seen'], rng.normal(y[:, None], 1, (300, 3)), .1, draws=99))
    assert np.mean(np.array(p) <= .05) < .3 and np.median(p) > .2
    strange = np.random.default_rng(0).normal([0, 0, 4], 1, (300, 3))
    assert mixture_test(e, e['seen'], strange, .1, draws=99) == .01


def test_looks_as_it_was_trained(saved, images):
    "Margins and features of a folder are those of the network, whatever the size of a batch"
    model, paths = load_model(saved), sorted(images.glob('*/*.jpg'))
    e = read_evidence(saved, model.about)
    m, seen, bad = look_at(model, e, paths, 32)
    again = look_at(model, e, paths, 5)
    np.testing.assert_allclose(m, again[0], atol=1e-4)
    np.testing.assert_allclose(seen, again[1], rtol=1e-3, atol=1e-3)
    assert bad == 0 and len(m) == len(paths) and seen.shape[1] == e['seen'].shape[1] > 1
    p = model.predict([images]).probability
    np.testing.assert_allclose(expit(m), p, atol=1e-4)
    assert len(set(e['network'])) == 2 and e['y'].sum() > 0


def test_command(saved, images, command, tmp_path):
    code, out, err = command('bn-data', 'share', saved, images, '--device', 'cpu', '--batch-size', '7')
    assert code == 0 and '52 images are bad' in ' '.join(out.split()) and '95 % interval' in out, err
    (images.parent/'mixed').mkdir()
    for i, p in enumerate(sorted(images.glob('*/*.jpg'))):
        (images.parent/'mixed'/f'{i}.jpg').write_bytes(p.read_bytes())
    (images.parent/'mixed'/'cut.jpg').write_bytes(b'no image')
    code, out, _ = command('bn-data', 'share', saved, images.parent/'mixed')
    assert code == 0 and '1 more cannot be read' in ' '.join(out.split())


def test_bad_input(saved, images, command, monkeypatch, tmp_path):
    (tmp_path/'bare').mkdir(); (tmp_path/'broken').mkdir()
    for i in range(25): (tmp_path/'broken'/f'{i}.png').write_text('')
    for args, message in (([tmp_path/'bare'], 'a folder without images'), ([tmp_path/'none'], 'no such file or folder'),
                          ([], 'no images given'), ([tmp_path/'broken'], '0 images that can be read (25 cannot)'),
                          ([*images.glob('bad/00*.jpg')], 'at least 20'), ([images, '--batch-size', '0'], 'from 1'),
                          ([images, '--device', 'gpu'], '--device gpu')):
        one_line(command('bn-data', 'share', saved, *args), message)
    one_line(command('bn-data', 'share', tmp_path/'gone', images), 'model.json: cannot be read')
    monkeypatch.setattr(share, 'mixture_test', lambda *args: .0025)
    one_line(command('bn-data', 'share', saved, images), 'no mixture of good and bad', 'features (p = 0.0025)')


def test_models_that_do_not_know(copy, images, command):
    about = json.loads((copy/'model.json').read_text())
    st, blob = copy/'evidence.safetensors', (copy/'evidence.safetensors').read_bytes()
    st.write_bytes(blob[:-3])
    one_line(command('bn-data', 'share', copy, images), 'not the file that was saved with model.json')
    st.unlink()
    one_line(command('bn-data', 'share', copy, images), 'evidence.safetensors: cannot be read')
    assert about.pop('evidence')
    rewritten(copy, lambda a: a.pop('evidence'))
    one_line(command('bn-data', 'share', copy, images), 'older version', 'bn-fit')
    assert load_model(copy).predict([images]).label.notna().all() # it predicts as ever
