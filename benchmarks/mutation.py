"""Mutation testing of the code that makes numbers: mutmut on a copy of the tree; the result is docs/mutation.md.

    python benchmarks/mutation.py run [K]           run every K-th mutant, in the order of files and lines; all by default
    python benchmarks/mutation.py again             run the survivors once more, after tests were added
    python benchmarks/mutation.py report            write docs/mutation.md; judgements that stand there are kept

Two changes to mutmut. It leaves functions with decorators alone (properties, ``torch.no_grad``), so in the copy ``@d def f`` is
written as ``def f`` and ``f = d(f)``, which means the same. Strings are not mutated: most are messages and names of methods.
The tests that run for a mutant are those that call its function, the fastest first (configuration: pyproject.toml).
"""

from __future__ import annotations

import ast
import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "mutation"
REPORT = ROOT / "docs" / "mutation.md"
AREAS = {"harness/stats": "statistics", "generators/lbgen/sampler": "sampler", "generators/lbgen": "losses",
         "suites/transfer/metrics": "metrics", "suites/transfer": "solver", "suites": "metrics", "leaderboard": "gate"}  # fmt: skip
"""Start of a path -> area; the first that fits."""
SURVIVED, NO_TEST = "survived", "no test"
STATUS = {0: SURVIVED, 33: NO_TEST, 5: NO_TEST}  # every other exit code: killed, by a test, a crash or the time limit
OPEN = "not judged"
AROUND = 40
"""Characters shown on either side of a change."""
COMMIT = "commit.txt"
"""In the copy: what it is a copy of."""


def mutated(module: str) -> bool:
    """Return whether a file is to be mutated."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    wanted, unwanted = (
        any(fnmatch(module, glob) for glob in settings[name]) for name in ("only_mutate", "do_not_mutate")
    )
    return wanted and not unwanted


def area_of(module: str) -> str:
    """Return the area of a file."""
    return next(area for start, area in AREAS.items() if module.startswith(start))


def copy_tree() -> None:
    """Copy the tracked files; those that are to be mutated get their decorators written as calls."""
    listed, commit = (
        subprocess.run(["git", *what], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for what in (("ls-files", "-z"), ("describe", "--always", "--dirty"))
    )
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, COPY / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        if mutated(name):
            content = undecorated(content.decode()).encode()
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)
    (COPY / COMMIT).write_text(commit.strip())


def undecorated(code: str) -> str:
    """Return code in which ``@d`` above a function is an assignment ``f = d(f)`` below it."""
    import libcst

    class Rewrite(libcst.CSTTransformer):
        def leave_FunctionDef(self, original_node, updated_node):  # type: ignore[no-untyped-def]
            names = [libcst.Module([]).code_for_node(one.decorator) for one in updated_node.decorators]
            if not names or set(names) <= {"staticmethod", "classmethod"}:
                return updated_node
            name = updated_node.name.value
            call = f"{name} = {'('.join(names)}({name}{')' * len(names)}\n"
            return libcst.FlattenSentinel([updated_node.with_changes(decorators=[]), libcst.parse_statement(call)])

    return libcst.parse_module(code).visit(Rewrite()).code


def mutmut(names: Sequence[str], every: int = 1) -> None:
    """Run mutmut in the copy, in this process, without mutants of strings.

    Args:
        names: Mutants to run; none: all that have not been run.
        every: Of all, take every so many.
    """
    sys.path[0] = str(COPY / "mutants")  # not this folder: its coverage.py is no package of mutmut's
    from mutmut import __main__ as program
    from mutmut.mutation import mutators

    mutators.mutation_operators[:] = [
        pair for pair in mutators.mutation_operators if pair[1] is not mutators.operator_string
    ]
    collect = program.collect_source_file_mutation_data

    def sampled(**options: object) -> tuple[list[object], object]:
        mutants, data = collect(**options)
        return mutants[::every], data

    program.collect_source_file_mutation_data = sampled
    os.chdir(COPY)
    program.cli(["run", "--max-children", "1", *names], standalone_mode=False)


def results() -> Iterator[tuple[str, str, int | None]]:
    """Yield (file, name of the mutant, exit code of its tests)."""
    for path in sorted((COPY / "mutants").rglob("*.py.meta")):
        module = path.relative_to(COPY / "mutants").as_posix().removesuffix(".meta")
        for name, code in json.loads(path.read_text())["exit_code_by_key"].items():
            yield module, name, code


@cache
def functions(module: str) -> dict[str, ast.FunctionDef]:
    """Return the functions of a file with all its mutants, by name."""
    code = (COPY / "mutants" / module).read_text()
    return {node.name: node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}


def change_of(module: str, name: str) -> tuple[str, str, str]:
    """Return the function of a mutant, the code it changes and what it makes of it, with a few words around."""
    function, number = re.fullmatch(r"(.+)__mutmut_(\d+)", name.rpartition(".")[2]).groups()  # type: ignore[union-attr]
    old, new = (text_of(functions(module)[f"{function}__mutmut_{kind}"]) for kind in ("orig", number))
    start = shared(old, new)
    end = min(shared(old[::-1], new[::-1]), min(len(old), len(new)) - start)
    left, right = max(0, start - AROUND), max(0, end - AROUND)
    sides = (side[left : len(side) - right].strip().replace("\n", " ; ") for side in (old, new))
    return function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", "."), *sides


def shared(first: str, second: str) -> int:
    """Return how many characters two texts have in common at their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def text_of(function: ast.FunctionDef) -> str:
    """Return the code of a function without its name and docstring."""
    body = [
        node for node in function.body if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)
    ]
    lines = ast.unparse(ast.Module(body, [])).splitlines()
    return "\n".join([f"({ast.unparse(function.args)})", *map(str.strip, lines)])


def judged() -> dict[tuple[str, ...], str]:
    """Return what the report says of survivors: (file, function, line, changed line) -> judgement."""
    rows = [re.split(r"(?<!\\) \| ", line.strip("| \n")) for line in REPORT.read_text().splitlines() if line.startswith("| `")] \
        if REPORT.is_file() else []  # fmt: skip
    return {tuple(cell.strip("`") for cell in row[:4]): row[4] for row in rows if len(row) == 5}


def report() -> None:
    """Write docs/mutation.md."""
    before, counts, rows, every = judged(), {}, [], list(results())
    run = [each for each in every if each[2] is not None]
    for module, name, code in run:
        status = STATUS.get(code, "killed")
        if status != "killed":
            key = tuple(each.replace("|", "\\|") for each in (module, *change_of(module, name)))
            judgement = before.get(key, OPEN)
            status = "equivalent" if judgement.startswith("equivalent") else SURVIVED
            rows.append(f"| {' | '.join(f'`{each}`' for each in key)} | {judgement} |")
        counts.setdefault(module, Counter())[status] += 1
    REPORT.write_text(page((COPY / COMMIT).read_text(), f"{len(run)} of {len(every)}", counts, rows))
    print(REPORT.read_text().split("## Mutants")[0])


def page(commit: str, share: str, counts: dict[str, Counter[str]], rows: Sequence[str]) -> str:
    """Return the text of the report."""
    areas = {area: [module for module in counts if area_of(module) == area] for area in dict.fromkeys(AREAS.values())}
    lines = [
        "| area | modules | mutants | killed | equivalent | survived | kill rate |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for area, modules in [*areas.items(), ("all", list(counts))]:
        count = sum((counts[module] for module in modules), Counter())
        real = sum(count.values()) - count["equivalent"]
        rate = f"{100 * count['killed'] / real:.1f} %" if real else "–"
        names = ", ".join(f"`{module}`" for module in modules) if area != "all" else ""
        numbers = (sum(count.values()), count["killed"], count["equivalent"], count[SURVIVED])
        lines.append(f"| {area} | {names} | {' | '.join(map(str, numbers))} | {rate} |")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return HEAD.format(commit=commit, date=today, share=share, table="\n".join(lines)) + "\n".join(rows) + "\n"


HEAD = """# Mutation report

How often would a test notice a changed formula? [mutmut](https://github.com/boxed/mutmut) changes one operator, number, argument,
assignment or condition at a time in the code that makes numbers and runs the tests that call the changed function. `make mutation`
does it again; what it changes about mutmut stands in `benchmarks/mutation.py`. Strings, and constants outside of functions, are
not changed.

Commit {commit}, {date}; {share} mutants were run. The kill rate leaves out mutants that change no result ("equivalent").

{table}

## Mutants that no test noticed

Each with its judgement: *equivalent* changes no result that anybody can see; *survived* would, and no test says so.

| file | function | line | became | judgement |
|---|---|---|---|---|
"""


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument says."""
    command = arguments[0]
    if command == "report":
        return report()
    copy_tree()
    if command == "again":
        return mutmut([name for _, name, code in results() if code in STATUS])
    mutmut([], int(arguments[1]) if arguments[1:] else 1)


if __name__ == "__main__":
    main(sys.argv[1:] or ["run"])
