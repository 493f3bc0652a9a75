"Faults, determinism, and the real data sets."
import http.server, json, os, pickle, subprocess, sys, threading
import numpy as np, pytest
import mlcl.data as d
from mlcl.data import PUBLISHED, benchmarks, embedded, load, registry
from mlcl.labels import cardinality
from helpers import has_data

real = pytest.mark.skipif(not has_data(), reason='MLCL_DATA NAMES NO DATA FOLDER: the real data sets are not tested')

# instances of train, val and test, labels and cardinality, as the publishers state them; val 0 where it is cut from
# train
SIZES = dict(aapd=(69169, 1000, 1000, 54, 2.43), arxiv_cs54=(56852, 7139, 7179, 54, 2.43),
    reuters90=(7770, 0, 3019, 90, 1.24),
    goemotions=(43410, 5426, 5427, 28, 1.18), semeval2018_ec=(6838, 886, 3259, 11, 2.37),
    coco18=(24008, 2980, 3012, 18, 1.55),
    coco_words=(24008, 2980, 3012, 238, 3.98), ucmerced_ml=(1680, 0, 420, 17, 3.34), emotions=(391, 0, 202, 6, 1.87),
    scene=(1211, 0, 1196, 6, 1.07), yeast=(1500, 0, 917, 14, 4.24), medical=(333, 0, 645, 45, 1.25),
    enron=(1123, 0, 579, 53, 3.38),
    bibtex=(4880, 0, 2515, 159, 2.40), delicious=(12920, 0, 3185, 983, 19.02), corel5k=(4500, 0, 500, 374, 3.52),
    eurlex57k=(45000, 6000, 6000, 127, 3.91), debtags=(23924, 3217, 3132, 224, 3.46),
    corel5k_photos=(3977, 523, 500, 374, 3.52), tmc2007=(21519, 0, 7077, 22, 2.16), genbase=(463, 0, 199, 27, 1.25),
    birds=(322, 0, 323, 19, 1.01))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_DATA', str(tmp_path/'data'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(registry, 'ADDRESS', {})
    return tmp_path/'data'


def elsewhere(code):
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                          check=True).stdout.strip()


def test_every_set_is_listed():
    assert set(SIZES) | set(PUBLISHED) | {'cal500', 'digits', 'docstrings'} == set(d.names())


def test_unknown_name():
    for f in load, d.describe, d.get, d.present:
        with pytest.raises(ValueError, match='^name: expected one of digits, docstrings.*; got .yeats'): f('yeats')


def test_missing_folder(folder):
    for name in set(d.names()) - {'digits', 'docstrings'}:
        assert not d.present(name)
        with pytest.raises(FileNotFoundError, match='MLCL_DATA') as e: load(name)
        assert d.SETS[name]['files'][0] in str(e.value) and str(folder) in str(e.value)
        assert d.describe(name)['instances'] > 0


def test_bad_checksum_is_kept_aside(folder):
    path = folder/'goemotions'/'goemotions.parquet'
    path.parent.mkdir(parents=True)
    path.write_text('no table')
    with pytest.raises(ValueError, match='goemotions.parquet: expected sha256 087f2d.*, got .*kept aside'):
        load('goemotions')
    assert not path.exists() and path.with_name('goemotions.parquet.bad').read_text() == 'no table'


def test_read_only_folder(folder, monkeypatch):
    path = folder/'goemotions'/'goemotions.parquet'
    path.parent.mkdir(parents=True)
    path.write_text('no table')
    def refuse(*_): raise PermissionError
    monkeypatch.setattr(type(path), 'rename', refuse)
    with pytest.raises(ValueError, match='read-only folder and was left there'): load('goemotions')
    assert path.exists()


def test_checksum_is_remembered_until_the_file_changes(folder, monkeypatch):
    folder.mkdir()
    path, hashed = folder/'x', []
    digest = registry.hashlib.file_digest
    monkeypatch.setattr(registry.hashlib, 'file_digest', lambda *a: hashed.append(1) or digest(*a))
    path.write_text('a')
    sha = registry.hashlib.sha256(b'a').hexdigest()
    assert registry.verified(path, sha)[0] and registry.verified(path, sha)[0] and len(hashed) == 1
    path.write_text('bb')
    assert not registry.verified(path, sha)[0]


@pytest.mark.parametrize('content', ['', '{"a": ', '[1, 2]', 'null', b'\xff\xfe'])
def test_a_damaged_note_of_checksums_is_made_anew(folder, monkeypatch, content):
    folder.mkdir()
    monkeypatch.setattr(registry, 'cache_path', lambda *p: folder.joinpath(*p))
    note, path = folder/'verified.json', folder/'x'
    note.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.write_text('a')
    sha = registry.hashlib.sha256(b'a').hexdigest()
    assert registry.verified(path, sha) == (True, sha)
    assert list(json.loads(note.read_text())) == [str(path.resolve())]


@pytest.fixture
def server(folder, monkeypatch):
    "Serves a file of 100,000 bytes; the first answer breaks off in the middle."
    body, answers = os.urandom(100_000), []
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers.append(self.path)
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body if len(answers) > 1 else body[:50_000])
        def log_message(self, *_): pass
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(registry, 'ADDRESS', {'far/': f'http://127.0.0.1:{httpd.server_port}/'})
    monkeypatch.setattr(registry, 'FILES', {'far/file.bin': registry.hashlib.sha256(body).hexdigest()})
    yield body, answers
    httpd.shutdown()
    httpd.server_close()


def test_interrupted_download_restarts(server, folder):
    body, answers = server
    with pytest.raises(ConnectionError, match='far/file.bin: the download from .* failed .*MLCL_DATA'):
        d.data_file('far/file.bin')
    assert not list((folder/'far').iterdir())
    assert d.data_file('far/file.bin').read_bytes() == body
    assert d.data_file('far/file.bin').read_bytes() == body and len(answers) == 2
    assert [p.name for p in (folder/'far').iterdir()] == ['file.bin']


def test_wrong_download_is_kept_aside(server, folder, monkeypatch):
    server[1].append('whole from now on')
    monkeypatch.setattr(registry, 'FILES', {'far/file.bin': '0'*64})
    with pytest.raises(ValueError, match='far/file.bin: expected sha256 000.*kept aside as file.bin.bad'):
        d.data_file('far/file.bin')
    assert [p.name for p in (folder/'far').iterdir()] == ['file.bin.bad']


def test_killed_while_making_a_table(folder):
    def killed(): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): d.kept('t', 1, killed)
    assert d.kept('t', 1, lambda: registry.pd.DataFrame(dict(a=[1])))['a'].tolist() == [1]
    assert d.kept('t', 1, killed)['a'].tolist() == [1]


def test_digits_are_the_same_everywhere():
    code = "from mlcl.data import load; print(load('digits', seed=3, n=200, labels='place', tail=1.).sha256)"
    assert elsewhere(code) == load('digits', seed=3, n=200, labels='place',
                                   tail=1.).sha256 != load('digits', seed=4, n=200, labels='place', tail=1.).sha256


def test_docstrings_are_the_same_everywhere():
    assert elsewhere("from mlcl.data import load; print(load('docstrings').sha256)") == load('docstrings').sha256


@pytest.mark.parametrize('options', [{}, dict(labels='place'), dict(tail=2.), dict(cooccurrence=0.), dict(n=11)])
def test_no_source_digit_in_two_splits(options):
    ds = load('digits', **options)
    used = [{j for i in idx for j in ds.info['source_digits'][i]} for idx in ds.splits.values()]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])
    assert (all(len(u) == len(s) for u, s in zip(ds.y.reshape(len(ds), -1), ds.y))
            and sorted(np.concatenate(list(ds.splits.values()))) == list(range(len(ds))))


def test_digits_options_do_something():
    def share(ds): return cardinality(ds.y[:, 0:2].prod(1, keepdims=True))
    assert share(load('digits', cooccurrence=.8)) > 2*share(load('digits', cooccurrence=0.))
    n = load('digits', tail=2.).y.sum(0, dtype=int)
    assert n[0] > 5*n[5:].max()
    place = load('digits', labels='place')
    assert place.n_labels == 40 and (place.y.reshape(-1, 10, 4).sum(1) <= 1).all()


def test_docstrings_hold_what_is_said():
    ds = load('docstrings')
    assert 5000 < len(ds) < 9000 and 80 < ds.n_labels < 200 and 1.7 < cardinality(ds.y) < 2.4
    assert len(set(ds.x)) == len(ds) and set(ds.info['versions']) == set(embedded.PACKAGES)
    for i in range(0, len(ds), 50):
        words = set(embedded.re.findall(r'\w+', ds.x[i]))
        assert not words & {ds.labels[l] for l in ds.y[i].nonzero()[0]}
    assert 'torch' not in load('docstrings').info['versions'] and 'self' not in ds.labels


def test_embedded_checksum_depends_on_versions(monkeypatch):
    before = load('docstrings').sha256
    kept = d.kept('docstrings', (1, {f: embedded.version(p) for f, p in embedded.PACKAGES.items()}), None)
    monkeypatch.setattr(embedded, 'kept', lambda *_: kept)
    monkeypatch.setattr(embedded, 'version', lambda _: '0')
    assert load('docstrings').sha256 != before


@real
@pytest.mark.parametrize('name', [n for n in d.names() if n not in PUBLISHED])
def test_real_sets(name):
    ds = load(name)
    parts = [set(s) for s in ds.splits.values()]
    assert sum(map(len,
                   parts)) == len(set.union(*parts)) == len(ds) == len(ds.x), 'an instance is in two splits, or in none'
    assert ds.y.dtype == np.uint8 and set(np.unique(ds.y)) == {0, 1} and ds.y.shape == (len(ds), len(ds.labels))
    assert len(set(ds.labels)) == ds.n_labels and len(ds.sha256) == 64 and all(len(p) for p in parts)
    if name in SIZES:
        train, val, test, n_labels, mean = SIZES[name]
        got = {k: len(v) for k, v in ds.splits.items()}
        assert (got['test'] == test and (got['train'], got['val']) == (train, val) if val else got['train']
                + got['val'] == train)
        assert ds.n_labels == n_labels and abs(cardinality(ds.y) - mean) < .011
    if name != 'docstrings': assert d.FACTS[name] == d.facts(ds)
    if ds.kind == 'features': assert ds.x.dtype == np.float32 and np.isfinite(ds.x).all()
    if ds.kind == 'text' and name != 'docstrings': assert all(isinstance(t, str) and t.strip() for t in ds.x)


@real
def test_aapd_holds_no_test_document_in_train():
    ds = load('aapd')
    words = lambda i: ' '.join(embedded.re.findall(r'[a-z]+', ds.x[i])[:12])
    train = {words(i) for i in ds.splits['train']}
    shared = [i for i in ds.splits['test'] if words(i) in train]
    assert len(shared) <= 5, len(shared)


@real
@pytest.mark.parametrize('name', ['ucmerced_ml', 'coco18', 'corel5k_photos'])
def test_pictures(name):
    x = load(name).x
    one, copy = x[5], pickle.loads(pickle.dumps(x))
    assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3
    assert (copy[5] == one).all() and (d.take(x, [7, 5])[1] == one).all() and x.image(5).size == one.shape[1::-1]
    assert len(x[10:20]) == 10


@real
def test_nested_shares():
    ds = load('yeast')
    small, large = (set(ds.indices('train', s)) for s in (.1, .5))
    assert small < large <= set(ds.splits['train'])
    x, y = ds.subset('val')
    assert len(x) == len(y) == len(ds.splits['val'])


def test_relative_data_folder(monkeypatch, tmp_path):
    (tmp_path/'settings.ini').touch()
    (tmp_path/'a'/'b').mkdir(parents=True)
    monkeypatch.chdir(tmp_path/'a'/'b')
    monkeypatch.setenv('MLCL_DATA', 'shared')
    assert d.data_dir() == tmp_path.resolve()/'shared'


def test_coco_words_needs_simplemma(monkeypatch):
    monkeypatch.setitem(sys.modules, 'simplemma', None)
    with pytest.raises(ImportError, match=r"pip install 'mlcl\[text\] @ git"): benchmarks._words(['a dog'])


def test_command_line(capsys):
    d.main_list(), d.main_info('yeast'), d.main_get('digits')
    out = capsys.readouterr().out
    assert all(n in out for n in d.names()) and 'no licence stated' in out and 'Dataset(digits' in out


def test_import_is_light():
    "Reading data needs none of the libraries that train."
    code = ("import sys, mlcl.data; print([m for m in ('fastai', 'torchvision', 'transformers', 'timm') if m in "
            "sys.modules])")
    assert elsewhere(code) == '[]'


def test_fresh_leaves_out_what_an_earlier_split_holds():
    splits = dict(train=np.array([0, 1]), val=np.array([2, 3, 4]), test=np.array([5, 6, 7, 8]))
    groups = ['a', 'b', 'a', 'c', 'd', 'c', 'b', 'e', 'e']
    cut, n = d.fresh(splits, groups)
    assert ({k: v.tolist() for k, v in cut.items()} == dict(train=[0, 1], val=[3, 4], test=[7, 8])
            and n == dict(val=1, test=2))


@real
def test_three_label_sets_of_one_text():
    sets = {k: load('eurlex57k', labels=k) for k in ('domains', 'thesauri', 'concepts')}
    assert [ds.n_labels for ds in sets.values()] == [21, 127, 4271]
    assert [round(cardinality(ds.y), 1) for ds in sets.values()] == [3.2, 3.9, 5.1]
    first, *rest = sets.values()
    for ds in rest:
        assert ds.x == first.x and all((ds.splits[k] == i).all() for k, i in first.splits.items())
    top = load('eurlex57k', labels='concepts', top=500)
    n = sets['concepts'].y[first.splits['train']].sum(0, dtype=int)
    assert top.n_labels == 500 and top.y[first.splits['train']].sum(0, dtype=int).min() == np.sort(n)[-500]
    assert set(top.labels) < set(sets['concepts'].labels) and len(top) == len(first)


@real
@pytest.mark.parametrize('name', ['eurlex57k', 'debtags'])
def test_repeats_can_be_left_out(name):
    whole, cut = load(name), load(name, repeats=False)
    group = np.array(cut.info['groups'])
    train, val, test = (set(group[i]) for i in cut.splits.values())
    assert not train & val and not train & test and not val & test
    assert (cut.splits['train'] == whole.splits['train']).all()
    lost = {k: len(whole.splits[k]) - len(cut.splits[k]) for k in ('val', 'test')}
    assert lost == cut.info['repeats'] == whole.info['repeats'] and min(lost.values()) > 0
    with pytest.raises(ValueError, match='repeats: expected True or False'): load(name, repeats=1.5)


@real
def test_words_of_photographs():
    whole, frequent = load('corel5k_photos'), load('corel5k_photos', labels='frequent')
    assert (frequent.n_labels, load('corel5k_photos', labels='evaluation').n_labels) == (144, 260)
    official = np.concatenate([frequent.splits['train'], frequent.splits['val']])
    assert frequent.y[official].sum(0).min() >= 20 and len(official) == 4500
    at = [whole.labels.index(l) for l in frequent.labels]
    assert (whole.y[:, at] == frequent.y).all() and whole.x[0].shape == (128, 128, 3)
    assert (sorted(l.lower() for l in whole.labels) == sorted(l.lower() for l in load('corel5k').labels)
            or whole.n_labels == load('corel5k').n_labels)


def test_held_out_splits_can_be_cut():
    whole, cut = load('digits'), load('digits', most=50)
    assert [len(cut.splits[k]) for k in ('train', 'val', 'test')] == [len(whole.splits['train']), 50, 50]
    for k in ('val', 'test'):
        assert set(cut.splits[k]) < set(whole.splits[k]) and (np.diff(cut.splits[k]) > 0).all()
        assert set(load('digits', most=20).splits[k]) < set(cut.splits[k])
    assert load('digits', most=10**6).splits['test'].tolist() == whole.splits['test'].tolist()
    with pytest.raises(ValueError, match='most: expected at least 1, got 0'): load('digits', most=0)


def test_a_set_of_your_own_can_be_cut_too():
    mine = registry.own(d.Dataset('mine', 'features', np.zeros((90, 2), 'float32'), np.tile(np.eye(3), (30, 1)),
                                  list('abc'),
                                  dict(train=np.arange(50), val=np.arange(50, 70), test=np.arange(70, 90)), '', {}))
    assert {k: len(v) for k, v in load(mine, most=9).splits.items()} == dict(train=50, val=9, test=9)
    again = load(mine, resplit=1)
    assert (sorted(np.r_[again.splits['train'], again.splits['val']]) == list(range(70))
            and set(again.splits['val']) != set(range(50, 70)))
    assert load(mine) is load(mine) and len(load(mine).splits['val']) == 20 # the set itself is as it was


def test_training_and_validation_data_can_be_cut_again():
    usual, one, two = (load('digits', resplit=k) for k in (None, 1, 2))
    assert one.splits['test'].tolist() == usual.splits['test'].tolist()
    both = sorted(np.concatenate([usual.splits['train'], usual.splits['val']]))
    for ds in (one, two): assert sorted(np.concatenate([ds.splits['train'], ds.splits['val']])) == both
    overlap = len(set(one.splits['val']) & set(two.splits['val']))/len(one.splits['val'])
    assert overlap < .5 and abs(len(one.splits['val']) - len(usual.splits['val'])) < .2*len(usual.splits['val'])
    assert load('digits', resplit=1).splits['val'].tolist() == one.splits['val'].tolist()
    rates = [ds.y[ds.splits['val']].mean(0) for ds in (usual, one)]
    assert np.abs(rates[0] - rates[1]).max() < .05 # stratified


@pytest.mark.parametrize('seed', [-1, 2**32, 1.5, '1', True])
def test_a_cut_has_a_whole_number(seed):
    with pytest.raises(ValueError, match='^resplit: expected a whole number'): load('digits', resplit=seed)
