"""One of each, added from outside in one place: a data source, a metric, a remedy and a one-class recipe."""
import numpy as np, pandas as pd, pytest, torch
from torch import nn
from conftest import QUICK, COMMON, write_folder
from bn_imbalance.data.sources import SOURCES, Source, register_source
from bn_imbalance.deploy.model import load_model
from bn_imbalance.evaluate.runs import read_runs
from bn_imbalance.metrics import METRICS, Metric, register_metric
from bn_imbalance.models.anomaly import OneClass
from bn_imbalance.models.final_bn import PORTABLE, portable
from bn_imbalance.recipes import Recipe, recipes, register


class FromMean(OneClass):
    "Distance to the mean of the majority"
    def __init__(self, n_in):
        super().__init__()
        self.add(mean=n_in)
    def score(self, x): return (x - self.mean).norm(dim=1)
    def arguments(self): return dict(n_in=len(self.mean))

def fit_from_mean(head, x, y, seed, refit):
    out, usual = FromMean(x.shape[1]).to(x.device), x[y == 0]
    out.mean.copy_(usual.mean(0))
    return nn.Sequential(out.calibrate(out.score(usual)))

def heavy(counts): # a loss in which a miss costs five times as much
    return nn.CrossEntropyLoss(torch.tensor([1., 5.]))


@pytest.fixture
def one_of_each(tmp_path):
    before = [(o, dict(o)) for o in (SOURCES, METRICS, recipes, PORTABLE)]
    folder = write_folder(tmp_path/'images')
    register_source('bruises', Source(lambda size: folder, minority='bad', about='Bruises. Cite Smith.'))
    register_metric(Metric('youden', 'Youden\'s J', rates=lambda p, r, f, g: r - f, card='J of {minority}'))
    register(Recipe('heavy', 'a miss costs five times as much', loss=heavy))
    portable(FromMean)
    register(Recipe('from_mean', 'one class: distance to the mean', fit_head=fit_from_mean, trains=False,
                    one_class=True))
    yield
    for now, was in before:
        now.clear()
        now.update(was)


def test_one_of_each_in_table_report_and_card(one_of_each, command, tmp_path, monkeypatch):
    monkeypatch.setenv('COLUMNS', '300') # a narrow screen lacks the last columns
    out, mine = tmp_path/'out', ['plain', 'heavy', 'from_mean', 'plain+from_mean']
    code, text, err = command('bn-compare', 'bruises', '--recipes', ','.join(mine), '--out', out, *QUICK, '--verbose')
    assert code == 0, err
    df, page = pd.read_csv(out/'results.csv'), (out/'report.html').read_text()
    assert 'Cite Smith' in text and set(df.recipe) == set(mine) and not any(r.failed for r in read_runs(out))
    for told in text, page: assert all(o in told for o in ('heavy', 'from_mean', 'Youden')), told
    recall = df.recall_minority
    assert np.allclose(df.youden, recall - recall*(1/df.precision_minority - 1)/2) # two good test images per bad one
    one_class = {r.recipe for r in read_runs(out) if r.config['recipe'].get('one_class')}
    assert one_class == {'from_mean', 'plain+from_mean'}


@pytest.mark.parametrize('recipe', ['heavy', 'plain+from_mean'])
def test_one_of_each_in_a_model(one_of_each, command, tmp_path, recipe):
    "A layer that is registered after `deploy.model` was imported is saved and read, too"
    code, _, err = command('bn-fit', 'bruises', '--recipe', recipe, '--out', tmp_path/'model', *COMMON)
    assert code == 0, err
    model, card = load_model(tmp_path/'model'), (tmp_path/'model'/'card.md').read_text()
    assert 'J of bad' in card and f'Recipe `{recipe}`' in card and 'youden' in model.about['metrics']
