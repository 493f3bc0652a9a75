"A saved model is data: what its file says is checked before anything is built, and chooses neither code nor network."
import copy, json, socket
import numpy as np, pytest, torch
from safetensors import safe_open
from safetensors.torch import save_file
from mlcl.encoders import tiny_roberta
from mlcl.learner import load_trained
from mlcl.own import MultiLabelClassifier
from mlcl.saved import can_be_loaded, check_network, read_saved
from own_data import numbers, scratch, texts


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    "Tensors and facts of a saved model."
    x, y = numbers()
    MultiLabelClassifier('reg', epochs=1, random_state=0).fit(x,
                                                              y).save(p := tmp_path_factory.mktemp('m')/'m.safetensors')
    with safe_open(p, 'pt') as f: return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()['mlcl'])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    "No network, and nothing that would fetch a network's code or weights."
    def no(*_, **__): raise AssertionError('the network was asked for')
    monkeypatch.setattr(socket.socket, 'connect', no)
    monkeypatch.setattr('transformers.AutoModel.from_pretrained', no)
    monkeypatch.setattr('transformers.AutoTokenizer.from_pretrained', no)


def refused(tmp_path, tensors, facts, said):
    "Both ways to load a file refuse it in one line."
    save_file(tensors, p := tmp_path/'bad.safetensors',
              metadata=dict(mlcl=facts if isinstance(facts, str) else json.dumps(facts)))
    for load in (MultiLabelClassifier.load, load_trained):
        with pytest.raises(ValueError, match=said) as e: load(p)
        assert '\n' not in str(e.value) and len(str(e.value)) < 600


def changed(facts, where, **values):
    "Facts with other values at a place."
    facts = copy.deepcopy(facts)
    place = facts
    for k in where: place = place[k]
    place.update(values)
    return facts


NEEDED = ('format', 'loss', 'encoder', 'n_labels', 'label_counts', 'settings', 'share', 'seed', 'history', 'best_epoch')


@pytest.mark.parametrize('key', NEEDED)
def test_every_fact_is_needed(parts, tmp_path, key):
    refused(tmp_path, parts[0], {k: v for k, v in parts[1].items() if k != key}, f'{key}: Field required')


@pytest.mark.parametrize('key', NEEDED)
@pytest.mark.parametrize('value', ['x', -1, [[1]], float('inf'), 10**30, {'a': 1}])
def test_every_fact_has_its_type(parts, tmp_path, key, value): refused(tmp_path, parts[0], parts[1] | {key: value}, key)


@pytest.mark.parametrize('where, values', [
    (('encoder', 'config'), dict(n_features='6')), (('encoder', 'config'), dict(n_features=10**12)),
    (('encoder', 'config'), dict(n_features=10**8)),
    (('encoder', 'config'), dict(widths=[10**8])), (('encoder', 'config'), dict(dropout=float('nan'))),
    (('encoder', 'config'), dict(scale='other')),
    (('encoder', 'config'), dict(code='x')), (('encoder',), dict(name='none')), (('settings',), dict(projection=10**9)),
    (('settings',), dict(loss=dict(code=1))),
    (('settings',), dict(loss=dict(temperature='x'))), (('note',), dict(classes=[0, 0, 1])),
    (('note',), dict(classes=[0, 1])), (('note',), dict(classes=[[0], 1, 2])),
    (('note',), dict(params=dict(code=1))), (('note',), dict(kind='code')), (('note',), dict(columns=dict(code='a'))),
    (('note',), dict(seed=-1))])
def test_facts_that_do_not_fit(parts, tmp_path, where, values):
    save_file(parts[0], p := tmp_path/'bad.safetensors',
              metadata=dict(mlcl=json.dumps(changed(parts[1], where, **values))))
    with pytest.raises(ValueError) as e: MultiLabelClassifier.load(p)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('raw', ['', '{}', '[]', 'null', 'x', '['*100_000, '{"format": "mlcl 1"}', '1'])
def test_facts_that_are_none(parts, tmp_path, raw):
    refused(tmp_path, parts[0], raw, 'expected a model that `save` wrote')


@pytest.mark.parametrize('name', ['encoder.layers.0.weight', 'loss.prototypes', 'extra.thresholds', 'extra.weight',
                                  'extra.mean'])
def test_tensors_that_do_not_fit(parts, tmp_path, name):
    t, facts = parts
    refused(tmp_path, t | {name: t[name]*float('nan')}, facts, f'{name}: expected finite numbers')
    refused(tmp_path, t | {name: t[name].to(torch.int8)}, facts, f'{name}: expected floating-point numbers, got int8')
    fault = (name if name.startswith(('encoder', 'loss')) else 'thresholds: expected one for each of 3'
             if 'thresholds' in name else 'probe: ')
    refused(tmp_path, t | {name: t[name].ravel()[:-1].clone()}, facts, fault)
    refused(tmp_path, {k: v for k, v in t.items() if k != name}, facts, fault)


def test_thresholds_are_probabilities_one_for_each_label(parts, tmp_path):
    for bad in (torch.tensor([.5, .5, 2.]), torch.tensor([.5, -.1, .5]), torch.rand(2), torch.rand(4),
                torch.rand(3, 1)):
        refused(tmp_path, parts[0] | {'extra.thresholds': bad}, parts[1], 'thresholds: expected')


@pytest.mark.parametrize('encoder, said', [
    (dict(name='hf', spec='hf:x', config=dict(arg='FOLDER', spec=None, tokenizer=None)), 'spec'),
    (dict(name='hf', spec='hf:x', config=dict(arg='FOLDER')), 'spec: Field required'),
    (dict(name='hf', spec='hf:x',
          config=dict(arg='x', spec=dict(model_type='bert', auto_map={'AutoModel': 'code.Model'}),
                      tokenizer=dict(json='{}', special={}))), 'auto_map'),
    (dict(name='hf', spec='hf:x', config=dict(arg='x', spec=dict(model_type='new'),
                                              tokenizer=dict(json='{}', special={}))), 'a type among'),
    (dict(name='hf', spec='hf:x', config=dict(arg='x', spec=dict(model_type='bert', quantization_config={'a': 1}),
                                              tokenizer=dict(json='{}', special={}))), 'quantization_config'),
    (dict(name='frozen_text', spec='hf:x:frozen', config=dict(arg='FOLDER', n_features=6)),
     'the name of a network on the hub'),
    (dict(name='tv', spec='tv:resnet18', config=dict(arg='resnet18', pretrained=True)), 'Missing key'),
    (dict(name='mobilenet_v2', spec='mobilenet_v2', config=dict(pretrained=True)), 'Missing key'),
    (dict(name='tv', spec='tv:../x', config=dict(arg='../x')), 'tv: expected one of'),
    (dict(name='timm', spec='timm:x', config=dict(arg='hf-hub:evil/x', pretrained=True)), 'timm: expected a name of')])
def test_a_file_chooses_neither_code_nor_network(parts, tmp_path, encoder, said):
    "No code of a file is run, and no network beside the known ones is made."
    (tmp_path/'evil').mkdir()
    (tmp_path/'evil'/'config.json').write_text(json.dumps(dict(auto_map=dict(AutoModel='code.Model',
                                                                             AutoConfig='code.Config'),
                                                               model_type='evil')))
    (tmp_path/'evil'/'code.py').write_text(f'open({str(tmp_path/"ran")!r}, "w")')
    text = json.dumps(parts[1] | dict(encoder=encoder)).replace('FOLDER', str(tmp_path/'evil'))
    refused(tmp_path, parts[0], text, said)
    assert not (tmp_path/'ran').exists()


def test_a_fine_tuned_network_is_loaded_from_its_file_alone(tmp_path, monkeypatch):
    monkeypatch.undo()
    t = texts()
    tiny_roberta(tmp_path/'net', list(t.text))
    m = MultiLabelClassifier(encoder=f'hf:{tmp_path}/net', epochs=1, random_state=0).fit(t.text, t.labels)
    m.save(tmp_path/'m.safetensors')
    import shutil
    shutil.rmtree(tmp_path/'net')
    monkeypatch.setattr('transformers.AutoModel.from_pretrained', lambda *a, **k: 1/0)
    k = MultiLabelClassifier.load(tmp_path/'m.safetensors')
    assert np.allclose(k.predict_proba(t.text), m.predict_proba(t.text), atol=1e-6)


def test_settings_that_nothing_reads_do_not_stand_in_the_way(tmp_path, monkeypatch):
    "The configuration of a network on the hub may have some of an older version of the library."
    monkeypatch.undo()
    t = texts()
    tiny_roberta(tmp_path/'net', list(t.text))
    file = tmp_path/'net'/'config.json'
    file.write_text(json.dumps(json.loads(file.read_text())
                               | dict(gradient_checkpointing=False, position_embedding_type='absolute',
                                      tie_weights_=True)))
    m = MultiLabelClassifier(encoder=f'hf:{tmp_path}/net', epochs=1, random_state=0).fit(t.text, t.labels)
    m.save(tmp_path/'m.safetensors')
    assert np.allclose(MultiLabelClassifier.load(tmp_path/'m.safetensors').predict_proba(t.text),
                       m.predict_proba(t.text), atol=1e-6)


@pytest.mark.parametrize('encoder, said', [('hf:FOLDER:frozen', 'the name of a network on the hub'),
                                           ('hf:FOLDER', 'a network of a type among')])
def test_what_could_not_be_loaded_is_not_trained_for_a_file(tmp_path, monkeypatch, encoder, said):
    from mlcl.cli import main
    monkeypatch.undo()
    (tmp_path/'net').mkdir()
    (tmp_path/'net'/'config.json').write_text(json.dumps(dict(model_type='longformer')))
    encoder = encoder.replace('FOLDER', str(tmp_path/'net'))
    with pytest.raises(ValueError, match=f'^encoder: expected {said}'): can_be_loaded(encoder)
    texts().to_csv(tmp_path/'t.csv', index=False)
    monkeypatch.setattr(MultiLabelClassifier, 'fit_dataset', lambda *_: 1/0)
    assert main(['train', str(tmp_path/'t.csv'), '--text', 'text', '--encoder', encoder, '--out',
                 str(tmp_path/'m.safetensors')]) != 0
    for fine in (None, 'bag', 'hf:roberta-base:frozen', 'hf:org/name:frozen', 'hf:not/here', 'timm:x:frozen'):
        can_be_loaded(fine)


def test_networks_of_other_types_are_refused():
    assert check_network(dict(model_type='bert', hidden_size=8))['hidden_size'] == 8
    for spec in (dict(model_type='llama'), dict(), dict(model_type='bert', trust_remote_code=True),
                 dict(model_type='bert', attn_implementation='x/y')):
        with pytest.raises(ValueError, match='encoder: expected'): check_network(spec)


def test_what_is_no_model(tmp_path):
    for name, raw in (('a.safetensors', b'nonsense'), ('b.safetensors', b''), ('c.safetensors', b'\xff'*20),
                      ('d.csv', b'a,b\n')):
        (tmp_path/name).write_bytes(raw)
        with pytest.raises(ValueError, match='expected a model that `save` wrote'): read_saved(tmp_path/name)
    with pytest.raises(FileNotFoundError): read_saved(tmp_path/'none.safetensors')


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    """A classifier on features of a tiny frozen network, saved; where the network was; and what a read of weights
    was told."""
    from transformers import AutoModel, AutoTokenizer
    from mlcl.encoders import pretrained
    told = []
    monkeypatch.undo()
    for c in (AutoModel, AutoTokenizer):
        def read(where, *, f=c.from_pretrained, **how): told.append(how.get('local_files_only')); return f(where, **how)
        monkeypatch.setattr(c, 'from_pretrained', read)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    t = texts()
    tiny_roberta('org/tiny', list(t.text))
    pretrained._network.cache_clear()
    MultiLabelClassifier(encoder='hf:org/tiny:frozen', epochs=1,
                         random_state=0).fit(t.text, t.labels.str.split('|')).save('m.safetensors')
    pretrained._network.cache_clear()
    return tmp_path, told, t.text


def test_a_model_on_frozen_features_fetches_nothing(frozen):
    folder, told, x = frozen
    assert told[:2] == [False, False] and all(told[2:]) # the training may fetch, reading out may not
    told.clear()
    m = MultiLabelClassifier.load('m.safetensors')
    assert m.predict_proba(x).shape == (len(x), len(m.classes_)) and told == [True, True]


def test_a_model_on_frozen_features_needs_the_same_weights(frozen):
    from mlcl.encoders import pretrained
    folder, _, x = frozen
    torch.manual_seed(1)
    tiny_roberta('org/tiny', list(x))
    with pytest.raises(ValueError, match='expected the weights that the model was trained on'):
        MultiLabelClassifier.load('m.safetensors').predict(x)
    pretrained._network.cache_clear()
    (folder/'org/tiny').rename(folder/'org/other')
    with pytest.raises(FileNotFoundError, match='hf:org/tiny: the model needs the weights of this network'):
        MultiLabelClassifier.load('m.safetensors').predict(x)


@pytest.mark.parametrize('spec, error', [('tv:resnet18', 'tv:resnet18: the model needs'),
                                         ('timm:resnet18', 'timm:resnet18: the model needs')])
def test_a_network_of_pictures_is_not_fetched_to_predict(tmp_path, monkeypatch, spec, error):
    from mlcl.encoders import Frozen
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=error):
        Frozen(spec.removeprefix('tv:'), 512).prepare(np.zeros((1, 8, 8, 3), np.uint8))
