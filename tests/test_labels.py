"Sweeps over label matrices of many shapes."
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from mlcl.labels import *

FUNCTIONS = (intersection, union, jaccard, coverage)
shapes = st.tuples(st.integers(1, 30), st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))


def matrix(shape):
    n, n_labels, p, seed = shape
    return (np.random.RandomState(seed).rand(n, n_labels) < p).astype(np.uint8)


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_against_python_sets(shape):
    y = matrix(shape)
    a, sets = torch.from_numpy(y), [set(np.flatnonzero(r)) for r in y]
    found = [f(a, a) for f in FUNCTIONS]
    for i, p in enumerate(sets):
        for j, q in enumerate(sets):
            expected = len(p & q), len(p | q), len(p & q)/max(len(p | q), 1), len(p & q)/max(len(q), 1)
            assert [float(f[i, j]) for f in found] == pytest.approx(expected)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_one_hot_is_the_identity(shape):
    a = torch.from_numpy(matrix(shape)).float()
    eye = torch.eye(a.shape[1])
    h = OneHot(a.shape[1])
    for f in FUNCTIONS:
        torch.testing.assert_close(f(a, h), f(a, eye))
        torch.testing.assert_close(f(h, a), f(eye, a))
        torch.testing.assert_close(f(h[::2], h), f(eye[::2], eye))


def test_one_hot_makes_no_identity():
    n = 200_000
    h = OneHot(n)
    assert intersection(torch.zeros(1, n), h).shape == (1, n)
    assert intersection(h[:2], h[-3:]).sum() == 0


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_descriptions_are_finite(shape):
    y = matrix(shape)
    assert 0 <= density(y) <= 1 and not np.isnan(imbalance(y)).any() and (imbalance(y) >= 1).all()
    for kind in ('count', 'conditional', 'jaccard'): assert np.isfinite(cooccurrence(y, kind)).all()
    assert label_sets(y)[1].sum() == len(y)
    assert sorted(np.concatenate(list(buckets(y).values()))) == list(range(y.shape[1]))


@pytest.mark.parametrize('f', [cardinality, density, imbalance, cooccurrence, label_sets, buckets])
@pytest.mark.parametrize('y', [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.array([[.5, 1]]),
                               np.array([[np.nan, 1]]), np.array([[2, 1]])])
def test_broken_matrices(f, y):
    with pytest.raises(ValueError, match='^y: '): f(y)
