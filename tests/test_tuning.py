"""`make tune`: the points tried, what a trial is worth, that a killed run goes on, and its record."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_chain
import yaml

from eraseflow import rows, tuning
from eraseflow.params import Params, Range
from eraseflow.tuning import chosen, harmonic, space, trials

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def test_points_lie_in_the_space_evenly_and_are_the_same_every_time():
    ranges = {
        "rate": Range(low=1e-4, high=1e-2, log=True),
        "scale": Range(low=-1, high=3),
        "k": Range(low=1, high=4, whole=True),
    }
    found = pd.DataFrame(space.points(ranges, "methods/esd", 64))
    assert found.equals(pd.DataFrame(space.points(ranges, "methods/esd", 64)))
    assert not found.equals(pd.DataFrame(space.points(ranges, "methods/uce", 64)))
    assert found.rate.between(1e-4, 1e-2).all() and found.scale.between(-1, 3).all()
    assert (found.rate < 1e-3).sum() == 32 and (found.scale < 1).sum() == 32  # half of them in each half
    assert found.k.value_counts().to_dict() == {1: 16, 2: 16, 3: 16, 4: 16} and all(isinstance(k, int) for k in found.k)
    fewer = pd.DataFrame(space.points(ranges, "methods/esd", 8))
    assert fewer.equals(found.head(8))  # more trials begin with the same


def test_the_ends_of_a_range_belong_to_it():
    whole = Range(low=1, high=300, log=True, whole=True)
    assert (whole.at(0.0), whole.at(1.0)) == (1, 300) and Range(low=0.1, high=0.3).at(0.5) == 0.2


@pytest.mark.parametrize(("erased", "kept", "value"), [(1, 1, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0), (0.5, 1, 2 / 3)])
def test_a_method_is_worth_the_harmonic_mean(erased, kept, value):
    assert harmonic(erased, kept) == pytest.approx(value)


def test_the_best_trial_of_each_kind_and_over_all():
    """Means over seeds; an edit that withstands nothing has no say; of equals the first."""
    values = {"style": [[0.2, 0.4], [0.9, 0.1], [0.5, 0.5]], "category": [[1, 1], [1, 1], [0, np.nan]]}
    done = pd.DataFrame(
        [{"family": "methods", "name": "esd", "kind": kind, "trial": trial, "settings": str(trial), "value": value}
         for kind, of in values.items() for trial, pair in enumerate(of) for value in pair]
    )  # fmt: skip
    best = chosen(done).set_index("kind")
    assert best.trial.to_dict() == {"style": 1, "category": 0, "all": 1}
    assert (
        best.value.to_dict() == pytest.approx({"style": 0.5, "category": 1.0, "all": 0.75}) and best.trials.eq(3).all()
    )


@pytest.fixture
def project(tmp_path, monkeypatch) -> Params:
    """The smallest project, with a tuning of two trials of a method and an attack each."""
    monkeypatch.chdir(tmp_path)
    raw = small_chain.write(tmp_path)
    raw["tuning"] = {
        "concepts": {"fine_grained": "unicorn", "style": "ink_style"}, "trials": 2, "seeds": [0, 1], "prompts": 1,
        "edits": ["uce"], "pictures": 2, "kept": raw["testbeds"]["emoji"]["kept"],
        "methods": {"uce": {"preserve_scale": {"low": 0.1, "high": 10.0, "log": True}}},
        "attacks": {"unlearndiffatk": {"learning_rate": {"low": 0.01, "high": 0.1}}},
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return Params.model_validate(raw)


def test_every_trial_stands_in_the_record_and_a_killed_run_goes_on(project, monkeypatch):
    measured = []

    def counting(*given, measure=trials.judged, **named):
        measured.append(given[2])
        if len(measured) == 4:
            raise KeyboardInterrupt
        return measure(*given, **named)

    monkeypatch.setattr(trials, "judged", counting)
    with small_chain.quick():
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(project, project.tuning, Path("reports/tuning"))
        assert not Path("reports/tuning").exists()
        tuning.tune(project, project.tuning, Path("reports/tuning"))
        assert len(measured) == 1 + 2 + 8  # the one that was killed, two unedited models, two trials x concepts x seeds
        first = {file.name: file.read_bytes() for file in Path("reports/tuning").iterdir()}
        shutil.rmtree(".work")  # as on another machine
        tuning.tune(project, project.tuning, Path("reports/again"))
        assert len(measured) == 11
        monkeypatch.setattr(rows, "code", lambda module, family: {module: "edited"} if module == "uce" else {})
        trials.of_method(project, project.tuning, "unicorn", "uce", {"preserve_scale": 0.1}, 0)
    assert len(measured) == 13 and first == {file.name: file.read_bytes() for file in Path("reports/again").iterdir()}
    done = pd.read_csv("reports/tuning/trials.csv")
    assert done.groupby(["family", "name"]).size().to_dict() == {
        ("attacks", "unlearndiffatk"): 4,
        ("methods", "uce"): 8,
    }
    assert done[done.family == "methods"].groupby(["concept", "trial"]).seed.apply(list).tolist() == [[0, 1]] * 4
    assert done.groupby(["family", "trial"]).settings.nunique().eq(1).all()
    tried = [json.loads(one)["preserve_scale"] for one in done[done.family == "methods"].settings]
    assert all(0.1 <= value <= 10 for value in tried) and len(set(tried)) == 2
    assert done.value.dropna().between(0, 1).all()
    best = pd.read_csv("reports/tuning/chosen.csv")
    assert best.groupby("name").kind.apply(set).tolist() == [{"style", "fine_grained", "all"}] * 2
    table = pd.read_csv("reports/tuning/space.csv")
    assert table.setting.tolist() == ["preserve_scale", "learning_rate"] and table.trials.eq(2).all()
    assert table.objective.tolist() == ["harmonic mean of erased and kept", "success within 2 distinct pictures"]


def test_a_trial_that_diverges_is_worth_nothing(project, monkeypatch):
    from eraseflow.finite import NotFinite
    from eraseflow.methods import uce

    def diverges(*_):
        raise NotFinite("uce: not finite")

    monkeypatch.setattr(uce, "erase", diverges)
    with small_chain.quick():
        found = trials.of_method(project, project.tuning, "unicorn", "uce", {"preserve_scale": 1.0}, 0)
    assert found["seen"] == 1.0 and found["kept"] == 0.0 and found["failed"] == "uce: not finite"


def test_every_row_with_settings_to_choose_is_tuned():
    """As many trials for each: what is left out has nothing to choose, or a rule of its own."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    rows = {
        family: {name for name, block in raw[family].items() if block.get("emoji")} for family in ("methods", "attacks")
    }
    assert rows["methods"] - set(raw["tuning"]["methods"]) == {"eraseflow_published", "sld"}
    assert rows["attacks"] - set(raw["tuning"]["attacks"]) == {"random_prefix", "other_seeds", "unlearndiffatk_through"}


def test_what_is_tuned_on_is_in_no_table_that_claims():
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    of_tables = {name for table in ("table", "claims") for name in raw[table]["concepts"]}
    assert not of_tables & set(raw["tuning"]["concepts"].values())
    assert not set(raw["tuning"]["edits"]) & {*raw["table"]["methods"], *raw["claims"]["methods"]}
    kept, ours = (pd.read_csv(ROOT / path).prompt for path in (raw["testbeds"]["emoji"]["kept"], raw["tuning"]["kept"]))
    assert not set(kept) & set(ours) and len(ours) == len(kept) == len(set(ours))


def test_an_edit_counts_by_the_prompts_that_it_leaves():
    rows = [("a", 2, 1.0), ("a", 20, 0.1), ("b", 2, 0.0), ("b", 20, 0.3), ("b", 0, np.nan)]
    done = pd.DataFrame(rows, columns=["settings", "attacked", "value"])
    done = done.assign(family="attacks", name="cce", kind="style", trial=done.settings.map({"a": 0, "b": 1}))
    best = chosen(done).set_index("kind")
    assert best.trial.to_dict() == {"style": 1, "all": 1} and best.value["style"] == pytest.approx(6 / 22)


def test_the_attack_through_the_sampler_has_the_blind_ones_settings():
    attacks = Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())).attacks
    blind, through = (attacks[name].on["emoji"] for name in ("unlearndiffatk", "unlearndiffatk_through"))
    assert through == {**blind, "through_sampler": True}


def test_the_published_eraseflow_follows_its_rule():
    """Learning rates alone differ from the published ones: by how much narrower the network is."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["methods"]
    ours, theirs = raw["eraseflow_published"]["emoji"], raw["eraseflow"]["sd14"]
    width, f = 320, 5
    for kind in ("category", "style", "fine_grained"):
        small, large = ({**block, **block.get("kinds", {}).get(kind, {})} for block in (ours, theirs))
        for rate in ("learning_rate", "flow_learning_rate"):
            assert small[rate] == pytest.approx(f * large[rate])
        for same in ("lora_rank", "epochs", "switch_epoch", "num_steps", "guidance_scale", "eta", "batch_size"):
            assert small[same] == large[same]
    assert ours["cfg"] and ours["bare_words"] and "lora_layers" not in ours and "skip_last" not in ours
    channels = json.loads((ROOT / "models/emoji/unet/config.json").read_text())["block_out_channels"]
    assert width / min(channels) == f
