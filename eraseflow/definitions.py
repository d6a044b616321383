"""What a method, attack or judge defines, read without the slow imports of its module."""

import ast
import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from eraseflow.mistakes import ParamsError


def names(family: str) -> list[str]:
    """The modules of eraseflow/<family>."""
    return [module.name for module in pkgutil.iter_modules(importlib.import_module(f"eraseflow.{family}").__path__)]


_REQUIRED = object()


@cache
def definition(family: str, module: str, name: str, default: Any = _REQUIRED) -> Any:
    """A class, function or constant at the top of eraseflow/<family>/<module>.py, or the default where there is none.

    Executed alone, with just the imports and constants that it uses: torch and diffusers with the rest would take ten
    seconds. The module is imported after all where the definition needs more of it.
    Raises: ParamsError where it is missing and has no default, or the module is broken.
    """
    spec = importlib.util.find_spec(f"eraseflow.{family}.{module}")
    assert spec and spec.origin
    needed = _needed(_top(spec.origin), name)
    if not needed and default is not _REQUIRED:
        return default
    space: dict[str, Any] = {"__name__": spec.name}
    try:
        exec(compile(ast.Module(needed, []), spec.origin, "exec"), space)
        if name in space:
            return space[name]
    except NameError:  # it uses what a loop or a condition of the module binds
        pass
    except Exception as error:
        raise ParamsError(f"{spec.origin}: cannot be read: {type(error).__name__}: {error}") from None
    try:
        whole = importlib.import_module(spec.name)
    except Exception as error:
        raise ParamsError(f"{spec.origin}: cannot be imported: {type(error).__name__}: {error}") from None
    if not hasattr(whole, name):
        raise ParamsError(f"{spec.origin}: defines no {name}")
    return getattr(whole, name)


def defines(family: str, module: str, name: str) -> bool:
    """Whether eraseflow/<family>/<module>.py defines a name at its top; nothing of it is executed."""
    spec = importlib.util.find_spec(f"eraseflow.{family}.{module}")
    return bool(spec and spec.origin and any(name in _defined(node) for node in _top(spec.origin)))


def _top(path: str) -> list[ast.stmt]:
    return _parsed(path, Path(path).stat().st_mtime_ns)


@cache
def _parsed(path: str, changed: int) -> list[ast.stmt]:
    try:
        return ast.parse(Path(path).read_bytes()).body
    except SyntaxError as error:
        raise ParamsError(f"{path}: line {error.lineno}: is not Python: {error.msg}") from None
    except ValueError as error:
        raise ParamsError(f"{path}: is not Python: {error}") from None


def _needed(top: list[ast.stmt], name: str) -> list[ast.stmt]:
    """The statements that bind a name, and those that bind what they use, in the order of the module."""
    needed: set[ast.stmt] = set()
    used = {name}
    while found := {node for node in top if node not in needed and used & _defined(node)}:
        needed |= found
        used |= {part.id for node in found for part in ast.walk(node) if isinstance(part, ast.Name)}
    return [node for node in top if node in needed]


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()
