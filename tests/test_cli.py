"The command line: messages, exit status, speed of starting."
import re, subprocess, sys
import pytest
from mlcl import __version__, study
from mlcl.cli import COMMANDS, _params, main


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


def test_help_and_version_load_nothing_heavy(capsys):
    code = ("import sys\nfrom mlcl.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
            "assert not {'torch', 'pandas', 'fastai', 'sklearn'} & set(sys.modules)")
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (res.returncode == 0 and all(w in res.stdout for w in ('data', 'study', 'compare', 'train',
                                                                  'predict'))), res.stderr
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


@pytest.mark.parametrize('words', ['', 'study', 'data', 'study walk', 'study plan', 'study run', 'study tune',
                                   'study reproduce', 'data get'])
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
    assert (all(len(line) <= 100 for line in out.splitlines()) and 'Macro-F1' in out and '±' in out
            and '2 held, 2 missing' in out)
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


@pytest.mark.parametrize('words, said', [
    ('study run smoke --jobs -1', 'mlcl: jobs: expected a whole number of at least 1, got -1'),
    ('study plan smoke --jobs 0', 'mlcl: jobs: expected'),
    ('study tune tuned --only seed=1', 'mlcl: only: expected dataset or loss, got seed'),
    ('study run smoke --ray nowhere', "mlcl: ray: expected 'local'"),
    ('study run smoke --ray 127.0.0.1:1', 'mlcl: ray: nobody answers at 127.0.0.1:1')])
def test_options_of_studies_that_mean_nothing(words, said, capsys):
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1


@pytest.mark.parametrize('e, said', [(MemoryError(), 'mlcl: not enough memory'),
    (OSError(28, 'No space left on device', 'x'), 'mlcl: [Errno 28] No space left'),
    (PermissionError(13, 'no', 'x'), 'mlcl: [Errno 13]'),
    (ImportError('needs x'), 'mlcl: needs x'), (ValueError('two\nlines'), 'mlcl: two lines')])
def test_what_the_machine_refuses_is_one_line(e, said, monkeypatch, capsys):
    def fail(*_, **__): raise e
    monkeypatch.setattr('mlcl.study.status', fail)
    assert main(['study', 'status']) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1


@pytest.mark.parametrize('words', ['data list', 'study status', 'study plan smoke', 'study tune tuned',
                                   'study report smoke'])
def test_ctrl_c_is_one_line_everywhere(words, monkeypatch, capsys):
    def stop(*_, **__): raise KeyboardInterrupt
    for f in ('mlcl.data.main_list', 'mlcl.study.status', 'mlcl.study.plan', 'mlcl.study.tune', 'mlcl.study.report'):
        monkeypatch.setattr(f, stop)
    assert main(words.split()) == 130
    assert capsys.readouterr().err.strip().count('\n') == 0


def test_results_in_a_file_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path/'file'))
    assert main('study run smoke --only seed=0 --jobs 1'.split()) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_a_new_command_is_a_function(capsys):
    from mlcl.cli import COMMANDS, command
    @command('study twice')
    def twice(name: str, /, # a word
              times: int = 2 # how often
        ):
        "say a word twice"
        print(name*times)
    try:
        assert main(['study', 'twice', 'ab', '--times', '3']) == 0 and capsys.readouterr().out == 'ababab\n'
        with pytest.raises(SystemExit): main(['study', '--help'])
        assert 'say a word twice' in capsys.readouterr().out
    finally: del COMMANDS['study twice']


@pytest.mark.parametrize('words', list(COMMANDS))
def test_help_explains_every_argument_and_option(words, capsys):
    with pytest.raises(SystemExit): main([*words.split(), '--help'])
    said = ' '.join(capsys.readouterr().out.split())
    for p, first, about in _params(words):
        assert about
        if first: assert f'{p.name.upper()}: {about[:30]}' in said
        else: assert f'--{"no-"*(p.default is True)}{p.name.replace("_", "-")} ' in said
    assert 'In Python' not in said


def test_train_and_the_classifier_have_the_same_default():
    from mlcl.own.estimator import DEFAULT_LOSS
    assert {p.name: p.default for p, *_ in _params('train')}['loss'] == DEFAULT_LOSS
