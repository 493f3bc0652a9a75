"""Seeded random cases for the losses: plain NumPy data, with dtype and layout named by strings for the tests to apply.

Keys of a case
    index, seed             to make the very case again: case(index, seed)
    embeddings (B, D)       float64, already exactly representable in `embedding_dtype`; some rows may be zero or huge
    labels (B, L)           uint8 in {0, 1}; make them `label_dtype`
    embedding_dtype         'float16' | 'bfloat16' | 'float32' | 'float64' (references, prototypes and logits too)
    label_dtype             'bool' | 'uint8' | 'int64' | 'float16' | 'float32' | 'float64' (reference labels too)
    embedding_layout, label_layout      with t = the contiguous tensor of those values:
        'contiguous'        t
        'transposed'        t.t().contiguous().t()                                   (not contiguous)
        'expanded'          t[:1].expand(B, -1): every row of the array already equals row 0  (stride 0)
        'strided'           big = empty(2 B, 2 D); big[::2, ::2] = t; big[::2, ::2]  (slices with a step)
    label_kind              'random' | 'long_tailed' | 'one_hot' | 'empty_rows' | 'full_rows' | 'duplicate_rows' |
                            'all_empty': before the layout 'expanded' repeats a row; positives are never guaranteed
    row_kind                'plain' | 'zero' | 'huge' | 'mixed': what some embedding rows are
    zero_rows (B,)          bool, where an embedding row is zero
    references              'none' | 'batch' (a copy of the batch; nothing is excluded) | 'other'
    ref_embeddings, ref_labels          None, or arrays as above (contiguous)
    prototypes (L, D)       float64, no zero rows
    tile                    None | 1 | 3 | 17 | 1000
    temperature             0.01 | 0.07 | 0.1 | 1.0
    alpha                   REG's exponent: 0.0 | 1.0 | 2.5 | -1.0
    logits (B, L)           float64, representable in `embedding_dtype`; zeros and +-200 among them
    unknown (B, L)          bool, True where a logit loss should see NaN (often nowhere); float label dtypes only
    class_counts, n_train   (L,) int64 and int: training counts for the losses that need them, 0 and n_train included
"""
import numpy as np

EMBEDDING_DTYPES = ("float16", "bfloat16", "float32", "float64")
LABEL_DTYPES = ("bool", "uint8", "int64", "float16", "float32", "float64")
LAYOUTS = ("contiguous", "transposed", "expanded", "strided")
LABEL_KINDS = ("random", "long_tailed", "one_hot", "empty_rows", "full_rows", "duplicate_rows", "random", "long_tailed",
               "one_hot", "empty_rows", "full_rows", "duplicate_rows", "all_empty")
ROW_KINDS = ("plain", "plain", "zero", "huge", "mixed")
REFERENCES = ("none", "batch", "other")
TILES = (None, 1, 3, 17, 1000)
TEMPERATURES = (0.01, 0.07, 0.1, 1.0)
ALPHAS = (0.0, 1.0, 2.5, -1.0)
LARGEST = {"float16": 6e4, "bfloat16": 1e30, "float32": 1e30, "float64": 1e30}


def rounded(array, dtype):
    """The float64 array rounded to the nearest value of the named dtype (ties to even), back in float64."""
    array = np.asarray(array, dtype=np.float64)
    if dtype == "bfloat16":
        # Directly from float64: keep 8 significant bits. Values below bfloat16's normal range become 0.
        mantissa, exponent = np.frexp(array)
        result = np.ldexp(np.round(mantissa * 256.0), exponent - 8)
        return np.where(np.abs(result) < 2.0 ** -126, 0.0, result)
    return array.astype(dtype).astype(np.float64)


def _cycle(options, name, index, seed):
    """The option of case `index`: every run of len(options) cases has each once, in an order of its own."""
    block, place = divmod(index, len(options))
    key = sum(ord(letter) * 31 ** position for position, letter in enumerate(name)) % 2 ** 32
    order = np.random.default_rng([seed, key, block]).permutation(len(options))
    return options[order[place]]


def _label_sets(rng, kind, n, n_labels):
    """A (n, n_labels) uint8 array of the kind."""
    density = rng.choice([0.02, 0.1, 0.3, 0.6])
    labels = rng.random((n, n_labels)) < density
    if kind == "long_tailed":
        labels = rng.random((n, n_labels)) < 0.9 / np.arange(1, n_labels + 1) ** rng.choice([0.7, 1.0, 1.5])
    elif kind == "one_hot":
        labels = np.arange(n_labels) == rng.integers(n_labels, size=n)[:, None]
    elif kind == "empty_rows":
        labels[rng.random(n) < 0.4] = False
    elif kind == "full_rows":
        labels[rng.random(n) < 0.4] = True
    elif kind == "duplicate_rows":
        labels = labels[rng.integers(max(1, n // 4), size=n)]
    elif kind == "all_empty":
        labels = np.zeros((n, n_labels), dtype=bool)
    return labels.astype(np.uint8)


def _embeddings(rng, row_kind, n, dim, dtype):
    """Rows of differing closeness and length, some of them zero or huge; representable in dtype. Also the zero rows."""
    centre = rng.normal(size=dim) * rng.choice([0.0, 1.0, 5.0])
    x = rng.normal(size=(n, dim)) + centre
    chosen = rng.random(n) < 0.3
    chosen[rng.integers(n)] = True
    zero = chosen & (rng.random(n) < {"zero": 1.0, "mixed": 0.5}.get(row_kind, 0.0))
    huge = chosen & ~zero if row_kind in ("huge", "mixed") else np.zeros(n, dtype=bool)
    peak = 10.0 ** rng.uniform(4.0, np.log10(LARGEST[dtype]), size=n)
    x[huge] *= (peak / np.maximum(np.abs(x).max(axis=1), 1e-3))[huge, None]  # its largest entry is 1e4 to 1e30
    x[zero] = 0.0
    x = rounded(x, dtype)
    return x, ~x.any(axis=1)


def case(index, seed=0):
    """Case number `index` of `seed`; the same whatever other cases are made."""
    rng = np.random.default_rng([seed, 20261128, index])
    pick = {name: _cycle(options, name, index, seed) for name, options in (
        ("embedding_dtype", EMBEDDING_DTYPES), ("label_dtype", LABEL_DTYPES), ("label_kind", LABEL_KINDS),
        ("row_kind", ROW_KINDS), ("references", REFERENCES), ("tile", TILES), ("temperature", TEMPERATURES),
        ("alpha", ALPHAS))}
    # Half of the layouts are contiguous; 'expanded' makes all rows equal, so it is rarer than the others.
    layouts = ("contiguous",) * 5 + ("transposed",) * 2 + ("strided",) * 2 + ("expanded",)
    pick["embedding_layout"] = _cycle(layouts, "embedding_layout", index, seed)
    pick["label_layout"] = _cycle(layouts, "label_layout", index, seed)
    dtype = pick["embedding_dtype"]

    n = int(_cycle((1, 2, 3, 5, 8, 16, 17, 33, 64, 70, 0, 0), "batch", index, seed)) or int(rng.integers(1, 71))
    n_labels = int(rng.integers(1, 9) if rng.random() < 0.7 else rng.integers(9, 201))
    dim = int(rng.choice([1, 2, 3, 8, 16, 64])) if rng.random() < 0.6 else int(rng.integers(1, 65))

    embeddings, _ = _embeddings(rng, pick["row_kind"], n, dim, dtype)
    labels = _label_sets(rng, pick["label_kind"], n, n_labels)
    if pick["embedding_layout"] == "expanded":
        embeddings = np.repeat(embeddings[:1], n, axis=0)
    if pick["label_layout"] == "expanded":
        labels = np.repeat(labels[:1], n, axis=0)

    ref_embeddings = ref_labels = None
    if pick["references"] == "batch":
        ref_embeddings, ref_labels = embeddings.copy(), labels.copy()
    elif pick["references"] == "other":
        m = int(rng.integers(1, 71))
        ref_embeddings, _ = _embeddings(rng, pick["row_kind"], m, dim, dtype)
        ref_kind = "random" if pick["label_kind"] == "all_empty" else pick["label_kind"]
        ref_labels = _label_sets(rng, ref_kind, m, n_labels)

    prototypes = rounded(rng.normal(size=(n_labels, dim)), dtype)
    prototypes[~prototypes.any(axis=1)] = 1.0
    logits = rng.normal(size=(n, n_labels)) * rng.choice([1.0, 5.0])
    logits = np.where(rng.random(logits.shape) < 0.05, rng.choice([0.0, 200.0, -200.0], size=logits.shape), logits)
    unknown = np.zeros(labels.shape, dtype=bool)
    if pick["label_dtype"].startswith("float") and rng.random() < 0.5:
        unknown = rng.random(labels.shape) < 0.2
        unknown[rng.integers(n)] |= rng.random() < 0.3  # sometimes a whole row
    n_train = int(rng.integers(2, 5000))
    class_counts = rng.integers(0, n_train + 1, size=n_labels)
    class_counts[rng.integers(n_labels)] = rng.choice([0, n_train])

    return {"index": index, "seed": seed, "embeddings": embeddings, "labels": labels, **pick,
            "zero_rows": ~embeddings.any(axis=1), "ref_embeddings": ref_embeddings, "ref_labels": ref_labels,
            "prototypes": prototypes, "logits": rounded(logits, dtype), "unknown": unknown,
            "class_counts": class_counts, "n_train": n_train}


def cases(n, seed=0):
    """Yield n cases; the first k of cases(n, seed) are those of cases(k, seed)."""
    for index in range(n):
        yield case(index, seed)
