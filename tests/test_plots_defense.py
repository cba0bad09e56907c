"""hfclib.plots_defense: every accuracy in its place, verdicts told apart, and no complaint at the edges."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from hfclib import plots_defense as plots
from hfclib import reports
from hfclib.defenses import defenses
from hfclib.tables_defense import NETWORKS, title

INF = float("inf")


def drawn(figure):
    """Draw for real: warnings of the layout come only then, and are errors."""
    return reports.picture(figure).data.startswith(b"\x89PNG")


def claims(panels, rho=(0.5, 1.0), left=True):
    """As from `tables_defense.claimed_and_left`: verdicts in turn, every third strength without an attack."""
    rng = np.random.default_rng(0)
    rows = [{"panel": panel, "defense": method, "strength": strength, "images": 500, "clean": rng.uniform(0.5, 1),
             "claimed": rng.uniform(0.2, 0.5), "left": rng.uniform(0, 0.2) if left and number % 3 != 1 else np.nan,
             "verdict": ("robust", "no gain", "masked")[number % 3 if method != "none" else 1]}
            for panel in panels for number, (method, strength) in enumerate(defenses(rho))]  # fmt: skip
    return pd.DataFrame(rows)


def points(ax, marker):
    """By height, where markers of a kind stand; those that are left out stand nowhere."""
    found = {}
    for line in ax.lines:
        (x, *_), (y, *_) = line.get_xdata(), line.get_ydata()
        if line.get_marker() == marker and not np.isnan(x):
            found.setdefault(int(y), []).append((float(x), line))
    return found


@pytest.mark.parametrize("panels", [("vanilla",), ("adversarial", "vanilla"), ("vanilla", "penalised", "adversarial"),
                                    tuple(NETWORKS)])  # fmt: skip
def test_what_is_claimed_and_what_is_left_stand_in_their_rows(panels):
    found = claims(panels)
    figure = plots.claimed_and_left(found, 0.03)
    shown = [panel for panel in NETWORKS if panel in panels]
    assert [ax.get_title() for ax in figure.axes] == [NETWORKS[panel] for panel in shown]
    assert figure.get_supxlabel() == "Accuracy (share of images), eps .03"
    names = [title(one) for one in defenses((0.5, 1.0))]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == names
    for ax, panel in zip(figure.axes, shown, strict=True):
        own = found[found["panel"] == panel].reset_index(drop=True)
        clean, circles = points(ax, "|"), points(ax, "o")
        for place, row in own.iterrows():
            assert [x for x, _ in clean[place]] == [row["clean"]]
            assert row["claimed"] in [x for x, line in circles[place] if line.get_markerfacecolor() == "white"]
            if not np.isnan(row["left"]):
                colour, marker, _ = plots.LOOKS[row["verdict"]]
                lines = [line for x, line in points(ax, marker)[place] if x == row["left"]]
                assert [mpl.colors.same_color(line.get_color(), colour) for line in lines] == [True]
                joins = [line for line in ax.lines if list(line.get_xdata()) == [row["claimed"], row["left"]]]
                assert len(joins) == 1
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert dashed.get_xdata()[0] == own.loc[0, "left"]
        bottom, top = ax.get_ylim()
        assert bottom > len(names) - 1 > 0 > top  # the first defense is at the top
        assert ax.get_xlim()[1] == 1
    assert drawn(figure)


def test_the_legend_names_what_is_shown():
    texts = [text.get_text() for text in plots.claimed_and_left(claims(("vanilla",)), 0.1).legends[0].get_texts()]
    assert texts == ["clean images", "under the kindest attack", "no defense, after the strongest",
                     "after the strongest: robust", "after the strongest: masked",
                     "after the strongest: no gain claimed"]  # fmt: skip
    found = claims(("vanilla",)).query("verdict != 'masked'")
    assert not [text for text in plots.claimed_and_left(found, 0.1).legends[0].get_texts()
                if "masked" in text.get_text()]  # fmt: skip


def test_verdicts_are_told_apart_by_colour_and_by_marker():
    colours, markers, labels = zip(*plots.LOOKS.values(), strict=True)
    assert len({mpl.colors.to_hex(colour) for colour in colours}) == len(set(markers)) == len(set(labels)) == 3


def test_where_nothing_was_judged_only_claims_are_shown():
    figure = plots.claimed_and_left(claims(("vanilla",), left=False), 0.03)
    (ax,) = figure.axes
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(figure.legends[0].get_texts()) == 3
    assert drawn(figure)


@pytest.mark.parametrize("rho", [(0.0,), (0.1, 0.2, 0.5, 1.0, 5.0, 10.0)])
def test_few_and_many_strengths(rho):
    assert drawn(plots.claimed_and_left(claims(tuple(NETWORKS), rho), 0.5))


# ---- by radius


def filters(panels, eps=(0.03, 0.06), left=(0.02, np.nan, np.nan, np.nan, 0.01)):
    rng = np.random.default_rng(1)
    return pd.DataFrame([{"panel": panel, "eps": one, "strength": strength, "images": 500, "clean": rng.uniform(0.5, 1),
                          "unaware": rng.uniform(0.2, 0.5), "aware": rng.uniform(0, 0.2), "left": last}
                         for panel in panels for one in eps
                         for strength, last in zip((4.0, 8.0, 12.0, 16.0, INF), left, strict=True)])  # fmt: skip


@pytest.mark.parametrize("panels", [("vanilla",), ("vanilla", "adversarial", "penalised"), tuple(NETWORKS)])
@pytest.mark.parametrize("eps", [0.03, 0.06])
def test_each_line_holds_its_column_at_that_eps(panels, eps):
    found = filters(panels)
    figure = plots.by_radius(found, eps)
    shown = [panel for panel in NETWORKS if panel in panels]
    assert [ax.get_title() for ax in figure.axes] == [NETWORKS[panel] for panel in shown]
    assert figure.get_supxlabel() == "Radius of the filter (DFT bins)"
    assert figure.get_supylabel() == f"Accuracy, eps {'.03' if eps == 0.03 else '.06'}"
    columns = {"clean images": "clean", "PGD, attacker unaware": "unaware", "PGD, attacker aware": "aware",
               "after the strongest attack": "left"}  # fmt: skip
    for ax, panel in zip(figure.axes, shown, strict=True):
        own = found[(found["panel"] == panel) & (found["eps"] == eps)]
        assert [line.get_label() for line in ax.lines] == list(columns)
        for line in ax.lines:
            np.testing.assert_array_equal(line.get_ydata(), own[columns[line.get_label()]])
        assert ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["4", "8", "12", "16", "none"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(columns)
    assert drawn(figure)


def test_without_a_judgement_the_lines_still_stand():
    assert drawn(plots.by_radius(filters(("vanilla",), left=[np.nan] * 5), 0.03))


@pytest.mark.parametrize("figure", [lambda: plots.claimed_and_left(claims(()).reindex(columns=["panel"]), 0.03),
                                    lambda: plots.by_radius(filters(("vanilla",)), 0.09)])  # fmt: skip
def test_an_empty_table_is_refused(figure):
    with pytest.raises(ValueError, match="expected the trials of at least one network"):
        figure()
