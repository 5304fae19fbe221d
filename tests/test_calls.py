"""Calls that could run what a file says, or write where an archive says, stand in named places only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "generators", "suites", "leaderboard")
FORBIDDEN = frozenset({
    "eval", "exec", "__import__", "os.system", "os.popen", "shutil.unpack_archive", "pickle.load", "pickle.loads", "joblib.load",
    "dill.load", "cloudpickle.load", "marshal.loads", "marshal.load", "shelve.open", "yaml.load", "yaml.full_load", "yaml.unsafe_load",
    "pandas.read_pickle", "pd.read_pickle", "torch.hub.load", "torch.jit.load", "zlib.decompress", "lzma.decompress",
    "bz2.decompress",
})  # fmt: skip
ENDINGS = frozenset({"extractall", "extract", "unpack_archive", "read_pickle"})
"""Methods that write where an archive says, or unpickle."""
PLACES = {
    "Image.open": {"harness/images/decode.py"},
    "zipfile.ZipFile": {"harness/backbones/files.py", "harness/core/clip_files.py", "harness/core/intact.py", "harness/core/resume.py",
                        "harness/stats/units_file.py", "generators/diffusion/weight_files.py"},
    "tarfile.open": {"harness/images/archives.py", "harness/images/shards.py", "leaderboard/exchange/datasets.py"},
    "gzip.decompress": {"generators/diffusion/single_file.py"},
    "gzip.GzipFile": {"harness/core/limits.py"},
    "load_attribute": {"harness/backbones/loaded.py", "harness/cli/datacheck.py", "harness/plan/builder.py", "harness/run/facts.py",
                       "harness/run/job.py", "harness/store/data.py", "generators/realfake/captions.py", "suites/generated_correlation.py"},
    "importlib.import_module": {"harness/api.py", "harness/backbones/model_identity.py", "harness/core/bytecode.py",
                                "harness/core/closure.py", "harness/core/code.py", "harness/core/lazy.py",
                                "generators/diffusion/pipeline.py",
                                "generators/diffusion/text_to_image.py"},
    "import_module": {"harness/__init__.py", "suites/transfer/readers/__init__.py"},
}  # fmt: skip
"""Calls that are allowed, and where: each of these places was read for what it opens or imports (docs/security.md)."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield file, dotted name and node of every call in the packages."""
    for path in sorted(each for package in PACKAGES for each in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


CALLS = list(calls())


def keyword(node: ast.Call, name: str) -> str:
    """Return the source of a keyword argument; empty where there is none."""
    return next((ast.unparse(each.value) for each in node.keywords if each.arg == name), "")


def test_nothing_unpickles_evaluates_or_extracts() -> None:
    found = [(file, name) for file, name, _ in CALLS if name in FORBIDDEN or name.rpartition(".")[2] in ENDINGS]
    assert not found


def test_no_command_goes_through_a_shell() -> None:
    assert not [(file, name) for file, name, node in CALLS if keyword(node, "shell") not in ("", "False")]


@pytest.mark.parametrize("name", PLACES)
def test_calls_that_open_or_import_stand_in_named_places(name: str) -> None:
    assert {file for file, called, _ in CALLS if called == name} == PLACES[name]


def test_weights_are_loaded_as_tensors() -> None:
    """One place reads more than `weights_only` does, with an unpickler that looks up nothing."""
    loads = [(file, node) for file, name, node in CALLS if name == "torch.load"]
    other = [(file, keyword(node, "pickle_module")) for file, node in loads if keyword(node, "weights_only") != "True"]
    assert len(loads) >= 6 and other == [("harness/backbones/files.py", "reader")]


def test_arrays_are_loaded_without_objects() -> None:
    loads = [(file, node) for file, name, node in CALLS if name in ("np.load", "numpy.load")]
    assert loads and not [file for file, node in loads if keyword(node, "allow_pickle") not in ("", "False")]


def test_classes_that_a_model_may_bring_along_are_never_loaded() -> None:
    """``Auto`` classes take code from beside the weights if they may, and ask on a terminal if nobody says."""
    automatic = [
        (file, node) for file, name, node in CALLS if re.fullmatch(r"Auto(?!encoder)\w+\.from_pretrained", name)
    ]
    assert len(automatic) >= 4 and not [
        file for file, node in automatic if keyword(node, "trust_remote_code") != "False"
    ]
    assert not [file for file, _, node in CALLS if keyword(node, "trust_remote_code") == "True"]
