"Splits and nested shares of label matrices of many shapes."
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from mlcl.data.splits import fraction, split
from test_labels import matrix, shapes


@given(shapes, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_split_and_fraction(shape, seed):
    y = matrix(shape)
    if len(y) >= 3: assert sorted(np.concatenate(split(y, (.6, .2, .2), seed))) == list(range(len(y)))
    last = set()
    for share in (.05, .1, .3, .5, .9, 1.):
        now = set(fraction(y, share, seed))
        assert last <= now and len(now) == max(1, round(share*len(y)))
        last = now


@pytest.mark.parametrize('seed', range(3))
def test_split_beats_chance(seed):
    rng = np.random.RandomState(seed)
    y = rng.rand(2000, 60) < .2*np.exp(-4*np.linspace(0, 1, 60))
    error = lambda idx: np.abs(y[idx].mean(0) - y.mean(0)).mean()
    part = split(y, (.8, .2), seed)[1]
    assert abs(len(part) - 400) < 60
    assert error(part) < .5*np.mean([error(rng.permutation(2000)[:len(part)]) for _ in range(20)])


@pytest.mark.parametrize('shares', [(.5,), (.5, .6), (1.2, -.2), (.5, float('nan')), [[.5, .5]]])
def test_broken_shares(shares):
    with pytest.raises(ValueError, match='^shares: '): split(np.eye(10), shares)


@pytest.mark.parametrize('f', [lambda y: split(y, (.5, .5)), lambda y: fraction(y, .5)])
@pytest.mark.parametrize('y', [np.zeros((0, 3)), np.zeros(3), np.array([[.5, 1]]), np.array([[np.nan, 1]]),
                               np.array([[2, 1]])])
def test_broken_matrices(f, y):
    with pytest.raises(ValueError, match='^y: '): f(y)
