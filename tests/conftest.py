"One thread a test process; with MLCL_NEW_LOSS set, the loss of notebook 94 joins the study before tests are collected."
import importlib, os, shutil, subprocess, sys, warnings
from pathlib import Path
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("OMP_NUM_THREADS", "1") # two processes share two cores
if os.environ.get("CI") == "true": # all of `dev` is there, so a test that skips itself for want of a package is a fault
    pytest.importorskip = lambda name, *args, **kwargs: importlib.import_module(name)

if os.environ.get("MLCL_NEW_LOSS"):
    from execnb.nbio import read_nb
    code = [c.source for c in read_nb(ROOT/"nbs"/"94_new_loss.ipynb").cells if c.cell_type == "code"]
    exec("\n".join(next(s for s in code if part in s) for part in ("import LOSSES", "class DiceSupConLoss")))


# the others take half a minute at most
LONGEST = "pages ray export compare data study_schedule estimator figures".split()


def pytest_collection_modifyitems(items):
    "Files that take long come first: begun last, one would run alone at the end."
    place = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def registered_here():
    "The data sets that a file registers are gone after it."
    from mlcl.data import SETS
    held = dict(SETS)
    yield
    SETS.clear(), SETS.update(held)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The folder of the site as pandoc renders it, and the problems of its build. The first worker builds it for all."
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, said = base/"site", base/"site.txt"
    with FileLock(base/"site.lock"):
        if not said.exists():
            command = [sys.executable, ROOT/"tools"/"site.py", "--plain", "--out", out]
            run = subprocess.run(command, capture_output=True, text=True)
            said.write_text(run.stderr[-3000:] if run.returncode else "")
    return out, said.read_text()


@pytest.fixture(scope="session")
def address(built):
    from browsing import serve # here, since other tests need none of it
    if not (built[0]/"index.html").exists(): pytest.fail("the site was not built: " + built[1], pytrace=False)
    return serve(built[0])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    "A headless Chromium that keeps the messages of its console and of the network."
    from selenium import webdriver
    chrome = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    driver = shutil.which("chromedriver")
    if not (chrome and driver):
        if os.environ.get("CI") == "true": pytest.fail("chromium and chromedriver must be installed where CI=true")
        warnings.warn("THE BROWSER TESTS OF THE SITE DID NOT RUN: chromium and chromedriver were not found")
        pytest.skip("no chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    flags = "headless no-sandbox disable-gpu disable-quic disable-component-update hide-scrollbars".split()
    for flag in [*flags, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]: options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.timeouts = dict(script=120_000, implicit=10_000)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
