"""Compare the staged adjoint with end-to-end autograd: equality, peak memory, time.

    python benchmarks/adjoint.py                                  reduced shapes, random weights, CPU
    python benchmarks/adjoint.py --real --device cuda --dtype bfloat16    Stable Diffusion 1.5's shapes, random weights

Each method runs in a process of its own, so that one's peak memory does not hide the other's. On the CPU the peak is
the growth of the resident set, on a GPU the allocator's peak above the weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators.diffusion.lora_io import add_lora
from generators.diffusion.sampling import guided_noise
from generators.diffusion.scheduler import SD15_SCHEDULER
from generators.lbgen.adjoint import autograd_trajectory, staged_adjoint
from generators.lbgen.sampler import ancestral_steps, sample_trajectory, trained_steps

REDUCED: dict[str, Any] = {
    "sample_size": 32,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": 2,
    "norm_num_groups": 16,
}
REAL: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}


def main() -> None:
    """Parse the command line, run both methods, print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="Stable Diffusion 1.5's UNet, LoRA rank 128, 50 steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16", "float64"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--stop-gradient", action="store_true", help="the variant without the latent Jacobian")
    parser.add_argument("--method", choices=["staged", "autograd"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        measure(options)
    else:
        print(json.dumps(compare(sys.argv[1:]), indent=1))


def compare(arguments: list[str]) -> dict[str, Any]:
    """Return both methods' costs, their ratios and the largest relative difference of the gradients."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in ("staged", "autograd"):
            out = Path(folder) / f"{method}.pt"
            command = [sys.executable, __file__, *arguments, "--method", method, "--out", str(out)]
            subprocess.run(command, check=True)
            found[method] = torch.load(out, weights_only=True)
    staged, whole = found["staged"].pop("gradients"), found["autograd"].pop("gradients")
    difference = max(float((a - b).norm() / b.norm()) for a, b in zip(staged, whole, strict=True) if b.norm() > 0)
    return {
        **found,
        "memory_ratio": found["staged"]["peak_bytes"] / found["autograd"]["peak_bytes"],
        "time_ratio": found["staged"]["seconds"] / found["autograd"]["seconds"],
        "largest_relative_difference": difference,
        "torch": torch.__version__,
    }


def measure(options: argparse.Namespace) -> None:
    """Run one method and store its gradients and costs."""
    dtype, device = getattr(torch, options.dtype), torch.device(options.device)
    unet, lora = build(options.real, dtype, device)
    count, width = (50, 768) if options.real else (20, 64)
    steps = ancestral_steps(count, SD15_SCHEDULER)
    trained = trained_steps(count, 5, 0)
    precise = dtype if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(1)
    size = unet.config.sample_size
    latents = torch.randn(options.batch, 4, size, size, generator=generator).to(device, precise)
    text = torch.randn(options.batch + 1, 77, width, generator=generator).to(device, dtype)
    gradient = torch.randn(latents.shape, generator=generator).to(device, precise)

    def predict(inputs: Tensor, timestep: int) -> Tensor:
        return guided_noise(unet, inputs, timestep, text[1:], text[0], 2.0)

    def run() -> tuple[Tensor, ...]:
        jacobian = not options.stop_gradient
        if options.method == "staged":
            kept = sample_trajectory(predict, steps, latents, keep=trained).kept
            return staged_adjoint(predict, steps, kept, gradient, lora, latent_jacobian=jacobian)
        final = autograd_trajectory(predict, steps, latents, trained, latent_jacobian=jacobian)
        return torch.autograd.grad(final, lora, gradient)

    with torch.no_grad():
        predict(latents, 1)  # warm up kernels and allocator, so that the growth below is the method's
    gradients, seconds, peak = timed(run, device)
    torch.save({"gradients": [each.cpu() for each in gradients], "seconds": seconds, "peak_bytes": peak}, options.out)


def build(real: bool, dtype: torch.dtype, device: torch.device) -> tuple[Any, list[Tensor]]:
    """Return a random UNet and the parameters of a LoRA that is not at its start."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**(REAL if real else REDUCED)).to(device, dtype).eval().requires_grad_(False)
    lora = list(add_lora(unet, 128 if real else 8, seed=0).values())
    generator = torch.Generator().manual_seed(2)
    for each in lora:
        each.data = (torch.randn(each.shape, generator=generator) * 0.02).to(
            device, torch.promote_types(dtype, torch.float32)
        )
    return unet, lora


def timed(run: Callable[[], tuple[Tensor, ...]], device: torch.device) -> tuple[tuple[Tensor, ...], float, int]:
    """Return the result, the seconds and the peak bytes above what was there before."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    result = run()
    if cuda:
        torch.cuda.synchronize()
        return result, time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    return (
        result,
        time.perf_counter() - start,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    )


if __name__ == "__main__":
    main()
