"Predictions for files: pieces, kept columns, forms, and names that must not deceive."
import json, shutil
from importlib import import_module
import numpy as np, pandas as pd, pytest
from mlcl.own import MultiLabelClassifier, cell_sets, predict_file, predictions, read, write_predictions
from own_data import WORDS, numbers, pictures, scratch, texts, write


@pytest.fixture(scope='module')
def model():
    t = texts()
    return MultiLabelClassifier(epochs=2, random_state=0).fit(t.text, t.labels)


def test_pieces_are_those_of_the_whole(model, tmp_path):
    path = write(tmp_path/'a.csv', texts().assign(id=[f'{i:03}' for i in range(120)]))
    whole = predict_file(model, path, keep='id')
    for rows in (1, 7, 119, 5000):
        parts = list(predictions(model, path, keep='id', rows=rows))
        assert (max(map(len, parts)) == min(rows, 120)
                and pd.concat(parts, ignore_index=True).drop(columns='labels').equals(whole.drop(columns='labels')))
    assert list(whole.id) == [f'{i:03}' for i in range(120)] and list(whole.instance) == list(range(1, 121))


@pytest.mark.parametrize('end', ['csv', 'tsv', 'csv.gz', 'jsonl', 'jsonl.gz', 'parquet'])
def test_forms_of_output(model, tmp_path, end):
    path, out = write(tmp_path/'a.csv', texts().assign(id=[f'{i:03}' for i in range(120)])), tmp_path/f'p.{end}'
    write_predictions(model, path, out, keep='id', rows=50)
    if end == 'parquet': assert out.read_bytes()[:4] == b'PAR1'; t = pd.read_parquet(out)
    elif end.startswith('jsonl'): t = pd.read_json(out, lines=True, dtype=dict(id=str))
    else: t = pd.read_csv(out, sep='\t' if end == 'tsv' else ',', dtype=dict(id=str), keep_default_na=False)
    assert list(t) == ['instance', 'id', 'labels', *sorted(WORDS)] and list(t.id) == [f'{i:03}' for i in range(120)]
    assert [tuple(sorted(s)) for s in cell_sets(t.labels.tolist())] == model.predict_labels(texts().text)
    assert np.allclose(t[sorted(WORDS)], model.predict_proba(texts().text), atol=1e-4)
    assert [p.name for p in tmp_path.iterdir() if 'part' in p.name] == []


def test_a_file_is_whole_or_not_there(model, tmp_path):
    (tmp_path/'a.csv').write_text('text\n' + 'wave\n'*50 + '"open\n')
    with pytest.raises(ValueError, match='a.csv: expected a table'):
        write_predictions(model, tmp_path/'a.csv', tmp_path/'p.csv', rows=10)
    assert [p.name for p in tmp_path.iterdir()] == ['a.csv']


@pytest.mark.parametrize('name', ['labels', 'instance', 'a|b', '=cmd|x', '+a', '@x', '-1+1', '\t=x', 's\u202ea', '＝x'])
def test_labels_with_names_that_deceive(tmp_path, name):
    "Names of labels may look like formulas or like columns of the file."
    t = texts()
    sets = [[name if l == 'sea' else l for l in s.split('|')] for s in t.labels]
    m = MultiLabelClassifier(epochs=2, random_state=0).fit(t.text, sets)
    write(tmp_path/'a.csv', t[['text']])
    p = predict_file(m, tmp_path/'a.csv', keep='text')
    assert p.shape == (120, 7) and len(set(p)) == 7
    assert not any(str(v)[:1] in '=+@-\t＝' for c in p for v in (c, *p[c]) if isinstance(v, str) and v)
    if '|' in name:
        assert (json.loads(p['labels'][0] if 'labels' in p else '[]') is not None
                and all(isinstance(json.loads(v.lstrip("'")), list) for v in p.labels))
    if name == 's\u202ea': assert 's\\u202ea' in p
    if name == 'labels': assert 'labels (probability)' in p
    lists = pd.concat(predictions(m, tmp_path/'a.csv'), ignore_index=True)
    if name not in ('s\u202ea', '\t=x'): assert [tuple(s) for s in lists['labels']] == m.predict_labels(t.text)


def test_pieces_have_the_columns_of_the_whole_file(model, tmp_path):
    "A key that some lines lack moves no column, and a column that is empty at first may hold texts later."
    rows = [dict(text=f'wave {i}') | (dict(id=f'n{i}') if i > 5 else {}) | (dict(more=i) if i < 3 else {})
            for i in range(12)]
    (tmp_path/'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    want = [None]*6 + [f'n{i}' for i in range(6, 12)]
    for end in ('csv', 'parquet'):
        write_predictions(model, tmp_path/'a.jsonl', out := tmp_path/f'p.{end}', keep='*', rows=4)
        t = pd.read_csv(out) if end == 'csv' else pd.read_parquet(out)
        assert (list(t)[:4] == ['instance', 'text', 'more', 'id']
                and [None if v != v else v for v in t.id.astype(object)] == want)
    rows[0]['id'] = 5
    (tmp_path/'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match='keep: expected one kind of values'):
        write_predictions(model, tmp_path/'a.jsonl', tmp_path/'q.parquet', keep='id')
    import_module('mlcl.own.predict')._write_parquet([pd.DataFrame(dict(a=[None], labels=[[]])),
                                                      pd.DataFrame(dict(a=['t'], labels=[['y']]))], out)
    assert pd.read_parquet(out).labels.map(list).tolist() == [[], ['y']]
    path = write(tmp_path/'a.csv', texts())
    with pytest.raises(ValueError, match='out: expected another file than the data'):
        write_predictions(model, path, path)
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table([pa.array(['a']), pa.array(['b'])], names=['text', 'text']), tmp_path/'a.parquet')
    with pytest.raises(ValueError, match="expected different names, got 'text' twice"):
        predict_file(model, tmp_path/'a.parquet')


def test_kept_columns_keep_their_names_and_wide_output(model, tmp_path):
    path = write(tmp_path/'a.csv', texts().assign(instance='x', n=['=1', '-2.5', '7']*40))
    p = predict_file(model, path, keep='*')
    assert (list(p)[:6] == ['instance (row)', 'text', 'labels', 'instance', 'n', 'labels (predicted)']
            and list(p.n[:3]) == ["'=1", '-2.5', '7'])
    w = predict_file(model, path, wide=True)
    assert (list(w) == ['instance', *sorted(WORDS)]
            and (w[sorted(WORDS)].to_numpy() == model.predict(texts().text)).all())


def test_models_fitted_on_arrays_read_files(tmp_path):
    "A file with the same number of columns will do, with an index column or without."
    x, y = numbers()
    m = MultiLabelClassifier(epochs=2, random_state=0).fit(x, y)
    m.save(tmp_path/'m.safetensors')
    k = MultiLabelClassifier.load(tmp_path/'m.safetensors')
    t = pd.DataFrame(x, columns=list('abcdef'))
    # the second has an index column
    for data in (write(tmp_path/'a.csv', t), t.to_csv(tmp_path/'b.csv') or tmp_path/'b.csv'):
        assert np.allclose(predict_file(k, data)[['0', '1', '2']], m.predict_proba(x), atol=1e-4)
    write(tmp_path/'c.csv', t.assign(id=1))
    with pytest.raises(ValueError, match='fitted on 6 columns without names, and the table has 7: name those to use'):
        predict_file(k, tmp_path/'c.csv')
    assert len(predict_file(k, tmp_path/'c.csv', features='a,b,c,d,e,f', keep='id')) == 120
    f = MultiLabelClassifier(epochs=2, random_state=0).fit(t, y) # by name, in any order
    f.save(tmp_path/'f.safetensors')
    write(tmp_path/'d.csv', t.assign(id=1)[['id', *'fedcba']])
    assert np.allclose(predict_file(tmp_path/'f.safetensors', tmp_path/'d.csv')[['0', '1', '2']],
                       f.predict_proba(t), atol=1e-4)
    np.savez(tmp_path/'e.npz', x=x)
    assert len(predict_file(k, tmp_path/'e.npz', rows=50)) == 120


def test_texts_without_a_named_column(model, tmp_path):
    t = texts()
    m = MultiLabelClassifier(epochs=1, random_state=0).fit(list(t.text), t.labels)
    assert len(predict_file(m, write(tmp_path/'a.csv', t[['text']].rename(columns=dict(text='abstract'))))) == 120
    write(tmp_path/'b.csv', t.rename(columns=dict(text='abstract')))
    with pytest.raises(ValueError, match='name one of abstract, labels: `text`'): predict_file(m, tmp_path/'b.csv')
    assert len(predict_file(m, tmp_path/'b.csv', text='abstract')) == 120
    with pytest.raises(ValueError, match='features: the model reads text data'):
        predict_file(m, tmp_path/'b.csv', features='abstract')


def test_folders_of_pictures(tmp_path):
    ds = read(pictures(tmp_path))
    m = MultiLabelClassifier(encoder='resnet', epochs=1, random_state=0).fit_dataset(ds)
    assert list(predict_file(m, tmp_path).instance[:2]) == ['0.png', '1.png']
    (tmp_path/'new'/'a').mkdir(parents=True), (tmp_path/'new'/'b').mkdir()
    for k in 'ab': shutil.copy(tmp_path/'0.png', tmp_path/'new'/k/'0.png') # two pictures of one name
    assert list(predict_file(m, tmp_path/'new').instance) == ['a/0.png', 'b/0.png']
    shutil.rmtree(tmp_path/'new')
    (tmp_path/'labels.csv').rename(tmp_path/'labels.txt')
    assert len(predict_file(m, tmp_path, rows=7)) == 40
    (tmp_path/'0.png').rename(tmp_path.parent/'far.png'), (tmp_path/'0.png').symlink_to(tmp_path.parent/'far.png')
    with pytest.raises(ValueError, match='1 of 40 files are not in the folder'): predict_file(m, tmp_path)


def test_what_is_said(model, tmp_path):
    path = write(tmp_path/'a.csv', texts())
    with pytest.raises(ValueError, match='first the model, then the data'): predict_file(path, tmp_path/'m.safetensors')
    for out in (tmp_path/'p.xlsx', tmp_path, path/'p.csv', '/proc/none/p.csv'):
        with pytest.raises(ValueError, match='^out: '): write_predictions(model, path, out)
    with pytest.raises(ValueError, match='rows: expected a whole number'): predict_file(model, path, rows=0)
    with pytest.raises(ValueError, match='keep: expected columns among'): predict_file(model, path, keep='id')
    with pytest.raises(FileNotFoundError): predict_file(model, tmp_path/'none.csv')
    (tmp_path/'b.csv').write_text('text\n')
    with pytest.raises(ValueError, match='expected instances, got none'): predict_file(model, tmp_path/'b.csv')
