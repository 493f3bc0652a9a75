"The batched grid against one-by-one training, the rules of the choice, and the readouts."
import json, math
import numpy as np, pytest, torch
from torch import nn
from mlcl.metrics import per_label_f1, predict, scores, tune_threshold, tune_thresholds
from mlcl.linear import STRENGTHS, logistic, scaling
from mlcl.probe import GRID, batch_order, choose, head_proba, probe_grid, read_out, start_heads, train_heads
from mlcl.thresholds import Readout, by_threshold, shrunk_thresholds


def one_by_one(x, y, start, order, grid, batch_size):
    "One head after the other with torch's layer, loss, optimiser and scheduler."
    res = []
    for lr, wd in grid:
        for w in start.to(x):
            lin = nn.Linear(x.shape[1], y.shape[1], dtype=x.dtype)
            lin.load_state_dict(dict(weight=w[:, :-1], bias=w[:, -1]))
            opt = torch.optim.AdamW([dict(params=[lin.weight], weight_decay=wd),
                                     dict(params=[lin.bias], weight_decay=0.)], lr=lr)
            sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, len(order)*math.ceil(len(x)/batch_size))
            for b in (b for o in order for b in o.split(batch_size)):
                opt.zero_grad()
                (nn.BCEWithLogitsLoss(reduction='sum')(lin(x[b]), y[b])/len(b)).backward()
                opt.step()
                sched.step()
            res.append(torch.cat([lin.weight, lin.bias[:, None]], 1).detach())
    return torch.stack(res).view(len(grid), len(start), y.shape[1], -1)


def problem(n, dim, n_labels, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=g, dtype=torch.float64)
    y = x @ torch.randn(dim, n_labels, generator=g, dtype=torch.float64) + torch.randn(n, n_labels, generator=g) > 1
    return (x/dim**.5).to(dtype), y.to(dtype)


@pytest.mark.parametrize('n, dim, n_labels, batch_size, epochs', [
    (64, 6, 4, 32, 10), (50, 6, 4, 32, 10), (33, 3, 2, 32, 5), (20, 5, 3, 64, 10), (40, 7, 1, 16, 10), (9, 1, 5, 4, 40),
    (5, 4, 3, 1, 8),
    (1, 2, 2, 64, 5), (90, 20, 30, 64, 40)])
def test_equals_one_by_one(n, dim, n_labels, batch_size, epochs):
    x, y = problem(n, dim, n_labels)
    start, order = start_heads(n_labels, dim, 2), batch_order(n, epochs)
    w = train_heads(x, y, start, order, batch_size=batch_size)
    assert w.shape == (8, 2, n_labels, dim + 1)
    assert (w - one_by_one(x, y, start, order, GRID, batch_size)).abs().max() < 1e-10


@pytest.mark.parametrize('grid', [[(.1, 0.)], [(.1, .1), (1., .1), (.1, 1e-4)], [(1e-3, 10.), (1e-3, 0.), (.5, .5)]])
def test_any_grid(grid):
    x, y = problem(30, 4, 3)
    start, order = start_heads(3, 4, 1, seed=2), batch_order(30, 6, seed=2)
    assert (train_heads(x, y, start, order, grid, 16) - one_by_one(x, y, start, order, grid, 16)).abs().max() < 1e-10


def test_labels_of_one_kind():
    x, y = problem(40, 4, 3)
    y[:, 0], y[:, 1] = 0, 1
    start, order = start_heads(3, 4, 1), batch_order(40, 40)
    w = train_heads(x, y, start, order, batch_size=16)
    assert torch.isfinite(w).all() and (w - one_by_one(x, y, start, order, GRID, 16)).abs().max() < 1e-10


@pytest.mark.parametrize('budget', [1, 500, 1000, 10**9])
def test_blocks_of_labels(budget):
    x, y = problem(40, 4, 7)
    start, order = start_heads(7, 4), batch_order(40, 4)
    w = train_heads(x, y, start, order, batch_size=16, budget=budget)
    assert (w - train_heads(x, y, start, order, batch_size=16)).abs().max() < 1e-12
    assert (w[:, :, 2:4] - train_heads(x, y[:, 2:4], start[:, 2:4], order, batch_size=16)).abs().max() < 1e-12


def test_float32_follows_float64():
    x, y = problem(200, 8, 3)
    start, order = start_heads(3, 8), batch_order(200, 10)
    a, b = train_heads(x, y, start, order), train_heads(x.float(), y.float(), start, order)
    assert b.dtype == torch.float32 and (a - b).abs().max() < 1e-2*a.abs().max()


def test_arguments_stay():
    x, y = problem(40, 4, 3)
    start, order = start_heads(3, 4), batch_order(40, 3)
    before = [a.clone() for a in (x, y, start, order)]
    train_heads(x, y, start, order)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, start, order)))


def splits(dim=12, n_labels=6, seed=0, sizes=dict(train=200, val=90, test=70)):
    r = np.random.default_rng(seed)
    mix, outputs, ys = r.normal(size=(n_labels, dim)), {}, {}
    for s, n in sizes.items():
        y = ys[s] = (r.random((n, n_labels)) < np.linspace(.5, .08, n_labels)).astype(np.uint8)
        outputs[s] = dict(features=(y @ mix + 1.5*r.normal(size=(n, dim))).astype(np.float32),
                          own=(3*y - 2 + r.normal(size=y.shape)).astype(np.float32),
                          proto=np.clip(.5*y + .2*r.normal(size=y.shape), -1, 1))
    return outputs, ys


def grid_of(outputs, ys, **options):
    return probe_grid(outputs['train']['features'], ys['train'], outputs['val']['features'], ys['val'], **options)


def test_deterministic():
    outputs, ys = splits()
    a, b, c = (grid_of(outputs, ys, epochs=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.weight, b.weight) and (a.choice == b.choice).all() and not torch.equal(a.weight, c.weight)


def test_global_seed_is_left_alone():
    outputs, ys = splits()
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    grid_of(outputs, ys, epochs=1)
    assert torch.equal(torch.rand(3), want)


def test_tensors_and_arrays_agree():
    outputs, ys = splits()
    a = grid_of(outputs, ys, epochs=3)
    b = probe_grid(*(torch.tensor(v) for s in ('train', 'val') for v in (outputs[s]['features'], ys[s])), epochs=3)
    assert torch.equal(a.weight.cpu(), b.weight) or torch.cuda.is_available()


def test_scale_of_features_is_irrelevant():
    outputs, ys = splits()
    a = grid_of(outputs, ys, epochs=3, dtype=torch.float64)
    for o in outputs.values(): o['features'] = o['features'].astype(np.float64)*1000 - 77
    b = grid_of(outputs, ys, epochs=3, dtype=torch.float64)
    assert (a.weight - b.weight).abs().max() < 1e-5


def test_scaling():
    x = torch.randn(100, 9)*5 + 2
    x[:, 3], x[:, 4] = 0, .1
    mean, factor = scaling(x)
    z = (x - mean)*factor
    assert z.mean(0).abs().max() < 1e-6 and (z[:, 3:5] == 0).all()
    assert torch.allclose(z.std(0, correction=0)[[0, 8]], torch.full((2,), 4/3, dtype=torch.float64))


def test_constant_feature_cannot_explode():
    outputs, ys = splits()
    for s, o in outputs.items(): o['features'][:, 0] = 0 if s == 'train' else 1e9
    r = read_out(outputs, ys, 'bce', epochs=3)
    for o in outputs.values(): o['features'] = o['features'].copy(); o['features'][:, 0] = 0
    assert (r['probe1'].p['test'] == read_out(outputs, ys, 'bce', epochs=3)['probe1'].p['test']).all()


def test_f1_and_choice_against_metrics():
    outputs, ys = splits()
    pr = grid_of(outputs, ys, epochs=20)
    f1 = np.array([per_label_f1(ys['val'], predict(pr.proba(outputs['val']['features'], k), .5)) for k in range(8)],
                  float)
    assert np.allclose(pr.f1, f1) and np.allclose(pr.macro_f1, f1.mean(1)) and pr.best == f1.mean(1).argmax()
    assert (pr.f1[pr.choice, range(6)] == pr.f1.max(0)).all()
    each = pr.proba(outputs['test']['features'])
    for l, k in enumerate(pr.choice):
        assert np.allclose(each[:, l], pr.proba(outputs['test']['features'], k)[:, l], atol=1e-6)


def test_only_trained_heads_are_averaged():
    outputs, ys = splits()
    pr = grid_of(outputs, ys)
    z, w = pr.features(outputs['val']['features']), pr.weight[pr.best]
    want = sum((z @ h[:, :-1].T + h[:, -1]).sigmoid() for h in w)/3
    assert np.allclose(pr.proba(outputs['val']['features'], pr.best), want.cpu(), atol=1e-6)
    untrained = head_proba(z, torch.cat([w[:1], start_heads(6, 12).to(w)[1:]])).cpu()
    assert (untrained - want.cpu()).abs().max() > .2
    assert nn.BCELoss()(untrained, torch.tensor(ys['val']).float()) > nn.BCELoss()(want.cpu(),
                                                                                   torch.tensor(ys['val']).float())


def test_choice_updates():
    f1 = np.array([[.1, .5], [.6, .9], [.9, .2], [.2, .2]])
    macro, best, choice = choose(f1, np.ones(2, bool))
    assert best == 1 and choice.tolist() == [2, 1] and np.allclose(macro, [.3, .75, .55, .2])


def test_ties_and_missing_positives():
    f1 = np.array([[.5, .3, 0, 0], [.5, .3, .6, 0], [.2, .3, .9, 0], [.6, .3, .6, 0]])
    macro, best, choice = choose(f1, np.array([True, True, True, False]))
    assert best == 3 and choice.tolist() == [3, 3, 2, 3]
    assert choose(np.full((8, 2), .5), np.ones(2, bool))[1:][0] == 0
    assert choose(np.array([[1., 0, 0], [1, 0, 0], [.1, .9, .9]]), np.ones(3, bool))[2].tolist() == [0, 2, 2]
    assert choose(np.array([[1., 0, 0], [1, .2, 0], [.1, .9, .9]]), np.ones(3, bool))[2].tolist() == [1, 2, 2]


def test_readouts():
    outputs, ys = splits()
    res = read_out(outputs, ys, 'proto', epochs=5)
    assert list(res) == ['own@.5', 'own@tuned', 'probe', 'probe1', 'proto@tuned']
    for r in res.values():
        assert isinstance(r, Readout) and {s: p.shape for s, p in r.p.items()} == {s: y.shape for s, y in ys.items()}
        assert r.info['val_macro_f1'] == pytest.approx(scores(ys['val'], r.p['val'], r.threshold)['macro_f1'],
                                                       abs=1e-12)
    assert res['own@.5'].threshold == 0 and (res['own@.5'].p['test'] == outputs['test']['own']).all()
    assert res['own@tuned'].threshold == tune_threshold(ys['val'], outputs['val']['own'])
    assert (res['proto@tuned'].threshold == tune_thresholds(ys['val'], outputs['val']['proto'])).all()
    assert res['probe'].threshold == res['probe1'].threshold == .5 and len(res['probe'].info['choice']) == 6
    assert json.loads(json.dumps({k: r.info for k, r in res.items()}))['probe']['grid'] == [list(g) for g in GRID]


@pytest.mark.parametrize('loss, drop, want', [
    ('reg', 'own', ['probe', 'probe1', 'proto@tuned']), ('bce', 'proto', ['own@.5', 'own@tuned', 'probe', 'probe1']),
    ('twoway', 'proto', ['own@tuned', 'probe', 'probe1'])])
def test_which_readouts(loss, drop, want):
    outputs, ys = splits()
    for o in outputs.values(): o[drop] = None
    assert list(read_out(outputs, ys, loss, epochs=1)) == want


def test_test_labels_change_nothing():
    outputs, ys = splits()
    a, b = (read_out(outputs, y, 'bce', epochs=5) for y in (ys, ys | dict(test=1 - ys['test'])))
    for k in a:
        assert a[k].info == b[k].info and np.array_equal(a[k].threshold, b[k].threshold)
        assert all((a[k].p[s] == b[k].p[s]).all() for s in ys)


def test_test_features_change_no_choice():
    outputs, ys = splits()
    a = read_out(outputs, ys, 'bce', epochs=5)
    b = read_out({s: outputs[s] for s in ('train', 'val')}, ys, 'bce', epochs=5)
    assert all(a[k].info == b[k].info and (a[k].p['val'] == b[k].p['val']).all() for k in a)


def test_label_without_validation_positive():
    outputs, ys = splits()
    ys['val'][:, 2] = 0
    r = read_out(outputs, ys, 'bce', epochs=10)
    info = r['probe'].info
    assert (info['choice'][2] == info['best'] and info['val_f1'][2] is None
            and np.isfinite(r['proto@tuned'].threshold).all())


def test_grid_from_json():
    outputs, ys = splits()
    r = read_out(outputs, ys, 'bce', grid=[[.1, .01], [1, .1]], epochs=2, heads=1, batch_size=500)
    assert r['probe'].info['grid'] == [(.1, .01), (1, .1)]


def test_one_label():
    outputs, ys = splits(n_labels=1)
    pr = grid_of(outputs, ys, epochs=2)
    assert pr.proba(outputs['test']['features']).shape == (70, 1)


@pytest.mark.parametrize('i, value, message', [
    (0, np.zeros(3), 'x: expected features of shape'), (0, np.zeros((0, 3)), 'x: expected features of shape'),
    (0, np.full((200, 12), np.nan), 'x: expected finite'),
    (1, np.zeros((199, 6)), r'y: expected labels of shape \(200, L >= 1\)'),
    (1, np.zeros((200, 0)), 'y: expected labels'), (1, np.full((200, 6), .5), 'y: expected labels 0 or 1'),
    (1, np.full((200, 6), np.inf), 'y: expected'),
    (2, np.zeros((90, 5)), 'x_val: expected 12 features'), (2, np.zeros((0, 12)), 'x_val: expected'),
    (2, np.full((90, 12), np.inf), 'x_val: expected finite'),
    (3, np.zeros((90, 5)), r'y_val: expected labels of shape \(90, 6\)'),
    (3, np.zeros((90, 6)), 'y_val: expected at least one positive'),
    (3, np.full((90, 6), 2), 'y_val: expected labels 0 or 1')])
def test_bad_input(i, value, message):
    outputs, ys = splits()
    args = [outputs['train']['features'], ys['train'], outputs['val']['features'], ys['val']]
    args[i] = value
    with pytest.raises(ValueError, match=message): probe_grid(*args, epochs=1)


@pytest.mark.parametrize('options', [dict(epochs=0), dict(heads=0), dict(batch_size=0), dict(grid=[]),
                                     dict(grid=[(0, 1)]), dict(grid=[(1,)])])
def test_bad_options(options):
    with pytest.raises(ValueError, match=f'{list(options)[0]}: expected'): grid_of(*splits(), **options)


def test_bad_outputs():
    outputs, ys = splits()
    with pytest.raises(ValueError, match="outputs: expected the splits 'train' and 'val'"):
        read_out(dict(train=outputs['train']), ys, 'bce')
    with pytest.raises(ValueError, match='ys: expected labels for the splits'):
        read_out(outputs, dict(train=ys['train']), 'bce')
    outputs['test']['own'] = outputs['test']['own'][:, :2]
    with pytest.raises(ValueError, match=r"outputs\['test'\]\['own'\]: expected shape \(70, 6\)"):
        read_out(outputs, ys, 'bce')
    outputs['test']['own'] = np.full((70, 6), np.nan)
    with pytest.raises(ValueError, match=r"outputs\['test'\]\['own'\]: expected finite"): read_out(outputs, ys, 'bce')


# ---- the solved probe

def optimum(x, y, strength):
    "Weights of one label by scikit-learn, on features scaled as the probe scales them."
    from sklearn.linear_model import LogisticRegression
    mean, factor = scaling(torch.as_tensor(x))
    z = ((torch.as_tensor(x) - mean)*factor).numpy()
    m = LogisticRegression(C=1/(len(y)*strength), tol=1e-10, max_iter=100_000).fit(z, y)
    return np.r_[m.coef_[0], m.intercept_]


def counted(n, dim, shares, seed=0):
    r = np.random.default_rng(seed)
    x = r.normal(size=(n, dim))*r.uniform(.1, 10, dim) + 3
    s = x @ r.normal(size=(dim, len(shares))) + 5*r.normal(size=(n, len(shares)))
    return x, np.stack([a > np.quantile(a, 1 - q) for a, q in zip(s.T, shares)], 1).astype(np.uint8)


@pytest.mark.parametrize('n, dim, shares', [(200, 5, (.5, .1, .02)), (40, 60, (.5, .1)), (300, 1, (.3,)),
                                            (500, 20, (.9, .004, .3, .05))])
def test_solved_probe_is_the_optimum(n, dim, shares):
    x, y = counted(n, dim, shares)
    pr = logistic(x, y, (1e-3, 1., .03), tol=1e-6)
    assert pr.strengths == (1., .03, 1e-3) and pr.weight.shape == (3, len(shares), dim + 1)
    for k, s in enumerate(pr.strengths):
        for l in range(len(shares)):
            want = optimum(x, y[:, l], s)
            assert np.abs(pr.weight[k, l].numpy() - want).max() < 3e-3*max(1, np.abs(want).max()), (s, l)


def test_standard_tolerance_is_enough():
    "Logits at the standard tolerance are those of a much smaller one, up to three hundredths."
    outputs, ys = splits()
    x, y = outputs['train']['features'], ys['train']
    a, b = logistic(x, y), logistic(x, y, tol=1e-6, steps=2000)
    assert max(np.abs(a.logits(x, k) - b.logits(x, k)).max() for k in range(len(STRENGTHS))) < .03


def test_blocks_and_order_of_labels_change_nothing():
    x, y = counted(300, 8, (.5, .02, .2, .1, .4))
    a, b, c = (logistic(x, y, tol=1e-5), logistic(x, y, tol=1e-5, block=1),
               logistic(x, y[:, ::-1].copy(), tol=1e-5, block=2))
    for w in (b.weight, c.weight.flip(1)): # a rare label under a weak penalty has weights of about twenty
        assert ((a.weight - w).abs() / (1 + a.weight.abs())).max() < .01
    assert (a.weight[:, 0] - a.weight[:, 1]).abs().max() > 1


def test_constant_labels_and_features():
    x, y = counted(100, 4, (.3, .3, .3))
    y[:, 0], y[:, 1], x[:, 2] = 0, 1, 7
    pr = logistic(x, y)
    assert torch.isfinite(pr.weight).all() and (pr.weight[:, :2, :-1] == 0).all() and (pr.weight[..., 2] == 0).all()
    assert torch.allclose(pr.weight[:, :2, -1], torch.tensor([.5/101, 100.5/101]).double().logit(), atol=1e-5)
    x[:, 2] = 1e9
    assert np.allclose(pr.logits(x, 3), pr.logits(x*[1, 1, 0, 1], 3))
    assert (logistic(x[:1], y[:1]).weight[..., :-1] == 0).all()


def test_solved_probe_is_deterministic_and_free_of_scale():
    x, y = counted(150, 6, (.4, .1))
    a, b, c = logistic(x, y), logistic(torch.tensor(x), torch.tensor(y)), logistic(1000*x - 77, y)
    assert torch.equal(a.weight, b.weight) and (a.weight - c.weight).abs().max() < .02


def test_strong_penalty_leaves_the_share():
    x, y = counted(400, 6, (.25,))
    pr = logistic(x, y, (1e6, 10.))
    assert (np.allclose(pr.logits(x, 0), np.log(1/3), atol=1e-3) and pr.weight[0, :, :-1].abs().max() < 1e-4
            < pr.weight[1, :, :-1].abs().max())


def test_not_beaten_by_a_trained_head():
    "The test of the probe: BCE's own head, trained with the encoder, is not better on the encoder's own features."
    from mlcl.metrics import mean_average_precision
    r, gain = np.random.default_rng(0), []
    for seed in range(3):
        torch.manual_seed(seed)
        outputs, ys = splits(dim=20, n_labels=8, seed=seed, sizes=dict(train=300, val=150, test=600))
        body, head = nn.Sequential(nn.Linear(20, 64), nn.ReLU()), nn.Linear(64, 8)
        x = {s: torch.tensor(o['features']) for s, o in outputs.items()}
        opt = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=.01)
        for _ in range(60):
            opt.zero_grad()
            nn.BCEWithLogitsLoss()(head(body(x['train'])), torch.tensor(ys['train']).float()).backward()
            opt.step()
        with torch.no_grad(): new = {s: dict(features=body(v).numpy(), own=head(body(v)).numpy()) for s, v in x.items()}
        res = read_out(new, ys, 'bce', kind='linear')
        gain.append([mean_average_precision(ys['test'], res[k].rank['test'])
                     for k in ('linear@features|global', 'own|global')])
    assert np.subtract(*np.transpose(gain)).mean() > -.002, gain


@pytest.mark.parametrize('options, said', [(dict(strengths=()), 'strengths: expected'),
                                           (dict(strengths=(1., 0.)), 'strengths: expected numbers > 0')])
def test_bad_strengths(options, said):
    with pytest.raises(ValueError, match=said): logistic(*counted(20, 2, (.5,)), **options)


# ---- thresholds

def test_shrunk_thresholds_by_hand():
    "Three labels: ten positives (half way), none (the common one), thirty (three quarters of the way)."
    y, p = np.zeros((60, 3), int), np.zeros((60, 3))
    y[:10, 0], y[:30, 2] = 1, 1
    p[:, 0], p[:, 1], p[:, 2] = np.where(y[:, 0], 2., 1.), 0., np.where(y[:, 2], 6., 3.)
    own, common = tune_thresholds(y, p), tune_threshold(y, p)
    assert own[0] == 1.5 and own[2] == 4.5 and own[1] == common
    assert np.allclose(shrunk_thresholds(y, p), [(1.5 + common)/2, common, .75*4.5 + .25*common])
    assert np.allclose(shrunk_thresholds(y, p, 0.), own) and np.allclose(shrunk_thresholds(y, p, 1e12), common)
    for bad in (-1., np.nan, np.inf):
        with pytest.raises(ValueError, match='^prior: expected a finite number of at least 0, got'):
            shrunk_thresholds(y, p, bad)


def test_shrinking_never_loses_badly_on_rare_labels():
    """Scores of equal scale, labels with 3 positives in the validation data: own thresholds fit noise, shrunk ones
    hardly."""
    lost = dict(own=[], shrunk=[])
    for seed in range(30):
        r = np.random.default_rng(seed)
        y = {s: (r.random((n, 40)) < .03).astype(int) for s, n in dict(val=100, test=3000).items()}
        for v in y.values(): v[:4, :] |= np.eye(4, 40, dtype=int)
        p = {s: 1.5*v + r.normal(size=v.shape) for s, v in y.items()}
        f1 = lambda t: scores(y['test'], p['test'], t)['macro_f1']
        base = f1(tune_threshold(y['val'], p['val']))
        for k, tune in dict(own=tune_thresholds, shrunk=shrunk_thresholds).items():
            lost[k].append(base - f1(tune(y['val'], p['val'])))
    assert (max(lost['shrunk']) < .02 and np.mean(lost['own']) > 2*np.mean(lost['shrunk'])
            > 0), {k: (np.mean(v), max(v)) for k, v in lost.items()}


def test_each_label_gains_where_scales_differ():
    r = np.random.default_rng(0)
    y = {s: (r.random((1000, 4)) < .3).astype(int) for s in ('val', 'test')}
    p = {s: 2*v + r.normal(size=v.shape) + [0, 3, 6, -3] for s, v in y.items()}
    res = by_threshold('own', {None: p}, y['val'])
    f1 = {k: scores(y['test'], p['test'], v.threshold)['macro_f1'] for k, v in res.items()}
    assert list(f1) == ['own|global', 'own|each'] and f1['own|each'] > f1['own|global'] + .1


# ---- readouts of the second edition

def test_strength_is_chosen_twice():
    "One strength ranks best, another decides best; a stronger penalty wins ties."
    y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    ranks = np.array([[3., 0], [2, 3], [1, 2], [0, 1]]) + [0, 100]
    decides = np.array([[1., 0], [1, 1], [0, 0], [0, 0]])
    res = by_threshold('linear@features', {1.: dict(val=decides), .1: dict(val=ranks), .01: dict(val=ranks.copy())},
                       y)['linear@features|global']
    assert (res.names == ('linear@features:1', 'linear@features:0.1') and (res.p['val'] == decides).all()
            and (res.rank['val'] == ranks).all())
    assert res.info['strength'] == 1. and res.info['strength_map'] == .1 and res.info['val_map'] == 1.
    assert res.info['val_macro_f1'] == pytest.approx(scores(y, decides, res.threshold)['macro_f1'])


ALL = ('linear@features|global', 'linear@features|each', 'linear@projection|global', 'linear@projection|each')

@pytest.mark.parametrize('loss, keys, want', [
    ('bce', ('own',), ['own@.5', 'own|global', 'own|each', *ALL[:2]]),
    ('twoway', ('own',), ['own|global', 'own|each', *ALL[:2]]),
    ('reg', ('proto', 'projection'), ['proto|global', 'proto|each', *ALL]), ('base', ('projection',), list(ALL))])
def test_which_readouts_of_the_second_edition(loss, keys, want):
    outputs, ys = splits()
    for o in outputs.values(): o['projection'] = o['features'][:, :5]
    outputs = {s: {k: v if k in ('features', *keys) else None for k, v in o.items()} for s, o in outputs.items()}
    res = read_out(outputs, ys, loss, kind='linear')
    assert list(res) == want
    for k, r in res.items():
        assert r.info['val_macro_f1'] == pytest.approx(scores(ys['val'], r.p['val'], r.threshold)['macro_f1'], abs=1e-9)
        assert ('|' not in k or (np.shape(r.threshold) == (() if k.endswith('global') else (6,))
                                 and r.rank['test'].shape == (70, 6)))
    assert json.loads(json.dumps({k: r.info for k, r in res.items()}))
    old, both = (read_out(outputs, ys, loss, epochs=1, kind=k) for k in ('grid', 'both'))
    assert (list(both) == [*old, *(k for k in want if k != 'own@.5')] and 'probe1' in old
            and not any('|' in k for k in old))
    assert list(read_out(outputs, ys, loss, epochs=1)) == list(old)


def test_taps_are_read_apart():
    outputs, ys = splits()
    # says nothing
    for s, o in outputs.items(): o['projection'] = np.random.default_rng(1).normal(size=(len(o['features']), 5))
    res = read_out(outputs, ys, 'reg', kind='linear')
    f1 = {k: scores(ys['test'], r.p['test'], r.threshold)['macro_f1'] for k, r in res.items()}
    assert f1['linear@features|global'] > f1['linear@projection|global'] + .2


def test_test_split_chooses_nothing_in_the_second_edition():
    outputs, ys = splits()
    a, b = (read_out({s: outputs[s] for s in some}, ys, 'bce', kind='linear')
            for some in (('train', 'val'), ('train', 'val', 'test')))
    assert all(a[k].info == b[k].info and np.array_equal(a[k].threshold, b[k].threshold) for k in a)


def test_bad_kind():
    with pytest.raises(ValueError, match="kind: expected 'grid', 'linear' or 'both', got 'ridge'"):
        read_out(*splits(), 'bce', kind='ridge')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_gpu():
    outputs, ys = splits()
    a = read_out(outputs, ys, 'bce', epochs=5)['probe1'].p['test']
    for o in outputs.values(): o['features'] = torch.tensor(o['features'], device='cuda')
    assert np.allclose(a, read_out(outputs, ys, 'bce', epochs=5)['probe1'].p['test'], atol=1e-3)


def test_an_unknown_label_teaches_nothing():
    "NaN in one column leaves the heads of the others as they are, and the entry itself counts neither way."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)).astype(np.float32)
    y = (x[:, :3] + .5*rng.normal(size=(120, 3)) > 0).astype(float)
    z = y.copy()
    z[rng.random(120) < .4, 1] = np.nan
    whole, part = (probe_grid(x[:80], t[:80], x[80:], t[80:], epochs=5) for t in (y, z))
    assert torch.allclose(whole.weight[:, :, [0, 2]], part.weight[:, :, [0, 2]], atol=1e-6)
    assert not torch.allclose(whole.weight[:, :, 1], part.weight[:, :, 1], atol=1e-3) and part.weight.isfinite().all()
    known = ~np.isnan(z[80:, 1])
    p = head_proba(part.features(torch.tensor(x[80:])), part.weight)[0, :, 1].numpy() > .5
    assert part.f1[0, 1] == pytest.approx(2*(p & (z[80:, 1] == 1)).sum()/((p & known).sum() + (z[80:, 1] == 1).sum()))


def test_unknown_labels_are_left_out_of_the_solved_probe():
    x, y = problem(200, 6, 5)
    y = y.clone().double()
    gaps = y.clone()
    gaps[:70, 1], gaps[::2, 3] = torch.nan, torch.nan
    pr, whole = logistic(x, gaps, (.1, .01), tol=1e-6), logistic(x, y, (.1, .01), tol=1e-6)
    for l in (0, 2, 4): assert torch.allclose(pr.weight[:, l], whole.weight[:, l], atol=2e-3)
    z = ((x - pr.mean)*pr.factor).numpy()
    from sklearn.linear_model import LogisticRegression
    for l in (1, 3):
        rows = (gaps[:, l] == gaps[:, l]).numpy()
        for k, s in enumerate(pr.strengths):
            m = LogisticRegression(C=1/(rows.sum()*s), tol=1e-10, max_iter=10_000).fit(z[rows], y[rows, l].numpy())
            assert np.abs(pr.weight[k, l].numpy() - np.r_[m.coef_[0], m.intercept_]).max() < 3e-3, (l, s)


def test_labels_nobody_knows():
    x, y = problem(60, 4, 3)
    gaps = y.double()
    gaps[:, 1] = torch.nan
    pr = logistic(x, gaps, (.1, .01))
    assert torch.isfinite(pr.weight).all() and (pr.weight[:, 1] == 0).all() and (pr.weight[:, 0, :-1] != 0).any()


def test_readouts_of_unknown_labels():
    "Hidden validation labels change neither the scores of others nor raise; thresholds count known positives only."
    outputs, ys = splits(n_labels=6)
    hidden = {s: y.astype(float) for s, y in ys.items()}
    hidden['train'][:40, 2], hidden['val'][:30, 2] = np.nan, np.nan
    a, b = (read_out(outputs, y, 'reg', kind='linear') for y in (ys, hidden))
    assert a.keys() == b.keys()
    for name in b:
        assert (np.isfinite(b[name].p['test']).all() and np.isfinite(b[name].threshold).all()
                and 0 <= b[name].info['val_macro_f1'] <= 1)
    m, known = ys['val'][:, 2], hidden['val'][:, 2] == hidden['val'][:, 2]
    p = b['linear@features|each'].p['val']
    want = (m[known].sum()*tune_thresholds(hidden['val'], p)[2]
            + 10*tune_threshold(hidden['val'], p))/(m[known].sum() + 10)
    assert np.isclose(shrunk_thresholds(hidden['val'], p)[2], want)
