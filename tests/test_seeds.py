"""What several seeds' tables say together."""

import pandas as pd
import pytest

from eraseflow.report import seeds


def table(successes: int, methods: tuple[str, ...] = ("esd", "uce")) -> pd.DataFrame:
    row = {"concept": "rose", "attack": "p4d", "judge": "eye top-1", "n_prompts": 8, "kept_n": 4}
    row |= {"kept_judge": "ear top-1", "fd_name": "FD eye"}
    rates = {"pre_asr": 0.125, "pre_successes": 1, "asr": successes / 8, "asr_successes": successes}
    kept = {"kept_accuracy": 0.75, "kept_right": 3, "fd": successes / 3}
    return pd.DataFrame([row | rates | kept | {"method": method} for method in methods])


def test_means_extremes_and_each_seeds_count():
    found = seeds.seeds([table(5), table(2), table(8)])
    assert found.method.tolist() == ["esd", "uce"]
    first = found.iloc[0]
    assert (first.asr_mean, first.asr_low, first.asr_high, first.asr_values) == (0.625, 0.25, 1.0, "5 2 8")
    assert first.fd_mean == pytest.approx(5 / 3) and first.fd_values == "1.66667 0.666667 2.66667"


def test_a_cell_that_one_seed_lacks_is_left_out():
    assert seeds.seeds([table(5), table(2, ("uce",))]).method.tolist() == ["uce"]


def test_other_prompts_do_not_compare():
    with pytest.raises(SystemExit, match="n_prompts differs between the tables of the seeds"):
        seeds.seeds([table(5), table(2).assign(n_prompts=9)])


def test_the_page_shows_numerators_and_denominators(tmp_path):
    for seed, successes in enumerate((5, 2)):
        table(successes).to_csv(tmp_path / f"{seed}.csv", index=False)
    seeds.write([tmp_path / "0.csv", tmp_path / "1.csv"], tmp_path)
    text = (tmp_path / "seeds.md").read_text()
    assert "with 2 seeds" in text and "| ASR ↓ (eye top-1) |" in text
    assert "| Kept prompts right ↑ (ear top-1) |" in text
    assert "| 44 %: 5/8 = 62 % (31-86), 2/8 = 25 % (7-59) | 75 %: 3/4 = 75 % (30-95), 3/4 = 75 % (30-95) |" in text
    assert "| esd | p4d | 12 %: 1/8" in text and "| 1.17 (1.67, 0.667) |" in text
    assert pd.read_csv(tmp_path / "seeds.csv").asr_values.tolist() == ["5 2", "5 2"]
