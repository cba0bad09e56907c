"""Sphinx extension of this book: the pages of two reports, each with the other behind, drawn from `book/reports`.

There NAME.json is the report.json that `hfc report NAME --data cifar10-test` wrote for a stored run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hfclib.data import embedded, to_float
from hfclib.reporting.page import html
from hfclib.reporting.stored import read_report

if TYPE_CHECKING:  # its tests do without Sphinx
    from sphinx.application import Sphinx

FOLDER = Path(__file__).parents[1] / "reports"


def report_pages() -> dict[str, str]:
    """The pages by name."""
    reports = {path.stem: read_report(path) for path in sorted(FOLDER.glob("*.json"))}
    images, _ = embedded("test")
    return {
        name: html(
            replace(report, content=report.content | {"data_name": "the test images of CIFAR-10"}),
            to_float(images[: report.content["key"]["settings"]["first_images"]]),
            [other for other in reports.values() if other is not report],
            back=("../report.html", "Report on your network"),
        )
        for name, report in reports.items()
    }


def write_reports(app: Sphinx, error: Exception | None) -> None:
    """Write the pages beside the page that links to them, once the book is built."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "book" / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in report_pages().items():
        (folder / f"{name}.html").write_text(page, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", write_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
