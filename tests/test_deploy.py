"""A model to take away: saved and loaded to the bit, refused when tampered with, used on bad images, stopped and resumed, exported."""
import json, os, shutil, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from bn_imbalance import deploy
from bn_imbalance.core import load_settings
from bn_imbalance.data import read_data
from bn_imbalance.decide import Goal
from bn_imbalance.deploy import COLUMNS, _checksum, find_images, fit_model, load_model, model_logits, predict_csv
from bn_imbalance.export import Deployed, check_pixels
from bn_imbalance.heads import load_network
from bn_imbalance.recipes import Recipe, recipes
from conftest import write_folder

ARCH = 'mobilenetv3_small_050'
SMALL = dict(arch=ARCH, weights='random', size=32, epochs=2, seeds=2, batch_size=8)
FLAGS = [o for k, v in SMALL.items() for o in (f'--{k.replace("_", "-")}', str(v))] + ['--backend', 'serial']


@pytest.fixture(scope='module')
def images(tmp_path_factory): return write_folder(tmp_path_factory.mktemp('images')/'two', 40, 12)


@pytest.fixture(scope='module')
def saved(images, tmp_path_factory):
    out = tmp_path_factory.mktemp('model')/'model'
    fit_model(read_data(images), 'final_bn', load_settings(**SMALL), Goal(cost_miss=20, cost_alarm=1), out=out, backend='serial', progress=False)
    return out


@pytest.fixture
def copy(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'copy'))


def one_line(result, *parts):
    code, out, err = result
    assert code == 1 and err.strip().count('\n') == 0 and 'Traceback' not in err, err
    assert all(p in err for p in parts), err


def test_saved_is_loaded_to_the_bit(saved, images):
    again = load_model(saved)
    model = fit_model(read_data(images), 'final_bn', load_settings(**SMALL), Goal(cost_miss=20, cost_alarm=1), backend='serial', progress=False)
    assert again.about == model.about # the same seed, the same numbers, tensors included (by their checksum)
    assert all(torch.equal(v, again.net.state_dict()[k]) for k, v in model.net.state_dict().items())
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    np.testing.assert_array_equal(model_logits(again, x), model_logits(model, x))
    assert sorted(p.name for p in saved.iterdir()) == ['card.md', 'model.json', 'model.safetensors', 'runs', 'samples.csv', 'splits']
    assert not saved.with_name('model.part').exists()


def test_a_prediction_does_not_depend_on_its_neighbours(saved, images):
    model, paths = load_model(saved), sorted(images.glob('*/*.jpg'))
    together = model.predict([images])
    alone = pd.concat([model.predict(p) for p in paths[:3]], ignore_index=True)
    pd.testing.assert_frame_equal(together[:3], alone)
    assert list(together.path) == list(map(str, paths)) and set(together.label) <= {'good', 'bad'}
    assert ((together.probability > together.threshold) == (together.label == 'bad')).all()


@pytest.mark.parametrize('name,head', [('logistic_regression', 'fastai'), ('ldam_drw', 'linear'), ('lws', 'plain'), ('final_bn_both', 'fastai'),
                                       ('logit_adjusted_tuned', 'linear'), ('focal:gamma=1', 'plain')])
def test_any_recipe_can_be_taken_away(name, head, images, tmp_path):
    s = load_settings(**SMALL | dict(head=head, seeds=1))
    model = fit_model(read_data(images), name, s, out=tmp_path/'m', backend='serial', progress=False)
    again = load_model(tmp_path/'m')
    x = check_pixels(again, n=6)
    np.testing.assert_array_equal(model_logits(again, x), model_logits(model, x))
    with torch.no_grad(): np.testing.assert_allclose(Deployed(again)(x.float()/255)[0], model_logits(again, x), atol=1e-4, rtol=1e-4)


def test_a_body_that_learns_is_saved_as_it_became(images, tmp_path):
    s = load_settings(**SMALL | dict(train_bn=True, seeds=1, epochs=1))
    model = fit_model(read_data(images), 'final_bn', s, out=tmp_path/'m', backend='serial', progress=False)
    mean = next(k for k in model.net[0].state_dict() if k.endswith('running_mean'))
    before = dict(zip(model.net[0].state_dict(), load_network(ARCH, 'random').state_dict().values()))
    assert not torch.equal(model.net[0].state_dict()[mean], before[mean])
    assert torch.equal(load_model(tmp_path/'m').net[0].state_dict()[mean], model.net[0].state_dict()[mean])


def test_recipes_that_cannot_be_taken_away(images, command, monkeypatch, tmp_path):
    odd = dict(after=Recipe('odd_after', 'squares', after=lambda counts, y, z: lambda z: z**2),
               head=Recipe('odd_head', 'a layer of its own', head=lambda head: torch.nn.Sequential(*head, torch.nn.Softplus())))
    for r, message in zip(odd.values(), ('more than a threshold', 'a layer Softplus')):
        monkeypatch.setitem(recipes, r.name, r)
        one_line(command('bn-fit', images, '--recipe', r.name, '--out', tmp_path/'m', *FLAGS), f'recipe {r.name}', message)
    assert not list(tmp_path.iterdir())


def rewritten(copy, change):
    "A model.json with something changed by somebody who knows how to make the checksum fit"
    about = json.loads((copy/'model.json').read_text())
    change(about)
    (copy/'model.json').write_text(json.dumps(about | {'checksum': _checksum(about)}))


TAMPERED = {
    'network.size is missing': lambda a: a['network'].update(size='224'),
    'of format 3': lambda a: a.update(format=3),
    '3 classes, but pools is for 2': lambda a: a['classes'].append('third'),
    'network.layers is missing or not': lambda a: a['network']['layers'].append(['Softplus', {}]),
    'network.layers make no network': lambda a: a['network']['layers'][-1][1].update(momentums=1),
    'does not fit': lambda a: a['network']['layers'][2][1].update(out_features=10**9), # must not take the memory for it
    'model.safetensors: does not fit': lambda a: a['network'].update(arch='mobilenetv3_small_075'),
    'Did you mean': lambda a: a['network'].update(arch='mobilenetv4_small_050'),
    'decision.low is missing': lambda a: a['decision'].update(low=['a', 'b']),
    'not the file that was saved': lambda a: a.update(tensors='0'*32),
    'settings or goal': lambda a: a['settings'].update(epochs=-1),
    'settings is missing': lambda a: a['settings'].update(weights='/etc/passwd'),
    'metrics is missing': lambda a: a['metrics'].clear(),
    'rare is not some of the 2 classes': lambda a: a.update(rare=[2]),
    'by_class has not the same': lambda a: a.update(by_class={'bad': {k: [0, 0, 0] for k in ('recall', 'precision', 'f1')}})}


@pytest.mark.parametrize('message', TAMPERED)
def test_tampered(message, copy, images, command, tmp_path):
    rewritten(copy, TAMPERED[message])
    out = tmp_path/'out.csv'
    one_line(command('bn-predict', copy, images, '--csv', out), 'model', message)
    assert not out.exists()


def test_damaged_files(copy, images, command):
    js, st = copy/'model.json', copy/'model.safetensors'
    whole, blob = js.read_text(), st.read_bytes()
    predict = lambda: command('bn-predict', copy, images)
    for text, message in ((whole[:-100], 'not JSON'), ('[]', 'not a model of bn-fit'), ('['*10**5, 'not JSON'),
                          (whole.replace('"level": 0.9', '"level": 0.8'), 'was changed after it was written')):
        js.write_text(text)
        one_line(predict(), 'model.json', message)
    js.write_text(whole)
    for bad in blob[:-10], blob[:5], b'', blob[:200] + b'\0' + blob[201:]:
        st.write_bytes(bad)
        one_line(predict(), 'model.safetensors', 'not the file that was saved')
    st.unlink()
    one_line(predict(), 'model.safetensors', 'No such file')
    one_line(command('bn-predict', copy/'nowhere', images), 'cannot be read', 'Give a folder that bn-fit wrote')


def test_no_pickle(saved):
    for p in saved.rglob('*'):
        if p.is_file() and p.name != 'model.safetensors': p.read_text() # text, all of it


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
    return {'dot.png': 'too small', 'bomb.png': 'the limit of 100 million', 'moving.gif': '', 'turned.jpg': '', 'ein Blättchen ☘.png': '',
            'comma, "quoted".png': '', 'cut.jpg': 'cannot be read', 'text.jpg': 'not an image', 'gone.jpg': 'no such file',
            'self.jpg': 'cannot be read', 'deep.png': ''}


def test_bad_images(saved, command, tmp_path):
    expected, out = bad_images(tmp_path/'field'), tmp_path/'out.csv'
    code, _, err = command('bn-predict', saved, tmp_path/'field', '--csv', out)
    assert code == 0 and '11 images, 6 of them cannot be read' in err
    t = pd.read_csv(out, keep_default_na=False)
    assert list(t) == COLUMNS and len(t) == len(expected)
    for path, label, error in zip(t.path, t.label, t.error):
        want = expected[Path(path).name]
        assert want in error and bool(error) == bool(want) == (label == ''), (path, error)
    a, b = load_model(saved).predict([tmp_path/'field'/'turned.jpg', tmp_path/'field'/'moving.gif']).probability
    im = Image.open(tmp_path/'field'/'turned.jpg').convert('RGB').rotate(-90, expand=True) # the rotation mark is heeded
    im.save(tmp_path/'upright.png')
    assert load_model(saved).predict(tmp_path/'upright.png').probability[0] == pytest.approx(a, abs=1e-5)


def test_nothing_to_predict(saved, command, tmp_path):
    (tmp_path/'bare').mkdir(); (tmp_path/'bare'/'a.txt').write_text('')
    (tmp_path/'broken').mkdir(); (tmp_path/'broken'/'a.png').write_text('')
    for args, message in (([tmp_path/'bare'], 'a folder without images'), ([tmp_path/'none'], 'no such file or folder'),
                          ([tmp_path/'*.tif'], 'no such file or folder'), ([], 'no images given'), ([tmp_path/'broken'], '1 of them cannot be read'),
                          ([tmp_path/'broken', '--csv', tmp_path/'broken'/'a.png'/'out.csv'], 'cannot be written'),
                          ([tmp_path/'broken', '--batch-size', '0'], 'whole number from 1'), ([tmp_path/'broken', '--device', 'gpu'], '--device gpu')):
        result = command('bn-predict', saved, *args)
        one_line(result, message)


def test_patterns(images, tmp_path):
    names = lambda *sources: [str(p) for p in find_images(sources)]
    assert names(images/'*'/'00[0-2].jpg') == [str(images/c/f'00{i}.jpg') for c in ('bad', 'good') for i in range(3)]
    assert len(names(images)) == 52 and len(names(images/'*')) == 52 and names(images/'bad'/'000.jpg')*2 == names(*[images/'bad'/'000.jpg']*2)
    odd = tmp_path/'a[1].jpg'
    odd.touch()
    assert names(odd) == [str(odd)] # a name, not a pattern


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='everything is permitted to root')
def test_no_permission(saved, images, command, tmp_path):
    shutil.copytree(images, tmp_path/'closed'); (tmp_path/'closed'/'bad').chmod(0)
    code, out, err = command('bn-predict', saved, tmp_path/'closed', '--csv', tmp_path/'out.csv')
    (tmp_path/'closed'/'bad').chmod(0o700)
    assert code == 0 and '41 images, 1 of them' in err and 'Permission denied' in (tmp_path/'out.csv').read_text()


def test_resume_from_any_byte(saved, images, tmp_path):
    model, out = load_model(saved), tmp_path/'out.csv'
    (tmp_path/'set').mkdir()
    for i, p in enumerate(sorted(images.glob('*/*.jpg'))[:6]): shutil.copy(p, tmp_path/'set'/f'{i}, "{i}"\n{i}.jpg') # a name of two lines
    go = lambda: predict_csv(model, [tmp_path/'set'], out, bs=4, progress=False)
    assert go() == (6, 0, 0)
    whole = out.read_bytes()
    for cut in [0, 30, 78, 79, 150, 300, len(whole) - 1, len(whole)]:
        out.write_bytes(whole[:cut])
        n, bad, before = go()
        assert n + before == 6 and out.read_bytes() == whole, cut


def test_lines_of_another_model_are_not_continued(saved, images, command, tmp_path):
    out = tmp_path/'out.csv'
    for text, line in (('path,label\na,b\n', 1), (','.join(COLUMNS) + '\na,b,c,d,e,f,g,h\n', 2), (','.join(COLUMNS) + '\na,b\n', 2)):
        out.write_text(text)
        one_line(command('bn-predict', saved, images, '--csv', out), f'line {line} is not of this model')
        assert out.read_text() == text


def test_ctrl_c_keeps_whole_lines(saved, images, command, monkeypatch, tmp_path):
    out, whole, real = tmp_path/'out.csv', tmp_path/'whole.csv', deploy.model_logits
    command('bn-predict', saved, images, '--csv', whole, '--batch-size', 8)
    calls = []
    def stopped(*args):
        calls.append(1)
        if len(calls) == 3: raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(deploy, 'model_logits', stopped)
    one_line(command('bn-predict', saved, images, '--csv', out, '--batch-size', 8), 'the same command goes on from there')
    assert out.read_bytes() == whole.read_bytes()[:len(out.read_bytes())] and out.read_text().count('\n') == 17
    monkeypatch.setattr(deploy, 'model_logits', real)
    code, _, err = command('bn-predict', saved, images, '--csv', out, '--batch-size', 8)
    assert code == 0 and '16 were done before' in err and out.read_bytes() == whole.read_bytes()


def test_fit_is_whole_or_absent_and_goes_on(images, command, monkeypatch, tmp_path):
    out, real = tmp_path/'m', deploy._train_on
    args = 'bn-fit', images, '--out', out, '--min-recall', '.9', *FLAGS
    def stopped(*args): raise KeyboardInterrupt
    monkeypatch.setattr(deploy, '_train_on', stopped)
    one_line(command(*args), 'the same command goes on from there')
    runs = sorted((tmp_path/'m.part'/'runs').iterdir())
    stamps = [p.stat().st_mtime_ns for p in runs]
    assert not out.exists() and len(runs) == 2
    monkeypatch.setattr(deploy, '_train_on', real)
    code, text, err = command(*args)
    assert code == 0 and str(out/'card.md') in text and not (tmp_path/'m.part').exists(), err
    assert [p.stat().st_mtime_ns for p in sorted((out/'runs').iterdir())] == stamps # not done again
    assert 'a recall of 0.9 or more' in (out/'card.md').read_text()
    one_line(command(*args), 'exists already')


def test_fit_what_compare_recommends(images, command, tmp_path):
    c = tmp_path/'c'
    command('bn-compare', images, '--recipes', 'plain,weighted,plain_threshold', '--out', c, *FLAGS)
    first = pd.read_csv(c/'results.csv').groupby('recipe', sort=False).f1_minority.mean().idxmax()
    code, text, err = command('bn-fit', images, '--compare', c, '--out', tmp_path/'m')
    assert code == 0, err
    about = json.loads((tmp_path/'m'/'model.json').read_text())
    assert about['network']['arch'] == ARCH and about['settings']['epochs'] == 2 and about['judged_on']['seeds'] == 2
    assert {about['recipe']['name'], first} <= {'plain', 'plain_threshold'} or about['recipe']['name'] == first
    bare = about['recipe']['trained_as']
    assert (tmp_path/'m'/'runs'/f'{bare}-seed0.json').read_text() == (c/'runs'/f'{bare}-seed0.json').read_text() # taken, not repeated
    other = write_folder(tmp_path/'other', 20, 10)
    one_line(command('bn-fit', other, '--compare', c, '--out', tmp_path/'m2'), 'made from other images')


BAD_FIT = [(['--recipe', 'final_bm'], 'Did you mean final_bn'), (['--cost-miss', '3'], 'belong together'), (['--min-recall', '95'], '--min-recall 95'),
           (['--share', '0'], '--share 0'), (['--compare', 'nowhere'], 'no stored runs'), (['--arch', 'resnet19'], 'Did you mean resnet18'),
           (['--cost-miss', 'much'], 'invalid float value'), (['--minority', 'bda'], 'Did you mean bad')]


@pytest.mark.parametrize('args,message', BAD_FIT)
def test_bad_fit(args, message, images, command, tmp_path):
    one_line(command('bn-fit', images, *FLAGS, *args, '--out', tmp_path/'m'), message)
    assert not list(tmp_path.iterdir())


def test_a_class_that_appears_once(command, tmp_path):
    write_folder(tmp_path/'few', 30, 1)
    one_line(command('bn-fit', tmp_path/'few', '--out', tmp_path/'m', *FLAGS), 'at least 5 images of the minority, there are 1')


def test_export(saved, command, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    code, text, err = command('bn-export', saved, '--onnx', tmp_path/'m.onnx', '--torch', tmp_path/'m.pt2')
    assert code == 0, err
    model = load_model(saved)
    x = check_pixels(model, n=100)
    want, session = model_logits(model, x), onnxruntime.InferenceSession(tmp_path/'m.onnx')
    program = torch.export.load(tmp_path/'m.pt2').module()
    for n in 1, 7, 100: # any number of images
        pixels = x[:n].float()/255
        z, p = session.run(None, {'pixels': pixels.numpy()})
        np.testing.assert_allclose(z, want[:n], atol=1e-4)
        np.testing.assert_allclose(p, model.decision.calibrated(want[:n]), atol=1e-4)
        np.testing.assert_allclose(program(pixels)[0].detach(), want[:n], atol=1e-4)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == model.classes and '32 x 32' in meta['preprocessing']


def test_an_export_that_differs_is_not_kept(saved, command, monkeypatch, tmp_path):
    pytest.importorskip('onnxruntime')
    from bn_imbalance import export
    real = export._program
    def off(module, size):
        other = Deployed(load_model(saved))
        other.mean += .1
        return real(other, size)
    monkeypatch.setattr(export, '_program', off)
    one_line(command('bn-export', saved, '--torch', tmp_path/'m'), 'differs from the model')
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed(saved, images, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    monkeypatch.setitem(sys.modules, 'captum.attr', None)
    one_line(command('bn-export', saved, '--onnx', tmp_path/'m.onnx'), "pip install 'bn_imbalance[export]'")
    one_line(command('bn-predict', saved, images, '--csv', tmp_path/'o.csv', '--explain', tmp_path/'maps'), "pip install 'bn_imbalance[explain]'")
    one_line(command('bn-export', saved), 'give --onnx FILE or --torch FILE')
    assert not list(tmp_path.iterdir())


def test_explain(saved, images, command, tmp_path):
    pytest.importorskip('captum')
    code, _, err = command('bn-predict', saved, images/'bad', '--csv', tmp_path/'o.csv', '--explain', tmp_path/'maps')
    assert code == 0, err
    maps = sorted((tmp_path/'maps').iterdir())
    assert len(maps) == 12 and Image.open(maps[0]).size == (32, 32)


def test_learner_goes_on(saved, images):
    model = load_model(saved)
    learn = model.learner(read_data(images))
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert not torch.equal(learn.model[1][1][-2].weight.cpu(), before['1.1.6.weight'])
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items()) # it has its own copy


def test_reader_of_lines_may_leave(saved, images, tmp_path):
    code = 'import sys; sys.argv = ["bn-predict", *sys.argv[1:]]; from bn_imbalance import cli; cli.bn_predict.cli()'
    p = subprocess.Popen([sys.executable, '-c', code, saved, images, '--batch-size', '2'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = p.stdout.readline().decode()
    p.stdout.close()
    err = p.stderr.read().decode()
    assert p.wait(60) == 0 and first.strip() == ','.join(COLUMNS) and 'Traceback' not in err and 'BrokenPipe' not in err, err


def test_own_images(tmp_path):
    "The example, as a user runs it; bn-data check belongs to it once there is one"
    from bn_imbalance import cli
    bin_ = tmp_path/'bin'
    bin_.mkdir()
    for name in 'bn-data', 'bn-compare', 'bn-fit', 'bn-predict', 'bn-export':
        f = name.replace('-', '_')
        body = f'import sys; sys.argv[0] = {name!r}\nfrom bn_imbalance import cli\nif __name__ == "__main__": cli.{f}.cli()' if hasattr(cli, f) else ''
        (bin_/name).write_text(f'#!{sys.executable}\n{body}\n')
        (bin_/name).chmod(0o755)
    (bin_/'python').write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n') # a link would lose the virtual environment
    (bin_/'python').chmod(0o755)
    root = Path(__file__).parents[1]
    env = {**os.environ, 'PATH': f'{bin_}:{os.environ["PATH"]}', 'PYTHONPATH': str(root)}
    r = subprocess.run(['bash', root/'examples'/'own_images.sh', tmp_path/'work'], capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr[-2000:]
    t = pd.read_csv(tmp_path/'work'/'predictions.csv')
    eights = t.path.str.contains('new') & (t.path.str.extract(r'(\d+)\.png')[0].astype(int) > 9)
    assert (t.label[eights] == 'eight').mean() > .5 and (tmp_path/'work'/'model.onnx').exists()
