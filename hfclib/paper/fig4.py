"""One function a figure: tables in, a matplotlib Figure out. Nothing here trains or evaluates."""

from collections.abc import Iterator, Sequence
from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hfclib.evaluation import BN_STATS, PAPER_RADII, BnStats
from hfclib.paper.chapter import Chapter
from hfclib.paper.intervals import Estimate, MissingRunError, interval
from hfclib.paper.parameters import FeedChoice, Radii, SeveralSeeds, StatisticsChoice
from hfclib.paper.presets import TITLES, fig4_recipes
from hfclib.paper.published import fig4_difference, fig4_value
from hfclib.paper.show import listed
from hfclib.paper.style import STYLE, panel_grid
from hfclib.paper.tables import CONDITIONS, TableFeed, by_seed, decimals, difference, gather, select, with_interval
from hfclib.paper.verdicts import MARGIN, Claim


def measures(radii: Sequence[int]) -> list[str]:
    """The measures of `select` in the order of the published table."""
    return ["train", "test", *(f"L{r}" for r in radii), *(f"H{r}" for r in radii)]


def beside_paper(final: pd.DataFrame, radii: Sequence[int], feed: TableFeed, bn_stats: BnStats) -> pd.DataFrame:
    """Our end-of-training accuracies beside the paper's: for each variant, our mean ± sd over seeds, and the paper's.

    Returns:
        Index measure, columns (title, "ours" or "paper"), text cells; "not published" where the paper has none.
        A measure that is recorded under another condition than the one asked for (`select`) says so.
        The sd is the sample standard deviation over seeds; with one seed it is left out.
    """
    rows = select(final, radii, feed, bn_stats)
    grouped = rows.groupby(["variant", "measure"], sort=False)["accuracy"].agg(["mean", "std", "count"])
    columns = {}
    for variant in dict.fromkeys(rows["variant"]):
        ours, paper = (columns.setdefault((TITLES[variant], source), {}) for source in ("ours", "paper"))
        for measure in measures(radii):
            mean, sd, count = grouped.loc[(variant, measure)]
            odd = (
                measure[1:].isdigit() and int(measure[1:]) not in PAPER_RADII and (feed, bn_stats) != ("raw", "running")
            )
            name = f"{measure} (raw, running)" if odd else measure
            ours[name] = decimals(mean) + (f"\u00a0±\u00a0{decimals(sd)}" if count > 1 else "")
            value = fig4_value(variant, measure)
            paper[name] = decimals(value.value, 2) if value else "not published"
    return pd.DataFrame(columns).rename_axis("accuracy on")


def batchnorm_effect(final: pd.DataFrame, radii: Sequence[int] = PAPER_RADII) -> pd.DataFrame:
    """BatchNorm's HFC accuracy minus vanilla's, under each feed and each kind of statistics.

    Returns:
        A row a (radius, bn_stats, feed): mean difference over seeds, low and high (95 %), and share_left: the mean
        as a share of the one under the authors' condition (feed "max", bn_stats "batch") at that radius, NaN if that
        is 0.
    """
    rows = []
    for radius in radii:
        as_published = difference(final, "batchnorm", f"H{radius}", "max", "batch").mean()
        for bn_stats in reversed(BN_STATS):
            for feed in ("max", "raw", "mean"):
                mean, low, high = interval(difference(final, "batchnorm", f"H{radius}", feed, bn_stats))
                left = mean / as_published if as_published else np.nan
                rows.append(
                    {
                        "radius": radius,
                        "bn_stats": bn_stats,
                        "feed": feed,
                        "difference": mean,
                        "low": low,
                        "high": high,
                        "share_left": left,
                    }
                )
    return pd.DataFrame(rows)


def batchnorm_effect_text(effect: pd.DataFrame) -> pd.DataFrame:
    """`batchnorm_effect` as a reader's table: a row a condition, a column a radius, "difference [low, high]"."""
    cells = {}
    for row in effect.itertuples():
        cell = with_interval(row.difference, row.low, row.high)
        cells.setdefault((row.bn_stats, row.feed), {})[f"r = {row.radius}"] = cell
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis(["statistics", "feed"])


CHANCE = 0.1
VERSION_IDS = {"measured as the authors did": "as-published", "controlled": "controlled"}  # as claims' ids have them


def _estimate(values: pd.Series) -> Estimate:
    if values.empty:
        raise MissingRunError("no seed has all the runs of the claim")
    return Estimate(*interval(values), seeds=len(values))


def _fig4_difference(final: pd.DataFrame, *, variant: str, measure: str, version: str) -> Estimate:
    return _estimate(difference(final, variant, measure, *CONDITIONS[version]))


def _fig4_claims() -> Iterator[Claim]:
    sentences = {
        "batchnorm": "BatchNorm makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "mixup": "Mix-up makes the network more accurate on the HFC at r = {r} than vanilla training does",
        "dropout": "Dropout does not change the accuracy on the HFC at r = {r}",
    }
    for version, name in VERSION_IDS.items():
        for variant, sentence in sentences.items():
            for radius in (4, 8):
                measure = f"H{radius}"
                yield Claim(
                    id=f"fig4-{variant}-{measure}-{name}",
                    figure="fig4",
                    section="section 5.2, Fig. 5",
                    text=sentence.format(r=radius),
                    version=version,
                    relation="does not differ" if variant == "dropout" else "exceeds",
                    statistic=partial(_fig4_difference, variant=variant, measure=measure, version=version),
                    paper=decimals(fig4_difference(variant, measure), 2),
                )


def _fig4_loss(final: pd.DataFrame) -> Estimate:
    return _estimate(-difference(final, "adversarial", "test", *CONDITIONS["controlled"]))


def _fig4_gap(final: pd.DataFrame) -> Estimate:
    train, test = (difference(final, "adversarial", one, *CONDITIONS["controlled"]) for one in ("train", "test"))
    return _estimate(test - train)


def _over_chance(final: pd.DataFrame, *, measure: str, version: str) -> Estimate:
    accuracies = by_seed(final, measure, *CONDITIONS[version])
    return _estimate(accuracies.reindex(columns=["adversarial"])["adversarial"].dropna() - CHANCE)


def _adversarial_claims() -> Iterator[Claim]:
    shared = {"figure": "fig4", "section": "section 5.2, Fig. 5"}
    paper = {measure: fig4_difference("adversarial", measure) for measure in ("train", "test")}
    yield Claim(
        id="fig4-adversarial-test-whole-images",
        **shared,
        version="whole images",
        relation="exceeds",
        text="Adversarial training makes the network less accurate on test images than vanilla training does",
        statistic=_fig4_loss,
        paper=decimals(-paper["test"], 2),
    )
    yield Claim(
        id="fig4-adversarial-gap-whole-images",
        **shared,
        version="whole images",
        relation="exceeds",
        text="Adversarial training narrows the gap between training and test accuracy",
        statistic=_fig4_gap,
        paper=decimals(paper["test"] - paper["train"], 2),
    )
    for version, name in VERSION_IDS.items():
        yield Claim(
            id=f"fig4-adversarial-H4-{name}",
            **shared,
            version=version,
            relation="exceeds",
            text="On the HFC at r = 4 an adversarially trained network exceeds chance",
            statistic=partial(_over_chance, measure="H4", version=version),
            paper=decimals(fig4_value("adversarial", "H4").value - CHANCE, 2),
        )
        for measure in ("H12", "H16"):
            yield Claim(
                id=f"fig4-adversarial-{measure}-{name}",
                **shared,
                version=version,
                relation="at most",
                bound=MARGIN,
                text=f"On the HFC at r = {measure[1:]} an adversarially trained network is at most .05 above chance",
                statistic=partial(_over_chance, measure=measure, version=version),
                paper=decimals(fig4_value("adversarial", measure).value - CHANCE, 2),
            )


def curves_figure(rows: pd.DataFrame) -> Figure:
    """Accuracy after each epoch, a variant a heuristic: whole images in grey and black, bands in colour.

    Args:
        rows: curves from `select`.
    Returns:
        A Figure; lines are means over seeds, shades one sample standard deviation to each side.
    Raises:
        ValueError: no rows.
    """
    if rows.empty:
        raise ValueError("expected curves, got an empty table")
    variants = [variant for variant in TITLES if variant in set(rows["variant"])]
    radii = sorted(set(rows.loc[rows["band"] != "x", "radius"]))
    colours = dict(zip(radii, sns.color_palette("colorblind", len(radii)), strict=True))
    with mpl.rc_context(STYLE):
        across, width = (3, 2.9) if len(variants) > 4 else (2, 3.6)
        figure, axes, free = panel_grid(len(variants), across, (width, 2.7), (1.2, 0.9))
        for variant, ax in zip(variants, axes, strict=True):
            for (band, split, radius), line in rows[rows["variant"] == variant].groupby(["band", "split", "radius"]):
                whole = {"train": "0.6", "test": "black"}
                colour = whole[split] if band == "x" else colours[radius]
                over_seeds = line.groupby("epoch")["accuracy"].agg(["mean", "std"]).fillna(0)
                ax.plot(
                    over_seeds.index,
                    over_seeds["mean"],
                    color=colour,
                    ls="--" if band == "hfc" else "-",
                    lw=2 if band == "x" else 1.5,
                )
                ax.fill_between(
                    over_seeds.index,
                    over_seeds["mean"] - over_seeds["std"],
                    over_seeds["mean"] + over_seeds["std"],
                    color=colour,
                    alpha=0.2,
                    lw=0,
                )
            ax.axhline(0.1, color="0.3", lw=1, ls=":")
            ax.set(title=TITLES[variant], ylim=(0, 1))
            ax.grid(alpha=0.3, lw=0.5)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = _curves_handles(rows, colours)
        for empty in free:
            empty.axis("off")
        if free:  # room for the legend
            free[0].legend(handles=handles, loc="center", frameon=False)
        else:
            figure.legend(handles=handles, loc="outside right upper", frameon=False)
        figure.supxlabel("Epoch")
        figure.supylabel("Accuracy (share of images)")
    return figure


def _curves_handles(rows: pd.DataFrame, colours: dict) -> list[Line2D]:
    handles = [
        Line2D([], [], color="0.6", lw=2, label="train images"),
        Line2D([], [], color="black", lw=2, label="test images"),
        Line2D([], [], color="0.3", ls="-", label="LFC of test images"),
        Line2D([], [], color="0.3", ls="--", label="HFC of test images"),
    ]
    shown = rows[rows["band"] != "x"]
    usual = shown[shown["radius"].isin(PAPER_RADII)]
    for radius, colour in colours.items():
        odd = shown[(shown["radius"] == radius)]
        # A radius that is recorded under another condition than the figure's says so; alone, it can't be told.
        differs = radius not in PAPER_RADII and (
            usual.empty or set(usual["feed"] + usual["bn_stats"]) != {"rawrunning"}
        )
        condition = f" ({odd['feed'].iloc[0]}, {odd['bn_stats'].iloc[0]})" if differs else ""
        handles.append(Line2D([], [], color=colour, lw=3, label=f"radius {radius}{condition}"))
    handles.append(Line2D([], [], color="0.3", lw=1, ls=":", label="chance (.10)"))
    return handles


def hfc_by_condition(final: pd.DataFrame) -> Figure:
    """HFC accuracy after training against the radius: measured as the authors did on the left, controlled on the right.

    Args:
        final: a table from `gather(runs, "final")`.
    Returns:
        A Figure; a colour and marker a heuristic, points are means over seeds, bars one sample standard deviation.
    """
    variants = [variant for variant in TITLES if variant in set(final["variant"])]
    colours = sns.color_palette("colorblind", len(variants))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.4), layout="constrained")
        for ax, (version, condition) in zip(figure.subplots(1, 2, sharey=True), CONDITIONS.items(), strict=True):
            rows = select(final, PAPER_RADII, *condition).query("band == 'hfc'")
            for variant, colour, marker in zip(variants, colours, "osD^v", strict=False):
                over_seeds = (
                    rows[rows["variant"] == variant].groupby("radius")["accuracy"].agg(["mean", "std"]).fillna(0)
                )
                ax.errorbar(
                    over_seeds.index,
                    over_seeds["mean"],
                    over_seeds["std"],
                    color=colour,
                    marker=marker,
                    ms=6,
                    capsize=3,
                    label=TITLES[variant],
                )
            ax.axhline(0.1, color="0.3", lw=1, ls=":", label="chance (.10)")
            ax.set(title=version.capitalize(), ylim=(0, 1), xticks=PAPER_RADII)
            ax.grid(alpha=0.3, lw=0.5)
        figure.supxlabel("Radius (DFT bins)")
        figure.supylabel("Accuracy on the HFC")
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


def batchnorm_story(effect: pd.DataFrame, seeds: int) -> Markdown:
    """What is left of BatchNorm's published advantage once feed and statistics are controlled, in words.

    Args:
        effect: from `batchnorm_effect`.
        seeds: number of seeds behind it.
    """
    cells = effect.set_index(["radius", "bn_stats", "feed"])
    lines = []
    for radius in dict.fromkeys(effect["radius"]):
        shown, left = cells.loc[(radius, "batch", "max")], cells.loc[(radius, "running", "mean")]
        paper = fig4_difference("batchnorm", f"H{radius}")
        what = f", {left.share_left:.0%} of it" if np.isfinite(left.share_left) else ""
        if np.isfinite(left.low) and left.low <= 0 <= left.high:  # a share of it would mean nothing
            what = ", an interval that holds 0"
        lines.append(
            f"- r = {radius}: {decimals(shown.difference)} under the authors' condition (paper: {decimals(paper, 2)}); "
            f"{with_interval(left.difference, left.low, left.high)} with running statistics and the mean colour added"
            f"{what}."
        )
    over = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    head = f"BatchNorm's HFC accuracy minus vanilla's, {over}:"
    return listed(head, lines)


class Fig4Parameters(SeveralSeeds):
    """The parameters of `notebooks/fig4.ipynb`."""

    radius: Radii = PAPER_RADII
    feed: FeedChoice = "mean"
    bn_stats: StatisticsChoice = "running"


FIG4 = Chapter(
    name="fig4",
    recipes=fig4_recipes,
    parameters=Fig4Parameters,
    optional=("adversarial",),
    claims=(*_fig4_claims(), *_adversarial_claims()),
    evidence=partial(gather, which="final"),
)
