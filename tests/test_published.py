"""The published sets, on miniatures in their true formats; and the published settings, run from end to end on two
of them."""
import gzip, hashlib, http.server, json, shutil, tarfile, threading, zipfile
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
import mlcl.data as d
from mlcl import study
from mlcl.data import published, registry
from mlcl.data import load

VOC = 'voc2007/VOCdevkit/VOC2007'
NAMES = ['voc2007', 'coco', 'nuswide', 'mirflickr', 'rcv1', 'uklex', 'bgc']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('MLCL_DATA', str(tmp_path/'data'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    (tmp_path/'data').mkdir()
    return tmp_path/'data'


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf8')


def picture(path, i=0):
    "A JPEG file whose colour says its number."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (36 + i % 5, 30), (9*i % 256, 40, 200)).save(path)


def voc(root, sets=None):
    sets = sets or [['dog', 'person'], ['car'], ['person', 'person'], ['dog'], ['car', 'dog'], ['person'],
                    ['car', 'person'], ['dog'], ['car'], ['person']]
    for i, names in enumerate(sets, 1):
        objects = ''.join(f'''
    <object><name>{n}</name><pose>Left</pose><truncated>1</truncated><difficult>{i % 2}</difficult>
        <bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>
        <part><name>head</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>''' for n in names)
        write(root/VOC/f'Annotations/{i:06d}.xml',
              f'<annotation>\n    <folder>VOC2007</folder><filename>{i:06d}.jpg</filename>'
              f'<size><width>36</width><height>30</height><depth>3</depth></size>{objects}\n</annotation>\n')
        picture(root/VOC/f'JPEGImages/{i:06d}.jpg', i)
    for k, ids in dict(trainval=range(1, len(sets) - 5), test=range(len(sets) - 5, len(sets) + 1)).items():
        write(root/VOC/f'ImageSets/Main/{k}.txt', ''.join(f'{i:06d}\n' for i in ids))


def coco(root):
    categories = [dict(supercategory='person', id=1, name='person'), dict(supercategory='animal', id=18, name='dog'),
                  dict(supercategory='x', id=90, name='toothbrush')]
    for part, n in dict(train=4, val=9).items():
        files = [f'COCO_{part}2014_{i:012d}.jpg' for i in range(n)]
        images = [dict(license=1, id=100 + i, file_name=f, height=30, width=40) for i, f in enumerate(files)]
        boxes = [dict(id=7*i + c, image_id=100 + i, category_id=c, iscrowd=0, area=9., bbox=[1, 1, 3, 3],
                      segmentation=[[1, 1, 4, 1, 4, 4]])
                 for i in reversed(range(n - 1)) for c in (18, 18, *([1] if i % 2 else [90] if i == 2 else []))]
        write(root/f'coco/annotations/instances_{part}2014.json',
              json.dumps(dict(info={}, licenses=[], images=images, annotations=boxes, categories=categories)))
        for i, f in enumerate(files): picture(root/f'coco/{part}2014/{f}', i)


def nuswide(root):
    lists = dict(Train=['actor\\0001_2124494179.jpg', 'actor\\0002_174174086.jpg', 'zebra\\0001_10.jpg'],
                 Test=[f'sky\\000{i}_{i}.jpg' for i in range(6)])
    columns = dict(animal=dict(Train='100', Test='011011'), sky=dict(Train='101', Test='100010'),
                   plants=dict(Train='000', Test='000001'))
    for k, files in lists.items():
        write(root/f'nuswide/ImageList/{k}Imagelist.txt', ''.join(f'{f}\r\n' for f in files))
        for c in columns:
            write(root/f'nuswide/Groundtruth/TrainTestLabels/Labels_{c}_{k}.txt',
                  ''.join(f'{v}\n' for v in columns[c][k]))
        for f in files: picture(root/'nuswide/Flickr'/f.replace('\\', '/'))


def mirflickr(root):
    for i, t in enumerate(published._TOPICS):
        write(root/f'mirflickr/{t}.txt', ''.join(f'{k}\r\n' for k in range(i + 1, 35)))
    write(root/'mirflickr/food.txt', '40\n')
    write(root/'mirflickr/sky_r1.txt', '40\n')
    for i in range(1, 41): picture(root/f'mirflickr/mirflickr/im{i}.jpg', i)


def rcv1(root):
    doc = lambda i: f'.I {i}\n.W\nrecov excit bring mexic market \nmorph em doc{i} .i dot\n\n'
    write(root/'rcv1/lyrl2004_tokens_train.dat', ''.join(map(doc, range(2286, 2306))))
    for k in range(4):
        path = root/f'rcv1/lyrl2004_tokens_test_pt{k}.dat.gz'
        path.write_bytes(gzip.compress(''.join(map(doc, range(30000 + 10*k, 30003 + 10*k))).encode()))
    ids = [*range(2286, 2306), *(30000 + 10*k + i for k in range(4) for i in range(3))]
    write(root/'rcv1/rcv1-v2.topics.qrels', ''.join(f'{t} {i} 1\n' for i in ids
                                                    for t in (['CCAT', 'C15'] if i % 2 else ['MCAT'])))


def uklex(root):
    row = lambda i, part: dict(title=f'Order {i}', body=f'Citation {i}; ümlaut', labels=['FINANCE', 'HARBOURS']
                               if i % 2 else ['SCHOOL'], data_type=part, year=1990 + i)
    parts = ['train']*12 + ['dev']*4 + ['test']*4
    write(root/'uklex/uk-lex69.jsonl', ''.join(json.dumps(row(*p)) + '\n' for p in enumerate(parts)))


def bgc(root):
    book = lambda i: f'''<book date="2018-08-18" xml:lang="en">
<title>Book {i}</title>
<body>“Tea” & travel &amp; more, volume {i} < {i + 1}.
Second line.</body>
<copyright>(c) nobody</copyright>
<metadata>
<topics>
<d0>Fiction</d0><d1>{'Mystery &amp; Suspense' if i == 5 else 'Mystery & Suspense' if i % 2 else 'Fantasy'}</d1>{'<d2>Noir</d2><d2>Noir</d2>' if i % 4 == 1 else ''}
</topics>
<author>N. N.</author><published>Sep 01, 2000 </published><page_num> 100 Pages</page_num><isbn>978</isbn><url>u</url>
</metadata>
</book>
'''
    for k, ids in dict(train=range(6), dev=range(6, 8), test=range(8, 12)).items():
        write(root/f'bgc/BlurbGenreCollection_EN_{k}.txt', ''.join(map(book, ids)))


SIZES = dict(voc2007=(10, 3), coco=(11, 3), nuswide=(9, 3), mirflickr=(40, 23), rcv1=(32, 3), uklex=(20, 3),
             bgc=(12, 4))
MAKE = dict(zip(NAMES, (voc, coco, nuswide, mirflickr, rcv1, uklex, bgc)))


@pytest.fixture
def make(folder, monkeypatch):
    "Make a miniature, which then counts as complete."
    def f(name, **options):
        MAKE[name](folder, **options)
        monkeypatch.setitem(published.PUBLISHED, name, published.PUBLISHED[name]
                            | dict(zip(('instances', 'labels'), SIZES[name])))
        return folder
    return f


def halves(rows):
    "The published split by numpy alone: (validation, test)."
    rows, order = list(rows), np.random.RandomState(42).permutation(len(rows))
    n = -(-len(rows)//2)
    return sorted(rows[i] for i in order[n:]), sorted(rows[i] for i in order[:n])


def named(ds, part): return sorted(ds.x.files[i] for i in ds.splits[part])
def words(ds, i): return [ds.labels[l] for l in ds.y[i].nonzero()[0]]


def test_voc2007(make):
    make('voc2007')
    ds = load('voc2007')
    assert (ds.labels == ['car', 'dog', 'person'] and words(ds, 0) == ['dog', 'person']
            and words(ds, 2) == ['person']), 'names of parts are no labels'
    val, test = halves(range(5, 11))
    assert named(ds, 'train') == [f'{i:06d}.jpg' for i in range(1, 5)]
    assert (named(ds, 'val'), named(ds, 'test')) == tuple([f'{i:06d}.jpg' for i in k] for k in (val, test))
    assert ds.x[2].shape == (30, 39, 3) and ds.x[2].dtype == np.uint8 and abs(int(ds.x[2][0, 0, 0]) - 27) < 4
    assert (d.take(ds.x, [4, 2])[1] == ds.x[2]).all()


def test_coco(make):
    make('coco')
    ds = load('coco')
    assert (ds.labels == ['dog', 'person', 'toothbrush']
            and 'train2014/COCO_train2014_000000000003.jpg' not in ds.x.files)
    assert named(ds, 'train') == [f'train2014/COCO_train2014_{i:012d}.jpg' for i in range(3)]
    of = {f: words(ds, i) for i, f in enumerate(ds.x.files)}
    assert [of[f'train2014/COCO_train2014_{i:012d}.jpg'] for i in range(3)] == [['dog'], ['dog', 'person'],
                                                                                ['dog', 'toothbrush']]
    order, half = list(range(7, -1, -1)), np.random.RandomState(42).permutation(8)[:4] # annotations run backwards
    file = lambda i: f'val2014/COCO_val2014_{i:012d}.jpg'
    assert sorted(named(ds, 'val') + named(ds, 'test')) == sorted(file(order[i]) for i in half)
    assert len(named(ds, 'val')) == len(named(ds, 'test')) == 2 and ds.x[0].shape[2] == 3


def test_nuswide(make):
    make('nuswide')
    ds = load('nuswide')
    assert (ds.labels == ['animal', 'plants', 'sky']
            and named(ds, 'train') == ['actor/0001_2124494179.jpg', 'zebra/0001_10.jpg'])
    val, test = halves([0, 1, 2, 4, 5]) # the fourth of the test has no concept
    assert (named(ds, 'val'), named(ds, 'test')) == tuple([f'sky/000{i}_{i}.jpg' for i in k] for k in (val, test))
    assert words(ds, ds.x.files.index('sky/0004_4.jpg')) == ['animal', 'sky']


def test_mirflickr(make):
    make('mirflickr')
    ds = load('mirflickr')
    assert (ds.n_labels == 23 and 'food' not in ds.labels and words(ds, 2) == ['animals', 'baby', 'bird']
            and len(ds) == 34)
    order = np.random.RandomState(42).permutation(40)
    held, train = order[:8], order[8:]
    val, test = halves(held)
    for part, rows in dict(train=train, val=val, test=test).items():
        assert named(ds, part) == sorted(f'im{i + 1}.jpg' for i in rows if i < 34), part


def test_rcv1(make):
    make('rcv1')
    ds = load('rcv1')
    assert (ds.labels == ['C15', 'CCAT', 'MCAT']
            and ds.x[1] == 'recov excit bring mexic market morph em doc2287 .i dot' and words(ds, 1) == ['C15', 'CCAT'])
    assert [ds.x[i].split()[7] for i in ds.splits['test']] == [f'doc{30000 + 10*k + i}' for k in range(4)
                                                               for i in range(3)]
    assert sorted([*ds.splits['train'], *ds.splits['val']]) == list(range(20)) and len(ds.splits['val']) == 3


def test_uklex(make):
    make('uklex')
    ds = load('uklex')
    assert {k: v.tolist() for k, v in ds.splits.items()} == dict(train=list(range(12)), val=list(range(12, 16)),
                                                                 test=list(range(16, 20)))
    assert (ds.x[13] == 'Order 13. Citation 13; ümlaut' and words(ds, 13) == ['FINANCE', 'HARBOURS']
            and words(ds, 12) == ['SCHOOL'])


def test_bgc(make):
    make('bgc')
    ds = load('bgc')
    assert {k: v.tolist() for k, v in ds.splits.items()} == dict(train=list(range(6)), val=[6, 7],
                                                                 test=list(range(8, 12)))
    assert (ds.x[5] == '“Tea” & travel & more, volume 5 < 6.\nSecond line.'
            and words(ds, 5) == ['Fiction', 'Mystery & Suspense', 'Noir'])
    assert ds.labels == ['Fantasy', 'Fiction', 'Mystery & Suspense', 'Noir']


@pytest.mark.parametrize('name', NAMES)
def test_every_file_is_needed(name, make, monkeypatch):
    "Without one of the listed files, the message names it, the folder, and where it is from."
    root = make(name)
    assert d.present(name) and d.get(name) and d.describe(name)['terms']
    assert load(name).sha256 == load(name).sha256
    for file in d.SETS[name]['files']:
        path = next(root/f for f in registry._forms(file) if (root/f).exists())
        path.rename(aside := path.with_name('aside'))
        assert not d.present(name)
        with pytest.raises(FileNotFoundError, match='MLCL_DATA') as e: load(name)
        assert (file in str(e.value) and str(root) in str(e.value)
                and published.PUBLISHED[name]['source'] in str(e.value))
        aside.rename(path)


CUT = dict(voc2007=f'{VOC}/Annotations/000003.xml', coco='coco/annotations/instances_val2014.json',
           nuswide='nuswide/Groundtruth/TrainTestLabels/Labels_sky_Test.txt',
           mirflickr='mirflickr/sky.txt', rcv1='rcv1/lyrl2004_tokens_test_pt2.dat.gz', uklex='uklex/uk-lex69.jsonl',
           bgc='bgc/BlurbGenreCollection_EN_dev.txt')

@pytest.mark.parametrize('name', NAMES)
def test_a_damaged_file_is_named(name, make):
    path = make(name)/CUT[name]
    whole = path.read_bytes()
    path.write_bytes(b'1\n41\n' if name == 'mirflickr' else whole[:-9])
    with pytest.raises(ValueError, match=f'{path.name}: damaged, or not in the published format'): load(name)
    path.write_bytes(b'\n<html>Not found</html>\n')
    with pytest.raises(ValueError, match=f'{path.name}: damaged|expected .* instances, got|expected .* labels, got'):
        load(name)


@pytest.mark.parametrize('name', NAMES)
def test_a_part_of_a_set_is_refused(name, folder):
    MAKE[name](folder)
    with pytest.raises(ValueError, match=f'{name}: expected .* instances, got {SIZES[name][0]}; is a file cut short'):
        load(name)


def test_a_missing_label_is_noticed(make):
    root = make('nuswide')
    for k in 'Train', 'Test': (root/f'nuswide/Groundtruth/TrainTestLabels/Labels_sky_{k}.txt').unlink()
    with pytest.raises(ValueError, match='nuswide: expected 3 labels, got 2'): load('nuswide')


def test_missing_and_damaged_pictures(make):
    root = make('voc2007')
    (root/VOC/'JPEGImages/000002.jpg').write_bytes((root/VOC/'JPEGImages/000002.jpg').read_bytes()[:200])
    with pytest.raises(ValueError, match='000002.jpg: expected a picture'): load('voc2007').x[1]
    (root/VOC/'JPEGImages/000007.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='voc2007: 1 of 10 pictures are not in .*JPEGImages, such as '
                                                '000007.jpg.*VOCtest_06-Nov-2007.tar'):
        load('voc2007')
    (root/VOC/'Annotations/000001.xml').unlink()
    with pytest.raises(FileNotFoundError, match='000001.xml'): load('voc2007')


def test_the_checksum_is_that_of_the_content_and_not_of_the_place(make, tmp_path, monkeypatch):
    root = make('coco')
    before = load('coco').sha256
    shutil.move(root, tmp_path/'elsewhere')
    monkeypatch.setenv('MLCL_DATA', str(tmp_path/'elsewhere'))
    assert load('coco').sha256 == before
    path = tmp_path/'elsewhere/coco/annotations/instances_train2014.json'
    path.write_text(path.read_text().replace('"toothbrush"', '"brush"'))
    assert load('coco').sha256 != before


def test_the_table_and_the_command_line(folder, capsys):
    assert set(published.PUBLISHED) == set(NAMES) <= set(d.names())
    d.main_list(), d.main_info('rcv1')
    out = capsys.readouterr().out
    assert (all(n in out for n in NAMES) and '804414' in out and 'NIST' in out
            and 'rcv1/lyrl2004_tokens_test_pt3.dat' in out)


# ---- fetching

@pytest.fixture
def serve(tmp_path):
    (tmp_path/'www').mkdir()
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=tmp_path/'www'))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield tmp_path/'www', f'http://127.0.0.1:{httpd.server_port}'
    httpd.shutdown()
    httpd.server_close()


def archives(monkeypatch, name, table):
    monkeypatch.setitem(published.PUBLISHED, name, published.PUBLISHED[name] | dict(archives=table))


def test_fetch_unpacks_and_checks(make, serve, tmp_path, monkeypatch):
    www, address = serve
    root = make('voc2007')
    with tarfile.open(www/'all.tar', 'w') as tar: tar.add(root/'voc2007/VOCdevkit', 'VOCdevkit')
    shutil.rmtree(root/'voc2007')
    md5 = hashlib.md5((www/'all.tar').read_bytes()).hexdigest()
    archives(monkeypatch, 'voc2007', {'all.tar': f'{address}/all.tar#md5:{"0"*32}'})
    with pytest.raises(ValueError, match='(?i)hash'): d.get('voc2007')
    with pytest.raises(FileNotFoundError): load('voc2007') # `load` fetches nothing
    archives(monkeypatch, 'voc2007', {'all.tar': f'{address}/all.tar#md5:{md5}'})
    assert len(d.get('voc2007')) == 4 and len(load('voc2007')) == 10


def test_fetch_says_what_failed(make, serve, monkeypatch):
    www, address = serve
    root = make('bgc')
    with zipfile.ZipFile(www/'b.zip', 'w') as z:
        for p in (root/'bgc').iterdir(): z.write(p, p.name)
    shutil.rmtree(root/'bgc')
    archives(monkeypatch, 'bgc', {'c.zip': f'{address}/c.zip'})
    with pytest.raises(ConnectionError, match=f'bgc: {address}/c.zip could not be fetched.*HTTPError.*put c.zip into'):
        d.get('bgc')
    archives(monkeypatch, 'bgc', {'b.zip': f'{address}/b.zip'})
    (root/'bgc').mkdir(exist_ok=True)
    (root/'bgc/b.zip').write_bytes((www/'b.zip').read_bytes()) # put there by hand
    (www/'b.zip').unlink()
    assert len(d.get('bgc')) == 3 and len(load('bgc')) == 12
    with pytest.raises(FileNotFoundError, match='folder Flickr on request'): d.get('nuswide')


def test_addresses_are_whole():
    for name, s in published.PUBLISHED.items():
        for file, address in s.get('archives', {}).items():
            url, _, known = address.partition('#')
            assert url.startswith('https://' if not known else 'http'), f'{file}: neither https nor a checksum'
            assert (not known or len(known.split(':')[1]) == dict(md5=32, sha256=64)[known.split(':')[0]]), file
    from sklearn.datasets import _rcv1
    from torchvision.datasets import voc as tv
    topics = f'{_rcv1.TOPICS_METADATA.url}#sha256:{_rcv1.TOPICS_METADATA.checksum}'
    assert published.PUBLISHED['rcv1']['archives']['rcv1-v2.topics.qrels.gz'] == topics
    years = [tv.DATASET_YEAR_DICT[k] for k in ('2007', '2007-test')]
    known = {of['filename']: f"{of['url']}#md5:{of['md5']}" for of in years}
    assert published.PUBLISHED['voc2007']['archives'] == known


# ---- the study

def test_the_published_study(folder, monkeypatch):
    "Its plan needs no data; settings are the published ones."
    from mlcl.losses import LOSSES
    runs = study.experiments('paper')
    assert (len(runs) == (9 + 3)*len(LOSSES)*5 and (study.plan('paper', only='dataset=voc2007,seed=0').state
                                                    == 'missing').all())
    assert ({e.dataset for e in runs if e.fraction == .1} == {'aapd', 'rcv1', 'bgc'}
            and {e.fraction for e in runs} == {1, .1})
    for e in runs:
        s, text = e.settings, d.SETS[e.dataset]['kind'] == 'text'
        assert (e.encoder == ('hf:roberta-base' if text else 'tv:resnet50')
                and (s['epochs'], s['batch_size'], s['projection']) == (80, 64, 256))
        assert (s['loss'].get('temperature', .1) == .1 and (e.loss != 'abalone' or s['loss']['beta'] == .1)
                and (e.loss not in ('reg', 'wreg') or s['loss']['alpha'] == 0))
        if text: assert s['encoder'] == dict(length=300, spec=None, tokenizer=None) or s['encoder'] == dict(length=300)
        else: assert (s['encoder']['size'], s['encoder']['augment'], s['encoder']['pretrained']) == (224, 'rand', True)


@pytest.mark.parametrize('name', ['first', 'labels'])
def test_earlier_records_keep_their_names(name, monkeypatch):
    monkeypatch.setenv('MLCL_RESULTS', str(Path(__file__).parent.parent/'results'))
    held = {r['run'] for r in study.store_of(name).records()}
    assert held and held <= {e.id for e in study.experiments(name)}


def test_the_published_study_runs(make, tmp_path, monkeypatch):
    "The published path on a text and an image set: only the sizes, and the weights nobody can fetch here, are small."
    pytest.importorskip('transformers')
    from mlcl.encoders import tiny_roberta
    monkeypatch.setenv('MLCL_RESULTS', str(tmp_path/'results'))
    make('uklex'), make('voc2007')
    tiny_roberta(tmp_path/'roberta', load('uklex').x)
    small = dict(epochs=1, batch_size=4, projection=8, probe=dict(epochs=1), bootstrap=20)
    for kind, encoder, options in ('text', f"hf:{tmp_path/'roberta'}",
                                   dict(length=8)), ('image', 'tv:resnet50', dict(size=32, pretrained=False)):
        name = dict(text='uklex', image='voc2007')[kind]
        settings = study.PAPER[name].settings
        how = settings | small | dict(encoder=settings['encoder'] | options)
        monkeypatch.setitem(study.PAPER, name, study.Setup(encoder, how))
    todo = [e for e in study.experiments('paper', only='seed=0,loss=reg,loss=bce') if e.dataset in ('uklex', 'voc2007')]
    assert {e.dataset for e in todo} == {'uklex', 'voc2007'} and len(todo) == 4
    for e in todo: assert study.store_of('paper').append(study.attempt(e, 'paper')), e
    assert not study.store_of('paper').failed(), study.store_of('paper').failed()
    assert set(study.plan('paper', only='seed=0,loss=reg,loss=bce,dataset=uklex,dataset=voc2007').state) == {'held'}
    found = {(r['dataset'], r['loss']): r['metrics']['macro_f1']
             for r in study.store_of('paper').records(readout='probe1', split='test', checkpoint='last')}
    assert len(found) == 4 and all(0 <= v <= 1 for v in found.values())


def test_lazily_decoded_pictures_train_alike(make, monkeypatch):
    "Beyond the memory limit, processes decode the batches; the weights are the same."
    import mlcl.encoders.networks
    from mlcl.learner import make_learner, train
    from mlcl.encoders import Squares, image_tensors
    make('voc2007')
    settings = dict(epochs=2, batch_size=3, projection=8, encoder=dict(size=32, pretrained=False))
    whole = train(load('voc2007'), 'tv:shufflenet_v2_x0_5', 'reg', settings)
    monkeypatch.setattr(mlcl.encoders.networks, 'image_tensors', partial(image_tensors, limit=0))
    learn = make_learner(load('voc2007'), 'tv:shufflenet_v2_x0_5', 'reg', settings)
    assert isinstance(learn.inputs['train'][0], Squares) and learn.dls.train.fake_l.num_workers >= 1
    lazy = train(load('voc2007'), 'tv:shufflenet_v2_x0_5', 'reg', settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), lazy.model.state_dict().values()))
    np.testing.assert_array_equal(whole.outputs('test')['features'], lazy.outputs('test')['features'])
