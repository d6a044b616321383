"""Which prompts a concept is measured on, which must be kept, where their texts come from, and what is counted."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from transformers import CLIPTokenizer

from eraseflow import hub, params, prompt_sources, prompts
from eraseflow.cells.concept import concept as make_concept
from eraseflow.params import Concept

ROOT = Path(__file__).parent.parent
FIRST = ["prompt_id", "role", "prompt", "expect", "seed", "guidance"]


@pytest.fixture(scope="module")
def words() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(ROOT / "models/emoji/tokenizer")


@pytest.fixture
def testbed(tmp_path) -> params.Testbed:
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


@pytest.fixture
def targets(tmp_path, testbed, concept, words):
    """The target prompts of a file with this text, and the counts."""

    def resolve(text: str, seed: int = 0, most: int | None = None, **changes) -> tuple[pd.DataFrame, dict]:
        path = tmp_path / "unicorn.csv"
        path.write_text(text)
        entry = concept.model_copy(update={"prompts": str(path)})
        table, counts = prompts.resolve(entry, testbed.model_copy(update=changes), seed, words, most)
        return table[table.role == "target"], counts

    return resolve


def kept_of(concept: Concept, testbed: params.Testbed, words, **kept) -> pd.DataFrame:
    entry = concept.model_copy(update={"kept": params.Kept(**kept), "prompts": str(ROOT / "prompts/emoji/unicorn.csv")})
    table, _ = prompts.resolve(entry, testbed, 0, words)
    return table[table.role == "kept"]


def test_what_the_file_leaves_out_is_filled_in(targets):
    table, _ = targets("prompt,seed,guidance\n a unicorn ,7,\nnull,8,2.5\n")
    assert table.prompt.tolist() == ["a unicorn", "null"]
    assert table.seed.tolist() == [7, 8] and table.guidance.tolist() == [4.0, 2.5]
    assert table.prompt_id.tolist() == ["target-0000", "target-0001"]


def test_another_run_has_other_seeds_for_every_item(targets):
    runs = [set(targets("prompt\n" + "a unicorn\n" * 50, seed)[0].seed) for seed in range(3)]
    assert all(len(run) == 50 for run in runs) and not runs[0] & runs[1] and not runs[1] & runs[2]


@pytest.mark.parametrize(
    ("count", "most", "rows"), [(5, None, [0, 1, 2, 3, 4]), (3, 60, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (102, 1, [0])]
)
def test_of_many_prompts_evenly_spaced_ones_are_used(count, most, rows):
    assert prompts.spread(count, most) == rows
    spaces = np.diff([*prompts.spread(102, 60), 102])
    assert set(spaces) == {1, 2} and len(spaces) == 60


@pytest.mark.parametrize(
    ("near", "most", "rows"),
    [
        ("nnffffffff", 4, [0, 1, 2, 6]),
        ("nfffffffff", 4, [0, 1, 4, 7]),
        ("nnnnnnnnff", 8, [0, 1, 2, 4, 5, 6, 8, 9]),
        ("nnnn", 2, [0, 2]),
        ("ffff", None, [0, 1, 2, 3]),
    ],
)
def test_neighbours_are_kept_up_to_one_half(near, most, rows):
    assert prompts.spread_near(pd.Series([letter == "n" for letter in near]), most) == rows


def test_prompts_that_are_left_out_change_nothing_of_the_others(targets):
    text = "prompt\n" + "".join(f"a unicorn of style {row}\n" for row in range(10))
    every, _ = targets(text)
    some, counts = targets(text, most=4)
    assert_frame_equal(some, every.iloc[[0, 2, 5, 7]].reset_index(drop=True))
    assert counts["official"] == 10 and counts["used"] == counts["attackable"] == 4


def test_images_of_a_prompt_have_seeds_of_their_own(targets):
    table, counts = targets("prompt,seed,images\na unicorn,100,3\na horse,200,\na cat,300,2\n")
    assert table.prompt.tolist() == ["a unicorn"] * 3 + ["a horse"] + ["a cat"] * 2
    assert table.seed.tolist() == [100, 101, 102, 200, 300, 301]
    assert table.prompt_id.is_unique and counts["official"] == counts["used"] == 6
    table, _ = targets("prompt,images\na unicorn,2\na horse,1\n")
    assert table.seed.tolist() == [prompts.FIRST_SEED + row for row in range(3)]


def test_kept_leaves_the_concept_out_and_takes_all_neighbours(testbed, concept, words):
    for count in (3, 4, 6, 100):
        table = kept_of(concept, testbed, words, without=["object/unicorn"], neighbours=["object/horse"], count=count)
        assert len(table) == min(count, 6)
        assert not table.expect.str.contains("unicorn").any()
        assert table.expect.str.contains("horse").sum() == 2
        again = kept_of(concept, testbed, words, without=["object/unicorn"], neighbours=["object/horse"], count=count)
        assert table.equals(again)


def test_nothing_to_keep_is_one_line(testbed, concept, words):
    with pytest.raises(SystemExit, match="nothing is left to keep"):
        kept_of(concept, testbed, words, without=["style/flat", "style/ink"], neighbours=[], count=3)


@pytest.mark.parametrize(
    ("name", "seed", "digest"),
    [
        ("ink_style", 0, "0bb435d01eaf054b"),
        ("unicorn", 0, "a7573f43f6beb555"),
        ("weapon", 0, "3729b830a1317d69"),
        ("weapon", 1, "0b22edbcd8f55bb1"),
    ],
)
def test_the_emoji_rows_are_those_of_the_committed_table(monkeypatch, words, name, seed, digest):
    """Ids, texts, order, seeds and guidance, as SHA-256 of the rows with which the committed cells were made."""
    monkeypatch.chdir(ROOT)
    everything = params.load()
    table, _ = prompts.resolve(everything.concepts[name], everything.testbeds["emoji"], seed, words)
    text = table[FIRST].to_csv(index=False, lineterminator="\n")
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_the_gate_excludes_flagged_rows_and_age_words_and_counts_them(targets):
    rows = ["a unicorn,True", "a young unicorn,False", "a unicorn in ink style,false", "a horse,"]
    table, counts = targets("prompt,minor_related_term\n" + "\n".join(rows) + "\n")
    assert table.prompt.tolist() == ["a unicorn in ink style", "a horse"]
    assert table.prompt_id.tolist() == counts_ids(2, 3), "an excluded row leaves its number free"
    assert table.seed.tolist() == [1002, 1003]
    assert counts["official"] == 4 and counts["excluded_by_safety_gate"] == 2 and counts["used"] == 2
    assert counts["excluded"] == counts_ids(0, 1)


def counts_ids(*rows: int) -> list[str]:
    return [f"target-{row:04d}" for row in rows]


def test_a_file_that_is_blocked_whole_is_one_line(targets):
    with pytest.raises(SystemExit, match=r"unicorn\.csv: the safety gate leaves none of the 1 prompts"):
        targets("prompt\na young unicorn\n")


def test_kept_prompts_pass_the_gate_before_they_are_drawn(testbed, concept, words):
    rows = pd.read_csv(testbed.kept)
    rows.loc[rows.expect == "object/cat;style/ink", "prompt"] = "a baby cat in ink style"
    rows.to_csv(testbed.kept, index=False)
    table = kept_of(concept, testbed, words, without=["object/unicorn"], neighbours=[], count=5)
    assert len(table) == 5 and "object/cat;style/ink" not in set(table.expect)


def test_long_prompts_are_counted_and_used(targets, words):
    """The emoji model reads 24 tokens, start and end included, so this is what it can be attacked with, too."""
    assert words.model_max_length == 24
    table, counts = targets("prompt\n" + "\n".join("cat " * n for n in (1, 22, 23, 58, 59)) + "\n")
    assert table.tokens.tolist() == [3, 24, 25, 60, 61]
    assert table.attackable.tolist() == [True, True, False, False, False]
    assert counts["used"] == 5 and counts["attackable"] == 2
    assert counts["over_length"] == 3 and counts["over_60_tokens"] == 1


def test_a_longer_encoder_is_attacked_up_to_60_tokens(targets, words, monkeypatch):
    monkeypatch.setattr(words, "model_max_length", 77)
    table, counts = targets("prompt\n" + "\n".join("cat " * n for n in (58, 59, 75, 76)) + "\n")
    assert table.tokens.tolist() == [60, 61, 77, 78]
    assert table.attackable.tolist() == [True, False, False, False]
    assert counts["over_length"] == 1 and counts["over_60_tokens"] == 3


# I2P: synthetic rows in the form of its table, with the spaces and commas that its texts have.
TEXTS = [" a unicorn, watercolor ", 'a "horse" in ink style', "a cat\nand a car", "ein Bär im Grünen"]


def i2p_table(folder: Path, texts=TEXTS) -> str:
    path = folder / "i2p_benchmark.csv"
    pd.DataFrame({"prompt": texts, "categories": "sexual", "sd_seed": 1}).to_csv(
        path, index=False, quoting=csv.QUOTE_ALL
    )
    return str(path)


def i2p_rows(*cases: int, texts=TEXTS, flags=()) -> str:
    rows = [
        f"{case},{hashlib.sha256(texts[case].encode()).hexdigest()},9,{case + 7},7.5,{case in flags}" for case in cases
    ]
    return "case_number,sha256,tokens,seed,guidance,minor_related_term\n" + "\n".join(rows) + "\n"


def test_i2p_by_case_number_and_hash_of_the_exact_text(targets, tmp_path):
    table, counts = targets(i2p_rows(3, 0, 2), i2p=i2p_table(tmp_path))
    assert table.prompt.tolist() == ["ein Bär im Grünen", "a unicorn, watercolor", "a cat\nand a car"]
    assert table.source.tolist() == ["i2p/3", "i2p/0", "i2p/2"]
    assert table.seed.tolist() == [10, 7, 9] and table.guidance.eq(7.5).all() and table.tokens.eq(9).all()
    assert counts["official"] == counts["used"] == 3


def test_a_flagged_row_is_not_even_looked_up(targets, tmp_path):
    path = i2p_table(tmp_path, [*TEXTS[:3], "another text"])
    table, counts = targets(i2p_rows(0, 3, flags={3}), i2p=path)
    assert table.source.tolist() == ["i2p/0"] and counts["excluded"] == ["target-0001"]


def test_a_table_with_its_own_case_numbers(targets, tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame({"case_number": [7, 3], "prompt": ["x", TEXTS[3]]}).to_csv(path, index=False)
    assert targets(i2p_rows(3), i2p=str(path))[0].prompt.tolist() == [TEXTS[3]]


def test_i2p_from_the_hub(targets, tmp_path, monkeypatch):
    asked = []
    i2p_table(tmp_path)
    monkeypatch.setattr(hub, "file", lambda *source: asked.append(source) or tmp_path / source[1])
    source = "datasets/AIML-TUDA/i2p@" + "a" * 40
    assert targets(i2p_rows(1), i2p=source)[0].prompt.tolist() == [TEXTS[1]]
    assert asked == [(source, "i2p_benchmark.csv")]


@pytest.mark.parametrize(
    ("texts", "rows", "says"),
    [
        (TEXTS, i2p_rows(0, 1).replace(hashlib.sha256(TEXTS[1].encode()).hexdigest(), "0" * 64),
         r"unicorn\.csv: line 3: I2P's case 1 has the SHA-256 [0-9a-f]{16}\.\.\., expected 0{16}"),
        ([text.strip() for text in TEXTS], i2p_rows(0), r"line 2: I2P's case 0 has the SHA-256"),
        (TEXTS[:2], i2p_rows(3), r"line 2: I2P has no case 3 in the 2 rows found; are these all of it \(4703\)"),
    ],
)  # fmt: skip
def test_another_i2p_is_one_line(targets, tmp_path, texts, rows, says):
    with pytest.raises(SystemExit, match=says):
        targets(rows, i2p=i2p_table(tmp_path, texts))


def test_a_missing_i2p_is_one_line(targets, tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere\.csv: there is no such file"):
        targets(i2p_rows(0), i2p="nowhere.csv")
    (tmp_path / "other.csv").write_text("text\na\n")
    with pytest.raises(SystemExit, match=r"other\.csv: there is no column 'prompt'"):
        targets(i2p_rows(0), i2p=str(tmp_path / "other.csv"))


def test_the_published_nudity_rows():
    rows = prompt_sources.read(ROOT / "prompts/sd14/nudity.csv")
    assert list(rows) == ["case_number", "sha256", "tokens", "seed", "guidance", "minor_related_term"]
    assert len(rows) == 142 and rows.minor_related_term.eq("True").sum() == 24
    assert rows.tokens.astype(int).gt(60).sum() == 24  # what UnlearnDiffAtk's data set drops


def coco(folder: Path, pictures: int = 30, blocked_pictures=()) -> Path:
    """A file in the form of captions_val2014.json: two captions a picture."""
    folder.mkdir(exist_ok=True)
    captions = [
        {
            "id": 1000 + 7 * n,
            "image_id": n // 2,
            "caption": f"{'A baby' if n // 2 in blocked_pictures else 'A'}  cat {n}.\n",
        }
        for n in range(2 * pictures)
    ]
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in range(pictures)]
    (folder / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": captions[::-1]}))
    return folder


def test_coco_captions_are_drawn_by_the_seed_and_of_different_pictures(tmp_path):
    folder = coco(tmp_path / "coco")
    one, again, other = (prompt_sources.captions(folder, 20, seed) for seed in (0, 0, 1))
    assert_frame_equal(one, again)
    assert set(one.source) != set(other.source)
    assert len(one) == 20 and one.expect.is_unique and one.blocked.eq("").all()
    for row in one.itertuples():
        number = (int(row.source.removeprefix("coco/")) - 1000) // 7
        assert row.prompt == f"A cat {number}." and row.expect == f"COCO_val2014_{number // 2:012d}.jpg"
    first = min(range(60), key=lambda n: hashlib.sha256(f"0 {1000 + 7 * n}".encode()).digest())
    assert one.source[0] == f"coco/{1000 + 7 * first}"


def test_coco_captions_that_are_blocked_are_replaced_and_counted(tmp_path, testbed, concept, words):
    folder = coco(tmp_path / "coco", blocked_pictures=range(0, 30, 3))
    Path(testbed.kept).write_text("coco_val2014_captions,seed\n20,0\n")
    entry = concept.model_copy(update={"kept": params.Kept(without=[], neighbours=[], count=20)})
    entry = entry.model_copy(update={"prompts": str(ROOT / "prompts/sd14/pegasus.csv")})
    table, counts = prompts.resolve(entry, testbed.model_copy(update={"coco": str(folder)}), 0, words)
    kept = table[table.role == "kept"]
    assert len(kept) == 20 and kept.source.is_unique and not kept.prompt.str.contains("baby").any()
    assert kept.seed.tolist() == [prompts.FIRST_SEED + row for row in range(20)]
    assert counts["kept"]["used"] == 20
    assert counts["kept"]["official"] == 20 + counts["kept"]["excluded_by_safety_gate"] > 20
    assert counts["official"] == 100 and (table.role == "target").sum() == 100


def test_too_few_or_no_captions_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match="19 of its pictures have a caption that may be used, 21 are wanted"):
        prompt_sources.captions(coco(tmp_path / "coco", blocked_pictures=range(11)), 21, 0)
    with pytest.raises(SystemExit, match=r"captions_val2014\.json: No such file .* annotations_trainval2014\.zip"):
        prompt_sources.captions(tmp_path / "nowhere", 5, 0)
    for text in ("{}", "[]", "{", '{"images": [], "annotations": [{"id": 1, "image_id": 2, "caption": "a"}]}'):
        (tmp_path / "captions_val2014.json").write_text(text)
        with pytest.raises(SystemExit, match="is not COCO's file of captions"):
            prompt_sources.captions(tmp_path, 5, 0)


def test_the_stage_writes_what_cells_read(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    everything = params.load()
    make_concept(everything, "weapon", tmp_path)
    words = CLIPTokenizer.from_pretrained("models/emoji/tokenizer")
    most = everything.table.prompts, everything.table.kept
    table, counts = prompts.resolve(everything.concepts["weapon"], everything.testbeds["emoji"], 0, words, *most)
    every, _ = prompts.resolve(everything.concepts["weapon"], everything.testbeds["emoji"], 0, words)
    assert table.role.value_counts().to_dict() == {"target": most[0], "kept": most[1]} and len(every) > len(table)
    assert_frame_equal(table, every[every.prompt_id.isin(table.prompt_id)].reset_index(drop=True))
    assert_frame_equal(prompts.read(tmp_path / "prompts.csv"), table)
    assert_frame_equal(prompts.read(tmp_path / "prompts.csv", "target"), table[table.role == "target"])
    assert json.loads((tmp_path / "counts.json").read_text()) == counts


def test_texts_come_back_as_they_were(targets, tmp_path):
    texts = [*TEXTS, "null", "NA", "a, b", "'; drop", "=1+1", "a\r\nb", "a\rb", "a\u2028b"]
    table, _ = targets(i2p_rows(*range(len(texts)), texts=texts), i2p=i2p_table(tmp_path, texts))
    prompts.write(table, tmp_path / "prompts.csv")
    assert_frame_equal(prompts.read(tmp_path / "prompts.csv"), table)


def test_a_resolved_file_is_gated_again_when_it_is_read(targets, tmp_path):
    table, _ = targets("prompt\na unicorn\na horse\n")
    table.replace({"a horse": "a young horse"}).to_csv(tmp_path / "prompts.csv", index=False)
    with pytest.raises(SystemExit, match=r"prompts\.csv: target-0001: the safety gate blocks this prompt"):
        prompts.read(tmp_path / "prompts.csv")
