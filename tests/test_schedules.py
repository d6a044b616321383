"""What `check` accepts of solver, steps and spacing, diffusers' own schedulers can do; what it refuses, they cannot."""

import json
from itertools import pairwise

import pytest
from diffusers import DDIMScheduler
from test_checks import whole  # noqa: F401  (a fixture)
from test_params import ROOT, edit, project, put  # noqa: F401  (fixtures)

from eraseflow.checks import schedules
from eraseflow.checks.fields import check_steps
from eraseflow.params import ParamsError, load
from eraseflow.sampling import SOLVERS

CONFIGS = [{"timestep_spacing": name, "steps_offset": offset} for name in ("leading", "trailing") for offset in (0, 1)]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "{timestep_spacing} {steps_offset}".format(**config))
def test_timesteps_are_those_of_diffusers(solver, config):
    scheduler = SOLVERS[solver].from_config(DDIMScheduler(**config).config)
    accepted = 0
    for steps in range(1, 1000):
        scheduler.set_timesteps(steps)
        found = scheduler.timesteps.tolist()
        assert found == schedules.timesteps(config, solver, steps)
        good = len(found) == steps and all(a > b for a, b in pairwise(found)) and found[-1] >= 0 and found[0] < 1000
        if not schedules.wrong(config, solver, steps):
            accepted += 1
            assert good, steps
        elif solver != "ddim":
            assert not good, steps
    assert accepted > 90


def test_diffusers_itself_fails_where_it_is_refused():
    trailing = {"timestep_spacing": "trailing"}
    assert schedules.wrong(trailing, "dpmsolver++", 499) == "makes 500 timesteps of 499, the last -1"
    with pytest.raises(ValueError, match=r"998 solver steps: the model's trailing spacing makes .*; the nearest that"):
        schedules.check(trailing, "dpmsolver++", 998)
    schedules.check({}, "ddim", 499)  # no config, of which base_model.py speaks


def test_a_step_of_ddim_ends_where_the_next_begins():
    """A base model with trailing spacing and 400 steps: they are two timesteps long, and 2.5 apart."""
    trailing = {"timestep_spacing": "trailing"}
    assert schedules.wrong(trailing, "ddim", 400) == "makes steps of 2 timesteps that end 1 beside the next"
    assert not any(schedules.wrong(trailing, "ddim", steps) for steps in (10, 12, 25, 30, 50, 100, 500))
    for config in CONFIGS[:2]:
        for steps in range(1, 1000):
            try:
                check_steps(steps)
            except ValueError:
                continue
            assert not schedules.wrong(config, "ddim", steps)


@pytest.mark.parametrize(
    ("path", "steps", "says"),
    [
        ("testbeds.emoji.sampling.steps", 499, "testbeds.emoji.sampling.steps: 499 solver steps: the model's trailing"),
        ("methods.esd.emoji.num_steps", 499, "methods.esd.emoji.num_steps: 499 solver steps: the model's trailing"),
        ("methods.eraseflow.emoji.num_steps", 998, "methods.eraseflow.emoji.num_steps: 998 solver steps: the model's"),
    ],
)
def test_a_model_of_trailing_spacing(whole, path, steps, says):  # noqa: F811
    scheduler = json.loads((ROOT / "models/emoji/scheduler/scheduler_config.json").read_text())
    (whole / "models/emoji/scheduler").mkdir()
    file = whole / "models/emoji/scheduler/scheduler_config.json"
    edit(whole, path, put(steps))
    file.write_text(json.dumps(scheduler))
    load(whole / "params.yaml")  # leading
    file.write_text(json.dumps(scheduler | {"timestep_spacing": "trailing"}))
    with pytest.raises(ParamsError, match="nearest that can be done") as error:
        load(whole / "params.yaml")
    assert says in str(error.value)
    edit(whole, path, put(50))
    load(whole / "params.yaml")
