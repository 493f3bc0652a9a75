"Every encoder: one step forward and backward, plain-data round trip, refusal of what does not fit."
import json
import numpy as np, pytest, torch
from mlcl.data import Dataset
from mlcl.encoders import (ENCODERS, Backbone, Model, blueprint, build_vocabulary, choices, frozen_features, frozen_texts, image_tensors,
                           make_encoder, pieces, projection, restore, tiny_roberta, token_bags, token_ids, weights_sha256)

rng = np.random.default_rng(0)
TEXTS = [' '.join(rng.choice('wheat oil corn prices exports rise fall again the of'.split(), n)) for n in rng.integers(1, 30, 40)]


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
         ('bag', 'text', dict(bigrams=True, min_count=1)), ('conv', 'text', dict(filters=8)), ('transformer', 'text', dict(dim=16, layers=1)),
         ('hf', 'text', dict(length=16)), ('hf', 'text', dict(length=32, pooling='mean', tokens=40)), ('resnet', 'image', dict(widths=(8, 16))), ('resnet', 'image', dict(widths=(8,), augment='light')),
         ('tv:resnet18', 'image', dict(pretrained=False, size=32)), ('tv:shufflenet_v2_x0_5', 'image', dict(pretrained=False, size=32, augment='rand')),
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


@pytest.mark.parametrize('spec', ['mpl', '', 'tv', 'hf', 'timm', 'mlp:3', 'bert:frozen', 'mlp:frozen', 'tv:frozen', 'frozen', 'frozen_text', 'tv:resnet17'])
def test_unknown_specs_list_the_choices(spec):
    with pytest.raises(ValueError, match='expected one of'): make_encoder(spec, toy('image'))


def test_wrong_kind_and_unknown_option():
    for spec in [s for s, k, _ in CASES if k == 'text' and s != 'hf']:
        with pytest.raises(ValueError, match='image data'): make_encoder(spec, toy('image'))
    with pytest.raises(ValueError, match='widths'): make_encoder('mlp', toy('features'), width=3)
    with pytest.raises(ValueError, match='augment'): make_encoder('resnet', toy('image'), augment='heavy')
    assert {'mlp', 'bag', 'resnet', 'mobilenet_v2:frozen', 'tv:NAME', 'timm:NAME:frozen', 'hf:NAME', 'hf:NAME:frozen'} <= set(choices())


def test_offline_weights_say_what_to_do(monkeypatch):
    import torchvision
    def fail(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr(torchvision.models, 'get_model', fail)
    with pytest.raises(ConnectionError, match='pretrained=False'): make_encoder('tv:resnet18', toy('image'))


def test_frozen_features_are_computed_once(tmp_path, monkeypatch):
    import mlcl.encoders.networks as v
    monkeypatch.setattr(v, 'Backbone', lambda name='mobilenet_v2', size=None: Backbone('mobilenet_v2', pretrained=False, size=32))
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
    with ThreadPoolExecutor(3) as pool: a, *rest = pool.map(lambda _: frozen_features(toy('image', 10), cache=tmp_path), range(3))
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
