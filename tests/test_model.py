"""A model folder: saved and loaded to the bit, refused in one line when damaged or changed; its card."""
import copy as copying, json
import numpy as np, pytest, torch
from bn_imbalance.core import BadInput
from bn_imbalance.metrics import METRICS, mean_interval
from bn_imbalance.deploy.model import MODEL_FORMAT, check_about, describe_head, load_model, model_card, with_checksum
from bn_imbalance.deploy.predict import model_logits
from bn_imbalance.training.stack import HeadStack
from deployed import COSTS, SMALL, copy, execution, images, one_line, rewritten, saved # noqa: F401, fixtures
from bn_imbalance.core import load_settings
from bn_imbalance.data.items import read_data
from bn_imbalance.deploy.fitting import fit, plain_head


def test_saved_is_loaded_to_the_bit(saved, images):
    again = load_model(saved)
    model = fit(read_data(images), 'final_bn', load_settings(**SMALL), COSTS, execution())
    assert again.about == model.about # the same seed, the same numbers, tensors included (by their checksum)
    assert all(torch.equal(v, again.net.state_dict()[k]) for k, v in model.net.state_dict().items())
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    np.testing.assert_array_equal(model_logits(again, x), model_logits(model, x))
    assert sorted(p.name for p in saved.iterdir()) == [
        'card.md', 'held_out.safetensors', 'model.json', 'model.safetensors', 'runs', 'samples.csv', 'splits']
    assert not saved.with_name('model.part').exists()


TAMPERED = {
    'network.size is missing': lambda a: a['network'].update(size='224'),
    'format 5, written by bn_imbalance 9.1, torch':
        lambda a: (a.update(format=5), a['versions'].update(bn_imbalance='9.1')),
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
    assert MODEL_FORMAT == 4 and {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()} == before


def test_every_field_is_checked(saved):
    "Whichever is removed, the message names it; more fields do no harm"
    about = json.loads((saved/'model.json').read_text())
    check_about(about)
    more = dict(about, remark='mine', data=dict(about['data'], remark=[1]))
    check_about(with_checksum(more))
    parts = 'network', 'recipe', 'decision', 'goal', 'trained_on', 'runs_trained_on', 'evaluated_on'
    inside = [(k, j) for k in parts for j in about[k]]
    inside += [('data', k) for k in ('name', 'protocol', 'fingerprint')]
    for key, *rest in [(k,) for k in about if k != 'held_out'] + inside: # models of more classes have none
        lacking = copying.deepcopy(about)
        del (lacking[key] if rest else lacking)[rest[0] if rest else key]
        with pytest.raises(BadInput) as e: check_about(lacking)
        assert '.'.join([key, *rest]) in str(e.value) or key == 'format', e.value


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
        if p.is_file() and p.suffix != '.safetensors': p.read_text() # text, all of it


def test_shared_dropout_is_described_as_dropout():
    head = torch.nn.Sequential(torch.nn.Dropout(.3), torch.nn.Linear(4, 2))
    stack = HeadStack([copying.deepcopy(head), copying.deepcopy(head)])
    with pytest.raises(BadInput, match='SharedDropout'): describe_head(stack[0])
    assert describe_head(plain_head(stack[0])) == describe_head(head)


def test_the_card_explains_its_intervals(saved):
    "Those of rates count subjects; those over seeds are Student's, and hold for no other images"
    model = load_model(saved)
    text = ' '.join(model_card(model).split())
    for part in ('The intervals of the rates count subjects', 'what other splits of these images would give',
                 'not what other images would', 'trained on fewer images than this one'):
        assert part in text, part
    assert 'intervals say what other images of the same kind would give' not in text
    over_seeds = {k for k, m in METRICS.items() if m.ranks and m.meaning}
    assert over_seeds < set(model.about['metrics']) <= {k for k, m in METRICS.items() if m.meaning}
    assert 'Those of AUROC and Brier are Student' in text
    runs = [json.loads(p.read_text()) for p in sorted((saved/'runs').iterdir())]
    from sklearn.metrics import roc_auc_score
    auroc = [roc_auc_score(r['test']['y'], np.diff(r['test']['logits'])[:, 0]) for r in runs]
    np.testing.assert_allclose(model.about['metrics']['auroc'], np.clip(mean_interval(auroc), 0, 1), atol=1e-6)
