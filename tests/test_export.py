"Models for others: ONNX files with the numbers of PyTorch, cards that say what is true, uploads that are asked for."
import json, re, sys, unicodedata
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from mlcl.cli import main
from mlcl.encoders import ENCODERS, tiny_roberta
from mlcl.own import BaselineClassifier, MultiLabelClassifier, card, export, predict_file, read, split_scores
from mlcl.own import write_card
from mlcl.own.card import _escaped
from own_data import WORDS, numbers, registry, scratch, texts, write

FAST = dict(epochs=2, random_state=0)


def export_onnx(model, file):
    "What is exported; where a package for that is missing, the test is left out."
    for name in ('onnx', 'onnxruntime', 'onnxscript'): pytest.importorskip(name)
    return export.export_onnx(model, file)


def session(file):
    return pytest.importorskip('onnxruntime').InferenceSession(str(file), providers=['CPUExecutionProvider'])


def by_onnx(file, model, x):
    "Probabilities that somebody computes who has the file, and instances as `prepare` of the first network makes them."
    enc, run = model.trained_.model.encoder, session(file)
    inputs = export._Graph(model).net.prepare(x) if enc.name == 'frozen_text' else enc.prepare(x)
    return run.run(None, {i.name: t.numpy() for i, t in zip(run.get_inputs(), inputs)})[0]


def agrees(model, x, tmp_path):
    "Exported and compared: all rows, one row, another number of rows than at the export, the labels too."
    worst, p = export_onnx(model, file := tmp_path/'m.onnx'), model.predict_proba(x)
    got = by_onnx(file, model, x)
    print(f'{model.trained_.encoder_name} {model.readout_}: {abs(got - p).max():.1e}, made up {worst:.1e}')
    assert worst < 1e-4 and got.dtype == np.float32 and abs(got - p).max() < 1e-4 and np.ptp(p, axis=0).max() > 1e-3
    assert abs(by_onnx(file, model, x[:1]) - p[:1]).max() < 1e-4
    facts = json.loads(session(file).get_modelmeta().custom_metadata_map['mlcl'])
    on = got > np.array(facts['thresholds'])
    assert [tuple(c for c, yes in zip(facts['classes'], r) if yes) for r in on] == model.predict_labels(x)
    assert [f.name for f in tmp_path.iterdir()] == ['m.onnx']
    return facts


# --- ONNX

@pytest.mark.parametrize('options', [dict(thresholds='label'), dict(thresholds='global', readout='own|global'),
    dict(thresholds=.5, readout='own@.5'),
    dict(thresholds=.5, readout='probe'), dict(thresholds=.5, readout='probe1'), dict(loss='reg'),
    dict(loss='proto', thresholds=.5, readout='probe')], ids=str)
def test_numbers_with_every_readout(options, tmp_path):
    x, y = numbers()
    model = MultiLabelClassifier(**options, **FAST).fit(x, y)
    with torch.no_grad():
        assert abs(export._Graph(model)(torch.from_numpy(x))[0].numpy() - model.predict_proba(x)).max() < 1e-6
    if options.get('readout') in ('own|global', 'own@.5', 'probe1'): return # these three are exported as the others are
    facts = agrees(model, x, tmp_path)
    assert (facts['classes'] == [0, 1, 2] and facts['readout'] == model.readout_
            == options.get('readout', model.readout_))
    assert facts['loss'] == options.get('loss', 'bce') and facts['encoder']['name'] == 'mlp'


def test_sparse_scaling(tmp_path):
    x, y = numbers()
    agrees(MultiLabelClassifier(settings=dict(encoder=dict(scale='sparse')), **FAST).fit(abs(x), y), abs(x), tmp_path)


@pytest.mark.parametrize('encoder', ['bag', 'conv', 'transformer'])
def test_texts_with_a_vocabulary(encoder, tmp_path):
    "Texts of different lengths, one of them empty; the vocabulary is in the file."
    t = texts()
    model = MultiLabelClassifier(encoder=encoder, epochs=3, random_state=0).fit(t.text, t.labels)
    facts = agrees(model, ['', 'wave', *t.text, ' '.join(t.text[:9])], tmp_path)
    assert 'wave' in facts['encoder']['config']['vocab']['tokens'] and facts['classes'] == sorted(WORDS)


@pytest.mark.parametrize('pooling, thresholds, readout', [('cls', .5, 'own@.5'), ('mean', 'label', None)])
def test_a_network_of_the_hub(pooling, thresholds, readout, tmp_path):
    """Of the first token by the head: the features of this network hardly vary there, and a probe would multiply
    the last digits."""
    t = texts()
    tiny_roberta(tmp_path/'net', list(t.text))
    more = dict(encoder=dict(pooling=pooling, bf16=False), lr=1e-2)
    model = MultiLabelClassifier(encoder=f"hf:{tmp_path/'net'}", settings=more, thresholds=thresholds, readout=readout,
                                 **FAST).fit(t.text, t.labels)
    (tmp_path/'o').mkdir()
    facts = agrees(model, ['', 'wave', *t.text[:40], ' '.join(t.text[:9])], tmp_path/'o')
    assert 'wave' in facts['encoder']['config']['tokenizer']['json']


def test_the_file_is_of_float32(tmp_path):
    "A network that predicts in bfloat16 where that is quicker is exported in float32, and stays as it was."
    t = texts()
    tiny_roberta(tmp_path/'net', list(t.text))
    model = MultiLabelClassifier(encoder=f"hf:{tmp_path/'net'}", settings=dict(encoder=dict(bf16=True)),
                                 **FAST).fit(t.text, t.labels)
    assert export_onnx(model, tmp_path/'m.onnx') < 1e-4
    assert export._Graph(model).enc.bf16 is False and model.trained_.model.encoder.bf16 is True


def test_a_frozen_network_is_part_of_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr('mlcl.encoders.features.gains_from_bfloat16', lambda: False)
    t = texts()
    tiny_roberta(tmp_path/'net', list(t.text))
    model = MultiLabelClassifier(encoder=f"hf:{tmp_path/'net'}:frozen", settings=dict(encoder=dict(pooling='mean')),
                                 **FAST).fit(t.text, t.labels)
    with pytest.warns(UserWarning, match='onnx: the graph reads the first 300 tokens of a text; mlcl reads up '
                                         'to 8 windows'):
        assert export_onnx(model, file := tmp_path/'m.onnx') < 1e-4
    assert [i.name for i in session(file).get_inputs()] == ['ids', 'mask']
    assert abs(by_onnx(file, model, list(t.text)) - model.predict_proba(t.text)).max() < 1e-4
    tiny_roberta(tmp_path/'net', ['other words', *t.text])
    # another one than the last that was used
    model.trained_.model.encoder.how = dict(model.trained_.model.encoder.how, length=299)
    file.unlink()
    with pytest.raises(ValueError, match='expected the weights that the model was trained on'): export_onnx(model, file)
    assert not file.exists()


def images(n=24, size=12, grey=False):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (n, 2))
    x = rng.integers(0, 40, (n, size, size) if grey else (n, size, size, 3)).astype(np.uint8)
    x[:, :6] += (200*y[:, 0]).astype(np.uint8).reshape(-1, *[1]*(x.ndim - 1))
    return x, y


@pytest.mark.parametrize('grey', [True, False])
def test_pictures(grey, tmp_path):
    x, y = images(grey=grey)
    facts = agrees(MultiLabelClassifier(encoder='resnet', settings=dict(encoder=dict(augment='light')),
                                        **FAST).fit(x, y), x, tmp_path)
    assert (facts['kind'] == 'image' and session(tmp_path/'m.onnx').get_inputs()[0].shape[1:]
            == [1 if grey else 3, 12, 12])


@pytest.mark.parametrize('encoder, more', [('tv:resnet18', {}), ('mobilenet_v2', {}),
                                           ('timm:tf_efficientnet_lite0', dict(bf16=False))])
def test_pictures_with_networks_of_libraries(encoder, more, tmp_path):
    x, y = images()
    settings = dict(encoder=dict(size=32, pretrained=False, **more))
    agrees(MultiLabelClassifier(encoder=encoder, settings=settings, epochs=1, random_state=0).fit(x, y), x, tmp_path)


def test_pictures_with_a_frozen_network(tmp_path, monkeypatch):
    from mlcl.encoders import Backbone, networks
    def untrained(name, pretrained=True, size=None):
        torch.manual_seed(0)
        return Backbone('resnet18', False, 32)
    for where in (networks, export): monkeypatch.setattr(where, 'Backbone', untrained)
    monkeypatch.setattr(networks, 'stored', lambda file, make, cache=None: make().astype(np.float32))
    networks._backbone.cache_clear()
    x, y = images()
    model = MultiLabelClassifier(encoder='tv:resnet18:frozen', **FAST).fit(x, y)
    rng = torch.get_rng_state()
    assert export_onnx(model, file := tmp_path/'m.onnx') < 1e-4 and torch.equal(rng, torch.get_rng_state())
    pixels = torch.stack([networks.Squares(x, 32)[i][0] for i in range(len(x))]).numpy()
    assert abs(session(file).run(None, dict(pixels=pixels))[0] - model.predict_proba(x)).max() < 1e-4
    networks._backbone.cache_clear()


def test_every_encoder_has_a_form():
    assert {*export.GRAPHS} == {*ENCODERS}


def test_a_wrong_form_is_noticed(tmp_path, monkeypatch):
    "The comparison after the export finds what the converter does not: padding that counts. Nothing is left."
    pytest.importorskip('onnxruntime')
    t = texts()
    model = MultiLabelClassifier(encoder='bag', **FAST).fit(t.text, t.labels)
    monkeypatch.setitem(export.GRAPHS, 'bag', lambda enc, ids,
                        w: enc.layers(enc.gain*(enc.emb(ids)*(w + .1)[..., None]).sum(1)))
    with pytest.raises(ValueError, match='encoder: bag cannot be written as ONNX: its numbers are'):
        export_onnx(model, tmp_path/'m.onnx')
    monkeypatch.setitem(export.GRAPHS, 'bag', lambda enc, ids, w: enc(ids, w) if ids.sum() > 0 else ids)
    with pytest.raises(ValueError, match='^encoder: bag cannot be written as ONNX') as e:
        export_onnx(model, tmp_path/'m.onnx')
    assert '\n' not in str(e.value) and [*tmp_path.iterdir()] == []


def test_what_is_refused(tmp_path, monkeypatch):
    x, y = numbers()
    model, ds = MultiLabelClassifier(**FAST).fit(x, y), read((x, y))
    simple = BaselineClassifier('logistic').fit_dataset(ds)
    simple.save(tmp_path/'b.safetensors')
    for bad, said in [(simple, 'expected a network, got the baseline logistic; predict'),
                      (tmp_path/'b.safetensors', 'got the baseline logistic'),
                      (x, 'got ndarray'), (MultiLabelClassifier(), 'not fitted')]:
        with pytest.raises(ValueError, match=said): export_onnx(bad, tmp_path/'m.onnx')
    (tmp_path/'d.onnx').mkdir()
    for out, said in [('m.pt', 'a file that ends in .onnx'), ('d.onnx', 'a file, got the folder'),
                      ('b.safetensors/m.onnx', 'a folder, got the file')]:
        with pytest.raises(ValueError, match=f'^onnx: expected {said}'): export_onnx(model, tmp_path/out)
    with pytest.raises(ValueError, match='^onnx: cannot write'): export_onnx(model, '/proc/m.onnx')
    monkeypatch.setattr(export, 'LARGEST', 1e3)
    with pytest.raises(ValueError, match='encoder: expected at most'): export_onnx(model, tmp_path/'m.onnx')
    monkeypatch.delitem(export.GRAPHS, 'mlp')
    with pytest.raises(ValueError, match='encoder: expected one of resnet, .*got mlp; predict with'):
        export_onnx(model, tmp_path/'m.onnx')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['b.safetensors', 'd.onnx']


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    model = MultiLabelClassifier(**FAST).fit(*numbers())
    for name in ('onnx', 'onnxruntime', 'onnxscript'):
        with monkeypatch.context() as m:
            m.setitem(sys.modules, name, None)
            for other in {'onnx', 'onnxruntime', 'onnxscript'} - {name}: m.setitem(sys.modules, other, sys)
            with pytest.raises(ImportError, match=rf"export_onnx needs {name}: pip install 'mlcl\[export\] @ git"):
                export.export_onnx(model, tmp_path/'m.onnx')
    assert [*tmp_path.iterdir()] == []


def test_the_model_stays_as_it_was(tmp_path):
    pytest.importorskip('onnxruntime')
    x, y = numbers()
    model, rng = MultiLabelClassifier(**FAST).fit(x, y), torch.get_rng_state()
    before = {k: v.clone() for k, v in model.trained_.model.state_dict().items()}, model.predict_proba(x)
    export_onnx(model, tmp_path/'new'/'m.onnx')
    assert all(torch.equal(v, before[0][k]) for k, v in model.trained_.model.state_dict().items())
    assert ((model.predict_proba(x) == before[1]).all() and torch.equal(rng, torch.get_rng_state())
            and not model.trained_.model.training)


# --- the command

def test_commands(tmp_path, monkeypatch, capsys):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main('train a.csv --text text --epochs 2'.split()) == 0
    assert 'model.md: the card of the model' in capsys.readouterr().out
    assert main('export model.safetensors'.split()) == 0 == main('export model.safetensors --onnx new/b.onnx'.split())
    assert (tmp_path/'model.onnx').exists() and (tmp_path/'new/b.onnx').exists()
    assert re.search(r'model.onnx: its probabilities are those of PyTorch, up to \de-\d\d\n', capsys.readouterr().out)
    (tmp_path/'f').mkdir(), (tmp_path/'model.safetensors').rename(tmp_path/'f/model.safetensors')
    assert main('export f --onnx c.onnx'.split()) == 0
    capsys.readouterr()
    for words, said in [('export a.csv', 'a.csv: expected a model'),
                        ('export none.safetensors', 'none.safetensors: no such'),
                        ('export f --onnx a.pt', 'onnx: expected a file')]:
        assert main(words.split()) == 2
        err = capsys.readouterr().err
        assert err.startswith(f'mlcl: {said}') and err.count('\n') == 1


def test_a_card_never_takes_the_place_of_another_text(tmp_path, monkeypatch, capsys):
    "It is said before the data are read; a card of before is replaced."
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    (tmp_path/'README.md').write_text('# Mine\n')
    with monkeypatch.context() as m:
        m.setattr('mlcl.own.read', lambda *_, **__: 1/0)
        assert main('train a.csv --text text --out README.safetensors'.split()) == 2
    assert "out: expected a free name for the model's card, got README.md" in capsys.readouterr().err
    assert (tmp_path/'README.md').read_text() == '# Mine\n'
    (tmp_path/'m.md').write_text('---\nlibrary_name: mlcl\n---\nof yesterday')
    assert main('train a.csv --text text --epochs 1 --out m.safetensors'.split()) == 0
    assert 'yesterday' not in (tmp_path/'m.md').read_text() and (tmp_path/'README.md').read_text() == '# Mine\n'


# --- the card

@pytest.fixture(scope='module')
def trained():
    ds = read(texts(), text='text', labels='labels')
    return MultiLabelClassifier(epochs=2, random_state=0).fit_dataset(ds), ds


def test_a_card_says_what_is_true(trained):
    model, ds = trained
    s, text = split_scores(model, ds), card(model, ds)
    for k, name in dict(val='validation', test='test').items():
        r = s[k]
        macro = f"{r['macro_f1']:.3f} [{r['macro_f1_lo']:.3f}, {r['macro_f1_hi']:.3f}]"
        assert f"| {name} | {len(ds.splits[k])} | {macro} | {r['micro_f1']:.3f} [" in text
    n = (ds.y[ds.splits['train']] == 1).sum(0)
    for l, label in enumerate(ds.labels): assert f'| {label} | {n[l]} | {model.thresholds_[l]:.3f} |' in text
    rows = re.findall(r'(?m)^\| (\w+) \| (\d+) \| 0\.\d{3} \|$', text)
    assert [r[0] for r in rows] == sorted(ds.labels, key=lambda l: -n[ds.labels.index(l)])
    how = dict(re.findall(r'(?m)^\| ([\w ]+) \| (.+) \|$', text))
    assert (how['loss'] == 'bce' and how['encoder'] == 'bag'
            and how['training instances'] == str(len(ds.splits['train'])))
    assert (how['epochs'].startswith('2, of which epoch') and f'| data | sha256 {ds.sha256} |' in text
            and '120 texts' in text)
    assert text.startswith('---\nlibrary_name: mlcl\npipeline_tag: text-classification\ntags:\n- '
                           'multi-label-classification\n- bce\n---\n')


@pytest.mark.parametrize('make', [lambda **k: MultiLabelClassifier(epochs=2, **k),
                                  lambda **k: BaselineClassifier('tfidf_svm', **k)])
def test_a_model_that_was_trained_on_validation_data_too(make, trained):
    "No scores on these data, and their labels count."
    ds = trained[1]
    model = make(random_state=0, refit=True).fit_dataset(ds)
    text, n = card(model, ds), sum((ds.y[ds.splits[k]] == 1).sum(0) for k in ('train', 'val'))
    assert {*split_scores(model, ds)} == {'test'} and '| validation |' not in text and '| test | 23 |' in text
    assert (all(f'| {l} | {k} |' in text for l, k in zip(ds.labels, n)) and 'too good' not in text
            and 'reached Macro-F1' not in card(model))


def test_a_card_without_data_has_no_scores(trained, tmp_path):
    model, ds = trained
    model.save(tmp_path/'m.safetensors')
    for m in (model, MultiLabelClassifier.load(tmp_path/'m.safetensors')):
        text = card(m)
        best = max(h['val_macro_f1'] for h in m.trained_.history)
        assert (f'reached Macro-F1 {best:.3f} on validation data' in text and '| test |' not in text
                and 'Not tested on data that had' in text)
        assert all(f'| {l} | {n} |' in text for l, n in zip(ds.labels, (ds.y[ds.splits['train']] == 1).sum(0)))


@pytest.mark.parametrize('thresholds, said', [('label', True), ('global', True), (.5, False)])
def test_a_card_knows_whether_thresholds_were_chosen(thresholds, said):
    x, y = numbers()
    text = card(MultiLabelClassifier(thresholds=thresholds, **FAST).fit(x, y))
    assert ('thresholds were chosen on validation' in text) == said != ('No thresholds were chosen' in text)


def test_rare_labels_are_named_and_long_lists_are_cut():
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    y = [{f'l{i % 120}', *(['of five'] if i < 5 else [])} for i in range(400)]
    text = card(MultiLabelClassifier(epochs=1, random_state=0).fit(x, y))
    assert len(re.findall(r'(?m)^\| (l\d+|of five) \| \d+ \|', text)) == 100 and '21 more follow' in text
    assert 'Fewer than 10 training instances have 121 of the labels' in text and ', '.join(['l']) and ' ….' in text


NASTY = ['<script>alert(1)</script>', '[a](http://b.org)', 'www.b.org', 'a|b', '`x`', '*b*', '$x$', '# h', 'x\ny',
         '\u202eevil', '---', '&lt;', '\\', '{{ 1/0 }}',
         '![i](http://b.org/i.png)', 'me@b.org', '~~s~~', '<!--', '- x', 'https://b.org', 'x\x1b[31m', '```',
         '_b_', '\\*b\\*']


@pytest.mark.parametrize('c', '\\`*_[]|~$@/#')
def test_what_means_something_gets_a_backslash(c):
    assert _escaped(f'a{c}b') == f'a\\{c}b' and _escaped('<&>') == '&#60;&#38;&#62;'


def test_a_long_name_is_cut(): assert len(_escaped('x'*9999)) == 501


def test_names_that_deceive():
    "Rendered as GitHub would, every name is text in a cell of a table, and nothing else is in the card than before."
    pypandoc, bs4 = pytest.importorskip('pypandoc'), pytest.importorskip('bs4')
    def page(names):
        x = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
        sets = [[names[i % len(names)], names[(i + 1) % len(names)]] for i in range(150)]
        ds = read(pd.DataFrame(x).assign(labels=[json.dumps(s) for s in sets]), labels='labels')
        # its names are as they were, those of `ds` have codes
        model = MultiLabelClassifier(epochs=1, random_state=0).fit(x, sets)
        assert len(ds.labels) == len(names) and sorted(model.classes_.tolist()) == sorted(names)
        text = card(model, ds)
        assert not any(unicodedata.category(c) in ('Cc', 'Cf') for c in text.replace('\n', ''))
        return bs4.BeautifulSoup(pypandoc.convert_text(text, 'html', 'gfm+autolink_bare_uris+tex_math_dollars-smart'),
                                 'html.parser')
    got, plain = page(NASTY), page([f'l{i}' for i in range(len(NASTY))])
    def tags(p): return sorted(t.name for t in p.find_all())
    assert tags(got) == tags(plain) and [a['href'] for a in got('a')] == [a['href'] for a in plain('a')]
    cells = [r('td')[0].text for r in got('table')[1]('tr')[1:]]
    def seen(name): return ''.join(c if c >= ' ' and c != '\u202e' else f'\\u{ord(c):04x}' for c in name).strip()
    assert sorted(cells) == sorted(map(seen, NASTY))


@pytest.mark.parametrize('license', ['', 'mit\nx: y', 'a b', 'MIT', 3, '-x', 'x'*50])
def test_a_license_is_an_identifier(license, trained):
    with pytest.raises(ValueError, match='^license: expected an identifier'): card(trained[0], license=license)


def test_the_license_is_left_to_the_user(trained):
    head = lambda **k: card(trained[0], **k).split('---')[1]
    assert 'license' not in head() and '\nlicense: cc-by-4.0\n' in head(license='cc-by-4.0')


def made(kind, tmp_path):
    "A classifier of each kind of data, and a baseline."
    if kind == 'features': return MultiLabelClassifier(**FAST).fit_dataset(read(numbers()))
    if kind == 'image': return MultiLabelClassifier(encoder='resnet', epochs=1, random_state=0).fit(*images())
    if kind == 'baseline': return BaselineClassifier('logistic').fit_dataset(read(numbers()))
    return MultiLabelClassifier(**FAST).fit(texts().text, texts().labels)


@pytest.mark.parametrize('kind', ['text', 'features', 'image', 'baseline'])
def test_the_code_of_a_card_runs(kind, tmp_path, monkeypatch):
    "In the folder of the model, whatever its name."
    monkeypatch.chdir(tmp_path)
    model, name = made(kind, tmp_path), "it's `a`.safetensors"
    model.save(name)
    text = write_card(model, name).read_text()
    env = {}
    exec(re.search(r'```python\n(.+?)```', text, re.S)[1], env)
    assert (env['model'].predict_proba(env['x']).shape == (2, len(model.classes_))
            and "mlcl predict 'it'\"'\"'s `a`.safetensors' F" in text)


@pytest.mark.parametrize('encoder, extra', [(None, 'own'), ('hf:x/y', 'own,text'), ('hf:x/y:frozen', 'own,text'),
                                            ('timm:a:frozen', 'own,vision'), ('tv:resnet18', 'own,vision'),
                                            ('resnet', 'own')])
def test_a_card_names_the_extra(encoder, extra, trained, monkeypatch):
    model = trained[0]
    if encoder:
        monkeypatch.setattr(model.trained_, 'encoder_name', encoder)
        monkeypatch.setattr(model, 'kind_', 'text' if 'hf' in encoder else 'image')
    text = card(model)
    assert (f"pip install 'mlcl[{extra}] @ git+https://" in text and ('It builds on the pretrained network' in text)
            == (':' in str(encoder)))


def test_only_a_trained_model_has_a_card():
    for bad in (MultiLabelClassifier(), BaselineClassifier('logistic'), 'model.safetensors'):
        with pytest.raises(ValueError, match='^model: expected a trained one'): card(bad)


def test_folders_with_and_without_a_card(tmp_path, trained):
    "What is downloaded from the hub is a folder: it loads and predicts, with its card and without."
    model, ds = trained
    (tmp_path/'f').mkdir()
    model.save(tmp_path/'f/model.safetensors')
    data = write(tmp_path/'new.csv', texts()[['text']])
    p = predict_file(tmp_path/'f', data)
    (tmp_path/'f/README.md').write_text(card(model, ds))
    assert predict_file(tmp_path/'f', data).equals(p) and predict_file(tmp_path/'f/model.safetensors', data).equals(p)
    assert (MultiLabelClassifier.load(tmp_path/'f').predict_proba(ds.x) == model.predict_proba(ds.x)).all()


# --- the hub

class Hub:
    "What would be uploaded."
    calls = []
    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append(('create', repo_id, private, exist_ok))
        return f'https://huggingface.co/{repo_id}'
    def upload_folder(self, repo_id, folder_path, commit_message):
        files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.calls.append(('upload', repo_id, files, commit_message))


@pytest.fixture
def hub(monkeypatch):
    Hub.calls = []
    pytest.importorskip('huggingface_hub')
    monkeypatch.setattr('huggingface_hub.HfApi', Hub)
    return Hub


def test_upload(hub, trained, tmp_path):
    model, ds = trained
    assert model.push_to_hub('me/words', ds, license='mit') == 'https://huggingface.co/me/words'
    assert ([c[:2] for c in hub.calls] == [('create', 'me/words'), ('upload', 'me/words')]
            and hub.calls[0][2:] == (True, True))
    files = hub.calls[1][2]
    assert {*files} == {'README.md', 'model.safetensors'}
    text = files['README.md'].decode()
    assert (text == card(model, ds, repo='me/words', license='mit')
            and "hf_hub_download('me/words', 'model.safetensors')" in text)
    (tmp_path/'model.safetensors').write_bytes(files['model.safetensors'])
    assert (MultiLabelClassifier.load(tmp_path).predict_proba(ds.x) == model.predict_proba(ds.x)).all()


def test_a_card_of_ones_own_and_a_public_repository(hub, trained):
    trained[0].push_to_hub('me/words', private=False, text='# Mine')
    assert hub.calls[0][2] is False and hub.calls[1][2]['README.md'] == b'# Mine'


@pytest.mark.parametrize('repo', ['words', '', 'a/b/c', 'a b/c', '../x/y', 3, 'me/'])
def test_names_that_are_no_repository(repo, hub, trained):
    with pytest.raises(ValueError, match='^repo: expected OWNER/NAME, got'): trained[0].push_to_hub(repo)
    assert hub.calls == []


def test_what_stops_an_upload(hub, trained, monkeypatch):
    with pytest.raises(ValueError, match='not fitted'): MultiLabelClassifier().push_to_hub('me/words')
    with pytest.raises(ValueError, match='^license: '): trained[0].push_to_hub('me/words', license='no license')
    assert hub.calls == []
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match=r"push_to_hub needs huggingface_hub: pip install 'mlcl\[export\] @ git"):
        trained[0].push_to_hub('me/words')


def test_training_uploads_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path/'a.csv', texts())
    assert main('train a.csv --text text --epochs 1'.split()) == 0 and hub.calls == []
