"""A reproducible benchmark of concept erasure in text-to-image diffusion models."""
