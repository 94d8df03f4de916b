"A missed image is added to a model: what changes, what is refused"
import json, shutil
import pandas as pd, pytest
from conftest import blobs
from bn_imbalance import Goal, load_model, load_settings, read_data
from bn_imbalance.core import BadInput
from bn_imbalance.deploy.adding import add_examples
from bn_imbalance.deploy.fitting import fit
from bn_imbalance.find.queue import Queue
from bn_imbalance.training.sweep import Execution


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('add')
    blobs(root/'images'/'good', 30, 0)
    blobs(root/'images'/'spot, bright', 8, 120, 1)
    blobs(root/'new', 3, 60, 2)
    fit(read_data(root/'images', minority='spot, bright'), 'ridge', load_settings(size=64, seeds=2),
        Goal(prevalence=.02, cost_miss=20, cost_alarm=1), Execution(root/'m', backend='serial', progress=False))
    return root


def test_an_example_is_learnt_and_kept_in_the_card(made, command, tmp_path):
    before = (made/'m'/'model.json').read_bytes()
    code, out, err = command('bn-fit', made/'m', '--add', f'{made/"new"/"0.png"}:spot, bright', '--out', tmp_path/'m2')
    assert code == 1 and 'expected an image and its class' in err, 'a comma separates examples'
    added = add_examples(made/'m', [(made/'new', 'minority')], execution=Execution(tmp_path/'m2', backend='serial',
                                                                                  progress=False))
    assert len(added.rows) == 3 and added.rows.after.mean() > added.rows.before.mean()
    assert added.rows[['likes_before', 'likes_after']].stack().between(0, 6).all()
    model = load_model(tmp_path/'m2')
    assert model.about['trained_on']['minority'] == 11 and len(model.about['history']) == 3
    assert 'What was added' in (tmp_path/'m2'/'card.md').read_text() and (made/'m'/'model.json').read_bytes() == before
    text = ' '.join(added.lines)
    assert 'now' in text and 'Recall' in text and 'Cost' in text
    with pytest.raises(BadInput, match='knows it already'):
        add_examples(tmp_path/'m2', [(made/'new'/'1.png', 'minority')])


@pytest.mark.parametrize('what, message', [
    ('{new}/0.png:god', 'the classes are good, spot, bright'), ('{new}/0.png', 'expected an image and its class'),
    ('{new}/none.png:good', 'no such file'), ('{images}/good/3.png:good', 'knows it already'),
    ('{images}/good/3.png:minority', 'knows it as good'), ('{root}/text.png:good', 'not an image')])
def test_bad_examples(made, what, message, command, tmp_path):
    (made/'text.png').write_text('no image')
    what = what.format(new=made/'new', images=made/'images', root=made)
    code, _, err = command('bn-fit', made/'m', '--add', what, '--out', tmp_path/'m2')
    assert code == 1 and message in err and err.strip().count('\n') == 0, err
    assert not (tmp_path/'m2').exists()


def test_images_that_have_changed(made, tmp_path, command):
    shutil.copytree(made, tmp_path/'all')
    about = json.loads((made/'m'/'model.json').read_text())
    gone = made/'images'/'good'/'7.png'
    data = gone.read_bytes()
    gone.unlink()
    try: code, _, err = command('bn-fit', made/'m', '--add', f'{made/"new"/"2.png"}:good', '--out', tmp_path/'m2')
    finally: gone.write_bytes(data)
    assert code == 1 and 'not the images any more' in err and about['data']['source'] in err
    code, _, err = command('bn-fit', made/'images', '--add', f'{made/"new"/"2.png"}:good', '--out', tmp_path/'m2')
    assert code == 1 and 'needs a folder that bn-fit wrote' in err


def test_the_page_teaches_the_model(made, command, tmp_path, monkeypatch):
    "bn-find --review --serve: its button makes a model that has learnt the answers, beside the one that has not"
    told, before = [], (made/'m'/'model.json').read_bytes()
    assert command('bn-predict', made/'m', made/'new', '--csv', tmp_path/'out.csv')[0] == 0
    pd.read_csv(tmp_path/'out.csv').assign(review='yes').to_csv(tmp_path/'out.csv', index=False)
    def serve(out, port, who, teach, button):
        q = Queue(out)
        with pytest.raises(BadInput, match='nothing is labelled yet'): teach(q)
        for p in q.rows.path: q.answer(p, q.info['minority'])
        told.extend([button, teach(q), teach(q)])
    monkeypatch.setattr('bn_imbalance.find.serve', serve)
    code, _, err = command('bn-find', made/'m', '--review', tmp_path/'out.csv', '--out', tmp_path/'look', '--serve')
    assert code == 0, err
    button, *texts = told
    assert button == 'Teach the model' and 'Of 3 that are rare' in texts[0] and 'Recall on held-out images' in texts[0]
    assert [load_model(tmp_path/'look'/f'model-{k}').about['trained_on']['minority'] for k in (1, 2)] == [11, 11]
    assert (made/'m'/'model.json').read_bytes() == before
