"Reading data of one's own, and refusing it."
import re
from collections import deque
from importlib import import_module
import numpy as np, pandas as pd, pytest
from PIL import Image
from mlcl.own import MultiLabelClassifier, cell_sets, found, label_matrix, read
from own_data import WORDS, numbers, pictures, scratch, texts, write

options = import_module('mlcl.own.options')

# --- what cannot be meant is refused before anything is trained

def bad_columns(tmp): return write(tmp/'a.csv', texts()), dict(text='abstract')
def bad_label_column(tmp): return write(tmp/'a.csv', texts()), dict(text='text', labels='topics')
def bad_empty_sets(tmp): return write(tmp/'a.csv', texts().assign(labels='')), dict(text='text')
def bad_one_label(tmp): return write(tmp/'a.csv', texts().assign(labels='sea')), dict(text='text')
def bad_one_column(tmp): return (numbers()[0], numbers()[1][:, :1]), {}
def bad_identifiers(tmp):
    return write(tmp/'a.csv', pd.DataFrame(dict(text='a b', id=np.arange(100_000)))), dict(text='text', labels='id')
def bad_latin(tmp):
    return write(tmp/'a.csv', texts().replace('wave', 'café', regex=True), encoding='latin-1'), dict(text='text')
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
    (bad_columns, r'text: expected columns among text, labels; got abstract'),
    (bad_label_column, 'labels: expected columns .* got topics'),
    (bad_empty_sets, 'labels: expected at least 2 .* got 0'),
    (bad_one_label, r'labels: expected at least 2 .* got 1 in all \(sea\).*sep'),
    (bad_one_column, 'labels: expected at least 2 '),
    (bad_identifiers, '100,000 of 100,000 different ones occur only once .*identifiers.*min_count'),
    (bad_latin, r"a.csv: expected utf-8, got byte 0xe9; name its encoding, such as encoding='latin-1'"),
    (bad_utf16, "a.csv: .*zero bytes.*encoding='utf-16'"),
    (bad_words, r"features: expected numbers, got 'long .{0,40} in column 'text' \(and 1 more columns\)"),
    (bad_nan, "features: expected finite numbers, got 1 empty, .*row 120, column 'size'"),
    (bad_infinity, 'features: expected finite numbers, got 6 .* row 4'), (bad_few, 'at least 30 instances .* got 20'),
    (bad_lengths, 'got 120 and 100'),
    (bad_split, "split: expected 'train', .* got 0, 1, 2 in 120 rows, the first is row 1"),
    (bad_no_test, "split: expected .* got train"), (bad_texts, 'text: expected texts, got only empty'),
    (bad_values, 'labels: expected only 0 and 1, got other values in column 0'),
    (bad_kind, 'a.xlsx: expected a file that ends in .csv, .tsv, .jsonl, .parquet'),
    (bad_empty, 'a.csv: expected a table that can be read: got no columns'),
    (bad_parquet, 'a.parquet: '), (bad_folder, 'expected one label file .* got none'),
    (bad_npz, "a.npz: expected the array 'y', got x"),
    (bad_image, r'images: 2 of 40 cannot be read: 3.png \(OSError\), 5.png \(FileNotFoundError\)'),
    (bad_only_test, 'train: expected .* got .* 1 labels')])
def test_bad_data_is_refused(tmp_path, make, said):
    data, options = make(tmp_path)
    with pytest.raises(ValueError, match=said) as e: read(data, **options)
    assert '\n' not in str(e.value)


ZEROS = texts().assign(sea=[0, 1]*60, sky=[1, 1, 0]*40)
@pytest.mark.parametrize('data, options, said', [
    (ZEROS, dict(labels='sea,sky', sep='|'), "sep: expected nothing for columns of 0 and 1, got '|'"),
    (texts(), dict(unknown='mask'), "unknown: expected nothing for label sets, got 'mask'"),
    (texts(), dict(encoding='latin-1'), "encoding: expected nothing but for a file of text, got 'latin-1'"),
    (texts().assign(a='train', b='test'), dict(split='a,b'), 'split: expected one column, got a, b')])
def test_an_option_that_cannot_apply_is_refused(data, options, said):
    with pytest.raises(ValueError, match=f'^{re.escape(said)}'): read(data, text='text', **options)


def test_columns_that_are_not_used_are_named():
    assert 'columns that are not used: author, year' in found(read(texts().assign(author='x', year=1990), text='text'))
    assert not any('not used' in line for line in found(read(texts(), text='text')))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file or folder'): read(tmp_path/'none.csv')


def test_two_gigabytes_are_refused_where_memory_does_not_suffice(tmp_path, monkeypatch):
    with open(tmp_path/'a.csv', 'wb') as f: f.truncate(2**31)
    monkeypatch.setattr(options, 'available', lambda: 4e9)
    with pytest.raises(ValueError, match=r'a.csv: needs about 6.4 GB of memory, and 4.0 GB are free'):
        read(tmp_path/'a.csv')


def test_available_memory(): assert 1e8 < options.available() < 1e14


# --- what can be read

@pytest.mark.parametrize('cells, sep, sets', [
    (['a|b', 'c', ''], None, [['a', 'b'], ['c'], []]), (['a; b', 'c;'], None, [['a', 'b'], ['c']]),
    (['a, b|c', 'd|e'], None, [['a, b', 'c'], ['d', 'e']]),
    (["['a', 'b']", '[]', None], None, [['a', 'b'], [], []]), (['a b', 'c'], ' ', [['a', 'b'], ['c']]),
    (['a', 'b', 'a b', 'b c', 'c', 'a b c', ''], None, [['a'], ['b'], ['a', 'b'], ['b', 'c'], ['c'],
                                                        ['a', 'b', 'c'], []]),
    (['New York', 'New Delhi', 'Paris'], None, [['New York'], ['New Delhi'], ['Paris']]),
    (['a', 'b', 'a b', 'b c', 'c', 'a b c', 'a b;'], None, [['a'], ['b'], ['a b'], ['b c'], ['c'], ['a b c'], ['a b']]),
    ([['x', 1], [], ('y',)], None, [['x', '1'], [], ['y']])])
def test_label_cells(cells, sep, sets): assert cell_sets(cells, sep) == sets


@pytest.mark.parametrize('how', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'latin-1', 'semicolon', 'tsv', 'parquet',
                                 'lists', 'frame', 'hub', 'hub splits'])
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
    kind = datasets.Features(text=datasets.Value('string'),
                             labels=datasets.Sequence(datasets.ClassLabel(names=list(WORDS))))
    made = lambda t: datasets.Dataset.from_dict(dict(text=list(t.text),
                                                     labels=[[[*WORDS].index(l) for l in s.split('|')]
                                                             for s in t.labels]), features=kind)
    ds = read(datasets.DatasetDict(train=made(t[:80]), validation=made(t[80:100]), test=made(t[100:])) if splits
              else made(t), text='text')
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
    for ds in (read(write(tmp_path/'a.csv', t), labels='l_*'), read(t, labels='l_1,l_2,l_3'),
               read(t, labels=['l_1', 'l_2', 'l_3']), read(tmp_path/'a.npz'), read((x, y))):
        assert (ds.kind == 'features' and np.allclose(ds.x, x) and (ds.y == y).all()
                and ds.labels in (['l_1', 'l_2', 'l_3'], ['0', '1', '2']))
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
    for f in (lambda: read((x, z)), lambda: read(t, labels='l_*'),
              lambda: read(write(tmp_path/'a.csv', t), labels='l_*'), lambda: MultiLabelClassifier('bce').fit(x, z)):
        with pytest.raises(ValueError, match="^labels: expected 0 or 1, got 18 unknown .NaN. of 360; "
                                             "unknown='absent' counts"):
            f()
    for f in (lambda: read((x, y), unknown='0'), lambda: read((x, z), unknown=''),
              lambda: MultiLabelClassifier('bce', unknown=0).fit(x, z)):
        with pytest.raises(ValueError, match='^unknown: expected (str or )?None'): f()
    with pytest.raises(ValueError, match="^unknown: expected None or 'absent' for reg, a contrastive loss, got 'mask'"):
        MultiLabelClassifier('reg', unknown='mask').fit(x, z)
    with pytest.raises(ValueError, match='infinity'): read((x, np.where(y, np.inf, 0)), unknown='absent')
    with pytest.raises(ValueError, match='^labels: expected only 0 and 1, got other values in column 1'):
        read((x, z + [[0, 2, 0]]), unknown='absent')


def test_columns_that_are_left_out_are_named(tmp_path):
    x, y = numbers()
    y = np.c_[y, np.zeros(len(y), int), np.arange(len(y)) < 3]
    names = ['a', 'b', 'c', 'none', 'few'][:y.shape[1]]
    t = pd.DataFrame(x).add_prefix('x').join(pd.DataFrame(y, columns=[f'l_{n}' for n in names]))
    for ds in read(t, labels='l_*'), read(write(tmp_path/'a.csv', t), labels='l_*'):
        assert 'labels that no instance has: 1; left out: l_none' in found(ds) and 'l_few' in ds.labels
    assert 'labels with fewer than 5 instances: 2; left out: l_none, l_few' in found(read(t, labels='l_*', min_count=5))
    assert ('labels that no instance has: 1; left out: 3' in found(read((x, y)))
            and not any('no instance has' in l for l in found(read((x, y[:, :3])))))


def test_unknown_labels_that_count_as_absent_are_reported(tmp_path):
    x, y, z = unknown_labels()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(z, columns=['l_1', 'l_2', 'l_3']))
    said = 'unknown label entries (empty or NaN): 18 (5.0%); they count as absent'
    for ds in (read((x, z), unknown='absent'), read(t, labels='l_*', unknown='absent'),
               read(write(tmp_path/'a.csv', t), labels='l_*', unknown='absent')):
        assert ds.y.dtype == np.uint8 and (ds.y == np.nan_to_num(z)).all() and said in found(ds)
    assert not any('unknown' in l for l in found(read((x, y), unknown='absent')))
    m = MultiLabelClassifier('bce', unknown='absent', epochs=2, random_state=0).fit(x, z)
    k = MultiLabelClassifier('bce', epochs=2, random_state=0).fit(x, np.nan_to_num(z))
    assert m.n_unknown_ == 18 and k.n_unknown_ == 0 and (m.predict_proba(x) == k.predict_proba(x)).all()
    m.save(tmp_path/'m.safetensors')
    assert MultiLabelClassifier.load(tmp_path/'m.safetensors').unknown == 'absent'


def test_kept_unknown_labels_stay_nan():
    _, y, z = unknown_labels()
    kept, names = label_matrix(z, unknown='mask')
    assert (kept.dtype == np.float32 and np.array_equal(kept, z.astype(np.float32), equal_nan=True)
            and names.tolist() == [0, 1, 2])
    assert label_matrix(y, unknown='mask')[0].dtype == np.uint8


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
    assert ('instances without a label: 1;' in said and 'empty texts: 1' in said
            and 'labels without a training instance: 1; left out: rare' in said)
    assert ('repeated instances: 1' in said and 'validation and test instances that are also in the '
                                                'training split: 1;' in said)
    assert 'rare' not in ds.labels and ds.y.shape == (120, 4)
    assert 'labels that every instance has: 1; nothing to learn: sea' in read(t.assign(labels=['sea', 'sea|sky']*60),
                                                                              text='text').info['notices']
    assert any('exactly one label' in s for s in read(t.assign(labels=['sea', 'sky']*60), text='text').info['notices'])
    assert found(ds)[0] == '120 texts: 70 to train, 20 to validate, 30 to test'


def test_equal_instances_stay_in_one_split():
    t = texts(60)
    ds = read(pd.concat([t, t, t], ignore_index=True), text='text')
    where = np.empty(180, object)
    for k, i in ds.splits.items(): where[i] = k
    assert ((where[:60] == where[60:120]).all() and (where[:60] == where[120:]).all()
            and set(where) == {'train', 'val', 'test'})
    assert not any('also in the training' in s for s in ds.info['notices'])
    part = np.where(np.arange(180) < 120, 'train', 'test') # a validation split is cut from the training split alone
    ds = read(pd.concat([t, t, t], ignore_index=True).assign(split=part), text='text')
    assert (list(ds.splits['test']) == list(range(120, 180)) and 20 <= len(ds.splits['val']) <= 28
            and len(ds.splits['val']) % 2 == 0)


def test_min_count():
    t = texts()
    t.loc[:2, 'labels'] += '|odd'
    assert 'odd' in read(t, text='text').labels and read(t, text='text', min_count=4).labels == sorted(WORDS)
    with pytest.raises(ValueError, match='at least 2 with 500 instances'): read(t, text='text', min_count=500)


# --- right whatever the file looks like

def sets_of(ds): return [{ds.labels[l] for l in np.flatnonzero(r)} for r in ds.y]


def as_sets(t): return [set(s.split('|')) for s in t.labels]


@pytest.mark.parametrize('form', ['series', 'frame', 'array', 'list', 'categories'])
def test_rows_belong_together_whatever_their_index(form):
    "Texts and labels are taken by position."
    t = texts().sample(frac=1, random_state=0)
    x = dict(series=t.text, frame=t[['text']], array=t.text.to_numpy(), list=list(t.text),
             categories=t.text.astype('category'))[form]
    for y in (t.labels, list(t.labels), t.labels.str.split('|'),
              pd.DataFrame({l: t.labels.str.contains(l) for l in WORDS})):
        ds = read((x, y))
        assert ds.x == list(t.text) and sets_of(ds) == as_sets(t)
    with pytest.raises(ValueError, match='data: expected X and y in the same order'): read((t.text, texts().labels))
    a, b = numbers()
    i = np.random.default_rng(0).permutation(120)
    ds = read((pd.DataFrame(a).iloc[i], pd.DataFrame(b).iloc[i]))
    assert np.allclose(ds.x, a[i]) and (ds.y == b[i]).all()


@pytest.mark.parametrize('sep', [',', ';', '\t', '|'])
@pytest.mark.parametrize('ends', ['rows', 'all'])
def test_trailing_separators(tmp_path, sep, ends):
    "Empty cells beyond the named columns are dropped; others are refused."
    t, path = texts().replace(r'\|', '/', regex=True), tmp_path/('a.tsv' if sep == '\t' else 'a.csv')
    rows = [sep.join(r) + sep for r in t.itertuples(index=False)]
    path.write_text('\n'.join(['text' + sep + 'labels' + sep*(ends == 'all'), *rows]))
    ds = read(path, text='text', sep='/')
    assert ds.x == list(t.text) and sets_of(ds) == [set(s.split('/')) for s in t.labels]
    rows[5] += 'lost'
    path.write_text('\n'.join(['text' + sep + 'labels', *rows]))
    with pytest.raises(ValueError, match='row 6 has more cells than the 2 named columns'):
        read(path, text='text', sep='/')


@pytest.mark.parametrize('odd', [None, '', 'unsupervised', 'tets', float('nan'), 3, pd.NA])
@pytest.mark.parametrize('how', ['frame', 'csv', 'parquet', 'npz'])
def test_an_unknown_split_is_refused(tmp_path, odd, how):
    "One unknown value does not throw the given splits away."
    part = np.array(['train']*70 + ['dev']*20 + ['test']*30, object)
    part[[4, 100]] = odd
    t = texts().assign(split=part)
    if how == 'csv': t = write(tmp_path/'a.csv', t)
    elif how == 'parquet':
        t.assign(split=t.split.map(lambda v: v if isinstance(v, str) else None if pd.isna(v)
                                   else str(v))).to_parquet(p := tmp_path/'a.parquet'); t = p
    elif how == 'npz':
        np.savez(p := tmp_path/'a.npz', x=numbers()[0], y=numbers()[1], split=np.array([str(v) for v in part])); t = p
    with pytest.raises(ValueError, match="split: expected 'train', .* in 2 rows, the first is row 5"):
        read(t, **{} if how == 'npz' else dict(text='text'))
    if how == 'frame': assert len(read(t, text='text', split=False).splits['train']) > 60


def test_names_of_splits_may_be_written_in_any_way():
    t = texts().assign(split=[' Train ']*70 + ['VALIDATION']*20 + ['Test']*30)
    assert {k: len(v) for k, v in read(t, text='text').splits.items()} == dict(train=70, val=20, test=30)


@pytest.mark.parametrize('cells, sets', [
    (["['a' 'b']", "['c']"], [['a', 'b'], ['c']]), (["['a'\n 'b']", '[]'], [['a', 'b'], []]),
    (["('a',)", "('a', 'b')", '()'], [['a'], ['a', 'b'], []]),
    (["{'a', 'b'}", 'set()'], [['a', 'b'], []]), (["frozenset({'a'})", 'frozenset()'], [['a'], []]),
    (['[a, b]', '[c]'], [['a', 'b'], ['c']]),
    (["array(['a', 'b'], dtype=object)"], [['a', 'b']]), (["[np.str_('a'), np.str_('b')]"], [['a', 'b']]),
    (['["a b", "c|d"]'], [['a b', 'c|d']]),
    (["[\"don't\", 'x']"], [["don't", 'x']]), (['[1 2 3]', '[4]'], [['1', '2', '3'], ['4']]),
    (['[1. 2.]'], [['1', '2']]), (["['a', nan, None]"], [['a']]),
    ([['a', 'b'], 'c|d', None, float('nan'), pd.NA], [['a', 'b'], ['c', 'd'], [], [], []]),
    ([{'a'}, 'c'], [['a'], ['c']]), ([np.array(['a', 'b']), 'c'], [['a', 'b'], ['c']]),
    ([10., float('nan'), 3.], [['10'], [], ['3']]), ([b'a|b'], [['a', 'b']]), (['nan', 'a|b'], [['nan'], ['a', 'b']]),
    (['[Music]', 'a'], [['[Music]'], ['a']]),
    ([('a', None), frozenset({'b'})], [['a'], ['b']]), ([np.int64(3), 4], [['3'], ['4']]),
    (["[b'a', b'b']", "[np.str_('a, (b)')]"], [['a', 'b'], ['a, (b)']]),
    (["deque(['a'], maxlen=2)", 'tensor([1, 2])', "dict_keys(['a'])"], [['a'], ['1', '2'], ['a']]),
    (["['a', 'b']", 'nan', 'None'], [['a', 'b'], [], []]), (['[a, b]', '[a]', 'nan'], [['a', 'b'], ['a'], []]),
    (['[a, b]', 'c'], [['a', 'b'], ['c']]),
    (["['a\nb', '\\x']"], [['\\x', 'a\nb']]), (['["\\ud83d\\udc26", "a\\/b"]'], [['a/b', '🐦']]),
    ([['a', '', ' '], ['b']], [['a'], ['b']]), ([deque(['a']), {'a': 1}.keys(), range(2)], [['a'], ['a'], ['0', '1']]),
    ([pd.array(['a', 'b']), pd.Categorical(['a'])], [['a', 'b'], ['a']]),
    (["np.str_('a')", "[Decimal('1')]"], [['a'], ['1']])])
def test_label_cells_of_every_kind(cells, sets):
    "A set of labels may be written in many ways; one that was cut short is refused."
    assert [sorted(s) for s in cell_sets(cells)] == sets
    for cut in ("['a' ... 'z']", '[1 2 ... 9]'):
        with pytest.raises(ValueError, match='cut short'): cell_sets([cut])
    with pytest.raises(ValueError, match='sep: expected what separates'): cell_sets(cells, sep='')


@pytest.mark.parametrize('cell', [{'a': 1, 'b': 0}, "{'a': 1, 'b': 0}", '{"a": "x"}', "[['a'], ['b']]", "(('a', 'b'),)",
                                  '[[a], [b]]', [['a']], np.array('a')])
def test_cells_that_hold_more_than_labels_are_refused(cell):
    for read_cells in (cell_sets, label_matrix):
        with pytest.raises(ValueError, match='^labels: expected') as e: read_cells([cell]*3)
        assert '\n' not in str(e.value)


def test_texts_in_a_matrix_of_zeros_and_ones():
    "Unknown entries may be texts as well, and other texts are refused: they are no labels."
    y = np.array([['0', '1', '1'], ['nan', '1', '0'], ['1', '0', '1']])
    for a in (y, y.tolist(), y.astype(object)): assert np.isnan(label_matrix(a, unknown='mask')[0]).sum() == 1
    odd = np.where(y == 'nan', '?', y)
    for a in (odd, odd.tolist()):
        with pytest.raises(ValueError, match="labels: expected numbers, got '[?]'"): label_matrix(a)
    assert label_matrix(np.array([['a', 'b'], ['b', '']]))[1].tolist() == ['a', 'b']


@pytest.mark.parametrize('kind', [bool, 'boolean', 'Int64', 'Float64', 'float32', 'int8', object, str, 'category',
                                  'words', 'bytes'])
@pytest.mark.parametrize('holder', ['frame', 'array', 'lists', 'csv', 'table'])
def test_zeros_and_ones_of_every_kind(tmp_path, kind, holder):
    "They are never label sets named 0 and 1."
    x, y = numbers()
    f = pd.DataFrame(y, columns=['l_1', 'l_2', 'l_3'])
    f = (f.astype(bool).astype(str) if kind == 'words' else f.astype(str).map(str.encode) if kind == 'bytes'
         else f.astype(kind))
    t = pd.DataFrame(x, columns=list('abcdef')).join(f)
    if kind == 'bytes' and holder in ('csv', 'table'): pytest.skip('bytes are no columns of a table')
    if holder == 'csv': got = read(write(tmp_path/'a.csv', t), labels='l_*').y
    elif holder == 'table': got = read(t, labels='l_*').y
    else: got = label_matrix(dict(frame=f, array=f.to_numpy(), lists=f.to_numpy().tolist())[holder])[0]
    assert (got == y).all()


def test_one_column_of_zeros_and_ones_is_no_label_set():
    x, y = numbers()
    t = pd.DataFrame(x).assign(l=y[:, 0])
    with pytest.raises(ValueError, match='expected at least 2 columns of 0 and 1, or one of label sets'):
        read(t, labels='l')
    assert label_matrix([['0', '1'], ['1'], ['0']])[1].tolist() == ['0', '1'] # label sets that are called so


@pytest.mark.parametrize('how', ['csv', 'frame', 'gap', 'jsonl', 'parquet'])
def test_codes_stay_as_they_are_written(tmp_path, how):
    "Labels, splits, file names and identifiers are no numbers."
    codes = ['010', '7.10', '1e3', '0x1']
    t = texts().assign(labels=[f'{codes[i % 4]}' for i in range(120)])
    if how == 'gap': t = texts().assign(labels=pd.Series([None if i == 3 else 10 + i % 4 for i in range(120)]))
    path = tmp_path/f'a.{how}'
    if how == 'csv': write(path, t)
    elif how == 'jsonl': t.to_json(path, orient='records', lines=True)
    elif how == 'parquet': t.to_parquet(path)
    else: path = t
    assert read(path, text='text').labels == (['10', '11', '12', '13'] if how == 'gap' else sorted(codes))


def test_file_names_are_no_numbers(tmp_path):
    pictures(tmp_path)
    t = pd.read_csv(tmp_path/'labels.csv')
    for i in range(40): (tmp_path/f'{i}.png').rename(tmp_path/f'{i:03}')
    write(tmp_path/'labels.csv', t.assign(file=[f'{i:03}' for i in range(40)]))
    assert [p[-3:] for p in read(tmp_path).x.paths[:3]] == ['000', '001', '002']


def test_duplicate_columns_and_patterns(tmp_path):
    "Patterns may meet, blanks may follow a comma, and two columns of one name are refused."
    x, y = numbers()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(y, columns=['l_1', 'l_2', 'l_3']))
    for spec in (['l_*', 'l_1'], 'l_1, l_2,l_3', 'l_1,l_2,l_3,', 'l_*,l_2'):
        assert read(t, labels=spec).labels == ['l_1', 'l_2', 'l_3']
    for bad in (t.rename(columns=dict(b='a')), pd.concat([t, t.a], axis=1), t.rename(columns=dict(a=1, b='1'))):
        with pytest.raises(ValueError, match='columns: expected different names'): read(bad, labels='l_*')
    (tmp_path/'a.csv').write_text('text,text,labels\n' + 'a,b,c\n'*40)
    with pytest.raises(ValueError, match="expected different names, got 'text' twice"):
        read(tmp_path/'a.csv', text='text')
    with pytest.raises(ValueError, match='columns: expected one use of each, got two of l_1'):
        read(t, labels='l_*', features='a,l_1')
    for spec in ('', ' ', ',', []):
        with pytest.raises(ValueError, match='^labels: expected columns among .*got none'): read(t, labels=spec)


@pytest.mark.parametrize('change', ['upper', 'utf16', 'blank line', 'index', 'Unnamed', 'gz', 'blanks', 'jsonl.gz',
                                    'ndjson', 'mark', 'empty rows', 'old Mac', 'hard spaces'])
def test_files_as_they_come(tmp_path, change):
    "Encodings, blank lines and line ends of other programs are read."
    t, path, more = texts(), tmp_path/'a.csv', {}
    if change == 'upper': write(path := tmp_path/'A.CSV', t)
    elif change == 'utf16': write(path, t, encoding='utf-16'); more = dict(encoding='UTF16')
    elif change == 'mark': write(path, t, encoding='utf-8-sig'); more = dict(encoding='utf8')
    elif change == 'blank line': path.write_text('\n \n'.replace(' ', '') + t.to_csv(index=False))
    elif change == 'empty rows': path.write_text(',\n,,\n \n' + t.to_csv(index=False))
    elif change == 'old Mac': t.to_csv(path, index=False, lineterminator='\r')
    elif change == 'hard spaces': path.write_text(t.to_csv(index=False).replace('text,labels', 'text\xa0,\xa0labels'))
    elif change == 'index': t.to_csv(path)
    elif change == 'Unnamed': t.reset_index(names='Unnamed: 0').to_csv(path, index=False)
    elif change == 'gz': t.to_csv(path := tmp_path/'a.csv.gz', index=False)
    elif change == 'blanks':
        path.write_text(' text , labels\n' + '\n'.join(f'{a}, {b}' for a, b in t.itertuples(index=False)))
    else: t.to_json(path := tmp_path/f'a.{change}', orient='records', lines=True)
    ds = read(path, text='text', **more)
    assert ds.x == list(t.text) and sets_of(ds) == as_sets(t)


def test_a_table_may_have_many_columns(tmp_path):
    "The line with the names is longer than what is read to find the separator."
    x, y = numbers(40)
    t = pd.DataFrame(np.tile(x, (1, 400)),
                     columns=[f'a long name {i}'*3
                              for i in range(2400)]).join(pd.DataFrame(y, columns=['l_1', 'l_2', 'l_3']))
    assert (len(t.to_csv(index=False).partition('\n')[0]) > 2**16
            and read(write(tmp_path/'a.csv', t), labels='l_*').x.shape == (40, 2400))
    assert read(t.set_axis([*range(2403)], axis=1), labels=[2400, 2401], features=0).x.shape == (40, 1)


def test_a_column_without_a_name_is_no_feature(tmp_path):
    x, y = numbers()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(y, columns=['l_1', 'l_2', 'l_3']))
    t.to_csv(tmp_path/'a.csv')
    for data in (tmp_path/'a.csv', pd.read_csv(tmp_path/'a.csv')):
        ds = read(data, labels='l_*')
        assert ds.x.shape == (120, 6) and 'columns that are not used: Unnamed: 0' in found(ds)
        assert read(data, labels='l_*', features='Unnamed: 0,a').x.shape == (120, 2)


@pytest.mark.parametrize('f, said', [
    (lambda t: read(t, text='text', images='labels'), 'text and images: expected one kind'),
    (lambda t: read(t, text='text', encoding='utf-99'), 'encoding: expected nothing but for a file of text'),
    (lambda t: read((list(t.text[:-1]) + [None], t.labels)), 'text: expected texts, got None in row 120'),
    (lambda t: read((t.text.where(t.index != 3), t.labels)), 'text: expected texts, got nan in row 4'),
    (lambda t: read((t.text, [{1, 'a'}]*120)), 'labels: expected all texts or all numbers, got both'),
    (lambda t: read((t.text, [1, 'a']*60)), None),
    (lambda t: read((t.text, [[['a'], ['b']]]*120)), 'labels: expected texts or numbers in a label set'),
    (lambda t: read(3), 'data: expected a file'),
    (lambda t: read(None), 'data: expected a file'), (lambda t: read([1, 2]), 'data: expected a file'),
    (lambda t: read((t.text,)), 'data: expected a pair'),
    (lambda t: read((t.text, t.labels), text='text'), "text: expected nothing for arrays, got 'text'"),
    (lambda t: read(t, text='text', min_count=-1), 'min_count: expected an integer'),
    (lambda t: read(t, text='text', min_count=1.5), 'min_count: expected an integer'),
    (lambda t: read((t.text, 'abc')), 'labels: expected a matrix'),
    (lambda t: read(t[:0], text='text'), 'data: expected rows'), (lambda t: read((np.zeros((120, 4, 4)), numbers()[1])),
                                                                  'images: expected uint8'),
    (lambda t: read(dict(train=t[:80], test=t[80:], unsupervised=t[:9]), text='text'),
     'split: expected .*unsupervised in 9 rows')])
def test_mistakes_in_python_are_one_line(f, said):
    "A wrong call is answered in one line that names the argument."
    if said is None: f(texts())
    else:
        with pytest.raises(ValueError, match=said) as e: f(texts())
        assert '\n' not in str(e.value)


def test_unknown_encodings(tmp_path):
    for e in ('zzz', 'hex', '', 'rot13', 'utf\0'):
        with pytest.raises(ValueError, match='encoding: unknown encoding'):
            read(write(tmp_path/'a.csv', texts()), text='text', encoding=e)


def forged(tmp, how):
    "An .npz file that is none, or not quite."
    import pickle, zipfile
    path = tmp/'a.npz'
    if how == 'objects': np.savez(path, x=np.array([{}]*40, object), y=numbers()[1])
    elif how == 'one array': np.save(tmp/'a.npy', numbers()[0]); (tmp/'a.npy').rename(path)
    elif how == 'pickle': path.write_bytes(pickle.dumps(dict(x=1)))
    else:
        np.savez(path, x=numbers()[0], y=numbers()[1])
        raw = bytearray(path.read_bytes())
        if how == 'damaged': raw[200:900] = b'\xff'*700; path.write_bytes(raw)
        elif how == 'cut': path.write_bytes(raw[:-300])
        else:
            with zipfile.ZipFile(path, 'w') as z:
                (z.writestr('x.npy' if how == 'no header' else 'x', 'not an array'),
                 z.writestr('y.npy', b'\x93NUMPY\x01\x00'))
    return path


@pytest.mark.parametrize('how', ['objects', 'one array', 'pickle', 'damaged', 'cut', 'no header', 'no array'])
def test_forged_archives_are_one_line(tmp_path, how):
    with pytest.raises(ValueError, match='^a.npz: expected') as e: read(forged(tmp_path, how))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('content', [b'\x1f\x8b\x08 no', b'', b'BZh9 no'])
def test_damaged_packed_files(tmp_path, content):
    for end in ('gz', 'bz2', 'xz'):
        (p := tmp_path/f'a.csv.{end}').write_bytes(content)
        with pytest.raises(ValueError, match='^a.csv.*: expected a table') as e: read(p, text='text')
        assert '\n' not in str(e.value)


def test_json_lines_that_are_none(tmp_path):
    (p := tmp_path/'a.jsonl').write_text('{"text": "a", "labels": ["b"]}\n{"text": \n')
    with pytest.raises(ValueError, match='a.jsonl: expected a table that can be read: line 2'): read(p, text='text')
    p.write_text('[1, 2]\n')
    with pytest.raises(ValueError, match='line 1: expected an object'): read(p, text='text')


@pytest.mark.parametrize('what', ['fifo', 'folder', 'missing', 'large', 'none'])
def test_pictures_that_are_none(tmp_path, what):
    "Nothing hangs, and nothing fills the memory."
    import os
    t = pd.read_csv(pictures(tmp_path)/'labels.csv')
    (tmp_path/'7.png').unlink()
    if what == 'fifo': os.mkfifo(tmp_path/'7.png')
    elif what == 'folder': (tmp_path/'7.png').mkdir()
    elif what == 'large': Image.new('1', (13_000, 13_000)).save(tmp_path/'7.png')
    elif what == 'none': (tmp_path/'7.png').write_bytes(b'')
    said = dict(fifo='not a regular file', folder='not a regular file', missing='FileNotFoundError',
                large='169 million pixels, at most 50', none='UnidentifiedImageError')[what]
    with pytest.raises(ValueError, match=rf'images: 1 of 40 cannot be read: 7.png \({said}\)'):
        read(tmp_path, images='file')
    write(tmp_path/'labels.csv', t.assign(file=t.file.where(t.index != 3)))
    with pytest.raises(ValueError, match='images: expected a file name in each row, got none in row 4'):
        read(tmp_path, images='file')


@pytest.mark.parametrize('how', ['up', 'absolute', 'link', 'linked folder'])
def test_pictures_stay_in_their_folder(tmp_path, how):
    (tmp_path/'p').mkdir(), (tmp_path/'q').mkdir()
    t = pd.read_csv(pictures(tmp_path/'p')/'labels.csv')
    (tmp_path/'p'/'0.png').rename(secret := tmp_path/'q'/'0.png')
    name = dict(up='../q/0.png', absolute=str(secret), link='0.png')
    if how == 'link': (tmp_path/'p'/'0.png').symlink_to(secret)
    if how == 'linked folder': (tmp_path/'p'/'sub').symlink_to(tmp_path/'q')
    write(tmp_path/'p'/'labels.csv', t.assign(file=[name.get(how, 'sub/0.png'), *t.file[1:]]))
    with pytest.raises(ValueError, match='images: 1 of 40 files are not in the folder .*allow_outside=True'):
        read(tmp_path/'p', images='file')
    assert len(read(tmp_path/'p', images='file', allow_outside=True)) == 40


def test_names_that_deceive_are_shown_as_they_are(tmp_path):
    "Control and direction characters pass into no report."
    t = texts()
    t['labels'] = t.labels.str.replace('sea', 's\u202eea\x07')
    ds = read(t, text='text')
    assert 's\\u202eea\\u0007' in ds.labels and not any(c in ''.join(found(ds)) for c in '\u202e\x07')
    assert options.shown('👩\u200d🔬') == '👩\u200d🔬'


def test_unknown_labels_may_stay_unknown(tmp_path):
    x, y, z = unknown_labels()
    t = pd.DataFrame(x, columns=list('abcdef')).join(pd.DataFrame(z, columns=['l_1', 'l_2', 'l_3']))
    for data, more in (((x, z), {}), (t, dict(labels='l_*')), (write(tmp_path/'a.csv', t), dict(labels='l_*'))):
        ds = read(data, unknown='mask', **more)
        assert (np.array_equal(ds.y, z.astype(np.float32), equal_nan=True)
                and any('left out of losses' in l for l in found(ds)))


def test_masked_arrays_have_gaps():
    x, y = numbers()
    with pytest.raises(ValueError, match='features: expected finite numbers'): read((np.ma.array(x, mask=x > 2), y))


def test_hub_labels_that_are_unknown():
    datasets = pytest.importorskip('datasets')
    kind = datasets.Features(text=datasets.Value('string'), labels=datasets.ClassLabel(names=list(WORDS)))
    with pytest.raises(ValueError, match='labels: expected class numbers of at least 0, got -1'):
        read(datasets.Dataset.from_dict(dict(text=list(texts().text), labels=[-1]*120), features=kind), text='text')


def test_folds_hold_every_instance_once_and_equal_ones_together():
    from mlcl.own.read import folded
    t = texts()
    ds = read(pd.concat([t, t[:40]], ignore_index=True), text='text')
    parts = folded(ds, 4)
    assert (sorted(np.concatenate([p.splits['test'] for p in parts])) == list(range(160))
            and len({p.name for p in parts}) == 4)
    for p in parts:
        where = np.empty(160, object)
        for k, i in p.splits.items(): where[i] = k
        assert (where[:40] == where[120:]).all() and p.x == ds.x and p.labels == ds.labels
        assert .15 < len(p.splits['val'])/(160 - len(p.splits['test'])) < .25
    share = [p.y[p.splits['test']].mean(0) for p in parts]
    assert np.abs(np.array(share) - ds.y.mean(0)).max() < .12


def test_pictures_in_a_list_are_read_like_an_array():
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    y = np.eye(2, dtype=int)[np.arange(40) % 2]
    for many in (x, list(x)):
        ds = read((many, y))
        assert ds.kind == 'image' and len(ds.x) == 40 and len(ds.sha256) == 64
    assert read((list(x), y)).sha256 != read((list(x[::-1]), y)).sha256
