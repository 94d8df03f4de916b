"""Every family of networks, every place, every head: shapes, what learns, the frozen body, folding."""
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
from bn_imbalance.models.backbones import find_backbone

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
