"""The house rules, read from the source: who imports whom, and where what can be chosen is told."""

import ast
import graphlib
import io
import pathlib
import re
import subprocess
import sys
import tokenize

import pytest

import lwgan
from configs import default
from lwgan import augment, losses, optimizers, pictures, settings, sources, state, step
from lwgan.metrics import features, measure, resize

ROOT = pathlib.Path(lwgan.__file__).parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [ROOT / "main.py", *ROOT.glob("lwgan/**/*.py"), *ROOT.glob("configs/*.py")]
}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
COMMANDS = {name for name, tree in TREES.items() if "__main__" in ast.dump(tree)} - {
    "lwgan.command"
}

# A module may import those of its own line and of the lines above it.
LAYERS = [
    "errors log",
    "models losses augment keys optimizers sources pictures metrics",
    "data doctor state step settings sampling checkpoint run tracking torch_weights",
    "trained writers transfer quality",
    "artifacts",
    "actions",
    "training",
    "dry_run",
    "command",
]
PURE = [
    name
    for name in TREES
    if re.fullmatch(
        r"lwgan\.(models(\..*)?|losses|augment|keys|optimizers|step"
        r"|metrics\.(inception|efficientnet|resize|frechet|kid|neighbours|scores))",
        name,
    )
]


def imports(node):
    """Every module that the code below a node imports; ``from lwgan import data`` is lwgan.data."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in TREES or child.module == "absl" else child.module


def imports_at_top(node):
    """The modules that are imported as soon as this one is."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from imports(child)
            else:
                yield from imports_at_top(child)


def layer(name):
    if name in COMMANDS:
        return len(LAYERS)
    place = name.split(".")[1]
    found = [number for number, names in enumerate(LAYERS) if place in names.split()]
    assert found, f"say in LAYERS where {name} belongs"
    return found[0]


def test_the_rules_see_the_code():
    assert {"main", "lwgan.sample"} <= COMMANDS
    assert {"lwgan.models.layers", "lwgan.step", "lwgan.keys"} <= set(PURE)
    assert "lwgan.training" in set(imports(TREES["main"]))
    assert "lwgan.training" not in set(imports_at_top(TREES["main"]))
    assert {"lwgan.data", "clu", "absl.logging"} <= set(imports_at_top(TREES["lwgan.training"]))


@pytest.mark.parametrize("name", sorted(set(TREES) - {"lwgan"}))
def test_imports_point_down(name):
    own = {other for other in imports(TREES[name]) if other.startswith(("lwgan.", "configs"))}
    if name.startswith("configs"):
        assert own <= {"configs.default"}
        return
    for other in own:
        if other.startswith("configs"):
            assert name in COMMANDS
            continue
        assert other not in COMMANDS, f"{name} imports the command {other}"
        assert other != "lwgan.training" or name in ("main", "lwgan.dry_run")
        assert layer(other) <= layer(name), f"{name} imports {other}"


def test_imports_have_no_circle():
    graph = {name: set(imports(tree)) & set(TREES) for name, tree in TREES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", PURE)
def test_what_computes_knows_no_files_clocks_flags_or_settings(name):
    forbidden = set("os sys io time datetime random pathlib tensorflow absl ml_collections".split())
    assert not {other.split(".")[0] for other in imports(TREES[name])} & forbidden


@pytest.mark.parametrize(
    "name",
    sorted(set(TREES) - {"lwgan.actions", "lwgan.training", "lwgan.tracking", "lwgan.dry_run"}),
)
def test_heavy_packages_are_imported_when_used(name):
    heavy = set("tensorflow tensorflow_datasets tensorboard aim clu".split())
    top = {other.split(".")[0] for other in imports_at_top(TREES[name])}
    assert not top & heavy
    assert not {"lwgan.actions", "lwgan.training", "lwgan.tracking"} & set(
        imports_at_top(TREES[name])
    )


@pytest.mark.parametrize(
    "imported",
    [
        "checkpoint, command, run, sample, sampling, settings, state",
        "evaluate; import lwgan.metrics.measure",
    ],
)
def test_sampling_and_the_tables_of_metrics_need_neither_tensorflow_nor_aim(imported):
    code = f"import sys; from lwgan import {imported}\nprint(*{{'tensorflow', 'aim', 'clu'}} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("\n", 0), ended.stderr


@pytest.mark.parametrize("name", sorted(set(TREES) - COMMANDS - {"lwgan.command"}))
def test_flags_are_for_commands(name):
    assert "absl.flags" not in set(imports(TREES[name]))
    assert "config_flags" not in SOURCES[name].read_text()


def comments():
    """The comment of each setting in ``configs/default.py``: behind it, or above it on a line of its own."""
    text = SOURCES["configs.default"].read_text()
    by_line = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.walk(TREES["configs.default"]):
        target = node.targets[-1] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Attribute) or (target and len(node.targets) == 1):
            above = text.splitlines()[node.lineno - 2].strip().startswith("#")
            lines = range(node.lineno - above, node.end_lineno + 1)
            found[ast.unparse(target)] = " ".join(filter(None, map(by_line.get, lines)))
    return {name: found[name] for name in settings.flatten(default.get_config())}


def test_every_setting_has_a_comment():
    for name, comment in comments().items():
        assert len(comment) > 5, name


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("data.source", sources.SOURCES),
        ("data.subset", sources.OPENMOJI_SUBSETS),
        ("data.mode", state.CHANNELS),
        ("loss.kind", losses.LOSSES),
        ("augment.types", augment.AUGMENTATIONS),
        ("optim.name", optimizers.OPTIMIZERS),
        ("ema.schedule", step.EMA_DECAYS),
        ("train.precision", step.MATMUL_PRECISIONS),
        ("eval.metrics", measure.METRICS),
        ("eval.features", features.FEATURES),
        ("eval.resize", resize.RESIZES),
        ("eval.background", pictures.BACKGROUNDS),
    ],
)
def test_comment_of_a_setting_names_all_that_can_be_chosen(name, table):
    for choice in table:
        assert re.search(rf"\b{choice}\b", comments()[name]), choice
