"The interactive figures: the forces of page 28 are the package's, the explorer of page 58 shows the leaderboard."
import itertools, re
import pytest, torch
from browsing import look_as, too_wide
from mlcl.losses.contrast import Block, contrast
from mlcl.losses.reg import reg_weight
from mlcl.plots import LOSS_STYLE, PALETTE
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

F64 = torch.float64


def opened(browser, address):
    look_as(browser)
    browser.get(address)
    return browser


@pytest.fixture
def page(browser, address): return opened(browser, address + "28_gradients.html")


@pytest.fixture
def explorer(browser, address): return opened(browser, address + "58_explorer.html")


# Page 28: sliders move the figure, and its numbers are the package's

def expected(tau, overlap, n_pos, near, far):
    "Forces on the watched reference, another positive and a negative, by the core's gradient, in units of weight."
    sets = torch.zeros(1 + n_pos + 10, 5, dtype=F64)
    sets[0, : round(4 * overlap)], sets[1 : n_pos + 1, :4], sets[n_pos + 1 :, 4] = 1, 1, 1
    anchor = Block(torch.eye(1, 12 + n_pos, dtype=F64), torch.tensor([[1.0, 1, 1, 1, 0]], dtype=F64))
    out, me = {}, [torch.tensor([-1])]
    for name, gate in (("wreg", False), ("reg", True)):
        s = torch.tensor([near] + [far] * n_pos + [0.0] * 10, dtype=F64)
        v = torch.cat([s[:, None], (1 - s**2).sqrt()[:, None] * torch.eye(len(s), dtype=F64)], 1).requires_grad_()
        value = contrast([anchor], [Block(v, sets)], reg_weight, temperature=tau, me=me, drop_repulsion=gate)
        (g,) = torch.autograd.grad(value, v)
        # v has length 1 and s = v[0]: the gradient by v is F (e₀ − s v), whose first entry is F (1 − s²)
        out[name] = (-tau * g[:, 0] / (1 - s**2))[[0, 1, -1]].tolist()
    w = reg_weight(anchor.labels, [sets], me[0])[0][0]
    return out | dict(sigma=(s / tau).softmax(0)[[0, 1, -1]].tolist(), weight=w[[0, 1, -1]].tolist())


def test_the_model_is_the_package(page):
    grid = itertools.product([0.05, 0.3, 1.0], [0.0, 0.25, 1.0], [1, 6, 30], [0.9], [0.6])
    for case in [*grid, (0.3, 0.5, 4, -0.5, 0.8)]:
        got = page.execute_script("return window.mlclForces(...arguments)", *case)
        for k, v in expected(*case).items(): assert got[k] == pytest.approx(v, abs=1e-9), (case, k)
        assert sum(c * f for c, f in zip(got["count"], got["wreg"])) == pytest.approx(0, abs=1e-12)
    few, all_five = page.execute_script("return [mlclForces(.3, .25, 6), mlclForces(.3, .25, 6, .9, .6)]")
    assert few == all_five


def state(page):
    return page.execute_script("""const by = i => document.getElementById(i), both = ['fp-wreg', 'fp-reg'].map(by);
        return {svg: both.map(e => e.innerHTML), alt: both.map(e => e.ariaLabel), says: by('fp-says').textContent,
        rows: [...document.querySelectorAll('#fp-rows tr')].map(r => [...r.children].map(c => c.textContent))}""")


@pytest.mark.parametrize("slider", ["fp-tau", "fp-overlap", "fp-npos", "fp-near", "fp-far"])
def test_a_key_moves_a_slider_and_the_figure(page, slider):
    element, before = page.find_element("id", slider), state(page)
    shown = page.find_element("id", slider + "-value").text
    element.send_keys(Keys.ARROW_LEFT)
    after = state(page)
    assert page.find_element("id", slider + "-value").text != shown and after["rows"] != before["rows"]
    assert all(after[k][0] != before[k][0] for k in ("svg", "alt"))
    assert element.get_attribute("aria-label") and page.find_element("css selector", f"label[for={slider}]").text


def test_what_the_forces_say(page):
    "A near positive: pushed by WREG, left alone by REG; without a common label both push."
    s, r = state(page), page.execute_script("return window.mlclForces(.3, .25, 6)")
    assert "WREG pushes it away" in s["says"] and "REG leaves it" in s["says"]
    assert s["rows"][0][1:] == [f"{r[k][0]:.2f}".replace("-", "−") for k in ("sigma", "weight", "wreg", "reg")]
    assert s["rows"][3][3] == "0.00" and float(s["rows"][3][4]) > 0
    html = page.find_element("id", "forces-play").get_attribute("outerHTML")
    assert all(f"'{PALETTE[c]}'" in html for c in ("blue", "red", "grey")), "the colours are those of the plots"
    page.find_element("id", "fp-overlap").send_keys(Keys.HOME)
    assert "both losses push it" in state(page)["says"]
    look_as(page, 390)
    assert not too_wide(page)


# Page 58: its rows are the leaderboard, its filters filter

def test_rows_of_the_explorer_are_the_leaderboard(explorer):
    "For each study, metric and readout, from the records that the page holds: the same rows, means and intervals."
    from mlcl.stats import leaderboard
    from mlcl.study import find, store_of

    metrics, (sets, runs, held) = ("macro_f1", "map"), explorer.execute_script("""const x = mlclExplorer;
        return [x.data.sets, x.data.runs, ['macro_f1', 'map'].map(m => x.rows({metric: m}))]""")
    seen, runs = 0, {r for rs in runs.values() for r in rs}
    for study in {s["study"] for s in sets}:
        records = [r for r in store_of(study).records(split="test", checkpoint="last") if r["run"] in runs]
        ids = {r["id"] for r in records}
        for metric, rows in zip(metrics, held):
            mine = {key(r): r for r in rows if r["set"]["study"] == study}
            for e in leaderboard(records, metric).itertuples():
                row = mine.pop((e.dataset, e.loss, e.readout))
                ends = [float("nan") if row[k] is None else row[k] for k in ("mean", "lower", "upper")] # None: one seed
                assert ends == pytest.approx([e.mean, e.lower, e.upper], abs=6e-5, nan_ok=True)
                assert len(row["ids"]) == e.n_seeds and {*row["ids"]} <= ids
                seen += 1
            assert not mine
    assert seen > 100 and find(held[0][0]["ids"][0])


def key(row): return row["set"]["name"].split(" ")[0].strip(","), row["loss"]["key"], row["readout"]


def test_losses_are_told_apart_without_colour_in_the_explorer(explorer):
    "Each mark has the shape that the loss has in every figure, in the middle of its place."
    losses = explorer.execute_script("return mlclExplorer.data.losses")
    assert len({(r["mark"], r["logits"]) for r in losses}) == len(losses) > 5
    for a, b in itertools.combinations(losses, 2):
        assert (a["mark"] == b["mark"]) == (LOSS_STYLE[a["key"]][1] == LOSS_STYLE[b["key"]][1])
    drawn = explorer.execute_script("""return [...document.querySelectorAll('#ex-rows tr')].map(r => {
        const mark = r.querySelector('.plot path'), box = mark.getBoundingClientRect();
        const line = r.querySelector('.plot line').getBoundingClientRect();
        return [mark.getAttribute('d'), box.width, box.top + box.height/2 - line.top]; })""")
    assert {d for d, *_ in drawn} == {r["mark"] for r in losses}
    assert all(6 < width < 16 and abs(off) < 3 for _, width, off in drawn)


def test_filters_of_the_explorer(explorer):
    def table():
        return explorer.execute_script("""return [...document.querySelectorAll('#ex-rows tr')].map(
            r => [...r.querySelectorAll('th, td:not(.plot)')].map(c => c.textContent))""")
    def choose(what, value): Select(explorer.find_element("id", f"ex-{what}")).select_by_value(value)
    def caption(): return explorer.find_element("id", "ex-caption").text
    one = table()
    assert len(one) == len(explorer.find_elements("css selector", "#ex-rows .plot > svg")) > 5
    assert one == sorted(one, key=lambda r: -float(r[1]))
    choose("metric", "hamming")
    assert table() == sorted(table(), key=lambda r: float(r[1])) and "lower is better" in caption()
    choose("set", ""), choose("loss", "reg")
    held = explorer.execute_script("return mlclExplorer.data")
    reg = [x["key"] for x in held["losses"]].index("reg")
    assert [r[0] for r in table()] == [s["name"] for i, s in enumerate(held["sets"]) if f"{i},{reg}" in held["runs"]]
    choose("readout", "own@.5")
    assert table() == [] and caption() == "No result for this choice"


def test_a_row_tells_interval_and_records(explorer):
    "By the pointer and by the keyboard alike."
    rows = explorer.execute_script("""return mlclExplorer.rows(
        {set: mlclExplorer.data.sets[0].key, metric: 'macro_f1', readout: 'probe1'})""")
    def told(row):
        says, runs = explorer.find_element("id", "ex-says").text, [i.split("/")[0] for i in row["ids"]]
        return all(t in says for t in [f"{row['mean']:.3f}", f"{row['lower']:.3f} to {row['upper']:.3f}", *runs])
    ActionChains(explorer).move_to_element(explorer.find_elements("css selector", "#ex-rows tr")[2]).perform()
    assert told(rows[2])
    explorer.execute_script("document.querySelectorAll('#ex-rows button')[0].focus()")
    explorer.switch_to.active_element.send_keys(Keys.TAB)
    assert told(rows[1]) and len(explorer.find_elements("css selector", "#explorer .chosen")) == 1


def test_data_of_the_explorer_is_small(built):
    html = (built[0]/"58_explorer.html").read_text(encoding="utf-8")
    assert len(re.search(r'id="ex-data">(.*?)</script>', html, flags=re.S)[1]) < 300_000
