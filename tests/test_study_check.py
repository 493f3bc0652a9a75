"Records of others: what is in order passes, and each fault is found and named."
import json, os, re, shutil, subprocess
from dataclasses import asdict, replace
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
import pytest, yaml
from mlcl import study
from mlcl.cli import main
from mlcl.losses import LOSSES
from mlcl.study import verify as checking, Experiment, Record, Store, attempt, content_hash, objections, to_table

RESULTS = Path(__file__).resolve().parent.parent/'results'
ABOUT = dict(name='mine', authors=['A'], licence='MIT', reference='https://example.org/mine', commit='0123abc',
             trained_on_test=False)


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    "A folder of results that does not grow: two seeds on one data set."
    folder = tmp_path_factory.mktemp('results')
    pq.write_table(to_table(Store(RESULTS/'matched').records(dataset='emotions', seed=[0, 1])),
                   folder/'matched.parquet')
    return folder


@pytest.fixture(autouse=True)
def published(monkeypatch, few): monkeypatch.setenv('MLCL_RESULTS', str(few))


@pytest.fixture(scope='module')
def good(few): return Store(few/'matched').records(loss=['bce', 'reg'])


@pytest.fixture(scope='module')
def made():
    "Runs on a data set that is always at hand; no published record knows it."
    s = dict(study.SMOKE['digits'].settings, probe=dict(kind='linear'))
    return [r for seed in (0, 1) for loss in ('bce', 'proto')
            for r in attempt(Experiment('digits', 'resnet', loss, s, .5, seed), 'x')]


@pytest.fixture
def check(tmp_path, capsys):
    "Write records, run the command, give its status and its lines."
    def run(records, about=None, name='records.parquet'):
        if about is not None: (tmp_path/'about.json').write_text(json.dumps(about))
        if name.endswith('.jsonl'): (tmp_path/name).write_text('\n'.join(json.dumps(r) for r in records))
        else: pq.write_table(to_table(records), tmp_path/name)
        return main(['study', 'check', str(tmp_path/name)]), capsys.readouterr().out.splitlines()
    return run


def tampered(records, which=lambda r: r['split'] == 'test', **new):
    "Records of which the first that fits is changed; a name with two underscores is that of a nested value."
    i = next(i for i, r in enumerate(records) if which(r))
    r = dict(records[i])
    for k, v in new.items():
        k, _, key = k.partition('__')
        r[k] = {**r[k], key: v} if key else v
    return [*records[:i], r, *records[i + 1:]]


def renamed(records, **new):
    "Runs of another loss or with other settings, with the right names."
    res = []
    for r in records:
        r = r | {k: r[k] | v if isinstance(v, dict) else v for k, v in new.items()}
        run = content_hash({k: r[k] for k in ('dataset', 'encoder', 'loss', 'settings', 'fraction', 'seed')})
        res.append(r | dict(run=run, id=r['id'].replace(r['run'], run)))
    return res


def test_published_records_pass(good, check, monkeypatch):
    with monkeypatch.context() as m:
        m.setenv('MLCL_RESULTS', str(RESULTS))
        faults, said = objections(RESULTS/'matched.parquet')
    assert faults == [] and len(said) == 1 and re.fullmatch(r'\d{3} runs of 10 losses: nothing to object', said[0])
    for name in ('records.parquet', 'records.jsonl'):
        assert check(good, name=name) == (0, ['4 runs of 2 losses: nothing to object'])


def test_new_records_pass_and_data_at_hand_decide(made, check, monkeypatch):
    assert all(Record.model_validate(r) for r in made)
    assert check(made) == (0, ['4 runs of 2 losses: nothing to object'])
    status, said = check([r | dict(splits_sha256='0'*16, data_sha256='0'*64) if r['seed'] else r for r in made])
    right = next(r for r in made if r['seed'])
    assert status == 1 and [re.sub('^.{16} ', '', s) for s in said] == [
        f'data_sha256: expected {right["data_sha256"]}, got {"0"*64} (and 1 more)',
        f'splits_sha256: expected {right["splits_sha256"]}, got {"0"*16} (and 1 more)']
    checking._at_hand.cache_clear()
    monkeypatch.setattr('mlcl.data.present', lambda name: False)
    assert check(made) == (0, ['4 runs of 2 losses: nothing to object', 'not compared: data_sha256 of digits',
                               'not compared: splits_sha256 of digits'])
    checking._at_hand.cache_clear()


def is_linear(r): return r['split'] == 'test' and bool(r.get('per_label_ap'))


@pytest.mark.parametrize('new, said', [
    (dict(metrics__macro_f1=.75), r'test metrics.macro_f1: expected 0.6\d\d, the mean over labels, got 0.75'),
    (dict(metrics__map=1.2), r'metrics.map: expected less than or equal to 1, got 1.2'),
    (dict(metrics__hamming=float('nan')), r'metrics.hamming: expected a finite number, got nan'),
    (dict(metrics__micro_f1=.99), r'metrics.micro_f1: expected a value in its interval'),
    (dict(metrics__macro_f1_lo=None), r'metrics.macro_f1_lo: expected a value in a test record, got nothing'),
    (dict(metrics__better=1.), r'metrics.better: expected no such field, got 1'),
    (dict(better=True), r' better: expected no such field'),
    (dict(per_label_f1=None), r' per_label_f1: expected a value in a test record, got nothing'),
    (dict(replicates=None), r' replicates: expected a value in a test record'),
    (dict(replicates__map='0.5 0.01 AAAA'), r' replicates.map: expected 100 values, got 3 values'),
    (dict(replicates__map='much'), r" replicates.map: expected 100 values, got 'much'"),
    (dict(seed='1'), r" seed: expected a valid integer, got '1'"),
    (dict(seconds=-1.), r' seconds: expected greater than or equal to 0'),
    (dict(split='train'), r"split: expected 'val' or 'test', got 'train'"),
    (dict(time='yesterday'), r' time: expected to match pattern'),
    (dict(versions__torch=None), r'versions.torch: expected a valid string, got None'),
    (dict(code={}), r' code.sha256: expected a value, got nothing'),
    (dict(data_sha256='0'*64), r'data_sha256: expected one value in all records of the run'),
    (dict(settings__lr=.5), r' settings: expected one value in all records of the run'),
    (dict(settings__lr=float('inf')), r' settings: expected a finite number, got inf'),
    (dict(id='x'), r' id: expected \w{16}/.*/test, got x'), (dict(of=3), r' of: expected one value')])
def test_a_changed_record_is_found(good, check, new, said):
    status, lines = check(tampered(good, **new), name='records.jsonl')
    text = '\n'.join(lines)
    assert status == 1 and re.search(said, text), text


def test_average_precision_agrees_with_map(good, check):
    status, lines = check(tampered(good, is_linear, per_label_ap=[.1]*6))
    assert (status == 1 and len(lines) == 1 and re.search(r'/test metrics.map: expected 0.100, the mean over labels',
                                                          lines[0]))


def test_a_run_is_whole_and_unchanged(good, check):
    first = good[0]['run']
    def of_first(**new):
        return [r | {k: r[k] | v if isinstance(v, dict) else v for k, v in new.items()} if r['run'] == first else r
                for r in good]
    status, lines = check(of_first(settings=dict(epochs=51)))
    assert (status == 1 and re.match(f'{first} run: expected [0-9a-f]{{16}}, the hash of its description, got {first}',
                                     lines[0]))
    assert lines[1] == f'{first} settings: expected those of matched/emotions, got epochs 51'
    assert check(good[1:])[1] == [f'{first} of: expected {good[0]["of"]} records, got {good[0]["of"] - 1}']
    assert check([*good, good[0]])[1] == [f'{first} of: expected {good[0]["of"]} records, got {good[0]["of"] + 1}',
                                          f'{good[0]["id"]} id: expected each record once, got 2 of them']
    assert re.search(f"^{first} dataset: expected one of .* yeast, got 'emotion'",
                     check(of_first(dataset='emotion'))[1][0])
    assert re.search(f"^{first} encoder: expected one of .* got 'mpl'", check(of_first(encoder='mpl'))[1][0])
    assert f"{first} settings key: expected one of" in check(of_first(settings=dict(speed=3)))[1][0]
    short = [r | dict(settings={k: v for k, v in r['settings'].items() if k != 'clip'}) if r['run'] == first else r
             for r in good]
    assert f"{first} settings.clip: expected 1, got 'nothing'" in check(short)[1]


def test_checksums_are_those_of_published_records(good, check, monkeypatch):
    monkeypatch.setattr('mlcl.data.present', lambda name: False)
    status, lines = check([r | dict(splits_sha256='0'*16, data_sha256='1'*64) for r in good])
    assert status == 1 and [re.sub('^.{16} ', '', s) for s in lines] == [
        f'data_sha256: expected {good[0]["data_sha256"]}, got {"1"*64} (and 3 more)',
        f'splits_sha256: expected {good[0]["splits_sha256"]}, got {"0"*16} (and 3 more)']


def test_equal_conditions(good, made, check):
    other = renamed(good, settings=dict(lr=.5))
    assert {re.sub('^.{16} ', '', s)
            for s in check(other)[1]} == {'settings: expected those of matched/emotions, got lr 0.5 (and 3 more)'}
    assert check([r for r in good if r['seed']])[1] == ['bce seed: expected those of matched/emotions, [0, 1], got [1] '
                                                        '(and 1 more)']
    mixed = [r for r in made if r['loss'] == 'bce'] + renamed([r for r in made if r['loss'] == 'proto'],
                                                              settings=dict(lr=.25))
    assert 'settings: expected those of x/digits, got' in check(mixed)[1][0] # of a study that is not published
    fewer = [r for r in made if (r['loss'], r['seed']) != ('proto', 1)]
    assert check(fewer)[1] == ['proto seed: expected those of x/digits, [0, 1], got [0]']


def test_a_loss_of_somebody_else(good, check, tmp_path):
    mine = renamed([r for r in good if r['loss'] == 'bce'], loss='mine')
    assert check(mine) == (1, ['mine about.json: expected where the reference implementation is, got no such file'])
    assert check(mine, ABOUT) == (0, ['2 runs of 1 loss: nothing to object'])
    for new, said in ((dict(name='yours'), "name: expected 'mine', got 'yours'"),
                      (dict(trained_on_test=True), 'trained_on_test: expected False, got True'),
                      (dict(reference='a paper'), 'reference: expected to match pattern'),
                      (dict(authors=[]), 'authors: expected to have at least 1 item'),
                      (dict(status='reproduced'), 'rerun: expected a run of the file, got None'),
                      (dict(status='best'), "status: expected 'reported' or 'reproduced'"),
                      (dict(rank=1), 'rank: expected no such field')):
        status, lines = check(mine, ABOUT | new)
        assert status == 1 and len(lines) == 1 and lines[0].startswith(f'about.json {said}'), lines
    assert check(mine, ABOUT | dict(status='reproduced', rerun=mine[0]['run']))[0] == 0
    own = renamed(mine, settings=dict(lr=.5))
    assert check(own, ABOUT)[0] == 1 and check(own, ABOUT | dict(tuned=8))[0] == 0
    assert 'settings key: expected one of' in check(renamed(mine, settings=dict(speed=3)), ABOUT)[1][0]
    assert check(mine, [1])[1] == ['about.json : expected a valid dictionary or instance of About, got [1]']


@pytest.mark.parametrize('name, data, said', [('none.parquet', None, 'no such file'),
    ('a.parquet', b'PAR1 not', 'expected records'), ('a.jsonl', b'{"id": 1}\n{', 'expected records'),
    ('a.jsonl', b'', 'expected records, got none'), ('a.jsonl', b'[1]', 'expected records, got none'),
    ('a.csv', b'id,run\n1,2\n', 'expected records')])
def test_what_holds_no_records_is_one_line(tmp_path, capsys, name, data, said):
    if data is not None: (tmp_path/name).write_bytes(data)
    assert main(['study', 'check', str(tmp_path/name)]) == 2
    err = capsys.readouterr().err
    assert err.startswith('mlcl: ') and said in err and name in err and err.count('\n') == 1


@pytest.mark.parametrize('table', [dict(id=['a']), dict(id=['a'], fields=[3]), dict(id=['a'], fields=[None]),
                                   dict(id=['a'], settings=['{'], fields=['id settings{}']), dict(id=[], fields=[])])
def test_tables_of_another_form_are_one_line(tmp_path, capsys, table):
    pq.write_table(pa.table(table), tmp_path/'a.parquet')
    assert main(['study', 'check', str(tmp_path/'a.parquet')]) == 2
    err = capsys.readouterr().err
    assert 'a.parquet: expected records' in err and err.count('\n') == 1


def test_a_broken_about_is_one_line(good, tmp_path, capsys, check):
    (tmp_path/'about.json').write_text('{')
    pq.write_table(to_table(good), tmp_path/'records.parquet')
    assert main(['study', 'check', str(tmp_path/'records.parquet')]) == 2
    assert 'about.json: expected JSON' in capsys.readouterr().err


def test_the_recipe_of_page_94_gives_comparable_runs(monkeypatch):
    "A study's experiments with another loss: equal settings and seeds."
    monkeypatch.setitem(LOSSES, 'mine', LOSSES['base'])
    monkeypatch.setenv('MLCL_RESULTS', str(RESULTS))
    mine = [replace(e, loss='mine', settings=e.settings | dict(loss={}))
            for e in study.experiments('labels', only='loss=base,dataset=yeast')]
    runs = [dict(asdict(e), study='labels', run=e.id) for e in mine]
    held = checking.Published({'yeast'}).runs[checking._group(runs[0])]
    assert len(held) == 75 and [*checking._fair(runs, held, False)] == []
    assert [f.field for f in checking._fair([r | dict(settings=r['settings'] | dict(epochs=1)) for r in runs[1:]], held,
                                            False)] == ['settings']*4 + ['seed']


def test_runs_of_others_are_done_again(made, tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    folder = tmp_path/'community'/'mine'
    folder.mkdir(parents=True)
    pq.write_table(to_table(made), folder/'records.parquet')
    run = [r for r in made if r['run'] == made[0]['run']]
    t = study.reproduce(run[0]['run'], lambda e: run)
    assert set(t.answer) == {'equal'} and len(t) == 3*sum(r['split'] == 'test' for r in run)


def test_the_workflow_checks_what_a_change_touches(tmp_path):
    "Its own lines, in a repository with a command that objects to one loss."
    text = (RESULTS.parent/'.github'/'workflows'/'community.yml').read_text()
    flow = yaml.safe_load(text)
    assert (flow['permissions'] == dict(contents='read') and 'timeout-minutes' in flow['jobs']['check']
            and 'github.event' not in flow['jobs']['check']['steps'][-1]['run'])
    def git(*words):
        return subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@example.org', *words], cwd=tmp_path,
                              check=True, capture_output=True, text=True).stdout.strip()
    def commit(*names, delete=()):
        for n in names:
            ((tmp_path/n).parent.mkdir(parents=True, exist_ok=True),
             (tmp_path/n).write_text(str(len(git('log', '--oneline', '--all')))))
        for n in delete: shutil.rmtree((tmp_path/n).parent)
        git('add', '-A'), git('commit', '-qm', 'x')
        return git('rev-parse', 'HEAD')
    def checked(base):
        (tmp_path/'.git'/'said').write_text('')
        run = subprocess.run(['bash', '-e', '-c', flow['jobs']['check']['steps'][-1]['run']], cwd=tmp_path,
                             env=os.environ | dict(BASE=base, RUNNER_TEMP=str(tmp_path/'.git')))
        return run.returncode, (tmp_path/'.git'/'said').read_text().splitlines()
    git('init', '-q')
    (command := tmp_path/'.venv'/'bin'/'mlcl').parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$@" >> .git/said\ncase "$3" in *bad*) exit 1;; esac\n')
    command.chmod(0o755)
    at = 'results/community'
    base = commit(f'{at}/README.md', f'{at}/old/records.parquet', f'{at}/gone/records.parquet')
    commit(f'{at}/README.md', f'{at}/new é/records.parquet', f'{at}/new é/about.json',
           delete=[f'{at}/gone/records.parquet'])
    assert checked(base) == (0, [f'study check {at}/new é/records.parquet'])
    commit(f'{at}/bad/about.json', f'{at}/z/records.parquet')
    assert checked(base) == (1, [f'study check {at}/{n}/records.parquet' for n in ('bad', 'new é', 'z')])


def test_what_others_sent_is_in_order(monkeypatch):
    "Every folder of `results/community` passes, and bears the name of its loss."
    monkeypatch.setenv('MLCL_RESULTS', str(RESULTS))
    for folder in (p for p in (RESULTS/'community').iterdir() if p.is_dir()):
        assert {p.name for p in folder.iterdir()} == {'records.parquet', 'about.json'}
        assert (objections(folder/'records.parquet')[0] == [] and json.loads((folder/'about.json').read_text())['name']
                == folder.name)
