"""Seconds and machines stand where no hash sees them: two runs of equal numbers leave equal files."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import small_chain
from small_chain import quick, run, write
from test_report import ATTACKS, METHODS, contents, inputs, make_params, plainly  # noqa: F401  (fixtures)
from test_report import run as make_report

from eraseflow import rounds, timings
from eraseflow.cells.attack import attack
from eraseflow.params import Params, Table, load
from eraseflow.report import measured

pytestmark = pytest.mark.slow

TABLE = load().table.model_copy(update={"concepts": ["unicorn"], "methods": ["uce"], "attacks": ["p4d"]})


def make(cells: Path, steps: int = 3, method: str = "uce") -> list[Path]:
    """The results of a training and an attack by which their timings know them; the paths of the training's."""
    cell = cells / "unicorn" / method
    cell.mkdir(parents=True, exist_ok=True)
    (cell / "costs.json").write_text(json.dumps({"optimiser_steps": steps}))
    (cell / "training.csv").write_text("step,loss\n" + "".join(f"{step},1\n" for step in range(steps)))
    (cell / "attack-p4d.json").write_text(json.dumps({"attacked": steps}))
    return timings.results(cell, "")


def keep(made: list[Path], name: str = timings.TRAINING, seconds: float = 1.5, date: str = "2026-01-01") -> None:
    timings.keep(made, name, {"seconds": seconds, "peak_memory_bytes": 7}, "cpu", "fp32")
    path = made[0].with_name(timings.RECORD.format(name))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"date": date}))


def test_what_is_kept_of_a_stage_becomes_a_row(tmp_path, capsys):
    cells, report = tmp_path / "cells", tmp_path / "reports"
    keep(make(cells))
    keep([cells / "unicorn/uce/attack-p4d.json"], "attack-p4d", 2.25)
    timings.write({report: (TABLE, cells)})
    rows = timings.read(report / timings.FILE)
    assert list(rows.columns) == timings.COLUMNS and rows.attack.tolist() == ["", "p4d"]
    assert (
        rows.seconds.tolist() == ["1.5", "2.25"] and (rows.machine != "").all() and rows.cores.astype(int).gt(0).all()
    )
    assert capsys.readouterr().out.startswith(f"{report / timings.FILE}: 2 trainings and attacks are measured")


def test_a_timing_is_of_the_very_results(tmp_path):
    """Other results have none; what was measured of them before is found again, and the newest counts."""
    cells, file = tmp_path / "cells", tmp_path / timings.FILE
    keep(make(cells, 3), seconds=1, date="2026-01-02")
    timings.write({tmp_path: (TABLE, cells)})
    keep(make(cells, 4), seconds=2)
    timings.write({tmp_path: (TABLE, cells)})
    assert timings.read(file).seconds.tolist() == ["2"]
    before = file.read_bytes()
    (cells / "unicorn/uce/timing-training.json").unlink()
    timings.write({tmp_path: (TABLE, cells)})
    assert file.read_bytes() == before, "the file itself says it"
    keep(make(cells, 4), seconds=3, date="2025-12-31")
    timings.write({tmp_path: (TABLE, cells)})
    assert file.read_bytes() == before, "an older record"
    make(cells, 5)
    timings.write({tmp_path: (TABLE, cells)})
    assert timings.read(file).empty


def test_tables_that_share_cells_share_timings(tmp_path):
    """A cell that the cache gave back has no record where it is."""
    keep(make(tmp_path / "one"), seconds=4)
    make(tmp_path / "other")
    timings.write({tmp_path / "a": (TABLE, tmp_path / "one"), tmp_path / "b": (TABLE, tmp_path / "other")})
    assert timings.read(tmp_path / "b" / timings.FILE).seconds.tolist() == ["4"]


def test_nothing_is_written_where_cells_are_missing(tmp_path):
    make(tmp_path / "cells")
    both: Table = TABLE.model_copy(update={"methods": ["uce", "esd"]})
    with pytest.raises(SystemExit, match="cells: lacks cells of the table, which"):
        timings.write({tmp_path: (TABLE, tmp_path / "cells"), tmp_path / "b": (both, tmp_path / "cells")})
    assert not (tmp_path / timings.FILE).exists()


def test_half_a_record_is_none(tmp_path):
    keep(make(tmp_path))
    (tmp_path / "unicorn/uce/timing-attack-p4d.json").write_text('{"seconds": 1')
    assert [row["attack"] for row in timings.records(tmp_path)] == [""]


def rows_of(params: Params, cells: Path) -> pd.DataFrame:
    """A row for each training and attack but esd's: seconds by their place."""
    known = [
        dict(zip(timings.CELL, key, strict=True))
        | dict.fromkeys(timings.MEASURED, "1")
        | {"seconds": f"{100 + place}", "machine": "Pentium", "date": "2026-11-27T10:00:00Z", "commit": "0123456789"}
        | {"peak_memory_bytes": "" if key[2] else "123456789", "of": timings.digest(timings.results(cell, key[2]))}
        for place, key in enumerate(timings.every(params.table))
        for cell in [cells / key[0] / key[1]]
        if key[1] != "esd"
    ]
    return pd.DataFrame(known)[timings.COLUMNS]


def test_the_report_shows_what_is_measured_and_says_what_is_not(plainly, inputs, tmp_path):  # noqa: F811
    params, plain, timed = make_params(["unicorn"]), tmp_path / "plain", tmp_path / "timed"
    timed.mkdir()
    rows_of(params, inputs / "cells").to_csv(timed / timings.FILE, index=False)
    for out in (plain, timed):
        make_report(inputs, out, params)
    one, other = contents(plain), contents(timed)
    found = {name for name, content in one.items() if other[name] != content}
    assert found == {"table.md", "index.html"}, "all else is the same, whatever was measured"
    lines = [line.split(" | ") for line in (timed / "table.md").read_text().splitlines() if line.startswith("| e")]
    header = next(line for line in (timed / "table.md").read_text().splitlines() if line.startswith("| Method"))
    attack, training = (header.split(" | ").index(name) for name in ("Attack, s/prompt", "Training, s |"))
    # eraseflow: its training is the table's fourth, its attacks are on 22 of 24 prompts
    shown = [(line[attack], line[training].removesuffix(" |")) for line in lines]
    assert shown == [(f"{104 / 22:.1f}", "103"), (f"{105 / 22:.1f}", "103"), *[(measured.NOT, measured.NOT)] * 2]
    page = (timed / "index.html").read_text()
    assert "6 of 9 trainings and attacks are measured. 6 on Pentium, 1 core, 1, PyTorch 1, 2026-11-27, by the" in page
    assert "by the code of commit 0123456; up to 1 processes ran at a time (load)." in page
    assert "123.5 MB" in page and "123.5 MB" not in (plain / "index.html").read_text()
    assert "0 of 9 trainings and attacks are measured." in (plain / "index.html").read_text()


def test_an_attack_on_nothing_has_no_seconds(plainly, inputs, tmp_path):  # noqa: F811
    """The unedited model shows every prompt un-attacked: there is nothing to measure, and nothing is lacking."""
    make_report(inputs, tmp_path, make_params(["unicorn"], ["original"]))
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| original")]
    assert len(lines) == len(ATTACKS) and all(line.count(measured.NOT) == 1 for line in lines)


@pytest.mark.parametrize("value", ["", "-1", "nan", "inf", "long"])
def test_a_number_that_is_none_is_one_line(inputs, tmp_path, value):  # noqa: F811
    params = make_params(["unicorn"], METHODS)
    rows = rows_of(params, inputs / "cells")
    rows.loc[1, "seconds"] = value
    rows.to_csv(tmp_path / timings.FILE, index=False)
    said = rf"unicorn original random_prefix: seconds: expected a number from 0 on, found '{value}'"
    with pytest.raises(SystemExit, match=said):
        measured.measured(params, inputs / "cells", tmp_path / timings.FILE)


def test_another_file_of_that_name_is_one_line(tmp_path):
    (tmp_path / timings.FILE).write_text("concept,method\n")
    with pytest.raises(SystemExit, match=r"timings.csv: has no column 'attack'; `python -m eraseflow timings` writes"):
        timings.read(tmp_path / timings.FILE)


def killed_once(kills: list[str]) -> Callable[..., None]:
    """The attack stage, killed while its first attacked round is recorded and then begun again."""

    def run(*arguments) -> None:
        record, rounds_of = rounds.Journal.record, iter(range(99))

        def dying(journal, tried) -> None:
            if next(rounds_of) == 1:
                kills.append(str(arguments[-1]))
                raise KeyboardInterrupt
            record(journal, tried)

        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(rounds.Journal, "record", dying)
            attack(*arguments)
            return  # every prompt succeeds un-attacked
        attack(*arguments)

    return run


def test_two_runs_of_all_stages_write_the_same_bytes(tmp_path, monkeypatch):
    """Though the attacks of the second are killed and go on; but for the records, of which nothing takes notice."""
    made: list[dict[str, bytes]] = []
    kills: list[str] = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder)
        monkeypatch.chdir(folder)
        params = load(folder / "params.yaml")
        names = {"methods": ["uce", "eraseflow"], "attacks": ["unlearndiffatk"]}
        params = params.model_copy(update={"table": params.table.model_copy(update=names)})
        with quick():
            run(params)
        found = {path: content for path, content in contents(folder).items() if path.startswith(("data/", "reports/"))}
        kept = {path for path in found if Path(path).name.startswith("timing-")}
        assert len(kept) == 2 * 2
        made.append({path: content for path, content in found.items() if path not in kept})
        monkeypatch.setattr(small_chain, "attack", killed_once(kills))
    assert kills and made[0] == made[1]
