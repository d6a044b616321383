"""Under a bare user number, without home, network, UTF-8 locale or right to write elsewhere, as containers are run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from project_clone import clone, edit_params, few_prompts, shorten, without_figures

UNSHARE = ["unshare", "--user", "--map-user=12345", "--map-group=12345", "--net"]
# The folder of the container's python, and nothing else: no home, name, language or cache.
BARE = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "TZ": "Asia/Tokyo",
}
UMASK = ["sh", "-c", 'umask 077; exec "$@"', "sh"]


def namespaces() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not namespaces(), reason="unshare gives no namespaces of users and networks here"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A clone with a miniature table, in a folder whose name has spaces, quotes and letters beyond ASCII."""
    folder = clone(tmp_path_factory.mktemp("container") / "it's a “böx”")
    few_prompts(folder, 2)
    without_figures(folder)
    edit_params(folder, shorten)
    edit_params(folder, lambda raw: raw["table"].update(methods=["uce"]))
    return folder


def inside(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*UNSHARE, *UMASK, sys.executable, "-m", *command],
        cwd=folder,
        env=BARE | variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def succeeds(folder: Path, *command: str, **variables: str) -> str:
    done = inside(folder, *command, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_chain_an_export_and_a_training(project, tmp_path):
    assert succeeds(project, "eraseflow", "check").startswith("params.yaml is right")
    succeeds(project, "eraseflow", "repro")
    table = pd.read_csv(project / "reports" / "table.csv")
    assert table.method.tolist() == ["uce"] and table.n_prompts.eq(2).all()
    assert "Running stage" not in succeeds(project, "eraseflow", "repro", HOME="/")
    succeeds(project, "eraseflow", "export", "--concept", "unicorn", "--method", "uce", str(tmp_path / "édited"))
    assert (tmp_path / "édited" / "README.md").is_file()
    options = "--model_id models/emoji --target_prompt unicorn --anchor_prompt horse --name a --use_lora --num_steps 5"
    few = "--num_epochs 1 --switch_epoch 1 --eta 0.2 --logbeta 6 --mixed_precision no"
    succeeds(project, "eraseflow.train", *f"{options} {few}".split(), "--save_dir", str(tmp_path))
    assert (tmp_path / "a" / "pytorch_lora_weights.safetensors").is_file()


def test_a_project_that_cannot_be_written_is_one_line(project):
    """There `check` works, and `repro` says before it begins that it does not."""
    shutil.rmtree(project / ".work", ignore_errors=True)  # where another run has begun
    folders = [project, *(path for path in project.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert succeeds(project, "eraseflow", "check").startswith("params.yaml is right")
        done = inside(project, "eraseflow", "repro")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "cannot be written" in done.stderr


def test_from_another_folder(project, tmp_path):
    done = inside(tmp_path, "eraseflow", "check", PYTHONPATH=str(project))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "run from the project's folder" in done.stderr
