"""Checkpoints as people publish them, read into an Edit: which files, what is in them, and where each tensor belongs.

`places` finds the files of a source, here or on the Hub, and `folders` says what a folder of such names holds. `files`
reads one file. `names` gives every weight its place in the base model, `lora` every matrix of a LoRA; `families` says
which other model keys are of. `configs` compares what is not in the tensors. `plans` puts these together from files'
headers alone, so that `python -m eraseflow check` finds what is wrong without loading a weight, and `edits` loads the
tensors and compares them with the base.
"""
