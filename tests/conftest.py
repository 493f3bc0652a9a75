"Tests find the real data by `MLCL_DATA`, or beside the checkout."
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
beside = Path(__file__).resolve().parents[1].parent/"shared"/"data"
if not os.environ.get("MLCL_DATA") and beside.exists(): os.environ["MLCL_DATA"] = str(beside)
