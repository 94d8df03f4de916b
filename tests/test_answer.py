"""The answer on one screen: the same sentences everywhere, numbers within what is possible, fourteen lines."""
import json, re
from html import unescape
import numpy as np, pytest
from conftest import QUICK
from hypothesis import given, settings, strategies as st
from test_controls import made_up
from bn_imbalance.evaluate.answer import answer_table, evidence, join_names, make_answer
from bn_imbalance.evaluate.goal import Goal
from bn_imbalance.evaluate.leaderboard import far_behind, rank_recipes
from bn_imbalance.metrics import range_text
from bn_imbalance.report.comparison import report_html

COSTS = Goal(20, 1, prevalence=.02)
GOALS = [Goal(), COSTS, Goal(min_recall=.9, prevalence=.01), Goal(prevalence=.001)]
LONG = {'plain': 1.5, 'final_bn_features+mahalanobis:tau=0.5': 3., 'logit_adjusted_tuned:tau=0.5': 2.9,
        'a_recipe_with_a_very_long_name_of_its_own': 2.8, 'final_bn': 2.7, 'knn': 1., 'ridge': 2.}


def field(skills, seeds=4): return [made_up(n, k, seed) for n, k in skills.items() for seed in range(seeds)]

def numbers_in(text): return [float(o) for o in re.findall(r'(?<![\w.-])-?\d+(?:\.\d+)?', text)]


@pytest.mark.parametrize('goal', GOALS, ids=str)
@pytest.mark.parametrize('width', [100, 60])
def test_it_fits_on_the_screen(goal, width):
    runs = field(LONG)
    findings = ['3 images cannot be read. See bn-data check images.', '12 pairs of nearly identical images. See it. '*3]
    a = make_answer(rank_recipes(runs, goal), runs[0], findings)
    lines = a.text(width).splitlines()
    assert len(lines) <= 14 or width < 100, a
    assert all(len(o) <= width for o in lines if not o.startswith('Next') and ' ' in o[8:]), lines
    assert lines[-1].startswith('Next    bn-fit') and a.take in ' '.join(a.text(10**6).split())
    table = answer_table(rank_recipes(runs, goal))
    assert len(table) <= 8


def test_no_interval_of_the_table_goes_over_one():
    "Splits that disagree: Student's t alone would say 0.6 (-0.2 to 1.5)"
    runs = field({'plain': 1.5, 'better': 3.}, 3)
    for r in runs[::3]: r.test.logits[:] = r.test.logits[:, ::-1].copy()
    lb = rank_recipes(runs, Goal())
    assert any(lb[n][lb.metric, 'high'] == 1 for n in lb.names)  # cut off there
    assert max(o for cell in answer_table(lb).iloc[:, 0] for o in numbers_in(cell)) <= 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(GOALS), st.booleans())
def test_every_recipe_is_in_one_group(seed, goal, plain):
    rng = np.random.default_rng(seed)
    names = ['final_bn', 'focal', 'weighted', 'ridge', 'knn', *['plain']*plain]
    runs = field(dict(zip(names, rng.uniform(1, 3, len(names)))), 3)
    lb = rank_recipes(runs, goal)
    standing, better, optimism = evidence(lb)
    assert set(standing.index) == set(names) and list(standing[standing == 'recommended'].index) == [lb.recommended]
    assert set(standing) <= {'recommended', 'practically as good', 'worse', 'undecided'}
    assert optimism >= 0 and better.drop('plain', errors='ignore').notna().all() == plain
    take = make_answer(lb, runs[0]).take
    for name in standing.index[standing == 'worse']: assert name not in take.replace('+', ' ').split(), take


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(.5, 4), st.sampled_from(GOALS[1:]))
def test_nothing_impossible_is_promised(seed, skill, goal):
    runs = field({'plain': 1.5, 'better': skill}, 3)
    rng = np.random.default_rng(seed)
    for r in runs: r.test.logits[:] += rng.normal(0, 2, (1, 2)) # thresholds that miss
    lb = rank_recipes(runs, goal)
    rare = 1000*lb.prevalence
    for o in make_answer(lb, runs[0]).numbers['in_1000'].values():
        assert 0 <= min(o['found']) and max(o['found'] + o['missed']) <= rare + 1e-9
        assert 0 <= min(o['alarms']) and max(o['alarms']) <= 1000 - rare + 1e-9
        assert all(0 <= v for k in o for v in o[k]) and o['found'][0] + o['missed'][0] == pytest.approx(rare)


@pytest.mark.parametrize('numbers,text', [
    ((-.042, -118.2, 118.2), '0 (0 to 118)'), ((17.36, 14.9, 19.8), '17 (15 to 20)'),
    ((165, -1.3, 332), '160 (0 to 330)'),
    ((.954, .93, .978), '0.95 (0.93 to 0.98)'), ((.954, .945, .963), '0.954 (0.945 to 0.963)'),
    ((.6, .2, 1.), '0.6 (0.2 to 1.0)'), ((9, 9, 9), '9')])
def test_as_many_digits_as_the_interval_supports(numbers, text):
    assert range_text(*numbers) == text


def test_names_in_a_sentence():
    assert join_names(['a']) == 'a' and join_names(list('abcd'), 4) == 'a, b, c and d'
    assert join_names(list('abcde'), 4) == 'a, b, c and 2 others' # never one


def test_it_speaks_of_what_is_true():
    one = [r for r in field(dict(plain=1.5, better=3)) if r.seed == 0]
    a = make_answer(rank_recipes(one, COSTS), one[0])
    assert 'cannot tell skill from luck' in a.sure and any('--seeds' in o for o in a.beware)
    assert a.numbers['optimism'] is None
    runs = field(dict(plain=1.5, better=3))
    assert not [o for o in make_answer(rank_recipes(runs, COSTS), runs[0]).beware if '--prevalence' in o]
    a = make_answer(rank_recipes(runs), runs[0])
    assert any('50 % is assumed, as in the test set' in o for o in a.beware) and '--prevalence' not in a.next
    rare = make_answer(rank_recipes(runs, Goal(20, 1, prevalence=.001)), runs[0])
    assert any('150 a images' in o for o in rare.beware), rare
    chance = field(dict(plain=0, better=0))
    assert 'better than chance' in make_answer(rank_recipes(chance, COSTS), chance[0]).beware[0]


def test_what_nobody_reaches():
    "The best that can be had is named"
    runs = field(dict(plain=.2, better=.3))
    a = make_answer(rank_recipes(runs, Goal(1, 1, prevalence=.05)), runs[0])
    assert a.take.startswith('No recipe is cheaper than none at all, 50 per 1000. The best to be had is '), a
    runs = field(dict(plain=2, better=3))
    a = make_answer(rank_recipes(runs, Goal(min_recall=.999, prevalence=.05)), runs[0])
    assert a.take.startswith('No recipe reaches a recall of 0.999. The best to be had is ') or \
        any('less than the 0.999' in o for o in a.beware), a


def test_the_same_words_in_every_view():
    runs = field(dict(plain=1.5, better=3))
    lb = rank_recipes(runs, COSTS)
    a = make_answer(lb, runs[0], ['1 image of <b> cannot be read. See "it".'])
    flat = lambda text: ' '.join(text.split())
    page = flat(unescape(re.sub('<[^>]+>', ' ', report_html(runs, lb, answer=a))))
    views = a.text(60), a.markdown(), page, unescape(re.sub('<[^>]+>', ' ', a._repr_html_()))
    for sentence in a.parts.values():
        for view in views: assert flat(sentence) in flat(view), view
    assert [a.take, a.expect, a.sure, a.beware, a.next] == [*a.to_dict().values()][:5]
    assert list(a.to_dict()) == ['take', 'expect', 'sure', 'beware', 'next', 'numbers']
    assert {'recipe', 'prevalence', 'measure', 'in_1000', 'standing', 'p_better', 'optimism', 'runs'} == set(a.numbers)
    assert 'b finds' not in a.expect and 'Of 1000 images 20 are b: better finds' in a.expect # a class called b


def test_json_alone_on_standard_output(command, folder, tmp_path):
    out = tmp_path/'out'
    args = 'bn-compare', folder, '--recipes', 'plain,final_bn', '--out', out, *QUICK
    code, text, err = command(*args, '--json')
    assert code == 0, err
    told = json.loads(text)
    assert told['numbers']['recipe'] in ('plain', 'final_bn')
    assert 'Assumed: bad is the rare class,' in ' '.join(err.split())
    kept = json.loads((out/'answer.json').read_text())
    assert {k: kept[k] for k in told} == told
    code, text, _ = command('bn-report', out)
    page = ' '.join(unescape(re.sub('<[^>]+>', ' ', (out/'report.html').read_text())).split())
    for sentence in [told['take'], told['expect'], told['sure'], *told['beware'], told['next']]:
        assert sentence in ' '.join(text.split()) and sentence in page, sentence


def test_findings_of_the_audit_come_along(command, folder, tmp_path):
    "Without a second command, and again when the report is made again"
    (folder/'good'/'copy.jpg').write_bytes((folder/'good'/'000.jpg').read_bytes())
    out = tmp_path/'out'
    for args in ('bn-compare', folder, '--recipes', 'plain', '--out', out, *QUICK), ('bn-report', out):
        code, text, err = command(*args)
        assert code == 0 and '1 pair of identical files. See bn-data check' in ' '.join(text.split()), text + err


def test_stopped_it_answers_from_what_is_there(command, folder, tmp_path, monkeypatch):
    from bn_imbalance.training import sweep
    out, real = tmp_path/'out', sweep.compare
    calls = []
    def stopped(*args, **kwargs):
        runs = real(*args, **kwargs)
        calls.append([r.recipe for r in runs])
        if len(calls) == 1: raise KeyboardInterrupt
        return runs
    monkeypatch.setattr('bn_imbalance.training.compare', stopped)
    code, text, err = command('bn-compare', folder, '--recipes', 'plain,blend', '--out', out, *QUICK)
    assert code == 1 and 'From the 2 of 2 splits' in text and 'Take' in text and 'rerun the command to resume' in err
    assert calls[0] == calls[1] and 'blend' in calls[1] and 'blend' in text # whose members are done is there, too
    assert (out/'report.html').exists()


def test_a_log_gets_a_line_now_and_then(command, folder, tmp_path, monkeypatch):
    "Where there is no terminal: how far, how long still, who is first so far"
    from bn_imbalance.training import sweep
    monkeypatch.setattr(sweep, 'LOG_EVERY', 0)
    code, text, err = command('bn-compare', folder, '--recipes', 'plain,final_bn', '--out', tmp_path/'out', *QUICK)
    assert code == 0 and re.search(r'\d of 4 runs, \d+ minutes left; \d+ a minute, best so far: ', err), err
    assert 'minutes left' not in text


def test_recipes_far_behind_stop_after_two_splits():
    runs = field({'plain': 1., 'focal': 1.1, 'knn': .9, 'final_bn': 4., 'ridge': 3.9}, 6)
    behind = far_behind([r for r in runs if r.seed < 2], Goal(prevalence=.02, cost_miss=20, cost_alarm=1), {'plain'})
    assert {'focal', 'knn'} == set(behind)
    lb = rank_recipes([r for r in runs if r.seed < 2 or r.recipe not in behind], Goal())
    assert set(lb.stopped) == set(behind) and set(lb.names) == {'plain', 'final_bn', 'ridge'} and lb.n == 6
    whole = rank_recipes([r for r in runs if r.recipe not in behind], Goal())
    assert not whole.stopped and whole.table.equals(lb.table)


def test_three_rare_images_and_what_five_more_would_change():
    runs = field({'plain': 1., 'final_bn': 4., 'blend': 4.}, 3)
    for r in runs: r.config['data'] = r.data | dict(images=dict(majority=300, minority=3))
    text = ' '.join(make_answer(rank_recipes(runs, Goal()), runs[0]).beware)
    assert 'as low as 29 %; with five more, 63 %' in text, text
