"""hfclib.reporting.answer: what a report says, from contents that are made by hand."""

import math
import re

import numpy as np
import pytest
from scipy.stats import binomtest

from hfclib.reporting import answer
from hfclib.reporting.metric import counted


def row(band, radius, correct, images):
    feed = "mean" if band == "hfc" else "raw"
    return {"band": band, "radius": radius, "feed": feed, "bn_stats": "running", **counted(correct, images)}


def content(low, high, *, whole=900, images=1000, radii=(4, 8, 12), **parts):
    """A report's content, with so many correct images on whole images and by LFC and HFC at each radius."""
    rows = [row("x", 0, whole, images)]
    for band, correct in (("hfc", high), ("lfc", low)):
        rows += [row(band, radius, right, images) for radius, right in zip(radii, correct, strict=True)]
    settings = {"name": "net", "radii": list(radii), "size": [3, 32, 32], "classes": 10, "eps": 0.5, "steps": 10}
    settings |= {"first_images": 200, "colour": [0.5] * 3, "norm": 4}
    parts = {"classes": [{"class": number, "radius": 8, "images": images / 10} for number in range(10)]} | parts
    return {"key": {"settings": settings}, "parts": {"accuracy": rows, **parts}}


def test_the_crossing_lies_on_straight_lines_between_measured_radii():
    crossed = answer.crossing(content([200, 400, 600], [800, 500, 200]))
    assert crossed.radius == pytest.approx(8.8)
    assert crossed.accuracy == pytest.approx(0.44)
    assert 8 < crossed.low < 8.8 < crossed.high < 12
    wider = answer.crossing(content([20, 40, 60], [80, 50, 20], whole=90, images=100))
    assert wider.radius == pytest.approx(8.8)
    assert wider.low < crossed.low < crossed.high < wider.high
    assert answer.nearest_radius(content([200, 400, 600], [800, 500, 200])) == 8
    assert answer.crossing(content([300, 400, 600], [300, 200, 100])).radius == 4
    left_again = answer.crossing(content([300, 300, 600], [300, 400, 500]))  # level at r = 4, behind at 8, ahead at 12
    assert left_again.radius == pytest.approx(10)


def test_the_interval_of_the_crossing_holds_the_true_one():
    generator, held = np.random.default_rng(0), 0
    for _ in range(300):
        low, high = (generator.binomial(200, shares) for shares in ([0.2, 0.4, 0.6], [0.8, 0.5, 0.2]))
        crossed = answer.crossing(content(low.tolist(), high.tolist(), whole=180, images=200))
        held += (crossed.low or -math.inf) <= 8.8 <= (crossed.high or math.inf)
    assert held / 300 >= 0.95


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ([200, 400, 600], [800, 500, 200], r"^Cut at radius 8.8 \(55% of Nyquist\), .* right for about 44% by either"),
        (
            [600, 700, 800],
            [500, 300, 200],
            r"^It reads low frequencies above all: already by those within radius 4 .25",
        ),
        ([100, 200, 300], [800, 700, 600], r"^It reads high frequencies above all: even by those beyond radius 12 .75"),
        (
            [90, 100, 600],
            [500, 101, 90],
            r"^It needs low and high .*10% by either alone, indistinguishable from chance",
        ),
        (
            [110, 500, 600],
            [100, 90, 100],
            r"^It needs low and high frequencies at once: cut at radius 4 .* 11% by the low alone, for 10% by",
        ),
        (
            [510, 600, 800],
            [500, 400, 200],
            r"^Whether it reads more .* can't be told: cut at radius 4 .* 51% by the low",
        ),
        ([600, 400, 400], [500, 600, 700], r"^Whether it reads more of low or of high frequencies can't be told: cut"),
    ],
)
def test_what_is_read_is_one_sentence(low, high, said):
    text = answer.reads(content(low, high))
    assert re.search(said, text), text
    assert ", and for 90% by whole images." in text
    assert ("Half of its accuracy is back with all frequencies within radius 10.8 (68% of Nyquist)" in text) is (
        low[1] == 100 and high[1] == 101
    )


def test_of_one_radius_as_of_several_only_what_is_clearly_ahead_is_read_above_all():
    for low, said in ((51, "can't be told"), (80, "It reads low frequencies above all")):
        assert said in answer.reads(content([low], [50], whole=90, images=100, radii=[8]))


def test_chance_is_what_always_giving_the_most_frequent_class_gives():
    classes = [{"class": number, "radius": 8, "images": images} for number, images in ((0, 900), (1, 100))]
    made = content([900, 900, 900], [900, 890, 900], whole=900, classes=classes)
    assert answer.is_guessing(made)
    assert answer.accuracy_words(made).endswith("; always answering the most frequent class gives 90.0%.")
    made = content([900, 900, 900], [900, 890, 900], whole=970, classes=classes)
    assert "needs low and high frequencies at once" in answer.reads(made)


def test_without_a_crossing_the_number_says_on_which_side_it_lies():
    assert answer.crossing_words(content([600, 700, 800], [500, 300, 200])) == "below 4"
    assert answer.crossing_words(content([100, 200, 300], [800, 700, 600])) == "beyond 12"
    unclear = answer.crossing_words(content([510, 600, 800], [500, 400, 200]))
    assert re.fullmatch(r"below 4 \(95 % interval below 4 to [45]\.\d+\)", unclear), unclear
    assert answer.crossing_words(content([499, 500, 600], [500, 499, 200])).startswith("6 (95 % interval below 4 to ")


def test_the_worst_frequency_has_an_interval_for_all_frequencies_at_once():
    cells = [
        {"row": 0, "column": place, "error": 1 - right / 200, **counted(right, 200)}
        for place, right in enumerate([150, 80, 120, 199])
    ]
    text = answer.worst_frequency(content([200, 400, 600], [800, 500, 200], heat_map=cells))
    expected = binomtest(120, 200).proportion_ci(1 - 0.05 / 4, method="wilson")
    interval = f"95 % interval {expected.low:.1%} to {expected.high:.1%}, for all 4 frequencies at once"
    assert f"(0, 1) cycles per image: the error is then 60.0% ({interval})." in text


def test_robustness_is_one_line_and_left_out_where_it_was_not_measured():
    rows = [{"radius": radius, "share": 0.5, "bins": 0.7, "robust_correct": 30} for radius in (4, 8, 12)]
    made = content([200, 400, 600], [800, 500, 200], energy=rows)
    interval = binomtest(30, 200).proportion_ci(method="wilson")
    said = f"15.0% (95 % interval {interval.low:.1%} to {interval.high:.1%}, n = 200)"
    assert answer.robust(made) == f"Under PGD (L2, eps 0.5, 10 steps) it stays right for {said}."
    assert "50% lies at or beyond radius 8 (50% of Nyquist); white noise would have 70%" in answer.energy_words(made)
    assert answer.robust(content([200, 400, 600], [800, 500, 200])) is None


def test_of_pictures_without_labels_agreement_is_told_and_no_accuracy():
    classes = [{"class": number, "radius": 8, "images": images} for number, images in ((3, 300), (5, 250))]
    made = content([200, 400, 600], [800, 500, 200], whole=1000, classes=classes)
    made["key"]["settings"]["unlabelled"] = True
    assert not answer.is_guessing(made)
    text = answer.summary(made)
    assert "it keeps its answer for about 44% by either alone." in text
    assert "It gives 2 different answers; always giving the most frequent would agree for 30.0%." in text
    assert "right" not in text
    made["parts"]["classes"] = [{"class": 3, "radius": 8, "images": 1000}]
    assert answer.reads(made).startswith("The network gives 100% of the whole images one answer: nothing follows")


def test_classes_that_hang_on_the_high_frequencies_come_first():
    counts = {"whole": 90, "images": 100, "radius": 8}
    rows = [{"class": 0, "lfc": 60, "hfc": 20, **counts}, {"class": 1, "lfc": 10, "hfc": 70, **counts}]
    made = content([200, 400, 600], [800, 500, 200], classes=[*rows, rows[0] | {"radius": 4}])
    first, second = answer.hanging_classes(made)
    assert (first["class"], first["difference"], first["hfc"]) == (1, 0.6, 0.7)
    assert second["difference"] == -0.4
    assert answer.class_name(made | {"classes": {"1": "frog"}}, 1) == "frog"
    assert answer.class_name(made, 1) == "class 1"
