"""The lbGen fine-tune: discriminator warm-up, then one generator and one discriminator update per step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from generators.diffusion.lora_files import pairs
from generators.diffusion.lora_io import FILE_NAME, add_lora, refresh_fused, restore_lora, save_lora, sharing_copy
from generators.diffusion.pipeline import DiffusionParts, encode_prompts
from generators.diffusion.sampling import decode_latents, guided_noise
from generators.lbgen.adjoint import image_pullback, staged_adjoint
from generators.lbgen.discriminator import Discriminator
from generators.lbgen.distributed import Communicator, SingleProcess
from generators.lbgen.encoders import RewardModels
from generators.lbgen.precision import autocast, loss_scaler
from generators.lbgen.released import NO_CLIP, first_names, noise_track, process_batch
from generators.lbgen.rewards import Batch, Rewards
from generators.lbgen.sampler import (
    NoisePredictor,
    SampleNoise,
    Trajectory,
    ancestral_steps,
    draw_start,
    sample_trajectory,
    trained_steps,
)
from generators.lbgen.schedule import PlannedStep, negative_class, plan_steps
from generators.lbgen.settings import RecipeSettings
from generators.lbgen.update import apply_gradients
from harness.api import content_key, derive_seed, load_state, remove_tree, save_state

LOG = "training-log.jsonl"
CHECKPOINT = "checkpoint.pt"
ProgressCallback = Callable[[int, int, str], None]
"""(finished steps, all steps, what is going on)."""


@dataclass(frozen=True)
class TrainResult:
    """What a fine-tune leaves behind."""

    lora: Path
    discriminator: Path
    log: Path
    generator_steps: int


def train(
    parts: DiffusionParts,
    settings: RecipeSettings,
    models: RewardModels,
    names: Sequence[str],
    *,
    out_dir: Path,
    checkpoint_dir: Path,
    seed: int,
    progress: ProgressCallback | None = None,
    comm: Communicator | None = None,
) -> TrainResult:
    """Fine-tune a LoRA on the class names (lbGen, CVPR 2025, algorithm 1) and write it to ``out_dir``.

    The result depends on the pipeline, the settings, the models, the names and the seed; interrupting and calling
    again does not change it. The number of processes changes it by rounding only.

    Args:
        parts: The pipeline; it is not changed.
        settings: The recipe.
        models: Reward models; those with a zero weight may be None.
        names: Class names in class order; prompts are these bare names.
        out_dir: Receives the LoRA, the discriminator, the settings and the log.
        checkpoint_dir: Holds the newest checkpoint while the run is unfinished.
        seed: Decides order, noise, trained steps, negatives and initial weights.
        progress: Called after every step.
        comm: The process group; by default one process.

    Raises:
        TrainingFailed: a loss or gradient is not finite; the last checkpoint stays.
    """
    trainer = Trainer(parts, settings, models, names, seed=seed, comm=comm or SingleProcess())
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    log = checkpoint_dir / LOG
    done = trainer.resume(checkpoint_dir)
    _cut_log(log, done, trainer.comm.rank)
    for position in range(done, len(trainer.plan)):
        record = trainer.run_step(position)
        finished = position + 1
        if trainer.comm.rank == 0:
            with log.open("a") as stream:
                stream.write(json.dumps(record, sort_keys=True) + "\n")
            if finished % settings.checkpoint_every == 0 or finished == len(trainer.plan):
                save_state(checkpoint_dir / CHECKPOINT, trainer.config, finished, trainer.state())
        if progress is not None:
            progress(finished, len(trainer.plan), f"{record['phase']} epoch {record['epoch'] + 1}")
    return trainer.finish(out_dir, checkpoint_dir)


def _cut_log(log: Path, position: int, rank: int) -> None:
    """Drop the lines of steps that will be done again."""
    if rank == 0:
        lines = log.read_text().splitlines(keepends=True)[:position] if log.is_file() else []
        log.write_text("".join(lines))


class Trainer:
    """The state of a fine-tune and its two kinds of step."""

    def __init__(
        self,
        parts: DiffusionParts,
        settings: RecipeSettings,
        models: RewardModels,
        names: Sequence[str],
        *,
        seed: int,
        comm: Communicator,
    ) -> None:
        self.parts, self.settings, self.names = parts, settings, tuple(names)
        self.seed, self.comm = seed, comm
        self.released = settings.variant == "released"
        self.discriminator_clip = NO_CLIP if self.released else settings.discriminator_clip
        self.plan = plan_steps(settings, len(names), seed)
        self.steps = ancestral_steps(settings.steps, parts.scheduler_config)
        self.rewards = Rewards(settings, models, self.names, parts.device)
        self.prompts = encode_prompts(parts, self.names)
        self.uncond = encode_prompts(parts, [""])[0]
        self.unet = sharing_copy(parts.unet)
        self.lora = add_lora(self.unet, settings.rank, derive_seed("lbgen-lora", seed))
        # For the calls without gradient: same weights, LoRA merged. In half precision the sum would round small updates away.
        adapted = [path for path, _, _ in pairs(self.lora)]
        self.fused = sharing_copy(parts.unet, adapted) if parts.dtype == torch.float32 else self.unet
        # Lists, not generators: a generator handed to the optimizer leaves nothing for the clip.
        self.lora_list: list[nn.Parameter] = list(self.lora.values())
        self.optimizer = torch.optim.AdamW(
            self.lora_list,
            settings.generator_lr,
            settings.generator_betas,
            weight_decay=settings.weight_decay,
        )
        self.scaler = loss_scaler(parts)
        self.discriminator: Discriminator | None = None
        if settings.weight_en > 0:
            self._make_discriminator()

    def _make_discriminator(self) -> None:
        settings = self.settings
        self.discriminator = Discriminator(
            self.rewards.dim,
            settings.discriminator_width,
            settings.discriminator_activation,
            derive_seed("lbgen-discriminator", self.seed),
        ).to(self.parts.device)
        self.discriminator.requires_grad_(False)
        self.discriminator_list = list(self.discriminator.parameters())
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator_list,
            settings.discriminator_lr,
            settings.discriminator_betas,
            weight_decay=settings.weight_decay,
        )

    def run_step(self, position: int) -> dict[str, Any]:
        """Do one planned step and return its log record, the same in every process."""
        planned = self.plan[position]
        record: dict[str, Any] = {"step": position, "phase": planned.phase, "epoch": planned.epoch}
        if planned.phase == "warmup":
            batches = [batch for batch, _ in self._samples(position, planned, ())]
            with torch.no_grad():
                for batch in batches:
                    self.rewards.encode(batch)
        else:
            batches = self.generator_step(position, planned, record)
        if self.discriminator is not None:
            self.discriminator_step(batches, record)
        record["image_std"] = self._diversity(batches)
        return record

    def generator_step(self, position: int, planned: PlannedStep, record: dict[str, Any]) -> list[Batch]:
        """Update the LoRA once and return the micro-batches with their detached features."""
        start = draw_start(self.seed, position, self.settings.steps, self.settings.trained_steps)
        trained = trained_steps(self.settings.steps, self.settings.trained_steps, start)
        gradients = [torch.zeros_like(each) for each in self.lora_list]
        terms: dict[str, float] = dict.fromkeys(self.rewards.terms, 0.0)
        batches = []
        for batch, trajectory in self._samples(position, planned, trained):
            values, image_gradient = self.rewards.score(batch, self.discriminator, self.scaler.scale)
            found = staged_adjoint(
                self._predictor(self.unet, batch.classes),
                self.steps,
                trajectory.kept,
                image_pullback(self.parts, trajectory.final, image_gradient),
                self.lora_list,
                latent_jacobian=self.settings.latent_jacobian,
            )
            gradients = [old + new for old, new in zip(gradients, found, strict=True)]
            terms = {name: terms[name] + values[name] for name in terms}
            batches.append(batch)
        self._average(gradients, terms, len(planned.classes) // self.settings.micro_batch)
        record |= {"start": start, **terms, "total": self.rewards.total(terms)}
        clip = self.settings.generator_clip
        norm = apply_gradients(self.optimizer, self.lora_list, gradients, clip, record, self.scaler)
        record["generator_gradient_norm"] = norm
        self._refresh()
        return batches

    def _refresh(self) -> None:
        """Bring the UNet of the calls without gradient up to date."""
        if self.fused is not self.unet:
            refresh_fused(self.fused, self.unet)

    def discriminator_step(self, batches: Sequence[Batch], record: dict[str, Any]) -> None:
        """Update the discriminator once on detached features of images made by the generator before its update."""
        assert self.discriminator is not None
        gradients = [torch.zeros_like(each) for each in self.discriminator_list]
        terms: dict[str, float] = dict.fromkeys(self.rewards.DISCRIMINATOR_TERMS, 0.0)
        for batch in batches:
            self.discriminator.requires_grad_(True)
            loss, values = self.rewards.discriminator_terms(batch, self.discriminator)
            found = torch.autograd.grad(loss, self.discriminator_list)
            self.discriminator.requires_grad_(False)
            gradients = [old + new for old, new in zip(gradients, found, strict=True)]
            terms = {name: terms[name] + values[name] for name in terms}
        planned = self.plan[record["step"]]
        self._average(gradients, terms, len(planned.classes) // self.settings.micro_batch)
        record |= terms
        record["discriminator_gradient_norm"] = apply_gradients(
            self.discriminator_optimizer,
            self.discriminator_list,
            gradients,
            self.discriminator_clip,
            record,
        )

    def _samples(self, position: int, planned: PlannedStep, keep: Sequence[int]) -> Iterator[tuple[Batch, Trajectory]]:
        """Sample this process's micro-batches without a graph."""
        size = self.settings.micro_batch
        count = len(planned.classes) // size
        for index in range(self.comm.rank, count, self.comm.world_size):
            ids = range(index * size, (index + 1) * size)
            classes = [planned.classes[each] for each in ids]
            noise = SampleNoise(self.seed, position, self._tracks(planned, ids), self.parts.latent_shape)
            trajectory = sample_trajectory(
                self._predictor(self.fused, classes),
                self.steps,
                noise.draw().to(self.parts.device),
                noise.draw,
                keep,
            )
            with torch.no_grad():
                images = decode_latents(self.parts, trajectory.final)
            negatives = self._negatives(position, planned, ids) if self.discriminator is not None else []
            yield Batch(classes, negatives, images), trajectory

    def _tracks(self, planned: PlannedStep, ids: Sequence[int]) -> list[int]:
        """Return which noise each sample gets: its own, in the released variant that of its place in a process."""
        if not self.released:
            return list(ids)
        return [noise_track(each, process_batch(self.settings, planned.phase)) for each in ids]

    def _negatives(self, position: int, planned: PlannedStep, ids: Sequence[int]) -> list[int]:
        """Return the class whose name stands for "real" beside each sample."""
        if self.released:
            batch = process_batch(self.settings, planned.phase)
            return [first_names(each, batch, len(self.names)) for each in ids]
        return [negative_class(self.names, planned.classes[each], self.seed, position, each) for each in ids]

    def _predictor(self, unet: Any, classes: Sequence[int]) -> NoisePredictor:
        cond = self.prompts[list(classes)]

        def predict(latents: Tensor, timestep: int) -> Tensor:
            with autocast(self.parts):
                return guided_noise(unet, latents, timestep, cond, self.uncond, self.settings.guidance)

        return predict

    def _average(self, gradients: list[Tensor], terms: dict[str, float], count: int) -> None:
        """Replace sums over this process's micro-batches by means over all ``count`` of the step, in place."""
        scalars = torch.tensor(list(terms.values()), dtype=torch.float64, device=self.parts.device)
        self.comm.sum_([*gradients, scalars])
        for gradient in gradients:
            gradient /= count
        terms.update(zip(terms, (scalars / count).tolist(), strict=True))

    def _diversity(self, batches: Sequence[Batch]) -> float:
        """Return the standard deviation over all images of the step, averaged over pixels."""
        shape = (3, self.parts.image_size, self.parts.image_size)
        sums = torch.zeros((2, *shape), dtype=torch.float64, device=self.parts.device)
        count = torch.zeros(1, dtype=torch.float64, device=self.parts.device)
        for batch in batches:
            images = batch.images.double()
            sums += torch.stack([images.sum(0), images.square().sum(0)])
            count += len(images)
        self.comm.sum_([sums, count])
        mean, square = sums / count
        return float((square - mean.square()).clamp(min=0).sqrt().mean())

    @property
    def config(self) -> str:
        """Return the hash of what decides the result, the models and base weights excepted."""
        return content_key([self.settings.model_dump(mode="json"), list(self.names), self.seed, str(self.parts.dtype)])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        content: dict[str, Any] = {
            "lora": {name: each.detach() for name, each in self.lora.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.discriminator is not None:
            content["discriminator"] = self.discriminator.state_dict()
            content["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return content

    def resume(self, folder: Path) -> int:
        """Take over the checkpoint, if there is one, and return the number of finished steps."""
        position, found = load_state(folder / CHECKPOINT, self.config)
        if found:
            restore_lora(self.lora, found["lora"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.scaler.load_state_dict(found["scaler"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(found["discriminator"])
                self.discriminator_optimizer.load_state_dict(found["discriminator_optimizer"])
            self._refresh()
        return position

    def finish(self, out_dir: Path, checkpoint_dir: Path) -> TrainResult:
        """Write the results; then the checkpoint is no longer needed."""
        result = TrainResult(
            out_dir / FILE_NAME,
            out_dir / "discriminator.safetensors",
            out_dir / LOG,
            sum(each.phase == "train" for each in self.plan),
        )
        if self.comm.rank == 0:
            out_dir.mkdir(parents=True, exist_ok=True)
            save_lora(result.lora, self.lora)
            if self.discriminator is not None:
                state = {name: each.cpu() for name, each in self.discriminator.state_dict().items()}
                save_file(state, result.discriminator)
            (out_dir / "settings.json").write_text(self.settings.model_dump_json(indent=1) + "\n")
            shutil.copyfile(checkpoint_dir / LOG, result.log)
            remove_tree(checkpoint_dir)
        return result
