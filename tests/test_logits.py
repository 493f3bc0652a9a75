"""The eight losses on logits: loops over the definitions, stated gradients, number formats, degenerate label sets,
bad input, and what a trained model keeps."""
import json
import math
import warnings

import numpy as np
import pytest
import torch

from mlcl.checks import check_gradient, label_batches, random_labels
from mlcl.losses import (LOSSES, AsymmetricLoss, BCELoss, DistributionBalancedLoss, FocalLoss, HillLoss,
                         NoPositivesWarning, SPLCLoss, TwoWayLoss,
                         ZLPRLoss, make_loss)
from mlcl.losses.bce import LogitLoss, balanced_weights
from mlcl.losses.checks import NothingKnownWarning

F64 = torch.float64
BATCHES = label_batches()
LOGITS = ("bce", "focal", "asl", "zlpr", "twoway", "db", "hill", "splc")
WEIGHTED = ("bce", "focal", "asl")
COUNTS, N = [0, 30, 3, 1, 7], 30
CASES = [("bce", {}), ("focal", {}), ("focal", dict(gamma=0.5, alpha=0.25)), ("asl", {}),
         ("asl", dict(gamma_neg=1.0, gamma_pos=0.0, margin=0.0)),
         ("asl", dict(gamma_neg=0.5, gamma_pos=0.5, margin=0.3)), ("zlpr", {}), ("twoway", {}),
         ("twoway", dict(t_pos=0.5, t_neg=2.0)),
         ("db", {}), ("db", dict(gamma=0.5, kappa=5.0, bias=1.0, alpha=0.0)), ("hill", {}),
         ("hill", dict(lam=1.0, margin=0.5, gamma=1.0)),
         ("splc", {}), ("splc", dict(change_epoch=0)),
         ("splc", dict(change_epoch=0, threshold=0.3, margin=0.0, gamma=0.5))]
IDS = [f"{n}-{'-'.join(map(str, s.values())) or 'default'}" for n, s in CASES]


def make(name, n_labels=5, counts=COUNTS, **settings):
    return make_loss(name, n_labels, 4, label_counts=counts[:n_labels], n_instances=N, **settings)


def scores(y, seed=0, scale=2.0):
    return scale * torch.randn(y.shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoPositivesWarning)
        warnings.simplefilter("ignore", NothingKnownWarning)
        return f(*args)


def sigmoid(x):
    return 1 / (1 + (-x).exp())


# The definitions, entry by entry, over the known entries. Each returns a scalar that autograd can differentiate.

def entries(f):
    def mean(x, y, **settings):
        known = [(i, l) for i in range(len(y)) for l in range(y.shape[1]) if y[i, l] in (0, 1)]
        return sum((f(x[i, l], y[i, l] == 1, i, l, y, **settings) for i, l in known), 0 * x.sum()) / max(len(known), 1)
    return mean


@entries
def naive_bce(x, pos, *_):
    return -(sigmoid(x) if pos else 1 - sigmoid(x)).log()


@entries
def naive_focal(x, pos, *_, gamma=2.0, alpha=None):
    p_t = sigmoid(x) if pos else 1 - sigmoid(x)
    return -(1 if alpha is None else alpha if pos else 1 - alpha) * (1 - p_t) ** gamma * p_t.log()


@entries
def naive_asl(x, pos, *_, gamma_neg=4.0, gamma_pos=1.0, margin=0.05):
    p = sigmoid(x)
    if pos:
        return -((1 - p) ** gamma_pos) * p.log()
    return 0 * x if p <= margin else -((p - margin) ** gamma_neg) * (1 - (p - margin)).log()


@entries
def naive_db(x, pos, i, l, y, alpha=0.1, beta=10.0, mu=0.2, bias=0.05, kappa=2.0, gamma=2.0):
    n = [min(max(c, 1), N - 1) for c in COUNTS]
    below = sum(1 / n[k] for k in range(y.shape[1]) if y[i, k] == 1)
    weight = alpha + (1 / (1 + math.exp(-beta * (1 / n[l] / below - mu))) if below else 1)
    z = x - bias * math.log(N / n[l] - 1)
    p = sigmoid(z)
    return weight * ((1 - p) ** gamma * (1 + (-z).exp()).log() if pos
                     else p**gamma * (1 + (kappa * z).exp()).log() / kappa)


@entries
def naive_hill(x, pos, *_, lam=1.5, margin=1.0, gamma=2.0):
    p, p_m = sigmoid(x), sigmoid(x - margin)
    return -((1 - p_m) ** gamma) * p_m.log() if pos else (lam - p) * p**2


@entries
def naive_splc(x, pos, *_, threshold=0.6, change_epoch=1, margin=1.0, gamma=2.0):
    p = sigmoid(x - margin if pos else x)
    up = pos or (change_epoch == 0 and p > threshold)
    return -((1 - p) ** gamma) * p.log() if up else -(p**gamma) * (1 - p).log()


def naive_zlpr(x, y):
    total, x, y = 0 * x.sum(), x[(y == y).any(1)], y[(y == y).any(1)]
    for xi, yi in zip(x, y):
        neg, pos = [a for a, b in zip(xi, yi) if b == 0], [a for a, b in zip(xi, yi) if b == 1]
        total = total + (1 + sum(n.exp() for n in neg) + sum((-p).exp() for p in pos)
                         + sum((n - p).exp() for n in neg for p in pos) + 0 * xi[0]).log()
    return total / max(len(x), 1)


def naive_twoway(x, y, t_pos=4.0, t_neg=1.0):
    total = 0 * x.sum()
    for a, b in ((x, y), (x.T, y.T)):
        sets = []
        for s, t in zip(a, b):
            if (t == 1).any():
                neg, pos = (sum((sign * u / temp).exp() for u, v in zip(s, t) if v == k)
                            for sign, temp, k in ((1, t_neg, 0), (-1, t_pos, 1)))
                sets.append((1 + neg**t_neg * pos**t_pos).log() if (t == 0).any() else 0 * s[0])
        total = total + sum(sets) / max(len(sets), 1)
    return total


NAIVE = dict(bce=naive_bce, focal=naive_focal, asl=naive_asl, zlpr=naive_zlpr, twoway=naive_twoway, db=naive_db,
             hill=naive_hill, splc=naive_splc)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_value_and_gradient_are_the_definition(name, settings, batch):
    y = BATCHES[batch]
    x = scores(y).requires_grad_()
    value, naive = quiet(make(name, y.shape[1], **settings), x, y), NAIVE[name](x, y, **settings)
    assert value.item() == pytest.approx(naive.item(), abs=1e-9)
    (g,), (expected,) = torch.autograd.grad(value, x), torch.autograd.grad(naive, x)
    assert (g - expected).abs().max() <= 1e-9


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_gradcheck(name, settings, batch):
    y = BATCHES[batch]
    loss = make(name, y.shape[1], **settings)
    assert torch.autograd.gradcheck(lambda x: quiet(loss, x, y), scores(y, seed=1).requires_grad_())


# The gradients as the pages state them

def focal_force(t, gamma):
    p = t.sigmoid()
    return (1 - p) ** gamma * ((1 - p) - gamma * p * p.log())


def shares(x, y, t_pos, t_neg):
    "Gradient of the rows of the two-way loss."
    neg, pos = (x / t_neg).exp() * (1 - y), (-x / t_pos).exp() * y
    n, p = neg.sum(1, keepdim=True), pos.sum(1, keepdim=True)
    return (t_neg * n.log() + t_pos * p.log()).sigmoid() * (neg / n - pos / p) / len(x)


def stated(name, x, y, gamma=2.0, alpha=None, gamma_neg=4.0, gamma_pos=1.0, margin=0.05, t_pos=4.0, t_neg=1.0,
           kappa=2.0, bias=0.05, lam=1.5,
           threshold=0.6, change_epoch=1, **_):
    p, size = x.sigmoid(), y.numel()
    if name == "bce":
        return (p - y) / size
    if name == "focal":
        a = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return (1 - 2 * y) * a * focal_force((2 * y - 1) * x, gamma) / size
    if name == "hill":
        return torch.where(y == 1, -focal_force(x - (1 if margin == 0.05 else margin), gamma),
                           p**2 * (1 - p) * (2 * lam - 3 * p)) / size
    if name == "splc":
        down = torch.where((p > threshold) & (change_epoch == 0), -focal_force(x, gamma), focal_force(-x, gamma))
        return torch.where(y == 1, -focal_force(x - (1 if margin == 0.05 else margin), gamma), down) / size
    if name == "asl":
        pm = (p - margin).clamp(min=1e-300)
        neg = p * (1 - p) * (pm**gamma_neg / (1 - pm) - gamma_neg * pm ** (gamma_neg - 1)
                             * (1 - pm).log()) * (p > margin)
        return torch.where(y == 1, -focal_force(x, gamma_pos), neg) / size
    if name == "zlpr":
        neg, pos = x.exp() * (1 - y), (-x).exp() * y
        return (neg / (1 + neg.sum(1, keepdim=True)) - pos / (1 + pos.sum(1, keepdim=True))) / len(y)
    if name == "twoway":
        return shares(x, y, t_pos, t_neg) + shares(x.T, y.T, t_pos, t_neg).T
    loss = make("db", **({} if alpha is None else dict(alpha=alpha)))
    z = x - bias * (N / torch.tensor([1, 29, 3, 1, 7], dtype=F64) - 1).log()
    q, s = z.sigmoid(), kappa * z
    neg = q**gamma * (s.sigmoid() + gamma / kappa * (1 - q) * (1 + s.exp()).log())
    return loss.weight(y) * torch.where(y == 1, -focal_force(z, gamma), neg) / size


@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_gradient_identity(name, settings):
    y = random_labels(8, 5)
    y[0] = torch.tensor([0.0, 1, 0, 1, 1])
    y[1] = torch.tensor([1.0, 0, 1, 0, 0])
    assert y.any(0).all() and not y.all(0).any() and not y.all(1).any()
    x, loss = scores(y, seed=2), make(name, **settings)
    check_gradient(lambda x: loss(x, y), x, stated(name, x, y, **settings))


def test_focal_factor_is_differentiated():
    "At p_t = 1/2 and gamma 2 a factor taken as constant would give 0.125."
    x = torch.zeros(1, 1, dtype=F64, requires_grad=True)
    (g,) = torch.autograd.grad(FocalLoss()(x, torch.ones(1, 1)), x)
    assert -g.item() == pytest.approx(0.25 * (0.5 + math.log(2)), abs=1e-12)


# Unknown labels

def gaps(shape, kind):
    "Where labels are unknown."
    g = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.4
    if kind == "a row":
        g[0] = True
    if kind == "a column":
        g[:, -1] = True
    return torch.ones_like(g) if kind == "everything" else g


@pytest.mark.parametrize("kind", ["scattered", "a row", "a column", "everything"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_unknown_labels_count_nowhere(name, settings, batch, kind):
    """Value and gradient are those of the loop over known entries; what stands at an unknown entry changes nothing
    and feels nothing."""
    g = gaps(BATCHES[batch].shape, kind)
    y = BATCHES[batch].masked_fill(g, math.nan)
    x = scores(y).requires_grad_()
    loss = make(name, y.shape[1], **settings)
    value, naive = quiet(loss, x, y), NAIVE[name](x, y, **settings)
    assert value.item() == pytest.approx(naive.item(), abs=1e-9)
    (d,), (expected,) = torch.autograd.grad(value, x), torch.autograd.grad(naive, x)
    assert (d - expected).abs().max() <= 1e-9 and (d[g] == 0).all()
    assert quiet(loss, torch.where(g, 200.0, x), y).item() == pytest.approx(value.item(), abs=1e-12)


@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_what_is_unknown_can_be_left_out(name, settings):
    "A row and a column without a known label are as good as not there, for every reduction."
    y = random_labels(8, 5)
    y[3], y[:, 4] = math.nan, math.nan
    x, rows = scores(y), [0, 1, 2, 4, 5, 6, 7]
    for r in ("mean", "sum", "batchmean") if name in ("focal", "asl", "hill", "splc") else [None]:
        more = settings | (dict(reduction=r) if r else {})
        small = make(name, 4, **more)(x[rows][:, :4], y[rows][:, :4])
        assert make(name, **more)(x, y).item() == pytest.approx(small.item(), abs=1e-12)


@pytest.mark.parametrize("name", LOGITS)
def test_nothing_known_is_zero_and_warns(name):
    x = torch.randn(4, 5, requires_grad=True)
    with pytest.warns(NothingKnownWarning, match="every one is unknown"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NoPositivesWarning)
        value = make(name)(x, torch.full((4, 5), math.nan))
    (g,) = torch.autograd.grad(value, x)
    assert value.item() == 0 and not g.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_unknown_labels_and_extreme_logits(name, settings, dtype):
    y = SETS["mixed"].float()
    y[0, 1] = y[1, 1] = y[2, 4] = math.nan
    x = EXTREME.to(dtype).requires_grad_()
    value = make(name, **settings)(x, y.to(dtype))
    (g,) = torch.autograd.grad(value, x)
    exact = make(name, **settings)(x.detach().double(), y.double()).item()
    assert value.isfinite() and g.isfinite().all() and value.item() == pytest.approx(exact, rel=1e-2, abs=1e-6)


def test_a_loss_that_does_not_know_unknown_labels_refuses_them():
    class Mine(LogitLoss):
        def compute(self, logits, labels):
            return (logits * labels).mean()

    with pytest.raises(ValueError, match="^labels: expected .*nan"):
        Mine()(torch.zeros(2, 3), torch.tensor([[0, 1, math.nan], [0, 1, 1]]))


# Class weights

@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("name", WEIGHTED)
def test_pos_weight_multiplies_the_terms_of_positives(name, unknown):
    y, w = random_labels(7, 5), [0.5, 1.0, 2.0, 3.0, 40.0]
    if unknown:
        y[gaps(y.shape, "scattered")] = math.nan
    x, n = scores(y), (y == y).sum().item()
    one = torch.stack([NAIVE[name](x[i : i + 1, l : l + 1], y[i : i + 1, l : l + 1]) * (w[l] if y[i, l] == 1 else 1)
                       for i in range(7) for l in range(5)])
    for given in (w, tuple(w), np.array(w), np.array(w, np.float32), torch.tensor(w)):
        assert make(name, pos_weight=given)(x, y).item() == pytest.approx(one.sum().item() / n, abs=1e-12)
    assert make(name, pos_weight=[1.0] * 5)(x, y).item() == pytest.approx(make(name)(x, y).item(), abs=1e-12)


def test_pos_weight_is_torchs():
    y, w = random_labels(7, 5), torch.tensor([0.5, 1.0, 2.0, 3.0, 40.0])
    x = scores(y)
    assert make("bce", pos_weight=w)(x,
                                     y).item() == pytest.approx(torch.nn.BCEWithLogitsLoss(pos_weight=w)(x, y).item(),
                                                                abs=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
def test_balanced_weights(name):
    "(N − n)/n within [1/c, c], counts clamped to 1…N − 1."
    expected = [min(max((N - n) / n, 0.1), 10.0) for n in (1, 29, 3, 1, 7)]
    loss = make(name, pos_weight="balanced")
    assert (loss.pos_weight.tolist() == pytest.approx(expected, abs=1e-12)
            and loss.pos_weight.tolist() == balanced_weights(COUNTS, N).tolist())
    assert make(name, pos_weight="balanced",
                clip=100).pos_weight.tolist() == pytest.approx([29.0, 1 / 29, 9.0, 29.0, 23 / 7])
    assert not loss.state_dict() and loss.half().pos_weight.dtype == F64
    assert make(name).pos_weight is None and make(name, clip=3).pos_weight is None


def test_balanced_weights_balance():
    "Positives and negatives of a label push and pull alike at the start."
    y = random_labels(200, 6)
    x = torch.zeros(200, 6, dtype=F64, requires_grad=True)
    (g,) = torch.autograd.grad(make_loss("bce", 6, 4, y.sum(0).int().tolist(), 200, pos_weight="balanced",
                                         clip=1e3)(x, y), x)
    assert g.sum(0).abs().max() < 1e-15


# The two losses for missing labels

def test_splc_counts_epochs():
    loss, y = SPLCLoss(change_epoch=2), torch.zeros(1, 2)
    x = torch.tensor([[0.5, 0.4]])  # probabilities on both sides of 0.6
    for over in (False, False, True, True):
        assert loss.corrected(x, y).tolist() == [[over, False]]
        loss.after_epoch()
    assert (loss.epoch == 4 and not loss.corrected(x, torch.ones(1, 2)).any()
            and not loss.corrected(x, y * math.nan).any())


def test_splc_margin_is_not_taken_off_a_corrected_negative():
    x, loss = torch.tensor([[1.0]], dtype=F64), SPLCLoss(change_epoch=0, gamma=0.0)
    assert loss(x, torch.zeros(1, 1)).item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-12)
    assert loss(x, torch.ones(1, 1)).item() == pytest.approx(math.log(2), abs=1e-12)


def test_splc_threshold_itself_is_not_corrected():
    x, y = torch.zeros(1, 1), torch.zeros(1, 1)
    assert not SPLCLoss(0.5, 0).corrected(x, y).any() and SPLCLoss(0.5, 0).corrected(x + 1e-6, y).all()


def test_hill_sums_and_its_bound():
    x = torch.tensor([[50.0, -50.0]], dtype=F64)
    assert HillLoss(reduction="sum")(x, torch.zeros(1, 2)).item() == pytest.approx(0.5, abs=1e-12)
    assert HillLoss(1.0, 0, 0)(x * 0,
                               torch.tensor([[1, 0]])).item() == pytest.approx((math.log(2) + 0.125) / 2, abs=1e-12)


# Number formats and extremes

EXTREME = torch.tensor([[200.0, -200.0, 0.0, 200.0, -200.0], [-200.0, 200.0, 200.0, -200.0, 0.0],
                        [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, -3.0, 2.0, 100.0, -90.0]])
SETS = {"mixed": torch.tensor([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1]]),
        "empty": torch.zeros(4, 5), "full": torch.ones(4, 5),
        "one empty, one full": torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0], [1, 0, 0, 1, 0]])}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name, settings", CASES, ids=IDS)
def test_extreme_logits_are_finite_and_right(name, settings, dtype):
    loss = make(name, **settings)
    for y in SETS.values():
        for x in (EXTREME, -EXTREME):
            x = x.to(dtype).requires_grad_()
            value = quiet(loss, x, y)
            (g,) = torch.autograd.grad(value, x)
            exact = quiet(loss, x.detach().double(), y.double()).item()
            assert value.dtype == torch.float32 and value.isfinite() and g.isfinite().all()
            assert value.item() == pytest.approx(exact, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("gammas", [(4.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.5, 0.5)])
def test_asl_half_precision_is_finite(dtype, margin, gammas):
    loss = AsymmetricLoss(*gammas, margin=margin)
    for v in (0.0, 1.0, 8.0, 17.0, 30.0, 88.0, 104.0, 200.0, 6e4):
        for label in (0, 1):
            x = torch.tensor([[v, -v]], dtype=dtype, requires_grad=True)
            value = loss(x, torch.full((1, 2), label))
            (g,) = torch.autograd.grad(value, x)
            assert value.isfinite() and g.isfinite().all() and value >= 0
            assert value.item() == pytest.approx(loss(x.detach().double(), torch.full((1, 2), label)).item(),
                                                 rel=1e-2, abs=1e-6)


def test_asl_margin_ignores_easy_and_forgives_hopeless_negatives():
    x = torch.tensor([[-3.0, -50.0, 200.0]], dtype=F64, requires_grad=True)
    value = AsymmetricLoss(reduction="sum")(x, torch.zeros(1, 3))
    (g,) = torch.autograd.grad(value, x)
    assert (g[0, :2] == 0).all() and abs(g[0, 2]) < 1e-12
    assert value.item() == pytest.approx(-(0.95**4) * math.log(0.05), abs=1e-12)


def test_zlpr_zero_logit_and_full_set():
    for y in (torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([[1, 0, 1]])):
        x = torch.zeros(1, 3, requires_grad=True)
        value = ZLPRLoss()(x, y)
        (g,) = torch.autograd.grad(value, x)
        k = int(y.sum())
        assert (value.item() == pytest.approx(math.log(1 + k) + math.log(1 + 3 - k), abs=1e-6) and g.isfinite().all()
                and g.any())


def grad_modes_survive(loss, y):
    x = torch.zeros(y.shape, requires_grad=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not loss(x, y).requires_grad and not torch.is_grad_enabled()
        assert torch.is_grad_enabled()
    assert loss(x, y).requires_grad and torch.is_grad_enabled()


def test_asl_leaves_grad_mode_alone():
    grad_modes_survive(AsymmetricLoss(), random_labels(4, 5))


@pytest.mark.parametrize("name", LOGITS)
def test_grad_mode_is_left_alone(name):
    grad_modes_survive(make(name), random_labels(4, 5))


def test_twoway_without_a_positive_is_zero_and_warns():
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.warns(NoPositivesWarning, match="no label"):
        value = TwoWayLoss()(x, torch.zeros(4, 3))
    (g,) = torch.autograd.grad(value, x)
    assert value.item() == 0 and math.copysign(1, value.item()) == 1 and not g.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TwoWayLoss()(x, torch.eye(4)[:, :3])


# Reductions, relations and invariances

@pytest.mark.parametrize("make", [FocalLoss, AsymmetricLoss, HillLoss, SPLCLoss])
def test_reductions(make):
    y = random_labels(6, 5)
    x = scores(y)
    mean, total, batch = (make(reduction=r)(x, y).item() for r in ("mean", "sum", "batchmean"))
    assert total == pytest.approx(mean * 30, abs=1e-10) and batch == pytest.approx(mean * 5, abs=1e-10)
    assert make()(x, y).item() == mean


def test_family():
    y = random_labels(6, 5)
    x = scores(y)
    assert FocalLoss(0)(x, y).item() == pytest.approx(make("bce")(x, y).item(), abs=1e-12)
    assert AsymmetricLoss(2, 2, 0)(x, y).item() == pytest.approx(FocalLoss(2)(x, y).item(), abs=1e-12)
    assert AsymmetricLoss(0, 0, 0)(x, y).item() == pytest.approx(make("bce")(x, y).item(), abs=1e-12)


@pytest.mark.parametrize("name", LOGITS)
def test_permutations_change_nothing(name):
    y = random_labels(9, 5, tail=1.0)
    x, rows, cols = scores(y), torch.randperm(9), torch.randperm(5)
    value = make(name)(x, y).item()
    assert make(name)(x[rows], y[rows]).item() == pytest.approx(value, abs=1e-12)
    assert make(name, counts=[COUNTS[c] for c in cols])(x[:, cols],
                                                        y[:, cols]).item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", LOGITS)
def test_only_the_two_way_loss_cannot_see_a_constant(name):
    y = random_labels(9, 5)
    x = scores(y)
    same = make(name)(x, y).item() == pytest.approx(make(name)(x + 3, y).item(), abs=1e-10)
    assert same == (name == "twoway") and getattr(LOSSES[name], "fixed_threshold", True) == (not same)


def test_db_weights_and_shift():
    loss = DistributionBalancedLoss([80, 10, 50], 100)
    y = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=F64)
    r = [[1 / 80 / 0.1125, 1 / 10 / 0.1125, 1 / 50 / 0.1125], [math.inf] * 3, [50 / 80, 5.0, 1.0]]
    expected = 0.1 + torch.sigmoid(10 * (torch.tensor(r, dtype=F64) - 0.2))
    assert torch.allclose(loss.weight(y), expected, atol=1e-12)


def test_db_never_seen_and_always_present_labels():
    loss = DistributionBalancedLoss([0, 100], 100, bias=1.0)
    assert loss.label_counts.tolist() == [1, 99] and loss(torch.zeros(2, 2), torch.eye(2)).isfinite()
    assert not loss.state_dict() and loss.half().label_counts.dtype == torch.int64


@pytest.mark.parametrize("kind", ["bool", "int64", "uint8", "float16"])
@pytest.mark.parametrize("name", LOGITS)
def test_label_formats(name, kind):
    y = random_labels(6, 5).float()
    x = scores(y).float()
    assert make(name)(x, y.to(getattr(torch, kind))).item() == make(name)(x, y).item()


KINDS = ["float64", "float32", "float16", "bfloat16"]


@pytest.mark.parametrize("labels", [*KINDS, "bool", "uint8", "int64"])
@pytest.mark.parametrize("logits", KINDS)
@pytest.mark.parametrize("name", LOGITS)
def test_format_pairs(name, logits, labels):
    "The format of the labels changes nothing, unknown ones included; half logits are computed in float32."
    y = random_labels(6, 5)
    x = scores(y).to(getattr(torch, logits))
    value = make(name)(x, y.to(getattr(torch, labels)))
    assert value.dtype == (F64 if logits == "float64" else torch.float32)
    assert value.item() == make(name)(x, y).item() == pytest.approx(make(name)(x.double(), y).item(), rel=1e-5)
    if labels in KINDS:
        y[1, 2] = y[4] = math.nan
        assert make(name)(x, y.to(getattr(torch, labels))).item() == make(name)(x, y).item()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (6, 5)])
@pytest.mark.parametrize("name", LOGITS)
def test_memory_layout_changes_nothing(name, shape):
    "Transposed, sliced and expanded logits and labels; a batch of one, a single label."
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(shape, generator=g) < 0.5).double()
    y[0, 0] = 1
    x, loss = scores(y), make(name, shape[1])
    value = loss(x, y).item()
    wide = lambda t: torch.stack([t, t + 1], 2)[..., 0]
    for f in (lambda t: t.T.contiguous().T, wide):
        assert not f(x).is_contiguous() or 1 in shape
        assert loss(f(x), f(y)).item() == pytest.approx(value, abs=1e-14)
    row = loss(x[:1].expand(4, -1), y[:1].expand(4, -1)).item()
    assert row == pytest.approx(loss(x[:1].repeat(4, 1), y[:1].repeat(4, 1)).item(), abs=1e-14)


NUMPY = [("focal", dict(gamma=1, alpha=0.5)), ("asl", dict(gamma_neg=2, gamma_pos=1, margin=0.5)),
         ("twoway", dict(t_pos=2, t_neg=1)),
         ("db", dict(alpha=0.5, beta=4, bias=0.25, kappa=2, gamma=1)), ("hill", dict(lam=1, margin=2, gamma=1)),
         ("splc", dict(threshold=0.5, change_epoch=0, margin=2, gamma=1)), ("bce", dict(pos_weight="balanced", clip=4))]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("name, settings", NUMPY, ids=[n for n, _ in NUMPY])
def test_settings_may_be_numpy_scalars(name, settings, kind):
    whole = issubclass(kind, np.integer)
    fits = lambda k, v: isinstance(v, int) if whole else not isinstance(v, str) and k != "change_epoch"
    given = {k: kind(v) if fits(k, v) else v for k, v in settings.items()}
    assert any(type(v) is kind for v in given.values())
    y = random_labels(6, 5)
    x = scores(y)
    counts, n = (np.array(COUNTS), np.int64(N)) if whole else (COUNTS, N)
    mine = make_loss(name, 5, 4, label_counts=counts, n_instances=n, **given)
    assert mine(x, y).item() == make(name, **settings)(x, y).item()
    assert all(type(getattr(mine, k)) in (float, int) for k in settings if k not in ("pos_weight", "clip"))


# Bad input

BAD = {"one row": ("logits", lambda x, y: (x[0], y[0])), "integers": ("logits", lambda x, y: (x.long(), y)),
       "NaN": ("logits", lambda x, y: (x * math.nan, y)),
       "a list": ("logits", lambda x, y: (x.tolist(), y)), "no instance": ("logits", lambda x, y: (x[:0], y[:0])),
       "few columns": ("labels", lambda x, y: (x, y[:, :4])),
       "few rows": ("labels", lambda x, y: (x, y[:2])), "smoothed": ("labels", lambda x, y: (x, 0.9 * y + 0.05)),
       "minus one": ("labels", lambda x, y: (x, 2 * y - 1)),
       "indices": ("labels", lambda x, y: (x, y.argmax(1))), "no tensor": ("labels", lambda x, y: (x, y.tolist())),
       "elsewhere": ("labels", lambda x, y: (x, y.to("meta"))),
       "NaN and one half": ("labels", lambda x, y: (x, (y * 0.5).masked_fill(y == 0, math.nan))),
       "infinite": ("labels", lambda x, y: (x, y / 0.0)),
       "three dimensions": ("labels", lambda x, y: (x, y[None])), "complex": ("labels", lambda x, y: (x, y + 1j)),
       "missing": ("labels", lambda x, y: (x, None))}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", LOGITS)
def test_bad_input_names_the_argument(name, case):
    argument, change = BAD[case]
    with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
        make(name)(*change(torch.randn(6, 5), random_labels(6, 5)))


@pytest.mark.parametrize("argument, f", [
    ("gamma", lambda: FocalLoss(-1)), ("gamma", lambda: FocalLoss(math.nan)), ("gamma", lambda: FocalLoss("2")),
    ("alpha", lambda: FocalLoss(alpha=0)),
    ("alpha", lambda: FocalLoss(alpha=1.0)), ("reduction", lambda: FocalLoss(reduction="none")),
    ("gamma_neg", lambda: AsymmetricLoss(-0.1)),
    ("gamma_pos", lambda: AsymmetricLoss(gamma_pos=-1)), ("margin", lambda: AsymmetricLoss(margin=1)),
    ("margin", lambda: AsymmetricLoss(margin=-0.1)),
    ("reduction", lambda: AsymmetricLoss(reduction=None)), ("t_pos", lambda: TwoWayLoss(0)),
    ("t_neg", lambda: TwoWayLoss(t_neg=-1)),
    ("label_counts", lambda: make_loss("db", 5, 4)), ("label_counts", lambda: make_loss("db", 5, 4, n_instances=9)),
    ("n_instances", lambda: make_loss("db", 5, 4, COUNTS)),
    ("n_instances", lambda: DistributionBalancedLoss(COUNTS, 1)),
    ("n_instances", lambda: DistributionBalancedLoss(COUNTS, 30.0)),
    ("label_counts", lambda: DistributionBalancedLoss(COUNTS, 29)),
    ("label_counts", lambda: DistributionBalancedLoss([-1], 29)),
    ("label_counts", lambda: DistributionBalancedLoss([0.5], 29)),
    ("label_counts", lambda: DistributionBalancedLoss([math.nan], 29)),
    ("label_counts", lambda: DistributionBalancedLoss([], 29)),
    ("label_counts", lambda: DistributionBalancedLoss([[1]], 29)),
    ("label_counts", lambda: DistributionBalancedLoss("abc", 29)),
    ("label_counts", lambda: DistributionBalancedLoss([1, 2], 9)(torch.zeros(2, 3), torch.zeros(2, 3))),
    ("kappa", lambda: make("db", kappa=0)), ("beta", lambda: make("db", beta=-1)),
    ("bias", lambda: make("db", bias=-1)), ("alpha", lambda: make("db", alpha=-1)),
    ("gamma", lambda: make("db", gamma=-1)), ("mu", lambda: make("db", mu=math.inf)),
    ("settings", lambda: make("zlpr", gamma=2)),
    ("lam", lambda: HillLoss(0)), ("lam", lambda: HillLoss("1")), ("margin", lambda: HillLoss(margin=-1)),
    ("gamma", lambda: HillLoss(gamma=-1)),
    ("reduction", lambda: HillLoss(reduction=["mean"])), ("threshold", lambda: SPLCLoss(1)),
    ("threshold", lambda: SPLCLoss(True)),
    ("change_epoch", lambda: SPLCLoss(change_epoch=1.0)), ("change_epoch", lambda: SPLCLoss(change_epoch=-1)),
    ("change_epoch", lambda: SPLCLoss(change_epoch=True)),
    ("margin", lambda: SPLCLoss(margin=math.inf)), ("gamma", lambda: SPLCLoss(gamma=None)),
    ("reduction", lambda: SPLCLoss(reduction="none")),
    ("pos_weight", lambda: make("bce", pos_weight="balance")), ("pos_weight", lambda: make("focal", pos_weight=[1, 2])),
    ("pos_weight", lambda: make("asl", pos_weight=2.0)),
    ("pos_weight", lambda: make("bce", pos_weight=[1, 1, 1, 1, 0])),
    ("pos_weight", lambda: make("bce", pos_weight=[1, 1, 1, 1, math.nan])),
    ("pos_weight", lambda: make("bce", pos_weight=[1, 1, 1, 1, math.inf])),
    ("pos_weight", lambda: make("bce", pos_weight=[[1] * 5])),
    ("pos_weight", lambda: make("bce", pos_weight=[])), ("pos_weight", lambda: make("bce", pos_weight={})),
    ("pos_weight", lambda: BCELoss(pos_weight=[1.0, 2.0])(torch.zeros(2, 3), torch.zeros(2, 3))),
    ("clip", lambda: make("bce", pos_weight="balanced", clip=0.5)),
    ("clip", lambda: make("bce", pos_weight="balanced", clip="2")),
    ("label_counts", lambda: BCELoss(pos_weight="balanced")),
    ("n_instances", lambda: make_loss("focal", 5, 4, COUNTS, pos_weight="balanced")),
    ("label_counts", lambda: make_loss("bce", 4, 4, COUNTS, N)),
    ("settings", lambda: make("hill", pos_weight="balanced")), ("settings", lambda: make("bce", label_counts_=1)),
    ("settings", lambda: make("splc", tau=0.6)),
    ("settings", lambda: make("asl", temperature=2)), ("settings", lambda: make("db", n_labels_=2)),
    ("settings", lambda: make("bce", reduction="sum"))])
def test_bad_settings_are_named(argument, f):
    with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
        f()


# What a trained model keeps

def test_learner_hands_over_and_keeps_the_frequencies(tmp_path):
    from test_learner import FAST, toy
    from mlcl.learner import load_trained as load, train

    ds = toy()
    t = train(ds, loss="db", settings=FAST | dict(epochs=1), share=0.5, seed=1)
    loss, y = t.model.loss, t.labels("train")
    assert loss.n_instances == len(y) < 90 and loss.label_counts.tolist() == y.sum(0).clip(1, len(y) - 1).tolist()
    t.save(tmp_path / "m")
    meta = json.loads((tmp_path / "m" / "model.json").read_text())
    assert meta["n_instances"] == len(y) and meta["label_counts"] == y.sum(0).tolist()
    back = load(tmp_path / "m", ds)
    assert back.model.loss.label_counts.tolist() == loss.label_counts.tolist() and back.model.loss.n_instances == len(y)
    assert (back.outputs("test")["own"] == t.outputs("test")["own"]).all()


@pytest.mark.parametrize("name", ["asl", "reg", "db"])
def test_old_files_load_where_nothing_is_missing(name, tmp_path):
    "Files saved before `n_instances` was kept load for every loss that does not need it."
    from test_learner import FAST, toy
    from mlcl.learner import load_trained as load, train

    train(toy(), loss=name, settings=FAST | dict(epochs=1)).save(tmp_path / "m")
    path = tmp_path / "m" / "model.json"
    meta = json.loads(path.read_text())
    del meta["n_instances"]
    path.write_text(json.dumps(meta))
    if name == "db":
        with pytest.raises(ValueError, match="n_instances: expected .*got None"):
            load(tmp_path / "m")
    else:
        assert load(tmp_path / "m").loss_name == name


def test_prediction_does_not_see_the_shift_of_db():
    from test_learner import FAST, toy
    from mlcl.learner import train

    t = train(toy(), loss="db", settings=FAST | dict(epochs=1, loss=dict(bias=5.0)))
    out = t.outputs("test")
    with torch.no_grad():
        x = t.model.head(torch.from_numpy(out["features"]).to(t.model.head.weight.device)).cpu()
    assert torch.equal(torch.from_numpy(out["own"]), x)


@pytest.mark.parametrize("name", LOGITS)
def test_experiments_spell_out_the_settings(name):
    from mlcl.study import Experiment

    settings = Experiment("yeast", "mlp", name).settings["loss"]
    loss = make(name, **settings)
    assert (not {"label_counts", "n_instances"} & set(settings)
            and all(getattr(loss, k) == v for k, v in settings.items()))
