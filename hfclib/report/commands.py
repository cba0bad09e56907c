"""`hfc report` and `hfc compare`; PyTorch is imported after argument parsing."""

import re
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hfclib._radii import check_cuts
from hfclib.report.folders import class_folders
from hfclib.report.names import check_model
from hfclib.report.rules import Rule, check_rules
from hfclib.report.stored import check_same_data, read_report
from hfclib.report.stored import compare as compared

_Out = Annotated[Path | None, typer.Option(file_okay=False, help="folder of the report (default: report-MODEL)")]
_Numbers = Annotated[str | None, typer.Option(help="one number per channel, such as 0.5,0.5,0.5")]


def report_command(
    model: Annotated[str, typer.Argument(help="a stored run, torchvision:NAME, timm:NAME or package.module:build")],
    data: Annotated[str, typer.Option(help="a folder with one folder of images per class, or cifar10-test")],
    weights: Annotated[str | None, typer.Option(help="pretrained ones, such as DEFAULT (default: random)")] = None,
    out: _Out = None,
    radii: Annotated[str | None, typer.Option(help="in DFT bins, such as 4,8")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="measure only so many images")] = None,
    images: Annotated[int, typer.Option(min=2, help="for all parts but the accuracy")] = 256,
    grid: Annotated[int, typer.Option(min=3, help="frequencies of the heat map per axis")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="of PGD")] = 10,
    size: Annotated[int | None, typer.Option(min=2, help="of a folder's images (default: the model's)")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="leave out images that can't be read")] = False,
    class_map: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="JSON or CSV: folder of --data, class index")
    ] = None,
    mean: _Numbers = None,
    std: _Numbers = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="another network's report.json, drawn behind; repeatable"),
    ] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option(help="such as 'hfc@8 > .4' or 'test < 90 %': then the exit status is 1")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    engine: Annotated[str, typer.Option(help="local (this process) or ray (a cluster's cores)")] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster (default: one on this machine)")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of the CPU (default: OMP_NUM_THREADS, or idle cores)")
    ] = None,
) -> None:
    """Measure which frequencies a network reads, and write a report; the same command goes on where it was stopped.

    What has been counted is kept, also within the accuracy part. With --compare a finished report is only drawn anew.
    The exit status is 1 only where a limit of --fail-if is met, and 2 after any error.
    """
    sys.path.insert(0, "")  # for package.module:build in this folder
    check_model(model, weights)
    _check_engine(engine, address)
    cuts, channels = _numbers(radii), {"mean": _numbers(mean), "std": _numbers(std)}
    check_cuts(cuts or ())
    if (mean is None) != (std is None):
        raise ValueError("expected --mean and --std, or neither")
    rules = [Rule.parse(text) for text in fail_if or ()]
    if cuts:
        check_rules(rules, cuts)
    others = [read_report(path) for path in compare or ()]
    for other in others[1:]:
        check_same_data(others[0].content, other.content)
    if data != "cifar10-test":
        if not Path(data).is_dir():
            raise ValueError(f"expected cifar10-test or a folder of images, got {data!r}")
        class_folders(data, class_map)
    import torch

    from hfclib.devices import best_device, use_threads
    from hfclib.report.make import make_report
    from hfclib.report.metric import Classifier
    from hfclib.report.sources import named_data, named_model
    from hfclib.runs.ray import ray_map

    use_threads(threads)
    torch.manual_seed(seed)  # of random weights: the same command goes on with the same network
    found = named_model(model, weights)
    device = best_device() if engine == "local" else "cpu"  # the cores of the cluster are what Ray gives
    network = found.model.to(device) if hasattr(found.model, "to") else found.model
    network = Classifier.of(network, **(channels if mean or std else {"mean": found.mean, "std": found.std}))
    reading = {"limit": limit, "seed": seed, "skip_broken": skip_broken}
    reading |= {"class_map": class_map, "network": network}
    reading |= {"interpolation": found.interpolation, "mode": found.mode}
    given = named_data(data, sizes=(size, size) if size else found.sizes, **reading)
    folder = out or Path("report-" + re.sub(r"[^\w.-]+", "-", model))
    options = {"radii": cuts, "images": images, "grid": grid, "steps": steps, "seed": seed, "rules": fail_if or ()}
    options |= {"skipped": given.skipped, "compare": others, "pictures_sha256": given.pictures_sha256}
    with ray_map(address) if engine == "ray" else nullcontext(map) as chosen:
        options |= {"engine": chosen, "colour": given.colour}
        made = make_report(network, given.batches, folder, name=model, **options)
    typer.echo(f"{made.content['summary']}\nwrote {folder / 'report.html'}")
    failed = [text for text, rule in zip(fail_if or (), rules, strict=True) if rule.fails(made)]
    for text in failed:
        typer.echo(f"failed: {text}", err=True)
    raise typer.Exit(1 if failed else 0)


def compare_command(
    first: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a report.json")],
    second: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="another")],
) -> None:
    """Print the accuracies of two reports (a and b) side by side."""
    table = compared(read_report(first), read_report(second))
    typer.echo(table.to_string(index=False, float_format="{:.3f}".format))


def _check_engine(engine: str, address: str | None) -> None:
    if engine not in ("local", "ray") or (engine == "local" and address):
        raise ValueError(f"expected engine, local or ray, and an address with ray only, got {engine} and {address}")
    if engine == "ray" and find_spec("ray") is None:
        raise ValueError("the engine ray needs Ray: pip install 'hfclib[ray]'")


def _numbers(text: str | None) -> list[float] | None:
    """Numbers separated by commas: whole ones as int; ValueError for another text."""
    if text is None:
        return None
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"expected numbers such as 4,8 or 0.5,0.25, got {text!r}") from None
