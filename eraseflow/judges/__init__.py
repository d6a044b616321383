"""Judges, one a module: `load(device)` gives a function from pictures to raw scores; thresholds are applied later."""
