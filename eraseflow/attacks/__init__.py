"""Attacks, one a module: `Settings` (its block of params.yaml) and `attack(victim, settings, seed)`; see victim.py."""
