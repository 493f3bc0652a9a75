"Sweeps for mlcl.metrics: scikit-learn as the reference, brute force for thresholds, a loop for the bootstrap."
import itertools
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from mlcl.metrics import (UnknownColumnsWarning, bootstrap, coverage_error, lrap, mean_average_precision, ndcg,
                          per_label_f1, predict, replicates,
                          resample, scores, tune_threshold, tune_thresholds)

DTYPES = [np.uint8, np.int64, bool, np.float32, np.float64]


def sample(n, n_labels, seed=0, density=.2, decimals=None):
    "Random labels, at least one of them positive, and scores that know something about them."
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_labels)) < density).astype(np.uint8)
    y[rng.integers(n), rng.integers(n_labels)] = 1
    p = rng.normal(size=y.shape) + 1.5*y
    return y, p if decimals is None else p.round(decimals)


def macro_f1(y, pred):
    "The rule, written out."
    return np.mean([micro_f1(a, b) for a, b in zip(y.T, pred.T) if a.any()])


def micro_f1(y, pred):
    tp, n = (y*pred).sum(), y.sum() + pred.sum()
    return 2*tp/n if n else 0.


def cuts(p):
    "One cut between each two neighbouring scores, one below all, one above."
    v = np.unique(p.astype(float))
    return np.concatenate([[v[0] - 1], (v[1:] + v[:-1])/2, [v[-1]]])


SHAPES = [(1, 2), (2, 2), (7, 3), (40, 5), (25, 60), (200, 14)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('decimals', [None, 0, 1])
def test_scores_equal_sklearn(shape, decimals):
    y, p = sample(*shape, decimals=decimals)
    got, keep, pred = scores(y, p, .3), y.any(0), p > .3
    f1 = [sk.f1_score(a, b, zero_division=0) for a, b in zip(y.T, pred.T)]
    want = dict(
        micro_f1=sk.f1_score(y.ravel(), pred.ravel(), zero_division=0), macro_f1=np.array(f1)[keep].mean(),
        hamming=(y != pred).mean(),
        map=np.mean([sk.average_precision_score(a, b) for a, b in zip(y.T[keep], p.T[keep])]),
        lrap=sk.label_ranking_average_precision_score(y, p), ndcg=sk.ndcg_score(y, p),
        coverage_error=sk.coverage_error(y, p),
        n_left_out=(~keep).sum())
    assert got.keys() == want.keys()
    for k in want: assert got[k] == pytest.approx(want[k], abs=1e-12), k
    assert all(type(v) in (float, int) for v in got.values())


@pytest.mark.parametrize('shape', SHAPES)
def test_macro_rule_and_per_label(shape):
    y, p = sample(*shape, density=.03)
    pred = predict(p, .5)
    f1 = per_label_f1(y, pred)
    assert [f is None for f in f1] == (~y.any(0)).tolist()
    assert np.mean([f for f in f1 if f is not None]) == pytest.approx(macro_f1(y, pred), abs=1e-12)
    assert scores(y, p)['macro_f1'] == pytest.approx(macro_f1(y, pred), abs=1e-12)
    assert scores(y, p)['micro_f1'] == pytest.approx(micro_f1(y, pred), abs=1e-12)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ptype', [np.float16, np.float32, np.float64])
def test_dtypes(dtype, ptype):
    y, p = sample(50, 6, decimals=1)
    p = p.astype(ptype)
    assert scores(y.astype(dtype), p) == scores(y, p)
    assert tune_threshold(y.astype(dtype), p) == tune_threshold(y, p)


def test_torch_tensors():
    torch = pytest.importorskip('torch')
    y, p = sample(30, 4)
    assert scores(torch.tensor(y), torch.tensor(p)) == scores(y, p)


@pytest.mark.parametrize('labels', ['none', 'all'])
def test_instances_with_extreme_label_sets(labels):
    y, p = sample(20, 5)
    y[3] = labels == 'all'
    got = scores(y, p)
    assert got['lrap'] == pytest.approx(sk.label_ranking_average_precision_score(y, p), abs=1e-12)
    assert got['ndcg'] == pytest.approx(sk.ndcg_score(y, p), abs=1e-12)
    assert got['coverage_error'] == pytest.approx(sk.coverage_error(y, p), abs=1e-12)


def test_instances_without_labels_count_as_in_sklearn():
    "1 in LRAP, 0 in nDCG, 0 in coverage error: two instances, one empty, the other perfect."
    y, p = np.array([[0, 0, 0], [1, 0, 0]]), np.array([[.1, .5, .2], [.3, .2, .1]])
    assert (lrap(y, p), ndcg(y, p), coverage_error(y, p)) == (1., .5, .5)
    assert ndcg(y, p) == sk.ndcg_score(y, p) and ndcg(y[1:], p[1:]) == 1.
    got = scores(y, p)
    assert (got['lrap'], got['ndcg'], got['coverage_error']) == (1., .5, .5)


# Unknown labels: whatever a metric says must be what it says of the known entries, cut out by hand

def holes(y, seed=0, share=.3, row=True):
    "Labels with unknown entries, one row of them unknown altogether; each column keeps an entry."
    rng = np.random.default_rng(seed)
    out = np.where(rng.random(y.shape) < share, np.nan, y)
    if row: out[1] = np.nan
    keep = rng.integers(2, len(y), y.shape[1]), np.arange(y.shape[1])
    out[keep] = y[keep]
    return out


def known_pairs(y, p):
    "Label and score of the known entries of each row."
    return [(a[a == a], b[a == a]) for a, b in zip(y, p)]


@pytest.mark.parametrize('decimals', [None, 0])
@pytest.mark.parametrize('shape', [(7, 3), (40, 5), (25, 60)])
def test_unknown_labels_count_nowhere(shape, decimals):
    y, p = sample(*shape, density=.3, decimals=decimals)
    y[2], y[3] = 1, 0  # a full and an empty instance
    y = holes(y)
    got, pred = scores(y, p, .3), p > .3
    cols, rows = known_pairs(y.T, p.T), [(a, b) for a, b in known_pairs(y, p) if len(a)]
    f1 = [sk.f1_score(a, b > .3, zero_division=0) if a.any() else None for a, b in cols]
    k = y == y
    want = dict(
        micro_f1=sk.f1_score(y[k], pred[k]), macro_f1=np.mean([f for f in f1 if f is not None]),
        hamming=(y[k] != pred[k]).mean(),
        map=np.mean([sk.average_precision_score(a, b) for a, b in cols if a.any()]),
        lrap=np.mean([sk.label_ranking_average_precision_score([a], [b]) if len(a) > 1 else 1. for a, b in rows]),
        ndcg=np.mean([sk.ndcg_score([a], [b]) if len(a) > 1 else float(a[0]) for a, b in rows]),
        coverage_error=np.mean([sk.coverage_error([a], [b]) if len(a) > 1 else float(a[0]) for a, b in rows]),
        n_left_out=sum(f is None for f in f1), n_unknown=(~k).sum())
    assert got.keys() == want.keys() and len(rows) == shape[0] - 1
    for name in want: assert got[name] == pytest.approx(want[name], abs=1e-12), name
    for a, b in zip(per_label_f1(y, pred), f1): assert a is b is None or a == pytest.approx(b, abs=1e-12)
    for f, name in ((mean_average_precision, 'map'), (lrap, 'lrap'), (ndcg, 'ndcg'),
                    (coverage_error, 'coverage_error')):
        assert f(y, p) == pytest.approx(want[name], abs=1e-12)


@pytest.mark.parametrize('decimals', [None, 0])
@pytest.mark.parametrize('shape', [(7, 3), (40, 5), (60, 20)])
def test_thresholds_see_known_entries_only(shape, decimals):
    "The best cut of the known entries by brute force, and the very cut that those entries alone would give."
    y, p = sample(*shape, density=.3, decimals=decimals)
    y = holes(y)
    known, cols = y == y, known_pairs(y.T, p.T)
    common, each = tune_threshold(y, p), tune_thresholds(y, p)
    macro = lambda t: np.mean([micro_f1(a, b > t) for a, b in cols if a.any()])
    assert macro(common) == pytest.approx(max(map(macro, cuts(p[known]))), abs=1e-12)
    micro = lambda t: micro_f1(y[known], p[known] > t)
    assert micro(tune_threshold(y, p, 'micro_f1')) == pytest.approx(max(map(micro, cuts(p[known]))), abs=1e-12)
    for t, (a, b) in zip(each, cols):
        two = np.stack([a, a], 1), np.stack([b, b], 1)
        assert t == (tune_threshold(*two, 'micro_f1') if a.any() else common)
    assert np.isfinite(each).all() and np.isfinite(common)


def test_the_lowest_known_positive_gets_a_finite_cut():
    "Nothing known stands below it: the cut lies right below its score, not half-way to minus infinity."
    y, p = np.array([[1, 1], [np.nan, 1], [np.nan, 0.]]), np.array([[.5, .9], [.1, .8], [.7, .2]])
    assert tune_thresholds(y, p) == pytest.approx([.5, .5]) and tune_thresholds(y, p)[0] < .5
    low = np.array([[1, 1], [np.nan, 1]]), np.array([[.5, .9], [.1, .8]])
    for metric in ('macro_f1', 'micro_f1'): assert .5 - 1e-9 < tune_threshold(*low, metric) < .5


@pytest.mark.parametrize('metric', ['micro_f1', 'macro_f1', 'hamming', 'lrap', 'map'])
def test_bootstrap_of_known_entries_equals_the_loop(metric):
    (y, _), (_, p) = sample(40, 6, density=.15), sample(40, 6, seed=7)  # scores that know nothing: no metric is perfect
    y[0] = 1
    y = holes(y)
    y[0] = 1
    counts = resample(40, 30, seed=3)
    got = replicates(y, p if metric in ('lrap', 'map') else predict(p), counts, metric)
    for c, g in zip(counts, got):
        rows = np.repeat(np.arange(40), c.astype(int))
        if not (y[rows] == 1).any(): continue
        with warnings.catch_warnings(action='ignore', category=UnknownColumnsWarning):
            assert g == pytest.approx(scores(y[rows], p[rows])[metric], abs=1e-6)
    lo, hi = bootstrap(y, p if metric in ('lrap', 'map') else predict(p), metric, 200)
    assert 0 <= lo <= hi <= 1


def test_a_column_that_nobody_knows_is_left_out_and_named():
    y, p = sample(30, 4, density=.4)
    some = y.astype(float); some[:, 2] = np.nan
    rest = [0, 1, 3]
    with pytest.warns(UnknownColumnsWarning, match='no entry is known of 1 labels, columns 2;'):
        got, want = scores(some, p, n_boot=20), scores(y[:, rest], p[:, rest], n_boot=20)
    assert got == pytest.approx(want | dict(n_left_out=1, n_unknown=30))
    for f in (tune_threshold, mean_average_precision, lrap, ndcg, coverage_error):
        with pytest.warns(UnknownColumnsWarning, match='columns 2;'):
            assert f(some, p) == pytest.approx(f(y[:, rest], p[:, rest]))
    with pytest.warns(UnknownColumnsWarning):
        each, f1 = tune_thresholds(some, p), per_label_f1(some, predict(p))
        assert (f1[2] is None and each[2] == tune_threshold(some, p)
                and each[rest].tolist() == tune_thresholds(y[:, rest], p[:, rest]).tolist())


@pytest.mark.parametrize('value', [1e300, -1e300, .5, 0.])
def test_scores_of_unknown_entries_change_nothing(value):
    y, p = sample(30, 5, density=.3)
    y = holes(y)
    q = np.where(y == y, p, value)
    assert scores(y, q, .3, n_boot=20) == scores(y, p, .3, n_boot=20)
    assert tune_threshold(y, q) == tune_threshold(y, p) and (tune_thresholds(y, q) == tune_thresholds(y, p)).all()


def test_unknown_labels_in_other_formats():
    torch = pytest.importorskip('torch')
    y, p = sample(30, 4, density=.3)
    y = holes(y)
    want = scores(y, p)
    objects = np.where(y == y, y, None)
    for other in (y.astype(np.float16), y.astype(np.float32), objects, torch.tensor(y), np.asfortranarray(y),
                  y[::-1][::-1], y.tolist()):
        assert scores(other, p) == want
    assert 'n_unknown' not in scores(np.nan_to_num(y), p)


@pytest.mark.parametrize('kind', [np.int64, np.uint8, np.float32])
def test_options_may_be_numpy_scalars(kind):
    y, p = sample(30, 4)
    if kind is np.float32:
        assert ((predict(p, kind(.5)) == predict(p)).all() and bootstrap(y, predict(p), n=20, level=kind(.5))
                == bootstrap(y, predict(p), n=20, level=.5))
    else:
        assert ((resample(kind(30), kind(20)) == resample(30, 20)).all() and scores(y, p, n_boot=kind(20))
                == scores(y, p, n_boot=20))
        assert scores(y, p, kind(1)) == scores(y, p, 1.)


@given(hnp.arrays(np.uint8, (8, 3), elements=st.integers(0, 1)).filter(lambda y: y.any()),
       hnp.arrays(np.float64, (8, 3), elements=st.sampled_from([-2., -.5, 0., .25, .5, 1.])))
@settings(max_examples=50, deadline=None)
def test_ties_everywhere(y, p):
    keep = y.any(0)
    assert mean_average_precision(y, p) == pytest.approx(sk.average_precision_score(y[:, keep], p[:, keep]), abs=1e-12)
    assert lrap(y, p) == pytest.approx(sk.label_ranking_average_precision_score(y, p), abs=1e-12)
    best = max(macro_f1(y, p > t) for t in cuts(p))
    assert macro_f1(y, p > tune_threshold(y, p)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('decimals', [None, 0, 1])
def test_thresholds_against_brute_force(shape, seed, decimals):
    y, p = sample(*shape, seed, density=.1, decimals=decimals)
    all_cuts = cuts(p) if p.size <= 600 else cuts(p)[::7]
    for metric, f in dict(macro_f1=macro_f1, micro_f1=micro_f1).items():
        got, best = f(y, p > tune_threshold(y, p, metric)), max(f(y, p > t) for t in all_cuts)
        assert got == pytest.approx(best, abs=1e-12) if p.size <= 600 else got >= best - 1e-12
    t = tune_thresholds(y, p)
    for l in range(shape[1]):
        if not y[:, l].any(): assert t[l] == tune_threshold(y, p); continue
        f1 = lambda cut: micro_f1(y[:, l], p[:, l] > cut)
        assert f1(t[l]) == pytest.approx(max(map(f1, cuts(p[:, l]))), abs=1e-12)


def test_best_cut_is_the_highest_and_in_the_middle():
    y = np.array([[1, 1], [0, 0], [1, 0], [0, 0]])
    p = np.array([[.9, .9], [.8, .2], [.7, .2], [.1, .1]])
    assert tune_thresholds(y, p) == pytest.approx([(.7 + .1)/2, (.9 + .2)/2])
    # F1 2/3 twice
    y, p = np.array([[1, 1], [0, 0], [0, 0], [1, 1]]), np.array([[4., 4.], [3., 3.], [2., 2.], [1., 1.]])
    assert tune_thresholds(y, p).tolist() == [3.5, 3.5] and tune_threshold(y, p) == 3.5


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_cuts_between_neighbouring_floats(dtype):
    lo = dtype(.3)
    hi = np.nextafter(lo, dtype(1))
    y, p = np.array([[1, 1], [0, 0]]), np.array([[hi, hi], [lo, lo]])
    for t in (tune_thresholds(y, p), tune_threshold(y, p), tune_threshold(y, p, 'micro_f1')):
        assert (predict(p, t) == y).all()


@pytest.mark.parametrize('value', [-1e300, -1., 0., .5, 1e300])
def test_constant_scores(value):
    y, p = np.array([[1, 0], [0, 1], [0, 1]]), np.full((3, 2), value)
    assert predict(p, tune_threshold(y, p)).all() and predict(p, tune_thresholds(y, p)).all()
    assert mean_average_precision(y, p) == pytest.approx(y.mean(0).mean())


def test_monotone_map_of_scores():
    y, p = sample(60, 7)
    q = 1/(1 + np.exp(-p))
    for a, b in zip((tune_thresholds(y, p), tune_threshold(y, p)), (tune_thresholds(y, q), tune_threshold(y, q))):
        assert (predict(p, a) == predict(q, b)).all()
    for m in ('map', 'lrap', 'ndcg', 'coverage_error'):
        assert scores(y, p)[m] == pytest.approx(scores(y, q)[m], abs=1e-12)


@pytest.mark.parametrize('metric,reference', [
    ('micro_f1', lambda y, p: micro_f1(y, p > .5)), ('macro_f1', lambda y, p: macro_f1(y, p > .5)),
    ('hamming', lambda y, p: (y != (p > .5)).mean()), ('lrap', sk.label_ranking_average_precision_score),
    ('map', lambda y, p: np.mean([sk.average_precision_score(a, b) for a, b in zip(y.T, p.T) if a.any()]))])
@pytest.mark.parametrize('decimals', [None, 0])
def test_bootstrap_equals_the_loop(metric, reference, decimals):
    y, p = sample(40, 6, density=.08, decimals=decimals)
    y[0] = 1
    counts = resample(40, 30, seed=3)
    got = replicates(y, p if metric in ('lrap', 'map') else predict(p), counts, metric)
    assert counts.sum(1).tolist() == [40]*30
    for c, g in zip(counts, got):
        rows = np.repeat(np.arange(40), c.astype(int))
        if y[rows].any(): assert g == pytest.approx(reference(y[rows], p[rows]), abs=1e-6)


def test_bootstrap_is_reproducible_and_brackets_the_value():
    y, p = sample(200, 6)
    pred = predict(p)
    for m in ('micro_f1', 'macro_f1'):
        lo, hi = bootstrap(y, pred, m)
        assert (lo, hi) == bootstrap(y, pred, m) != bootstrap(y, pred, m, seed=1)
        assert lo < scores(y, p)[m] < hi
        assert (scores(y, p, n_boot=1000)[f'{m}_lo'], scores(y, p, n_boot=1000)[f'{m}_hi']) == (lo, hi)


def test_buckets():
    y, p = sample(80, 6, density=.1)
    y[:, 5] = 0
    got, pred = scores(y, p, buckets=dict(head=np.array([0, 1]), tail=[4, 5], empty=[5])), predict(p)
    assert got['macro_f1_head'] == pytest.approx(macro_f1(y[:, :2], pred[:, :2]))
    assert got['macro_f1_tail'] == pytest.approx(macro_f1(y[:, 4:], pred[:, 4:])) and got['macro_f1_empty'] is None


Y, P = sample(6, 3)
BAD = dict(
    flat=(lambda f: f(Y[:, 0], P[:, 0]), 'y: '), column=(lambda f: f(Y[:, :1], P[:, :1]), 'y: '),
    empty=(lambda f: f(Y[:0], P[:0]), 'y: '),
    shape=(lambda f: f(Y, P[:, :2]), '(p|pred): '), nan=(lambda f: f(Y, np.where(P > 0, np.nan, P)), '(p|pred): '),
    inf=(lambda f: f(Y, np.where(P > 0, np.inf, P)), '(p|pred): '), label=(lambda f: f(Y*2, P), 'y: '),
    half=(lambda f: f(Y*.5, P), 'y: '),
    only_unknown=(lambda f: f(np.where(Y, np.nan, np.nan), P), 'y: '),
    no_known_positive=(lambda f: f(np.where(Y, np.nan, 0.), P), 'y: '),
    words=(lambda f: f(np.where(Y, 'yes', 'no').astype(object), P), 'y: '),
    infinite_label=(lambda f: f(np.where(Y, np.inf, 0.), P), 'y: '),
    half_and_nan=(lambda f: f(np.where(Y, .5, np.nan), P), 'y: '), negative=(lambda f: f(Y.astype(int)*-1, P), 'y: '),
    nothing=(lambda f: f(Y*0, P), 'y: '))
FUNCTIONS = [scores, tune_threshold, tune_thresholds, lrap, ndcg, coverage_error, mean_average_precision,
             per_label_f1, bootstrap]


@pytest.mark.parametrize('case,f', list(itertools.product(BAD, FUNCTIONS)))
def test_bad_input(case, f):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=f'^{message}expected'): call(f)


@pytest.mark.parametrize('call,message', [
    (lambda: tune_threshold(Y, P, 'f1'), 'metric: '), (lambda: bootstrap(Y, P, 'f1'), 'metric: '),
    (lambda: per_label_f1(Y, P), 'pred: '),
    (lambda: bootstrap(Y, P), 'pred: '), (lambda: predict(P, [.1, .2]), 'threshold: '),
    (lambda: predict(P, np.nan), 'threshold: '),
    (lambda: predict(P[0]), 'p: '), (lambda: scores(Y, P, np.zeros((6, 3))), 'threshold: '),
    (lambda: resample(0), 'n_instances: '),
    (lambda: resample(5, 0), 'n: '), (lambda: resample(5., 3), 'n_instances: '), (lambda: resample(5, 2.5), 'n: '),
    (lambda: resample(5, '3'), 'n: '),
    (lambda: bootstrap(Y, predict(P), level='x'), 'level: '), (lambda: bootstrap(Y, predict(P), ['map']), 'metric: '),
    (lambda: bootstrap(Y, predict(P), level=1.5), 'level: '),
    (lambda: scores(Y, P, buckets=dict(head=[7])), 'buckets: '), (lambda: replicates(Y, predict(P), np.ones((4, 5))),
                                                                  'counts: ')])
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def test_many_labels_are_fast():
    y, p = sample(3000, 983, density=.02)
    for f, limit in [(lambda: tune_thresholds(y, p), 3), (lambda: tune_threshold(y, p), 3), (lambda: scores(y, p), 10),
                     (lambda: bootstrap(y, predict(p)), 8)]:
        start = time.process_time(); f()
        assert time.process_time() - start < limit


def test_calibration_and_rankings_leave_unknown_labels_out():
    from mlcl.own import quality as q
    rng = np.random.default_rng(0)
    y = (rng.random((200, 4)) < .3).astype(float)
    s = 3*y + rng.normal(size=y.shape)
    z = y.copy()
    z[rng.random(y.shape) < .3] = np.nan
    known = z == z
    p = 1/(1 + np.exp(-s))
    assert q.brier(z, p) == pytest.approx(((p - y)[known]**2).mean())
    assert sum(r['n'] for r in q.reliability(z, p)) == known.sum()
    assert q.precision_at(z, s, 1) == q.precision_at(np.where(known, y, 0), np.where(known, s, -9), 1) > .5
    assert q.ndcg_at(z, s, 3) == pytest.approx(q.ndcg_at(np.where(known, y, 0), np.where(known, s, -9), 3))
    for k in (0, 5):
        for f in (q.precision_at, q.ndcg_at):
            with pytest.raises(ValueError, match='^k: expected 1 to 4, the number of labels, got'): f(z, s, k)
    one = np.where(known[:, 0], y[:, 0], np.nan)
    rows = known[:, 0]
    a = q.calibrate(z, s)(s)[:, 0]
    b = q._sigmoid(s[rows, 0], one[rows] == 1)(s[:, 0])
    np.testing.assert_allclose(a, b)
