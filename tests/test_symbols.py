"One notation: a letter for one thing in all tables of symbols, and one way to write sets."
import json
import re
from pathlib import Path

import pytest

NBS = sorted((Path(__file__).parent.parent / "nbs").glob("[0-9]*.ipynb"))
CELL = re.compile(r"(?:`[^`]*`|\$[^$]*\$|[^|`$])+")


def prose(path):
    return "\n\n".join("".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
                       if c["cell_type"] == "markdown")


def symbols(path):
    "(symbol, meaning) of every row of the tables of symbols."
    inside = False
    for line in prose(path).splitlines():
        cells = [c.strip() for c in CELL.findall(line.strip()[1:])] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[:2] == ["symbol", "variable"])
        if inside and len(cells) > 3 and cells[0].startswith("$"):
            yield cells[0], cells[3]


def test_tables_are_found():
    assert sum(len(list(symbols(p))) for p in NBS) > 100


@pytest.mark.parametrize("path", NBS, ids=lambda p: p.stem)
def test_d_is_the_size_of_embeddings(path):
    "A mass is a Delta; D stands alone, or in a list of sizes."
    for symbol, meaning in symbols(path):
        if re.search(r"(?<![A-Za-z\\])D(?![A-Za-z])", symbol):
            assert "size" in meaning or "width" in meaning or "embedding" in meaning, (symbol, meaning)


@pytest.mark.parametrize("path", NBS, ids=lambda p: p.stem)
def test_label_sets_are_written_as_sets(path):
    "∩ and ∪ for labels that two sets share and have together, not the signs of logic; ∅ for the empty set."
    assert not re.search(r"\\wedge|\\vee|\\land|\\lor\b|∧|∨|\\varnothing", prose(path))
