"""Sampling: the same picture as diffusers' own pipeline, whatever the batch; shards that survive a kill."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from eraseflow import sampling, shards
from eraseflow.cpu import convolve_linears
from eraseflow.outside import content
from eraseflow.params import SamplingSettings

PROMPTS = ["a unicorn in flat style", "a horse", "a unicorn in flat style", "a car in ink style", ""]

SETTINGS = SamplingSettings(solver="dpmsolver++", steps=4, guidance_scale=4)


def draw(pipeline, batch_size, settings=SETTINGS):
    seeds, guidance = (1, 2, 3, 4, 5), (4.0, 3.0, 4.0, 2.0, 4.0)
    return torch.cat(list(sampling.sample(pipeline, PROMPTS, seeds, guidance, settings, batch_size, quiet=True)))


@pytest.mark.parametrize("spacing", ["model", "linspace"])
def test_equals_diffusers_pipeline(pipeline, spacing):
    ours = draw(pipeline, 5, SETTINGS.model_copy(update={"spacing": spacing}))
    config = {**pipeline.scheduler.config} | ({} if spacing == "model" else {"timestep_spacing": spacing})
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(config)
    for row, (prompt, seed, scale) in enumerate(zip(PROMPTS, (1, 2, 3, 4, 5), (4.0, 3.0, 4.0, 2.0, 4.0), strict=True)):
        picture = pipeline(
            prompt, num_inference_steps=4, guidance_scale=scale, generator=torch.Generator().manual_seed(seed),
            output_type="pt", height=32, width=32,
        ).images[0]  # fmt: skip
        assert (ours[row].float() - picture * 255).abs().max() <= 1.01


def test_even_steps_begin_at_the_noisiest_timestep(pipeline):
    """Leading ones, as the emoji model's configuration has them, leave it out, the more so the fewer they are."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="leading")
    for steps, first in ((12, 913), (6, 853), (61, 977)):
        settings = SETTINGS.model_copy(update={"steps": steps})
        assert sampling.timesteps(pipeline, settings)[0] == first
        even = sampling.timesteps(pipeline, settings.model_copy(update={"spacing": "linspace"}))
        assert even[0] == 999 and even[-1] > 0 and len(even) == steps and (even.diff() < 0).all()


def test_picture_does_not_depend_on_the_batch(pipeline):
    whole = draw(pipeline, 5)
    for size in (1, 2):
        assert (draw(pipeline, size).int() - whole.int()).abs().max() <= 1
    assert (whole[0].int() - whole[2].int()).abs().max() > 1  # same prompt, another seed


def test_guided_is_the_two_call_form(pipeline):
    latents, condition, empty = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 32), torch.randn(1, 24, 32)
    with torch.no_grad():
        a = pipeline.unet(latents, 7, empty.expand(2, -1, -1)).sample
        b = pipeline.unet(latents, 7, condition).sample
        ours = sampling.guided(pipeline.unet, latents, 7, condition, empty, 3.0)
    torch.testing.assert_close(ours, a + 3 * (b - a), rtol=1e-4, atol=1e-5)


def test_convolved_linears_are_linear_layers(pipeline):
    latents, condition = torch.randn(3, 4, 8, 8), torch.randn(3, 24, 32)
    names = list(pipeline.unet.state_dict())
    wanted = pipeline.unet(latents, 7, condition).sample
    wanted.sum().backward()
    gradient = [weight.grad.clone() for weight in pipeline.unet.parameters()]
    pipeline.unet.zero_grad()
    convolve_linears(pipeline.unet)
    ours = pipeline.unet(latents, 7, condition).sample
    ours.sum().backward()
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    for weight, grad in zip(pipeline.unet.parameters(), gradient, strict=True):
        torch.testing.assert_close(weight.grad, grad, rtol=1e-3, atol=1e-3)
    assert names == list(pipeline.unet.state_dict())


def test_killed_work_goes_on_from_its_finished_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WORK", tmp_path)
    made = []

    def make(part: slice) -> pd.DataFrame:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(part.start)
        return pd.DataFrame({"row": range(part.start, part.stop)})

    with pytest.raises(KeyboardInterrupt):
        list(shards.in_shards("job", 10, 4, make))
    made.append("resumed")
    result = pd.concat(shards.in_shards("job", 10, 4, make))
    assert made == [0, 4, "resumed", 8]
    assert result.row.tolist() == list(range(10))
    shards.forget("job")
    assert not (tmp_path / "job").exists()


def test_a_damaged_shard_is_made_anew(tmp_path, monkeypatch):
    """As a power cut may leave it: empty, cut off, or of fewer rows."""
    monkeypatch.setattr(shards, "WORK", tmp_path)
    made = []

    def make(part: slice) -> pd.DataFrame:
        made.append(part.start)
        return pd.DataFrame({"row": range(part.start, part.stop)})

    whole = pd.concat(shards.in_shards("job", 13, 4, make))
    files = sorted((tmp_path / "job").iterdir())
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-9])
    pd.DataFrame({"row": [8]}).to_parquet(files[2])
    made.clear()
    assert pd.concat(shards.in_shards("job", 13, 4, make)).equals(whole) and made == [0, 4, 8]


def test_fingerprint_sees_contents_and_settings(tmp_path):
    (tmp_path / "a").write_text("1")
    first = shards.fingerprint(tmp_path, 3)
    assert first == shards.fingerprint(tmp_path, 3) != shards.fingerprint(tmp_path, 4)
    (tmp_path / "a").write_text("2")
    assert first != shards.fingerprint(tmp_path, 3)


def test_a_fingerprint_reads_a_file_again_only_when_it_has_changed(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(content, "KNOWN", tmp_path / "hashes.json")
    monkeypatch.setattr(content, "SETTLED", -60.0)
    monkeypatch.setattr(content, "_sha256", lambda file, own=content._sha256: (read.append(file.name), own(file))[1])
    (tmp_path / "model").mkdir()
    for name in ("a", "b"):
        (tmp_path / "model" / name).write_text(name)
    prints = [shards.fingerprint(tmp_path / "model")]
    assert {"a", "b", "shards.py"} <= set(read)
    read.clear()
    prints.append(shards.fingerprint(tmp_path / "model"))
    assert not read
    (tmp_path / "model" / "b").write_text("other")
    prints.append(shards.fingerprint(tmp_path / "model"))
    assert read == ["b"] and prints[0] == prints[1] != prints[2]


def test_tables_that_come_one_after_another_are_written_in_parts(tmp_path, monkeypatch):
    """As one table is, to the byte; a part can be read alone, and holds so many rows whatever the tables held."""
    monkeypatch.setattr(shards, "PART", 8)
    rows = pd.DataFrame({"prompt_id": [f"t{n}" for n in range(21)], "png": [bytes([n]) * 50 for n in range(21)]})
    shards.write_parquet(rows, tmp_path / "whole.parquet")
    shards.write_parquet((rows.iloc[start : start + 3] for start in range(0, 21, 3)), tmp_path / "parts.parquet")
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    groups = pq.ParquetFile(tmp_path / "parts.parquet")
    assert [groups.metadata.row_group(n).num_rows for n in range(groups.num_row_groups)] == [8, 8, 5]
    wanted = [0, 7, 8, 20]
    read = []
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, n, *rest, own=pq.ParquetFile.read_row_group: read.append(n) or own(self, n, *rest),
    )
    assert list(shards.read_pngs(tmp_path / "parts.parquet", wanted)) == [rows.png[n] for n in wanted]
    assert list(shards.read_pngs(tmp_path / "parts.parquet", [17])) == [rows.png[17]] and read == [0, 1, 2, 2]
