"""How fast the losses are: `make bench` prints one table and appends every line of it to results/bench.jsonl.

All figures are ratios of times measured in turns within one run. `python tools/bench.py quick` takes a minute and stores
nothing."""
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from importlib import metadata, util
from pathlib import Path

import torch
import torch.nn.functional as F

from mlcl.checks import random_labels
from mlcl.losses import LOSSES, make_loss, tiles
from mlcl.losses.contrast import definition

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "results" / "bench.jsonl"
NAMES = [n for n, c in LOSSES.items() if c.route == "embeddings"]
NEWER = ("softjac", "gma", "multisupcon", "sincere")
SIZES = [(512, 90), (256, 1000), (1024, 300)]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
QUICK = "quick" in sys.argv


def versions():
    gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else None
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    library = ({"pytorch-metric-learning": metadata.version("pytorch-metric-learning")}
               if util.find_spec("pytorch_metric_learning") else {})
    return dict(python=platform.python_version(), torch=torch.__version__, **library, device=gpu or cpu,
                threads=torch.get_num_threads())


def store(kind, **row):
    "Print a line; keep it."
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    print(f"{kind:9}", "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items()),
          flush=True)
    if not QUICK:
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with open(STORE, "a") as f:
            f.write(json.dumps(dict(kind=kind, **numbers, run=RUN, when=when, versions=versions())) + "\n")


RUN = f"{time.time_ns():x}"[-10:]


def timed(functions, rounds=None):
    "Milliseconds of each function, a list with one entry a round; the functions take turns."
    rounds = rounds or (5 if QUICK else 41)
    out = {k: [] for k in functions}
    for i in range(rounds + 3):
        for k, f in functions.items():
            sync()
            start = time.perf_counter()
            f()
            sync()
            if i >= 3:
                out[k].append((time.perf_counter() - start) * 1e3)
    return out


def sync():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def middle(ms, a, b):
    "Median over rounds of the ratio of two functions, and its quartiles."
    ratios = [x / y for x, y in zip(ms[a], ms[b])]
    low, mid, high = statistics.quantiles(ratios, n=4)
    return dict(ratio=mid, low=low, high=high)


def batch(b, n_labels, d=256, seed=0):
    torch.manual_seed(seed)
    x = torch.randn(b, d, device=DEVICE, requires_grad=True)
    return x, random_labels(b, n_labels, 3.0, tail=0.5).float().to(DEVICE)


def make(name, n_labels, d=256, **settings):
    "A loss; one that needs training labels gets some."
    labels = dict(labels=random_labels(4096, n_labels, 3.0, tail=0.5, seed=1)) if name == "gma" else {}
    return make_loss(name, n_labels, d, **labels, **settings).to(DEVICE)


def step(loss, x, y):
    leaves = [x, *loss.parameters()]

    def f():
        for leaf in leaves:
            leaf.grad = None
        loss(x, y).backward()

    return f


def shape(name, b, n_labels):
    "How many anchors and references the scores of a loss have."
    extra = hasattr(make(name, n_labels, 4), "prototypes")
    return (b + n_labels * (name in ("reg", "wreg")), n_labels if name == "proto" else b + n_labels * extra)


def cross_entropy(n, m, d=256):
    "A plain softmax cross-entropy over as many scores, and its three matrix products alone."
    u = F.normalize(torch.randn(n, d, device=DEVICE), dim=1).requires_grad_()
    v = u if n == m else F.normalize(torch.randn(m, d, device=DEVICE), dim=1).requires_grad_()
    target, g, a, b = torch.randint(m, (n,), device=DEVICE), torch.randn(n, m, device=DEVICE), u.detach(), v.detach()

    def ce():
        u.grad = v.grad = None
        F.cross_entropy(u @ v.T / 0.1, target).backward()

    def products():
        a @ b.T, g @ b, g.T @ a

    return ce, products


def speed():
    "Every contrastive loss against a cross-entropy over its own scores."
    for b, n_labels in SIZES:
        for name in ["reg", "wreg"] + [n for n in NAMES if n not in ("reg", "wreg") and (b >= 512 or n == "gma")]:
            x, y = batch(b, n_labels)
            ce, products = cross_entropy(*shape(name, b, n_labels))
            ms = timed(dict(ce=ce, products=products, loss=step(make(name, n_labels), x, y)))
            store("speed", loss=name, B=b, L=n_labels, D=256, **middle(ms, "loss", "ce"),
                  to_products=middle(ms, "loss", "products")["ratio"],
                  ms=statistics.median(ms["loss"]), ce_ms=statistics.median(ms["ce"]))


def against_plain():
    """PROTO against the shortest code for it: normalise, and a cross-entropy with soft targets; no checks, no care
    for extreme numbers."""
    x, y = batch(512, 90)
    loss = make_loss("proto", 90, 256).to(DEVICE)

    def plain(x, y):
        w = y / y.sum(1, keepdim=True).clamp(min=1)
        scores = F.normalize(x, dim=1) @ F.normalize(loss.prototypes, dim=1).T / loss.temperature
        return F.cross_entropy(scores, w, reduction="sum") / (w.sum(1) > 0).sum()

    assert abs(plain(x, y).item() - loss(x, y).item()) < 1e-4
    ms = timed(dict(plain=lambda: plain(x, y).backward(), loss=step(loss, x, y)))
    store("plain", loss="proto", B=512, L=90, D=256, **middle(ms, "loss", "plain"), ms=statistics.median(ms["loss"]),
          plain_ms=statistics.median(ms["plain"]))


def axes():
    "REG and a cross-entropy against the number of instances (300 labels) and of labels (512 instances)."
    sizes = [("B", b, 300) for b in (128, 256, 512, 1024, 2048)] + [("L", 512, n)
                                                                    for n in (10, 30, 100, 300, 1000, 3000)]
    for axis, b, n_labels in sizes:
        x, y = batch(b, n_labels)
        ce, _ = cross_entropy(*shape("reg", b, n_labels))
        ms = timed(dict(ce=ce, loss=step(make_loss("reg", n_labels, 256).to(DEVICE), x, y)), rounds=3 if QUICK else 15)
        store("axes", axis=axis, B=b, L=n_labels, D=256, **middle(ms, "loss", "ce"), ms=statistics.median(ms["loss"]),
              ce_ms=statistics.median(ms["ce"]))


def direct(loss, x, y):
    "The definition with arrays of size N×N×L, differentiated automatically."
    has = hasattr(loss, "prototypes")
    u = F.normalize(torch.cat([x, loss.prototypes]) if has else x, dim=1)
    a = torch.cat([y, torch.eye(y.shape[1], device=y.device)]) if has else y
    other = 1 - torch.eye(len(u), device=y.device)
    if has:
        common = a[:, None] * a[None]
        f = (common.sum(2) > 0) * other
        d = (f[:, :, None] * common).sum(1)
        w = (f[:, :, None] * common / d.clamp(min=1)[:, None]).sum(2) / a.sum(1)[:, None]
    else:
        w = torch.minimum(a[:, None], a[None]).sum(2) / torch.maximum(a[:, None], a[None]).sum(2).clamp(min=1) * other
        w = w / w.sum(1, keepdim=True).clamp(min=1e-9)
    s = u @ u.T / loss.temperature
    log = s.masked_fill(other == 0, -1e30).log_softmax(1)
    total = -(w * log.masked_fill(other == 0, 0)).sum()
    if loss.drop_repulsion:
        total = total - ((log.exp() - w).clamp(min=0) * (w > 0)).detach().mul(s).sum()
    return total / (w.sum(1) > 0).sum()


def jaccard(y):
    shared, size = y @ y.T, y.sum(1)
    return shared / (size[:, None] + size - shared).clamp(min=1)


def soft_target(similar, t):
    return (similar / t).masked_fill(torch.eye(len(similar), dtype=torch.bool, device=similar.device),
                                     -torch.inf).softmax(1)


def cross(x, w, tau=0.1):
    "The core's loss as one writes it: normalise, multiply, log-softmax."
    u = F.normalize(x, dim=1)
    log = (u @ u.T / tau).fill_diagonal_(-1e9).log_softmax(1)
    return -(w * log).sum() / (w.sum(1) > 0).sum()


def plain(name, loss):
    "The definition of a newer loss in plain PyTorch: a function of embeddings and labels."
    if name == "softjac":
        return lambda x, y: cross(x, soft_target(jaccard(y), loss.t))
    if name == "multisupcon":
        def f(x, y):
            j = jaccard(y)
            pos = (j > loss.threshold).fill_diagonal_(False)
            return cross(x, j * pos / pos.sum(1, keepdim=True).clamp(min=1))
        return f
    if name == "gma":
        from mlcl.losses.gma import label_similarity
        similar, idf = label_similarity(loss, torch.zeros(1, device=DEVICE))

        def f(x, y):
            best = torch.where(y[:, None] > 0, similar, 0.0).amax(2)
            own = y * idf
            p = own @ best.T / own.sum(1, keepdim=True).clamp(min=1)
            return cross(x, soft_target(2 * p * p.T / (p + p.T).clamp(min=1e-30), loss.t))
        return f

    def f(x, y):
        u, me = F.normalize(x, dim=1), torch.eye(len(x), dtype=torch.bool, device=x.device)
        s, pos = u @ u.T / loss.temperature, (y @ y.T > 0) & ~me
        rest = s.masked_fill(pos | me, -1e9).logsumexp(1, keepdim=True)
        terms = (torch.logaddexp(s, rest) - s) * pos / pos.sum(1, keepdim=True).clamp(min=1)
        return terms.sum() / pos.any(1).sum()
    return f


def library_formula(threshold=0.3, tau=0.1):
    """MultiSupCon as pytorch-metric-learning 3.0 computes it, with the helpers of 2.9: cosine distances, masked
    log-probabilities, mean over non-zero losses."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.reducers import AvgNonZeroReducer
    from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
    distance, reducer = CosineSimilarity(), AvgNonZeroReducer()

    def f(x, y):
        j = jaccard(y)
        other = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        mat, pos = distance(x) / tau, (j > threshold) & other
        mat = mat - mat.max(dim=1, keepdim=True)[0].detach()
        log = mat - lmu.logsumexp(mat, keep_mask=other, add_one=False, dim=1)
        terms = -(j * log * pos).sum(1) / (pos.sum(1) + torch.finfo(x.dtype).eps)
        rows = torch.arange(len(x), device=x.device)
        return reducer(dict(loss=dict(losses=terms, indices=rows, reduction_type="element")), x, y)
    return f


def against_plain_newer():
    """The newer losses against their definitions, the same under torch.compile, and MultiSupCon's formula in
    pytorch-metric-learning."""
    for b, n_labels in [(128, 30)] if QUICK else SIZES:
        for name in NEWER:
            x, y = batch(b, n_labels)
            loss = make(name, n_labels)
            others = {"plain PyTorch": plain(name, loss), "torch.compile": torch.compile(plain(name, loss))}
            if name == "multisupcon" and util.find_spec("pytorch_metric_learning"):
                others["pytorch-metric-learning"] = library_formula()
            functions = dict(ours=step(loss, x, y))
            for k, f in others.items():
                try:
                    gap = abs(f(x, y).item() - loss(x, y).item())
                except RuntimeError as e:
                    print(f"newer     {name}: {k} not measured: {str(e).splitlines()[0][:80]}")
                    continue
                assert gap < 1e-3, f"{name}: {k} differs by {gap}"
                functions[k] = (lambda f: lambda: torch.autograd.grad(f(x, y), x))(f)
            ms = timed(functions, rounds=None if QUICK or n_labels * b < 10**5 else 9)
            for k in functions:
                if k != "ours":
                    store("newer", loss=name, instead=k, B=b, L=n_labels, D=256, **middle(ms, "ours", k),
                          ms=statistics.median(ms["ours"]), theirs_ms=statistics.median(ms[k]))


def against_direct(b=256, n_labels=500):
    for name in ("base", "wreg", "reg"):
        x, y = batch(b, n_labels, 128)
        loss = make_loss(name, n_labels, 128).to(DEVICE)
        gap = abs(direct(loss, x, y).item() - loss(x, y).item())
        assert gap < 1e-4, f"{name}: the two formulations differ by {gap}"
        ms = timed(dict(direct=lambda: direct(loss, x, y).backward(), loss=step(loss, x, y)),
                   rounds=9 if name == "base" and not QUICK else 3)
        store("direct", loss=name, B=b, L=n_labels, D=128, **middle(ms, "direct", "loss"),
              ms=statistics.median(ms["loss"]), direct_ms=statistics.median(ms["direct"]))


def against_library():
    "pytorch-metric-learning's SupCon on single-label batches; up to 2.9 it refuses multi-hot labels."
    try:
        from pytorch_metric_learning.losses import SupConLoss
    except ImportError:
        return print("library   not measured: pytorch-metric-learning is not installed")
    theirs, ours = SupConLoss(temperature=0.1), make_loss("supcon_all", 2, 4)
    for b in (256, 1024):
        x, _ = batch(b, 10)
        y = torch.arange(b, device=DEVICE) % 10
        gap = abs(theirs(x, y).item() - ours(x, y).item())
        assert gap < 1e-4, f"the two losses differ by {gap}"
        ms = timed(dict(theirs=lambda: theirs(x, y).backward(), ours=step(ours, x, y)))
        store("library", loss="supcon_all", B=b, L=10, D=256, **middle(ms, "ours", "theirs"),
              ms=statistics.median(ms["ours"]), theirs_ms=statistics.median(ms["theirs"]))
    x, y = batch(64, 10)
    try:
        theirs(x, y)
        print("library   takes multi-hot labels now")
    except Exception as e:
        print("library   multi-hot labels:", type(e).__name__, str(e).splitlines()[0][:80])


def light():
    "Time of importing one loss over that of importing torch, in fresh interpreters that take turns."
    def seconds(code):
        out = subprocess.run([sys.executable, "-c",
                              f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"],
                             capture_output=True, text=True, check=True)
        return float(out.stdout)

    ms = dict(torch=[], loss=[])
    for _ in range(4 if QUICK else 15):
        for k, code in (("torch", "import torch"), ("loss", "from mlcl.losses import RegLoss")):
            ms[k].append(seconds(code) * 1e3)
    store("light", **middle(ms, "loss", "torch"), ms=statistics.median(ms["loss"]),
          torch_ms=statistics.median(ms["torch"]))


def child(call):
    "What a function of this file prints in a process of its own, or None where it dies."
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import bench; bench.{call}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1]) if out.returncode == 0 else None


def memory(kind, b, n_labels, d):
    "One step in a process of its own: extra memory in MiB and seconds."
    return child(f"measure({kind!r}, {b}, {n_labels}, {d})")


def measure(kind, b, n_labels, d):
    warnings.filterwarnings("ignore")
    x, y = batch(b, n_labels, d)
    loss = make_loss("reg", n_labels, d,
                     **({} if kind == "definition" else dict(tile=None if kind == "auto" else int(kind)))).to(DEVICE)
    f = ((lambda l, x, y: definition(l, x, y).backward()) if kind == "definition"
         else (lambda l, x, y: l(x, y).backward()))
    f(loss, x[:32], y[:32])
    before, start = resident(reset=True), time.perf_counter()
    f(loss, x, y)
    sync()
    seconds = time.perf_counter() - start
    print(json.dumps(dict(mib=torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else resident() - before,
                          seconds=seconds)))


def resident(reset=False):
    "Peak of the resident memory since it was last reset, in MiB (Linux)."
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def size():
    """REG: memory and time against the number of instances (1,000 labels) and of labels (2,048 instances), by
    tiles and by whole matrices."""
    for b, n_labels in [(1024, 1000),
                        (2048, 1000)] if QUICK else [(2**k, 1000)
                                                     for k in range(10, 16)] + [(2048, n)
                                                                                for n in (10, 100, 300, 3000, 10000)]:
        for kind in ("auto", "definition") if b + n_labels <= 5096 else ("auto",):
            if (m := memory(kind, b, n_labels, 128)) is not None:
                store("size", how="tiles" if kind == "auto" else "whole", B=b, L=n_labels, D=128, mib=m["mib"],
                      seconds=m["seconds"], ns_per_pair=m["seconds"] * 1e9 / (b + n_labels) ** 2)
    if not QUICK:
        x, y = batch(2048, 1000, 128)
        dense, tiled = (make_loss("reg", 1000, 128, tile=t).to(DEVICE) for t in (None, 256))
        ms = timed(dict(dense=step(dense, x, y), tiled=step(tiled, x, y)), rounds=9)
        store("tile", loss="reg", tile=256, B=2048, L=1000, D=128, **middle(ms, "tiled", "dense"))


def encoder(name):
    """An encoder of the published study with random weights, a batch for it, and its operations an instance in a
    training step."""
    if name == "resnet50":
        from torchvision.models import resnet50
        return resnet50(weights=None).to(DEVICE).train(), torch.randn(8, 3, 224, 224, device=DEVICE), 3 * 2 * 4.1e9
    from transformers import RobertaConfig, RobertaModel
    net = RobertaModel(RobertaConfig(max_position_embeddings=514), add_pooling_layer=False)
    return net.to(DEVICE).train(), torch.randint(9, 50000, (4, 300), device=DEVICE), 6 * 85e6 * 300


def train_step(net, x):
    out = net(x)
    getattr(out, "last_hidden_state", out).pow(2).mean().backward()


def encoder_memory(name):
    warnings.filterwarnings("ignore")
    net, x, _ = encoder(name)
    train_step(net, x[:1])
    before = resident(reset=True)
    train_step(net, x)
    print(json.dumps((torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else resident() - before) / len(x)))


def published():
    """A training step of the published encoders: seconds and memory an instance, and the share of the rate of a
    plain matrix product that it reaches."""
    a = torch.randn(2048, 2048, device=DEVICE)
    ceiling = 2 * 2048**3 / statistics.median(timed(dict(f=lambda: a @ a), rounds=9)["f"]) * 1e3
    for name in ("roberta-base", "resnet50"):
        net, x, operations = encoder(name)
        seconds = statistics.median(timed(dict(f=lambda: train_step(net, x)), rounds=1 if QUICK
                                          else 3)["f"]) / 1e3 / len(x)
        store("published", encoder=name, batch=len(x), seconds=seconds, mib=child(f"encoder_memory({name!r})"),
              operations=operations, of_ceiling=operations / seconds / ceiling)


def gpu(sizes=((1024, 300), (4096, 1000), (16384, 1000), (65536, 1000)), hows=("eager", "compiled", "autocast"),
        anyway=False):
    "The table of a GPU: formats, whole and tiled, with torch.compile, under bfloat16 autocast, up to 65,536 instances."
    if DEVICE != "cuda" and not anyway:
        return print("gpu       not measured: no GPU here")
    plain = tiles.row_gradient
    for b, n_labels in sizes:
        x, y = batch(b, n_labels)
        n = b + n_labels
        m = min(n, 16384)
        a, c = torch.randn(m, 256, device=DEVICE), torch.randn(256, n, device=DEVICE)
        for product in (None, torch.bfloat16):
            p, q = (t.to(product or torch.float32) for t in (a, c))
            ceiling = statistics.median(timed(dict(f=lambda: p @ q))["f"]) * 3 * n / m
            for how in hows:
                tiles.row_gradient = torch.compile(plain) if how == "compiled" else plain
                rows = x.detach().bfloat16().requires_grad_() if how == "autocast" else x
                for tile in (None, 1024):
                    with torch.autocast(DEVICE, torch.bfloat16, enabled=how == "autocast"):
                        ms = statistics.median(timed(dict(f=step(make_loss("reg", n_labels, 256, product=product,
                                                                           tile=tile).to(DEVICE), rows, y)),
                                                     rounds=7)["f"])
                    store("gpu", loss="reg", B=b, L=n_labels, D=256, product=str(product or torch.float32), how=how,
                          tile=tile, ms=ms, of_ceiling=ceiling / ms)
    tiles.row_gradient = plain


def own_data(budget=3):
    """`mlcl compare` as a newcomer calls it on three real sets, with a budget of minutes each: a table of tweets,
    an archive of matrices, a folder of photographs."""
    import numpy as np
    from mlcl.data import data_file, load
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(data_file("semeval2018_ec/semeval2018_ec.parquet"), f"{folder}/tweets.parquet")
        yeast = load("yeast")
        np.savez(f"{folder}/yeast.npz", x=yeast.x, y=yeast.y)
        with tarfile.open(data_file("ucmerced_ml/images.tar")) as tar:
            tar.extractall(f"{folder}/aerial", filter="data")
        shutil.copy(data_file("ucmerced_ml/labels.csv"), f"{folder}/aerial/labels.csv")
        for call in ("tweets.parquet --text text", "yeast.npz", "aerial"):
            start = time.perf_counter()
            subprocess.run([Path(sys.executable).with_name("mlcl"), "compare", *call.split(), "--time-budget",
                            str(budget)], cwd=folder, check=True)
            seconds, res = (time.perf_counter() - start,
                            json.loads(max(Path(folder).glob("compare-*/report.json"),
                                           key=os.path.getmtime).read_text()))
            best = res["losses"][0]
            store("own_data", call=f"mlcl compare {call} --time-budget {budget}", budget=budget, seconds=seconds,
                  losses=len(res["losses"]), seeds=best["seeds"], epochs=res["settings"]["epochs"], best=best["loss"],
                  macro_f1=best["macro_f1"], lower=best["lower"], upper=best["upper"], encoder=res["encoder"])


AGAINST = dict(yeast=None, medical=None, enron=None, semeval2018_ec=3000, reuters90=3000, goemotions=10000,
               debtags=5000, eurlex57k=5000, aapd=5000, ucmerced_ml=None, corel5k_photos=None)


def part_of(name, n):
    """A data set, or `n` of its instances in the proportions of its splits, with the labels that its training
    split then has."""
    import dataclasses
    import numpy as np
    from mlcl.data import load
    from mlcl.study import content_hash
    ds = load(name)
    total = sum(map(len, ds.splits.values()))
    if n is None or total <= n:
        return ds
    rng = np.random.default_rng(0)
    splits = {k: np.sort(rng.choice(i, max(1, round(len(i) * n / total)), replace=False)) for k, i in ds.splits.items()}
    keep = np.flatnonzero(ds.y[splits["train"]].any(0))
    y, labels = np.ascontiguousarray(ds.y[:, keep]), [ds.labels[i] for i in keep]
    sha = content_hash(dict(data=ds.sha256, n=n)) * 4
    return dataclasses.replace(ds, name=f"{name}_{n}", splits=splits, y=y, labels=labels, sha256=sha)


def against_baselines(names=AGAINST, losses=("bce", "zlpr"), seeds=1):
    """What `compare` recommends against the best baseline, and against the best of those that everybody tries
    first; all are chosen on validation data."""
    from mlcl.own import compare
    for name in names:
        ds = part_of(name, AGAINST[name])
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            res = compare(ds, losses, seeds, out)
            seconds = time.perf_counter() - start
        models = {r["loss"]: r for r in res["losses"] + res["baselines"]}
        plain, blends = ([r for r in res["losses"] if ("+" in r["loss"]) == b] for b in (False, True))
        sides = dict(take=models[res["take"]], baseline=res["baselines"][0],
                     first=next(r for r in res["baselines"] if r["first"]), loss=plain[0], blend=blends[0])
        row = {f"{k}_{m}": r[m] for k, r in sides.items() for m in ("macro_f1", "micro_f1", "map", "seconds")}
        chosen = {k: r["loss"] for k, r in sides.items()}
        tried = {r["loss"]: [r[m] for m in ("val_macro_f1", "val_micro_f1", "macro_f1", "micro_f1", "seconds")]
                 for r in models.values()}
        store("against_baselines", dataset=name, n=len(ds) if AGAINST[name] is None else AGAINST[name],
              labels=ds.n_labels, encoder=res["encoder"], **chosen, losses=list(losses), seeds=seeds,
              minutes=seconds / 60, **row, tried=tried)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(min(2, os.cpu_count()))
    print(", ".join(f"{k} {v}" for k, v in versions().items()), flush=True)
    chosen = [a for a in sys.argv[1:] if a != "quick"]
    for part in (speed, against_plain, axes, against_direct, against_library, against_plain_newer, light, size,
                 published, gpu, own_data, against_baselines):
        # which take long, and need the data folder
        if part.__name__ in chosen or not chosen and part not in (own_data, against_baselines):
            part()
