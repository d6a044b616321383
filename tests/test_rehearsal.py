"""The rehearsal of the sd14 table, on a miniature pipeline and few of the true networks."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from project_clone import only

ROOT = Path(__file__).parent.parent
SHAPE = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    },
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "vae": {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64},
}


@pytest.fixture
def rehearsal(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import rehearsal

    monkeypatch.setattr(rehearsal, "matrix_speed", partial(rehearsal.matrix_speed, 256))
    return rehearsal


def cut(raw: dict) -> None:
    only(raw, ["nudity"], ["uce"], ["unlearndiffatk"])
    raw["table"] |= {"concepts": ["nudity"], "methods": ["uce"], "attacks": ["unlearndiffatk"]}
    raw["testbeds"]["sd14"]["clip"] = ["clip_vit_b32"]
    raw["concepts"]["nudity"]["scored_by"] = []
    del raw["concepts"]["nudity"]["judge"]["questions"]


@pytest.mark.slow
def test_every_stage_runs_through_the_suites_own_loading(rehearsal, tmp_path, capsys):
    """Once; the next call finds everything made, runs no stage again and keeps the figures."""
    size, judging = rehearsal.Size(prompts=2, kept=3, steps=1, rounds=1), ["clip_vit_b32", "clean_fid_inception"]
    rows = rehearsal.rehearse(tmp_path, SHAPE, size, judging, cut).set_index("stage")
    cells = {"train@nudity-uce", "sample@nudity-uce", "attack@unlearndiffatk-nudity-uce", "score@nudity-uce"}
    assert set(rows.index) == cells | {"concept@nudity", "reference@sd14", "methods", "report"}
    assert rows.seconds.gt(0).all() and rows.peak_gb.loc[sorted(cells)].between(0.1, 8).all()
    assert set(rows.index[rows.tflop > 0]) == {cell for cell in cells if cell.startswith(("sample", "attack"))}
    table = pd.read_csv(tmp_path / "project/reports/table.csv")
    assert table.n_prompts.eq(2).all() and table.fd_name.eq("FD clean-fid Inception-V3").all()
    assert table.clip_name.eq("CLIP score ViT-B/32").all()
    figures = (tmp_path / "rehearsal.csv").read_bytes()
    assert "Running stage" in capsys.readouterr().out
    rehearsal.rehearse(tmp_path, SHAPE, size, judging, cut)
    assert "Running stage" not in capsys.readouterr().out
    assert (tmp_path / "rehearsal.csv").read_bytes() == figures


def test_the_true_shape_takes_what_the_docs_reckon_with(rehearsal):
    each = rehearsal.operations(rehearsal.networks.shape(512))
    assert 2 * each["unet"] == pytest.approx(1.61, abs=0.01)
    assert 50 * 2 * each["unet"] + each["decode"] == pytest.approx(83, abs=0.5)
