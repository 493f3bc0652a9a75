"The tree is in step with the notebooks, and the built wheel needs nothing but what settings.ini requires."
import ast
import configparser
import filecmp
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREE = ["settings.ini", "setup.py", "pyproject.toml", "_quarto.yml", "README.md", "LICENSE", "mlcl", "nbs", "tools"]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, root / name)
    return root


def changed(a, b):
    c = filecmp.dircmp(a, b, ignore=["__pycache__", ".ipynb_checkpoints"])
    here = c.left_only + c.right_only + filecmp.cmpfiles(a, b, c.common_files, shallow=False)[1]
    return [str(Path(a, n)) for n in here] + [x for d in c.common_dirs for x in changed(Path(a, d), Path(b, d))]


@pytest.mark.parametrize("command", ["nbdev_export", "nbdev_clean"])
def test_command_changes_nothing(copy, command):
    subprocess.run([BIN / command], cwd=copy, check=True, capture_output=True)
    assert changed(ROOT / "mlcl", copy / "mlcl") + changed(ROOT / "nbs", copy / "nbs") == []


def test_export_notices_an_edit(copy):
    "The test above can fail: an edited module is restored."
    path = copy / "mlcl" / "checks.py"
    path.write_text(path.read_text() + "\nx = 1\n")
    assert changed(ROOT / "mlcl", copy / "mlcl") != []
    subprocess.run([BIN / "nbdev_export"], cwd=copy, check=True, capture_output=True)
    assert changed(ROOT / "mlcl", copy / "mlcl") == []


def too_long(source):
    "Lines of code with more than 120 characters; texts of several lines and what is said to nbdev may be longer."
    lines, prose = source.splitlines(), set()
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, (ast.Constant, ast.JoinedStr)) and n.end_lineno > n.lineno:
            begin = lines[n.lineno - 1].encode()[n.col_offset:].decode().lstrip("fbrFBR")
            if begin.startswith(('"""', "'''")): prose.update(range(n.lineno, n.end_lineno + 1))
    return [f"{k}: {line}" for k, line in enumerate(lines, 1)
            if len(line) > 120 and k not in prose and not line.startswith("#|")]


SCRIPTS = sorted(p for folder in ("tests", "tools") for p in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[p.name for p in SCRIPTS])
def test_lines_of_scripts(path): assert too_long(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook(path):
    """Stable ids, stored outputs, small cells, no stored error, no path of a machine, no progress bar or warning
    left behind."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    ids = [c.get("id") for c in nb["cells"]]
    assert None not in ids and len(set(ids)) == len(ids)
    code = ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code"]
    assert max(len(s.splitlines()) for s in code) <= 30
    assert [line for s in code for line in too_long(s)] == []
    for c in nb["cells"]: # a label without its figure would be an empty frame with a number
        if "#| label: fig-" in "".join(c["source"]):
            assert any(k.startswith("image/") for o in c["outputs"] for k in o.get("data", {})), c["id"]
    outputs = [o for c in nb["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs and all(o["output_type"] != "error" for o in outputs)
    text = json.dumps(outputs)
    assert not re.search(r"/(home|root|Users|tmp|work)/|Warning:|\d+%\|[█▏▎▍▌▋▊▉ ]*\||object at 0x", text)
    figures = sum(any(k.startswith("image/") for k in o.get("data", {})) for o in outputs)
    alts = sum("#| fig-alt:" in s for s in code)
    assert alts >= figures


def closure(names):
    "Installed distributions that the requirements pull in, by metadata alone."
    from importlib.metadata import PackageNotFoundError, requires
    from packaging.requirements import Requirement

    seen, todo = set(), [(Requirement(n), "") for n in names]
    while todo:
        req, extra = todo.pop()
        key = (re.sub(r"[-_.]+", "-", req.name).lower(), extra)
        if key in seen or (req.marker and not req.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        try:
            for line in requires(req.name) or []:
                r = Requirement(line)
                if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ["", *req.extras]):
                    r.marker = None
                    todo.append((r, ""))
        except PackageNotFoundError:
            pass
    return {name for name, _ in seen}


@pytest.mark.parametrize("extra", ["", "own"])
def test_wheel_needs_only_its_requirements(copy, tmp_path, extra):
    """A loss is computed from the unpacked wheel while every package outside the requirements is hidden.
    Without extras the losses import, and each other module says which extra it misses; with `own` all modules do."""
    from importlib.metadata import packages_distributions

    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path], cwd=copy,
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("mlcl-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini")
    names = ["requirements"] + ["study_requirements", "own_requirements"] * bool(extra)
    allowed = closure([n for key in names for n in config["DEFAULT"][key].split() if not n.startswith("mlcl")])
    hidden = sorted(m for m, dists in packages_distributions().items()
                    if not {re.sub(r"[-_.]+", "-", d).lower() for d in dists} & (allowed | {"mlcl"}))
    assert {"nbdev", "transformers", "pytest"} <= set(hidden)
    code = f"""
import sys
hidden = set({hidden!r})
class Hide:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split('.')[0] in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Hide(f) for f in sys.meta_path]; sys.path.insert(0, {str(tmp_path / 'site')!r})
import importlib, pkgutil, mlcl, mlcl.extras, torch
mlcl.extras._installed = lambda package: package.lower() in {allowed!r}
assert mlcl.__file__.startswith({str(tmp_path / 'site')!r})
light = []
for m in pkgutil.walk_packages(mlcl.__path__, 'mlcl.', onerror=lambda name: None):
    try: importlib.import_module(m.name); light.append(m.name)
    except ImportError as e: assert not {extra!r} and "pip install 'mlcl[" in str(e), (m.name, e)
assert {{'mlcl.labels', 'mlcl.losses', 'mlcl.losses.gma', 'mlcl.cli'}} <= {{*light}}, light
from mlcl.losses import RegLoss
print(float(RegLoss(3, 4)(torch.randn(5, 4), torch.eye(3)[torch.arange(5) % 3])))
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    assert float(out.stdout) > 0


def test_constraints_hold_only_names_and_versions():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line), line


def code_lines(path):
    "Numbers of the lines of a module that hold code: no documentation, no imports, no list of names."
    source = path.read_text()
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = {i for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in quiet
             for i in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        doc = (isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None
               and node.body[0].lineno > node.lineno)
        names = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        if doc or names or isinstance(node, (ast.Import, ast.ImportFrom)):
            node = node.body[0] if doc else node
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def test_size():
    "The package does not grow unnoticed."
    assert sum(len(code_lines(p)) for p in (ROOT / "mlcl").rglob("*.py") if p.name != "_modidx.py") < 9_650


def test_no_device_is_written_down():
    "'cuda' occurs only where the code asks whether there is one."
    for path in (ROOT / "mlcl").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not re.search(r"\.cuda\(\)|to\(['\"]cuda", line), f"{path.name}: {line}"
            if "'cuda'" in line.split("#")[0]:
                assert re.search(r"is_available|is_bf16_supported|\.type ==|cpu' if|== 'cpu'|if device == 'cuda'",
                                 line), f"{path.name}: {line}"


def test_every_test_named_on_a_page_exists():
    "Pages name tests as evidence: each name is that of a test."
    names = set(re.findall(r"^def (test_\w+)", "\n".join(p.read_text() for p in (ROOT / "tests").glob("*.py")), re.M))
    for path in (ROOT / "nbs").glob("*.ipynb"):
        text = "".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"]
                       if c["cell_type"] == "markdown")
        assert set(re.findall(r"`(test_\w+)`", text)) <= names, path.name


def test_a_notebook_saved_in_jupyterlab_comes_out_clean(copy):
    "Run by a kernel and saved as a front end saves it, then `make notebooks`: the same file, byte for byte."
    import nbclient, nbformat

    path = copy / "nbs" / "12_zlpr.ipynb"
    make = [sys.executable, "tools/notebooks.py", path], [BIN / "nbdev_clean"]
    for command in make: subprocess.run(command, cwd=copy, check=True, capture_output=True) # this processor's digits
    before = path.read_bytes()
    nb = nbformat.read(path, as_version=4)
    nb.metadata.kernelspec = dict(name="python3", display_name="Python 3 (ipykernel)", language="python")
    nbclient.NotebookClient(nb, timeout=300, kernel_name="python3",
                            resources=dict(metadata=dict(path=str(copy / "nbs")))).execute()
    for c in nb.cells: c.metadata.update(scrolled=True, tags=["a"])
    nbformat.write(nb, path)
    assert path.read_bytes() != before
    for command in make: subprocess.run(command, cwd=copy, check=True, capture_output=True)
    assert path.read_bytes() == before
