"""Does what the paper finds on CIFAR-10 hold for other data, and does the LFC accuracy reveal a planted signal?

The paper's networks on two more data sets; and networks on CIFAR-10 whose training and test images carry a pattern per
class that is too faint to see and has no low frequency.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from pydantic import Field

from hfclib.batching import logits
from hfclib.conditions import PAPER_RADII
from hfclib.data import DATA_SETS, to_float
from hfclib.frequency import split
from hfclib.paper.bands import band_results, fig1_recipes
from hfclib.paper.chapter import Chapter
from hfclib.paper.claims import evaluate
from hfclib.paper.intervals import Estimate
from hfclib.paper.measurements import MEASUREMENT_COLUMNS, initial_draw
from hfclib.paper.misalignment import counts_over_seeds, predicted_images, stored_predictions
from hfclib.paper.parameters import SeveralSeeds, whole
from hfclib.paper.presets import TITLES, Preset, base_recipe, fig4_recipes
from hfclib.paper.show import listed
from hfclib.paper.style import CHART, STYLE, VARIANT_COLOURS, WIDTH, mean_line, network_looks, show_image
from hfclib.paper.tables import (
    AUTHORS,
    CHANCE,
    CONDITIONS,
    NAMED_CONDITIONS,
    Version,
    by_seed,
    cell_names,
    cells_of_shares,
    decimals,
    estimate_cell,
    gather,
    mean_cell,
    mean_sd,
    select,
    table_cells,
)
from hfclib.paper.verdicts import MARGIN
from hfclib.runs.collect import Runs
from hfclib.training.planted import PLANTED_RADIUS, planted
from hfclib.training.recipe import RADII, Recipe
from hfclib.transforms import feed_images

SETS = {"cifar10": "cifar10", "mnist": "mnist", "fashion": "fashion-mnist"}  # short names, and `Recipe.data`
_BANDS = {f"{band}{radius}max": f"{band.upper()}, r = {radius}" for band in ("lfc", "hfc") for radius in (4, 8)}
AMPLITUDE = 2 / 255
SIGNAL_NETWORKS = {"batchnorm": "with BatchNorm", "vanilla": "without BatchNorm"}


def datasets_recipes(preset: Preset = "laptop") -> dict[str, Recipe]:
    """The networks of Fig. 4 and Table 1 on other data, and networks with a planted signal.

    - vanilla, dropout, mixup, batchnorm, adversarial as in Fig. 4, and lfc4max, lfc8max, hfc4max, hfc8max as in
      Table 1, each band divided by its maximum: on CIFAR-10.
    - The same with mnist- and fashion- in front: on MNIST and Fashion-MNIST, with no crop and no flip, which would make
      other digits; at "laptop" 4 epochs of 60,000 images.
    - planted-vanilla, planted-batchnorm: vanilla and batchnorm with a pattern per class (`planted`) of amplitude 2/255
      in the training and test images of CIFAR-10.

    "smoke" has a part of them: vanilla, batchnorm, lfc8max, hfc8max and those with a signal.

    Source: paper, section 5.2, Fig. 5, and section 4.1, Table 1; the blog's remark that HFC may be specific to one data
    set. The planted signal is ours.
    """
    base = base_recipe(preset)
    changes = {"augment": False, "train_images": base.train_images if preset == "smoke" else 60_000}
    changes |= {"epochs": 4} if preset == "laptop" else {}
    by_band = fig1_recipes(preset)
    bands = {
        name: replace(by_band[f"hfc{name[3]}max"], name=f"{base.name}-{name}", train_band=name[:3]) for name in _BANDS
    }
    plain = fig4_recipes(preset) | bands
    if preset == "smoke":
        plain = {name: plain[name] for name in ("vanilla", "batchnorm", "lfc8max", "hfc8max")}
    variants = dict(plain)
    for word, data in list(SETS.items())[1:]:
        for name, recipe in plain.items():
            variant = f"{word}-{name}"
            variants[variant] = replace(recipe, name=f"{base.name}-{variant}", data=data, **changes)
    for name in SIGNAL_NETWORKS:
        variant = f"planted-{name}"
        variants[variant] = replace(plain[name], name=f"{base.name}-{variant}", planted=AMPLITUDE)
    return variants


# ---- the table


# Data and network of each variant.
PLACES = {
    (network if data == "cifar10" else f"{data}-{network}"): (data, network)
    for data in (*SETS, "planted")
    for network in (*TITLES, *_BANDS)
}


def datasets_table(runs: Runs) -> pd.DataFrame:
    """The chapter's table: what runs record after training, and how many of their test images are misaligned.

    Args:
        runs: by variant, at least one.
    Returns:
        The rows of `gather(runs, "final")` with a column `data`: "cifar10", "mnist", "fashion" or "planted"; variants
        without that word in front. The measure "misaligned" is the share of misaligned test images, both bands fed raw,
        with running statistics, where predictions are stored.
    """
    found = pd.concat([gather(runs, "final"), *_misaligned(runs)], ignore_index=True)
    data, network = zip(*found["variant"].map(PLACES), strict=True)
    return found.assign(data=data, variant=network)


def _misaligned(runs: Runs) -> Iterator[pd.DataFrame]:
    for data in DATA_SETS:
        own = Runs({variant: ones for variant, ones in runs.items() if ones and ones[0].recipe.data == data})
        found = stored_predictions(own)
        labels = DATA_SETS[data].embedded("test")[1]
        counts = counts_over_seeds(found, labels[: predicted_images(found)])
        if len(counts):
            rows = counts.query("cut == 'fourier' and feed == 'raw' and bn_stats == 'running'")
            draws = {variant: initial_draw(ones[0].recipe) for variant, ones in own.items()}
            rows = rows.assign(split="test", measure="misaligned", draw=rows["variant"].map(draws), attack="none")
            rows = rows.assign(value=rows["misaligned"] / rows["images"]).rename(columns={"images": "n"})
            yield rows.reindex(columns=MEASUREMENT_COLUMNS).astype({"radius": "Int64", "epoch": "Int64"})


# ---- claims: written before any network on MNIST or Fashion-MNIST, or with a planted signal, was trained

GIVEN_AWAY = MARGIN  # by how much the gap between test and LFC accuracy must exceed that of the network without signal
REPORTED, HOLDING = 12, 20  # radii whose LFC lacks the signal and holds it; the paper names no radius to report


def title_of(data: str) -> str:
    """The title of a data set by its short name."""
    return DATA_SETS[SETS[data]].title


def _of(found: pd.DataFrame, data: str) -> pd.DataFrame:
    return found[found["data"] == data]


def _batchnorm_gain(found: pd.DataFrame, *, data: str, version: Version) -> Estimate:
    gains = (f"{data}_batchnorm.{measure} - {data}_vanilla.{measure}" for measure in ("H4", "H8"))
    named = next(name for name, condition in NAMED_CONDITIONS.items() if condition == CONDITIONS[version])
    return evaluate(f"mean({', '.join(gains)})", _cells(found), named)


def accuracy_by_seed(found: pd.DataFrame, data: str, variant: str, cell: str) -> pd.Series:
    """A network's accuracies by seed, bands fed raw or with the mean colour, with running statistics; maybe none.

    Args:
        found: from `datasets_table`.
        cell: as in `select`.
    """
    rows = select(found[(found["data"] == data) & (found["variant"] == variant)], RADII, *CONDITIONS["controlled"])
    return by_seed(rows, "cell").reindex(columns=[cell])[cell].dropna()


def gap_by_signal(found: pd.DataFrame, variant: str, radius: int) -> pd.Series:
    """By how much the signal widens the gap between test and LFC accuracy, by seed: that with it less that without."""
    gaps = {
        data: accuracy_by_seed(found, data, variant, "test") - accuracy_by_seed(found, data, variant, f"L{radius}")
        for data in ("planted", "cifar10")
    }
    return gaps["planted"] - gaps["cifar10"]


def _widened(found: pd.DataFrame, *, variant: str, radius: int) -> Estimate:
    """As `gap_by_signal`, with its interval."""
    gaps = (f"({data}_{variant}.test - {data}_{variant}.L{radius})" for data in ("planted", "cifar10"))
    return evaluate(" - ".join(gaps), _cells(found), "controlled")


def _cells(found: pd.DataFrame) -> pd.DataFrame:
    """The cells of the claims, of networks such as "mnist_vanilla": those of `table_cells`, and "misaligned8"."""
    found = found.assign(variant=found["data"] + "_" + found["variant"])
    misaligned = found[found["measure"] == "misaligned"]
    misaligned = cells_of_shares(misaligned.assign(measure=cell_names(misaligned), measured=""))
    cells = pd.concat([table_cells(found), misaligned], ignore_index=True)
    data = cells["data"].replace({"planted": "cifar10"})  # the same images
    return cells.assign(sample=data + " " + cells["split"])


def _cell_variants(preset: Preset) -> list[str]:
    names = datasets_recipes(preset)
    return [name.replace("-", "_") if "-" in name else f"cifar10_{name}" for name in names]


# ---- what the notebook shows

_MISSING = "not stored"


_estimate, _mean = partial(estimate_cell, without=_MISSING), partial(mean_cell, without=_MISSING)


def datasets_answer(found: pd.DataFrame) -> Markdown:
    """What the chapter finds, in sentences, from the networks that are stored."""
    lines = []
    for data in SETS:
        if _of(found, data).empty:
            lines.append(f"- {title_of(data)}: {_MISSING}.")
            continue
        gains = [_estimate(_batchnorm_gain, found, data=data, version=version) for version in CONDITIONS]
        measured = f"by {gains[0]} as the authors measure it, by {gains[1]} in the controlled way"
        lines.append(
            f"- {title_of(data)}: BatchNorm is ahead of vanilla training on the HFC at r = 4 and 8 {measured}."
            if _MISSING not in gains
            else f"- {title_of(data)}: vanilla training and BatchNorm are {_MISSING}."
        )
        trained = {radius: accuracy_by_seed(found, data, f"hfc{radius}max", "test") for radius in (4, 8)}
        if right := [f"{_mean(values)} (r = {radius})" for radius, values in trained.items() if len(values)]:
            lines[-1] += f" Networks trained on the HFC are right on {' and '.join(right)} of the original test images."
    for variant, title in SIGNAL_NETWORKS.items():
        test, clean, low = (
            accuracy_by_seed(found, "planted", variant, one) for one in ("test", "clean", f"L{REPORTED}")
        )
        if test.empty:
            lines.append(f"- Planted signal, {title}: {_MISSING}.")
            continue
        plain = accuracy_by_seed(found, "cifar10", variant, "test")
        lines.append(
            f"- Planted signal, {title}: test accuracy {_mean(test)}, on clean images {_mean(clean)} (trained without "
            f"the signal: {_mean(plain)}), on the LFC at r = {REPORTED} {_mean(low)}."
        )
        if len(wider := gap_by_signal(found, variant, REPORTED).dropna()):
            bound, radius = decimals(GIVEN_AWAY, 2), hidden_from(found, variant)
            seen = f"by {bound} or more still at r = {RADII[-1]}"
            hidden = f"by less than {bound} from r = {radius} on" if radius else seen
            lines[-1] += (
                f" The signal widens the gap between test and LFC accuracy there by {decimals(wider.mean())}, "
                f"and {hidden}."
            )
    return listed("From the networks of these seeds that are stored:", lines)


def hidden_from(found: pd.DataFrame, variant: str) -> int | None:
    """The smallest radius from which on the signal widens the gap to the LFC accuracy by less than `GIVEN_AWAY`.

    Means over seeds; None where it is not so at the largest radius.
    """
    wider = [radius for radius in RADII if not gap_by_signal(found, variant, radius).mean() < GIVEN_AWAY]
    after = max(wider, default=0) + 1
    return after if after in RADII else None


def examples_of_bands(radius: int) -> Figure:
    """The first two test images of each set, their LFC and their HFC with the mean colour, at a radius in DFT bins."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        rows = figure.subplots(3, 6)
        for line, data in zip(rows, SETS, strict=True):
            images = to_float(DATA_SETS[SETS[data]].embedded("test")[0][:2])
            low, high = split(images, radius)
            fed = images, low, feed_images(high, "mean", add_mean=True, colour=DATA_SETS[SETS[data]].mean)
            for place, (index, (title, parts)) in enumerate(
                (index, one) for index in range(2) for one in zip(("image", "LFC", "HFC"), fed, strict=True)
            ):
                show_image(line[place], parts[index].expand(3, -1, -1), title if data == "cifar10" else "")
            line[0].set_ylabel(title_of(data), fontsize=12)
    return figure


def heuristics_rows(found: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of the networks of Fig. 4 on all three sets, under both of `CONDITIONS` (column "version")."""
    rows = found[found["data"].isin(list(SETS)) & found["variant"].isin(list(TITLES))]
    parts = [select(rows, PAPER_RADII, *condition).assign(version=one) for one, condition in CONDITIONS.items()]
    return pd.concat(parts, ignore_index=True)


def heuristics_figure(rows: pd.DataFrame) -> Figure:
    """HFC accuracy against the radius, one column per data set, one line of panels per condition.

    Args:
        rows: from `heuristics_rows`.
    Returns:
        A Figure; points are means over seeds, bars one sample standard deviation. A network that is not stored is
        named in its panel; a data set without any has none.
    """
    looks, drawn = network_looks(TITLES), [data for data in SETS if data in set(rows["data"])]
    with mpl.rc_context(CHART):
        figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        panels = figure.subplots(2, len(drawn), sharex=True, sharey=True, squeeze=False)
        for line, version in zip(panels, CONDITIONS, strict=True):
            for ax, data in zip(line, drawn, strict=True):
                own = rows[(rows["version"] == version) & (rows["data"] == data) & (rows["band"] == "hfc")]
                for variant, look in looks.items():
                    if (one := own[own["variant"] == variant]).size:
                        mean_line(ax, one, look, TITLES[variant])
                absent = [title for variant, title in TITLES.items() if variant not in set(own["variant"])]
                if absent:
                    said = "\n".join(["not stored:", *absent])
                    ax.text(0.98, 0.97, said, ha="right", va="top", fontsize=12, transform=ax.transAxes)
                ax.axhline(CHANCE, color="0.3", lw=1, ls=":", label="chance (.10)")
                ax.set(ylim=(0, 1), xticks=PAPER_RADII)
            line[0].set_ylabel(version)
        for ax, data in zip(panels[0], drawn, strict=True):
            ax.set_title(title_of(data))
        for ax in panels[1]:
            ax.set_xlabel("Radius (DFT bins)")
        figure.supylabel("Accuracy on the HFC", fontsize=12)
        by_label = {}
        for ax in panels.flat:  # a network may be in some panels only
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                by_label.setdefault(label, handle)
        figure.legend(by_label.values(), by_label, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _by_network(rows: pd.DataFrame, columns: str, cell: Callable[[pd.Series], str]) -> pd.DataFrame:
    """One row per data set and network with rows, cells made of its accuracies; one row that says so without any."""
    names = TITLES | _BANDS
    rows = rows[rows["data"].isin(list(SETS)) & rows["variant"].isin(list(names))]
    if rows.empty:
        return pd.DataFrame({"data": [_MISSING]}).set_index("data")
    rows = rows.assign(data=rows["data"].map(title_of), network=rows["variant"].map(names))
    table = rows.pivot_table("value", ["data", "network"], columns, aggfunc=cell, sort=False)
    return table.fillna("\u2013").rename_axis(columns=None)


def heuristics_table(found: pd.DataFrame) -> pd.DataFrame:
    """Accuracies measured as the authors did, one row per data set and network that is stored; text, mean ± sd."""
    rows = heuristics_rows(found)
    rows = rows[rows["version"] == AUTHORS]
    hfc_first = rows.sort_values("band", key=lambda band: band == "lfc", kind="stable")
    return _by_network(hfc_first, "cell", mean_sd)


def misaligned_counts(found: pd.DataFrame, radius: int) -> pd.DataFrame:
    """Misaligned test images of 10,000, bands fed raw, running statistics: text, means over seeds.

    One row per data set and network whose predictions are stored.

    Args:
        found: from `datasets_table`.
        radius: DFT bins, shown beside 4, 8, 12, 16.
    """
    rows = found[(found["measure"] == "misaligned") & found["radius"].isin([*PAPER_RADII, radius])]
    rows = rows.assign(at="r = " + rows["radius"].astype(str))
    return _by_network(rows, "at", lambda shares: f"{10_000 * shares.mean():.0f}")


def trained_on_bands(found: pd.DataFrame) -> pd.DataFrame:
    """Table 1 on three data sets: networks trained on a band, each divided by its maximum; text, mean ± sd.

    One row per data set and network that is stored; columns training images, original test images, same band of test
    images.
    """
    own = found[found["variant"].isin(list(_BANDS))]
    results = pd.concat([band_results(_of(own, data)) for data in SETS])
    return _by_network(results, "tested on", mean_sd).rename_axis(index={"network": "trained on"})


def signal_figure() -> Figure:
    """A test image without and with the signal, the signal alone magnified, and where in the spectrum it lies."""
    images, labels = (part[:1] for part in DATA_SETS["cifar10"].embedded("test"))
    clean, with_signal = to_float(images), planted(images, labels, AMPLITUDE)
    signal = with_signal - clean
    strength = torch.fft.fftshift(torch.fft.fft2(signal[0]).abs().mean(dim=0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        first, second, third, last = figure.subplots(1, 4)
        show_image(first, clean[0], "image")
        show_image(second, with_signal[0], "with the signal")
        show_image(third, 0.5 + signal[0] / (2 * AMPLITUDE), "signal, magnified")
        last.imshow(strength.numpy(), cmap="Greys", extent=(-16.5, 15.5, 15.5, -16.5), interpolation="nearest")
        last.add_patch(mpl.patches.Circle((0, 0), PLANTED_RADIUS, fill=False, color=VARIANT_COLOURS["batchnorm"], lw=2))
        last.set_title(f"its spectrum, and r = {PLANTED_RADIUS}", fontsize=12)
        last.set(xticks=[-16, 0, 15], yticks=[-16, 0, 15], xlabel="DFT bins")
    return figure


def planted_rows(found: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of `SIGNAL_NETWORKS` with and without the signal on the LFC at every radius, and on whole images.

    Returns:
        Columns data ("planted", "cifar10"), variant, seed, cell ("test", "clean", "L1" to "L22"), radius, value.
    """
    asked = found["data"].isin(["planted", "cifar10"]) & found["variant"].isin(list(SIGNAL_NETWORKS))
    rows = select(found[asked], RADII, *CONDITIONS["controlled"]).query("band in ('lfc', 'x') and split != 'train'")
    return rows[["data", "variant", "seed", "cell", "radius", "value"]]


def planted_figure(rows: pd.DataFrame) -> Figure:
    """Accuracy on the LFC against its radius, with and without the signal, one panel per network.

    Args:
        rows: from `planted_rows`.
    Returns:
        A Figure; lines are means over seeds, shades from the lowest to the highest seed. Horizontal lines: accuracy on
        whole test images; dotted, on clean ones.
    """
    with mpl.rc_context(CHART):
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, (variant, title) in zip(axes, SIGNAL_NETWORKS.items(), strict=True):
            for data, colour, name in (
                ("planted", VARIANT_COLOURS[variant], "with the signal"),
                ("cifar10", "0.5", "without"),
            ):
                own = rows[(rows["data"] == data) & (rows["variant"] == variant)]
                low = own[own["radius"].notna()].groupby("radius")["value"]
                if own.empty:
                    ax.text(0.03, 0.94, f"{name}:\nnot stored", va="top", transform=ax.transAxes)
                    continue
                ax.plot(low.mean(), color=colour, lw=2, label=f"LFC, {name}")
                ax.fill_between(low.mean().index, low.min(), low.max(), color=colour, alpha=0.2, lw=0)
                for cell, style, what in (("test", "--", "test images"), ("clean", ":", "clean test images")):
                    level = own.loc[own["cell"] == cell, "value"].mean()
                    if not np.isnan(level):
                        ax.axhline(level, color=colour, ls=style, label=f"{what}, {name}")
            ax.axvline(PLANTED_RADIUS, color="0.3", lw=1, ls="-.", label="signal beyond")
            ax.set(title=title[0].upper() + title[1:], ylim=(0, 1.02), xlabel="Radius of the LFC (DFT bins)")
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
        axes[0].set_ylabel("Accuracy")
    return figure


def planted_table(found: pd.DataFrame) -> pd.DataFrame:
    """What a report would show of networks with and without the signal.

    Returns:
        One row per network and measure; accuracy with and without the signal as mean ± sd, and by how much the signal
        widens the gap to the test accuracy, with its 95 % interval over seeds; text.
    """
    rows = {}
    for variant, title in SIGNAL_NETWORKS.items():
        radii = {f"L{radius}": radius for radius in (4, 8, 12, 14, 16, 18, 20, 22)}
        for cell in ("test", "clean", *radii):
            cells = {
                name: _mean(accuracy_by_seed(found, data, variant, cell))
                for data, name in (("planted", "with the signal"), ("cifar10", "without"))
            }
            wider = partial(_estimate, _widened, found, variant=variant)
            cells["gap to test wider by"] = wider(radius=radii[cell]) if cell in radii else ""
            if cell == "clean":
                cells["without"] = ""
            rows[title, cell] = cells
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "accuracy on"])


def swapped(runs: Runs, count: int = 500) -> pd.DataFrame:
    """What a network with the signal predicts when the signal is taken away, or is that of another class.

    Args:
        runs: the chapter's; the first seed of each network with the signal is asked.
        count: the first so many test images.
    Returns:
        One row per network and signal; the share of images predicted as their own class, and as the signal's; text.
    """
    images, labels = (part[:count] for part in DATA_SETS["cifar10"].embedded("test"))
    other = (labels + 1) % 10
    rows = {}
    for variant, title in SIGNAL_NETWORKS.items():
        for run in runs.get(f"planted-{variant}", [])[:1]:
            for signal, classes, fed in (
                ("its own", labels, planted(images, labels, AMPLITUDE)),
                ("none", labels, to_float(images)),
                ("that of the next class", other, planted(images, other, AMPLITUDE)),
            ):
                predicted = logits(run.model(), fed).argmax(dim=1)
                own, signals = ((predicted == one).float().mean().item() for one in (labels, classes))
                cell = decimals(signals, 2) if signal == "that of the next class" else "\u2013"
                rows[title, signal] = {"own class": decimals(own, 2), "the signal's class": cell}
    columns = ["own class", "the signal's class"]
    if not rows:
        rows = {(_MISSING, "\u2013"): dict.fromkeys(columns, "\u2013")}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(["network", "signal"])


# ---- the chapter


class DatasetsParameters(SeveralSeeds):
    """The parameters of `notebooks/datasets.ipynb`."""

    radius: whole(1, DATA_SETS["mnist"].radii[-1], "a whole number of DFT bins") = Field(
        8, title="where example images are cut and misaligned ones are counted"
    )


DATASETS = Chapter(
    name="datasets",
    question="Is the HFC specific to one data set, and does the LFC accuracy reveal a planted signal?",
    topic="data sets",
    paper="conclusion",
    blog="conclusion",
    figures={
        "datasets-heuristics": "training",
        "datasets-planted": "training",
        "datasets-bands": "images",
        "datasets-signal": "images",
    },
    recipes=datasets_recipes,
    parameters=DatasetsParameters,
    required=("vanilla", "batchnorm"),
    needs_weights=("batchnorm",),
    evidence=datasets_table,
    cells=_cells,
    measures=r"test|clean|[LH]\d+|misaligned\d+",
    cell_variants=_cell_variants,
)
