"Blends: the mean probability of several models, in a comparison, in a file, and on the command line."
import json
import numpy as np, pandas as pd, pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from mlcl.data import take
from mlcl.metrics import scores
from mlcl.own import Blend, BaselineClassifier, MultiLabelClassifier, card, compare, export_onnx, load_model
from mlcl.own import predict_file, read, split_scores
from mlcl.own import blend as b
from own_data import QUIET, noisy, numbers, texts

FAST = dict(encoder='bag', epochs=2)


@pytest.fixture(scope='module')
def trained():
    ds = read(noisy(), text='text')
    return Blend('bce+tfidf_svm+chars_svm', **FAST).fit_dataset(ds), ds


def test_the_mean_of_calibrated_probabilities(trained):
    model, ds = trained
    x = take(ds.x, ds.splits['test'])
    parts = [m.predict_proba(x) for m in model.models_]
    by_hand = np.mean([1/(1 + ((1 - p)/p)**a*np.exp(-c)) for p, (a, c) in zip(parts, model.curves_)], 0)
    np.testing.assert_allclose(model.predict_proba(x), by_hand, rtol=1e-6)
    assert ((model.predict(x) == (by_hand > model.thresholds_)).all() and [type(m) for m in model.models_]
            == [MultiLabelClassifier, BaselineClassifier, BaselineClassifier])
    assert ([len(s) for s in model.predict_labels(x)] == model.predict(x).sum(1).tolist()
            and all(a > 0 for a, _ in model.curves_))


def test_odds_are_finite_and_a_constant_model_changes_little():
    assert np.isfinite(b.log_odds([0., 1.])).all() and b.log_odds([.5])[0] == 0
    ds = read(numbers())
    one, two = BaselineClassifier('logistic').fit_dataset(ds), Blend('logistic+frequent').fit_dataset(ds)
    y, x = ds.y[ds.splits['test']], take(ds.x, ds.splits['test'])
    f1 = [scores(y, m.decision_function(x), 0.)['macro_f1'] for m in (one, two)]
    assert f1[1] > f1[0] - .1


@pytest.mark.parametrize('name, said', [('bce', 'several different models'), ('bce+bce', 'several different'),
                                        ('bce+tfidf', "got 'tfidf'"), ('bce+', "got ''"), ('', "got ''"),
                                        (None, "got 'None'"), ('bce + tfidf_svm+bce', 'several different')])
def test_names_that_are_refused(name, said):
    with pytest.raises(ValueError, match=f'loss: expected .*{said}'): Blend(name)


def test_options_are_checked_before_training():
    assert Blend(' bce + tfidf_svm ').name == 'bce+tfidf_svm'
    with pytest.raises(ValueError, match='epochs: expected'): Blend('bce+tfidf_svm', epochs=0)
    with pytest.raises(ValueError, match='thresholds: expected'): Blend('bce+tfidf_svm', thresholds='each')


@pytest.mark.parametrize('make', [lambda: (Blend('zlpr+logistic+forest', epochs=2), numbers(), {}),
                                  lambda: (Blend('bce+tfidf_svm', thresholds=.5, **FAST), noisy(), dict(text='text')),
                                  lambda: (Blend('logistic+forest', thresholds='global', refit=True), numbers(), {})])
def test_one_file_holds_all(make, tmp_path):
    model, data, how = make()
    ds = read(data, **how)
    model.fit_dataset(ds).save(path := tmp_path/'m.safetensors')
    x = take(ds.x, ds.splits['test'])
    before, again = model.predict_proba(x), load_model(path)
    path.write_bytes(b'\xff'*1000) # what was loaded does not need the file any more
    np.testing.assert_allclose(again.predict_proba(x), before, atol=1e-6)
    assert (again.predict_labels(x) == model.predict_labels(x) and (again.name, again.refit, again.thresholds)
            == (model.name, model.refit, model.thresholds))
    assert again.columns_ == model.columns_ and again.classes_.tolist() == ds.labels


def test_refit_trains_on_more_data():
    ds = read(numbers())
    a, c = (Blend('logistic+forest', refit=r).fit_dataset(ds) for r in (False, True))
    assert a.curves_ == c.curves_ and (a.thresholds_ == c.thresholds_).all() and {*split_scores(c, ds)} == {'test'}
    assert (a.predict_proba(ds.x) != c.predict_proba(ds.x)).any()


def parts(path):
    with safe_open(path, 'np') as f: return json.loads(f.metadata()['mlcl']), {k: f.get_tensor(k) for k in f.keys()}


@pytest.mark.parametrize('facts, tensors, said', [
    (dict(name='bce'), {}, 'several different'), (dict(name='bce+chars_svm+tfidf_svm'), {}, 'expected models'),
    (dict(name='zlpr+tfidf_svm+chars_svm'), {}, 'expected models'), (dict(name=3), {}, 'name'),
    (dict(name='x+y'), {}, 'expected names'),
    (dict(name='tfidf_svm+bce+chars_svm'), {}, 'expected a baseline'), (dict(columns=3), {}, 'columns'),
    (dict(refit='a'), {}, 'refit'), (dict(thresholds='each'), {}, 'thresholds'),
    (dict(thresholds=.7), {}, 'thresholds'),
    ({}, dict(model0=None), 'model0'), ({}, dict(model1=np.zeros(9, np.uint8)), 'expected a baseline'),
    ({}, dict(model1=np.zeros(9, np.float32)), 'expected bytes of tfidf_svm'),
    ({}, dict(model0=np.zeros((2, 2), np.uint8)), 'expected bytes'),
    ({}, dict(curves=np.ones((2, 2))), 'sigmoid'), ({}, dict(curves=np.array([[1., 0], [-1, 0], [1, 0]])), 'sigmoid'),
    ({}, dict(curves=np.full((3, 2), np.nan)), 'sigmoid'), ({}, dict(curves=None), 'curves'),
    ({}, dict(thresholds=np.full(4, 2.)), 'thresholds'), ({}, dict(thresholds=np.full(4, np.nan)), 'thresholds'),
    ({}, dict(thresholds=np.full(3, .5)), 'thresholds')])
def test_malformed_files_are_one_line(trained, tmp_path, facts, tensors, said):
    trained[0].save(path := tmp_path/'m.safetensors')
    d, t = parts(path)
    save_file({k: v for k, v in (t | tensors).items() if v is not None}, path,
              metadata=dict(mlcl=json.dumps(d | facts)))
    with pytest.raises(ValueError, match=f'expected a blend whose parts fit one another: .*{said}') as e:
        load_model(path)
    assert '\n' not in str(e.value)


def test_models_of_other_labels_do_not_fit(trained, tmp_path):
    other = texts()
    other['labels'] = other.labels.str.replace('sea', 'ocean')
    BaselineClassifier('tfidf_svm').fit_dataset(read(other, text='text')).save(tmp_path/'o.safetensors')
    trained[0].save(path := tmp_path/'m.safetensors')
    d, t = parts(path)
    save_file(t | dict(model1=np.frombuffer((tmp_path/'o.safetensors').read_bytes(), np.uint8)), path,
              metadata=dict(mlcl=json.dumps(d)))
    with pytest.raises(ValueError, match='models of the same data and labels'): load_model(path)
    with pytest.raises(ValueError, match='expected a blend that `save` wrote, got another file'):
        b.load_blend(tmp_path/'o.safetensors')
    with pytest.raises(ValueError, match='path: expected'): trained[0].save(tmp_path/'m.pt')


def test_a_comparison_blends_what_it_has_and_train_makes_the_same(tmp_path):
    res = compare(noisy(), ['zlpr'], seeds=1, out=tmp_path/'out', text='text', say=QUIET, **FAST)
    row = next(r for r in res['losses'] if r.get('bases') == 2)
    assert (row['about'] == 'their mean probability'
            and row['seconds'] > next(r for r in res['losses'] if r['loss'] == 'zlpr')['seconds'])
    ds = read(noisy(), text='text')
    model = Blend(row['loss'], **FAST).fit_dataset(ds)
    test = split_scores(model, ds)['test']
    assert (test['macro_f1'] == pytest.approx(row['macro_f1'], abs=.02)
            and test['map'] == pytest.approx(row['map'], abs=.01))
    page = (tmp_path/'out/report.html').read_text()
    assert f"--loss {res['train']} " in page and 'are blends' in page and row['loss'] in page
    lines = []
    # nothing is made again
    compare(noisy(), ['zlpr'], seeds=1, out=tmp_path/'out', text='text', say=lines.append, **FAST)
    assert not [l for l in lines if 'seed 0: val' in l]


@pytest.mark.parametrize('options', [dict(baselines=False), dict(thresholds=.5)])
def test_no_blends_without_baselines_or_thresholds(tmp_path, options):
    res = compare(numbers(), ['bce'], seeds=1, epochs=1, out=tmp_path/'out', say=QUIET, **options)
    assert ({r['loss'] for r in res['losses']} == {'bce'}
            and 'are blends' not in (tmp_path/'out/report.html').read_text())


def test_the_best_loss_and_the_best_baselines_belong_together(tmp_path):
    res = compare(noisy(), ['bce', 'zlpr'], seeds=2, out=tmp_path/'out', text='text', say=QUIET, **FAST)
    val = {r['loss']: r['val_macro_f1'] + r['val_micro_f1'] for r in res['losses'] + res['baselines']}
    loss = max(('bce', 'zlpr'), key=val.get)
    bases = sorted((r['loss'] for r in res['baselines'] if r['loss'] != 'frequent'), key=val.get, reverse=True)
    assert {n for n in val if '+' in n} == {f'{loss}+{bases[0]}', f'{loss}+{bases[0]}+{bases[1]}'}
    assert all(r['seeds'] == 2 for r in res['losses'])


def test_commands_and_card(tmp_path, capsys, monkeypatch):
    from mlcl.cli import main
    monkeypatch.chdir(tmp_path)
    noisy().to_csv('t.csv', index=False)
    main(['train', 't.csv', '--text', 'text', '--loss', 'bce+tfidf_svm', '--epochs', '2', '--encoder', 'bag'])
    main(['predict', 'model.safetensors', 't.csv', '--out', 'p.csv'])
    assert len(pd.read_csv('p.csv')) == len(noisy()) and 'Macro-F1' in capsys.readouterr().out
    text = (tmp_path/'model.md').read_text()
    assert ('- bce+tfidf_svm\n' in text and 'bce with bag, 2 epochs' in text
            and 'thresholds were chosen on validation' in text)
    code = text[text.index('```python') + 10:]
    found = {}
    exec(code[:code.index('```')], found) # as it stands on the card
    assert found['model'].name == 'bce+tfidf_svm' and len(predict_file('model.safetensors', 't.csv')) == len(noisy())
    with pytest.raises(ValueError, match='expected a network, got the blend bce.tfidf_svm'):
        export_onnx('model.safetensors', 'm.onnx')
    assert main(['train', 't.csv', '--loss', 'bce+nothing']) and 'loss: expected names among' in capsys.readouterr().err


@pytest.mark.parametrize('words, said',
                         [(['--loss', 'tfidf_svm', '--epochs', '3'],
                           'epochs: the baseline tfidf_svm has no such option'),
                          (['--loss', 'chars_svm', '--finetune'], 'finetune: the baseline'),
    (['--loss', 'tfidf_svm+chars_svm', '--encoder', 'bag'],
     'encoder: the baselines tfidf_svm.chars_svm have no such option'),
                          (['--loss', 'bce+tfidf_svm', '--finetune', '--encoder', 'bag'],
                           'finetune: expected an encoder among')])
def test_options_that_a_model_does_not_have_are_refused(tmp_path, capsys, monkeypatch, words, said):
    import re
    from mlcl.cli import main
    monkeypatch.chdir(tmp_path)
    noisy().to_csv('t.csv', index=False)
    assert (main(['train', 't.csv', '--text', 'text', *words]) and re.search(said, capsys.readouterr().err)
            and not (tmp_path/'model.safetensors').exists())


@pytest.mark.parametrize('kind, readout', [('label', 'scores|label'), ('global', 'scores|global'), ('.5', 'scores@0')])
def test_thresholds_of_a_baseline(tmp_path, monkeypatch, kind, readout):
    from mlcl.cli import main
    monkeypatch.chdir(tmp_path)
    noisy().to_csv('t.csv', index=False)
    main(['train', 't.csv', '--text', 'text', '--loss', 'tfidf_svm', '--thresholds', kind])
    model = load_model('model.safetensors')
    assert model.readout == readout and (len({*model.thresholds_.tolist()}) == 1) == (kind != 'label')


def test_a_card_of_every_kind(trained):
    model, ds = trained
    text = card(model, ds)
    assert 'model 2 | tfidf\\_svm' in text and '| test | ' in text and 'were chosen' in text
    plain = Blend('bce+logistic', thresholds=.5, epochs=2).fit_dataset(read(numbers()))
    assert 'No thresholds were chosen' in card(plain) and "np.zeros((2, 6), 'float32')" in card(plain)
    simple = Blend('logistic+forest').fit_dataset(read(numbers()))
    assert 'model 2 | forest' in card(simple, read(numbers())) and 'reached Macro-F1' not in card(plain)
