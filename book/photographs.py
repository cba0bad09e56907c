"""The table of the page "A network that people use", read from the stored report on the photographs with labels."""

from pathlib import Path

from IPython.display import HTML

from book.chapters import table
from hfclib.reporting import answer, read_report

LABELLED = Path(__file__).parent / "reports" / "photographs" / "labelled.json"
FED = {"lfc": "its LFC at radius {}", "hfc": "its HFC at radius {}, with the mean colour"}


def labelled_table(report: Path = LABELLED) -> HTML:
    """How many of the photographs are right: whole, and by each band at each radius, with running averages."""
    content = read_report(report).content
    whole = answer.whole_row(content)
    right = f"right, of {whole['images']}"
    rows = [{"fed": "the whole picture", right: f"{whole['correct']}"}]
    for band, words in FED.items():
        counts = answer.band_rows(content, band)
        radii, correct = (", ".join(str(row[name]) for row in counts) for name in ("radius", "correct"))
        rows.append({"fed": words.format(radii), right: correct})
    return HTML(table(rows))
