"""Fetching a model's files from the hub into its cache: what was interrupted goes on, and only whole files enter."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.core.disk import disk_errors
from harness.core.errors import DataMissing, UserError
from harness.core.files import write_json
from harness.core.hub import Found, HubFile, HubModel, hub_errors, list_file, repository_folder
from harness.core.locks import lock
from harness.core.offline import FIX, WHY, offline

_BLOCK = 2**20


def fetch(found: Found, cache: Path) -> int:
    """Make sure that all files of a model are in the hub's cache with the bytes that the hub states.

    Every file is read and hashed. A damaged one is removed and fetched again.

    Returns:
        How many files were fetched.

    Raises:
        DataMissing: the hub does not answer, or there is no network to be used.
        UserError: the hub sends other bytes than it states.
        DiskFailed: the disk is full, read-only or failing.
    """
    folder = repository_folder(found.model, cache)
    snapshot, lists = folder / "snapshots" / found.commit, list_file(folder, found.commit)
    wrong = [file for file in found.files if _fault(snapshot / file.name, file)]
    if wrong and offline():
        faults = ", ".join(f"{file.name} ({_fault(snapshot / file.name, file)})" for file in wrong)
        raise DataMissing(f"not all of {found.model.repository} is here: {faults}", WHY, FIX)
    if wrong:
        entries = [{"name": each.name, "size": each.size, "digest": each.digest} for each in found.listed]
        with lock(lists.with_name("fetch.lock")):
            write_json(lists, entries)
            for file in wrong:
                if _fault(snapshot / file.name, file):  # not fetched meanwhile by another command
                    _discard(snapshot / file.name)
                    _get(found, file, folder, cache)
    return len(wrong)


def _fault(path: Path, file: HubFile) -> str:
    """Return what is wrong with a file of the cache; empty: nothing."""
    if not path.is_file():
        return "missing"
    return "" if path.stat().st_size == file.size and digest(path, file) == file.digest else "damaged"


def digest(path: Path, file: HubFile) -> str:
    """Return the hash of a file's bytes, of the kind that the hub states of it."""
    if len(file.digest) == 40:
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _discard(path: Path) -> None:
    """Remove a damaged file of the cache, and the bytes to which it is a link."""
    if path.is_symlink():
        path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _get(found: Found, file: HubFile, folder: Path, cache: Path) -> None:
    """Bring one file into the cache: its bytes first, then the hub's client gives them their name."""
    from huggingface_hub import hf_hub_download

    model, blob = found.model, folder / "blobs" / file.digest
    if not (blob.is_file() and digest(blob, file) == file.digest):
        blob.unlink(missing_ok=True)
        part = list_file(folder, found.commit).with_name(f"{file.digest}.part")
        _transfer(found, file, part)
        _refuse_other(part, file, model)
        with disk_errors(blob):
            blob.parent.mkdir(parents=True, exist_ok=True)
            part.replace(blob)
    with hub_errors(model):
        named = Path(hf_hub_download(model.repository, file.name, revision=model.revision, cache_dir=cache))
    if named.parent != (folder / "snapshots" / found.commit / file.name).parent:
        raise DataMissing(
            f"{model.repository} has changed while it was fetched",
            f"{model.revision} is another commit now",
            "run it again",
        )
    _refuse_other(named, file, model)


def _transfer(found: Found, file: HubFile, part: Path) -> None:
    """Fetch the rest of a file, from where an interrupted transfer stopped; a server that cannot do so sends it whole."""
    import huggingface_hub.utils

    client: Any = huggingface_hub.utils  # its names are lazy: type checkers do not see them
    begin = part.stat().st_size if part.is_file() else 0
    if begin >= file.size:
        begin = 0
    headers = {
        **client.build_hf_headers(),
        "Accept-Encoding": "identity",
        **({"Range": f"bytes={begin}-"} if begin else {}),
    }
    url = huggingface_hub.hf_hub_url(found.model.repository, file.name, revision=found.commit)
    with (
        hub_errors(found.model),
        client.get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer,
    ):
        client.hf_raise_for_status(answer)
        begin = begin if answer.status_code == 206 else 0
        with (
            disk_errors(part),
            part.open("r+b" if begin else "wb") as stream,
            client.tqdm(total=file.size, initial=begin, desc=file.name, unit="B", unit_scale=True) as bar,
        ):
            stream.seek(begin)
            for block in answer.iter_bytes():
                stream.write(block)
                bar.update(len(block))


def _refuse_other(path: Path, file: HubFile, model: HubModel) -> None:
    """Remove a file whose bytes are not those that the hub states.

    Raises:
        UserError: they are others.
    """
    made = digest(path, file)
    if made != file.digest:
        size = path.stat().st_size
        _discard(path)
        raise UserError(
            f"{file.name} of {model.repository} is not what the hub states",
            f"hash {made[:16]} instead of {file.digest[:16]}, {size} bytes instead of {file.size}; it was removed",
            "run the same command again; if it happens again, look for a proxy or a mirror (HF_ENDPOINT) that changes files",
        )
