"""Sphinx extension of this book: the pages of its reports, drawn from `book/reports`.

There NAME.json is the report.json that `hfc report NAME --data cifar10-test` wrote for a stored run; each is drawn with
the others behind. `photographs` has the two reports that `real_network.py` is about, and beside each in one picture the
photographs that its page shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from hfclib.data import embedded, to_float
from hfclib.reporting.page import html
from hfclib.reporting.stored import Report, read_report

if TYPE_CHECKING:  # its tests do without Sphinx
    from sphinx.application import Sphinx

TITLES = {  # of the networks, by the file's name
    "laptop-adversarial-0-8ea95e0448": "an adversarially trained network",
    "laptop-batchnorm-0-a5863af9f4": "a network with BatchNorm",
}
FOLDER = Path(__file__).parents[1] / "reports"
PHOTOGRAPHS, SHOWN_SIDE = FOLDER / "photographs", 96  # pixels of each photograph in its picture


def report_pages() -> dict[str, str]:
    """The pages by name."""
    reports = {path.stem: _titled(read_report(path), TITLES[path.stem]) for path in sorted(FOLDER.glob("*.json"))}
    images, _ = embedded("test")
    return {
        name: html(
            report,
            to_float(images[: report.content["key"]["settings"]["first_images"]]),
            [other for other in reports.values() if other is not report],
            back=("../report.html", "Report on your network"),
        )
        for name, report in reports.items()
    }


def _titled(report: Report, name: str) -> Report:
    """The report with a name for readers in place of that of the run."""
    key = report.content["key"]
    return replace(report, content=report.content | {"key": key | {"settings": key["settings"] | {"name": name}}})


def photographs_pages() -> dict[str, str]:
    """The pages of the network that is measured on photographs, by name."""
    return {f"efficientnet-lite0-{path.stem}": _photographs_page(path) for path in sorted(PHOTOGRAPHS.glob("*.json"))}


def _photographs_page(path: Path) -> str:
    with Image.open(path.with_suffix(".jpg")) as sheet:
        pixels = torch.from_numpy(np.asarray(sheet.convert("RGB")).copy()).permute(2, 0, 1) / 255
    rows = [row.split(SHOWN_SIDE, dim=2) for row in pixels.split(SHOWN_SIDE, dim=1)]
    images = torch.stack([picture for row in rows for picture in row])
    return html(read_report(path), images, back=("../real-network.html", "A network that people use"))


def write_reports(app: Sphinx, error: Exception | None) -> None:
    """Write the pages beside the page that links to them, once the book is built."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "book" / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in (report_pages() | photographs_pages()).items():
        (folder / f"{name}.html").write_text(page, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", write_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
