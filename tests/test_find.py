"""Looking for more of the rare class: what is taken, odd files, models, stores, the command."""
import json, os, shutil, socket, subprocess, sys
from collections import Counter
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings as hyp, strategies as st
from PIL import Image
from bn_imbalance.core import BadInput, load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.find.search import (
    STRATEGIES, answered_labels, hash_uniform, holdout_fraction, next_round, pool_counts, search_with_data,
    search_with_model, select_round, start_search, write_labels)
from bn_imbalance.find.labelling import image_location, small_image
from bn_imbalance.find.pool import Pool, embed
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import predict_images
from bn_imbalance.find.queue import Queue
from deployed import images, one_line, saved # noqa: F401, fixtures

SMALL = dict(arch='resnet18', weights='random', size=32)
FLAGS = '--arch resnet18 --weights random --size 32'.split()


def picture(path, level, seed):
    pixels = (level + 60*np.random.default_rng(seed).random((32, 32, 3))).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def field(tmp_path):
    "25 good images and 5 bad ones with labels, 100 and 6 without; file names tell which, and nobody reads them"
    for label, n, level in ('good', 25, 150), ('bad', 5, 80):
        (tmp_path/'known'/label).mkdir(parents=True)
        for i in range(n): picture(tmp_path/'known'/label/f'{i:03d}.png', level, i)
    (tmp_path/'field'/'day 1').mkdir(parents=True)
    for i in range(106):
        label, level = ('bad', 80) if i % 18 == 0 else ('good', 150)
        picture(tmp_path/'field'/f'{label} {i:03d}.png', level, 1000 + i)
    return tmp_path


@pytest.fixture
def search(field): return search_with_data(read_data(field/'known', majority='good'), load_settings(**SMALL))


def look(q, n=None):
    "Somebody who knows says what the images are of that wait"
    todo = [p for p in q.rows.path if p not in set(q.answers().path)]
    for p in todo[:n]: q.answer(p, 'bad' if Path(p).name.startswith('bad') else 'good')
    return todo


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(dict(digest=[f'{seed}-{i}' for i in range(n)], likely=rng.normal(size=n),
                             strange=rng.normal(size=n)))


def see(digests): return torch.tensor([[(k := int(d.split('-')[1])) % 97, k % 89] for d in digests], dtype=torch.float)


@hyp(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), n=st.integers(1, 120), strategy=st.sampled_from(list(STRATEGIES)))
def test_a_round(size, n, strategy):
    "As many as asked for or as there are, nothing twice, what is set aside by lot alone"
    t, aside = table(size), holdout_fraction(size)
    rows = select_round(t, strategy, n, see, aside)
    drawn = rows.strategy == 'random'
    assert rows.digest.is_unique and set(rows.digest) <= set(t.digest) and not rows.isna().any().any()
    if strategy == 'random': assert len(rows) == min(n, size) and drawn.all()
    else:
        apart = hash_uniform(rows.digest) < aside
        assert (apart == drawn).all() and len(rows) == min(n, size)
        kept, others = (hash_uniform(t.digest) < aside).sum(), (hash_uniform(t.digest) >= aside).sum()
        assert drawn.sum() == min(max(-(-n//20), n - others), kept)


def test_odd_files_are_counted_and_named(field, search):
    "Also pages, each of which is an image of its own, and can be shown; a link out of the folder cannot"
    there = field/'field'/'day 1'
    pages = [Image.effect_noise((32, 32), 40 + i).convert('RGB') for i in range(3)]
    pages[0].save(there/'stack.tif', save_all=True, append_images=pages[1:])
    pages[2].save(field/'outside.tif', save_all=True, append_images=pages[:2])
    (there/'link.tif').symlink_to(field/'outside.tif')
    (there/'drawing.svg').write_text('<svg/>')
    Image.fromarray(np.arange(0, 4096, 4, np.uint16).reshape(32, 32)).save(there/'deep.png')
    for pages, n in ('first', 109), ('all', 113):
        odd, left, out = {}, Counter(), field/pages
        q = start_search(search, [field/'field'], out, False, partial(embed, odd=odd), left, pages)
        assert pool_counts(q, search)['images'] == n and not pool_counts(q, search)['bad'] and left == {'.svg': 1}
        assert {k: m for k, (m, _) in odd.items()} == (dict(deep=1, pages=2) if pages == 'first' else dict(deep=1))
    next_round(q, search, 200)
    shown = {Path(p).name: i for i, p in enumerate(q.rows.path)}
    assert {f'stack.tif[{k}]' for k in range(3)} <= shown.keys()
    assert small_image(image_location(q, shown['stack.tif[2]']))
    with pytest.raises(BadInput, match='a link out'): image_location(q, shown['link.tif[0]'])


def test_with_a_model(saved, field, tmp_path): # noqa: F811
    search = search_with_model(saved)
    q = start_search(search, [field/'field'], tmp_path/'find', progress=False)
    next_round(q, search, 12)
    model = load_model(saved)
    z = predict_images(model, [field/'field']).set_index('path').probability
    z.index = z.index.str.replace(f'{field}/field/', '', regex=False)
    ranked = q.rows[q.rows.strategy != 'random']
    odds = np.log(z/(1 - z))[ranked.path]
    np.testing.assert_allclose(ranked.score, odds, rtol=1e-3, atol=1e-3) # the model's own margin
    look(q)
    next_round(q, search, 12)
    look(q)
    assert q.counts()['found'] >= 4 and q.counts()['looked_at'] == 24
    assert set(pd.read_csv(write_labels(q, search)).label) == {'good', 'bad'}


def test_the_command(field, command):
    args = 'bn-find', field/'known', field/'field', '--out', field/'find', '--n', 12, *FLAGS
    code, out, err = command(*args)
    assert code == 0, err
    assert '106 images: 106 to search.' in out and 'Round 1: 12 images to look at, 1 of them' in out
    assert '--serve' in out
    assert 'Round 1 is waiting: 12 images.' in command(*args)[1]
    q = Queue(field/'find')
    look(q)
    code, out, err = command(*args, '--page', field/'page.html')
    assert code == 0 and 'Round 2: 12 images' in out and 'page.html, 12 images' in out and 'labels.csv' in out, err
    first = q.rows.path[q.rows['round'] == 2].iloc[0]
    (field/'from Bob.csv').write_text(f'path,label,who,when,round\n{first},bad,Bob,2026-05-04T10:00:00+00:00,2\n')
    code, out, err = command(*args, '--answers', field/'from Bob.csv')
    assert code == 0 and '1 new answers' in out and 'Round 3' in out, err


def test_before_a_rare_image_is_known(field, command):
    "The strangest come first; when one is found it is learnt from, and what is found can be compared"
    shutil.rmtree(field/'known'/'bad')
    args = 'bn-find', field/'known', field/'field', '--out', field/'find', '--n', 60, '--minority', 'bad', *FLAGS
    code, out, err = command(*args)
    assert code == 0 and 'No image of bad is known yet.' in out, err
    q = Queue(field/'find')
    assert set(q.rows.strategy) == {'strange', 'random'} and q.classes[:2] == ['good', 'bad']
    assert (q.rows.score[q.rows.strategy == 'strange'].diff().dropna() <= 0).all()
    look(q)
    found = sum(Path(p).name.startswith('bad') for p in q.rows.path)
    code, out, err = command(*args)
    assert found and code == 0 and 'is known yet' not in out and f'found {found} of bad' in out, err
    assert 'likely' in set(Queue(field/'find').rows.strategy)
    labels = pd.read_csv(field/'find'/'labels.csv').label.value_counts()
    assert labels.to_dict() == dict(good=25 + 60 - found, bad=found)


@pytest.mark.parametrize('flags, name', [(['--minority', 'MT_*'], 'MT_rare'),
                                         (['--majority', 'good', '--minority', 'go*,bad'], 'gorare')])
def test_a_pattern_is_no_name(field, command, flags, name):
    "A class that a pattern stands for and of which no image is there; the pattern may match the usual class as well"
    shutil.rmtree(field/'known'/'bad')
    code, out, err = command('bn-find', field/'known', field/'field', '--out', field/'find', *flags, *FLAGS)
    assert code == 0 and f'No image of {name} is known yet.' in out, err


def test_labels_as_a_data_set(field, command):
    "What was found trains a model"
    args = 'bn-find', field/'known', field/'field', '--out', field/'find', '--n', 30, *FLAGS
    for _ in range(2):
        assert command(*args)[0] == 0
        look(Queue(field/'find'))
    command(*args)
    execution = '--minority bad --epochs 1 --seeds 2 --batch-size 8 --backend serial'.split()
    code, out, err = command('bn-fit', field/'find'/'labels.csv', '--out', field/'model', *FLAGS, *execution)
    assert code == 0, err


def test_bad_input(field, command, saved, tmp_path): # noqa: F811
    def told(*args): return command('bn-find', *args, '--out', field/'find', *FLAGS)
    known, there = field/'known', field/'field'
    one_line(told(known, field/'nowhere'), 'nowhere: no such file or folder')
    one_line(told(known), 'no images given')
    one_line(told(field/'nothing', there), 'nothing: no such folder or file')
    one_line(told(known, there, '--strategy', 'likly'), "--strategy likly: unknown. Did you mean likely?")
    one_line(told(known, there, '--n', '0'), '--n 0: expected a whole number')
    one_line(told(known, there, '--recipe', 'padim'), 'padim: looks at patches')
    one_line(told(known, there, '--recipe', 'nothing'), 'nothing')
    (field/'blank').mkdir()
    (field/'blank'/'a.png').write_bytes(b'')
    one_line(told(known, field/'blank'), '1 images, none of which can be read and has no label yet')
    one_line(told(known, known), 'none of which can be read and has no label yet') # all of them are labelled
    assert not (field/'find'/'find.json').exists()
    assert told(known, there)[0] == 0
    one_line(told(saved, there), 'a search for bad with', 'Give another --out')
    one_line(told(known, saved.parent), 'Give another --out') if list(saved.parent.rglob('*.png')) else None
    one_line(told(known, there, '--answers', field/'none.csv'), 'none.csv: no such file')
    answers = field/'find'/'answers.csv'
    answers.write_text('path,label,who,when,round\nx.png,bad,,,1\n')
    one_line(told(known, there), "answers.csv: line 2: there is no image 'x.png'")
    answers.unlink()
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        pytest.importorskip('fasthtml')
        one_line(told(known, there, '--serve', '--port', s.getsockname()[1]), 'Address already in use')


def test_review(saved, images, command, tmp_path): # noqa: F811
    "What bn-predict wants to be looked at makes a queue"
    assert command('bn-predict', saved, images, '--csv', tmp_path/'out.csv')[0] == 0
    t = pd.read_csv(tmp_path/'out.csv').assign(review=['yes', 'no']*26)
    t.to_csv(tmp_path/'out.csv', index=False)
    args = 'bn-find', saved, '--review', tmp_path/'out.csv', '--out', tmp_path/'find'
    code, out, err = command(*args)
    assert code == 0 and '26 images to look at.' in out, err
    Queue(tmp_path/'find').answer(Queue(tmp_path/'find').rows.path[0], 'bad')
    assert command(*args)[0] == 0 and len(Queue(tmp_path/'find').answers()) == 1


@pytest.mark.slow
def test_memory_does_not_grow(field, tmp_path):
    "Four times as many images, and hardly more memory"
    code = '''
import resource, sys
from bn_imbalance.cli import bn_find
sys.argv = ['bn-find', *sys.argv[1:]]
bn_find.cli()
print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
'''
    def peak(n):
        folder = tmp_path/f'field {n}'
        folder.mkdir()
        for i in range(n): picture(folder/f'{i}.png', 150, 10_000 + i)
        r = subprocess.run([sys.executable, '-c', code, field/'known', folder, '--out', tmp_path/f'find {n}', *FLAGS],
                           capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
        return int(r.stdout.split('PEAK')[1])
    small, large = peak(500), peak(2000)
    assert large < 1.1*small, (small, large)


@pytest.mark.slow
def test_a_round_in_the_browser(field, tmp_path):
    "bn-find --serve: label, press Retrain, and the next round is there"
    from browser import Browser, needs_browser
    from test_labelling import READY, label
    needs_browser()
    cli = 'from bn_imbalance.cli import bn_find; bn_find.cli()'
    args = [sys.executable, '-c', cli, field/'known', field/'field', '--out', field/'find', '--n', 12, *FLAGS,
            '--serve', '--port', 0]
    with subprocess.Popen(list(map(str, args)), stdout=subprocess.PIPE, text=True) as process:
        try:
            address = next(line for line in process.stdout if line.startswith('Open ')).split()[1]
            q = Queue(field/'find')
            with Browser(tmp_path/'profile') as browser:
                page = browser.page(address)
                page.until(READY)
                label(page, ''.join('2' if p.startswith('bad') else '1' for p in q.rows.path))
                page.js("document.getElementById('retrain').click()")
                page.until("document.getElementById('place').textContent.startsWith('1 of 12')")
                assert len(q.rows) == 24 and len(q.answers()) == 12
                assert not page.complaints()
        finally: process.kill()
    assert json.loads((field/'find'/'find.json').read_text())['minority'] == 'bad'


def test_images_in_a_store(field, command, tmp_path):
    "The same rows from an address; the page shows images from there"
    import fsspec
    fs = fsspec.filesystem('memory')
    for p in (field/'field').rglob('*.png'): fs.pipe_file(f'/plant/{p.relative_to(field/"field")}', p.read_bytes())
    args = '--n', 12, *FLAGS
    assert command('bn-find', field/'known', 'memory://plant', '--out', tmp_path/'far', *args)[0] == 0
    assert command('bn-find', field/'known', field/'field', '--out', tmp_path/'near', *args)[0] == 0
    far, near = Queue(tmp_path/'far'), Queue(tmp_path/'near')
    assert far.rows.equals(near.rows) and far.root == 'memory:///plant'
    look(far)
    code, out, err = command('bn-find', field/'known', 'memory://plant', '--out', tmp_path/'far', *args)
    assert code == 0 and len(far.rows) == 24, err
    assert set(pd.read_csv(write_labels(far, search_with_data(read_data(field/'known'), load_settings(**SMALL)))).label)
    pytest.importorskip('fasthtml')
    from bn_imbalance.find.labelling import image_location, offline_page, small_image
    assert small_image(image_location(far, 0)) == small_image(image_location(near, 0))
    assert offline_page(tmp_path/'far', tmp_path/'far.html')[1] == 12
    def told(*images): return command('bn-find', field/'known', *images, '--out', tmp_path/'both', *args)
    one_line(told('memory://plant', field/'field'), 'not both')
    one_line(told('s4://bucket'), 'there is no s4://')
    fs.rm('/plant', recursive=True)


@pytest.mark.slow
def test_ray_sees_the_same(field, command, tmp_path):
    pytest.importorskip('ray', reason="pip install 'bn_imbalance[ray]'")
    args = field/'known', field/'field', '--n', 12, *FLAGS
    assert command('bn-find', *args, '--out', tmp_path/'here')[0] == 0
    code, out, err = command('bn-find', *args, '--out', tmp_path/'ray', '--backend', 'ray', '--workers', 2)
    assert code == 0, err
    here, there = (Queue(tmp_path/k) for k in ('here', 'ray'))
    assert here.rows.drop(columns='score').equals(there.rows.drop(columns='score'))
    np.testing.assert_allclose(here.rows.score, there.rows.score, rtol=1e-4)
    wrong = command('bn-find', *args, '--out', tmp_path/'no', '--backend', 'spark')
    one_line(wrong, '--backend spark: expected serial, ray')


def test_a_name_that_is_no_utf8(field, search):
    picture(field/'new.png', 80, 5)
    try: os.rename(field/'new.png', os.fsencode(field/'field') + b'/bad \xff.png')
    except OSError: pytest.skip('a file system that wants UTF-8')
    q = start_search(search, [field/'field'], field/'find', progress=False)
    next_round(q, search, 107)
    look(q)
    assert 'bad \udcff.png' in q.labels()
    assert len(answered_labels(q, Pool(next((field/'find').glob('*.sqlite'))))) == 107
    assert b'bad \xff.png,bad' in write_labels(q, search).read_bytes()
