"""EraseFlow's training step at Stable Diffusion 1.4's shape, ours against the plain algorithm, without its weights.

    python benchmarks/sd14_shape.py [--pixels 64] [--chunk 1]

First the loss and gradient of one step, 20 loss steps of one trajectory, on the real architecture (860 M random
weights, float32, CPU) at a resolution that fits anywhere. Plain: as in the authors' program, the graphs of all loss
steps are held until one backward. Ours: `chunk` loss steps at a time, each graph freed at once, the gradient scaled at
the end. Both predict a guided pair in one batch. Each runs in a process of its own; memory is how far its peak
resident set goes above what was resident before the step. The trajectory is made up: drawing it holds no graph.

How near the two gradients can be is a matter of float32: at 64 pixels either is some 1e-5 of its norm away from the
gradient in float64, in which the two forms agree to 3e-14.

Then, by counting on tensors without data, what one whole step takes at 512 pixels in bf16 on a GPU: operations, bytes
that operators read and write, bytes held for the backward pass, and the times below which no GPU can go.
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import re
import time
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from eraseflow.ddim import Schedule, log_density
from eraseflow.edits import add_lora
from eraseflow.methods.eraseflow import START_LOG_Z
from eraseflow.sampling import guided
from eraseflow.trajectory_balance import loss_steps, streamed_gradient

UNET = {  # the published unet/config.json
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SCHEDULE = {  # and of its scheduler/scheduler_config.json what a DDIM schedule has of it
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
TOKENS, RANK, STEPS, SCALE, ETA, LOG_BETA = 77, 4, 50, 5.0, 1.0, 2.5  # the paper's
LOSS_STEPS = 2 * (STEPS // 5)
GPUS = {"A100 40 GB": (312e12, 1.555e12), "A100 80 GB": (312e12, 2.0e12), "H100": (989e12, 3.35e12)}  # dense bf16, HBM


def network(dtype: torch.dtype = torch.float32) -> tuple[UNet2DConditionModel, list[torch.Tensor]]:
    """SD 1.4's U-Net with random weights, and its LoRA's (float32), which are not at their start, where half are 0."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    unet = UNet2DConditionModel(**UNET).eval().to(memory_format=torch.channels_last)
    torch.set_default_dtype(default)
    weights = add_lora(unet, RANK)
    for weight in weights:
        weight.data += 0.02 * torch.randn_like(weight)
    return unet, weights


@contextlib.contextmanager
def peak_growth(found: list[float]):
    """Append by how many MB the resident set's peak goes above the present (Linux)."""

    def resident(kind: str) -> float:
        return int(re.search(rf"Vm{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, or a form could grow into it unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("RSS")
    yield
    found.append(resident("HWM") - before)


def measure(form: str, pixels: int, chunk: int, answer) -> None:
    torch.set_num_threads(1)
    unet, weights = network()
    schedule = Schedule.of(DDIMScheduler(**SCHEDULE), STEPS)
    rng = torch.Generator().manual_seed(0)
    target, empty = torch.randn(2, 1, TOKENS, UNET["cross_attention_dim"], generator=rng)
    states = torch.randn(STEPS + 1, 1, 4, pixels // 8, pixels // 8, generator=rng)
    steps = loss_steps(STEPS, 0, rng)
    log_z = torch.nn.Parameter(torch.tensor(START_LOG_Z))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return guided(unet, x, t, target.expand(len(x), -1, -1), empty, SCALE)

    def ours() -> list[torch.Tensor]:
        streamed_gradient(schedule, [predict], states, steps, ETA, log_z - LOG_BETA, weights, chunk)
        return [weight.grad for weight in weights]

    def plain() -> list[torch.Tensor]:
        total = log_z - LOG_BETA
        for j in steps.split(1):
            x = states[j[0]]
            mean, std = schedule.step(j, x, predict(x, schedule.timesteps[j]), ETA)
            back_mean, back_std = schedule.noising(j, states[j[0] + 1])
            total = total + log_density(states[j[0] + 1], mean, std) - log_density(x, back_mean, back_std)
        return list(torch.autograd.grad(total.square().mean(), weights))

    with torch.no_grad():  # as drawing the trajectory does: the libraries' own start-up
        predict(states[0], schedule.timesteps[:1])
    memory: list[float] = []
    started = time.perf_counter()
    with peak_growth(memory):
        gradient = ours() if form == "ours" else plain()
    seconds = time.perf_counter() - started
    answer.put((seconds, memory[0], torch.cat([part.flatten() for part in gradient]).numpy()))


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, each tensor once an operator; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if not view and func is not torch.ops.aten._unsafe_view.default:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def fused_attention(query, key, value, **_):
    """An attention of one operator, as a GPU has it; on tensors without data PyTorch would take it apart."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]


def count() -> tuple[dict[str, float], dict[str, float], float]:
    """Operations and bytes at 512 pixels in bf16 of a guided prediction and of a loss step with its gradient, and
    the bytes that the latter's graph holds for the backward pass."""
    with torch.device("meta"):
        unet, weights = network(torch.bfloat16)
        latents, t = torch.empty(1, 4, 64, 64), torch.empty(1)
        target, empty = torch.empty(2, 1, TOKENS, UNET["cross_attention_dim"], dtype=torch.bfloat16)
        own = {weight.untyped_storage()._cdata for weight in unet.parameters()}
        held: dict[int, int] = {}

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                held[storage._cdata] = storage.nbytes()
            return tensor

        def draw() -> None:
            with torch.no_grad():
                guided(unet, latents, t, target, empty, SCALE)

        def learn() -> None:
            with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
                noise = guided(unet, latents, t, target, empty, SCALE)
            torch.autograd.grad(noise.square().mean(), weights)

        operations, traffic = {}, {}
        for name, work in (("draw", draw), ("learn", learn)):
            with FlopCounterMode(display=False) as flops:
                work()
            held.clear()
            with patch.object(torch.nn.functional, "scaled_dot_product_attention", fused_attention), Traffic() as moved:
                work()
            operations[name], traffic[name] = float(flops.get_total_flops()), float(moved.bytes)
        return operations, traffic, float(sum(held.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pixels", type=int, default=64, help="side of the picture, a multiple of 64")
    parser.add_argument("--chunk", type=int, default=1, help="loss steps in memory at once")
    options = parser.parse_args()
    print(f"loss and gradient of one step, {LOSS_STEPS} loss steps, {options.pixels} pixels, float32, one CPU thread")
    context, found = multiprocessing.get_context("spawn"), {}
    for form in ("plain", "ours"):
        answer = context.Queue()
        process = context.Process(target=measure, args=(form, options.pixels, options.chunk, answer))
        process.start()
        found[form] = answer.get()
        process.join()
        print(f"{form:5}  {found[form][0]:.1f} s, peak {found[form][1]:.0f} MB above what was resident before")
    (time_a, memory_a, gradient_a), (time_b, memory_b, gradient_b) = found["plain"], found["ours"]
    error = ((gradient_a - gradient_b) ** 2).sum() ** 0.5 / (gradient_a**2).sum() ** 0.5
    print(f"ratio  {time_a / time_b:.2f}x as fast, 1/{memory_a / memory_b:.1f} of the memory")
    print(f"the gradients differ by {error:.1e} of their norm")

    operations, traffic, held = count()
    total, moved = (STEPS * parts["draw"] + LOSS_STEPS * parts["learn"] for parts in (operations, traffic))
    print(f"\none whole step at 512 pixels, bf16: {STEPS} guided predictions and {LOSS_STEPS} with their gradient")
    each = operations["draw"] / 1e12, operations["learn"] / 1e12, total / 1e12
    print("operations  {:.2f} and {:.2f} TFLOP each, {:.0f} TFLOP in all".format(*each))
    each = traffic["draw"] / 1e9, traffic["learn"] / 1e9, moved / 1e12
    print("bytes moved {:.1f} and {:.1f} GB each, {:.2f} TB in all".format(*each))
    print(
        f"held for the backward pass: {held / 1e9:.2f} GB a loss step, {LOSS_STEPS * held / 1e9:.1f} GB for all at once"
    )
    for name, (speed, bandwidth) in GPUS.items():
        floors = total / speed, moved / bandwidth
        print(f"{name:10} at least {max(floors):.2f} s: operations {floors[0]:.2f} s, bytes {floors[1]:.2f} s")
    print("Fusing operators (torch.compile) lowers the bytes, nothing lowers the operations.")


if __name__ == "__main__":
    main()
