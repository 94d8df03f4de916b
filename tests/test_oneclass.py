"""One-class recipes against loops written from the papers' formulas; faults; what a memory costs."""
import numpy as np, pytest, torch
from conftest import SMALL
from dataclasses import replace
from hypothesis import given, settings, strategies as st
from bn_imbalance.core import BadInput
from bn_imbalance.data.splits import draw_split
from bn_imbalance.training.features import patch_features
from bn_imbalance.recipes.anomaly import coreset, fit_patch_gaussian, fit_patch_memory
from bn_imbalance.recipes.base import recipes
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.training.run import run_together
from bn_imbalance.models.anomaly import KNearest, Mahalanobis, MarginSum
from bn_imbalance.training.sweep import Execution, compare
from bn_imbalance.training.engine import choose_engine


def patches(n, seed=0): return torch.randn(n, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_padim_is_its_formula():
    "Defard et al. 2021: covariance with .01 on the diagonal, the largest distance of all places"
    x, new = patches(30), patches(6, 1)
    score = np.empty((6, 5))
    for i in range(5):
        cov = np.cov(x[:, i].T.numpy()) + .01*np.eye(4)
        d = (new[:, i] - x[:, i].mean(0)).numpy()
        score[:, i] = [np.sqrt(o @ np.linalg.inv(cov) @ o) for o in d]
    np.testing.assert_allclose(fit_patch_gaussian(x).score(new), score.max(1), rtol=1e-4)


def test_patchcore_is_its_formula():
    "Roth et al. 2022, with everything kept: the largest distance of a place to the nearest one"
    x, new = patches(30), patches(6, 1)
    bank = x.flatten(0, 1).numpy()
    score = [max(min(np.linalg.norm(p - b) for b in bank) for p in image.numpy()) for image in new]
    np.testing.assert_allclose(fit_patch_memory(x, 0).score(new), score, rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 60), kept=st.integers(1, 80), seed=st.integers(0, 99))
def test_coreset_takes_what_is_farthest(n, kept, seed):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    rows = coreset(x, kept, torch.Generator().manual_seed(seed)).tolist()
    assert len(set(rows)) == len(rows) == min(n, kept)
    z = x @ torch.randn(6, 32, generator=torch.Generator().manual_seed(seed))
    for i in range(1, len(rows)):
        far = torch.cdist(z, z[rows[:i]]).amin(1)
        assert far[rows[i]] == pytest.approx(far.max().item(), abs=1e-2)


@pytest.mark.parametrize('name', ['knn', 'mahalanobis'])
def test_one_in_a_hundred_of_the_majority_is_called_strange(name):
    "The cut comes from images left out, so new images of the majority are called strange about as often"
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(10, 60))
    make = lambda n: torch.tensor(rng.normal(size=(n, 10)) @ mix + .3*rng.normal(size=(n, 60)), dtype=torch.float)
    x, y = torch.cat([make(500), make(8) + 9]), torch.tensor([0]*500 + [1]*8)
    head = recipes[name].part('fit_head')(None, x, y, 0, None)
    assert .001 < (head(make(4000)).argmax(1) == 1).float().mean() < .03
    assert (head(make(50) + 9).argmax(1) == 1).float().mean() > .9


def test_few_and_equal_images():
    "Two images of the majority, or all the same: no crash, no number that is none"
    for x in torch.randn(3, 4), torch.ones(9, 4):
        y = torch.zeros(len(x), dtype=torch.long); y[-1] = 1
        for name in 'knn', 'mahalanobis', 'nearest_mean', 'lda', 'logistic_regression':
            z = recipes[name].part('fit_head')(None, x, y, 0, None)(x)
            assert z.shape == (len(x), 2) and z.isfinite().all(), name


def test_patches_with_any_engine(data):
    "The body is fixed, so the engine does not matter; a run says how its patches were looked at"
    split, chosen = draw_split(data, SMALL, 0), get_recipes('patchcore, final_bn+padim')
    fast, slow = (run_together(split, chosen, replace(SMALL, size=64, engine=e), 0) for e in ('features', 'images'))
    for a, b in zip(fast, slow):
        assert a.failed is None
        np.testing.assert_allclose(a.test.logits, b.test.logits, atol=5e-3*max(1, a.test.logits.std()))
    with pytest.raises(BadInput, match='frozen backbone'): choose_engine(chosen[0], replace(SMALL, train_bn=True))


def test_a_network_without_maps_has_no_patches(data):
    s = replace(SMALL, arch='vit_tiny_patch16_224', size=224)
    with pytest.raises(BadInput, match='makes no maps'): patch_features(data.items[:2], s)


def test_patches_are_small(data):
    x = patch_features(data.items, replace(SMALL, size=448)).x
    assert x.dtype == torch.float16 and x.shape[1:] == (14*14, 128) and 2000*x[0].nbytes < 2e9


def test_separate_classes_are_refused_before_anything_is_computed(data):
    items = data.items.assign(target=np.arange(len(data.items)) % 3)
    three = replace(data, items=items.assign(**{'class': items.target.astype(str)}))
    with pytest.raises(BadInput, match='not of which of 3 classes'):
        compare(three, replace(SMALL, recipes=['plain', 'knn']), execution=Execution(backend='serial', progress=False))


def test_heads_are_what_they_were_made_with():
    for m in KNearest(3, 4, 2), Mahalanobis(2, 4), MarginSum(KNearest(3, 4, 2), Mahalanobis(2, 4)):
        assert m(torch.randn(5, 4)).shape == (5, 2) and not list(m.parameters())


@pytest.mark.parametrize('name', ['knn', 'mahalanobis', 'padim', 'patchcore'])
def test_images_of_one_subject_are_left_out_together(name):
    "Subjects that are photographed four times each: what is known of one says little about the next"
    torch.manual_seed(0)
    subjects, shape = 40, (9, 12) if 'patches' in recipes[name].inputs else (60,)
    def photos(n): return (torch.randn(n, 1, *shape) + .1*torch.randn(n, 4, *shape)).flatten(0, 1)
    x, new, groups = photos(subjects), photos(250), torch.arange(subjects).repeat_interleave(4)
    y, alarms = torch.zeros(len(x), dtype=torch.long), {}
    fit_head = recipes[name].part('fit_head')
    for told in None, groups.numpy(), torch.arange(len(x)).numpy():
        head = fit_head(None, x, y, 0, None, groups=told).eval()
        alarms[len(alarms)] = (head(new).argmax(1) == 1).float().mean().item()
        assert told is None or len(set(told)) < len(x) or (head(new) == alone(new)).all() # each image another subject
        if told is None: alone = head
    assert alarms[1] < .15 < .2 < alarms[0]


def test_few_subjects():
    "Fewer than five of them, or fewer images of others than neighbours"
    torch.manual_seed(0)
    x, y = torch.randn(20, 12), torch.zeros(20, dtype=torch.long)
    for name in 'knn', 'mahalanobis':
        for groups in np.zeros(20, int), np.repeat([0, 1], 10), np.repeat([0, 1], [17, 3]):
            head = recipes[name].part('fit_head')(None, x, y, 0, None, groups=groups)
            assert head(x).isfinite().all()
