"""Rebuild the shipped models: `python -m harness.microworld.train_towers --out FOLDER [--parts vae,clip_large,...]`.

Seeded; goes on from its last checkpoint after an interruption. All parts take two to three hours of one CPU core.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from harness.core.errors import UserError
from harness.microworld.train_attributes import train_attributes
from harness.microworld.train_autoencoder import restoration_error, train_autoencoder
from harness.microworld.train_clip import train_clip
from harness.microworld.train_diffusion import train_diffusion

LOG = logging.getLogger("harness.microworld")


def _vae(scratch: Path, out: Path) -> None:
    model = train_autoencoder(scratch)
    LOG.info("vae: mean absolute error of restored pictures %.4f", restoration_error(model))
    model.save_pretrained(scratch / "autoencoder")


def _autoencoder(scratch: Path) -> AutoencoderKL:
    if not (scratch / "autoencoder").exists():
        raise UserError("this part needs the autoencoder", f"{scratch / 'autoencoder'} is missing",
                        "train the part `vae` first")  # fmt: skip
    return AutoencoderKL.from_pretrained(scratch / "autoencoder").eval()


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "vae": _vae,
    "clip_base": lambda scratch, out: train_clip("base", scratch, out / "clip_base"),
    "clip_large": lambda scratch, out: train_clip("large", scratch, out / "clip_large"),
    "quality": lambda scratch, out: train_clip("quality", scratch, out / "quality"),
    "attributes": lambda scratch, out: train_attributes(_autoencoder(scratch), scratch, out / "attributes"),
    "diffusion": lambda scratch, out: train_diffusion(_autoencoder(scratch), scratch, out / "sd"),
}


def main(arguments: list[str] | None = None) -> None:
    """Train the chosen parts in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the models")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget the checkpoints of an earlier training")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    scratch = options.out / "checkpoints"
    if options.fresh:
        shutil.rmtree(scratch, ignore_errors=True)
    for part in options.parts.split(","):
        if part not in PARTS:
            raise UserError(f"there is no part named {part!r}", f"the parts are {', '.join(PARTS)}", "name one of them")
        PARTS[part](scratch, options.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
