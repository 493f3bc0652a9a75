"Tiles: every tiling gives the value and the gradient that automatic differentiation gives to the definition."
import math
import subprocess
import sys
import warnings
from itertools import product

import pytest
import torch

from mlcl.checks import label_batches, random_labels
from mlcl.gradients import forces
from mlcl.labels import OneHot
from mlcl.losses import LOSSES, NoPositivesWarning
from mlcl.losses.contrast import Block, contrast, definition, row_loss, unit
from mlcl.losses import tiles
from mlcl.losses.tiles import sizes_of
from helpers import make_loss

EMBEDDING = [n for n, c in LOSSES.items() if c.route == "embeddings"]
F64 = torch.float64


def make(name, n_labels=6, dim=5, dtype=F64, **settings):
    torch.manual_seed(1)
    return make_loss(name, n_labels, dim, **settings).to(dtype)


def data(n=11, n_labels=6, dim=5, dtype=F64, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, dim, dtype=dtype, requires_grad=True), random_labels(n, n_labels, seed=seed)


def value_and_gradients(f, loss, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoPositivesWarning)
        value = f()
    return value, torch.autograd.grad(value, [x, *loss.parameters()])


@pytest.mark.parametrize("tile", [None, 1, 2, 4, 11, 100])
@pytest.mark.parametrize("name", EMBEDDING)
def test_equals_the_definition(name, tile):
    "Uneven last tile, tile 1, tile > N, tiles that end inside the prototypes; all batches and temperatures."
    for y in [*label_batches().values(), random_labels(11, 6, tail=1.0)]:
        for t in (0.05, 0.5):
            loss, (x, _) = make(name, y.shape[1], temperature=t, tile=tile), data(len(y))
            value, grads = value_and_gradients(lambda: loss(x, y), loss, x)
            expected, derived = value_and_gradients(lambda: definition(loss, x, y), loss, x)
            assert value.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
            for a, b in zip(grads, derived):
                assert (a - b).abs().max() < 1e-12 * max(1, b.abs().max().item())


@pytest.mark.parametrize("tile", [None, 3])
@pytest.mark.parametrize("name", [n for n in EMBEDDING if n != "proto"])
def test_given_references(name, tile):
    "References that replace the batch, with their own gradient."
    loss, (x, y), (r, yr) = make(name, tile=tile), data(), data(8, seed=4)
    value = loss(x, y, r, yr)
    grads = torch.autograd.grad(value, [x, r], allow_unused=True)
    expected = definition(loss, x, y, (r, yr))
    derived = torch.autograd.grad(expected, [x, r], allow_unused=True)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(grads, derived):
        assert (a is None) == (b is None) and (a is None or (a - b).abs().max() < 1e-12)


@pytest.mark.parametrize("name", EMBEDDING)
def test_float32(name):
    "Dense and tiled in float32: the value to 1e-6, the gradient to 1e-5 of its largest entry; and both near float64."
    x, y = data(300, 20, 32, torch.float32, seed=2)
    y = random_labels(300, 20, 3.0, tail=1.0).float()
    dense, tiled = make(name, 20, 32, torch.float32), make(name, 20, 32, torch.float32, tile=37)
    (a, ga), (b, gb) = (value_and_gradients(lambda l=l: l(x, y), l, x) for l in (dense, tiled))
    assert b.item() == pytest.approx(a.item(), rel=1e-6)
    exact = make(name, 20, 32, torch.float32).double()
    x64 = x.detach().double().requires_grad_()
    c, gc = value_and_gradients(lambda: exact(x64, y), exact, x64)
    assert a.item() == pytest.approx(c.item(), rel=2e-6)
    for p, q, r in zip(ga, gb, gc):
        assert (p - q).abs().max() <= 1e-5 * p.abs().max()
        assert (p - r).abs().max() <= 1e-5 * r.abs().max()


@pytest.mark.parametrize("tile", [None, 1, 3, 50])
@pytest.mark.parametrize("form", [dict(), dict(drop_repulsion=True), dict(apart=True)], ids=["plain", "gate", "apart"])
def test_rows_of_any_mass(form, tile):
    """Random W whose rows have any mass, some none; factors β; the tiled loss is the sum of `row_loss`, in value
    and gradient."""
    for seed, t in product(range(4), (0.02, 0.1, 1.0)):
        torch.manual_seed(seed)
        x, p = torch.randn(9, 4, dtype=F64, requires_grad=True), torch.randn(5, 4, dtype=F64, requires_grad=True)
        w = (3 * torch.rand(9, 14, dtype=F64) * (torch.rand(9, 14) < 0.4)).fill_diagonal_(0)
        batch, others = Block(x, torch.ones(9, 5), math.log(0.3)), Block(p, OneHot(5))
        rows = lambda labels, refs, me: list(w[me].split([9, 5], 1))
        value = contrast([batch], [batch, others], rows, temperature=t, tile=tile, count=1, **form)
        beta = torch.cat([torch.full((9,), math.log(0.3), dtype=F64), torch.zeros(5, dtype=F64)])
        plain = row_loss(unit(x) @ unit(torch.cat([x, p])).T, w, t, torch.arange(9), beta, **form).sum()
        assert value.item() == pytest.approx(plain.item(), rel=1e-11)
        for a, b in zip(torch.autograd.grad(value, [x, p]), torch.autograd.grad(plain, [x, p])):
            assert (a - b).abs().max() < 1e-11 * b.abs().max()


def test_the_gate_is_stated_for_rows_of_any_mass():
    """A loss whose rows have another mass than 1, with the gate on: definition and loss in use agree, and no
    positive is pushed."""
    (x, y), loss = data(), make("mulsupcon")
    loss.drop_repulsion = True
    assert loss(x, y).item() == pytest.approx(definition(loss, x, y).item(), rel=1e-12)
    f = forces(loss, x.detach(), y)
    assert (f.force[f.weight > 0] > -1e-12).all() and (f.law[f.weight > 0] < -1e-3).any()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0, -1.0])
@pytest.mark.parametrize("regularize", [True, False])
def test_reg_for_every_alpha(alpha, regularize):
    (x, y), losses = data(), [make("reg", alpha=alpha, regularize=regularize, tile=t) for t in (None, 3)]
    expected, derived = value_and_gradients(lambda: definition(losses[0], x, y), losses[0], x)
    for loss in losses:
        value, grads = value_and_gradients(lambda: loss(x, y), loss, x)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(grads, derived))


def test_sparse_and_dense_label_products_agree():
    "Few labels in many columns take the sparse way, many take the dense way: both equal the definition."
    for p in (0.01, 0.3):
        x, _ = data(40, dim=5)
        y = (torch.rand(40, 60) < p).double()
        for name, tile in product(EMBEDDING, (None, 13)):
            loss = make(name, 60, tile=tile)
            (a, ga), (b, gb) = (value_and_gradients(f, loss, x)
                                for f in (lambda: loss(x, y), lambda: definition(loss, x, y)))
            assert (a.item() == pytest.approx(b.item(), rel=1e-11)
                    and all((p - q).abs().max() < 1e-11 for p, q in zip(ga, gb)))


def test_gradient_gates_of_the_autograd_function():
    """Only what is asked for: no gradient under no_grad, for frozen prototypes, or for frozen embeddings; a second
    derivative is refused."""
    x, y = data()
    loss = make("reg")
    with torch.no_grad():
        assert not loss(x, y).requires_grad
    loss.prototypes.requires_grad_(False)
    loss(x, y).backward()
    assert loss.prototypes.grad is None and x.grad is not None
    loss.prototypes.requires_grad_(True)
    expected = torch.autograd.grad(definition(loss, x.detach(), y), loss.prototypes)[0]
    assert (torch.autograd.grad(loss(x.detach(), y), loss.prototypes)[0] - expected).abs().max() < 1e-12
    value = loss(x, y)
    value.backward(retain_graph=True)
    value.backward()
    (g,) = torch.autograd.grad(loss(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
    value = loss(x, y)
    (g,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):  # a penalty must not count for nothing
        (value + g.pow(2).sum()).backward()


def test_gradient_is_scaled_by_what_follows():
    x, y = data()
    loss = make("abalone", tile=3)
    (a,) = torch.autograd.grad(loss(x, y), x)
    (b,) = torch.autograd.grad(-3 * loss(x, y) + 1, x)
    assert (b + 3 * a).abs().max() < 1e-12


def test_inputs_are_left_alone():
    x, y = data()
    before, labels = x.detach().clone(), y.clone()
    for name in EMBEDDING:
        loss = make(name)
        state = {k: v.clone() for k, v in loss.state_dict().items()}
        loss(x, y).backward()
        assert torch.equal(x, before) and torch.equal(y, labels)
        assert all(torch.equal(v, state[k]) for k, v in loss.state_dict().items())


@pytest.mark.parametrize("bad", [0.5, 2.0, -1.0, 1e-30, 1 + 1e-6, 1e30, float("inf"), float("nan")])
def test_every_number_but_zero_and_one_is_refused_as_a_label(bad):
    x, y = data(dtype=torch.float32)
    y = y.float()
    y[3, 2] = bad
    with pytest.raises(ValueError, match="^labels: expected only 0 and 1, got"):
        make("base", dtype=torch.float32)(x, y)


@pytest.mark.parametrize("name", EMBEDDING)
def test_one_number_that_is_not_finite_is_found(name):
    for bad in (float("nan"), float("inf")):
        x, y = data()
        x.data[4, 1] = bad
        with pytest.raises(ValueError, match="^embeddings: expected finite numbers, got 1 NaN or infinite of 55"):
            make(name)(x, y)
        with pytest.raises(ValueError, match="^embeddings: expected finite numbers, got 1 NaN or "
                                             "infinite of 55"), warnings.catch_warnings():
            warnings.simplefilter("ignore", NoPositivesWarning)
            make(name)(x, torch.zeros_like(y))


@pytest.mark.parametrize("tile", [0, -1, 1.5, True, "a"])
def test_bad_tile(tile):
    with pytest.raises(ValueError, match="^tile: expected None or an integer >= 1, got"):
        make("reg", tile=tile)


def test_bad_product():
    with pytest.raises(ValueError, match="^product: expected None or torch.bfloat16, got"):
        make("reg", product=torch.float16)
    with pytest.raises(ValueError, match="^product: expected None at a temperature below 0.05"):
        make("reg", product=torch.bfloat16, temperature=0.02)


@pytest.mark.parametrize("name", EMBEDDING)
@pytest.mark.parametrize("tile", [None, 37])
def test_products_in_bfloat16(name, tile):
    "The stated tolerance: value 2 %, gradient 5 % in norm, of the float32 loss, for τ ≥ 0.05."
    x, y = data(200, 20, 64, torch.float32)
    y = random_labels(200, 20, 3.0)
    for t in (0.05, 0.1, 1.0):
        exact, rough = (make(name, 20, 64, torch.float32, temperature=t),
                        make(name, 20, 64, torch.float32, temperature=t, product=torch.bfloat16, tile=tile))
        (a, ga), (b, gb) = (value_and_gradients(lambda l=l: l(x, y), l, x) for l in (exact, rough))
        assert b.item() == pytest.approx(a.item(), rel=0.02)
        assert all((p - q).norm() <= 0.05 * p.norm() for p, q in zip(ga, gb))


def test_a_whole_matrix_is_kept_only_while_it_is_small():
    assert sizes_of(1000, 1000, None, "cpu") == (524, True) and sizes_of(5000, 5000, None, "cpu")[1] is False
    assert sizes_of(1000, 1000, 7, "cpu") == (7, False) and sizes_of(10, 10**9, None, "cpu")[0] == 10
    assert sizes_of(10**5, 10**5, None, "cuda") == (2**26 // 10**5, False)


def test_row_gradient_compiles():
    "The elementwise part is one graph for torch.compile, which fuses it on a GPU."
    graph = torch.compile(tiles.row_gradient, backend="aot_eager", fullgraph=True)
    s, w = torch.randn(5, 9), torch.rand(5, 9) * (torch.rand(5, 9) < 0.4)
    for drop in (True, False):
        for mult in (None, torch.randn(9)):
            a, b = torch.empty(5, 9), torch.empty(5, 9)
            (x, n), (z, m) = tiles.row_gradient(s.clone(), w, mult, drop, a), graph(s.clone(), w, mult, drop, b)
            assert x.item() == pytest.approx(z.item()) and n == m and torch.allclose(a, b)


MEMORY = """
import re, torch
from mlcl.losses import make_loss
from mlcl.checks import random_labels
torch.manual_seed(0)
B, L, D = {B}, {L}, 64
x, y = torch.randn(B, D, requires_grad=True), random_labels(B, L, 3.).float()
loss = make_loss({name!r}, L, D)
loss(x[:64], y[:64]).backward()
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")
before = peak()
loss(x, y).backward()
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", ["reg", "base", "abalone"])
def test_memory_does_not_grow_with_the_square(name):
    "6,144 instances: the matrices of the definition would take over 144 MiB each, of which it needs several."
    out = subprocess.run([sys.executable, "-c", MEMORY.format(B=6144, L=100, name=name)], capture_output=True,
                         text=True, check=True)
    assert float(out.stdout) < 80
