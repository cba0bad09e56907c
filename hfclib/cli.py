"""The `hfc` command."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from hfclib.data.cifar import DataError, fetch
from hfclib.paper.presets import PRESETS
from hfclib.paper.registry import CHAPTERS, RECIPES, chapter_recipes
from hfclib.runs.collect import load_or_train
from hfclib.runs.inventory import store_entries
from hfclib.runs.ray import ray_engine
from hfclib.runs.store import RunError
from hfclib.runs.sweep import local_engine, parse_seeds
from hfclib.runs.sweep import sweep as run_sweep
from hfclib.training.checkpoint import CheckpointError
from hfclib.training.loop import TrainingError
from hfclib.training.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Figure = Annotated[str, typer.Argument(help="whose recipes: " + ", ".join(RECIPES))]
Preset = Annotated[str, typer.Option(help=", ".join(PRESETS))]
Variant = Annotated[list[str] | None, typer.Option(help="only these recipes of the figure")]
Store = Annotated[Path | None, typer.Option(help="folder of runs (default: your own)")]
Retrain = Annotated[bool, typer.Option(help="train again what is already stored")]


@app.command()
def data() -> None:
    """Fetch and verify the full CIFAR-10, and say where each part came from."""
    try:
        for part, origin in fetch().items():
            typer.echo(f"{part}: {origin}")
    except DataError as error:
        raise typer.Exit(_fail(error)) from error


def _recipes(figure: str, preset: str, variants: list[str] | None) -> dict[str, Recipe]:
    wanted = chapter_recipes(figure, preset)
    if unknown := set(variants or ()) - set(wanted):
        raise ValueError(f"expected variant, one of {', '.join(wanted)}, got {', '.join(sorted(unknown))}")
    return {name: recipe for name, recipe in wanted.items() if not variants or name in variants}


@app.command()
def train(
    figure: Figure,
    preset: Preset = "laptop",
    seed: Annotated[list[int] | None, typer.Option(help="give it several times for several seeds")] = None,
    variant: Variant = None,
    store: Store = None,
    retrain: Retrain = False,
) -> None:
    """Train what is missing of a figure's runs; a training that was cut off goes on where it stopped."""
    try:
        chosen = _recipes(figure, preset, variant)
        if not all(one >= 0 for one in seed or ()):
            raise ValueError(f"expected seed, a whole number of at least 0, got {seed}")
        for _, run, new in load_or_train(chosen, seed or [0], retrain=retrain, store=store):
            state = "trained" if new else "stored"
            line = f"{run.recipe.name}, seed {run.seed}: {state}, test accuracy {run.test_accuracy():.3f}, {run.path}"
            typer.echo(line)
    except (ValueError, OSError, DataError, TrainingError, CheckpointError, RunError) as error:
        raise typer.Exit(_fail(error)) from error


@app.command()
def sweep(
    figure: Figure,
    preset: Preset = "laptop",
    seeds: Annotated[str, typer.Option(help="such as 3, 0-9 or 0,2,5")] = "0",
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (a cluster)")] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster (default: one on this machine)")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="runs at a time (default: one a GPU, or a core)")] = None,
    variant: Variant = None,
    store: Store = None,
    retrain: Retrain = False,
) -> None:
    """Train what is missing of a figure's runs in parallel. Each is stored when it ends; Ctrl-C keeps what is done."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's farewell is a Ctrl-C
    try:
        chosen, wanted = _recipes(figure, preset, variant), parse_seeds(seeds)
        if engine not in ("local", "ray") or (address and engine != "ray"):
            raise ValueError(f"expected engine local, or ray with or without an address, got {engine} and {address}")
        how = ray_engine(address) if engine == "ray" else local_engine
        report = run_sweep(chosen, wanted, engine=how, store=store, workers=workers, retrain=retrain, say=_say)
    except (ValueError, OSError) as error:
        raise typer.Exit(_fail(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    for job, problem in report.failures.items():
        typer.echo(f"Error: {job}: {problem}", err=True)
    if report.stopped:
        _say("stopped; what has ended is stored, and the same command goes on with the rest")
        raise typer.Exit(130)
    raise typer.Exit(1 if report.failures else 0)


runs = typer.Typer(invoke_without_command=True, help="List the stored runs, and those under way; or verify them all.")
app.add_typer(runs, name="runs")


@runs.callback()
def listing(context: typer.Context, store: Store = None) -> None:
    """List the stored runs, and those under way: recipe, seed, state, accuracy, time, size."""
    context.obj = _folders(store)
    if context.invoked_subcommand is None:
        line = "{:<24} {:>5} {:<26} {:>8} {:>8} {:>9}"
        typer.echo(line.format("recipe", "seed", "state", "accuracy", "minutes", "MB"))
        for one in store_entries(context.obj):
            accuracy = "" if one.accuracy is None else f"{one.accuracy:.3f}"
            minutes = "" if one.seconds is None else f"{one.seconds / 60:.1f}"
            seed = "" if one.seed is None else one.seed
            typer.echo(line.format(one.name, seed, one.state, accuracy, minutes, f"{one.size / 1e6:.2f}"))


def _folders(store: Path | None) -> list[Path] | None:
    if store and not store.is_dir():
        raise typer.Exit(_fail(ValueError(f"expected --store, a folder of runs, got {store}")))
    return [store] if store else None


@runs.command()
def verify(context: typer.Context, store: Store = None) -> None:
    """Check every file of every run; say what is damaged and what to do."""
    found = list(store_entries(_folders(store) or context.obj))
    for one in found:
        typer.echo(f"{one.path}: {one.problem or f'{one.state}, sound'}")
    damaged = sum(one.problem is not None for one in found)
    typer.echo(f"{len(found)} run{'s' * (len(found) != 1)}, {damaged} damaged")
    raise typer.Exit(1 if damaged else 0)


# typer has no option of two values that may be repeated, so "-p NAME VALUE", papermill's own form, is read by hand.
@app.command(context_settings={"ignore_unknown_options": True})
def run(
    figure: Annotated[str, typer.Argument(help="which notebook: " + ", ".join(CHAPTERS))],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-p NAME VALUE]...", help="as papermill takes them: -p radius 8, or -p radius [4,8]"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="the executed notebook (default: FIGURE-out.ipynb, here)")] = None,
) -> None:
    """Run a figure's notebook with other parameters (through papermill) and say where the result is."""
    import papermill  # here and not above, so that the other commands need none of the notebook packages
    import yaml

    try:
        notebook = Path(__file__).parents[1] / "notebooks" / f"{figure}.ipynb"
        if figure not in CHAPTERS or not notebook.exists():
            raise ValueError(f"expected notebook, one of {', '.join(CHAPTERS)}, in a checkout: no {notebook}")
        words = parameters or []
        if len(words) % 3 or any(word not in ("-p", "--parameter") for word in words[::3]):
            raise ValueError(f"expected -p NAME VALUE, once a parameter, got {' '.join(words)}")
        known = papermill.inspect_notebook(str(notebook))
        values = {name: yaml.safe_load(value) for name, value in zip(words[1::3], words[2::3], strict=True)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown parameter {unknown[0]}; allowed: {', '.join(known)}")
        target = output or Path(f"{figure}-out.ipynb")
        papermill.execute_notebook(str(notebook), str(target), values, cwd=str(notebook.parent), progress_bar=False)
        typer.echo(f"wrote {target}")
    except (ValueError, OSError, yaml.YAMLError, papermill.PapermillExecutionError) as error:
        raise typer.Exit(_fail(error)) from error


def _fail(error: Exception) -> int:
    typer.echo(f"Error: {error}", err=True)
    return 1


def _say(line: str) -> None:
    typer.echo(line)


if __name__ == "__main__":
    app()
