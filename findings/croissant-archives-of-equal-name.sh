#!/usr/bin/env bash
# mlcroissant 1.1.1: two datasets whose archives have the same relative address give the same files, whatever the archives hold.
#
# Behaviour: an archive is unpacked once into ~/.cache/croissant/extract/HASH, where HASH is that of its contentUrl as written. For
# an address relative to croissant.json (`shards/00000.tar`, the usual name) two datasets share HASH, and the second is read from
# what was unpacked of the first: other pixels, no warning. The sha256 of the second archive is checked before, and is right, so the
# check does not help; neither does another folder, another name or another version of the dataset. A newer version of one dataset
# at the same place keeps giving the old images. Absolute addresses, or a folder named by the dataset's hash in front, avoid it.
# Seen on 2026-11-29 (Python 3.11):
#   alone, b gives 'b'; after a, b gives 'a'
#   with the dataset's own name in the address, after a, b gives 'b'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlcroissant==1.1.1" "pillow>=11"
cat > "$folder/read.py" <<'PY'
import hashlib
import io
import logging
import pathlib
import sys
import tarfile
import tempfile

logging.disable(logging.WARNING)
import mlcroissant as mlc

KEY = sys.argv[1] == "own-address"


def make(root: pathlib.Path, name: str) -> pathlib.Path:
    """Write a dataset: one archive with one text, which is the dataset's name."""
    address = f"{name}/shards/00000.tar" if KEY else "shards/00000.tar"
    path = root / name / address
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("x/text.txt")
        info.size = len(name)
        tar.addfile(info, io.BytesIO(name.encode()))
    ctx = mlc.Context(conforms_to="http://mlcommons.org/croissant/1.0")
    source = mlc.Source(ctx=ctx, file_set="files", extract=mlc.Extract(ctx=ctx, file_property="content"))
    described = mlc.Metadata(
        ctx=ctx,
        name=name,
        distribution=[
            mlc.FileObject(ctx=ctx, id="tar", name="tar", content_url=address, encoding_formats=["application/x-tar"],
                           sha256=hashlib.sha256(path.read_bytes()).hexdigest()),
            mlc.FileSet(ctx=ctx, id="files", name="files", contained_in=["tar"], encoding_formats=["text/plain"], includes=["*.txt"]),
        ],
        record_sets=[mlc.RecordSet(ctx=ctx, id="r", name="r", fields=[
            mlc.Field(ctx=ctx, id="r/text", name="r/text", data_types=["https://schema.org/Text"], source=source)])],
    )
    import json

    (root / name / "croissant.json").write_text(json.dumps(described.to_json()))
    return root / name / "croissant.json"


root = pathlib.Path(tempfile.mkdtemp())
for name in sys.argv[2]:
    (record,) = mlc.Dataset(make(root, name)).records("r")
print(record["r/text"].decode())
PY
read_as() {  # a home of its own: the cache lies below it
  HOME=$(mktemp -d "$folder/home.XXXX") "$folder/venv/bin/python" "$folder/read.py" "$@" 2> /dev/null
}
alone=$(read_as same-address b)
after=$(read_as same-address ab)
own=$(read_as own-address ab)
echo "alone, b gives '$alone'; after a, b gives '$after'"
echo "with the dataset's own name in the address, after a, b gives '$own'"
test "$alone" = b && test "$own" = b
test "$after" = a || { echo "mlcroissant has changed: archives are told apart"; exit 1; }
