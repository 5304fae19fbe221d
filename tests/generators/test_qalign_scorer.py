"""The quality score and its gradient, and the Q-ALIGN forward pass on a tiny model."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from generators.lbgen.losses import quality_loss  # noqa: E402
from generators.lbgen.quality import levels  # noqa: E402
from generators.lbgen.quality.levels import expected_level, select_levels  # noqa: E402
from generators.lbgen.quality.load import load_quality, parse_quality  # noqa: E402
from generators.lbgen.quality.open_clip_levels import LEVEL_PROMPTS  # noqa: E402
from generators.lbgen.quality.qalign_config import QAlignConfig, parse_config  # noqa: E402
from generators.lbgen.quality.qalign_model import QAlignModel, build_on_meta  # noqa: E402
from generators.lbgen.quality.qalign_scorer import QAlignScorer, load_qalign  # noqa: E402
from generators.lbgen.quality.qalign_weights import position_tables  # noqa: E402
from harness.core.errors import DataMissing, UserError  # noqa: E402

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "model_type": "mplug_owl2",
    "vocab_size": 32000,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "visual_config": {
        "visual_model": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        "visual_abstractor": {
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": 32,
            "grid_size": 4,
        },
    },
}
FIRST, STOP = 15, 80  # visual positions: BOS + 14 tokens before, 65 embeddings


def formula(key: str, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """Return weights that depend on nothing but their name, so that recorded outputs stay valid."""
    phase = (zlib.crc32(key.encode()) % 1000) / 7 + torch.arange(math.prod(shape), dtype=torch.float64) * 1.7
    values = torch.sin(phase * phase % 6283) * 0.25
    centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
    return (values + centre).reshape(shape).float()


def tiny_state() -> dict[str, torch.Tensor]:
    model = build_on_meta(parse_config(TINY))
    state = {name: formula(name, p.shape) for name, p in model.named_parameters()}
    return state | position_tables(model)


def tiny_model(dtype: torch.dtype = torch.float32) -> QAlignModel:
    model = build_on_meta(parse_config(TINY))
    model.load_state_dict({k: v.to(dtype) for k, v in tiny_state().items()}, assign=True)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def scorer() -> QAlignScorer:
    return QAlignScorer(tiny_model())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Return unclamped images larger than the model's input, so that the resize takes part."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 1.4 - 0.2


def sentencepiece_bytes(pieces: list[str]) -> bytes:
    """Serialise pieces as SentencePiece does: text, a float score, a type, and a trailing unrelated field."""

    def varint(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    out = bytearray()
    for piece in pieces:
        text = piece.encode()
        body = b"\x0a" + varint(len(text)) + text + b"\x15\x00\x00\x80\x3f" + b"\x18\x01"
        out += b"\x0a" + varint(len(body)) + body
    return bytes(out) + b"\x12\x02\x18\x01"


def llama_pieces() -> list[str]:
    """Return a vocabulary that agrees with LLaMA-2 at the ids which the prompt and the levels use."""
    before = [
        "▁US",
        "ER",
        ":",
        "▁How",
        "▁would",
        "▁you",
        "▁rate",
        "▁the",
        "▁quality",
        "▁of",
        "▁this",
        "▁image",
        "?",
        "<0x0A>",
    ]
    after = ["▁", "<0x0A>", "ASS", "IST", "ANT", ":", "▁The", "▁quality", "▁of", "▁the", "▁image", "▁is"]
    pieces = [f"#{i}" for i in range(32000)]
    pieces[1] = "<s>"
    words = [*before, *after, *(f"▁{w}" for w in levels.LEVELS)]
    ids = (*levels.TOKENS_BEFORE_IMAGE, *levels.TOKENS_AFTER_IMAGE, *levels.LEVEL_TOKEN_IDS)
    for index, word in zip(ids, words, strict=True):
        pieces[index] = word
    return pieces


def write_folder(folder: Path, state: dict[str, torch.Tensor], *, pieces: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    (folder / "tokenizer.model").write_bytes(sentencepiece_bytes(pieces or llama_pieces()))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


# --- the expectation over the levels


@pytest.mark.parametrize(
    ("logits", "score"),
    [
        ((0, 0, 0, 0, 0), 3.0),
        ((10, 0, 0, 0, 0), 4.999546083),
        ((0, 0, 0, 0, 10), 1.000453917),
        ((2, 1, 0, -1, -2), 4.451941568),
    ],
)
def test_scores_of_level_logits_have_closed_forms(logits: tuple[int, ...], score: float) -> None:
    got = expected_level(torch.tensor([logits], dtype=torch.float64))
    assert got.item() == pytest.approx(score, rel=1e-9)
    shifted = expected_level(torch.tensor([logits], dtype=torch.float64) + 123.25)
    assert shifted.item() == pytest.approx(score, rel=1e-9)


def test_quality_loss_of_known_scores() -> None:
    equal = quality_loss(expected_level(torch.zeros(4, 5, dtype=torch.float64)))
    assert equal.item() == pytest.approx(0.4, rel=1e-12)
    assert (0.1 * equal).item() == pytest.approx(0.04, rel=1e-12)
    falling = torch.tensor([[2.0, 1, 0, -1, -2]], dtype=torch.float64)
    assert quality_loss(expected_level(falling)).item() == pytest.approx(0.109611686, rel=1e-8)


def test_scores_ignore_the_rest_of_the_vocabulary() -> None:
    logits = torch.randn(3, 32000, generator=torch.Generator().manual_seed(0))
    changed = torch.full_like(logits, 50.0)
    changed[:, list(levels.LEVEL_TOKEN_IDS)] = logits[:, list(levels.LEVEL_TOKEN_IDS)]
    assert torch.equal(expected_level(select_levels(changed)), expected_level(select_levels(logits)))


def test_the_softmax_of_levels_runs_in_fp32() -> None:
    logits = torch.tensor([[3.0, 1.5, 0.25, -1.0, -2.5]])
    half = expected_level(logits.half())
    assert half.dtype == torch.float32
    assert torch.equal(half, expected_level(logits))  # exact in fp16: only the softmax could differ


def test_scores_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match="level logits"):
        expected_level(torch.zeros(2, 32000))


# --- level ids, prompt, gradient


def test_the_prompt_and_the_ids_of_levels_are_frozen() -> None:
    assert levels.PROMPT == (
        "USER: How would you rate the quality of this image?\n<|image|>\nASSISTANT: The quality of the image is"
    )
    assert levels.LEVELS == ("excellent", "good", "fair", "poor", "bad")
    assert levels.LEVEL_TOKEN_IDS == (15129, 1781, 6534, 6460, 4319)
    assert levels.LEVEL_WEIGHTS == (5, 4, 3, 2, 1)
    assert len(levels.TOKENS_BEFORE_IMAGE) == 14
    assert len(levels.TOKENS_AFTER_IMAGE) == 12 and levels.TOKENS_AFTER_IMAGE[0] == 29871


def test_the_sequence_has_92_positions(scorer: QAlignScorer) -> None:
    model = scorer.model
    embedded = model.embed(torch.zeros(1, 3, 56, 56))
    assert embedded.shape == (1, 92, 64)
    assert model.visual_span == (FIRST, STOP) and model.cfg.visual_embeddings == 65
    table = model.model.embed_tokens.weight
    assert torch.equal(embedded[0, 0], table[levels.BOS_TOKEN_ID])
    assert torch.equal(embedded[0, 1:FIRST], table[list(levels.TOKENS_BEFORE_IMAGE)])
    assert torch.equal(embedded[0, STOP - 1], model.model.visual_abstractor.vit_eos[0, 0])
    assert torch.equal(embedded[0, STOP:], table[list(levels.TOKENS_AFTER_IMAGE)])


def test_every_image_gets_a_finite_gradient(scorer: QAlignScorer, images: torch.Tensor) -> None:
    leaf = images.clone().requires_grad_(True)
    scores = scorer.score(leaf)
    assert scores.shape == (2,) and scores.requires_grad and bool(((scores > 1) & (scores < 5)).all())
    (grad,) = torch.autograd.grad(quality_loss(scores), leaf)
    assert torch.isfinite(grad).all() and bool((grad.flatten(1).abs().amax(1) > 0).all())
    assert all(p.grad is None and not p.requires_grad for p in scorer.model.parameters())


def test_the_staged_gradient_of_scores_is_autograds(scorer: QAlignScorer, images: torch.Tensor) -> None:
    leaf = images.clone().requires_grad_(True)
    quality_loss(scorer.score(leaf)).backward()
    with torch.no_grad():
        scores, grad = scorer.score_and_grad(images)
        assert not torch.is_grad_enabled()
    assert not scores.requires_grad and not grad.requires_grad
    staged = -grad / (5 * len(images))
    torch.testing.assert_close(staged, leaf.grad, rtol=1e-4, atol=1e-8)


def test_the_gradient_of_a_score_is_its_slope() -> None:
    scorer = QAlignScorer(tiny_model(torch.float64))
    start = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    way = torch.randn(start.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    _, grad = scorer.score_and_grad(start)
    with torch.no_grad():
        slope = (scorer.score(start + 1e-5 * way) - scorer.score(start - 1e-5 * way)) / 2e-5
    assert (grad * way).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_fp16_gradient_does_not_underflow(images: torch.Tensor) -> None:
    reference = QAlignScorer(tiny_model()).score_and_grad(images)[1]
    leaf = images.clone().requires_grad_(True)
    half = QAlignScorer(tiny_model(torch.float16))
    (half.score(leaf).sum() * 1e-4).backward()  # a small upstream factor, as a weighted batch mean gives
    assert leaf.grad is not None
    relative = (leaf.grad * 1e4 - reference).norm() / reference.norm()
    assert relative < 0.05


# --- the forward pass


def test_qalign_equals_published_implementation() -> None:
    """Compare with logits and gradient recorded from the public code (transformers 4.36, fp32, eager)."""
    pixels = (formula("pixels", (2, 3, 56, 56)) * 5).requires_grad_(True)
    logits = select_levels(tiny_model()(pixels))
    recorded = [
        [2.021522, 1.062307, -0.730965, 0.708272, -0.100127],
        [1.78673, 0.653162, -1.112921, 0.854554, -0.689196],
    ]
    torch.testing.assert_close(logits, torch.tensor(recorded), rtol=0, atol=5e-5)
    (grad,) = torch.autograd.grad((logits * torch.arange(1.0, 6.0)).sum(), pixels)
    assert grad.double().abs().sum().item() == pytest.approx(424.476473, rel=1e-4)
    assert grad.double().sum().item() == pytest.approx(-5.158496, rel=1e-3)
    some = torch.tensor([-0.0225203, -0.0151954, 0.0032677])
    torch.testing.assert_close(grad[1, 2, 30:33, 17], some, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("place", [3, 40, 85])
def test_decoder_is_causal(scorer: QAlignScorer, place: int) -> None:
    x = torch.randn(1, 92, 64, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, place] += 1.0
    difference = (scorer.model.decode(changed) - scorer.model.decode(x)).abs().amax(2)[0]
    assert float(difference[:place].max()) == 0.0
    assert bool((difference[place:] > 0).all())


@pytest.mark.parametrize("projection", ["k_proj", "v_proj"])
@pytest.mark.parametrize("modality", [0, 1])
def test_projections_are_routed_by_modality(projection: str, modality: int) -> None:
    model = tiny_model()
    x = torch.randn(1, 92, 64, generator=torch.Generator().manual_seed(2))
    before = model.decode(x)
    layer = model.model.layers[0].self_attn
    way = getattr(layer, projection)
    inputs: list[torch.Tensor] = []
    way.register_forward_hook(lambda _m, args, out: inputs.extend([args[0], out]))
    model.decode(x)
    way.multiway[modality].weight.mul_(2.0)
    after = model.decode(x)
    old, new = inputs[1], inputs[3]
    visual = torch.zeros(92, dtype=torch.bool)
    visual[FIRST:STOP] = True
    own = visual if modality else ~visual
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(new[:, ~own], old[:, ~own]) and torch.equal(new[:, own], old[:, own] * 2.0)
    # Text in front of the image cannot see visual keys; everything behind it does.
    if modality == 1:
        assert torch.equal(after[:, :FIRST], before[:, :FIRST])
    assert not torch.equal(after[:, -1], before[:, -1])


def test_visual_key_acts_only_through_visual_positions() -> None:
    model = tiny_model()
    x = torch.randn(1, 92, 64, generator=torch.Generator().manual_seed(4))
    model.requires_grad_(True)
    key = model.model.layers[0].self_attn.k_proj
    model.decode(x)[:, FIRST - 1].sum().backward()
    assert float(key.multiway[1].weight.grad.abs().max()) == 0.0
    assert float(key.multiway[0].weight.grad.abs().max()) > 0.0
    norm = model.model.layers[1].post_attention_layernorm
    model.zero_grad()
    model.decode(x)[:, FIRST].sum().backward()
    assert float(norm.multiway[0].weight.grad.abs().max()) == 0.0
    assert float(norm.multiway[1].weight.grad.abs().max()) > 0.0


def test_scores_do_not_depend_on_the_batch(scorer: QAlignScorer, images: torch.Tensor) -> None:
    together = scorer.score(images)
    torch.testing.assert_close(torch.cat([scorer.score(images[1:]), scorer.score(images[:1])]), together.flip(0))


def test_non_square_images_are_refused(scorer: QAlignScorer) -> None:
    with pytest.raises(ValueError, match="square"):
        scorer.score(torch.zeros(1, 3, 64, 32))


# --- published size


def test_qalign_published_size_on_meta(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = QAlignConfig()
    model = build_on_meta(cfg)
    count = sum(p.numel() for p in model.parameters())
    print(f"Q-ALIGN at the published size: {count:,} parameters")
    assert count == cfg.parameters() == 8_197_859_328
    assert all(p.is_meta for p in model.parameters())
    parts = {name: sum(p.numel() for p in m.parameters()) for name, m in model.model.named_children()}
    assert parts["vision_model"] == 303_966_208 and parts["visual_abstractor"] == 81_473_536
    assert parts["layers"] == 32 * 235_945_984
    assert model.model.visual_abstractor.encoder.layers[5].crossattention.attention.k_pos_embed.shape == (
        1025,
        1024,
    )
    assert model.embed(torch.empty(1, 3, 448, 448, device="meta")).shape == (1, 92, 4096)
    assert "8,197,859,328" in capsys.readouterr().out


def test_config_refuses_other_architectures() -> None:
    for change in ({"model_type": "llama"}, {"rope_scaling": {"type": "linear"}}, {"num_key_value_heads": 2}):
        with pytest.raises(UserError, match="unsupported Q-ALIGN config"):
            parse_config({**TINY, **change})
    with pytest.raises(UserError, match="grid_size"):
        abstractor = TINY["visual_config"]["visual_abstractor"] | {"grid_size": 5}
        parse_config(TINY | {"visual_config": TINY["visual_config"] | {"visual_abstractor": abstractor}})


# --- loading


def test_folder_loads_strictly(tmp_path: Path, scorer: QAlignScorer, images: torch.Tensor) -> None:
    state = tiny_state()
    computed = {k: v for k, v in state.items() if not k.endswith("pos_embed")}
    computed["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    folder = write_folder(tmp_path / "good", computed)
    loaded = load_quality(f"q-align:{folder}", "cpu", torch.float32)
    assert loaded is not None
    assert torch.equal(loaded.score(images), scorer.score(images))
    missing = {k: v for k, v in state.items() if k != "model.layers.1.self_attn.k_proj.multiway.1.weight"}
    with pytest.raises(UserError, match="weights missing"):
        load_qalign(write_folder(tmp_path / "missing", missing), device=CPU, dtype=torch.float32)
    for change in ({"model.extra": torch.ones(2)}, {"model.norm.weight": torch.ones(63)}):
        with pytest.raises(UserError, match="do not fit the model"):
            load_qalign(write_folder(tmp_path / "bad", state | change), device=CPU, dtype=torch.float32)


def test_sharded_safetensors_and_missing_shard(tmp_path: Path, scorer: QAlignScorer, images: torch.Tensor) -> None:
    from safetensors.torch import save_file

    folder = write_folder(tmp_path / "m", {})
    (folder / "pytorch_model.bin").unlink()
    items = sorted(tiny_state().items())
    files = {
        "model-00001-of-00002.safetensors": dict(items[::2]),
        "model-00002-of-00002.safetensors": dict(items[1::2]),
    }
    for name, part in files.items():
        save_file({k: v.contiguous().clone() for k, v in part.items()}, folder / name)
    index = {"weight_map": {key: name for name, part in files.items() for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_qalign(folder, device=CPU, dtype=torch.float32)
    assert torch.equal(loaded.score(images), scorer.score(images))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataMissing, match="shards missing"):
        load_qalign(folder, device=CPU, dtype=torch.float32)


def test_truncated_weights_are_reported(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cut", tiny_state())
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot read weights"):
        load_qalign(folder, device=CPU, dtype=torch.float32)


def test_other_vocabulary_is_refused(tmp_path: Path) -> None:
    pieces = llama_pieces()
    pieces[6534] = "▁other"
    folder = write_folder(tmp_path / "vocab", {}, pieces=pieces)
    with pytest.raises(UserError, match="not LLaMA-2"):
        load_qalign(folder, device=CPU, dtype=torch.float32)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(DataMissing, match="no vocabulary"):
        load_qalign(folder, device=CPU, dtype=torch.float32)
    vocab = {piece: i for i, piece in enumerate(llama_pieces())}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    with pytest.raises(UserError, match="weights missing"):  # the vocabulary passes, the empty weights do not
        load_qalign(folder, device=CPU, dtype=torch.float32)


def test_hub_ids_must_be_pinned(tmp_path: Path) -> None:
    assert load_quality("none", "cpu", torch.float32) is None
    for spec in ("q-align:q-future/one-align", "q-align:q-future/one-align@main"):
        with pytest.raises(UserError, match="not pinned"):
            load_quality(spec, "cpu", torch.float32)
    with pytest.raises(DataMissing):
        load_quality(f"q-align:{tmp_path}/absent", "cpu", torch.float32)
    for spec in ("musiq:x", "q-align", "none:x"):
        with pytest.raises(UserError):
            load_quality(spec, "cpu", torch.float32)
    odd = tmp_path / "a@b"
    odd.mkdir()
    assert parse_quality(f"q-align:{odd}").source == str(odd)
    parsed = parse_quality({"kind": "q-align", "source": "q-future/one-align", "revision": "0" * 40})
    assert parsed == parse_quality(f"q-align:q-future/one-align@{'0' * 40}")


# --- five-level prompts on open_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_open_clip_levels(clip_folder: Path, images: torch.Tensor) -> None:
    import open_clip

    from generators.lbgen.preprocess import preprocess

    assert LEVEL_PROMPTS == ("excellent photo", "good photo", "fair photo", "poor photo", "bad photo")
    spec = f"local-dir:{clip_folder}"
    scorer = load_quality(f"open-clip:{spec}", "cpu", torch.float32)
    assert scorer is not None
    model, tokenizer = open_clip.create_model(spec), open_clip.get_tokenizer(spec)
    with torch.no_grad():
        seen = model.encode_image(preprocess(images, 32), normalize=True)
        said = model.encode_text(tokenizer(list(LEVEL_PROMPTS)), normalize=True)
        expected = expected_level(model.logit_scale.exp() * seen @ said.T)
    scores, grad = scorer.score_and_grad(images)
    torch.testing.assert_close(scores, expected)
    leaf = images.clone().requires_grad_(True)
    scorer.score(leaf).sum().backward()
    torch.testing.assert_close(grad, leaf.grad)
    assert torch.isfinite(grad).all() and float(grad.abs().max()) > 0


def test_open_clip_sources_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataMissing):
        load_quality(f"open-clip:local-dir:{tmp_path}", "cpu", torch.float32)
    with pytest.raises(UserError, match="no weights"):
        load_quality("open-clip:ViT-B-32", "cpu", torch.float32)
