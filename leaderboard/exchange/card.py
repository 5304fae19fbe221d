"""The card of a dataset: a README for the Hugging Face Hub and ``croissant.json``, from the store alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.names import plain
from harness.core.quantities import duration, size
from leaderboard.declared import Declarations
from leaderboard.exchange.datasets import CLASSES, DIGITS, PER_CLASS, PROMPTS, Dataset, fit_of, public_settings
from leaderboard.exchange.results import PROJECT, iso, slug
from leaderboard.long import Line, line
from leaderboard.markup import md, md_row
from leaderboard.sources import Entry
from leaderboard.tables import build_tables
from leaderboard.views import ACCURACY, View

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    Decode = Callable[[bytes, str], Picture]

README, SAMPLES = "README.md", "samples.png"
SIDE = 96
HEADS = ("suite", "metric", "network", "value", "95 % interval", "n", "seeds", "better", "checks", "read with")
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
DECLARED = ("base model", "adapter", "sampler")
"""What a generator declares of its method at full scale; the settings say what was used here."""
UNCHECKED = (
    "The label of an image is the class that the generator was asked for. Nobody has looked whether the image shows it."
)


@dataclass(frozen=True)
class Facts:
    """What a card says of a dataset."""

    dataset: Dataset
    declared: dict[str, str]
    """What its generator declares: summary, base model, prompts, licence, citation, ...; empty where it is not installed."""
    fit: dict[str, Any] | None
    """Manifest of the fit."""
    supervision: tuple[str, ...]
    """Supervision that the generator used, as records state it."""
    values: tuple[Line, ...]
    """Every ranked or secondary value measured on these images or on networks trained on them."""
    biases: tuple[Line, ...]
    """Those of them that are readings of bias, or of the images themselves."""

    @property
    def name(self) -> str:
        """Return a name that no other dataset has."""
        return slug(self.dataset.folder.name)

    @property
    def title(self) -> str:
        """Return what a person reads."""
        d = self.dataset
        seed = f", seed {d.seeds['generator_seed']}" if "generator_seed" in d.seeds else ""
        return f"{d.generator}: {d.count.images} images of {len(d.count.classes)} classes{seed}"

    @property
    def listed(self) -> bool:
        """Return whether the images were only listed, not made."""
        return not self.dataset.shards


def gather_facts(store: Path, dataset: Dataset, entries: Sequence[Entry], declared: Declarations) -> Facts:
    """Return what is known of a dataset.

    Args:
        store: Its store.
        dataset: The dataset.
        entries: Records of any datasets.
        declared: What the installed generators declare.
    """
    mine = [entry for entry in entries if entry.record.dataset == dataset.key]
    known = declared.get(dataset.generator) or declared.get(dataset.generator.partition(":")[0]) or {}
    supervision = tuple(dict.fromkeys(name for entry in mine for name in entry.record.subject.information))
    readings = [one for one in (*lines(mine, "bias"), *lines(mine, "images")) if one["suite"] != ACCURACY]
    biases = {_place(one): one for one in readings}
    return Facts(
        dataset, dict(known), fit_of(store, dataset), supervision, tuple(lines(mine, "all")), tuple(biases.values())
    )


def _place(one: Line) -> tuple[str, ...]:
    return tuple(str(one[name]) for name in ("system", "backbone", "suite", "column"))


def lines(entries: Sequence[Entry], view: View) -> list[Line]:
    """Return the values of one view; those of the images themselves once, not for every backbone."""
    found: dict[tuple[str, ...], Line] = {}
    for table in build_tables(entries, view):
        for key, cells in table.rows.items():
            for column, value in cells.items():
                facts = line(table, key, column, value) | {"beside": dict(value.beside)}
                if facts["measured"] == "images":
                    facts = facts | {"backbone": "-"}
                if facts["value"] is not None:
                    found.setdefault(_place(facts), facts)
    return list(found.values())


def sentence(one: Line) -> str:
    """Return a value with what is needed to read it, as one sentence without a full stop."""
    scale, unit = (1.0, "points") if one["unit"] == "points" else (100.0, "%")
    number = f"{scale * one['value']:.2f} {unit}"
    if one["low"] is not None:
        number += f" (95 % interval {scale * one['low']:.2f} to {scale * one['high']:.2f})"
    where = "on the images" if one["measured"] == "images" else f"of {one['backbone']} pre-trained on these images"
    better = "" if one["direction"] == "neither" else f", {one['direction']} is better"
    beside = "".join(f", {name} {100 * number:.1f} %" for name, number in one["beside"].items() if number is not None)
    failed = f", a validity check failed: {one['failed_checks']}" if one["failed_checks"] else ""
    return f"{one['suite']} {one['column']} {where}: {number}, n={one['n']}, generator/train seeds {one['seeds']}{better}{beside}{failed}"


# --- README ---------------------------------------------------------------------------------------------------------------


def readme(facts: Facts, picture: bool) -> str:
    """Return the README: front matter of the Hub, then what was made, how, under which licence, and what was measured.

    Args:
        facts: The dataset.
        picture: Whether ``samples.png`` stands beside it.
    """
    parts = [front_matter(facts), f"# {md(facts.title)}\n", _summary(facts)]
    if picture:
        shown = min(CLASSES, len(facts.dataset.count.classes))
        parts.append(f"![The first {PER_CLASS} images of {shown} classes, a column per class]({SAMPLES})\n")
    parts += [
        _counts(facts),
        _prompts(facts),
        _making(facts),
        _licence(facts),
        _biases(facts),
        _limits(facts),
        _files(facts),
    ]
    return "\n".join(part for part in parts if part)


def front_matter(facts: Facts) -> str:
    """Return the YAML block that the Hub reads, written by ``huggingface_hub``."""
    from huggingface_hub import DatasetCardData

    licence = facts.declared.get("licence", "")
    count = facts.dataset.count.images
    data = DatasetCardData(
        pretty_name=plain(facts.title),
        license="other",
        license_name=slug(licence).lower() if licence else "not-stated",
        task_categories=["image-classification"],
        size_categories=next((words for most, words in SIZES if count < most), "n>10M"),
        annotations_creators=None if facts.listed else ["machine-generated"],
        tags=[PROJECT] if facts.listed else ["synthetic", PROJECT],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _summary(facts: Facts) -> str:
    made = "listed" if facts.listed else "made"
    text = facts.declared.get("summary", "")
    return (
        f"{md(text)} The images were {made} with {PROJECT} {md(_version(facts))}; key `{facts.dataset.key}`.\n".lstrip()
    )


def _version(facts: Facts) -> str:
    code = facts.dataset.manifest.get("provenance", {}).get("code", {})
    commit = (
        f" (commit {code['commit'][:12]}{', modified' if code.get('dirty') == 'yes' else ''})"
        if code.get("commit")
        else ""
    )
    return f"{code.get('harness', '')}{commit}".strip()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [md_row(list(map(md, row))) for row in rows]
    return "\n".join([md_row(list(map(md, heads))), "|---" * len(heads) + "|", *body]) + "\n"


def _counts(facts: Facts) -> str:
    d, count = facts.dataset, facts.dataset.count
    least, most = (pick(count.classes.values(), default=0) for pick in (min, max))
    rows = [("images", str(count.images)), ("classes", str(len(count.classes))),
            ("images of a class", str(least) if least == most else f"{least} to {most}")]  # fmt: skip
    if not facts.listed:
        side = d.params["dataset"]["size_px"]
        rows += [
            ("size", f"{side} x {side} pixels, PNG"),
            ("encoded", size(count.bytes)),
            ("files", f"{len(d.shards)} tar files"),
        ]
    return "## Counts\n\n" + _table(("what", "how many"), rows)


def _prompts(facts: Facts) -> str:
    found, said = facts.dataset.count.prompts, facts.declared.get("prompts", "")
    if not found and said in ("", "none"):
        return ""
    rule = f"Rule of the generator: {md(said)}.\n\n" if said not in ("", "none") else ""
    if not found:
        return f"## Prompts\n\n{rule}"
    shown = list(found.items())[:PROMPTS]
    more = f"The first {len(shown)} of {len(found)} prompts; " if len(found) > len(shown) else ""
    note = f"{more}{'every' if more else 'Every'} image's own stands in `images.jsonl`.\n"
    rows = [(prompt, negative or "–", str(images)) for (prompt, negative), images in shown]
    return f"## Prompts\n\n{rule}" + _table(("prompt", "negative prompt", "images"), rows) + "\n" + note


def _making(facts: Facts) -> str:
    d, said = facts.dataset, facts.declared
    rows = [(f"declared {name}", said[name]) for name in DECLARED if said.get(name, "none") != "none"]
    rows += [("supervision", ", ".join(facts.supervision).replace("_", " "))] if facts.supervision else []
    rows += [(name.replace("_", " "), str(value)) for name, value in d.seeds.items()]
    rows += [(f"setting {name}", text) for name, text in d.settings.items()]
    if facts.fit is not None:
        rows += [(f"fit setting {name}", text) for name, text in public_settings(facts.fit["spec"]["params"]).items()]
    rows += [("completed", iso(d.completed))] if d.completed is not None else []
    rows += [("time, summed over workers", duration(d.cost.wall_seconds))] if d.cost is not None else []
    differences = (
        f"\nDifferences from the published method: {md(said['differences'])}.\n" if said.get("differences") else ""
    )
    citation = f"\nSource: {md(said['citation'])}.\n" if said.get("citation") else ""
    note = "What is declared is the method at its full scale; the settings are those of these images.\n\n"
    return f"## How it was made\n\n{note}" + _table(("what", "value"), rows) + differences + citation


def _licence(facts: Facts) -> str:
    licence = facts.declared.get("licence", "")
    text = f"The generator declares: {md(licence)}." if licence else "The generator declares no licence."
    return (
        f"## Licence\n\n{text} Whoever publishes these images decides, and answers for, the licence of the dataset.\n"
    )


def _biases(facts: Facts) -> str:
    head = "## Measured biases\n\n"
    if not facts.values:
        return head + "Nothing was measured on these images, or on a network trained on them.\n"
    places = {_place(one) for one in facts.biases}
    others = [one for one in facts.values if _place(one) not in places]
    units = "Percent, or points where the value says so; the intervals are sampling error of the test items alone.\n\n"
    biases = _table(HEADS, map(_row, facts.biases)) if facts.biases else "No bias was measured.\n"
    rest = "\n## Other measurements\n\n" + _table(HEADS, map(_row, others)) if others else ""
    return (
        head
        + units
        + biases
        + rest
        + "\nConditions:\n\n"
        + "\n".join(f"* {md(text)}" for text in conditions(facts))
        + "\n"
    )


def conditions(facts: Facts) -> list[str]:
    """Return on which terms each suite measured, one text each: version, profile, protocol, data with their hashes."""
    found: dict[str, dict[str, None]] = {}
    for one in facts.values:
        terms = f"{one['suite']} (version {one['suite_version']}, profile {one['profile']})"
        terms += f": {one['protocol']}" if one["protocol"] not in ("", one["suite"]) else ""
        found.setdefault(terms, {}).update(dict.fromkeys(one["data"].split()))
    return [f"{terms}; data {', '.join(pair[:pair.rfind('=') + 1 + DIGITS] for pair in data)}" if data else terms
            for terms, data in found.items()]  # fmt: skip


def _row(one: Line) -> tuple[str, ...]:
    scale, unit = (1.0, " points") if one["unit"] == "points" else (100.0, "")
    interval = "–" if one["low"] is None else f"{scale * one['low']:.2f} to {scale * one['high']:.2f}"
    network = "the images" if one["measured"] == "images" else one["backbone"]
    checks = f"failed: {one['failed_checks']}" if one["failed_checks"] else one["checks"]
    beside = ", ".join(f"{name} {100 * number:.1f}" for name, number in one["beside"].items() if number is not None)
    return (one["suite"], one["column"], network, f"{scale * one['value']:.2f}{unit}", interval, str(one["n"]),
            one["seeds"], one["direction"], checks, beside or "–")  # fmt: skip


def limitations(facts: Facts) -> list[str]:
    """Return what a user of the dataset must know, one sentence each."""
    found = [] if facts.listed else [UNCHECKED]
    found += [facts.declared["reading"]] if facts.declared.get("reading") else []
    if facts.declared.get("differences"):
        found.append(f"Differences from the published method: {facts.declared['differences']}.")
    found += [text for one in facts.values for text in one["findings"].split("; ") if text]
    if (
        any(one["profile"] == "micro" for one in facts.values)
        or facts.dataset.params.get("classes", {}).get("name") == "micro"
    ):
        found.append("Images of the embedded micro world say nothing about ImageNet.")
    return list(dict.fromkeys(found))


def _limits(facts: Facts) -> str:
    found = limitations(facts)
    return "## Limitations\n\n" + "\n".join(f"* {md(text)}" for text in found) + "\n" if found else ""


def _files(facts: Facts) -> str:
    folder = facts.dataset.folder.name
    what = md(f"{folder}/images.jsonl") + ("" if facts.listed else f" and the tar files in {md(f'{folder}/shards')}")
    return f"## Files\n\n`croissant.json` describes {what}: publish the artifact's folder beside it.\n"


# --- samples --------------------------------------------------------------------------------------------------------------


def sheet(dataset: Dataset, decode: Decode) -> bytes:
    """Return the first images of the first classes as a PNG, a column per class; empty where images are only listed.

    Args:
        dataset: Where the images are.
        decode: Makes an RGB picture of encoded bytes and the name that errors give them.
    """
    from PIL import Image

    columns = [images for _, images in dataset.samples()]
    if not columns:
        return b""
    page = Image.new("RGB", (SIDE * len(columns), SIDE * PER_CLASS), "white")
    for column, images in enumerate(columns):
        for row, content in enumerate(images):
            small = decode(content, f"a sample of {dataset.folder.name}").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(small, (column * SIDE, row * SIDE))
    stream = io.BytesIO()
    page.save(stream, "PNG", optimize=True)
    return stream.getvalue()
