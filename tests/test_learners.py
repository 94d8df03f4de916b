"Remedies on a Learner of one's own: what is copied, what is shared, what is judged."
import copy
from dataclasses import replace
import numpy as np, pytest, torch
from torch import nn
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, MixUp, TfmdDL, accuracy
from bn_imbalance.core import BadInput
from bn_imbalance.data.items import read_data
from bn_imbalance.models.heads import make_head
from bn_imbalance.evaluate.leaderboard import by_class, summarize, results
from bn_imbalance.adapters.learners import compare_learner, fits_any_learner, model_learner
from bn_imbalance.deploy.model import Model, build_network, describe_head
from bn_imbalance.deploy.predict import predictions
from bn_imbalance.recipes.base import recipes
from bn_imbalance.evaluate.runs import read_run, run_json

def dl(n, rare=None, n_classes=2, seed=0, **kwargs):
    "Blobs; class `rare` has two rows in twelve"
    rng = np.random.default_rng(seed)
    others = [c for c in range(n_classes) if c != rare]
    y = np.array([rare if i % 12 < 2 else others[i % len(others)] for i in range(n)])
    x = rng.normal(size=(n, 4)) + np.eye(4)[y]*2
    return TfmdDL([*zip(torch.tensor(x).float(), torch.tensor(y))], bs=16, num_workers=0, **kwargs)

def learner(rare=1, n_classes=2, **kwargs):
    torch.manual_seed(0)
    train = dl(96, rare, n_classes, shuffle=True, drop_last=True)
    dls = DataLoaders(train, dl(48, rare, n_classes, 1), dl(48, rare, n_classes, 2))
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_classes))
    return Learner(dls, net, loss_func=CrossEntropyLossFlat(), lr=1e-2, **kwargs)

def briefly(learn): learn.fit_one_cycle(1)
names = [r.name for r in recipes.values() if fits_any_learner(r)]


def test_every_recipe_that_fits():
    learn = learner(metrics=accuracy)
    before, cbs, loss = copy.deepcopy(learn.model.state_dict()), list(learn.cbs), learn.loss_func
    rng = torch.get_rng_state()
    runs = compare_learner(learn, names, seeds=1, train=briefly)
    runs += compare_learner(learn, ['plain', 'final_bn'], seeds=2, train=briefly)[1::2]
    df = results(runs)
    assert len(df) == len(names) + 2 and set(summarize(df).names) == set(names)
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert learn.cbs == cbs and learn.loss_func is loss and torch.equal(rng, torch.get_rng_state())
    assert all(len(r.test.y) == 48 and sum(r.test.y) == 8 for r in runs)
    z = {(r.recipe, r.seed): r.test.logits.tolist() for r in runs}
    assert z['plain', 0] != z['plain', 1] != z['final_bn', 1]
    alone = compare_learner(learn, ['final_bn'], seeds=2, train=briefly) # the numbers depend on the seed alone
    assert [r.test.logits.tolist() for r in alone] == [z['final_bn', 0], z['final_bn', 1]]


@pytest.mark.parametrize('fails', [False, True])
def test_the_order_of_the_images_to_come_is_not_changed(fails):
    "The DataLoaders are the caller's: their random generators are given back as they were, also after an error"
    learn = learner()
    loaders = [*learn.dls.loaders, own := dl(48, 1, seed=3, shuffle=True)]
    generators, states = [o.rng for o in loaders], [o.rng.getstate() for o in loaders]
    to_come = [copy.deepcopy(o.rng).random() for o in loaders]
    def train(l):
        briefly(l)
        if fails: raise RuntimeError('no power')
    try: compare_learner(learn, ['plain'], seeds=2, train=train, test=own)
    except RuntimeError: assert fails
    assert all(o.rng is rng for o, rng in zip(loaders, generators))
    assert [o.rng.getstate() for o in loaders] == states
    assert [o.rng.random() for o in loaders] == to_come


def test_a_recipe_of_ones_own():
    "It need not be registered"
    mine = replace(recipes['focal'].set(gamma=4), name='mine')
    run, = compare_learner(learner(), [mine], seeds=1, train=briefly)
    same, = compare_learner(learner(), ['focal:gamma=4'], seeds=1, train=briefly)
    assert run.recipe == 'mine' and run.test.logits.tolist() == same.test.logits.tolist()


def test_a_run_can_be_stored(tmp_path):
    run, = compare_learner(learner(), ['plain'], seeds=1, train=briefly)
    (tmp_path/'run.json').write_text(run_json(run))
    again = read_run(tmp_path/'run.json')
    assert again.metrics() == run.metrics() and again.config == run.config


@pytest.mark.parametrize('rare,n_classes', [(0, 2), (1, 2), (2, 4)])
def test_the_rarest_class_is_the_minority(rare, n_classes):
    run, = compare_learner(learner(rare, n_classes), ['weighted'], seeds=1, train=lambda l: l.fit_one_cycle(15))
    assert run.rare == [rare] and run.test.logits.shape == (48, n_classes) and (run.test.y == rare).sum() == 8
    assert results([run]).auroc[0] > .7
    if n_classes > 2: assert list(by_class([run])) == [str(rare)]


def test_several_rare_classes_by_name_of_their_numbers():
    run, = compare_learner(learner(3, 4), ['final_bn'], seeds=1, train=briefly, rare=[0, 3])
    assert run.rare == [0, 3] and by_class([run]).shape == (1, 2)
    for wrong in [4], [], [0, 1, 2, 3]:
        with pytest.raises(BadInput, match='some of the class numbers 0 to 3'):
            compare_learner(learner(3, 4), ['plain'], rare=wrong)


def test_own_callbacks_and_freezing():
    learn = learner(cbs=MixUp(), splitter=lambda m: [list(m[0].parameters()), list(m[2].parameters())])
    learn.freeze()
    seen = []
    def train(l):
        briefly(l)
        seen.append((l.model[0].weight.equal(learn.model[0].weight), l.opt.frozen_idx, l.mix_up.learn is l))
    compare_learner(learn, ['final_bn', 'plain'], seeds=1, train=train)
    assert seen == [(True, 1, True)]*2


def test_bad_input():
    learn = learner()
    with pytest.raises(BadInput, match='oversampling.*Use compare'): compare_learner(learn, ['oversampling'])
    with pytest.raises(BadInput, match='no such recipe'): compare_learner(learn, ['unknown'])
    learn.dls = DataLoaders(*learn.dls.loaders[:2])
    with pytest.raises(BadInput, match='no test set'): compare_learner(learn)
    with pytest.raises(BadInput, match='A class is missing'):
        learn.dls = DataLoaders(TfmdDL([(torch.zeros(4), torch.tensor(0))]*16, bs=8, num_workers=0), learn.dls.valid)
        compare_learner(learn, ['plain'], test=learn.dls.valid)


def test_divergence_is_a_failed_run():
    def explode(l):
        with torch.no_grad(): l.model[2].bias.fill_(float('nan'))
    run, = compare_learner(learner(), ['plain'], seeds=1, train=explode)
    assert 'diverged' in run.failed and run.test is None
    with pytest.raises(BadInput, match='every run failed'): results([run])


def untrained_model(trained_as='weighted', n_classes=2):
    "A model with random weights: what `model_learner` needs of one, and no more"
    torch.manual_seed(0)
    layers = describe_head(make_head(1024, n_classes, final_bn='both'))
    network = dict(arch='resnet18', size=32, mean=[.5, .4, .3], std=[.2, .3, .4], layers=layers)
    about = dict(classes=list('abcde'[:n_classes]), rare=[1], network=network, recipe=dict(trained_as=trained_as),
                 settings=dict(arch='resnet18', size=32, batch_size=16),
                 decision=dict(scale=1., shift=(0., 0.), offset=(0., 0.), bounds=(0., 0.), prevalences=(.5, .5)))
    return Model(build_network('resnet18', layers).eval(), about)


def test_a_model_as_a_learner(folder):
    "The same numbers; then only the head learns, and the model itself stays as it is"
    model, data = untrained_model(), read_data(folder)
    learn, before = model_learner(model, data), copy.deepcopy(model.net.state_dict())
    with learn.no_bar(): p, y = learn.get_preds(dl=learn.dls.test_dl(data.items, with_labels=True))
    table, _ = next(predictions(model, data.items.path, bs=60))
    np.testing.assert_allclose(p[:, 1], table.probability.astype(float), atol=1e-4)
    assert (y.numpy() == (data.items.label == 'minority')).all() and p[:, 1].std() > 0
    counts = np.bincount([int(o[1]) for o in learn.dls.train_ds])
    torch.testing.assert_close(learn.loss_func.func.weight.cpu(), torch.tensor(counts.sum()/(2*counts)).float())
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    moved = {k for k, v in learn.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith('1.') for k in moved)
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    learn.unfreeze()
    assert all(o.requires_grad for o in learn.model.parameters())


def test_a_model_as_a_learner_where_something_differs(folder):
    data = read_data(folder)
    own = model_learner(untrained_model('of_another_version:x=1'), data, 'all', 1, metrics=accuracy, cbs=MixUp())
    assert own.loss_func.func.weight is None and own.metrics[0].name == 'accuracy' and own.mix_up.learn is own
    assert set(own.dls.train_ds.items.path) != set(model_learner(untrained_model(), data).dls.train_ds.items.path)
    with pytest.raises(BadInput, match='2 classes, the model has 3'): model_learner(untrained_model(n_classes=3), data)


def test_a_learner_is_looked_at_before_any_training(tmp_path):
    def never(l): raise AssertionError('trained')
    def refused(message, learn, **kwargs):
        with pytest.raises(BadInput, match=message): compare_learner(learn, ['plain'], seeds=1, train=never, **kwargs)
    large = learner()
    large.dls = DataLoaders(dl(96, 1, shuffle=True, drop_last=True).new(bs=128), *large.dls.loaders[1:])
    refused('96 training images make no batch of 128.*smaller bs', large)
    last = learner(2, 3)
    last.dls = DataLoaders(dl(96, 1, shuffle=True, drop_last=True), *last.dls.loaders[1:])
    last.dls.c = 3
    refused(r'training: \[.*, 0\]. A class is missing', last)
    refused(r'the test set: \[48, 0\]. A class is missing', learner(),
            test=TfmdDL([(torch.zeros(4), torch.tensor(0))]*48, bs=16))
    several = learner()
    several.dls = DataLoaders(TfmdDL([(torch.zeros(4), torch.tensor([0, 1]))]*64, bs=16), *several.dls.loaders[1:])
    refused('one per image', several)
    from bn_imbalance.models.final_bn import add_final_bn
    add_final_bn(final := learner(), 'logits')
    refused('has a final batch normalization already', final)


def test_nothing_is_written_where_the_users_models_are(tmp_path):
    from fastai.callback.tracker import SaveModelCallback
    learn = learner(cbs=SaveModelCallback(monitor='valid_loss'), path=tmp_path)
    (tmp_path/'models').mkdir(); (tmp_path/'models'/'model.pth').write_text('mine')
    compare_learner(learn, ['plain'], seeds=1, train=briefly)
    assert (tmp_path/'models'/'model.pth').read_text() == 'mine' and len(list(tmp_path.rglob('*'))) == 2
