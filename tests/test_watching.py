"""The day after: what has changed, period by period, and what must be refused."""
import json
import pytest
from PIL import Image, ImageEnhance
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import COLUMNS, predict_csv
from bn_imbalance.find.queue import Queue
from deployed import copy, images, one_line, rewritten, saved # noqa: F401, fixtures

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
