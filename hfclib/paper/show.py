"""What ends a notebook's cell: a figure, a table, the line on where it comes from, the networks that are missing."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
from IPython.display import HTML, SVG, Markdown

from hfclib.charts import STYLE, drawn_in
from hfclib.paper.measurements import preset_of
from hfclib.runs.collect import Runs
from hfclib.runs.store import Run, is_published
from hfclib.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_figure(figure: Figure) -> SVG:
    """A figure as SVG, on white; equal figures give equal text."""
    file = io.StringIO()
    with drawn_in(STYLE):
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return SVG(file.getvalue())


def show_table(frame: pd.DataFrame, *, caption: str = "", sortable: bool = False, unfolded: int | None = None) -> HTML:
    """A table with whole cells, however long.

    Args:
        frame: its text is escaped, and its index becomes the first columns.
        caption: above the table; without it that of the frame, `frame.attrs["caption"]`, if it has one.
        sortable: in the book, a click on a heading sorts the rows by that column (`book/_static/sort.js`).
        unfolded: how many rows stand open, the others folded below them; None for all.
    """
    classes = "hfc-sortable" if sortable else None
    with pd.option_context("display.max_colwidth", None):
        first, rest = (
            rows.reset_index().to_html(index=False, border=0, justify="left", classes=classes)
            for rows in (frame[:unfolded], frame[len(frame[:unfolded]) :])
        )
    more = len(frame) - len(frame[:unfolded])
    html = first + f"<details><summary>{more} more rows</summary>{rest}</details>" * bool(more)
    if caption := caption or frame.attrs.get("caption", ""):
        html = html.replace("<thead>", f"<caption>{escape(caption)}</caption>\n  <thead>", 1)
    return HTML(html)


def show_provenance(
    name: str, runs: Sequence[Run] | None, table: pd.DataFrame | None = None, page: str | None = None
) -> HTML:
    """Where a figure comes from, folded: its runs, its notebook, and its table as CSV to download.

    Args:
        name: of the figure, such as "fig4-controlled"; its notebook is what stands before the first hyphen.
        runs: behind the figure, empty where they are not stored; None where it shows images only.
        table: the rows drawn, offered as CSV; None offers none.
        page: where in the book the figure is explained, such as "book/your-images.md", if not in its notebook.
    """
    page = page or f"notebooks/{name.split('-')[0]}.ipynb"
    links = [f'<a href="../_sources/{page}">{"notebook" if page.endswith(".ipynb") else "page"}</a>']
    if table is not None:
        content = table.to_csv(index=any(table.index.names)).encode()
        address = f"data:text/csv;base64,{base64.b64encode(content).decode()}"
        links.append(f'<a download="{name}.csv" href="{address}">table (CSV)</a>')
    text = "Drawn from the embedded test set; no run is behind it." if runs is None else _behind(runs)
    head = "<summary>Where this figure comes from</summary>"
    return HTML(f'<details class="hfc-provenance">{head}{text} {" · ".join(links)}</details>')


def _behind(runs: Sequence[Run]) -> str:
    """How many runs, of which preset and seeds, made by which commit, in what time and where."""
    if not runs:
        return "Its runs are not stored."
    seeds = sorted({run.seed for run in runs})
    commits = ", ".join(sorted({commit[:7] for run in runs for commit in run.provenance["commits"]}))
    measuring = sum(run.provenance["eval_seconds"] for run in runs)
    minutes = (sum(run.provenance["train_seconds"] for run in runs) + measuring) / 60
    done = "trained, and measured after each epoch," if measuring else "trained"
    devices = " and ".join(sorted({run.provenance["device"] for run in runs}))
    preset = ", ".join(sorted({preset_of(run.recipe) for run in runs}))
    own = sum(not is_published(run.path) for run in runs)
    yours = f" Of these runs, {own} of {len(runs)} are yours, not published." if own else ""
    return (
        f"{len(runs)} run{'s' * (len(runs) > 1)}, preset {preset}, "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; commit {commits}; "
        f"{done} in {minutes:.0f} minutes on {devices}.{yours}"
    )


def show_missing(wanted: Mapping[str, Recipe], shown: Mapping[str, object], asked: Collection[int] = ()) -> HTML | None:
    """Which networks are not shown, because their runs are not stored, and which are shown with fewer seeds; folded.

    Args:
        wanted: the chapter's recipes, by variant.
        shown: what is shown, by variant; a list of runs counts by its seeds.
        asked: seeds to compare with, for a page that shows only runs whose weights are kept; by default the seeds that
            any network has.
    Returns:
        None where nothing is missing.
    """
    names = [recipe.name for variant, recipe in wanted.items() if variant not in shown]
    text = f"Not shown, since no run with these seeds is stored: {', '.join(names)}." if names else ""
    seeds = {variant: {run.seed for run in ones} for variant, ones in shown.items() if isinstance(ones, list)}
    every = set(asked).union(*seeds.values())
    fewer = [
        f"{wanted[variant].name} ({', '.join(map(str, sorted(own)))})" for variant, own in seeds.items() if own != every
    ]
    if fewer:
        reason = "for the same reason" if text else f"since others are not stored{' with weights' * bool(asked)}"
        text += f"{' ' * bool(text)}Shown with these seeds only, {reason}: {', '.join(fewer)}."
    if not text:
        return None
    count = len(names) + len(fewer)
    head = f"<summary>Networks of this page that are missing or have few seeds: {count}</summary>"
    return HTML(f'<details class="hfc-provenance">{head}{escape(text)}</details>')


def whose(runs: Runs) -> str:
    """Over whose seeds a table takes means, in words: "all published seeds", or "the seeds of this notebook"."""
    published = all(is_published(run.path) for run in runs.all())
    return "all published seeds" if published else "the seeds of this notebook"


def listed(head: str, lines: Sequence[str]) -> Markdown:
    """A sentence with a list below it, where there is anything to list."""
    return Markdown("\n".join([head, "", *lines] if lines else [head]))
