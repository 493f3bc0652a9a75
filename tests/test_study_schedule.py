"Plans, processes that die, and drivers that are killed."
import multiprocessing, os, random, signal, subprocess, sys, time
from collections import Counter
from pathlib import Path
import pytest
from mlcl import study
from mlcl.study import Store, schedule
from study_helpers import fake, gone, mended, part


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny(results, monkeypatch):
    monkeypatch.setitem(study.STUDIES, 't',
                        study.Study('t', 'a test', lambda: study.grid(study.SMOKE, ('reg',), range(5))))
    return study.store_of('t')


def broken_store(exp):
    study.store_of('t').path.write_bytes(b'nonsense'*999)
    return part(exp.seed)


def test_failures_and_dead_workers(tiny, capsys):
    assert study.run_study('t', jobs=2, runner=fake) == dict(held=0, done=3, failed=2)
    said = capsys.readouterr().out
    assert '5 to do' in said and 'FloatingPointError: the loss is not finite' in said and 'in epoch 3' not in said
    errors = {r['seed']: r['error'] for r in tiny.failed().values()}
    assert errors[1]['kind'] == 'FloatingPointError' and errors[1]['where'].startswith('study_helpers.py:')
    assert errors[2]['kind'] == 'WorkerDied' and 'killed twice' in errors[2]['message']
    assert {r['seed'] for r in tiny.records()} == {0, 3, 4} and set(study.plan('t').state) == {'held', 'failed'}
    assert study.run_study('t', jobs=2, runner=mended, progress=False) == dict(held=3, done=0, failed=0)
    assert study.run_study('t', jobs=2, retry=True, runner=mended, progress=False) == dict(held=3, done=2, failed=0)
    assert set(study.plan('t').state) == {'held'} and len(tiny.records()) == 5*4


@pytest.mark.parametrize('_', range(3))
def test_no_worker_remains_after_an_error(tiny, _):
    with pytest.raises((ValueError, OSError), match='t.sqlite'):
        study.run_study('t', jobs=2, runner=broken_store, progress=False)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_between_two_runs_is_replaced():
    exps, done = study.grid(study.SMOKE, ('reg',), range(5)), []
    for exp, recs in study.pool(exps, 't', 1, mended):
        done.append((exp.seed, 'error' in recs[0]))
        for p in multiprocessing.active_children(): p.kill()
        time.sleep(.2*(exp.seed % 2)) # once seen by the pool, once not yet
    assert {s for s, _ in done} == set(range(5)) and not any(bad for _, bad in done)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_while_it_starts(monkeypatch):
    "Two deaths are made good, three in a row are said."
    left = [2]
    class Dying(schedule.ProcessPoolExecutor):
        def __init__(self, n, ctx, init):
            left[0] -= 1
            super().__init__(n, ctx, *([init] if left[0] < 0 else [os._exit, (1,)]))
    monkeypatch.setattr(schedule, 'ProcessPoolExecutor', Dying)
    w = schedule.Worker()
    assert w.submit(abs, -3).result() == 3 and left == [-1]
    w.stop()
    left[0] = 9
    with pytest.raises(OSError, match='no worker process could start'): schedule.Worker()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("gpu", [True, False])
def test_one_run_at_a_time_where_they_would_share_a_gpu(monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(schedule, "cores", lambda: 16)
    assert study.processes() == (1 if gpu else 16)


def test_estimates(tiny):
    assert set(study.plan('t').basis) == {'guess'}
    study.run_study('t', only='seed=0', jobs=1, runner=mended, progress=False)
    assert (list(study.plan('t').basis) == ['measured'] + ['same data and loss']*4
            and list(study.plan('t').seconds) == [.1]*5)


def test_two_drivers(tiny):
    "Nothing is there twice."
    code = ("from mlcl import study; from study_helpers import mended\nif __name__ == '__main__': "
            "study.run_study('smoke', jobs=1, runner=mended)")
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]))
    ps = [subprocess.Popen([sys.executable, '-c', code], env=env, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait() for p in ps] == [0, 0]
    rs = study.store_of('smoke').read()
    assert Counter(r['run'] for r in rs) == {e.id: 4 for e in study.experiments('smoke')}


DRIVER = '''
import os, sys, time
from pathlib import Path
from mlcl import study
from mlcl.study import experiment
experiment.full_settings = lambda *a: {}
study.STUDIES['k'] = study.Study('k', 'killed', lambda: [study.Experiment('d', 'e', 'l', {}, 1., s) for s in range(16)])
def slow(exp):
    with open(os.environ['MLCL_RESULTS'] + '/pids', 'a') as f: f.write(f'{os.getpid()}\\n')
    time.sleep(.15)
    return [dict(readout=f'r{i}', checkpoint='last', split='val', metrics=dict(macro_f1=exp.seed/16),
                 per_label_f1=['x'*2000], chosen={}, data_sha256='0', seconds=.1) for i in range(20)]
if __name__ == '__main__':
    print('start', flush=True)
    study.run_study('k', jobs=2, runner=slow)
'''


def start(script, folder, **more):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, str(script)], env=os.environ | dict(MLCL_RESULTS=str(folder)), cwd=folder,
                            **dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) | more)


@pytest.fixture
def script(tmp_path):
    (path := tmp_path/'driver.py').write_text(DRIVER)
    return path


def pids(folder): return set(map(int, (folder/'pids').read_text().split())) if (folder/'pids').exists() else set()


def check_whole(store, ids):
    "Every run is there exactly once and entirely."
    rs = store.read()
    assert (Counter(r['run'] for r in rs) == {r['run']: r['of'] for r in rs} and {r['id'] for r in rs} == ids
            and len(rs) == len(ids))


RUNS = [study.content_hash(dict(dataset='d', encoder='e', loss='l', settings={}, fraction=1., seed=s))
        for s in range(16)]
NIGHTLY = int(os.environ.get('MLCL_KILLS', 2)) # 100 in the nightly form


@pytest.mark.parametrize('whom', ['driver', 'worker', 'both'])
def test_kill_9_at_random_moments(tmp_path, script, whom):
    "Killed again and again, the study comes to its end, and every run is there once."
    ids = {f'{e}/r{i}/last/val' for e in RUNS for i in range(20)}
    folder, rng, kills = tmp_path/'killed', random.Random(whom), 0
    store = Store(folder/'k')
    while kills < NIGHTLY:
        p = start(script, folder)
        p.stdout.readline()
        time.sleep(rng.uniform(.1, 2.))
        for pid in (pids(folder) if whom != 'driver' else ()):
            try: os.kill(pid, signal.SIGKILL); kills += whom == 'worker'
            except ProcessLookupError: pass
        if whom == 'worker' and p.poll() is None: p.communicate(timeout=120); break
        kills += p.poll() is None
        p.kill(), p.wait()
        assert gone(pids(folder)), 'a worker outlived its driver'
        runs = Counter(r['run'] for r in store.records())
        assert set(runs.values()) <= {20} and set(runs) <= set(RUNS)
        if len(runs) == 16:
            if whom != 'worker' and kills < NIGHTLY: store.path.unlink() # begin anew
            else: break
    last = start(script, folder)
    last.communicate(timeout=120)
    assert last.returncode == 0
    check_whole(store, ids)


def test_busy_workers_leave_with_their_driver(tmp_path, script):
    script.write_text(DRIVER.replace('time.sleep(.15)', 'time.sleep(60)'))
    p, end = start(script, tmp_path, stdout=subprocess.DEVNULL), time.time() + 60
    while len(pids(tmp_path)) < 2 and time.time() < end: time.sleep(.05)
    p.kill(), p.wait()
    assert gone(pids(tmp_path)) and Store(tmp_path/'k').read() == []


def test_kill_9_of_the_real_command(tmp_path):
    def begin(): return subprocess.Popen(
        [sys.executable, '-c', 'import sys; from mlcl.cli import main; sys.exit(main())', 'study', 'run', 'smoke',
         '--jobs', '1'],
        env=os.environ | dict(MLCL_RESULTS=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p, store = begin(), Store(tmp_path/'smoke')
    while '[' not in p.stdout.readline(): assert p.poll() is None
    time.sleep(random.Random(3).uniform(0., .8))
    p.kill(), p.communicate()
    kept = {r['run'] for r in store.read()}
    p = begin()
    out, err = p.communicate(timeout=200)
    assert p.returncode == 0 and f'4 runs, {len(kept)} held' in out, err
    assert kept and {r['run'] for r in store.read()} == {e.id for e in study.experiments('smoke')}
    check_whole(store, {r['id'] for r in store.read()})


def test_ctrl_c_ends_cleanly(tmp_path, script):
    script.write_text(DRIVER.replace("    study.run_study('k', jobs=2, runner=slow)",
        "    import mlcl.cli\n    run = study.run_study\n    study.run_study = lambda *a, **k: run('k', jobs=2, "
        "runner=slow)\n"
        "    sys.exit(mlcl.cli.main(['study', 'run', 'k']))"))
    p = subprocess.Popen([sys.executable, str(script)], env=os.environ | dict(MLCL_RESULTS=str(tmp_path)), cwd=tmp_path,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                         # shells ignore it for what they start in the background
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while '[ 2/16]' not in p.stdout.readline(): assert p.poll() is None
    os.killpg(p.pid, signal.SIGINT) # as a terminal does: to the driver and its workers
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and err.strip().endswith('the same command goes on') and 'Traceback' not in err
    assert gone(pids(tmp_path)) and len(Store(tmp_path/'k').records()) >= 2*20
