"""One caption per real image: from a captioner, from a file, from whoever knows the images, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from generators.diffusion.real_images import RealImages
from harness.api import (
    Context,
    DataMissing,
    UserError,
    first_line,
    load_attribute,
    load_pretrained,
    parse_json,
    refuse_malformed,
    truncate_partial_line,
    write_text,
)

FILE = "captions.jsonl"
_EVERY = 64
_TOKENS = 40


def write_captions(ctx: Context) -> None:
    """Write ``captions.jsonl``: path, class index, caption of every real image, in the order (class, file name).

    The file can be handed on: ``captioner=file:PATH`` reads it for the same images. Goes on after a kill.
    """
    images = RealImages.of(ctx)
    part = ctx.scratch / FILE
    done = truncate_partial_line(part)
    caption = open_captioner(ctx.source("captioner"), images, ctx.device)
    with part.open("a", encoding="utf-8") as stream:
        for position in range(done, len(images)):
            row = {"path": images.names[position], "class_index": images.labels[position], "caption": caption(position)}
            stream.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
            if position % _EVERY == 0:
                stream.flush()
                ctx.progress(position + 1, len(images), "captions")
    write_text(ctx.out / FILE, part.read_text(encoding="utf-8"))


def read_captions(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of a caption file.

    Raises:
        UserError: a line is no JSON object with ``path`` and ``caption``.
    """
    # lines end with line feeds only, whatever a caption holds
    with refuse_malformed(path, "give the file that this command wrote"), path.open(encoding="utf-8") as stream:
        rows = tuple(map(parse_json, stream))
        odd = next((n for n, row in enumerate(rows, 1) if not {"path", "caption"} <= row.keys()), 0)
        if odd:
            raise ValueError(f"line {odd} has no path or no caption")
    return rows


def open_captioner(spec: str, images: RealImages, device: str) -> Callable[[int], str]:
    """Return a function from an image's position to its caption.

    Args:
        spec: ``none``; ``file:PATH`` of a caption file; ``call:module:function`` (paths -> captions, for images whose
            content is known); else a captioner's folder or ``hub:OWNER/NAME@COMMIT``.
        images: The images.
        device: Where a captioner runs.
    """
    if spec == "none":
        return lambda position: ""
    if spec.startswith("call:"):
        knows = cast(Callable[[Sequence[str]], list[str]], load_attribute(spec.removeprefix("call:")))
        return knows(images.names).__getitem__
    if Path(spec).is_file() or spec.startswith("file:"):
        return _from_file(Path(spec.removeprefix("file:")), images)
    model = Captioner(spec, device)
    return lambda position: model.caption(images.picture(position))


def _from_file(path: Path, images: RealImages) -> Callable[[int], str]:
    known = {str(row["path"]): str(row["caption"]) for row in read_captions(path)}
    absent = [name for name in images.names if name not in known]
    if absent:
        raise DataMissing(
            f"{path} has no caption of {len(absent)} images",
            f"such as {absent[0]}",
            "give the caption file of these images, or a captioner",
        )
    return lambda position: known[images.names[position]]


class Captioner:
    """A BLIP-2-class image-to-text model of transformers; greedy, one image at a time."""

    def __init__(self, source: str, device: str) -> None:
        import torch
        from transformers import AutoProcessor

        name, revision = _located(source)
        kind = captioner_class(source)
        try:
            self.processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
            self.model = load_pretrained(kind, name, revision=revision, use_safetensors=True).to(device).eval()
        except OSError as error:
            raise DataMissing(
                f"cannot load the captioner {source}", first_line(error), "give its folder or hub:ID@COMMIT"
            ) from error
        self.device, self._torch = device, torch

    def caption(self, picture: Any) -> str:
        """Return one line without full stop."""
        inputs = self.processor(images=picture, return_tensors="pt").to(self.device)
        with self._torch.no_grad():
            tokens = self.model.generate(**inputs, max_new_tokens=_TOKENS, do_sample=False)
        return str(self.processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip().rstrip(".")


def captioner_class(source: str) -> Any:
    """Return the network class that a captioner's ``config.json`` names (a folder, a config file, or a hub id).

    Raises:
        UserError: the configuration is no image-to-text model of transformers.
    """
    import transformers

    config = captioner_config(source)
    names = [*(config.architectures or ()), f"{type(config).__name__.removesuffix('Config')}ForConditionalGeneration"]
    found = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if found is None or not hasattr(found, "generate"):
        raise UserError(
            f"{source} is no captioner", f"its configuration is a {type(config).__name__}", "give a BLIP-2-class model"
        )
    return found


def captioner_config(source: str) -> Any:
    """Return a captioner's configuration."""
    from transformers import AutoConfig

    name, revision = _located(source)
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataMissing(f"no captioner at {source}", first_line(error), "give its folder or hub:ID@COMMIT") from error


def _located(source: str) -> tuple[str, str | None]:
    if not source.startswith("hub:"):
        return source, None
    name, _, revision = source.removeprefix("hub:").partition("@")
    if not revision:
        raise UserError(
            f"the captioner {source} is not pinned", "a moving revision cannot be reproduced", "add @COMMIT"
        )
    return name, revision
