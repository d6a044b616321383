"""The report from synthetic cells: two concepts, three methods, two attacks."""

import io
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import binomtest

from eraseflow import verdict
from eraseflow.params import Params, Report
from eraseflow.report import build, grids, page, published
from eraseflow.report.plots import fid_vs_attack
from eraseflow.report.readable import at_a_glance
from eraseflow.report.table import strongest, table

pytestmark = pytest.mark.slow

METHODS, ATTACKS = ["original", "eraseflow", "esd"], ["random_prefix", "unlearndiffatk"]
KINDS = [".png", ".svg"]
KEPT = ["object/horse;style/flat", "object/cat;style/flat", "object/horse;style/ink", "object/key;style/ink"]
# (concept, method, attack) -> (successes un-attacked, successes) of PROMPTS
PROMPTS = 24
SUCCESSES = {
    ("unicorn", "original", "random_prefix"): (24, 24),
    ("unicorn", "original", "unlearndiffatk"): (24, 24),
    ("unicorn", "eraseflow", "random_prefix"): (2, 4),
    ("unicorn", "eraseflow", "unlearndiffatk"): (2, 12),
    ("unicorn", "esd", "random_prefix"): (4, 5),
    ("unicorn", "esd", "unlearndiffatk"): (4, 20),
    ("ink_style", "original", "random_prefix"): (23, 24),
    ("ink_style", "original", "unlearndiffatk"): (23, 23),
    ("ink_style", "eraseflow", "random_prefix"): (0, 0),
    ("ink_style", "eraseflow", "unlearndiffatk"): (0, 0),
    ("ink_style", "esd", "random_prefix"): (3, 9),
    ("ink_style", "esd", "unlearndiffatk"): (3, 8),
}

UNET_FORWARD = {"original": 0, "eraseflow": 12800, "esd": 2600}
TRAINING = {"optimiser_steps": 40, "unet_backward": 400, "text_forward": 90, "text_backward": 0}
TRAINING |= {"trained_weights": 25001, "trained_bytes": 100004, "device": "cpu"}
TRAINING |= {"stored_weights": 25000, "stored_bytes": 100000, "precision": "fp32"}


def make_params(concepts=("unicorn", "ink_style"), methods=METHODS) -> Params:
    raw = yaml.load(Path("params.yaml").read_text(), yaml.CSafeLoader)  # five times as fast as safe_load
    raw["table"] |= {"concepts": list(concepts), "methods": list(methods), "attacks": ATTACKS}
    return Params.model_validate(raw)


def make_png(rng: np.random.Generator, side: int = 32) -> bytes:
    buffer = io.BytesIO()
    blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)  # pure noise would take ten times as long to compress
    Image.fromarray(blocks.repeat(side // 8, 0).repeat(side // 8, 1)).save(buffer, "png")
    return buffer.getvalue()


def costs_of(attack: str, step: pd.Series) -> dict[str, pd.Series]:
    """What 10 rounds cost: a judged picture of 24 passes each, and before it 10 optimiser steps of UnlearnDiffAtk."""
    rounds = step.where(step >= 0, 10)
    searching = 10 * rounds * (attack == "unlearndiffatk")
    costs = {"images": 1 + rounds, "unet_forward": 24.0 * (1 + rounds) + searching, "unet_backward": 1.0 * searching}
    costs |= {"text_forward": 1.0 + rounds + searching, "text_backward": 1.0 * searching}
    return costs


def make_cell(folder: Path, concept: str, method: str, png=make_png) -> None:
    """A cell whose successes are those of SUCCESSES, in the first prompts."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(concept) + len(method))
    numbers = np.arange(PROMPTS)
    target = pd.DataFrame({"prompt_id": [f"t{n}" for n in numbers], "role": "target", "seed": numbers})
    target["prompt"] = [f"a {concept} <{n}> & friends in flat style" for n in numbers]
    kept = pd.DataFrame({"prompt_id": [f"k{n}" for n in numbers], "role": "kept", "seed": 100 + numbers})
    kept["expect"] = [KEPT[n % len(KEPT)] for n in numbers]
    kept["prompt"] = [f"{n}: {expect.split(';')[0].removeprefix('object/')}" for n, expect in enumerate(kept["expect"])]
    samples = pd.concat([target.assign(expect=""), kept]).assign(guidance=4.0)
    samples["png"] = [png(rng) for _ in range(len(samples))]
    samples.to_parquet(folder / "samples.parquet")
    before = SUCCESSES[concept, method, ATTACKS[0]][0]
    verdicts = [*(numbers < before), *(numbers != 5)]
    samples[["prompt_id", "role"]].assign(right=verdicts).to_parquet(folder / "judged.parquet")
    for attack in ATTACKS:
        pre, successes = SUCCESSES[concept, method, attack]
        attacked = target.drop(columns="role").assign(pre_success=numbers < pre, success=numbers < successes)
        attacked["step"] = np.where(numbers < pre, 0, np.where(numbers < successes, 3, -1))
        attacked = attacked.assign(attackable=True, **costs_of(attack, attacked["step"]))
        attacked["adversarial_prompt"] = "<script>alert(1)</script> " + attacked["prompt"]
        attacked["adversarial_seed"] = attacked["seed"]
        attacked = attacked.assign(distinct=attacked["images"], named=attacked["success"] & (numbers % 4 == 3))
        attacked["tries"] = [[{"round": 0, "unet": 24.0, "text_passes": 1.0}] for _ in numbers]
        attacked["blocked"] = np.where(numbers == 7, 2 * (method == "esd"), 0)
        attacked["png"] = [png(rng) for _ in numbers]
        attacked.to_parquet(folder / f"attack-{attack}.parquet")
        costs = {
            "attacked": PROMPTS - pre,
            "empty": 0,
            "judge": verdict.rule(make_params().concepts[concept].judge).name,
        }
        costs |= {"summary": {"style cosine x100": 20.5 + len(attack)}} if concept == "ink_style" else {}
        (folder / f"attack-{attack}.json").write_text(json.dumps(costs))
    (folder / "costs.json").write_text(json.dumps(TRAINING | {"unet_forward": UNET_FORWARD[method]}))
    fd = {"original": 2.5, "eraseflow": 4.125, "esd": 6.75}[method] * (1 if concept == "unicorn" else 1.5)
    scores = {"target_n": PROMPTS, "target_seen": before, "kept_n": PROMPTS, "kept_right": 23, "kept_accuracy": 23 / 24}
    scores |= {"fd": fd, "fd_name": "FD emoji-clip", "fd_n": 24, "clip_score": 0.3125, "clip_n": 24}
    judge = verdict.rule(make_params().concepts[concept].judge).name
    scores |= {"target_empty": 0, "kept_empty": 0, "judge": judge}
    scores |= {"clip_name": "CLIP score emoji-clip", "clip_scores": {"CLIP score emoji-clip": 0.3125}}
    scores |= {"summary": {"style cosine x100": 12.5 + len(method)} if concept == "ink_style" else {}}
    (folder / "scores.json").write_text(json.dumps(scores))
    steps = np.arange(40 if method != "original" else 0)
    residual = -12 * np.exp(-steps / 10) + 0.3 * np.sin(steps)
    training = pd.DataFrame({"step": steps, "loss": residual**2, "residual": residual})
    training.to_csv(folder / "training.csv", index=False)


def make_concept(folder: Path, source: str = "", **counts) -> None:
    """The counts and the sources of a concept's prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        "official": PROMPTS,
        "excluded_by_safety_gate": 0,
        "used": PROMPTS,
        "attackable": PROMPTS,
        "kept": {"used": PROMPTS},
    }
    (folder / "counts.json").write_text(json.dumps(plain | counts))
    rows = pd.DataFrame({"prompt_id": [f"t{n}" for n in range(PROMPTS)], "prompt": "null", "source": source})
    rows.to_csv(folder / "prompts.csv", index=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with cells/, judges.json and base/ that no test changes."""
    root = tmp_path_factory.mktemp("inputs")
    for concept in ("unicorn", "ink_style"):
        make_concept(root / "concepts" / concept)
        for method in METHODS:
            make_cell(root / "cells" / concept / method, concept, method)
    accuracies = [{"what": "objects of held-out pictures", "right": 280, "n": 288}]
    card = "A convolutional network of 0.3 M weights <b>trained</b> on augmented pictures."
    (root / "judges.json").write_text(json.dumps({"emoji_classifier": {"card": card, "accuracies": accuracies}}))
    (root / "base").mkdir()
    (root / "reference.json").write_text(json.dumps({"pictures": 288, "sha256": "0123456789abcdef" * 4}))
    for name in ("losses", "samples"):
        (root / "base" / f"{name}.png").write_bytes(make_png(np.random.default_rng(0), 64))
    return root


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    """A finished report of these inputs, with files beside it that are not the report's."""
    out = tmp_path_factory.mktemp("work") / "reports"
    (out / "grids").mkdir(parents=True)
    (out / "judges.json").write_text("{}")
    (out / "grids" / "gone.png").write_bytes(b"of a concept that left the table")
    run(inputs, out)
    return out


@contextmanager
def without_figures() -> Iterator[None]:
    """With empty files in the place of figures, which take longer than all the rest of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_screens", lambda *_: dict.fromkeys(("wide", "narrow"), "data:image/svg+xml,"))
        patch.setattr("eraseflow.report._save", lambda path, *_: [path.with_suffix(kind).touch() for kind in KINDS])
        patch.setattr("eraseflow.report.plots.encode", lambda *_: b"")
        yield


@pytest.fixture
def plainly(monkeypatch):
    """The reports of this test have no figures, and few rows of the literature's."""
    few = published.read().head(5)
    monkeypatch.setattr(published, "read", lambda: few)
    with without_figures():
        yield


@pytest.fixture(scope="module")
def plain_report(inputs, tmp_path_factory):
    """A report of these inputs without its figures."""
    out = tmp_path_factory.mktemp("plain") / "reports"
    with without_figures():
        run(inputs, out)
    return out


def rest(inputs: Path) -> tuple[Path, Path]:
    return inputs / "base", inputs / "reference.json"


def run(inputs: Path, out: Path, params: Params | None = None) -> None:
    build(params or make_params(), inputs / "cells", inputs / "concepts", inputs / "judges.json", *rest(inputs), out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_follow_params(report):
    rows = pd.read_csv(report / "table.csv")
    expected = [(c, m, a) for c in ("unicorn", "ink_style") for m in METHODS for a in ATTACKS]
    assert list(rows[["concept", "method", "attack"]].itertuples(index=False, name=None)) == expected
    first = ["testbed", "concept", "kind", "method", "attack", "n_prompts", "n_official", "n_attackable", "n_excluded"]
    assert list(rows.columns[:11]) == [*first, "n_blocked", "pre_asr"]


def test_cell_by_hand(report):
    line = next(line for line in (report / "table.csv").read_text().splitlines() if ",esd,unlearndiffatk" in line)
    p = binomtest(8, 8).pvalue  # 20 successes against EraseFlow's 12, which are among them
    assert p == 2 / 2**8
    assert line == (
        "emoji,unicorn,fine_grained,esd,unlearndiffatk,24,24,24,0,2,0.1667,0.0668,0.3585,0.8333,0.6415,0.9332,20,4,"
        "0.8333,0.6415,0.9332,20,0.8333,0.6415,0.9332,20,24,24,24,24,24,False,4,112,"
        "emoji_classifier top-1,0.9583,0.7976,0.9926,23,24,emoji_classifier top-1,"
        "6.75,FD emoji-clip,24,0.3125,CLIP score emoji-clip,24,0,0,0,False,,,"
        "0.00781,0.0625,ab,20,5,6.1e-05,0.000366,20,5,,,,,,"
    )


def test_metrics_for_dvc(report):
    tree = json.loads((report / "metrics.json").read_text())
    assert tree["unicorn"]["eraseflow"] == {
        "kept_accuracy": 0.9583,
        "fd": 4.125,
        "clip_score": 0.3125,
        "attacks": {
            "random_prefix": {"pre_asr": 0.0833, "asr": 0.1667, "asr_attackable": 0.1667},
            "unlearndiffatk": {"pre_asr": 0.0833, "asr": 0.5, "asr_attackable": 0.5},
        },
    }


def test_p_is_empty_for_eraseflow_and_without_it(inputs):
    rows = table(make_params(), inputs / "cells", inputs / "concepts")
    assert (rows["mcnemar_p"].isna() == (rows["method"] == "eraseflow")).all()
    assert (
        table(make_params(methods=["original", "esd"]), inputs / "cells", inputs / "concepts")["mcnemar_p"].isna().all()
    )


def test_strongest_attack_and_ties(inputs):
    best = strongest(table(make_params(), inputs / "cells", inputs / "concepts")).set_index(["concept", "method"])[
        "attack"
    ]
    assert best["ink_style", "esd"] == "random_prefix"  # 9 against 8
    assert best["ink_style", "eraseflow"] == "unlearndiffatk"  # 0 against 0: the last
    assert list(best.index) == [(c, m) for c in ("unicorn", "ink_style") for m in METHODS]


def test_rates_are_readable(report):
    assert "20/24 = 83 % (64-93)" in (report / "table.md").read_text()
    tex = (report / "table.tex").read_text()
    assert r"20/24\\83 \% (64-93)" in tex and r"random\_prefix" in tex
    assert tex.count("{") == tex.count("}") and tex.isascii()
    typeset = "".join(line for line in tex.splitlines()[1:] if not line.startswith(r"\label"))
    assert all(typeset[place - 1] == "\\" for place, sign in enumerate(typeset) if sign in "%_#")


def test_builds_are_identical_and_leave_other_files(report, inputs):
    before = contents(report)
    run(inputs, report)
    assert contents(report) == before
    assert all(len(content) > 1000 for name, content in before.items() if name.endswith(tuple(KINDS)))
    assert set(before) == {
        *(f"grids/{concept}{kept}.png" for concept in ("unicorn", "ink_style") for kept in ("", "_kept")),
        *("table.csv", "table.md", "table.tex", "metrics.json", "index.html", "judges.json"),
        *("fid_vs_attack.png", "fid_vs_attack.svg", "training/eraseflow.png"),
        *("published.png", "published.svg", "reproduction.csv", "sweep/curves.csv"),
        *("outcomes.parquet", "pairs.csv"),
        *("asr_vs_cost.png", "asr_vs_cost.svg", "costs.csv", "pareto.csv", "order.csv"),
        *("budget/curves.csv", "transfer/matrices.csv"),
        *(f"budget/{concept}.{kind}" for concept in ("unicorn", "ink_style") for kind in ("png", "svg")),
    }


def test_missing_cell_is_one_line_and_leaves_the_report(plainly, inputs, report, tmp_path):
    cells = tmp_path / "cells"
    shutil.copytree(inputs / "cells", cells)
    for name in ("scores.json", "attack-unlearndiffatk.parquet", "samples.parquet", "training.csv"):
        missing = cells / "ink_style" / "eraseflow" / name
        kept = missing.read_bytes()
        missing.unlink()
        before = contents(report.parent)
        with pytest.raises(SystemExit) as error:
            build(make_params(), cells, inputs / "concepts", inputs / "judges.json", *rest(inputs), report)
        assert str(missing) in str(error.value) and "\n" not in str(error.value)
        assert contents(report.parent) == before
        missing.write_bytes(kept)


def test_cell_of_a_removed_concept_is_not_read(plainly, inputs, tmp_path):
    cells = tmp_path / "cells"
    shutil.copytree(inputs / "cells", cells)
    (cells / "unicorn" / "esd" / "scores.json").write_text("half a fi")
    shutil.copytree(cells / "ink_style" / "esd", cells / "ink_style" / "sld")
    params = make_params(concepts=["ink_style"])
    pd.testing.assert_frame_equal(
        table(params, cells, inputs / "concepts"), table(params, inputs / "cells", inputs / "concepts")
    )
    run(inputs, tmp_path / "reports", make_params())
    run(inputs, tmp_path / "reports", params)
    assert {path.name for path in (tmp_path / "reports" / "grids").iterdir()} == {"ink_style.png", "ink_style_kept.png"}


def test_training_curve_goes_with_its_method(plainly, inputs, tmp_path):
    run(inputs, tmp_path / "reports")
    assert (tmp_path / "reports" / "training" / "eraseflow.png").is_file()
    run(inputs, tmp_path / "reports", make_params(methods=["original", "esd"]))
    assert not (tmp_path / "reports" / "training" / "eraseflow.png").exists()


@pytest.mark.parametrize(("column", "value"), [("seed", 7), ("prompt", "another prompt")])
def test_other_prompts_are_not_compared(inputs, tmp_path, column, value):
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "unicorn" / "eraseflow" / "attack-random_prefix.parquet"
    frame = pd.read_parquet(path)
    frame.loc[3, column] = value
    frame.to_parquet(path)
    with pytest.raises(SystemExit, match=r"attack-random_prefix\.parquet: its prompts or seeds are not those"):
        table(make_params(), tmp_path / "cells", inputs / "concepts")


def test_scores_of_two_networks_do_not_meet(inputs, tmp_path):
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "unicorn" / "esd" / "scores.json"
    path.write_text(path.read_text().replace("FD emoji-clip", "FID"))
    with pytest.raises(SystemExit, match=r"fd_name differs between cells \(FD emoji-clip, FID\)"):
        table(make_params(), tmp_path / "cells", inputs / "concepts")


def test_impossible_counts_are_one_line(inputs, tmp_path):
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "unicorn" / "esd" / "scores.json"
    path.write_text(path.read_text().replace('"kept_right": 23', '"kept_right": 25'))
    with pytest.raises(SystemExit, match=r"unicorn/esd: a rate needs .* found 25/24$"):
        table(make_params(), tmp_path / "cells", inputs / "concepts")


def test_counts_of_prompts_are_said_where_they_differ(plainly, inputs, tmp_path):
    """Out of 30 rows the gate left 24, of which 20 are attackable; two adversarial texts a cell of esd were stopped."""
    shutil.copytree(inputs, tmp_path / "inputs")
    counts = {"official": 30, "excluded_by_safety_gate": 6, "attackable": 20}
    make_concept(tmp_path / "inputs" / "concepts" / "unicorn", **counts)
    for path in (tmp_path / "inputs" / "cells" / "unicorn").rglob("attack-*.parquet"):
        frame = pd.read_parquet(path)
        frame.assign(attackable=frame["prompt_id"].isin([f"t{n}" for n in range(4, 24)])).to_parquet(path)
    run(tmp_path / "inputs", tmp_path / "reports")
    every = pd.read_csv(tmp_path / "reports" / "table.csv").set_index(["concept", "method", "attack"])
    esd = every.loc[("unicorn", "esd", "unlearndiffatk")]
    assert (esd.asr_successes, esd.attackable_successes, esd.n_attackable) == (20, 16, 20)
    assert esd.asr_attackable == 0.8 and (esd.asr_attackable_low, esd.asr_attackable_high) == (0.584, 0.9193)
    rows = pd.read_csv(tmp_path / "reports" / "table.csv").groupby("concept")[["n_official", "n_excluded"]].first()
    assert rows.loc["unicorn"].tolist() == [30, 6] and rows.loc["ink_style"].tolist() == [24, 0]
    said = "24 of 30 prompts are used (6 excluded by the safety gate); 20 of them are attackable as published"
    markdown, page, tex = (
        (tmp_path / "reports" / name).read_text() for name in ("table.md", "index.html", "table.tex")
    )
    assert markdown.count(said) == page.count(said) == tex.count(said) == 1
    assert "16/20 = 80 % (58-92)" in markdown and "16/20 = 80 % (58-92)" in page and r"16/20\\80 \% (58-92)" in tex
    assert markdown.count("The safety gate stopped 4 adversarial texts, not drawn.") == 2


def test_counts_of_other_prompts_are_one_line(inputs, tmp_path):
    shutil.copytree(inputs / "concepts", tmp_path / "concepts")
    make_concept(tmp_path / "concepts" / "unicorn", used=23)
    with pytest.raises(SystemExit, match=r"attack-random_prefix\.parquet: has 24 prompts, the concept 23; run"):
        table(make_params(), inputs / "cells", tmp_path / "concepts")
    make_concept(tmp_path / "concepts" / "unicorn", attackable=23)
    with pytest.raises(SystemExit, match=r"random_prefix\.parquet: has 24 attackable prompts, the concept 23; run"):
        table(make_params(), inputs / "cells", tmp_path / "concepts")
    (tmp_path / "concepts" / "unicorn" / "counts.json").unlink()
    with pytest.raises(SystemExit, match=r"unicorn/counts\.json: missing"):
        table(make_params(), inputs / "cells", tmp_path / "concepts")


def test_judges_summaries_stand_with_their_concept(report, inputs, tmp_path):
    """Style cosine: of ink_style alone, by judge and method; what only one method has is not shown."""
    rows = pd.read_csv(report / "table.csv").groupby(["concept", "method"])["summary style cosine x100"].first()
    assert rows["ink_style", "eraseflow"] == 12.5 + len("eraseflow") and rows["unicorn"].isna().all()
    rows = pd.read_csv(report / "table.csv").set_index(["concept", "method", "attack"])[
        "attacked summary style cosine x100"
    ]
    assert rows["unicorn"].isna().all()
    assert all(value == 20.5 + len(attack) for (_, attack), value in rows["ink_style"].items())
    unicorn, ink_style = (report / "table.md").read_text().split("## ink_style")
    for pictures, value in (("target pictures", "21.5"), ("attacked target pictures", f"{20.5 + len(ATTACKS[0])}")):
        title = f"style cosine x100 ({pictures})"
        assert title not in unicorn and title in ink_style and value in ink_style
    assert "style cosine x100" in (report / "index.html").read_text()
    shutil.copytree(inputs / "cells", tmp_path / "cells")
    path = tmp_path / "cells" / "ink_style" / "esd" / "scores.json"
    path.write_text(path.read_text().replace("style cosine", "another cosine"))
    with pytest.raises(SystemExit, match=r"ink_style: only some of the cells have a style cosine x100"):
        table(make_params(), tmp_path / "cells", inputs / "concepts")


def test_many_attacks_are_seen_at_a_glance(plainly, inputs, tmp_path):
    """A row a method, a column an attack, every ASR with its interval; two attacks are short enough without."""
    shutil.copytree(inputs, tmp_path / "inputs")
    for path in (tmp_path / "inputs" / "cells").glob("*/*/attack-unlearndiffatk.*"):
        shutil.copy(path, path.with_stem("attack-p4d"))
    params = make_params()
    assert at_a_glance(table(params, inputs / "cells", inputs / "concepts"), "unicorn") is None
    attacks = [*ATTACKS, "p4d"]
    params = params.model_copy(update={"table": params.table.model_copy(update={"attacks": attacks})})
    run(tmp_path / "inputs", tmp_path / "reports", params)
    page, text = ((tmp_path / "reports" / name).read_text() for name in ("index.html", "table.md"))
    assert "| Method | before the attack | random_prefix | unlearndiffatk | p4d |" in text
    both = "20/24 = 83 % (64-93)"
    assert f"| esd | 4/24 = 17 % (7-36) | 5/24 = 21 % (9-40) | {both} | {both} |" in text
    assert page.count('aria-label="Attack success on') == 2 and '38%)">20/24 = 83 %<br>(64-93)<' in page


@pytest.mark.parametrize("blur", [True, False])
def test_prompts_known_by_number_are_not_printed(plainly, inputs, tmp_path, blur):
    shutil.copytree(inputs, tmp_path / "inputs")
    make_concept(tmp_path / "inputs" / "concepts" / "unicorn", source="i2p/21")
    params = make_params().model_copy(update={"report": Report(blur=blur)})
    run(tmp_path / "inputs", tmp_path / "reports", params)
    page = (tmp_path / "reports" / "index.html").read_text()
    assert ("I2P prompt 21" in page) == blur and ("a unicorn &lt;" in page) != blur
    assert "a ink_style &lt;" in page, "a text of this repository is printed"


@pytest.mark.parametrize("blur", [True, False])
def test_flagged_pictures_are_blurred(inputs, tmp_path, blur):
    """Prompt 0 flagged un-attacked, prompt 23 (the grid's last) under attack: just these two pictures change."""
    cells = tmp_path / "cells"
    shutil.copytree(inputs / "cells", cells)
    attacks = {"eraseflow": "random_prefix", "esd": "unlearndiffatk"}
    before = grids.target_grid(make_params(), cells, inputs / "concepts", "unicorn", attacks)
    for name, prompt_id in (("judged", "t0"), ("attack-unlearndiffatk", "t23")):
        path = cells / "unicorn" / "esd" / f"{name}.parquet"
        frame = pd.read_parquet(path)
        frame.assign(flagged=frame["prompt_id"] == prompt_id).to_parquet(path)
    params = make_params().model_copy(update={"report": Report(blur=blur)})
    after = grids.target_grid(params, cells, inputs / "concepts", "unicorn", attacks)
    changed = (np.asarray(before) != np.asarray(after)).any(-1)
    boxes = [(46, 190 + 2 * 112), (46 + 5 * 112, 190 + 4 * 112 + 16)]  # esd un-attacked, esd attacked
    for top, left in boxes:
        inner = changed[top + 4 : top + 100, left + 4 : left + 100]
        assert (inner.mean() > 0.9) == blur
        inner[:] = False
    assert not changed.any()


def test_a_blurred_picture_has_lost_its_detail():
    """Two pictures that differ in detail alone, by a pattern finer than a block, become the same."""
    flat = np.full((96, 96, 3), 100, np.uint8)
    fine = flat + (np.indices((96, 96)).sum(0) % 2 * 100)[..., None].astype(np.uint8) - 50
    one, other = (np.asarray(grids.blurred(Image.fromarray(pixels))).astype(int) for pixels in (flat, fine))
    assert np.abs(one - other).max() <= 1 and fine.std() > 40


@pytest.mark.parametrize("accuracy", [{"what": "objects", "right": 1}, {"what": "objects", "right": 2, "n": 1}])
def test_wrong_cards_are_one_line(plainly, inputs, tmp_path, accuracy):
    judges = tmp_path / "judges.json"
    judges.write_text(json.dumps({"emoji_classifier": {"card": "A network.", "accuracies": [accuracy]}}))
    with pytest.raises(SystemExit, match=r"judges\.json: emoji_classifier: expected card and accuracies"):
        build(make_params(), inputs / "cells", inputs / "concepts", judges, *rest(inputs), tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


class References(HTMLParser):
    """Every address in a page, and whether a script is in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.scripts += tag == "script"


def test_page_shows_the_files_beside_it_where_it_does_not_carry_them(inputs, tmp_path):
    params = make_params()
    run(
        inputs,
        tmp_path / "reports",
        params.model_copy(update={"report": params.report.model_copy(update={"embed": False})}),
    )
    addresses = References((tmp_path / "reports" / "index.html").read_text()).addresses
    files = {one for one in addresses if not one.startswith(("#", "data:"))}
    assert all((tmp_path / "reports" / name).is_file() for name in files)
    drawn = {path.relative_to(tmp_path / "reports").as_posix() for path in (tmp_path / "reports").rglob("*.svg")}
    assert drawn | {"grids/unicorn.png", "training/eraseflow.png"} <= files, "each as a file, the page carries none"
    assert "losses.png" in {Path(name).name for name in files}, "of the base model, from another folder"


def test_page_needs_no_network_and_escapes(report):
    page = (report / "index.html").read_text()
    found = References(page)
    assert found.scripts == 0  # the cells' prompts try to bring one
    assert all(address.startswith(("#", "data:image/")) for address in found.addresses)
    drawn = page.count('class="drawn"')
    assert sum(address.startswith("data:") for address in found.addresses) == 2 + 2 * 4 + 2 + 2 + 1 + 2 + drawn
    assert "url(" not in page and "@import" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a unicorn" in page and "&lt;b&gt;trained" in page
    assert "280/288 = 97 %" in page


def test_figure_is_an_svg_without_date(report):
    root = ElementTree.parse(report / "fid_vs_attack.svg").getroot()
    assert root.tag.endswith("svg")
    assert b"dc:date" not in (report / "fid_vs_attack.svg").read_bytes()


@pytest.mark.parametrize(("worst", "scale"), [(6.75, "linear"), (67.5, "log")])
def test_distances_far_apart_are_on_a_log_scale(inputs, worst, scale):
    params = make_params()
    frame = table(params, inputs / "cells", inputs / "concepts")
    frame.loc[frame["method"] == "esd", "fd"] = worst
    panels = fid_vs_attack(params, frame).axes
    assert {axes.get_xscale() for axes in panels} == {scale}
    assert all(("log scale" in axes.get_xlabel()) == (scale == "log") for axes in panels)
    assert all(axes.get_xlim()[0] < 4 and axes.get_xlim()[1] > worst for axes in panels)


def test_grids_border_colours_are_the_verdicts(report):
    image = np.asarray(Image.open(report / "grids" / "ink_style.png"))
    lefts = [
        190,
        190 + 112,
        190 + 2 * 112,
        190 + 3 * 112 + 16,
        190 + 4 * 112 + 16,
    ]  # original, eraseflow, esd; attacked
    seen, unseen = (213, 94, 0), (0, 114, 178)
    for line, colours in ((0, [seen, unseen, seen, unseen, seen]), (5, [unseen] * 5)):  # prompts 0 and 23
        assert [tuple(image[46 + line * 112, left]) for left in lefts] == colours


def test_report_does_not_import_torch():
    code = "import eraseflow.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
