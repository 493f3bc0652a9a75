"Training: determinism, trained prototypes, failures, saved models, every loss."
import dataclasses, json, warnings
import numpy as np, pytest, torch
from mlcl.data import Dataset
from mlcl.callbacks import Batches, TrainingFailed, learning_rates, parameter_groups, ridge, schedule
from mlcl.encoders import tiny_roberta, weights_sha256
from mlcl.learner import DEFAULTS, complete, load_trained, make_learner, train
from mlcl.losses import LOSSES


def toy(n=150, n_labels=4, kind='features'):
    rng = np.random.default_rng(0)
    y = (rng.random((n, n_labels)) < .35).astype(np.uint8)
    y[:n_labels] = np.eye(n_labels)
    x = (y@rng.normal(size=(n_labels, 6)) + .5*rng.normal(size=(n, 6))).astype(np.float32)
    if kind == 'text': x = [' '.join(f'w{j}' for j in np.flatnonzero(r)) + ' the end' for r in y]
    cut = np.arange(n)
    return Dataset('toy', kind, x, y, list('abcd'), dict(train=cut[:90], val=cut[90:120], test=cut[120:]), 'toy')


FAST = dict(epochs=2, batch_size=32, encoder=dict(widths=(16,)), projection=8)


def state(t): return {k: v.clone() for k, v in t.model.state_dict().items()}
def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('loss', LOSSES)
def test_every_loss_trains_repeatably(loss):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        a, b, c = (train(toy(), loss=loss, settings=FAST, seed=s) for s in (0, 0, 1))
    assert same(state(a), state(b)) and not same(state(a), state(c))
    assert [r['epoch'] for r in a.history] == [1, 2] and all(np.isfinite(list(r.values())).all() for r in a.history)
    out = a.outputs('test')
    assert out['features'].shape == (30, 16) and out['features'].dtype == np.float32
    assert (out['own'] is None) == (a.route == 'embeddings')
    if out['own'] is not None: assert out['own'].shape == (30, 4)
    if hasattr(a.model.loss, 'prototypes'): assert out['proto'].shape == (30, 4) and np.abs(out['proto']).max() < 1.001


@pytest.mark.parametrize('loss', [n for n in ('proto', 'abalone', 'reg') if n in LOSSES])
def test_prototypes_move(loss):
    t = train(toy(), loss=loss, settings=FAST | dict(epochs=1))
    u = train(toy(), loss=loss, settings=FAST | dict(epochs=1, lr=1e-12))
    assert (t.model.loss.prototypes - u.model.loss.prototypes).abs().max() > 1e-4


def test_features_are_learned():
    t = train(toy(), loss='bce', settings=FAST | dict(epochs=30, lr=1e-2))
    assert t.history[-1]['val_micro_f1'] > .7 and t.history[-1]['train_loss'] < t.history[0]['train_loss']
    assert t.best_epoch in [r['epoch'] for r in t.history] and len(t.history) == 10


def test_best_epoch_is_chosen_on_validation_data(monkeypatch):
    """A probe that peaks in the middle: the best epoch follows it, on validation and not on training data, and its
    weights are kept."""
    import mlcl.callbacks as callbacks
    val, seen = iter([.2, .6, .4, .5]), []
    def probe(model, splits):
        seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return dict(train_macro_f1=float(len(seen)), val_macro_f1=next(val))
    monkeypatch.setattr(callbacks, 'online_probe', probe)
    t = train(toy(), loss='reg', settings=FAST | dict(epochs=4))
    assert t.best_epoch == 2 and all(torch.equal(t.best_state[k], seen[1][k]) for k in seen[1])


@pytest.mark.parametrize('loss', ['bce', 'reg'])
def test_nan_stops_with_the_place(loss):
    ds = toy()
    ds.x[5, 0] = np.nan
    with pytest.raises(TrainingFailed, match=r'^model outputs are not finite in epoch 1, batch \d+$'):
        train(ds, loss=loss, settings=FAST)


@pytest.mark.parametrize('name', ['model.safetensors', 'model'])
@pytest.mark.parametrize('loss', ['bce', 'reg'])
def test_save_and_load(loss, name, tmp_path):
    ds = toy()
    t = train(ds, loss=loss, settings=FAST, share=.5, seed=3)
    t.save(tmp_path/name)
    back, bare = load_trained(tmp_path/name, ds), load_trained(tmp_path/name)
    for split in ds.splits:
        for c in ('last', 'best'):
            for k, v in t.outputs(split, c).items(): np.testing.assert_array_equal(v, back.outputs(split, c)[k])
    np.testing.assert_array_equal(bare.predict(ds.x[:5])['features'], t.predict(ds.x[:5])['features'])
    assert (back.settings == json.loads(json.dumps(t.settings)) and back.history == t.history
            and back.best_epoch == t.best_epoch)
    with pytest.raises(ValueError, match='ds'): bare.outputs('test')


def test_saved_files_are_only_tensors_and_json(tmp_path):
    train(toy(), loss='reg', settings=FAST).save(tmp_path/'m')
    assert sorted(p.name for p in (tmp_path/'m').iterdir()) == ['model.json', 'model.safetensors']
    json.loads((tmp_path/'m'/'model.json').read_text())
    raw = (tmp_path/'m'/'model.safetensors').read_bytes()
    size = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8:8 + size])
    assert sum(b - a for a, b in (v['data_offsets'] for k, v in header.items()
                                  if k != '__metadata__')) == len(raw) - 8 - size


def test_a_pickle_is_refused(tmp_path):
    torch.save(dict(w=torch.zeros(2)), tmp_path/'m.safetensors')
    with pytest.raises(Exception, match='(?i)header|safetensors|invalid'): load_trained(tmp_path/'m.safetensors')


@pytest.mark.parametrize('encoder', ['bag', 'conv', 'transformer', 'hf'])
def test_text_encoders_train_and_save(encoder, tmp_path):
    ds, options = toy(kind='text'), dict(bag=dict(widths=(8,), emb=8), conv=dict(filters=4, emb=8),
                                         transformer=dict(dim=8, layers=1), hf={})[encoder]
    if encoder == 'hf':
        pytest.importorskip('transformers')
        tiny_roberta(tmp_path/'roberta', ds.x)
        encoder = f"hf:{tmp_path/'roberta'}"
    t = train(ds, encoder, 'reg', dict(epochs=1, projection=8, encoder=options))
    t.save(tmp_path/'m.safetensors')
    back = load_trained(tmp_path/'m.safetensors', ds)
    np.testing.assert_allclose(back.outputs('test')['features'], t.outputs('test')['features'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('n,bs,want', [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]),
                                       (3, 1, [1, 1, 1]), (3, 8, [3])])
def test_batches(n, bs, want):
    x = torch.arange(n)
    for shuffle, workers in ((False, 0), (True, 0), (True, 2)):
        dl = Batches((x, x), bs, shuffle, num_workers=workers)
        got = list(dl)
        assert [len(b[0]) for b in got] == want and len(dl) == len(want)
        assert sorted(torch.cat([b[0] for b in got]).tolist()) == list(range(n))


def test_a_last_single_instance_and_unlabelled_ones():
    ds = toy()
    ds.y[10:40] = 0
    ds = dataclasses.replace(ds, splits=ds.splits | dict(train=np.arange(65)))
    for loss in ('bce', 'reg'): assert np.isfinite(train(ds, loss=loss, settings=FAST).history[-1]['train_loss'])


def test_settings():
    assert complete() == DEFAULTS and complete() is not DEFAULTS
    with pytest.raises(ValueError, match='batch_size'): complete(dict(bs=3))
    with pytest.raises(ValueError, match='expected'): train(toy(), loss='no loss', settings=FAST)
    with pytest.raises(ValueError, match='expected'):
        train(toy(), loss='reg', settings=FAST | dict(encoder=dict(depth=3)))
    with pytest.raises(ValueError, match='warmup'): train(toy(), loss='reg', settings=FAST | dict(warmup=2))


def test_schedule_and_groups():
    f = schedule(1., .05)
    assert f(.05) == pytest.approx(1., abs=1e-6) and f(1.) == pytest.approx(0., abs=1e-6) and f(.01) < f(.04)
    learn = make_learner(toy(), 'mlp', 'reg', FAST)
    decay, free, new, new_free = parameter_groups(learn.model)
    assert any(p is learn.model.loss.prototypes for p in new_free) and all(p.ndim > 1 for p in decay + new)
    inside = {id(p) for p in learn.model.encoder.parameters()}
    assert {id(p) for p in decay + free} == inside and not inside & {id(p) for p in new + new_free}
    learn.create_opt()
    assert [g['weight_decay'] for g in learn.opt.opt.param_groups] == [.01, 0., .01, 0.]


@pytest.mark.parametrize('loss', ['bce', 'reg'])
def test_new_layers_can_have_a_rate_of_their_own(loss):
    start = make_learner_state(loss)
    slow = train(toy(), 'mlp', loss, FAST | dict(lr=1e-9, head_lr=1e-2))
    moved = {n: float((p.detach().cpu() - start[n]).abs().max()) for n, p in slow.model.named_parameters()}
    assert max(m for n, m in moved.items() if n.startswith('encoder.')) < 1e-6
    assert min(m for n, m in moved.items() if not n.startswith('encoder.')) > 1e-3
    same, one = (train(toy(), 'mlp', loss, FAST | extra) for extra in (dict(lr=3e-3, head_lr=3e-3), dict(lr=3e-3)))
    for p, q in zip(same.model.parameters(), one.model.parameters()): torch.testing.assert_close(p, q)


def make_learner_state(loss):
    "The weights with which `train` begins."
    from fastai.torch_core import no_random
    with no_random(0):
        return {n: p.detach().cpu().clone() for n, p in make_learner(toy(), 'mlp', loss, FAST).model.named_parameters()}


def test_biases_can_begin_at_the_frequencies():
    ds = toy()
    heads = {k: make_learner(ds, 'mlp', 'bce', FAST | dict(prior_bias=k)).model.head for k in (True, False)}
    share = (ds.y[ds.splits['train']] == 1).mean(0)
    assert np.abs(torch.sigmoid(heads[True].bias.detach().cpu()).numpy()
                  - share).max() < .02 < np.abs(torch.sigmoid(heads[False].bias.detach().cpu()).numpy() - share).max()
    assert heads[True].bias.requires_grad and heads[True].bias.dtype == torch.float32
    a, b = (train(ds, 'mlp', 'reg', FAST | dict(prior_bias=k)).outputs()['features'] for k in (True, False))
    np.testing.assert_array_equal(a, b) # nothing for a loss without such a head


@pytest.mark.parametrize('name', ['lr', 'head_lr'])
@pytest.mark.parametrize('rate', [-1, 0, float('nan'), float('inf'), '1e-3'])
def test_a_rate_is_above_zero(name, rate):
    with pytest.raises(ValueError, match=f'^{name}: expected a number above 0, got'):
        make_learner(toy(), 'mlp', 'bce', FAST | {name: rate})


def test_biases_count_what_is_known():
    ds = toy()
    y = ds.y.astype(np.float32)
    y[ds.splits['train'][::2], 0] = np.nan
    model = make_learner(dataclasses.replace(ds, y=y), 'mlp', 'bce', FAST | dict(prior_bias=True)).model
    share = np.nanmean(y[ds.splits['train'], 0])
    assert abs(float(model.head.bias[0].sigmoid()) - share) < .02


def test_learning_rates_leave_out_empty_groups():
    model = torch.nn.Module()
    model.encoder, model.head = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1)
    assert learning_rates(parameter_groups(model), .1, .2).tolist() == [.1, .2, .2] and learning_rates([], .1) == .1


def test_ridge_is_the_normal_equation():
    rng = np.random.default_rng(0)
    h, y = rng.normal(size=(50, 4)), rng.integers(0, 2, (50, 3))
    p, q = ridge(h, y, [h[:7]])
    z = (h - h.mean(0))/h.std(0)
    w = np.linalg.inv(z.T@z + .1*50*np.eye(4))@z.T@(y - y.mean(0))
    np.testing.assert_allclose(p, z@w + y.mean(0), atol=1e-4)
    np.testing.assert_allclose(q, p[:7])


def test_no_noise(capsys):
    train(toy(), loss='bce', settings=FAST)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('loss', LOSSES)
def test_half_precision_is_finite(loss):
    learn = make_learner(toy(), 'mlp', loss, FAST)
    *x, y = next(iter(learn.dls.train))
    with torch.autocast('cpu', dtype=torch.bfloat16): value = learn.loss_func(learn.model(*x).float(), y)
    value.backward()
    assert (torch.isfinite(value) and all(torch.isfinite(p.grad).all() for p in learn.model.parameters()
                                          if p.grad is not None))


def test_a_second_training_starts_with_the_encoder_and_a_new_head():
    ds, first = toy(), train(toy(), loss='reg', settings=FAST)
    learn = make_learner(ds, 'mlp', 'bce', FAST, start=first.model.encoder)
    start, given = learn.model.encoder.state_dict(), {k: v.clone() for k, v in first.model.encoder.state_dict().items()}
    assert all(torch.equal(start[k], given[k]) for k in given) and learn.model.head.out_features == 4
    more = train(ds, loss='bce', settings=FAST, start=first.model.encoder)
    assert not torch.equal(more.model.encoder.layers[0].weight, first.model.encoder.layers[0].weight)
    # the first model is left alone
    assert all(torch.equal(v, given[k]) for k, v in first.model.encoder.state_dict().items())
    assert not same(state(more), state(train(ds, loss='bce', settings=FAST)))
    with pytest.raises(RuntimeError):
        train(ds, loss='bce', settings=dict(FAST, encoder=dict(widths=(8,))), start=first.model.encoder)


def test_the_loss_is_told_when_an_epoch_is_over():
    "SPLC corrects negatives from the second epoch on; the Learner counts for it."
    t = train(toy(), loss='splc', settings=FAST | dict(epochs=3))
    assert t.model.loss.epoch == 3


def test_a_model_with_pairs_of_labels_is_saved_whole(tmp_path):
    "GMA-SCL weighs by how often labels meet: the counts travel with the model."
    t = train(toy(), loss='gma', settings=FAST)
    t.save(tmp_path/'m')
    assert torch.equal(load_trained(tmp_path/'m').model.loss.cooccurrence, t.model.loss.cooccurrence)


def test_transposed_names_are_noticed():
    with pytest.raises(ValueError, match="encoder: expected one of .*got 'bce'"): train(toy(), 'bce', 'mlp', FAST)


def test_a_saved_model_says_which_weights_it_began_with(tmp_path):
    pytest.importorskip('transformers')
    ds = toy(kind='text')
    tiny_roberta(tmp_path/'roberta', ds.x)
    t = train(ds, f"hf:{tmp_path/'roberta'}", 'bce', dict(epochs=1, encoder=dict(length=8, pooling='mean')))
    t.save(tmp_path/'m')
    back = load_trained(tmp_path/'m', ds)
    assert back.model.encoder.weights_sha256 == t.model.encoder.weights_sha256 and back.model.encoder.pooling == 'mean'
    assert weights_sha256(t.model.encoder.net) != t.model.encoder.weights_sha256 # trained since
