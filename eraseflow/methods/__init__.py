"""Erasure methods, one a module: `Settings` and `erase(pipeline, concept, settings, seed) -> Edit`."""
