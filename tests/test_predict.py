"""New images: good and bad ones, none, many; a file resumed from any byte; readers that leave."""
import os, shutil, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from bn_imbalance.deploy import predict
from bn_imbalance.deploy.model import load_model
from bn_imbalance.deploy.predict import COLUMNS, predict_csv, predict_images
from deployed import images, one_line, saved # noqa: F401, fixtures


def bad_images(root):
    "name -> what the column error says; '' for those that are fine"
    root.mkdir()
    rgb = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    im = Image.fromarray(rgb)
    im.resize((1, 1)).save(root/'dot.png')
    Image.new('1', (20_000, 20_000)).save(root/'bomb.png')
    im.save(root/'moving.gif', save_all=True, append_images=[im.rotate(90), im.rotate(180)])
    exif = im.getexif(); exif[0x0112] = 6
    im.save(root/'turned.jpg', exif=exif)
    im.save(root/'ein Blättchen ☘.png')
    im.save(root/'comma, "quoted".png')
    (root/'cut.jpg').write_bytes((root/'turned.jpg').read_bytes()[:400])
    (root/'text.jpg').write_text('hello')
    (root/'gone.jpg').symlink_to('nowhere')
    (root/'self.jpg').symlink_to('self.jpg')
    (root/'sub').mkdir()
    (root/'sub'/'up').symlink_to(root)
    im.save(root/'sub'/'deep.png')
    (root/'notes.txt').write_text('no image')
    return {'dot.png': 'too small', 'bomb.png': 'the limit of 100 million', 'moving.gif': '', 'turned.jpg': '',
            'ein Blättchen ☘.png': '', 'comma, "quoted".png': '', 'cut.jpg': 'cannot be read',
            'text.jpg': 'not an image', 'gone.jpg': 'no such file', 'self.jpg': 'cannot be read', 'deep.png': ''}


def test_bad_images(saved, command, tmp_path):
    expected, out = bad_images(tmp_path/'field'), tmp_path/'out.csv'
    code, _, err = command('bn-predict', saved, tmp_path/'field', '--csv', out)
    assert code == 0 and '11 images, 6 of them cannot be read' in err
    t = pd.read_csv(out, keep_default_na=False)
    assert list(t) == COLUMNS and len(t) == len(expected)
    for path, label, error in zip(t.path, t.label, t.error):
        want = expected[Path(path).name]
        assert want in error and bool(error) == bool(want) == (label == ''), (path, error)
    both = [tmp_path/'field'/'turned.jpg', tmp_path/'field'/'moving.gif']
    a, b = predict_images(load_model(saved), both).probability
    im = Image.open(tmp_path/'field'/'turned.jpg').convert('RGB').rotate(-90, expand=True) # EXIF's rotation
    im.save(tmp_path/'upright.png')
    assert predict_images(load_model(saved), tmp_path/'upright.png').probability[0] == pytest.approx(a, abs=1e-5)


def test_nothing_to_predict(saved, command, tmp_path):
    (tmp_path/'bare').mkdir(); (tmp_path/'bare'/'a.txt').write_text('')
    (tmp_path/'broken').mkdir(); (tmp_path/'broken'/'a.png').write_text('')
    for args, message in (([tmp_path/'bare'], 'a folder without images'), ([tmp_path/'none'], 'no such file or folder'),
                          ([tmp_path/'*.tif'], 'no such file or folder'), ([], 'no images given'),
                          ([tmp_path/'broken'], '1 of them cannot be read'),
                          ([tmp_path/'broken', '--csv', tmp_path/'broken'/'a.png'/'out.csv'], 'cannot be written'),
                          ([tmp_path/'broken', '--batch-size', '0'], 'whole number from 1'),
                          ([tmp_path/'broken', '--device', 'gpu'], '--device gpu')):
        result = command('bn-predict', saved, *args)
        one_line(result, message)


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='everything is permitted to root')
def test_no_permission(saved, images, command, tmp_path):
    shutil.copytree(images, tmp_path/'closed'); (tmp_path/'closed'/'bad').chmod(0)
    code, out, err = command('bn-predict', saved, tmp_path/'closed', '--csv', tmp_path/'out.csv')
    (tmp_path/'closed'/'bad').chmod(0o700)
    assert code == 0 and '41 images, 1 of them' in err and 'Permission denied' in (tmp_path/'out.csv').read_text()


def test_resume_from_any_byte(saved, images, tmp_path):
    model, out = load_model(saved), tmp_path/'out.csv'
    (tmp_path/'set').mkdir()
    for i, p in enumerate(sorted(images.glob('*/*.jpg'))[:6]):
        shutil.copy(p, tmp_path/'set'/f'{i}, "{i}"\n{i}.jpg') # a name of two lines
    go = lambda: predict_csv(model, [tmp_path/'set'], out, bs=4, progress=False)
    assert go() == (6, 0, 0)
    whole = out.read_bytes()
    for cut in [0, 30, 78, 79, 150, 300, len(whole) - 1, len(whole)]:
        out.write_bytes(whole[:cut])
        n, bad, before = go()
        assert n + before == 6 and out.read_bytes() == whole, cut


def test_lines_of_another_model_are_not_continued(saved, images, command, tmp_path):
    out = tmp_path/'out.csv'
    for text, line in (('path,label\na,b\n', 1), (','.join(COLUMNS) + '\na,b,c,d,e,f,g,h\n', 2),
                       (','.join(COLUMNS) + '\na,b\n', 2)):
        out.write_text(text)
        one_line(command('bn-predict', saved, images, '--csv', out), f'line {line} is of another model')
        assert out.read_text() == text


@pytest.mark.parametrize('text', ['my notes', '"my notes\nof two lines\n', 'path,labels', '\ufeffpath'])
def test_other_files_are_left_alone(saved, images, command, text, tmp_path):
    "Also one without a complete line, unless it is the start of our header"
    out = tmp_path/'out.csv'
    out.write_text(text)
    one_line(command('bn-predict', saved, images, '--csv', out), f'{out}: holds something else. Give another --csv')
    assert out.read_text() == text


def test_ctrl_c_keeps_complete_lines(saved, images, command, monkeypatch, tmp_path):
    out, whole, real = tmp_path/'out.csv', tmp_path/'whole.csv', predict.forward_rows
    command('bn-predict', saved, images, '--csv', whole, '--batch-size', 8)
    def stopped(*args):
        for i, batch in enumerate(real(*args)):
            if i == 2: raise KeyboardInterrupt
            yield batch
    monkeypatch.setattr(predict, 'forward_rows', stopped)
    one_line(command('bn-predict', saved, images, '--csv', out, '--batch-size', 8),
             'rerun the command to resume')
    assert out.read_bytes() == whole.read_bytes()[:len(out.read_bytes())] and out.read_text().count('\n') == 17
    monkeypatch.setattr(predict, 'forward_rows', real)
    code, _, err = command('bn-predict', saved, images, '--csv', out, '--batch-size', 8)
    assert code == 0 and '16 were done before' in err and out.read_bytes() == whole.read_bytes()


def test_the_reader_of_a_pipe_may_leave(saved, images, tmp_path):
    code = 'import sys; sys.argv = ["bn-predict", *sys.argv[1:]]; from bn_imbalance import cli; cli.bn_predict.cli()'
    p = subprocess.Popen([sys.executable, '-c', code, saved, images, '--batch-size', '2'], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    first = p.stdout.readline().decode()
    p.stdout.close()
    err = p.stderr.read().decode()
    assert p.wait(60) == 0 and first.strip() == ','.join(COLUMNS), err
    assert 'Traceback' not in err and 'BrokenPipe' not in err, err


def test_little_is_loaded(saved, images):
    "A table is made without what trains, evaluates and draws"
    code = ('import sys; from bn_imbalance.deploy.model import load_model; '
            'from bn_imbalance.deploy.predict import predict_images; '
            'predict_images(load_model(sys.argv[1]), sys.argv[2]); '
            'print(*{"fastai", "sklearn", "matplotlib", "scipy.stats", "scipy.optimize"} & set(sys.modules))')
    r = subprocess.run([sys.executable, '-c', code, saved, images/'bad'/'000.jpg'], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.split() == [], r.stdout + r.stderr
