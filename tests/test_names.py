"""Names of any kind: what one command writes the next one reads, and names come out as they went in."""
import csv, io, os, re, warnings
from collections import Counter
from html.parser import HTMLParser
import pytest
from hypothesis import given, settings, strategies as st
from bn_imbalance import cli
from bn_imbalance.audit.checks import check_data
from bn_imbalance.audit.page import write_check
from bn_imbalance.audit.subjects import write_groups
from bn_imbalance.core import BadInput, csv_text, load_settings
from bn_imbalance.data.formats import OTHERS, suffix
from bn_imbalance.data.images import MASKS, TOOLS
from bn_imbalance.data.items import read_data
from bn_imbalance.data.tables import class_key, split_of
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import predict_csv
from bn_imbalance.evaluate.runs import read_runs
from bn_imbalance.find.labelling import offline_page
from bn_imbalance.find.queue import review_queue
from bn_imbalance.find.search import next_round, search_with_data, start_search, write_labels
from bn_imbalance.report.comparison import write_report
from bn_imbalance.training.sweep import Execution, compare
from test_folders import image

S = load_settings(size=32, batch_size=8, arch='resnet18', weights='random', seeds=2, recipes=['ridge'])
FILES = ['x.png', ' lead.png', 'trail.png ', ' ', '\u3000', 'a\rb.png', 'a\nb.png', '\r\n', '"q".png', '=SUM(A1).png',
         "it's, a;b\tc.png", '--csv', 'dots....png', '😀👩\u200d🌾.png', '\u202egnp.x', '\udcff\udce4.png', 'a.txt.png',
         'x'*240 + '.png', 'a[2]', 'x.png[0]', '*?', '~', '$HOME', '%20', '#', 'a\\b.png', 'C:\\a.png', 'http:', 'AUX',
         '\x85\x0b\u2028', '\ufeffx.png', 'e\u0301', 'é', '\x01\x1b[31m', 'NaN', 'None', '1.0', '<b>&amp;.png', 'skip']


def folder(root, good, bad, files=('x.png',)):
    for k, (c, n) in enumerate(((good, 12), (bad, 8))):
        (root/c).mkdir(parents=True)
        mine = files[k::2]
        for i in range(max(n, len(mine))):
            with open(root/c/(mine[i] if i < len(mine) else f'{i}.png'), 'wb') as f: image(500*k + i).save(f, 'PNG')
    return root


def cells(path, column):
    with open(path, encoding='utf-8', errors='surrogateescape', newline='') as f:
        return [row[column] for row in csv.DictReader(f)]


def same(data, images, classes): # does a data set hold these?
    assert {os.path.abspath(p) for p in data.items.path} == images
    assert set(data.items['class']) == classes


def driven(here, good, bad, files=('x.png',), pages=True):
    "Check, compare, fit and predict, and what each of them wrote"
    data = read_data(root := folder(here/'images', good, bad, files))
    images, classes = {str(p) for p in root.rglob('*') if p.is_file()}, {good.strip(), bad.strip()}
    same(data, images, classes)
    named = data.items.assign(label=data.items['class'])
    same(read_data(write_groups(named, range(len(named)), here/'groups.csv')), images, classes)

    out, run = here/'out', Execution(here/'out', 'serial', progress=False)
    runs = compare(data, S, execution=run)
    assert {*read_runs(out)[0].data['minority'], *read_runs(out)[0].data['majority']} == classes
    split = out/'splits'/'seed0.csv'
    assert set(cells(split, 'path')) == images and set(cells(split, 'class')) == classes
    if pages: same_pages(write_check(check_data(root), here/'check.html'), write_report(runs, out)[0], classes)

    fit(data, 'ridge', S, execution=Execution(here/'model', 'serial', progress=False), known=read_runs(out))
    model, table = load_model(here/'model'), here/'predictions.csv'
    assert set(model.classes) == classes and set(cells(here/'model'/'samples.csv', 'path')) <= images
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for n, before in (len(images), 0), (0, len(images)):
            assert predict_csv(model, [root], table, progress=False) == (n, 0, before)
    assert set(cells(table, 'path')) == images and set(cells(table, 'label')) <= classes
    return data, model, images, classes


def same_pages(check, page, classes):
    for p in check, page:
        parser, text = HTMLParser(), []
        parser.handle_data = text.append
        parser.feed(p.read_text(encoding='utf-8'))
        for c in classes: assert c.encode('utf-8', 'replace').decode() in ''.join(text), (p, c)


def found(here, data, model, images, classes, files):
    "A search and a review, with an answer for each image"
    new = here/'new'
    new.mkdir()
    for i, f in enumerate(dict.fromkeys([*files, *map(str, range(8))])):
        with open(new/f, 'wb') as o: image(3000 + i).save(o, 'PNG')
    one_line = {str(p) for p in new.iterdir() if not set(p.name) & set('\r\n')}
    search = search_with_data(data, S)
    q = start_search(search, [new], here/'find', progress=False, left=(left := Counter()))
    next_round(q, search, 99)
    assert {str(q.locate(p)) for p in q.rows.path} == one_line
    assert sum(left.values()) == len(list(new.iterdir())) - len(one_line)
    for i, p in enumerate(q.rows.path): q.answer(p, q.classes[i % 3 == 0])
    assert set(q.labels()) == set(q.rows.path)
    same(read_data(write_labels(q, search)), images | one_line, classes)
    review = here/'review.csv'
    lines = [(p, model.classes[1], .5, 'yes') for p in sorted(one_line)]
    review.write_text(csv_text([('path', 'label', 'probability', 'review'), *lines]), 'utf-8', 'surrogateescape')
    q = review_queue(review, here/'review', *model.classes, here/'model')
    assert {str(q.locate(p)) for p in q.rows.path} == one_line
    file, shown, left = offline_page(here/'review', here/'review.html')
    assert shown + left == len(one_line) and file.read_text('utf-8')


def test_files(tmp_path):
    found(tmp_path, *driven(tmp_path, 'good', 'bad', FILES), FILES)


@pytest.mark.parametrize('good, bad', [('=SUM(A1), "b"', '$x^{$'), (' 😀\u202eא ', '_<b>&amp;')])
def test_classes(tmp_path, good, bad):
    found(tmp_path, *driven(tmp_path, good, bad), ['x.png'])


@pytest.mark.parametrize('bad', ['two\nlines', 'two\rlines', '\udcff', '\x1b[31m'])
def test_classes_that_a_model_cannot_store(tmp_path, bad):
    data = read_data(folder(tmp_path/'images', 'good', bad))
    assert data.classes('minority') == [bad]
    with pytest.raises(BadInput, match='a model cannot store a name') as e: fit(data, 'ridge', S)
    assert '\n' not in str(e.value)


def test_a_screen_that_lacks_letters(tmp_path, monkeypatch):
    "Such as a code page of Windows: they are escaped"
    root, screen = folder(tmp_path/'images', 'good', '😀 é \udcff'), io.TextIOWrapper(io.BytesIO(), 'cp1252')
    monkeypatch.setattr('sys.stdout', screen)
    monkeypatch.setattr('sys.argv', ['bn-data', 'check', str(root), '--quick', '--out', str(tmp_path/'check.html')])
    cli.bn_data()
    screen.flush()
    assert b'\\U0001f600 \xe9' in screen.buffer.getvalue()


def names(*but):
    letters = st.characters(exclude_characters='/\0', exclude_categories=['Cs', *but])
    def left_out(o): # hypothesis also draws words of our own code, such as these
        return suffix(o) in OTHERS or o.lower() in TOOLS | MASKS or re.search('mask|thumb|tn|gt|seg', o, re.I)
    def usable(o): return o[0] != '.' and class_key(o) and not split_of(o) and not left_out(o)
    return st.text(letters, min_size=1, max_size=50).filter(usable)


@pytest.mark.parametrize('n', [2, pytest.param(8, marks=pytest.mark.slow)])
def test_any_names(n, tmp_path_factory):
    @settings(max_examples=n, derandomize=True, database=None)
    @given(st.lists(names('Cc', 'Zl', 'Zp'), min_size=2, max_size=2, unique_by=class_key),
           st.lists(names(), min_size=9, max_size=9, unique=True))
    def drive(classes, files):
        here = tmp_path_factory.mktemp('any')
        try: found(here, *driven(here, *classes, files, pages=False), files)
        except BadInput as e: assert len(str(e).splitlines()) == 1
    drive()
