"""Names, templates and prompts of the generators, their cards, and how names are selected."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generators.genrobust.prompts import choose_template, prompt, templates
from generators.realfake import prompts as realfake
from generators.sd15 import sample
from harness.cli.describe import show_card
from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.images.request import Request
from harness.plan.model import Plan, Selection
from harness.plan.planner import Planner
from harness.plan.profile import load_profile
from harness.plugins import registry

SD = "package:harness.microworld/weights/sd"
NOT_PHOTOGRAPHS = (
    "sculpture", "rendering", "graffiti", "tattoo", "embroidered", "drawing", "plastic", "painting", "video", "doodle",
    "origami", "sketch", "toy", "rendition", "cartoon", "art", "plushie",
)  # fmt: skip
DEGRADED = ("bad", "low", "blurry", "corrupted", "pixelated")


def words(template: str) -> set[str]:
    return set(re.findall(r"[a-z]+", template.replace("{name}", "")))


def test_name_tables_have_their_published_hashes() -> None:
    classes = load_classes("imagenet1k")
    assert len(classes) == 1000
    digest = hashlib.sha256("\n".join(classes.names).encode()).hexdigest()
    assert digest == "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"
    assert {name: len(ids) for name, ids in classes.duplicate_names().items()} == {"missile": 2, "sunglasses": 2}
    names = [realfake.class_name(i, n) for i, n in zip(classes.ids, classes.names, strict=True)]
    differing = [i for i, (ours, theirs) in enumerate(zip(classes.names, names, strict=True)) if ours != theirs]
    assert differing == [421, 478, 692, 744, 789, 836, 842]
    assert [names[i] for i in differing] == [
        "baluster handrail", "cardboard box carton", "product packet packaging", "projectile missile",
        "shoji screen room divider", "sunglass", "swim trunks shorts",
    ]  # fmt: skip
    assert max(Counter(names).values()) == 1


def test_both_text_only_generators_say_the_same_name(tiny_parts: Any) -> None:
    """What sd15 and lbGen's synthesis asks for and GenRobust's bare-name prompt are one string; samples bear it."""
    ctx: Any = SimpleNamespace(params={"settings": {"sampling_steps": 1, "guidance": 2.0, "scheduler": "pndm"}})
    classes = load_classes("imagenet1k")
    for index in (0, 421, 657, 744, 999):
        request = Request(index, classes.ids[index], classes.names[index], 0, 1, 16, 0)
        (bare,) = sample(ctx, tiny_parts, request)
        (named,) = sample(ctx, tiny_parts, request, lambda image, asked=request: prompt(asked, image, "name"))
        assert bare.prompt == named.prompt == classes.names[index] and (bare.image == named.image).all()
        (photo,) = sample(ctx, tiny_parts, request, lambda image, asked=request: prompt(asked, image, "photo"))
        assert photo.prompt == f"a photo of a {classes.names[index]}" and (photo.image != bare.image).any()


def test_templates_are_open_clips_eighty() -> None:
    import open_clip

    found = templates()
    assert len(found) == len(set(found)) == 80
    assert all(each.endswith(".") and each.count("{name}") == 1 for each in found)
    assert [each.replace("{name}", "x") for each in found] == [t("x") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    counts = Counter(word for each in found for word in words(each) & set(NOT_PHOTOGRAPHS))
    assert counts == dict.fromkeys(NOT_PHOTOGRAPHS, 2)
    assert sum(bool(words(each) & set(NOT_PHOTOGRAPHS)) for each in found) == 34
    assert sum("itap" in words(each) for each in found) == 3
    assert sum(bool(words(each) & set(DEGRADED)) for each in found) == 10


def test_drawn_templates_are_uniform_and_belong_to_the_image() -> None:
    request = Request(0, "n01440764", "tench", 0, 8000, 512, 0)
    drawn = Counter(choose_template(request.seed(index, "template")) for index in range(8000))
    statistic = sum((drawn[each] - 100) ** 2 / 100 for each in templates())
    assert statistic < 117.5, "the 99.7 % point of chi-square with 79 degrees of freedom is 117.5"
    assert prompt(request, 5, "clip80") == choose_template(request.seed(5, "template")).replace("{name}", "tench")
    other = Request(0, "n01440764", "tench", 0, 8000, 512, 1)
    assert [prompt(request, i, "clip80") for i in range(9)] != [prompt(other, i, "clip80") for i in range(9)]


def test_realfake_texts() -> None:
    caption = "a vacuum cleaner sitting on a tiled floor"
    assert realfake.training_text("vacuum cleaner", caption) == f"photo of vacuum cleaner, {caption}"
    assert realfake.prompt("vacuum cleaner", caption) == f"photo of vacuum cleaner, {caption}, best quality"
    assert realfake.prompt("vacuum cleaner", "") == "vacuum cleaner, photo, best quality"
    assert realfake.NEGATIVE == "distorted, unrealistic, blurry, out of frame, cropped, deformed"


def test_every_generator_card_prints_inputs_and_both_flags(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = registry.generators().available()
    assert not bad and len(good) >= 14
    for generator in good:
        show_card(generator.card.id, as_json=False)
        printed = capsys.readouterr().out
        for fact in ("real pixels at training: ", "real pixels at synthesis: ", "prompts: ", "sampler:", "modes: "):
            assert fact in printed or fact.replace(": ", ":\n") in printed, (generator.card.id, fact)
        for information in generator.card.information:
            assert information in printed
        assert generator.card.licence and generator.card.count, generator.card.id
        show_card(generator.card.id, as_json=True)
        facts = json.loads(capsys.readouterr().out)
        assert isinstance(facts["real_pixels_at_training"], bool) and isinstance(facts["information"], list)


def test_declared_information_is_consistent() -> None:
    for generator in registry.generators().available()[0]:
        card = generator.card
        if card.real_pixels_at_synthesis and card.id != "folder":
            assert "real_images" in card.information, card.id
        if "real_images" in card.information:
            assert card.real_pixels_at_training, card.id
        if generator.imports or card.id == "real":
            continue
        assert ("train+regenerate" in card.modes) == bool(generator.fit_fields), card.id
        assert card.cost and card.citation, card.id


def test_the_board_is_told_both_flags() -> None:
    told = {generator.card.id: set(generator.card.supervision) for generator in registry.generators().available()[0]}
    training, synthesis = "real_pixels_at_training", "real_pixels_at_synthesis"
    assert told["real"] == {"real_images"} and told["sd15"] == {"class_names"}
    assert told["genrobust-ft"] == {"class_names", "templates", "real_images", training}
    assert {training, synthesis} <= told["realfake"] == told["realfake-reimpl"]
    assert told["folder"] == {training, synthesis}


def test_describe_realfake_says_why_it_is_near_real(capsys: pytest.CaptureFixture[str]) -> None:
    show_card("realfake", as_json=False)
    printed = " ".join(capsys.readouterr().out.split())
    for phrase in ("near real because", "real training image, noised to 75 %", "CLIP feature", "43-46 %"):
        assert phrase in printed


def test_cards_say_what_is_assumed_and_whose_feature_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def described(name: str) -> str:
        show_card(name, as_json=False)
        return " ".join(capsys.readouterr().out.split())

    tuned, base = described("genrobust-ft-released"), described("genrobust-base-released")
    for fact in ("prompts: assumed", "sampler: assumed", "quality 75 is assumed", "is not documented"):
        assert fact in tuned and fact not in base, fact
    assert "keep reproduces the release" in tuned and "keep reproduces the release" in base
    assert "0.85e-6 (mean 0.95e-6)" in described("genrobust-ft") and "schedule = 'official'" in described(
        "genrobust-ft"
    )
    ours, published = described("realfake-reimpl"), described("realfake")
    assert "wrong axis" in ours and "visual_token = 'own'" in ours and "sigma 0.029" in ours
    assert "The feature is not its own" in published and "own caption and CLIP feature" not in ours + published


def planned(generators: str, profile: str = "micro", sets: tuple[str, ...] = (), data: tuple[str, ...] = ()) -> Plan:
    return Planner(Selection(load_profile(profile, sets, data).profile, generators, "")).build()


def made(plan: Plan) -> list[str]:
    return [cell.name for cell in plan.cells.values() if cell.kind == "synthesise"]


def test_all_is_the_seven_generators_here() -> None:
    plan = planned("all")
    seven = {"real", "sd15", "genrobust-base", "genrobust-ft", "realfake-reimpl", "lbgen", "lbgen-released"}
    assert set(made(plan)) == seven and not plan.not_run


def test_groups_and_stand_ins(tmp_path: Path) -> None:
    assert made(planned("genrobust")) == ["genrobust-base", "genrobust-ft"]
    assert made(planned("realfake")) == ["realfake-reimpl"]
    (tmp_path / "n01440764").mkdir()
    assert made(planned("realfake", "in1k", data=(f"realfake={tmp_path}",))) == ["realfake"]
    without = planned("realfake", "in1k")
    assert made(without) == [] and without.not_run[0].asked and "realfake-reimpl" in without.not_run[0].what
    sets = ("generators.realfake-reimpl.captioner=none",)
    assert made(planned("realfake", "in1k", sets, (f"train={tmp_path}",))) == ["realfake-reimpl"]
    sweep = made(planned("lbgen-ablation"))
    assert sorted(sweep) == ["lbgen-clip-base", "lbgen-no-en", "lbgen-no-in", "lbgen-no-q"]
    assert planned("folder").not_run[0].reason == "write folder:PATH"


def settings_of(plan: Plan, kind: str, name: str) -> Any:
    return next(dict(c.params["settings"]) for c in plan.cells.values() if (c.kind, c.name) == (kind, name))


def test_variants_take_the_settings_of_lbgen_but_their_own() -> None:
    plan = planned(
        "lbgen,lbgen-ablation,lbgen-released", sets=("generators.lbgen.rank=8", "generators.lbgen.clip=none")
    )
    full = settings_of(plan, "fit", "lbgen")
    own = {
        "lbgen-no-en": {"weight_en": 0},
        "lbgen-no-in": {"weight_in": 0},
        "lbgen-no-q": {"weight_q": 0, "quality": "none"},
        "lbgen-clip-base": {"clip": "package:harness.microworld/weights/clip_base"},
        "lbgen-released": {
            "discriminator_activation": "leaky_relu", "weight_q": 0, "quality": "none", "micro_batch": 4
        },
    }  # fmt: skip
    for name, changes in own.items():
        found = settings_of(plan, "fit", name)
        assert {key for key in full if found[key] != full[key]} == set(changes), name
        assert found == full | changes


LBGEN = (
    "generators.lbgen.base=" + SD,
    "generators.lbgen.quality=open-clip:open_clip:a@b",
    "generators.lbgen.clip=open_clip:a@b",
)


def fit_of(profile: str, *sets: str, name: str = "lbgen") -> Any:
    return next(cell for cell in planned(name, profile, (*LBGEN, *sets)).cells.values() if cell.kind == "fit")


def test_the_class_list_of_the_fine_tune_is_named_in_its_key(tmp_path: Path) -> None:
    """The default is the paper's 1000 names, so one fine-tune serves both profiles; other lists give other keys."""
    thousand, hundred = fit_of("in100"), fit_of("in100", "generators.lbgen.fit_classes=imagenet100")
    assert thousand.key == fit_of("in1k").key != hundred.key
    assert thousand.params["classes"] == {"name": "imagenet1k", "content": load_classes("imagenet1k").content}
    assert hundred.params["classes"]["content"] == load_classes("imagenet100").content
    assert hundred.cost == "512 images sampled in training for 12 LoRA updates of 32"
    assert fit_of("in100", name="lbgen-released").params["classes"]["name"] == "imagenet1k", "variants take it too"
    assert fit_of("micro").params["classes"]["name"] == "micro"
    own = tmp_path / "own.txt"
    keys = set()
    for names in ("n01440764 tench\nn01443537 goldfish\n", "n01440764 tench\nn01443537 carp\n"):
        own.write_text(names)
        keys.add(fit_of("in100", f"generators.lbgen.fit_classes={own}").key)
    assert len(keys) == 2, "the content of a list counts, not its path"
    with pytest.raises(UserError, match="unknown class list 'imagenet1000'"):
        fit_of("in100", "generators.lbgen.fit_classes=imagenet1000")


def test_synthesis_keeps_the_classes_of_the_run() -> None:
    plan = planned("lbgen", "in100", LBGEN)
    (synthesis,) = (cell for cell in plan.cells.values() if cell.kind == "synthesise")
    assert synthesis.params["classes"]["name"] == "imagenet100" and "fit_classes" not in synthesis.params["settings"]


def test_published_weights_need_no_fit_and_no_real_images(tiny_pipeline_dir: Path) -> None:
    plan = planned("genrobust-ft", "in1k", (f"generators.genrobust-ft.weights={tiny_pipeline_dir}",))
    assert next(cell.kind for cell in plan.cells.values()) == "synthesise" and not plan.not_run
    asked = planned("genrobust-ft", "in1k")
    assert made(asked) == [] and "train" in asked.not_run[0].reason


def test_captions_and_features_are_shared_between_seeds() -> None:
    plan = Planner(Selection(load_profile("micro").profile, "realfake", "", seeds=3)).build()
    kinds = Counter(cell.name for cell in plan.cells.values() if cell.kind in ("extract", "fit", "synthesise"))
    assert kinds["captions"] == kinds["clip-features"] == 1 and kinds["realfake-reimpl"] == 6
    fit = next(cell for cell in plan.cells.values() if cell.kind == "fit")
    assert set(fit.inputs) == {"captions", "features"} and fit.params["data"]["train"]


@pytest.mark.parametrize(("profile", "classes"), [("in100", 100), ("in1k", 1000)])
def test_plans_of_fine_tunes_count_their_updates(
    tmp_path: Path, tiny_pipeline_dir: Path, profile: str, classes: int
) -> None:
    """lbGen learns from the 1000 names whatever is synthesised: 96 updates.

    A hundred passes over ImageNet-100 at batch 8 are 1.6 million updates and a week of one GPU, not an hour.
    """
    (tmp_path / "train").mkdir()
    captioner = tiny_pipeline_dir / "text_encoder"  # a model folder; planning looks at its headers only
    sets = (f"generators.realfake-reimpl.captioner={captioner}", "generators.lbgen.quality=open-clip:open_clip:a@b")
    plan = planned("realfake-reimpl,genrobust-ft,lbgen", profile, sets, (f"train={tmp_path / 'train'}",))
    fits = {cell.name: cell for cell in plan.cells.values() if cell.kind == "fit"}
    assert fits["realfake-reimpl"].cost == f"{classes * 1300 * 100 // 8:,} updates of 8 images"
    assert fits["realfake-reimpl"].resources.minutes / 60 == pytest.approx(classes * 1300 * 100 / 22 / 3600)
    assert fits["genrobust-ft"].cost == f"{classes * 65:,} updates of 20 images"
    assert fits["lbgen"].cost == "4,096 images sampled in training for 96 LoRA updates of 32"
    assert fits["lbgen"].resources.minutes == pytest.approx(480, rel=0.02)
    needs = {cell.name: cell for cell in plan.cells.values() if cell.kind == "extract"}
    assert needs["captions"].cost == f"{classes * 1300:,} images" and needs["captions"].resources.minutes > classes * 7
    micro = planned("realfake-reimpl")
    (fit,) = (cell for cell in micro.cells.values() if cell.kind == "fit")
    assert fit.resources.minutes == load_profile("micro").profile.minutes["fit/realfake-reimpl"], (
        "the profile's come first"
    )


@pytest.mark.parametrize(
    ("generators", "measured"),
    [
        ("lbgen", {"fit": (1.8, 2.8), "synthesise": (2.4, 3.6), "pretrain": (1.8, 3.5), "extract": (0.2, 0.4), "evaluate": (1.9, 2.9)}),
        ("all", {"fit": (5.5, 9.3), "synthesise": (14.0, 23.3), "pretrain": (14.1, 24.2), "extract": (1.7, 2.7), "evaluate": (13.1, 21.1)}),
    ],
)  # fmt: skip
def test_minutes_planned_for_the_embedded_world_are_those_measured(
    generators: str, measured: dict[str, tuple[float, float]]
) -> None:
    """CPU-minutes of whole runs into empty stores, on a quiet machine of two cores and on one shared with other jobs."""
    plan = Planner(Selection(load_profile("micro").profile, generators, "all")).build()
    minutes = dict.fromkeys(measured, 0.0)
    for cell in plan.cells.values():
        minutes[cell.kind] += cell.resources.minutes * max(len(cell.shards), 1)
    for kind, (quiet, shared) in measured.items():
        assert shared / 1.5 <= minutes[kind] <= quiet * 1.6 + 0.1, (kind, minutes)
    assert sum(minutes.values()) < 1.5 * sum(quiet for quiet, _ in measured.values())


def test_describe_tells_groups_folders_and_published_images(capsys: pytest.CaptureFixture[str]) -> None:
    def described(name: str) -> str:
        show_card(name, as_json=False)
        return " ".join(capsys.readouterr().out.split())

    sweep = described("lbgen-ablation")
    assert "(a group)" in sweep and "lbgen-no-q Ablation: lbGen without L_q." in sweep
    assert "genrobust-ft" in described("genrobust") and "imagenet-gen-sd15" in described("published")
    assert described("folder:/some/where") == described("folder") and "information: unknown" in described("folder")
    assert "published images: genrobust-base-released" in described("genrobust-base")
    assert "information: class_names" in described("sd15")
