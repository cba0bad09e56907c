"""Sphinx extension of this book: the first page as a PDF of one sheet, for those who hand it on.

Chromium prints it once the book is built, as a reader's browser would. On a machine without Chromium there is no PDF
and no link to it; the page has a button that prints it.
"""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from book import browse

PDF = "what-networks-read.pdf"  # beside the page
SECONDS = 180


class SummaryLink(Directive):
    """`{summary-pdf}`: a link to the PDF, or nothing where none is made."""

    def run(self) -> list[nodes.Node]:
        link = f'<a class="hfc-pdf" href="{PDF}">Summary (PDF)</a>'
        return [nodes.raw("", f"<p>{link}</p>", format="html")] if browse.chromium() else []


def print_summary(app: Sphinx, error: Exception | None) -> None:
    """Print the first page.

    Raises:
        ExtensionError: Chromium printed nothing, or more than one sheet.
    """
    if error or app.builder.format != "html" or not browse.chromium():
        return
    page = Path(app.outdir, f"{app.config.root_doc}.html")
    if f'href="{PDF}"' not in page.read_text():  # where another page is built alone
        return
    pdf = page.with_name(PDF)
    pdf.unlink(missing_ok=True)
    with TemporaryDirectory() as profile:
        flags = [*browse.FLAGS.split(), "--headless", "--no-pdf-header-footer", "--virtual-time-budget=20000"]
        command = [browse.chromium(), *flags, f"--user-data-dir={profile}", f"--print-to-pdf={pdf}", page.as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
            sheets = browse.sheets(pdf.read_bytes())
        except (subprocess.SubprocessError, OSError) as fault:
            raise ExtensionError(f"expected Chromium to print {page}: {fault}") from fault
    if sheets != 1:
        raise ExtensionError(f"expected the summary on one sheet, got {sheets} in {pdf}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_directive("summary-pdf", SummaryLink)
    app.connect("build-finished", print_summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
