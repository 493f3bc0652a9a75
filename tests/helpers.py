"What several test files share."
import os
from mlcl import losses
from mlcl.checks import random_labels

DENSE = ("softjac", "gma")  # every reference has a weight: each labelled anchor has a positive


def make_loss(name, n_labels, dim, *args, **settings):
    "`mlcl.losses.make_loss`; a loss that needs training labels gets some."
    if name == "gma" and "labels" not in settings and "cooccurrence" not in settings:
        settings = {k: v for k, v in settings.items() if k not in ("label_counts", "n_instances")}
        return losses.make_loss(name, n_labels, dim, labels=random_labels(50, n_labels, seed=9, tail=0.5), **settings)
    return losses.make_loss(name, n_labels, dim, *args, **settings)


def has_data() -> bool:
    "Does MLCL_DATA name a folder with the real data sets?"
    from mlcl.data import data_dir # the losses alone need none of it
    return bool(os.environ.get("MLCL_DATA")) and (data_dir()/"mulan").exists()
