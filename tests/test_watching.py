"""The day after: what has changed, period by period, and what must be refused."""
import json
import numpy as np, pandas as pd, pytest
from PIL import Image, ImageEnhance
from bn_imbalance.deploy.model import load_model, read_held_out
from bn_imbalance.deploy.predict import COLUMNS, predict_csv
from bn_imbalance.deploy.watching import (
    changes, date_in, expected_flags, ordinary, read_predictions, trend, watch, write_watch)
from bn_imbalance.find.queue import Queue
from deployed import copy, images, one_line, rewritten, saved # noqa: F401, fixtures

MONTHLY = .01/12


def year(light=lambda month: 140, flagged=lambda month: 9, seed=0, n=200):
    rng = np.random.default_rng(seed)
    seen = [{'brightness': rng.normal(light(o), 20, n), 'scores': rng.normal(-4, 1, n)} for o in range(1, 13)]
    known, rates = {'brightness': rng.normal(140, 20, 500)}, rng.beta(30, 970, 4000)
    return changes([(flagged(o), 300) for o in range(1, 13)], seen, known, rates, MONTHLY)


def test_a_change_is_said_once_and_when_it_comes():
    assert not any(year())
    found = year(light=lambda o: 140 if o < 7 else 105)
    assert [list(o) for o in found] == [[]]*6 + [['brightness']] + [[]]*5
    before, now = found[6]['brightness']
    assert before == pytest.approx(140, abs=5) and now == pytest.approx(105, abs=5)
    found = year(flagged=lambda o: 9 if o < 7 else 30)
    assert [list(o) for o in found] == [[]]*6 + [['flagged']] + [[]]*5 and found[6]['flagged'] == (.03, .1)


def test_what_creeps_is_compared_with_where_it_began():
    found = [list(o) for o in year(light=lambda o: 142 - 2*o)]
    assert 1 <= sum(map(len, found)) <= 3 and not any(found[:2])
    found = [list(o) for o in year(flagged=lambda o: 9 + 2*o)]
    assert sum(map(len, found)) == 1 and not any(found[:4])
    assert trend(np.array([3, 5, 8]), np.array([99]*3)) == pytest.approx(trend(np.array([8, 5, 3]), np.array([99]*3)))
    assert trend(np.array([0, 0]), np.array([9, 9])) == trend(np.array([5]), np.array([9])) == 1


def test_false_alarms_of_a_year_are_as_rare_as_promised():
    "With twenty times as many allowed, to see some"
    rng, n, years = np.random.default_rng(1), 0, 60
    for seed in range(years):
        seen = [{k: rng.normal(size=100) for k in 'ab'} for _ in range(12)]
        flagged = rng.binomial(300, .03, 12)
        n += any(changes([(k, 300) for k in flagged], seen, {k: rng.normal(size=300) for k in 'ab'},
                         np.full(100, .03), .2/12))
    assert n/years <= .3


@pytest.mark.parametrize('text,date', [
    ('2026-07.csv', '2026-07'), ('line 3, 2026-07-28.csv', '2026-07-28'), ('2025-01/2026-02', '2026-02'),
    ('week31', ''), ('2026-13', ''), ('2026-02-30', ''), ('12026-07', ''), ('0026-07', '')])
def test_dates(text, date): assert date_in(text) == date


@pytest.fixture(scope='module')
def months(saved, images, tmp_path_factory):
    "Three months of tables, and a folder; in the third the images are dark and small"
    root, model = tmp_path_factory.mktemp('months'), load_model(saved)
    for month in '2026-05', '2026-06', '2026-07', '2026-08':
        (root/month).mkdir()
        for i, p in enumerate(sorted(images.glob('*/*.jpg'))):
            im = Image.open(p)
            if month == '2026-07': im = ImageEnhance.Brightness(im.resize((24, 24))).enhance(.4)
            im.save(root/month/f'{i}.jpg')
        if month != '2026-08': predict_csv(model, [root/month], root/f'{month}.csv', progress=False)
    return root


def test_command(saved, months, command, tmp_path, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    tables, out = [months/f'2026-0{k}.csv' for k in (5, 6, 7)], tmp_path/'out'
    code, text, err = command('bn-watch', saved, *tables[:2], '--out', out, '--device', 'cpu')
    assert code == 0 and text.startswith('2026-06: nothing has changed.') and not (out/'look-2026-06.csv').exists(), err
    code, text, err = command('bn-watch', saved, *tables, '--out', out, '--n', '10')
    assert code == 2 and '2026-07: something changed' in text and 'brightness' in text and text.count('\n') <= 14, text
    page = (out/'watch.html').read_text()
    assert 'alt="Prevalence and' in page and '2026-07' in page and 'How it is judged' in page
    assert 'src="http' not in page
    command_line = f'bn-find {saved} --review {out}/look-2026-07.csv --out {out}/look-2026-07 --serve'
    assert command_line in page and command_line in ' '.join(text.split())
    code, text, err = command(*command_line.split()[:-1], '--page', tmp_path/'label.html')
    assert code == 0 and '10 images to look at' in text, err
    assert Queue(out/'look-2026-07').rows.strategy.value_counts().to_dict() == dict(random=5, uncertain=5)
    code, text, err = command('bn-watch', saved, *tables, months/'2026-08', '--out', out, '--json')
    told = json.loads(text)
    assert code == 2 and [bool(o['changed']) for o in told['periods']][1:] == [False, True, True], err
    assert told['periods'][0]['images'] == 52 and 'brightness' in told['periods'][3]['changed']
    assert list((out/f'predictions-{load_model(saved).id}').iterdir()) # not predicted again next time


def test_dates_in_the_paths_of_images(saved, months, tmp_path):
    model = load_model(saved)
    both = pd.concat([pd.read_csv(months/f'2026-0{k}.csv') for k in (5, 6)])
    both.to_csv(tmp_path/'all.csv', index=False)
    t = read_predictions(model, [tmp_path/'all.csv'], tmp_path)
    assert t.period.value_counts().to_dict() == {'2026-05': 52, '2026-06': 52}
    assert set(read_predictions(model, [months/'2026-05.csv'], tmp_path, r'2026-\d\d').period) == {'2026-05'}


def test_images_that_are_gone(saved, months, tmp_path):
    "Scores are compared all the same"
    t = pd.read_csv(months/'2026-05.csv')
    for k in 5, 7: t.assign(path=[f'gone/{k}-{i}.jpg' for i in t.index]).to_csv(tmp_path/f'2026-0{k}.csv', index=False)
    w = watch(saved, [tmp_path/'2026-05.csv', tmp_path/'2026-07.csv'], tmp_path/'out')
    assert not w.changed[1] and w.tests[0] == 1 and len(w.notes) == 2 and 'are not there' in w.notes[0]
    write_watch(w, tmp_path/'out')
    assert not watch(saved, [months/'2026-05.csv'], tmp_path/'out', sample=0).notes


def test_bad_input(saved, copy, months, command, tmp_path):
    rewritten(copy, lambda a: a['decision'].update(scale=a['decision']['scale'] + .001))
    (tmp_path/'week31.csv').write_text((months/'2026-05.csv').read_text().replace('2026-05', 'may'))
    (tmp_path/'2026-01.csv').write_text('path,label\na.jpg,good\n')
    (tmp_path/'2026-02.csv').write_text(','.join(COLUMNS) + '\n')
    (tmp_path/'2026-03.csv').write_text('')
    table = months/'2026-05.csv'
    for model, args, message in (
            (copy, [table], '2026-05.csv: predictions of another model'),
            (saved, [tmp_path/'week31.csv'], 'no date such as'),
            (saved, [tmp_path/'2026-01.csv'], 'not a table that bn-predict wrote'), (saved, [], 'tables of bn-predict'),
            (saved, [tmp_path/'2026-02.csv'], 'no predictions of readable images'),
            (saved, [tmp_path/'2026-03.csv'], 'cannot be read as a table'),
            (saved, [tmp_path/'none.csv'], 'none.csv: no such file'),
            (saved, [table, '--by', '('], '--by (: not a regular'),
            (saved, [table, '--by', r'\d{3}'], 'no date such as'), (saved, [table, '--alarms', '1'], '--alarms 1'),
            (saved, [table, '--sample', '-1'], '--sample -1'), (tmp_path, [table], 'model.json: cannot be read')):
        one_line(command('bn-watch', model, *args, '--out', tmp_path/'never'), message)
    assert not (tmp_path/'never').exists()


def test_what_a_model_keeps(saved, copy):
    "Of models without properties of images the first period is what others are compared with"
    model = load_model(saved)
    e = read_held_out(saved, model.about)
    known = ordinary(e, model.decision.threshold)
    assert {'width', 'bits', 'brightness', 'feature 1'} <= set(known) and set(known['width']) == {32}
    e.pop('camera')
    assert not {'width', 'brightness'} & set(ordinary(e, model.decision.threshold))
    rates = expected_flags(model)
    assert 0 < rates.min() and rates.max() < 1
