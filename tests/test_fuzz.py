"""Random cases for all losses, against an independent float64 reference (`reference_losses.py`, from the formulas alone).

Batches of 1 to 70, 1 to 200 labels, every pair of formats, strided and expanded tensors, zero and huge rows, references,
tiles, temperatures.
A few hundred cases here; `make holds` runs thousands, by MLCL_FUZZ, and keeps their number and the worst error."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import reference_cases
import reference_losses as reference
from mlcl import losses
from mlcl.losses import LOSSES

N = int(os.environ.get("MLCL_FUZZ", 20))  # cases for each loss
CONTRASTIVE = [n for n, c in LOSSES.items() if c.route == "embeddings" and hasattr(reference, n)]
LOGITS = [n for n, c in LOSSES.items() if c.route == "logits" and hasattr(reference, n)]
TOLERANCE = {"float64": 1e-9, "float32": 2e-5}  # of the value, relative to 1 + |value|; of the gradient relative to 1/τ


def tensor(values, dtype, layout="contiguous"):
    t = torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, dtype))
    if layout == "transposed":
        return t.t().contiguous().t()
    if layout == "expanded":
        return t[:1].expand(len(t), -1)
    if layout == "strided":
        big = torch.zeros(2 * t.shape[0], 2 * t.shape[1], dtype=t.dtype)
        big[::2, ::2] = t
        return big[::2, ::2]
    return t


def contrastive(name, c):
    "The loss of this package and the settings of the reference."
    ours, theirs = dict(temperature=c["temperature"], tile=c["tile"]), dict(temperature=c["temperature"])
    n_labels, rng = c["labels"].shape[1], np.random.default_rng([c["seed"], c["index"]])
    if name in ("reg", "wreg"):
        ours["alpha"] = theirs["alpha"] = c["alpha"]
    if name == "sincere" and c["index"] % 2:
        ours |= dict(weights="reg", alpha=c["alpha"])
        theirs |= dict(reg_weights=True, alpha=c["alpha"])
    if name == "gma":
        ours["labels"] = theirs["train_labels"] = (rng.random((60, n_labels)) < 0.2).astype(np.uint8)
        if c["index"] % 2:
            ours["label_embeddings"] = theirs["label_embeddings"] = rng.normal(size=(n_labels, 5))
            ours["lam"] = theirs["lam"] = 0.5
    loss = losses.make_loss(name, n_labels, c["embeddings"].shape[1], **ours)
    if hasattr(loss, "prototypes"):
        theirs["prototypes"] = c["prototypes"]
        loss.prototypes.data = tensor(c["prototypes"], "float64" if c["embedding_dtype"] == "float64" else "float32")
    return loss, theirs


def lengths(x):
    return np.abs(x).max(1) * np.linalg.norm(x / np.maximum(np.abs(x).max(1, keepdims=True), 1e-300), axis=1)


def one_contrastive(name, c):
    "Relative errors of value and gradient; the gradient by the unit vectors."
    loss, settings = contrastive(name, c)
    given, wide = (c["references"] != "none" and name != "proto", "float64" if c["embedding_dtype"] == "float64"
                   else "float32")
    x = tensor(c["embeddings"], c["embedding_dtype"], c["embedding_layout"]).requires_grad_()
    y = tensor(c["labels"], c["label_dtype"], c["label_layout"])
    refs = (tensor(c["ref_embeddings"], c["embedding_dtype"]).requires_grad_(),
            tensor(c["ref_labels"], c["label_dtype"])) if given else ()
    value = loss(x, y, *refs)
    arrays = c["embeddings"], c["labels"], *((c["ref_embeddings"], c["ref_labels"]) if given else ())
    want, slope = getattr(reference, name)(*arrays, **settings), reference.gradient(name, *arrays, **settings)
    assert value.dtype == getattr(torch, wide) and value.isfinite(), (c["index"], value)
    errors = [abs(value.item() - want) / (1 + abs(want))]
    at = dict(embeddings=(x, c["embeddings"]), references=(refs[0], c["ref_embeddings"]) if given else None,
              prototypes=(loss.prototypes, c["prototypes"]) if hasattr(loss, "prototypes") else None)
    at = {k: v for k, v in at.items() if v}
    grads = torch.autograd.grad(value, [t for t, _ in at.values()], allow_unused=True, materialize_grads=True)
    for (k, (_, rows)), g in zip(at.items(), grads):
        assert g.isfinite().all(), (c["index"], k)
        if c["embedding_dtype"] in ("float32", "float64") or k == "prototypes":
            scale = lengths(rows)[:, None]
            errors.append((np.abs(g.double().numpy() - slope[k]) * scale).max() * c["temperature"])
    return wide, errors


def one_logit(name, c):
    settings = dict(db=dict(label_counts=c["class_counts"].tolist(), n_instances=c["n_train"])).get(name, {})
    loss = losses.make_loss(name, c["labels"].shape[1], 4, **settings)
    x, y = (tensor(c["logits"], c["embedding_dtype"], c["embedding_layout"]).requires_grad_(),
            tensor(c["labels"], c["label_dtype"], c["label_layout"]))
    value = loss(x, y)
    logits = np.repeat(c["logits"][:1], len(c["logits"]), 0) if c["embedding_layout"] == "expanded" else c["logits"]
    want = getattr(reference, name)(logits, c["labels"], **(dict(class_counts=c["class_counts"], n_train=c["n_train"])
                                                            if name == "db" else {}))
    assert value.isfinite() and torch.autograd.grad(value, x)[0].isfinite().all(), c["index"]
    return "float64" if c["embedding_dtype"] == "float64" else "float32", [abs(value.item() - want) / (1 + abs(want))]


@pytest.mark.filterwarnings("ignore::mlcl.losses.NoPositivesWarning")
@pytest.mark.parametrize("name", CONTRASTIVE + LOGITS)
def test_random_cases(name):
    worst, run = dict(float64=0.0, float32=0.0), one_contrastive if name in CONTRASTIVE else one_logit
    for i in range(N):
        c = reference_cases.case(i, seed=(CONTRASTIVE + LOGITS).index(name))
        wide, errors = run(name, c)
        worst[wide] = max(worst[wide], *errors)
        assert max(errors) <= TOLERANCE[wide], (name, i, errors,
                                                {k: v for k, v in c.items() if not hasattr(v, "shape")})
    if folder := os.environ.get("MLCL_FUZZ_TO"):
        (Path(folder) / f"{name}.json").write_text(json.dumps(dict(cases=N, **worst)))


def test_every_loss_has_a_reference():
    assert not [n for n in LOSSES if not hasattr(reference, n)] and len(CONTRASTIVE) >= 13
