"""Draws the README's picture, whose description holds its numbers, and that of shared links: python -m book.picture"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from hfclib.charts import STYLE
from hfclib.conditions import PAPER_RADII
from hfclib.paper import fig4

FILE = Path(__file__).parent / "one-picture.svg"
SHARED = Path(__file__).parent / "_static" / "share.png"


def drawn() -> tuple[Figure, str]:
    """The figure of the landing page, and the accuracies in it as text."""
    final = fig4.FIG4.published()
    hfc = final[(final["band"] == "hfc") & (final["split"] == "test") & final["radius"].isin(PAPER_RADII)]
    means = hfc.groupby(["variant", "feed", "bn_stats", "radius"])["value"].mean()
    return fig4.hfc_by_condition(final), means.rename("accuracy").round(4).to_csv()


if __name__ == "__main__":
    figure, numbers = drawn()
    with mpl.rc_context(STYLE):
        figure.savefig(FILE, metadata={"Date": None, "Description": numbers}, facecolor="white")
    figure.suptitle("What networks read in the dark", fontsize=26)
    figure.set_size_inches(12, 6.3)
    figure.savefig(SHARED, dpi=100, facecolor="white")  # 1200 x 630 pixels, as sites ask for
