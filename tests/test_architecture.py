"""The house rules, read from the source: who imports whom, how long things are, what they are
called.
"""

import ast
import graphlib
import io
import re
import subprocess
import sys
import tokenize

import pytest

from lwgan.data.decode import BACKGROUNDS
from lwgan.models.build import CHANNELS
from lwgan.settings.defaults import by_full_name
from lwgan.training.step import MATMUL_PRECISIONS
from tests import house

PATHS = house.modules()
TREES = {name: ast.parse(path.read_text()) for name, path in PATHS.items()}
FUNCTIONS = [f for name, tree in TREES.items() for f in house.functions(name, tree)]
PYTHON_FILES = sorted(
    path
    for pattern in ("*.py", "lwgan/**/*.py", "configs/*.py", "tests/**/*.py", "benchmarks/*.py")
    for path in house.ROOT.glob(pattern)
)
PURE = [
    name
    for name in TREES
    if re.fullmatch(
        r"lwgan\.(keys|models\.(?!build).*"
        r"|training\.(step|losses|augment|gradients|ema|optimizers)"
        r"|metrics\.(frechet|kid|neighbours|diversity|realness)"
        r"|metrics\.networks\.(?!features|weights|layers).*"
        r"|sampling\.paths)",
        name,
    )
]


def imports(name):
    return set(house.imports(TREES[name], TREES))


def imports_at_top(node):
    """The modules that are imported as soon as this one is."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from house.imports(child, TREES)
            elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                yield from imports_at_top(child)


def test_the_rules_see_the_code():
    assert {"main", "lwgan.sample", "lwgan.settings.defaults"} <= set(TREES)
    assert house.room("main") == house.room("lwgan.sample") == "commands"
    assert house.room("lwgan.metrics.networks.features") == "metrics"
    assert {"lwgan.models.layers", "lwgan.training.step", "lwgan.keys"} <= set(PURE)
    assert "lwgan.training.loop" in imports("main")
    assert "lwgan.training.loop" not in set(imports_at_top(TREES["main"]))
    top = set(imports_at_top(TREES["lwgan.training.loop"]))
    assert {"lwgan.training.session", "clu", "absl.logging"} <= top


@pytest.mark.parametrize("name", sorted(TREES))
def test_imports_point_down(name):
    own = house.ROOMS.index(house.room(name))
    for other in imports(name):
        assert not other.startswith("configs"), "the package works without the configs"
        if other in TREES and other != "lwgan":
            place = house.ROOMS.index(house.room(other))
            assert place > own or (place == own and other not in COMMANDS), (
                f"{name} imports {other}"
            )


COMMANDS = {name for name in TREES if house.room(name) == "commands"} - {"lwgan.cli"}


def test_imports_have_no_circle():
    graph = {name: imports(name) & set(TREES) - {"lwgan"} for name in TREES}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_the_picture_of_the_imports_is_of_this_code():
    """Else: python -m tests.house --picture."""
    assert house.BEGIN + house.picture() + house.END in house.PAGE.read_text()


@pytest.mark.parametrize("name", PURE)
def test_what_computes_knows_no_files_clocks_flags_or_settings(name):
    forbidden = set("os sys io time datetime random pathlib tensorflow absl ml_collections".split())
    assert not {other.split(".")[0] for other in imports(name)} & forbidden


@pytest.mark.parametrize("name", sorted(TREES))
def test_flags_are_for_commands_and_defined_inside_functions(name):
    if house.room(name) != "commands":
        assert "absl.flags" not in imports(name) or name == "lwgan.runs.log"
    for statement in TREES[name].body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            assert "DEFINE_" not in ast.unparse(statement)


# Each is imported when it is asked for.
NETWORKS = {name for name in TREES if name.startswith("lwgan.metrics.networks.")} - {
    f"lwgan.metrics.networks.{name}" for name in ("features", "layers", "resize", "weights")
}
HEAVY = {
    "lwgan.runs.directory, lwgan.runs.files, lwgan.settings.checks": "jax PIL flax orbax numpy",
    "lwgan.cli, main, lwgan.sample, lwgan.evaluate, lwgan.preview": "jax PIL tensorflow aim clu",
    "lwgan.sampling.trained": "tensorflow aim clu optax lwgan.training lwgan.metrics",
    "lwgan.training.checks": " ".join(["tensorflow aim clu", *NETWORKS]),
}


@pytest.mark.parametrize("names", HEAVY)
def test_what_starts_quickly_imports_nothing_heavy(names):
    heavy = set(HEAVY[names].split())
    code = f"import sys, {names}\nprint(*{heavy!r} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True
    )
    assert (ended.stdout, ended.returncode) == ("\n", 0), ended.stderr


@pytest.mark.parametrize("name", sorted(TREES))
def test_modules_and_functions_are_short(name):
    assert len(PATHS[name].read_text().splitlines()) <= house.MOST_LINES_OF_MODULE
    for function in FUNCTIONS:
        if function.module == name:
            assert function.lines <= house.MOST_LINES_OF_FUNCTION, function
            assert function.parameters <= house.MOST_PARAMETERS, function


@pytest.mark.parametrize("name", sorted(TREES))
def test_a_name_means_one_thing_in_a_module(name):
    """No function is called as its module, and no parameter as what the module defines
    or imports.
    """
    bound = set()
    for node in TREES[name].body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    last = name.rpartition(".")[2]
    assert last not in {f.name for f in FUNCTIONS if f.module == name} or name == "main"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            assert not {argument.arg for argument in arguments} & bound, node.name


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(house.ROOT)))
def test_comments_stand_above_what_they_speak_of(path):
    text = path.read_text()
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not re.match(r"# (noqa|ruff)", token.string):
            line, column = token.start
            assert not lines[line - 1][:column].strip(), f"{path}:{line}"
            assert not token.string.startswith("# fmt"), f"{path}:{line}"


def test_what_a_setting_allows_is_what_the_code_has():
    assert all(by_full_name()["data.mode"].rule.holds(mode) for mode in CHANNELS)
    assert all(by_full_name()["train.precision"].rule.holds(name) for name in MATMUL_PRECISIONS)
    assert all(by_full_name()["eval.background"].rule.holds(name) for name in BACKGROUNDS)


def test_every_setting_says_what_it_means():
    for name, setting in by_full_name().items():
        assert len(setting.meaning) >= 5 and "\n" not in setting.meaning, name
