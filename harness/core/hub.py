"""Models of the Hugging Face hub: which files a setting stands for, whether they are in the hub's cache, and fetching them.

The hub states the SHA-256 of every large file, and Git's hash of every small one. A file enters the cache only after its bytes
have been compared with it. The list of a commit's files is kept beside them, so that they can be checked without a network.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from harness.core.errors import DataMissing, UserError
from harness.core.offline import FIX, WHY, offline

State = Literal["missing", "partial", "there"]
CONFIGURATION = ("*.json", "*.txt", "*.model")
WEIGHTS = ("*.safetensors", "*.bin")
PIPELINE = "model_index.json"
"""Names a repository a pipeline of diffusers, whose models are in folders of their own."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_LISTS = "harness"
"""Folder within a repository's in the cache, at which the hub's client does not look."""


@dataclass(frozen=True)
class HubModel:
    """A model of the hub that a setting names."""

    location: str
    """The setting's value."""
    repository: str
    """``OWNER/NAME``."""
    revision: str = "main"
    """Commit; ``main`` where a library names none."""
    files: tuple[str, ...] = CONFIGURATION
    """Patterns of paths that are read; ``*`` stands for no ``/``."""
    first_of: tuple[str, ...] = WEIGHTS
    """Of these patterns the first that fits any file is read too."""

    def chosen(self, listed: Sequence[HubFile]) -> tuple[HubFile, ...]:
        """Return those of a repository's files that are read; of a pipeline, unless it is said which: no pickles, no other precisions."""
        if self.files == CONFIGURATION and any(file.name == PIPELINE for file in listed):
            wanted = (PIPELINE, *(f"*/{each}" for each in (*CONFIGURATION, WEIGHTS[0])))
            return tuple(
                file for file in listed if any(_fits(file.name, each) for each in wanted) and not _variant(file.name)
            )
        taken = next((each for each in self.first_of if any(_fits(file.name, each) for file in listed)), "")
        return tuple(file for file in listed if any(_fits(file.name, each) for each in (*self.files, taken)))


@dataclass(frozen=True)
class HubFile:
    """A file of a commit."""

    name: str
    size: int
    digest: str
    """SHA-256 (64 digits), or Git's hash of the file (40)."""


@dataclass(frozen=True)
class Found:
    """What is known of a model here: its files, and those of them that are in the cache."""

    model: HubModel
    commit: str = ""
    """Empty: not known without the hub."""
    files: tuple[HubFile, ...] = ()
    """Those that are read."""
    present: tuple[HubFile, ...] = ()
    listed: tuple[HubFile, ...] = ()
    """All files of the commit."""

    @property
    def state(self) -> State:
        """Return whether all files are in the cache, with their sizes."""
        if not self.present:
            return "missing"
        return "there" if len(self.present) == len(self.files) else "partial"

    @property
    def size(self) -> int:
        """Return the bytes of all files; 0 where they are not known."""
        return sum(file.size for file in self.files)


def _variant(name: str) -> bool:
    """Return whether weights are a second copy (``model.fp16.safetensors``, ``model.non_ema.safetensors``)."""
    stem, _, kind = name.rpartition("/")[2].rpartition(".")
    return kind == "safetensors" and "." in stem


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")


def hub_models(location: str, **parts: Any) -> tuple[HubModel, ...]:
    """Return what the value of a setting needs from the hub; nothing for a local folder or file, ``none`` and an empty text.

    Args:
        location: ``hub:OWNER/NAME@COMMIT``, ``hf-hub:OWNER/NAME[@COMMIT]``, ``q-align:OWNER/NAME@COMMIT``, ``open_clip:NAME@TAG`` (also
            with a hyphen), or ``timm:NAME``.
        **parts: ``files`` and ``first_of`` of a repository that the location names itself.

    Raises:
        UserError: a library does not know the name, or does not get it from the hub.
    """
    kind, _, rest = location.partition(":")
    name, _, revision = rest.partition("@")
    if kind == "hub" and not _COMMIT.fullmatch(revision):
        why = "a branch or tag can come to name other weights"
        raise UserError(f"the hub model {location} is not pinned", why, "name the commit, as in hub:OWNER/NAME@COMMIT")
    if kind in ("hub", "hf-hub"):
        return (HubModel(location, name, revision or "main", **parts),)
    if kind == "q-align" and _COMMIT.fullmatch(revision):
        return (HubModel(location, name, revision, **parts),)
    if kind in ("open_clip", "open-clip") and revision and not Path(revision).expanduser().exists():
        return _of_open_clip(location, name, revision)
    return _of_timm(location, rest) if kind == "timm" else ()


def _of_open_clip(location: str, name: str, tag: str) -> tuple[HubModel, ...]:
    """Return the weights of a published tag, and the tokenizer and configuration that its architecture takes from the hub."""
    import open_clip

    listed: Any = open_clip.get_pretrained_cfg(name, tag) or {}
    repository, _, file = listed.get("hf_hub", "").rpartition("/")
    if not repository:
        raise _unknown(location, "open_clip", listed.get("url", ""))
    weights = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    found = [HubModel(location, repository, files=(file,) if file else (), first_of=() if file else weights)]
    text: Any = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    others = dict.fromkeys(text[key] for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key))
    return (*found, *(HubModel(location, each, first_of=()) for each in others))


def _of_timm(location: str, name: str) -> tuple[HubModel, ...]:
    import timm

    known: Any = timm.models.get_pretrained_cfg(name) if timm.models.is_model(name.partition(".")[0]) else None
    if known is None or not known.hf_hub_id:
        raise _unknown(location, "timm", getattr(known, "url", "") or "")
    file = known.hf_hub_filename or ""
    weights = () if file else ("model.safetensors", "pytorch_model.bin")
    return (HubModel(location, known.hf_hub_id, files=(file,) if file else (), first_of=weights),)


def _unknown(location: str, library: str, url: str) -> UserError:
    why = f"{library} gets it from {url}" if url else f"{library} does not know it"
    return UserError(
        f"{location} is not on the hub", why, "correct the name, or fetch it yourself and give its folder or file"
    )


def cache_of(folder: Path | None = None) -> Path:
    """Return the hub's cache: below a folder that stands for ``HF_HOME``, else what the hub's own variables say."""
    from huggingface_hub import constants

    return folder / "hub" if folder else Path(constants.HF_HUB_CACHE)


def look(model: HubModel, cache: Path, ask: bool) -> Found:
    """Return what is known of a model.

    Args:
        model: The model.
        cache: The hub's cache.
        ask: Whether to ask the hub where no list of its files is kept; of a moving revision in any case.

    Raises:
        DataMissing: the hub does not answer, or does not have the model.
    """
    folder = repository_folder(model, cache)
    commit = model.revision if _COMMIT.fullmatch(model.revision) else _kept_commit(folder, model.revision)
    listed = kept_list(list_file(folder, commit))
    if ask and (listed is None or commit != model.revision):
        commit, listed = _ask(model)
    files = model.chosen(listed or ())
    if listed is not None and not files:
        raise DataMissing(
            f"{model.repository} holds nothing of what is read", f"{', '.join(filter(None, (*model.files, *model.first_of)))} at {commit}",
            "correct the name or the commit",
        )  # fmt: skip
    snapshot = folder / "snapshots" / commit
    return Found(model, commit, files, tuple(file for file in files if _has(snapshot / file.name, file)), listed or ())


def _has(path: Path, file: HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def repository_folder(model: HubModel, cache: Path) -> Path:
    """Return where the hub's client keeps a repository.

    Raises:
        UserError: it has no such name.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model.repository) or ".." in model.repository:
        raise UserError(f"{model.location} is no name of the hub", "it is not OWNER/NAME", "correct the name")
    return cache / "--".join(("models", *model.repository.split("/")))


def list_file(folder: Path, commit: str) -> Path:
    """Return the file that keeps the list of a commit's files, within the folder of its repository."""
    return folder / _LISTS / f"{commit}.json"


def _kept_commit(folder: Path, revision: str) -> str:
    path = folder / "refs" / revision
    found = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return found if _COMMIT.fullmatch(found) else ""


def kept_list(path: Path) -> tuple[HubFile, ...] | None:
    """Return the list of files that was kept of a commit; None where there is none."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(HubFile(str(each["name"]), int(each["size"]), str(each["digest"])) for each in entries)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _ask(model: HubModel) -> tuple[str, tuple[HubFile, ...]]:
    """Return the commit of a model and all its files, as the hub states them.

    Raises:
        DataMissing: it does not answer, or does not have the model.
    """
    from huggingface_hub import HfApi

    if offline():
        raise DataMissing(f"the hub cannot be asked for {model.repository}", WHY, FIX)
    with hub_errors(model):
        info: Any = HfApi().model_info(model.repository, revision=model.revision, files_metadata=True)
    if not _COMMIT.fullmatch(str(info.sha)) or (_COMMIT.fullmatch(model.revision) and info.sha != model.revision):
        why = f"{info.sha} instead of {model.revision}"
        raise DataMissing(f"the hub gives another commit of {model.repository}", why, "correct the commit")
    return str(info.sha), tuple(_listed_file(each) for each in info.siblings)


def _listed_file(entry: Any) -> HubFile:
    """Return a file of the hub's list.

    Raises:
        UserError: its path leads out of the repository, or it has no hash.
    """
    name, lfs = str(entry.rfilename), entry.lfs
    if name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(f"the hub lists a file {name!r}", "it leads out of its repository", "do not use this model")
    digest = str(lfs.sha256 if lfs else entry.blob_id)
    if not _DIGEST.fullmatch(digest):
        raise UserError(f"the hub states no hash of {name}", f"it says {digest!r}", "fetch the model in another way")
    return HubFile(name, int((lfs.size if lfs else entry.size) or 0), digest)


@contextmanager
def hub_errors(model: HubModel) -> Iterator[None]:
    """Turn what the hub's client raises inside the block into an error in three parts, without the user's token.

    Raises:
        DataMissing: the hub did not answer, or refused.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the client raises many kinds: network, authorisation, unknown name
        why = without_secrets(" ".join(f"{type(error).__name__}: {error}".split())[:400])
        raise DataMissing(
            f"cannot fetch {model.repository} at {model.revision}", why,
            "check the name, the network, HF_ENDPOINT and, for a model that needs one, HF_TOKEN; the same command goes on where it stopped",
        ) from error  # fmt: skip


def without_secrets(text: str) -> str:
    """Return a text without the hub's tokens, and without user and password in addresses."""
    for token in filter(None, map(os.environ.get, ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))):
        text = text.replace(token, "***")
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)
