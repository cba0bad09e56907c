"""`hfc report` and `hfc compare`; PyTorch is imported after argument parsing."""

import json
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hfclib._files import make_writable
from hfclib.reporting import summaries
from hfclib.reporting.folders import class_folders
from hfclib.reporting.names import check_model, run_folders
from hfclib.reporting.settings import PART_NAMES, ReportSettings
from hfclib.reporting.stored import check_same_data, read_report
from hfclib.reporting.stored import compare as compared

if TYPE_CHECKING:
    import torch

    from hfclib.reporting.metric import Classifier
    from hfclib.reporting.named import Reading

# Of the accuracy with --quick, by the time of eight images. In a larger batch each may take half as long again; with
# that, imports and the page the answer is there within a minute.
QUICK_SECONDS = 20
_Out = Annotated[Path | None, typer.Option(file_okay=False, help="folder of the report (default: report-MODEL)")]
_Numbers = Annotated[str | None, typer.Option(help="one number per channel, such as 0.5,0.5,0.5")]


def _complete_model(incomplete: str) -> list[str]:
    return [name for name in (*run_folders(), "torchvision:", "timm:") if name.startswith(incomplete)]


def report_command(
    model: Annotated[
        str,
        typer.Argument(
            help="a stored run, torchvision:NAME, timm:NAME or package.module:build", autocompletion=_complete_model
        ),
    ],
    *,
    data: Annotated[str, typer.Option(help="a folder with one folder of images per class, or cifar10-test")],
    weights: Annotated[
        str | None, typer.Option(help="pretrained ones, such as DEFAULT, or a file of them (default: random)")
    ] = None,
    out: _Out = None,
    name: Annotated[str | None, typer.Option(help="of the network, on the page (default: MODEL)")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="an answer in under a minute, on as many images as fit")
    ] = False,
    parts: Annotated[str | None, typer.Option(help=f"of {', '.join(PART_NAMES)} (default: all)")] = None,
    radii: Annotated[str | None, typer.Option(help="in DFT bins, such as 4,8")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="measure only so many images")] = None,
    images: Annotated[int, typer.Option(min=2, help="for all parts but the accuracy")] = 256,
    grid: Annotated[int, typer.Option(min=3, help="frequencies of the heat map per axis")] = 15,
    steps: Annotated[int, typer.Option(min=1, help="of PGD")] = 10,
    size: Annotated[int | None, typer.Option(min=2, help="of a folder's images (default: the model's)")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="leave out images that can't be read")] = False,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="any pictures: do bands get the answer of the whole image?")
    ] = False,
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
    junit: Annotated[Path | None, typer.Option(dir_okay=False, help="write the limits as JUnit XML, for CI")] = None,
    summary: Annotated[Path | None, typer.Option(dir_okay=False, help="write the answer as JSON, for CI")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps (default: the best)")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100, help="the most images at once")] = 100,
    workers: Annotated[int, typer.Option(min=0, help="processes that read a folder's images")] = 0,
    engine: Annotated[str, typer.Option(help="local (this process) or ray (a cluster's cores)")] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster (default: one on this machine)")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="of the CPU (default: OMP_NUM_THREADS, or idle)")] = None,
) -> None:
    """Measure which frequencies a network reads, and write a report; the same command goes on where it was stopped.

    What has been counted is kept, also within the accuracy part. With --compare a finished report is only drawn anew.
    The exit status is 1 only where a limit of --fail-if is met, and 2 after any error.
    """
    sys.path.insert(0, "")  # for package.module:build in this folder
    check_model(model, weights)
    _check_engine(engine, address, device)
    channels = {"mean": _numbers(mean), "std": _numbers(std)}
    if (mean is None) != (std is None):
        raise ValueError("expected --mean and --std, or neither")
    options: dict = {
        "name": name or model,
        "images": images,
        "grid": grid,
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
    }
    options |= {"radii": _numbers(radii), "limits": fail_if or (), "quick": quick, "unlabelled": unlabelled}
    options |= {"parts": parts.split(",")} if parts else {}
    settings = ReportSettings(**options)
    folder = out or Path("report-" + re.sub(r"[^\w.-]+", "-", model) + "-quick" * quick)
    _check_outputs(folder, [path for path in (junit, summary) if path])
    others = [read_report(path) for path in compare or ()]
    for other in others[1:]:
        check_same_data(others[0].content, other.content)
    of_folders = {"--size": size, "--skip-broken": skip_broken, "--workers": workers}
    _check_data(data, [name for name, value in of_folders.items() if value], class_map, unlabelled, folder)
    import torch

    from hfclib.devices import best_device, use_threads
    from hfclib.reporting.make import make_report
    from hfclib.reporting.metric import Classifier
    from hfclib.reporting.named import Reading, named_data, named_model
    from hfclib.runs.ray import ray_map

    use_threads(threads)
    torch.manual_seed(seed)  # of random weights: the same command goes on with the same network
    spec = named_model(model, weights)
    chosen = _device(device) if device else best_device() if engine == "local" else "cpu"  # a cluster gives its cores
    network = spec.model.to(chosen) if hasattr(spec.model, "to") else spec.model
    network = Classifier.of(network, **(channels if mean else {"mean": spec.mean, "std": spec.std}))
    reading = Reading(
        sizes=(size, size) if size else spec.sizes,
        interpolation=spec.interpolation,
        mode=spec.mode,
        limit=limit,
        seed=seed,
        skip_broken=skip_broken,
        class_map=class_map,
        unlabelled=unlabelled,
        workers=workers,
        network=network,
    )
    if quick:
        limit = _quick_limit(folder, network, data, reading, settings)
    given = named_data(data, reading, limit=limit)
    with ray_map(address) if engine == "ray" else nullcontext(map) as applied:
        made = make_report(network, given, folder, settings, compare=others, engine=applied)
    typer.echo(f"{made.content['summary']}\nwrote {folder / 'report.html'}")
    results = summaries.limit_results(made, fail_if or ())
    if junit:
        summaries.write_junit(junit, made, results)
    if summary:
        summaries.write_json(summary, made, results)
    failed = [result.limit for result in results if result.failed]
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


def _check_engine(engine: str, address: str | None, device: str | None) -> None:
    if engine not in ("local", "ray") or (engine == "local" and address):
        raise ValueError(f"expected engine, local or ray, and an address with ray only, got {engine} and {address}")
    if engine == "ray" and find_spec("ray") is None:
        raise ValueError("the engine ray needs Ray: pip install 'hfclib[ray]'")
    if engine == "ray" and device not in (None, "cpu"):
        raise ValueError(f"expected the device cpu with the engine ray, got {device}")
    if device and not re.fullmatch(r"cpu|(cuda|mps|xpu)(:\d+)?", device):
        raise ValueError(f"expected device, such as cpu, cuda, cuda:1 or mps, got {device!r}")


def _check_outputs(folder: Path, others: Sequence[Path]) -> None:
    """Refuse files beside the report that are one of its own, or one another."""
    for path in others:
        make_writable(path.parent)
        own = path.suffix == ".csv" or path.name in ("report.json", "report.html", "report.lock", "card.png")
        if own and path.resolve().parent == folder.resolve():
            raise ValueError(f"expected another file than those of the report, got {path}")
    if len({path.resolve() for path in others}) < len(others):
        raise ValueError(f"expected two files for --junit and --summary, got {others[0]} for both")


def _check_data(data: str, of_folders: Sequence[str], class_map: Path | None, unlabelled: bool, folder: Path) -> None:
    if unlabelled and class_map:
        raise ValueError("expected --unlabelled or --class-map, not both")
    if data == "cifar10-test":
        if of_folders:
            raise ValueError(f"expected {', '.join(of_folders)} with a folder of images only, got it with {data}")
        return
    if not Path(data).is_dir():
        raise ValueError(f"expected cifar10-test or a folder of images, got {data!r}")
    if folder.resolve().is_relative_to(Path(data).resolve()):  # its pictures would be measured, too
        raise ValueError(f"expected a report outside the images in {data}, got {folder}: choose another with --out")
    if not unlabelled:
        class_folders(data, class_map)


def _device(name: str) -> "torch.device":
    import torch

    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"expected a device of this machine, got {name}: {str(error).splitlines()[0]}") from error


def _quick_limit(folder: Path, network: "Classifier", data: str, reading: "Reading", settings: ReportSettings) -> int:
    """As many images as the accuracy is measured on in QUICK_SECONDS; those of the folder's report, if it has one."""
    with suppress(OSError, KeyError, TypeError, ValueError):
        of_report = json.loads((folder / "report.json").read_bytes())["key"]["settings"]
        stored = int(of_report["known_images"]) + int(of_report.get("skipped_images", 0))  # the limit counts these too
        if stored <= (reading.limit or stored):
            return stored
    from hfclib.reporting.make import accuracy_passes, seconds_per_image
    from hfclib.reporting.named import named_data

    images = next(iter(named_data(data, reading, limit=8, skip_broken=True).batches))[0]
    seconds_per_image(network, images, settings.batch_size)  # to warm up
    radii = len(settings.chosen_radii() or range(4))
    each = seconds_per_image(network, images, settings.batch_size) * accuracy_passes(radii, quick=True)
    fitting = max(20, min(2000, int(QUICK_SECONDS / each)))
    return min(fitting, reading.limit or fitting)


def _numbers(text: str | None) -> Sequence[float] | None:
    """Numbers separated by commas: whole ones as int; ValueError for another text."""
    if text is None:
        return None
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"expected numbers such as 4,8 or 0.5,0.25, got {text!r}") from None
