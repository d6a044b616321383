"""What one block of params.yaml says about another, about modules, about files and about the base model, by subject."""

from eraseflow.checks.blocks import check_names
from eraseflow.checks.table import check_table, check_with_model
from eraseflow.checks.tuning import check_tuning

__all__ = ["check_names", "check_table", "check_tuning", "check_with_model"]
