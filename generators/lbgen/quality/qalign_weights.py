"""Weights and vocabulary of a Q-ALIGN folder, read strictly by name. Nothing in the folder is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from generators.diffusion.base import listed_shards, read_json
from generators.lbgen.quality.levels import (
    BOS_TOKEN_ID,
    CHUNK_AFTER_IMAGE,
    CHUNK_BEFORE_IMAGE,
    LEVEL_TOKEN_IDS,
    LEVELS,
    TOKENS_AFTER_IMAGE,
    TOKENS_BEFORE_IMAGE,
)
from generators.lbgen.quality.qalign_model import QAlignModel
from generators.lbgen.quality.qalign_vision import AbstractorAttention
from harness.api import DataMissing, UserError, parse_json

# Old exports store this table, which follows from the config.
IGNORED_SUFFIX = "rotary_emb.inv_freq"
_VARINT_BITS = 70
_SPACE = "\u2581"


def load_weights(model: QAlignModel, folder: Path, *, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a model built on the meta device from the shards of a folder, one shard at a time.

    Every key must be known, have the model's shape and occur once; every parameter must be found. The fixed
    position tables of the abstractor are computed when the folder leaves them out.

    Args:
        model: Model on the meta device.
        folder: Folder with safetensors or bin shards.
        device: Where the weights go.
        dtype: What they are cast to.
    """
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    seen: set[str] = set()
    for shard in find_shards(folder):
        part: dict[str, Tensor] = {}
        for key, tensor in _read_shard(shard):
            if key.endswith(IGNORED_SUFFIX):
                continue
            _check_key(key, tensor, wanted, seen, shard)
            seen.add(key)
            part[key] = tensor.to(device=device, dtype=dtype)
        model.load_state_dict(part, strict=False, assign=True)
    tables = {key: value.to(device=device, dtype=dtype) for key, value in position_tables(model).items()}
    tables = {key: value for key, value in tables.items() if key not in seen}
    model.load_state_dict(tables, strict=False, assign=True)
    missing = sorted(set(wanted) - seen - set(tables))
    if missing:
        names = ", ".join(missing[:3])
        raise UserError(
            f"weights missing in {folder}",
            f"{len(missing)} of {len(wanted)} keys, such as {names}",
            "fetch all shards of the published model",
        )
    model.requires_grad_(False)


def position_tables(model: QAlignModel) -> dict[str, Tensor]:
    """Return the computed position tables of the abstractor by state-dict key."""
    return {
        f"{name}.{key}": table
        for name, module in model.named_modules()
        if isinstance(module, AbstractorAttention)
        for key, table in module.position_tables().items()
    }


def find_shards(folder: Path) -> list[Path]:
    """Return the weight files of a folder: those an index names, else those with a usual name.

    Args:
        folder: Model folder; safetensors are preferred to bin files.

    Returns:
        Existing paths, sorted.
    """
    for index_name, pattern in (
        ("model.safetensors.index.json", "model*.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        index = folder / index_name
        if index.is_file():
            shards = list(listed_shards(index, read_json(index)))
        else:
            shards = sorted(folder.glob(pattern))
        absent = [path.name for path in shards if not path.is_file()]
        if absent:
            raise DataMissing(
                f"weight shards missing in {folder}",
                f"{index_name} names {', '.join(absent)}",
                "fetch the missing shards",
            )
        if shards:
            return shards
    raise DataMissing(
        f"no weights in {folder}",
        "no model*.safetensors and no pytorch_model*.bin",
        "give the model's folder",
    )


def _read_shard(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as handle:
                for key in handle.keys():  # noqa: SIM118 (the handle is no mapping)
                    yield key, handle.get_tensor(key)
            return
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as err:  # unpicklers and safetensors raise many kinds for a truncated or foreign file
        raise UserError(f"cannot read weights {path}", str(err), "fetch the file again") from err
    yield from content.items()


def _check_key(key: str, tensor: Tensor, wanted: dict[str, torch.Size], seen: set[str], shard: Path) -> None:
    if key not in wanted:
        why = f"key {key!r} is not part of the model"
    elif key in seen:
        why = f"key {key!r} occurs twice"
    elif tensor.shape != wanted[key]:
        why = f"key {key!r} has shape {tuple(tensor.shape)}, the config implies {tuple(wanted[key])}"
    elif not tensor.is_floating_point():
        why = f"key {key!r} has dtype {tensor.dtype}; quantised weights are not supported"
    else:
        return
    raise UserError(
        f"weights in {shard} do not fit the model", why, "use config and weights of the same published model"
    )


def check_vocabulary(folder: Path) -> None:
    """Check that the folder's vocabulary spells the frozen prompt and the level words with the frozen ids.

    Args:
        folder: Model folder with tokenizer.model (SentencePiece) or tokenizer.json.
    """
    pieces = _read_vocabulary(folder)

    def spell(ids: tuple[int, ...]) -> str:
        text = "".join(pieces.get(i, "<?>") for i in ids)
        return text.replace("<0x0A>", "\n").replace(_SPACE, " ")

    # SentencePiece puts one space before each chunk that it tokenises.
    checks = [
        ((BOS_TOKEN_ID,), "<s>"),
        (TOKENS_BEFORE_IMAGE, " " + CHUNK_BEFORE_IMAGE),
        (TOKENS_AFTER_IMAGE, " " + CHUNK_AFTER_IMAGE),
    ]
    checks += [((i,), " " + word) for i, word in zip(LEVEL_TOKEN_IDS, LEVELS, strict=True)]
    for ids, text in checks:
        if spell(ids) != text:
            raise UserError(
                f"the vocabulary in {folder} is not LLaMA-2's",
                f"ids {list(ids)} spell {spell(ids)!r}, not {text!r}",
                "use the published Q-ALIGN model with its own tokenizer file",
            )


def _read_vocabulary(folder: Path) -> dict[int, str]:
    model, table = folder / "tokenizer.model", folder / "tokenizer.json"
    try:
        if model.is_file():
            return dict(enumerate(sentencepiece_pieces(model.read_bytes())))
        if table.is_file():
            vocab = parse_json(table.read_text(encoding="utf-8"))["model"]["vocab"]
            return {int(i): str(piece) for piece, i in vocab.items()}
    except (
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        StopIteration,
        RuntimeError,
        OverflowError,
    ) as err:
        raise UserError(f"cannot read the vocabulary in {folder}", repr(err), "fetch the tokenizer file again") from err
    raise DataMissing(
        f"no vocabulary in {folder}",
        "the frozen token ids cannot be checked without tokenizer.model or tokenizer.json",
        "copy the tokenizer file of the published model into the folder",
    )


def sentencepiece_pieces(data: bytes) -> list[str]:
    """Return the pieces of a serialised SentencePiece model in id order, without the sentencepiece package.

    The file is a protocol buffer whose repeated field 1 holds the pieces; field 1 of a piece is its text.

    Args:
        data: Content of tokenizer.model.

    Returns:
        Piece texts.
    """
    texts = (
        next(bytes(text) for number, text in _fields(piece) if number == 1) for n, piece in _fields(data) if n == 1
    )
    return [text.decode("utf-8") for text in texts]


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of a protocol buffer's length-delimited fields; others are skipped."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("truncated protocol buffer")
            yield tag >> 3, data[at : at + size]
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"not a protocol buffer: wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > _VARINT_BITS:
            raise ValueError("not a protocol buffer: a number of more than 64 bits")
        if byte < 128:
            return value, at
