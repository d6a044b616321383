"""Adversarial prompts replayed on other models: a word that only some edits leave as a way back."""

import sys

import pandas as pd
import pytest
import torch
from test_attacks import WAYS, erased  # noqa: F401  (a fixture)

from eraseflow import __main__, params, rounds
from eraseflow.cells import transfer as replaying
from eraseflow.cells.transfer import matrix, transfer
from eraseflow.edits import Edit
from eraseflow.metrics.rates import Rate
from eraseflow.victim import Victim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(erased, tmp_path_factory):  # noqa: F811
    """esd: unicorn is read as car, "q" as unicorn was. uce: unicorn is read as car. original: nothing is edited.

    The attacks' prompts were found on esd; a copy of the file stands for the others, where nothing was found.
    """
    folder = tmp_path_factory.mktemp("cells")
    encoder = erased.pipeline.text_encoder
    words = encoder.get_input_embeddings().weight
    name = next(name for name, weight in encoder.named_parameters() if weight is words)
    table, base = (one.text_encoder.get_parameter(name).detach() for one in (erased.pipeline, erased.original))
    unicorn = erased.pipeline.tokenizer("unicorn").input_ids[1]
    closed = base.clone()
    closed[unicorn] = table[unicorn]
    edits = {"esd": {f"text_encoder.{name}": table}, "uce": {f"text_encoder.{name}": closed}, "original": {}}
    for module, settings in (WAYS[1], WAYS[-1]):
        erased.open, erased.round, erased.memory, erased.shared = [], 0, {}, {}
        found = rounds.run(erased, module.attack, module.Settings(**settings), seed=0)
        assert found.success.all()
        for method, tensors in edits.items():
            Edit("weights", tensors).save(folder / "unicorn" / method / "edit")
            seen = {"esd": {}, "uce": {"success": False}, "original": {"pre_success": True}}[method]
            attack = module.__name__.split(".")[-1]
            found.assign(**seen).to_parquet(folder / "unicorn" / method / f"attack-{attack}.parquet")
    return folder


def test_prompts_work_where_their_word_is_understood(cells):
    everything = params.load()
    results = {
        victim: transfer(everything, "unicorn", "p4d", "esd", victim, cells) for victim in ("esd", "uce", "original")
    }
    own = pd.read_parquet(cells / "unicorn" / "esd" / "attack-p4d.parquet")
    assert results["esd"].success.all() and list(results["esd"].png) == list(own.png)
    assert not results["uce"].success.any()
    assert results["original"].plain_success.all() and not results["esd"].plain_success.any()
    assert "object/unicorn" in results["uce"] and results["uce"].adversarial_prompt.tolist() == list(
        own.adversarial_prompt
    )


def test_many_prompts_are_replayed_a_part_at_a_time(cells, monkeypatch):
    whole = transfer(params.load(), "unicorn", "p4d", "esd", "esd", cells)
    sizes, own = [], Victim.try_out
    monkeypatch.setattr(replaying, "PART", 1)
    monkeypatch.setattr(replaying, "batch", lambda world: 1)
    monkeypatch.setattr(Victim, "try_out", lambda self, some: (sizes.append(len(some)), own(self, some))[1])
    parts = transfer(params.load(), "unicorn", "p4d", "esd", "esd", cells)
    assert sizes == [1] * len(whole) and len(whole) > 1
    pd.testing.assert_frame_equal(parts.drop(columns="png"), whole.drop(columns="png"), rtol=1e-3)


def test_a_learned_embedding_is_replayed(cells):
    """The embedding of the concept was learned on esd, and the unerased model understands it as well."""
    result = transfer(params.load(), "unicorn", "cce", "esd", "esd", cells)
    assert result.success.all() and len(result) == 2


def test_the_matrix_has_every_pair(cells):
    everything = params.load()
    table = everything.table.model_copy(update={"methods": ["esd", "uce"]})
    pairs = matrix(everything.model_copy(update={"table": table}), "unicorn", "p4d", cells)
    assert pairs.to_numpy().tolist() == [
        ["esd", "esd", 2, 2, 0], ["esd", "uce", 2, 0, 0], ["uce", "esd", 0, 0, 0], ["uce", "uce", 0, 0, 0],
    ]  # fmt: skip


def test_the_command(cells, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("eraseflow.cells.transfer.transfer.__defaults__", (cells,))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["eraseflow", "transfer", *arguments])
        __main__.main()
        return capsys.readouterr().out

    named = ["--concept", "unicorn", "--attack", "p4d", "--source"]
    out = tmp_path / "rows.parquet"
    said = call(*named, "esd", "--victim", "uce", "--out", str(out))
    assert f"bring the concept back on uce: {Rate(0, 2)}" in said and f"un-attacked: {Rate(0, 2)}" in said
    assert len(pd.read_parquet(out)) == 2
    assert "found no prompt on uce" in call(*named, "uce", "--victim", "esd")
    with pytest.raises(SystemExit, match=r"--victim: params.yaml has no 'ucce'; did you mean 'uce'"):
        call(*named, "esd", "--victim", "ucce")
    with pytest.raises(SystemExit, match=r"attack-mma.parquet: missing; put"):
        call("--concept", "unicorn", "--attack", "mma", "--source", "esd", "--victim", "uce")


def test_a_blocked_prompt_is_not_replayed(cells, tmp_path):
    path = cells / "unicorn" / "esd" / "attack-p4d.parquet"
    whole = path.read_bytes()
    try:
        pd.read_parquet(path).assign(adversarial_prompt="a young horse").to_parquet(path)
        with pytest.raises(SystemExit, match="the safety gate blocks its adversarial prompt"):
            transfer(params.load(), "unicorn", "p4d", "esd", "uce", cells)
    finally:
        path.write_bytes(whole)
    assert torch.is_grad_enabled()
