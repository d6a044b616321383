"""`make claims`: the table from which README and page may claim anything, with several seeds (`claims:` in
params.yaml).

A concept and a seed is a table of its own, in a copy of the project (see work_copy), so that all cores have work and
what has been made is not made again. At last their outcomes are tested together (see report/claims_page.py).
"""

from collections.abc import Sequence
from pathlib import Path

from eraseflow import tables as tables_of
from eraseflow.checks import check_table
from eraseflow.mistakes import ParamsError, check_known, check_once
from eraseflow.params import Params, Table
from eraseflow.ready import ready
from eraseflow.work_copy import left_out

COPIES, REPORT, VERDICTS = Path(".work/claims"), Path("reports/claims"), Path("reports/claims.csv")
PURPOSE = (
    "One concept and one seed of the claims table: its pictures, prompts and curves, to look at. "
    "What may be claimed stands in reports/claims/index.html, of all its concepts and seeds together."
)


def table(params: Params) -> Table:
    """The concepts, methods and attacks of `claims`, with all prompts; of the default table's testbed.

    Raises: ParamsError where params.yaml has no such block, or a name in it is not known.
    """
    claims = params.claims
    if claims is None:
        raise ParamsError("params.yaml: claims: is missing; `make claims` needs concepts, methods, attacks and seeds")
    for family in ("concepts", "methods", "attacks"):
        check_once(getattr(claims, family), f"claims.{family}")
        for name in getattr(claims, family):
            check_known(name, getattr(params, family), f"claims.{family}", family[:-1])
    check_once([str(seed) for seed in claims.seeds], "claims.seeds")
    tuned_on = params.tuning.concepts.values() if params.tuning else ()
    if name := next((name for name in claims.concepts if name in tuned_on), None):
        raise ParamsError(
            f"params.yaml: claims.concepts: settings are tuned on {name!r}; nothing can be claimed from it"
        )
    names = claims.model_dump(include={"concepts", "methods", "attacks"})
    return params.table.model_copy(update=names | {"prompts": None, "kept": None, "transfer": []})


def tables(params: Params) -> dict[str, Table]:
    """The tables by the names of their folders: a concept and a seed each, all of the first seed first."""
    whole, seeds = table(params), params.claims.seeds if params.claims else []
    return {
        f"{concept}-seed-{seed}": whole.model_copy(update={"concepts": [concept], "seed": seed})
        for seed in seeds
        for concept in whole.concepts
    }


def run(params: Params, names: Sequence[str], for_dvc: Sequence[str] = (), engine: str = "") -> int:
    """Run the tables and put their reports into reports/claims, and the verdicts beside it; returns an exit code.

    names: of tables, all of them if there is none. for_dvc: arguments of each `dvc repro`, such as --pull. engine: see
    run/slots.py. Raises: SystemExit with one line where something is wrong or missing, before any stage has begun.
    """
    every, whole = tables(params), table(params)

    def check() -> None:
        for one in every.values():
            check_table(tables_of.of(params, one), Path())
        ready(tables_of.of(params, whole))

    return tables_of.run(made(params), check, names, for_dvc, engine, lambda: summarise(params, REPORT, VERDICTS))


def made(params: Params) -> tables_of.Tables:
    linked = left_out(tables_of.of(params, table(params)), Path())
    return tables_of.Tables("claims", tables(params), COPIES, REPORT, PURPOSE, _bare(params), linked)


def _bare(params: Params) -> list[str]:
    """The tables of which only the outcomes are published: the pictures of the first seed are enough."""
    return list(tables(params))[len(table(params).concepts) :]


def reports(params: Params) -> dict[Path, tuple[Table, Path]]:
    """The folder of each report with pictures whose cells are here: its table and its cells."""
    if params.claims is None:
        return {}
    bare = _bare(params)
    shown = {name: one for name, one in tables(params).items() if name not in bare}
    return tables_of.reports(shown, COPIES, REPORT)


def summarise(params: Params, out: Path, verdicts: Path) -> None:
    """Test the outcomes of all tables together; where some are not made yet, say which."""
    every = tables(params)
    if lacking := [name for name in every if not (out / name / "outcomes.parquet").is_file()]:
        print(f"{verdicts} stays as it is; not made yet: {', '.join(lacking)}")
        return
    from eraseflow.report import claims_page  # takes seconds

    claims_page.write(tables_of.of(params, table(params)), list(every), out, verdicts)
