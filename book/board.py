"""The scoreboard as a page: one row per claim, with its interval as a picture, grouped by question."""

import base64
import re
from html import escape

import pandas as pd
from IPython.display import HTML

QUESTIONS = {
    "fig1": "What can a network learn from one half of an image?",
    "fig2": "Does a network read what people do not?",
    "tradeoff": "Must an accurate network be fragile?",
    "labels": "Through which band are labels memorised?",
    "training": "Do batch size, optimiser and architecture change how much HFC is used?",
    "fig4": "Do training heuristics change how much HFC is used?",
    "batchnorm": "Why does BatchNorm look as if it read the HFC?",
    "networks": "Is a network that reads the HFC fragile?",
    "datasets": "Does it hold for other data, and does the LFC accuracy give a planted signal away?",
    "fig3": "Are the kernels of robust networks smooth?",
    "defense": "Does smoothing defend against attacks?",
    "detection": "Does a detector need the high frequencies?",
}
WIDTH, LOW, HIGH = 220, -0.4, 1.0  # of the picture of an interval, in pixels and in units of accuracy
TICKS = {LOW: "-.4", 0.0: "0", 0.5: ".5", HIGH: "1"}


def forest(board: pd.DataFrame) -> HTML:
    """The rows of `published_scoreboard`, grouped by question; works without JavaScript."""
    verdicts = list(dict.fromkeys(board["verdict"]))
    filters = "".join(
        f'<label><input type="radio" name="hfc-filter" value="{escape(one)}"{" checked" * (one == "all")}> '
        f"{escape(one)} ({len(board) if one == 'all' else int((board['verdict'] == one).sum())})</label>"
        for one in ["all", *verdicts]
    )
    rules = "".join(
        f'.hfc-board:has(input[value="{one}"]:checked) .hfc-claim:not([data-verdict="{one}"]) {{ display: none; }}\n'
        for one in verdicts
    )
    parts = [f"<style>{rules}</style>", f'<fieldset class="hfc-filter"><legend>Show</legend>{filters}</fieldset>']
    for figure, question in QUESTIONS.items():
        rows = board[board["figure"] == figure]
        shown = "".join(_row(name, row) for name, row in rows.iterrows())
        link = f'<a href="../notebooks/{figure}.html">{question}</a>'
        if len(rows):
            parts.append(f'<section><h3 id="board-{figure}">{link}</h3>{_scale()}{shown}</section>')
    table = base64.b64encode(board.to_csv().encode()).decode()
    parts.append(f'<p><a download="scoreboard.csv" href="data:text/csv;base64,{table}">All columns as CSV</a></p>')
    return HTML(f'<div class="hfc-board">{"".join(parts)}</div>')


def _row(name: str, row: pd.Series) -> str:
    details = {
        "tested": row["tested"],
        "ours": row["ours"],
        "seeds": row["seeds"],
        "paper": row["paper"],
        "paper's value within our interval": row["within"],
        "made in": row["section"],
    }
    items = "".join(f"<dt>{what}</dt><dd>{escape(str(text))}</dd>" for what, text in details.items())
    return (
        f'<details class="hfc-claim" id="{name}" data-verdict="{escape(row["verdict"])}"><summary>'
        f'<span class="hfc-text">{escape(row["claim"])}<small>{escape(row["version"])}</small></span>'
        f'<span>{_picture(row)}<small class="hfc-ours">{escape(row["ours"])}</small></span>'
        f'<span class="hfc-verdict">{escape(row["verdict"])}</span></summary><dl>{items}</dl></details>'
    )


def at(value: float) -> float:
    """Where a number stands in the picture of an interval, in pixels from the left."""
    return (min(max(value, LOW), HIGH) - LOW) / (HIGH - LOW) * (WIDTH - 16) + 8


def _scale() -> str:
    """The numbers above the pictures of a group."""
    texts = "".join(f'<text x="{at(value):.0f}" y="12">{text}</text>' for value, text in TICKS.items())
    svg = f'<svg viewBox="0 0 {WIDTH} 16" width="{WIDTH}" height="16">{texts}</svg>'
    return f'<div class="hfc-scale" aria-hidden="true">{svg}</div>'


def _picture(row: pd.Series) -> str:
    """The interval as a line with our mean as a dot, the paper's value as a hollow diamond, 0 and the rule's edges."""
    edges = [float(edge) for edge in re.findall(r"-?\d*\.\d+", row["tested"])]
    if "of 0" in row["tested"]:  # within so much of 0
        edges += [-edge for edge in edges]
    lines = [(0, "zero"), *((edge, "edge") for edge in edges)]
    marks = [f'<line x1="{at(x):.1f}" x2="{at(x):.1f}" y1="2" y2="26" class="{kind}"/>' for x, kind in lines]
    if pd.notna(row["mean"]):
        if row["seeds"] > 1:
            marks.append(
                f'<line x1="{at(row["low"]):.1f}" x2="{at(row["high"]):.1f}" y1="14" y2="14" class="interval"/>'
            )
        marks.append(f'<circle cx="{at(row["mean"]):.1f}" cy="14" r="4"/>')
    if pd.notna(row["published"]):
        x = at(row["published"])
        marks.append(f'<path d="M{x:.1f} 7l6 7l-6 7l-6 -7z" class="paper"/>')
    label = escape(f"ours {row['ours']}, paper {row['paper']}")
    size = f'viewBox="0 0 {WIDTH} 28" width="{WIDTH}" height="28"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(marks)}</svg>'
