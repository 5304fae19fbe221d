"""Damaged input, many times over: a reader returns or raises an error that names what is wrong, in time, and changes no file.

``tests/fuzz/table.py`` lists the readers. By hand with more inputs, for the table in docs/fuzzing.md: ``python benchmarks/fuzz.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.bench import Bench
from tests.fuzz.table import READERS

FEW, MANY = 5, 40
"""Inputs of each reader by default, and in the slow run."""
Open = Callable[[str], Bench]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Return a function of a reader's name: its bench."""
    made: dict[str, Bench] = {}

    def open_bench(name: str) -> Bench:
        if name not in made:
            made[name] = Bench(READERS[name], tmp_path_factory.mktemp("bench"))
        return made[name]

    return open_bench


def inputs(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Draw so many inputs of each reader, the same in every run."""
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.dear == 1])
@given(rng=st.randoms(use_true_random=False))
@inputs(FEW)
def test_readers_refuse_damage_by_name(bench: Open, name: str, rng: random.Random) -> None:
    """``Bench.read`` raises ``Broken`` where a reader does anything else."""
    place = bench(name)
    place.read(place.damaged(rng))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@given(rng=st.randoms(use_true_random=False))
@inputs(MANY)
def test_readers_refuse_damage_by_name_in_many_forms(bench: Open, name: str, rng: random.Random) -> None:
    place = bench(name)
    if place.reader.dear == 1 or rng.randrange(place.reader.dear) == 0:
        place.read(place.damaged(rng))


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_what_is_whole(bench: Open, name: str) -> None:
    place = bench(name)
    assert place.read(place.valid) == ""
