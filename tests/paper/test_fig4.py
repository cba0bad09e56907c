"""Fig. 4: tables, drawings and claims."""

import numpy as np
import pandas as pd
import pytest

from hfclib.paper.fig4 import batchnorm_effect, beside_paper, curves_figure, hfc_by_condition
from hfclib.paper.intervals import interval
from hfclib.paper.published import fig4_value
from hfclib.paper.scoreboard import CLAIMS, scoreboard
from hfclib.paper.tables import decimals, gather, select, with_interval


def test_beside_the_paper_stand_mean_and_sd(runs):
    table = beside_paper(gather(runs, "final"), [4, 7], "raw", "running")
    values = [
        one.final.query("band == 'hfc' and radius == 4 and feed == 'raw'")["accuracy"].item() for one in runs["vanilla"]
    ]
    expected = f"{decimals(np.mean(values))}\u00a0±\u00a0{decimals(np.std(values, ddof=1))}"
    assert table.loc["H4", ("Vanilla", "ours")] == expected
    assert table.loc["H4", ("Vanilla", "paper")] == ".10"
    assert table.loc["H7", ("Vanilla", "paper")] == "not published"


def test_one_seed_has_no_spread(runs):
    table = beside_paper(gather({"vanilla": runs["vanilla"][:1]}, "final"), [4], "raw", "running")
    assert "±" not in table.loc["H4", ("Vanilla", "ours")]


def test_the_effect_is_batchnorm_less_vanilla_beside_the_papers(runs):
    effect = batchnorm_effect(gather(runs, "final"), [4, 8])
    by_hand = [
        bn.final.query("band == 'hfc' and radius == 4 and feed == 'max' and bn_stats == 'batch'")["accuracy"].item()
        - plain.final.query("band == 'hfc' and radius == 4 and feed == 'max'")["accuracy"].item()
        for bn, plain in zip(runs["batchnorm"], runs["vanilla"], strict=True)
    ]
    assert effect.at[("batch", "max"), "r = 4"] == with_interval(*interval(by_hand))
    assert effect.loc[("paper", "max")].tolist() == [".55", ".44"]  # .65 - .10, .54 - .10
    conditions = [(stats, feed) for stats in ("batch", "running") for feed in ("max", "raw", "mean")]
    assert list(effect.index) == [*conditions, ("paper", "max")]


def test_the_figure_has_a_panel_a_heuristic_and_decodes_its_lines(runs):
    figure = curves_figure(select(gather(runs), (4, 7), "max", "batch"))
    *variants, free = figure.axes
    assert [ax.get_title() for ax in variants] == ["Vanilla", "Dropout", "BatchNorm"]
    assert all(len(ax.get_lines()) == 2 + 4 + 1 for ax in variants)  # whole images, bands, chance
    assert not figure.legends  # it stands where a variant is free
    labels = [text.get_text() for text in free.get_legend().get_texts()]
    assert "radius 4" in labels
    assert "radius 7 (raw, running)" in labels
    for radii, feed, bn_stats, expected in (
        ((4, 7), "mean", "running", "radius 7 (raw, running)"),
        ((7,), "max", "batch", "radius 7 (raw, running)"),
        ((4, 7), "raw", "running", "radius 7"),
    ):
        shown = curves_figure(select(gather(runs), radii, feed, bn_stats))
        assert expected in [text.get_text() for text in shown.axes[-1].get_legend().get_texts()]
    pair = curves_figure(select(gather({name: runs[name] for name in ("vanilla", "dropout")}), (4, 7), "max", "batch"))
    assert len(pair.axes) == 2
    assert [text.get_text() for text in pair.legends[0].get_texts()] == labels
    with pytest.raises(ValueError, match="empty"):
        curves_figure(gather(runs).iloc[:0])


def test_the_short_figure_shows_both_versions_with_the_means_of_the_runs(runs):
    final = gather(runs, "final")
    left, right = hfc_by_condition(final).axes
    assert (left.get_title(), right.get_title()) == ("Measured as the authors did", "Controlled")
    rows = select(final, (4, 8, 12, 16), "mean", "running").query("variant == 'vanilla' and band == 'hfc'")
    shown = right.containers[0].lines[0].get_ydata()
    assert list(shown) == pytest.approx(list(rows.groupby("radius")["accuracy"].mean()))


def final(per_seed: dict[str, list[float]]) -> pd.DataFrame:
    """Final rows with the same accuracy everywhere, by variant and seed."""
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "split": "test",
            "band": "hfc",
            "radius": radius,
            "feed": feed,
            "bn_stats": bn_stats,
            "images": 10_000,
            "accuracy": value,
        }
        for variant, values in per_seed.items()
        for seed, value in enumerate(values)
        for radius in (4, 8, 12, 16)
        for feed in ("raw", "max", "mean")
        for bn_stats in ("running", "batch")
    ]
    return pd.DataFrame(rows)


def on_whole_images(per_seed: dict[str, tuple[list[float], list[float]]]) -> pd.DataFrame:
    """Rows of whole images: the accuracies of each variant on training and on test images, by seed."""
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "split": split,
            "band": "x",
            "radius": -1,
            "feed": "raw",
            "bn_stats": bn_stats,
            "images": 10_000,
            "accuracy": value,
        }
        for variant, both in per_seed.items()
        for split, values in zip(("train", "test"), both, strict=True)
        for seed, value in enumerate(values)
        for bn_stats in ("running", "batch")
    ]
    return pd.DataFrame(rows)


def test_verdicts_on_adversarial_training():
    bands = final({"vanilla": [0.2, 0.21], "adversarial": [0.13, 0.14]})
    bands.loc[(bands["variant"] == "adversarial") & (bands["feed"] == "raw"), "accuracy"] = [0.4] * 8 + [0.41] * 8
    whole = on_whole_images({"vanilla": ([0.9, 0.91], [0.8, 0.81]), "adversarial": ([0.7, 0.71], [0.69, 0.7])})
    board = scoreboard({"fig4": pd.concat([bands, whole])}).filter(like="adversarial", axis="index")
    assert board["verdict"].to_dict() == {
        "fig4-adversarial-test-whole-images": "reproduced",
        "fig4-adversarial-gap-whole-images": "reproduced",
        "fig4-adversarial-H4-as-published": "reproduced",  # fed raw, as the authors' adversarial runs were
        "fig4-adversarial-H12-as-published": "contradicted",
        "fig4-adversarial-H16-as-published": "contradicted",
        "fig4-adversarial-H4-controlled": "inconclusive",  # .035, interval over two seeds
        "fig4-adversarial-H12-controlled": "inconclusive",
        "fig4-adversarial-H16-controlled": "inconclusive",
    }
    assert board.loc["fig4-adversarial-test-whole-images", "ours"].startswith(".110")
    assert board.loc["fig4-adversarial-gap-whole-images", "ours"].startswith(".090")
    assert board.loc["fig4-adversarial-H4-controlled", "ours"].startswith(".035")
    for radius in (12, 16):  # above chance, as in the sentence, and so is the paper's
        assert board.loc[f"fig4-adversarial-H{radius}-controlled", "ours"].startswith(".035")
        paper = fig4_value("adversarial", f"H{radius}").value - 0.1
        assert board.loc[f"fig4-adversarial-H{radius}-controlled", "paper"] == decimals(paper, 2)


def test_verdicts_follow_the_numbers():
    table = final(
        {
            "vanilla": [0.1, 0.12, 0.11],
            "batchnorm": [0.6, 0.63, 0.61],
            "mixup": [0.05, 0.08, 0.06],
            "dropout": [0.1, 0.13, 0.11],
        }
    )
    board = scoreboard({"fig4": table})
    verdicts = board["verdict"]
    assert set(verdicts[verdicts.index.str.contains("batchnorm")]) == {"reproduced"}
    assert set(verdicts[verdicts.index.str.contains("mixup")]) == {"contradicted"}
    assert set(verdicts[verdicts.index.str.contains("dropout")]) == {"reproduced"}
    attacked = board.index.str.contains("adversarial")
    assert set(board.loc[~attacked, "interval"]) == {"3 seeds"}
    assert set(board.loc[attacked, "verdict"]) == {"run missing"}
    mean, low, high = interval([0.5, 0.51, 0.5])
    assert board.loc["fig4-batchnorm-H4-controlled", "ours"] == with_interval(mean, low, high)


def test_a_single_seed_is_inconclusive():
    board = scoreboard({"fig4": final({"vanilla": [0.1], "batchnorm": [0.6], "mixup": [0.1], "dropout": [0.1]})})
    assert set(board["verdict"][~board.index.str.contains("adversarial")]) == {"inconclusive"}
    assert set(board["interval"]) == {"1 seed", "none"}
    assert board.loc["fig4-batchnorm-H8-controlled", "ours"] == ".500"


def test_each_version_is_judged_under_its_own_condition():
    table = final({"vanilla": [0.1, 0.1, 0.1], "batchnorm": [0.6, 0.61, 0.6]})
    published_only = (table["variant"] == "batchnorm") & ~((table["feed"] == "max") & (table["bn_stats"] == "batch"))
    table.loc[published_only, "accuracy"] -= 0.55
    board = scoreboard({"fig4": table})
    assert board.loc["fig4-batchnorm-H4-as-published", "verdict"] == "reproduced"
    assert board.loc["fig4-batchnorm-H4-controlled", "verdict"] == "contradicted"
    controlled = scoreboard({"fig4": table}, "controlled")
    assert set(controlled["version"]) == {"controlled"}
    pd.testing.assert_frame_equal(controlled, board[board["version"] == "controlled"])


def test_a_claim_without_its_runs_says_so():
    board = scoreboard({"fig4": final({"vanilla": [0.1, 0.2], "batchnorm": [], "mixup": [0.2, 0.3]})})
    missing = board[~board.index.str.contains("mixup")]
    assert set(missing["verdict"]) == {"run missing"}
    assert set(missing["ours"]) == {"not measured"}
    assert set(missing["interval"]) == {"none"}
    assert "run missing" not in set(board[board.index.str.contains("mixup")]["verdict"])
    with pytest.raises(ValueError, match="no seed has all the runs of the claim"):
        CLAIMS[[claim.id for claim in CLAIMS].index("fig4-batchnorm-H4-controlled")].statistic(
            final({"vanilla": [0.1]})
        )


def test_the_papers_difference_comes_from_its_values():
    papers = {claim.id: claim.paper for claim in CLAIMS}
    assert papers["fig4-batchnorm-H4-as-published"] == papers["fig4-batchnorm-H4-controlled"] == ".55"  # .65 - .10
    assert papers["fig4-mixup-H8-controlled"] == ".24"  # .34 - .10
    assert fig4_value("vanilla", "L7") is None
    assert fig4_value("adversarial", "L4").value == 0.55
    assert papers["fig4-adversarial-test-whole-images"] == ".15"  # .84 - .69
    assert papers["fig4-adversarial-gap-whole-images"] == ".08"  # (.92 - .84) - (.69 - .69)
    assert papers["fig4-adversarial-H4-controlled"] == ".07"  # .17 - .10
