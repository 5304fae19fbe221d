"""``fetch`` against a hub on 127.0.0.1, with the hub's real client: lists, downloads, goes on, believes no wrong byte."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.hub import HubFile, HubModel, hub_models, without_secrets
from harness.run.worker import describe
from tests.hub_server import COMMIT, Hub, serving

ROOT = Path(__file__).parents[2]
MODEL = f"hub:lab/tiny@{COMMIT}"
TOKEN = "hf_secretsecretsecretsecret"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CONTENT = {
    "model_index.json": b"{}",
    "tokenizer/vocab.json": b'{"a": 0}',
    "unet/config.json": b'{"b": 1}',
    WEIGHTS: random.Random(0).randbytes(300_000),
    "unet/diffusion_pytorch_model.fp16.safetensors": bytes(2000),
    "unet/diffusion_pytorch_model.bin": bytes(3000),
    "v1-5-pruned.safetensors": bytes(4000),
}
READ = {"model_index.json", "tokenizer/vocab.json", "unet/config.json", WEIGHTS}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serve the model."""
    with serving(Hub("lab/tiny", CONTENT)) as served:
        yield served


class Home:
    """A login node: the hub's variables point to the served hub and to an empty folder."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder = folder
        self.snapshot = folder / "hub" / "models--lab--tiny" / "snapshots" / COMMIT
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        self.environment = {**kept, "HF_ENDPOINT": hub.address, "HF_HOME": str(folder), "HF_TOKEN": TOKEN}

    def harness(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command; nothing of the token is ever printed."""
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments], cwd=ROOT, env=self.environment | environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
        return done

    def fetch(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``fetch`` for the model."""
        return self.harness("fetch", "--model", MODEL, *arguments, **environment)

    def weights(self) -> bytes:
        """Return what a run would read."""
        return (self.snapshot / WEIGHTS).read_bytes()


@pytest.fixture
def home(tmp_path: Path, hub: Hub) -> Home:
    return Home(tmp_path / "home", hub)


def test_the_list_has_sizes_and_downloads_nothing(home: Home, hub: Hub) -> None:
    done = home.fetch("--json")
    facts = json.loads(done.stdout)
    (row,) = facts["models"]
    assert facts["cache"] == str(home.folder / "hub") and facts["data"] == []
    assert (row["state"], row["files"], row["bytes_here"]) == ("missing", len(READ), 0)
    assert row["bytes"] == sum(len(CONTENT[name]) for name in READ)
    assert not any("/resolve/" in line for line in hub.asked) and not home.snapshot.exists()


def test_what_is_read_is_fetched_and_a_second_call_verifies_it_without_asking_for_bytes(home: Home, hub: Hub) -> None:
    assert home.fetch("--download").returncode == 0
    assert {str(path.relative_to(home.snapshot)) for path in home.snapshot.rglob("*") if path.is_file()} == READ
    assert home.weights() == CONTENT[WEIGHTS]
    assert f"Bearer {TOKEN}" in hub.seen
    asked = len(hub.asked)
    again = home.fetch("--download")
    assert again.returncode == 0 and f"all {len(READ)} files were here, all verified" in again.stderr
    assert not any("/resolve/" in line or "/models/" in line for line in hub.asked[asked:])
    assert TOKEN not in "".join(path.read_text("utf-8", "replace") for path in home.folder.rglob("*.json"))


def test_an_interrupted_download_goes_on_where_it_stopped(home: Home, hub: Hub) -> None:
    hub.cut_after = 200_000
    broken = home.fetch("--download")
    assert broken.returncode == 4 and "the same command goes on where it stopped" in broken.stderr
    assert not (home.snapshot / WEIGHTS).exists()
    hub.cut_after, hub.asked = 0, []
    assert json.loads(home.fetch("--json").stdout)["models"][0]["state"] == "partial"
    assert home.fetch("--download").returncode == 0 and home.weights() == CONTENT[WEIGHTS]
    (rest,) = [line for line in hub.asked if line.startswith("GET") and WEIGHTS in line]
    assert int(rest.rpartition("bytes=")[2].rstrip("-")) > 100_000


@pytest.mark.parametrize("size", [300_000, 299_000], ids=["same size", "cut"])
def test_bytes_that_are_not_those_the_hub_states_are_refused_and_not_kept(home: Home, hub: Hub, size: int) -> None:
    hub.changed[WEIGHTS] = bytes(size)
    done = home.fetch("--download")
    assert done.returncode == 2 and f"{WEIGHTS} of lab/tiny is not what the hub states" in done.stderr
    assert not (home.snapshot / WEIGHTS).exists()
    assert [path for path in home.folder.rglob("*") if path.is_file() and path.stat().st_size > 100_000] == []
    hub.changed = {}
    assert home.fetch("--download").returncode == 0 and home.weights() == CONTENT[WEIGHTS]


def test_a_file_that_was_damaged_later_is_found_offline_and_replaced_online(home: Home, hub: Hub) -> None:
    home.fetch("--download")
    blob = (home.snapshot / WEIGHTS).resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"\xff" + CONTENT[WEIGHTS][1:])
    refused = home.fetch("--download", "--offline")
    assert refused.returncode == 4 and f"{WEIGHTS} (damaged)" in refused.stderr
    assert "1 fetched, 3 were here" in home.fetch("--download").stderr and home.weights() == CONTENT[WEIGHTS]


def test_without_a_network_the_list_says_what_is_here_and_asks_nobody(home: Home, hub: Hub) -> None:
    refused = home.fetch("--download", HF_HUB_OFFLINE="1")
    assert refused.returncode == 4 and "python -m harness fetch --download" in refused.stderr and hub.asked == []
    home.fetch("--download")
    hub.asked = []
    row = json.loads(home.fetch("--json", "--offline").stdout)["models"][0]
    assert (row["state"], row["bytes"], hub.asked) == ("there", row["bytes_here"], [])
    assert "all verified" in home.fetch("--download", "--offline").stderr


def test_another_folder_can_be_named_and_is_what_hf_home_stands_for(home: Home, tmp_path: Path) -> None:
    done = home.fetch("--download", "--to", str(tmp_path / "models"))
    assert f"export HF_HOME={tmp_path / 'models'}" in done.stdout and not home.folder.exists()
    row = json.loads(home.fetch("--offline", "--json", HF_HOME=str(tmp_path / "models")).stdout)["models"][0]
    assert row["state"] == "there"


def test_a_hub_that_does_not_answer_is_named_and_the_rest_is_listed(home: Home, hub: Hub) -> None:
    other = f"hub:lab/absent@{COMMIT}"
    listed = home.fetch("--model", other)
    assert listed.returncode == 0 and other in listed.stdout and "cannot fetch lab/absent" in listed.stdout
    refused = home.fetch("--model", other, "--download")
    assert refused.returncode == 4 and "cannot fetch lab/absent" in refused.stderr


def test_a_run_offline_refuses_before_it_begins_and_names_model_and_command(
    home: Home, hub: Hub, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    arguments = (
        "run",
        "--generator",
        "sd15",
        "--suite",
        "in-domain",
        "--set",
        f"generators.sd15.base={MODEL}",
        "--store",
        str(store),
    )
    flag, variable = home.harness(*arguments, "--offline"), home.harness(*arguments, HF_HUB_OFFLINE="1")
    assert flag.returncode == variable.returncode == 4
    assert flag.stderr == variable.stderr
    assert f"{MODEL} (never fetched)" in flag.stderr and "python -m harness fetch --download" in flag.stderr
    assert hub.asked == [] and not store.exists()
    planned = home.harness("plan", *arguments[1:], "--offline", "--json")
    assert json.loads(planned.stdout)["to_download"] == [MODEL]
    home.fetch("--download")
    assert json.loads(home.harness("plan", *arguments[1:], "--offline", "--json").stdout)["to_download"] == []


def test_data_that_nobody_may_download_are_listed_as_doctor_says(home: Home) -> None:
    done = home.harness("fetch", "--profile", "in100", "--generator", "real", "--suite", "in-domain", "--offline")
    assert "not downloaded, bring them yourself:" in done.stdout
    assert "train: not provided: --data train=PATH (class folders of real images" in done.stdout
    assert "in-val: not provided" in done.stdout and "coco" not in done.stdout


def test_every_generator_and_suite_says_what_it_needs_with_the_settings_it_has() -> None:
    from harness.plan.model import Selection
    from harness.plan.models import needed_models
    from harness.plan.profile import load_profile

    local = {
        "generators.lbgen.clip": "none",
        "generators.lbgen.quality": f"q-align:lab/align@{COMMIT}",
        "generators.lbgen.weight_q": "0.1",
    }
    profile = load_profile("in100", [f"{key}={value}" for key, value in local.items()]).profile
    users = needed_models(Selection(profile, "lbgen,sd15", "in-domain"))
    assert {model.repository: names for model, names in users.items()} == {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": ("lbgen", "sd15"),
        "lab/align": ("lbgen",),
    }
    profile = load_profile(
        "in100", [f"{key}={value}" for key, value in (local | {"generators.lbgen.weight_q": "0"}).items()]
    ).profile
    assert "lab/align" not in {model.repository for model in needed_models(Selection(profile, "lbgen", "in-domain"))}


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1, "0" * 40) for name in names]


@pytest.mark.parametrize(
    ("there", "read"),
    [
        (("config.json", "model.safetensors", "pytorch_model.bin", "a.py", "sub/x.json"), {"config.json", "model.safetensors"}),
        (("config.json", "pytorch_model.bin", "vocab.txt", "t.model"), {"config.json", "pytorch_model.bin", "vocab.txt", "t.model"}),
        (("model_index.json", "vae/config.json", "vae/a.safetensors", "vae/a.non_ema.safetensors", "b.safetensors"),
         {"model_index.json", "vae/config.json", "vae/a.safetensors"}),
    ],
)  # fmt: skip
def test_safe_weights_come_before_pickles_and_code_is_never_read(there: tuple[str, ...], read: set[str]) -> None:
    assert {file.name for file in HubModel("", "a/b").chosen(listed(*there))} == read


@pytest.mark.parametrize(
    "location", ["", "none", "/models/sd15", "open-clip:local-dir:/models/clip", "file:captions.jsonl", "a/b"]
)
def test_what_is_on_this_machine_needs_nothing(location: str) -> None:
    assert hub_models(location) == ()


def test_a_model_without_a_commit_is_refused() -> None:
    from harness.core.errors import UserError

    with pytest.raises(UserError, match="not pinned"):
        hub_models("hub:lab/tiny@main")


def test_neither_token_nor_password_is_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    text = without_secrets(f"GET https://me:word@mirror.example/x with {TOKEN} failed")
    assert text == "GET https://***@mirror.example/x with *** failed"
    told = describe(OSError(f"GET https://me:word@mirror.example with {TOKEN}"))
    assert TOKEN not in str(told) and "me:word" not in str(told) and "mirror.example" in told["what"]


def test_no_record_holds_a_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.core.provenance import provenance

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    assert TOKEN not in json.dumps(provenance("cpu", 1))


def read_offline(home: Home, code: str) -> str:
    """Run code without a network and without the served hub."""
    environment = home.environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://hub.invalid"}
    begin = "from harness.core.offline import refuse_network\nrefuse_network()\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_loaders_of_pipelines_read_what_was_fetched(tmp_path: Path) -> None:
    from harness.microworld.towers import sd_folder

    root = sd_folder()
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with serving(Hub("lab/tiny", files)) as hub:
        home = Home(tmp_path, hub)
        sizes = ("--set", f"generators.sd15.base={MODEL}", "--suite", "in-domain", "--generator")
        assert home.harness("fetch", *sizes, "sd15", "--download").returncode == 0
    parts = f"from generators.diffusion.pipeline import load_pipeline\nprint(load_pipeline('lab/tiny', revision='{COMMIT}').latent_shape)"
    assert read_offline(home, parts).startswith("(")
    any_pipeline = (
        "from generators.diffusion.text_to_image import fetch_pipeline, load_text_to_image\nimport torch\n"
        f"print(type(load_text_to_image(fetch_pipeline('{MODEL}'), torch.float32, 'cpu')).__name__)"
    )
    assert read_offline(home, any_pipeline) == "StableDiffusionPipeline"


@pytest.mark.slow
def test_an_encoder_that_timm_names_is_read_from_what_was_fetched(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save

    name = "test_resnet.r160_in1k"
    weights = save(timm.create_model(name.partition(".")[0], pretrained=False).state_dict())
    with serving(
        Hub(f"timm/{name}", {"config.json": b"{}", "model.safetensors": weights, "pytorch_model.bin": b"x"})
    ) as hub:
        home = Home(tmp_path, hub)
        done = home.harness("fetch", "--model", f"timm:{name}", "--download")
        assert done.returncode == 0 and f"main at {COMMIT}" in done.stdout
        assert not any("pytorch_model" in line for line in hub.asked)
    code = f"from suites.likeness.encoders import load_encoder\nprint(load_encoder('timm:{name}', 'cpu').device)"
    assert read_offline(home, code) == "cpu"
