"Experiments, the store under crashes and concurrency, and the runner under kill -9. Training is real where the name says so."
import gzip, json, multiprocessing, os, random, signal, subprocess, sys, time, warnings
from collections import Counter
from pathlib import Path
import numpy as np
import pytest
from mlcl import study
from mlcl.study import Experiment, Store, content_hash, pack, plain, unpack


def records(run, n=3, **more):
    "The lines of a made-up run."
    base = dict(run=run, of=n, study='t', dataset='d', encoder='e', loss='l', settings={}, fraction=1., seed=0, checkpoint='last',
                metrics=dict(macro_f1=.5), seconds=1., split='val')
    return [dict(base, id=f'{run}/{i}', readout=f'r{i}', **more) for i in range(n)]


@pytest.fixture
def store(tmp_path): return Store(tmp_path/'t.jsonl')


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


# ---- experiments

def test_hash_is_stable(monkeypatch):
    assert content_hash({'b': 1.0, 'a': [1, 2.5, None, True, 'ü']}) == 'c56625c88ab03c6f'
    monkeypatch.setattr(study, 'full_settings', lambda *a: plain(a[-1]))
    e = Experiment('digits', 'resnet', 'reg', dict(epochs=2, lr=1e-3, loss=dict(temperature=.1)), .5, 3)
    assert e.id == 'd1670e1bd57a193f'


def test_defaults_count(monkeypatch):
    import mlcl.learner
    e = Experiment('digits', 'resnet', 'reg')
    assert e.settings['epochs'] == mlcl.learner.DEFAULTS['epochs'] and e.settings['loss']['temperature'] == .1
    assert e.id == Experiment('digits', 'resnet', 'reg', dict(lr=1e-3, loss=dict(temperature=.1)), 1).id
    assert e.id == Experiment(**json.loads(json.dumps(study.asdict(e)))).id
    monkeypatch.setitem(mlcl.learner.DEFAULTS, 'epochs', 41)
    assert Experiment('digits', 'resnet', 'reg').id != e.id
    assert len({Experiment('digits', 'resnet', l, s, f, n).id for l, s, f, n in [
        ('reg', {}, 1, 0), ('bce', {}, 1, 0), ('reg', dict(lr=.01), 1, 0), ('reg', {}, .5, 0), ('reg', {}, 1, 1)]}) == 5


def test_how_a_loss_is_computed_is_no_part_of_what_it_is():
    "The records of the first study keep their names; a tile that is given counts."
    e = Experiment('yeast', 'mlp', 'reg', dict(epochs=40))
    assert 'tile' not in e.settings['loss'] and e.id == Experiment('yeast', 'mlp', 'reg', dict(epochs=40, loss=dict(tile=None))).id
    assert Experiment('yeast', 'mlp', 'reg', dict(epochs=40, loss=dict(tile=16))).id != e.id
    held = {r['run'] for r in Store(Path(__file__).parent.parent/'results'/'first.jsonl').records(dataset='yeast')}
    assert held == {x.id for x in study.experiments('first', only='dataset=yeast')}


def test_kind_of_the_readouts_leaves_old_names_alone():
    "The default is written nowhere, so the records of the first edition keep their names; what a kind does not use is not named."
    old, new, both = (Experiment('yeast', 'mlp', 'reg', dict(probe=p)) for p in (dict(kind='grid'), dict(kind='linear'), dict(kind='both', epochs=3)))
    assert old.id == Experiment('yeast', 'mlp', 'reg').id and 'kind' not in old.settings['probe']
    assert new.settings['probe'] == dict(kind='linear') and new.id == Experiment('yeast', 'mlp', 'reg', dict(probe=dict(kind='linear', epochs=3))).id
    assert both.settings['probe']['kind'] == 'both' and both.settings['probe']['epochs'] == 3 and len({old.id, new.id, both.id}) == 3
    for e in (old, new, both): assert Experiment(**json.loads(json.dumps(study.asdict(e)))).id == e.id


@pytest.mark.parametrize('name', ['labels', 'text', 'images', 'finetuned', 'cut'])
def test_published_runs_are_still_those_of_their_study(name):
    held = {r['run'] for r in Store(Path(__file__).parent.parent/'results'/f'{name}.jsonl.gz').records()}
    assert {e.id for e in study.experiments(name)} <= held


def test_matched_is_equal_but_for_the_loss():
    es = study.experiments('matched')
    assert len(es) == len({e.id for e in es}) == 12*10*5
    for d in study.LABELS:
        same = {study.canonical({k: v for k, v in e.settings.items() if k != 'loss'}) for e in es if e.dataset == d}
        assert len(same) == 1 and json.loads(same.pop())['lr'] == study.LABELS[d][0]
    both = {e.loss: e.settings['loss'] for e in es if e.loss in ('asl', 'asl1', 'reg', 'wreg')}
    assert [both['asl1'][k] for k in ('gamma_neg', 'gamma_pos', 'margin')] == [1, 0, 0] and [both['asl'][k] for k in ('gamma_neg', 'gamma_pos', 'margin')] == [4, 1, .05]
    assert [both['reg'][k] for k in ('temperature', 'alpha')] == [both['wreg'][k] for k in ('temperature', 'alpha')]
    assert [e.seed for e in es] == sorted(e.seed for e in es)


@pytest.mark.parametrize('args, said', [
    (('digitz', 'resnet', 'reg'), 'dataset: expected one of'), (('digits', 'resnet', 'regg'), 'loss: expected one of abalone'),
    (('digits', 'resnot', 'reg'), 'encoder: expected one of'), (('digits', 'mlp', 'reg'), 'reads features data, not image'),
    (('digits', 'resnet', 'reg', dict(epoch=1)), 'settings key: expected one of'),
    (('digits', 'resnet', 'reg', dict(loss=dict(tau=1))), 'settings.loss key: expected one of alpha'),
    (('digits', 'resnet', 'reg', dict(data=dict(m=1))), 'settings.data key'),
    (('digits', 'resnet', 'reg', dict(encoder=dict(width=1))), 'settings.encoder key'),
    (('digits', 'resnet', 'reg', dict(probe=dict(grit=1))), 'settings.probe key'),
    (('digits', 'resnet', 'reg', dict(checkpoints=['first'])), 'settings.checkpoints'),
    (('digits', 'resnet', 'reg', dict(probe=dict(kind='ridge'))), 'settings.probe.kind: expected one of both, grid, linear'),
    (('digits', 'resnet', 'reg', dict(lr=float('nan'))), 'settings.lr: expected a finite number'),
    (('digits', 'resnet', 'reg', dict(lr=float('inf'))), 'settings.lr: expected a finite number'),
    (('digits', 'resnet', 'reg', dict(lr=object())), 'settings.lr: expected a value that JSON can hold'),
    (('digits', 'resnet', 'reg', {}, 0.), 'fraction'), (('digits', 'resnet', 'reg', {}, 1.5), 'fraction'),
    (('digits', 'resnet', 'reg', {}, 1., .5), 'seed')])
def test_bad_experiments(args, said):
    with pytest.raises(ValueError, match=said): Experiment(*args)


@pytest.mark.parametrize('n', [1, 2, 100])
def test_pack(n):
    v = np.random.default_rng(n).normal(.4, .02, n)
    assert np.abs(unpack(pack(v)) - v).max() <= max(np.abs(v - v.mean()).max()/250, 1e-7)
    assert (unpack(pack(np.full(5, .25))) == .25).all() and (unpack([.1, .2]) == [.1, .2]).all()


# ---- the store

def test_append_and_filters(store):
    assert store.read() == [] and not store.has('a') and store.frame().empty
    assert store.append(records('a')) and not store.append(records('a')) and store.append(records('b', loss='m'))
    assert [r['id'] for r in store.records(run='b')] == ['b/0', 'b/1', 'b/2'] and len(store.records(readout=['r0', 'r1'])) == 4
    assert list(store.frame(loss='m').macro_f1) == [.5]*3
    with pytest.raises(ValueError, match='field: expected one of'): store.records(los='m')
    with pytest.raises(ValueError): store.append(records('c', x=float('nan')))


@pytest.mark.parametrize('cut', [1, 2, 30, 'line', 'run', 'line+1'])
def test_truncated_end_is_set_aside(store, cut):
    store.append(records('a')), store.append(records('b'))
    raw = store.path.read_bytes()
    line = len(raw.splitlines(keepends=True)[-1])
    n = dict({'line': line, 'run': 3*line - 1, 'line+1': line + 1}).get(cut, cut)
    os.truncate(store.path, len(raw) - n)
    if cut == 1: # only the newline is missing: nothing is lost
        assert len(store.read()) == 6 and not store.append(records('b')) and store.path.read_bytes() == raw
        return
    with pytest.warns(UserWarning, match='t.jsonl.broken'): assert [r['run'] for r in store.read()] == ['a']*3
    assert Path(f'{store.path}.broken').read_bytes().rstrip(b'\n') == raw[len(raw)//2:len(raw) - n].rstrip(b'\n')
    assert store.append(records('b')) and store.path.read_bytes() == raw


@pytest.mark.parametrize('junk', [b'{"id": "x", "ru', b'\0\0\0\0', b'\xff\xfe\n', b'[1, 2]\n', b'{"id": 1}\n'])
def test_corrupt_end_is_set_aside(store, junk):
    store.append(records('a'))
    raw = store.path.read_bytes()
    store.path.write_bytes(raw + junk)
    with pytest.warns(UserWarning, match='t.jsonl.broken'): assert store.append(records('b'))
    assert Counter(r['run'] for r in Store(store.path).read()) == dict(a=3, b=3)


def test_corrupt_middle_is_refused(store):
    store.append(records('a')), store.append(records('b'))
    lines = store.path.read_bytes().splitlines(keepends=True)
    for i in range(5):
        bad = b''.join(lines[:i] + [b'{"id":' + lines[i][9:]] + lines[i+1:])
        store.path.write_bytes(bad)
        with pytest.raises(ValueError, match=f't.jsonl, line {i+1}: damaged'): Store(store.path).read()
        with pytest.raises(ValueError): store.append(records('c'))
        assert store.path.read_bytes() == bad
    store.path.write_bytes(b''.join(lines[1:]))
    with pytest.raises(ValueError, match='line 1: run a has 2 of 3 records'): store.read()


def test_equal_ids_first_wins(store):
    store.append(records('a'))
    raw = store.path.read_bytes()
    store.path.write_bytes(raw + raw.replace(b'0.5', b'0.9'))
    with pytest.warns(UserWarning, match='the first one counts'): rs = store.read()
    assert [r['metrics']['macro_f1'] for r in rs] == [.5]*3


def test_failures(store):
    error = dict(records('a', 1)[0], id='a/error/1', metrics=None, error=dict(kind='E', message='m', where=''))
    assert store.append([error]) and not store.has('a') and list(store.failed()) == ['a'] and store.records() == []
    assert store.append([dict(error, id='a/error/2')]) and store.failed()['a']['id'] == 'a/error/2'
    assert store.append(records('a')) and store.has('a') and store.failed() == {} and len(store.records()) == 3
    assert not store.append([dict(error, id='a/error/3')])


def test_disk_full(store, monkeypatch):
    store.append(records('a'))
    raw, write = store.path.read_bytes(), os.write
    monkeypatch.setattr(study.os, 'write', lambda fd, data: write(fd, data[:50]))
    with pytest.raises(OSError, match='disk full'): store.append(records('b'))
    assert store.path.read_bytes() == raw


# ---- the compressed store

@pytest.fixture
def packed(tmp_path): return Store(tmp_path/'t.jsonl.gz')


def test_packed_store_is_gzip_of_the_plain_one(store, packed):
    for r in 'abc': assert store.append(records(r, pad='x'*500)) and packed.append(records(r, pad='x'*500)) and not packed.append(records(r))
    assert gzip.decompress(packed.path.read_bytes()) == store.path.read_bytes() and packed.read() == store.read()
    assert packed.path.stat().st_size < store.path.stat().st_size/3


def test_packed_end_cut_anywhere(packed):
    packed.append(records('a'))
    n = packed.path.stat().st_size
    packed.append(records('b'))
    raw = packed.path.read_bytes()
    for cut in range(n + 1, len(raw)):
        packed.path.write_bytes(raw[:cut])
        with pytest.warns(UserWarning, match='t.jsonl.gz.broken'): assert [r['run'] for r in Store(packed.path).read()] == ['a']*3
        assert packed.path.read_bytes() == raw[:n]
    assert packed.append(records('b')) and packed.path.read_bytes() == raw


def test_packed_damage(packed):
    packed.append(records('a')), packed.append(records('b'))
    raw = packed.path.read_bytes()
    at = raw.index(study.HEAD, 1)
    for i in (3, 20, at - 5): # in the first member: refused, and nothing is touched
        bad = raw[:i] + bytes([raw[i] ^ 8]) + raw[i+1:]
        packed.path.write_bytes(bad)
        with pytest.raises(ValueError, match='t.jsonl.gz, member 1: damaged'): Store(packed.path).append(records('c'))
        assert packed.path.read_bytes() == bad
    packed.path.write_bytes(raw[:-5] + b'\0' + raw[-4:]) # in the last: set aside
    with pytest.warns(UserWarning, match='broken'): assert len(Store(packed.path).read()) == 3


@pytest.mark.parametrize('end', ['', '.gz'])
def test_four_processes_append(tmp_path, end):
    ctx, path = multiprocessing.get_context('spawn'), tmp_path/f't.jsonl{end}'
    ps = [ctx.Process(target=hammer, args=(path, k)) for k in range(4)]
    for p in ps: p.start()
    for p in ps: p.join()
    raw = path.read_bytes()
    lines = [json.loads(l) for l in (gzip.decompress(raw) if end else raw).splitlines()]
    assert all(p.exitcode == 0 for p in ps) and len(lines) == 125 == len({r['id'] for r in lines})
    for i in range(0, 125, 5): assert len({r['run'] for r in lines[i:i+5]}) == 1


def hammer(path, k):
    s, order = Store(path), [f'run{i}' for i in range(25)]
    random.Random(k).shuffle(order)
    for r in order: s.append(records(r, 5, pad='x'*3000))


# ---- the runner

def part(seed): return [dict(readout=r, checkpoint='last', split=s, metrics=dict(macro_f1=seed/10), per_label_f1=[1.], chosen={},
                             data_sha256='0', seconds=.1) for r in ('probe', 'probe1') for s in ('val', 'test')]


def fake(exp):
    "A run that fails, hangs or dies by its seed."
    marks = Path(os.environ['MLCL_RESULTS'])
    if exp.seed == 1: raise FloatingPointError('the loss is not finite\nin epoch 3')
    if exp.seed == 2 or exp.seed == 3 and not (marks/'died').exists():
        (marks/'died').touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return part(exp.seed)


def mended(exp): return part(exp.seed)


def broken_store(exp):
    with open(study.store_of('t').path, 'wb') as f: f.write(b'nonsense\nnonsense\n')
    return part(exp.seed)


@pytest.fixture
def tiny(results, monkeypatch):
    monkeypatch.setitem(study.STUDIES, 't', ('a test', lambda quick: study.grid(study.SMOKE, ('reg',), range(5))))
    return study.store_of('t')


def test_failures_and_dead_workers(tiny, capsys):
    assert study.run_study('t', jobs=2, runner=fake) == dict(held=0, done=3, failed=2)
    said = capsys.readouterr().out
    assert '5 to do' in said and 'FloatingPointError: the loss is not finite' in said and 'in epoch 3' not in said
    errors = {r['seed']: r['error'] for r in tiny.failed().values()}
    assert errors[1]['kind'] == 'FloatingPointError' and errors[1]['where'].startswith('test_study.py:')
    assert errors[2]['kind'] == 'WorkerDied' and 'killed twice' in errors[2]['message']
    assert {r['seed'] for r in tiny.records()} == {0, 3, 4} and set(study.plan('t').state) == {'held', 'failed'}
    assert study.run_study('t', jobs=2, runner=mended, progress=False) == dict(held=3, done=0, failed=0)
    assert study.run_study('t', jobs=2, retry=True, runner=mended, progress=False) == dict(held=3, done=2, failed=0)
    assert set(study.plan('t').state) == {'held'} and len(tiny.records()) == 5*4


def test_damaged_store_stops_the_study(tiny):
    with pytest.raises(ValueError, match='t.jsonl, line 1: damaged'):
        study.run_study('t', jobs=1, runner=broken_store, progress=False)
    for child in multiprocessing.active_children(): child.join(30)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("gpu", [True, False])
def test_one_run_at_a_time_where_they_would_share_a_gpu(monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(study, "cores", lambda: 16)
    assert study.processes() == (1 if gpu else 16)


def test_selection(tiny):
    assert [e.seed for e in study.experiments('t', only='seed=2,seed=4,loss=reg')] == [2, 4]
    for text, said in [('seed=9', 'only: seed: expected one of 0, 1'), ('lass=reg', 'only: key'), ('reg', 'key=value')]:
        with pytest.raises(ValueError, match=said): study.experiments('t', only=text)
    with pytest.raises(ValueError, match='study: expected one of'): study.experiments('quik')


def test_estimates(tiny):
    assert set(study.plan('t').basis) == {'guess'}
    study.run_study('t', only='seed=0', jobs=1, runner=mended, progress=False)
    assert list(study.plan('t').basis) == ['measured'] + ['same data and loss']*4 and list(study.plan('t').seconds) == [.1]*5


@pytest.mark.parametrize('name', list(study.STUDIES))
def test_studies_are_well_formed(name):
    for quick in False, True:
        es = study.experiments(name, quick)
        assert len({e.id for e in es}) == len(es) and (es or name == 'tuned')


def test_second_training_is_a_readout_of_its_own(results, monkeypatch):
    import mlcl.learner
    encoder, s = study.SMOKE['digits']
    train, calls = mlcl.learner.train, []
    def spy(ds, encoder, loss, settings, **more): calls.append((loss, settings['epochs'], more.get('start'), t := train(ds, encoder, loss, settings, **more))); return t
    monkeypatch.setattr(mlcl.learner, 'train', spy)
    plain, more = (Experiment('digits', encoder, 'reg', dict(s, **k)) for k in ({}, dict(finetune=1)))
    assert 'finetune' not in plain.settings and Experiment('digits', encoder, 'reg', dict(s, finetune=0)).id == plain.id != more.id
    recs = {k: {(r['readout'], r['split']): r for r in study.run(e)} for k, e in dict(plain=plain, more=more).items()}
    assert set(recs['more']) - set(recs['plain']) == {('finetune', 'val'), ('finetune', 'test')}
    assert [c[:2] for c in calls] == [('reg', 1), ('reg', 1), ('bce', 1)] and calls[2][2] is calls[1][3].model.encoder and not calls[0][2]
    for k, r in recs['plain'].items(): assert r['metrics'] == recs['more'][k]['metrics'] # the first training is not touched
    got = recs['more']['finetune', 'test']['metrics']
    assert got != recs['more']['probe1', 'test']['metrics'] and recs['more']['finetune', 'val']['chosen']['threshold'] is not None


def test_shares_and_lengths_are_as_the_pages_say():
    es = study.experiments('scarce')
    by = {f: {e.settings['epochs'] for e in es if e.fraction == f and e.dataset == 'reuters90'} for f in study.SHARES}
    assert by == {.01: {240}, .02: {240}, .05: {240}, .1: {240}, .2: {150}, .5: {60}, 1.: {30}}
    assert [e.seed for e in es] == sorted(e.seed for e in es) and {e.loss for e in es} == {'bce', 'zlpr', 'reg'}
    assert {e.settings['epochs'] for e in study.experiments('long')} == {10, 40, 100, 400}
    assert {(e.encoder, e.loss) for e in study.experiments('transformer')} == {('transformer', l) for l in ('bce', 'zlpr', 'reg')}
    assert {e.settings['finetune'] for e in study.experiments('finetuned')} == {10, 5, 7}
    for name, n in (('text', 5), ('images', 3)): assert len(study.experiments(name)) == n*15*3
    assert len(study.FIFTEEN) == 15 and {e.loss for e in study.experiments('labels')} == set(study.FIFTEEN)


def test_real_nan_is_recorded_and_the_study_goes_on(results, monkeypatch):
    encoder, s = study.SMOKE['digits']
    runs = [Experiment('digits', encoder, 'reg', dict(s, lr=lr)) for lr in (1e30, 1e-3)]
    monkeypatch.setitem(study.STUDIES, 'nan', ('one diverges', lambda quick: runs))
    assert study.run_study('nan', jobs=1, progress=False) == dict(held=0, done=1, failed=1)
    store = study.store_of('nan')
    failed, = store.failed().values()
    assert failed['run'] == runs[0].id and failed['error']['kind'] == 'TrainingFailed' and 'epoch' in failed['error']['message']
    r = store.records(readout='probe1', split='test')[0]
    assert DESIGN <= r.keys() and unpack(r['replicates']['macro_f1']).shape == (100,) and len(r['per_label_f1']) == 10
    assert r['metrics']['macro_f1_lo'] <= r['metrics']['macro_f1'] <= r['metrics']['macro_f1_hi']
    assert sum('history' in r for r in store.read()) == 1


def test_a_search_leaves_the_test_split_alone(results):
    encoder, s = study.SMOKE['digits']
    assert {r['split'] for r in study.run(Experiment('digits', encoder, 'bce', dict(s, bootstrap=0)))} == {'val'}


def test_best_epoch_that_is_the_last_is_read_out_once(results, monkeypatch):
    import mlcl.probe
    calls, read_out = [], mlcl.probe.read_out
    encoder, s = study.SMOKE['digits']
    exp = Experiment('digits', encoder, 'bce', dict(s, checkpoints=['last', 'best']))
    monkeypatch.setattr(mlcl.probe, 'read_out', lambda *a, **k: calls.append(1) or read_out(*a, **k))
    rs = study.run(exp)
    last, best = ([{k: v for k, v in r.items() if k != 'checkpoint'} for r in rs if r['checkpoint'] == c and r['readout'] != 'online'] for c in ('last', 'best'))
    assert len(calls) == 1 and last == best and len(last) == 8


# ---- the second edition

@pytest.fixture
def second(results):
    encoder, s = study.SMOKE['digits']
    exp = Experiment('digits', encoder, 'reg', dict(s, probe=dict(kind='linear'), checkpoints=['last', 'best'], epochs=2))
    return exp, study.complete(study.run(exp), exp, 't')


def test_records_of_the_second_edition(second):
    exp, recs = second
    r = {(r['readout'], r['checkpoint'], r['split']): r for r in recs}
    names = [f'{s}|{k}' for s in ('proto', 'linear@features', 'linear@projection') for k in ('global', 'each')]
    assert {k[0] for k in r} == {*names, 'online'} and {k[1] for k in r} == {'last', 'best'}
    for n in names:
        test, val = r[n, 'last', 'test'], r[n, 'last', 'val']
        once = n.endswith('global')
        assert set(test['replicates']) == {'macro_f1', 'macro_f1_tail', *(['map'] if once else [])}
        assert 'strength' in val['chosen'] or n.startswith('proto')
        assert val['metrics']['macro_f1'] == pytest.approx(val['chosen']['val_macro_f1'], abs=6e-5)
        assert val['metrics']['map'] == pytest.approx(val['chosen']['val_map'], abs=6e-5)
        assert test['metrics']['map'] == r[f"{n.split('|')[0]}|global", 'last', 'test']['metrics']['map']
        if once: assert np.mean([a for a in test['per_label_ap'] if a is not None]) == pytest.approx(test['metrics']['map'], abs=1e-3)
        else: assert 'per_label_ap' not in test
        assert unpack(test['replicates']['macro_f1']).mean() == pytest.approx(test['metrics']['macro_f1'], abs=.05)


def test_where_a_result_is_from(second):
    exp, recs = second
    from mlcl.data import load
    for r in recs:
        assert DESIGN <= r.keys() and {'scipy', 'iterstrat', 'torch'} <= r['versions'].keys() and 'transformers' not in r['versions']
        assert len(r['code']['sha256']) == 16 and r['machine']['threads'] == 1 and r['machine']['cpu']
    ds = load('digits', **exp.settings['data'])
    assert {r['splits_sha256'] for r in recs} == {study.splits_hash(ds.splits)}
    assert 'torchvision' in study.versions('tv:resnet50') and 'torchvision' in study.versions('mobilenet_v2:frozen') and 'transformers' in study.versions('hf:x')


def test_code_hash_follows_the_source(tmp_path, monkeypatch):
    for f in ('data.py', 'losses/reg.py', 'study.py'):
        (tmp_path/f).parent.mkdir(exist_ok=True)
        (tmp_path/f).write_text('a = 1')
    import mlcl
    monkeypatch.setattr(mlcl, '__file__', str(tmp_path/'study.py'))
    seen = lambda: study.code_version.__wrapped__()
    first = seen()
    assert first['commit'] is None and seen() == first
    (tmp_path/'study.py').write_text('a = 2') # decides no result
    assert seen() == first
    (tmp_path/'losses'/'reg.py').write_text('a = 2')
    changed = seen()
    (tmp_path/'losses'/'reg.py').rename(tmp_path/'losses'/'wreg.py')
    assert len({first['sha256'], changed['sha256'], seen()['sha256']}) == 3


def test_splits_hash():
    a = dict(train=[0, 1], test=[2])
    assert study.splits_hash(a) == study.splits_hash(dict(test=np.array([2], np.int32), train=np.array([0, 1])))
    assert len({study.splits_hash(s) for s in (a, dict(train=[1, 0], test=[2]), dict(train=[0], test=[1, 2]), dict(val=[0, 1], test=[2]))}) == 4


def test_scores_come_back(results):
    r = np.random.default_rng(0)
    ys = {s: (r.random((n, 3)) < .4).astype(np.uint8) for s, n in dict(train=9, val=4, test=5).items()}
    kept = {(k, c, s): r.normal(size=ys[s].shape) for k in ('own', 'linear@features:0.1') for c in ('last', 'best') for s in ('val', 'test')}
    path = study.save_scores('abc', kept, ys)
    assert path == results/'scores'/'abc.parquet' and [p.name for p in path.parent.iterdir()] == ['abc.parquet']
    back = study.stored_scores('abc')
    assert set(back) == set(kept) | {('labels', '', 'val'), ('labels', '', 'test')}
    for k, v in kept.items(): assert back[k].dtype == np.float32 and np.abs(back[k] - v).max() < 2e-3
    close = {('proto', 'last', s): .999 + 1e-4*r.normal(size=ys[s].shape) for s in ('val', 'test')} # float16 has steps of 5e-4 here
    study.save_scores('near', close, ys)
    for k, v in close.items(): assert np.abs(study.stored_scores('near')[k] - v).max() < 5e-7
    for s in ('val', 'test'): assert back['labels', '', s].dtype == np.uint8 and (back['labels', '', s] == ys[s]).all()
    with pytest.raises(FileNotFoundError, match='expected the scores of run abd'): study.stored_scores('abd')


def test_a_new_readout_needs_no_training(second):
    from mlcl.metrics import tune_threshold
    from mlcl.thresholds import shrunk_thresholds
    exp, recs = second
    for r in recs:
        if r['split'] != 'test' or not r['readout'].startswith('proto'): continue
        tune = tune_threshold if r['readout'].endswith('global') else shrunk_thresholds
        got = study.reread(exp.id, tune, 'proto', r['checkpoint'])
        assert got['map'] == pytest.approx(r['metrics']['map'], abs=5e-3) and got['macro_f1'] == pytest.approx(r['metrics']['macro_f1'], abs=.01)
    with pytest.raises(ValueError, match='name: expected one of'): study.reread(exp.id, tune_threshold, 'own')


# ---- tuning and reproducing

def scored(exp):
    "Validation scores that prefer lr near .002; one try in five fails. The test split is never asked for."
    assert exp.settings['bootstrap'] == 0 and exp.seed == 100
    lr = exp.settings['lr']
    if int(lr*1e6) % 5 == 0: raise FloatingPointError('not finite')
    f1 = 1 - abs(np.log(lr/.002))/10
    return [dict(readout=r, checkpoint='last', split='val', metrics=dict(macro_f1=float(f1)), per_label_f1=None, chosen={}, data_sha256='0',
                 seconds=.1) for r in ('probe', 'probe1')]


@pytest.fixture
def two_sets(results, monkeypatch):
    pytest.importorskip('optuna')
    monkeypatch.setattr(study, 'TUNED', dict(emotions=(50, 200), scene=(50, 200)))
    monkeypatch.setattr(study, 'pool', lambda exps, name, jobs, runner: ((e, study.attempt(e, name, runner)) for e in exps))
    return study.store_of('tuned_tries')


def test_tuning(two_sets):
    from mlcl.losses import LOSSES
    assert study.experiments('tuned') == [] and study.plan('tuned').empty and not study.tries(two_sets, 'scene', 'reg')
    assert study.tune(only='dataset=emotions,loss=reg,loss=bce', runner=scored, progress=False) == 2*study.TRIES
    assert two_sets.path.name == 'tuned_tries.jsonl.gz' and two_sets.path.exists()
    first = next(iter(study.tries(two_sets, 'emotions', 'reg').values()))[0]
    assert (first['lr'], first['epochs']) == study.LABELS['emotions'] and first['loss']['temperature'] == .1 # the common setting
    es = study.experiments('tuned')
    assert {(e.dataset, e.loss) for e in es} == {('emotions', 'reg'), ('emotions', 'bce')} and [e.seed for e in es] == 2*list(range(5))
    assert all(e.settings['bootstrap'] == 1000 and e.settings['checkpoints'] == ['last', 'best'] for e in es)
    for l in ('reg', 'bce'):
        t = study.tries(two_sets, 'emotions', l)
        values = {s['lr']: v for s, v in t.values() if v is not None}
        assert len(t) == study.TRIES and {e.settings['lr'] for e in es if e.loss == l} == {max(values, key=values.get)}
    assert study.tune(runner=scored, progress=False) == 2*len(LOSSES)*study.TRIES
    assert len(study.experiments('tuned')) == 2*len(LOSSES)*5


def test_tuning_goes_on_where_it_was(two_sets, tmp_path):
    only = 'dataset=scene,loss=abalone'
    study.tune(only=only, runner=scored, progress=False)
    whole = list(study.tries(two_sets, 'scene', 'abalone'))
    two_sets.path.unlink()
    count = []
    def stopped(exp):
        count.append(1)
        if len(count) == 5: raise KeyboardInterrupt
        return scored(exp)
    with pytest.raises(KeyboardInterrupt): study.tune(only=only, runner=stopped, progress=False)
    store = Store(two_sets.path)
    assert len(study.tries(store, 'scene', 'abalone')) == 4
    study.tune(only=only, runner=scored, progress=False)
    assert list(study.tries(Store(two_sets.path), 'scene', 'abalone')) == whole
    for bad in ('dataset=scen', 'loss=regg'):
        with pytest.raises(ValueError, match='only: '): study.tune(only=bad, runner=scored)
    with pytest.raises(ValueError, match='study: '): study.tune('first')


def test_every_space_is_one_of_settings(monkeypatch):
    pytest.importorskip('optuna')
    from mlcl.losses import LOSSES
    for l in LOSSES: study.attempt_at('yeast', l, study.ask('yeast', l, []))


def test_reproduce(tiny, capsys):
    from mlcl.cli import main
    def runner(shift): return lambda exp: [r | dict(metrics=dict(macro_f1=.5 + shift, macro_f1_lo=.4, macro_f1_hi=.6)) for r in part(exp.seed)]
    study.run_all(study.experiments('t', only='seed=0'), tiny, 't', 1, say=lambda *a, **k: None, runner=SHIFTED)
    run = tiny.records()[0]['run']
    (tiny.path.parent/'bench.jsonl').write_text('{"kind": "not a record of a study"}\n'*2)
    t = study.reproduce(run[:8], runner(.05))
    assert list(t.new) == [.55]*2 and t.agrees.all() and not study.reproduce(run, runner(.2)).agrees.any()
    assert len(study.reproduce(f'{run}/probe1', runner(0.))) == 1
    other = lambda exp: [r | dict(data_sha256='1') for r in runner(0.)(exp)]
    for bad, how, said in [('nothing', None, 'id: expected'), (run, other, 'data: expected')]:
        with pytest.raises(ValueError, match=said): study.reproduce(bad, how)
    assert main(['study', 'reproduce', 'nothing']) == 2 and 'id: expected' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['first', 'labels_search', 'labels'])
def test_published_records_are_found(name):
    "Beside everything else that lies in results/."
    r = next(iter(study.store_of(name).records()))
    assert {x['run'] for x in study.find(r['id'])} == {r['run']}


def SHIFTED(exp): return [r | dict(metrics=dict(macro_f1=.5, macro_f1_lo=.4, macro_f1_hi=.6)) for r in part(exp.seed)]


DESIGN = set('id dataset encoder loss settings fraction seed readout split metrics per_label_f1 seconds device versions data_sha256'.split())


# ---- kill -9

DRIVER = '''
import os, sys, time
from pathlib import Path
from mlcl import study
study.full_settings = lambda *a: {}
study.device_name = lambda: 'cpu'
study.STUDIES['k'] = ('killed', lambda quick: [study.Experiment('d', 'e', 'l', {}, 1., s) for s in range(16)])
def slow(exp):
    with open(os.environ['MLCL_RESULTS'] + '/pids', 'a') as f: f.write(f'{os.getpid()}\\n')
    time.sleep(.15)
    return [dict(readout=f'r{i}', checkpoint='last', split='val', metrics=dict(macro_f1=exp.seed/16), per_label_f1=['x'*2000],
                 chosen={}, data_sha256='0', seconds=.1) for i in range(20)]
if __name__ == '__main__':
    print('start', flush=True)
    study.run_study('k', jobs=2, runner=slow)
'''


def alive(pid):
    try:
        if not Path('/proc').exists(): return os.kill(pid, 0) is None
        return Path(f'/proc/{pid}/stat').read_text().split(')')[1].split()[0] != 'Z'
    except OSError: return False


def gone(pids, seconds=20):
    end = time.time() + seconds
    while any(map(alive, pids)) and time.time() < end: time.sleep(.05)
    return not any(map(alive, pids))


def check_whole(path, ids):
    "Every run is there exactly once and entirely."
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        rs = Store(path).read()
    lines = [json.loads(l) for l in path.read_text().splitlines()]
    assert [r['id'] for r in rs] == [r['id'] for r in lines] and len({r['id'] for r in rs}) == len(rs)
    assert Counter(r['run'] for r in rs) == {r['run']: r['of'] for r in rs} and {r['id'] for r in rs} == ids


def test_kill_9_at_random_moments(tmp_path):
    script = tmp_path/'driver.py'
    script.write_text(DRIVER)
    def start(folder):
        (tmp_path/folder).mkdir(exist_ok=True)
        env = os.environ | dict(MLCL_RESULTS=str(tmp_path/folder))
        return subprocess.Popen([sys.executable, str(script)], env=env, cwd=tmp_path,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    whole, rng = start('whole'), random.Random(7)
    whole.communicate(timeout=60)
    ids = {r['id'] for r in Store(tmp_path/'whole'/'k.jsonl').read()}
    assert whole.returncode == 0 and len(ids) == 16*20
    file, kills = tmp_path/'killed'/'k.jsonl', 0
    while len(Store(file).records() if file.exists() else []) < len(ids) and kills < 8:
        p = start('killed')
        p.stdout.readline()
        time.sleep(rng.uniform(.2, 2.))
        kills += p.poll() is None
        p.kill(), p.wait()
        pids = set(map(int, (tmp_path/'killed'/'pids').read_text().split())) if (tmp_path/'killed'/'pids').exists() else set()
        assert gone(pids), 'a worker outlived its driver'
    last = start('killed')
    last.communicate(timeout=60)
    assert last.returncode == 0 and kills >= 2
    check_whole(file, ids)


def test_busy_workers_leave_with_their_driver(tmp_path):
    script = tmp_path/'driver.py'
    script.write_text(DRIVER.replace('time.sleep(.15)', 'time.sleep(60)'))
    p = subprocess.Popen([sys.executable, str(script)], env=os.environ | dict(MLCL_RESULTS=str(tmp_path)), cwd=tmp_path,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.time() + 60
    while (not (tmp_path/'pids').exists() or (tmp_path/'pids').read_text().count('\n') < 2) and time.time() < end: time.sleep(.05)
    p.kill(), p.wait()
    assert gone(set(map(int, (tmp_path/'pids').read_text().split()))) and not (tmp_path/'k.jsonl').exists()


def test_kill_9_of_the_real_command(tmp_path):
    def start(): return subprocess.Popen(
        [sys.executable, '-c', 'import sys; from mlcl.cli import main; sys.exit(main())', 'study', 'run', 'smoke', '--jobs', '1'],
        env=os.environ | dict(MLCL_RESULTS=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p, store = start(), Store(tmp_path/'smoke.jsonl')
    while '[' not in p.stdout.readline(): assert p.poll() is None
    time.sleep(random.Random(3).uniform(0., .8))
    p.kill(), p.communicate()
    kept = {r['run'] for r in store.read()}
    p = start()
    out, err = p.communicate(timeout=200)
    assert p.returncode == 0 and f'4 runs, {len(kept)} held' in out, err
    runs = study.experiments('smoke')
    assert kept and {r['run'] for r in store.read()} == {e.id for e in runs}
    check_whole(store.path, {r['id'] for r in store.read()})


def test_ctrl_c_ends_cleanly(tmp_path):
    script = tmp_path/'driver.py'
    script.write_text(DRIVER.replace("    study.run_study('k', jobs=2, runner=slow)",
        "    import mlcl.cli\n    run = study.run_study\n    study.run_study = lambda *a, **k: run('k', jobs=2, runner=slow)\n"
        "    sys.exit(mlcl.cli.main(['study', 'run', 'k']))"))
    p = subprocess.Popen([sys.executable, str(script)], env=os.environ | dict(MLCL_RESULTS=str(tmp_path)), cwd=tmp_path,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # shells ignore it for what they start in the background
    while '[ 2/16]' not in p.stdout.readline(): assert p.poll() is None
    os.killpg(p.pid, signal.SIGINT) # as a terminal does: to the driver and its workers
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and err.strip().endswith('the same command goes on') and 'Traceback' not in err
    assert gone(set(map(int, (tmp_path/'pids').read_text().split()))) and len(Store(tmp_path/'k.jsonl').records()) >= 2*20


def test_encoder_settings_of_all_studies():
    "What a study would refuse only after its start: names of augmentations."
    from mlcl.encoders import AUGMENTATIONS
    names = {e.settings['encoder'].get('augment', 'none') for s in study.STUDIES for e in study.experiments(s)}
    assert names <= set(AUGMENTATIONS) and 'light' in names
