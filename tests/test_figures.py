"The interactive figures: the forces of page 28 are the package's, the explorer of page 58 shows the leaderboard."
import itertools
import pytest, torch
from browsing import each, look_as, opens, press, too_wide
from mlcl.losses.contrast import row_loss
from mlcl.losses.reg import reg_weight
from mlcl.plots import LOSS_STYLE, PALETTE
from mlcl.stats import leaderboard
from mlcl.study import find, store_of
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.ui import Select

F64 = torch.float64
forces, explorer = opens("28_gradients.html"), opens("58_explorer.html")


def text(page, name): return page.find_element("id", name).text
def rows(page, name): return each(page, f"#{name} tr", "[...e.cells].map(c => c.textContent)")


def expected(tau, overlap, n_pos, near, far):
    "Forces on the watched reference, another positive and a negative, by the core's gradient, in units of weight."
    sets = torch.zeros(1 + n_pos + 10, 5, dtype=F64)
    sets[0, : round(4 * overlap)], sets[1 : n_pos + 1, :4], sets[n_pos + 1 :, 4] = 1, 1, 1
    (w,) = reg_weight(torch.tensor([[1, 1, 1, 1, 0]], dtype=F64), [sets], torch.tensor([-1]))
    s = torch.tensor([[near] + [far] * n_pos + [0.0] * 10], dtype=F64, requires_grad=True)
    (wreg,), (reg,) = (torch.autograd.grad(row_loss(s, w, tau, drop_repulsion=gate), s) for gate in (False, True))
    of_all = dict(wreg=-tau * wreg, reg=-tau * reg, sigma=(s / tau).softmax(1), weight=w)
    return {name: row[0, [0, 1, -1]].tolist() for name, row in of_all.items()}


def test_the_model_is_the_package(forces):
    grid = itertools.product([0.05, 0.3, 1.0], [0.0, 0.25, 1.0], [1, 6, 30], [0.9], [0.6])
    for case in [*grid, (0.3, 0.5, 4, -0.5, 0.8)]:
        got = forces.execute_script("return window.mlclForces(...arguments)", *case)
        for k, v in expected(*case).items(): assert got[k] == pytest.approx(v, abs=1e-9), (case, k)
        assert sum(c * f for c, f in zip(got["count"], got["wreg"])) == pytest.approx(0, abs=1e-12)
    few, all_five = forces.execute_script("return [mlclForces(.3, .25, 6), mlclForces(.3, .25, 6, .9, .6)]")
    assert few == all_five


@pytest.mark.parametrize("slider", ["fp-tau", "fp-overlap", "fp-npos", "fp-near", "fp-far"])
def test_a_key_moves_a_slider_and_the_figure(forces, slider):
    "Its number, the table, the drawing and its description."
    def shown():
        ((drawing, described),) = each(forces, "#fp-wreg", "[e.innerHTML, e.ariaLabel]")
        return text(forces, f"{slider}-value"), rows(forces, "fp-rows"), drawing, described
    element, before = forces.find_element("id", slider), shown()
    element.send_keys(Keys.ARROW_LEFT)
    assert all(now != then for now, then in zip(shown(), before))
    assert element.get_attribute("aria-label") and forces.find_element("css selector", f"label[for={slider}]").text


def test_what_the_forces_say(forces):
    "A near positive: pushed by WREG, left alone by REG; without a common label both push."
    table, r = rows(forces, "fp-rows"), forces.execute_script("return window.mlclForces(.3, .25, 6)")
    assert "WREG pushes it away" in text(forces, "fp-says") and "REG leaves it" in text(forces, "fp-says")
    assert table[0][1:] == [f"{r[k][0]:.2f}".replace("-", "−") for k in ("sigma", "weight", "wreg", "reg")]
    assert table[3][3] == "0.00" and float(table[3][4]) > 0
    (html,) = each(forces, "#forces-play", "e.outerHTML")
    assert all(f"'{PALETTE[c]}'" in html for c in ("blue", "red", "grey")), "the colours are those of the plots"
    forces.find_element("id", "fp-overlap").send_keys(Keys.HOME)
    assert "both losses push it" in text(forces, "fp-says")
    look_as(forces, 390)
    assert not too_wide(forces)


def test_rows_of_the_explorer_are_the_leaderboard(explorer):
    "For each study, metric and readout, from the records that the page holds, in a small file: rows, means, intervals."
    data, held = explorer.execute_script("""return [mlclExplorer.data, Object.fromEntries(
        ['macro_f1', 'map'].map(metric => [metric, mlclExplorer.rows({metric})]))]""")
    runs = {r for rs in data["runs"].values() for r in rs}
    for study in {s["study"] for s in data["sets"]}:
        shown = dict(split="test", checkpoint="last", readout=data["readouts"])
        records = [r for r in store_of(study).records(**shown) if r["run"] in runs]
        ids = {r["id"] for r in records}
        for metric, found in held.items():
            mine = {(r["set"]["name"].split(" ")[0].strip(","), r["loss"]["key"], r["readout"]): r
                    for r in found if r["set"]["study"] == study}
            for e in leaderboard(records, metric).itertuples():
                row = mine.pop((e.dataset, e.loss, e.readout))
                ends = [float("nan") if row[k] is None else row[k] for k in ("mean", "lower", "upper")] # None: one seed
                assert ends == pytest.approx([e.mean, e.lower, e.upper], abs=6e-5, nan_ok=True)
                assert len(row["ids"]) == e.n_seeds and {*row["ids"]} <= ids
            assert not mine
    assert each(explorer, "#ex-data", "e.textContent.length")[0] < 300_000
    assert len(held["macro_f1"]) + len(held["map"]) > 100 and find(held["macro_f1"][0]["ids"][0])


def test_losses_are_told_apart_without_colour_in_the_explorer(explorer):
    "Each mark has the shape that the loss has in every figure, in the middle of its place."
    losses = explorer.execute_script("return mlclExplorer.data.losses")
    assert len({(r["mark"], r["logits"]) for r in losses}) == len(losses) > 5
    for a, b in itertools.combinations(losses, 2):
        assert (a["mark"] == b["mark"]) == (LOSS_STYLE[a["key"]][1] == LOSS_STYLE[b["key"]][1])
    seen = set()
    for study, readout in (("matched", "linear@features|each"), ("labels", "probe1")): # each has losses of its own
        Select(explorer.find_element("id", "ex-set")).select_by_value(f"emotions ({study})")
        Select(explorer.find_element("id", "ex-readout")).select_by_value(readout)
        marks = each(explorer, "#ex-rows .plot path", "[e.getAttribute('d'), e.getBoundingClientRect().toJSON()]")
        lines = each(explorer, "#ex-rows .plot line", "e.getBoundingClientRect().top")
        seen |= {shape for shape, _ in marks}
        for (_, box), line in zip(marks, lines, strict=True):
            assert 6 < box["width"] < 16 and abs(box["top"] + box["height"]/2 - line) < 3
    assert seen == {r["mark"] for r in losses}


def test_filters_of_the_explorer(explorer):
    def table(): return rows(explorer, "ex-rows") # name, drawing, mean, interval
    def choose(what, value): Select(explorer.find_element("id", f"ex-{what}")).select_by_value(value)
    one = table()
    assert len(each(explorer, "#ex-rows td > svg")) == len(one) > 5 and one == sorted(one, key=lambda r: -float(r[2]))
    choose("metric", "hamming")
    assert table() == sorted(table(), key=lambda r: float(r[2])) and "lower is better" in text(explorer, "ex-caption")
    choose("set", ""), choose("loss", "reg")
    held = explorer.execute_script("return mlclExplorer.data")
    reg = [x["key"] for x in held["losses"]].index("reg")
    solved = [s["name"] for i, s in enumerate(held["sets"]) if s["study"] in ("matched", "pretrained")
              and f"{i},{reg}" in held["runs"]]
    assert [r[0] for r in table()] == solved and len(solved) > 20
    choose("readout", "own@.5")
    assert table() == [] and text(explorer, "ex-caption") == "No result for this choice"


def test_a_row_tells_interval_and_records(explorer):
    "By the pointer and by the keyboard alike."
    held = explorer.execute_script("""return mlclExplorer.rows(
        {set: mlclExplorer.data.sets[0].key, metric: 'macro_f1', readout: 'linear@features|each'})""")
    def told(row):
        numbers = f"{row['mean']:.3f}", f"{row['lower']:.3f} to {row['upper']:.3f}"
        return all(part in text(explorer, "ex-says") for part in [*numbers, *(i.split("/")[0] for i in row["ids"])])
    ActionChains(explorer).move_to_element(explorer.find_elements("css selector", "#ex-rows tr")[2]).perform()
    assert told(held[2])
    explorer.execute_script("document.querySelector('#ex-rows button').focus()")
    press(explorer, Keys.TAB)
    assert told(held[1]) and len(each(explorer, "#explorer .chosen")) == 1
