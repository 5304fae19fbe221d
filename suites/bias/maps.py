"""Coarse class maps: from the fine classes of a head to the categories of a bias suite.

Everything works by class id. A map is bound to a head's ordered class list, so permuting head and list
together changes nothing, and a head with other classes is refused instead of being scored with a wrong index
map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.api import UserError, coverage

_TIE = 1e-9  # log scores closer than this differ by rounding only


@dataclass(frozen=True)
class HeadMap:
    """A class map bound to one head.

    Attributes:
        categories: Category names in label order.
        members: Output indices of each category; empty where the head lacks all its classes.
        width: Number of outputs of the head.
    """

    categories: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    width: int

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Return the categories that the head cannot express."""
        return tuple(name for name, indices in zip(self.categories, self.members, strict=True) if not indices)

    @property
    def covered(self) -> tuple[str, ...]:
        """Return the categories that the head can express."""
        return tuple(name for name, indices in zip(self.categories, self.members, strict=True) if indices)

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of outputs of every category: (categories,)."""
        return np.asarray([len(members) for members in self.members], dtype=np.int64)

    def require(self, metric: str, restricted: bool = False) -> None:
        """Refuse a metric that the head does not define: it must cover every category, or two if `restricted`.

        Raises:
            UserError: too few categories have a class in the head.
        """
        if len(self.covered) < (2 if restricted else len(self.categories)):
            advice = "" if restricted else ", or measure the covered images under another name with restricted=true"
            raise UserError(
                f"{metric} is undefined: the head covers {len(self.covered)} of {len(self.categories)} categories",
                f"no class of the head belongs to: {', '.join(self.uncovered)}",
                f"evaluate a head that was trained on classes of every category{advice}",
            )

    def lookup(self) -> npt.NDArray[np.int64]:
        """Return the category index of every output, -1 for outputs outside the map: (width,)."""
        table = np.full(self.width, -1, dtype=np.int64)
        for index, members in enumerate(self.members):
            table[list(members)] = index
        return table

    def category_of(self, outputs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Map predicted output indices (n,) to category indices, -1 for outputs outside the map."""
        return self.lookup()[outputs]

    def decide(self, logits: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Choose the category with the largest mean probability of its members.

        The mean is taken over softmax probabilities (Geirhos et al., decision rule of the cue-conflict test);
        it is computed as log-sum-exp minus log count, so a vanishing total mass still decides. The first
        category in map order wins a tie. An uncovered category never wins.

        Args:
            logits: (n, width).

        Returns:
            Category index (n,) and whether the best score was tied (n,).
        """
        table = np.asarray(logits, dtype=np.float64)
        scores = np.full((len(table), len(self.categories)), -np.inf)
        for index, members in enumerate(self.members):
            if members:
                scores[:, index] = np.logaddexp.reduce(table[:, list(members)], axis=1) - np.log(len(members))
        top = scores >= scores.max(axis=1, keepdims=True) - _TIE
        return top.argmax(axis=1), top.sum(axis=1) > 1


@dataclass(frozen=True)
class ClassMap:
    """Categories with their fine class ids; the sets are disjoint."""

    categories: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, categories: Mapping[str, Sequence[str]]) -> ClassMap:
        """Build a map; a class in two categories is an error.

        Raises:
            UserError: a class id occurs twice, or a category is empty.
        """
        seen: dict[str, str] = {}
        for name, ids in categories.items():
            if not ids:
                raise UserError(f"category {name!r} has no classes", "the class map is incomplete", "mend the card")
            for class_id in ids:
                if class_id in seen:
                    raise UserError(
                        f"class {class_id} is in two categories",
                        f"{seen[class_id]!r} and {name!r}",
                        "mend the class map of the card",
                    )
                seen[class_id] = name
        return cls(tuple(categories), tuple(tuple(ids) for ids in categories.values()))

    def bind(self, classes: Sequence[str]) -> HeadMap:
        """Intersect the map with a head's ordered class ids.

        Raises:
            UserError: the head comes without a class list, or the list names a class twice.
        """
        members = tuple(coverage(classes, ids).outputs for ids in self.members)
        return HeadMap(self.categories, members, len(classes))
