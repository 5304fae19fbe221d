"""``mix:A=0.5+B=0.5``: a data set drawn from those of other generators, at the size of one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from harness.api import (
    Context,
    Generator,
    GeneratorCard,
    Request,
    Sample,
    UserError,
    derive_seed,
    find_generator,
    write_json,
    write_text,
)

_EXAMPLE = "e.g. mix:real=0.5+sd15=0.5"


class Mix(Generator):
    """Images of other data sets, listed where they are; nothing is copied or encoded again."""

    card = GeneratorCard(
        id="mix",
        version=1,
        summary="mix:real=0.5+sd15=0.5 draws a data set from those of other generators by share, at the size of one of them.",
        information=(),
        real_pixels_at_training=False,
        real_pixels_at_synthesis=False,
        licence="those of its parts",
        citation="none: an instrument of this harness",
        count="in each class as many images as the part that has fewest of it",
        codec="as in each part; dataset.common_codec makes them equal",
        cost="none beside that of its parts, which are shared with their own runs",
        reading="every part gets its share of each class, rounded down or up; a place left over goes to the part that is "
        "furthest behind its share over the classes so far. The images are chosen without replacement by the generator seed, and a "
        "larger share holds the images of a smaller one",
        default=False,
        modes=("import",),
    )
    import_callable_path = "generators.mix:draw"

    def __init__(self, parts: Mapping[str, float] = MappingProxyType({})) -> None:
        self.parts = parts

    def bind(self, argument: str) -> Generator:
        """Return the mix of an argument such as ``real=0.5+folder:PATH=0.5``; its id names the parts in their order.

        Raises:
            UserError: a part is unknown or comes twice, is a mix itself, or the shares do not add up to 1.
        """
        shares: dict[str, Fraction] = {}
        parts: dict[str, Generator] = {}
        for text in _split(argument):
            name, _, share = text.rpartition("=")
            part = _part(argument, name, text)
            if part.card.id in parts:
                raise UserError(f"mix:{argument} names {part.card.id} twice", "a part has one share", "add them up")
            parts[part.card.id], shares[part.card.id] = part, _share(argument, share, text)
        if sum(shares.values()) != 1:
            said = " + ".join(f"{name} {float(share):g}" for name, share in shares.items())
            raise UserError(
                f"the shares of mix:{argument} add up to {float(sum(shares.values())):g}",
                f"they are read as {said}",
                "give shares that add up to exactly 1, in decimals or as fractions such as 1/3",
            )
        bound = Mix({name: float(shares[name]) for name in sorted(shares)})
        members = [parts[name] for name in bound.parts]
        bound.bound_data = {name: root for part in members for name, root in part.bound_data.items()}
        bound.card = _card(self.card, {name: shares[name] for name in bound.parts}, members)  # type: ignore[misc]
        return bound

    def missing(self, settings: object) -> str:
        """Say that parts are needed."""
        return "" if self.parts else f"write mix:A=SHARE+B=SHARE, {_EXAMPLE}"

    def synthesise(self, ctx: Context, request: Request) -> Iterator[Sample]:
        """Never called: images that exist are drawn, not made."""
        raise NotImplementedError("a mix is drawn from images of its parts")


def _split(argument: str) -> list[str]:
    """Split at each ``+`` that is not inside the argument of a part, as in ``world:texture=0.4+scene=0.2=0.5+real=0.5``."""
    parts: list[str] = []
    for piece in argument.split("+"):
        known = True
        if parts and ":" in parts[-1]:
            try:
                find_generator(piece.partition("=")[0].partition(":")[0])
            except UserError:
                known = False
        if known:
            parts.append(piece)
        else:
            parts[-1] += f"+{piece}"
    return parts


def _part(argument: str, name: str, text: str) -> Generator:
    if not name:
        raise UserError(f"mix:{argument} cannot be read", f"{text!r} is not GENERATOR=SHARE", _EXAMPLE)
    part = find_generator(name)
    if part.parts or part.card.id == "mix":
        raise UserError(f"mix:{argument} holds another mix", f"{name!r} is one", "name its parts with their own shares")
    if part.takes_argument and ":" not in name:
        raise UserError(f"mix:{argument} cannot be read", f"{name} takes an argument", f"write {name}:...=SHARE")
    return part


def _share(argument: str, share: str, text: str) -> Fraction:
    try:
        value = Fraction(share)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value <= 1:
        raise UserError(
            f"mix:{argument} cannot be read",
            f"{share!r} in {text!r} is not a share above 0 and at most 1",
            f"write GENERATOR=SHARE, {_EXAMPLE}",
        )
    return value


def _plain(share: Fraction) -> str:
    """Return a share as a short decimal, or as a fraction where that would not be exact."""
    text = f"{float(share):g}"
    return text if Fraction(text) == share else str(share)


def _card(card: GeneratorCard, parts: Mapping[str, Fraction], members: Sequence[Generator]) -> GeneratorCard:
    """Return the card of one mix: its supervision is that of all parts together."""
    readings = [f"{each.card.id}: {each.card.reading}" for each in members if each.card.reading]
    return replace(
        card,
        id="mix:" + "+".join(f"{name}={_plain(share)}" for name, share in parts.items()),
        information=tuple(dict.fromkeys(fact for each in members for fact in each.card.information)),
        real_pixels_at_training=any(each.card.real_pixels_at_training for each in members),
        real_pixels_at_synthesis=any(each.card.real_pixels_at_synthesis for each in members),
        licence="; ".join(f"{each.card.id}: {each.card.licence or 'not stated'}" for each in members),
        reading="; ".join([card.reading, *readings]),
    )


def draw(ctx: Context) -> None:
    """Write the list of a mix: ``images.jsonl``, the rows of the parts with ``part``, and ``source.json`` with the counts.

    Raises:
        UserError: a part has no image of a class.
    """
    shares: dict[str, float] = ctx.params["parts"]
    roles = {part: f"part-{place}" for place, part in enumerate(shares)}
    rows = {part: _by_class(ctx, role) for part, role in roles.items()}
    sizes = [min(len(rows[part][label]) for part in shares) for label in range(len(ctx.classes))]
    for label, size in enumerate(sizes):
        if not size:
            empty = next(part for part in shares if not rows[part][label])
            raise UserError(
                f"{ctx.cell.name} cannot be drawn", f"{empty} has no image of {ctx.classes.ids[label]}", "leave it out"
            )
    counts = allot(list(shares.values()), sizes)
    lines: list[str] = []
    for label, quota in enumerate(counts):
        for part, count in zip(shares, quota, strict=True):
            chosen = choose([row["path"] for row in rows[part][label]], count, ctx.cell.seeds["generator_seed"], part)
            kept = [row for row in rows[part][label] if row["path"] in chosen]
            lines += [json.dumps({**row, "part": part}, sort_keys=True, ensure_ascii=False) for row in kept]
    write_text(ctx.out / "images.jsonl", "".join(f"{line}\n" for line in lines))
    totals = {part: sum(quota[place] for quota in counts) for place, part in enumerate(shares)}
    write_json(ctx.out / "source.json", {"parts": roles, "images": totals})


def _by_class(ctx: Context, role: str) -> list[list[dict[str, str]]]:
    found: list[list[dict[str, str]]] = [[] for _ in ctx.classes.ids]
    with ctx.inputs[role].path("images.jsonl").open(encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            found[row["class_index"]].append(row)
    return found


def allot(shares: Sequence[float], sizes: Sequence[int]) -> list[list[int]]:
    """Return the images of each part in each class.

    In a class of n images a part of share s gets s n rounded down; each place left over goes to the part that is furthest behind
    its share over this class and those before it (of equal ones, the first). So a class deviates from its share by less than one
    image, and the whole data set does not add such deviations up.

    Args:
        shares: Share of each part, above 0; they add up to 1.
        sizes: Images of each class in the mix.
    """
    exact = [Fraction(share).limit_denominator(10**6) for share in shares]
    behind = [Fraction(0) for _ in shares]
    found = []
    for size in sizes:
        quota = [int(share * size) for share in exact]
        behind = [each + share * size - got for each, share, got in zip(behind, exact, quota, strict=True)]
        order = sorted(range(len(exact)), key=lambda place: (-behind[place], place))
        for place in order[: size - sum(quota)]:
            quota[place] += 1
            behind[place] -= 1
        found.append(quota)
    return found


def choose(names: Sequence[str], count: int, seed: int, part: str) -> frozenset[str]:
    """Return ``count`` of the images of a class in a part, by run seed and names alone: those of a smaller count among them."""
    return frozenset(sorted(names, key=lambda name: (derive_seed("mix", seed, part, name), name))[:count])
