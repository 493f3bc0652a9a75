"""The solved probe reaches the optimum of every label and every strength, whatever the features are like."""
import pytest, torch
from mlcl import linear
from mlcl.linear import STRENGTHS, logistic


def normal(*shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def rare():
    y = torch.zeros(20_000, 3)
    y[0, 0] = y[:5, 1] = y[1:, 2] = 1
    return normal(20_000, 10), y


def alone():
    x, y = torch.zeros(300, 5), torch.zeros(300, 2)
    x[0], y[0] = 100, 1
    return x, y


x, heavy = normal(300, 20), normal(300, 21)**9
CASES = dict(
    separable=(x, x @ normal(20, 6) > 0), two_rows=(normal(2, 3), torch.tensor([[0, 1], [1, 1]])),
    wide=(normal(40, 400), normal(40, 5) > .5), rare=rare(), alone=alone(),
    scales=(x*torch.logspace(-8, 8, 20), normal(300, 4) > 1), sparse=(x > 1.5, normal(300, 30) > 1.5),
    duplicates=(normal(50, 4).repeat_interleave(10, 0), normal(500, 4) > 0),
    collinear=(normal(300, 1) + 1e-5*normal(300, 8), normal(300, 4) > 0),
    heavy_tails=(heavy, heavy[:, :6] + normal(300, 6) > 0))


def largest_gradient(probe, x, y):
    "Largest component of the gradient in the coordinates of the solver, over strengths and labels."
    x, y = (x.double() - probe.mean)*probe.factor, y.double()
    share, some = (y.sum(0) + .5)/(len(y) + 1), (y != y[:1]).any(0)
    e, v = torch.linalg.eigh(x.T @ x/len(x))
    res = []
    for rho, w in zip(probe.strengths, probe.weight):
        error, var = (x @ w[:, :-1].T + w[:, -1]).sigmoid() - y, (share*(1 - share))[:, None]
        by_weight = (error.T @ x/len(x) + rho*w[:, :-1]) @ v*(var*e.clamp(min=0) + rho).rsqrt()
        res += [by_weight[some].abs().max(), (error.mean(0)/var[:, 0].sqrt())[some].abs().max()]
    return max(res).item()


@pytest.mark.parametrize('case', CASES)
def test_the_gradient_is_zero(case):
    x, y = CASES[case]
    probe = logistic(x, y)
    assert probe.weight.isfinite().all() and largest_gradient(probe, x, y) < 1e-4


@pytest.mark.parametrize('strengths', [(1e-7, 10.), (1e6, 1e3), (1e-8,)])
def test_any_strengths(strengths):
    x, y = CASES['separable']
    probe = logistic(x, y, strengths)
    assert probe.strengths == tuple(sorted(strengths, reverse=True)) and largest_gradient(probe, x, y) < 1e-4


def test_labels_do_not_interact():
    x, y = CASES['separable']
    whole, one = logistic(x, y), logistic(x, y[:, 2:3])
    torch.testing.assert_close(whole.weight[:, 2:3], one.weight, rtol=0, atol=1e-2*one.weight.abs().max().item())


def test_it_takes_few_steps(monkeypatch):
    "Each strength begins near its solution: fewer steps than from zero, and a dozen on average."
    steps, real = [], linear._gradient
    monkeypatch.setattr(linear, '_gradient', lambda *args: steps.append(len(args[2])) or real(*args))
    x, y = CASES['separable']
    logistic(x, y)
    path = sum(steps)
    steps.clear()
    for rho in STRENGTHS: logistic(x, y, (rho,))
    assert 0 < path < .8*sum(steps) and path/6/len(STRENGTHS) < 12
