"""The scoreboard as a page: the main claim of each chapter, then all claims by topic, with intervals as pictures."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.ticker import MaxNLocator

from book.chapters import link, table
from hfclib.paper.registry import CHAPTERS
from hfclib.paper.scoreboard import surviving
from hfclib.paper.show import show_table
from hfclib.paper.tables import decimals
from hfclib.paper.verdicts import region

WIDTH, MARGIN, LINE = 400, 16, 22  # of a picture and beside its scale, and the height of an interval's line, in pixels
_READ_TO = 0.03  # to which the paper's figures can be read


def opening(board: pd.DataFrame) -> Markdown:
    """How many of the paper's numbers lie in our intervals, and what came of its claims and of ours.

    Args:
        board: of `published_scoreboard`, here and below.
    """
    counted = board[board["counted"]]
    known = counted[counted["size"] != "not known"]
    compatible = known["size"] == "compatible"
    reproduced = known["verdict"] == "reproduced"
    ours = counted["section"] == "ours"
    slack = _READ_TO * known["section"].str.contains("Fig.", regex=False)
    near = known["published"].between(known["low"] - slack, known["high"] + slack)
    return Markdown(
        f"**The paper's number lies in our interval in {compatible.sum()} of the {len(known)} rows** where the two can "
        f"be compared (in {near.sum()} if its figures are read {decimals(_READ_TO, 2)} off). Of the "
        f"{reproduced.sum()} of these that are reproduced, {(compatible & reproduced).sum()} fit the number too. "
        f"The {(~ours).sum()} rows on the paper's claims: {_told(counted[~ours])}. Our {ours.sum()}, such as "
        f"controls: {_told(counted[ours])}. A claim may have a row for each measurement. The row on the trade-off can "
        "hardly fail, and is not counted."
    )


def multiplicity(board: pd.DataFrame) -> Markdown:
    """How many reproduced directions are left when all are tested together."""
    directions, holm, hochberg = surviving(board)
    return Markdown(
        f"**Many claims at once.** Of the {directions} reproduced rows that test a direction, {holm} survive Holm's "
        f"correction at .05, and {hochberg} that of Benjamini and Hochberg."
    )


def _told(rows: pd.DataFrame) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in rows["verdict"].value_counts().items())


def main_claims(board: pd.DataFrame) -> HTML:
    """One row per chapter: the claim that its opening answer is about."""
    rows = [
        {
            "chapter": link(row["chapter"], CHAPTERS[row["chapter"]].topic),
            "main claim": f'<a href="#{name}">{escape(row["claim"])}</a><small>{escape(row["version"])}</small>',
            "direction": _marked("verdict", row["verdict"]),
            "size": _marked("size", row["size"]),
            "ours": escape(row["ours"]),
            "paper": escape(_value(row["paper"]) or "\u2013"),
        }
        for name, row in board[board["main"]].iterrows()
    ]
    return HTML(f'<div class="hfc-board">{table(rows)}</div>')


def topics(board: pd.DataFrame) -> HTML:
    """All claims by question and topic, folded by question, each topic's intervals on a scale of its own.

    Works without JavaScript, with which a choice of a verdict also unfolds the questions that have it.
    """
    verdicts = list(dict.fromkeys(board["verdict"]))
    uncounted = (~board["counted"]).sum()
    every = f"{len(board)}, {uncounted} not counted" if uncounted else len(board)
    counts = {"all": every} | {verdict: int((board["verdict"] == verdict).sum()) for verdict in verdicts}
    filters = "".join(
        f'<label><input type="radio" name="hfc-filter" value="{escape(name)}"{" checked" * (name == "all")}> '
        f"{escape(name)} ({count})</label>"
        for name, count in counts.items()
    )
    # What has no row of the chosen verdict is gone: lines, what is unfolded, topics and sections.
    rules = "".join(
        f'.hfc-board:has([value="{verdict}"]:checked) :is(section, .hfc-topic, .hfc-line, .hfc-claim)'
        f':not(.hfc-head, [data-verdict="{verdict}"], :has([data-verdict="{verdict}"])) {{ display: none; }}\n'
        for verdict in verdicts
    )
    unfold = "this.parentElement.querySelectorAll('.hfc-question').forEach((part) => { part.open = true; })"
    shown = f'<fieldset class="hfc-filter" onchange="{unfold}"><legend>Show</legend>{filters}</fieldset>'
    parts = [f"<style>{rules}</style>", shown]
    for name in CHAPTERS:
        rows = board[board["chapter"] == name]
        by_topic = rows.groupby(rows["topic"].where(rows["topic"] != "", rows["claim"]), sort=False)
        if len(rows):
            parts.append(
                f"<section>{_question(name, _told(rows))}"
                f"<p>{link(name, 'The chapter')}</p>"
                f"{''.join(_topic(text, part) for text, part in by_topic)}</details></section>"
            )
    content = base64.b64encode(board.to_csv().encode()).decode()
    parts.append(f'<p><a download="scoreboard.csv" href="data:text/csv;base64,{content}">All columns as CSV</a></p>')
    return HTML(f'<div class="hfc-board">{"".join(parts)}</div>')


def record(rules: pd.DataFrame) -> HTML:
    """The `record_table`, folded by question."""
    chapters = rules.index.str.partition("-").get_level_values(0)
    parts = [
        f"{_question(name, f'{len(own)} rule' + 's' * (len(own) > 1))}{show_table(own).data}</details>"
        for name, own in rules.groupby(chapters, sort=False)
    ]
    return HTML(f'<div class="hfc-board">{"".join(parts)}</div>')


def _question(name: str, told: str) -> str:
    """What a question's rows unfold from, with the tag that stays open for them."""
    head = f'<h3 id="board-{name}">{escape(CHAPTERS[name].question)}</h3>'
    return f'<details class="hfc-question"><summary>{head}<small>{told}</small></summary>'


@dataclass(frozen=True)
class Scale:
    """From numbers to places in a picture of WIDTH pixels.

    Attributes:
        ticks: the numbers at which it is marked, at least two; the first and the last are its ends.
    """

    ticks: tuple[float, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Scale":
        """The scale that holds 0 and all numbers of some rows of the scoreboard."""
        edges = [edge for _, row in rows.iterrows() for edge in _edges(row)]
        values = np.array([*rows[["mean", "low", "high", "published"]].to_numpy(float).ravel(), *edges, 0.0])
        values = values[np.isfinite(values)]
        ends = values.min(), max(values.max(), values.min() + 0.01)
        return cls(tuple(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends).tolist()))

    def at(self, value: float) -> float:
        """Where a number stands, in pixels from the left."""
        low, high = self.ticks[0], self.ticks[-1]
        return MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)


def _topic(text: str, rows: pd.DataFrame) -> str:
    """A topic: a line per claim, with its interval and its numbers; what else there is to say is unfolded below."""
    scale = Scale.of(rows)
    lines = "".join(_line(_label(row, rows), row, scale) for _, row in rows.iterrows())
    claims = "".join(_claim(name, row) for name, row in rows.iterrows())
    many = f"<small>{len(rows)} claims</small>" if len(rows) > 1 else ""
    return (
        f'<details class="hfc-topic"><summary><span class="hfc-text">{escape(text)} {many}</span>'
        f'<span class="hfc-line hfc-head" aria-hidden="true"><span></span>{_axis(scale)}'
        f"<span>direction</span><span>size</span></span>{lines}</summary>{claims}</details>"
    )


def _label(row: pd.Series, rows: pd.DataFrame) -> str:
    """What tells a row from the others of its topic: how it was measured, and the claim where there are several."""
    version = escape(row["version"])
    several = rows["claim"].nunique() > 1
    return f"{escape(row['claim'])}<small>{version}</small>" if several else version


def _line(label: str, row: pd.Series, scale: Scale) -> str:
    value = _value(row["paper"])
    numbers = escape(row["ours"] + (f"; paper {value}" if value else "") + "; not counted" * (not row["counted"]))
    return (
        f'<span class="hfc-line" data-verdict="{escape(row["verdict"])}">'
        f"<span>{label}<small>{numbers}</small></span>{_picture(row, scale)}"
        f"{_marked('verdict', row['verdict'])}{_marked('size', row['size'])}</span>"
    )


def _claim(name: str, row: pd.Series) -> str:
    counted = "recipes" if row["units"] == "recipes" else "seeds"
    details = {"tested": row["tested"], counted: row["seeds"], "paper": row["paper"], "made in": row["section"]}
    if row["first"] != "\u2013":
        details["with the number of seeds that was fixed first"] = f"{row['first verdict']}, {row['first']}"
    if row["cause"]:
        details["possible cause"] = row["cause"]
    if not row["counted"]:
        details["not counted"] = "it can hardly fail"
    items = "".join(f"<dt>{what}</dt><dd>{escape(str(text))}</dd>" for what, text in details.items())
    return (
        f'<div class="hfc-claim" id="{name}" data-verdict="{escape(row["verdict"])}">'
        f"<p>{escape(row['claim'])}<small>{escape(row['version'])}</small></p><dl>{items}</dl></div>"
    )


def _value(paper: str) -> str:
    """The paper's value as the scoreboard has it; "" where that says in words that there is none."""
    return paper if any(map(str.isdigit, paper)) else ""


def _marked(what: str, word: str) -> str:
    return f'<span class="hfc-{what}" data-{what}="{escape(word)}">{escape(word)}</span>'


def _svg(height: int, attributes: str, marks: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {attributes}>{"".join(marks)}</svg>'


def _axis(scale: Scale) -> str:
    """The numbers above the pictures of a topic."""
    texts = (f'<text x="{scale.at(tick):.1f}" y="12">{_number(tick)}</text>' for tick in scale.ticks)
    return _svg(16, 'class="hfc-axis"', texts)


def _number(value: float) -> str:
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.4g}" if abs(value) > 1e-9 else "0")


def _edges(row: pd.Series) -> list[float]:
    """The ends of the region of a claim's rule; none at 0, which every picture marks."""
    return [end for end in region(row["relation"], row["bound"]) if np.isfinite(end) and abs(end) > 1e-9]


def _picture(row: pd.Series, scale: Scale) -> str:
    """The interval as a line with our mean as a dot, the paper's value as a hollow diamond, 0 and the rule's edges."""
    y, half = LINE / 2, 6
    lines = [(0, "zero"), *((edge, "edge") for edge in _edges(row))]
    marks = [
        f'<line x1="{scale.at(x):.1f}" x2="{scale.at(x):.1f}" y1="0" y2="{LINE}" class="{kind}"/>' for x, kind in lines
    ]
    if pd.notna(row["mean"]):
        if np.isfinite(row["low"]):  # a single network has no interval over seeds
            ends = f'x1="{scale.at(row["low"]):.1f}" x2="{scale.at(row["high"]):.1f}"'
            marks.append(f'<line {ends} y1="{y}" y2="{y}" class="interval"/>')
        marks.append(f'<circle cx="{scale.at(row["mean"]):.1f}" cy="{y}" r="4"/>')
    if pd.notna(row["published"]):
        x = scale.at(row["published"])
        marks.append(f'<path d="M{x:.1f} {y - half}l{half} {half}l-{half} {half}l-{half} -{half}z" class="paper"/>')
    label = escape(f"{row['claim']}: ours {row['ours']}, paper {row['paper']}")
    return _svg(LINE, f'role="img" aria-label="{label}"', marks)
