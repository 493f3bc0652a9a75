"""Every contrastive loss against its definition in plain Python sets: weights, row sums, values, gradients, and
the identities between losses."""
import math
from fractions import Fraction

import pytest
import sympy
import torch

from mlcl import losses
from mlcl.checks import label_batches, naive_contrast, random_labels
from mlcl.labels import OneHot
from mlcl.losses import LOSSES, MulSupConLoss, SupConLoss
from mlcl.losses.contrast import Block, contrast, positions, row_loss
from test_losses import EMBEDDING, F64, INSTANCES, data, make, quiet
from helpers import DENSE, make_loss

BATCHES = label_batches() | {f"tail {s}": random_labels(10, 7, cardinality=3.0, tail=1.5, seed=s) for s in range(3)}


# One row of W for each loss, from sets alone: the anchor's labels `a`, its position `me` among the references (None:
# not among them),
# the label sets of the instances `inst` and of the prototypes `protos`. References are the instances, then the
# prototypes, as far as the loss has them.

def supcon_any(a, me, inst, protos):
    pos = {j for j, b in enumerate(inst) if j != me and a & b}
    return [Fraction(j in pos, len(pos) or 1) for j in range(len(inst))]


def supcon_all(a, me, inst, protos):
    pos = {j for j, b in enumerate(inst) if j != me and a and a == b}
    return [Fraction(j in pos, len(pos) or 1) for j in range(len(inst))]


def base(a, me, inst, protos):
    jaccard = [Fraction(len(a & b), len(a | b)) if j != me and a | b else Fraction(0) for j, b in enumerate(inst)]
    return [x / (sum(jaccard) or 1) for x in jaccard]


def mulsupcon(a, me, inst, protos):
    w = [Fraction(0)] * len(inst)
    for label in a:
        pos = [j for j, b in enumerate(inst) if j != me and label in b]
        for j in pos:
            w[j] += Fraction(1, len(pos))
    return w


def simdis(a, me, inst, protos):
    n = sum(j != me and bool(a & b) for j, b in enumerate(inst))
    return [Fraction(len(a & b), len(a)) / (1 + len(b - a)) / n if j != me and a & b else Fraction(0)
            for j, b in enumerate(inst)]


def proto(a, me, inst, protos):
    return [Fraction(len(a & b), len(a) or 1) for b in protos]


def abalone(a, me, inst, protos):
    m = [Fraction(0) if j == me else Fraction(1, len(a | b) or 1) for j, b in enumerate(inst)]
    mass = {label: 1 + sum(x for x, b in zip(m, inst) if label in b) for label in a}
    w = [x * sum(1 / mass[label] for label in a & b)
         for x, b in zip(m, inst)] + [sum(1 / mass[label] for label in a & b) for b in protos]
    return [Fraction(x) / (len(a) or 1) for x in w]


def reg(a, me, inst, protos, alpha=0):
    f = []
    for j, b in enumerate(inst + protos):
        r = Fraction(len(a & b), len(b) or 1)
        f.append(Fraction(0) if j == me or r == 0 else r**alpha if alpha >= 0 else Fraction(r == 1))
    w = [Fraction(0)] * len(f)
    for label in a:
        carry = [j for j, b in enumerate(inst + protos) if label in b]
        d = sum(f[j] for j in carry)
        for j in carry:
            w[j] += f[j] / d / len(a) if d else 0
    return w


def overlaps(a, me, inst):
    return {j: Fraction(len(a & b), len(a | b) or 1) for j, b in enumerate(inst) if j != me}


def multisupcon(a, me, inst, protos):
    pos = {j: x for j, x in overlaps(a, me, inst).items() if x > Fraction(3, 10)}
    return [pos.get(j, Fraction(0)) / (len(pos) or 1) for j in range(len(inst))]


def softmax(similar, a, n, t):
    e = {j: math.exp(float(x) / t) for j, x in similar.items()} if a else {}
    return [e.get(j, 0.0) / (sum(e.values()) or 1) for j in range(n)]


def softjac(a, me, inst, protos):
    return softmax(overlaps(a, me, inst), a, len(inst), 0.04)


def gma(a, me, inst, protos):
    train, n_labels = sets(random_labels(50, len(protos), seed=9, tail=0.5)), len(protos)
    n = [sum(label in s for s in train) for label in range(n_labels)]
    idf = [math.log(51 / (1 + k)) + 1 for k in n]

    def similar(one, two):
        both = sum(one in s and two in s for s in train)
        if one == two or both == 50:
            return 1.0
        return (math.log(both * 50 / n[one] / n[two]) / -math.log(both / 50) + 1) / 2 if both else 0.0

    def precision(a, b):
        return (sum(idf[k] * max(similar(k, m) for m in b) for k in a) / max(1, sum(idf[k] for k in a)) if a
                and b else 0.0)

    def f1(a, b):
        p, r = precision(a, b), precision(b, a)
        return 2 * p * r / (p + r) if p + r else 0.0

    return softmax({j: f1(a, b) for j, b in enumerate(inst) if j != me}, a, len(inst), 0.1)


NAIVE = dict(softjac=softjac, gma=gma, multisupcon=multisupcon, sincere=supcon_any, proto=proto, supcon_any=supcon_any,
             supcon_all=supcon_all, base=base, mulsupcon=mulsupcon, simdis=simdis,
             abalone=abalone, wreg=reg, reg=reg)


def sets(y):
    return [{label for label, x in enumerate(row) if x} for row in y.tolist()]


def naive_rows(name, y, refs=None, **settings):
    "W from sets, for instances and (REG) prototypes as anchors, and each anchor's own position."
    inst, protos = sets(y if refs is None else refs), [{label} for label in range(y.shape[1])]
    anchors = [(a, i if refs is None else None) for i, a in enumerate(sets(y))]
    if name in ("reg", "wreg"):
        anchors += [(b, len(inst) + k) for k, b in enumerate(protos)]
    w = [NAIVE[name](a, me, inst, protos, **settings) for a, me in anchors]
    own = [None] * len(anchors) if name == "proto" else [me for _, me in anchors]
    return torch.tensor([[float(x) for x in row] for row in w], dtype=F64), own


def package_rows(loss, y, refs=None):
    "W from the package, for the anchors of every block."
    batch = Block(torch.zeros(len(y), 4, dtype=F64), y)
    anchors, blocks = loss.blocks(batch, batch if refs is None else Block(torch.zeros(len(refs), 4, dtype=F64), refs))
    return torch.cat([torch.cat(loss.weight(a.labels, [r.labels for r in blocks], positions(a, blocks)), 1)
                      for a in anchors])


def naive_loss(name, loss, x, y, p, ref_x=None, ref_y=None):
    "The loss by loops, from embeddings `x` and prototypes `p`."
    w, own = naive_rows(name, y, ref_y)
    z, c = (t / t.norm(dim=1, keepdim=True) for t in (x, p))
    inst = z if ref_x is None else ref_x / ref_x.norm(dim=1, keepdim=True)
    u = torch.cat([z, c]) if name in ("reg", "wreg") else z
    v = c if name == "proto" else inst if name in INSTANCES else torch.cat([inst, c])
    mult = torch.tensor([loss.beta] * len(inst) + [1.0] * len(c), dtype=F64) if name == "abalone" else None
    count = y.sum().item() if name == "mulsupcon" else None
    if name == "sincere":
        return naive_sincere(u, v, w, own, loss.temperature)
    total = naive_contrast(u, v, w, loss.temperature, own=[-1 if o is None else o for o in own], mult=mult, count=count)
    if name != "reg":
        return total
    live = max(sum(row.sum() > 0 for row in w), 1)
    for i, me in enumerate(own):
        exps = {j: (u[i] @ v[j] / loss.temperature).exp() for j in range(len(v)) if j != me}
        for j in exps:
            if w[i, j] > 0:
                gap = (exps[j] / sum(exps.values()) - w[i, j]).clamp(min=0).detach()
                total = total - gap * (u[i] @ v[j]) / loss.temperature / live
    return total


def naive_sincere(u, v, w, own, tau):
    "Each positive with the non-positives alone, by loops."
    total = 0 * u.sum()
    for i, me in enumerate(own):
        exps = {j: (u[i] @ v[j] / tau).exp() for j in range(len(v)) if j != me}
        rest = sum(e for j, e in exps.items() if w[i, j] == 0)
        for j in exps:
            if w[i, j] > 0:
                total = total - w[i, j] * (exps[j] / (exps[j] + rest)).log()
    return total / max(sum(row.sum() > 0 for row in w), 1)


def test_every_contrastive_loss_has_a_definition_here():
    assert set(NAIVE) == set(EMBEDDING)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", EMBEDDING)
def test_weights(name, batch):
    y = BATCHES[batch]
    loss = make(name, y.shape[1])
    assert (package_rows(loss, y) - naive_rows(name, y)[0]).abs().max() < 1e-12
    for refs in (random_labels(6, y.shape[1], tail=1.0, seed=4), y) if name != "proto" else ():
        assert (package_rows(loss, y, refs) - naive_rows(name, y, refs)[0]).abs().max() < 1e-12


@pytest.mark.parametrize("alpha", [0, 1, 2, -1])
def test_weights_of_reg(alpha):
    for y in BATCHES.values():
        assert (package_rows(make("wreg", y.shape[1], alpha=alpha), y)
                - naive_rows("wreg", y, alpha=alpha)[0]).abs().max() < 1e-12


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", EMBEDDING)
def test_row_sums(name, batch):
    y = BATCHES[batch]
    got, some = package_rows(make(name, y.shape[1]), y).sum(1)[: len(y)], y.sum(1) > 0
    others = [[b for j, b in enumerate(sets(y)) if j != i] for i in range(len(y))]
    if name == "mulsupcon":
        expected = [sum(any(label in b for b in o) for label in a) for a, o in zip(sets(y), others)]
    elif name in DENSE:
        expected = [float(bool(a) and len(y) > 1) for a in sets(y)]
    elif name == "multisupcon":
        pos = [[Fraction(len(a & b), len(a | b)) for b in o if a & b and Fraction(len(a & b), len(a | b))
                > Fraction(3, 10)] for a, o in zip(sets(y), others)]
        expected = [float(sum(p) / (len(p) or 1)) for p in pos]
    elif name in INSTANCES:
        expected = [float(any(a and a == b if name == "supcon_all" else a & b for b in o))
                    for a, o in zip(sets(y), others)]
    else:
        expected = some.double().tolist()
    if name == "simdis":
        assert (got <= torch.tensor(expected) + 1e-12).all() and torch.equal(got > 0, torch.tensor(expected) > 0)
        equal = [all(a == b for b in o if a & b) for a, o in zip(sets(y), others)]
        assert torch.equal((got - torch.tensor(expected)).abs() < 1e-12, torch.tensor(equal) | (got == 0))
    else:
        assert (got - torch.tensor(expected, dtype=F64)).abs().max() < 1e-12


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", EMBEDDING)
def test_value_and_gradient_are_the_loops(name, batch):
    y = BATCHES[batch]
    loss, x = make(name, y.shape[1]), data(name, y).requires_grad_()
    p = getattr(loss, "prototypes", torch.randn(y.shape[1], 4, dtype=F64, requires_grad=True))
    other = torch.randn(6, 4, dtype=F64), random_labels(6, y.shape[1], seed=4)
    for refs in ((), other) if name != "proto" else ((),):
        value, naive = quiet(loss, x, y, *refs), naive_loss(name, loss, x, y, p, *refs)
        assert value.item() == pytest.approx(naive.item(), abs=1e-9)
        if naive.requires_grad:
            got, expected = (torch.autograd.grad(v, [x, p], allow_unused=True, materialize_grads=True)
                             for v in (value, naive))
            assert all((a - b).abs().max() < 1e-9 for a, b in zip(got, expected))
        else:
            assert value == 0 and not torch.autograd.grad(value, x)[0].any()


@pytest.mark.parametrize("name", EMBEDDING)
def test_gradient_by_the_scores(name):
    "(ω σ − W)/(τ N), where N is the normaliser; REG without the positive part at positives."
    for y in (BATCHES["random"], BATCHES["with empty sets"], BATCHES["tail 0"]):
        loss, (w, own) = make(name, y.shape[1], temperature=0.2), naive_rows(name, y)
        me = torch.tensor([-1 if o is None else o for o in own])
        m, mass = w.shape[1], w.sum(1, keepdim=True)
        log_mult = torch.where(torch.arange(m) < len(y), math.log(loss.beta),
                               0.0).double() if name == "abalone" else torch.zeros(m, dtype=F64)
        n = loss.count(y) or (mass > 0).sum().item()
        s = torch.rand(len(w), m, dtype=F64, requires_grad=True)
        part, found = row_loss(s, w, 0.2, me, log_mult, loss.drop_repulsion, loss.apart).sum(), (w.sum(1) > 0).sum()
        (g,) = torch.autograd.grad(part / n, s)
        sigma = (s.detach() / 0.2 + log_mult).masked_fill(torch.arange(m) == me[:, None], -math.inf).softmax(1)
        stated = (mass * sigma - w) / 0.2 / n
        if name == "sincere":
            e = (s.detach() / 0.2).exp().masked_fill(torch.arange(m) == me[:, None], 0)
            rest = (e * (w == 0)).sum(1, keepdim=True)
            pull = w * rest / (e + rest).clamp(min=1e-300)
            stated = ((w == 0) * e / rest.clamp(min=1e-300) * pull.sum(1, keepdim=True) - pull) / 0.2 / n
            assert (stated[w > 0] <= 0).all() and (stated[w == 0] >= 0).all()
        if name == "reg":
            stated = torch.where(w > 0, (sigma - w).clamp(max=0), sigma) * (mass > 0) / 0.2 / n
            assert (g[w > 0] <= 1e-12).all() and ((sigma - w)[w > 0] > 0).any()
        else:
            assert g.sum(1).abs().max() < 1e-10
        assert (g - stated).abs().max() < 1e-10 and found == (mass > 0).sum()


PAIRS, LONE = torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 2, 3])


@pytest.mark.parametrize("classes", [PAIRS, LONE], ids=["all have positives", "two have none"])
def test_one_hot_losses_over_instances_are_one(classes):
    "Class indices and one-hot rows alike: equal, but for the normaliser B of MulSupCon."
    y, x = torch.eye(4, dtype=F64)[classes], data("base", torch.zeros(7, 4))
    values = {name: [make(name, 4)(x, labels).item() for labels in (y, classes)] for name in INSTANCES
              if name not in (*DENSE, "sincere")}
    positives = sum((classes == c).sum().item() > 1 for c in classes)
    assert values["base"][0] > 0
    for name, pair in values.items():
        ratio = positives / 7 if name == "mulsupcon" else 1.0
        assert pair == pytest.approx([values["base"][0] * ratio] * 2, abs=1e-12)
    assert (positives == 7) == (classes is PAIRS)


@pytest.mark.parametrize("positives", ["any", "all"])
def test_supcon_of_class_indices_is_the_original(positives):
    "−1/|P| Σ log σ over the same class, by loops over indices, mean over anchors that have a positive."
    x, terms = data("base", torch.zeros(7, 4)), []
    z = x / x.norm(dim=1, keepdim=True)
    for i, c in enumerate(LONE.tolist()):
        pos = [j for j, d in enumerate(LONE.tolist()) if j != i and d == c]
        log_z = torch.stack([z[i] @ z[k] / 0.1 for k in range(7) if k != i]).logsumexp(0)
        terms += [-sum(z[i] @ z[p] / 0.1 - log_z for p in pos) / len(pos)] if pos else []
    assert SupConLoss(positives=positives)(x, LONE).item() == pytest.approx((sum(terms) / len(terms)).item(), abs=1e-12)


@pytest.mark.parametrize("positives", ["any", "all"])
def test_one_hot_losses_with_prototypes_are_supcon(positives):
    y, x = torch.eye(4, dtype=F64)[LONE], data("base", torch.zeros(7, 4))
    supcon, eye = SupConLoss(positives=positives), torch.eye(4, dtype=F64)
    for alpha in (0.0, 0.5, 1.0, 2.0, -1.0):
        wreg = make("wreg", 4, alpha=alpha)
        both = torch.cat([x, wreg.prototypes.detach()])
        assert wreg(x, y).item() == pytest.approx(supcon(both, torch.cat([y, eye])).item(), abs=1e-12)
    abalone = make("abalone", 4, beta=1.0)
    batch, p = Block(x, y), Block(abalone.prototypes.detach(), OneHot(torch.arange(4), 4))
    assert abalone(x, y).item() == pytest.approx(contrast([batch], [batch, p], supcon.weight).item(), abs=1e-12)
    w, same = package_rows(abalone, y), y @ torch.cat([y, eye]).T
    n_pos = same[:, :7].sum(1, keepdim=True) - 1
    assert (torch.allclose(w[w > 0], (same / (n_pos + 1))[w > 0], atol=1e-12)
            and torch.equal(w > 0, (same - torch.eye(7, 11)) > 0))


def test_reg_has_the_weights_of_mulsupcon():
    "α = 0: MulSupCon's weights over instances and prototypes, each row divided by the number of the anchor's labels."
    for y in BATCHES.values():
        a = torch.cat([y, torch.eye(y.shape[1], dtype=F64)])
        (w,) = MulSupConLoss().weight(a, [a], torch.arange(len(a)))
        assert (package_rows(make("reg", y.shape[1]), y) - w / a.sum(1, keepdim=True).clamp(min=1)).abs().max() < 1e-12


@pytest.mark.parametrize("value", ["most", "ANY", None, 1, ["any"]])
def test_positives_must_be_any_or_all(value):
    with pytest.raises(ValueError, match="^positives: expected 'any' or 'all', got"):
        SupConLoss(positives=value)


def test_short_names_take_a_temperature_alone():
    for name in INSTANCES:
        assert make_loss(name, 3, 4, temperature=0.5).temperature == 0.5
        with pytest.raises(ValueError, match=r"expected for .* temperature\b.*, got positives"):
            make_loss(name, 3, 4, positives="any")
    assert (LOSSES["supcon_any"]().positives, LOSSES["supcon_all"]().positives,
            SupConLoss().positives) == ("any", "all", "any")


# Symbols: one anchor, two references, and their factors β in the denominator; a batch of three instances is three
# such rows.

TAU, S, W, B = (sympy.Symbol("tau", positive=True), sympy.symbols("s1 s2", real=True),
                sympy.symbols("w1 w2", positive=True), sympy.symbols("b1 b2", positive=True))
Z = sum(b * sympy.exp(s / TAU) for b, s in zip(B, S))
SIGMA = [b * sympy.exp(s / TAU) / Z for b, s in zip(B, S)]
LOSS = -sum(w * (s / TAU - sympy.log(Z)) for w, s in zip(W, S))


def test_symbolic_gradient_of_the_core():
    for j in range(2):
        assert sympy.simplify(sympy.diff(LOSS, S[j]) - (sum(W) * SIGMA[j] - W[j]) / TAU) == 0


def test_symbolic_gate_of_reg():
    "The stop-gradient is a constant g while differentiating; only then it becomes max(σ − w, 0)."
    g, unit_row = sympy.symbols("g1 g2", nonnegative=True), {W[1]: 1 - W[0], B[0]: 1, B[1]: 1}
    loss = LOSS - sum(gap * s / TAU for gap, s in zip(g, S))
    x = sympy.Symbol("x", real=True)
    assert sympy.simplify((x - sympy.Max(x, 0) - sympy.Min(x, 0)).rewrite(sympy.Piecewise)) == 0
    for j in range(2):
        gap = (SIGMA[j] - W[j]).subs(unit_row)
        slope = sympy.diff(loss, S[j]).subs(unit_row)
        assert sympy.simplify(slope - (gap - g[j]) / TAU) == 0
    negative = (sympy.diff(loss, S[1]) - SIGMA[1] / TAU).subs({W[1]: 0, W[0]: 1, g[1]: 0, B[0]: 1, B[1]: 1})
    assert sympy.simplify(negative) == 0


@pytest.mark.parametrize("drop", [False, True])
def test_the_core_is_the_symbolic_loss(drop):
    "Three instances, each the anchor of its row: the code's gradient is the symbolic one, at numbers."
    torch.manual_seed(0)
    s, w, tau = torch.rand(3, 3, dtype=F64, requires_grad=True), torch.rand(3, 3, dtype=F64).fill_diagonal_(0), 0.3
    w = w / w.sum(1, keepdim=True)
    part = row_loss(s, w, tau, torch.arange(3), drop_repulsion=drop).sum()
    (g,) = torch.autograd.grad(part, s)
    slopes = [sympy.lambdify([*S, *W, *B, TAU], sympy.diff(LOSS, S[j])
                             - (sympy.Max(SIGMA[j] - W[j], 0) / TAU if drop else 0)) for j in range(2)]
    for i in range(3):
        a, b = (j for j in range(3) if j != i)
        numbers = [s[i, a].item(), s[i, b].item(), w[i, a].item(), w[i, b].item(), 1, 1, tau]
        assert [g[i, a].item(), g[i, b].item(),
                g[i, i].item()] == pytest.approx([slopes[0](*numbers), slopes[1](*numbers), 0], abs=1e-12)
    assert not drop or ((g <= 1e-12).all() and (g.abs() < 1e-12).sum() > 3)


def test_sincere_with_the_weights_of_reg():
    "W of REG over instances and prototypes; value and gradients by loops; dense and tiled."
    for y in BATCHES.values():
        x = data("sincere", y).requires_grad_()
        for tile in (None, 1, 3):
            loss = make("sincere", y.shape[1], weights="reg", tile=tile)
            w, own = naive_rows("wreg", y)
            u = torch.cat([t / t.norm(dim=1, keepdim=True) for t in (x, loss.prototypes)])
            value, naive = quiet(loss, x, y), naive_sincere(u, u, w, own, 0.1)
            assert value.item() == pytest.approx(naive.item(), abs=1e-10)
            a, b = (torch.autograd.grad(v, [x, loss.prototypes], retain_graph=True) for v in (value, naive))
            assert all((p - q).abs().max() < 1e-10 for p, q in zip(a, b))


def test_sincere_between_positives():
    "The score of one positive has no influence on the force on another; rows of the gradient sum to zero."
    w = torch.tensor([[0.6, 0.4, 0.0, 0.0]], dtype=F64)
    forces = []
    for second in (-0.9, 0.9):
        s = torch.tensor([[0.3, second, 0.1, -0.2]], dtype=F64, requires_grad=True)
        part = row_loss(s, w, 0.1, apart=True).sum()
        forces.append(torch.autograd.grad(part, s)[0][0])
    assert (forces[0][0] == forces[1][0] and all(abs(f.sum()) < 1e-12 for f in forces)
            and abs(forces[0][1]) > abs(forces[1][1]))


def test_an_anchor_with_positives_only():
    "SINCERE: its loss is 0, it is counted, and its gradient is 0; dense, tiled, and where e^s leaves the format."
    y, x = torch.ones(6, 3), torch.randn(6, 4)
    y[5] = torch.tensor([0.0, 0, 1])
    y[:5, 2] = 0
    for t in (0.01, 0.1):
        for tile in (None, 2):
            for refs in ((), (x[:3] + 1, y[:3])):
                anchors = x[:5].clone().requires_grad_()
                value = make("sincere", 3, temperature=t, tile=tile).float()(anchors, y[:5], *refs)
                assert value.item() == 0 and not torch.autograd.grad(value, anchors)[0].any()
            assert make("sincere", 3, temperature=t, tile=tile).float()(x, y).item() > 0


def test_bad_settings_of_the_newer_losses():
    for name, settings, argument in (("softjac", dict(t=0), "t"), ("multisupcon", dict(threshold=1.0), "threshold"),
                                     ("multisupcon", dict(threshold=-0.1), "threshold"),
                                     ("sincere", dict(weights="all"), "weights"), ("sincere", dict(alpha=1.0), "alpha"),
                                     ("gma", dict(lam=0.5), "label_embeddings"),
                                     ("gma", dict(lam=2.0), "lam"),
                                     ("gma", dict(lam=0.5, label_embeddings=torch.zeros(4, 2)), "label_embeddings"),
                                     ("gma", dict(cooccurrence=torch.ones(3, 2), n_instances=9), "cooccurrence"),
                                     ("gma", dict(cooccurrence=[[1, 2], [2, 3]], n_instances=9), "cooccurrence"),
                                     ("gma", dict(cooccurrence=[[2, 1], [0, 3]], n_instances=9), "cooccurrence"),
                                     ("gma", dict(cooccurrence=[[2, 1], [1, 3]], n_instances=2), "cooccurrence"),
                                     ("gma", dict(cooccurrence=[[2, 1], [1, 3]]), "labels")):
        with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
            make_loss(name, 3, 4, **settings)
    y = random_labels(50, 3)
    for given, argument in ((dict(label_counts=[1, 2, 3]), "label_counts"), (dict(n_instances=49), "n_instances"),
                            (dict(labels=y * 2), "labels"), (dict(), "labels")):
        with pytest.raises(ValueError, match=f"^{argument}: expected .*got"):
            losses.make_loss("gma", 3, 4, **({"labels": y} | given if given else {}))


def test_gma_takes_counts_for_the_matrix():
    y, x, z = random_labels(50, 5, seed=9, tail=0.5), torch.randn(8, 4, dtype=F64), random_labels(8, 5)
    one = losses.make_loss("gma", 5, 4, y.sum(0).int().tolist(), 50, labels=y.numpy().astype("uint8"))
    two = losses.make_loss("gma", 5, 4, cooccurrence=(y.T @ y).int().numpy(), n_instances=50)
    assert one(x, z).item() == two(x, z).item() and one.half()(x, z).item() == two(x, z).item()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1 / 3])
def test_the_threshold_itself_is_no_positive(threshold):
    "In both formats alike: 3/10, 1/2 and 1/3 are not larger than themselves."
    a = torch.zeros(3, 10)
    a[0], a[1, :3], a[2, :5] = 1, 1, 1
    b = torch.zeros(2, 10)
    b[0, :1], b[1, :3] = 1, 1
    for x, y in ((a[:1], a[1:]), (b[1:], b[:1])):
        w = [make("multisupcon", 10, threshold=threshold).weight(x.to(f), [y.to(f)], torch.tensor([-1]))[0]
             for f in (torch.float32, F64)]
        assert torch.equal(w[0] > 0, w[1] > 0)
        assert torch.equal(w[1][0] > 0,
                           torch.tensor([float(v) > threshold + 1e-9
                                         for v in ([0.3, 0.5] if len(y) == 2 else [1 / 3])]))
