"""EraseFlow's training on its own, with the options of the authors' command.

    python -m eraseflow.train --target_prompt "Nudity" --anchor_prompt "Fully dressed" --name erasure_nudity \
        --seed 0 --use_lora --lora_rank 4 --mixed_precision bf16 --num_epochs 20 --switch_epoch 20 \
        --learning_rate 3e-4 --flow_learning_rate 3e-4 --guidance_scale 5.0 --cfg --eta 1.0 --beta 2.5 \
        --save_dir ./checkpoints

writes <save_dir>/<name>/: the edit (pytorch_lora_weights.safetensors, which diffusers' `load_lora_weights` takes;
weights.safetensors without --use_lora), training.csv, and state.pt, from which --resume goes on.
"""

import argparse
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pydantic

from eraseflow import home, memory
from eraseflow.checks import schedules, words
from eraseflow.checks.fields import Anchor, Words
from eraseflow.definitions import definition
from eraseflow.outputs import replacing, write_csv
from eraseflow.prompt_files import MAX_RUN_SEED
from eraseflow.safety import blocked

if TYPE_CHECKING:
    from eraseflow.methods.eraseflow import Settings, Training

PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32", "no": "fp32"}
# Settings whose options have other names.
RENAMED = {"epochs": "num_epochs", "log_beta": "beta"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of two dozen options before it."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(f"{message} (see {self.prog} --help)")


def number(text: str, wanted: str = "a number") -> float:
    """Python's own float() reads 1_0, nan and the digits of other scripts too."""
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return float(text)


def number_or_auto(text: str) -> float | str:
    return text if text == "auto" else number(text, "a number or auto")


def whole(text: str, wanted: str = "a whole number") -> int:
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return int(text)


def count(text: str) -> int:
    wanted = "a whole number above 0"
    if (found := whole(text, wanted)) < 1:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return found


def seed(text: str) -> int:
    wanted = f"a whole number from 0 to {MAX_RUN_SEED}, all of which differ to PyTorch's generator"
    if not 0 <= (found := whole(text, wanted)) <= MAX_RUN_SEED:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return found


def prompt(text: str) -> str:
    """The anchor may be blank, the unconditional prompt."""
    if why := blocked(text):
        raise argparse.ArgumentTypeError(f"the safety gate blocks it, since training draws from it: {why}")
    return text


def parser() -> Parser:
    """The options; unlike the authors' program there are no defaults for the prompts and the name."""
    options = Parser(
        prog="python -m eraseflow.train",
        description=(__doc__ or "").partition("\n")[0],  # `python -OO` has none
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = options.add_argument
    needed: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}
    add("--target_prompt", type=prompt, **needed, help="what is erased")
    add("--anchor_prompt", type=prompt, **needed, help="what takes its place")
    add("--name", **needed, help="the folder below --save_dir")
    add("--save_dir", type=Path, default=Path("checkpoints"), help="the folder of all trainings")
    model = definition("testbeds", "sd14", "MODEL")
    add("--model_id", default=model, help="owner/name@commit on the Hub, or a local diffusers folder")
    add("--seed", type=seed, default=0, help="of the LoRA's start, the trajectories and the steps of the loss")
    add("--num_epochs", type=whole, default=20, help="optimiser steps")
    add("--switch_epoch", type=whole, default=20, help="the last epoch, from 0, that draws new trajectories")
    add("--batch_size", type=whole, default=1, help="trajectories an epoch")
    add("--num_steps", type=whole, default=50, help="solver steps of a trajectory; 2/5 of them enter the loss")
    add("--guidance_scale", type=number, default=5.0, help="classifier-free guidance; 1 is none")
    add("--cfg", action="store_true", help="guidance in the loss too, not only in sampling")
    add("--eta", type=number, default=1.0, help="stochasticity of the DDIM sampler, above 0 and at most 1")
    add("--beta", "--logbeta", dest="log_beta", type=number_or_auto, default=2.5, help="log beta; auto measures it")
    add("--learning_rate", type=number, default=3e-4, help="of the LoRA, or of the U-Net without --use_lora")
    add("--flow_learning_rate", type=number, default=3e-4, help="of log Z")
    add("--max_grad_norm", type=number, default=1.0, help="gradients are clipped to this norm, log Z's by itself")
    add("--use_lora", action="store_true", help="train a LoRA; without it the whole U-Net")
    add("--lora_rank", type=whole, default=4, help="rank of the LoRA, and its alpha")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' AdamW8bit")
    add("--mixed_precision", choices=PRECISIONS, default="bf16", help="of what is not trained; the rest is float32")
    add("--save_freq", type=count, default=1, help="epochs between checkpoints; each replaces the one before")
    add("--resume", action="store_true", help="go on from the last checkpoint of this name")
    return options


def settings_of(options: argparse.Namespace) -> "Settings":
    """Raises: SystemExit with one line that names the option."""
    model = definition("methods", "eraseflow", "Settings")
    raw = {name: getattr(options, RENAMED.get(name, name), getattr(options, name, None)) for name in model.model_fields}
    raw = {name: value for name, value in raw.items() if value is not None}
    raw["lora_rank"] = options.lora_rank if options.use_lora else None
    try:
        return model.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
    name = str(first["loc"][0])
    wish = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    raise SystemExit(f"argument --{RENAMED.get(name, name)}: {wish}, found {first['input']!r}")


def check(options: argparse.Namespace) -> None:
    """What no single option says. Raises: SystemExit with one line."""
    target, anchor, folder = options.target_prompt, options.anchor_prompt, options.save_dir / options.name
    for option, text, kind in (("target", target, Words), ("anchor", anchor, Anchor)):
        try:
            pydantic.TypeAdapter(kind).validate_python(text)
        except pydantic.ValidationError as error:
            what = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SystemExit(f"argument --{option}_prompt: {what}") from None
    if " ".join(target.split()).casefold() == " ".join(anchor.split()).casefold():
        raise SystemExit(f"argument --anchor_prompt: must differ from the target prompt, found {anchor!r} for both")
    if Path(options.name).name != options.name or options.name in ("", ".."):
        raise SystemExit(f"argument --name: expected a folder's name without slashes, found {options.name!r}")
    if options.use_8bit_adam and not importlib.util.find_spec("bitsandbytes"):
        what = "needs the package bitsandbytes, which is not here: `pip install bitsandbytes`, or leave it out"
        raise SystemExit(f"argument --use_8bit_adam: {what}")
    if not_folder := next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None):
        raise SystemExit(f"argument --save_dir: {not_folder} is a file; expected a folder")
    there = (folder / "state.pt").is_file()
    if there and not options.resume:
        raise SystemExit(f"{folder}: holds a training already; choose another --name, or --resume to go on with it")
    if options.resume and not there:
        raise SystemExit(f"argument --resume: {folder} has no checkpoint (state.pt); leave it out to start anew")


def check_tokens(options: argparse.Namespace, folder: Path) -> None:
    """The prompts as the model in `folder` reads them, as those of params.yaml. Raises: ParamsError."""
    reader = words.Reader(folder, options.model_id)
    for option in ("target_prompt", "anchor_prompt"):
        reader.check(getattr(options, option), f"argument --{option}")
    words.check_anchors({options.target_prompt: options.anchor_prompt}, reader, "argument --anchor_prompt")


def save(training: "Training", identity: dict, folder: Path) -> None:
    """Write the edit, its history, and last the state: it is the mark that a checkpoint is whole."""
    import pandas as pd
    import torch

    training.edit().save(folder)
    write_csv(pd.DataFrame(training.history), folder / "training.csv", float_format="%.6g")
    with replacing(folder / "state.pt") as unfinished:
        torch.save(training.state() | {"identity": identity}, unfinished)


def resume(training: "Training", identity: dict, folder: Path) -> None:
    """Take up the checkpoint in `folder`. Raises: SystemExit where it is of other settings, damaged or not finite."""
    import pickle

    import torch

    from eraseflow import finite

    try:
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        saved = state["identity"]
    except (EOFError, OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        if memory.is_full(error):
            raise
        what = "is damaged; the last edit lies beside it, and without --resume another --name begins anew"
        raise SystemExit(f"argument --resume: {folder / 'state.pt'} {what}") from error
    for name, ours in identity.items():
        if (theirs := saved.get(name, ours)) != ours:
            option = RENAMED.get(name, name)
            raise SystemExit(f"argument --resume: {folder} was trained with {option} = {theirs!r}, not {ours!r}")
    trained = ((f"trained tensor {place}", weight) for place, weight in enumerate(state["weights"], 1))
    finite.check(f"argument --resume: {folder / 'state.pt'}", trained)
    training.go_on(state)


def main(arguments: Sequence[str] | None = None) -> None:
    """arguments: of the process if left out."""
    options = parser().parse_args(arguments)
    settings = settings_of(options)
    check(options)
    precision = PRECISIONS[options.mixed_precision]
    os.environ["ERASEFLOW_PRECISION"] = precision  # read when `cells` is imported
    from tqdm import tqdm

    from eraseflow import cells
    from eraseflow.cells.concept import check_lengths
    from eraseflow.hub import is_hub_id
    from eraseflow.methods.eraseflow import Training
    from eraseflow.testbeds import sd14

    folder, pairs = options.save_dir / options.name, [(options.target_prompt, options.anchor_prompt)]
    if is_hub_id(options.model_id):
        sd14.gpu(os.environ.get("ERASEFLOW_DEVICE", ""))
    check_tokens(options, sd14.pipeline_folder(options.model_id))
    pipeline = sd14.load_pipeline(options.model_id, cells.DEVICE)
    try:
        schedules.check(dict(pipeline.scheduler.config), "ddim", settings.num_steps)
    except ValueError as error:
        raise SystemExit(f"argument --num_steps: {error}") from None
    check_lengths(pipeline.tokenizer, [*pairs[0]], "arguments --target_prompt, --anchor_prompt")
    training = Training(pipeline, pairs, settings, options.seed)
    identity = training.identity() | {"model_id": options.model_id, "mixed_precision": precision}
    identity["device"] = cells.DEVICE.partition(":")[0]  # another kind rounds otherwise
    if options.resume:
        resume(training, identity, folder)
    done = len(training.history)
    with tqdm(total=settings.epochs, initial=done, desc=f"eraseflow {options.name}", unit="epoch") as bar:
        for epoch in range(done + 1, settings.epochs + 1):
            row = training.epoch()
            sign = "+" if row["sign"] > 0 else "-"
            bar.set_postfix_str(f"loss {row['loss']:.3g}, residual {sign}, log Z {row['log_z']:.4f}", refresh=False)
            bar.update()
            if epoch % options.save_freq == 0 or epoch == settings.epochs:
                save(training, identity, folder)
    print(f"{folder}: {len(training.history)} epochs in {training.seconds:.1f} s")


if __name__ == "__main__":
    home.in_utf8()
    with memory.explained("python -m eraseflow.train", "set a smaller --batch_size"):
        main()
