"""One EraseFlow training step, ours against the plain algorithm, on the emoji model: time, peak memory, gradient.

    python benchmarks/eraseflow_step.py [--trajectories 4] [--chunk 5]

Plain: 20 steps, each as two U-Net calls (with and without the prompt), all graphs held until one backward.
Ours: guided pairs in one batch, a few steps at a time, each chunk's graph freed, the gradient scaled at the end.
Every measurement runs in a process of its own; memory is the growth of its peak resident set over the step.
"""

import argparse
import multiprocessing
import resource
import time

import torch

from eraseflow import trajectory_balance
from eraseflow.ddim import Schedule, log_density, trajectory
from eraseflow.edits import add_lora
from eraseflow.methods import eraseflow
from eraseflow.sampling import embed, guided
from eraseflow.testbeds import emoji

STEPS, SCALE, ETA, ROUNDS = 50, 4.0, 1.0, 5


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(form: str, count: int, chunk: int, answer) -> None:
    pipeline = emoji.load_pipeline("models/emoji", "cpu")
    unet, schedule = pipeline.unet, Schedule.of(pipeline.scheduler, STEPS)
    torch.manual_seed(0)
    weights = add_lora(unet, 4)
    for weight in weights:
        weight.data += 0.02 * torch.randn_like(weight)
    target, anchor, empty = embed(pipeline, ["unicorn", "horse", ""]).split(1)
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(count, 4, 8, 8, generator=rng)
    log_z = torch.nn.Parameter(torch.tensor(eraseflow.START_LOG_Z))

    def predict(prompt):
        return lambda x, t: guided(unet, x, t, prompt.expand(len(x), -1, -1), empty, SCALE)

    states = trajectory(schedule, predict(anchor), start, ETA, rng, STEPS)
    steps = trajectory_balance.loss_steps(STEPS, 0, rng)
    predicts = [predict(target)] * count

    def ours() -> list[torch.Tensor]:
        trajectory_balance.streamed_gradient(schedule, predicts, states, steps, ETA, log_z - 2.5, weights, chunk)
        return [weight.grad for weight in weights]

    def plain() -> list[torch.Tensor]:
        total = log_z - 2.5
        for index in steps:
            j, x = index.repeat(count), states[index]
            t = schedule.timesteps[j]
            without = unet(x, t, empty.expand(count, -1, -1)).sample
            noise = without + SCALE * (unet(x, t, target.expand(count, -1, -1)).sample - without)
            mean, std = schedule.step(j, x, noise, ETA)
            back_mean, back_std = schedule.noising(j, states[index + 1])
            total = total + log_density(states[index + 1], mean, std) - log_density(x, back_mean, back_std)
        return list(torch.autograd.grad(total.square().mean(), weights))

    step = ours if form == "ours" else plain
    torch.nn.functional.conv2d(torch.zeros(1, 4, 8, 8), torch.zeros(4, 4, 3, 3))  # the libraries' own start-up
    before = peak_mb()
    gradient = torch.cat([g.flatten() for g in step()])
    memory, times = peak_mb() - before, []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    answer.put((min(times), memory, gradient.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trajectories", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=5)
    options = parser.parse_args()
    context, found = multiprocessing.get_context("spawn"), {}
    for form in ("plain", "ours"):
        answer = context.Queue()
        process = context.Process(target=measure, args=(form, options.trajectories, options.chunk, answer))
        process.start()
        found[form] = answer.get()
        process.join()
        print(f"{form:5}  {found[form][0]:.3f} s a step, {found[form][1]:.0f} MB above the start")
    (time_a, memory_a, gradient_a), (time_b, memory_b, gradient_b) = found["plain"], found["ours"]
    error = ((gradient_a - gradient_b) ** 2).sum() ** 0.5 / (gradient_a**2).sum() ** 0.5
    print(f"ratio  {time_a / time_b:.2f}x as fast, {memory_b / memory_a:.2f} of the memory")
    print(f"the gradients differ by {error:.1e} of their norm")


if __name__ == "__main__":
    main()
