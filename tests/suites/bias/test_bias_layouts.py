"""The public layouts with what is awkward about them: grey and broken files, strangers beside the data, sizes, threads."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harness.core.classes import load_classes
from harness.core.errors import UserError
from harness.images.decode import open_picture
from suites.bias import background, context, texture
from suites.bias.cards import CueConflictCard, FocusCard, In9Card
from suites.bias.heads import other_head
from suites.bias.images import Geometry, predict
from suites.bias.maps import ClassMap
from suites.bias.settings import BiasSettings, TextureSettings
from suites.texture_bias import TextureBias
from tests.suites.bias.conftest import with_answers

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
HEAD = {f"c-{name}": colour for name, colour in COLOURS.items()}
SHARED = {"name": "small", "attribution": "", "image_size": 24}
MAP = {name: [f"c-{name}"] for name in COLOURS}
CUES = CueConflictCard.load(SHARED | {"categories": MAP, "expected_images": 9, "expected_conflict": 6})
FOLDERS = ("00_red", "01_wheeled green", "02_blue")
NINE = {"red": ["c-red"], "wheeled green": ["c-green"], "blue": ["c-blue"]}
IN9 = In9Card.load(SHARED | {"categories": NINE, "folders": FOLDERS, "expected_per_variation": 6})


@pytest.fixture
def cues(tmp_path, save_image):
    """The folder of the plain git repository; an image has the colour of its texture."""
    root = tmp_path / "style-transfer-preprocessed-512"
    for i, shape in enumerate(COLOURS):
        for j, name in enumerate(COLOURS):
            save_image(root / shape / f"{shape}{1 + j}-{name}{1 + i}.png", COLOURS[name], noise=1 + i + 10 * j)
    return tmp_path


@pytest.fixture
def swaps(tmp_path, save_image):
    """All eight variations; the further ones carry both kinds of names."""
    root = tmp_path / "bg_challenge"
    colours = list(COLOURS.values())
    for label, folder in enumerate(FOLDERS):
        for i in range(2):
            key = f"n0000000{label}_{10 * label + i:05d}"
            mixed = f"fg_{key}_bg_n09999999_{i:05d}"
            for variation, name, colour in (
                ("original", key, label), ("mixed_same", mixed, label), ("mixed_rand", mixed, label + i),
                ("mixed_next", mixed, label + 1), ("only_fg", key, label), ("no_fg", key, label + 2),
                ("only_bg_b", key, label + i), ("only_bg_t", mixed, label),
            ):  # fmt: skip
                save_image(root / variation / "val" / folder / f"{name}.JPEG", colours[colour % 3])
    return tmp_path


def values(result):
    return {metric.name: metric.estimate for metric in result.metrics}


def test_cue_conflict_grey_files_and_strangers(cues, save_image, colour_classifier):
    base = cues / "style-transfer-preprocessed-512"
    save_image(base / "red" / "red1-red1.png", (90, 90, 90), mode="L")
    (base / "red" / "._red1-red1.png").write_bytes(b"resource fork")
    (base / ".DS_Store").write_bytes(b"x")
    rows = texture.predict_rows(colour_classifier(HEAD), cues, CUES)
    assert len(rows["image"]) == 9 and rows["converted"].sum() == 1
    result = texture.score(rows, CUES)
    assert "1 files were not stored as RGB" in result.notes and values(result)["TI"].value == 1.0
    assert result.notes[0] == "s = 0, t = 6, neither = 0, of 6 conflict images"


def test_wrong_folder_names_are_refused(cues, swaps):
    base = cues / "style-transfer-preprocessed-512"
    (base / "blue").rename(base / "azure")
    with pytest.raises(UserError, match="azure/.* does not belong here"):
        texture.read_stimuli(cues, CUES)
    val = swaps / "bg_challenge" / "mixed_rand" / "val"
    (val / "01_wheeled green").rename(val / "01_wheeled_green")
    with pytest.raises(UserError, match="other class folders") as caught:
        background.read_views(swaps, IN9)
    assert "01_wheeled_green" in caught.value.why and "01_wheeled green" in caught.value.why


@pytest.mark.parametrize("damage", [b"", b"\x89PNG\r\n\x1a\n", "half", "header"])
def test_one_broken_file_gives_one_clear_line(cues, colour_classifier, damage):
    victim = cues / "style-transfer-preprocessed-512" / "green" / "green2-green2.png"
    content = victim.read_bytes()
    if damage == "half":
        damage = content[: len(content) // 2]
    elif damage == "header":
        damage = content[:20] + b"\xff\xff\xff\xff\xff\xff\xff" + content[27:]
    victim.write_bytes(damage)
    with pytest.raises(UserError, match=r"green2-green2\.png cannot be read as an image") as caught:
        texture.predict_rows(colour_classifier(HEAD), cues, CUES)
    assert "\n" not in caught.value.what and "fetch this file" in caught.value.fix


def test_every_broken_file_is_found_before_the_run_ends(swaps, save_image, colour_classifier):
    val = swaps / "bg_challenge" / "mixed_same" / "val"
    first, second = min((val / FOLDERS[0]).iterdir()), min((val / FOLDERS[2]).iterdir())
    first.write_bytes(first.read_bytes()[:80])
    save_image(second, (1, 2, 3), size=(25, 24))
    with pytest.raises(UserError, match="2 files cannot be used") as caught:
        background.predict_rows(colour_classifier(HEAD), swaps, IN9, settings=BiasSettings(batch_size=2))
    assert first.name in caught.value.why and "25x24" in caught.value.why


def test_the_error_names_every_broken_file(cues, colour_classifier):
    victims = sorted((cues / "style-transfer-preprocessed-512").glob("*/*.png"))[:5]
    for victim in victims:
        victim.write_bytes(b"")
    with pytest.raises(UserError, match="5 files cannot be used") as caught:
        texture.predict_rows(colour_classifier(HEAD), cues, CUES, settings=TextureSettings(batch_size=2))
    assert all(str(victim) in caught.value.why for victim in victims) and "fetch these files" in caught.value.fix


def test_in9_grey_file_and_truncated_file(swaps, save_image, colour_classifier):
    val = swaps / "bg_challenge" / "original" / "val"
    victim = min((val / FOLDERS[1]).iterdir())
    save_image(victim, COLOURS["green"], mode="L")
    (val / FOLDERS[1] / "._n1_1.JPEG").write_bytes(b"resource fork")
    rows = background.predict_rows(colour_classifier(HEAD), swaps, IN9)
    assert rows["converted"].sum() == 1 and len(rows["image"]) == 18
    victim.write_bytes(victim.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be read as an image"):
        background.predict_rows(colour_classifier(HEAD), swaps, IN9)


def test_further_variations_are_companions_and_change_no_gap(swaps, colour_classifier):
    model = colour_classifier(HEAD)
    plain = background.score(background.predict_rows(model, swaps, IN9), IN9)
    rows = background.predict_rows(model, swaps, IN9, others=background.OTHERS)
    assert len(rows["image"]) == 48
    found = background.score(rows, IN9)
    accuracy = {name: values(found)[name].value for name in background.OTHERS}
    assert accuracy == {"mixed_next": 0.0, "only_fg": 1.0, "no_fg": 0.0, "only_bg_b": 0.5, "only_bg_t": 1.0}
    assert values(found)["BG_Gap"] == values(plain)["BG_Gap"] and values(found)["BG_Gap"].value == 50.0
    assert [m.name for m in found.metrics if m.role == "primary"] == ["BG_Gap"]


def test_head_of_the_nine_classes_is_used_as_it_is(swaps, colour_classifier):
    own = {"00_red": COLOURS["red"], "01_wheeled_green": COLOURS["green"], "02_blue": COLOURS["blue"]}
    nine = background.predict_rows(colour_classifier(own), swaps, IN9)
    mapped = background.predict_rows(colour_classifier(HEAD), swaps, IN9)
    assert (nine["answer"] == mapped["answer"]).all() and set(nine["coverage"]) == {""}
    assert background.score(nine, IN9).metrics == background.score(mapped, IN9).metrics
    (note,) = background.score(nine, IN9).notes
    assert note.startswith(
        "head of 3 classes, not the 3 of the data set (classes of the head: blue 1, red 1, wheeled green 1)"
    )
    assert background.score(mapped, IN9).notes == ()


# --- geometry and invariance --------------------------------------------------------------------------------


def test_reference_geometries_of_the_public_sets(colour_classifier):
    model = colour_classifier(HEAD)
    cards = ((texture, CueConflictCard), (context, FocusCard), (background, In9Card))
    words = [str(module.geometry(card.load()).of(model)) for module, card in cards]
    assert words == [
        "as stored, 224x224", "shorter side 224 (PIL bilinear), centre crop 224", "as stored, 224x224",
    ]  # fmt: skip


def test_network_of_another_size_is_fed_its_size_and_flagged(cues, colour_classifier):
    class Large(colour_classifier):
        image_size, interpolation = 48, "bicubic"

        def __call__(self, images):
            assert images.shape[2:] == (48, 48)
            return super().__call__(images)

    result = texture.score(texture.predict_rows(Large(HEAD), cues, CUES), CUES)
    assert (
        "non-reference geometry: as stored, 24x24, scaled to 48 (PIL bicubic); the reference is as stored, 24x24"
        in (result.notes)
    )
    reference = texture.score(texture.predict_rows(colour_classifier(HEAD), cues, CUES), CUES)
    assert not any("geometry" in note for note in reference.notes)
    focus = FocusCard.load({"image_size": 24})
    assert str(context.geometry(focus).of(Large(HEAD))) == "shorter side 48 (PIL bicubic), centre crop 48"


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_resize_and_crop_equal_torchvision_and_are_a_protocol_of_their_own(cues, colour_classifier, how):
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    seen = []

    class Network(colour_classifier):
        image_size, interpolation = 24, how

        def __call__(self, images):
            seen.append((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
            return super().__call__(images)

    rows = texture.predict_rows(Network(HEAD), cues, CUES, settings=TextureSettings(resize=28))
    base, stimuli = texture.read_stimuli(cues, CUES)
    image = open_picture(base / stimuli[4].name).image
    expected = np.asarray(CenterCrop(24)(Resize(28, InterpolationMode[how.upper()])(image)))
    assert (np.concatenate(seen)[4] == expected).all()
    assert (
        f"non-reference geometry: shorter side 28 (PIL {how}), centre crop 24; the reference is as stored, 24x24"
        in (texture.score(rows, CUES).notes)
    )
    protocols = {TextureBias().protocol(TextureSettings(resize=size)) for size in (0, 0, 28, 256)}
    assert len(protocols) == 3 and "shorter side 256, centre crop of the network's size" in str(protocols)
    with pytest.raises(UserError, match="cannot be cut from 20"):
        texture.predict_rows(Network(HEAD), cues, CUES, settings=TextureSettings(resize=20))


def test_other_size_equals_torchvision():
    from PIL import Image
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    pixels = np.random.default_rng(0).integers(0, 256, (75, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = np.asarray(CenterCrop(48)(Resize(48, InterpolationMode.BICUBIC)(image)))
    assert (Geometry("resize-crop", 24, 48, "bicubic").apply(image, "x") == expected).all()


def test_batch_size_and_threads_change_no_metric(cues, swaps, untrained_network):
    model = untrained_network(HEAD)
    runs = [TextureSettings(batch_size=size, threads=threads) for size, threads in ((64, 1), (1, 1), (5, 3))]
    cue_rows = [texture.predict_rows(model, cues, CUES, settings=settings) for settings in runs]
    swap_rows = [background.predict_rows(model, swaps, IN9, settings=settings) for settings in runs]
    for rows in (cue_rows, swap_rows):
        for other in rows[1:]:
            assert list(other["image"]) == list(rows[0]["image"])
            assert (other["answer"] != rows[0]["answer"]).sum() <= 2
    assert texture.score(dict(cue_rows[0]), CUES) == texture.score(dict(cue_rows[0]), CUES)
    same = [rows for rows in cue_rows if (rows["answer"] == cue_rows[0]["answer"]).all()]
    assert len({texture.score(rows, CUES) for rows in same}) == 1  # equal rows: bit-equal metrics


def test_threads_keep_order_and_flags(tmp_path, save_image, untrained_network):
    model = untrained_network(HEAD)
    names = [save_image(tmp_path / f"{i}.jpeg", (i * 6, 255 - i * 6, 9), size=(90, 72), noise=i + 1).name
             for i in range(40)]  # fmt: skip
    for name in names[::7]:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-60])
    runs = [predict(model, tmp_path, names, Geometry("resize-crop", 24), accept_truncated=True, batch_size=8,
                    threads=threads) for threads in (1, 4)]  # fmt: skip
    assert (runs[0].logits == runs[1].logits).all()
    assert (runs[0].truncated == runs[1].truncated).all() and np.flatnonzero(runs[1].truncated).tolist() == [
        *range(0, 40, 7)
    ]
    with pytest.raises(UserError):
        open_picture(tmp_path / names[0])


def test_stimuli_are_compared_with_the_public_bytes(cues, monkeypatch):
    base, stimuli = texture.read_stimuli(cues, CUES)
    digests = {s.name: hashlib.sha256((base / s.name).read_bytes()).hexdigest() for s in stimuli}
    rows = [{"relpath": name, "sha256": digest} for name, digest in digests.items()]
    monkeypatch.setattr(texture, "public_stimuli", lambda: rows)
    assert texture.differing(base, stimuli) == []
    (base / stimuli[3].name).write_bytes(b"touched")
    rows.pop(5)
    assert texture.differing(base, stimuli) == [stimuli[3].name, stimuli[5].name]


def test_a_head_of_other_classes_than_the_thousand_says_so_with_its_classes_per_category(stimuli_answers):
    thousand, hundred = load_classes("imagenet1k").ids, load_classes("imagenet100").ids
    for card in (CueConflictCard.load(), FocusCard.load(), In9Card.load()):
        assert other_head(thousand, card) == other_head(thousand[::-1], card) == ""
        assert other_head((*thousand, "n99999999"), card) == "1001 classes, not the 1000 of ImageNet"
        assert other_head(hundred, card) == "100 classes, not the 1000 of ImageNet"
    own = CUES.model_copy()
    assert (
        other_head(tuple(HEAD), own) == ""
        and other_head((*HEAD, "c-more"), own) == "4 classes, not the 3 of the data set"
    )
    card = CueConflictCard.load()
    plain = texture.score(stimuli_answers | {"head": np.full(1280, "")}, card)
    wider = texture.score(stimuli_answers | {"head": np.full(1280, "1001 classes, not the 1000 of ImageNet")}, card)
    assert wider.metrics == plain.metrics and wider.notes[1:] == plain.notes
    assert (
        "head of 1001 classes, not the 1000 of ImageNet (classes of the head: airplane 1, bear 4, bicycle 2, bird 49"
        in (wider.notes[0])
    )


@pytest.fixture
def stimuli_answers(stimuli, answers):
    """Rows of the public stimuli as a network answered them, with the members of each category in a thousand-way head."""
    head = ClassMap.of(CueConflictCard.load().categories).bind(load_classes("imagenet1k").ids)
    members = dict(zip(head.categories, head.counts().tolist(), strict=True))
    rows = with_answers(stimuli, answers["mvh:resnet50"])
    return rows | {"members": np.asarray([members[name] for name in rows["shape"]]), "coverage": np.full(1280, "")}


def test_every_bias_value_names_the_companions_it_is_read_with(stimuli_answers, swaps, colour_classifier):
    (ti, *_) = texture.score(stimuli_answers, CueConflictCard.load()).metrics
    assert ti.name == "TI" and ti.beside == ("cue_coverage", "same_category_accuracy")
    (gap, *_) = background.score(background.predict_rows(colour_classifier(HEAD), swaps, IN9), IN9).metrics
    assert gap.name == "BG_Gap" and gap.beside == ("mixed_same",)
