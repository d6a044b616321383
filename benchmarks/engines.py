"""Dask against Ray as the engine of stages on one machine: start-up, memory, a call, and what both install.

    python benchmarks/engines.py

Each in a process of its own, one after the other, twice: with both cores idle, and with another process on each. Ray is
measured where it is installed (`pip install ray`); the project does not need it.
"""

import json
import multiprocessing
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

CALLS = 100
COMMON = """
import json, os, sys, time
import psutil
me = psutil.Process()
def memory():
    return sum(part.memory_info().rss for part in [me, *me.children(recursive=True)]) / 1e6
def nothing():
    return os.getpid()
before, started = memory(), time.perf_counter()
"""
ENGINES = {
    "dask": """
from distributed import Client, LocalCluster
cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0)
client = Client(cluster)
def call():
    client.submit(nothing, pure=False).result()
""",
    "ray": """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
remote = ray.remote(nothing)
def call():
    ray.get(remote.remote())
""",
}
MEASURE = f"""
call()
up, grown, started = time.perf_counter() - started, memory() - before, time.perf_counter()
for _ in range({CALLS}):
    call()
print(json.dumps([up, grown, (time.perf_counter() - started) / {CALLS}]))
"""


def installed(name: str, found: set[str] | None = None) -> set[str]:
    """A distribution and all that it needs, without extras."""
    found = set() if found is None else found
    if name not in found:
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            return found
        found.add(name)
        for line in needed:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                installed(requirement.name.lower(), found)
    return found


def megabytes(names: set[str]) -> float:
    paths = [Path(str(file.locate())) for name in names for file in distribution(name).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def measure(engine: str) -> list[float]:
    command = [sys.executable, "-c", COMMON + ENGINES[engine] + MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    others = installed("dvc") | installed("diffusers") | installed("torch")
    packages = {"dask": "distributed", "ray": "ray"}
    here = [engine for engine, name in packages.items() if installed(name)]
    print(f"{'':<6}{'cores':<8}{'up, s':>8}{'memory, MB':>12}{'a call, ms':>12}{'install, MB':>13}")
    for cores in ("idle", "busy"):
        busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(2 * (cores == "busy"))]
        for process in busy:
            process.start()
        for engine in here:
            up, memory, call = measure(engine)
            size = megabytes(installed(packages[engine]) - others)
            print(f"{engine:<6}{cores:<8}{up:>8.1f}{memory:>12.0f}{1000 * call:>12.1f}{size:>13.0f}")
        for process in busy:
            process.kill()


def spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
