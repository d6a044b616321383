"""EraseFlow's training on its own, with the options of the authors' command.

    python -m eraseflow.train --target_prompt "Nudity" --anchor_prompt "Fully dressed" --name erasure_nudity \
        --seed 0 --use_lora --lora_rank 4 --mixed_precision bf16 --num_epochs 20 --switch_epoch 20 \
        --learning_rate 3e-4 --flow_learning_rate 3e-4 --guidance_scale 5.0 --cfg --eta 1.0 --beta 2.5 \
        --save_dir ./checkpoints

writes <save_dir>/<name>/: the edit (pytorch_lora_weights.safetensors, which diffusers' `load_lora_weights` takes;
weights.safetensors without --use_lora), training.csv, and state.pt, from which --resume goes on.
"""

import argparse
import os
from pathlib import Path

import pandas as pd
import pydantic
import torch
from tqdm import tqdm

from eraseflow.methods.eraseflow import Settings, Training

DEFAULT_MODEL = "CompVis/stable-diffusion-v1-4@133a221b8aa7292a167afc5127cb63fb5005638b"
PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
# Options whose names differ from those of the settings.
RENAMED = {"epochs": "num_epochs"}


def log_beta(text: str) -> float | str:
    """A number, or "auto"."""
    return "auto" if text == "auto" else float(text)


def parser() -> argparse.ArgumentParser:
    """The options; unlike the authors' program there are no defaults for the prompts and the name."""
    options = argparse.ArgumentParser(prog="python -m eraseflow.train", description=__doc__.partition("\n")[0])
    add = options.add_argument
    add("--target_prompt", required=True, help="what is erased")
    add("--anchor_prompt", required=True, help="what takes its place")
    add("--name", required=True, help="the folder below --save_dir")
    add("--save_dir", type=Path, default=Path("checkpoints"))
    add("--model_id", default=DEFAULT_MODEL, help="owner/name@commit on the Hub, or a local diffusers folder")
    add("--seed", type=int, default=0)
    add("--num_epochs", type=int, default=20, help="optimiser steps")
    add("--switch_epoch", type=int, default=20, help="the last epoch, from 0, that draws new trajectories")
    add("--batch_size", type=int, default=1, help="trajectories an epoch")
    add("--num_steps", type=int, default=50, help="solver steps of a trajectory; 2/5 of them enter the loss")
    add("--guidance_scale", type=float, default=5.0)
    add("--cfg", action="store_true", help="guidance in the loss too, not only in sampling")
    add("--eta", type=float, default=1.0, help="stochasticity of the DDIM sampler, above 0 and at most 1")
    add("--beta", "--logbeta", dest="log_beta", type=log_beta, default=2.5, help="log beta, a number or auto")
    add("--learning_rate", type=float, default=3e-4, help="of the LoRA or the U-Net")
    add("--flow_learning_rate", type=float, default=3e-4, help="of log Z")
    add("--max_grad_norm", type=float, default=1.0)
    add("--use_lora", action="store_true", help="train a LoRA; without it the whole U-Net")
    add("--lora_rank", type=int, default=4, help="rank of the LoRA, and its alpha")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' AdamW8bit")
    add("--mixed_precision", choices=PRECISIONS, default="no", help="of what is frozen; the rest is float32")
    add("--save_freq", type=int, default=1, help="epochs between checkpoints")
    add("--resume", action="store_true", help="go on from the last checkpoint of this name")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """Raises: SystemExit with one line that names the option."""
    raw = {name: getattr(options, RENAMED.get(name, name), None) for name in Settings.model_fields}
    raw = {name: value for name, value in raw.items() if value is not None}
    raw["lora_rank"] = options.lora_rank if options.use_lora else None
    try:
        return Settings.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "num_steps"
        raise SystemExit(f"--{RENAMED.get(name, name)}: {first['msg']}, found {first['input']!r}") from None


def save(training: Training, folder: Path) -> None:
    """Write the edit, its history, and last the state: it is the mark that a checkpoint is whole."""
    training.edit().save(folder)
    pd.DataFrame(training.history).to_csv(folder / "training.csv", index=False, float_format="%.6g")
    unfinished = folder / "state.part"
    torch.save(training.state(), unfinished)
    unfinished.replace(folder / "state.pt")


def resume(training: Training, folder: Path) -> None:
    """Take up the checkpoint in `folder`. Raises: SystemExit where there is none, or one of other settings."""
    if not (folder / "state.pt").is_file():
        raise SystemExit(f"--resume: {folder} has no checkpoint (state.pt); leave --resume out to start anew")
    state = torch.load(folder / "state.pt", weights_only=True)
    theirs, ours = state["identity"], training.identity()
    for name in ours:
        if theirs[name] != ours[name]:
            raise SystemExit(f"--resume: {folder} was trained with {name} = {theirs[name]!r}, not {ours[name]!r}")
    training.go_on(state)


def main() -> None:
    options = parser().parse_args()
    settings = settings_of(options)
    folder = options.save_dir / options.name
    pairs = [(options.target_prompt, options.anchor_prompt)]
    if options.target_prompt.strip().lower() == options.anchor_prompt.strip().lower():
        raise SystemExit(
            f"--anchor_prompt: must differ from the target prompt, found {options.anchor_prompt!r} for both"
        )
    if (folder / "state.pt").exists() and not options.resume:
        raise SystemExit(f"{folder}: holds a training already; choose another --name, or --resume to go on with it")
    os.environ["ERASEFLOW_PRECISION"] = PRECISIONS[options.mixed_precision]  # read when the testbed is imported
    from eraseflow import cells
    from eraseflow.testbeds import sd14

    training = Training(sd14.load_pipeline(options.model_id, cells.DEVICE), pairs, settings, options.seed)
    if options.resume:
        resume(training, folder)
    done = len(training.history)
    with tqdm(total=settings.epochs, initial=done, desc=f"eraseflow {options.name}", unit="epoch") as bar:
        for epoch in range(done + 1, settings.epochs + 1):
            row = training.epoch()
            sign = "+" if row["sign"] > 0 else "-"
            bar.set_postfix_str(f"loss={row['loss']:.3g}, residual {sign}, log_z={row['log_z']:.4f}", refresh=False)
            bar.update()
            if epoch % options.save_freq == 0 or epoch == settings.epochs:
                save(training, folder)
    print(f"{folder}: {settings.epochs} epochs in {training.seconds:.1f} s")


if __name__ == "__main__":
    main()
