"Data of one's own: reading and refusing it, comparing losses on it, the classifier, the saved file, the commands."
import html.parser, json, re, time, types
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from sklearn.utils.estimator_checks import parametrize_with_checks
from mlcl import compare as c
from mlcl.cli import main
from mlcl.compare import MultiLabelClassifier, found, label_matrix, label_sets, read
from mlcl.losses import LOSSES
from mlcl.metrics import scores

QUIET = lambda *a, **k: None
WORDS = dict(sea='wave boat salt', sky='cloud bird wind', wood='tree leaf moss', town='street tram shop')


@pytest.fixture(scope='module', autouse=True)
def registry():
    "Data sets of one's own are known by name while these tests run, and forgotten after them."
    from mlcl.data import SETS
    held = dict(SETS)
    yield
    SETS.clear(); SETS.update(held)



def texts(n=120, seed=0):
    "Texts whose words say which of four labels they have; one to three labels each."
    rng = np.random.default_rng(seed)
    sets = [sorted(rng.choice(list(WORDS), rng.integers(1, 4), replace=False)) for _ in range(n)]
    words = [[w for l in s for w in rng.choice(WORDS[l].split(), 2)] + [f'n{i}'] for i, s in enumerate(sets)]
    return pd.DataFrame(dict(text=[' '.join(w) for w in words], labels=['|'.join(s) for s in sets]))


def noisy(seed=0):
    "The same, with the labels of a third of the rows mixed up: no loss is perfect."
    t, i = texts(seed=seed), np.arange(0, 120, 3)
    t.loc[i, 'labels'] = t.labels[np.roll(i, 1)].to_numpy()
    return t


def numbers(n=120, seed=0):
    "Features that decide three labels."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return x, (x[:, :3] > .3).astype(int)


def write(path, t, **more):
    t.to_csv(path, index=False, **more)
    return path


def pictures(folder, n=40):
    "Pictures: the left half red or not, the right half blue or not."
    y = np.random.default_rng(0).integers(0, 2, (n, 2))
    for i, (a, b) in enumerate(y):
        x = np.random.default_rng(i).integers(0, 40, (12, 12, 3)).astype(np.uint8)
        x[:, :6, 0] += 200*a.astype(np.uint8)
        x[:, 6:, 2] += 200*b.astype(np.uint8)
        Image.fromarray(x).save(folder/f'{i}.png')
    sets = [';'.join(l for l, on in zip(('red', 'blue'), r) if on) for r in y]
    write(folder/'labels.csv', pd.DataFrame(dict(file=[f'{i}.png' for i in range(n)], labels=sets)))
    return folder


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


@pytest.mark.parametrize('options, said', [(dict(losses=['regg']), 'losses: expected names among bce'), (dict(seeds=0), 'seeds: expected a positive'),
    (dict(time_budget=-1), 'time_budget: expected a positive'), (dict(encoder='mlp'), "'mlp' reads features"), (dict(lr=1e30), 'trial: one epoch of reg with bag failed: TrainingFailed')])
def test_bad_settings_are_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said): c.compare(texts(), text='text', out=tmp_path/'out', say=QUIET, **options)


def test_two_gigabytes_are_refused_where_memory_does_not_suffice(tmp_path, monkeypatch):
    with open(tmp_path/'a.csv', 'wb') as f: f.truncate(2**31)
    monkeypatch.setattr(c, 'available', lambda: 4e9)
    with pytest.raises(ValueError, match=r'a.csv: needs about 6.4 GB of memory, and 4.0 GB are free'): read(tmp_path/'a.csv')


def test_memory_is_estimated_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(c, 'available', lambda: 2e8)
    with pytest.raises(ValueError, match='training: needs about 1.5 GB of memory, and 0.2 GB are free'):
        c.compare(texts(), text='text', out=tmp_path/'out', say=QUIET)
    assert not (tmp_path/'out').exists()
    y = np.zeros((1000, 40_000), np.uint8)
    y[:, ::10] = 1
    with pytest.raises(ValueError, match='1,000 instances × 40,000 labels: needs about'): label_matrix(y)


def test_available_memory(): assert 1e8 < c.available() < 1e14


# --- what can be read

@pytest.mark.parametrize('cells, sep, sets', [
    (['a|b', 'c', ''], None, [['a', 'b'], ['c'], []]), (['a; b', 'c;'], None, [['a', 'b'], ['c']]), (['a, b|c', 'd|e'], None, [['a, b', 'c'], ['d', 'e']]),
    (["['a', 'b']", '[]', None], None, [['a', 'b'], [], []]), (['a b', 'c'], ' ', [['a', 'b'], ['c']]),
    (['a', 'b', 'a b', 'b c', 'c', 'a b c', ''], None, [['a'], ['b'], ['a', 'b'], ['b', 'c'], ['c'], ['a', 'b', 'c'], []]),
    (['New York', 'New Delhi', 'Paris'], None, [['New York'], ['New Delhi'], ['Paris']]), (['a', 'b', 'a b', 'b c', 'c', 'a b c', 'a b;'], None, [['a'], ['b'], ['a b'], ['b c'], ['c'], ['a b c'], ['a b']]),
    ([['x', 1], [], ('y',)], None, [['x', '1'], [], ['y']])])
def test_label_cells(cells, sep, sets): assert label_sets(cells, sep) == sets


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


def test_weights_of_positives_reach_the_loss():
    x, y = numbers()
    m = MultiLabelClassifier('bce', settings=dict(loss=dict(pos_weight='balanced')), epochs=1, random_state=0).fit(x, y)
    n = np.array(m.trained_.model.label_counts)
    assert m.trained_.model.loss.pos_weight.tolist() == pytest.approx((m.trained_.model.n_instances/n - 1).tolist())
    with pytest.raises(ValueError, match='^pos_weight: expected .* each of 3 labels'):
        MultiLabelClassifier('asl', settings=dict(loss=dict(pos_weight=[1., 2.]))).fit(x, y)
    with pytest.raises(ValueError, match='^settings: expected for reg'):
        MultiLabelClassifier('reg', settings=dict(loss=dict(pos_weight='balanced'))).fit(x, y)


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
    assert c.found(ds)[0] == '120 texts: 70 to train, 20 to validate, 30 to test'


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


# --- comparing

@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    out, lines = tmp_path_factory.mktemp('compare'), []
    res = c.compare(noisy(), ('reg', 'bce', 'zlpr'), seeds=2, out=out, epochs=15, text='text', say=lambda s, **_: lines.append(s))
    return out, res, lines


def test_compare_reports(compared):
    out, res, lines = compared
    assert json.loads((out/'report.json').read_text()) == json.loads(json.dumps(res))
    assert {r['loss'] for r in res['losses']} == {'reg', 'bce', 'zlpr'} and all(r['seeds'] == 2 for r in res['losses'])
    val = [r['val_macro_f1'] for r in res['losses']]
    assert val == sorted(val, reverse=True) and val[0] > .6
    for r in res['losses'][1:]: assert r['behind'][0] == pytest.approx(res['losses'][0]['macro_f1'] - r['macro_f1'], abs=2e-5) != 0
    assert all(r['lower'] <= r['macro_f1'] <= r['upper'] and r['readout'] in c.READ for r in res['losses'])
    recs = [json.loads(l) for l in (out/'records.jsonl').read_text().splitlines()]
    assert {r['checkpoint'] for r in recs if r['readout'] != 'online'} == {'best'} and {r['study'] for r in recs} == {'trial', 'compare'}
    for r in res['losses']: # validation data alone choose the readout
        of = lambda split: {k: np.mean([x['metrics']['macro_f1'] for x in recs if (x['study'], x['loss'], x['readout'], x['split']) == ('compare', r['loss'], k, split)])
                            for k in c.READ if k in {x['readout'] for x in recs if x['loss'] == r['loss']}}
        assert r['val_macro_f1'] == pytest.approx(max(of('val').values()), abs=2e-5) == pytest.approx(of('val')[r['readout']], abs=2e-5)
        assert r['macro_f1'] == pytest.approx(of('test')[r['readout']], abs=2e-5)
    assert [l['label'] for l in res['labels']] == sorted(WORDS) and res['recommendation'].startswith(f"Take {res['losses'][0]['loss']} ")
    assert any('about' in l and 'cpu' in l or 'GPU' in l for l in lines) and sum('val Macro-F1' in l for l in lines) == 6


def test_report_is_one_page(compared):
    class Page(html.parser.HTMLParser):
        def __init__(self): super().__init__(); self.tags, self.text = [], ''
        def handle_starttag(self, tag, attrs): self.tags.append((tag, dict(attrs)))
        def handle_data(self, data): self.text += data
    page, text = Page(), (compared[0]/'report.html').read_text()
    page.feed(text)
    images = [a for t, a in page.tags if t == 'img']
    assert len(images) == 3 and all(len(a['alt']) > 30 and a['src'].startswith('data:image/svg+xml;base64,') for a in images)
    assert not re.search(r'(src|href)="(?!data:)', text) and 'script' not in {t for t, _ in page.tags} and 'prefers-color-scheme:dark' in text and '$' not in page.text
    assert compared[1]['recommendation'] in page.text and all(l in page.text for l in WORDS)


def test_names_are_escaped(tmp_path):
    t = texts()
    t['labels'] = t.labels.str.replace('sea', '<b>&sea')
    t['split'] = np.where(np.arange(120) < 80, 'train', 'test')
    t.loc[119, 'labels'] = '<b>lost'
    c.compare(t, ['bce'], seeds=1, out=tmp_path, epochs=1, text='text', say=QUIET)
    assert '<b>' not in (tmp_path/'report.html').read_text() and '&lt;b&gt;&amp;sea' in (tmp_path/'report.html').read_text()


def test_compare_resumes(compared, monkeypatch):
    out, res, _ = compared
    before, real, done = (out/'records.jsonl').read_bytes(), c.attempt, []
    monkeypatch.setattr(c, 'attempt', lambda e, *a: done.append(e.loss) or real(e, *a))
    again = c.compare(noisy(), ('reg', 'bce', 'zlpr'), seeds=2, out=out, epochs=15, text='text', say=QUIET)
    assert not done and again['losses'] == res['losses'] and (out/'records.jsonl').read_bytes() == before
    c.compare(noisy(), ('reg', 'bce', 'asl'), seeds=2, out=out, epochs=15, text='text', say=QUIET)
    assert done == ['asl', 'asl']
    c.compare(noisy(seed=1), ('reg',), seeds=1, out=out, epochs=15, text='text', say=QUIET) # other data: nothing is reused
    assert done == ['asl', 'asl', 'reg', 'reg']


def test_a_failed_run_is_reported_and_tried_again(tmp_path, monkeypatch):
    real, bad = c.attempt, [True]
    def attempt(e, study, runner):
        def broken(e): raise MemoryError('out of memory')
        return real(e, study, broken if bad[0] and e.loss == 'bce' else runner)
    monkeypatch.setattr(c, 'attempt', attempt)
    options = dict(losses=['reg', 'bce'], seeds=1, out=tmp_path, epochs=2, text='text', say=QUIET)
    res = c.compare(texts(), **options)
    assert res['failed'] == {'bce seed 0': 'out of memory'} and 'bce seed 0: out of memory' in (tmp_path/'report.html').read_text()
    bad[0] = False
    assert c.compare(texts(), **options)['failed'] == {}


@pytest.mark.parametrize('budget, want', [(100, (10, 3)), (35, (10, 2)), (12, (10, 1)), (6, (4, 1)), (1, (1, 1))])
def test_fit_time(budget, want): assert c.fit_time(budget, 1., 2., 10, 3) == want


def test_time_budget(tmp_path, monkeypatch):
    # a clock that stands still: the forecast alone says how much fits, however busy the machine is
    monkeypatch.setattr(c, 'time', types.SimpleNamespace(**vars(time) | dict(monotonic=lambda: 0.)))
    res = c.compare(texts(), ['bce'], seeds=50, out=tmp_path, epochs=20, time_budget=.02, text='text', say=QUIET)
    assert res['losses'][0]['seeds'] < 10
    said = [] # the forecast is kept: the same command goes on where it was
    c.compare(texts(), ['bce'], seeds=50, out=tmp_path, epochs=20, time_budget=.02, text='text', say=lambda s, **_: said.append(s))
    assert 'all runs are in the store already' in said


def test_recommendation():
    row = lambda loss, behind: dict(loss=loss, readout='probe', val_macro_f1=.5, macro_f1=.5, lower=.4, upper=.6, behind=behind)
    said = c.recommend([row('reg', [None]*3), row('bce', [.01, -.01, .03]), row('asl', [.1, .05, .15]), row('db', [-.1, -.2, -.01])])
    assert said.startswith('Take reg') and 'better than asl' in said and 'told apart from bce — bce is the simplest' in said and 'But db did better' in said
    assert c.recommend([row('reg', [None]*3)]).endswith('on test data.')


def test_settings_follow_kind_and_size():
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    few, many = read(numbers()), read((x, (x > 0).astype(int)))
    assert c.choose_settings(few)[1]['batch_size'] < c.choose_settings(many)[1]['batch_size']
    assert c.choose_settings(few)[1]['epochs'] > c.choose_settings(many, epochs=None)[1]['epochs'] >= 10
    assert c.choose_settings(few)[0] == 'mlp' and c.choose_settings(read(texts(), text='text'))[0] == 'bag' and c.choose_settings(few, epochs=7)[1]['epochs'] == 7


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
    real = c.learner.train
    def worse(*a, **k): # the last epoch is spoilt, the best is not
        t = real(*a, **k)
        with torch.no_grad(): [p.zero_() for p in t.model.encoder.parameters()]
        return t
    good = MultiLabelClassifier(epochs=10, random_state=0).fit(x, y).score(x, y)
    monkeypatch.setattr(c.learner, 'train', worse)
    assert MultiLabelClassifier(epochs=10, random_state=0).fit(x, y).score(x, y) == good > .5


def test_label_sets_and_texts():
    t = texts()
    m = MultiLabelClassifier(epochs=20, random_state=0).fit(t.text, t.labels.str.split('|'))
    assert m.classes_.tolist() == sorted(WORDS) and ('sea',) == m.predict_labels(['wave boat salt wave', 'x'])[0]
    with pytest.raises(ValueError, match='expected text data, as in fit, got features'): m.predict(np.ones((2, 3)))
    with pytest.raises(ValueError, match='readout: expected one of probe, probe1 for reg'): MultiLabelClassifier(readout='own@.5', epochs=1).fit(t.text, t.labels.str.split('|'))


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


# --- the commands

def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    t = texts()
    write(tmp_path/'a.csv', t)
    assert main('compare a.csv --text text --check'.split()) == 0
    assert '120 texts' in capsys.readouterr().out and not (tmp_path/'compare-a').exists()
    assert main('compare a.csv --text text --losses reg,bce --seeds 1 --epochs 5 --jobs 2'.split()) == 0
    assert 'Take ' in capsys.readouterr().out and (tmp_path/'compare-a/report.html').exists()
    assert main('train a.csv --text text --epochs 20 --out m.safetensors'.split()) == 0
    assert re.search(r'm.safetensors: Macro-F1 [01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]', capsys.readouterr().out)
    t[['text']].to_csv('new.csv', index=False)
    assert main('predict m.safetensors new.csv --out p.csv'.split()) == 0 == main('predict m.safetensors new.csv'.split())
    p, m = pd.read_csv('p.csv', keep_default_na=False), MultiLabelClassifier.load('m.safetensors')
    assert capsys.readouterr().out == (tmp_path/'p.csv').read_text() and list(p) == ['instance', 'labels', *sorted(WORDS)]
    assert [tuple(filter(None, l.split('|'))) for l in p.labels] == m.predict_labels(t.text) and np.allclose(p[sorted(WORDS)], m.predict_proba(t.text), atol=1e-4)


def test_commands_on_pictures_and_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'p').mkdir()
    pictures(tmp_path/'p')
    assert main('train p --epochs 1 --encoder resnet'.split()) == 0 == main('predict model.safetensors p'.split())
    out = capsys.readouterr().out
    assert '\n0.png,' in out and 'blue,red' in out
    x, y = numbers()
    np.savez('a.npz', x=x, y=y)
    assert main('train a.npz --epochs 1 --out n.safetensors'.split()) == 0 == main('predict n.safetensors a.npz'.split())
    assert 'instance,labels,0,1,2' in capsys.readouterr().out


@pytest.mark.parametrize('words, said', [('compare a.csv --text txt', 'mlcl: text: expected columns'), ('compare none.csv', 'mlcl: none.csv: no such'),
    ('compare a.csv --text text --losses regg', 'mlcl: losses: expected'), ('train a.csv --text text --loss regg', 'mlcl: '), ('predict none.safetensors a.csv', 'mlcl: none.safetensors: no such file')])
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count('\n') == 1
# tests/test_compare.py
@pytest.mark.parametrize('loss', ['bce', 'zlpr', 'twoway', 'db', 'hill', 'splc'])
def test_unknown_labels_can_be_left_out(loss):
    "Most positives were never looked at: left out they do no harm, counted as absent they do."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    y = (x[:, :3] > .3).astype(int)
    z = np.where((y == 1) & (rng.random(y.shape) < .6), np.nan, y)
    f1 = {}
    for u in ('left out', 'absent'):
        m = MultiLabelClassifier(loss, unknown=u, epochs=8, random_state=0).fit(x[:400], z[:400])
        f1[u] = scores(y[400:], m.decision_function(x[400:]), 0.)['macro_f1']
        assert m.n_unknown_ == np.isnan(z[:400]).sum()
    assert f1['left out'] > .9 > f1['absent'] + .2
