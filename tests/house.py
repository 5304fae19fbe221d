"""The layout of the project: rooms, floors, the rules between them, and a drawing (``python -m tests.house``).

``--update`` puts the drawing into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("stats", "images", "microworld"),
    ("backbones", "store"),
    ("plugins",),
    ("plan",),
    ("run",),
    ("results", "conformance", "api", "classifiers"),
    ("cli",),
    ("__init__", "__main__"),
)
"""Rooms of ``harness`` from the ground up; a room imports rooms of lower floors only."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
PACKAGES = ("harness", "generators", "suites", "leaderboard")
PLUGINS = ("generators", "suites", "dotted")
BOARD = re.compile(r"harness\.(store\.records|stats\.\w+|core\.\w+)$")
"""What ``leaderboard`` may import of the harness."""
WORLD = ("harness.cli.calibrate", "generators.world")
"""The modules that may import the embedded world; profiles name it in strings."""


@dataclass(frozen=True)
class Import:
    """One module imports another, anywhere in its file: at the top, in a function, for type checkers only."""

    importer: str
    imported: str


def modules(root: Path) -> dict[str, Path]:
    """Return dotted name to file of every module below ``root`` that belongs to the project or the example plugin."""
    found = {}
    for base, package in (*((root, each) for each in PACKAGES), (root / "tests" / "plugin_package", "dotted")):
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(files: Mapping[str, Path]) -> Iterator[Import]:
    """Yield the imports among the modules; ``from package import name`` counts as the module ``name`` if there is one."""
    for importer, path in files.items():
        package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                taken = [a.name for a in node.names if a.name != "__version__"]  # a constant, set before anything else
                names = [f"{base}.{name}" if f"{base}.{name}" in files else base for name in taken]
            for name in dict.fromkeys(names):
                if name in files and name != importer:
                    yield Import(importer, name)


def room(module: str) -> str:
    """Return the room of a module: a package of ``harness``, or a package beside it."""
    top, _, rest = module.partition(".")
    return (rest.partition(".")[0] or "__init__") if top == "harness" else top


def problems(root: Path) -> list[str]:
    """Return every breach of the rules, one line each."""
    files = modules(root)
    found = list(imports(files))
    lines = [line for each in found for line in _breaches(each)]
    lines += [f"{name}: the room {room(name)!r} is on no floor" for name in files if _homeless(name)]
    return lines + [f"circle: {' <-> '.join(sorted(circle))}" for circle in circles(found)]


def _homeless(module: str) -> bool:
    return module.startswith("harness.") and room(module) not in (*FLOOR, "profiles", "class_lists")


def _breaches(each: Import) -> Iterator[str]:
    arrow = f"{each.importer} imports {each.imported}"
    source, target = each.importer.partition(".")[0], each.imported.partition(".")[0]
    here, there = room(each.importer), room(each.imported)
    if source == "harness" and target != "harness":
        yield f"{arrow}: the harness finds plugins and the leaderboard through the registry"
    if source == target == "harness" and here != there and FLOOR.get(here, 0) <= FLOOR.get(there, 0):
        yield f"{arrow}: floor {FLOOR.get(here)} may import lower floors only, {there} is on floor {FLOOR.get(there)}"
    if there == "microworld" and here != "microworld":
        if each.importer not in WORLD:
            yield f"{arrow}: only {' and '.join(WORLD)} import the embedded world"
    elif source in PLUGINS and target == "harness" and each.imported != "harness.api":
        yield f"{arrow}: plugins import harness.api only"
    if source in PLUGINS and target not in (source, "harness"):
        yield f"{arrow}: plugins of one kind do not import those of another"
    if source == "leaderboard" and target != source and not BOARD.match(each.imported):
        yield f"{arrow}: leaderboard imports harness.store.records, harness.stats.* and harness.core.* only"


def circles(found: list[Import]) -> list[set[str]]:
    """Return the sets of modules that import each other in a circle (strongly connected components, Tarjan)."""
    after: dict[str, list[str]] = defaultdict(list)
    for each in found:
        after[each.importer].append(each.imported)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in after.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(stack) - place > 1:
                result.append(set(stack[place:]))
            del stack[place:]

    for node in list(after):
        if node not in index:
            visit(node)
    return result


def drawing(root: Path = ROOT) -> str:
    """Return the rooms by floor, the highest first, with the number of imports from each room into each other."""
    arrows = Counter((room(each.importer), room(each.imported)) for each in imports(modules(root)))
    place = FLOOR | dict.fromkeys((*PLUGINS, "leaderboard"), FLOOR["api"] + 1)
    lines = []
    for floor in range(len(FLOORS), 0, -1):
        for here in [name for name, number in place.items() if number == floor]:
            below = [(there, n) for (first, there), n in arrows.items() if first == here and there != here]
            words = ", ".join(f"{there} {n}" for there, n in sorted(below, key=lambda each: (-place[each[0]], each[0])))
            lines.append(f"{floor}  {here:<12} -> {words or '-'}")
    between = [(a, b) for a, b in arrows if a != b]
    upward = sum(place[a] <= place[b] for a, b in between)
    loops = len(circles(list(imports(modules(root)))))
    lines.append(f"{len(place)} rooms, {len(between)} arrows, {upward} upward, {loops} circles between modules")
    return "\n".join(lines)


def shown(page: str) -> str:
    """Return the drawing that a page shows."""
    (block,) = [code for code in re.findall(r"```\n(.*?)\n```", page, re.S) if "upward" in code]
    return block


if __name__ == "__main__":
    print(drawing())
    if sys.argv[1:] == ["--update"]:
        page = ROOT / "CONTRIBUTING.md"
        text = page.read_text("utf-8")
        page.write_text(text.replace(shown(text), drawing()), "utf-8")
