"""Learning curves: nested subjects, resumed, told apart in the store, foretold, and the size of a test."""
import shutil
import numpy as np, pandas as pd, pytest
from bn_imbalance.training import sweep
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.data.splits import draw_split, subsample_subjects
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.report.learning_curve import read_curve
from bn_imbalance.recipes.registry import get_recipes
from bn_imbalance.evaluate.prevalence import evaluate_at
from conftest import QUICK
from deployed import one_line


def test_smaller_sizes_are_parts_of_larger_ones(folder):
    items = read_data(folder)
    items.items['group'] = items.items.label + ' ' + (items.items.groupby('label').cumcount()//2).astype(str)
    split = draw_split(items, load_settings(), 0, 'all')
    paths = {}
    for n in 1, 2, 4:
        s = subsample_subjects(split, n, 0)
        mine = s[(s.split == 'train') & (s.label == 'minority')]
        assert mine.group.nunique() == n and len(mine) == 2*n # whole subjects
        pd.testing.assert_frame_equal(*(o[(o.split != 'train') | (o.label == 'majority')].reset_index(drop=True)
                                        for o in (s, split)))
        paths[n] = set(mine.path)
    assert paths[1] < paths[2] < paths[4]
    with pytest.raises(BadInput, match='100 subjects of the minority: on seed 0 training holds only'):
        subsample_subjects(split, 100, 0)


def test_command(folder, command, tmp_path):
    args = ['bn-compare', folder, '--curve', '3,6,12', '--recipes', 'plain,final_bn', '--out', tmp_path/'c', *QUICK]
    code, out, err = command(*args)
    assert code == 0 and 'subjects' in out and 'To promise a recall of 0.95' in ' '.join(out.split()), err
    page, t = (tmp_path/'c'/'curve.html').read_text(), pd.read_csv(tmp_path/'c'/'curve.csv')
    assert len(t) == 3*2*2 and set(t.n) == {3, 6, 12} and 'what would more images' in page and '<img' in page
    runs = read_curve(tmp_path/'c')
    assert {n: {r.data['train_subjects'] for r in rs} for n, rs in runs.items()} == {n: {n} for n in (3, 6, 12)}
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path/'c').rglob('*seed*.json')}
    assert command(*args)[0] == 0 and {p: p.stat().st_mtime_ns for p in stamps} == stamps # not done again
    costs = '--prevalence', '.05', '--cost-miss', '20', '--cost-alarm', '1'
    code, out, err = command('bn-report', tmp_path/'c', *costs) # judged anew, without training
    t = pd.read_csv(tmp_path/'c'/'curve.csv')
    assert code == 0 and 'Cost per 1000, 5 % rare' in out and 'Report' in out, err
    run = next(r for r in runs[6] if (r.recipe, r.seed) == ('plain', 1))
    value = evaluate_at(run, Goal(20, 1, prevalence=.05), .05)
    np.testing.assert_allclose(t[(t.n == 6) & (t.recipe == 'plain') & (t.seed == 1)].value, value['cost'])
    shutil.rmtree(tmp_path/'c'/'n6'/'runs')
    shutil.copytree(tmp_path/'c'/'n3'/'runs', tmp_path/'c'/'n6'/'runs')
    one_line(command(*args), 'train_subjects') # runs of another size are not taken for these


def test_recipes_of_a_curve(folder, command, monkeypatch, tmp_path):
    "Its own four only where nobody has named any: the value that is shipped is a choice, too"
    seen = []
    def stopped(data, sizes, s, protocol, execution, field):
        seen.append([r.name for r in field])
        raise BadInput('enough')
    monkeypatch.setattr('bn_imbalance.training.learning_curve', stopped)
    (tmp_path/'usual.ini').write_text('[compare]\nrecipes = usual\n')
    (tmp_path/'other.ini').write_text('[training]\nepochs = 2\n')
    own, usual = ([r.name for r in get_recipes(o)] for o in (sweep.CURVE_FIELD, 'usual'))
    many = [r.name for r in get_recipes('usual', 3)]
    for args, wanted in (([], own), (['--recipes', 'usual'], usual), (['--settings', tmp_path/'usual.ini'], usual),
                         (['--settings', tmp_path/'other.ini'], own), (['--recipes', 'plain'], ['plain']),
                         (['--recipes', 'usual', '--multiclass'], many)):
        one_line(command('bn-compare', folder, '--curve', '3,6,12', *args, '--out', tmp_path/'c', *QUICK), 'enough')
        assert seen.pop() == wanted
    one_line(command('bn-compare', folder, '--curve', '3,6,12', *QUICK, '--tuned', 'plain'), 'give --curve or --tuned')


BAD = [('5,10', 'three whole numbers'), ('5,x,10', 'three whole numbers'), ('0,5,10', 'three whole numbers'),
       ('2,4,500', '500 subjects of the minority: on seed 0 training holds only')]


@pytest.mark.parametrize('sizes,message', BAD)
def test_bad_sizes(sizes, message, folder, command, tmp_path):
    one_line(command('bn-compare', folder, '--curve', sizes, '--out', tmp_path/'c', *QUICK), message)
    one_line(command('bn-compare', folder, '--curve', sizes, '--tune', '3', '--out', tmp_path/'c', *QUICK), 'not both')
    assert not (tmp_path/'c').exists()
