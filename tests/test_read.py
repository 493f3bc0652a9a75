"Reading data of one's own, and refusing it."
from importlib import import_module
import numpy as np, pandas as pd, pytest
from mlcl.own import MultiLabelClassifier, cell_sets, found, label_matrix, read
from own_data import WORDS, numbers, pictures, texts, write

tables = import_module('mlcl.own.tables')

# --- what cannot be meant is refused before anything is trained

def bad_columns(tmp): return write(tmp/'a.csv', texts()), dict(text='abstract')
def bad_label_column(tmp): return write(tmp/'a.csv', texts()), dict(text='text', labels='topics')
def bad_empty_sets(tmp): return write(tmp/'a.csv', texts().assign(labels='')), dict(text='text')
def bad_one_label(tmp): return write(tmp/'a.csv', texts().assign(labels='sea')), dict(text='text')
def bad_one_column(tmp): return (numbers()[0], numbers()[1][:, :1]), {}
def bad_identifiers(tmp): return write(tmp/'a.csv', pd.DataFrame(dict(text='a b', id=np.arange(100_000)))), dict(text='text', labels='id')
def bad_latin(tmp): return write(tmp/'a.csv', texts().replace('wave', 'café', regex=True), encoding='latin-1'), dict(text='text')
def bad_utf16(tmp): return write(tmp/'a.csv', texts(), encoding='utf-16-le'), dict(text='text')
def bad_words(tmp): return write(tmp/'a.csv', texts().assign(text='long '*200, age='old')), {}
def bad_nan(tmp): return write(tmp/'a.csv', texts()[['labels']].assign(age=3., size=[*[1.]*119, None])), {}
def bad_infinity(tmp): return (np.where(np.arange(120)[:, None] == 3, np.inf, numbers()[0]), numbers()[1]), {}
def bad_few(tmp): return write(tmp/'a.csv', texts(20)), dict(text='text')
def bad_lengths(tmp): return (numbers(120)[0], numbers(100)[1]), {}
def bad_split(tmp): return write(tmp/'a.csv', texts().assign(fold=np.arange(120) % 3)), dict(text='text', split='fold')
def bad_no_test(tmp): return write(tmp/'a.csv', texts().assign(split='train')), dict(text='text')
def bad_texts(tmp): return write(tmp/'a.csv', texts().assign(text='')), dict(text='text')
def bad_values(tmp): return (numbers()[0], 2*numbers()[1]), {}
def bad_kind(tmp): return write(tmp/'a.xlsx', texts()), dict(text='text')
def bad_empty(tmp): (tmp/'a.csv').write_text(''); return tmp/'a.csv', dict(text='text')
def bad_parquet(tmp): (tmp/'a.parquet').write_bytes(b'PAR1 no'); return tmp/'a.parquet', dict(text='text')
def bad_folder(tmp): pictures(tmp); (tmp/'labels.csv').unlink(); return tmp, {}
def bad_npz(tmp): np.savez(tmp/'a.npz', x=numbers()[0]); return tmp/'a.npz', {}
def bad_image(tmp):
    (pictures(tmp)/'3.png').write_bytes((tmp/'3.png').read_bytes()[:60])
    (tmp/'5.png').unlink()
    return tmp, dict(images='file')
def bad_only_test(tmp):
    t = texts()
    return write(tmp/'a.csv', t.assign(split=np.where(t.labels.str.contains('sea|sky'), 'test', 'train')).assign(
        labels=t.labels.where(t.labels.str.contains('sea|sky'), 'wood'))), dict(text='text')


@pytest.mark.parametrize('make, said', [
    (bad_columns, r'text: expected columns among text, labels; got abstract'), (bad_label_column, 'labels: expected columns .* got topics'),
    (bad_empty_sets, 'labels: expected at least 2 .* got 0'), (bad_one_label, r'labels: expected at least 2 .* got 1 in all \(sea\).*sep'),
    (bad_one_column, 'labels: expected at least 2 '), (bad_identifiers, '100,000 of 100,000 different ones occur only once .*identifiers.*min_count'),
    (bad_latin, r"a.csv: expected utf-8, got byte 0xe9; name its encoding, such as encoding='latin-1'"), (bad_utf16, "a.csv: .*zero bytes.*encoding='utf-16'"),
    (bad_words, r"features: expected numbers, got 'long .{0,40} in column 'text' \(and 1 more columns\)"), (bad_nan, "features: expected finite numbers, got 1 empty, .*row 120, column 'size'"),
    (bad_infinity, 'features: expected finite numbers, got 6 .* row 4'), (bad_few, 'at least 30 instances .* got 20'), (bad_lengths, 'got 120 and 100'),
    (bad_split, "split: expected 'train', .* got 0, 1, 2"), (bad_no_test, "split: expected .* got train"), (bad_texts, 'text: expected texts, got only empty'),
    (bad_values, 'labels: expected only 0 and 1, got other values in column 0'), (bad_kind, 'a.xlsx: expected a .csv, .tsv or .parquet'), (bad_empty, 'a.csv: No columns'),
    (bad_parquet, 'a.parquet: '), (bad_folder, 'expected one label file .* got none'), (bad_npz, "a.npz: expected the array 'y', got x"),
    (bad_image, r'images: 2 of 40 cannot be read: 3.png \(OSError\), 5.png \(FileNotFoundError\)'), (bad_only_test, 'train: expected .* got .* 1 labels')])
def test_bad_data_is_refused(tmp_path, make, said):
    data, options = make(tmp_path)
    with pytest.raises(ValueError, match=said) as e: read(data, **options)
    assert '\n' not in str(e.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file or folder'): read(tmp_path/'none.csv')


def test_two_gigabytes_are_refused_where_memory_does_not_suffice(tmp_path, monkeypatch):
    with open(tmp_path/'a.csv', 'wb') as f: f.truncate(2**31)
    monkeypatch.setattr(tables, 'available', lambda: 4e9)
    with pytest.raises(ValueError, match=r'a.csv: needs about 6.4 GB of memory, and 4.0 GB are free'): read(tmp_path/'a.csv')


def test_available_memory(): assert 1e8 < tables.available() < 1e14


# --- what can be read

@pytest.mark.parametrize('cells, sep, sets', [
    (['a|b', 'c', ''], None, [['a', 'b'], ['c'], []]), (['a; b', 'c;'], None, [['a', 'b'], ['c']]), (['a, b|c', 'd|e'], None, [['a, b', 'c'], ['d', 'e']]),
    (["['a', 'b']", '[]', None], None, [['a', 'b'], [], []]), (['a b', 'c'], ' ', [['a', 'b'], ['c']]),
    (['a', 'b', 'a b', 'b c', 'c', 'a b c', ''], None, [['a'], ['b'], ['a', 'b'], ['b', 'c'], ['c'], ['a', 'b', 'c'], []]),
    (['New York', 'New Delhi', 'Paris'], None, [['New York'], ['New Delhi'], ['Paris']]), (['a', 'b', 'a b', 'b c', 'c', 'a b c', 'a b;'], None, [['a'], ['b'], ['a b'], ['b c'], ['c'], ['a b c'], ['a b']]),
    ([['x', 1], [], ('y',)], None, [['x', '1'], [], ['y']])])
def test_label_cells(cells, sep, sets): assert cell_sets(cells, sep) == sets


@pytest.mark.parametrize('how', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'latin-1', 'semicolon', 'tsv', 'parquet', 'lists', 'frame', 'hub', 'hub splits'])
def test_the_same_table_in_many_forms(tmp_path, how):
    t = texts().replace('wave', 'café', regex=True)
    path, more = tmp_path/'a.csv', {}
    if how == 'parquet': t.to_parquet(path := tmp_path/'a.parquet')
    elif how == 'lists': t.assign(labels=t.labels.str.split('|')).to_parquet(path := tmp_path/'a.parquet')
    elif how == 'tsv': path = write(tmp_path/'a.tsv', t, sep='\t')
    elif how == 'semicolon': write(path, t, sep=';')
    elif how == 'frame': path = t
    elif how.startswith('hub'):
        class Hub: # as a Hugging Face dataset
            def __init__(self, t): self.to_pandas = lambda: t
        path = Hub(t) if how == 'hub' else dict(train=Hub(t[:80]), validation=Hub(t[80:100]), test=Hub(t[100:]))
    else:
        write(path, t, encoding=how)
        more = dict(encoding=how) if how in ('utf-16-le', 'latin-1') else {}
    ds = read(path, text='text', **more)
    assert ds.kind == 'text' and ds.x == list(t.text) and ds.labels == sorted(WORDS)
    assert [set(l.split('|')) for l in t.labels] == [{ds.labels[i] for i in np.flatnonzero(r)} for r in ds.y]
    assert sorted(np.concatenate(list(ds.splits.values()))) == list(range(120))
    if how == 'hub splits': assert {k: len(v) for k, v in ds.splits.items()} == dict(train=80, val=20, test=20)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('splits', [False, True])
def test_a_hugging_face_dataset_keeps_the_names_of_its_labels(splits):
    datasets = pytest.importorskip('datasets')
    t = texts()
    kind = datasets.Features(text=datasets.Value('string'), labels=datasets.Sequence(datasets.ClassLabel(names=list(WORDS))))
    made = lambda t: datasets.Dataset.from_dict(dict(text=list(t.text), labels=[[[*WORDS].index(l) for l in s.split('|')] for s in t.labels]), features=kind)
    ds = read(datasets.DatasetDict(train=made(t[:80]), validation=made(t[80:100]), test=made(t[100:])) if splits else made(t), text='text')
    assert ds.x == list(t.text) and ds.labels == sorted(WORDS)
    assert [set(l.split('|')) for l in t.labels] == [{ds.labels[i] for i in np.flatnonzero(r)} for r in ds.y]


def test_sparse_matrices_and_files_that_are_none(tmp_path):
    from scipy import sparse
    x, y = numbers()
    for a, b in ((sparse.csr_matrix(x), sparse.csr_matrix(y)), (sparse.csr_array(x), y)):
        ds = read((a, b))
        assert np.allclose(ds.x, x) and (ds.y == y).all()
    huge = sparse.csr_matrix((10**7, 10**7))
    with pytest.raises(ValueError, match='^features: needs about'): read((huge, y))
    for content in (b'', b'PK\x03\x04 no archive', b'nothing of the kind'):
        (tmp_path/'a.npz').write_bytes(content)
        with pytest.raises(ValueError, match='^a.npz: expected an .npz file that can be read'): read(tmp_path/'a.npz')


def test_features_and_label_columns(tmp_path):
    x, y = numbers()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(y, columns=['l_1', 'l_2', 'l_3']))
    np.savez(tmp_path/'a.npz', X=x, y=y, names=['l_1', 'l_2', 'l_3'])
    for ds in (read(write(tmp_path/'a.csv', t), labels='l_*'), read(t, labels='l_1,l_2,l_3'), read(t, labels=['l_1', 'l_2', 'l_3']), read(tmp_path/'a.npz'), read((x, y))):
        assert ds.kind == 'features' and np.allclose(ds.x, x) and (ds.y == y).all() and ds.labels in (['l_1', 'l_2', 'l_3'], ['0', '1', '2'])
    assert read(t, labels='l_*', features='a,b').x.shape == (120, 2)


def unknown_labels():
    "Features, labels, and the labels with a seventh of one column unknown."
    x, y = numbers()
    z = y.astype(float)
    z[::7, 0] = np.nan
    return x, y, z


def test_unknown_labels_are_refused_until_it_is_said_what_they_are(tmp_path):
    x, y, z = unknown_labels()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(z, columns=['l_1', 'l_2', 'l_3']))
    for f in (lambda: read((x, z)), lambda: read(t, labels='l_*'), lambda: read(write(tmp_path/'a.csv', t), labels='l_*'), lambda: MultiLabelClassifier('bce').fit(x, z)):
        with pytest.raises(ValueError, match="^labels: expected 0 or 1, got 18 unknown .NaN. of 360; unknown='absent' counts"): f()
    for f in (lambda: read((x, z), unknown='left out'), lambda: read((x, y), unknown='0'), lambda: MultiLabelClassifier('bce', unknown=0).fit(x, z)):
        with pytest.raises(ValueError, match='^unknown: expected None'): f()
    with pytest.raises(ValueError, match="^unknown: expected None or 'absent' for reg, a contrastive loss, got 'left out'"):
        MultiLabelClassifier('reg', unknown='left out').fit(x, z)
    with pytest.raises(ValueError, match='infinity'): read((x, np.where(y, np.inf, 0)), unknown='absent')
    with pytest.raises(ValueError, match='^labels: expected only 0 and 1, got other values in column 1'): read((x, z + [[0, 2, 0]]), unknown='absent')


def test_unknown_labels_that_count_as_absent_are_reported(tmp_path):
    x, y, z = unknown_labels()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(z, columns=['l_1', 'l_2', 'l_3']))
    said = '18 label entries (5.0%) are unknown (empty or NaN) and count as absent'
    for ds in (read((x, z), unknown='absent'), read(t, labels='l_*', unknown='absent'), read(write(tmp_path/'a.csv', t), labels='l_*', unknown='absent')):
        assert ds.y.dtype == np.uint8 and (ds.y == np.nan_to_num(z)).all() and said in found(ds)
    assert not any('unknown' in l for l in found(read((x, y), unknown='absent')))
    m = MultiLabelClassifier('bce', unknown='absent', epochs=2, random_state=0).fit(x, z)
    k = MultiLabelClassifier('bce', epochs=2, random_state=0).fit(x, np.nan_to_num(z))
    assert m.n_unknown_ == 18 and k.n_unknown_ == 0 and (m.predict_proba(x) == k.predict_proba(x)).all()
    m.save(tmp_path/'m.safetensors')
    assert MultiLabelClassifier.load(tmp_path/'m.safetensors').unknown == 'absent'


def test_kept_unknown_labels_stay_nan():
    _, y, z = unknown_labels()
    kept, names = label_matrix(z, unknown='left out')
    assert kept.dtype == np.float32 and np.array_equal(kept, z.astype(np.float32), equal_nan=True) and names.tolist() == [0, 1, 2]
    assert label_matrix(y, unknown='left out')[0].dtype == np.uint8


def test_folder_of_pictures(tmp_path):
    ds = read(pictures(tmp_path))
    assert ds.kind == 'image' and ds.x[0].shape == (12, 12, 3) and ds.labels == ['blue', 'red'] and len(ds) == 40
    assert ds.sha256 == read(tmp_path, images='file').sha256 == read(tmp_path/'labels.csv', images='file').sha256


def test_notices(tmp_path):
    t = texts()
    t.loc[0, 'labels'] = ''
    t.loc[1, 'text'] = ' '
    part = np.array(['train']*70 + ['val']*20 + ['test']*30)
    t.loc[119, 'labels'] = 'rare|sea'
    t.loc[118, ['text', 'labels']] = t.loc[5, ['text', 'labels']].to_numpy()
    ds = read(t.assign(split=part), text='text')
    said = ' / '.join(ds.info['notices'])
    assert '1 instances have no label' in said and '1 texts are empty' in said and '1 labels have no training instance' in said and 'rare' in said
    assert '1 instances repeat another' in said and '1 instances of the validation and test splits are also in the training split' in said
    assert 'rare' not in ds.labels and ds.y.shape == (120, 4)
    assert '1 labels stand on every instance and ask nothing: sea' in read(t.assign(labels=['sea', 'sea|sky']*60), text='text').info['notices']
    assert any('exactly one label' in s for s in read(t.assign(labels=['sea', 'sky']*60), text='text').info['notices'])
    assert found(ds)[0] == '120 texts: 70 to train, 20 to validate, 30 to test'


def test_equal_instances_stay_in_one_split():
    t = texts(60)
    ds = read(pd.concat([t, t, t], ignore_index=True), text='text')
    where = np.empty(180, object)
    for k, i in ds.splits.items(): where[i] = k
    assert (where[:60] == where[60:120]).all() and (where[:60] == where[120:]).all() and set(where) == {'train', 'val', 'test'}
    assert not any('also in the training' in s for s in ds.info['notices'])
    part = np.where(np.arange(180) < 120, 'train', 'test') # a validation split is cut from the training split alone
    ds = read(pd.concat([t, t, t], ignore_index=True).assign(split=part), text='text')
    assert list(ds.splits['test']) == list(range(120, 180)) and 20 <= len(ds.splits['val']) <= 28 and len(ds.splits['val']) % 2 == 0


def test_min_count():
    t = texts()
    t.loc[:2, 'labels'] += '|odd'
    assert 'odd' in read(t, text='text').labels and read(t, text='text', min_count=4).labels == sorted(WORDS)
    with pytest.raises(ValueError, match='at least 2 with 500 instances'): read(t, text='text', min_count=500)
