"""What the fuzzer found in readers of this project, each by its smallest input: once a traceback, an exit or a hang, now one error."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.bench import Bench
from tests.fuzz.table import READERS

Content = bytes | Callable[[bytes], bytes]
DEEP = b"[" * 60_000
LONG = b"x" * 140_000
MALFORMED_UTF8 = b"\xff"


def changed(*path: str | int, to: Any) -> Callable[[bytes], bytes]:
    """Return a function that sets one value of a JSON text."""

    def change(valid: bytes) -> bytes:
        root = [json.loads(valid)]
        place: Any = root
        for step in (0, *path)[:-1]:
            place = place[step]
        place[(0, *path)[-1]] = to
        return json.dumps(root[0]).encode()

    return change


def first_line(*path: str | int, to: Any) -> Callable[[bytes], bytes]:
    """Return a function that sets one value in the first of several JSON lines."""
    return lambda valid: b"\n".join([changed(*path, to=to)(valid.splitlines()[0]), *valid.splitlines()[1:]])


def zip_end(size: int, before: bytes = b"") -> bytes:
    """Return the end of a zip file whose directory has a size, behind other bytes."""
    return before + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)


def packed_otherwise(valid: bytes) -> bytes:
    """Return a zip file whose members claim a method of compression that nobody knows."""
    at = valid.rindex(b"PK\1\2")
    return valid[: at + 10] + struct.pack("<H", 77) + valid[at + 12 :]


def array(header: bytes) -> bytes:
    """Return an ``.npy`` file with a header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


def units_with(name: str) -> bytes:
    """Return an archive of arrays with one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"")
    return stream.getvalue()


def unused_means(valid: bytes) -> bytes:
    """Return settings of a processor that does not normalise, with words for means."""
    return changed("do_normalize", to=False)(changed("image_mean", to=["x"] * 3)(valid))


FINDS: list[tuple[str, str, Content]] = [
    ("ILSVRC: truth", "nothing", b""),
    ("ILSVRC: truth", "a number of 5,000 digits", b"9" * 5000),
    ("ILSVRC: solution", "no text", MALFORMED_UTF8),
    ("ILSVRC: solution", "a long field", LONG),
    ("sun397: ClassName.txt", "a long name", b"x" * 300),
    ("COCO annotations", "deep", DEEP),
    ("COCO annotations", "an image that is nothing", changed("images", 0, to=None)),
    ("COCO annotations", "images that are a number", changed("images", to=0.5)),
    ("COCO annotations", "a number", b"0.5"),
    ("COCO annotations", "a category without a name", changed("categories", 0, to={"id": 1})),
    ("events of a job", "a task without end", b'{"event": "done", "task": Infinity}\n'),
    ("train_captions.csv", "no text", MALFORMED_UTF8),
    ("train_captions.csv", "a long field", LONG),
    ("captions.jsonl", "no text", MALFORMED_UTF8),
    ("captions.jsonl", "no object", b"[]\n"),
    ("captions.jsonl", "no caption", b'{"path": "a"}\n'),
    ("names of classes", "no text", MALFORMED_UTF8),
    ("card of a hub data set", "many blanks", b"---\n- name: label\n  '0': x" + b" " * 100_000 + b"y"),
    ("tar: webdataset", "a number for a class id", lambda valid: valid.replace(b"n01440764", b"123456789")),
    ("pipeline: model_index.json", "deep", DEEP),
    ("pipeline: model_index.json", "a part that is a number", changed("unet", to=1)),
    ("pipeline: scheduler_config.json", "deep", DEEP),
    ("pipeline: a network's config.json", "a text for a number", changed("in_channels", to=[])),
    ("pipeline: text encoder's config.json", "layers without end", changed("num_hidden_layers", to=10**30)),
    ("pipeline: index of shards", "no mapping", b'{"weight_map": []}'),
    ("pipeline: index of shards", "a long name", b'{"weight_map": {"a": "%s"}}' % (b"x" * 300)),
    ("diffusers: model_index.json", "a part of one word", changed("unet", to=["diffusers"])),
    ("single-file checkpoint (ckpt)", "a part of several disks", lambda _: zip_end(0, b"PK\6\7" + struct.pack("<LQL", 1, 0, 9))),
    ("single-file checkpoint (old)", "a text of many bytes", b"\x8d" + struct.pack("<Q", 2**62)),
    ("single-file checkpoint (safetensors)", "no mapping", struct.pack("<Q", 2) + b"{}"),
    ("LoRA: adapter_config.json", "no object", b"[]"),
    ("LoRA: adapter_config.json", "no regular expression", changed("alpha_pattern", to={"(": 1})),
    ("Q-ALIGN: config.json", "no object", b"[]"),
    ("Q-ALIGN: index of shards", "no text", MALFORMED_UTF8),
    ("Q-ALIGN: index of shards", "no object", b"[]"),
    ("Q-ALIGN: index of shards", "half a letter", changed("weight_map", to={"a": "\ud800"})),
    ("Q-ALIGN: tokenizer.json", "no object", b"[]"),
    ("Q-ALIGN: tokenizer.model", "a piece without text", b"\n\0"),
    ("checkpoint (zip)", "a directory that is none", zip_end(46, b"x" * 46)),
    ("checkpoint (zip)", "a directory before the file", zip_end(100)),
    ("timm: config.json", "settings that are a list", changed("model_args", to=[0])),
    ("timm: config.json", "a size that is a word", changed("pretrained_cfg", "input_size", to=[3, 64, "x"])),
    ("timm: config.json", "an infinite size", changed("pretrained_cfg", "input_size", to=[3, 64, 1e999])),
    ("open_clip_config.json", "a number", b'{"model_cfg": 1}'),
    ("preprocessor_config.json", "a text", b'"x"'),
    ("preprocessor_config.json", "means that are words, and are not used", unused_means),
    ("preprocessor_config.json", "deep", DEEP),
    ("profile", "deep", b"a = " + DEEP),
    ("--set", "deep", b"a=" + b"[" * 3000),
    ("records, one a line", "an order that is a text", first_line("suite_order", to="x")),
    ("records, one a line", "a key that is an object", first_line("key", to={})),
    ("records, one a line", "deep", DEEP),
    ("evaluation: manifest.json", "files that are numbers", changed("files", to={"record.json": 1})),
    ("evaluation: manifest.json", "a file without a size", changed("files", "record.json", to={"sha256": "0"})),
    ("evaluation: manifest.json", "an infinite value", changed("spec", "inputs", to=float("inf"))),
    ("evaluation: manifest.json", "a file of infinite size", changed("files", "record.json", "bytes", to=float("inf"))),
    ("evaluation: record.json", "an input that is a number", changed("inputs", to={"checkpoint/copy/dataset": 0.5})),
    ("units", "a compression that nobody knows", packed_otherwise),
    ("baseline: records.jsonl.gz", "nothing", b""),
    ("baseline: records.jsonl.gz", "no gzip", b"xx"),
    ("status.json", "a pid that is a text", changed("host", to=5)),
    ("status.json", "an executor that is a number", changed("executor", to=0.5)),
    ("status.json", "cells that are a list", changed("cells", to=[0])),
    ("images.jsonl", "a path that is a number", first_line("path", to=0)),
    ("training copy: copy.json", "a number", b"1"),
    ("training copy: copy.json", "no text", MALFORMED_UTF8),
    ("training copy: classes.json", "nothing", b""),
    ("training copy: labels.npy", "an open bracket", array(b"(\n")),
    ("training copy: labels.npy", "objects", array(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n")),
    ("gallery: images.npy", "numbers of 64 bits", lambda valid: valid.replace(b"|u1", b"<i8").replace(b"(3, 4, 4, 3)", b"(3, 2, 1, 3)")),
    ("events of a job", "no event", b'{"task": 0}\n'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, each) for name, _, each in FINDS], ids=[f"{a}-{b}" for a, b, _ in FINDS]
)
def test_what_was_found_is_refused_by_name(name: str, content: Content, tmp_path: Path) -> None:
    bench = Bench(READERS[name], tmp_path)
    bench.read(content if isinstance(content, bytes) else content(bench.valid))


@pytest.mark.parametrize("name", ["pipeline: index of shards", "Q-ALIGN: index of shards"])
@pytest.mark.parametrize("listed", ["../outside.safetensors", "/outside.safetensors", "a/b.safetensors"])
def test_an_index_lists_files_beside_it_only(name: str, listed: str, tmp_path: Path) -> None:
    bench = Bench(READERS[name], tmp_path)
    assert "does not list files beside it" in bench.read(json.dumps({"weight_map": {"a": listed}}).encode())


def test_patterns_of_layers_hold_no_expression_that_takes_for_ever(tmp_path: Path) -> None:
    bench = Bench(READERS["LoRA: adapter_config.json"], tmp_path)
    assert "no name of layers" in bench.read(changed("alpha_pattern", to={"(a+)+b": 1})(bench.valid))
