"Inputs at the edge: each of these once gave a wrong number without a word, or an error only after the training."
import subprocess, sys, time
import numpy as np, pandas as pd, pytest, torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from mlcl import metrics as m
from mlcl.callbacks import ridge
from mlcl.data import load, multi_hot, split, split_indices
from mlcl.encoders import ENCODERS, Vocabulary
from mlcl.labels import OneHot, coverage, intersection, jaccard, union
from mlcl.learner import load_trained, train
from mlcl.linear import logistic
from mlcl.losses import BCELoss, GMALoss, SoftJaccardLoss, SupConLoss, make_loss
from mlcl.own import BaselineClassifier, Blend, MultiLabelClassifier, read
from mlcl.own.baselines import fit_baseline, load_baseline, platt
from mlcl.probe import probe_grid, read_out
from mlcl.stats import effect, effects, fold_interval, friedman, leaderboard, mean_interval, score_table
from mlcl.study import Experiment, Store, catalog, reread, save_scores, stored_scores
from mlcl.study.tune import every_try
from mlcl.thresholds import shrunk_thresholds
from mlcl.verdicts import holm, verdict


def table(n=80, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return x, (x[:, :3] > .2).astype(int)


# ---- probabilities and thresholds

@pytest.mark.parametrize('seed', range(6))
def test_a_baseline_predicts_what_its_readout_promises(seed):
    "On separable data the sigmoid was so steep that a threshold became 1, which no probability exceeds."
    rng = np.random.default_rng(seed)
    y = (rng.random((300, 3)) < [.4, .7, .4]).astype(int)
    x = (y*[.5, 9., 3.] + rng.normal(size=(300, 3))*.05).astype(np.float32)
    ds = read((x, y))
    f, i = BaselineClassifier('logistic').fit_dataset(ds), ds.splits['test']
    r = fit_baseline(ds, 'logistic').readouts['scores|label']
    assert (f.predict(x[i]) == m.predict(r.p['test'], r.threshold)).all() and (f.thresholds_ < 1).all()


def test_the_sigmoid_has_platts_targets():
    slope, cut = platt(np.array([[1, 0], [1, 0], [0, 1]]), np.array([[3., -3], [2, -4], [-2, 5]]))
    sure = 1/(1 + np.exp(-(slope*5 + cut)))
    assert 0 < slope < 5 and sure < .999 # three positives, three negatives: the targets are 4/5 and 1/5
    assert platt(np.array([[1., np.nan]]), np.array([[2., 9]])) # one class alone


def test_no_two_logits_become_one_probability():
    rng = np.random.default_rng(55)
    q, g = rng.choice([.3, .7, .9], 3), rng.choice([.5, 3, 9], 3)
    y = (rng.random((120, 3)) < q).astype(int)
    x = (y*g + rng.normal(size=(120, 3))*.05).astype(np.float32)
    f = MultiLabelClassifier('zlpr', epochs=60, lr=.1, random_state=55, readout='own|label').fit(x, y)
    z, p = f.trained_.predict(x)['own'], f.predict_proba(x)
    assert p.dtype == float and len(np.unique(p[z < 30])) == len(np.unique(z[z < 30]))


# ---- features, labels and scores of odd kinds

@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32])
def test_whole_numbers_as_features(dtype):
    x = np.random.default_rng(0).integers(0, 50, (60, 4))
    y = (x[:, :2] > 25).astype(float)
    y[::2] = np.nan
    assert np.allclose(logistic(x.astype(dtype), y, (.01,)).logits(x, 0),
                       logistic(x.astype(float), y, (.01,)).logits(x, 0), atol=.01)


def test_features_that_are_no_numbers():
    x, y = table()
    assert logistic(x > 0, y, (.01,)).logits(x > 0, 0).shape == y.shape
    for bad, said in ((x.astype(complex), 'complex'), (x.astype(str), 'U'), (x.astype(object), 'object')):
        with pytest.raises(ValueError, match=f'^x: expected numbers, got .*{said}'): logistic(bad, y)
    with pytest.raises(ValueError, match='^strengths: expected numbers > 0'): logistic(x, y, (.1, np.inf))
    far = x.astype(float) + 2e8  # a small spread beside a large mean is no constant in double precision
    assert np.abs(logistic(far, y, (.001,)).logits(far, 0) - logistic(x, y, (.001,)).logits(x, 0)).max() < .1


@pytest.mark.parametrize('how, said', [(dict(grid=[(float('nan'), 0.)]), 'grid: expected pairs'),
    (dict(grid=[(.1, np.inf)]), 'grid: expected pairs'),
    (dict(epochs=1.5), 'epochs: expected a whole number, got 1.5'),
    (dict(heads='a'), "heads: expected a whole number, got 'a'")])
def test_a_grid_without_meaning(how, said):
    x, y = table()
    with pytest.raises(ValueError, match=said): probe_grid(x, y, x, y, **dict(epochs=1, heads=1) | how)


def test_an_unknown_loss_is_not_read_out():
    x, y = table()
    held = dict.fromkeys(('train', 'val'), dict(features=x, own=x[:, :3], proto=None, projection=None))
    with pytest.raises(ValueError, match='loss_name: expected one of .*twoway'):
        read_out(held, dict.fromkeys(held, y), 'two-way', epochs=1, heads=1)


@pytest.mark.parametrize('args, said', [((lambda x, y: (x*np.nan, y, [])), '^h: expected finite'),
    ((lambda x, y: (x, y, [x[:, :2]])), r'^others\[0\]: expected'),
    ((lambda x, y: (x, y[:3], [])), '^y: expected labels'), ((lambda x, y: (x, y, [], 0)), '^strength: expected'),
    ((lambda x, y: (x, y, [], -1)), '^strength: expected')])
def test_the_online_probe_says_what_is_wrong(args, said):
    with pytest.raises(ValueError, match=said): ridge(*args(*table()))


def test_metrics_of_tensors_masks_and_sparse_matrices():
    from scipy.sparse import csr_matrix
    y, p = np.array([[1, 0], [0, 1], [1, 1]]), np.array([[.2, .9], [.4, .6], [.7, .1]])
    gaps = np.ma.masked_array(y, mask=[[0, 1], [0, 0], [1, 0]])
    assert m.mean_average_precision(gaps, p) == m.mean_average_precision(gaps.astype(float).filled(np.nan), p)
    want = m.scores(y, p)
    assert m.scores(csr_matrix(y), p) == want and m.scores(torch.tensor(y), torch.tensor(p, requires_grad=True)) == want
    assert m.scores(y, p.astype(object)) == want and m.scores(y, torch.tensor(y*1.).bfloat16())['macro_f1'] == 1
    for bad in (p.astype(complex), p.astype(str)):
        for f in (m.scores, m.mean_average_precision):
            with pytest.raises(ValueError, match='^p: expected real numbers'): f(y, bad)
        with pytest.raises(ValueError, match='^p: expected real numbers'): m.predict(bad)
    with pytest.raises(ValueError, match='^y: expected labels in'): m.scores(y.astype(str), p)


def test_resamples_and_their_text():
    y = [[1, 0], [0, 1]]
    for bad in ([[-1, 2]], [[1, np.nan]]):
        with pytest.raises(ValueError, match='^counts: expected how often'): m.replicates(y, y, bad)
    for bad in ([np.nan, 1], [np.inf], []):
        with pytest.raises(ValueError, match='^values: expected finite'): m.pack(bad)
    for bad in ('1 2 !!!', '1 2', 'a b AAA='):
        with pytest.raises(ValueError, match='^text: expected what'): m.unpack(bad)
    for bad in (dict(a=[True, False]), dict(a=None), dict(a=[0, 5]), dict(a=[.5])):
        with pytest.raises(ValueError, match="buckets: expected indices of 2 labels in 'a'"):
            m.scores(y, y, buckets=bad)
    assert m.scores(y, y, buckets=dict(none=[]))['macro_f1_none'] is None


# ---- losses

def test_tensors_that_no_loss_can_read():
    y = torch.tensor([[1, 0], [1, 1], [0, 1]])
    for loss in (SupConLoss(), BCELoss()):
        for bad in (torch.eye(3, 2).to_sparse(), torch.empty(3, 2, device='meta'),
                    torch.eye(3, 2).to(torch.float8_e5m2)):
            with pytest.raises(ValueError, match='(embeddings|logits): expected a floating tensor'): loss(bad, y)
        with pytest.raises(ValueError, match='^labels: expected a dense tensor'): loss(torch.eye(3, 2), y.to_sparse())


@pytest.mark.parametrize('make, said', [
    (lambda: SupConLoss(temperature=1e-38), '^temperature: expected a number >= 1e-6'),
    (lambda: SupConLoss(temperature=-1), '^temperature: expected a finite number > 0'),
    (lambda: SoftJaccardLoss(t=1e-40), '^t: expected a number >= 1e-6'), (lambda: BCELoss(clip=-3), '^clip: expected'),
    (lambda: BCELoss(pos_weight=[1, 2], clip=.5), '^clip: expected'),
    (lambda: make_loss('bce', 3, 4, clip='zzz'), '^clip: expected'),
    (lambda: make_loss(['bce'], 3, 4), '^name: expected'), (lambda: make_loss('bce', 0, 4), '^n_labels: expected'),
    (lambda: GMALoss(labels=torch.eye(3), cooccurrence=torch.eye(3)), '^cooccurrence: expected None beside labels'),
    (lambda: GMALoss(cooccurrence=[[1, 0], [0, 1]], n_instances=2.5), '^n_instances: expected'),
    (lambda: GMALoss(cooccurrence=[[0, 0], [0, 0]], n_instances=0), '^n_instances: expected'),
    (lambda: GMALoss(cooccurrence=[[1, 0], [0, 1]], n_instances='a'), '^n_instances: expected')])
def test_settings_that_mean_nothing(make, said):
    with pytest.raises(ValueError, match=said): make()


def test_label_sets_of_two_precisions():
    y = torch.eye(3)
    assert intersection(y.double(), y).dtype == torch.float64 and torch.equal(intersection(y, y.double()), y.double())
    with pytest.raises(ValueError, match='^a: expected label sets as a tensor'): intersection(y.numpy(), y)


# ---- one's own data

def test_a_baseline_refuses_what_it_cannot_read():
    x, y = table()
    frame = pd.DataFrame(x, columns=list('abcd')).assign(labels=[','.join(str(k) for k in np.flatnonzero(r))
                                                                 for r in y])
    for name in ('forest', 'logistic'):
        b = BaselineClassifier(name).fit_dataset(read((x, y)))
        for bad, said in ((x*np.nan, 'finite numbers'), (x[:, :2], 'rows of 4 features'), (x[0], 'rows of 4 features'),
                          (['a text'], 'expected features data')):
            with pytest.raises(ValueError, match=f'^X: .*{said}'): b.predict(bad)
        b = BaselineClassifier(name).fit_dataset(read(frame, features='a,b,c,d'))
        assert (b.predict(frame[list('dcba')]) == b.predict(x)).all()
    words = pd.DataFrame(dict(text=['red sea', 'blue sky', 'red sky', 'blue sea']*12, labels=['a', 'b', 'a,b', 'b']*12))
    with pytest.raises(ValueError, match='^text: expected texts, got None in row 2'):
        BaselineClassifier('tfidf_svm').fit_dataset(read(words, text='text')).predict(['red', None])


@pytest.mark.parametrize('make, said', [(lambda: BaselineClassifier('nn'), '^name: expected one of'),
    (lambda: BaselineClassifier('logistic', 'zz'), '^readout: expected one of'),
    (lambda: BaselineClassifier('forest', random_state=-1), '^random_state: expected'),
    (lambda: BaselineClassifier('logistic', refit='yes'), '^refit: expected'),
    (lambda: Blend('bce+tfidf_svm', epochs=1), '^loss: expected baselines among .* for features data, got tfidf_svm')])
def test_refused_before_the_training(make, said, monkeypatch):
    monkeypatch.setattr('mlcl.learner.train', lambda *a, **k: pytest.fail('it trained'))
    monkeypatch.setattr('mlcl.own.baselines.fit_baseline', lambda *a, **k: pytest.fail('it trained'))
    with pytest.raises(ValueError, match=said): make().fit_dataset(read(table()))


def test_a_readout_that_the_loss_lacks_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr('mlcl.learner.train', lambda *a, **k: pytest.fail('it trained'))
    for how in (dict(loss='reg', readout='own|label'), dict(loss='twoway', thresholds=.5, readout='own@.5')):
        with pytest.raises(ValueError, match=f"readout: expected one of .* for {how['loss']}"):
            MultiLabelClassifier(epochs=1, **how).fit(*table())
    with pytest.raises(ValueError, match='for reg'): Blend('bce+reg', readout='own|label')


def test_models_that_are_not_fitted_say_so(tmp_path):
    for model in (BaselineClassifier('logistic'), Blend('bce+logistic', epochs=1)):
        for f in (model.predict, model.predict_proba, lambda x: model.save(tmp_path/'m.safetensors')):
            with pytest.raises(NotFittedError): f(table()[0])


@pytest.mark.parametrize('model', [lambda: BaselineClassifier('logistic'), lambda: Blend('bce+logistic', epochs=1),
                                   lambda: MultiLabelClassifier(epochs=1)])
def test_a_model_is_saved_in_a_new_folder_whatever_the_case_of_its_ending(model, tmp_path):
    from mlcl.own import load_model
    fitted = model().fit_dataset(read(table()))
    fitted.save(file := tmp_path/'new'/'folder'/'m.SAFETENSORS')
    assert file.is_file() and (load_model(file).predict(table()[0]) == fitted.predict(table()[0])).all()


def test_score_takes_what_fit_takes():
    x, y = table()
    y = y.astype(float)
    y[::9, 0] = np.nan
    for unknown in ('mask', 'absent'):
        search = GridSearchCV(MultiLabelClassifier('bce', epochs=2, random_state=0, unknown=unknown),
                              dict(lr=[1e-9, 1e-2]), cv=KFold(2)).fit(x, y)
        assert np.isfinite(search.best_score_)
    f = MultiLabelClassifier('bce', epochs=5, unknown='mask').fit(x, y)
    assert (f.score(x, np.where(y == y, y, f.predict(x))) == f.score(x, y)
            and f.score(x, f.predict(x).astype(np.float16)) == 1)
    with pytest.raises(ValueError, match='unknown'):
        MultiLabelClassifier('bce', epochs=1).fit(x, np.nan_to_num(y)).score(x, y)


def test_a_mask_is_no_number():
    x, y = table()
    with pytest.raises(ValueError, match='NaN'):
        MultiLabelClassifier(epochs=1).fit(np.ma.masked_array(x, mask=x > 2), y)


@pytest.mark.parametrize('seed', [-1, 2**32, 1.5])
def test_a_seed_has_a_name(seed):
    with pytest.raises(ValueError, match='^seed: expected a whole number'): read(table(), seed=seed)


# ---- training and its records

@pytest.mark.parametrize('loss, settings', [('bce', dict(pos_weight=np.ones(3))),
                                            ('bce', dict(pos_weight=torch.ones(3))),
                                            ('reg', dict(temperature=np.float32(.125))),
                                            ('reg', dict(product=torch.bfloat16))])
def test_what_is_trained_can_be_saved(loss, settings, tmp_path):
    t = train(read(table()), 'mlp', loss, dict(epochs=1, loss=settings), share=np.float32(.5), seed=np.int64(3))
    t.save(tmp_path/'m.safetensors')
    again = load_trained(tmp_path/'m.safetensors')
    assert ((again.seed, again.share) == (3, .5) and np.allclose(again.predict(table()[0])['features'],
                                                                 t.predict(table()[0])['features']))


def test_what_cannot_be_saved_is_not_trained():
    with pytest.raises(ValueError, match='^settings.encoder: expected what JSON can hold'):
        train(read(table()), 'mlp', 'bce', dict(epochs=1, encoder=dict(widths={1, 2})))


@pytest.mark.parametrize('given, said', [(dict(checkpoints=[]), 'checkpoints'),
    (dict(checkpoints=['last', 'last']), 'checkpoints'), (dict(checkpoints=['zz']), 'checkpoints'),
    (dict(bootstrap=1.5), 'bootstrap'), (dict(bootstrap=-5), 'bootstrap'), (dict(finetune=1.5), 'finetune'),
    (dict(finetune=-1), 'finetune'), (dict(probe=dict(epochs=-1)), 'probe.epochs'),
    (dict(probe=dict(grid=[])), 'probe.grid'), (dict(probe=dict(grid=[[-1, 0]])), 'probe.grid'), (dict(lr='abc'), 'lr'),
    (dict(epochs=0), 'epochs'), (dict(precision='zzz'), 'precision'),
    (dict(loss=dict(temperature=-1)), 'loss.temperature'), (dict(data=dict(most=-1)), 'data.most'),
    (dict(data=dict(resplit=.5)), 'data.resplit')])
def test_an_experiment_that_would_fail_is_not_planned(given, said):
    with pytest.raises(ValueError, match=f'settings.{said}|{said}: expected'):
        Experiment('digits', 'resnet', 'reg', given)


@pytest.mark.parametrize('more', [dict(seed=-1), dict(seed=0.), dict(seed=True), dict(seed=2**40), dict(seed=None),
                                  dict(fraction=True), dict(fraction='a'), dict(fraction=0)])
def test_shares_and_seeds_of_experiments(more):
    with pytest.raises(ValueError, match=f'^{next(iter(more))}: expected'):
        Experiment('digits', 'resnet', 'reg', **more)


def test_scores_are_kept_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    y, key = {'val': np.eye(2, dtype=np.uint8)}, ('own', 'last', 'val')
    for p in ([[0., 1], [2, 1e5]], [[1e-9, 2e-9], [3e-9, 4e-9]], [[.5, .25], [1, 2]]):
        save_scores('r', {key: np.array(p)}, y)
        assert (np.allclose(stored_scores('r')[key], p, rtol=1e-3, atol=0)
                and stored_scores('r')['labels', '', 'val'].tolist() == [[1, 0], [0, 1]])
    for bad in (np.full((2, 2), np.nan), np.zeros((5, 2)), np.zeros((2, 3))):
        with pytest.raises(ValueError, match='^kept: expected'): save_scores('r', {key: bad}, y)
    with pytest.raises(ValueError, match='^run: expected scores of test data'): reread('r', lambda y, p: 0, 'own')
    save_scores('r', {('own', 'best', s): np.eye(2) for s in ('val', 'test')}, dict(val=np.eye(2), test=np.eye(2)))
    assert reread('r', lambda y, p: .5, 'own')['macro_f1'] == 1
    with pytest.raises(ValueError, match='^checkpoint: expected'): reread('r', lambda y, p: 0, 'own', 'zzz')


# ---- the store

def records_in(folder, n=3):
    s = Store(folder/'t')
    for i in range(n): s.append([dict(run=f'r{i}', id=f'r{i}/a', of=1, seed=i, metrics=dict(a=.5))])
    return s


def test_nothing_is_missed_while_somebody_publishes(tmp_path, monkeypatch):
    s, read_table = records_in(tmp_path), Store._from_parquet
    def slow(self, *a): # what was read is out of date when it comes back
        res = read_table(self, *a)
        monkeypatch.setattr(Store, '_from_parquet', read_table)
        Store(tmp_path/'t').publish()
        return res
    monkeypatch.setattr(Store, '_from_parquet', slow)
    assert len(s.records()) == 3 == len(s.records())


def test_readers_beside_a_writer_see_ever_more(tmp_path):
    records_in(tmp_path, 5).publish()
    writer = subprocess.Popen([sys.executable, '-c', f"""
from mlcl.study import Store
s = Store({str(tmp_path/'t')!r})
for i in range(5, 60):
    s.append([dict(run=f'r{{i}}', id=f'r{{i}}/a', of=1, seed=i, metrics=dict(a=.5))])
    s.publish()
"""])
    s, seen = Store(tmp_path/'t'), [5]
    while writer.poll() is None:
        seen.append(len(s.records()))
        time.sleep(.005)
    assert writer.returncode == 0 and seen == sorted(seen) and len(s.records()) == 60


def test_a_failure_elsewhere_undoes_no_success(tmp_path):
    s, base = Store(tmp_path/'t'), dict(run='r1', of=1, dataset='yeast', loss='bce', settings={}, seed=0)
    s.append([dict(base, id='r1/error/1', readout=None, metrics=None, error=dict(kind='X', message='', where=''))])
    s.append([dict(base, id='r1/probe1', readout='probe1', metrics=dict(macro_f1=.7))])
    held = every_try(s)
    s.publish()
    assert every_try(s) == held and held['yeast', 'bce']['r1'][1] == .7


def test_questions_that_a_store_cannot_answer(tmp_path):
    s = records_in(tmp_path)
    for bad in (dict(settings={}), dict(split=None), dict(seed=[1, None])):
        with pytest.raises(ValueError, match=f'^{next(iter(bad))}: expected a text, a number'): s.records(**bad)
    assert [r['seed']
            for r in s.records(seed=np.int64(1))] == [r['seed']
                                                      for r in s.records(seed=np.arange(1, 2).tolist())] == [1]
    with pytest.raises(ValueError, match='^records: expected all records of a run, got none'): s.append([])
    s.publish()
    s.published.write_bytes(b'damaged')
    for f in (s.records, s.read, s.fields, s.frame, lambda: Store(tmp_path/'t').has('r1'), s.check):
        with pytest.raises(ValueError, match='t.parquet: damaged'): f()


def test_load_baseline_still_reads_a_threshold_of_one(tmp_path):
    b = BaselineClassifier('logistic').fit_dataset(read(table()))
    b.thresholds_ = np.ones(3)  # as an older version saved it
    b.save(tmp_path/'b.safetensors')
    assert (load_baseline(tmp_path/'b.safetensors').thresholds_ == 1).all()


# ---- what is refused at the door, or read as it is meant

def run_of(i=0, **more):
    return [dict(dict(run=f'r{i}', id=f'r{i}/a', of=1, seed=i, dataset='yeast', metrics=dict(macro_f1=.5)), **more)]


@pytest.mark.parametrize('more', [dict(metrics={'macro f1': .5, 'P@1': .25}), dict(metrics={'': .5}), {'a{}': 1},
    dict(metrics={'f{}': .5}), {'metrics.q': 1}, dict(fields=1), dict(metrics=dict(fields=.5)), {'': 1}])
def test_what_a_file_would_lose_is_not_taken(tmp_path, more):
    s = Store(tmp_path/'t')
    with pytest.raises(ValueError, match='^records: expected names without'): s.append(run_of(**more))
    assert s.append(run_of(metrics={'P@1': .25})) and s.publish() == 1 and s.records()[0]['metrics'] == {'P@1': .25}


@pytest.mark.parametrize('asked', [dict(seed='1'), dict(seed=1.), dict(seed=[1, '1', .5]), dict(flag=True),
    dict(macro_f1=.5), {'metrics.macro_f1': .5}, {"a'": 1}, dict(dataset=['yeast', 1]), dict(list=1), dict(none='a'),
    dict(flag='x'), dict(sed=1)])
def test_a_store_answers_alike_before_and_after_it_is_published(tmp_path, asked):
    s = Store(tmp_path/'t')
    for i in range(3): s.append(run_of(i, flag=True, list=[1., 2.], none=None))
    def said():
        try: return [r['run'] for r in s.records(**asked)]
        except ValueError as e: return str(e)
    before, fields = said(), s.records(['sed'])
    s.publish()
    assert said() == before and s.records(['sed']) == fields == [{}]*3


def test_a_masked_label_is_unknown_everywhere():
    x, y = table()
    hidden = np.random.default_rng(1).random(y.shape) < .3
    masked, gaps, p = np.ma.array(y, mask=hidden), np.where(hidden, np.nan, y), x[:, :3]
    assert (shrunk_thresholds(masked, p) == shrunk_thresholds(gaps, p)).all()
    assert (logistic(x, masked).logits(x, 5) == logistic(x, gaps).logits(x, 5)).all()
    out = {s: dict(features=x) for s in ('train', 'val')}
    a, b = ([*read_out(out, dict(train=v, val=v), 'bce', epochs=1, kind='both').values()] for v in (masked, gaps))
    assert [r.info for r in a] == [r.info for r in b]
    with pytest.raises(ValueError, match='^x: expected finite'): logistic(np.ma.array(x, mask=x > 1), y)


@pytest.mark.parametrize('size', [1e160, 1e300, 1e-165, 1e-300])
def test_features_of_any_size(size):
    x, y = table()
    x = x.astype(float)
    assert np.allclose(logistic(x*size, y).logits(x*size, 5), logistic(x, y).logits(x, 5), atol=1e-3)


def test_a_column_of_labels_is_whole():
    "Formerly cut off: .7 became label 0, and 2.7 labels were two."
    assert OneHot([1., 0.]).idx.tolist() == [1, 0] and OneHot([]).shape == (0, 0)
    y = torch.eye(2)
    for call, said in [(lambda: OneHot([.7, 1.2]), 'idx'), (lambda: OneHot([0], n_labels=2.7), 'n_labels'),
                       (lambda: jaccard(2*y, y), 'a'), (lambda: jaccard(y, y*np.nan), 'b'),
                       (lambda: union(y/2, y), 'a'),
                       (lambda: coverage(y, 3*y), 'b')]:
        with pytest.raises(ValueError, match=f'^{said}: expected'): call()


def test_parts_have_instances():
    assert sorted(map(len, split(np.eye(3, 2)[:2], (.9, .1)))) == [1, 1]
    assert (multi_hot([iter('ab'), ['b']], ['a', 'b']) == [[1, 1], [0, 1]]).all()
    for call, said in [(lambda: split_indices(['train', 'val', 'test', 'test'], np.eye(2)), 'parts'),
                       (lambda: multi_hot(['ab', 'b'], ['a', 'b']), 'sets'), (lambda: load('digits', seed='a'), 'seed'),
                       (lambda: load('yeast', seed='garbage'), 'seed'), (lambda: load(['digits']), 'name'),
                       (lambda: load('digits', n=20.5), 'n'), (lambda: load('digits', tail='a'), 'tail')]:
        with pytest.raises(ValueError, match=f'^{said}: expected'): call()


@pytest.mark.parametrize('mean', [1., 1 + 1e-7/3, 1/3, -1e6/3, 0.])
@pytest.mark.parametrize('size', [1e-2, 1e-9])
def test_packed_values_are_off_by_half_a_step(mean, size):
    v = mean + size*np.random.default_rng(0).normal(size=100)
    step = np.abs(v - v.mean()).max()/127
    assert np.abs(m.unpack(m.pack(v)) - v).max() < .6*step + 4*np.spacing(abs(mean))


@pytest.mark.parametrize('bad', [None, [None, 1.], 'nan nan AAA=', '0 1 !', {}, [np.inf]])
def test_what_pack_did_not_write(bad):
    with pytest.raises(ValueError, match='^text: expected what'): m.unpack(bad)


def scored(loss, seed=0, value=.5, dataset='yeast', split='test'):
    return dict(id=f'{dataset}{loss}{seed}', loss=loss, dataset=dataset, encoder='mlp', settings={}, fraction=1.,
                seed=seed,
                split=split, readout='probe1', checkpoint='last', metrics=dict(macro_f1=value))
RECORDS = [scored(l, s, .5 + .01*i, d) for d in ('yeast', 'yeast2') for i, l in enumerate(('reg', 'bce'))
           for s in (0, 1)]


def test_names_are_names():
    "A text was read letter by letter, and a generator was empty the second time."
    assert set(effects(RECORDS, 'reg', 'bce', 'yeast2').dataset) == {'yeast2'}
    assert set(effects(RECORDS, 'reg', 'bce', (d for d in ('yeast', 'yeast2'))).dataset) == {'yeast', 'yeast2'}
    assert not len(effects(RECORDS, 'reg', 'bce', ['enron'])) # no error: a study may not have it yet
    assert list(score_table(RECORDS, losses='bce')) == ['bce']
    assert set(leaderboard(RECORDS[:4], by='loss').loss) == {'reg', 'bce'}


EQUAL = pd.DataFrame(np.ones((3, 3)), list('abc'))
@pytest.mark.parametrize('call, said', [(lambda: score_table(RECORDS, losses=['bce', 'rge']), "losses: .* got 'rge'"),
    (lambda: effect(RECORDS, 'yeast', 'reg', ['reg', 'bce']), "others: expected other losses than a"),
    (lambda: friedman(EQUAL), 'table: expected scores that differ'),
    (lambda: leaderboard([scored('bce', value=np.nan)]), 'values: expected finite'),
    (lambda: mean_interval([.1, .2], level='a'), 'level: '), (lambda: fold_interval([.1, .2], 'a'), 'ratio: '),
    (lambda: verdict(dict(mean=0, se=.1, df=9), give='a'), 'give: '), (lambda: holm(dict(a='x')), 'p: '),
    (lambda: holm(pd.Series(dict(a=2.))), 'p: '), (lambda: m.resample(5, seed=-1), 'seed: '),
    (lambda: logistic(*table(), steps=-5), 'steps: '), (lambda: logistic(*table(), steps=0), 'steps: '),
    (lambda: logistic(*table(), tol=np.nan), 'tol: '), (lambda: logistic(*table(), block=0), 'block: '),
    (lambda: logistic(*table()).logits(table()[0], -1), 'k: '),
    (lambda: logistic(*table()).logits(table()[0], 11), 'k: '),
    (lambda: probe_grid(*table(), *table(), epochs=1).proba(table()[0], -1), 'point: '),
    (lambda: probe_grid(*table(), *table(), epochs=1).proba(table()[0], 8), 'point: ')])
def test_numbers_and_names_that_mean_nothing(call, said):
    with pytest.raises(ValueError, match=f'^{said}'): call()


def test_a_study_is_a_list_of_different_runs(monkeypatch):
    monkeypatch.setattr(catalog, 'STUDIES', dict(catalog.STUDIES))
    @catalog.study('twice')
    def twice():
        "each run two times, from a generator"
        for seed in (1, 0, 1): yield Experiment('yeast', 'mlp', 'bce', seed=seed)
    assert [e.seed for e in catalog.experiments('twice')] == [1, 0]
    assert [e.seed for e in catalog.experiments('twice', only='seed=0')] == [0]
    def smoke() -> list: "of the same name, from another module"
    for call, said in [(lambda: catalog.study('smoke')(smoke), 'name: '), (lambda: catalog.parse_only(','), 'only: '),
                       (lambda: catalog.experiments('first', quick='no'), 'quick: ')]:
        with pytest.raises(ValueError, match=f'^{said}expected'): call()
    smoke.__module__ = twice.__module__ = '__main__' # cells of a notebook, which may be run again
    assert catalog.study('smoke')(smoke) and catalog.study('smoke')(smoke) and catalog.study('twice')(twice)


WORDS = Vocabulary(['a', 'b'], [1., 1.]).config
@pytest.mark.parametrize('name, args', [
    ('mlp', dict(n_features=3, widths=(0,))), ('mlp', dict(n_features=3, widths=())),
    ('mlp', dict(n_features=3, dropout=np.nan)), ('bag', dict(vocab=WORDS, emb=0)),
    ('bag', dict(vocab=WORDS, dropout_in=2)), ('bag', dict(vocab=WORDS, gain=0)), ('conv', dict(vocab=WORDS, spans=())),
    ('conv', dict(vocab=WORDS, spans=(0,))), ('conv', dict(vocab=WORDS, filters=0)),
    ('transformer', dict(vocab=WORDS, layers=0)), ('transformer', dict(vocab=WORDS, layers=-1)),
    ('frozen', dict(backbone='mobilenet_v2', n_features=3, widths='abc')), ('resnet', dict(size=8, widths=(4, 0)))])
def test_an_encoder_that_cannot_work_is_not_built(name, args):
    with pytest.raises(ValueError, match=f'^{[*args][-1]}: expected'): ENCODERS[name](**args)


def test_a_vocabulary_has_finite_weights():
    with pytest.raises(ValueError, match='^idf: expected finite'): Vocabulary(['a', 'b'], [1, np.nan])


@pytest.mark.parametrize('settings, said', [(dict(encoder=dict(widths='abc')), 'encoder.widths'),
    (dict(encoder=dict(widths=[])), 'encoder.widths'), (dict(encoder=dict(dropout=5)), 'encoder.dropout'),
    (dict(encoder=dict(augment='zz')), 'encoder.augment'), (dict(data=dict(n=-5)), 'data.n')])
def test_a_run_that_cannot_be_made_is_not_planned(settings, said):
    with pytest.raises(ValueError, match=f'^settings.{said}: expected'): Experiment('digits', 'resnet', 'bce', settings)
