"""Random numbers that are functions of (seed, purpose, epoch, sample), not of who asked before.

A counter-based generator (the SplitMix64 finaliser, Steele, Lea and Flood, OOPSLA 2014) gives every sample
of every epoch its own stream, so batch size, order, worker count and world size change no draw.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

# Purposes: one number per kind of draw.
ORDER, CROP, POLICY, ERASE, MIX, LAYERS, INIT = range(1, 8)


def uniforms(seed: int, purpose: int, epoch: int, samples: np.ndarray, count: int) -> np.ndarray:
    """Return `count` uniform numbers in [0, 1) for each sample: (len(samples), count) float64."""
    keys = _scalar(seed, purpose, epoch)
    rows = _mix(keys ^ samples.astype(np.uint64)[:, None])
    bits = _mix(rows + np.arange(1, count + 1, dtype=np.uint64)[None])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def derive(seed: int, purpose: int, step: int, rank: int = 0) -> int:
    """Return a 63-bit seed for a generator of one step on one rank."""
    value = _mix(_scalar(seed, purpose, step) ^ np.full(1, rank, dtype=np.uint64))
    return int(value[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the samples in one epoch: (count,) int64."""
    order = np.argsort(uniforms(seed, ORDER, epoch, np.arange(count), 1)[:, 0], kind="stable")
    order.setflags(write=False)  # the cached array is shared
    return order


def normals(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Turn two arrays of uniforms in [0, 1) into standard normals (Box-Muller)."""
    return np.asarray(np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second))


def _scalar(*parts: int) -> np.ndarray:
    value = np.zeros(1, dtype=np.uint64)
    for part in parts:
        value = _mix(value ^ np.full(1, part % 2**64, dtype=np.uint64))
    return value


def _mix(bits: np.ndarray) -> np.ndarray:
    """Scramble 64-bit counters; arithmetic is modulo 2^64 by intent."""
    with np.errstate(over="ignore"):
        bits = bits + _GOLDEN
        bits = (bits ^ (bits >> np.uint64(30))) * _MIX1
        bits = (bits ^ (bits >> np.uint64(27))) * _MIX2
        return np.asarray(bits ^ (bits >> np.uint64(31)))
