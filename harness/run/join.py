"""The shards of a dataset: which are there, whether they are whole, and how they become one artifact.

A shard is a tar file and a list of its images, written in this order. What both hashed to is kept in the scratch folder, so that
joining reads every byte once: a shard is whole if its files hash to what was written, and its hash goes into the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.cost import Cost, read_shard_cost, save_shard_cost
from harness.core.errors import UserError
from harness.core.files import atomic_file, write_bytes
from harness.core.identity import file_sha256
from harness.plugins.context import Context
from harness.plugins.inputs import INDEX
from harness.store.cells import Cell

if TYPE_CHECKING:
    from harness.images.shards import ImageRow

_FOLDER = "shards"


def tar_of(shard: str) -> str:
    """Return the path of a shard's images below the artifact's folder."""
    return f"{_FOLDER}/{shard}.tar"


def _list_of(shard: str) -> str:
    return f"{_FOLDER}/{shard}.jsonl"


def missing_shards(out: Path, cell: Cell) -> list[str]:
    """Return the shards of a cell that have not been made, by the names of files alone; joining looks at their bytes.

    Of a dataset that was set aside whole shards and their joined list are left.
    """
    folder = out / _FOLDER
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    joined = (out / INDEX).is_file()
    return [one for one in cell.shards if f"{one}.tar" not in names or not (joined or f"{one}.jsonl" in names)]


def keep_shard(ctx: Context, shard: str, rows: Sequence[ImageRow], spent: Callable[[], Cost]) -> None:
    """Write what is known of a shard whose tar file is there; its list comes last, and with it the shard counts as made."""
    from harness.images.shards import rows_bytes

    content = rows_bytes(rows)
    files = {tar_of(shard): file_sha256(ctx.out / tar_of(shard)), _list_of(shard): sha256(content).hexdigest()}
    save_shard_cost(ctx.scratch, shard, spent(), files)
    write_bytes(ctx.out / _list_of(shard), content)


def discard_shard(ctx: Context, shard: str) -> None:
    """Take back that a shard is made."""
    (ctx.out / _list_of(shard)).unlink(missing_ok=True)


def keep_if_whole(ctx: Context, shard: str) -> None:
    """Keep a shard that was made before.

    Raises:
        UserError: it was not, or is damaged.
    """
    from harness.images.shards import read_rows

    _check(ctx, shard, read_rows(ctx.out / _list_of(shard)))


def join(ctx: Context, make: Callable[[str], None]) -> dict[str, str]:
    """Write the list of all images, shard by shard, and remove the lists of the shards.

    Args:
        ctx: The dataset's context.
        make: Makes a shard; called for one that is damaged.

    Returns:
        SHA-256 of the shards' tar files.
    """
    from harness.images.shards import rows_bytes

    before, hashes, shards = _JoinedList(ctx.out / INDEX), {}, ctx.cell.shards
    with atomic_file(ctx.out / INDEX) as stream:
        for done, shard in enumerate(shards, start=1):
            try:
                rows = _rows(ctx, shard, before)
                digest = _check(ctx, shard, rows)
            except UserError as error:
                print(f"{error}; made again", flush=True)
                make(shard)
                rows = _rows(ctx, shard, before)
                digest = _check(ctx, shard, rows)
            hashes[tar_of(shard)] = digest
            stream.write(rows_bytes(rows))
            ctx.progress(done, len(shards), "shards")
    for shard in shards:
        discard_shard(ctx, shard)
    return hashes


def _check(ctx: Context, shard: str, rows: Sequence[ImageRow]) -> str:
    """Return the SHA-256 of a shard's tar file, which is what was written.

    Raises:
        UserError: it is not, or its list is not.
    """
    from harness.images.shards import rows_bytes, verify_shard

    tar, (_, known) = ctx.out / tar_of(shard), read_shard_cost(ctx.scratch, shard)
    if known.get(_list_of(shard), digest := sha256(rows_bytes(rows)).hexdigest()) != digest:
        raise UserError(f"the list of shard {shard} is damaged", "it is not what was written", "make the shard again")
    if tar_of(shard) not in known:  # an older version made it
        verify_shard(tar, rows)
        return file_sha256(tar)
    if not tar.is_file() or (found := file_sha256(tar)) != known[tar_of(shard)]:
        raise UserError(f"shard {shard} is damaged", "its bytes are not what was written", "make the shard again")
    return found


def _rows(ctx: Context, shard: str, joined: _JoinedList) -> list[ImageRow]:
    """Return the list of a shard: its own, or its part of the list of a dataset that was set aside.

    Raises:
        UserError: there is neither.
    """
    from harness.images.shards import read_rows

    own, former = ctx.out / _list_of(shard), joined.take(shard)
    if own.is_file():
        return read_rows(own)
    if not former or not (ctx.out / tar_of(shard)).is_file():
        raise UserError(f"shard {shard} is missing", "no list names its images", "make the shard")
    return former


class _JoinedList:
    """The joined list of a dataset, if there is one, read once from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        from harness.images.shards import iterate_rows

        self._rows = iterate_rows(path) if path.is_file() else iter(())
        self._next: ImageRow | None = None
        self._advance()

    def take(self, shard: str) -> list[ImageRow]:
        """Return the rows of a shard; shards are asked for in the order of the list, which may lack some."""
        class_id, start, stop = shard.rsplit("_", 2)
        rows = []
        while (row := self._next) is not None and row.wnid == class_id and int(start) <= row.index < int(stop):
            rows.append(row)
            self._advance()
        return rows

    def _advance(self) -> None:
        try:
            self._next = next(self._rows, None)
        except UserError:  # a damaged list tells nothing more: shards without a list of their own are made again
            self._next = None
