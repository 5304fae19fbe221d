"""``doctor``: checks of machine, installation, data and models, each with what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from harness.cli.datacheck import Finding, data_findings
from harness.cli.modelcheck import model_findings
from harness.core.errors import DiskFailed
from harness.core.install import shadowing
from harness.core.locks import FIX, lock_fault
from harness.core.versions import untested
from harness.plugins import registry

TOOLBOXES = ("mmcv", "mmengine", "mmdet", "mmseg")
_FREE_GB = 2.0


def show_checks(profile: str, store: Path, data: Sequence[str], overrides: Sequence[str], *, as_json: bool) -> bool:
    """Run and print all checks; returns False if one finds a problem."""
    findings = [finding for check in _checks(profile, store, data, overrides) for finding in check()]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(
                f"{finding.status:<8} {finding.check:<22} {finding.text}"
                + (f"\n{'':<32}fix: {finding.fix}" if finding.fix and finding.fix not in finding.text else "")
            )
    return all(finding.status != "problem" for finding in findings)


def _checks(
    profile: str, store: Path, data: Sequence[str], overrides: Sequence[str]
) -> tuple[Callable[[], Iterator[Finding]], ...]:
    return (
        _python,
        _torch,
        _packages,
        _plugins,
        _toolboxes,
        _shadows,
        lambda: _disk(store),
        lambda: _locks(store),
        _processors,
        lambda: data_findings(profile, data, overrides, store),
        lambda: model_findings(profile, data, overrides),
    )


def _python() -> Iterator[Finding]:
    yield Finding(
        "python",
        "ok" if sys.version_info >= (3, 11) else "problem",
        sys.version.split()[0],
        "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        yield Finding(
            "torch, torchvision",
            "problem",
            str(error).split("\n")[0],
            "install a matching pair: pip install torch torchvision",
        )
        return
    gpus = torch.cuda.device_count()
    yield Finding("torch, torchvision", "ok", f"{torch.__version__} and {torchvision.__version__}, {gpus} GPUs")


def _packages() -> Iterator[Finding]:
    found = list(untested())
    refused = [each for each in found if each.refused]
    newer = [f"{each.name} {each.installed} (tested up to {each.wanted})" for each in found if not each.refused]
    if refused:
        named = (f"{each.name} {each.installed}, wanted {each.wanted}" for each in refused)
        install = " ".join(f"'{each.name}{each.wanted}'" for each in refused)
        yield Finding("packages", "problem", "; ".join(named), f"pip install {install}")
    if newer:
        yield Finding(
            "packages",
            "warning",
            f"newer than what the tests were run with: {', '.join(newer)}",
            "numbers may differ; the tested versions are in harness/constraints.txt",
        )
    if not found:
        yield Finding("packages", "ok", "all between the lowest and the newest version that the tests were run with")


def _plugins() -> Iterator[Finding]:
    for found in (registry.generators(), registry.suites()):
        good, bad = found.available()
        yield Finding(
            f"{found.kind}s", "problem" if not good else "ok", f"{len(good)} load", "" if good else "pip install -e ."
        )
        for broken in bad:
            yield Finding(f"{found.kind} {broken.id}", "warning", broken.reason, f"fix or uninstall {broken.origin}")


def _toolboxes() -> Iterator[Finding]:
    missing = [name for name in TOOLBOXES if find_spec(name) is None]
    yield Finding(
        "perception toolboxes",
        "warning" if missing else "ok",
        f"missing: {', '.join(missing)}" if missing else "installed",
        "pip install 'databias-harness[perception]'" if missing else "",
    )


def _shadows() -> Iterator[Finding]:
    names = shadowing()
    yield Finding(
        "working directory",
        "warning" if names else "ok",
        f"folders shadow the packages {', '.join(names)}" if names else "shadows no package",
        "run from another folder, or rename these" if names else "",
    )


def _existing(store: Path) -> Path:
    """Return the store, or the folder that exists of those it will be made in."""
    return next(folder for folder in (store, *store.parents) if folder.exists())


def _disk(store: Path) -> Iterator[Finding]:
    place = _existing(store)
    free = shutil.disk_usage(place).free / 2**30
    writable = os.access(place, os.W_OK)
    status = "problem" if not writable else "warning" if free < _FREE_GB else "ok"
    yield Finding(
        "store",
        status,
        f"{place}: {free:.0f} GiB free, {'writable' if writable else 'not writable'}",
        "" if status == "ok" else "choose another folder with --store",
    )


def _locks(store: Path) -> Iterator[Finding]:
    place = _existing(store)
    try:
        fault = lock_fault(place)
    except DiskFailed as error:  # where nothing can be written no run takes a lock
        yield Finding("locks", "warning", f"{place}: cannot be checked: {error.why}", "")
        return
    text = fault or "a second process is kept out"
    yield Finding("locks", "problem" if fault else "ok", f"{place}: {text}", FIX if fault else "")


def _processors() -> Iterator[Finding]:
    count = len(os.sched_getaffinity(0))
    yield Finding(
        "processors", "ok", f"{count} usable; one worker each, one thread per worker unless a cell says otherwise"
    )
