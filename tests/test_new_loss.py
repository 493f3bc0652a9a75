"Notebook 94 promises that a new loss is tested like every other once it has a name: here it gets one."
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_a_new_loss_runs_through_the_sweeps():
    args = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "dice", "tests/test_losses.py",
            "tests/test_tiles.py"]
    run = subprocess.run(args, cwd=ROOT, env=os.environ | {"MLCL_NEW_LOSS": "1"}, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", run.stdout)
    assert run.returncode == 0 and int(passed[1]) > 90, run.stdout[-3000:] + run.stderr[-1000:]

