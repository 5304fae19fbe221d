"""The Python API: models in, results out, in the store and with the numbers of the command line."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import operator
import re
import subprocess
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

import harness
import harness.run.inline
from harness.backbones.model_identity import InTraining, NotHashable, model_hash
from harness.core.errors import DataMissing, UserError
from harness.plan.model import Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.results.arguments import in_python
from harness.results.results import COLUMNS, Results
from harness.results.subject import Wishes, prepared
from harness.store.artifacts import Store

ROOT = Path(__file__).parents[2]
OPTIONS = {"classes": "micro", "image_size": 64, "suites": "texture-bias"}


def network(seed: int = 0, arch: str = "test_resnet") -> Any:
    """Return a tiny network of timm with random weights and the twelve classes of the embedded world."""
    torch.manual_seed(seed)
    return timm.create_model(arch, pretrained=False, num_classes=12)


class Linear(torch.nn.Module):
    """A module that timm does not know: colours to logits."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.scale = torch.nn.Linear(3, 12), scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.scale * self.head(images.mean((2, 3)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the tests of this module share."""
    return tmp_path_factory.mktemp("python") / "store"


@pytest.fixture(scope="module")
def measured(store: Path) -> Results:
    """Return the results of a network of timm."""
    return harness.evaluate(network(), store=store, **OPTIONS)


def record(results: Results) -> dict[str, Any]:
    """Return the only record of some results."""
    (key,) = results.keys
    return json.loads(next(results.store.glob(f"evaluate/*-{key[:16]}/record.json")).read_text())


@contextlib.contextmanager
def no_work() -> Iterator[None]:
    """Let every cell that would be done fail."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cell was done again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.run.inline, "execute", refuse)
        yield


# --- the manual ---------------------------------------------------------------------------------------------------------


def test_the_code_of_the_manual_runs_and_prints_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text("utf-8"), re.S)
    printed = []
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(block, {"__name__": "__main__"})
        printed.append(out.getvalue())
    script, zero_shot, reading = printed
    assert len(blocks[0].strip().splitlines()) <= 11
    assert re.search(r"texture-bias +TI +0\.\d{4} +0\.\d{4} +0\.\d{4} +\d+", script)
    assert "test_resnet against test_efficientnet" in script and "arrow/arrow1-arrow3.png" in script
    assert re.search(r"verdict +(better|worse|not significantly different)", zero_shot)  # both towers pass the checks
    names = r"checkpoint:(?:test_resnet|test_efficientnet|clip-base|clip-large)-[0-9a-f]{6}"
    assert len(re.findall(names, reading)) >= 8


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, harness; dir(harness); print(sorted({'torch', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
    assert {"evaluate", "read_records", "read_rows", "Results", "UserError"} <= set(dir(harness))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = harness.nonsense


# --- the same numbers, once ---------------------------------------------------------------------------------------------


def test_a_network_of_timm_gets_the_cells_and_the_bytes_of_the_command_line(measured: Results, tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "test_resnet.safetensors")
    arguments = [
        "--checkpoint",
        "test_resnet.safetensors",
        "--arch",
        "test_resnet",
        "--classes",
        "micro",
        "--image-size",
        "64",
    ]
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        *arguments,
        "--suite",
        "texture-bias",
        "--store",
        "s",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    (key,) = measured.keys
    (mine,), (theirs,) = (list(root.glob(f"evaluate/*-{key[:16]}")) for root in (measured.store, tmp_path / "s"))
    assert (mine / "rows.parquet").read_bytes() == (theirs / "rows.parquet").read_bytes()
    ours, other = (json.loads((folder / "record.json").read_text()) for folder in (mine, theirs))
    for one in (ours, other):  # the words of what contradicts the network name the argument, or the option
        one.pop("notes")
        one.pop("code")  # a commit may come in between
    assert ours == other and ours["metrics"][0]["estimate"]["n"] > 0


def test_the_second_call_does_nothing_and_returns_the_same(measured: Results, store: Path) -> None:
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with no_work():
        again = harness.evaluate(model, store=store, **OPTIONS)
    assert again == measured and again.table().equals(measured.table())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not list(store.glob(".model-*")), "exported weights are gone once they are imported"


def test_a_path_is_measured_with_its_architecture_only(measured: Results, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(network().state_dict(), path)
    with pytest.raises(UserError, match="arch="):
        harness.evaluate(path, store=store, **OPTIONS)
    found = harness.evaluate(str(path), arch="test_resnet", name="mine", store=store, **OPTIONS)
    assert found.name.startswith("checkpoint:mine-")
    assert found.table()["value"].equals(measured.table()["value"])
    with pytest.raises(DataMissing, match="does not exist"):
        harness.evaluate(tmp_path / "nowhere.pth", arch="test_resnet", store=store, **OPTIONS)


def test_the_state_of_the_callers_process_is_left_as_it_was(store: Path) -> None:
    torch.set_num_threads(2)
    try:
        model = Linear(seed=5).train()
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        harness.evaluate(model, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), store=store, **OPTIONS)
        assert torch.get_num_threads() == 2
        assert torch.rand(3).equal(expected)
        assert model.training and model.head.weight.requires_grad
    finally:
        torch.set_num_threads(1)


def test_a_damaged_input_is_rebuilt(tmp_path: Path) -> None:
    def evaluate(suites: str) -> Results:
        return harness.evaluate(network(2), suites=suites, classes="micro", image_size=64, store=tmp_path)

    first = evaluate("texture-bias")
    (weights,) = tmp_path.glob("pretrain/*/raw.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (folder,) = tmp_path.glob("evaluate/*")
    folder.rename(tmp_path / "old")
    assert evaluate("texture-bias").table().equals(first.table())
    assert len(list(tmp_path.glob("pretrain/*.set-aside-1"))) == 1


# --- what a model may be ------------------------------------------------------------------------------------------------


def test_a_module_of_ones_own_is_fed_with_normalised_pixels_and_a_callable_with_plain_ones(store: Path) -> None:
    module, mean, std = Linear(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    with pytest.raises(UserError, match="normalisation of this Linear is not known"):
        harness.evaluate(module, store=store, **OPTIONS)
    shift, spread = (torch.tensor(values)[:, None, None] for values in (mean, std))
    frozen = Linear().eval()

    def call(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32 and 0 <= float(images.min()) <= float(images.max()) <= 1
        return frozen((images - shift) / spread)

    with pytest.raises(UserError, match="mean and std do not go with a callable"):
        harness.evaluate(call, mean=mean, std=std, store=store, **OPTIONS)
    one = harness.evaluate(module, mean=mean, std=std, store=store, **OPTIONS)
    other = harness.evaluate(call, store=store, **OPTIONS)
    assert one.rows("texture-bias")["top5"].equals(other.rows("texture-bias")["top5"])
    assert re.fullmatch(r"checkpoint:Linear-[0-9a-f]{6}", one.name) and other.name.startswith("checkpoint:call-")
    network_facts = record(other)["subject"]["network"]
    assert (network_facts["mean"], network_facts["std"]) == ([0, 0, 0], [1, 1, 1])
    with no_work():
        assert harness.evaluate(call, store=store, **OPTIONS) == other


def test_another_model_behind_the_same_function_is_measured_anew(store: Path) -> None:
    def wrapped(seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
        model = Linear(seed).eval()
        return lambda images: model(images)

    first, second = (harness.evaluate(wrapped(seed), store=store, **OPTIONS) for seed in (0, 1))
    assert first.keys != second.keys


def test_a_callable_that_cannot_be_hashed_needs_a_name_that_stands_for_it(store: Path) -> None:
    frozen, lock = Linear(7).eval(), threading.Lock()

    def guarded(images: torch.Tensor) -> torch.Tensor:
        with lock:
            return frozen(images)

    with pytest.raises(UserError, match=r"_thread\.lock.*\n.*name="):
        harness.evaluate(guarded, store=store, **OPTIONS)
    found = harness.evaluate(guarded, name="guarded", store=store, **OPTIONS)
    assert found.name == "checkpoint:guarded"
    with no_work():
        assert harness.evaluate(guarded, name="guarded", store=store, **OPTIONS) == found
    with pytest.raises(UserError, match="no name for a leaderboard"):
        harness.evaluate(guarded, name="a,b", store=store, **OPTIONS)


def test_logits_of_another_shape_and_models_in_training_mode_are_refused(tmp_path: Path) -> None:
    seven, training = torch.nn.Linear(3, 7).eval(), Linear()
    with pytest.raises(UserError, match=r"shape \(1, 7\)") as caught:
        harness.evaluate(lambda images: seven(images.mean((2, 3))), store=tmp_path, name="seven", **OPTIONS)
    assert "classes=" in caught.value.fix
    with pytest.raises(UserError, match=r"\.eval\(\)"):
        harness.evaluate(lambda images: training(images), store=tmp_path, **OPTIONS)
    with pytest.raises(UserError, match="is no model"):
        harness.evaluate(3, store=tmp_path, **OPTIONS)
    with pytest.raises(UserError, match="std="):
        harness.evaluate(Linear(), mean=(0, 0, 0), std=(1, 1, 0), store=tmp_path, **OPTIONS)
    assert not list(tmp_path.glob("evaluate/*/manifest.json"))


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "not a number": ({"mean": (float("nan"), 0, 0), "std": (1, 1, 1)}, "mean=", "red, green and blue"),
    "a text": ({"mean": "abc", "std": (1, 1, 1)}, "mean=", "red, green and blue"),
    "a mean of bytes": ({"mean": (123.7, 116.3, 103.5), "std": (1, 1, 1)}, "mean=", "divide it by 255"),
    "a spread of bytes": ({"mean": (0.5, 0.5, 0.5), "std": (58.4, 57.1, 57.4)}, "std=", "divide it by 255"),
    "a mean alone": ({"mean": (0.5, 0.5, 0.5)}, "mean= is given without std=", "pair"),
    "a spread alone": ({"std": (0.5, 0.5, 0.5)}, "std= is given without mean=", "pair"),
    "no size": ({"image_size": 0}, "image_size=0", "image_size=224"),
    "half a pixel": ({"image_size": 64.5}, "image_size=64.5", "image_size=224"),
    "a crop beyond the image": ({"crop": 2}, "crop=2", "crop=0.875"),
    "a filter": ({"interpolation": "cubic"}, "cubic", "correct interpolation="),
    "a number as suite": ({"suites": (1,)}, "suites=", "names"),
    "a number as class list": ({"classes": 3}, "classes=3", "text"),
    "folders without names": ({"data": ["/data"]}, "data=", "cue-conflict"),
    "a setting that is no JSON": ({"settings": {"a": object()}}, "settings=", "give numbers"),
    "another profile": ({"classes": "imagenet1k", "profile": "micro"}, 'classes="imagenet1k"', 'profile="in1k"'),
    "a GPU that is not there": ({"device": "cuda"}, "no GPU", "leave device= out"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_argument_that_is_not_possible_is_named_as_python_names_it(
    what: str, measured: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given, *words = WRONG[what]
    with no_work(), pytest.raises(UserError) as caught:
        harness.evaluate(network(), **{**OPTIONS, "store": measured.store, **given})
    assert all(word in str(caught.value) for word in words) and "--" not in str(caught.value)


def test_options_in_messages_become_arguments() -> None:
    assert in_python("give --data cue-conflict=PATH") == 'give data={"cue-conflict": PATH}'
    assert in_python("write --profile in1k, or leave --profile out") == 'write profile="in1k", or leave profile= out'
    assert in_python("--stale reuse keeps them") == 'stale="reuse" keeps them'
    assert in_python("correct --checkpoint") == "correct model="


def test_answers_that_depend_on_chance_or_on_other_images_are_refused(tmp_path: Path) -> None:
    frozen = Linear().eval()

    def by_chance(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(frozen(images))

    def by_company(images: torch.Tensor) -> torch.Tensor:
        return frozen(images - images.mean(0))

    def nearly(images: torch.Tensor) -> torch.Tensor:
        return frozen(images) + 1e-4 * torch.rand(len(images), 1)

    for model, words in ((by_chance, "asked twice"), (by_company, "other images of its batch")):
        with pytest.raises(UserError, match=words):
            harness.evaluate(model, store=tmp_path, **OPTIONS)
    assert not list(tmp_path.glob("evaluate/*/manifest.json"))
    assert harness.evaluate(nearly, store=tmp_path, **OPTIONS).keys


def test_a_model_whose_code_cannot_be_read_is_measured_under_a_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Linear().eval(), torch.rand(2, 3, 64, 64))
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(UserError, match=r"not written in Python[^-]*name="):
        harness.evaluate(traced, store=tmp_path, **half, **OPTIONS)
    one, other = (
        harness.evaluate(model, name=name, store=tmp_path, **half, **OPTIONS)
        for model, name in ((traced, "traced"), (Linear().eval(), ""))
    )
    assert one.rows("texture-bias")["top5"].equals(other.rows("texture-bias")["top5"])


def test_an_exception_of_the_model_is_the_models(tmp_path: Path) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("my own mistake")

    with pytest.raises(UserError, match=r"the model failed.*\n.*ZeroDivisionError: my own mistake") as caught:
        harness.evaluate(broken, store=tmp_path, **OPTIONS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def planned(model: object, suites: str, store: Path, **wishes: Any) -> Any:
    """Return the plan of a model under the embedded profile."""
    profile = load_profile("micro").profile
    chosen = {"image_size": 64} | wishes
    with prepared(model, profile, store, Wishes("micro", chosen)) as subject:
        return Planner(Selection(profile, suites=suites, external=subject), store=store).build()


def test_features_are_planned_for_networks_of_timm_and_refused_for_everything_else(tmp_path: Path) -> None:
    kinds = {cell.kind for cell in planned(network(), "linear-probe,few-shot", tmp_path).cells.values()}
    assert kinds == {"pretrain", "extract", "evaluate"}
    with pytest.raises(UserError, match="gives logits only"):
        harness.evaluate(lambda images: images, suites=("texture-bias", "linear-probe"), classes="micro", image_size=64,
                         store=tmp_path)  # fmt: skip
    assert not (tmp_path / "evaluate").exists(), "refused before any work"
    for suite in ("few-shot", "coco", "ade20k"):
        (entry,) = planned(lambda images: images, suite, tmp_path).not_run
        assert entry.asked and "gives logits only" in entry.reason
    everything = planned(lambda images: images, "all", tmp_path)
    assert {cell.name for cell in everything.cells.values() if cell.kind == "evaluate"} == {
        "texture-bias", "context-bias", "background-bias", "in-domain"
    }  # fmt: skip


def test_a_network_that_was_changed_after_timm_built_it_is_measured_as_it_is(tmp_path: Path) -> None:
    def kind(model: torch.nn.Module) -> str:
        plan = planned(model, "texture-bias", tmp_path)
        return next(cell.name for cell in plan.cells.values() if cell.kind == "pretrain")

    plain, hooked, activated = network(), network(), network()
    hooked.register_forward_hook(lambda module, inputs, output: output.flip(1))
    activated.act1 = torch.nn.GELU()
    assert [kind(model) for model in (plain, hooked, activated)] == ["outside", "live", "live"]


def test_how_a_network_is_fed_is_printed_with_its_origin(measured: Results, capsys: pytest.CaptureFixture[str]) -> None:
    with no_work():
        harness.evaluate(network(), store=measured.store, **OPTIONS)
    said = capsys.readouterr().err
    assert re.search(r"mean 0\.5.*\(the module's pretrained_cfg, test_resnet\.r160_in1k\); 64 px \(image_size=\)", said)


def test_work_that_spoils_a_process_is_done_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from harness.run.progress import ProgressReporter

    asked = []

    class Elsewhere:
        def __init__(self, store: Store, slots: int, device: str, board: ProgressReporter) -> None:
            asked.append((slots, device))

        def run(self, plan: Any, wanted: frozenset[str]) -> None:
            asked.append(wanted)

    monkeypatch.setattr(harness.run.inline, "LocalExecutor", Elsewhere)
    plan = planned(network(), "texture-bias", tmp_path)
    (cell,) = (cell for cell in plan.cells.values() if cell.kind == "evaluate")
    plan.cells[cell.key] = replace(cell, resources=replace(cell.resources, isolated=True))
    board = ProgressReporter(Store(tmp_path), 1, quiet=True)
    harness.run.inline.InlineExecutor(Store(tmp_path), 4, "cpu", board).run(plan, frozenset({cell.key}))
    assert asked == [(1, "cpu"), frozenset({cell.key})]


# --- identity -----------------------------------------------------------------------------------------------------------

SCALE = 2.0
HELD: Any = None


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Use two variables of the module."""
    return SCALE * HELD(images)


def test_the_hash_follows_weights_attributes_hooks_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    same = model_hash(Linear())
    assert same == model_hash(Linear().eval().requires_grad_(False)) and len(same) == 64
    hooked = Linear()
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert len({same, *map(model_hash, (Linear(1), Linear(0, 2.0), Linear().double(), hooked))}) == 5
    parts = {"b": torch.nn.ReLU(), "a": torch.nn.Tanh()}
    swapped = dict(reversed(parts.items()))
    assert model_hash(torch.nn.Sequential(OrderedDict(parts))) != model_hash(torch.nn.Sequential(OrderedDict(swapped)))
    twice = [Linear(), Linear()]
    for model in twice:  # the number under which torch keeps a hook differs
        model.register_forward_hook(scaled)
    assert model_hash(twice[0]) == model_hash(twice[1])
    found = set()
    for scale, seed in ((2.0, 0), (3.0, 0), (2.0, 1)):
        monkeypatch.setitem(scaled.__globals__, "SCALE", scale)
        monkeypatch.setitem(scaled.__globals__, "HELD", Linear(seed))
        found.add(model_hash(scaled))
        assert model_hash(scaled) in found
    assert len(found) == 3


def test_the_hash_tells_lambdas_partials_and_methods_apart() -> None:
    model = Linear()
    pair = [lambda images: model(images) * 1, lambda images: model(images) * 2]  # one line of source for both
    others = [functools.partial(scaled), functools.partial(scaled, 1), model.forward, functools.partial(model.forward)]
    assert len({model_hash(one) for one in (*pair, *others)}) == 6
    assert model_hash(operator.neg) != model_hash(operator.pos)
    with pytest.raises(InTraining):
        model_hash(pair[0], evaluating=True)
    with pytest.raises(NotHashable, match="lock"):
        model_hash(functools.partial(scaled, threading.Lock()))


def test_the_hash_of_a_class_without_a_file_follows_its_functions() -> None:
    def made(factor: int) -> Any:
        names: dict[str, Any] = {"__name__": "__main__", "factor": factor}
        exec("class Cell:\n    def __call__(self, images):\n        return factor * images\n", names)
        return names["Cell"]()

    assert model_hash(made(1)) == model_hash(made(1)) != model_hash(made(2))


# --- what comes back ----------------------------------------------------------------------------------------------------


def test_the_table_is_tidy_and_is_what_is_printed(measured: Results) -> None:
    table = measured.table()
    assert tuple(table.columns) == COLUMNS
    stored = {metric["name"]: metric["estimate"] for metric in record(measured)["metrics"]}
    assert set(table["metric"]) == set(stored) and len(table) == len(stored)
    for line in table.to_dict("records"):
        estimate = stored[line["metric"]]
        shown = {name: None if pd.isna(line[name]) else line[name] for name in ("value", "low", "n")}
        assert shown == {name: estimate[name] for name in shown}
        assert (line["method"], line["population"]) == (estimate["method"], estimate["population"])
    assert set(table["checks"]) == {"failed"} and set(table["unit"]) == {"fraction", "ratio"}
    assert measured.name in repr(measured) and all(name in repr(measured) for name in stored)


def test_the_html_of_a_notebook_is_escaped(measured: Results) -> None:
    page = Results("<script>", measured.store, measured.keys)._repr_html_()
    assert "&lt;script&gt;" in page and "<script>" not in page and "<table" in page


def test_rows_are_those_of_the_store_with_columns_that_identify_them(measured: Results) -> None:
    rows = measured.rows("texture-bias")
    (key,) = measured.keys
    stored = pd.read_parquet(next(measured.store.glob(f"evaluate/*-{key[:16]}/rows.parquet")))
    assert rows[list(stored.columns)].equals(stored)
    assert set(rows["generator"]) == {measured.name} and set(rows["backbone"]) == {"test_resnet"}
    read = harness.read_rows(measured.store, suite="texture-bias", generator=measured.name)
    assert read.equals(rows)
    with pytest.raises(DataMissing, match="texture-bias of"):
        measured.rows("in-domain")
    with pytest.raises(DataMissing, match="no such folder"):
        harness.read_rows(measured.store / "nowhere")


def test_records_of_stores_and_baselines_are_read_together(measured: Results) -> None:
    from leaderboard.sources import shipped

    baseline = shipped("micro")
    alone, together = harness.read_records(measured.store), harness.read_records(measured.store, baseline)
    assert set(alone["generator"]) < set(together["generator"])
    assert alone["value"].dtype == "float64" and str(alone["n"].dtype) == "Int64"
    mine = alone[alone["generator"] == measured.name]
    assert mine[list(COLUMNS)].reset_index(drop=True).equals(measured.table())
    with pytest.raises(DataMissing, match="records, not rows"):
        harness.read_rows(baseline)


def test_comparing_is_paired_on_common_images(measured: Results, store: Path) -> None:
    alike = harness.evaluate(network(1), store=store, **OPTIONS)
    line = measured.compare(alike).iloc[0]
    assert line["metric"] == "texture-bias TI" and line["verdict"] == "not comparable"
    assert "cue coverage" in line["why"], "random networks fail the checks"
    with pytest.raises(UserError, match="cannot compare"):
        measured.compare("clip")  # type: ignore[arg-type]


def test_what_cannot_be_measured_for_want_of_data_is_said_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in-val") as caught:
        harness.evaluate(lambda images: images, suites="in-domain", store=tmp_path)
    assert "data={" in caught.value.fix
    with pytest.raises(UserError, match="nothing can be measured"):
        harness.evaluate(lambda images: images, store=tmp_path)
    with pytest.raises(UserError, match="unknown device"):
        harness.evaluate(lambda images: images, device="cuda:1", store=tmp_path)  # type: ignore[arg-type]
