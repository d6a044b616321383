"""A stage that the server runs must look, from outside, like one that runs by itself."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eraseflow import __main__, launcher, stage
from eraseflow.params import ParamsError
from eraseflow.project import locks

pytestmark = pytest.mark.slow

PACKAGE = Path(launcher.__file__).parent
SCRIPT = """import atexit, os, sys, time
from eraseflow import stage


def main():
    {}


if __name__ == "__main__":
    stage.run(main)
"""


@pytest.fixture
def project(tmp_path):
    """A project of its own with the modules under test, to which a stage script can be written."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "eraseflow").mkdir()
    for module in ("__init__", "allocator", "finite", "home", "launcher", "memory", "outputs", "server", "stage"):
        shutil.copy(PACKAGE / f"{module}.py", tmp_path / "eraseflow")
    for room in ("project", "run"):
        shutil.copytree(PACKAGE / room, tmp_path / "eraseflow" / room)
    return tmp_path


def write(project: Path, body: str) -> None:
    (project / "stages/it.py").write_text(SCRIPT.format(body.replace("\n", "\n    ")))


def environment(project: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(project), "PATH": path}


def launch(project: Path, shell: str, preload: str = "colorsys", **options) -> subprocess.Popen:
    """Run shell commands beside a server."""
    code = f"import sys; from eraseflow import launcher; sys.exit(launcher.run(['sh', '-c', {shell!r}], {[preload]}))"
    return subprocess.Popen([sys.executable, "-c", code], cwd=project, env=environment(project), **options)


def output(project: Path, shell: str, preload: str = "colorsys") -> str:
    """What shell commands beside a server print."""
    return launch(project, shell, preload, stdout=subprocess.PIPE, text=True).communicate(timeout=60)[0]


@pytest.mark.parametrize(
    "body",
    [
        "print('out'); print('err', file=sys.stderr); print('out again')",
        "print(sys.argv, os.getcwd(), sys.path[0], __file__, __name__, os.environ['SOME'])",
        "print(sys.stdin.read())",
        "import it\nprint(it.__file__)",
        "sys.exit(3)",
        "sys.exit()",
        "sys.exit('a message')",
        "raise ValueError('boom')",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError from error",
        "import no_such_module",
        "print('unfinished', end=''); atexit.register(print, 'at exit')",
        "os.kill(os.getpid(), 9)",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_same_as_plain_python(project, body):
    write(project, body)
    (project / "input.txt").write_text("something to read\n")
    shell = "SOME=value python stages/it.py 'a b' --c >out 2>err <input.txt; echo $? >code"
    seen = []
    for run in (
        lambda: launch(project, shell).wait(60),
        lambda: subprocess.run(["sh", "-c", shell], cwd=project, env=environment(project)),
    ):
        run()
        seen.append([(project / name).read_text() for name in ("out", "err", "code")])
    assert seen[0] == seen[1]


def test_the_server_has_done_the_imports(project):
    write(project, "print('colorsys' in sys.modules)")
    assert output(project, "python stages/it.py") == "True\n"
    plain = [sys.executable, "stages/it.py"]
    assert subprocess.check_output(plain, cwd=project, env=environment(project), text=True) == "False\n"


def test_early_stage_waits_for_the_imports(project):
    (project / "late.py").write_text("import time; time.sleep(1)")
    write(project, "print('late' in sys.modules)")
    assert output(project, "python stages/it.py", preload="late") == "True\n"


def test_module_that_is_not_installed_is_left_out(project):
    write(project, "print('ran')")
    assert output(project, "python stages/it.py", preload="no_such_module") == "ran\n"


def test_nothing_waits_for_imports_that_nobody_needs(project):
    (project / "endless.py").write_text("import time; time.sleep(600)")
    assert launch(project, "exit 7", preload="endless").wait(60) == 7


def test_stages_at_the_same_time(project):
    write(project, "open(sys.argv[1], 'w')\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)\nprint('met')")
    assert output(project, "python stages/it.py a b & python stages/it.py b a & wait").count("met") == 2


def test_project_code_is_read_anew_by_every_stage(project):
    write(project, "from eraseflow import NUMBER\nprint(NUMBER, sorted(m for m in sys.modules if 'eraseflow' in m))")
    names = ["", ".memory", ".project", ".project.locks", ".run", ".run.peak", ".stage"]
    loaded = [f"eraseflow{name}" for name in names]
    change = "echo NUMBER = {} >eraseflow/__init__.py; python stages/it.py; "
    shown = output(project, change.format(1) + change.format(222))
    assert shown == f"1 {loaded}\n222 {loaded}\n"


def test_a_run_within_a_run_has_its_server(project):
    write(project, "print('colorsys' in sys.modules, 'tabnanny' in sys.modules)")
    code = "import sys; from eraseflow import launcher; sys.exit(launcher.run([*sys.argv[1:]], ['tabnanny']))"
    (project / "again.py").write_text(code)
    assert (
        output(project, "python again.py python stages/it.py; python again.py sh -c 'exit 7'; echo $?")
        == "True False\n7\n"
    )
    assert output(project, "python again.py sh -c 'kill -9 $$'; echo $?") == "137\n"


BEATING = "import subprocess\nsubprocess.run(['sh', '-c', 'while :; do echo >>beats; sleep 0.02; done'])"


def beats(project: Path) -> int:
    path = project / "beats"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("who", ["client", "launcher"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stage_ends_with_whoever_waits_for_it(project, who, how):
    """The stage's own child, too; and Ctrl-C at the launcher alone changes nothing, it is for the stage."""
    write(project, BEATING)
    running = launch(project, "python stages/it.py & echo $! >client; wait")
    deadline = time.monotonic() + 60
    while beats(project) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client = int((project / "client").read_text())
    os.kill(client if who == "client" else running.pid, how)
    if (who, how) == ("launcher", signal.SIGINT):
        before = beats(project)
        time.sleep(0.5)
        assert beats(project) > before and running.poll() is None
        os.kill(client, how)
    running.wait(60)
    time.sleep(0.3)
    before = beats(project)
    time.sleep(0.5)
    assert beats(project) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stage_that_no_server_took_yet_ends_with_the_launcher(project, how):
    """Left alone it would find that nobody serves it, and run by itself beside the next run."""
    (project / "late.py").write_text("import time; time.sleep(2)")
    write(project, "open('ran', 'w')")
    running = launch(project, "python stages/it.py & echo $! >client; wait", preload="late")
    deadline = time.monotonic() + 60
    while not (project / "client").exists() or not (project / "client").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # it has begun to wait
    running.send_signal(how)
    running.wait(60)
    time.sleep(3)  # longer than the imports
    assert not (project / "ran").exists()


def test_stage_ends_with_its_keeper(project):
    """The server's process between it and the one that waits; nothing else is there to end it."""
    write(
        project,
        "print(os.getppid(), file=open('keeper', 'w'), flush=True)\n" + "while True: open('beats', 'a').write(' ')",
    )
    running = launch(project, "python stages/it.py")
    deadline = time.monotonic() + 60
    while beats(project) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int((project / "keeper").read_text()), signal.SIGKILL)
    assert running.wait(60) == 1
    time.sleep(0.3)
    before = beats(project)
    time.sleep(0.3)
    assert beats(project) == before


def test_the_command_ends_with_the_launcher(project):
    """DVC would go on with the next stage, beside the next run."""
    running = launch(project, "echo $$ >command; while :; do echo >>beats; sleep 0.02; done")
    deadline = time.monotonic() + 60
    while beats(project) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.kill()
    running.wait(60)
    time.sleep(0.3)
    before = beats(project)
    time.sleep(0.3)
    assert beats(project) == before


@pytest.mark.parametrize("temporary", ["long", "missing", "a file"])
def test_any_temporary_folder_will_do(project, tmp_path, monkeypatch, temporary):
    place = tmp_path / ("x" * 120 if temporary == "long" else "t")
    if temporary == "long":
        place.mkdir()
    elif temporary == "a file":
        place.write_text("")
    monkeypatch.setenv("TMPDIR", str(place))
    write(project, "print('colorsys' in sys.modules)")
    assert output(project, "python stages/it.py") == "True\n"


def test_without_a_place_for_a_socket_stages_run_by_themselves(project, monkeypatch, capfd):
    write(project, "print('ran')")
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(project))
    monkeypatch.setattr(launcher, "FOLDERS", [str(project / "missing")])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert launcher.run([sys.executable, "stages/it.py"], ["colorsys"]) == 0
    for number, handler in before.items():
        signal.signal(number, handler)
    said = capfd.readouterr()
    assert said.out == "ran\n" and said.err.count("\n") == 1 and "TMPDIR" in said.err


@pytest.fixture
def interrupt():
    """The handler of Ctrl-C, put back after the test."""
    handler = signal.getsignal(signal.SIGINT)
    yield handler
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(None, None), (b"", None), (b"taken\n", 1), (b"taken\n5\n", 5)],
    ids=["nobody there", "never taken", "taken but unfinished", "finished"],
)
def test_plain_run_only_where_no_server_took_the_stage(tmp_path, monkeypatch, interrupt, answer, code):
    address = str(tmp_path / "socket")
    monkeypatch.setenv(stage.SOCKET, address)
    monkeypatch.setattr(stage, "stay_only_with_the_launcher", lambda: None)
    ran = []
    with socket.socket(socket.AF_UNIX) as listener, locks.alone(stage.lock(address), "the test"):
        listener.bind(address)
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection.makefile() as reader:
                assert [reader.readline(), reader.readline()][1].startswith("{")
            connection.sendall(answer)
            connection.close()

        if answer is None:
            listener.close()
        else:
            threading.Thread(target=serve).start()
        if code is None:
            stage.run(lambda: ran.append(stage.SOCKET in os.environ))
            assert ran == [False] and signal.getsignal(signal.SIGINT) is interrupt
        else:
            with pytest.raises(SystemExit) as end:
                stage.run(lambda: ran.append("main"))
            assert end.value.code == code and not ran


def test_no_stage_runs_by_itself_once_the_launcher_has_ended(tmp_path, monkeypatch, interrupt):
    """Its server ends, too; and it may have come too late to be ended with the one that waits for it."""
    monkeypatch.setenv(stage.SOCKET, str(tmp_path / "socket"))
    monkeypatch.setattr(stage, "stay_only_with_the_launcher", lambda: None)
    stage.lock(str(tmp_path / "socket")).touch()
    with pytest.raises(SystemExit, match="has ended"):
        stage.run(lambda: pytest.fail("ran"))


def test_another_error_of_a_stage_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(stage.SOCKET, raising=False)
    with pytest.raises(RuntimeError, match="shapes"):
        stage.run(lambda: exec("raise RuntimeError('shapes')"))


def test_stage_imports_only_the_standard_library():
    code = "import sys; before = set(sys.modules); import eraseflow.stage; print(*(set(sys.modules) - before))"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=PACKAGE.parent, text=True).split()
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"eraseflow"}


def test_repro_hands_its_arguments_to_dvc(monkeypatch):
    seen = []
    monkeypatch.chdir(PACKAGE.parent)
    monkeypatch.setattr(launcher, "run", lambda command, preload: seen.append(command) or 3)
    monkeypatch.setattr(sys, "argv", ["eraseflow", "repro", "--jobs", "3", "--", "-f", "base", "--dry"])
    assert __main__.main() == 3
    assert seen == [[*launcher.DVC, "--slots=[{}, {}, {}]", "repro", "-f", "base", "--dry"]]


@pytest.mark.parametrize("jobs", ["0", "-1", "1.5", "two", "²"])
def test_jobs_are_a_number(monkeypatch, capsys, jobs):
    monkeypatch.setattr(sys, "argv", ["eraseflow", "repro", f"--jobs={jobs}"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert f"expected a whole number from 1 on, found '{jobs}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["repro", "--pull"], "--pull: arguments .* come after --, as in `python -m eraseflow repro -- --pull`"),
        (["repro", "base", "-f"], "repro -- base -f`"),
        (["full", "unicorn", "--dry"], "full unicorn -- --dry`"),
        (["claims", "--dry"], "claims -- --dry`"),
    ],
)
def test_arguments_of_dvc_have_their_place(monkeypatch, given, said):
    monkeypatch.chdir(PACKAGE.parent)
    monkeypatch.setattr(launcher, "run", lambda *_: pytest.fail("dvc was started"))
    monkeypatch.setattr(sys, "argv", ["eraseflow", *given])
    with pytest.raises(SystemExit, match=said) as end:
        __main__.main()
    assert "\n" not in str(end.value)


@pytest.mark.parametrize("command", ["repro", "full", "claims"])
def test_repro_and_full_have_a_help_of_their_own(monkeypatch, tmp_path, capsys, command):
    monkeypatch.chdir(tmp_path)  # where nothing could be checked
    monkeypatch.setattr(sys, "argv", ["eraseflow", command, "--help"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    said = capsys.readouterr().out
    assert end.value.code == 0 and "come after --" in said and f"eraseflow {command}" in said


def test_repro_checks_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "run", lambda *_: pytest.fail("dvc was started"))
    monkeypatch.setattr(sys, "argv", ["eraseflow", "repro"])
    with pytest.raises(ParamsError):
        __main__.main()


@pytest.mark.parametrize(
    ("arguments", "code", "options"),
    [
        ([], 0, [["--single-item", "--force", "concept@unicorn", "methods"], []]),
        ([], 3, [["--single-item", "--force", "concept@unicorn", "methods"]]),
        (["--", "--dry"], 0, [["--dry"]]),
    ],
)
def test_stages_whose_notes_are_not_right_run_first(monkeypatch, arguments, code, options):
    from eraseflow.outside import notes

    seen = []
    monkeypatch.chdir(PACKAGE.parent)
    monkeypatch.setattr(notes, "stale", lambda _: {"concept@unicorn": "1.jpg", "methods": "a.safetensors"})
    monkeypatch.setattr(launcher, "run", lambda command, preload: seen.append(command) or code)
    monkeypatch.setattr(sys, "argv", ["eraseflow", "repro", "--jobs", "1", *arguments])
    assert __main__.main() == code
    assert seen == [[*launcher.DVC, "repro", *given] for given in options]


def test_a_second_run_ends_at_ctrl_c_as_the_first(interrupt):
    """A child inherits that a signal is ignored."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert launcher.run(["true"], ["colorsys"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
