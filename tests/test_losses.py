"Sweeps over all losses: definitions, gradients, number formats, degenerate batches, invariances, faults."
import math
import warnings

import pytest
import torch

from mlcl.checks import check_dtypes, label_batches, naive_contrast, random_labels
from mlcl.losses import LOSSES, NoPositivesWarning
from mlcl.losses.contrast import Block, contrast, positions, unit
from helpers import DENSE, make_loss

EMBEDDING = [n for n, c in LOSSES.items() if c.route == "embeddings"]
INSTANCES = [n for n in EMBEDDING if not hasattr(make_loss(n, 2, 2), "prototypes")]  # contrastive, without prototypes
LOGITS = [n for n, c in LOSSES.items() if c.route == "logits"]
BATCHES = label_batches()
F64 = torch.float64


def make(name, n_labels, dim=4, **settings):
    torch.manual_seed(1)
    return make_loss(name, n_labels, dim, label_counts=range(1, n_labels + 1), n_instances=20, **settings).double()


def data(name, y, dim=4, seed=0):
    torch.manual_seed(seed)
    return torch.randn(len(y), y.shape[1] if name in LOGITS else dim, dtype=F64)


def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoPositivesWarning)
        return f(*args)


def rows(loss, y):
    "W of a loss over all its references, and the units, for the anchors of every block."
    batch = Block(torch.zeros(len(y), 4, dtype=F64), y)
    anchors, refs = loss.blocks(batch, batch)
    return torch.cat([torch.cat(loss.weight(a.labels, [r.labels for r in refs], positions(a, refs)), 1)
                      for a in anchors])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_finite_value_and_gradient(name, batch):
    "τ = 0.01, any scale, any label sets: finite value, finite gradients, for embeddings and prototypes."
    y = BATCHES[batch]
    for scale in (1e-30, 1.0, 1e30) if name in EMBEDDING else (0.0, 1.0, 200.0):
        loss = make(name, y.shape[1], **({"temperature": 0.01} if name in EMBEDDING else {}))
        x = (data(name, y) * scale).requires_grad_()
        value = quiet(loss, x, y)
        grads = torch.autograd.grad(value, [x, *loss.parameters()])
        assert value.isfinite() and all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("batch", ["random", "long tail", "with empty sets", "one-hot", "all labels"])
@pytest.mark.parametrize("name", [n for n in LOSSES if n != "reg"])
def test_gradcheck(name, batch):
    y = BATCHES[batch]
    loss, x = make(name, y.shape[1]), data(name, y).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: quiet(loss, x, y), x)


@pytest.mark.parametrize("name", [n for n in EMBEDDING if n != "sincere"])
def test_value_is_the_loop_over_the_weights(name):
    for batch, y in BATCHES.items():
        if batch in ("all empty",):
            continue
        loss, x = make(name, y.shape[1], **({"regularize": False} if name == "reg" else {})), data(name, y)
        z, n = unit(x), len(y)
        c = unit(loss.prototypes.detach()) if hasattr(loss, "prototypes") else z[:0]
        u, v = {"proto": (z, c), "abalone": (z, torch.cat([z, c]))}.get(name, (torch.cat([z, c]),) * 2)
        w = rows(loss, y)
        mult = torch.tensor([loss.beta] * n + [1.0] * len(c), dtype=F64) if name == "abalone" else None
        naive = naive_contrast(u, v, w, loss.temperature, own=None if name == "proto" else range(len(u)), mult=mult,
                               count=loss.count(y))
        assert quiet(loss, x, y).item() == pytest.approx(naive.item(), abs=1e-9), batch


@pytest.mark.parametrize("name", [n for n in EMBEDDING if n not in ("mulsupcon", "simdis", "multisupcon")])
def test_row_sums(name):
    for y in BATCHES.values():
        sums = rows(make(name, y.shape[1]), y).sum(1)
        assert (((sums - 1).abs() < 1e-12) | (sums == 0)).all()
        if name not in INSTANCES:
            assert torch.equal(sums[: len(y)] > 0, y.sum(1) > 0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_reg_gradient_never_repels_a_positive(alpha):
    "The loss written with scores as variables has the same value, and its gradient is the stated one."
    y, x = random_labels(7, 4, seed=3), data("reg", torch.zeros(7, 4), seed=5)
    loss = make("reg", 4, alpha=alpha)
    w = rows(loss, y)
    u = torch.cat([unit(x), unit(loss.prototypes.detach())])
    s = (u @ u.T).requires_grad_()
    masked = (s / 0.1).masked_fill(torch.eye(len(u), dtype=torch.bool), -math.inf)
    sigma = masked.softmax(1)
    live = (w.sum(1) > 0).double()
    lse = masked.logsumexp(1)
    gate = ((sigma - w).clamp(min=0) * (w > 0)).detach()
    value = (live * (w.sum(1) * lse - (w * s / 0.1).sum(1) - (gate * s / 0.1).sum(1))).sum() / live.sum()
    assert quiet(loss, x, y).item() == pytest.approx(value.item(), abs=1e-10)
    (g,) = torch.autograd.grad(value, s)
    stated = torch.where(w > 0, (sigma - w).clamp(max=0), sigma) * live[:, None] / 0.1 / live.sum()
    assert (g - stated).abs().max() < 1e-10 and (g[w > 0] <= 1e-15).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    y = random_labels(32, 7)
    for t in (0.01, 0.07, 0.1, 1.0) if name in EMBEDDING else (1.0,):
        settings = {"temperature": t} if name in EMBEDDING else {}
        x = data(name, y, dim=8).to(dtype)
        low, high = make(name, 7, 8, **settings).float(), make(name, 7, 8, **settings)
        if name in EMBEDDING:
            high.load_state_dict({k: v.double() for k, v in low.state_dict().items()})
        assert low(x, y).item() == pytest.approx(high(x.double(), y).item(), rel=1e-2)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("name", EMBEDDING)
def test_every_format_batch_and_temperature(name, dtype, batch):
    "Finite value and gradients, and the value that float64 has for the same rounded inputs."
    y = BATCHES[batch]
    for t in (0.01, 0.07, 0.1, 1.0):
        low, high = make(name, y.shape[1], temperature=t), make(name, y.shape[1], temperature=t)
        low = low if dtype == F64 else low.float()
        high.load_state_dict({k: v.double() for k, v in low.state_dict().items()})
        x = data(name, y).to(dtype).requires_grad_()
        value, exact = quiet(low, x, y), quiet(high, x.detach().double(), y).item()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, [x, *low.parameters()]))
        assert value.item() == pytest.approx(exact, rel=1e-12 if dtype == F64 else 1e-5 if dtype == torch.float32
                                             else 1e-2, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name):
    y = random_labels(16, 5)
    loss, x = make(name, 5).float(), data(name, y).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(x, y.float())
    assert inside.dtype == torch.float32 and inside.item() == pytest.approx(loss(x, y.float()).item(), rel=1e-6)


@pytest.mark.parametrize("name", EMBEDDING)
def test_invariances(name):
    y, x = random_labels(9, 5), data(name, torch.zeros(9, 5))
    loss = make(name, 5)
    value = loss(x, y).item()
    rows_, cols = torch.randperm(9), torch.randperm(5)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=F64))[0]
    assert loss(x[rows_], y[rows_]).item() == pytest.approx(value, abs=1e-10)
    assert loss(x * 1e6, y).item() == pytest.approx(value, abs=1e-10)
    other = make(name, 5)
    if hasattr(loss, "prototypes"):
        other.prototypes.data = loss.prototypes.data[cols] @ turn
    if name == "gma":
        other.cooccurrence = loss.cooccurrence[cols][:, cols]
    assert other(x @ turn, y[:, cols]).item() == pytest.approx(value, abs=1e-10)
    a, b = x.clone().requires_grad_(), (10 * x).requires_grad_()
    (ga,), (gb,) = torch.autograd.grad(loss(a, y), a), torch.autograd.grad(loss(b, y), b)
    assert torch.allclose(ga, 10 * gb, atol=1e-12)


@pytest.mark.parametrize("name", EMBEDDING)
def test_given_references_replace_the_batch(name):
    "References equal to the batch are other objects: then an instance meets its own copy."
    y, x = random_labels(6, 5), data(name, torch.zeros(6, 5))
    loss = make(name, 5)
    if name == "proto":
        with pytest.raises(ValueError, match="^ref_embeddings: expected None, since PrototypeLoss .*, got "
                                             "6 references"):
            loss(x, y, x.clone(), y.clone())
    else:
        assert loss(x, y).item() != pytest.approx(loss(x, y, x.clone(), y.clone()).item(), abs=1e-12)


@pytest.mark.parametrize("name", EMBEDDING)
@pytest.mark.parametrize("kind", ["bool", "int64", "uint8", "float16", "indices"])
def test_label_formats(name, kind):
    y = torch.eye(5)[torch.tensor([0, 1, 2, 3, 4, 0, 1])]
    given = y.argmax(1) if kind == "indices" else y.to(getattr(torch, kind))
    loss, x = make(name, 5), data(name, torch.zeros(7, 5))
    assert loss(x, given).item() == loss(x, y).item()


def test_no_positives_warns_and_is_zero():
    x = torch.randn(5, 4, requires_grad=True)
    for name in EMBEDDING:
        loss = make(name, 5).float()
        y = torch.eye(5) if name in INSTANCES and name not in DENSE else torch.zeros(5, 5)
        with pytest.warns(NoPositivesWarning):
            value = loss(x, y)
        (g,) = torch.autograd.grad(value, x)
        assert value.item() == 0 and not g.any()


def test_an_unlabelled_instance_is_a_negative():
    y, x = random_labels(6, 5), torch.randn(6, 4, dtype=F64)
    y[2] = 0
    for name in [n for n in EMBEDDING if n != "proto"]:
        loss = make(name, 5)
        assert not rows(loss, y)[2].any()
        assert name in DENSE or not rows(loss, y)[:, 2].any()
        moved = x.clone()
        moved[2] = torch.randn(4, dtype=F64)
        assert loss(x, y).item() != pytest.approx(loss(moved, y).item(), abs=1e-6)


def test_one_hot_sets_are_never_multiplied(monkeypatch):
    "Prototypes' labels are indices: all of them together are never written out as a matrix."
    monkeypatch.setattr(torch, "eye", lambda *a, **k: pytest.fail("identity made"))
    for name in EMBEDDING:
        make(name, 5)(torch.randn(6, 4, dtype=F64, requires_grad=True), random_labels(6, 5)).backward()


BAD = [
    ("embeddings", lambda x, y: (x[0], y)), ("embeddings", lambda x, y: (x.long(), y)),
    ("embeddings", lambda x, y: (x * math.nan, y)),
    ("embeddings", lambda x, y: (x.numpy(), y)), ("embeddings", lambda x, y: (x[:0], y[:0])),
    ("embeddings", lambda x, y: (x[:, :2], y)),
    ("labels", lambda x, y: (x, y[:2])), ("labels", lambda x, y: (x, y * 2)), ("labels", lambda x, y: (x, y * 0.5)),
    ("labels", lambda x, y: (x, y[:, :0])), ("labels", lambda x, y: (x, y[:, :4])), ("labels", lambda x, y: (x, -y)),
    ("labels", lambda x, y: (x, y * math.nan)), ("labels", lambda x, y: (x, y.tolist())),
    ("labels", lambda x, y: (x, torch.arange(6) + 5)),
    ("ref_labels", lambda x, y: (x, y, x)), ("ref_embeddings", lambda x, y: (x, y, x[:, :3], y)),
    ("ref_labels", lambda x, y: (x, y, x, y[:, :4])),
]


# cases that only a loss which knows its sizes can see: columns, labels, class indices beyond the last
NEEDS_SIZES = {5: "dim", 10: "n_labels", 14: "n_labels"}


@pytest.mark.parametrize("case", range(len(BAD)))
@pytest.mark.parametrize("name", EMBEDDING)
def test_bad_input_names_the_argument(name, case):
    argument, change = BAD[case]
    if case in NEEDS_SIZES and getattr(make(name, 5), NEEDS_SIZES[case]) is None:
        assert quiet(make(name, 5), *change(torch.randn(6, 4, dtype=F64), random_labels(6, 5))).isfinite()
        return
    with pytest.raises(ValueError, match=f"^{argument}: expected .*got|^{argument}: expected on"):
        make(name, 5)(*change(torch.randn(6, 4, dtype=F64), random_labels(6, 5)))


@pytest.mark.parametrize("name", LOSSES)
def test_devices_that_differ_are_named(name):
    "Embeddings here and labels there, or the loss there: a message and no crash inside a kernel."
    x, y = data(name, torch.zeros(6, 5)).float(), random_labels(6, 5).float()
    with pytest.raises(ValueError, match="^ref_embeddings: expected on cpu like embeddings, got on meta"):
        make("base", 5).float()(x, y, x.detach().to("meta"), y)
    with pytest.raises(ValueError, match="^labels: expected on cpu, got on meta"):
        make(name, 5).float()(x, y.to("meta"))
    if name in EMBEDDING and hasattr(make(name, 5), "prototypes"):
        with pytest.raises(ValueError, match="^embeddings: expected on meta like the loss, got on cpu"):
            make(name, 5).float().to("meta")(x, y)


@pytest.mark.parametrize("name", LOGITS)
def test_bad_logits_name_the_argument(name):
    for argument, (x, y) in {"logits": (torch.zeros(3), torch.zeros(3)),
                             "labels": (torch.zeros(2, 3), torch.zeros(2, 4))}.items():
        with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
            make(name, 3)(x, y)


@pytest.mark.parametrize("settings", [dict(temperature=0), dict(temperature=-1.0), dict(temperature="a"),
                                      dict(temperature=math.inf),
                                      dict(alpha=math.nan), dict(gamma=1), dict(n_labels=3)])
def test_bad_settings(settings):
    with pytest.raises((ValueError, TypeError), match="expected|multiple values"):
        make_loss("reg", 5, 4, **settings)


def test_count_divides():
    y, x = random_labels(6, 5), torch.randn(6, 4, dtype=F64)
    b, loss = Block(x, y), make("base", 5)
    n = (rows(loss, y).sum(1) > 0).sum().item()
    assert contrast([b], [b], loss.weight, count=1).item() == pytest.approx(n * loss(x, y).item(), abs=1e-9)


def test_check_dtypes_on_all():
    torch.manual_seed(0)
    for name in EMBEDDING:
        if name != "reg":
            state = make(name, 5, 8).state_dict()

            def fresh(t):
                loss = make_loss(name, 5, 8, temperature=t)
                loss.load_state_dict(state)
                return loss

            check_dtypes(fresh, torch.randn(24, 8), random_labels(24, 5))
