"""The answer on one screen: the same sentences everywhere, numbers within what is possible, fourteen lines."""
import json, re
from html import unescape
import pytest
from conftest import QUICK
from bn_imbalance.metrics import range_text


@pytest.mark.parametrize('numbers,text', [
    ((-.042, -118.2, 118.2), '0 (0 to 118)'), ((17.36, 14.9, 19.8), '17 (15 to 20)'),
    ((165, -1.3, 332), '160 (0 to 330)'),
    ((.954, .93, .978), '0.95 (0.93 to 0.98)'), ((.954, .945, .963), '0.954 (0.945 to 0.963)'),
    ((.6, .2, 1.), '0.6 (0.2 to 1.0)'), ((9, 9, 9), '9')])
def test_as_many_digits_as_the_interval_supports(numbers, text):
    assert range_text(*numbers) == text


def test_json_alone_on_standard_output(command, folder, tmp_path):
    out = tmp_path/'out'
    args = 'bn-compare', folder, '--recipes', 'plain,final_bn', '--out', out, *QUICK
    code, text, err = command(*args, '--json')
    assert code == 0, err
    told = json.loads(text)
    assert told['numbers']['recipe'] in ('plain', 'final_bn')
    assert 'Assumed: bad is the rare class,' in ' '.join(err.split())
    kept = json.loads((out/'answer.json').read_text())
    assert {k: kept[k] for k in told} == told
    code, text, _ = command('bn-report', out)
    page = ' '.join(unescape(re.sub('<[^>]+>', ' ', (out/'report.html').read_text())).split())
    for sentence in [told['take'], told['expect'], told['sure'], *told['beware'], told['next']]:
        assert sentence in ' '.join(text.split()) and sentence in page, sentence


def test_findings_of_the_audit_come_along(command, folder, tmp_path):
    "Without a second command, and again when the report is made again"
    (folder/'good'/'copy.jpg').write_bytes((folder/'good'/'000.jpg').read_bytes())
    out = tmp_path/'out'
    for args in ('bn-compare', folder, '--recipes', 'plain', '--out', out, *QUICK), ('bn-report', out):
        code, text, err = command(*args)
        assert code == 0 and '1 pair of identical files. See bn-data check' in ' '.join(text.split()), text + err


def test_stopped_it_answers_from_what_is_there(command, folder, tmp_path, monkeypatch):
    from bn_imbalance.training import sweep
    out, real = tmp_path/'out', sweep.compare
    calls = []
    def stopped(*args, **kwargs):
        runs = real(*args, **kwargs)
        calls.append([r.recipe for r in runs])
        if len(calls) == 1: raise KeyboardInterrupt
        return runs
    monkeypatch.setattr('bn_imbalance.training.compare', stopped)
    code, text, err = command('bn-compare', folder, '--recipes', 'plain,blend', '--out', out, *QUICK)
    assert code == 1 and 'From the 2 of 2 splits' in text and 'Take' in text and 'rerun the command to resume' in err
    assert calls[0] == calls[1] and 'blend' in calls[1] and 'blend' in text # whose members are done is there, too
    assert (out/'report.html').exists()


def test_a_log_gets_a_line_now_and_then(command, folder, tmp_path, monkeypatch):
    "Where there is no terminal: how far, how long still, who is first so far"
    from bn_imbalance.training import sweep
    monkeypatch.setattr(sweep, 'LOG_EVERY', 0)
    code, text, err = command('bn-compare', folder, '--recipes', 'plain,final_bn', '--out', tmp_path/'out', *QUICK)
    assert code == 0 and re.search(r'\d of 4 runs, \d+ minutes left; \d+ a minute, best so far: ', err), err
    assert 'minutes left' not in text
