"""What must hold, loss by loss: run the sweeps of `tests/` and keep in results/holds.json how many passed (`make
holds`).

`python tools/holds.py hill splc` runs those of some losses and leaves the rows of the others as they are."""
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from mlcl.losses import LOSSES

ROOT = Path(__file__).resolve().parent.parent
FILES = ["losses", "weights", "logits", "tiles", "queue", "processes", "misuse", "fuzz"]
CASES = 250  # random cases for each loss
HOLDS = {  # what must hold → tests that show it; those without a loss in their name count for the losses listed
    "value and gradient are those of a loop over the definition": ["test_value_and_gradient_are_the_loops",
                                                                   "test_value_and_gradient_are_the_definition"],
    "gradcheck (REG: the stated gradient)": ["test_gradcheck", ("test_reg_gradient_never_repels_a_positive", ["reg"])],
    "one-hot labels: the losses meet": [
        ("test_one_hot_losses_over_instances_are_one", ["supcon_any", "supcon_all", "base", "mulsupcon", "simdis",
                                                        "multisupcon"]),
        ("test_one_hot_losses_with_prototypes_are_supcon", ["wreg", "abalone"])],
    "row sums of W": ["test_weights.test_row_sums"],
    "invariances": ["test_invariances", "test_permutations_change_nothing"],
    "the derived gradient, to 1e-10": ["test_gradient_by_the_scores", "test_gradient_identity"],
    "tiles of any size": ["test_equals_the_definition", "test_float32"],
    "queue: equal to the larger batch": ["test_queue.*"],
    "several processes: equal to one": ["test_processes.*"],
    "half precision": ["test_half_precision", "test_every_format_batch_and_temperature",
                       "test_extreme_logits_are_finite_and_right"],
    "degenerate batches: finite": ["test_finite_value_and_gradient"],
    "bad input is named": ["test_bad_input_names_the_argument", "test_bad_logits_name_the_argument",
                           "test_a_queue_of_another_width_is_refused"],
    "every format and stride has one value": ["test_any_pair_of_formats_has_one_value",
                                              "test_a_queue_in_another_format",
                                              "test_labels_of_any_format_are_exact_in_float64",
                                              "test_strides_do_not_matter",
                                              "test_class_indices_are_the_multi_hot_labels", "test_label_formats"],
    "random cases against a reference": ["test_random_cases"],
}


def outcomes(fuzz, names):
    """(file, test, loss or None, passed) of every test, or of those that name one of the losses; `fuzz` takes what
    the random cases leave."""
    some = ["-k", " or ".join(names)] if names else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "2", f"--junitxml={report}", *some,
                              *(f"tests/test_{f}.py" for f in FILES)], cwd=ROOT,
                             env=os.environ | dict(MLCL_FUZZ=str(CASES), MLCL_FUZZ_TO=folder))
        if run.returncode not in (0, 1):  # 1: some tests failed, and the table will say so
            sys.exit(f"pytest stopped with exit code {run.returncode}: no marks were written")
        fuzz.update({n: json.loads(p.read_text()) for n in LOSSES if (p := Path(folder) / f"{n}.json").exists()})
        for case in ET.parse(report).iter("testcase"):
            test, _, params = case.get("name").partition("[")
            losses = [t for t in re.split(r"[-\]\s]", params) if t in LOSSES]
            passed = not any(case.find(k) is not None for k in ("failure", "error", "skipped"))
            yield case.get("classname").split(".")[-1], test, losses[0] if losses else None, passed


def counts(found):
    table = {item: {} for item in HOLDS}
    for item, tests in HOLDS.items():
        for entry in tests:
            pattern, named = entry if isinstance(entry, tuple) else (entry, None)
            for file, test, loss, passed in found:
                if re.fullmatch(pattern, test) or re.fullmatch(pattern, f"{file}.{test}"):
                    for name in named or ([loss] if loss else []):
                        row = table[item].setdefault(name, [0, 0])
                        row[0], row[1] = row[0] + passed, row[1] + 1
    return table


if __name__ == "__main__":
    names, fuzz, path = sys.argv[1:], {}, ROOT / "results" / "holds.json"
    if wrong := set(names) - set(LOSSES):
        sys.exit(f"unknown: {', '.join(wrong)}; there are {', '.join(LOSSES)}")
    table = counts(list(outcomes(fuzz, names)))
    if empty := [item for item, row in table.items() if not row and not names]:
        sys.exit(f"no test ran for: {', '.join(empty)}")
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    kept = dict(when=when, versions=dict(python=platform.python_version(), torch=torch.__version__), fuzz={}, table={})
    if names:
        kept = json.loads(path.read_text())
        kept["added"] = kept.get("added", {}) | dict.fromkeys(names, when)
    kept["fuzz"] |= fuzz
    mine = {item: {k: v for k, v in row.items() if k in (names or LOSSES)} for item, row in table.items()}
    kept["table"] = {item: kept["table"].get(item, {}) | row for item, row in mine.items()}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    for item, row in mine.items():
        print(f"{item}: " + ", ".join(f"{k} {p}/{n}" for k, (p, n) in row.items()))
    sys.exit(any(p < n for row in mine.values() for p, n in row.values()))
