"""The layers of the package, read from its syntax trees: who may import whom, and that a name means one thing.

Nothing is imported to look at it; the modules are those that stand in the package.
"""
import ast
import re
from collections import defaultdict
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent/"mlcl"
# Each package imports only from those named before it
LAYERS = """extras labels losses checks scale metrics thresholds plots data encoders saved callbacks learner linear
            probe stats study verdicts gradients ledger guide own cli""".split()
TWICE = set() # public names that may be defined in two modules
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name not in ("_modidx.py", "__pycache__"))
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in MODULES}


def name_of(path): return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
def package_of(path): return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path, tree):
    "Packages of mlcl that a module imports anywhere, also inside its functions: (package, line)."
    here = ["mlcl", *path.relative_to(ROOT).with_suffix("").parts]
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)): continue
        base = here[:-node.level] if getattr(node, "level", 0) else []
        base = base + [part for part in (getattr(node, "module", None) or "").split(".") if part]
        for alias in node.names:
            full = [*base, *alias.name.split(".")]
            if full[0] == "mlcl" and not full[1:2] in ([], ["__version__"]) and not full[1].startswith("_"):
                yield full[1], node.lineno


def public(tree):
    "Public functions, classes and constants that a module defines; patched methods belong to their class."
    for node in tree.body:
        patched = any("patch" in ast.unparse(d) for d in getattr(node, "decorator_list", ()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not patched: yield node.name
        for target in getattr(node, "targets", ()):
            yield from (t.id for t in ast.walk(target) if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store))


def ids(path): return name_of(path) or "mlcl"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != ROOT or p.name != "__init__.py"], ids=ids)
def test_a_package_imports_only_from_those_above(path):
    above = LAYERS[: LAYERS.index(package_of(path)) + 1]
    assert [f"line {line}: {name}" for name, line in imported(path, TREES[path]) if name not in above] == []


def test_a_name_means_one_thing():
    homes = defaultdict(set)
    for path, tree in TREES.items():
        if package_of(path) == "cli": continue # its functions are the words of the command line
        for name in public(tree): homes[name] |= {name_of(path)} if name[0] != "_" else set()
    assert {name: sorted(where) for name, where in homes.items() if len(where) > 1 and name not in TWICE} == {}


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_a_module_is_short_and_begins_with_its_imports(path):
    "Fewer than 300 lines of at most 120 characters. `from x import *` makes a name of the package, wherever it stands."
    lines = path.read_text(encoding="utf-8").splitlines()
    written = range(lines.index("# %% auto #0"), len(lines)) if "# %% auto #0" in lines else range(len(lines))
    assert sum(bool(line) and not line.startswith("# %% ") for line in lines) < 300
    assert [i + 1 for i in written if len(lines[i]) > 120
            and not lines[i].startswith(("__all__ =", " " * 11 + "'"))] == []
    defined = [n.lineno for n in TREES[path].body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    imports = [n for n in TREES[path].body if isinstance(n, (ast.Import, ast.ImportFrom))]
    late = [n.lineno for n in imports if defined and n.lineno > defined[-1]]
    assert late == [], "imports after all that the module defines"
    assert not re.search("@(eq|fig|tbl|sec)-", "\n".join(lines)), "a reference that `help()` cannot show"


def test_what_is_wrong_is_found():
    tree = ast.parse("from .study import x\ndef f():\n    import mlcl.cli; from . import own\n"
                     "from mlcl import data\nA = b = 1")
    deep = ast.parse("from .contrast import x\nfrom ..labels import y")
    assert [*imported(ROOT/"losses.py", tree)] == [("study", 1), ("data", 4), ("cli", 3), ("own", 3)]
    assert [*imported(ROOT/"losses"/"reg.py", deep)] == [("losses", 1), ("labels", 2)]
    assert [*public(tree)] == ["f", "A", "b"]
