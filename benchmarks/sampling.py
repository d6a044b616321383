"""Mass sampling, ours against diffusers' own pipeline call, on the emoji model: pictures a second.

    python benchmarks/sampling.py [--count 96]

Same prompts, seeds, solver (DPM-Solver++ 2M), steps and guidance. The pipeline is called as a benchmark
usually does, with a batch of prompts and a generator each; and one prompt at a time, as many scripts do.
"""

import argparse
import time

import pandas as pd
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from eraseflow import params, sampling
from eraseflow.testbeds import emoji


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=96)
    count = parser.parse_args().count
    testbed = params.load().testbeds["emoji"]
    steps, scale = testbed.sampling.steps, testbed.sampling.guidance_scale
    prompts, seeds = list(pd.read_csv(testbed.kept).prompt[:count]), list(range(count))
    pipeline = emoji.load_pipeline(testbed.model, "cpu")
    plain = StableDiffusionPipeline.from_pretrained(testbed.model, safety_checker=None)
    plain.scheduler = DPMSolverMultistepScheduler.from_config(plain.scheduler.config, timestep_spacing="linspace")
    plain.set_progress_bar_config(disable=True)

    def ours() -> torch.Tensor:
        return torch.cat(
            list(sampling.sample(pipeline, prompts, seeds, [scale] * count, testbed.sampling, emoji.BATCH, quiet=True))
        )

    def diffusers(batch: int) -> torch.Tensor:
        parts = []
        for start in range(0, count, batch):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
            parts.append(
                plain(
                    prompts[start : start + batch], num_inference_steps=steps, guidance_scale=scale,
                    generator=generators, output_type="pt", height=32, width=32,
                ).images
            )  # fmt: skip
        return (torch.cat(parts) * 255).round().to(torch.uint8)

    forms = {
        "ours": ours,
        f"diffusers, batches of {emoji.BATCH}": lambda: diffusers(emoji.BATCH),
        "diffusers, one by one": lambda: diffusers(1),
    }
    rates, pictures = {}, {}
    for name, form in forms.items():
        form()
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            pictures[name] = form()
            best = min(best, time.perf_counter() - started)
        rates[name] = count / best
        difference = (pictures[name].int() - pictures["ours"].int()).abs().float().mean()
        print(f"{name:26} {rates[name]:6.1f}/s, ours {rates['ours'] / rates[name]:.2f}x, apart {difference:.3f}/255")


if __name__ == "__main__":
    main()
