"""Scores, one a module, and the rates with their intervals."""
