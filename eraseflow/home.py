"""A name and a home for a user who has none, as in a container that runs under a bare number.

PyTorch asks for the user's name, DVC, matplotlib and huggingface_hub for a home, and each ends with an error of its own
where there is none. Standard library only: every stage script imports this before it hands itself over.
"""

import io
import os
import pwd
import sys
from contextlib import suppress

# Folders of caches and settings. A relative one would be another in each copy of the project that `full` makes.
FOLDERS = ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"]
FOLDERS += ["MPLCONFIGDIR", "TMPDIR"]
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where `getpass.getuser` looks
OWN = os.path.join(".work", "home")


def settle() -> None:
    r"""Set USER, HOME and MPLCONFIGDIR where these say nothing that can be used; what can be used stays as it is, but
    for the names of FOLDERS, which become absolute.

    And a terminal that has no dashes gets them spelt (\u2013) instead of an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if not any(map(os.environ.get, NAMES)):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty one would be /
    home = os.path.expanduser("~")
    if not (os.path.isabs(home) and os.path.isdir(home)):
        home = os.environ["HOME"] = _made(os.path.abspath(OWN))
    for name in FOLDERS:
        if (place := os.environ.get(name)) and not os.path.isabs(place):
            os.environ[name] = os.path.abspath(os.path.expanduser(place))
    if "MPLCONFIGDIR" not in os.environ and not _writable(home):
        os.environ["MPLCONFIGDIR"] = _made(os.path.abspath(os.path.join(OWN, "matplotlib")))


def in_utf8() -> None:
    """Start this command anew in Python's UTF-8 mode where the locale has another encoding.

    Libraries that are not written in Python take every path as UTF-8, and would write beside the place that is meant.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _made(folder: str) -> str:
    with suppress(OSError):  # whoever writes there says what is wrong
        os.makedirs(folder, exist_ok=True)
    return folder


def _writable(home: str) -> bool:
    """Whether matplotlib may keep its list of fonts there, which takes seconds to make; else every process makes it."""
    places = [os.path.join(home, *parts) for parts in ((".config", "matplotlib"), (".config",), ())]
    return os.access(next(filter(os.path.isdir, places), home), os.W_OK)
