"""The recipes of every figure at each preset."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from hfclib.evaluation import PAPER_RADII
from hfclib.frequency import split
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, share_of
from hfclib.paper.parameters import Seeds, SeveralSeeds
from hfclib.paper.presets import Preset, base_recipe
from hfclib.paper.published import TABLE1_HFC, TABLE1_HFC_AT_MOST, table1_value
from hfclib.paper.style import STYLE, show_image
from hfclib.paper.tables import decimals, gather
from hfclib.paper.verdicts import Claim
from hfclib.training.recipe import Recipe
from hfclib.transforms import FEEDS, rescaled


def fig1_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Table 1, each trained on one band only: lfc4 to lfc16, hfc4 to hfc16, and hfc4max to hfc16max.

    Source: paper, section 4.1 and Table 1. Every band is rescaled to the standard pixel range (`Recipe.rescale`,
    "range"). The networks of the last four are trained on the HFC with the authors' scaling in place of ours: their
    code divides a band by its own maximum ("max"), which leaves it half negative and without brightness. The preset
    "authors" scales every band in that way.
    """
    base = base_recipe(preset)
    rescale = "max" if preset == "authors" else "range"

    def network(band: str, radius: int, rescale: str, suffix: str = "") -> Recipe:
        name = f"{base.name}-{band}{radius}{suffix}"
        return replace(base, name=name, train_band=band, train_radius=radius, rescale=rescale)

    ours = {f"{band}{radius}": network(band, radius, rescale) for band in ("lfc", "hfc") for radius in PAPER_RADII}
    return ours | {f"hfc{radius}max": network("hfc", radius, "max", "max") for radius in PAPER_RADII}


def _mean_sd(values: pd.Series) -> str:
    spread = f"\u00a0±\u00a0{decimals(values.std(ddof=1))}" if len(values) > 1 else ""
    return decimals(values.mean()) + spread


def table1_rows(final: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 beside ours, and what it lacks: the accuracy on the band of test images that was trained on.

    Args:
        final: a table from `gather(runs, "final")` of the networks of `fig1_recipes` and `fig1_scale_recipes`.
    Returns:
        Index (trained on, radius); text cells, ours mean ± sd over seeds. Where the paper's values for single radii
        were not published to us, its range over the radii stands.
    """
    rows = []
    for variant in dict.fromkeys(final["variant"]):
        band, radius = variant[:3], int(variant[3:].removesuffix("max"))
        own = final[(final["variant"] == variant) & (final["bn_stats"] == "running")]
        on_band = own[(own["band"] == band) & (own["radius"] == radius) & ~own["feed"].isin(FEEDS)]
        if on_band.empty:  # rescaled by the maximum, as the authors do, which is a feed of its own
            on_band = own[(own["band"] == band) & (own["radius"] == radius) & (own["feed"] == "max")]
            on_band = on_band.drop_duplicates(["split", "seed"])  # which is measured among the bands once more
        originals = own[(own["band"] == "x") & (own["split"] == "test")]
        scaled = " divided by its maximum" if variant.endswith("max") else ""
        row = {"trained on": f"{band.upper()}{scaled}", "radius": radius}
        for name, measure, ours in (
            ("training images", "train", on_band[on_band["split"] == "train"]),
            ("original test images", "test", originals),
        ):
            value = table1_value(variant, measure)
            paper = decimals(value.value) if value else TABLE1_HFC[measure]
            row |= {name: _mean_sd(ours["accuracy"]), f"{name}, paper": paper}
        row["same band of test images"] = _mean_sd(on_band[on_band["split"] == "test"]["accuracy"])
        rows.append(row)
    return pd.DataFrame(rows).set_index(["trained on", "radius"])


def _on_originals(final: pd.DataFrame, *, variants: tuple[str, ...]) -> Estimate:
    rows = final[(final["split"] == "test") & (final["band"] == "x") & (final["bn_stats"] == "running")]
    wide = rows.pivot_table(index="seed", columns="variant", values="accuracy").reindex(columns=list(variants)).dropna()
    return share_of(wide, int(rows["images"].max()))


def _fig1_claims() -> Iterator[Claim]:
    shared = {"figure": "fig1", "section": "section 4.1, Table 1"}
    radii = (4, 8, 12, 16)
    # The rule for the authors' scaling was committed before its networks were trained.
    for scaling, suffix in (("original images", ""), ("original images, HFC divided by its maximum", "max")):
        for radius in radii:
            yield Claim(
                id=f"fig1-lfc-exceeds-hfc-{radius}{suffix}",
                **shared,
                version=scaling,
                relation="exceeds",
                text=f"On original images a network trained on the LFC at r = {radius} is more accurate than one "
                "trained on the HFC",
                statistic=partial(_on_originals, variants=(f"lfc{radius}", f"hfc{radius}{suffix}")),
            )
        for radius in radii:
            yield Claim(
                id=f"fig1-hfc-{radius}{suffix}",
                **shared,
                version=scaling,
                relation="at most",
                bound=TABLE1_HFC_AT_MOST,
                paper=".09 to .20",
                text=f"Trained on the HFC at r = {radius} a network is right on at most .20 of original images",
                statistic=partial(_on_originals, variants=(f"hfc{radius}{suffix}",)),
            )
    for smaller, larger in pairwise(radii):
        step = table1_value(f"lfc{larger}", "test").value - table1_value(f"lfc{smaller}", "test").value
        yield Claim(
            id=f"fig1-grows-{larger}",
            **shared,
            version="original images",
            relation="exceeds",
            text=f"On original images a network trained on the LFC at r = {larger} is more accurate than one at "
            f"r = {smaller}",
            statistic=partial(_on_originals, variants=(f"lfc{larger}", f"lfc{smaller}")),
            paper=decimals(step),
        )


def table1_figure(final: pd.DataFrame) -> Figure:
    """Test accuracy of networks trained on one band, against the radius: on original images and on their own band.

    Args:
        final: a table from `gather(runs, "final")`; of its networks those of `fig1_recipes` are drawn.
    Returns:
        A Figure; points are means over seeds, bars one sample standard deviation, hollow diamonds the paper's values.
    """
    rows = final[(final["split"] == "test") & (final["bn_stats"] == "running") & ~final["variant"].str.endswith("max")]
    rows = rows.assign(trained=rows["variant"].str[:3], at=rows["variant"].str[3:].astype(int))
    rescale = "range" if "range" in set(rows["feed"]) else "max"
    own = rows[(rows["band"] == rows["trained"]) & (rows["radius"] == rows["at"]) & (rows["feed"] == rescale)]
    own = own.drop_duplicates(["variant", "seed"])  # a feed of its own is measured among the bands once more
    colours = dict(zip(("lfc", "hfc"), sns.color_palette("colorblind", 2), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        ax = figure.subplots()
        for kind, table, style, marker in (
            ("original images", rows[rows["band"] == "x"], "-", "o"),
            ("the same band of test images", own, "--", "s"),
        ):
            for band, ones in table.groupby("trained", sort=False):
                points = ones.groupby("at")["accuracy"].agg(["mean", "std"]).fillna(0)
                ax.errorbar(
                    points.index,
                    points["mean"],
                    points["std"],
                    color=colours[band],
                    ls=style,
                    marker=marker,
                    ms=6,
                    capsize=3,
                    label=f"trained on the {band.upper()}, tested on {kind}",
                )
        paper = {radius: table1_value(f"lfc{radius}", "test").value for radius in PAPER_RADII}
        ax.plot(
            list(paper),
            list(paper.values()),
            color=colours["lfc"],
            ls="",
            marker="D",
            ms=8,
            mfc="none",
            label="paper: trained on the LFC, tested on original images",
        )
        ax.axhline(0.1, color="0.3", lw=1, ls=":", label="chance (.10)")
        ax.set(xlabel="Radius (DFT bins)", ylabel="Test accuracy (share of images)", ylim=(0, 1), xticks=PAPER_RADII)
        ax.grid(alpha=0.3, lw=0.5)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def bands_figure(images: Tensor, radii: Sequence[int], rescale: str) -> Figure:
    """What networks trained on one band are trained on: a row an image, a column a band and radius.

    Args:
        images: (N, 3, H, W) in [0, 1].
        radii: DFT bins.
        rescale: as in `rescaled`.
    """
    columns = {"original": images}
    for band in (0, 1):
        for radius in radii:
            columns[f"{('LFC', 'HFC')[band]}, r = {radius}"] = rescaled(split(images, radius)[band], rescale)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.02 * len(columns), 0.35 + 1.0 * len(images)), layout="constrained")
        axes = figure.subplots(len(images), len(columns), squeeze=False)
        for row, line in enumerate(axes):
            for ax, (title, pictures) in zip(line, columns.items(), strict=True):
                show_image(ax, pictures[row], title if row == 0 else "")
    return figure


def hypothesis_figure(image: Tensor, radius: float) -> Figure:
    """The paper's hypothesis as a diagram: an image is the sum of two parts; a person sees one, a network both.

    Args:
        image: (3, H, W) in [0, 1].
        radius: DFT bins.
    """
    lfc, hfc = split(image[None], radius)
    pictures = {  # left edge and bottom of each, in the diagram's units
        "image $x$": (image, 0.1, 1.55),
        "low-frequency part $x_l$\n(the semantic one)": (lfc[0], 2.6, 2.7),
        "high-frequency part $x_h$\n(stretched for the eye)": (rescaled(hfc, "range")[0], 2.6, 0.35),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.set_aspect("equal")
        ax.set_axis_off()
        for text, (picture, left, bottom) in pictures.items():
            shown = picture.clamp(0, 1).permute(1, 2, 0).numpy()
            ax.imshow(shown, extent=(left, left + 1.3, bottom, bottom + 1.3), interpolation="nearest", zorder=2)
            ax.text(left + 0.65, bottom - 0.05, text, ha="center", va="top", fontsize=9.5)
        ax.set(xlim=(0, 9), ylim=(-0.3, 4.15))
        for text, bottom, colour in (("person", 2.85, "#0173b2"), ("network", 0.55, "#b35900")):
            box = FancyBboxPatch((5.3, bottom), 1.3, 0.9, boxstyle="round,pad=0.06", fc="white", ec=colour, lw=2)
            ax.add_patch(box)
            ax.text(5.95, bottom + 0.45, text, ha="center", va="center", color=colour, fontsize=11)
        ax.text(
            8.2,
            2.15,
            "label $y$\n“frog”",
            ha="center",
            va="center",
            fontsize=11,
            bbox={"boxstyle": "round,pad=0.5", "fc": "0.93", "ec": "0.4"},
        )
        arrows = [
            ((1.45, 2.3), (2.55, 3.3), "0.3"),
            ((1.45, 2.1), (2.55, 1.1), "0.3"),
            ((3.95, 3.35), (5.2, 3.3), "#0173b2"),
            ((3.95, 3.1), (5.2, 1.2), "#b35900"),
            ((3.95, 1.0), (5.2, 0.95), "#b35900"),
            ((6.7, 3.2), (7.6, 2.6), "#0173b2"),
            ((7.6, 1.75), (6.7, 1.15), "#b35900"),
        ]
        for start, end, colour in arrows:
            ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, lw=1.6))
        ax.text(7.35, 3.15, "gives", color="#0173b2", fontsize=9)
        ax.text(7.3, 1.15, "is trained on", color="#b35900", fontsize=9)
    return figure


class Fig1Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig1.ipynb`."""

    seeds: Seeds = (0,)


FIG1 = Chapter(
    name="fig1",
    recipes=fig1_recipes,
    parameters=Fig1Parameters,
    optional=tuple(fig1_recipes()),
    claims=tuple(_fig1_claims()),
    evidence=partial(gather, which="final"),
    seeds=(0,),
)
