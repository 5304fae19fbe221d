"""What a text-to-image pipeline of diffusers is, from its configurations and the headers of its files (no torch, no diffusers)."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from generators.diffusion.base import PartFiles, part_files, read_json
from generators.diffusion.weight_files import check_downloaded, read_header
from harness.api import DataMissing, UserError, refuse_malformed

INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that text-to-image does without."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_SAVE = "give a folder that save_pretrained of a text-to-image pipeline wrote"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline folder that can be read, and how."""

    folder: Path
    kind: str
    """Class in ``model_index.json``, such as ``StableDiffusionXLPipeline``."""
    parts: Mapping[str, tuple[str, str]]
    """Every part in use: its library and class."""
    networks: Mapping[str, PartFiles]
    """The weights of those that have any."""
    unused: tuple[str, ...]
    """Parts that are left out."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what differs from files in full precision, a sentence each."""
        forms: dict[str, list[str]] = {}
        for name, files in self.networks.items():
            if files.variant:
                forms.setdefault(files.variant, []).append(name)
        return tuple(f"{variant} weights of {', '.join(names)}" for variant, names in forms.items())


def inspect_pipeline(folder: Path) -> Pipeline:
    """Inspect the folder of a pipeline; nothing is loaded.

    Raises:
        DataMissing: it is no pipeline, or a part is missing or was not downloaded.
        UserError: ``AutoPipelineForText2Image`` cannot load it, it needs code of its own, or a file is damaged.
    """
    with refuse_malformed(folder, _SAVE):
        return _inspected(folder)


def _inspected(folder: Path) -> Pipeline:
    if not (folder / INDEX).is_file() and not (folder / INDEX).is_symlink():
        raise DataMissing(f"{folder} is not a diffusion pipeline", f"it has no {INDEX}", _SAVE)
    index = read_json(folder / INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise _own_code(folder, f"{INDEX} names the class {kind!r}")
    known = text_to_image_classes()
    if known and kind not in known:
        raise UserError(
            f"{folder} is no text-to-image pipeline that can be loaded",
            f"AutoPipelineForText2Image of the installed diffusers has no pipeline for {kind}",
            "give a text-to-image pipeline; a newer diffusers may know this one",
        )
    parts = _parts(folder, index)
    networks = {
        name: found for name, (library, kind) in parts.items() if (found := _inspect(folder / name, library, kind))
    }
    for files in networks.values():
        for file in files.files:
            read_header(file)
    return Pipeline(folder, kind, parts, networks, tuple(name for name in _UNUSED if name in index))


def _parts(folder: Path, index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    found = {}
    for name, named in index.items():
        if name.startswith("_") or not isinstance(named, list) or named == [None, None] or name in _UNUSED:
            continue
        library, kind = named
        if library not in _LIBRARIES:
            raise _own_code(folder, f"{INDEX} takes {name} from {library!r}")
        if not (folder / name).is_dir():
            raise DataMissing(f"{folder} has no {name}", f"{INDEX} names a {kind}, and there is no such folder", _SAVE)
        found[name] = (str(library), str(kind))
    return found


def _own_code(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder} needs code of its own",
        f"{why}; code that comes with a model is never run",
        "give a pipeline whose parts are classes of diffusers and transformers",
    )


def _inspect(folder: Path, library: str, kind: str) -> PartFiles | None:
    """Return the weights of a part; None for a scheduler, a tokenizer or a processor, whose files are looked at."""
    if "Tokenizer" in kind:
        if not any((folder / name).exists() for name in _TOKENIZER_FILES):
            raise DataMissing(
                f"the tokenizer in {folder} cannot be read",
                f"it has none of {', '.join(_TOKENIZER_FILES)}",
                "complete the folder, or save the pipeline again",
            )
        return None
    if not (folder / "config.json").is_file():
        for path in folder.glob("*.json"):
            check_downloaded(path)
        return None
    files = part_files(folder, _STEMS[library])
    if files is None or not files.safetensors:
        raise DataMissing(
            f"no weights in {folder}" if files is None else f"{folder} has pickled weights only",
            "a .safetensors file is read, and nothing else: a pickle may run code",
            "save the pipeline again with save_pretrained, which writes .safetensors",
        )
    return files


@cache
def text_to_image_classes() -> frozenset[str]:
    """Return the pipeline classes that ``AutoPipelineForText2Image`` of the installed diffusers finds a pipeline for.

    Its tables are read as text, since importing them imports every pipeline; empty where they are not found.
    """
    spec = importlib.util.find_spec("diffusers")
    path = Path(spec.origin).parent / "pipelines" / "auto_pipeline.py" if spec and spec.origin else Path()
    if not path.is_file():
        return frozenset()
    tables: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            _read_table(node.targets[0], node.value, tables)
    models = tables.get("AUTO_TEXT2IMAGE_PIPELINES_MAPPING", {})
    return frozenset(kind for table in tables.values() for model, kind in table.items() if model in models)


def _read_table(target: ast.expr, value: ast.expr, tables: dict[str, dict[str, str]]) -> None:
    """Note ``TABLE = OrderedDict([("model", Class), ...])`` and ``TABLE["model"] = Class``."""
    if isinstance(target, ast.Name) and target.id.endswith("PIPELINES_MAPPING"):
        pairs = [node.elts for node in ast.walk(value) if isinstance(node, ast.Tuple) and len(node.elts) == 2]
        tables[target.id] = {
            model.value: kind.id
            for model, kind in pairs
            if isinstance(model, ast.Constant) and isinstance(model.value, str) and isinstance(kind, ast.Name)
        }
    elif (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Name)
        and isinstance(target.slice, ast.Constant)
        and isinstance(value, ast.Name)
    ):
        tables.setdefault(target.value.id, {})[str(target.slice.value)] = value.id
