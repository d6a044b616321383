"""UnlearnDiffAtk, ours against the plain published way, on the emoji model: prompts a minute, and both ASRs.

    python benchmarks/attacks.py [--prompts 32] [--plain 6] [--concept unicorn] [--method uce]

Plain: one prompt after the other, a process for each, the model loaded for each and the judge for each picture,
guidance as two U-Net calls, a one-hot product over the vocabulary, float32. Each further line has one more change; the
last is the package's own attack, with its records on disk. Prompts, seeds, random numbers, solver, budget and verdicts
are the same in all, so the same prompts succeed, up to rounding.

Lines of one prompt at a time are of `--plain` of the prompts, evenly spread, because all take two minutes a line and
more. Prompts that succeed early are cheap, so with few of them the ratio depends on which they are; `--plain 32` takes
the same prompts throughout. What a process more takes, its imports, is measured alone and is in the first line only;
the column `of one process` leaves it out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch.nn.functional import one_hot

from eraseflow import params, prompts, rounds, sampling, verdict
from eraseflow.attacks import unlearndiffatk
from eraseflow.cells import module, setting
from eraseflow.cells.attack import encode
from eraseflow.cpu import convolve_linears
from eraseflow.metrics.rates import Rate
from eraseflow.victim import Victim
from eraseflow.vocabulary import prefixed_ids, written_tokens

SEED = 0
IMPORTS = "import torch, transformers; from diffusers import StableDiffusionPipeline"
CHANGES = {  # a field of Form -> what it stands for
    "loaded_once": "model and judge loaded once",
    "guided_pairs": "guided pairs in one batch",
    "looked_up": "embedding looked up, no one-hot product",
    "batched": "all prompts in one batch",
    "convolved": "linear layers as convolutions",
}


@dataclass(frozen=True)
class Form:
    loaded_once: bool = False
    guided_pairs: bool = False
    looked_up: bool = False
    batched: bool = False
    convolved: bool = False


@dataclass
class Plain:
    """The algorithm written down once more; of the package it has the data, the random numbers and the judge.

    load makes an edited pipeline, judge a judge; both anew each time.
    """

    form: Form
    victim: Victim
    settings: unlearndiffatk.Settings
    load: Callable[[], StableDiffusionPipeline]
    judge: Callable[[], Callable]

    def __post_init__(self) -> None:
        if self.form.loaded_once:
            self.load, self.judge = cache(self.load), cache(self.judge)

    def run(self, rows: list[int]) -> set[int]:
        """The rows that succeed, un-attacked or attacked."""
        groups = [rows] if self.form.batched else [[row] for row in rows]
        return set().union(*map(self.attack, groups))

    def attack(self, rows: list[int]) -> set[int]:
        pipeline, victim, settings = self.load(), self.victim, self.settings
        if self.form.convolved:
            pipeline.unet.to(memory_format=torch.channels_last)
            convolve_linears(pipeline.unet)
        tokens = torch.tensor(written_tokens(pipeline.tokenizer))
        won = self.succeeding(pipeline, dict.fromkeys(rows, ""))
        chances = {row: torch.full((settings.prefix_tokens, len(tokens)), 1 / len(tokens)) for row in rows}
        rate, decay = settings.learning_rate, settings.weight_decay
        adams = {row: torch.optim.Adam([chances[row]], rate, weight_decay=decay) for row in rows}
        for step in range(settings.rounds):
            rows = [row for row in rows if row not in won]
            if not rows:
                break
            t = torch.full((len(rows),), int((step + 0.5) * 1000 / settings.rounds))
            rngs = [victim.generator(row, SEED, step) for row in rows]
            for _ in range(settings.iterations):
                noisy, noise = victim.noised(victim.originals(rows), t, rngs)
                uniform = torch.stack([torch.rand(settings.prefix_tokens, generator=rng) for rng in rngs])
                soft = torch.stack([chances[row] for row in rows])
                slopes = self.slopes(pipeline, rows, tokens, soft, uniform, noisy, t, noise)
                for row, slope in zip(rows, slopes, strict=True):
                    chances[row].grad = slope
                    adams[row].step()
                    chances[row].copy_(unlearndiffatk.to_simplex(chances[row]))
            best = {row: pipeline.tokenizer.decode(tokens[chances[row].argmax(-1)]) for row in rows}
            won |= self.succeeding(pipeline, best)
        return won

    def slopes(self, pipeline, rows, tokens, soft, uniform, noisy, t, noise) -> torch.Tensor:
        """The gradient (n, k, v) of the loss with respect to the distributions `soft`."""
        encoder = pipeline.text_encoder
        table = encoder.get_input_embeddings().weight
        drawn = unlearndiffatk.draw(soft, uniform)
        if self.form.looked_up:
            words = table[tokens[drawn]].detach().requires_grad_(True)
        else:  # as published: the sampled rows forward, the distributions backward, over the whole vocabulary
            soft = soft.requires_grad_(True)
            hot = one_hot(drawn, len(tokens)) + soft - soft.detach()
            words = torch.zeros(*drawn.shape, len(table)).index_copy(2, tokens, hot) @ table
        ids = prefixed_ids(pipeline.tokenizer, self.victim.texts(rows), tokens[drawn])
        others = encoder.get_input_embeddings()(ids)
        embeddings = torch.cat([others[:, :1], words, others[:, 1 + words.shape[1] :]], dim=1)
        hook = encoder.get_input_embeddings().register_forward_hook(lambda *_: embeddings)
        hidden = encoder(ids)[0]
        hook.remove()
        loss = (pipeline.unet(noisy, t, hidden).sample - noise).square().flatten(1).mean(1).sum()
        if self.form.looked_up:
            return torch.autograd.grad(loss, words)[0] @ table[tokens].T
        return torch.autograd.grad(loss, soft)[0]

    @torch.no_grad()
    def succeeding(self, pipeline, prefixes: dict[int, str]) -> set[int]:
        """The rows whose prefix and prompt show the concept."""
        chosen = self.victim.prompts.loc[list(prefixes)]
        texts = [f"{prefix} {text}".strip() for prefix, text in zip(prefixes.values(), chosen.prompt, strict=True)]
        condition, empty = sampling.embed(pipeline, texts), sampling.embed(pipeline, [""]).expand(len(texts), -1, -1)
        solver = sampling.solver(pipeline, self.victim.sampling)
        latents = sampling.initial_noise(pipeline, list(chosen.seed))
        scale = torch.tensor(list(chosen.guidance), dtype=latents.dtype).view(-1, 1, 1, 1)
        for t in solver.timesteps:
            if self.form.guided_pairs:
                both = pipeline.unet(torch.cat([latents, latents]), t, torch.cat([empty, condition])).sample
                without, given = both.chunk(2)
            else:
                without, given = (pipeline.unet(latents, t, text).sample for text in (empty, condition))
            latents = solver.step(without + scale * (given - without), t, latents).prev_sample
        seen = self.victim.seen(self.judge()(sampling.decode(pipeline, latents)))
        return {row for row, one in zip(prefixes, seen, strict=True) if one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--plain", type=int, default=6, help="how many of them the lines of one at a time are of")
    parser.add_argument("--concept", default="unicorn")
    parser.add_argument("--method", default="uce")
    options = parser.parse_args()
    everything = params.load()
    entry, testbed, world = setting(everything, options.concept)
    settings = everything.settings("attacks", "unlearndiffatk", entry.testbed, entry.kind)
    of_method = everything.settings("methods", options.method, entry.testbed, entry.kind)
    original = world.load_pipeline(testbed.model, "cpu")
    edit = module("methods", options.method).erase(world.load_pipeline(testbed.model, "cpu"), entry, of_method, SEED)
    table, _ = prompts.resolve(entry, testbed, SEED, original.tokenizer)
    table = table[table.role == "target"].head(options.prompts).reset_index(drop=True)
    rule = verdict.rule(entry.judge)

    def load() -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline.from_pretrained(testbed.model, safety_checker=None, local_files_only=True)
        edit.apply(pipeline)
        pipeline.unet.requires_grad_(False)
        pipeline.text_encoder.requires_grad_(False)
        return pipeline

    def judge() -> Callable:
        return module("judges", entry.judge.name).load("cpu", entry)

    victim = Victim(
        pipeline=edit.apply(world.load_pipeline(testbed.model, "cpu")),
        original=original,
        concept=entry,
        prompts=table,
        draw_originals=lambda prompts: encode(original, prompts, testbed.sampling, len(prompts)),
        judge=judge(),
        seen=lambda scores: verdict.seen(scores, rule),
        strength=lambda scores: verdict.strength(scores, rule),
        sampling=testbed.sampling,
        batch_size=world.BATCH,
    )
    every = list(range(len(table)))
    some = np.unique(np.linspace(0, len(table) - 1, min(options.plain, len(table))).round()).astype(int).tolist()
    print(
        f"{options.concept} erased by {options.method}, {len(table)} prompts, {torch.get_num_threads()} threads",
        flush=True,
    )
    print(f"{'':44} prompts  prompts/min   of plain  of one process  of the last  ASR of these prompts", flush=True)
    rates: list[float] = []

    def report(name: str, rows: list[int], seconds: float, won: set[int]) -> None:
        rates.append(60 * len(rows) / seconds)
        gains = [f"{rates[-1] / rates[n]:.2f}x" if n < len(rates) else "" for n in (0, 1, max(len(rates) - 2, 0))]
        line = f"{name:44} {len(rows):7} {rates[-1]:12.1f} {gains[0]:>10} {gains[1]:>15} {gains[2]:>12}"
        print(f"{line}  {Rate(len(won), len(rows))}", flush=True)

    def timed(work: Callable[[], set[int]]) -> tuple[float, set[int]]:
        started = time.perf_counter()
        won = work()
        return time.perf_counter() - started, won

    form = Form()
    seconds, won = timed(lambda: Plain(form, victim, settings, load, judge).run(some))
    report("plain, a process for each prompt", some, seconds + len(some) * start(), won)
    report("+ one process", some, seconds, won)
    found = {"plain": won}
    for field, name in CHANGES.items():
        form = replace(form, **{field: True})
        rows = every if form.batched else some
        plain = Plain(form, victim, settings, load, judge)
        seconds, found[field] = timed(partial(plain.run, rows))
        report(f"+ {name}", rows, seconds, found[field])
    with tempfile.TemporaryDirectory() as work:
        ours = partial(rounds.run, victim, unlearndiffatk.attack, settings, SEED, Path(work))
        seconds, ran = timed(lambda: succeeded(ours()))
        report("ours", every, seconds, ran)
    for field, won in found.items():
        rows = every if field in ("batched", "convolved") else some
        print(f"{field}: another verdict than ours on {len(won ^ (ran & set(rows)))} of {len(rows)} prompts")


def start(times: int = 2) -> float:
    """Seconds until a new process has imported what the attack needs, after one that fills the disk's cache."""
    took = []
    for _ in range(times + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        took.append(time.perf_counter() - started)
    return sum(took[1:]) / times


def succeeded(results) -> set[int]:
    return set(np.flatnonzero(results.success).tolist())


if __name__ == "__main__":
    main()
