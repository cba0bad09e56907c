"""What a finished report says, in words and numbers, from its content alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hfclib.reporting.metric import READ, chance_p_value, counted

LEVEL = 0.05  # of the test whether a network is better than chance


@dataclass(frozen=True)
class Crossing:
    """Where the accuracy on the HFC falls to that on the LFC.

    Attributes:
        radius: in DFT bins, between measured radii on straight lines; None if the curves don't cross there.
        low, high: the radii between which the 95 % Wilson intervals of both overlap; None where that goes on beyond the
            measured radii.
        accuracy: of both at the crossing; None without one.
        lower_reads_more: without a crossing, whether the LFC is ahead at the smallest radius, and not the HFC.
        clear: without a crossing, whether the one that is ahead is so at all radii, and at the end where the other is
            nearest by more than their 95 % Wilson intervals.
    """

    radius: float | None
    low: float | None
    high: float | None
    accuracy: float | None
    lower_reads_more: bool
    clear: bool


def whole_row(content: dict) -> dict:
    """The row of whole images."""
    return content["parts"]["accuracy"][0]


def band_rows(content: dict, band: str) -> list[dict]:
    """The rows of "lfc", or of "hfc" with the mean colour, by radius; with running averages."""
    rows = content["parts"]["accuracy"]
    wanted = band, READ[band], "running"
    return sorted(
        (row for row in rows if (row["band"], row["feed"], row["bn_stats"]) == wanted), key=lambda row: row["radius"]
    )


def crossing(content: dict) -> Crossing:
    """The crossing of the two curves; see `Crossing`."""
    lows, highs = band_rows(content, "lfc"), band_rows(content, "hfc")
    radii = [row["radius"] for row in lows]
    pairs = list(zip(lows, highs, strict=True))

    def zero(lead: Callable[[dict, dict], float]) -> float | None:
        return _zero(radii, [lead(low, high) for low, high in pairs])

    radius = zero(lambda low, high: low["accuracy"] - high["accuracy"])
    first = zero(lambda low, high: low["high"] - high["low"])  # from there on the LFC may be ahead
    last = zero(lambda low, high: low["low"] - high["high"])  # from there on it is
    ahead = lows[0]["accuracy"] >= highs[0]["accuracy"]
    better, worse = (lows, highs) if ahead else (highs[::-1], lows[::-1])
    clear = better[0]["low"] > worse[0]["high"]
    clear &= all(one["accuracy"] >= other["accuracy"] for one, other in zip(better, worse, strict=True))
    accuracy = None
    if radius is not None:
        accuracy = float(np.interp(radius, radii, [row["accuracy"] for row in lows]))
    return Crossing(radius, first, last, accuracy, ahead, clear)


def _zero(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Where straight lines between points first come from below 0 to 0, or begin there; None if they don't."""
    # A tie at the first radius is no crossing where the curve goes below 0 from there.
    below = next((value for value in y if value != 0), 1) < 0
    if y[0] == 0 and not below:
        return x[0]
    for (a, before), (b, after) in pairwise(zip(x, y, strict=True)):
        if before < 0 <= after:
            return a + (b - a) * before / (before - after)
    return None


def nearest_radius(content: dict) -> float:
    """The measured radius nearest to the crossing, or at the end to which the curves point."""
    crossed, radii = crossing(content), content["key"]["settings"]["radii"]
    if crossed.radius is None:
        return radii[0] if crossed.lower_reads_more else radii[-1]
    return min(radii, key=lambda radius: abs(radius - crossed.radius))


def side_of(content: dict) -> int:
    """The shorter side of a report's images in pixels."""
    return min(content["key"]["settings"]["size"][1:])


def cut_words(radius: float, side: int) -> str:
    """A radius in words: in DFT bins, with its share of the Nyquist frequency of images of a side."""
    return f"radius {radius:.3g} ({radius / (side / 2):.0%} of Nyquist)"


def share_words(row: dict) -> str:
    """A share with its interval and number of images."""
    return f"{row['accuracy']:.1%} (95 % interval {row['low']:.1%} to {row['high']:.1%}, n = {row['images']:,})"


def is_unlabelled(content: dict) -> bool:
    """Whether images count as right where the network answers as for the whole of them."""
    return bool(content["key"]["settings"].get("unlabelled"))


def chance_level(content: dict) -> float:
    """The accuracy of always giving the most frequent class, 1 / classes at least; without labels, answer."""
    most = max(row["images"] for row in content["parts"]["classes"]) / whole_row(content)["images"]
    return most if is_unlabelled(content) else max(most, 1 / content["key"]["settings"]["classes"])


def chance_p(content: dict) -> float:
    """The p-value of the accuracy on whole images against chance, see `chance_p_value`."""
    whole = whole_row(content)
    return chance_p_value(whole["correct"], whole["images"], chance_level(content))


def is_guessing(content: dict) -> bool:
    """Whether the network is not better than chance on whole images: then nothing follows about what it reads."""
    return chance_p(content) > LEVEL


def reads(content: dict) -> str:
    """The sentence that says what the network reads, and up to which radius."""
    if is_guessing(content):
        if is_unlabelled(content):
            same = chance_level(content)
            return f"The network gives {same:.0%} of the whole images one answer: nothing follows about what it reads."
        test = f"one-sided binomial test, p = {chance_p(content):.2g}"
        return f"The network is not better than chance on whole images ({test}): nothing follows about what it reads."
    crossed, side = crossing(content), side_of(content)
    right = "it keeps its answer for" if is_unlabelled(content) else "it is right for"
    whole = "" if is_unlabelled(content) else f", and for {whole_row(content)['accuracy']:.0%} by whole images"
    if crossed.radius is None:
        radius = nearest_radius(content)
        low, high = (
            next(row["accuracy"] for row in band_rows(content, band) if row["radius"] == radius) for band in READ
        )
        by_each = f"cut at {cut_words(radius, side)}, {right} {low:.0%} by the low alone, for {high:.0%} by the high"
        if max(low, high) <= _above_chance(content):
            start = f"It needs low and high frequencies at once: {by_each}, indistinguishable from chance"
            return f"{start}{whole}.{_half_words(content)}"
        if not crossed.clear:
            return f"Whether it reads more of low or of high frequencies can't be told: {by_each}{whole}."
        if crossed.lower_reads_more:
            start = f"It reads low frequencies above all: already by those within {cut_words(radius, side)}"
            return f"{start} {right} {low:.0%}, by those beyond for {high:.0%}{whole}."
        start = f"It reads high frequencies above all: even by those beyond {cut_words(radius, side)}"
        return f"{start} {right} {high:.0%}, by those within for {low:.0%}{whole}."
    equal = f"Cut at {cut_words(crossed.radius, side)}, low and high frequencies are worth the same to it"
    if crossed.accuracy is not None and crossed.accuracy <= _above_chance(content):
        alone = f"{right} {crossed.accuracy:.0%} by either alone, indistinguishable from chance"
        return f"It needs low and high frequencies at once. {equal}: {alone}{whole}.{_half_words(content)}"
    return f"{equal}: {right} about {crossed.accuracy:.0%} by either alone{whole}."


def half_radius(content: dict) -> float | None:
    """The radius at which the LFC reaches half the accuracy on whole images; None if that is beyond those measured."""
    rows, half = band_rows(content, "lfc"), whole_row(content)["accuracy"] / 2
    return _zero([row["radius"] for row in rows], [row["accuracy"] - half for row in rows])


def _half_words(content: dict) -> str:
    radius = half_radius(content)
    if radius is None:
        return ""
    half = "Half of its answers are" if is_unlabelled(content) else "Half of its accuracy is"
    return f" {half} back with all frequencies within {cut_words(radius, side_of(content))}."


def _above_chance(content: dict) -> float:
    """The least accuracy whose 95 % interval is above chance."""
    images, chance = whole_row(content)["images"], chance_level(content)
    correct = next((k for k in range(images + 1) if counted(k, images)["low"] > chance), images)
    return correct / images


def crossing_words(content: dict) -> str:
    """The one number with its interval: the radius of the crossing, or on which side of the measured ones it lies."""
    crossed, radii = crossing(content), content["key"]["settings"]["radii"]
    low = f"{crossed.low:.3g}" if crossed.low is not None else f"below {radii[0]:g}"
    high = f"{crossed.high:.3g}" if crossed.high is not None else f"beyond {radii[-1]:g}"
    side = f"below {radii[0]:g}" if crossed.lower_reads_more else f"beyond {radii[-1]:g}"
    if crossed.radius is None and crossed.clear:
        return side
    number = side if crossed.radius is None else f"{crossed.radius:.3g}"
    return f"{number} (95 % interval {low} to {high})"


def robust(content: dict) -> str | None:
    """The line on robustness; None if the attack was not measured."""
    settings, rows = content["key"]["settings"], content["parts"].get("energy")
    if not rows or is_guessing(content):
        return None
    row = rows[len(rows) // 2]
    left = counted(row["robust_correct"], settings["first_images"])
    attack = f"PGD (L2, eps {settings['eps']:.3g}, {settings['steps']} steps)"
    kept = "keeps its answer for" if is_unlabelled(content) else "stays right for"
    return f"Under {attack} it {kept} {share_words(left)}."


def energy_words(content: dict) -> str | None:
    """Where the attack puts its energy, at the middle radius."""
    rows = content["parts"].get("energy")
    if not rows:
        return None
    row = rows[len(rows) // 2]
    beyond = f"lies at or beyond {cut_words(row['radius'], side_of(content))}"
    return (
        f"Of that perturbation's energy, {row['share']:.0%} {beyond}; white noise would have {row['bins']:.0%} there."
    )


def worst_frequency(content: dict) -> str | None:
    """The largest error of the heat map, with an interval that allows for its being the largest of many."""
    rows = content["parts"].get("heat_map")
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["error"])
    wrong = counted(worst["images"] - worst["correct"], worst["images"], intervals=len(rows))
    place = f"({worst['row']}, {worst['column']}) cycles per image"
    interval = f"{wrong['low']:.1%} to {wrong['high']:.1%}"
    return (
        f"Noise along one frequency harms most at {place}: the error is then {wrong['accuracy']:.1%} "
        f"(95 % interval {interval}, for all {len(rows)} frequencies at once)."
    )


def phase_words(content: dict) -> str | None:
    """Whether predictions follow phases or amplitudes."""
    follows = {row["follows"]: share_words(row) for row in content["parts"].get("phase", ())}
    if not follows:
        return None
    text = "Given the phases of one image and the amplitudes of one of another class, it follows the phases for"
    return f"{text} {follows['phase']}, the amplitudes for {follows['amplitude']}."


def accuracy_words(content: dict) -> str:
    """The accuracy on whole images, or without labels what stands in its place."""
    if is_unlabelled(content):
        answers = {row["class"] for row in content["parts"]["classes"]}
        counts = f"The {whole_row(content)['images']:,} images have no labels: each counts where the network answers as"
        always = f"always giving the most frequent would agree for {chance_level(content):.1%}"
        return f"{counts} for the whole image. It gives {len(answers)} different answers; {always}."
    chance = chance_level(content)
    even = chance <= 1 / content["key"]["settings"]["classes"]
    always = "guessing" if even else "always answering the most frequent class"
    return f"On whole images the network is right for {share_words(whole_row(content))}; {always} gives {chance:.1%}."


def summary(content: dict) -> str:
    """One paragraph in plain words on what the network reads; nothing of it if the network is not above chance."""
    said: list[str | None] = [reads(content), accuracy_words(content)]
    if not is_guessing(content):
        said.append(f"The curves cross at radius {crossing_words(content)}.")
        said += [robust(content), energy_words(content), worst_frequency(content), phase_words(content)]
    return " ".join(sentence for sentence in said if sentence)


def hanging_classes(content: dict) -> list[dict]:
    """The classes that read more of the HFC than of the LFC at `nearest_radius`, the largest difference first.

    Returns:
        The rows of the part "classes" there, with the shares whole, lfc and hfc, and the difference hfc - lfc.
    """
    radius = nearest_radius(content)
    rows = [
        row
        | {name: row[name] / row["images"] for name in ("whole", "lfc", "hfc")}
        | {"difference": (row["hfc"] - row["lfc"]) / row["images"]}
        for row in content["parts"]["classes"]
        if row["radius"] == radius
    ]
    return sorted(rows, key=lambda row: -row["difference"])


def class_name(content: dict, number: int) -> str:
    """The name of a class, or "class 3"."""
    return content.get("classes", {}).get(str(number)) or f"class {number}"
