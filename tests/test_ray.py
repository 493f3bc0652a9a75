"The runner on a local Ray cluster: workers and drivers are killed, and nothing is lost or done twice."
import os, signal, subprocess, sys, time, warnings
from collections import Counter
from pathlib import Path
import pytest
from mlcl import study
from mlcl.study import Store
from study_helpers import alive, part

try: import ray
except ImportError: ray = None


def test_ray_is_installed():
    "Fails where continuous integration forgot the extra `scale`; elsewhere it says what was left out."
    if ray is None:
        assert not os.environ.get('CI'), "ray is missing: install '.[scale]'"
        warnings.warn("RAY IS NOT INSTALLED: the tests of the Ray runner are LEFT OUT; install '.[scale]'")


needs_ray = pytest.mark.skipif(ray is None, reason="RAY IS NOT INSTALLED: install '.[scale]'")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    "Workers find this file's `fake`."
    monkeypatch.setenv('PYTHONPATH',
                       os.pathsep.join([str(Path(__file__).parent),
                                        os.environ.get('PYTHONPATH', '')]).rstrip(os.pathsep))


def fake(exp):
    "Leaves a mark; seed 1 raises, seed 2 always kills its process, seed 3 once."
    marks = Path(os.environ['MLCL_RESULTS'])
    with open(marks/f'{exp.seed}', 'a') as f: f.write(f'{os.getpid()}\n')
    time.sleep(float(os.environ.get('SLOW', 0)))
    if exp.seed == 1: raise FloatingPointError('the loss is not finite')
    if exp.seed == 2 or exp.seed == 3 and len((marks/'3').read_text().split()) < 2: os.kill(os.getpid(), signal.SIGKILL)
    return part(exp.seed)


@needs_ray
def test_killed_workers(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    monkeypatch.setitem(study.STUDIES, 't',
                        study.Study('t', 'a test', lambda: study.grid(study.SMOKE, ('reg',), range(6))))
    assert study.run_study('t', ray='local', runner=fake, progress=False) == dict(held=0, done=4, failed=2)
    store = study.store_of('t')
    errors = {r['seed']: r['error']['kind'] for r in store.failed().values()}
    assert errors == {1: 'FloatingPointError', 2: 'WorkerCrashedError'}
    assert Counter(r['seed'] for r in store.records()) == {s: 4 for s in (0, 3, 4, 5)}
    tries = {s: len((tmp_path/f'{s}').read_text().split()) for s in range(6)}
    assert tries == {0: 1, 1: 1, 2: 3, 3: 2, 4: 1, 5: 1}
    assert study.run_study('t', ray='local', runner=fake, progress=False) == dict(held=4, done=0, failed=0)


DRIVER = '''
import sys
sys.path[:0] = [{tests!r}]
from mlcl import study
from test_ray import fake
study.STUDIES['t'] = study.Study('t', 'a test', lambda: study.grid(study.SMOKE, ('reg',), range(4, 14)))
if __name__ == '__main__': study.run_study('t', ray={address!r}, runner=fake)
'''


def driver(tmp_path, address):
    script = tmp_path/'driver.py'
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), address=address))
    return subprocess.Popen([sys.executable, str(script)], env=os.environ
                            | dict(MLCL_RESULTS=str(tmp_path), SLOW='1.5'), cwd=tmp_path,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@needs_ray
@pytest.mark.parametrize('standing', [False, True], ids=['own cluster', 'standing cluster'])
def test_killed_driver(tmp_path, standing, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path)), monkeypatch.setenv('SLOW', '1.5')
    address = 'local'
    if standing:
        address = ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False).address_info['address']
    try:
        p, store = driver(tmp_path, address), Store(tmp_path/'t')
        while '[ 3/10]' not in (line := p.stdout.readline()): assert line, p.stderr.read()
        p.kill(), p.wait()
        pids = {int(i) for f in tmp_path.glob('[0-9]*') for i in f.read_text().split()}
        end = time.time() + 60
        while any(map(alive, pids)) and not standing and time.time() < end: time.sleep(.1)
        assert standing or not any(map(alive, pids)), 'a worker outlived its driver'
        kept = {r['run'] for r in store.read()}
        p = driver(tmp_path, address)
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and f'10 runs, {len(kept)} held' in out, err
    finally:
        if standing: ray.shutdown()
    assert 3 <= len(kept) < 10
    assert Counter(r['seed'] for r in store.records()) == {s: 4 for s in range(4, 14)}
    assert len(store.read()) == 40
