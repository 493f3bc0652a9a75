"The benchmark's parts, in miniature and without its store."
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import bench


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    "What would be stored, as a list."
    kept = []
    monkeypatch.setattr(bench, "QUICK", True)
    monkeypatch.setattr(bench, "store", lambda kind, **row: kept.append(dict(kind=kind, **row)))
    return kept


def test_the_gpu_table_runs_without_a_gpu_as_well(rows):
    "Formats, tiles and autocast take the same path on a processor."
    bench.gpu(sizes=[(40, 6)], hows=("eager", "autocast"), anyway=True)
    assert {(r["product"], r["how"], r["tile"])
            for r in rows} == {(p, h, t) for p in ("torch.float32", "torch.bfloat16") for h in ("eager", "autocast")
                               for t in (None, 1024)}
    assert all(r["ms"] > 0 and r["of_ceiling"] > 0 for r in rows)


def test_direct_and_plain_code_have_the_same_value(rows):
    "Both assert it before they measure."
    bench.against_direct(24, 30)
    bench.against_plain()
    assert [(r["kind"], r["loss"]) for r in rows] == [("direct", "base"), ("direct", "wreg"), ("direct", "reg"),
                                                      ("plain", "proto")] and all(r["ratio"] > 0 for r in rows)


def test_newer_losses_have_the_value_of_their_definitions(rows, monkeypatch):
    "Asserted before they are measured: plain code (compiling it takes minutes) and the library's formula."
    monkeypatch.setattr(bench.torch, "compile", lambda f: f)
    bench.against_plain_newer()
    assert ({r["loss"] for r in rows} == set(bench.NEWER) and {r["kind"] for r in rows} == {"newer"}
            and all(r["ratio"] > 0 for r in rows))
