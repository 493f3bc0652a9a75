"""One thread a test process: two of them share two cores.

With MLCL_NEW_LOSS set, the loss of notebook 94 joins the study before tests are collected.
"""
import os, subprocess, sys, warnings
from pathlib import Path
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("MLCL_NEW_LOSS"):
    import json

    cells = json.loads((Path(__file__).parent.parent / "nbs" / "94_new_loss.ipynb").read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    exec("\n".join(next(s for s in code if part in s) for part in ("import LOSSES", "class DiceSupConLoss")))


# The site, for the tests that look at it: imported when asked for, since other tests need none of it

@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The folder of the site as pandoc renders it, and the problems of its build. The first worker builds it for all."
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, said = base/"site", base/"site.txt"
    with FileLock(base/"site.lock"):
        if not said.exists():
            command = [sys.executable, Path(__file__).parent.parent/"tools"/"site.py", "--plain", "--out", out]
            run = subprocess.run(command, capture_output=True, text=True)
            said.write_text(run.stderr[-3000:] if run.returncode else "")
    return out, said.read_text()


@pytest.fixture(scope="session")
def address(built):
    from browsing import served

    if not (built[0]/"index.html").exists(): pytest.fail("the site was not built: " + built[1], pytrace=False)
    with served(built[0]) as address: yield address


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from browsing import CHROME, DRIVER, chromium

    if not (CHROME and DRIVER):
        if os.environ.get("CI") == "true": pytest.fail("chromium and chromedriver must be installed where CI=true")
        warnings.warn("THE BROWSER TESTS OF THE SITE DID NOT RUN: chromium and chromedriver were not found")
        pytest.skip("no chromium and chromedriver")
    with chromium(tmp_path_factory.mktemp("chromium")) as browser: yield browser
