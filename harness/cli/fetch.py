"""``fetch``: the models that a run needs from the network, and what of its data has to be brought by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import DataOption, JsonOption, OfflineOption, ProfileOption, SetOption, SuiteOption
from harness.core.errors import DataMissing, UserError
from harness.core.hub import Found, HubModel, cache_of, hub_models, look
from harness.core.offline import FIX, WHY
from harness.core.offline import offline as is_offline

GeneratorsOption = Annotated[
    str, typer.Option("--generator", metavar="NAMES", help="Generators or groups, as for run; default: all.")
]
ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A model by itself: hub:OWNER/NAME@COMMIT, hf-hub:OWNER/NAME@COMMIT, open_clip:NAME@TAG or timm:NAME; may be repeated.",
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Download what is missing, and compare every file with the hub's hash.")
]
ToOption = Annotated[
    Path | None,
    typer.Option(
        "--to", metavar="FOLDER", help="Keep the models below this folder, to be named by HF_HOME; default: the hub's."
    ),
]


@dataclass(frozen=True)
class Row:
    """A model and who needs it, or why nothing is known of it."""

    model: HubModel
    users: tuple[str, ...]
    found: Found
    error: DataMissing | None = None
    """What the hub answered where the list of files could not be had."""

    @property
    def why(self) -> str:
        """Return the error as one line; empty where there is none."""
        return f"{self.error.what}: {self.error.why}" if self.error else ""

    def facts(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "model": self.model.location,
            "repository": self.model.repository,
            "revision": self.model.revision,
            "commit": self.found.commit,
            "files": len(self.found.files),
            "bytes": self.found.size,
            "bytes_here": sum(file.size for file in self.found.present),
            "state": self.found.state,
            "used_by": list(self.users),
            "unknown_because": self.why,
        }


def fetch(
    profile: ProfileOption = "micro",
    generator: GeneratorsOption = "",
    suite: SuiteOption = "all",
    data: DataOption = [],
    set_: SetOption = [],
    model: ModelOption = [],
    download: DownloadOption = False,
    to: ToOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """List or download the models that a run needs from the network.

    Nothing is downloaded without --download. Interrupted, the same command goes on; repeated, it checks every file. Data sets
    are listed with where they come from: they are not downloaded.
    """
    from harness.plan.model import Selection
    from harness.plan.models import needed_models
    from harness.plan.profile import load_profile

    home = to.expanduser().resolve() if to else None
    cache = cache_of(home)
    wanted: dict[HubModel, tuple[str, ...]] = {found: ("--model",) for each in model for found in _named(each)}
    brought, lacking = [], []
    if generator or not model:
        selection = Selection(load_profile(profile, set_, data).profile, generator or "all", suite)
        wanted |= needed_models(selection)
        brought, lacking = list(_data(selection, profile, data, set_)), list(_lacking(selection))
    rows = [_row(each, users, cache) for each, users in wanted.items()]
    if download:
        rows = [_fetched(row, cache) for row in rows]
    if as_json:
        facts = {"cache": str(cache), "models": [row.facts() for row in rows], "verified": download}
        print(json.dumps(facts | {"data": brought, "lacking": lacking}, indent=1, sort_keys=True))
        return
    _print(rows, brought, cache, download)
    _print_next(rows, lacking, home, download)


def _lacking(selection: Any) -> Iterator[str]:
    """Yield what the settings of generators lack for a run: a model that nobody has named cannot be listed."""
    from harness.plan.models import plugins
    from harness.plugins.generator import Generator

    for plugin, settings in plugins(selection):
        if isinstance(plugin, Generator) and (why := plugin.missing(settings)):
            yield f"{plugin.card.id}: {why}"


def _named(location: str) -> tuple[HubModel, ...]:
    found = hub_models(location)
    if not found:
        forms = "hub:OWNER/NAME@COMMIT, hf-hub:OWNER/NAME@COMMIT, open_clip:NAME@TAG, timm:NAME"
        raise UserError(f"--model {location} names no model of the hub", f"forms: {forms}", "correct the name")
    return found


def _row(model: HubModel, users: tuple[str, ...], cache: Path) -> Row:
    try:
        return Row(model, users, look(model, cache, ask=not is_offline()))
    except DataMissing as error:  # what else is needed is listed all the same
        return Row(model, users, look(model, cache, ask=False), error)


def _fetched(row: Row, cache: Path) -> Row:
    """Download and check one model.

    Raises:
        UserError: as ``hub_download.fetch``, or its files are not known.
    """
    from harness.core.hub_download import fetch as fetch_files

    if not row.found.files:
        raise row.error or DataMissing(f"{row.model.location} was never fetched to {cache}", WHY, FIX)
    count = fetch_files(row.found, cache)
    done = (
        f"{count} fetched, {len(row.found.files) - count} were here"
        if count
        else f"all {len(row.found.files)} files were here"
    )
    print(f"{row.model.location}: {done}, all verified", file=sys.stderr)
    return Row(row.model, row.users, look(row.model, cache, ask=False))


def _data(selection: Any, profile: str, data: Sequence[str], overrides: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield what ``doctor`` says of each data set of the selection that nothing here writes."""
    from harness.cli.datacheck import data_findings
    from harness.plan.models import plugins
    from harness.plugins.generator import Generator

    names = {
        name
        for plugin, settings in plugins(selection)
        for name in (plugin.data(settings) if isinstance(plugin, Generator) else plugin.card.data)
    }
    table = selection.profile.data
    own = {name for name in names if name in table and not table[name].writer}
    for finding in data_findings(profile, data, overrides, only=own):
        yield {"data": finding.check.removeprefix("data "), "status": finding.status, "text": finding.text}


def _print(rows: list[Row], brought: list[dict[str, str]], cache: Path, verified: bool) -> None:
    known = sum(row.found.size for row in rows)
    print(f"{len(rows)} models from the network{f', {_size(known)}' if known else ''}; kept in {cache}")
    for row in rows:
        state = "verified" if verified else row.found.state
        here = sum(file.size for file in row.found.present)
        size = f"{_size(here)} of {_size(row.found.size)}" if state == "partial" else _size(row.found.size)
        print(
            f"  {state:<9}{size if row.found.files else 'size unknown':>20}  {row.model.location}  [{', '.join(row.users)}]"
        )
        if row.model.repository not in row.model.location:
            at = f" at {row.found.commit}" if row.found.commit else ""
            print(f"{'':<33}{row.model.repository}, {row.model.revision}{at}")
        if row.why:
            print(f"{'':<33}{row.why}")
    if brought:
        print("not downloaded, bring them yourself:")
    for entry in brought:
        print(f"  {entry['status']:<9}{entry['data']}: {entry['text']}")


def _print_next(rows: list[Row], lacking: list[str], home: Path | None, verified: bool) -> None:
    """Say what a run still needs, and what to do next."""
    for line in lacking:
        print(f"not run as it is set: {line}")
    if not verified and any(row.found.state != "there" for row in rows):
        print("the same command with --download fetches them" + (", where there is a network" if is_offline() else ""))
    if home and rows:
        print(f"for a run: export HF_HOME={home}")


def _size(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
