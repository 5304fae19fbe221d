"""Settings of the transfer suites and the extraction that they share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from harness.api import DerivedInput, Resources, Settings, UserError
from suites.transfer.cards import DATASETS, MAX_ITERATIONS

EXTRACT_VERSION = 1


class TransferSettings(Settings):
    """What the linear probe and the few-shot probes have in common; defaults are the paper's protocol as far as it states one."""

    datasets: tuple[str, ...] = DATASETS
    image_size: int = Field(224, ge=8)
    """Side of the probe's crop; the shorter side is resized straight to it."""
    features: Literal["pooled", "cls", "gap"] = "pooled"
    """``pooled`` is what the classifier head sees: the pooled map, or the class token after the last norm."""
    normalise: Literal["none", "l2", "standardise"] = "none"
    """``none`` is the protocol; ``l2`` scales every vector, ``standardise`` every dimension by the fitting set."""
    batch_size: int = Field(128, ge=1)
    search: Literal["grid", "tpe30"] = "grid"
    """``tpe30`` is the search of the toolbox the paper names."""
    solver: Literal["reference", "converged"] = "reference"
    """Tolerance of the search; the refit always goes to the tolerance ``converged``."""
    one_standard_error: bool = False
    max_iterations: int = Field(MAX_ITERATIONS, ge=1)
    """Iterations after which a fit is given up, with a warning. It does not change a fit that has converged, only one that has
    not; so a value other than the default is part of what makes numbers comparable."""
    probe_seeds: int = Field(5, ge=1)
    """Seeds of splits, subsets and samplers; each fits its own probe."""
    threads: int = Field(1, ge=1)
    """Threads of the extraction (decoding) and of the solver."""
    devices: int = Field(1, ge=1)
    """Processes of the extraction, each with a device of its own; features do not depend on it beyond rounding."""
    solver_device: str = "cpu"
    """Where the solver runs: ``cpu``, or ``cuda`` for float64 on a data-centre GPU."""

    @field_validator("datasets")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in DATASETS]
        if unknown or not names or len(set(names)) < len(names):
            raise ValueError(f"choose out of {', '.join(DATASETS)}, each once; got {', '.join(names) or 'none'}")
        return names

    def wording(self) -> str:
        """Return the protocol in words: only numbers with equal protocols are comparable."""
        rule = ", one-standard-error rule" if self.one_standard_error else ""
        scale = "not normalised" if self.normalise == "none" else self.normalise
        limit = "" if self.max_iterations == MAX_ITERATIONS else f", at most {self.max_iterations} iterations"
        return (
            f"shorter side {self.image_size} bicubic, centre crop {self.image_size}; {self.features} features, {scale}; "
            f"logistic regression, {self.solver} solver, {self.search} search{rule}{limit}; {self.probe_seeds} probe seed(s)"
        )


def features_need(dataset: str, settings: TransferSettings) -> DerivedInput:
    """Return the extraction of one data set's features; equal settings share one cell."""
    return DerivedInput(
        role="features",
        name=f"features-{dataset}",
        version=EXTRACT_VERSION,
        callable_path="suites.transfer.stages:extract",
        params={
            "dataset": dataset,
            "image_size": settings.image_size,
            "features": settings.features,
            "batch_size": settings.batch_size,
        },
        data=(dataset,),
        resources=Resources(devices=settings.devices, threads=settings.threads, minutes=0.1),
    )


def check_device(settings: TransferSettings) -> str:
    """Return the solver's device.

    Raises:
        UserError: a GPU is requested, but torch sees none.
    """
    import torch

    if settings.solver_device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "the probe's solver cannot run on a GPU",
            "torch sees no CUDA device",
            "set solver_device to cpu for this suite",
        )
    return settings.solver_device
