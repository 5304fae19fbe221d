"""Outlines of the novel classes of the transfer sets that are things: none of them is a class of the embedded world.

Families share parts and differ in proportions, as breeds, car models and aircraft variants do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.microworld.datasets.parts import Field, Outline, Point, box, capsule, cut, ellipse, polygon, union


def aeroplane(span: float, sweep: float, wing: float, tail: float, body: float, engines: int) -> Outline:
    """Return an aircraft seen from above, nose up.

    ``span`` and ``tail`` are half-spans, ``sweep`` is how far the tips lie behind the roots, ``wing`` the height of the
    wing root, ``body`` the radius of the fuselage, ``engines`` the number of nacelles (0, 2 or 4).
    """

    def outline(x: Field, y: Field) -> Field:
        side = np.abs(x)
        blade = polygon(
            side, y, ((0.0, wing - 0.2), (span, wing + sweep - 0.06), (span, wing + sweep + 0.1), (0.0, wing + 0.2))
        )
        rudder = polygon(side, y, ((0.0, 0.55), (tail, 0.68 + 0.4 * sweep), (tail, 0.82 + 0.4 * sweep), (0.0, 0.85)))
        parts = [capsule(x, y, (0.0, -0.9 + body), (0.0, 0.9 - body), body), blade, rudder]
        for index in range(engines // 2):
            out = span * (0.42 + 0.3 * index)
            root = wing + sweep * out / span
            parts.append(capsule(side, y, (out, root - 0.22), (out, root + 0.1), 0.085))
        return union(*parts)

    return outline


def car(nose: float, roof: Point, height: float, body: float, wheel: float, bed: bool = False) -> Outline:
    """Return a car seen from the side.

    ``nose`` is the height of the bonnet's front, ``roof`` the left and right ends of the roof, ``height`` the height of
    the roof above the belt line, ``body`` the half height of the body, ``wheel`` the wheel radius; ``bed`` lowers the
    rear to a loading bed.
    """

    def outline(x: Field, y: Field) -> Field:
        belt, sill = 0.15 - body, 0.15 + body
        rear = belt + (0.35 * body if bed else 0.0)
        hull = polygon(
            x,
            y,
            (
                (-0.92, sill),
                (-0.92, belt + nose),
                (roof[0] - 0.22, belt),
                (roof[0], belt - height),
                (roof[1], belt - height),
                (roof[1] + 0.16, rear),
                (0.92, rear),
                (0.92, sill),
            ),
        )
        window = box(x, y, (sum(roof) / 2, belt - 0.42 * height), ((roof[1] - roof[0]) / 2 - 0.02, 0.25 * height))
        axle = sill + 0.02
        return union(
            cut(hull, window), ellipse(x, y, (-0.55, axle), (wheel, wheel)), ellipse(x, y, (0.55, axle), (wheel, wheel))
        )

    return outline


def blossom(petals: int, depth: float, power: float, eye: float = 0.0) -> Outline:
    """Return a rosette: ``petals`` lobes of relative ``depth``, blunt (``power`` < 1) or pointed (> 1), with an eye."""

    def outline(x: Field, y: Field) -> Field:
        radius = np.hypot(x, y)
        lobe = np.abs(np.cos(0.5 * petals * (np.arctan2(y, x) + 0.5 * math.pi))) ** power
        edge = 0.92 * (1.0 - depth * (1.0 - lobe))
        return np.maximum(0.8 * (radius - edge), eye - radius) if eye else 0.8 * (radius - edge)

    return outline


def pet(head: Point, ear: str, set_: float, muzzle: float) -> Outline:
    """Return a face: a ``head`` of given radii, two ears of a kind set ``set_`` apart, eyes and a muzzle."""

    def ears(side: Field, y: Field) -> Field:
        top = 0.15 - head[1]
        if ear == "pointed":
            return polygon(side, y, ((set_ - 0.26, top + 0.2), (set_ + 0.08, -0.95), (set_ + 0.24, top + 0.42)))
        if ear == "tall":
            return capsule(side, y, (set_ - 0.1, top + 0.2), (set_ + 0.06, -0.85), 0.13)
        if ear == "round":
            return ellipse(side, y, (set_ + 0.02, top + 0.08), (0.25, 0.25))
        if ear == "folded":
            return polygon(side, y, ((set_ - 0.22, top + 0.12), (set_ + 0.4, top - 0.1), (set_ + 0.22, top + 0.42)))
        return ellipse(side, y, (head[0] + 0.06, 0.22), (0.19, 0.5))

    def outline(x: Field, y: Field) -> Field:
        side = np.abs(x)
        face = union(ellipse(x, y, (0.0, 0.15), head), ellipse(x, y, (0.0, 0.42), (muzzle, 0.38)), ears(side, y))
        eyes = ellipse(side, y, (0.45 * head[0], 0.02), (0.12, 0.1))
        return cut(face, eyes, ellipse(x, y, (0.0, 0.42), (0.13, 0.09)))

    return outline


def _mushroom(x: Field, y: Field) -> Field:
    cap = np.maximum(ellipse(x, y, (0.0, 0.05), (0.9, 0.85)), y - 0.05)
    return union(cap, box(x, y, (0.0, 0.4), (0.24, 0.48), 0.1))


def _pear(x: Field, y: Field) -> Field:
    return union(
        ellipse(x, y, (0.0, 0.35), (0.6, 0.55)),
        ellipse(x, y, (0.0, -0.2), (0.36, 0.5)),
        capsule(x, y, (0.0, -0.6), (0.12, -0.92), 0.06),
    )


def _carrot(x: Field, y: Field) -> Field:
    root = polygon(x, y, ((-0.38, -0.35), (0.38, -0.35), (0.08, 0.92), (-0.08, 0.92)))
    leaves = union(*(capsule(x, y, (0.0, -0.3), (lean, -0.88), 0.09) for lean in (-0.36, 0.0, 0.36)))
    return union(root, leaves)


def _drumstick(x: Field, y: Field) -> Field:
    knobs = union(ellipse(x, y, (0.5, 0.85), (0.15, 0.13)), ellipse(x, y, (0.82, 0.55), (0.13, 0.15)))
    return union(ellipse(x, y, (-0.25, -0.25), (0.62, 0.6)), capsule(x, y, (0.0, 0.0), (0.65, 0.65), 0.13), knobs)


def _ice_cream(x: Field, y: Field) -> Field:
    cone = polygon(x, y, ((-0.42, 0.0), (0.42, 0.0), (0.0, 0.95)))
    return union(cone, ellipse(x, y, (0.0, -0.38), (0.5, 0.5)))


def _cupcake(x: Field, y: Field) -> Field:
    cup = polygon(x, y, ((-0.62, 0.1), (0.62, 0.1), (0.42, 0.9), (-0.42, 0.9)))
    return union(
        cup,
        ellipse(x, y, (0.0, -0.05), (0.78, 0.28)),
        ellipse(x, y, (0.0, -0.38), (0.52, 0.26)),
        ellipse(x, y, (0.0, -0.68), (0.25, 0.22)),
    )


def _soup_bowl(x: Field, y: Field) -> Field:
    bowl = np.maximum(ellipse(x, y, (0.0, -0.1), (0.92, 0.85)), -0.1 - y)
    return union(bowl, box(x, y, (0.0, 0.78), (0.36, 0.1)), capsule(x, y, (0.3, -0.1), (0.75, -0.75), 0.08))


def _fish(x: Field, y: Field) -> Field:
    tail = polygon(x, y, ((0.35, 0.0), (0.92, -0.45), (0.78, 0.0), (0.92, 0.45)))
    fin = polygon(x, y, ((-0.35, -0.25), (0.2, -0.62), (0.2, -0.2)))
    return cut(union(ellipse(x, y, (-0.22, 0.0), (0.7, 0.42)), tail, fin), ellipse(x, y, (-0.6, -0.08), (0.1, 0.1)))


def _cherries(x: Field, y: Field) -> Field:
    stalks = union(capsule(x, y, (-0.48, 0.3), (0.1, -0.85), 0.06), capsule(x, y, (0.5, 0.4), (0.1, -0.85), 0.06))
    return union(ellipse(x, y, (-0.48, 0.45), (0.4, 0.4)), ellipse(x, y, (0.5, 0.5), (0.38, 0.38)), stalks)


def _pretzel(x: Field, y: Field) -> Field:
    loops = np.abs(np.hypot((np.abs(x) - 0.4) / 1.05, y - 0.12) - 0.38) - 0.13
    arch = np.maximum(np.abs(np.hypot(x, (y + 0.05) * 1.1) - 0.76) - 0.12, y - 0.25)
    return union(loops, arch)


def _tea_pot(x: Field, y: Field) -> Field:
    handle = np.maximum(np.abs(np.hypot(x - 0.55, y - 0.15) - 0.3) - 0.08, 0.45 - x)
    spout = capsule(x, y, (-0.4, 0.3), (-0.85, -0.3), 0.11)
    return union(ellipse(x, y, (0.0, 0.2), (0.6, 0.52)), handle, spout, ellipse(x, y, (0.0, -0.42), (0.13, 0.13)))


def _bread(x: Field, y: Field) -> Field:
    loaf = union(
        box(x, y, (0.0, 0.3), (0.68, 0.5), 0.08),
        ellipse(x, y, (-0.38, -0.25), (0.44, 0.4)),
        ellipse(x, y, (0.38, -0.25), (0.44, 0.4)),
    )
    return cut(loaf, capsule(x, y, (-0.3, 0.2), (0.3, 0.2), 0.07))


AIRCRAFT: Mapping[str, Outline] = {
    "Albatross 172": aeroplane(0.92, 0.0, -0.2, 0.34, 0.12, 0),
    "Albatross 182": aeroplane(0.92, 0.0, -0.2, 0.34, 0.12, 2),
    "Boreal 707-320": aeroplane(0.9, 0.45, -0.2, 0.4, 0.14, 4),
    "Boreal 727-200": aeroplane(0.78, 0.45, -0.05, 0.4, 0.14, 0),
    "Boreal 737-400": aeroplane(0.85, 0.35, -0.2, 0.4, 0.2, 2),
    "Delta F/A-9": aeroplane(0.62, 0.7, -0.1, 0.36, 0.13, 0),
    "Delta F-16": aeroplane(0.5, 0.35, 0.1, 0.38, 0.15, 0),
    "Heron C-130": aeroplane(0.92, 0.02, -0.35, 0.5, 0.2, 4),
    "Heron DHC-8": aeroplane(0.92, -0.12, -0.1, 0.5, 0.13, 2),
    "Swift Mk/V": aeroplane(0.8, -0.35, 0.1, 0.3, 0.13, 0),
}

CARS: Mapping[str, Outline] = {
    "Axiom Coupe 2000": car(0.22, (-0.1, 0.25), 0.36, 0.2, 0.22),
    "Axiom Hatchback 2001": car(0.12, (-0.15, 0.72), 0.42, 0.22, 0.22),
    "Axiom Sedan 2001": car(0.08, (-0.25, 0.35), 0.4, 0.22, 0.22),
    "Brisk Pickup 2004": car(0.04, (-0.3, 0.05), 0.45, 0.26, 0.27, True),
    "Brisk SUV 2007": car(0.03, (-0.35, 0.72), 0.5, 0.28, 0.29),
    "Brisk Van 2009": car(0.06, (-0.55, 0.74), 0.66, 0.26, 0.2),
    "Comet Convertible 2010": car(0.14, (-0.12, 0.02), 0.26, 0.2, 0.24),
    "Comet Limousine 2011": car(0.05, (-0.45, 0.6), 0.34, 0.18, 0.18),
    "Comet Roadster 2012": car(0.26, (0.1, 0.45), 0.3, 0.17, 0.28),
    "Dray Truck 2012": car(0.0, (-0.7, -0.35), 0.62, 0.26, 0.24),
}

FLOWERS: Mapping[str, Outline] = {
    "trillium": blossom(3, 0.72, 0.8),
    "wallflower": blossom(4, 0.6, 0.7),
    "dogwood": blossom(4, 0.72, 1.6),
    "primula": blossom(5, 0.42, 0.8),
    "columbine": blossom(5, 0.68, 0.9, 0.2),
    "lily": blossom(6, 0.75, 1.6),
    "anemone": blossom(6, 0.4, 0.6, 0.22),
    "cosmos": blossom(8, 0.45, 0.8),
    "aster": blossom(11, 0.5, 1.0),
    "marigold": blossom(9, 0.18, 0.7, 0.25),
}

# Cat breeds start with a capital and dog breeds do not, as in the public list; order is case-insensitive.
PETS: Mapping[str, Outline] = {
    "Angora": pet((0.62, 0.6), "pointed", 0.42, 0.3),
    "barker": pet((0.6, 0.66), "floppy", 0.4, 0.36),
    "Coon": pet((0.84, 0.6), "pointed", 0.58, 0.3),
    "dachs": pet((0.46, 0.7), "floppy", 0.3, 0.26),
    "Foldear": pet((0.72, 0.6), "folded", 0.36, 0.3),
    "mastino": pet((0.78, 0.62), "folded", 0.56, 0.56),
    "panda_hound": pet((0.76, 0.66), "round", 0.56, 0.36),
    "Rex": pet((0.5, 0.66), "tall", 0.36, 0.24),
    "spitz": pet((0.56, 0.56), "pointed", 0.26, 0.4),
    "terrier": pet((0.58, 0.56), "round", 0.44, 0.5),
}

FOODS: Mapping[str, Outline] = {
    "bread": _bread,
    "carrot": _carrot,
    "cherries": _cherries,
    "cupcake": _cupcake,
    "drumstick": _drumstick,
    "fish": _fish,
    "ice_cream": _ice_cream,
    "mushroom": _mushroom,
    "pear": _pear,
    "pretzel": _pretzel,
    "soup_bowl": _soup_bowl,
    "tea_pot": _tea_pot,
}
