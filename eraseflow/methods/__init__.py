"""Erasure methods, one a module: `Settings` and `erase(pipeline, concept, settings, seed) -> Edit`.

The rest is optional, and read without importing the module (eraseflow/definitions.py).
ready(settings, concept, model): fetches what `erase` needs for the concept of this name on the base model, or ends with
    one line.
outside(settings, concept): the local files that `erase` reads for it, outside the repository; those that are not there
    too. The cells run again where the content of one changes.
of_concept(settings, concept): the settings as far as they concern it, so that others' changes leave its cells.
"""
