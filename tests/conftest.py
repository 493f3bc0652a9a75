"One thread a test process: two of them share two cores."
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
