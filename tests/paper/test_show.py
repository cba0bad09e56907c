"""What ends a notebook's cells."""

import base64
import re
from types import SimpleNamespace

import pandas as pd

from hfclib.paper.fig3 import fig3_recipes
from hfclib.paper.fig4 import curves_figure
from hfclib.paper.misalignment import fig2_recipes
from hfclib.paper.show import show_figure, show_missing, show_provenance, show_table
from hfclib.paper.tables import gather, select


def test_the_line_under_a_figure_says_where_it_comes_from(runs):
    rows = select(gather(runs), (4,), "raw", "running")
    ones = [one for variant in runs.values() for one in variant]
    html = show_provenance("fig4-controlled", ones, rows).data
    for part in (
        "6 runs",
        "seeds 0, 1",
        "commit abcdef0",
        "6 minutes",
        "cpu, 2 thread(s)",
        "Of these runs, 6 of 6 are yours, not published.",
        'download="fig4-controlled.csv"',
        "_sources/notebooks/fig4.ipynb",
    ):
        assert part in html


def test_equal_figures_give_equal_pictures(runs):
    rows = select(gather(runs), (4,), "raw", "running")
    first, second = (show_figure(curves_figure(rows)).data for _ in range(2))
    assert first.startswith("<svg")
    assert first == second


def test_the_line_under_a_figure_of_images_names_no_run():
    html = show_provenance("frog", None, page="book/your-images.md").data
    assert "Drawn from the embedded test set" in html
    assert "commit" not in html
    assert "CSV" not in html
    assert '<a href="../_sources/book/your-images.md">page</a>' in html


def test_the_line_under_a_figure_without_its_runs_says_so():
    html = show_provenance("fig3-five", [], pd.DataFrame()).data
    assert "Its runs are not stored." in html
    assert "embedded" not in html


def test_the_index_of_a_table_goes_into_its_csv(runs):
    table = pd.DataFrame({"vanilla": [7]}, index=pd.Index(["cat"], name="class"))
    html = show_provenance("fig2-classes", runs["vanilla"][:1], table).data
    content = base64.b64decode(re.search(r'text/csv;base64,([^"]+)', html).group(1)).decode()
    assert content == "class,vanilla\ncat,7\n"
    assert "1 run, preset" in html


def test_tables_are_shown_whole_and_escaped():
    frame = pd.DataFrame({"text": ["x" * 90, "a < b"], "figure": ["fig4", "other"]})
    html = show_table(frame).data
    assert "x" * 90 in html
    assert "a &lt; b" in html


def test_rows_of_a_long_table_are_folded_and_none_is_lost():
    frame = pd.DataFrame({"claim": list("abcde")})
    html = show_table(frame, caption="Five rows", unfolded=2).data
    first, rest = html.split("<details><summary>3 more rows</summary>")
    assert [re.findall("<td>([a-e])</td>", part) for part in (first, rest)] == [["a", "b"], ["c", "d", "e"]]
    assert html.count("<caption>Five rows</caption>") == first.count("<caption>") == 1
    assert "<details>" not in show_table(frame, unfolded=5).data


def test_networks_that_are_not_shown_are_named():
    wanted = fig2_recipes("smoke")
    said = show_missing(wanted, {"vanilla": 1}).data
    assert "smoke-batchnorm, smoke-fullwidth" in said
    assert "smoke-vanilla" not in said
    assert show_missing(wanted, dict.fromkeys(wanted)) is None


def test_networks_that_are_shown_with_fewer_seeds_are_named():
    wanted = fig3_recipes("smoke")
    runs = {variant: [SimpleNamespace(seed=seed) for seed in (0, 2, 1)] for variant in wanted}
    assert show_missing(wanted, runs) is None
    runs |= {"adversarial": runs["adversarial"][:2], "adversarial5": runs["adversarial5"][:1]}
    del runs["vanilla5"]
    not_shown, fewer = re.sub("<[^>]+>", "", show_missing(wanted, runs).data).split(". ")
    assert not_shown.endswith(": smoke-vanilla5")
    assert fewer.endswith(": smoke-adversarial (0, 2), smoke-adversarial5 (0).")
    alone = show_missing({variant: wanted[variant] for variant in runs}, runs).data
    assert "smoke-adversarial (0, 2), smoke-adversarial5 (0)." in alone
    assert "vanilla5" not in alone
    first_seeds = {variant: ones[:1] for variant, ones in runs.items()}
    wanted = {variant: wanted[variant] for variant in runs}
    assert show_missing(wanted, first_seeds, [0]) is None
    assert "smoke-vanilla (0)" in show_missing(wanted, first_seeds, [0, 3]).data  # which none of them has
