"""The `hfc` command. PyTorch and the notebook packages are imported after argument parsing."""

import contextlib
import json
import logging
import os
import re
import signal
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hfclib.paper.names import CHAPTER_PLACES, DATA_NAMES, PRESETS, TRAINED, check_choice
from hfclib.reporting import commands


def _completion(names: Collection[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


_Chapter = Annotated[
    str, typer.Argument(help="whose recipes: " + ", ".join(TRAINED), autocompletion=_completion(TRAINED))
]
_PresetName = Annotated[str, typer.Option(help=", ".join(PRESETS), autocompletion=_completion(PRESETS))]
_Seeds = Annotated[list[int] | None, typer.Option(min=0, max=999_999_999, help="several times for several seeds")]
_Variants = Annotated[list[str] | None, typer.Option("--variant", help="only these recipes of the chapter")]


class _Commands(TyperGroup):
    """Commands that take --store=~/runs, in which the shell leaves the ~, for a folder at home."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        home = os.path.expanduser("~")
        return super().parse_args(ctx, [re.sub(r"^(--[\w-]+=)~(?=/|$)", rf"\g<1>{home}", word) for word in args])


_Store = Annotated[Path | None, typer.Option(file_okay=False, help="folder of runs (default: your own)")]
_OldStore = Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="folder of runs (default: all)")]
_Retrain = Annotated[bool, typer.Option(help="train again what is already stored, also by this command before a stop")]
_Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of each process (default: OMP_NUM_THREADS)")]
_IdleThreads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: OMP_NUM_THREADS, or idle cores)")]

app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hfc {version('hfclib')}")
        raise typer.Exit


@app.callback()
def _main(
    asked: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print it")] = False,
) -> None:
    """Train networks, look after stored runs, and run the notebooks of the book with other parameters."""


@contextlib.contextmanager
def _reporting(when_stopped: str, *, status: int = 1, extra: str = "notebooks") -> Iterator[None]:
    """Show hfclib's log on stderr and end an expected error in one line; SIGTERM is handled as KeyboardInterrupt.

    Args:
        when_stopped: what is said then.
        status: the exit status after an error; one other than 1, which is Python's own, is that of unexpected ones too.
        extra: of hfclib, which has the packages that may be missing.
    """
    logger, handler = logging.getLogger("hfclib"), logging.StreamHandler()
    level, before = logger.level, signal.signal(signal.SIGTERM, signal.default_int_handler)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except KeyboardInterrupt:
        # nbclient leaves its task of the cell behind, which at exit may say that the kernel died.
        logging.getLogger("asyncio").disabled = True
        typer.echo(when_stopped, err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        ours = type(error).__module__.startswith("hfclib.")
        if not ours and not isinstance(error, ValueError | OSError | ModuleNotFoundError):
            if status == 1 or isinstance(error, typer.Exit):
                raise
            traceback.print_exc()
            raise typer.Exit(status) from error
        hint = f": pip install 'hfclib[{extra}]'" if isinstance(error, ModuleNotFoundError) else ""
        hint = hint if "pip install" not in str(error) else ""
        typer.echo(f"Error: {error}{hint}", err=True)
        raise typer.Exit(status) from error
    finally:
        signal.signal(signal.SIGTERM, before)
        logger.removeHandler(handler)
        logger.setLevel(level)


def _recipes(chapter: str, preset: str, variants: Sequence[str] | None) -> dict:
    check_choice("chapter", chapter, TRAINED)
    check_choice("preset", preset, PRESETS)
    from hfclib.paper.registry import RECIPES

    known = RECIPES[chapter](preset)
    if not known:
        others = ", ".join(one for one in PRESETS if RECIPES[chapter](one))
        raise ValueError(f"expected preset, one of {others}: {chapter} has no recipes at {preset}")
    for variant in variants or ():
        check_choice("variant", variant, known)
    return {name: recipe for name, recipe in known.items() if not variants or name in variants}


def parse_seeds(text: str) -> list[int]:
    """Seeds such as "3", "0-9" or "0-2,7", each once; a ValueError for anything else, or a range of over 1,000."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (1, 0)
        if not first <= last < first + 1000:
            raise ValueError(f"expected seeds such as 3, 0-9 or 0,2,5, got {text!r}")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


@app.command("data")
def data_command(name: Annotated[str, typer.Option("--set", help=", ".join(DATA_NAMES))] = "cifar10") -> None:
    """Fetch and verify a full data set, and say where each part came from."""
    with _reporting("stopped; what is verified is kept"):
        check_choice("set", name, DATA_NAMES)
        from hfclib.data import DATA_SETS

        for part, origin in DATA_SETS[name].fetch().items():
            typer.echo(f"{part}: {origin}")


@app.command("train")
def train_command(
    chapter: _Chapter,
    *,
    preset: _PresetName = "laptop",
    seed: _Seeds = None,
    variant: _Variants = None,
    store: _Store = None,
    retrain: _Retrain = False,
    threads: _IdleThreads = None,
) -> None:
    """Train what is missing of a chapter's runs; a training that was cut off goes on where it stopped."""
    with _reporting("stopped; the same command goes on from the last checkpoint"):
        recipes = _recipes(chapter, preset, variant)
        from hfclib.devices import use_threads
        from hfclib.runs.collect import load_or_train

        use_threads(threads)
        for _, run, new in load_or_train(recipes, seed or [0], retrain=retrain, store=store):
            accuracy = f"{'trained' if new else 'stored'}, test accuracy {run.test_accuracy():.3f}"
            typer.echo(f"{run.recipe.name}, seed {run.seed}: {accuracy}, {run.path}")


@app.command("sweep")
def sweep_command(
    chapter: _Chapter,
    *,
    preset: _PresetName = "laptop",
    seeds: Annotated[str, typer.Option(help="such as 3, 0-9 or 0,2,5")] = "0",
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (a cluster)")] = "local",
    address: Annotated[str | None, typer.Option(help="of the Ray cluster (default: one on this machine)")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="runs at a time (default: one per GPU or core)")] = None,
    variant: _Variants = None,
    store: _Store = None,
    retrain: _Retrain = False,
    threads: _Threads = None,
) -> None:
    """Train what is missing of a chapter's runs in parallel. Each is stored when it ends; Ctrl-C keeps what is done."""
    with _reporting("stopped; what has ended is stored, and the same command goes on with the rest"):
        wanted = parse_seeds(seeds)
        check_choice("engine", engine, ("local", "ray"))
        if engine == "local" and address:
            raise ValueError(f"expected --address with --engine ray, got {address} with the local engine")
        if engine == "ray" and threads:
            raise ValueError("expected --threads with the local engine: Ray gives each run the cores of its task")
        recipes = _recipes(chapter, preset, variant)
        from hfclib.runs.ray import ray_engine
        from hfclib.runs.sweep import local_engine, sweep

        usual = (os.environ.get("OMP_NUM_THREADS") or "0").split(",")[0]  # of the outermost level
        local = partial(local_engine, threads=threads or int(usual) or None)
        chosen = ray_engine(address) if engine == "ray" else local
        report = sweep(recipes, wanted, engine=chosen, store=store, workers=workers, retrain=retrain)
        for job, problem in report.failures.items():
            typer.echo(f"Error: {job}: {problem}", err=True)
        if report.stopped:
            raise KeyboardInterrupt
        raise typer.Exit(1 if report.failures else 0)


@app.command("runs")
def runs_command(
    action: Annotated[str, typer.Argument(metavar="verify", show_default=False, help="check every file")] = "list",
    store: _OldStore = None,
    as_json: Annotated[bool, typer.Option("--json", help="the list as JSON, for programs")] = False,
) -> None:
    """List the stored runs, and those under way: recipe, seed, state, accuracy, time, size; or verify them all."""
    with _reporting("stopped"):
        check_choice("action", action, ("list", "verify"))
        if as_json and action == "verify":
            raise ValueError("expected --json with the list of runs, got it with verify")
        from hfclib.runs.store import store_entries

        entries = list(store_entries([store] if store else None))
        if action == "verify":
            for entry in entries:
                typer.echo(f"{entry.path}: {entry.problem or f'{entry.state}, sound'}")
            damaged = sum(entry.problem is not None for entry in entries)
            typer.echo(f"{len(entries)} run{'s' * (len(entries) != 1)}, {damaged} damaged")
            raise typer.Exit(1 if damaged else 0)
        if as_json:
            rows = [
                {
                    "recipe": entry.name,
                    "seed": entry.seed,
                    "state": entry.state,
                    "problem": entry.problem,
                    "accuracy": entry.run.test_accuracy() if entry.run else None,
                    "bytes": entry.size,
                    "path": str(entry.path),
                }
                for entry in entries
            ]
            typer.echo(json.dumps(rows, indent=1))
            return
        line = "{:<24} {:>5} {:<26} {:>8} {:>8} {:>9}"
        typer.echo(line.format("recipe", "seed", "state", "accuracy", "minutes", "MB"))
        for entry in entries:
            accuracy = f"{entry.run.test_accuracy():.3f}" if entry.run else ""
            known = entry.run.provenance if entry.run else {}
            minutes = f"{(known['train_seconds'] + known['eval_seconds']) / 60:.1f}" if known else ""
            seed = "" if entry.seed is None else entry.seed
            typer.echo(line.format(entry.name, seed, entry.state, accuracy, minutes, f"{entry.size / 1e6:.2f}"))


# typer has no option of two values that may be repeated, so "-p NAME VALUE", papermill's own form, is read by hand.
@app.command("run", context_settings={"ignore_unknown_options": True})
def run_command(
    chapter: Annotated[str, typer.Argument(help="which notebook: " + ", ".join(CHAPTER_PLACES))],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-p NAME VALUE]...", help="as papermill takes them: -p radius 8, or -p radius [4,8]"),
    ] = None,
    yaml: Annotated[list[str] | None, typer.Option("--yaml", "-y", help="parameters as YAML: 'radius: [4, 7]'")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="default: CHAPTER-NAME=VALUE.ipynb")] = None,
    threads: _Threads = None,
) -> None:
    """Run a chapter's notebook with other parameters (through papermill) and say where the result is."""
    with _reporting("stopped; nothing was written"):
        check_choice("chapter", chapter, CHAPTER_PLACES)
        from hfclib.paper.execute import execute, read_parameters

        values = read_parameters(parameters or (), yaml or ())
        if threads:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # the notebook's process starts with it
        typer.echo(f"wrote {execute(chapter, values, output)}")


_commands: dict[str, Callable] = {"report": commands.report_command, "compare": commands.compare_command}
for _name, _command in _commands.items():
    # Status 1 says that a limit of --fail-if is met.
    _shown = _reporting("stopped; the same command goes on with the missing parts", status=2, extra="report")
    app.command(_name)(_shown(_command))

if __name__ == "__main__":
    app()
