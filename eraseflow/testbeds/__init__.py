"""Testbeds, one a module: the base pipeline and the real pictures that its kept prompts stand for."""
