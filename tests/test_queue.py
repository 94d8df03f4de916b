"""The queue of images to look at, and its answers: killed, cut off, edited by hand, written by several at once."""
import os, random, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from bn_imbalance.core import BadInput
from bn_imbalance.data.images import TEXT
from bn_imbalance.find.queue import Queue, add_round, new_queue, review_queue

PATHS = [f'a/{i:03d}.jpg' for i in range(60)] + ['ein Blättchen ☘.png', 'comma, "quoted".png', "semi;colon'.png",
                                                  'bytes \udce4.png', 'line\u2028end.png', '=1+1.png']


def make(folder, paths=PATHS):
    q = new_queue(folder, dict(root='images', source='leaves', majority='healthy', minority='sick', goal={},
                               n_images=99))
    strategy = ['random' if i % 20 == 7 else 'margin' for i in range(len(paths))]
    add_round(q, pd.DataFrame(dict(path=pd.Series(paths, dtype=TEXT), score=1., strategy=strategy)))
    return q


@pytest.fixture
def q(tmp_path): return make(tmp_path/'find')


def lines(q): return (q.folder/'answers.csv').read_bytes().decode('utf-8', 'surrogateescape').split('\n')


def test_what_is_written_is_read(q):
    for i, p in enumerate(PATHS): q.answer(p, ['healthy', 'sick', 'skip'][i % 3], 'Ann B.')
    again = Queue(q.folder)
    a = again.answers()
    assert list(a.path) == PATHS == list(again.rows.path) and set(a.who) == {'Ann B.'} and set(a['round']) == {'1'}
    assert again.labels() == {p: ['healthy', 'sick'][i % 3] for i, p in enumerate(PATHS) if i % 3 < 2}
    assert again.rows['rank'].tolist() == list(range(1, len(PATHS) + 1))


def test_said_twice_is_written_once(q):
    for _ in range(3): q.answer(PATHS[0], 'sick', 'Ann')
    assert len(lines(q)) == 3 and q.undo('Bob') is None
    q.answer(PATHS[0], 'sick', 'Bob')
    assert [q.undo('Ann'), q.undo('Ann'), len(q.answers())] == [PATHS[0], None, 1]
    q.answer(PATHS[1], '', 'Ann') # nothing to take back
    assert len(lines(q)) == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(['healthy', 'sick', 'skip', '', 'undo']),
                          st.sampled_from(['', 'Ann', 'Bob'])), max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_answer_counts(tmp_path_factory, said):
    q, truth = make(tmp_path_factory.mktemp('q')/'find'), {}
    for i, label, who in said:
        if label == 'undo':
            last = next((k for k in reversed(truth) if k[0] == who), None)
            assert q.undo(who) == (last and last[1])
            truth.pop(last, None)
        else:
            q.answer(PATHS[i], label, who)
            if truth.get((who, PATHS[i]), '') != label: truth.pop((who, PATHS[i]), None)
            if label: truth[who, PATHS[i]] = label
    a = Queue(q.folder).answers()
    assert dict(zip(zip(a.who, a.path), a.label)) == truth
    of = {p: [l for (_, o), l in truth.items() if o == p] for p in PATHS[:4]}
    sick = [p for p, said in of.items() if said.count('sick') > said.count('healthy')]
    c = q.counts()
    assert c['looked_at'] == len({p for _, p in truth}) and c['found'] == len(sick)


def test_most_say_so(q):
    assert not len(q.disagreements()) and q.labels() == {} and q.counts()['looked_at'] == 0
    for i, who, label in [(0, 'Ann', 'sick'), (0, 'Bob', 'sick'), (0, 'Cy', 'healthy'), (0, 'Di', 'skip'),
                          (1, 'Ann', 'sick'), (1, 'Bob', 'healthy'), (1, 'Cy', 'skip')]: q.answer(PATHS[i], label, who)
    q.answer(PATHS[2], 'skip', 'Ann')
    assert q.labels() == {PATHS[0]: 'sick'}
    assert list(q.disagreements().path) == [PATHS[0]]*4 + [PATHS[1]]*3
    assert q.counts() | dict(by_chance=0) == dict(looked_at=3, found=1, by_chance=0, random_looked_at=0, random_found=0,
                                                  round=1)


def test_cut_off_at_any_byte(q):
    q.answer(PATHS[0], 'sick', 'Ann')
    q.answer(PATHS[-5], 'healthy', 'Ann')
    file = q.folder/'answers.csv'
    text = file.read_bytes()
    start = text[:-1].rfind(b'\n') + 1
    for cut in range(len(text) + 1):
        file.write_bytes(text[:cut])
        kept = len(Queue(q.folder).answers())
        assert kept == (cut >= start - 2) + (cut >= len(text) - 2), cut # a line may lack its round and its end
        if cut % 6: continue
        q.answer(PATHS[1], 'sick', 'Bob')
        a = Queue(q.folder).answers()
        assert len(a) == kept + 1 and lines(q)[-1] == '' and len(lines(q)) == kept + 3, cut


def test_a_new_round(q):
    other = Queue(q.folder)
    add_round(q, pd.DataFrame(dict(path=['new.jpg'], strategy='random', score=np.nan)))
    assert list(other.rows['round'].iloc[[0, -1]]) == [1, 2] and other.rows['rank'].iloc[-1] == len(PATHS) + 1
    other.answer('new.jpg', 'sick')
    assert q.answers()['round'].tolist() == ['2'] and q.counts()['round'] == 2
    for wrong in ('../x.jpg', '/etc/passwd', 'a/../../x', '', 'a\nb.jpg', 'new.jpg', 'a\0b', '.'):
        with pytest.raises(BadInput): add_round(q, pd.DataFrame(dict(path=[wrong], strategy='margin', score=1.)))
    assert len(Queue(q.folder).rows) == len(PATHS) + 1
    with pytest.raises(BadInput, match='lacks the column score'):
        add_round(q, pd.DataFrame(dict(path=['b'], strategy='m')))


EDITS = {
    'semicolons': lambda s: s.replace(',', ';'), 'tabs': lambda s: s.replace(',', '\t'),
    'windows': lambda s: '\ufeff' + s.replace('\n', '\r\n'), 'blank lines': lambda s: s.replace('\n', '\n\n'),
    'no last end': lambda s: s.rstrip('\n'), 'no last end, windows': lambda s: s.replace('\n', '\r\n').rstrip('\r\n'),
    'quoted': lambda s: '\n'.join(','.join(f'"{c}"' for c in l.split(',')) for l in s.splitlines()) + '\n',
    'another order': lambda s: '\n'.join(','.join(l.split(',')[::-1]) for l in s.splitlines()) + '\n',
    'one more column': lambda s: s.replace('round\n', 'round,note\n').replace(',1\n', ',1,look again\n')}


@pytest.mark.parametrize('edit', EDITS)
def test_edited_by_hand(q, edit):
    for i in range(3): q.answer(PATHS[i], 'sick', 'Ann')
    before, file = q.answers().to_dict('records'), q.folder/'answers.csv'
    file.write_text(EDITS[edit](file.read_text()), newline='')
    assert q.answers().to_dict('records') == before
    q.answer(PATHS[3], 'healthy', 'Bob')
    after = Queue(q.folder).answers()
    assert after.to_dict('records')[:3] == before and after.path[3] == PATHS[3] and after.who[3] == 'Bob'
    assert after['round'].tolist() == ['1']*4


@pytest.mark.parametrize('old,new,told', [
    ('001.jpg,sick', '001.jpg,sikc', "line 3: label 'sikc'. Did you mean sick or skip?"),
    ('a/001', 'b/001', "line 3: there is no image 'b/001.jpg'"), ('a/001', '"a/001', 'line 3: '),
    (',Ann', ',Ann,Bob', 'line 2: 6 cells under 5 columns'), ('label', 'Label', 'line 1 lacks the column label')])
def test_a_slip_is_told(q, old, new, told):
    for i in range(3): q.answer(PATHS[i], 'sick', 'Ann')
    file = q.folder/'answers.csv'
    slip = file.read_text().replace(old, new, 1)
    file.write_text(slip)
    for go in q.answers, q.counts, lambda: q.answer(PATHS[4], 'sick'), lambda: q.undo('Ann'):
        with pytest.raises(BadInput, match='answers.csv: ') as e: go()
        assert told in str(e.value)
    assert file.read_text() == slip # nobody's line is taken away


def test_damaged_folders(q, tmp_path):
    rows = 'rank,path,round,strategy,score\n1,../a,1,x,1\n'
    newer = (q.folder/'find.json').read_text().replace('"version": 1', '"version": 2')
    for name, text, told in (('find.json', '{', 'damaged'), ('find.json', '[]', 'does not say root'),
                             ('find.json', '{"root": 3}', 'does not say root'),
                             ('find.json', newer, 'of format 2, this .* reads format 1. Use the version that wrote it'),
                             ('queue.csv', '', 'not a table'),
                             ('queue.csv', 'a,b\n1,2\n', 'lacks the column'), ('queue.csv', rows, 'line 2')):
        whole = (q.folder/name).read_bytes()
        (q.folder/name).write_text(text)
        with pytest.raises(BadInput, match=told) as e: Queue(q.folder)
        assert str(q.folder/name) in str(e.value) and (q.folder/name).read_text() == text
        (q.folder/name).write_bytes(whole)
    with pytest.raises(BadInput, match='queue already'): make(q.folder)
    with pytest.raises(BadInput, match='none of them called skip'):
        new_queue(tmp_path/'b', dict(root='.', majority='skip', minority='a'))
    for who in '=1+1', 'x'*41, '<b>', 'a,b', 'a\nb':
        with pytest.raises(BadInput, match='is no name'): q.answer(PATHS[0], 'sick', who)
    with pytest.raises(BadInput, match='no such image'): q.answer('b.jpg', 'sick')
    with pytest.raises(BadInput, match='is no label'): q.answer(PATHS[0], 'Sick')


def test_merge(q, tmp_path):
    other = make(tmp_path/'other')
    for i in range(5): other.answer(PATHS[i], 'sick', 'Bob')
    other.undo('Bob')
    q.answer(PATHS[0], 'healthy', 'Ann')
    assert [q.merge(other.folder/'answers.csv') for _ in range(2)] == [6, 0] and len(q.answers()) == 5
    (tmp_path/'wrong.csv').write_text((other.folder/'answers.csv').read_text() + 'x.jpg,sick,Bob,,1\n')
    with pytest.raises(BadInput, match='wrong.csv: line 8'): q.merge(tmp_path/'wrong.csv')
    with pytest.raises(BadInput, match='no such file'): q.merge(tmp_path/'none.csv')
    (tmp_path/'table.csv').write_text('a,b\n')
    with pytest.raises(BadInput, match='lacks the column'): q.merge(tmp_path/'table.csv')


def test_review(tmp_path):
    from PIL import Image
    for p in 'a/1.png', 'a/2.png', 'b/3.png':
        (tmp_path/p).parent.mkdir(exist_ok=True)
        Image.new('RGB', (9, 9)).save(tmp_path/p)
    table, names = tmp_path/'out.csv', ('good', 'bad')
    row = lambda p, label, prob, review: f'{tmp_path/p},{label},{prob},{review}\n'
    head = 'path,label,probability,review\n'
    sure = row('a/1.png', 'good', .2, 'no')
    table.write_text(head + sure[:-3] + 'yes\n' + row('a/2.png', 'bad', .9, 'no') + row('b/3.png', 'bad', .6, 'yes'))
    q = review_queue(table, tmp_path/'q', *names, source='model')
    assert list(q.rows.path) == ['b/3.png', 'a/1.png'] and q.root == tmp_path and q.counts()['by_chance'] is None
    for text, told in ((head + sure, 'none of its 1 images'), ('path,label\n', 'lacks the column'),
                       ('', 'not a table'), (head + row('a/1.png', 'odd', .2, 'yes'), "label 'odd'"),
                       (head + row('none.png', 'bad', .2, 'yes'), 'none of its images is there')):
        table.write_text(text)
        with pytest.raises(BadInput, match=told): review_queue(table, tmp_path/'r', *names)
        assert not (tmp_path/'r').exists()


WRITER = '''
import sys
from bn_imbalance.find.queue import Queue
q, who = Queue(sys.argv[1]), sys.argv[2]
for i, p in list(enumerate(q.rows.path, 1))[int(sys.argv[3]):]:
    q.answer(p, 'sick', who)
    print(i, flush=True)
'''


def writer(q, who, start=0, **kw):
    return subprocess.Popen([sys.executable, '-c', WRITER, q.folder, who, str(start)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **kw)


def test_several_at_once(q):
    ps, own = [writer(q, who, 40) for who in ('Ann', 'Bob', 'Cy')], PATHS[40:]
    assert all(p.wait(600) == 0 for p in ps), ps[0].stderr.read()
    a = Queue(q.folder).answers()
    assert len(a) == 3*len(own) == len(lines(q)) - 2 and all(list(o.path) == own for _, o in a.groupby('who'))


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='no SIGKILL')
def test_killed_at_any_moment(tmp_path):
    "What was acknowledged is there, once; at most one more"
    paths = [f'{i:04d}.jpg' for i in range(3000)]
    q, rng, done = make(tmp_path/'find', paths), random.Random(0), 0
    for _ in range(10):
        p = writer(q, 'Ann', done)
        said = int(p.stdout.readline())
        time.sleep(rng.uniform(0, .3))
        os.kill(p.pid, signal.SIGKILL)
        said = max([said, *map(int, p.stdout.read().decode().split('\n')[:-1])])
        kept = list(Queue(q.folder).answers().path)
        assert kept == paths[:len(kept)] and said <= len(kept) <= said + 1
        assert len(lines(q)) == len(kept) + 2
        done = len(kept)
    assert done > 50


FULL = '''
import resource, sys
from bn_imbalance.find.queue import Queue
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
q = Queue(sys.argv[1])
for p in q.rows.path: q.answer(p, 'sick', 'Ann')
'''


@pytest.mark.skipif(os.name != 'posix', reason='no limits for processes')
@pytest.mark.parametrize('room', [400, 411])
def test_a_full_disk(q, room):
    "A file that must not grow stands for a disk that is full: the answer is refused, those before it are whole"
    r = subprocess.run([sys.executable, '-c', FULL, q.folder, str(room)], capture_output=True, text=True)
    assert r.returncode == 1 and 'the answer cannot be written' in r.stderr and 'before it are kept' in r.stderr
    kept = list(q.answers().path)
    assert kept == PATHS[:len(kept)] and len(kept) > 3 and lines(q)[-1] == '' and len(lines(q)) == len(kept) + 2
    q.answer(PATHS[30], 'healthy', 'Ann')
    assert list(q.answers().path) == [*kept, PATHS[30]]


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root may write everywhere')
def test_no_permission(q):
    q.folder.chmod(0o500)
    with pytest.raises(BadInput, match='cannot be written'): q.answer(PATHS[0], 'sick')
    q.folder.chmod(0o700)


def test_no_network():
    code = 'import sys, bn_imbalance.find.queue; ' \
           'print(*{"torch", "fastai", "matplotlib", "sklearn"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split() == []
