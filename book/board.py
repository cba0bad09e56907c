"""The scoreboard as a page: one row per topic, which unfolds into its claims, with their intervals as pictures."""

import base64
import re
from html import escape

import pandas as pd
from IPython.display import HTML

QUESTIONS = {
    "fig1": "What can a network learn from one half of an image?",
    "generalisation": "Do networks that generalise better read more of the HFC?",
    "fig2": "Does a network read what people do not?",
    "tradeoff": "Must an accurate network be fragile?",
    "labels": "Through which band are labels memorised?",
    "training": "Do batch size, optimiser and architecture change how much HFC is used?",
    "fig4": "Do training heuristics change how much HFC is used?",
    "batchnorm": "Why does BatchNorm look as if it read the HFC?",
    "networks": "Is a network that reads the HFC fragile?",
    "datasets": "Does it hold for other data, and does the LFC accuracy reveal a planted signal?",
    "fig3": "Are the kernels of robust networks smooth?",
    "defense": "Does smoothing defend against attacks?",
    "detection": "Does a detector need the high frequencies?",
}
# What several claims are about, by a pattern of their ids, of which the first counts. Elsewhere it is the claim's text.
TOPICS = {
    "fig1-(lfc-exceeds-)?hfc.*": "LFC against HFC as training images",
    "fig1-.*": "What the LFC teaches, by radius",
    "generalisation-.*": "Test accuracy, and what is read of each band",
    "fig2-(count.*|eight)": "Misaligned images: how many, and the paper's eight",
    "fig3-.*": "Smoothness after adversarial training",
    "fig4-(batchnorm-16|batchnorm-w32|cropped)-.*": "The set-up as stated: at other widths, and with crop and flip",
    "fig4-dropout-.*": "Dropout and the HFC",
    "fig4-batchnorm-.*": "BatchNorm against vanilla training, on both bands",
    "fig4-mixup-.*": "Mix-up: the HFC, and the gap to training accuracy",
    "fig4-adversarial-H.*": "Adversarial training and the HFC",
    "fig4-adversarial-.*": "Adversarial training: accuracy, the gap, the LFC",
    "labels-(end-.*|equal)": "The LFC at r = 8 with natural and with shuffled labels",
    "labels-(fall-.*|early)": "The LFC at r = 4 early in training",
    "labels-levels-.*": "How near the accuracies on the LFC end to the paper's",
    "training-(batch|steps)-.*": "Small and large batches: accuracy, the gap, the HFC",
    "training-resnet-.*": "ResNet against LeNet, AlexNet and VGG",
    "batchnorm-left-.*": "BatchNorm's lead on the HFC when the test batch standardises both networks",
    "batchnorm-lfc-.*": "BatchNorm's gain when trained on the LFC",
    "networks-.*": "HFC accuracy, and what a network loses to shifts and attacks",
    "datasets-planted-.*-L.*": "A planted signal and the LFC accuracy",
    "datasets-planted-.*": "A planted signal: test images and clean images",
    "datasets-.*-batchnorm.*": "BatchNorm on MNIST and Fashion-MNIST",
    "datasets-.*-hfc": "The HFC of MNIST and Fashion-MNIST as training images",
    "datasets-.*-misaligned": "Misaligned images of MNIST and Fashion-MNIST",
    "defense-rule-(clean|fgsm.*)": "The natural network, smoothed at rho = 1",
    "defense-(rule-over|adversarial-rule)-.*": "Smoothing and adversarial training, at a small and a large eps",
    "defense-.*marginal": "How much smooth kernels improve robustness",
    "detection-better-.*": "Objects found better on the LFC",
    "detection-hfc-colour": "The mean colour added to the HFC",
    "detection-.*": "mAP on the LFC and on the HFC",
}
WIDTH, LOW, HIGH = 220, -0.4, 1.0  # of the picture of an interval, in pixels and in units of accuracy
STEP = 14  # pixels from one interval to the next in a topic's picture
TICKS = {LOW: "-.4", 0.0: "0", 0.5: ".5", HIGH: "1"}


def forest(board: pd.DataFrame) -> HTML:
    """The rows of `published_scoreboard`, grouped by question and topic; works without JavaScript."""
    verdicts = list(dict.fromkeys(board["verdict"]))
    filters = "".join(
        f'<label><input type="radio" name="hfc-filter" value="{escape(one)}"{" checked" * (one == "all")}> '
        f"{escape(one)} ({len(board) if one == 'all' else int((board['verdict'] == one).sum())})</label>"
        for one in ["all", *verdicts]
    )
    rules = "".join(
        f'.hfc-board:has([value="{one}"]:checked) .hfc-claim:not(:has([data-verdict="{one}"])) {{ display: none; }}\n'
        for one in verdicts
    )
    parts = [f"<style>{rules}</style>", f'<fieldset class="hfc-filter"><legend>Show</legend>{filters}</fieldset>']
    for figure, question in QUESTIONS.items():
        rows = board[board["figure"] == figure]
        topics = [topic(name, claim) for name, claim in rows["claim"].items()]
        shown = "".join(_topic(text, part) for text, part in rows.groupby(topics, sort=False))
        link = f'<a href="../notebooks/{figure}.html">{question}</a>'
        if len(rows):
            parts.append(f'<section><h3 id="board-{figure}">{link}</h3>{_scale()}{shown}</section>')
    table = base64.b64encode(board.to_csv().encode()).decode()
    parts.append(f'<p><a download="scoreboard.csv" href="data:text/csv;base64,{table}">All columns as CSV</a></p>')
    return HTML(f'<div class="hfc-board">{"".join(parts)}</div>')


def topic(name: str, claim: str) -> str:
    """What a claim is about, together with others."""
    return next((text for pattern, text in TOPICS.items() if re.fullmatch(pattern, name)), claim)


def _topic(text: str, rows: pd.DataFrame) -> str:
    """One row for all claims of a topic, with their intervals in one picture; they are unfolded below it."""
    claims = "".join(_row(name, row) for name, row in rows.iterrows())
    if len(rows) == 1:
        return claims
    counts = rows["verdict"].value_counts(sort=False)
    verdicts = "".join(
        f'<span data-verdict="{escape(one)}">{escape(one)} ({count})</span>' for one, count in counts.items()
    )
    height = STEP * len(rows) + 8
    parts = "".join(_marks(row, 4 + STEP * (place + 0.5), STEP) for place, (_, row) in enumerate(rows.iterrows()))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    picture = f'<svg {size} role="img" aria-label="the intervals of the {len(rows)} claims below">{parts}</svg>'
    return (
        f'<details class="hfc-claim hfc-topic"><summary><span class="hfc-text">{escape(text)}'
        f"<small>{len(rows)} claims</small></span>{picture}"
        f'<span class="hfc-verdicts">{verdicts}</span></summary>{claims}</details>'
    )


def _row(name: str, row: pd.Series) -> str:
    details = {
        "tested": row["tested"],
        "ours": row["ours"],
        "seeds": row["seeds"],
        "paper": row["paper"],
        "size": row["size"],
        "made in": row["section"],
    }
    if row["first"] != "\u2013":
        details["with the number of seeds that was fixed first"] = f"{row['first verdict']}, {row['first']}"
    if row["cause"]:
        details["possible cause"] = row["cause"]
    if not row["counted"]:
        details["not counted"] = "it can hardly fail"
    items = "".join(f"<dt>{what}</dt><dd>{escape(str(text))}</dd>" for what, text in details.items())
    verdict = escape(row["verdict"])
    return (
        f'<details class="hfc-claim" id="{name}" data-verdict="{verdict}"><summary>'
        f'<span class="hfc-text">{escape(row["claim"])}<small>{escape(row["version"])}</small></span>'
        f'<span>{_picture(row)}<small class="hfc-ours">{escape(row["ours"])}</small></span>'
        f'<span class="hfc-verdicts"><span data-verdict="{verdict}">{verdict}</span></span></summary>'
        f"<dl>{items}</dl></details>"
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
    label = escape(f"ours {row['ours']}, paper {row['paper']}")
    size = f'viewBox="0 0 {WIDTH} 28" width="{WIDTH}" height="28"'
    return f'<svg {size} role="img" aria-label="{label}">{_marks(row, 14, 24)}</svg>'


def _marks(row: pd.Series, y: float, height: float) -> str:
    """The interval as a line with our mean as a dot, the paper's value as a hollow diamond, 0 and the rule's edges."""
    edges = [float(edge) for edge in re.findall(r"-?\d*\.\d+", row["tested"])]
    if "of 0" in row["tested"]:  # within so much of 0
        edges += [-edge for edge in edges]
    lines = [(0, "zero"), *((edge, "edge") for edge in edges)]
    top, bottom, half = y - height / 2, y + height / 2, min(7, height / 2)
    marks = [f'<line x1="{at(x):.1f}" x2="{at(x):.1f}" y1="{top}" y2="{bottom}" class="{kind}"/>' for x, kind in lines]
    if pd.notna(row["mean"]):
        if row["seeds"] > 1:
            ends = f'x1="{at(row["low"]):.1f}" x2="{at(row["high"]):.1f}"'
            marks.append(f'<line {ends} y1="{y}" y2="{y}" class="interval"/>')
        marks.append(f'<circle cx="{at(row["mean"]):.1f}" cy="{y}" r="4"/>')
    if pd.notna(row["published"]):
        x, side = at(row["published"]), half - 1
        marks.append(f'<path d="M{x:.1f} {y - half}l{side} {half}l-{side} {half}l-{side} -{half}z" class="paper"/>')
    return f'<g data-verdict="{escape(row["verdict"])}">{"".join(marks)}</g>'
