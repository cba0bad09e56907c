"""Every accuracy in its place, outcomes told apart, and few or many rows drawn without a warning."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from hfclib.paper.defense.plots import DEFENSE_LOOKS, claimed_figure, filter_figure, smallest_eps_figure
from hfclib.paper.defense.setup import all_defenses
from hfclib.paper.defense.tables import OUTCOMES, defense_title
from hfclib.paper.presets import TITLES
from tests.paper.tidy import drawn

INF = float("inf")


def claims(variants, rho=(0.5, 1.0), left=True):
    """As from `claimed_and_left`: outcomes in turn, every third strength without an attack."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "variant": variant,
            "defense": method,
            "strength": strength,
            "images": 500,
            "clean": rng.uniform(0.5, 1),
            "highest": rng.uniform(0.2, 0.5),
            "strong": rng.uniform(0, 0.2) if left and number % 3 != 1 else np.nan,
            "outcome": ("robust", "no gain", "masked")[number % 3 if method != "none" else 1],
        }
        for variant in variants
        for number, (method, strength) in enumerate(all_defenses(rho))
    ]
    return pd.DataFrame(rows)


def points(ax, marker):
    """By height, where markers of a kind stand; those that are left out stand nowhere."""
    by_row = {}
    for line in ax.lines:
        (x, *_), (y, *_) = line.get_xdata(), line.get_ydata()
        if line.get_marker() == marker and not np.isnan(x):
            by_row.setdefault(int(y), []).append((float(x), line))
    return by_row


def test_what_is_claimed_and_what_is_left_stand_in_their_rows():
    variants = ("adversarial", "vanilla", "penalised")
    rows = claims(variants)
    figure = claimed_figure(rows, 0.03)
    shown = [variant for variant in TITLES if variant in variants]
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == [TITLES[variant] for variant in shown]
    assert figure.axes[-1].get_xlabel() == "Accuracy (share of images), eps .03"
    names = [defense_title(*one) for one in all_defenses((0.5, 1.0))]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == names
    for ax, variant in zip(figure.axes, shown, strict=True):
        own = rows[rows["variant"] == variant].reset_index(drop=True)
        clean, circles = points(ax, "|"), points(ax, "o")
        for place, row in own.iterrows():
            assert [x for x, _ in clean[place]] == [row["clean"]]
            assert row["highest"] in [x for x, line in circles[place] if line.get_markerfacecolor() == "white"]
            if not np.isnan(row["strong"]):
                colour, marker, _ = DEFENSE_LOOKS[row["outcome"]]
                lines = [line for x, line in points(ax, marker)[place] if x == row["strong"]]
                assert [mpl.colors.same_color(line.get_color(), colour) for line in lines] == [True]
                joins = [line for line in ax.lines if list(line.get_xdata()) == [row["highest"], row["strong"]]]
                assert len(joins) == 1
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert dashed.get_xdata()[0] == own.loc[0, "strong"]
        bottom, top = ax.get_ylim()
        assert bottom > len(names) - 1 > 0 > top  # the first defense is at the top
        assert ax.get_xlim()[1] == 1
    assert drawn(figure)


def test_the_legend_names_what_is_shown():
    texts = [text.get_text() for text in claimed_figure(claims(("vanilla",)), 0.1).legends[0].get_texts()]
    assert texts == [
        "clean images",
        "paper's weakest attack",
        "no defense, strong attack",
        "strong attack: robust",
        "strong attack: masked",
        "strong attack: no gain",
    ]
    found = claims(("vanilla",)).query("outcome != 'masked'")
    assert not [text for text in claimed_figure(found, 0.1).legends[0].get_texts() if "masked" in text.get_text()]


def test_every_outcome_has_a_look_of_its_own():
    rows = claims(("vanilla",)).dropna(subset="strong")
    rows = rows.assign(outcome=[OUTCOMES[number % len(OUTCOMES)] for number in range(len(rows))])
    assert set(rows["outcome"]) == set(OUTCOMES) == set(DEFENSE_LOOKS)
    figure = claimed_figure(rows, 0.09)
    assert [text.get_text() for text in figure.legends[0].get_texts()][3:] == [
        "strong attack: robust",
        "strong attack: falls short",
        "strong attack: masked",
        "strong attack: no gain",
    ]
    assert len({marker for _, marker, _ in DEFENSE_LOOKS.values()}) == len(OUTCOMES)
    assert drawn(figure)


def test_without_strong_trials_only_the_papers_attacks_are_shown():
    figure = claimed_figure(claims(("vanilla",), left=False), 0.03)
    (ax,) = figure.axes
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(figure.legends[0].get_texts()) == 3
    assert drawn(figure)


def test_few_and_many_strengths():
    for rho in ((0.0,), (0.1, 0.2, 0.5, 1.0, 5.0, 10.0)):
        assert drawn(claimed_figure(claims(("vanilla", "penalised", "adversarial", "adversarial_batchnorm"), rho), 0.5))


# ---- by radius


def filters(variants, eps=(0.03, 0.06), left=(0.02, np.nan, np.nan, np.nan, 0.01)):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {
                "variant": variant,
                "eps": size,
                "strength": strength,
                "images": 500,
                "clean": rng.uniform(0.5, 1),
                "non_adaptive": rng.uniform(0.2, 0.5),
                "adaptive": rng.uniform(0, 0.2),
                "strong": last,
            }
            for variant in variants
            for size in eps
            for strength, last in zip((4.0, 8.0, 12.0, 16.0, INF), left, strict=True)
        ]
    )


def test_each_line_holds_its_column_at_that_eps():
    variants, eps = ("vanilla", "adversarial"), 0.06
    rows = filters(variants)
    figure = filter_figure(rows, eps)
    shown = [variant for variant in TITLES if variant in variants]
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == [TITLES[variant] for variant in shown]
    assert figure.axes[-1].get_xlabel() == "Radius of the filter (DFT bins)"
    assert figure.get_supylabel() == "Accuracy, eps .06"
    columns = {
        "clean images": "clean",
        "PGD, non-adaptive": "non_adaptive",
        "PGD, adaptive": "adaptive",
        "strong attack": "strong",
    }
    for ax, variant in zip(figure.axes, shown, strict=True):
        own = rows[(rows["variant"] == variant) & (rows["eps"] == eps)]
        assert [line.get_label() for line in ax.lines] == list(columns)
        for line in ax.lines:
            np.testing.assert_array_equal(line.get_ydata(), own[columns[line.get_label()]])
        assert ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["4", "8", "12", "16", "none"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(columns)
    assert drawn(figure)


def test_over_seeds_a_line_is_their_mean_and_a_bar_their_range():
    one = filters(("vanilla",), eps=(0.03,), left=[0.01] * 5)
    columns = ["clean", "non_adaptive", "adaptive", "strong"]
    other = one.assign(**{name: one[name] + 0.1 for name in columns})
    figure = filter_figure(pd.concat([one.assign(seed=0), other.assign(seed=1)]), 0.03)
    (ax,) = figure.axes
    for line, bars, column in zip(ax.lines, ax.collections, columns, strict=True):
        np.testing.assert_allclose(line.get_ydata(), one[column] + 0.05)
        ends = [(low[1], high[1]) for low, high in bars.get_segments()]
        np.testing.assert_allclose(ends, list(zip(one[column], other[column], strict=True)))
    assert drawn(figure)


def test_without_strong_trials_the_lines_are_drawn_and_an_empty_table_is_refused():
    assert drawn(filter_figure(filters(("vanilla",), left=[np.nan] * 5), 0.03))
    empty = claims(()).reindex(columns=["variant", "defense", "strength"])
    for draw in (lambda: claimed_figure(empty, 0.03), lambda: filter_figure(filters(("vanilla",)), 0.09)):
        with pytest.raises(ValueError, match="expected the trials of at least one network"):
            draw()


def test_each_curve_is_the_share_of_images_that_are_fooled():
    smallest = pd.DataFrame({"adversarial": [0, 0.05, INF, 0.01], "vanilla": [0.01, 0.002, 0.002, 0]}, dtype="float32")
    figure = smallest_eps_figure(smallest)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Adversarial training", "Vanilla"]
    for handle, column in zip(ax.get_legend().legend_handles, smallest, strict=True):
        (curve,) = [line for line in ax.lines if mpl.colors.same_color(line.get_color(), handle.get_color())]
        for eps in (0.001, 0.02, 0.1):
            drawn_share = curve.get_ydata()[curve.get_xdata() <= eps].max()
            assert drawn_share == pytest.approx((smallest[column] <= eps).mean())
    assert drawn(figure)
