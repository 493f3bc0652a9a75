"""Execute notebooks in place and keep their outputs: `python tools/notebooks.py [nbs/20_contrast.ipynb ...]`
(default: all)."""
import os, subprocess, sys, time
from pathlib import Path
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent


def run(path):
    "Execute one notebook in the folder `nbs`; a failing cell raises and leaves the file as it was."
    start, nb = time.time(), read_nb(path)
    os.chdir(ROOT / "nbs")
    for c in nb.cells:
        if c.cell_type == "code": c.outputs = []  # a cell that says nothing any more would keep what it said
    CaptureShell(mpl_format="svg").run_all(nb, exc_stop=True)
    clean_nb(nb)
    write_nb(nb, path)
    print(f"{path.name}: {time.time() - start:.1f} s", flush=True)


if __name__ == "__main__":
    paths = [Path(n).resolve() for n in sys.argv[1:]] or sorted((ROOT / "nbs").glob("*.ipynb"))
    if len(paths) == 1:
        run(paths[0])
    else:
        failed = [p.name for p in paths if subprocess.run([sys.executable, __file__, p]).returncode]
        sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
