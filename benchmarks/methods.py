"""The rivals' trainings, ours against the plain form of the same algorithm, and what SLD and SAFREE add to a picture.

    python benchmarks/methods.py [--steps 20]

On the emoji model, concept unicorn, settings of params.yaml. Plain: a U-Net call for each prompt, so that a guided
prediction is two calls and a retained prompt one more, and linear layers as torch has them. Ours: prompts that meet the
same weights share a pass, and linear layers run as convolutions. Same seeds, so that losses agree up to rounding (but
RACE's, whose perturbation goes by the gradient's sign); a step's time is the median, set-up (pictures, saliency) is not
counted. EraseFlow has eraseflow_step.py; the closed forms (UCE, RECE) have no such form, so their seconds stand alone.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from eraseflow import params, sampling
from eraseflow.cells import module
from eraseflow.testbeds import emoji

CONCEPT, ROUNDS, PICTURES, PAIRS = "unicorn", 3, 96, 8
TRAINED = ["esd", "esd_u", "race", "advunlearn", "ca", "spm", "duo", "salun"]
CLOSED_FORM, SAMPLERS = ["uce", "rece"], ["sld", "safree"]


@contextlib.contextmanager
def a_call_a_prompt(size: int) -> Iterator[None]:
    """Every U-Net of diffusers takes at most `size` samples at once: those of one prompt."""
    together = UNet2DConditionModel.forward

    def forward(self, sample, timestep, encoder_hidden_states, **other):
        t = torch.as_tensor(timestep).expand(len(sample))
        parts = zip(*(tensor.split(size) for tensor in (sample, t, encoder_hidden_states)), strict=True)
        return UNet2DConditionOutput(torch.cat([together(self, *part, **other).sample for part in parts]))

    UNet2DConditionModel.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        UNet2DConditionModel.forward = together  # type: ignore[method-assign]


def train(everything: params.Params, method: str, steps: int, plain: bool) -> pd.DataFrame:
    """The history of a training of so many steps."""
    concept, model = everything.concepts[CONCEPT], everything.testbeds["emoji"].model
    settings = everything.settings("methods", method, "emoji", concept.kind)
    fewer = {"iterations": steps, "esd_iterations": steps, "warmup": 1, "pictures": PAIRS, "pairs": PAIRS}
    settings = settings.model_copy(update={key: value for key, value in fewer.items() if hasattr(settings, key)})
    if plain:
        pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
        form: contextlib.AbstractContextManager = a_call_a_prompt(settings.batch_size)
    else:
        pipeline, form = emoji.load_pipeline(model, "cpu"), contextlib.nullcontext()
    with form:
        erase = module("methods", everything.module(method)).erase
        return pd.DataFrame(erase(pipeline, concept, settings, 0).history)


def trainings(everything: params.Params, steps: int) -> None:
    for method in TRAINED:
        times: dict[bool, list[float]] = {False: [], True: []}
        losses = {}
        for _ in range(ROUNDS):
            for plain, of_form in times.items():
                history = train(everything, method, steps, plain)
                of_form += history.seconds.diff().dropna().tolist()
                losses[plain] = history.loss
        ours, theirs = (1000 * statistics.median(times[plain]) for plain in (False, True))
        apart = ((losses[True] - losses[False]).abs() / losses[True].abs()).median()
        print(f"{method:12} {ours:6.0f} ms a step, plain {theirs:6.0f}: {theirs / ours:.2f}x, losses {apart:.0e} apart")


def samplers(everything: params.Params) -> None:
    """Pictures a second, in turn, without and with what works while a picture is drawn."""
    concept, testbed = everything.concepts[CONCEPT], everything.testbeds["emoji"]
    prompts = list(pd.read_csv(testbed.kept).prompt[:PICTURES])
    pipelines = {"none": emoji.load_pipeline(testbed.model, "cpu")}
    for method in SAMPLERS:
        pipeline = emoji.load_pipeline(testbed.model, "cpu")
        settings = everything.settings("methods", method, "emoji", concept.kind)
        edit = module("methods", everything.module(method)).erase(pipeline, concept, settings, 0)
        pipelines[method] = edit.apply(emoji.load_pipeline(testbed.model, "cpu"))
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(ROUNDS):
        for name, pipeline in pipelines.items():
            started = time.perf_counter()
            guidance = [testbed.sampling.guidance_scale] * PICTURES
            drawn = sampling.sample(
                pipeline, prompts, list(range(PICTURES)), guidance, testbed.sampling, emoji.BATCH, quiet=True
            )
            assert sum(map(len, drawn)) == PICTURES
            times[name].append(time.perf_counter() - started)
    plain = min(times.pop("none"))
    print(f"{'no method':12} {PICTURES / plain:6.1f} pictures/s")
    for name, of_method in times.items():
        more = 100 * (min(of_method) / plain - 1)
        print(f"{name:12} {PICTURES / min(of_method):6.1f} pictures/s, {more:+.0f} % time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    everything = params.load()
    samplers(everything)
    concept = everything.concepts[CONCEPT]
    for method in CLOSED_FORM:
        pipeline = emoji.load_pipeline(everything.testbeds["emoji"].model, "cpu")
        settings = everything.settings("methods", method, "emoji", concept.kind)
        started = time.perf_counter()
        module("methods", everything.module(method)).erase(pipeline, concept, settings, 0)
        print(f"{method:12} {time.perf_counter() - started:6.2f} s")
    trainings(everything, steps)


if __name__ == "__main__":
    main()
