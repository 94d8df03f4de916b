"The scikit-learn classifier: scikit-learn's own checks, and what it says about itself."
import subprocess, sys
import numpy as np, pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
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


def test_in_a_pipeline():
    wide = np.c_[X*1000, X]
    assert make_pipeline(StandardScaler(), FinalBNClassifier(random_state=0)).fit(wide, y).score(wide, y) > .8


def test_needs_no_fastai():
    code = 'import bn_imbalance.adapters.estimator, sys; ' \
           'print({"fastai", "torchvision", "timm"} & set(sys.modules) or "none")'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == 'none'
