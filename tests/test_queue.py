"""The queue of images to look at, and its answers: killed, on a full disk, written by several at once."""
import os, random, signal, subprocess, sys, time
import pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from bn_imbalance.core import BadInput
from bn_imbalance.data.images import TEXT
from bn_imbalance.find.queue import Queue, add_round, new_queue

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
