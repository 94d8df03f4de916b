"The scikit-learn classifier: scikit-learn's own checks, and what it says about itself."
import pickle, subprocess, sys
import numpy as np, pytest, torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from bn_imbalance.core import BadInput
from bn_imbalance.adapters.estimator import FinalBNClassifier

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)


ODD = [dict(epochs=1), dict(epochs=2), dict(epochs=1, batch_size=2), dict(epochs=2, batch_size=10**4),
       dict(epochs=3, batch_size=2, position='features'), dict(epochs=9, position=None, weight_decay=0),
       dict(epochs=5, position='both', affine=False),
       dict(epochs=5, position='both', batch_size=7, class_weight='balanced', lr=.1)]


def too_little(m):
    "Common checks that ask for more than a few steps can learn"
    why = 'so few steps are not enough to learn it'
    few = {'check_classifiers_train': 3, 'check_class_weight_classifiers': 10}
    return {name: why for name, n in few.items() if (m.epochs or 99) < n}


@parametrize_with_checks([FinalBNClassifier(), *(FinalBNClassifier(**o) for o in ODD)],
                         expected_failed_checks=too_little)
def test_scikit_learn(estimator, check): check(estimator)


@pytest.mark.parametrize('batches', range(1, 10))
@pytest.mark.parametrize('epochs', [1, 2, 3])
def test_a_training_of_any_length(epochs, batches):
    "One of four steps divided by zero; one of a single step learnt nothing"
    rows = np.argsort(np.arange(len(X)) % 50, kind='stable')[:6*batches] # the classes in turn
    start, m = (FinalBNClassifier(None, epochs=epochs, batch_size=6, lr=lr, random_state=0).fit(X[rows], y[rows] > 0)
                for lr in (1e-8, .1))
    assert np.isfinite(m.coef_).all() and np.abs(m.coef_ - start.coef_).max() > .05


def test_same_seed_same_numbers():
    a, b, c = (FinalBNClassifier(random_state=o).fit(X, y) for o in (1, 1, 2))
    assert np.array_equal(a.coef_, b.coef_) and not np.array_equal(a.coef_, c.coef_)
    one, two = (FinalBNClassifier(random_state=np.random.RandomState(0)).fit(X, y).coef_ for _ in range(2))
    assert np.array_equal(one, two)


def test_leaves_the_world_alone():
    np.random.seed(0), torch.manual_seed(0)
    before, threads = (np.random.get_state()[1].copy(), torch.get_rng_state()), torch.get_num_threads()
    FinalBNClassifier(random_state=0).fit(X, y)
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(before[1], torch.get_rng_state())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize('position', [None, 'logits', 'features', 'both'])
def test_places_and_names_of_classes(position):
    names = np.array(['setosa', 'versicolor', 'virginica'])[y]
    m = FinalBNClassifier(position, random_state=0).fit(X, names)
    assert list(m.classes_) == sorted(set(names)) and m.coef_.shape == (3, 4) and m.intercept_.shape == (3,)
    assert m.score(X, names) > .8
    np.testing.assert_allclose(m.predict_proba(X).sum(1), 1)
    assert (m.classes_[m.predict_proba(X).argmax(1)] == m.predict(X)).all()
    two = clone(m).fit(X, y > 0)
    assert ((two.decision_function(X) > 0) == two.predict(X)).all()
    assert (pickle.loads(pickle.dumps(m)).predict(X) == m.predict(X)).all()


def test_layer_is_exact_after_training():
    "The logits of the training set have mean beta and standard deviation gamma: without a learnt pair 0 and 1"
    m = FinalBNClassifier(affine=False, random_state=0).fit(X, y)
    z = m.decision_function(X)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=.05) # the layer adds eps to small variances


def test_class_weight():
    rare = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:5], np.flatnonzero(y == 2)]
    said = [FinalBNClassifier(None, class_weight=w, random_state=0).fit(X[rare], y[rare]).predict(X).tolist().count(1)
            for w in (None, 'balanced', {0: 1, 1: 100, 2: 1})]
    assert said[0] < said[1] <= said[2]


@pytest.mark.parametrize('options,says', [(dict(position='top'), 'position='), (dict(epochs=0), '--epochs'),
                                          (dict(lr=-1), '--lr'), (dict(batch_size=1), '--batch-size')])
def test_bad_options(options, says):
    with pytest.raises(BadInput, match=says): FinalBNClassifier(**options).fit(X, y)


def test_in_a_pipeline():
    wide = np.c_[X*1000, X]
    assert make_pipeline(StandardScaler(), FinalBNClassifier(random_state=0)).fit(wide, y).score(wide, y) > .8


def test_needs_no_fastai():
    code = 'import bn_imbalance.adapters.estimator, sys; ' \
           'print({"fastai", "torchvision", "timm"} & set(sys.modules) or "none")'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == 'none'
