"What everybody tries first: the models are scikit-learn's, on the same split, and what is saved is the same again."
import dataclasses, json
import numpy as np, pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC
from mlcl.data import take
from mlcl.metrics import scores
from mlcl.own import read
from mlcl.own import baselines as b
from mlcl.own.views import Colours, Numbers
from own_data import noisy, numbers, pictures, registry, scratch


@pytest.fixture(scope='module')
def ds(): return read(noisy(), text='text')


def own_scores(ds, c):
    "Scores of a linear SVM as one would write it oneself."
    tfidf = TfidfVectorizer(token_pattern=r'\w+', ngram_range=(1, 2), sublinear_tf=True)
    x = {k: take(ds.x, i) for k, i in ds.splits.items()}
    rows, y = tfidf.fit_transform(x['train']), ds.y[ds.splits['train']]
    models = [LinearSVC(C=c, random_state=0).fit(rows, y[:, l]) for l in range(ds.n_labels)]
    return np.stack([m.decision_function(tfidf.transform(x['test'])) for m in models], 1)


def test_tfidf_and_svm_are_those_of_scikit_learn(ds):
    r = b.fit_baseline(ds, 'tfidf_svm').readouts['scores|label']
    np.testing.assert_allclose(r.p['test'], own_scores(ds, r.info['strength']), atol=1e-5)


def test_logistic_regression_is_that_of_scikit_learn():
    ds = read(numbers())
    r = b.fit_baseline(ds, 'logistic').readouts['scores@0']
    view, y = Numbers().fit(ds), ds.y[ds.splits['train']]
    x = {k: np.asarray(ds.x[i]) for k, i in ds.splits.items()}
    scaled = {k: (v - x['train'].mean(0))/x['train'].std(0) for k, v in x.items()}
    ref = [LogisticRegression(C=r.info['strength'],
                              max_iter=500).fit(scaled['train'], y[:, l]).decision_function(scaled['test'])
           for l in range(3)]
    np.testing.assert_allclose(view(x['test']), scaled['test'], atol=1e-5)
    np.testing.assert_allclose(r.p['test'], np.stack(ref, 1), atol=.02)
    assert scores(ds.y[ds.splits['test']], r.p['test'], 0.)['macro_f1'] > .85


def test_all_labels_at_once_are_those_of_scikit_learn():
    x, y = numbers(200)
    y = y.astype(float)
    y[:30, 0] = np.nan # unknown
    m = b.BASELINES['frozen_logistic'].model().fit(x, y)
    z = (x - x.mean(0))/x.std(0)
    for rho, (w, bias) in [kv for kv in m.weights.items() if kv[0] > 3e-4]: # with less penalty the optimum is far away
        for l in range(3):
            known = y[:, l] == y[:, l]
            ref = LogisticRegression(C=16/(rho*known.sum()*x.shape[1]), max_iter=2000,
                                     tol=1e-8).fit(z[known], y[known, l])
            np.testing.assert_allclose(x @ w[l] + bias[l], ref.decision_function(z), rtol=.01, atol=.01)
    np.testing.assert_allclose(m(x)[rho], x @ w.T + bias, rtol=1e-5)


def test_ridge_regressions_are_those_of_scikit_learn():
    x, y = numbers(200)
    y = np.c_[y, np.ones(200)]
    sparse = csr_matrix(x)
    m = b.BASELINES['both_ridge'].model().fit(sparse, y)
    for c, (w, bias) in m.weights.items():
        assert (w[3] == 0).all() and bias[3] == 1
        for l in range(3):
            ref = RidgeClassifier(alpha=1/c).fit(x, y[:, l])
            np.testing.assert_allclose(m(sparse)[c][:, l], ref.decision_function(x), atol=1e-3)
    y[:30, 0] = np.nan # unknown: each label alone, on the others
    ref = RidgeClassifier(alpha=1/c).fit(x[30:], y[30:, 0])
    np.testing.assert_allclose(b.BASELINES['both_ridge'].model().fit(sparse, y)(sparse)[c][:, 0],
                               ref.decision_function(x), atol=1e-2)


def test_words_stand_beside_half_of_the_frozen_features():
    view, a, f = b.Both.__new__(b.Both), csr_matrix(np.eye(3)), np.arange(6.).reshape(3, 2)
    view.words, view.frozen = (lambda x: a), (lambda x: f)
    np.testing.assert_array_equal(view(['a', 'b', 'c']).toarray(), np.c_[np.eye(3), f/2])


def test_strength_and_thresholds_come_from_validation_data(ds):
    other = ds.y.copy()
    other[ds.splits['test']] = 1 - other[ds.splits['test']]
    for name in ('tfidf_svm', 'frequent'):
        one, two = (b.fit_baseline(d, name).readouts for d in (ds, dataclasses.replace(ds, y=other)))
        for k in one: np.testing.assert_array_equal(one[k].threshold, two[k].threshold)


def test_the_most_frequent_labels_are_the_same_for_all(ds):
    r = b.fit_baseline(ds, 'frequent').readouts['scores|global']
    assert (r.p['test'] == r.p['test'][0]).all()
    np.testing.assert_allclose(r.p['test'][0] + .5, ds.y[ds.splits['train']].mean(0))


def test_which_baselines_for_which_data(ds, tmp_path, monkeypatch):
    monkeypatch.setattr(b, 'pretrained', lambda kind: None)
    assert b.baselines_for(ds) == ['frequent', 'tfidf_svm', 'tfidf_logistic', 'chars_svm']
    assert b.baselines_for(read(numbers())) == ['frequent', 'logistic', 'forest']
    assert b.baselines_for(read(pictures(tmp_path))) == ['frequent', 'colours_logistic']
    monkeypatch.setattr(b, 'pretrained', lambda kind: 'hf:x:frozen')
    assert b.baselines_for(ds)[-2:] == ['frozen_logistic', 'both_ridge']
    assert ([n for n in b.baselines_for(ds) if 'text' not in b.BASELINES[n].first] == ['frozen_logistic', 'both_ridge']
            and 'image' in b.BASELINES['frozen_logistic'].first)
    with pytest.raises(ValueError, match='name: expected one of frequent, tfidf_svm.* got .forest'):
        b.fit_baseline(ds, 'forest')


def test_forest_learns_and_knows_a_label_of_every_instance():
    x, y = numbers()
    y[:, 2] = 1
    ds = read((x, y))
    p = b.fit_baseline(ds, 'forest').readouts['scores@0'].p['test']
    assert (p[:, 2] == .5).all() and ((p[:, :2] > 0) == ds.y[ds.splits['test']][:, :2]).mean() > .8


def test_colours(tmp_path):
    ds = read(pictures(tmp_path))
    assert b.fit_baseline(ds, 'colours_logistic').readouts['scores|label'].info['val_macro_f1'] > .9
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert np.flatnonzero(Colours()(red)[0]).tolist() == [7*64]


def test_records_are_as_those_of_a_run(ds, tmp_path, monkeypatch):
    from mlcl.stats import leaderboard
    from mlcl.study import attempt, stored_scores
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path))
    exp = b.simple(ds, 'tfidf_svm')
    recs = attempt(exp, 'baseline', lambda e: b.run_baseline(ds, e))
    assert (not any('error' in r for r in recs) and {r['readout'] for r in recs}
            == {'scores|label', 'scores|global', 'scores@0'})
    t = leaderboard(recs, checkpoint='best')
    assert (t.lower < t['mean']).all() and (t['mean'] < t.upper).all()
    held = stored_scores(exp.id)
    np.testing.assert_array_equal(held['labels', '', 'val'], ds.y[ds.splits['val']])
    assert b.simple(ds, 'tfidf_svm').id == exp.id != b.simple(ds, 'chars_svm').id


@pytest.mark.parametrize('name', ['tfidf_logistic', 'chars_svm'])
def test_saved_and_loaded(ds, tmp_path, name):
    one = b.BaselineClassifier(name, refit=name == 'chars_svm').fit_dataset(ds)
    one.save(path := tmp_path/'m.safetensors')
    two, x = b.load_baseline(path), take(ds.x, ds.splits['test'])
    np.testing.assert_allclose(two.predict_proba(x), one.predict_proba(x), rtol=1e-6)
    assert (two.classes_.tolist() == ds.labels and two.predict_labels(x) == one.predict_labels(x)
            and b.is_baseline(path) and two.refit == one.refit)
    p = one.predict_proba(x)
    assert ((p > 0) & (p < 1)).all() and abs(p.mean() - ds.y[ds.splits['test']].mean()) < .15


def test_saved_numbers_and_colours(tmp_path):
    for ds, name in ((read(numbers()), 'logistic'), (read(numbers()), 'forest'), (read(numbers()), 'frequent'),
                     (read(pictures(tmp_path)), 'colours_logistic')):
        one = b.BaselineClassifier(name).fit_dataset(ds)
        one.save(path := tmp_path/'m.safetensors')
        x = take(ds.x, ds.splits['test'])
        np.testing.assert_allclose(b.load_baseline(path).predict_proba(x), one.predict_proba(x), rtol=1e-5)


def test_what_cannot_be_saved_or_loaded_says_so(ds, tmp_path):
    one = b.BaselineClassifier('tfidf_svm').fit_dataset(ds)
    with pytest.raises(ValueError, match='ends in .safetensors'): one.save(tmp_path/'m.pt')
    (tmp_path/'x.safetensors').write_text('not a model')
    assert not b.is_baseline(tmp_path/'x.safetensors') and not b.is_baseline(tmp_path/'none.safetensors')
    with pytest.raises(ValueError, match='expected a baseline'): b.load_baseline(tmp_path/'x.safetensors')
    one.name = 'both_logistic'
    one.save(tmp_path/'m.safetensors')
    with pytest.raises(ValueError, match="name: .*, got 'both_logistic'"): b.load_baseline(tmp_path/'m.safetensors')
    one.name = 'tfidf_svm'
    one.thresholds_ = np.full_like(one.thresholds_, np.nan)
    one.save(tmp_path/'m.safetensors')
    with pytest.raises(ValueError, match='finite thresholds'): b.load_baseline(tmp_path/'m.safetensors')


@pytest.mark.parametrize('facts, tensors', [
    (dict(name='x'), {}), (dict(name=None), {}), (dict(name='logistic'), {}), (dict(view=dict(what='x')), {}),
    (dict(view=dict(what='words', vocabulary=['a'], idf=[1.])), {}), (dict(view=dict(zzz=1)), {}),
    (dict(view=None), {}), (dict(classes='abcd'), {}), (dict(classes=['a']*4), {}), (dict(classes=[[1]]*4), {}),
    (dict(kind='x'), {}), (dict(kind='features'), {}), (dict(columns=[1]), {}),
    (dict(columns=dict(x='y')), {}), (dict(slope=[1.]), {}), (dict(slope=['a', 'b']), {}),
    (dict(slope=[float('nan'), 1.]), {}), (dict(readout=3), {}), ({}, dict(weight=None)),
    ({}, dict(thresholds=np.full(4, 2.))),
    ({}, dict(bias=np.zeros(4, np.int8))), ({}, dict(weight=np.zeros((4, 3), np.float32))),
    ({}, dict(bias=np.full(4, np.nan)))])
def test_malformed_baselines_are_one_line(ds, tmp_path, facts, tensors):
    from safetensors import safe_open
    from safetensors.numpy import save_file
    b.BaselineClassifier('tfidf_svm').fit_dataset(ds).save(path := tmp_path/'m.safetensors')
    with safe_open(path, 'np') as f: d, t = json.loads(f.metadata()['mlcl']), {k: f.get_tensor(k) for k in f.keys()}
    save_file({k: v for k, v in (t | tensors).items() if v is not None}, path,
              metadata=dict(mlcl=json.dumps(d | facts)))
    assert b.is_baseline(path)
    with pytest.raises(ValueError, match='expected a baseline whose parts fit one another: .') as e:
        b.load_baseline(path)
    assert '\n' not in str(e.value)
    save_file(t, path, metadata=dict(mlcl='[]'))
    assert not b.is_baseline(path)
