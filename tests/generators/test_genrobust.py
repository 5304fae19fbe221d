"""GenRobust: weights published as pickles, and the settings that were run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from generators.diffusion.finetune import Schedule
from generators.diffusion.pipeline import load_pipeline
from generators.diffusion.real_images import crop_for_training, squash
from generators.genrobust.settings import FIT, GenRobustFtSettings, GenRobustSettings
from generators.genrobust.train import schedule_of, with_unet
from harness.core.errors import CorruptArtifact


def test_defaults_are_the_published_values() -> None:
    base, tuned = GenRobustSettings(), GenRobustFtSettings()
    assert (base.guidance, base.sampling_steps, base.scheduler, base.prompts) == (7.5, 50, "pndm", "clip80")
    assert (tuned.lr, tuned.epochs, tuned.batch) == (1e-6, 1.0, 20)


def test_a_pipeline_published_as_pickles_loads_as_tensors(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(tiny_pipeline_dir, folder)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "pytorch_model"),
    ):
        (file,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(file), folder / part / f"{name}.bin")
        file.unlink()
    old, new = load_pipeline(folder, pickled=True), load_pipeline(tiny_pipeline_dir)
    for part in ("unet", "vae", "text_encoder"):
        a, b = getattr(old, part).state_dict(), getattr(new, part).state_dict()
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_weights_of_another_network_are_refused(tiny_parts: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(CorruptArtifact, match="do not fit"):
        with_unet(tiny_parts, tmp_path / "unet.safetensors")


def test_crops() -> None:
    """Short side to the size, centre or random crop, flip by a fair coin; or squashed without regard to the aspect."""
    import numpy as np
    from PIL import Image

    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (32, 1, 3)))
    flips = []
    for seed in range(40):
        pixels = crop_for_training(ramp, 32, "centre", torch.Generator().manual_seed(seed))
        assert pixels.shape == (3, 32, 32)
        row = sorted(((pixels[0, 0] + 1) * 127.5).round().int().tolist())
        assert row == [4 * x for x in range(16, 48)]
        flips.append(bool(pixels[0, 0, 0] > pixels[0, 0, -1]))
    assert 8 < sum(flips) < 32
    places = {
        float(crop_for_training(ramp, 32, "random", torch.Generator().manual_seed(seed))[0, 0].min())
        for seed in range(20)
    }
    assert len(places) > 8
    whole = squash(ramp, 32)[0, 0]
    assert whole[0] < -0.95 and whole[-1] > 0.95


def test_centre_crops_round_as_torchvisions() -> None:
    """Odd and even margins, both ways round: half a pixel goes to the even side, not always down."""
    import numpy as np
    from PIL import Image
    from torchvision.transforms.functional import center_crop

    places = set()
    for width in range(16, 29):
        for height in (16, 16 if width > 16 else 23):
            pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            ours = crop_for_training(image, 16, "centre", torch.Generator().manual_seed(0))
            flipped = bool(torch.rand((), generator=torch.Generator().manual_seed(0)) < 0.5)
            theirs = (
                np.asarray(center_crop(image, [16, 16]))[:, ::-1]
                if flipped
                else np.asarray(center_crop(image, [16, 16]))
            )
            assert (((ours.permute(1, 2, 0) + 1) * 127.5).round().numpy() == theirs).all(), (width, height)
            places.add((width - 16) % 4)
    assert places == {0, 1, 2, 3}


def test_the_official_schedule_ends_at_a_quarter_of_its_cosine() -> None:
    """One step per four micro-steps of a horizon that counts micro-steps, over ImageNet-1k once in batches of 20."""
    import statistics

    found = {}
    for name in ("official", "to-zero"):
        schedule = schedule_of(GenRobustFtSettings(schedule=name), 1_281_167)
        rates = [schedule.rate(update) for update in range(schedule.updates)]
        assert len(rates) == 64_059 and rates[0] == 1e-6
        found[name] = (rates[-1], statistics.fmean(rates))
    assert found["official"] == (pytest.approx(0.8536e-6, rel=1e-4), pytest.approx(0.9502e-6, rel=1e-4))
    assert found["to-zero"] == (pytest.approx(0, abs=1e-14), pytest.approx(0.5e-6, rel=1e-4))
    assert GenRobustFtSettings().schedule == "official" and "schedule" in FIT


def test_a_cosine_may_end_before_its_horizon() -> None:
    whole, part = (Schedule(1000, 4, 4, 1.0, decay="cosine", horizon=horizon) for horizon in (1.0, 4.0))
    assert whole.rate(0) == part.rate(0) == 1.0 and whole.rate(1000) == pytest.approx(0)
    assert part.rate(1000) == pytest.approx((1 + 2**-0.5) / 2) and part.rate(1000) == pytest.approx(whole.rate(250))


def test_the_safety_checker_blackens_what_it_flags(tmp_path: Path) -> None:
    import numpy as np
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    from generators.diffusion.safety import SafetyChecker
    from harness.core.errors import DataMissing, UserError

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=8)
    model = StableDiffusionSafetyChecker(config)
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for threshold, expected in ((2.0, image), (-2.0, np.zeros_like(image))):  # a cosine is between the two
        model.concept_embeds_weights.data.fill_(threshold)
        model.special_care_embeds_weights.data.fill_(2.0)
        model.save_pretrained(tmp_path / str(threshold))
        assert (SafetyChecker(str(tmp_path / str(threshold)))(image) == expected).all()
    with pytest.raises(DataMissing):
        SafetyChecker(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not pinned"):
        SafetyChecker("hub:CompVis/stable-diffusion-safety-checker")
