"""A finished report: what it holds and reading it, without PyTorch, so that a bad file is refused at once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 3  # of report.json; 2 has the part "phase", 3 has all radii in DFT bins


@dataclass(frozen=True)
class Report:
    """A finished report.

    Attributes:
        folder: with report.json, report.html, card.png, and one CSV per part; None for one that was only read.
        content: what report.json holds: schema, hfclib, key (settings; hashes of the weights, of the first
            images and of the predictions for them), data_sha256, pictures_sha256 (None if the data are no folder),
            colour_given (whether the mean colour was, or is that of the data), parts (the rows of each), and summary.
    """

    folder: Path | None
    content: dict

    def table(self, part: str = "accuracy") -> "pd.DataFrame":
        """The rows of a part: "accuracy", "heat_map", "noise", "energy", "misaligned" or "phase".

        ValueError if it was not measured.
        """
        import pandas as pd

        if part not in self.content["parts"]:
            raise ValueError(f"expected a measured part, {', '.join(self.content['parts'])}, got {part!r}")
        return pd.DataFrame(self.content["parts"][part])

    def value(self, band: str, radius: float | None = None) -> float:
        """The accuracy on "test" (whole images), or at a radius in DFT bins on "lfc", or on "hfc" with the mean colour.

        Both are with running averages; ValueError if it was not measured.
        """
        asked = ("x", "raw") if band == "test" else (band, "mean" if band == "hfc" else "raw")
        for row in self.content["parts"]["accuracy"]:
            at_radius = radius is None if band == "test" else radius == row["radius"]
            if at_radius and (row["band"], row["feed"], row["bn_stats"]) == (*asked, "running"):
                return row["accuracy"]
        raise ValueError(f"the report has no {band} at radius {radius}")


def read_report(path: str | Path) -> Report:
    """The report in a report.json; ValueError if it is not one, or has another schema or is not finished."""
    try:
        content = json.loads(Path(path).read_bytes())
        if content["schema"] != SCHEMA or "summary" not in content:
            raise ValueError(f"schema {content['schema']}, expected a finished report of schema {SCHEMA}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a finished report ({error})") from error
    return Report(None, content)


def compare(first: Report, second: Report) -> "pd.DataFrame":
    """The accuracies of two reports side by side: one row per condition that both have, with their difference.

    Raises:
        ValueError: the reports are of different images or labels.
    """
    check_same_data(first.content, second.content)
    keys = ["band", "radius", "feed", "bn_stats"]
    tables = [report.table()[[*keys, "images", "accuracy", "low", "high"]] for report in (first, second)]
    both = tables[0].merge(tables[1], on=keys, suffixes=("_a", "_b"))
    return both.assign(difference=both["accuracy_b"] - both["accuracy_a"])


def check_same_data(first: dict, second: dict) -> None:
    """Raise a ValueError if two reports are of different data, but for the same pictures in other sizes, or colours."""
    digests = [{name: some.get(name) for name in ("data_sha256", "pictures_sha256")} for some in (first, second)]
    if not any(digests[0][name] and digests[0][name] == digests[1][name] for name in digests[0]):
        name = second["key"]["settings"]["name"]
        raise ValueError(f"expected reports of the same images and labels, that of {name} is of others: data_sha256")
    colours = [some["key"]["settings"]["colour"] for some in (first, second)]
    apart = [abs(one - other) for one, other in zip(*colours, strict=False)]
    if len(colours[0]) != len(colours[1]) or max(apart) > 0.01:  # grey and colour; pictures in another size are near
        raise ValueError(f"expected reports that add the same mean colour, got {colours[0]} and {colours[1]}")
