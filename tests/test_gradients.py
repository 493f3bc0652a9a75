"Forces of every loss against autograd, their parts, what labels receive, and the record of a training run."
import warnings

import pytest
import torch

import mlcl.data
from mlcl import gradients
from mlcl.checks import label_batches, random_labels
from mlcl.gradients import forces, observe_all, parts, reach, received, repelled
from mlcl.labels import OneHot
from mlcl.losses import LOSSES
from mlcl.losses.contrast import unit
from mlcl.study import Store
from helpers import make_loss

NAMES = [n for n, c in LOSSES.items() if c.route == "embeddings"]
BATCHES = label_batches()
F64 = torch.float64


def make(name, y, dim=4, **settings):
    torch.manual_seed(1)
    return (make_loss(name, y.shape[1], dim, **settings).double(),
            torch.randn(len(y), dim, dtype=F64, requires_grad=True))


def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f(*args)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_forces_are_the_gradient(name, batch):
    "Σ F s has minus the gradient of the loss, by embeddings and prototypes, at two temperatures."
    for temperature in (0.1, 1.0):
        loss, x = make(name, BATCHES[batch], temperature=temperature)
        at, f = [x, *loss.parameters()], forces(loss, x, BATCHES[batch])
        mine, theirs = (torch.autograd.grad((f.force * f.score).sum(), at),
                        torch.autograd.grad(quiet(loss, x, BATCHES[batch]), at))
        assert all((a + b).abs().max() < 1e-10 for a, b in zip(mine, theirs))


@pytest.mark.parametrize("settings", [dict(alpha=1.0), dict(alpha=-1.0), dict(alpha=2.0)])
@pytest.mark.parametrize("name", ["reg", "wreg"])
def test_forces_are_the_gradient_for_other_overlaps(name, settings):
    y = BATCHES["long tail"]
    loss, x = make(name, y, **settings)
    f = forces(loss, x, y)
    (a,), (b,) = torch.autograd.grad((f.force * f.score).sum(), x), torch.autograd.grad(loss(x, y), x)
    assert (a + b).abs().max() < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_balance_and_gate(name):
    for y in BATCHES.values():
        loss, x = make(name, y)
        f = forces(loss, x, y)
        p = {k: v.sum(1) for k, v in parts(f.law, f.weight).items()}
        assert torch.allclose(p["attraction"], p["wanted"] + p["unwanted"], atol=1e-12)
        applied = parts(f.force, f.weight)["unwanted"]
        assert (not applied.any() if name in ("reg", "sincere")
                else torch.allclose(f.law, f.force, rtol=1e-12, atol=1e-14))
        assert name == "reg" or f.force.sum(1).abs().max() < 1e-12
        assert all((v >= 0).all() for v in p.values()) and f.force.isfinite().all()


def test_a_positive_above_the_threshold_is_pushed():
    "The bar τ(log Z + log W/ωβ), for a loss with β."
    y = random_labels(16, 5)
    loss, x = make("abalone", y)
    f = forces(loss, x, y)
    s, tau = f.score.detach(), loss.temperature
    mult = torch.tensor([loss.beta] * 16 + [1.0] * 5, dtype=F64)
    own = torch.eye(16, 21, dtype=torch.bool)
    z = (mult * (s / tau).exp()).masked_fill(own, 0).sum(1, keepdim=True)
    bar = tau * (z.log() + (f.weight / f.weight.sum(1, keepdim=True) / mult).log())
    pos = f.weight > 0
    assert torch.equal((s > bar)[pos], (f.law < 0)[pos]) and (f.law < 0)[pos].any() and (f.law > 0)[pos].any()


def test_equal_weights_and_scores_push_no_positive():
    y = torch.eye(3, dtype=F64)[torch.arange(12) % 3]
    loss, _ = make("base", y)
    x = torch.eye(3, 4, dtype=F64)[torch.arange(12) % 3]
    q = repelled(forces(loss, x, y))
    assert q["share"] == 0 and q["unwanted"] == 0 and q["pairs"] == 36


@pytest.mark.parametrize("name", NAMES)
def test_received_adds_up(name):
    "With one label each, the labels receive all there is; carriers are the references."
    y = torch.eye(4, dtype=F64)[torch.arange(12) % 4]
    loss, x = make(name, y)
    f = forces(loss, x, y)
    r, p = received(f), parts(f.force, f.weight)
    for k in ("attraction", "wanted", "unwanted"):
        total = sum(kind[k].sum() for kind in r.values())
        assert total.item() == pytest.approx(p[k].sum().item() * loss.temperature, abs=1e-12)
    assert set(r) == {"instances", "prototypes"} - ({"prototypes"} if not hasattr(loss, "prototypes")
                                                    else {"instances"} if name == "proto" else set())
    if "prototypes" in r:
        assert torch.equal(r["prototypes"]["carriers"], torch.ones(4, dtype=F64))


def test_reach_is_the_length_of_a_single_pair_times_the_sine():
    "One anchor, one prototype that pulls and one that pushes: |F| √(1 − s²)."
    y = torch.tensor([[1.0, 0.0]], dtype=F64)
    loss, _ = make("proto", y, dim=2)
    x = unit(torch.tensor([[0.3, 0.8]], dtype=F64)).requires_grad_()
    f = forces(loss, x, y)
    got, s = reach(f, x), f.score.detach()[0]
    step = (f.law[0].abs() * (1 - s**2).sqrt() * loss.temperature).tolist()
    assert (got["attraction"] == pytest.approx(step[0], abs=1e-12)
            and got["wanted"] == pytest.approx(step[1], abs=1e-12) and got["unwanted"] == 0)


def test_half_precision_and_class_indices():
    y = torch.arange(8) % 3
    for name in NAMES:
        loss = make_loss(name, 3, 4)
        x = torch.randn(8, 4)
        assert forces(loss, x.half(), y).force.dtype == torch.float32
        assert torch.equal(forces(loss, x, y).force, forces(loss, x, torch.eye(3)[y]).force)


@pytest.mark.parametrize("argument, call", [
    ("loss", lambda: forces(make_loss("bce", 3, 4), torch.randn(2, 4), torch.ones(2, 3))),
    ("embeddings", lambda: forces(make_loss("base", 3, 4), torch.randn(2), torch.ones(2, 3))),
    ("embeddings", lambda: forces(make_loss("reg", 3, 4), torch.randn(2, 5), torch.ones(2, 3))),
    ("labels", lambda: forces(make_loss("reg", 3, 4), torch.randn(2, 4), torch.ones(2, 4)))])
def test_bad_input_names_the_argument(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
        call()


def test_one_hot_sets_are_never_made_dense(monkeypatch):
    "Prototypes keep their indices: nothing asks for a matrix of them."
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda *a, **k: pytest.fail("identity made"))
    monkeypatch.setattr(torch, "eye", lambda *a, **k: pytest.fail("identity made"))
    for name in NAMES:
        loss, x = make(name, BATCHES["random"])
        f = forces(loss, x, BATCHES["random"])
        received(f)
        assert (all(isinstance(r, OneHot) for r in f.refs if r.prototypes) and any(r.prototypes for r in f.refs)
                == hasattr(loss, "prototypes"))


def test_measure_records_once_and_resumes(tmp_path, monkeypatch):
    """A run leaves one record with a row before training and one an epoch; a second call trains nothing; training
    is not disturbed."""
    ds, store = mlcl.data.load("digits", n=100), Store(tmp_path / "g")
    monkeypatch.setattr(mlcl.data, "load", lambda name: ds)
    table = dict(digits=("resnet", dict(epochs=2, batch_size=16, encoder=dict(widths=(4, 8)))))
    recs = observe_all(table, ["reg", "base"], seeds=(0,), n_batches=2, store=store)
    assert [r["loss"] for r in recs] == ["reg", "base"]
    for r in recs:
        assert {"id", "dataset", "encoder", "loss", "settings", "seed", "series", "labels", "versions", "seconds",
                "data_sha256"} <= set(r)
        fixed, training = r["series"]["fixed"], r["series"]["training"]
        assert (len(fixed["all"]["share"]) == 3 and len(training["all"]["share"]) == 2
                and len(fixed["reach"]["wanted"]) == 3)
        assert ((max(fixed["all"]["applied"]) == 0) == (r["loss"] == "reg")
                and len(r["labels"]["end"]["instances"]["carriers"]) == 10)
    monkeypatch.setattr(gradients, "observe", lambda *a, **k: pytest.fail("trained again"))
    assert observe_all(table, ["reg", "base"], seeds=(0,), n_batches=2, store=store) == recs
    assert len(store.read()) == 2


def test_watching_does_not_disturb_training():
    from mlcl.gradients import observe
    from mlcl.learner import train

    ds = mlcl.data.load("digits", n=100)
    settings = dict(epochs=2, batch_size=16, encoder=dict(widths=(4, 8), dropout=0.5))
    seen, plain = (observe(ds, "resnet", "reg", settings, seed=3, n_batches=2),
                   train(ds, "resnet", "reg", settings, seed=3))
    assert [h["train_loss"] for h in seen["history"]] == [h["train_loss"] for h in plain.history]


@pytest.mark.parametrize('study, more', [('gradients', ('n_batches',)), ('representation', ('queue',))])
def test_the_runs_of_a_page_are_found_again(study, more):
    "A page that trains what is missing must not train all of it again because a setting was added."
    from mlcl.learner import recorded
    from mlcl.study import content_hash, store_of
    records = store_of(study).records()
    assert len(records) > 40
    for r in records:
        what = dict(dataset=r['dataset'], encoder=r['encoder'], loss=r['loss'], settings=recorded(r['settings']),
                    seed=r['seed'], **{k: r[k] for k in more})
        assert content_hash(what) == r['run'], r['run']
