"""Load a quality scorer from its specification.

An encoder whose loss weight is zero is never loaded: the trainer asks for a scorer only when the weight is above
zero, and "none" says the same by name. Q-ALIGN is this package's own forward pass, so no route through remote
code exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import DataMissing, UserError

if TYPE_CHECKING:
    import torch

    from generators.lbgen.quality.api import QualityScorer

KINDS = ("none", "open-clip", "q-align")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORMS = "write none, open-clip:local-dir:PATH, open-clip:NAME@PRETRAINED, q-align:FOLDER or q-align:HUB_ID@COMMIT"


@dataclass(frozen=True)
class QualitySpec:
    """Say which scorer to load.

    Attributes:
        kind: One of `KINDS`.
        source: Folder, hub id, "local-dir:PATH" or open_clip model name; empty for "none".
        revision: Commit of a hub id, weight tag of an open_clip model, None for a folder.
    """

    kind: str
    source: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"unknown quality scorer {self.kind!r}", f"known: {', '.join(KINDS)}", _FORMS)
        if (self.kind == "none") != (not self.source):
            why = "none takes no source" if self.source else f"{self.kind} needs a source"
            raise UserError(f"bad quality scorer {self.kind!r}", why, _FORMS)


def parse_quality(spec: str | Mapping[str, str]) -> QualitySpec:
    """Parse "kind:source@revision", or a mapping with kind, source and revision.

    Args:
        spec: The text or mapping. An existing folder may have "@" in its path.

    Returns:
        The parsed specification.
    """
    if isinstance(spec, Mapping):
        unknown = sorted(set(spec) - {"kind", "source", "revision"})
        if unknown or "kind" not in spec:
            why = f"unknown keys {unknown}" if unknown else "the key 'kind' is missing"
            raise UserError("bad quality scorer", why, "use the keys kind, source and revision")
        return QualitySpec(spec["kind"], spec.get("source", ""), spec.get("revision"))
    kind, _, source = spec.partition(":")
    if source.startswith("local-dir:") or Path(source).expanduser().is_dir():
        return QualitySpec(kind, source)
    name, at, revision = source.rpartition("@")
    return QualitySpec(kind, name, revision) if at else QualitySpec(kind, source)


def load_quality(spec: str | Mapping[str, str], device: torch.device | str, dtype: torch.dtype) -> QualityScorer | None:
    """Load the scorer that a specification names; call it only when the quality loss has a weight above zero.

    Args:
        spec: "none", "open-clip:local-dir:PATH", "open-clip:NAME@PRETRAINED", "q-align:FOLDER",
            "q-align:HUB_ID@COMMIT", or a mapping with kind, source and revision.
        device: Where the scorer runs.
        dtype: Dtype of its weights.

    Returns:
        The frozen scorer; None for "none".
    """
    parsed = parse_quality(spec)
    if parsed.kind == "none":
        return None
    import torch

    where = torch.device(device)
    if parsed.kind == "open-clip":
        from generators.lbgen.quality.open_clip_levels import load_open_clip

        if not parsed.source.startswith("local-dir:") and parsed.revision is None:
            raise UserError(
                f"the open_clip encoder {parsed.source!r} has no weights",
                "a model name needs a weight tag",
                _FORMS,
            )
        return load_open_clip(parsed.source, parsed.revision, device=where, dtype=dtype)
    from generators.lbgen.quality.qalign_scorer import load_qalign

    return load_qalign(_qalign_folder(parsed), device=where, dtype=dtype)


def _qalign_folder(spec: QualitySpec) -> Path:
    """Return the local folder of a Q-ALIGN model; a pinned hub commit is downloaded, without code files."""
    folder = Path(spec.source).expanduser()
    if folder.is_dir():
        if spec.revision is not None:
            raise UserError(
                f"folder {folder} was given with revision {spec.revision!r}",
                "a folder has no revision to check",
                "drop @REVISION, or give the hub id",
            )
        return folder
    if folder.is_absolute() or spec.source.startswith((".", "~")) or spec.source.count("/") != 1:
        raise DataMissing(f"no Q-ALIGN folder at {folder}", "the path does not exist or is not a folder", _FORMS)
    if spec.revision is None or not _COMMIT.fullmatch(spec.revision):
        raise UserError(
            f"the Q-ALIGN hub id {spec.source!r} is not pinned",
            f"revision {spec.revision!r} is not a 40-digit commit, and a branch may move",
            f"write q-align:{spec.source}@COMMIT, or give a local folder",
        )
    return _download(spec.source, spec.revision)


def _download(repo: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [
        "config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "*.bin",
        "*.bin.index.json",
        "tokenizer.*",
    ]
    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns, ignore_patterns=["*.py"]))
    except Exception as err:  # the client raises many kinds: network, authorisation, unknown id
        raise DataMissing(
            f"cannot fetch the Q-ALIGN model {repo}@{commit}",
            str(err),
            "fetch it elsewhere and give its folder",
        ) from err
