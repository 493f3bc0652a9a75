"The command line: messages, exit status, speed of starting."
import re, subprocess, sys
import pytest
from mlcl import __version__, study
from mlcl.cli import main


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


def test_help_and_version_load_nothing_heavy(capsys):
    code = ("import sys\nfrom mlcl.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
            "assert not {'torch', 'pandas', 'fastai', 'sklearn'} & set(sys.modules)")
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert res.returncode == 0 and 'data|study' in res.stdout, res.stderr
    with pytest.raises(SystemExit): main(['--version'])
    assert capsys.readouterr().out.strip() == f'mlcl {__version__}'


@pytest.mark.parametrize('words, said', [
    ('study plan quik', 'mlcl: study: expected one of ablations, check, cut, finetuned'),
    ('study run smoke --only loss=regg', 'mlcl: only: loss: expected one of'),
    ('study plan smoke --only los=reg', 'mlcl: only: key: expected one of'), ('data info digitz', 'mlcl: '),
    ('study status nope', 'mlcl: study')])
def test_mistakes_are_one_line(words, said, capsys):
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1
    with pytest.raises(ValueError): main(['--debug', *words.split()])


@pytest.mark.parametrize('words', ['', 'study', 'data', 'study walk', 'study plan', 'study run', 'study tune', 'study reproduce', 'data get'])
def test_incomplete_commands(words):
    with pytest.raises(SystemExit) as e: main(words.split())
    assert e.value.code == 2


def test_broken_store_is_named(results, capsys):
    (results/'smoke.sqlite').write_text('nonsense\n'*99)
    assert main(['study', 'plan', 'smoke']) == 2
    assert 'smoke.sqlite: damaged' in capsys.readouterr().err


def test_data(capsys):
    assert main(['data', 'list']) == 0
    assert {'digits', 'yeast', 'reuters90'} <= set(re.findall(r'\w+', capsys.readouterr().out))
    assert main(['data', 'info', 'digits']) == 0
    assert 'digit' in capsys.readouterr().out


def test_a_study_from_plan_to_report(capsys):
    assert main(['study', 'report']) == 0 and 'no results yet' in capsys.readouterr().out
    assert main('study plan smoke --jobs 2'.split()) == 0
    out = capsys.readouterr().out
    assert out.count('missing') == 5 and '4 runs: 0 held, 0 failed, 4 missing; about 40 s with 2 processes' in out
    assert main('study run smoke --only seed=0 --jobs 1'.split()) == 0
    out = capsys.readouterr().out
    assert re.search(r'\[1/2\] digits bce seed 0  val Macro-F1 0\.\d{3}  \d+ s  \(about \d+ s left\)', out)
    assert '0 held, 2 done, 0 failed' in out
    assert main(['study', 'report', 'smoke']) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 100 for line in out.splitlines()) and 'Macro-F1' in out and '±' in out and '2 held, 2 missing' in out
    assert main(['study', 'status', 'smoke']) == 0
    assert re.search(r'smoke +4 +2 +0 +2', capsys.readouterr().out)


def test_failed_runs_give_status_1(monkeypatch, capsys):
    encoder, s = study.SMOKE['digits'].encoder, study.SMOKE['digits'].settings
    run = study.Experiment('digits', encoder, 'reg', dict(s, lr=1e30))
    monkeypatch.setitem(study.STUDIES, 'nan', study.Study('nan', 'diverges', lambda: [run]))
    assert main('study run nan --jobs 1'.split()) == 1
    out = capsys.readouterr().out
    assert 'FAILED: TrainingFailed' in out and '--retry does failed runs again' in out
    assert main('study report nan'.split()) == 0
    assert 'failed: digits reg seed 0: TrainingFailed' in capsys.readouterr().out


def test_a_failed_download_is_a_message(monkeypatch, capsys):
    "No traceback where a data set cannot be fetched."
    from mlcl import cli
    def fail(*_): raise ConnectionError("x: the download failed")
    monkeypatch.setattr('mlcl.study.reproduce', fail)
    assert cli.main(['study', 'reproduce', 'a']) == 2
    assert capsys.readouterr().err == 'mlcl: x: the download failed\n'
