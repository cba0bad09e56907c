"""Figures made of images, clipped or stretched for the eye only: each caption says which."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from hfclib.data import CLASSES
from hfclib.feeds import rescaled
from hfclib.frequency import split
from hfclib.plots import STYLE
from hfclib.tables import decimals

_TRUE, _TRUE_BAR, _OTHER_BAR = "#00745a", "#66c2a5", "0.75"  # the true class, as text and as a bar; any other


def _show(ax, image: Tensor, title: str = "") -> None:
    ax.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    if title:
        ax.set_title(title, fontsize=9)


def _bars(ax, confidence: Tensor, label: int, shown: int = 3) -> None:
    """The likeliest classes with their confidences, the true one in colour."""
    top = confidence.topk(shown)
    for place, (value, number) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        right = number == label
        ax.barh(place, value, color=_TRUE_BAR if right else _OTHER_BAR, height=0.8)
        ax.text(0.03, place, f"{CLASSES[number]} {decimals(value, 2)}", va="center", fontsize=7.5,
                color="black", fontweight="bold" if right else "normal")  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(shown - 0.5, -0.5), xticks=[], yticks=[])
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)


def fig2(labels: Sequence[int], indices: Sequence[int], parts: Mapping[str, Tensor],
         confidences: Mapping[str, Tensor], *, network: str = "") -> Figure:  # fmt: skip
    """A row an image: the image, its LFC and HFC as the network gets them, its confidences, and the HFC stretched.

    Args:
        labels: the K true classes.
        indices: the K numbers of the images in the test set.
        parts, confidences: from `misalignment.ask`; the eye sees the parts clipped to [0, 1].
        network: whose they are, for the heading.
    """
    titles = {"image": "Image", "LFC": "LFC, as fed", "HFC": "HFC, as fed"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.55 + 0.95 * len(indices)), layout="constrained")
        axes = figure.subplots(len(indices), 7, squeeze=False, width_ratios=[1, 1.15, 1, 1.15, 1, 1.15, 1])
        for row, line in enumerate(axes):
            first = row == 0
            for column, (name, title) in enumerate(titles.items()):
                _show(line[2 * column], parts[name][row], title if first else "")
                _bars(line[2 * column + 1], confidences[name][row], labels[row])
                if first:
                    line[2 * column + 1].set_title("confidence", fontsize=8, color="0.3")
            _show(line[6], rescaled(parts["HFC"][row : row + 1], "range")[0], "HFC, stretched" if first else "")
            line[0].set_ylabel(f"{CLASSES[labels[row]]}\n(no. {indices[row]})", fontsize=8)
        if network:
            figure.suptitle(f"Network: {network}", fontsize=10)
    return figure


def gallery(images: Tensor, labels: Sequence[int], indices: Sequence[int], radius: float,
            confidences: Mapping[str, Tensor], *, across: int = 4, network: str = "") -> Figure:  # fmt: skip
    """Misaligned images, each as image, LFC and stretched HFC, with the network's answer under each.

    Args:
        images: (N, 3, H, W) in [0, 1].
        labels, indices: as in `fig2`.
        radius: DFT bins.
        confidences: as in `fig2`.
        across: images a line.
        network: whose the answers are, for the heading.
    """
    lfc, hfc = split(images, radius)
    shown = {"image": images, "LFC": lfc, "HFC": rescaled(hfc, "range") if len(images) else hfc}
    down = max(1, -(-len(images) // across))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * across, 0.3 + 1.3 * down), layout="constrained")
        axes = figure.subplots(down, 4 * across, squeeze=False, width_ratios=[1, 1, 1, 0.25] * across)
        for ax in axes.flat:
            ax.set_axis_off()
        heads = [f"Network: {network}"] * bool(network) + ["No image is misaligned at this radius."] * (not len(images))
        if heads:
            figure.suptitle("\n".join(heads), fontsize=10)
        for number in range(len(images)):
            line, start = axes[number // across], 4 * (number % across)
            for column, (name, pictures) in enumerate(shown.items()):
                ax = line[start + column]
                ax.set_axis_on()
                value, answer = confidences[name][number].max(dim=0)
                right = int(answer) == labels[number]
                _show(ax, pictures[number])
                text = f"{CLASSES[answer]}\n{decimals(float(value), 2)}"
                ax.set_xlabel(text, fontsize=7, color=_TRUE if right else "black", labelpad=2)
                head = f"no. {indices[number]}" if column == 0 else name
                ax.set_title(head, fontsize=7, pad=2)
    return figure


def trained_on(images: Tensor, radii: Sequence[int], rescale: str) -> Figure:
    """What networks trained on one band are trained on: a row an image, a column a band and radius.

    Args:
        images: (N, 3, H, W) in [0, 1].
        radii: DFT bins.
        rescale: as in `feeds.rescaled`.
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
                _show(ax, pictures[row], title if row == 0 else "")
    return figure


def hypothesis(image: Tensor, radius: float) -> Figure:
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
        ax.text(8.2, 2.15, "label $y$\n“frog”", ha="center", va="center", fontsize=11,
                bbox={"boxstyle": "round,pad=0.5", "fc": "0.93", "ec": "0.4"})  # fmt: skip
        arrows = [
            ((1.45, 2.3), (2.55, 3.3), "0.3"), ((1.45, 2.1), (2.55, 1.1), "0.3"),
            ((3.95, 3.35), (5.2, 3.3), "#0173b2"), ((3.95, 3.1), (5.2, 1.2), "#b35900"),
            ((3.95, 1.0), (5.2, 0.95), "#b35900"), ((6.7, 3.2), (7.6, 2.6), "#0173b2"),
            ((7.6, 1.75), (6.7, 1.15), "#b35900"),
        ]  # fmt: skip
        for start, end, colour in arrows:
            ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=colour, lw=1.6))
        ax.text(7.35, 3.15, "gives", color="#0173b2", fontsize=9)
        ax.text(7.3, 1.15, "is trained on", color="#b35900", fontsize=9)
    return figure
