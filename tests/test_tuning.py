"""Tuning: the same budget for all, chosen on each seed's validation, never on an image that judges."""
from dataclasses import replace
import pandas as pd, pytest
from conftest import QUICK, SMALL, write_folder
from bn_imbalance.training import run as runs_module
from bn_imbalance.evaluate.choice import best_variant, tuning_trials, with_tuned
from bn_imbalance.data.items import read_data, targets
from bn_imbalance.data.splits import draw_split
from bn_imbalance.evaluate.runs import read_runs
from bn_imbalance.training.sweep import Execution, compare, recipes_to_run

TRIES = 3
TO_TRY = recipes_to_run(replace(SMALL, recipes=['plain', 'focal'], tune=TRIES))[0]


def tries_of(runs): return tuning_trials(runs, {r.recipe for r in runs})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = write_folder(tmp_path_factory.mktemp('data')/'images')
    rows = [(p, p.parent.name, f'{p.parent.name}{int(p.stem)//2}') for p in sorted(root.rglob('*.jpg'))]
    pd.DataFrame(rows, columns=['path', 'label', 'group']).to_csv(root/'items.csv', index=False) # two images a subject
    return read_data(root/'items.csv')


@pytest.fixture(scope='module')
def tuned(data, tmp_path_factory):
    "A tuned comparison of two recipes on two seeds, and what each training was given: (seed, digests of train, all)"
    given, real = [], runs_module.train
    def train(engine, split, recipes, s, seed, *args):
        given.append((seed, split))
        return real(engine, split, recipes, s, seed, *args)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(runs_module, 'train', train)
        execution = Execution(tmp_path_factory.mktemp('tuned')/'out', 'serial', progress=False)
        return compare(data, SMALL, execution=execution, recipes=TO_TRY), given, execution.out


def test_the_best_on_validation_is_chosen(data, tuned):
    runs, _, out = tuned
    trials = tries_of(runs)
    assert len(trials) == 12 and set(trials.seed) == {0, 1}
    again = compare(data, SMALL, execution=Execution(out, progress=False), recipes=TO_TRY)
    assert trials.equals(tries_of(again)) # from the store
    assert trials.chosen.sum() == 4
    for _, t in trials.groupby(['recipe', 'seed']): # one of them, the first with the best score
        assert t.chosen.sum() == 1 and t.chosen.idxmax() == t.score.idxmax()
        assert t.score[t.chosen].item() == t.score.max()
    mean = trials.groupby(['recipe', 'variant']).score.mean()
    for r in 'plain', 'focal': assert mean[r, best_variant(trials, r)] == mean[r].max()


def test_no_image_that_judges_is_seen_by_tuning(data, tuned):
    "Trained on train, chosen on valid, judged on test of the same split: the tries of a seed never see its test images"
    runs, given, out = tuned
    assert {seed for seed, _ in given} == {0, 1} == {r.seed for r in runs}
    for seed in 0, 1:
        split = draw_split(data, SMALL, seed)
        assert all(s.equals(split) for k, s in given if k == seed) # nothing else was there to train on
        images = {side: part.digest for side, part in split.groupby('split')}
        groups = {side: set(part.group) for side, part in split.groupby('split')}
        assert not set(images['test']) & {*images['train'], *images['valid']}
        assert not groups['test'] & (groups['train'] | groups['valid']) # nor another image of the same subject
        assert len(images['test']) and not split.digest.duplicated().any()
        stored = pd.read_csv(out/'splits'/f'seed{seed}.csv')
        assert (stored.path == split.path).all() and (stored.split == split.split).all()
        sides = {side: targets(split[split.split == side]).tolist() for side in ('valid', 'test')}
        mine = [r for r in runs if r.seed == seed]
        assert len(mine) == 2*TRIES
        for r in with_tuned(mine, tries_of(mine)) + mine: # tuned ones are judged on the images of the defaults
            assert r.valid.y.tolist() == sides['valid'] and r.test.y.tolist() == sides['test']


def test_command(data, tmp_path, command):
    out, args = tmp_path/'out', [data.source, *QUICK, '--recipes', 'plain,focal', '--out', tmp_path/'out']
    code, text, err = command('bn-compare', *args, '--tune', TRIES)
    assert code == 0, err
    assert 'plain:tuned' in text and 'Tuned and not tuned' in (out/'report.html').read_text()
    trials, table = pd.read_csv(out/'tuning.csv'), pd.read_csv(out/'results.csv')
    assert len(trials) == 2*2*TRIES and trials.equals(tries_of(read_runs(out)))
    assert set(table.recipe) == {'plain', 'focal', 'plain:tuned', 'focal:tuned'} and len(table) == 8
    (out/'report.html').unlink(); (out/'results.csv').unlink()
    code, text, err = command('bn-report', out)
    assert code == 0 and 'Tuned and not tuned' in (out/'report.html').read_text()
    pd.testing.assert_frame_equal(pd.read_csv(out/'results.csv'), table)
