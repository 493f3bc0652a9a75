"One thread a test process: two of them share two cores. The files that build the site share a process."
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("site" if name in ("test_site", "test_gradients_page") else name))
