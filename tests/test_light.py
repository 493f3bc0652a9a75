"A loss needs torch alone: what an import loads, how long it takes, and whether the examples in the documentation run."
import doctest
import importlib
import inspect
import subprocess
import sys

import pytest
import torch

from mlcl.losses import LOSSES
from mlcl.losses.contrast import ContrastiveLoss

HEAVY = {"sklearn", "scipy", "pandas", "fastai", "fastcore", "matplotlib", "torchvision", "iterstrat", "pyarrow",
         "seaborn", "statsmodels"}


def fresh(code):
    "What a fresh interpreter prints."
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("code", ["from mlcl.losses import RegLoss", "import mlcl.labels", "import mlcl.losses.checks"])
def test_only_torch_is_loaded(code):
    loaded = fresh(f"import sys, torch\nbefore = {{m.split('.')[0] for m in sys.modules}}\n{code}\n"
                   "print(*{m.split('.')[0] for m in sys.modules} - before)")
    assert not set(loaded.split()) & HEAVY
    assert "mlcl" in loaded.split()


SECONDS = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def test_import_takes_little_longer_than_torch():
    "The smallest of several attempts each, in turns, since other work disturbs single ones."
    torch_alone, ours = [], []
    for _ in range(12):
        torch_alone.append(float(fresh(SECONDS.format("import torch"))))
        ours.append(float(fresh(SECONDS.format("from mlcl.losses import RegLoss"))))
        if len(ours) > 1 and min(ours) <= 1.15 * min(torch_alone):
            return
    assert min(ours) <= 1.15 * min(torch_alone)


CONTRASTIVE = [n for n, c in LOSSES.items() if c.route == "embeddings"]


@pytest.mark.parametrize("name", LOSSES)
def test_documentation(name):
    "Every example runs; `help` says what a call takes, gives and raises, and spells the settings out."
    cls = LOSSES[name]
    names = vars(importlib.import_module(cls.__module__)) | dict(torch=torch)
    (test,) = doctest.DocTestFinder(recurse=False).find(cls, globs=names)
    assert test.examples
    torch.manual_seed(0)
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
    text = inspect.getdoc(cls) + inspect.getdoc(cls.forward)
    assert all(word in text for word in ("scalar", "Raises ValueError"))
    parameters = inspect.signature(cls).parameters
    if name in CONTRASTIVE:
        assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
        assert {"temperature", "tile", "product"} <= set(parameters) and "tile" in text and "product" in text
    if "dim" in parameters and "n_labels" in parameters:
        assert "optimiser" in text


@pytest.mark.parametrize("method", ["weight", "blocks", "count", "live", "forward"])
def test_extension_points_are_documented(method):
    assert len(inspect.getdoc(getattr(ContrastiveLoss, method))) > 80
