"The layer in strangers' networks: found, added, trained, converted, folded away."
import subprocess, sys
import pytest, torch
from torch import nn
from hypothesis import given, settings, strategies as st
from bn_imbalance.core import BadInput
from bn_imbalance.models.final_bn import (
    POSITIONS, FinalBatchNorm, add_final_bn, find_classifier, fold_final_bn)


NETS = dict(resnet18='fc', vgg11_bn='classifier.6', mobilenet_v3_small='classifier.3', vit_b_16='heads.head',
            convnext_tiny='classifier.2', densenet121='classifier', tf_efficientnet_lite0='classifier',
            vit_tiny_patch16_224='head', convnext_atto='head.fc')

def network(arch, n=3):
    import timm, torchvision
    torch.manual_seed(0)
    if arch == 'vit_b_16': # the same, small
        return torchvision.models.VisionTransformer(32, 16, 1, 2, 16, 16, num_classes=n)
    if arch in torchvision.models.list_models(): return torchvision.models.get_model(arch, weights=None, num_classes=n)
    return timm.create_model(arch, pretrained=False, num_classes=n, **(dict(img_size=32) if 'vit' in arch else {}))

@pytest.mark.parametrize('arch,name', NETS.items())
def test_there_and_back(arch, name):
    model, x = network(arch).eval(), torch.randn(2, 3, 32, 32)
    keys = list(model.state_dict())
    assert find_classifier(model) == find_classifier(model, x) == name
    with torch.no_grad():
        logits = model(x)
        assert add_final_bn(model, 'both', layer=name) is model
        new = model.get_submodule(name)
        assert not new.training and list(new._modules) == ['before', 'linear', 'after']
        torch.testing.assert_close(model(x), logits, atol=1e-3, rtol=1e-3) # mean 0, variance 1: up to eps the identity
        for bn in new.before, new.after:
            for v in bn.running_mean, bn.running_var, bn.weight, bn.bias: v.uniform_(.5, 2)
        folded, got = fold_final_bn(model), model(x)
        torch.testing.assert_close(folded(x), got, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(got, logits, atol=1e-2)
    assert list(folded.state_dict()) == keys
    assert isinstance(model.get_submodule(name), FinalBatchNorm), 'folding changed the model itself'
    with pytest.raises(BadInput, match='already'): add_final_bn(model)
    with pytest.raises(BadInput, match='next to'): add_final_bn(model, layer=f'{name}.linear')


@given(position=st.sampled_from(POSITIONS[1:]), affine=st.booleans(), bias=st.booleans(), n_in=st.integers(1, 9),
       n_out=st.integers(1, 5), dtype=st.sampled_from([torch.float, torch.double, torch.bfloat16]),
       seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_fold(position, affine, bias, n_in, n_out, dtype, seed):
    torch.manual_seed(seed)
    model = add_final_bn(nn.Linear(n_in, n_out, bias=bias, dtype=dtype), position, .3, affine) # the model is the layer
    assert isinstance(model, FinalBatchNorm)
    with torch.no_grad():
        for p in model.parameters(): p.uniform_(-1, 1)
        for _ in range(3): model(torch.randn(16, n_in, dtype=dtype)*2 + 1)
    x = torch.randn(8, n_in, dtype=dtype)
    folded = fold_final_bn(model)
    assert type(folded) is nn.Linear and folded.weight.dtype == dtype
    bn = [m for m in model if isinstance(m, nn.BatchNorm1d)]
    assert all(m.running_mean.dtype == torch.promote_types(dtype, torch.float) for m in bn)
    if dtype != torch.bfloat16: # there the weights themselves are rounded
        with torch.no_grad(): torch.testing.assert_close(folded(x), model.eval()(x), atol=1e-4, rtol=1e-4)


class Net(nn.Module):
    "Batch normalization that is last but one by definition, and has something else between by use"
    def __init__(self):
        super().__init__()
        self.fc, self.embed, self.bn = nn.Linear(8, 3), nn.Linear(8, 5), nn.BatchNorm1d(8)
    def forward(self, x, scale=1.):
        h = self.bn(x).relu()
        return dict(logits=self.fc(h)*1, embedding=self.embed(h).tanh()*scale)


def test_order_of_definition_is_not_order_of_use():
    net, x = Net(), torch.randn(6, 8)
    assert find_classifier(net) == 'embed' # wrong: nobody can know without running it
    for example in x, (x, 2.), [x], dict(x=x): assert find_classifier(net, example) == 'fc'
    net.bn(x), add_final_bn(net, example=x), net(x)
    folded = fold_final_bn(net)
    assert type(folded.fc) is nn.Linear
    torch.testing.assert_close(folded(x)['logits'], net.eval()(x)['logits'])


def test_folding_keeps_away_from_batch_normalization_elsewhere():
    net = nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.fc = nn.BatchNorm1d(8), nn.Linear(8, 3)
            nn.init.uniform_(self.bn.running_mean)
        def forward(self, x): return self.fc(self.bn(x).relu())
    x = torch.randn(6, 8)
    for m in net, Other().eval(): torch.testing.assert_close(fold_final_bn(m)(x), m(x))


@pytest.mark.parametrize('arch,names', [('inception_v3', 'AuxLogits.fc, fc'), ('googlenet', 'aux1.fc2, aux2.fc2, fc')])
def test_helpers_that_classify_too(arch, names):
    import torchvision
    net = torchvision.models.get_model(arch, weights=None, init_weights=False, num_classes=3)
    with pytest.raises(BadInput, match=names): add_final_bn(net)
    size = 75 if arch == 'inception_v3' else 32
    assert isinstance(add_final_bn(net, example=torch.randn(1, 3, size, size)).fc, FinalBatchNorm)


def test_unclear():
    import timm
    with pytest.raises(BadInput, match='no Linear'): add_final_bn(nn.Sequential(nn.Conv2d(3, 2, 1)))
    with pytest.raises(BadInput, match='head, head_dist'):
        add_final_bn(timm.create_model('deit_tiny_distilled_patch16_224'))
    soft = nn.Sequential(nn.Linear(4, 2), nn.Softmax(1))
    with pytest.raises(BadInput, match='result of none.*layer='): add_final_bn(soft, example=torch.randn(2, 4))
    assert isinstance(add_final_bn(soft, layer='0')[0], FinalBatchNorm)
    with pytest.raises(BadInput, match="layer='nothing'"): add_final_bn(nn.Sequential(nn.Linear(4, 2)), layer='nothing')
    with pytest.raises(BadInput, match='position='): add_final_bn(nn.Linear(4, 2), 'somewhere')
    flat = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    for position in POSITIONS[1:]:
        with pytest.raises(BadInput, match='next to'): add_final_bn(flat, position)


@pytest.mark.parametrize('position', POSITIONS[1:])
@pytest.mark.parametrize('affine', [True, False])
def test_converts_to_synchronized(position, affine):
    "As far as it can be seen without GPUs: the same state, the same outputs, and it still folds"
    net = add_final_bn(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), position, affine=affine)
    x = torch.randn(32, 6)
    for _ in range(3): net(x)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    want = net.eval()(x)
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    bn = [m for m in sync.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(bn) == 1 + (position == 'both') and all(type(m) is nn.SyncBatchNorm and m.momentum == .01 for m in bn)
    assert {k: v.tolist() for k, v in sync.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    torch.testing.assert_close(sync.eval()(x), want)
    torch.testing.assert_close(fold_final_bn(sync)(x), want, atol=1e-5, rtol=1e-5)


def learner(splitter=None, model=None, **kwargs):
    from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, TfmdDL, trainable_params
    torch.manual_seed(0)
    x, y = torch.randn(32, 8), torch.arange(32) % 2
    dl = TfmdDL([*zip(x, y)], bs=8, shuffle=True, num_workers=0)
    model = model or nn.Sequential(nn.Sequential(nn.Linear(8, 6), nn.ReLU()), nn.Linear(6, 2))
    kwargs = dict(loss_func=CrossEntropyLossFlat(), splitter=splitter or trainable_params, **kwargs)
    return Learner(DataLoaders(dl, dl), model, **kwargs)

def by_position(m): return [list(m[0].parameters()), list(m[1].parameters())]

@pytest.mark.parametrize('torch_opt', [False, True])
def test_learner_frozen(torch_opt):
    from fastai.vision.all import OptimWrapper
    from functools import partial
    learn = learner(by_position, **(dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)) if torch_opt else {}))
    learn.freeze()
    assert add_final_bn(learn, 'both') is learn and isinstance(learn.model[1], FinalBatchNorm)
    assert learn.opt.frozen_idx == 1 and [len(g) for g in learn.opt.param_lists] == [2, 6]
    assert [p.requires_grad for p in learn.model.parameters()] == [False]*2 + [True]*6
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
    moved = {k for k, v in learn.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if k.startswith('1.')}
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())
    with pytest.raises(BadInput, match='already'): add_final_bn(learn)


def test_learner_that_is_one_layer():
    learn = add_final_bn(learner(model=nn.Linear(8, 2)))
    assert isinstance(learn.model, FinalBatchNorm)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)


def misses(m): return [list(m[0].parameters()), [p for n, p in m[1].named_parameters() if n in ('weight', 'bias')]]
def breaks(m): return [list(m[0].parameters()), [m[1].weight]]

@pytest.mark.parametrize('splitter', [misses, breaks])
def test_learner_whose_splitter_misses_the_layer(splitter):
    learn = learner(splitter)
    learn.freeze()
    with pytest.raises(BadInput, match='splitter'): add_final_bn(learn)
    assert type(learn.model[1]) is nn.Linear and learn.opt.frozen_idx == 1
    with learn.no_bar(), learn.no_logging(): learn.fit(1)


def test_hugging_face():
    transformers = pytest.importorskip('transformers')
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                                    image_size=32, patch_size=16, num_labels=3)
    model, x = transformers.ViTForImageClassification(config), torch.randn(4, 3, 32, 32)
    assert find_classifier(model) == find_classifier(model, dict(pixel_values=x)) == 'classifier'
    keys = list(model.state_dict())
    model = add_final_bn(model, 'both', example=dict(pixel_values=x)).train()
    loss = model(pixel_values=x, labels=torch.arange(4) % 3).loss
    loss.backward()
    assert model.classifier.after.weight.grad is not None
    folded, model = fold_final_bn(model), model.eval()
    with torch.no_grad(): torch.testing.assert_close(folded(x).logits, model(x).logits, atol=1e-5, rtol=1e-5)
    assert list(folded.state_dict()) == keys


def test_needs_pytorch_only():
    code = ('import bn_imbalance.models.final_bn, sys; '
            'print({"fastai", "torchvision", "timm", "sklearn", "pandas"} & set(sys.modules) or "none")')
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.strip() == 'none'
