"""What goes between a project's cache and DVC's default remote, by the hashes of outputs.

DVC's own `push` and `pull` go by what dvc.lock says, which on a worker is of no run.
"""

from collections.abc import Iterable

from dvc.config import NoRemoteError
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo


def hash_info(value: str) -> HashInfo:
    """DVC's form of a hash; that of a folder ends with .dir."""
    return HashInfo("md5", value)


def send(project: Repo, hashes: Iterable[str]) -> None:
    """From the cache, folders with all that is in them. Raises: RuntimeError with one line where that does not work."""
    _transfer(project, hashes, out=True)


def fetch(project: Repo, hashes: Iterable[str]) -> None:
    """Into the cache. Raises: as `send`, also where one is not in the remote."""
    _transfer(project, hashes, out=False)


def _transfer(project: Repo, hashes: Iterable[str], out: bool) -> None:
    wanted = {hash_info(value) for value in hashes}
    if not wanted:
        return
    try:
        remote = project.cloud.get_remote_odb()
    except NoRemoteError:
        what = "workers in other folders need a default remote of DVC: `dvc remote add -d NAME URL`, committed"
        raise RuntimeError(f"{project.root_dir}: {what}") from None
    source, target = (project.cache.local, remote) if out else (remote, project.cache.local)

    def check(status) -> None:
        if status.missing:
            raise RuntimeError(f"{source.path}: lacks files that a stage reads or has made")

    how = {"cache_odb": source, "shallow": False, "validate_status": check, "verify": target.verify}
    try:
        result = project.cloud.transfer(source, target, wanted, **how)
    except FileNotFoundError:  # what lists a folder's files
        raise RuntimeError(f"{source.path}: lacks files that a stage reads or has made") from None
    except OSError as error:
        raise RuntimeError(f"DVC's remote {remote.path} cannot be used: {error}") from None
    if result.failed:
        raise RuntimeError(f"{len(result.failed)} files could not be copied from {source.path} to {target.path}")
