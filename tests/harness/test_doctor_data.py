"""`doctor` on data sets: one line each, through the readers of the suites, with what to do."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.cli import doctor
from harness.cli.datacheck import Finding, data_findings
from harness.cli.main import app
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.plan.profile import load_profile
from harness.plugins import registry
from harness.plugins.inspection import decode_sample, sample_paths
from harness.store.data import DONE, DataSource, find_data, materialise
from suites.perception.inspect import ade20k, coco

NAMES = ("cue-conflict", "focus", "in9", "coco", "ade20k")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write five embedded data sets into a cache of their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder))
        for name in NAMES:
            source = find_data(name, load_profile("micro").profile.data[name])
            assert isinstance(source, DataSource)
            materialise(source)
    return folder


def found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    """Return the findings of the embedded profile by data set."""
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    return {finding.check.removeprefix("data "): finding for finding in data_findings("micro", [])}


def test_every_data_set_has_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = found(cache, monkeypatch)
    assert set(lines) == set(load_profile("micro").profile.data)
    for name, line in lines.items():
        assert line.status == "ok" and "\n" not in line.text, line
        assert ("written at first use" in line.text) == (name not in NAMES)
    for name in NAMES:
        assert "12 of 12 sampled images decode" in lines[name].text
    assert "with conflicting cues" in lines["cue-conflict"].text and "annotations.db" in lines["focus"].text
    assert "foregrounds in 3 variations" in lines["in9"].text
    assert "val images with" in lines["coco"].text and "with label maps" in lines["ade20k"].text


@pytest.mark.parametrize(
    ("name", "pattern", "words"),
    [
        ("cue-conflict", "**/*.png", "the card of"),
        ("focus", "**/*.jpg", "listed images are missing"),
        ("in9", "**/mixed_rand/val/*/*", "mixed_rand"),
        ("coco", "val2017/*.jpg", "val images are missing"),
        ("ade20k", "annotations/validation/*.png", "label maps are missing"),
    ],
)
def test_a_missing_file_is_a_problem_with_a_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, pattern: str, words: str
) -> None:
    root = next(entry for entry in cache.iterdir() if entry.name.startswith(f"{name}-") and (entry / DONE).is_file())
    victim = sorted(root.glob(pattern))[0]
    content = victim.read_bytes()
    victim.unlink()
    try:
        line = found(cache, monkeypatch)[name]
    finally:
        victim.write_bytes(content)
    assert line.status == "problem" and words in line.text and line.fix, line
    victim.write_bytes(b"damaged")
    try:
        line = found(cache, monkeypatch)[name]
    finally:
        victim.write_bytes(content)
    sampled = name in ("cue-conflict", "focus", "ade20k")  # the first image, or label map of the part, is in the sample
    assert line.status == ("warning" if sampled else "ok"), line
    assert not sampled or "1 damaged, first" in line.text


def test_the_sample_is_spread_and_each_damaged_file_counts(tmp_path: Path) -> None:
    paths = [str(i) for i in range(100)]
    assert sample_paths(paths)[0] == "0" and sample_paths(paths)[-1] == "99" and len(sample_paths(paths)) == 12
    assert sample_paths(paths[:3]) == ("0", "1", "2") and sample_paths([]) == ()
    (tmp_path / "a.png").write_bytes(b"x")
    good, lines = decode_sample(tmp_path, ("a.png", "none.png"))
    assert good == 0 and len(lines) == 1 and lines[0].startswith("2 damaged, first a.png")


def test_a_profile_that_does_not_load_is_a_finding(tmp_path: Path) -> None:
    (finding,) = data_findings("mikro", [])
    assert finding.status == "problem" and "unknown profile" in finding.text and finding.fix
    assert dataclasses.asdict(finding)["check"] == "profile mikro"


def test_an_error_nobody_foresaw_is_a_line_and_hides_no_other_data_set(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr("suites.bias.inspect.focus", broken)
    lines = found(cache, monkeypatch)
    assert set(lines) == set(load_profile("micro").profile.data)
    assert lines["focus"].status == "problem" and lines["focus"].fix
    assert lines["focus"].text == "it cannot be read: KeyError: 'two\\nlines'" and lines["in9"].status == "ok"


def copied(cache: Path, name: str, to: Path) -> dict[str, object]:
    """Copy an embedded data set; returns its card."""
    source = find_data(name, load_profile("micro").profile.data[name])
    assert isinstance(source, DataSource)
    shutil.copytree(next(entry for entry in cache.iterdir() if entry.name.startswith(f"{name}-")), to)
    return dict(source.card)


def test_coco_and_ade20k_are_found_where_a_run_finds_them(cache: Path, tmp_path: Path) -> None:
    card = copied(cache, "coco", tmp_path / "coco")
    (tmp_path / "coco" / "images").mkdir()
    for folder in ("train2017", "val2017"):
        (tmp_path / "coco" / folder).rename(tmp_path / "coco" / "images" / folder)
    report = coco("coco", tmp_path / "coco", card)
    assert decode_sample(tmp_path, report.sample) == (len(report.sample), []) and "images/train2017" in report.sample[0]
    card = copied(cache, "ade20k", tmp_path / "ade" / "ADEChallengeData2016")
    report = ade20k("ade20k", tmp_path / "ade", card)
    assert (
        decode_sample(tmp_path, report.sample) == (12, []) and sum("annotations" in path for path in report.sample) == 6
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda marks: marks.convert("RGB"), "more than one 8-bit channel"),
        (lambda marks: marks.resize((8, 8), Image.Resampling.NEAREST), "another size than their pictures"),
        (lambda marks: marks.point(lambda value: 151), "labels beyond the"),
    ],
)
def test_label_maps_of_ade20k_are_looked_into(
    cache: Path, tmp_path: Path, change: Callable[[Image.Image], Image.Image], words: str
) -> None:
    card = copied(cache, "ade20k", tmp_path / "ade")
    path = sorted((tmp_path / "ade" / "annotations" / "training").glob("*.png"))[0]
    change(Image.open(path)).save(path)
    with pytest.raises(UserError, match=words) as caught:
        ade20k("ade20k", tmp_path / "ade", card)
    assert path.name in caught.value.why


def test_a_data_set_that_is_not_given_is_one_line_that_says_who_publishes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {line.check.removeprefix("data "): line for line in data_findings("in100", [])}
    for name, line in lines.items():
        assert (line.status, line.fix) == ("warning", f"--data {name}=PATH") and line.fix in line.text
    read = {name for suite in registry.suites().available()[0] for name in suite.card.data}
    assert len(read) == 16 and all(
        lines[name].text.endswith(")") for name in read - {"objects"}
    )  # no one publishes these
    monkeypatch.setattr(doctor, "_checks", lambda *_: (lambda: iter(lines.values()),))
    assert doctor.show_checks("in100", Path(), [], (), as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == len(lines)


def test_doctor_takes_settings_as_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "card.json").write_text("[]")
    place = f"in-val={tmp_path / 'data'}"
    found = {
        line.check: line for line in data_findings("in100", [place], [f"data.in-val.card={tmp_path / 'card.json'}"])
    }
    assert found["data in-val"].status == "problem" and "not a JSON object" in found["data in-val"].text
    (finding,) = data_findings("in100", [], ["classs=1"])
    assert finding.status == "problem" and "classs" in finding.text
    monkeypatch.setattr(doctor, "_torch", lambda: iter(()))
    done = CliRunner().invoke(app, ["doctor", "--set", "no-value"])
    assert done.exit_code == 1 and "--set 'no-value' is not KEY=VALUE" in done.stdout


def test_a_folder_to_import_is_inspected_as_the_run_reads_it(tmp_path: Path) -> None:
    from tests.generators.test_import_layouts import hub_parquet

    (tmp_path / "classes.txt").write_text("\n".join(load_classes("imagenet1k").ids[:3]) + "\n")
    names = load_classes("imagenet1k").ids[:3]
    hub_parquet(tmp_path / "good" / "train-0.parquet", names, [0, 1, 2])
    hub_parquet(tmp_path / "numbers" / "train-0.parquet", None, [0, 1, 2])
    for part in ("train", "query"):
        hub_parquet(tmp_path / "parts" / f"{part}-0.parquet", names, [0, 1, 2])
    hub_parquet(tmp_path / "asked" / "train-0.parquet", names, [0, 1, 2, -1])
    given = [f"folder:{name}={tmp_path / name}" for name in ("good", "numbers", "parts", "asked")]
    settings = [f"classes={tmp_path / 'classes.txt'}"]
    lines = {line.check: line for line in data_findings("in100", given, settings)}
    assert lines["data folder:good"].status == "ok" and "3 images" in lines["data folder:good"].text
    assert lines["data folder:numbers"].status == "problem" and "class_map" in lines["data folder:numbers"].fix
    assert lines["data folder:parts"].status == "problem" and "query-0.parquet" in lines["data folder:parts"].text
    assert lines["data folder:asked"].status == "warning" and "unknown-folders" in lines["data folder:asked"].text
    settings.append("generators.folder.class_map=index")
    lines = {line.check: line for line in data_findings("in100", given[1:2], settings)}
    assert lines["data folder:numbers"].status == "ok", "settings hold as in a run"
