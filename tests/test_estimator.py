"The classifier, and the file it is saved in."
from importlib import import_module
import numpy as np, pytest, torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from mlcl.losses import LOSSES
from mlcl.metrics import scores
from mlcl.own import MultiLabelClassifier
from own_data import WORDS, numbers, texts

estimator = import_module('mlcl.own.estimator')

# --- the classifier

MULTI_HOT = 'predictions are a matrix with a column for each label, also where y is a vector of classes'
NOT_OURS = dict(
    check_fit_score_takes_y=MULTI_HOT, check_pipeline_consistency=MULTI_HOT, check_classifiers_classes=MULTI_HOT, check_classifiers_train=MULTI_HOT,
    check_decision_proba_consistency=MULTI_HOT,
    check_classifiers_one_label='there is nothing to learn from a single label: refused',
    check_supervised_y_2d='a column (N, 1) is one label, not a vector of classes: refused')


@pytest.mark.filterwarnings('ignore')
@parametrize_with_checks([MultiLabelClassifier(epochs=2, random_state=0)], expected_failed_checks=lambda e: NOT_OURS)
def test_scikit_learn_checks(estimator, check): check(estimator)


def test_no_check_is_excused_without_need():
    from sklearn.utils.estimator_checks import check_estimator
    r = check_estimator(MultiLabelClassifier(epochs=2, random_state=0), on_fail=None, on_skip=None)
    assert {x['check_name'] for x in r if x['status'] == 'failed'} == set(NOT_OURS)


@pytest.mark.parametrize('loss', list(LOSSES))
def test_every_loss_learns(loss):
    x, y = numbers(400)
    m = MultiLabelClassifier(loss, epochs=15, random_state=0).fit(x[:300], y[:300])
    assert (m.predict(x[300:]) == y[300:]).mean() > .85


def test_classifier_in_scikit_learn():
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    x, y = numbers()
    g = GridSearchCV(make_pipeline(StandardScaler(), MultiLabelClassifier(epochs=5, random_state=0)), dict(multilabelclassifier__loss=['reg', 'bce']), cv=2, scoring='f1_macro', error_score='raise')
    assert g.fit(x, y).best_score_ > .6
    m = MultiLabelClassifier(epochs=5, random_state=1)
    assert (m.fit(x, y).predict_proba(x) == MultiLabelClassifier(epochs=5, random_state=1).fit(x, y).predict_proba(x)).all()
    assert (m.predict_proba(x) != MultiLabelClassifier(epochs=5, random_state=2).fit(x, y).predict_proba(x)).any()
    assert ((m.decision_function(x) > 0) == (m.predict_proba(x) > m.thresholds_)).all() and m.classes_.tolist() == [0, 1, 2]


def test_the_best_epoch_counts(monkeypatch):
    x, y = numbers()
    real = estimator.learner.train
    def worse(*a, **k): # the last epoch is spoilt, the best is not
        t = real(*a, **k)
        with torch.no_grad(): [p.zero_() for p in t.model.encoder.parameters()]
        return t
    good = MultiLabelClassifier(epochs=10, random_state=0).fit(x, y).score(x, y)
    monkeypatch.setattr(estimator.learner, 'train', worse)
    assert MultiLabelClassifier(epochs=10, random_state=0).fit(x, y).score(x, y) == good > .5


def test_label_sets_and_texts():
    t = texts()
    m = MultiLabelClassifier(epochs=20, random_state=0).fit(t.text, t.labels.str.split('|'))
    assert m.classes_.tolist() == sorted(WORDS) and ('sea',) == m.predict_labels(['wave boat salt wave', 'x'])[0]
    with pytest.raises(ValueError, match='expected text data, as in fit, got features'): m.predict(np.ones((2, 3)))
    with pytest.raises(ValueError, match='readout: expected one of probe, probe1 for reg'): MultiLabelClassifier('reg', readout='own@.5', epochs=1).fit(t.text, t.labels.str.split('|'))


@pytest.mark.parametrize('kind', ['features', 'text', 'image', 'own head'])
def test_a_saved_model_predicts_the_same(tmp_path, kind):
    x, y = numbers()
    if kind == 'text': x, y = list(texts().text), [set(l.split('|')) for l in texts().labels]
    if kind == 'image': x, y = np.random.default_rng(0).integers(0, 255, (120, 8, 8), np.uint8), y
    m = MultiLabelClassifier('bce' if kind == 'own head' else 'reg', epochs=2, random_state=0, readout='own@tuned' if kind == 'own head' else None,
                             encoder='resnet' if kind == 'image' else None).fit(x, y)
    m.save(tmp_path/'m.safetensors')
    k = MultiLabelClassifier.load(tmp_path/'m.safetensors')
    assert [p.name for p in tmp_path.iterdir()] == ['m.safetensors'] and k.get_params() == m.get_params() | dict(random_state=0)
    assert (k.predict_proba(x) == m.predict_proba(x)).all() and (k.thresholds_ == m.thresholds_).all() and (k.classes_ == m.classes_).all()
    assert (k.predict(x) == m.predict(x)).all() and k.readout_ == m.readout_


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path/'m.safetensors').write_bytes(b'nonsense')
    with pytest.raises(ValueError, match='expected a model that `save` wrote'): MultiLabelClassifier.load(tmp_path/'m.safetensors')
    with pytest.raises(FileNotFoundError, match='no such file'): MultiLabelClassifier.load(tmp_path/'none.safetensors')
    x, y = numbers()
    m = MultiLabelClassifier(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match='path: expected a file that ends in .safetensors'): m.save(tmp_path/'m.pkl')
    m.trained_.save(tmp_path/'t.safetensors')
    with pytest.raises(ValueError, match='without label names'): MultiLabelClassifier.load(tmp_path/'t.safetensors')


def test_weights_of_positives_reach_the_loss():
    x, y = numbers()
    m = MultiLabelClassifier('bce', settings=dict(loss=dict(pos_weight='balanced')), epochs=1, random_state=0).fit(x, y)
    n = np.array(m.trained_.model.label_counts)
    assert m.trained_.model.loss.pos_weight.tolist() == pytest.approx((m.trained_.model.n_instances/n - 1).tolist())
    with pytest.raises(ValueError, match='^pos_weight: expected .* each of 3 labels'):
        MultiLabelClassifier('asl', settings=dict(loss=dict(pos_weight=[1., 2.]))).fit(x, y)
    with pytest.raises(ValueError, match='^settings: expected for reg'):
        MultiLabelClassifier('reg', settings=dict(loss=dict(pos_weight='balanced'))).fit(x, y)


@pytest.mark.parametrize('loss', ['bce', 'zlpr', 'twoway', 'db', 'hill', 'splc'])
def test_unknown_labels_can_be_left_out(loss):
    "Most positives were never looked at: left out they do no harm, counted as absent they do."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    y = (x[:, :3] > .3).astype(int)
    z = np.where((y == 1) & (rng.random(y.shape) < .6), np.nan, y)
    f1 = {}
    for u in ('mask', 'absent'):
        m = MultiLabelClassifier(loss, unknown=u, epochs=8, random_state=0).fit(x[:400], z[:400])
        f1[u] = scores(y[400:], m.decision_function(x[400:]), 0.)['macro_f1']
        assert m.n_unknown_ == np.isnan(z[:400]).sum()
    assert f1['mask'] > .9 > f1['absent'] + .2
