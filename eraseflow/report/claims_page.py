"""The claims table's joint report: verdicts, rates over seeds, pairs, luck and order, from the tables of all its
seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eraseflow.outputs import write_csv, write_text
from eraseflow.params import Params
from eraseflow.project import files
from eraseflow.report import baselines, claims, collapsed, means, orders, outcomes, pairs, published
from eraseflow.report.readable import LUCK, markdown_table
from eraseflow.report.table import check_networks
from eraseflow.report.templates import template

TITLE = "The claims table"
PURPOSE = (
    "What this project claims, it claims from this table: {kinds}, on which nothing was tuned, all of their "
    "prompts, {seeds} seeds of training, drawing and attacking. Claims, thresholds and rules were written down "
    "before it was made (docs/preregistration.md), and are reported as they came out."
)


@dataclass(frozen=True)
class Found:
    """verdicts: claims.claims(). rates: means.means(). pairs, luck, orders: of pairs, baselines and orders; luck
    also has `named`, the attack's successes that name the concept."""

    verdicts: pd.DataFrame
    rates: pd.DataFrame
    pairs: pd.DataFrame
    luck: pd.DataFrame
    orders: pd.DataFrame


def write(params: Params, names: Sequence[str], out: Path, verdicts: Path) -> None:
    """From the reports in `out`, a folder a concept and seed (names): `verdicts`, and in `out` the lists and pages.

    params: their table is that of all concepts.
    Raises: CellError where a report is missing, or its prompts are not those of its other seeds.
    """
    found = find(params, [out / name for name in names])
    lists = {"rates": found.rates, "luck": found.luck, "order": found.orders}
    for name, rows in lists.items():
        write_csv(rows, out / f"{name}.csv", float_format="%.6g")
    pairs.write(found.pairs, out / "pairs.csv")
    write_csv(found.verdicts, verdicts, float_format="%.4f")
    pages = {name: files.made_by(out / name) for name in names if (out / name / "index.html").is_file()}
    write_text(markdown(params, found), out / "table.md")
    write_text(_page(params, found, pages), out / "index.html")


def find(params: Params, folders: Sequence[Path]) -> Found:
    """What the outcomes.parquet and table.csv of these reports say together.

    Raises: CellError where their scores are of different networks.
    """
    prompts = outcomes.read([folder / "outcomes.parquet" for folder in folders])
    tables = []
    for folder in folders:
        run = pd.read_parquet(folder / "outcomes.parquet", columns=["run"])["run"].iloc[0]
        tables.append(pd.read_csv(folder / "table.csv").assign(run=run))
    check_networks(pd.concat(tables), str(folders[0].parent))
    tested, luck = pairs.pairs(prompts), baselines.against(prompts)
    cell = ["concept", "method", "attack"]
    named = pd.concat(tables).groupby(cell, sort=False)["named_successes"].sum().rename("named").reset_index()
    marked = set().union(*(collapsed.rows(table) for table in tables))
    ordered = orders.orders(published.read(), prompts, marked)
    return Found(
        verdicts=claims.claims(prompts, luck, ordered, marked),
        rates=means.means(prompts, tables, pairs.letters(tested, prompts)),
        pairs=tested,
        luck=luck.merge(named, on=cell, how="left", validate="many_to_one"),
        orders=ordered,
    )


def purpose(params: Params, found: Found) -> str:
    """What the table is for."""
    kinds = found.rates.drop_duplicates("concept")["kind"].value_counts(sort=False)
    of = ", ".join(f"{count} {str(kind).replace('_', '-')}" for kind, count in kinds.items())
    seeds = len(params.claims.seeds) if params.claims else 1
    return PURPOSE.format(kinds=f"{len(params.table.concepts)} concepts ({of})", seeds=seeds)


def readable(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The claims as text."""
    rows = []
    for row in verdicts.to_dict("records"):
        form = "{:.2f}" if row["claim"].startswith("order") else "{:.0%}"
        figure = "" if pd.isna(row["figure"]) else form.format(row["figure"])
        if not pd.isna(row["low"]):
            figure += f" ({form.format(row['low'])} to {form.format(row['high'])})"
        seeds = ", ".join(form.format(float(value)) for value in row["seeds"].split())
        named = {"Claim": row["claim"], "About": row["about"], "Figure (95 % interval)": figure, "Seeds": seeds}
        rows.append(named | {"Threshold": row["threshold"], "Verdict": row["verdict"], "That is": row["said"]})
    return pd.DataFrame(rows, dtype=str)


def lucky(luck: pd.DataFrame, concept: str) -> pd.DataFrame:
    """One concept's attacks beside luck as text, a row an edit."""
    rows = []
    for row in luck[luck["concept"] == concept].to_dict("records"):
        beats = row["successes"] > row["baseline"] and row["p_holm"] < pairs.LEVEL
        answer = "no room" if row["left"] < baselines.ROOM else "yes" if beats else "no"
        counts = f"{row['successes']} : {row['baseline']} of {row['n']}"
        named = {"Method": row["method"], "Attack": row["attack"], "Against": row["against"], "Beats it": answer}
        named |= {"Successes at equal distinct pictures": counts, "p (Holm)": baselines.p_value(row["p_holm"])}
        cheap = f"{row['at_equal_passes']} : {row['baseline_at_equal_passes']} of {row['n']}"
        rows.append(
            named | {"Successes at equal passes": cheap, "Successes that name the concept": f"{row['named']:.0f}"}
        )
    return pd.DataFrame(rows, dtype=str)


def markdown(params: Params, found: Found) -> str:
    """The claims, the order and the rates, for the repository."""
    first = ", ".join(orders.sentence(row) for row in orders.first(found.orders).to_dict("records"))
    parts = [f"# {TITLE}", purpose(params, found), markdown_table(readable(found.verdicts))]
    parts += [f"Kendall's rank correlation of the order of methods with the published one: {first}."] * bool(first)
    parts += [means.NOTE, *means.markdown(found.rates)]
    return "\n\n".join(parts) + "\n"


def _page(params: Params, found: Found, pages: dict[str, str | None]) -> str:
    return template("claims.html.j2").render(
        title=TITLE,
        purpose=purpose(params, found),
        verdicts=readable(found.verdicts).to_dict("split"),
        orders_at_first=[orders.sentence(row) for row in orders.first(found.orders).to_dict("records")],
        orders_note=orders.NOTE,
        rates_note=means.NOTE,
        luck_note=LUCK,
        pages=pages,
        concepts=[
            {
                "name": name,
                "block": params.concepts[name],
                "rates": means.readable(found.rates, name).to_dict("split"),
                "luck": lucky(found.luck, name).to_dict("split"),
            }
            for name in params.table.concepts
        ],
    )
