"""The command line as a user meets it: quick answers, three-part errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from tests.harness.conftest import Run

NO_TORCH = """
import sys
sys.argv = ["harness", *sys.argv[1:]]
from harness.cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
heavy = [name for name in ("torch", "pandas", "sklearn", "scipy", "diffusers") if name in sys.modules]
print(f"HEAVY={heavy} CODE={code}", file=sys.stderr)
"""


def answer_without_torch(arguments: list[str], cwd: Path) -> str:
    """Hold a command to no heavy import; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments], capture_output=True, text=True, cwd=cwd, timeout=100, check=False
    )
    assert done.stderr.strip().splitlines()[-1] == "HEAVY=[] CODE=0", done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["plan", "--generator", "all", "--suite", "all"],
        ["describe", "lbgen"],
        ["describe", "texture-bias"],
        ["describe", "in100"],
        ["leaderboard", "--format", "csv"],
        ["leaderboard", "--format", "html"],
        ["list", "--json"],
        ["--help"],
    ],
)
def test_light_commands_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    assert len(answer_without_torch(arguments, tmp_path)) > 100


@pytest.mark.parametrize("arguments", [["list"], ["plan", "--generator", "all"]])
def test_commands_that_compute_nothing_load_neither_numpy_nor_pillow(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from harness.cli.main import main\n"
        "try: main()\n"
        "finally: print([name for name in ('numpy', 'PIL', 'rich', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["run", "--generator", "lbgenn"],
            2,
            ["unknown generator 'lbgenn'", "did you mean 'lbgen'", "harness list generators"],
        ),
        (["run", "--generator", "real", "--suite", "shape"], 2, ["unknown suite 'shape'", "harness list suites"]),
        (["run", "--generator", "real", "--profile", "mikro"], 2, ["unknown profile 'mikro'", "did you mean 'micro'"]),
        (["run", "--generator", "real", "--set", "dataset.chunks=2"], 2, ["no setting", "dataset.chunks", "chunk"]),
        (
            ["run", "--generator", "lbgen", "--set", "generators.lbgen.wait_q=0"],
            2,
            ["wait_q", "did you mean", "weight_q"],
        ),
        (["run", "--generator", "lbgen", "--set", "generators.lbgen.rank=many"], 2, ["rank", "integer", "many"]),
        (["run", "--generator", "real", "--set", "nonsense"], 2, ["KEY=VALUE"]),
        (["run", "--generator", "real", "--data", "dtd"], 2, ["NAME=PATH"]),
        (["run", "--generator", "real", "--backbone", "resnet11"], 2, ["unknown backbone", "resnet10"]),
        (["run"], 2, ["nothing to measure"]),
        (
            ["run", "--checkpoint", "baseline:constant:n04285008", "--suite", "bias"],
            4,
            [
                "implied by class n04285008",
                "not run: texture-bias",
                "nothing was run",
                "--data NAME=PATH",
                "--profile micro",
            ],
        ),
        (["plan", "--generator", "lbgn-*"], 2, ["no generator matches 'lbgn-*'", "lbgen-no-q", "--generator 'lbgn-*'"]),
        (["store", "ls", "--store", "/nowhere"], 4, ["/nowhere does not exist"]),
        (["store", "gc", "--store", "/nowhere"], 4, ["/nowhere does not exist"]),
        (["run", "--checkpoint", "w.pth"], 2, ["--arch", "--classes"]),
        (["run", "--checkpoint", "w.pth", "--arch", "resnet50", "--classes", "imagenet1k"], 4, ["does not exist"]),
        (["run", "--checkpoint", "baseline:constent"], 2, ["unknown baseline", "did you mean 'constant'"]),
        (
            ["run", "--checkpoint", "w.pth", "--arch", "a", "--classes", "micro", "--normalisation", "imagnet"],
            2,
            ["imagenet"],
        ),
        (
            ["run", "--generator", "real", "--suite", "in-domain", "--data", "train=/nowhere"],
            4,
            ["not run", "/nowhere"],
        ),
        (
            [
                "run",
                "--profile",
                "in100",
                "--generator",
                "realfake",
                "--suite",
                "in-domain",
                "--data",
                "realfake=/nowhere",
            ],
            4,
            ["not run: generator realfake:", "/nowhere is not a folder"],
        ),
        (
            ["run", "--profile", "in100", "--generator", "realfake", "--suite", "in-domain"],
            4,
            ["note: realfake -> realfake-reimpl: no folder given", "not run: generator realfake-reimpl"],
        ),
        (["run", "--generator", "rotten"], 2, ["broken", "a_package_that_does_not_exist"]),
        (["describe", "lbgen:x"], 2, ["unknown name 'lbgen:x'", "no generator, suite, group, metric or profile"]),
        (["describe", "lbgn"], 2, ["lbgn", "did you mean 'lbgen'"]),
        (["leaderboard", "--format", "xls"], 2, ["xls", "csv"]),
        (["leaderboard", "/nowhere", "/neither"], 4, ["/nowhere", "does not exist"]),
        (["compare", "lbgen", "sd15", "--store", "/nowhere"], 4, ["/nowhere", "does not exist"]),
        (["gate", "/nowhere", "--baseline", "none"], 4, ["/nowhere", "does not exist"]),
        (["rescore", "/nowhere"], 4, ["no results"]),
        (["list", "things"], 2, ["things"]),
    ],
)
def test_user_errors_have_three_parts_and_no_traceback(
    harness: Run, arguments: list[str], code: int, words: list[str]
) -> None:
    done = harness(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    if code == 2:
        assert "error: " in done.stderr and "  why: " in done.stderr and "  fix: " in done.stderr


def test_a_broken_plugin_is_listed_and_harms_no_other(harness: Run) -> None:
    done = harness("list", "generators", "--json")
    rows = {row["id"]: row["summary"] for row in json.loads(done.stdout)["generators"]}
    assert "BROKEN" in rows["rotten"] and "a_package_that_does_not_exist" in rows["rotten"]
    assert rows["noise"] == "Noise." and "[toys]" in rows["dots"] and "lbgen" in rows


def test_groups_expand_and_all_leaves_out_what_is_not_default(harness: Run, plugins: Path) -> None:
    def generators_of(text: str) -> set[str]:
        done = harness(
            "plan", "--json", "--generator", text, "--suite", "brightness", "--profile", str(plugins / "toy.toml")
        )
        assert done.returncode == 0, done.stderr
        return {
            cell["label"].split()[0]
            for cell in json.loads(done.stdout)["cells"]
            if cell["folder"].startswith("synthesise")
        }

    assert generators_of("toys") == {"dots"}
    assert generators_of("noise,toys") == {"noise", "dots"}
    assert "noise" in generators_of("all") and "dots" not in generators_of("all")


def test_doctor_warns_of_shadowing_folders(harness: Run, tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "x.py").write_text("")
    done = harness("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert found["working directory"]["status"] == "warning" and "suites" in found["working directory"]["text"]
    assert found["generator rotten"]["status"] == "warning" and found["torch, torchvision"]["status"] == "ok"


def test_every_help_fits_80_columns_and_ends_with_two_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("run", "plan", "status", "list", "describe", "check", "doctor", "leaderboard", "compare", "gate", "rescore",
                "verify", "calibrate", "store ls", "store gc")  # fmt: skip
    for command in commands:
        done = CliRunner().invoke(app, [*command.split(), "--help"])
        assert done.exit_code == 0 and done.output.count(f"python -m harness {command}") >= 2, done.output
        assert max(map(len, done.output.splitlines())) <= 80
    overview = CliRunner().invoke(app, ["--help"]).output
    assert "..." not in overview.partition("Commands:")[2], "the first sentence of each command is shown whole"
    assert all(f"\n  {command.split()[0]} " in overview for command in commands)


def test_ctrl_c_in_any_command_ends_with_a_message_and_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.describe.show_list", pressed)
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 130 and "interrupted: finished work is kept" in done.output
