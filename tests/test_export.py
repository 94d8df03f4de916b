"""A model for other machines, and its heat maps: the same numbers, whole files, one line where a library lacks."""
import json, sys
import numpy as np, pytest, torch
from PIL import Image
from bn_imbalance.deploy.export import check_pixels
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import model_logits
from deployed import images, one_line, saved # noqa: F401, fixtures


def test_export(saved, command, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    code, text, err = command('bn-export', saved, '--onnx', tmp_path/'m.onnx', '--torch', tmp_path/'m.pt2')
    assert code == 0, err
    model = load_model(saved)
    x = check_pixels(model, n=100)
    want, session = model_logits(model, x), onnxruntime.InferenceSession(tmp_path/'m.onnx')
    program = torch.export.load(tmp_path/'m.pt2').module()
    for n in 1, 7, 100: # any number of images
        pixels = x[:n].float()/255
        z, p = session.run(None, {'pixels': pixels.numpy()})
        np.testing.assert_allclose(z, want[:n], atol=1e-4)
        np.testing.assert_allclose(p, model.decision.calibrated(want[:n]), atol=1e-4)
        np.testing.assert_allclose(program(pixels)[0].detach(), want[:n], atol=1e-4)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == model.classes and '32 x 32' in meta['preprocessing']


def test_a_missing_library(saved, images, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    monkeypatch.setitem(sys.modules, 'captum.attr', None)
    one_line(command('bn-export', saved, '--onnx', tmp_path/'m.onnx'), "pip install 'bn_imbalance[export]'")
    one_line(command('bn-predict', saved, images, '--csv', tmp_path/'o.csv', '--explain', tmp_path/'maps'),
             "pip install 'bn_imbalance[explain]'")
    one_line(command('bn-export', saved), 'give --onnx FILE or --torch FILE')
    assert not list(tmp_path.iterdir())


def test_explain(saved, images, command, tmp_path):
    pytest.importorskip('captum')
    code, _, err = command('bn-predict', saved, images/'bad', '--csv', tmp_path/'o.csv', '--explain', tmp_path/'maps')
    assert code == 0, err
    maps = sorted((tmp_path/'maps').glob('[!.]*'))
    assert len(maps) == 12 and Image.open(maps[0]).size == (32, 32)
