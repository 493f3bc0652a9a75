"A run, its readouts and its records. Training is real where the name says so."
import numpy as np
import pytest
from mlcl import study
from mlcl.metrics import pack, unpack
from mlcl.study import Experiment

DESIGN = set('id dataset encoder loss settings fraction seed readout split metrics per_label_f1 seconds device '
             'versions data_sha256'.split())


@pytest.fixture
def smoke(): return study.SMOKE['digits'].encoder, study.SMOKE['digits'].settings


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    return tmp_path


@pytest.mark.parametrize('n', [1, 2, 100])
def test_pack(n):
    v = np.random.default_rng(n).normal(.4, .02, n)
    assert np.abs(unpack(pack(v)) - v).max() <= max(np.abs(v - v.mean()).max()/250, 1e-7)
    assert (unpack(pack(np.full(5, .25))) == .25).all() and (unpack([.1, .2]) == [.1, .2]).all()


def test_second_training_is_a_readout_of_its_own(smoke, results, monkeypatch):
    import mlcl.learner
    encoder, s = smoke
    train, calls = mlcl.learner.train, []
    def spy(ds, encoder, loss, settings, **more):
        calls.append((loss, settings['epochs'], more.get('start'), t := train(ds, encoder, loss, settings, **more)))
        return t
    monkeypatch.setattr(mlcl.learner, 'train', spy)
    plain, more = (Experiment('digits', encoder, 'reg', dict(s, **k)) for k in ({}, dict(finetune=1)))
    assert ('finetune' not in plain.settings and Experiment('digits', encoder, 'reg', dict(s, finetune=0)).id
            == plain.id != more.id)
    recs = {k: {(r['readout'], r['split']): r for r in study.run(e)} for k, e in dict(plain=plain, more=more).items()}
    assert set(recs['more']) - set(recs['plain']) == {('finetune', 'val'), ('finetune', 'test')}
    assert ([c[:2] for c in calls] == [('reg', 1), ('reg', 1), ('bce', 1)] and calls[2][2] is calls[1][3].model.encoder
            and not calls[0][2])
    # the first training is not touched
    for k, r in recs['plain'].items(): assert r['metrics'] == recs['more'][k]['metrics']
    got = recs['more']['finetune', 'test']['metrics']
    assert (got != recs['more']['probe1', 'test']['metrics']
            and recs['more']['finetune', 'val']['chosen']['threshold'] is not None)


def test_real_nan_is_recorded_and_the_study_goes_on(smoke, results, monkeypatch):
    encoder, s = smoke
    runs = [Experiment('digits', encoder, 'reg', dict(s, lr=lr)) for lr in (1e30, 1e-3)]
    monkeypatch.setitem(study.STUDIES, 'nan', study.Study('nan', 'one diverges', lambda: runs))
    assert study.run_study('nan', jobs=1, progress=False) == dict(held=0, done=1, failed=1)
    store = study.store_of('nan')
    failed, = store.failed().values()
    assert (failed['run'] == runs[0].id and failed['error']['kind'] == 'TrainingFailed'
            and 'epoch' in failed['error']['message'])
    r = store.records(readout='probe1', split='test')[0]
    assert DESIGN <= r.keys() and unpack(r['replicates']['macro_f1']).shape == (100,) and len(r['per_label_f1']) == 10
    assert r['metrics']['macro_f1_lo'] <= r['metrics']['macro_f1'] <= r['metrics']['macro_f1_hi']
    assert sum('history' in r for r in store.read()) == 1


def test_a_search_leaves_the_test_split_alone(smoke, results):
    encoder, s = smoke
    assert {r['split'] for r in study.run(Experiment('digits', encoder, 'bce', dict(s, bootstrap=0)))} == {'val'}


def test_best_epoch_that_is_the_last_is_read_out_once(smoke, results, monkeypatch):
    import mlcl.probe
    calls, read_out = [], mlcl.probe.read_out
    encoder, s = smoke
    exp = Experiment('digits', encoder, 'bce', dict(s, checkpoints=['last', 'best']))
    monkeypatch.setattr(mlcl.probe, 'read_out', lambda *a, **k: calls.append(1) or read_out(*a, **k))
    rs = study.run(exp)
    last, best = ([{k: v for k, v in r.items() if k != 'checkpoint'} for r in rs if r['checkpoint'] == c
                   and r['readout'] != 'online'] for c in ('last', 'best'))
    assert len(calls) == 1 and last == best and len(last) == 8


@pytest.fixture
def second(smoke, results):
    encoder, s = smoke
    exp = Experiment('digits', encoder, 'reg', dict(s, probe=dict(kind='linear'),
                                                    checkpoints=['last', 'best'], epochs=2))
    return exp, study.completed(study.run(exp), exp, 't')


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
        if once:
            assert np.mean([a for a in test['per_label_ap']
                            if a is not None]) == pytest.approx(test['metrics']['map'], abs=1e-3)
        else: assert 'per_label_ap' not in test
        assert unpack(test['replicates']['macro_f1']).mean() == pytest.approx(test['metrics']['macro_f1'], abs=.05)


def test_where_a_result_is_from(second):
    exp, recs = second
    from mlcl.data import load
    for r in recs:
        assert (DESIGN <= r.keys() and {'scipy', 'iterstrat', 'torch'} <= r['versions'].keys()
                and 'transformers' not in r['versions'])
        assert len(r['code']['sha256']) == 16 and r['machine']['threads'] == 1 and r['machine']['cpu']
    ds = load('digits', **exp.settings['data'])
    assert {r['splits_sha256'] for r in recs} == {study.splits_hash(ds.splits)}
    assert ('torchvision' in study.versions('tv:resnet50') and 'torchvision' in study.versions('mobilenet_v2:frozen')
            and 'transformers' in study.versions('hf:x'))


def test_scores_come_back(results):
    r = np.random.default_rng(0)
    ys = {s: (r.random((n, 3)) < .4).astype(np.uint8) for s, n in dict(train=9, val=4, test=5).items()}
    kept = {(k, c, s): r.normal(size=ys[s].shape) for k in ('own', 'linear@features:0.1') for c in ('last', 'best')
            for s in ('val', 'test')}
    path = study.save_scores('abc', kept, ys)
    assert path == results/'scores'/'abc.parquet' and [p.name for p in path.parent.iterdir()] == ['abc.parquet']
    back = study.stored_scores('abc')
    assert set(back) == set(kept) | {('labels', '', 'val'), ('labels', '', 'test')}
    for k, v in kept.items(): assert back[k].dtype == np.float32 and np.abs(back[k] - v).max() < 2e-3
    # float16 has steps of 5e-4 here
    close = {('proto', 'last', s): .999 + 1e-4*r.normal(size=ys[s].shape) for s in ('val', 'test')}
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
        assert (got['map'] == pytest.approx(r['metrics']['map'], abs=5e-3)
                and got['macro_f1'] == pytest.approx(r['metrics']['macro_f1'], abs=.01))
    with pytest.raises(ValueError, match='name: expected one of'): study.reread(exp.id, tune_threshold, 'own')
