"""What a base model is, from its configurations and the headers of its files: read while planning, before hours of work (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from generators.diffusion.architecture import CLASSES, check_part
from generators.diffusion.checkpoint_names import CHECKPOINTS, check_checkpoint, has_average
from generators.diffusion.scheduler import check_scheduler
from generators.diffusion.weight_files import WeightFile, check_downloaded, read_header
from harness.api import DataMissing, UserError, refuse_malformed
from harness.api import read_json as read_object

PACKAGED = Path(__file__).parent / "sd15"
"""Configuration of Stable Diffusion 1.5 itself, for checkpoints that come as a single file."""
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Parts with weights, and the stem of their files."""
PICKLED = ".bin (read as tensors only)"
_VARIANTS = ("", "fp16", "bf16")
_TOKENIZER = (("vocab.json", "merges.txt"), ("tokenizer.json",))
_SAVE = "save the pipeline with save_pretrained, or download it whole"
_FAMILIES = {1024: "Stable Diffusion 2", 1280: "SDXL's refiner", 2048: "SDXL", 4096: "Stable Diffusion 3 or DeepFloyd"}
_SD15_BLOCKS = [320, 640, 1280, 1280]


@dataclass(frozen=True)
class PartFiles:
    """The weights of one part of a pipeline folder."""

    files: tuple[Path, ...]
    variant: str
    """``fp16`` for ``*.fp16.safetensors``; empty for the files without a variant."""
    safetensors: bool


@dataclass(frozen=True)
class BaseModel:
    """A base model that can be read, and how."""

    config: Path
    """Folder of the configurations."""
    parts: Mapping[str, PartFiles]
    """The files of each part; empty where all weights are in ``checkpoint``."""
    checkpoint: Path | None
    """A single file with the original names."""
    own_tokenizer: bool
    """Whether the folder has the tokenizer; a single file has none, and CLIP's is used."""
    notes: tuple[str, ...]
    """What differs from a pipeline folder as published, a sentence each; part of the identity of what is made from it."""

    @property
    def layout(self) -> str:
        """Display text of the form."""
        return "single-file checkpoint" if self.checkpoint else "pipeline folder"


_LONGEST_NAME = 255
"""Bytes of a file's name."""


def inspect_base(path: Path) -> BaseModel:
    """Inspect a pipeline folder or a single-file checkpoint; nothing is loaded.

    Raises:
        DataMissing: something is missing, or was not downloaded.
        UserError: it is damaged, or not Stable Diffusion 1.5.
    """
    with refuse_malformed(path, "download the model again, or save it with StableDiffusionPipeline.save_pretrained"):
        return _inspected(path)


def _inspected(path: Path) -> BaseModel:
    if path.is_file() or (path.is_symlink() and not path.exists()):
        return _single(path, PACKAGED, own_tokenizer=False)
    _check_folder(path)
    note = check_scheduler(read_json(path / "scheduler" / "scheduler_config.json"))
    configs = _check_configs(path)
    found = {name: part_files(path / name, stem) for name, stem in STEMS.items()}
    if not any(found.values()) and (single := _only_checkpoint(path)):
        _check_tokenizer(path)
        return _single(single, path, own_tokenizer=True, notes=[note] if note else [])
    parts = {name: each or _no_weights(path / name, name) for name, each in found.items()}
    headers = {name: [read_header(file) for file in part.files] for name, part in parts.items()}
    for name, files in headers.items():
        _check_names(path / name, files)
    _check_shapes(path, headers["unet"], configs["unet"])
    classes = read_json(path / "model_index.json")
    for name in STEMS:
        if classes[name][1] == CLASSES[name]:
            check_part(name, headers[name], configs[name])
    _check_tokenizer(path)
    notes = [*_form_notes(parts), *([note] if note else [])]
    return BaseModel(path, parts, None, True, tuple(notes))


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        DataMissing: it is missing or was not downloaded.
        UserError: it is not a JSON object.
    """
    check_downloaded(path)
    return read_object(path, "download the file again")


def _single(path: Path, config: Path, *, own_tokenizer: bool, notes: Sequence[str] = ()) -> BaseModel:
    header = read_header(path)
    check_checkpoint(header, {name: read_json(config / name / "config.json") for name in STEMS}, config == PACKAGED)
    source = "the packaged one of Stable Diffusion 1.5" if config == PACKAGED else "the folder's"
    said = f"weights from the single file {path.name}, configuration {source}"
    average = ["the UNet's average (model_ema.*), not its raw weights"] if has_average(header) else []
    return BaseModel(config, {}, path, own_tokenizer, (said, *average, *notes))


def _check_folder(root: Path) -> None:
    if not (root / "model_index.json").is_file() and not (root / "model_index.json").is_symlink():
        snapshots = sorted(root.glob("snapshots/*/model_index.json"))
        if snapshots:
            why, fix = (
                "it is the hub's cache of a model, whose versions are below snapshots/",
                f"give {snapshots[0].parent}",
            )
        elif checkpoints := _checkpoints(root):
            why = f"it has no model_index.json, but {checkpoints[0].name}"
            fix = f"give the file itself: {checkpoints[0]}"
        else:
            why, fix = (
                "it has no model_index.json",
                "point at a folder written by StableDiffusionPipeline.save_pretrained",
            )
        raise DataMissing(f"{root} is not a diffusion pipeline", why, fix)
    index = read_json(root / "model_index.json")
    kind = str(index.get("_class_name"))
    for part, other in (
        ("text_encoder_2", "SDXL"),
        ("transformer", "a transformer such as Stable Diffusion 3"),
        ("prior", "a cascade"),
    ):
        if part in index and index[part] != [None, None]:
            _other_model(root, f"model_index.json names a {kind} with {part}: {other}")
    if not kind.startswith("StableDiffusion") or "XL" in kind or "StableDiffusion3" in kind:
        _other_model(root, f"model_index.json names a {kind}")
    for name in (*STEMS, "tokenizer", "scheduler"):
        library = (index.get(name) or ["", ""])[0]
        if library not in {"diffusers", "transformers"} or not (root / name).is_dir():
            why = (
                f"model_index.json says {index.get(name)!r}" if (root / name).is_dir() else f"there is no folder {name}"
            )
            raise DataMissing(f"{root} has no usable {name}", why, _SAVE)


def _other_model(root: Path, why: str) -> NoReturn:
    raise UserError(
        f"{root} is not Stable Diffusion 1.5", why, "give Stable Diffusion 1.5, or a model with its architecture"
    )


def _check_configs(root: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations of the parts, which must belong together."""
    configs = {name: read_json(root / name / "config.json") for name in STEMS}
    unet, text = configs["unet"], configs["text_encoder"]
    text = text.get("text_config", text) if "hidden_size" not in text else text
    width, channels = unet.get("cross_attention_dim", 1280), unet.get("in_channels", 4)
    if channels in (8, 9):
        _other_model(root, f"its UNet takes {channels} channels: {'inpainting' if channels == 9 else 'image editing'}")
    if width in _FAMILIES or (unet.get("block_out_channels") == _SD15_BLOCKS and width != 768):
        family = _FAMILIES.get(width, "another model")
        _other_model(
            root, f"its UNet attends to text features of width {width} ({family}), Stable Diffusion 1.5's to 768"
        )
    if width != text.get("hidden_size"):
        _other_model(
            root,
            f"its UNet attends to text features of width {width}, its text encoder makes {text.get('hidden_size')}",
        )
    if configs["vae"].get("latent_channels", 4) != channels:
        _other_model(
            root,
            f"its autoencoder has {configs['vae'].get('latent_channels')} latent channels, its UNet takes {channels}",
        )
    return configs


def part_files(folder: Path, stem: str) -> PartFiles | None:
    """Return the weights of a part: full precision before half, safetensors before pickles."""
    pickled = "pytorch_model" if stem == "model" else stem
    for variant in _VARIANTS:
        for safe, name, suffix in ((True, stem, "safetensors"), (False, pickled, "bin")):
            single = folder / ".".join(filter(None, (name, variant, suffix)))
            index = folder / ".".join(filter(None, (name, suffix, "index", variant, "json")))
            if single.is_file() or single.is_symlink():
                return PartFiles((single,), variant, safe)
            if index.is_file() or index.is_symlink():
                return PartFiles(listed_shards(index, read_json(index)), variant, safe)
    return None


def _names_a_file(name: str) -> bool:
    encoded = name.encode(errors="replace")
    return Path(name).name == name and "\0" not in name and encoded.decode() == name and len(encoded) <= _LONGEST_NAME


def listed_shards(index: Path, content: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the files that an index of weights lists, which lie beside it.

    Raises:
        UserError: it lists none, or files elsewhere.
    """
    listed = content.get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, Mapping) else []
    odd = [name for name in names if not _names_a_file(name)]
    if odd or not names:
        why = f"it names {odd[0][:80]!r}" if odd else "it has no weight_map"
        raise UserError(f"{index} does not list files beside it", why, "download the model again")
    return tuple(index.parent / name for name in names)


def _no_weights(folder: Path, name: str) -> NoReturn:
    there = sorted(each.name for each in folder.iterdir() if each.suffix not in (".json", ".md", ".txt"))
    why = f"its files are {', '.join(there[:4])}" if there else "it holds a configuration only"
    stem = STEMS[name]
    raise DataMissing(
        f"no weights in {folder}", why, f"fetch {stem}.safetensors or {stem}.fp16.safetensors of this part"
    )


def _checkpoints(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.suffix in CHECKPOINTS)


def _only_checkpoint(root: Path) -> Path | None:
    """Return the single file beside configurations without weights, if there is one."""
    found = _checkpoints(root)
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UserError(
            f"{root} holds several checkpoints", names, "keep one of them there, or give the path of the file itself"
        )
    return found[0] if found else None


def _check_names(folder: Path, files: Sequence[WeightFile]) -> None:
    """Refuse weights with an adapter in them: libraries leave such layers at random values with a warning."""
    for file in files:
        if adapters := file.having(".base_layer.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up."):
            raise UserError(
                f"{file.path} was saved while a LoRA was loaded",
                f"{len(adapters)} names belong to an adapter, such as {adapters[0]}; fused or not cannot be told from them",
                "load the pipeline that it was made from, call fuse_lora() if the LoRA is wanted, then unload_lora_weights(), "
                "and save_pretrained()",
            )
        if original := file.below("model.diffusion_model.", "first_stage_model.", "cond_stage_model."):
            raise UserError(
                f"{file.path} is a single-file checkpoint",
                f"it has the original names, such as {original[0]}",
                "give the file itself as the base, outside the folder of a part",
            )


def _check_shapes(root: Path, files: Sequence[WeightFile], unet: Mapping[str, Any]) -> None:
    """Compare what the UNet's file says of its inputs with the configuration."""
    wanted = {"conv_in.weight": unet.get("in_channels", 4), "attn2.to_k.weight": unet.get("cross_attention_dim", 1280)}
    for file in files:
        for ending, size in wanted.items():
            for name in file.having(ending):
                shape = file.shapes[name]
                if shape is not None and name.endswith(ending) and len(shape) > 1 and shape[1] != size:
                    _other_model(
                        root, f"{name} in {file.path.name} takes {shape[1]} channels, its configuration says {size}"
                    )


def _check_tokenizer(root: Path) -> None:
    folder = root / "tokenizer"
    complete = next((names for names in _TOKENIZER if all((folder / name).exists() for name in names)), None)
    if complete is None:
        missing = [name for name in _TOKENIZER[0] if not (folder / name).exists()]
        raise DataMissing(
            f"the tokenizer in {root} cannot be read",
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, and there is no tokenizer.json",
            "complete the tokenizer folder (vocab.json and merges.txt, or tokenizer.json), or save the pipeline again",
        )
    for path in sorted(each for each in folder.iterdir() if each.suffix in (".json", ".txt")):
        check_downloaded(path)


def _form_notes(parts: Mapping[str, PartFiles]) -> list[str]:
    forms: dict[str, list[str]] = {}
    for name, part in parts.items():
        form = " ".join(filter(None, (part.variant, "" if part.safetensors else PICKLED)))
        if form:
            forms.setdefault(form, []).append(name)
    return [f"{form} weights of {', '.join(names)}" for form, names in forms.items()]
