"Every encoder: one step forward and backward, plain-data round trip, refusal of what does not fit."
import json
import numpy as np, pytest, torch
from helpers import has_data
from mlcl.data import Dataset
from mlcl.callbacks import parameter_groups
from mlcl.encoders import (ENCODERS, Backbone, HuggingFace, Model, blueprint, build_vocabulary, choices,
                           frozen_features, frozen_texts, image_tensors,
                           make_encoder, own_pooling, pieces, projection, restore, tiny_roberta, token_bags, token_ids,
                           weights_sha256)

rng = np.random.default_rng(0)
TEXTS = [' '.join(rng.choice('wheat oil corn prices exports rise fall again the of'.split(), n))
         for n in rng.integers(1, 30, 40)]


def toy(kind, n=40, n_labels=5):
    x = dict(features=rng.normal(size=(n, 7)).astype(np.float32), text=TEXTS[:n],
             image=rng.integers(0, 256, (n, 20, 20, 3), dtype=np.uint8))[kind]
    y = (rng.random((n, n_labels)) < .4).astype(np.uint8)
    y[:n_labels] = np.eye(n_labels)
    return Dataset('toy', kind, x, y, list('abcde'), dict(train=np.arange(n//2), val=np.arange(n//2, n)), f'toy {kind}')


@pytest.fixture(scope='module')
def roberta(tmp_path_factory):
    pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('roberta')
    tiny_roberta(folder, TEXTS)
    return f'hf:{folder}'


CASES = [('mlp', 'features', {}), ('mlp', 'features', dict(scale='sparse', widths=(16, 8))), ('bag', 'text', {}),
         ('bag', 'text', dict(bigrams=True, min_count=1)), ('conv', 'text', dict(filters=8)),
         ('transformer', 'text', dict(dim=16, layers=1)),
         ('hf', 'text', dict(length=16)), ('hf', 'text', dict(length=32, pooling='mean', tokens=40)),
         ('resnet', 'image', dict(widths=(8, 16))), ('resnet', 'image', dict(widths=(8,), augment='light')),
         ('tv:resnet18', 'image', dict(pretrained=False, size=32)),
         ('tv:shufflenet_v2_x0_5', 'image', dict(pretrained=False, size=32, augment='rand')),
         ('mobilenet_v2', 'image', dict(pretrained=False, size=32)),
         ('timm:tf_efficientnet_lite0', 'image', dict(pretrained=False, size=32, bf16=False))]


@pytest.mark.parametrize('spec,kind,options', CASES)
def test_forward_backward_and_round_trip(spec, kind, options, request):
    if spec == 'hf': spec = request.getfixturevalue('roberta')
    torch.manual_seed(0)
    ds = toy(kind)
    enc = make_encoder(spec, ds, **options)
    model = Model(enc, projection(enc.dim, 6), torch.nn.Identity())
    x = enc.inputs(ds, ds.splits['train'])
    model(*x).square().mean().backward()
    grads = [p.grad for n, p in model.named_parameters() if p.requires_grad and 'pooler' not in n]
    assert all(g is not None and torch.isfinite(g).all() for g in grads) and any(g.abs().sum() > 0 for g in grads)
    again = restore(json.loads(json.dumps(blueprint(enc))))
    again.load_state_dict(enc.state_dict())
    with torch.no_grad(): a, b = enc.eval()(*x), again.eval()(*again.inputs(ds, ds.splits['train']))
    assert a.shape == (20, enc.dim)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('spec,kind,options', [c for c in CASES if c[1] == 'text'])
def test_padding_and_order_do_not_matter(spec, kind, options, request):
    if spec == 'hf': spec = request.getfixturevalue('roberta')
    ds = toy(kind)
    enc = make_encoder(spec, ds, **options).eval()
    with torch.no_grad(): whole, alone = enc(*enc.prepare(TEXTS)), torch.cat([enc(*enc.prepare([t])) for t in TEXTS])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)


def test_statistics_come_from_training_rows_only():
    ds = toy('features')
    ds.x[20:] += 100
    enc = make_encoder('mlp', ds)
    np.testing.assert_allclose(enc.shift, ds.x[:20].mean(0), rtol=1e-4, atol=1e-5)
    text = toy('text')
    text.x = text.x[:20] + ['zinc zinc'] * 20
    assert 'zinc' not in make_encoder('bag', text).vocab.tokens


@pytest.mark.parametrize('spec', ['mpl', '', 'tv', 'hf', 'timm', 'mlp:3', 'bert:frozen', 'mlp:frozen', 'tv:frozen',
                                  'frozen', 'frozen_text', 'tv:resnet17'])
def test_unknown_specs_list_the_choices(spec):
    with pytest.raises(ValueError, match='expected one of'): make_encoder(spec, toy('image'))


def test_wrong_kind_and_unknown_option():
    for spec in [s for s, k, _ in CASES if k == 'text' and s != 'hf']:
        with pytest.raises(ValueError, match='image data'): make_encoder(spec, toy('image'))
    with pytest.raises(ValueError, match='widths'): make_encoder('mlp', toy('features'), width=3)
    with pytest.raises(ValueError, match='augment'): make_encoder('resnet', toy('image'), augment='heavy')
    assert {'mlp', 'bag', 'resnet', 'mobilenet_v2:frozen', 'tv:NAME', 'timm:NAME:frozen', 'hf:NAME',
            'hf:NAME:frozen'} <= set(choices())


def test_offline_weights_say_what_to_do(monkeypatch):
    import torchvision
    def fail(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr(torchvision.models, 'get_model', fail)
    with pytest.raises(ConnectionError, match='pretrained=False'): make_encoder('tv:resnet18', toy('image'))


def test_frozen_features_are_computed_once(tmp_path, monkeypatch):
    import mlcl.encoders.networks as v
    monkeypatch.setattr(v, 'Backbone', lambda name='mobilenet_v2',
                        size=None: Backbone('mobilenet_v2', pretrained=False, size=32))
    torch.manual_seed(0)
    ds = toy('image', 10)
    first = frozen_features(ds, cache=tmp_path)
    assert first.shape == (10, 1280) and first.dtype == np.float32
    (file,) = tmp_path.glob('*.npz')
    torch.manual_seed(0)
    stamp = file.stat().st_mtime_ns
    np.testing.assert_array_equal(first, frozen_features(ds, cache=tmp_path))
    assert file.stat().st_mtime_ns == stamp


def test_of_several_that_ask_at_once_one_computes(tmp_path, monkeypatch):
    import time
    from concurrent.futures import ThreadPoolExecutor
    import mlcl.encoders.networks as v
    net, made = Backbone('mobilenet_v2', pretrained=False, size=32), []
    def slow(x, size): made.append(len(x)); time.sleep(.3); return images(x, size)
    images = v.Squares
    monkeypatch.setattr(v, 'Backbone', lambda *args, **kwargs: net)
    monkeypatch.setattr(v, 'Squares', slow)
    with ThreadPoolExecutor(3) as pool:
        a, *rest = pool.map(lambda _: frozen_features(toy('image', 10), cache=tmp_path), range(3))
    assert made == [10] and all(np.array_equal(a, b) for b in rest)


def test_grey_and_lazy_images():
    grey = [rng.integers(0, 256, (12, 9), dtype=np.uint8) for _ in range(4)]
    a, b = image_tensors(grey, 16, 1), image_tensors(grey, 16, 1, limit=0)
    assert a.shape == (4, 1, 16, 16) and torch.equal(a[torch.tensor([2, 0])], b[torch.tensor([2, 0])])
    with pytest.raises(ValueError, match='uint8'): image_tensors([np.zeros((3, 3))], 4)


def test_empty_and_unknown_texts():
    vocab = build_vocabulary(TEXTS)
    ids, w = token_bags(vocab, ['', 'zinc', TEXTS[0]])
    assert w[:2].abs().sum() == 0 and torch.isfinite(w).all()
    assert token_ids(vocab, ['', 'zinc']).tolist() == [[1], [1]]
    with pytest.raises(ValueError, match='texts'): build_vocabulary([])
    assert all(f.kind in ('features', 'text', 'image') for f in ENCODERS.values())


def test_scaled_inputs():
    ds = toy('features')
    enc = make_encoder('mlp', ds)
    enc.layers = torch.nn.Identity()
    z = enc(torch.from_numpy(ds.x[:20]))
    torch.testing.assert_close(z.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(7), atol=1e-4, rtol=0)
    ds.x = (ds.x > 1.2).astype(np.float32)
    enc = make_encoder('mlp', ds, scale='sparse')
    enc.layers = torch.nn.Identity()
    norms = enc(torch.from_numpy(ds.x[:20])).norm(dim=1)
    torch.testing.assert_close(norms[norms > 0], enc.factor.expand((norms > 0).sum()), atol=1e-5, rtol=1e-5)


real = pytest.mark.skipif(not has_data(), reason='MLCL_DATA NAMES NO DATA FOLDER: the weights of real networks '
                                                 'are not tested')


def test_pieces_hold_the_budget():
    for n in (1, 7, 60):
        lengths = torch.from_numpy(np.sort(rng.integers(1, 50, n)))
        sizes = pieces(lengths, 64)
        assert sum(sizes) == n and all(s >= 1 for s in sizes)
        for part in lengths.split(sizes): assert len(part) == 1 or len(part)*int(part.max()) <= 64


@pytest.mark.parametrize('pooling', ['cls', 'mean'])
def test_pooling_ignores_padding_and_pieces(pooling, roberta):
    ds = toy('text')
    enc = make_encoder(roberta, ds, length=32, pooling=pooling, tokens=50, bf16=False).eval()
    ids, mask = enc.prepare(TEXTS)
    with torch.no_grad():
        got = enc(ids, mask)
        for i in range(0, 40, 7):
            n = int(mask[i].sum())
            h = enc.net(input_ids=ids[i:i + 1, :n].long()).last_hidden_state[0]
            torch.testing.assert_close(got[i], h[0] if pooling == 'cls' else h.mean(0), rtol=1e-4, atol=1e-5)
    assert blueprint(enc)['config']['pooling'] == pooling


def test_first_token_is_the_pooling_of_old_settings(roberta):
    enc = make_encoder(roberta, toy('text'), length=16)
    assert enc.pooling == 'cls' == HuggingFace(**{k: v for k, v in enc.config.items() if k != 'pooling'}).pooling
    assert own_pooling('sentence-transformers/all-MiniLM-L6-v2') == 'mean'


def test_bfloat16_is_close(roberta):
    a, b = (make_encoder(roberta, toy('text'), length=16, bf16=w).eval() for w in (False, True))
    x = a.prepare(TEXTS)
    with torch.no_grad(): p, q = a(*x), b(*x)
    assert q.dtype == torch.float32 and not torch.equal(p, q)
    torch.testing.assert_close(p, q, rtol=.05, atol=.05)


@pytest.mark.parametrize('has, gains', [(dict(amx_bf16=True), True), (dict(amx_bf16=False, avx512_bf16=True), False),
                                        ({}, False)])
def test_bfloat16_pays_with_amx_alone(monkeypatch, has, gains):
    from mlcl.encoders.features import gains_from_bfloat16
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: has, raising=False)
    assert gains_from_bfloat16() is gains


def test_what_is_not_trained_has_no_state(roberta):
    model = Model(make_encoder(roberta, toy('text'), length=16), torch.nn.Linear(16, 5), torch.nn.Identity())
    mine = {id(p) for group in parameter_groups(model) for p in group}
    assert {n for n, p in model.named_parameters() if id(p) not in mine} == {'encoder.net.pooler.dense.weight',
                                                                             'encoder.net.pooler.dense.bias'}


def test_a_long_text_is_read_through_windows(tmp_path, roberta):
    from mlcl.encoders.pretrained import _encode, windowed
    net = HuggingFace(roberta.removeprefix('hf:'), length=6, pooling='mean').eval() # four words and two special tokens
    words = ' '.join(toy('text').x).split()[:11]
    texts = [' '.join(words), ' '.join(words[5:7]), ' '.join(words[:4])]
    ids, mask, owner = windowed(net, texts, 8)
    assert owner.tolist() == [0]*5 + [1, 2] # eleven words: windows of four that begin at 0, 2, 4, 6, 8
    h = _encode(net, texts, 8)
    parts = _encode(net, [' '.join(words[i:i + 4]) for i in range(0, 10, 2)])
    torch.testing.assert_close(h[0], parts.mean(0))
    torch.testing.assert_close(h[1:], _encode(net, texts[1:]))
    torch.testing.assert_close(_encode(net, texts[:1], 2)[0], parts[:2].mean(0))
    assert len({frozen_texts(net, texts, tmp_path, windows=w).tobytes()
                for w in (1, 2, 8)}) == 3 == len(list(tmp_path.glob('*.npz')))


def test_frozen_texts_are_computed_once_for_each_text_weight_and_setting(tmp_path, roberta):
    ds = toy('text')
    nets = [make_encoder(roberta, ds, **o) for o in (dict(length=16), dict(length=8), dict(length=16, pooling='mean'))]
    first = frozen_texts(nets[0], ds.x, tmp_path)
    assert first.shape == (40, 16) and first.dtype == np.float32
    for net in nets: frozen_texts(net, ds.x, tmp_path)
    assert len(list(tmp_path.glob('*.npz'))) == 3
    np.testing.assert_array_equal(first, frozen_texts(nets[0], ds.x, tmp_path))
    frozen_texts(nets[0], ds.x[:-1] + ['other'], tmp_path)
    with torch.no_grad(): nets[0].net.get_input_embeddings().weight.mul_(torch.rand(16))
    assert np.abs(frozen_texts(nets[0], ds.x, tmp_path) - first).max() > 1e-3
    assert len(list(tmp_path.glob('*.npz'))) == 5


def test_frozen_text_encoder(roberta, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    ds = toy('text')
    enc = make_encoder(f'{roberta}:frozen', ds, length=16, widths=(8,), dropout=0.)
    x, = enc.inputs(ds, ds.splits['val'])
    torch.testing.assert_close(x, enc.prepare(ds.x[20:])[0], rtol=.02, atol=.02)
    z = (enc.inputs(ds, ds.splits['train'])[0] - enc.shift)*enc.factor
    torch.testing.assert_close(z.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    assert enc(x).shape == (20, 8) and enc.weights_sha256 == make_encoder(roberta, ds).weights_sha256
    assert sum(p.numel() for p in enc.parameters()) == 16*8 + 8


def test_weights_are_named_by_their_content(roberta):
    a, b = make_encoder(roberta, toy('text')), make_encoder(roberta, toy('text'))
    assert a.weights_sha256 == b.weights_sha256 == weights_sha256(a.net)
    with torch.no_grad(): next(b.net.parameters()).add_(1)
    assert weights_sha256(b.net) != a.weights_sha256
    assert make_encoder('tv:resnet18', toy('image'), pretrained=False, size=32).weights_sha256 is None


@real
@pytest.mark.parametrize('spec,kind', [('hf:sentence-transformers/all-MiniLM-L6-v2', 'text'),
                                       ('timm:tf_efficientnet_lite0', 'image')])
def test_provided_weights(spec, kind):
    "The public name finds the folder; without the folder it is asked for elsewhere."
    options = dict(length=16) if kind == 'text' else dict(size=32)
    enc = make_encoder(spec, toy(kind), **options, bf16=False).eval()
    assert len(enc.weights_sha256) == 64 and (kind == 'image' or enc.pooling == 'mean')
    x = enc.inputs(toy(kind), [0, 1, 2])
    with torch.no_grad(): h = enc(*x)
    assert h.shape == (3, enc.dim) and h.dtype == torch.float32 and h.std() > 0
    spread = torch.nn.functional.cosine_similarity(h[0], h[1], dim=0)
    assert -1 < spread < .999


def test_the_name_of_a_network_that_is_not_here(monkeypatch, tmp_path):
    import timm
    monkeypatch.setenv('MLCL_DATA', str(tmp_path))
    def fail(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr(timm, 'create_model', fail)
    with pytest.raises(ConnectionError, match='pretrained=False'):
        make_encoder('timm:tf_efficientnet_lite0', toy('image'))
    with pytest.raises(ValueError, match='timm.list_models'): make_encoder('timm:lite9', toy('image'))


@real
def test_a_wrong_file_of_weights_is_refused(monkeypatch, tmp_path):
    (tmp_path/'efficientnet_lite0').mkdir()
    (tmp_path/'efficientnet_lite0'/'model.safetensors').write_text('other weights')
    monkeypatch.setenv('MLCL_DATA', str(tmp_path))
    with pytest.raises(ValueError, match='efficientnet_lite0/model.safetensors: expected sha256'):
        make_encoder('timm:tf_efficientnet_lite0', toy('image'))


def test_image_networks_train_in_float32(monkeypatch):
    "On a processor only features are computed in bfloat16: backward passes gain nothing from it."
    import mlcl.encoders.features as f
    monkeypatch.setattr(f, 'gains_from_bfloat16', lambda: True)
    torch.manual_seed(0)
    enc = make_encoder('timm:tf_efficientnet_lite0', toy('image'), pretrained=False, size=32)
    x, = enc.inputs(toy('image'), [0, 1])
    seen = []
    enc.net.net.conv_stem.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    with torch.no_grad(): enc.train()(x), enc.eval()(x)
    enc.bf16 = False
    with torch.no_grad(): enc(x)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
