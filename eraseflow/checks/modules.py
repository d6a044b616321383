"""Whether a name in params.yaml is that of a module of this package which does what is asked of it there."""

from eraseflow.definitions import defines, names
from eraseflow.mistakes import ParamsError, nearest

# What a module of each family defines, beside helpers that may stand in the same folder.
DOES = {"methods": "erase", "attacks": "attack", "judges": "load", "metrics": "load", "testbeds": "load_pipeline"}


def check_module(family: str, name: str, where: str, also: str | None = None) -> None:
    """Raises: ParamsError where eraseflow/<family> has no such module, or one that lacks its function or `also`."""
    for function in filter(None, (DOES[family], also)):
        if name not in names(family) or not defines(family, name, function):
            known = [other for other in names(family) if defines(family, other, function)]
            what = f"{name!r} is no module of eraseflow/{family}"
            if name in names(family):
                what = f"eraseflow/{family}/{name}.py has no function {function}"
            raise ParamsError(f"params.yaml: {where}: {what}{nearest(name, known)}")
