"The figures: one style, the recorded intervals and no others, and the same file twice."
import io
import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.figure import Figure
from mlcl.plots import FAMILIES, LOGIT_LOSSES, LOSS_STYLE, PALETTE, STYLE, bars, curves, differences, label_ends, lines
from mlcl.plots import loss_style, points, use_style
from mlcl.plots import ends as three_rows

ROWS = dict(bce=(.50, .41, .53), zlpr=(.52, .50, .59), reg=(.55, .54, .60))


@pytest.fixture
def style():
    with matplotlib.rc_context():
        use_style()
        yield matplotlib.rcParams


def axes():
    return Figure((5, 3)).subplots()


def svg(draw):
    ax, out = axes(), io.BytesIO()
    draw(ax)
    ax.figure.savefig(out, format="svg", metadata=dict(Date=None))
    return out.getvalue()


def spans(ax, way):
    "Ends of the interval bars, in the order in which they are drawn."
    data = [np.asarray(l.get_xdata() if way == "x" else l.get_ydata(), float) for l in ax.lines]
    return [(np.nanmin(v), np.nanmax(v)) for v in data if np.isfinite(v).sum() > 1]


def test_use_style_sets_the_style(style):
    assert style["svg.hashsalt"] == "mlcl" and style["svg.fonttype"] == "none"
    assert sns.color_palette().as_hex() == [c.lower() for c in PALETTE.values()]
    assert all(style[k] == (list(v) if isinstance(v, tuple) else v) for k, v in STYLE.items())
    assert min(v for k, v in STYLE.items() if k.endswith("size")
               and ("label" in k or "font" in k or "title" in k)) >= 10


@pytest.mark.parametrize("draw", [
    lambda ax: points(ROWS, ax, "Macro-F1"),
    lambda ax: bars({l: dict(head=v, tail=v) for l, v in ROWS.items()}, ax),
    lambda ax: sns.heatmap(np.eye(3), ax=ax)], ids=["points", "bars", "heatmap"])
def test_a_figure_is_the_same_twice(style, draw):
    assert svg(draw) == svg(draw)


def test_points_draw_the_recorded_ends(style):
    ax = points(ROWS, axes())
    assert spans(ax, "x") == [v[1:] for v in ROWS.values()]
    assert [float(l.get_xdata()[0]) for l in ax.lines if len(l.get_xdata()) == 1] == [v[0] for v in ROWS.values()]
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_yticklabels()] == list(ROWS) and ax.yaxis_inverted()


def test_bars_draw_the_recorded_ends(style):
    table = {l: dict(head=v, tail=(v[0]/2, v[1]/2, v[2]/2)) for l, v in ROWS.items()}
    ax = bars(table, axes())
    assert [[b.get_height() for b in c] for c in ax.containers] == [[g[0] for g in row.values()]
                                                                    for row in table.values()]
    assert spans(ax, "y") == [g[1:] for row in table.values() for g in row.values()]
    hatches = [c[0].get_hatch() for c in ax.containers]
    assert len(set(hatches)) == len(table) and [p.get_hatch() for p in ax.get_legend().get_patches()] == hatches


def test_an_end_on_the_wrong_side_and_none_at_all(style):
    ax = points(dict(bce=(.5, .51, .6), reg=(.5, np.nan, np.nan)), axes())
    assert spans(ax, "x") == [(.5, .6)]
    t = three_rows(pd.DataFrame(dict(mean=[.5, .6], lower=[.51, np.nan], upper=[.6, .7])))
    assert sorted(t.value.dropna()) == [.5, .5, .6, .6, .7]


def test_lines_have_the_style_of_their_loss_and_the_recorded_ends(style):
    t = pd.DataFrame([dict(loss=l, x=x, mean=v[0], lower=v[1], upper=v[2]) for x in (1, 10) for l, v in ROWS.items()])
    ax = lines("x", "value", three_rows(t), axes())
    for l, bar in zip(ROWS, ax.containers):
        line = next(k for k in ax.lines if k.get_label() == l)
        assert (list(line.get_ydata()) == [ROWS[l][0]]*2 and line.get_markerfacecolor()
                == loss_style(l)["markerfacecolor"])
        np.testing.assert_allclose([s[:, 1] for s in bar.lines[2][0].get_segments()], [ROWS[l][1:]]*2)


def test_curves_draw_the_mean_and_the_range_of_the_seeds(style):
    runs = [dict(readout="online", loss="reg", history=[dict(epoch=e, val_map=e + s) for e in (1, 2)])
            for s in (0, .1, .5)]
    ax = curves(runs, "val_map", axes())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.2, 2.2])
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[band[:, 0] == 1][:, 1].min(), band[band[:, 0] == 1][:, 1].max()) == (1, 1.5)
    assert ax.get_xlabel() == "epoch" and ax.get_ylabel() == "Map (validation)"


def test_a_colour_is_a_family_and_a_marker_a_member():
    from mlcl.losses import LOSSES
    assert {color for color, _ in LOSS_STYLE.values()} == {*FAMILIES} and {*LOSSES} <= {*LOSS_STYLE}
    assert len({(loss_style(l)["marker"], l in LOGIT_LOSSES) for l in LOSS_STYLE}) == len(LOSS_STYLE)
    routes = {l: getattr(c, "route", "logits") for l, c in LOSSES.items()}
    assert all((l in LOGIT_LOSSES) == (route == "logits") for l, route in routes.items())


def test_all_but_the_compared_losses_are_grey(style):
    runs = [dict(readout="online", loss=l, history=[dict(epoch=e, val_map=e*k) for e in (1, 2)])
            for k, l in enumerate(ROWS)]
    ax = curves(runs, "val_map", axes(), compared=("reg",))
    assert [l.get_color() == loss_style("reg")["color"] for l in ax.lines] == [False, False, True]
    assert loss_style("reg", ("reg",)) == loss_style("reg")
    assert all(loss_style(l, ("reg",))["color"] == loss_style("x", ("reg",))["color"] for l in LOSS_STYLE if l != "reg")


def test_names_stand_at_the_ends_of_lines_apart_and_in_their_order(style):
    ax = axes()
    for k, y in dict(a=.50, b=.501, c=.502, far=1., cut=np.nan).items(): ax.plot([1, 2], [0, y], label=k)
    ax.plot([1, 2], [0, 0])
    label_ends(ax, size=10)
    up = {t.get_text(): ax.transData.transform(t.xy)[1]*72/ax.figure.dpi + t.xyann[1] for t in ax.texts}
    assert sorted(up, key=up.get) == ["cut", "a", "b", "c", "far"] and np.diff(sorted(up.values())).min() > 11
    assert next(t.xyann[1] for t in ax.texts if t.get_text() == "far") == pytest.approx(0, abs=1e-6)


def test_differences_draw_the_recorded_ends(style):
    t = pd.DataFrame(dict(mean=[.0, .1], lower=[-.1, .05], upper=[.2, .3]))
    ax = differences({"same probe": t}, {"same probe": [10, 10]}, axes())  # two sets with as many labels stay two
    np.testing.assert_allclose([s[:, 1] for s in ax.containers[0].lines[2][0].get_segments()], [[-.1, .2], [.05, .3]])


@pytest.mark.parametrize("call, what", [(lambda: differences(dict.fromkeys("abcd"), {}), "tables"),
                                        (lambda: points({}), "rows"), (lambda: bars({}), "table"),
                                        (lambda: curves([]), "records")])
def test_nothing_to_draw_is_refused(call, what):
    with pytest.raises(ValueError, match=f"{what}: expected"): call()


def test_an_interval_that_ends_below_its_start_is_refused():
    with pytest.raises(ValueError, match='lower: expected at most upper, got 0.6 and 0.4'):
        points(dict(bce=(.5, .4, .6), reg=(.5, .6, .4)), axes())
    low, mean, high = three_rows(pd.DataFrame(dict(mean=[.7], lower=[.4], upper=[.6]))).value # a biased resample
    assert (low, mean, high) == (.4, .7, .7)
