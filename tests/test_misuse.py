"""What cannot mean anything is refused with a message, and what can has one value, whatever the format: blocks
that do not fit, class indices, mixed formats, numbers of NumPy."""
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mlcl.checks import random_labels
from mlcl.losses import Block, ContrastiveLoss, NoPositivesWarning, RegLoss, SupConLoss, contrast
from mlcl.losses.checks import check_flag, common_width
from mlcl.losses.contrast import definition
from mlcl.losses.reg import carried
from mlcl.labels import OneHot
from mlcl.own import BaselineClassifier, Blend, MultiLabelClassifier, cell_sets, compare, load_model, predict_file, read
from mlcl.own.choices import crossfitted, label_thresholds
from mlcl.own.quality import brier, ndcg_at, precision_at, propensities, propensity_precision_at, reliability
from mlcl.scale.queue import LabelQueue, WithQueue
from test_losses import EMBEDDING, F64, make, quiet
from helpers import make_loss

REFS = [n for n in EMBEDDING if n != "proto"]  # losses that compare with instances
FORMATS = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, F64]


def filled(x, y, n_labels=None):
    queue = LabelQueue(len(x), x.shape[1], n_labels or y.shape[1]).to(x.dtype)
    queue.enqueue(x, y)
    return queue


def raises(argument, f, *parts):
    "The message begins with the argument and holds all parts."
    with pytest.raises(ValueError, match=f"^{argument}: expected") as e:
        f()
    assert all(re.search(rf"\b{p}\b", str(e.value)) for p in parts), str(e.value)


# 1. Blocks that do not fit

def test_blocks_of_unequal_width_or_unequal_labels_are_refused():
    b = lambda n, d, k: Block(torch.randn(n, d), torch.ones(n, k))
    weight = SupConLoss().weight
    raises("blocks", lambda: contrast([b(3, 4, 2)], [b(3, 8, 2)], weight), 4, 8, "columns")
    raises("blocks", lambda: contrast([b(3, 4, 2)], [b(3, 4, 2), b(2, 4, 5)], weight), 2, 5, "labels")
    raises("blocks", lambda: contrast([b(3, 4, 2)], [Block(torch.randn(2, 4), OneHot(3)[:2])], weight), 2, 3, "labels")
    raises("blocks", lambda: contrast([b(3, 4, 2)], [Block(torch.randn(4, 4), torch.ones(3, 2))], weight), 4, 3)


@pytest.mark.parametrize("name", REFS)
def test_a_queue_of_another_width_is_refused(name):
    "By the loss that knows its sizes at once, by the others at the first batch; also while empty and in evaluation."
    fresh = lambda: make(name, 5, 8)
    if hasattr(fresh(), "prototypes"):
        raises("queue", lambda: WithQueue(fresh(), LabelQueue(16, 4, 5)), 8, 4, "loss")
        raises("queue", lambda: WithQueue(fresh(), LabelQueue(16, 8, 6)), 5, 6, "loss")
    else:
        for loss in (WithQueue(fresh(), LabelQueue(16, 4, 5)),
                     WithQueue(fresh(), filled(torch.randn(3, 4), torch.ones(3, 5))),
                     WithQueue(fresh(), LabelQueue(16, 4, 5)).eval()):
            raises("embeddings", lambda: loss(torch.randn(6, 8), torch.ones(6, 5)), 4, 8, "queue")
        loss = WithQueue(fresh(), LabelQueue(16, 8, 5))
        raises("labels", lambda: loss(torch.randn(6, 8), torch.ones(6, 4)), 5, 4, "queue")
        raises("embeddings", lambda: loss.queue.enqueue(torch.randn(6, 4), torch.ones(6, 5)), 8, 4, "queue")
        raises("labels", lambda: loss.queue.enqueue(torch.randn(6, 8), torch.ones(6, 4)), 5, 4, "queue")


def test_prototypes_changed_from_outside_are_refused():
    loss = make("reg", 5, 4)
    loss.prototypes = torch.nn.Parameter(torch.randn(5, 6, dtype=F64))
    raises("blocks", lambda: loss(torch.randn(3, 4), torch.ones(3, 5)), 4, 6)
    loss.prototypes = torch.nn.Parameter(torch.randn(7, 4, dtype=F64))
    raises("blocks", lambda: loss(torch.randn(3, 4), torch.ones(3, 5)), 5, 7)


def test_a_loss_of_ones_own_cannot_slip_through():
    class Own(ContrastiveLoss):
        def blocks(self, batch, refs): return [batch], [refs, Block(torch.randn(2, 3), torch.ones(2, 5))]
        def weight(self, labels, refs, me): return [torch.ones(len(labels), len(r)) for r in refs]
    raises("blocks", lambda: Own()(torch.randn(4, 6), torch.ones(4, 5)), 6, 3)


# 2. Class indices

@pytest.mark.parametrize("name", REFS)
def test_class_indices_are_the_multi_hot_labels(name):
    "A batch that misses the last class, references that do, and both given as indices or as rows."
    x, r = torch.randn(4, 4, dtype=F64), torch.randn(4, 4, dtype=F64)
    for a, b in (([0, 1, 1, 2], [0, 1, 3, 4]), ([0, 1, 4, 4], [0, 1, 1, 1])):
        a, b, eye = torch.tensor(a), torch.tensor(b), torch.eye(5)
        loss = make(name, 5)
        want = quiet(loss, x, eye[a], r, eye[b]).item()
        assert want != 0 or name == "reg"
        for p, q in ((a, b), (a, eye[b]), (eye[a], b)):
            assert quiet(loss, x, p, r, q).item() == pytest.approx(want, abs=1e-12)
        wrapped = WithQueue(loss, filled(r, b, 5))
        assert quiet(wrapped, x, a).item() == pytest.approx(quiet(wrapped, x, eye[a]).item(), abs=1e-12)


def test_class_indices_beyond_the_last_are_named():
    x, i = torch.randn(4, 4), torch.tensor([0, 1, 1, 5])
    raises("labels", lambda: SupConLoss()(x, i, x + 1, torch.ones(4, 5)), 4, 5)
    raises("ref_labels", lambda: SupConLoss()(x, torch.ones(4, 5), x + 1, i), 4, 5, "labels")
    raises("labels", lambda: WithQueue(SupConLoss(), LabelQueue(8, 4, 5))(x, i), 4, 5, "queue")
    raises("labels", lambda: make("reg", 5, 4)(x, i), 4, 5, "loss")


def test_common_width():
    i, y = torch.tensor([0, 3]), torch.ones(2, 7)
    assert [common_width(*t) for t in ((i,), (i, None), (i, i + 2), (i, y), (y, i), (y, y[:, :3]), (None,), ([1],),
                                       (i[:0],), (i / 2,))] == [4, 4, 6, 7, 7, 7, None, None, None, None]


# 3. and 4. One number format

@pytest.mark.parametrize("name", EMBEDDING)
def test_any_pair_of_formats_has_one_value(name):
    "Labels of batch and references, embeddings of both: every pair; the widest embeddings decide."
    y, z = random_labels(6, 5), random_labels(5, 5, seed=4)
    loss, x, r = make(name, 5).float(), torch.randn(6, 4), torch.randn(5, 4)
    given = () if name == "proto" else (r, z)
    want = loss(x, y, *given).item()
    for a in FORMATS:
        for b in FORMATS if given else FORMATS[:1]:
            refs = (r, z.to(b)) if given else ()
            assert loss(x, y.to(a), *refs).item() == pytest.approx(want, rel=1e-6)
    for a in (torch.float16, torch.bfloat16, torch.float32, F64):
        for b in (torch.float16, torch.bfloat16, torch.float32, F64) if given else (torch.float32,):
            refs = (r.to(b), z.bool()) if given else ()
            value = loss(x.to(a), y.double(), *refs)
            assert (value.dtype == (F64 if F64 in (a, b) else torch.float32)
                    and value.item() == pytest.approx(want, rel=5e-2))


@pytest.mark.parametrize("name", REFS)
def test_a_queue_in_another_format(name):
    y, x = random_labels(9, 5), torch.randn(9, 4)
    loss = make(name, 5).float()
    want = WithQueue(loss, filled(x[:5], y[:5]))(x[5:], y[5:]).item()
    for a in (torch.float16, torch.float32, F64):
        for b in (torch.float16, torch.float32, F64):
            for kind in FORMATS:
                assert WithQueue(loss,
                                 filled(x[:5].to(a),
                                        y[:5].to(kind)))(x[5:].to(b),
                                                         y[5:].to(kind)).item() == pytest.approx(want, rel=2e-2)


@pytest.mark.parametrize("name", EMBEDDING)
def test_labels_of_any_format_are_exact_in_float64(name):
    "W is computed in the format of the embeddings: labels of few bits cost no digit."
    y, x = random_labels(40, 7, cardinality=4.0), torch.randn(40, 4, dtype=F64)
    loss, refs = make(name, 7), () if name == "proto" else (x + 1, random_labels(40, 7, seed=1, cardinality=4.0))
    for given in ((), refs):
        want = loss(x, y, *given).item()
        for kind in FORMATS[:-1]:
            assert loss(x, y.to(kind),
                        *(t.to(kind) if i else t for i, t in enumerate(given))).item() == pytest.approx(want, rel=1e-15)


@pytest.mark.parametrize("name", EMBEDDING)
def test_strides_do_not_matter(name):
    "Transposed, strided and expanded embeddings and labels."
    y, x = random_labels(6, 5).float(), torch.randn(6, 4)
    loss = make(name, 5).float()
    want = loss(x, y).item()
    wide = torch.randn(6, 8)
    wide[:, ::2] = x
    for a, b in ((x.T.contiguous().T, y.T.contiguous().T), (wide[:, ::2], torch.stack([y, y], 2)[..., 1])):
        assert not a.is_contiguous() and not b.is_contiguous()
        assert loss(a, b).item() == pytest.approx(want, rel=1e-6)
    one = loss(x[:1].expand(6, 4), y[:1].expand(6, 5)).item()
    assert one == pytest.approx(loss(x[:1].repeat(6, 1), y[:1].repeat(6, 1)).item(), rel=1e-6)


def test_an_unknown_label_names_the_choice():
    y = torch.ones(4, 5)
    y[1, 2] = math.nan
    for name in EMBEDDING:
        with pytest.raises(ValueError, match="^labels: expected only 0 and 1, got nan: .*unknown='absent'"):
            make(name, 5).float()(torch.randn(4, 4), y)


# 5. Numbers of NumPy

def test_numbers_of_numpy_are_settings():
    loss = RegLoss(np.int64(5), np.int32(8), np.float32(0.1), np.float16(1), np.bool_(False), tile=np.int8(3))
    assert (loss.prototypes.shape == (5, 8) and loss.temperature == float(np.float32(0.1)) and loss.alpha == 1
            and loss.tile == 3 and loss.drop_repulsion is False)
    assert all(type(v) in (int, float, bool) for v in (loss.n_labels, loss.dim, loss.temperature, loss.alpha, loss.tile,
                                                       loss.drop_repulsion))
    assert (make_loss("abalone", np.int64(5), np.uint8(8), beta=np.float64(0.5)).beta == 0.5
            and SupConLoss(np.float32(0.5)).temperature == 0.5)
    assert LabelQueue(np.int64(4), np.int64(2), np.int64(3)).embeddings.shape == (4, 2)


@pytest.mark.parametrize("make_one", [lambda: RegLoss(True, 8), lambda: RegLoss(5, 8.0),
                                      lambda: RegLoss(5, np.float64(8)), lambda: SupConLoss(True),
                                      lambda: SupConLoss(np.bool_(True)),
                                      lambda: SupConLoss(np.nan), lambda: SupConLoss(1 + 0j),
                                      lambda: SupConLoss(tile=np.float32(3)), lambda: SupConLoss(tile=np.bool_(True)),
                                      lambda: RegLoss(5, 8, regularize=1),
                                      lambda: RegLoss(5, 8, prototype_anchors="no"),
                                      lambda: RegLoss(5, 8, regularize=None)])
def test_what_is_no_number_or_no_flag_is_refused(make_one):
    with pytest.raises(ValueError, match="expected .*got"):
        make_one()


def test_flags():
    assert check_flag(np.bool_(True), "x") is True and check_flag(False, "x") is False


# 6. Losses without instances among their references

def test_proto_refuses_a_queue():
    raises("loss", lambda: WithQueue(make_loss("proto", 5, 4), LabelQueue(8, 4, 5)), "PrototypeLoss", "queue")


# 7. Prototypes without a positive

@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("name", ["reg", "wreg"])
def test_prototypes_that_cannot_have_a_positive_are_left_out(name, alpha, monkeypatch):
    """Value and gradients of the definition, which leaves nobody out, with tiles, with references, and with a
    queue in which another label occurs."""
    y, x = torch.zeros(9, 400, dtype=F64), torch.randn(9, 4, dtype=F64, requires_grad=True)
    y[torch.arange(9), torch.arange(9) * 40], y[0, :3] = 1, 1
    for tile in (None, 2):
        loss = make(name, 400, alpha=alpha, tile=tile)
        kept = loss.live(loss.own, [y, loss.own]).tolist()
        assert kept == y.sum(0).nonzero().flatten().tolist()
        at = [x, loss.prototypes]
        for refs in ((), (x.detach() + 1, y.flip(0))):
            a, b = quiet(loss, x, y, *refs), definition(loss, x, y, refs or None)
            assert a.item() == pytest.approx(b.item(), rel=1e-12)
            assert all((p - q).abs().max() < 1e-12
                       for p, q in zip(torch.autograd.grad(a, at), torch.autograd.grad(b, at)))
        other = torch.zeros(2, 400)
        other[:, 333] = 1
        wrapped = WithQueue(loss, filled(torch.randn(2, 4, dtype=F64), other))
        value = wrapped(x, y)
        monkeypatch.setattr(type(loss), "live", lambda *_: None)
        want = wrapped(x, y)
        monkeypatch.undo()
        assert value.item() == pytest.approx(want.item(), rel=1e-12)
        assert all((p - q).abs().max() < 1e-12 for p, q in zip(torch.autograd.grad(value, at),
                                                               torch.autograd.grad(want, at)))


def test_nobody_has_a_positive_among_many_labels():
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.warns(NoPositivesWarning):
        value = make("reg", 400).float()(x, torch.zeros(3, 400))
    assert value.item() == 0 and not torch.autograd.grad(value, x)[0].any()


def test_few_prototypes_are_not_counted():
    y = torch.zeros(2, 100)
    y[:, 0] = 1
    assert (carried(OneHot(100), [y]) is None and carried(OneHot(200), [torch.nn.functional.pad(y, (0, 100))]).tolist()
            == [0])
    assert carried(OneHot(200), [torch.ones(2, 200), OneHot(200)]) is None


def test_prototypes_need_not_be_anchors():
    "Then only instances have rows; the prototypes stay references, with gradient."
    y, x = random_labels(6, 5), torch.randn(6, 4, dtype=F64)
    whole, loss = make("wreg", 5), make("wreg", 5, prototype_anchors=False)
    batch = Block(x, y)
    anchors, refs = loss.blocks(batch, batch)
    assert len(anchors) == 1 and len(refs) == 2 and "prototype_anchors=False" in repr(loss)
    value = loss(x, y)
    assert value.item() == pytest.approx(contrast([batch], [batch, whole.prototype_block()], whole.weight).item(),
                                         abs=1e-12)
    assert torch.autograd.grad(value, loss.prototypes)[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["reg", "base", "bce", "asl"])
def test_complex_labels_are_refused(name):
    "By the name of their format, and not cut to their real part in silence."
    loss, x, y = make_loss(name, 4, 4), torch.randn(3, 4), torch.eye(3, 4)
    for bad in (torch.complex64, torch.complex128):
        with pytest.raises(ValueError, match=f"^labels: expected real numbers, got {bad}"):
            loss(x, y.to(bad))


def test_misspelt_words_and_impossible_numbers_are_named():
    from mlcl.callbacks import encode
    from mlcl.data import Dataset, load
    from mlcl.data.registry import SETS, multi_hot, own, split_indices
    from mlcl.encoders import make_encoder
    from mlcl.encoders.images import Squares
    from mlcl.encoders.pretrained import pool_tokens
    from mlcl.encoders.texts import build_vocabulary, token_bags, token_ids
    from mlcl.extras import need
    from mlcl.own.choices import crossfitted
    from mlcl.own.quality import brier, reliability
    x, y = np.zeros((6, 2), np.float32), np.eye(6, 3, dtype=np.uint8)
    words = build_vocabulary(['wheat prices', 'wheat prices rise'])
    for says, call in [
            ('pooling: expected one of', lambda: pool_tokens(torch.zeros(1, 2, 3), torch.ones(1, 2), 'max')),
            ("part: expected 'encoder' or 'model'", lambda: encode(None, (x,), part='encodr')),
            ('channels: expected 1 or 3', lambda: Squares([np.zeros((4, 4), np.uint8)], 4, channels=2)),
            ("parts: expected .*, got 'tset'", lambda: split_indices(['train', 'tset', 'test', 'val'], y)),
            ('labels: expected different names', lambda: multi_hot([['a']], ['a', 'a'])),
            ("labels: expected 'b' among them", lambda: multi_hot([['b']], ['a'])),
            ('name: expected a new one', lambda: own(Dataset('yeast', 'features', x, y, list('abc'), {}, ''))),
            ('length: expected an integer >= 1', lambda: token_ids(words, ['wheat'], 0)),
            ('length: expected an integer >= 1', lambda: token_bags(words, ['wheat'], -1)),
            ('length: expected an integer >= 1', lambda: make_encoder('transformer', load('docstrings'), length=0)),
            ('size: expected an integer >= 1', lambda: build_vocabulary(['a b', 'a b'], size=0)),
            ('min_count: expected an integer >= 1', lambda: build_vocabulary(['a b', 'a b'], min_count=.5)),
            ('parts: expected a whole number of at least 2', lambda: crossfitted(y, x, None, parts=1)),
            ('bins: expected an integer >= 1', lambda: reliability(y, y*.5, bins=0)),
            ('p: expected probabilities', lambda: reliability(y, y*7.)),
            ('p: expected the shape of y', lambda: brier(y, y[0]*.5)),
            ('extra: expected a name', lambda: need('stduy', 'x'))]:
        with pytest.raises(ValueError, match=says): call()
    assert 'own' not in SETS['yeast']


def test_colour_is_kept_whatever_comes_first():
    from mlcl.data import Dataset
    from mlcl.encoders import make_encoder
    grey, colour = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
    for pictures in ([grey, colour, grey], [np.zeros((8, 8, 4), np.uint8)]*3):
        ds = Dataset('pictures', 'image', pictures, np.eye(3, dtype=np.uint8), list('abc'),
                     {k: np.arange(3) for k in ('train', 'val', 'test')}, '')
        assert make_encoder('resnet', ds).inputs(ds, np.arange(3))[0].shape[1] == 3


# What people hand over when they use the tools on their own data

@pytest.fixture(scope="module")
def numbers():
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    y = (x[:, :3] > .2).astype(int)
    return x, y, pd.DataFrame(x, columns=list("abcd")), pd.DataFrame(y, columns=["l1", "l2", "l3"])


def classifier(**more): return MultiLabelClassifier(epochs=2, random_state=0, **more)


@pytest.mark.parametrize("make", [classifier, lambda: BaselineClassifier("logistic"),
                                  lambda: Blend("bce+logistic", epochs=2)], ids=["loss", "baseline", "blend"])
@pytest.mark.parametrize("how", ["table", "pair"])
def test_columns_are_found_by_name_whatever_their_order(make, how, numbers, tmp_path):
    x, y, df, labels = numbers
    ds = read(pd.concat([df, labels], axis=1), labels="l1,l2,l3") if how == "table" else read((df, labels))
    model = make().fit_dataset(ds)
    model.save(tmp_path/"m.safetensors")
    for m in (model, load_model(tmp_path/"m.safetensors")):
        want = m.predict_proba(df)
        assert (m.predict_proba(df[list("dcba")]) == want).all() and (m.predict_proba(df.assign(e=1)) == want).all()
        assert (m.predict_proba(x) == want).all() # without names, by position
        with pytest.raises(ValueError, match="X: expected columns among a, b, c"): m.predict(df[list("abc")])


def test_a_fit_knows_nothing_of_the_one_before(numbers):
    x, y, df, labels = numbers
    model = classifier().fit(df, labels)
    assert (model.fit_dataset(read((x*100, y))).predict(x) == model.predict(pd.DataFrame(x))).all()
    assert not hasattr(model, "feature_names_in_")
    model.fit([f"w{i % 7}" for i in range(120)], y)
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("make", [
    lambda x: torch.tensor(x), lambda x: torch.tensor(x).bfloat16(), lambda x: torch.tensor(x).to_sparse(),
    lambda x: torch.tensor(x, requires_grad=True)], ids=["tensor", "half", "sparse", "grad"])
def test_tensors_are_instances(make, numbers):
    x, y = numbers[:2]
    model, plain = classifier().fit(make(x), y), make(x).detach().float().to_dense().numpy()
    assert np.abs(model.predict_proba(make(x)) - model.predict_proba(plain)).max() < 1e-6
    assert read((make(x), torch.tensor(y))).y.sum() == y.sum()


def broken(ds, how):
    return dict(few=replace(ds, labels=["a", "b"]), same=replace(ds, labels=["a", "a", "c"]),
                twice=replace(ds, splits=ds.splits | dict(val=ds.splits["train"])),
                below=replace(ds, splits=ds.splits | dict(val=np.array([-1]))),
                none=replace(ds, splits={k: v for k, v in ds.splits.items() if k != "val"}), pair=(ds.x, ds.y))[how]


@pytest.mark.parametrize("how", ["few", "same", "twice", "below", "none", "pair"])
def test_a_data_set_whose_parts_do_not_fit_is_refused(how, numbers, tmp_path):
    ds = broken(read(numbers[:2]), how)
    for model in (classifier(), BaselineClassifier("logistic"), Blend("logistic+frequent")):
        raises("ds", lambda: model.fit_dataset(ds))
    if how != "pair": raises("ds", lambda: compare(ds, losses=["bce"], out=tmp_path/"c"))


NONSENSE = [ # argument, what is called with (x, y, folder)
    ("min_count", lambda x, y, d: compare(read((x, y)), min_count=3, out=d)),
    ("baselines", lambda x, y, d: compare((x, y), baselines="no", out=d)),
    ("seeds", lambda x, y, d: compare((x, y), seeds=None, out=d)),
    ("jobs", lambda x, y, d: compare((x, y), jobs=None, out=d)),
    ("losses", lambda x, y, d: compare((x, y), losses=5, out=d)),
    ("losses", lambda x, y, d: compare((x, y), losses="bce", out=d)),
    ("encoder", lambda x, y, d: compare((x, y), encoder="", out=d)),
    ("say", lambda x, y, d: compare((x, y), say=None, out=d)),
    ("out", lambda x, y, d: compare((x, y), out="")), ("out", lambda x, y, d: compare((x, y), out=5)),
    ("encoder", lambda x, y, d: classifier(encoder="").fit(x, y)),
    ("sep", lambda x, y, d: classifier(sep="").fit(x, y)),
    ("min_count", lambda x, y, d: read((x, y), min_count=None)),
    ("allow_outside", lambda x, y, d: read((x, y), allow_outside="no")),
    ("X", lambda x, y, d: read(({f"w{i}" for i in range(120)}, y))), ("y", lambda x, y, d: read((x, set(range(120))))),
    ("sep", lambda x, y, d: cell_sets([["a"], ["b"]], sep=";")), ("cells", lambda x, y, d: cell_sets("abc")),
    ("images", lambda x, y, d: read((np.zeros((120, 3, 32, 32), np.uint8), y))),
    ("images", lambda x, y, d: read((np.zeros((120, 8, 8, 2), np.uint8), y))),
    ("X", lambda x, y, d: read(([torch.zeros(8, 8, 3)]*120, y))),
    ("y", lambda x, y, d: classifier().fit(x, y).score(x, y*7)),
    ("X", lambda x, y, d: classifier().fit(x, y).predict(x[:0])),
    ("X", lambda x, y, d: classifier().fit(["a b", "c"]*60, y).predict([])),
    ("X", lambda x, y, d: classifier().fit(["a b", "c"]*60, y).predict({"a"})),
    ("path", lambda x, y, d: predict_file(classifier(), "")),
    ("wide", lambda x, y, d: predict_file(classifier(), d, wide="no")),
    ("p", lambda x, y, d: brier(y, np.full(y.shape, np.nan))), ("y", lambda x, y, d: brier(y*7, y/2)),
    ("y", lambda x, y, d: brier(y*np.nan, y/2)), ("bins", lambda x, y, d: reliability(y, y/2, 2.5)),
    ("y", lambda x, y, d: precision_at(y*7, y/2, 1)), ("s", lambda x, y, d: ndcg_at(y, y*np.nan, 1)),
    ("counts", lambda x, y, d: propensities([1, 2], -1)), ("counts", lambda x, y, d: propensities([-1], 9)),
    ("propensity", lambda x, y, d: propensity_precision_at(y, x[:, :3], 1, [0, 1, 1]))]


@pytest.mark.parametrize("argument, call", NONSENSE, ids=[f"{a}{i}" for i, (a, _) in enumerate(NONSENSE)])
def test_nonsense_is_refused_before_any_work(argument, call, numbers, tmp_path):
    raises(argument, lambda: call(*numbers[:2], tmp_path/"c"))
    assert not (tmp_path/"c").exists()


def test_negative_weights_of_a_score_are_refused(numbers):
    with pytest.raises(ValueError, match="sample_weight"):
        classifier().fit(*numbers[:2]).score(*numbers[:2], sample_weight=-np.ones(120))


def test_labels_that_look_the_same_are_the_same(numbers):
    assert cell_sets(c for c in ["a|b", "c"]) == [["a", "b"], ["c"]]
    cells = [["caf\u00e9"], ["cafe\u0301 ", "b"]]*60
    assert read((numbers[0], cells)).labels == ["b", "caf\u00e9"]
    assert cell_sets(["cafe\u0301 | b", "['b ', 'caf\u00e9']"]) == [["caf\u00e9", "b"], ["b", "caf\u00e9"]]


def test_masked_labels_are_unknown_and_scores_may_be_of_any_type():
    rng = np.random.default_rng(0)
    y = (rng.random((40, 3)) < .4).astype(int)
    p, masked = y*.3 + rng.random((40, 3)), np.ma.masked_array(y, mask=rng.random((40, 3)) < .6)
    gaps = masked.astype(float).filled(np.nan)
    assert (crossfitted(masked, p, label_thresholds) == crossfitted(gaps, p, label_thresholds)).all()
    assert (label_thresholds(masked, p) == label_thresholds(gaps, p)).all() and brier(masked, y*.5) == brier(gaps, y*.5)
    small = np.array([[3, 9], [2, 1]], np.uint8)
    assert precision_at(np.array([[1, np.nan], [0, 1]]), small, 1) == .5
