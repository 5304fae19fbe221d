"""Outlines of the novel classes of the transfer sets that are places: land seen from above, and buildings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.microworld.datasets.parts import Field, Outline, box, capsule, cut, ellipse, polygon, union


def _airstrip(x: Field, y: Field) -> Field:
    return union(capsule(x, y, (-0.8, -0.55), (0.8, 0.2), 0.11), capsule(x, y, (-0.6, 0.75), (0.5, -0.8), 0.11))


def _barns(x: Field, y: Field) -> Field:
    return union(
        box(x, y, (-0.45, -0.4), (0.4, 0.28)), box(x, y, (0.5, -0.1), (0.26, 0.6)), box(x, y, (-0.3, 0.5), (0.5, 0.24))
    )


def _delta(x: Field, y: Field) -> Field:
    return union(
        capsule(x, y, (0.0, -0.9), (0.0, -0.1), 0.15),
        capsule(x, y, (0.0, -0.1), (-0.65, 0.8), 0.13),
        capsule(x, y, (0.0, -0.1), (0.05, 0.88), 0.1),
        capsule(x, y, (0.0, -0.1), (0.7, 0.72), 0.13),
    )


def _hall(x: Field, y: Field) -> Field:
    return union(box(x, y, (-0.5, 0.0), (0.3, 0.85)), box(x, y, (0.1, 0.55), (0.75, 0.3)))


def _island(x: Field, y: Field) -> Field:
    lake = ellipse(x, y, (0.0, 0.0), (0.95, 0.72))
    return cut(lake, ellipse(x, y, (-0.3, 0.12), (0.3, 0.22)), ellipse(x, y, (0.38, -0.15), (0.24, 0.3)))


def _meander(x: Field, y: Field) -> Field:
    return 0.6 * (np.maximum(np.abs(x - 0.5 * np.sin(3.6 * y)) - 0.2, 0.6 * (np.abs(y) - 0.92)))


def _orchard(x: Field, y: Field) -> Field:
    column, row = 0.62 * np.clip(np.round(x / 0.62), -1, 1), 0.62 * np.clip(np.round(y / 0.62), -1, 1)
    return np.hypot(x - column, y - row) - 0.22


def _quay(x: Field, y: Field) -> Field:
    piers = union(*(box(x, y, (offset, -0.2), (0.12, 0.65)) for offset in (-0.72, -0.24, 0.24, 0.72)))
    return union(box(x, y, (0.0, 0.6), (0.92, 0.22)), piers)


def _roundabout(x: Field, y: Field) -> Field:
    ring = np.abs(np.hypot(x, y) - 0.42) - 0.13
    roads = np.minimum(box(x, y, (0.0, 0.0), (0.1, 0.95)), box(x, y, (0.0, 0.0), (0.95, 0.1)))
    return np.minimum(ring, np.maximum(roads, 0.4 - np.hypot(x, y)))


def _reservoir(x: Field, y: Field) -> Field:
    arms = union(capsule(x, y, (-0.2, -0.1), (-0.8, -0.7), 0.16), capsule(x, y, (0.2, -0.1), (0.75, -0.75), 0.16))
    return union(np.maximum(ellipse(x, y, (0.0, 0.1), (0.72, 0.7)), y - 0.5), arms)


LAND: Mapping[str, Outline] = {
    "Airstrip": _airstrip,
    "Barns": _barns,
    "Delta": _delta,
    "Hall": _hall,
    "Island": _island,
    "Meander": _meander,
    "Orchard": _orchard,
    "Quay": _quay,
    "Reservoir": _reservoir,
    "Roundabout": _roundabout,
}


def _lighthouse(x: Field, y: Field) -> Field:
    tower = polygon(x, y, ((-0.2, -0.45), (0.2, -0.45), (0.34, 0.9), (-0.34, 0.9)))
    return union(
        tower,
        box(x, y, (0.0, -0.52), (0.36, 0.06)),
        box(x, y, (0.0, -0.66), (0.17, 0.14)),
        polygon(x, y, ((-0.26, -0.76), (0.0, -0.98), (0.26, -0.76))),
    )


def _windmill(x: Field, y: Field) -> Field:
    body = polygon(x, y, ((-0.22, -0.2), (0.22, -0.2), (0.4, 0.92), (-0.4, 0.92)))
    sails = union(capsule(x, y, (-0.65, -0.85), (0.65, 0.45), 0.09), capsule(x, y, (0.65, -0.85), (-0.65, 0.45), 0.09))
    return union(body, sails)


def _arch_bridge(x: Field, y: Field) -> Field:
    wall = box(x, y, (0.0, 0.1), (0.95, 0.42))
    return cut(wall, ellipse(x, y, (-0.47, 0.5), (0.34, 0.5)), ellipse(x, y, (0.47, 0.5), (0.34, 0.5)))


def _suspension_bridge(x: Field, y: Field) -> Field:
    side = np.abs(x)
    deck, pylon = box(x, y, (0.0, 0.4), (0.95, 0.08)), box(side, y, (0.5, 0.0), (0.08, 0.75))
    cable = np.maximum(
        np.abs(y + 0.65 - 0.9 * (1.0 - side / 0.5) ** 2 * (side < 0.5) - 1.9 * np.maximum(side - 0.5, 0.0)) - 0.08,
        side - 0.95,
    )
    return union(deck, pylon, 0.7 * cable)


def _castle(x: Field, y: Field) -> Field:
    towers = union(box(x, y, (-0.65, 0.05), (0.24, 0.75)), box(x, y, (0.65, 0.05), (0.24, 0.75)))
    wall = cut(box(x, y, (0.0, 0.4), (0.6, 0.4)), ellipse(x, y, (0.0, 0.8), (0.2, 0.45)))
    teeth = union(*(box(x, y, (offset, -0.05), (0.09, 0.12)) for offset in (-0.24, 0.0, 0.24)))
    return union(towers, wall, teeth)


def _church(x: Field, y: Field) -> Field:
    nave = polygon(x, y, ((-0.25, 0.9), (-0.25, 0.15), (0.3, -0.2), (0.88, 0.15), (0.88, 0.9)))
    tower = polygon(x, y, ((-0.75, 0.9), (-0.75, -0.35), (-0.5, -0.95), (-0.25, -0.35), (-0.25, 0.9)))
    return union(nave, tower)


def _temple(x: Field, y: Field) -> Field:
    roof = polygon(x, y, ((-0.92, -0.3), (0.0, -0.8), (0.92, -0.3)))
    columns = union(*(box(x, y, (offset, 0.2), (0.1, 0.5)) for offset in (-0.7, -0.23, 0.23, 0.7)))
    return union(roof, columns, box(x, y, (0.0, 0.75), (0.92, 0.1)))


def _tent(x: Field, y: Field) -> Field:
    cloth = polygon(x, y, ((-0.95, 0.6), (-0.25, -0.6), (0.35, -0.6), (0.95, 0.6)))
    return cut(cloth, polygon(x, y, ((-0.5, 0.7), (-0.25, -0.2), (0.0, 0.7))))


def _igloo(x: Field, y: Field) -> Field:
    dome = np.maximum(ellipse(x, y, (-0.15, 0.5), (0.78, 1.0)), y - 0.5)
    porch = np.maximum(ellipse(x, y, (0.6, 0.5), (0.34, 0.5)), y - 0.5)
    return cut(union(dome, porch), ellipse(x, y, (0.62, 0.5), (0.17, 0.3)))


def _water_tower(x: Field, y: Field) -> Field:
    side = np.abs(x)
    legs = union(capsule(side, y, (0.3, -0.1), (0.55, 0.88), 0.08), box(x, y, (0.0, 0.4), (0.45, 0.06)))
    return union(ellipse(x, y, (0.0, -0.42), (0.68, 0.46)), legs)


def _radio_tower(x: Field, y: Field) -> Field:
    side = np.abs(x)
    legs = capsule(side, y, (0.05, -0.9), (0.5, 0.9), 0.08)
    return union(
        legs,
        box(x, y, (0.0, 0.45), (0.38, 0.07)),
        box(x, y, (0.0, 0.0), (0.3, 0.07)),
        box(x, y, (0.0, -0.45), (0.42, 0.07)),
    )


def _house(x: Field, y: Field) -> Field:
    walls, roof = box(x, y, (0.0, 0.42), (0.62, 0.48)), polygon(x, y, ((-0.88, 0.0), (0.0, -0.75), (0.88, 0.0)))
    return cut(union(walls, roof, box(x, y, (0.48, -0.55), (0.12, 0.3))), box(x, y, (-0.2, 0.6), (0.16, 0.32)))


PLACES: Mapping[str, Outline] = {
    "b/bridge/arch": _arch_bridge,
    "b/bridge/suspension": _suspension_bridge,
    "c/castle": _castle,
    "c/church/outdoor": _church,
    "h/house": _house,
    "i/igloo": _igloo,
    "l/lighthouse": _lighthouse,
    "t/temple": _temple,
    "t/tent": _tent,
    "t/tower/radio": _radio_tower,
    "t/tower/water": _water_tower,
    "w/windmill": _windmill,
}
"""Buildings that name a place, by their path below the image folder."""
