"""The embedded leaves: deterministic, whole or absent, and never shared between the classes."""
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from bn_imbalance.data.leaves import leaf_image, save_leaves


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(16, 96), st.floats(0, 1))
def test_any_leaf(seed, sick, size, faintness):
    a, b = (np.asarray(leaf_image(seed, sick, size, faintness)) for _ in range(2))
    assert a.shape == (size, size, 3) and a.dtype == np.uint8 and (a == b).all() and a.std() > 3


def test_fainter_is_closer_to_healthy():
    def apart(i, faintness):
        sick, healthy = leaf_image(i, True, 96, faintness), leaf_image(i, False, 96)
        return np.abs(np.subtract(sick, healthy, dtype=float)).mean()
    d = [np.mean([apart(i, f) for i in range(12)]) for f in (0, .3, .6, .9)]
    assert d == sorted(d, reverse=True) and d[-1] > 0


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    import bn_imbalance.data.leaves as L
    real, n = L.leaf_image, [0]
    def failing(*args, **kwargs):
        n[0] += 1
        if n[0] > 5: raise OSError(28, 'No space left on device')
        return real(*args, **kwargs)
    monkeypatch.setattr(L, 'leaf_image', failing)
    with pytest.raises(OSError): save_leaves(tmp_path/'x', 4, 4, 32)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    save_leaves(tmp_path/'x', 4, 4, 32)
    files = [p.read_bytes() for p in sorted(tmp_path.glob('x/*/*.jpg'))]
    assert len(set(files)) == 8
