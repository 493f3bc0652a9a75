"Sweeps for mlcl.metrics: scikit-learn as the reference, brute force for thresholds, a loop for the bootstrap."
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from mlcl.metrics import (bootstrap, lrap, mean_average_precision, per_label_f1, predict, replicates, resample, scores, tune_threshold,
                          tune_thresholds)

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
        micro_f1=sk.f1_score(y.ravel(), pred.ravel(), zero_division=0), macro_f1=np.array(f1)[keep].mean(), hamming=(y != pred).mean(),
        map=np.mean([sk.average_precision_score(a, b) for a, b in zip(y.T[keep], p.T[keep])]),
        lrap=sk.label_ranking_average_precision_score(y, p), ndcg=sk.ndcg_score(y, p), coverage_error=sk.coverage_error(y, p),
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
    y, p = np.array([[1, 1], [0, 0], [0, 0], [1, 1]]), np.array([[4., 4.], [3., 3.], [2., 2.], [1., 1.]])  # F1 2/3 twice
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
    for m in ('map', 'lrap', 'ndcg', 'coverage_error'): assert scores(y, p)[m] == pytest.approx(scores(y, q)[m], abs=1e-12)


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
    flat=(lambda f: f(Y[:, 0], P[:, 0]), 'y: '), column=(lambda f: f(Y[:, :1], P[:, :1]), 'y: '), empty=(lambda f: f(Y[:0], P[:0]), 'y: '),
    shape=(lambda f: f(Y, P[:, :2]), '(p|pred): '), nan=(lambda f: f(Y, np.where(P > 0, np.nan, P)), '(p|pred): '),
    inf=(lambda f: f(Y, np.where(P > 0, np.inf, P)), '(p|pred): '), label=(lambda f: f(Y*2, P), 'y: '), half=(lambda f: f(Y*.5, P), 'y: '),
    nan_label=(lambda f: f(np.where(Y, np.nan, 0.), P), 'y: '), negative=(lambda f: f(Y.astype(int)*-1, P), 'y: '),
    nothing=(lambda f: f(Y*0, P), 'y: '))
FUNCTIONS = [scores, tune_threshold, tune_thresholds, lrap, mean_average_precision, per_label_f1, bootstrap]


@pytest.mark.parametrize('case,f', list(itertools.product(BAD, FUNCTIONS)))
def test_bad_input(case, f):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=f'^{message}expected'): call(f)


@pytest.mark.parametrize('call,message', [
    (lambda: tune_threshold(Y, P, 'f1'), 'metric: '), (lambda: bootstrap(Y, P, 'f1'), 'metric: '), (lambda: per_label_f1(Y, P), 'pred: '),
    (lambda: bootstrap(Y, P), 'pred: '), (lambda: predict(P, [.1, .2]), 'threshold: '), (lambda: predict(P, np.nan), 'threshold: '),
    (lambda: predict(P[0]), 'p: '), (lambda: scores(Y, P, np.zeros((6, 3))), 'threshold: '), (lambda: resample(0), 'n_instances: '),
    (lambda: resample(5, 0), 'n: '), (lambda: bootstrap(Y, predict(P), level=1.5), 'level: '),
    (lambda: scores(Y, P, buckets=dict(head=[7])), 'buckets: '), (lambda: replicates(Y, predict(P), np.ones((4, 5))), 'counts: ')])
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=f'^{message}expected'): call()


def test_many_labels_are_fast():
    y, p = sample(3000, 983, density=.02)
    for f, limit in [(lambda: tune_thresholds(y, p), 3), (lambda: tune_threshold(y, p), 3), (lambda: scores(y, p), 10),
                     (lambda: bootstrap(y, predict(p)), 8)]:
        start = time.process_time(); f()
        assert time.process_time() - start < limit
