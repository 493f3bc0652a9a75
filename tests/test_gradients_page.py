"The interactive figure of the gradient page, in the built site: sliders move it, and its numbers are the package's."
import itertools

import pytest
import torch

from mlcl.losses.contrast import Block, contrast
from mlcl.losses.reg import reg_weight
from mlcl.plots import PALETTE
from test_site import address, browser, built, size, target  # noqa: F401 (fixtures)

F64 = torch.float64
SLIDERS = ["fp-tau", "fp-overlap", "fp-npos", "fp-near", "fp-far"]


@pytest.fixture
def page(browser, address):  # noqa: F811
    size(browser, 1280)
    browser.get(address + target("28_gradients.ipynb"))
    return browser


def expected(tau, overlap, n_pos, near, far):
    "Forces on the watched reference, on another positive and on a negative, from the gradient of the core in units of weight."
    sets = torch.zeros(1 + n_pos + 10, 5, dtype=F64)
    sets[0, : round(4 * overlap)], sets[1 : n_pos + 1, :4], sets[n_pos + 1 :, 4] = 1, 1, 1
    anchor = Block(torch.eye(1, 12 + n_pos, dtype=F64), torch.tensor([[1.0, 1, 1, 1, 0]], dtype=F64))
    out = {}
    for name, gate in (("wreg", False), ("reg", True)):
        s = torch.tensor([near] + [far] * n_pos + [0.0] * 10, dtype=F64)
        v = torch.cat([s[:, None], (1 - s**2).sqrt()[:, None] * torch.eye(len(s), dtype=F64)], 1).requires_grad_()
        me = [torch.tensor([-1])]
        value = contrast([anchor], [Block(v, sets)], reg_weight, temperature=tau, me=me, drop_repulsion=gate)
        (g,) = torch.autograd.grad(value, v)
        # v has length 1 and s = v[0]: the gradient by v is F (e₀ − s v), whose first entry is F (1 − s²)
        out[name] = (-tau * g[:, 0] / (1 - s**2))[[0, 1, -1]].tolist()
    w = reg_weight(anchor.labels, [sets], torch.tensor([-1]))[0][0]
    return out | dict(sigma=(s / tau).softmax(0)[[0, 1, -1]].tolist(), weight=w[[0, 1, -1]].tolist())


@pytest.mark.parametrize("tau, overlap, n_pos, near, far", list(itertools.product([0.05, 0.3, 1.0], [0.0, 0.25, 1.0], [1, 6, 30], [0.9], [0.6])) + [(0.3, 0.5, 4, -0.5, 0.8)])
def test_the_model_is_the_package(page, tau, overlap, n_pos, near, far):
    got = page.execute_script("return window.mlclForces(...arguments)", tau, overlap, n_pos, near, far)
    for k, v in expected(tau, overlap, n_pos, near, far).items():
        assert got[k] == pytest.approx(v, abs=1e-9), k
    assert sum(c * f for c, f in zip(got["count"], got["wreg"])) == pytest.approx(0, abs=1e-12)


def test_defaults_of_the_last_two(page):
    assert page.execute_script("return window.mlclForces(.3, .25, 6)") == page.execute_script("return window.mlclForces(.3, .25, 6, .9, .6)")


def state(page):
    return page.execute_script("""return {svg: ['fp-wreg', 'fp-reg'].map(i => document.getElementById(i).innerHTML),
        alt: ['fp-wreg', 'fp-reg'].map(i => document.getElementById(i).getAttribute('aria-label')),
        says: document.getElementById('fp-says').textContent, rows: [...document.querySelectorAll('#fp-rows tr')].map(r => [...r.children].map(c => c.textContent))}""")


@pytest.mark.parametrize("slider", SLIDERS)
def test_a_key_moves_a_slider_and_the_figure(page, slider):
    from selenium.webdriver.common.keys import Keys

    element, before = page.find_element("id", slider), state(page)
    shown = page.find_element("id", slider + "-value").text
    element.send_keys(Keys.ARROW_LEFT)
    after = state(page)
    assert page.find_element("id", slider + "-value").text != shown
    assert after["svg"][0] != before["svg"][0] and after["alt"][0] != before["alt"][0] and after["rows"] != before["rows"]
    assert element.get_attribute("aria-label") and page.find_element("css selector", f"label[for={slider}]").text


def test_what_it_says(page):
    "A near positive: pushed by WREG, left alone by REG; without a common label both push. The table holds the numbers of the model."
    s = state(page)
    assert "WREG pushes it away" in s["says"] and "REG leaves it" in s["says"]
    r = page.execute_script("return window.mlclForces(.3, .25, 6)")
    assert s["rows"][0][1:] == [f"{x:.2f}".replace("-", "−") for x in (r["sigma"][0], r["weight"][0], r["wreg"][0], r["reg"][0])]
    assert s["rows"][3][3] == "0.00" and float(s["rows"][3][4]) > 0
    page.execute_script("const e = document.getElementById('fp-overlap'); e.value = 0; e.dispatchEvent(new Event('input'))")
    assert "both losses push it" in state(page)["says"]


def test_colours_are_those_of_the_plots(page):
    html = page.find_element("id", "forces-play").get_attribute("outerHTML")
    assert all(f"'{PALETTE[c]}'" in html for c in ("blue", "red", "grey"))


def test_it_fits_a_phone(page):
    size(page, 390)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
