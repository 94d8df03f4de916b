"""What the bounds of a decision promise, against simulation."""
import numpy as np, pytest
from bn_imbalance.evaluate.decision import review_bounds


def two(m): return np.c_[0*np.asarray(m), m] # logits with this margin


@pytest.mark.parametrize('n', [4, 9, 30])
def test_few_images_promise_what_they_can(n):
    rng, out = np.random.default_rng(n), []
    y = np.repeat([0, 1], [300, n])
    for _ in range(400):
        low = review_bounds(y, np.c_[0*y, rng.normal(y, 1)], np.arange(len(y)), .9)
        out.append(np.mean(rng.normal(1, 1, 50) < low[1]))
    assert np.mean(out) < max(.1, 1/(n + 1)) + .02


def bound(m, group):
    "Of the second class, which has the margins"
    return review_bounds(np.r_[0, np.ones(len(m), int)], two(np.r_[0, m]), np.r_[-1, group], .9)[1]


@pytest.mark.parametrize('each', [1, 4, 10, None]) # images a subject; None: 1 to 12
@pytest.mark.parametrize('between,within', [(1, .3), (1, 1), (.5, 1)])
def test_the_promise_holds_for_single_images_of_subjects(each, between, within):
    "Images of one subject resemble each other; of new subjects' images at most one in ten is below the bound"
    rng, below, n = np.random.default_rng(0), [], 40
    def margins(subject): # of images, given whom they show
        return rng.normal(0, between, subject.max() + 1)[subject] + rng.normal(0, within, len(subject))
    for _ in range(400):
        group = np.repeat(np.arange(n), each or rng.integers(1, 13, n))
        low = bound(margins(group), group)
        below.append((margins(np.arange(500)) < low).mean())
    assert .07 < np.mean(below) < .107
