"The store: what goes in comes out, also after publishing, with several writers, on a full disk, and in no time."
import hashlib, json, multiprocessing, os, random, sqlite3, subprocess, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from mlcl import study
from mlcl.study import Store, canonical, from_table, to_table
from study_helpers import records

RESULTS = Path(__file__).parent.parent/'results'
SUMS = json.loads((Path(__file__).parent/'records.json').read_text())


@pytest.fixture
def store(tmp_path): return Store(tmp_path/'t')


def test_append_and_filters(store):
    assert store.read() == [] and not store.has('a') and store.frame().empty and not store.exists()
    assert store.append(records('a')) and not store.append(records('a')) and store.append(records('b', loss='m'))
    for _ in range(2): # from the database, then from the published file
        assert ([r['id'] for r in store.records(run='b')] == ['b/0', 'b/1', 'b/2']
                and len(store.records(readout=['r0', 'r1'])) == 4)
        assert list(store.frame(loss='m').macro_f1) == [.5]*3 and store.has('a') and not store.has('c')
        assert store.records(['seed', 'metrics'], run='b', readout='r0') == [dict(seed=0, metrics=dict(macro_f1=.5))]
        assert store.records(loss='x') == [] and not store.append(records('b'))
        with pytest.raises(ValueError, match='field: expected one of'): store.records(los='m')
        with pytest.raises(ValueError): store.append(records('c', x=float('nan')))
        with pytest.raises(ValueError, match='expected all of run d, got 2 of 3'): store.append(records('d')[:2])
        store.publish()
    assert store.published.exists() and store._from_sqlite(None, {}) == []


def test_failures(store):
    error = dict(records('a', 1)[0], id='a/error/1', metrics=None, error=dict(kind='E', message='m', where=''))
    assert store.append([error]) and not store.has('a') and list(store.failed()) == ['a'] and store.records() == []
    assert (store.append([dict(error, id='a/error/2')]) and store.failed()['a']['id'] == 'a/error/2'
            and len(store.read()) == 2)
    assert store.publish() == 0 and list(store.failed()) == ['a'] # failures are not published
    assert store.append(records('a')) and store.has('a') and store.failed() == {} and len(store.records()) == 3
    assert store.publish() == 1 and store.failed() == {}
    assert not store.append([dict(error, id='a/error/3')])


def test_an_id_is_never_written_twice(store):
    store.append(records('a'))
    with pytest.raises(ValueError, match='expected new ids'): store.append([r | dict(run='b') for r in records('a')])
    assert {r['run'] for r in store.read()} == {'a'}


STRANGE = [dict(id='a/1', run='a', of=2, seed=0, fraction=1, settings=dict(lr=1e-3, a=[1, None, 'ü']),
                metrics=dict(f1=1, map=None),
                replicates=dict(f1='0.5 1 AA=='), per_label_f1=[.1, None, 0], history=[dict(epoch=1)],
                chosen={}, note=None),
           dict(id='a/2', run='a', of=2, fraction=.3, metrics={}, replicates=dict(f1='x', map='y'), per_label_f1=None,
                x=dict(y=[]))]


def test_records_come_back_exactly(store):
    "Missing is not None, an empty dict is not missing, the order of the fields stays, floats are exact."
    more = [dict(id='b', run='b', of=1, seed=3, per_label_f1=[], metrics=dict(f1=.1 + .2), new='text',
                 layout=dict(a=1))]
    def same(got, want): return got == want and [list(r) for r in got] == [list(r) for r in want]
    assert same(from_table(to_table(STRANGE)), STRANGE)
    store.append(STRANGE), store.publish(), store.append(more)
    assert same(store.records(), STRANGE + more) and store.publish() == 1 and same(store.records(), STRANGE + more)
    t = pd.read_parquet(store.published)
    assert t.f1[2] == .1 + .2 and list(t.id) == ['a/1', 'a/2', 'b'] and t['replicates.f1'][1] == 'x'


def test_a_metric_may_not_hide_a_field():
    with pytest.raises(ValueError, match='distinct columns'): to_table([dict(seed=1, metrics=dict(seed=2))])


@pytest.mark.parametrize('name', list(SUMS))
def test_published_records_are_those_of_before(name):
    "The records that were JSON lines once, field by field: checksums that were computed from the old files."
    recs = Store(RESULTS/name).records()[:SUMS[name]['records']]
    text = ''.join(canonical(r) + '\n' for r in recs)
    assert hashlib.sha256(text.encode()).hexdigest() == SUMS[name]['sha256']


def test_the_checksums_see_a_changed_digit():
    recs = Store(RESULTS/'check').records()
    recs[5] = recs[5] | dict(metrics=recs[5]['metrics'] | dict(macro_f1=recs[5]['metrics']['macro_f1'] + 1e-5))
    assert hashlib.sha256(''.join(canonical(r) + '\n' for r in recs).encode()).hexdigest() != SUMS['check']['sha256']


def test_published_files_are_few_and_small():
    files = list(RESULTS.glob('*.parquet'))
    assert len(files) <= 30 and sum(p.stat().st_size for p in files) < 27e6


def test_stores_are_brought_together(store, tmp_path):
    other = Store(tmp_path/'other.parquet')
    (store.append(records('a')), other.append(records('a', x=1)), other.append(records('b')), other.publish(),
     other.append(records('c')))
    assert store.adopt(other) == 2 and {r['run'] for r in store.records()} == set('abc') and store.adopt(other) == 0
    assert 'x' not in store.records(run='a')[0]


@pytest.mark.parametrize('end', ['sqlite', 'parquet'])
def test_damage_is_refused_and_nothing_touched(store, end):
    path = store.path.with_suffix(f'.{end}')
    path.write_bytes(b'nonsense\n'*99)
    with pytest.raises(ValueError, match=f't.{end}: damaged'): store.check()
    with pytest.raises(ValueError): store.read()
    assert path.read_bytes() == b'nonsense\n'*99


def unwritable(tmp_path):
    "A folder that nobody can write, not even root: it would lie inside a file."
    (tmp_path/'file').touch()
    return tmp_path/'file'/'results'


def test_a_folder_that_cannot_be_written_is_one_line_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(unwritable(tmp_path)))
    with pytest.raises(OSError, match='t.sqlite: expected a folder that can be written') as e:
        Store(unwritable(tmp_path)/'t').check()
    assert '\n' not in str(e.value)
    def never(exp): raise AssertionError('work was spent')
    with pytest.raises(OSError, match='smoke.sqlite: expected a folder'):
        study.run_study('smoke', runner=never, progress=False)


@pytest.mark.skipif(os.name != 'posix', reason='permissions of POSIX')
def test_a_read_only_folder(tmp_path):
    "As a user who may not write: one line, and what is published can be read all the same."
    store = Store(tmp_path/'t')
    store.append(records('a')), store.publish(), store.path.unlink()
    code = ("import sys; from mlcl.study import Store; s = Store(sys.argv[1]); print(len(s.records()))\ntry: "
            "s.check()\nexcept OSError as e: print(e)")
    for p in (tmp_path, *tmp_path.parents[:2]): p.chmod(0o555)
    try:
        more = dict(user=65534) if os.geteuid() == 0 else {}
        res = subprocess.run([sys.executable, '-B', '-c', code, str(tmp_path/'t')], capture_output=True,
                             text=True, **more)
    except PermissionError: pytest.skip('another user may not start this Python')
    finally:
        for p in (tmp_path, *tmp_path.parents[:2]): p.chmod(0o755)
    if 'No module' in res.stderr or 'denied' in res.stderr: pytest.skip('another user may not read this checkout')
    assert res.stdout.startswith('3\n') and 'expected a folder with room that can be written' in res.stdout, res.stderr


def fill(monkeypatch, store, pages=12):
    "From now on the database may have so many pages of 4 KB, and more only when the spare room is gone."
    real = sqlite3.connect
    def connect(path, **more):
        db = real(path, **more)
        if str(path) == str(store.path):
            db.execute(f'pragma max_page_count={10**6 if not store.path.with_suffix(".room").exists() else pages}')
        return db
    monkeypatch.setattr(sqlite3, 'connect', connect)


def test_disk_full(store, monkeypatch):
    store.append(records('a'))
    store.path.with_suffix('.room').touch()
    fill(monkeypatch, store)
    with pytest.raises(OSError, match='t.sqlite: expected a folder with room.*disk is full'):
        store.append(records('b', pad='x'*50_000))
    assert [r['run'] for r in store.read()] == ['a']*3
    store.path.with_suffix('.room').unlink()
    assert store.append(records('b', pad='x'*50_000)) and len(store.read()) == 6


def test_a_study_on_a_full_disk_loses_no_finished_run(tmp_path, monkeypatch):
    "The spare room takes the runs that end; no further one is started, and the study says why."
    store, exps, begun = Store(tmp_path/'k'), study.experiments('quick')[:9], []
    store.check()
    fill(monkeypatch, store)
    def runner(exp):
        begun.append(exp)
        return [dict(readout='r', checkpoint='last', split='val', metrics=dict(macro_f1=.5), chosen={}, pad='x'*9000,
                     data_sha256='0', seconds=.1)]
    def one_by_one(exps, name, jobs, runner): yield from ((e, study.attempt(e, name, runner)) for e in exps)
    with pytest.raises(OSError, match='disk is full.*All runs that ended are written'):
        study.run_all(exps, store, 'k', 1, say=lambda *a, **k: None, runner=runner, spread=one_by_one)
    assert 1 < len(begun) < 9 and [r['run'] for r in store.read()] == [e.id for e in begun]
    assert sorted(p.name for p in tmp_path.iterdir()) == ['k.sqlite']


def hammer(path, k):
    s, order = Store(path), [f'run{i}' for i in range(25)]
    random.Random(k).shuffle(order)
    for r in order: s.append(records(r, 5, pad='x'*3000))


def test_four_processes_append_while_a_fifth_publishes(store):
    ctx = multiprocessing.get_context('spawn')
    ps = [ctx.Process(target=hammer, args=(store.path, k)) for k in range(4)]
    for p in ps: p.start()
    while any(p.is_alive() for p in ps): store.publish(), time.sleep(.05)
    rs = store.read()
    assert all(p.exitcode == 0 for p in ps) and len(rs) == 125 == len({r['id'] for r in rs})
    for i in range(0, 125, 5): assert len({r['run'] for r in rs[i:i+5]}) == 1


def test_publishing_that_is_cut_short_counts_nothing_twice(store, monkeypatch):
    "Killed after the new file is there and before the runs leave the database."
    store.append(records('a'))
    real = os.replace
    def die(*args): real(*args); raise KeyboardInterrupt
    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(KeyboardInterrupt): store.publish()
    monkeypatch.undo()
    assert (len(store.records()) == 3 and not store.append(records('a')) and store.publish() == 0
            and len(store.records()) == 3)


def test_a_write_takes_milliseconds_with_900_runs_held(store):
    def run_of(i): return records(f'r{i}', 13, pad='x'*2000)
    def seconds(i): start = time.process_time(); store.append(run_of(i)); return time.process_time() - start
    taken = [seconds(i) for i in range(900)]
    store.publish()
    taken += [seconds(i) for i in range(900, 950)]
    first, last, published = (np.median(taken[a:b]) for a, b in ((0, 50), (850, 900), (901, 950)))
    assert last < .05 and last < 3*first + .005 and published < .05, (first, last, published)


def test_pages_load_in_a_second_of_processor_time():
    "The records of page 52 without the curves: three stores."
    fields = ['run', 'dataset', 'loss', 'seed', 'readout', 'split', 'checkpoint', 'metrics', 'replicates', 'settings']
    def load(): return [Store(RESULTS/n).records(fields, split='test') for n in ('labels', 'cut', 'tuned')]
    load()
    start = time.process_time()
    n = sum(map(len, load()))
    assert n > 10_000 and time.process_time() - start < 1


def test_many_may_make_the_database_at_the_same_moment(tmp_path):
    "SQLite gives up at once where two choose write-ahead logging together; two runs of a study may begin together."
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier
    def begin(k, together):
        together.wait()
        for _ in range(10): Store(tmp_path/f'{k}').check()
    with ThreadPoolExecutor(6) as pool:
        for k in range(20):
            together = Barrier(6)
            for f in [pool.submit(begin, k, together) for _ in range(6)]: f.result()


def test_a_database_that_may_not_be_written_is_told_at_once():
    ask, busy = [], sqlite3.OperationalError('attempt to write a readonly database')
    busy.sqlite_errorcode = sqlite3.SQLITE_READONLY
    class Db:
        def execute(self, sql):
            ask.append(sql)
            if '=' in sql: raise busy
            return self
        def fetchone(self): return 'delete',
    with pytest.raises(sqlite3.OperationalError, match='readonly'): sys.modules['mlcl.study.store']._log_ahead(Db())
    assert len(ask) == 2
