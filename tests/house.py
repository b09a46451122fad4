"""What the package is built of: modules, imports between its rooms, the longest functions.

    python -m tests.house            # modules with their lines, longest functions, most parameters
    python -m tests.house --picture  # draws the imports into docs/architecture.md

``test_architecture`` holds the package to the limits and the picture to the code.
"""

import ast
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: python -m tests.house --picture -->\n```\n", "```\n<!-- end -->"

MOST_LINES_OF_MODULE = 350
MOST_LINES_OF_FUNCTION = 50
MOST_PARAMETERS = 5

# A room may import those below it, and no other.
ROOMS = (
    "commands",
    "page",
    "latents",
    "interop",
    "training",
    "metrics",
    "sampling",
    "data",
    "runs",
    "models",
    "settings",
    "ground",
)
GROUND = {"lwgan", "lwgan.errors", "lwgan.keys"}


class Function(NamedTuple):
    """A function or method; ``parameters`` leaves out those that can only be named, and self."""

    module: str
    name: str
    lines: int
    parameters: int


def modules() -> dict[str, pathlib.Path]:
    """Every module of the package, and main.py, by its name."""
    paths = [ROOT / "main.py", *sorted(ROOT.glob("lwgan/**/*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return dict(zip((name.removesuffix(".__init__") for name in names), paths, strict=True))


def room(module: str) -> str:
    """The room of a module: ``lwgan.data.cache`` is in ``data``, ``lwgan.sample`` is a command."""
    if module in GROUND:
        return "ground"
    if module.endswith(".__main__"):
        return "commands"
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "commands"


def imports(node: ast.AST, known: Iterable[str]) -> Iterator[str]:
    """Every module that the code below a node imports; ``from lwgan import cli`` is lwgan.cli."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in known or child.module == "absl" else child.module


def functions(module: str, tree: ast.AST) -> Iterator[Function]:
    """All functions of a module, methods and inner ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.posonlyargs + node.args.args]
            count = len([name for name in names if name not in ("self", "cls")])
            yield Function(module, node.name, node.end_lineno - node.lineno + 1, count)


def report() -> Iterator[str]:
    """The lists, line after line."""
    paths = modules()
    for name, path in paths.items():
        yield f"{len(path.read_text().splitlines()):5} {name}"
    every = [
        f for name, path in paths.items() for f in functions(name, ast.parse(path.read_text()))
    ]
    yield ""
    yield "room, its longest function, its longest list of parameters"
    every.sort(key=lambda f: ROOMS.index(room(f.module)))
    for own_room, group in itertools.groupby(every, key=lambda f: room(f.module)):
        own = list(group)
        longest = max(own, key=lambda f: f.lines)
        widest = max(own, key=lambda f: f.parameters)
        yield (
            f"{own_room:9} {longest.lines:3} lines {longest.module}.{longest.name}, "
            f"{widest.parameters} parameters {widest.module}.{widest.name}"
        )


def picture() -> str:
    """The modules of each room from the top down, and the rooms and modules that each imports."""
    paths = modules()
    graph = {
        name: sorted({*imports(ast.parse(path.read_text()), paths)} & set(paths) - {name})
        for name, path in paths.items()
    }
    lines = []
    for own_room in ROOMS:
        names = [
            name for name in paths if room(name) == own_room and paths[name].stem != "__init__"
        ]
        below = {room(other) for name in names for other in graph[name]} - {own_room}
        arrows = " ".join(sorted(below, key=ROOMS.index))
        lines.append(f"{own_room}" + (f" → {arrows}" if arrows else ""))
        for name in names:
            inside = [_short(other) for other in graph[name] if room(other) == own_room]
            lines.append(f"    {_short(name):14}" + (f" → {' '.join(inside)}" if inside else ""))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _short(module: str) -> str:
    """The name of a module within its room."""
    return module.removeprefix("lwgan.").removeprefix(f"{room(module)}.")


def draw() -> None:
    """Puts the picture into the page on the architecture."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + picture() + END + after)


if __name__ == "__main__":
    if sys.argv[1:] == ["--picture"]:
        draw()
    else:
        print(*report(), sep="\n")
