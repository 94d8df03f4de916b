"Remedies on a Learner of one's own: every recipe that fits, and several classes."
import copy
import numpy as np, pytest, torch
from torch import nn
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner, TfmdDL, accuracy
from bn_imbalance.core import BadInput
from bn_imbalance.evaluate.leaderboard import by_class, summarize, results
from bn_imbalance.adapters.learners import compare_learner, fits_any_learner
from bn_imbalance.recipes.base import recipes

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
