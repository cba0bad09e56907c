"""Facts of the tree: the direction of the imports, names defined once, the time of an import, and the wheel."""

import ast
import inspect
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import hfclib
from hfclib.paper.names import CHAPTER_PLACES

ROOT = Path(__file__).parents[2]
FLOORS = [
    {"_names", "_radii"},
    {"frequency", "models", "data", "devices", "_files", "charts"},
    {"transforms", "kernels"},
    {"conditions"},
    {"batching"},
    {"metrics", "attacks", "moments"},
    {"training"},
    {"runs"},
    {"reporting", "paper"},
    {"cli"},
]
FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text()) for path in sorted((ROOT / "hfclib").rglob("*.py"))}


def imports(tree):
    """The modules of hfclib that a module imports anywhere, also in a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hfclib":
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in TREES else node.module for name in inside)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("hfclib."))
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "hfclib" and node.attr[:2] != "__":
            yield "hfclib"  # a public name, imported lazily


GRAPH = {name: set(imports(tree)) - {name} for name, tree in TREES.items()}


def test_imports_go_one_way_without_a_circle():
    list(TopologicalSorter(GRAPH).static_order())  # raises on a circle between modules
    units = {unit.split(".")[1]: set() for unit in TREES if "." in unit}
    for name, imported in GRAPH.items():
        assert name == "hfclib" or "hfclib" not in imported, f"{name} takes a public name from hfclib itself"
        units.get(name.partition(".")[2].partition(".")[0], set()).update(other.split(".")[1] for other in imported)
    back = {
        f"{unit} <- {other}" for unit, imported in units.items() for other in imported if FLOOR[other] > FLOOR[unit]
    }
    assert not back
    longest = {}
    for unit in TopologicalSorter({unit: imported - {unit} for unit, imported in units.items()}).static_order():
        longest[unit] = 1 + max((longest[other] for other in units[unit] - {unit}), default=0)
    assert max(longest.values()) <= 10, longest


def chapter_of(name):
    """The module or folder of the chapter to which a module belongs, None for others.

    A module of the companion that imports a chapter is a part of it, and so no other may import either.
    """
    homes = {place.partition(":")[0] for place in CHAPTER_PLACES.values()}
    homes = {home if home.count(".") == 2 else home.rpartition(".")[0] for home in homes}
    places = [name, *GRAPH[name]] if name.startswith("hfclib.paper.") else []
    return next((home for place in places for home in homes if f"{place}.".startswith(f"{home}.")), None)


def test_no_chapter_imports_another_and_nothing_below_imports_any():
    """Chapters are found by their names in the registry alone."""
    pairs = [(name, other) for name, found in GRAPH.items() for other in found if chapter_of(other)]
    assert pairs
    assert not [(name, other) for name, other in pairs if chapter_of(name) != chapter_of(other)]


def test_no_public_name_is_defined_in_two_modules():
    modules = defaultdict(list)
    for name, tree in TREES.items():
        public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = {leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
            public |= {constant for constant in names if constant.isupper()}
        for definition in public:
            modules[definition].append(name)
    twice = {name: places for name, places in modules.items() if len(places) > 1 and not name.startswith("_")}
    assert not twice


def test_more_than_eight_parameters_have_public_functions_only_and_by_keyword():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                positional = len(node.args.posonlyargs + node.args.args)
                if positional + len(node.args.kwonlyargs) > 8:
                    assert not node.name.startswith("_") or node.name == "__init__", f"{name}.{node.name}"
                    assert positional <= 4, f"{name}.{node.name}"


def test_importing_hfclib_is_fast_and_leaves_pytorch_out():
    call = [sys.executable, "-X", "importtime", "-c", "import hfclib, sys; assert 'torch' not in sys.modules"]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stderr
    ours = [
        int(microseconds) for microseconds, name in re.findall(r"(\d+) \| +\d+ \| +(\S+)", said) if "hfclib" in name
    ]
    assert ours
    assert sum(ours) < 200_000
    call = [sys.executable, "-c", "import hfclib.data, sys; assert not {'torchvision', 'pooch'} & set(sys.modules)"]
    subprocess.run(call, check=True)


def test_networks_of_chapters_are_trained_without_the_packages_of_any_extra():
    """In a process where none of them can be imported; `hfc train` looks its recipes up there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.split(r"[\[>=<]", package)[0] for name in ("notebooks", "report", "ray") for package in extras[name]}
    modules = {"ipython": "IPython", "pyyaml": "yaml"}
    missing = sorted({modules.get(package, package) for package in named} - {"hfclib"})
    assert {"matplotlib", "scipy", "yaml"} <= set(missing)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}));"
        "import hfclib.runs.collect; from hfclib.paper.registry import RECIPES;"
        "assert any([RECIPES[name]('smoke') for name in RECIPES])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_where_it_is_looked_for():
    assert all(callable(getattr(hfclib, name)) for name in hfclib.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", hfclib.__version__)
    assert set(hfclib.__all__) <= set(dir(hfclib))


def test_a_report_shows_its_arguments_and_a_missing_package_the_extra_that_brings_it():
    assert {"model", "data", "folder", "settings"} <= set(inspect.signature(hfclib.make_report).parameters)
    code = "import sys; sys.modules['matplotlib'] = None; import hfclib; hfclib.Classifier; hfclib.plot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("pip install 'hfclib[report]'")


def test_every_public_docstring_says_what_goes_in():
    lacking = []
    for name in hfclib.__all__:
        said = inspect.getdoc(getattr(hfclib, name)) or ""
        elsewhere = re.search(r"\b(as in|see|as) `", said)
        if not elsewhere and not {"Args:", "Attributes:"} & set(said.split()):
            lacking.append(name)
    assert not lacking


def test_the_wheel_is_small_and_holds_code_and_records_only(tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "--wheel-dir", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "wheel", ROOT, *options], check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    assert wheel.stat().st_size < 1e6
    with zipfile.ZipFile(wheel) as archive:
        code = {name for name in archive.namelist() if ".dist-info/" not in name}
    records = {f"hfclib/paper/{name}.yaml" for name in ("claims", "rules")}
    assert code == {path.relative_to(ROOT).as_posix() for path in (ROOT / "hfclib").rglob("*.py")} | records


def test_the_source_distribution_holds_no_data(tmp_path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path], cwd=ROOT, check=True)
    (archive,) = tmp_path.iterdir()
    assert archive.stat().st_size < 1e6
    with tarfile.open(archive) as found:
        names = {name.split("/", 1)[1] for name in found.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "hfclib/__init__.py"} <= names
    assert not [name for name in names if name.startswith(("data/", "tests/", "notebooks/"))]


def test_the_repository_stays_small():
    files = (path for path in (ROOT / "data").rglob("*") if path.is_file() and ".partial" not in str(path))
    sizes = {path: path.stat().st_size for path in files}
    assert sum(sizes.values()) <= 220e6, "leave out weights or predictions that no page and no test reads"
    assert max(sizes.values()) <= 25e6
