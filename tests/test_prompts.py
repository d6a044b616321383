"""Which prompts a concept is measured on, and which must be kept."""

import pandas as pd
import pytest

from eraseflow import params, prompts


@pytest.fixture
def testbed(tmp_path):
    kept = tmp_path / "kept.csv"
    rows = [
        (f"a {n} in {s} style", f"object/{n};style/{s}")
        for n in ("unicorn", "horse", "cat", "car")
        for s in ("flat", "ink")
    ]
    pd.DataFrame(rows, columns=["prompt", "expect"]).to_csv(kept, index=False)
    sampling = params.SamplingSettings(solver="dpmsolver++", steps=2, guidance_scale=4.0)
    return params.Testbed(
        model="models/emoji",
        kept=str(kept),
        kept_judge="emoji_classifier",
        features="emoji_clip",
        clip=["emoji_clip"],
        sampling=sampling,
    )


def test_what_the_file_leaves_out_is_filled_in(tmp_path, testbed, concept):
    path = tmp_path / "unicorn.csv"
    path.write_text("prompt,seed,guidance\n a unicorn ,7,\nnull,8,2.5\n")
    table = prompts.target(concept.model_copy(update={"prompts": str(path)}), testbed, 0)
    assert table.prompt.tolist() == ["a unicorn", "null"]
    assert table.seed.tolist() == [7, 8] and table.guidance.tolist() == [4.0, 2.5]
    assert table.prompt_id.tolist() == ["target-0000", "target-0001"]


def test_another_run_has_other_seeds_for_every_item(tmp_path, testbed, concept):
    path = tmp_path / "unicorn.csv"
    path.write_text("prompt\n" + "a unicorn\n" * 50)
    entry = concept.model_copy(update={"prompts": str(path)})
    runs = [set(prompts.target(entry, testbed, seed).seed) for seed in range(3)]
    assert all(len(run) == 50 for run in runs) and not runs[0] & runs[1] and not runs[1] & runs[2]


def test_kept_leaves_the_concept_out_and_takes_all_neighbours(testbed, concept):
    for count in (3, 4, 6, 100):
        kept = params.Kept(without=["object/unicorn"], neighbours=["object/horse"], count=count)
        table = prompts.kept(concept.model_copy(update={"kept": kept}), testbed, 0)
        assert len(table) == min(count, 6)
        assert not table.expect.str.contains("unicorn").any()
        assert table.expect.str.contains("horse").sum() == 2
        assert table.equals(prompts.kept(concept.model_copy(update={"kept": kept}), testbed, 0))


def test_nothing_to_keep_is_one_line(testbed, concept):
    kept = params.Kept(without=["style/flat", "style/ink"], neighbours=[], count=3)
    with pytest.raises(SystemExit, match="nothing is left to keep"):
        prompts.kept(concept.model_copy(update={"kept": kept}), testbed, 0)
