"""What ``doctor`` says of the folder of an import, from the listing that the import itself is made from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from generators.published.checks import named_otherwise
from generators.published.mapping import class_map
from generators.published.scan import inspect_image
from harness.api import ClassList, DataReport, Entry, EntryReader, UserError, list_images, sample_paths

_SHOWN = 3


def inspect_published(root: Path, spec: str, classes: ClassList) -> DataReport:
    """Return layout, counts, class folders against the class list, and whether a sample decodes.

    Raises:
        DataMissing: no images in a known layout.
        UserError: a class has no folder, or the class map is wrong.
    """
    listing = list_images(root)
    counts = Counter(entry.folder for entry in listing.entries)
    mapping = class_map(spec, classes, counts, listing.label_names, listing.beside)
    unknown = sorted(counts.keys() - mapping.labels.keys() - mapping.elsewhere)
    missing = sorted(set(range(len(classes))) - {mapping.labels.get(folder, -1) for folder in counts})
    odd = f"; {len(unknown)} folders name no class, such as {', '.join(unknown[:_SHOWN])}" if unknown else ""
    if missing:
        raise UserError(
            f"{len(missing)} of {len(classes)} classes of {classes.name} have no folder in {listing.base}",
            f"such as {', '.join(classes.ids[index] for index in missing[:_SHOWN])}{odd}",
            "complete it, give class_map, or use a class list of the classes it has",
        )
    sizes = [count for folder, count in counts.items() if folder in mapping.labels]
    used = {entry.path: entry for entry in listing.entries if entry.folder in mapping.labels}
    sample = [used[path] for path in sample_paths(tuple(used))]
    skipped = "".join(f", {count} {suffix} files not read" for suffix, count in sorted(listing.skipped.items()))
    skipped += "".join(f", {text}" for text in (*listing.left_out, *listing.noted))
    rows = [{"folder": e.folder, "stem": e.stem, "path": e.path} for e in listing.entries]
    for finding in named_otherwise(rows, classes, mapping.labels):
        raise UserError(
            f"the labels in {listing.base} are not what they are taken for", finding.text, "correct class_map"
        )
    broken = _broken(EntryReader(listing.base), sample)
    asked = (f"{len(unknown)} folders are asked about: decisions.unknown-folders",) if unknown else ()
    return DataReport(
        listing.layout + (" in train/" if listing.base != root else ""),
        f"{sum(sizes)} images, {min(sizes)} to {max(sizes)} per class{skipped}; "
        f"{len(sample) - len(broken)} of {len(sample)} sampled images decode",
        f"{len(classes)} of {len(classes)} classes of {classes.name}{odd}",
        wrong=(*listing.missing, *broken),
        asked=asked,
    )


def _broken(reader: EntryReader, sample: list[Entry]) -> list[str]:
    rows = [inspect_image(reader, entry) for entry in sample]
    return [f"{row['path']}: {row['error']}" for row in rows if row["error"]]
