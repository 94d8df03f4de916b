"""Heat maps on the page to label on. A file of its own, as it trains a small model."""
import pytest
from bn_imbalance.find.labelling import LabelServer, AccessControl, label_app, model_heat
from deployed import images, saved # noqa: F401, fixtures
from test_labelling import inside, make


@pytest.mark.slow
def test_heat_maps(saved, tmp_path):
    pytest.importorskip('captum', reason="pip install 'bn_imbalance[explain]'")
    q, door = make(tmp_path, source=saved), AccessControl(8642)
    client = inside(label_app(LabelServer(q, model_heat(q)), door), door)
    heat, large = (client.get(f'/{kind}/0').content for kind in ('heat', 'large'))
    assert client.get('/state').json()['heat'] and heat[:2] == large[:2] == b'\xff\xd8' and heat != large
    assert client.get('/heat/60').status_code == 422 and model_heat(make(tmp_path/'b', names=['a.jpg'])) is None
