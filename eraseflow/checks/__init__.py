"""What one block of params.yaml says about another, about modules, about files and about the base model, by subject."""

from eraseflow.checks.blocks import check_names
from eraseflow.checks.table import check_table, check_with_model

__all__ = ["check_names", "check_table", "check_with_model"]
