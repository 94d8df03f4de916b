"""A model folder: refused in one line when damaged or changed."""
import pytest
from bn_imbalance.deploy.model import MODEL_FORMAT
from deployed import copy, images, one_line, rewritten, saved # noqa: F401, fixtures


TAMPERED = {
    'network.size is missing': lambda a: a['network'].update(size='224'),
    'format 6, written by bn_imbalance 9.1, torch':
        lambda a: (a.update(format=6), a['versions'].update(bn_imbalance='9.1')),
    '3 classes, but pools is for 2': lambda a: a['classes'].append('third'),
    'network.layers is missing or not': lambda a: a['network']['layers'].append(['Softplus', {}]),
    'network.layers make no network': lambda a: a['network']['layers'][-1][1].update(momentums=1),
    # must not take the memory for it
    'does not fit': lambda a: a['network']['layers'][2][1].update(out_features=10**9),
    'model.safetensors: does not fit': lambda a: a['network'].update(arch='mobilenetv3_small_075'),
    'Did you mean': lambda a: a['network'].update(arch='mobilenetv4_small_050'),
    'decision.bounds is missing': lambda a: a['decision'].update(bounds=['a', 'b']),
    'not the file that was saved': lambda a: a.update(tensors='0'*32),
    'settings: --epochs = -1: expected a whole number': lambda a: a['settings'].update(epochs=-1),
    'goal: --level 2.0: expected': lambda a: a['goal'].update(level=2),
    'settings is missing': lambda a: a['settings'].update(weights='/etc/passwd'),
    'settings is missing or not': lambda a: a['settings'].update(path='/etc/passwd'), # of a settings file
    'metrics is missing': lambda a: a['metrics'].clear(),
    'rare is not some of the 2 classes': lambda a: a.update(rare=[2]),
    'by_class has not the same': lambda a: a.update(
        by_class={'bad': dict.fromkeys(('recall', 'precision', 'f1'), [0, 0, 0])}),
    'versions.bn_imbalance is missing': lambda a: a['versions'].pop('bn_imbalance'),
    'recipe.doc is missing': lambda a: a['recipe'].update(doc='two\nlines')}


@pytest.mark.parametrize('message', TAMPERED)
def test_tampered(message, copy, images, command, tmp_path):
    rewritten(copy, TAMPERED[message])
    out = tmp_path/'out.csv'
    one_line(command('bn-predict', copy, images, '--csv', out), 'model', message)
    assert not out.exists()


def test_a_model_of_an_older_format(copy, images, command):
    "Format 3 had other names for fields, layers and files: one line says who wrote it, nothing is changed"
    def older(a):
        a['decision'] |= {'low': a['decision'].pop('bounds'), 'shares': a['decision'].pop('prevalences')}
        a['network']['layers'][-1][0] = 'PlaceGaussian'
        a |= {'judged_on': a.pop('evaluated_on'), 'decided_on': a.pop('validation_subjects'), 'format': 3}
        a['versions'] = {'bn_imbalance': '0.1.0', 'torch': '2.9.0'}
    rewritten(copy, older)
    before = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()}
    one_line(command('bn-predict', copy, images), f'{copy}/model.json: format 3, written by '
             f'bn_imbalance 0.1.0, torch 2.9.0; this version reads format {MODEL_FORMAT}. Use the version')
    assert MODEL_FORMAT == 5 and {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()} == before


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
