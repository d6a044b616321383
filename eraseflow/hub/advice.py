"""What huggingface_hub raises, as one line that says what to do."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, errors

FAILURES = (OSError, ValueError, errors.HTTPError, errors.CorruptedCacheException, errors.XetDownloadError)
PUBLIC = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def one_line(source: str, lacking: str = "") -> Iterator[None]:
    """lacking: the file that the cache has not. Raises: SystemExit where the body raises one of FAILURES."""
    try:
        yield
    except FAILURES as error:
        # "Not in the cache" says nothing of why the Hub did not give it: its cause does.
        cause = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
        raise SystemExit(f"{source}: {_advice(source, cause or error, lacking)}") from error


def missing(error: BaseException, lacking: str = "") -> str:
    """That the Hub is out of reach and a file, or all, not in the cache."""
    hub = "the Hub" if constants.ENDPOINT == PUBLIC else f"the Hub at {constants.ENDPOINT}"
    files = f"{lacking} is" if lacking else "the files are"
    said = f"{hub} cannot be reached ({type(error).__name__}) and {files} not in {constants.HF_HUB_CACHE}"
    unset = next((name for name in OFFLINE if os.environ.get(name)), OFFLINE[0])
    network = f"unset {unset}" if isinstance(error, errors.OfflineModeIsEnabled) else "run where there is a network"
    return f"{said}; {network}, `hf download` them into that folder elsewhere, or name a local folder that has them"


def _advice(source: str, error: BaseException, lacking: str) -> str:
    page = f"{PUBLIC}/{source.partition('@')[0]}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return f"access must be granted; accept the licence at {page}, then `hf auth login`, or name a local folder"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the Hub has no such commit; choose one from {page}/commits/main"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return f"the Hub shows no such repository or file; see {page}, and `hf auth login` if it is private"
    if status:
        files = f"{lacking} is" if lacking else "the files are"
        return f"the Hub answers {status} and {files} not in {constants.HF_HUB_CACHE}; try again later"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
        where = error.filename or constants.HF_HUB_CACHE
        return f"cannot be stored or read: {error.strerror} ({where}); HF_HOME or HF_HUB_CACHE names another place"
    if isinstance(error, json.JSONDecodeError):
        return f"{constants.ENDPOINT} answers something else than the Hub does (a mirror, or a page to log in at?)"
    if isinstance(error, errors.CorruptedCacheException | ValueError):
        return f"cannot be read from {constants.HF_HUB_CACHE}: {' '.join(str(error).split())}"
    return missing(error, lacking)
