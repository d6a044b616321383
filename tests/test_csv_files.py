"""CSV files as the field publishes them and as spreadsheets save them: the right rows, or one line."""

import csv
import io
import random
from pathlib import Path

import pytest

from eraseflow import csv_files, prompt_files, questions
from eraseflow.mistakes import ParamsError

I2P_HEADER = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    "prompt_toxicity,lexica_url,{},sd_image_width,sd_image_height,sd_model"
)
I2P_ROW = '"a lamp, at night",shocking,0,1.0,0.0,80.0,60.0,0.3,https://lexica.art/x,{},512,512,stable-diffusion-v1-4'
LAMP = {"prompt": "a lamp, at night"}


def read(folder: Path, data: str | bytes) -> csv_files.Sheet:
    path = folder / "x.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return prompt_files.read(path, "x.csv")


def rows(folder: Path, data: str | bytes) -> list[dict[str, str]]:
    return [row for _, row in read(folder, data).rows]


def mistake(folder: Path, data: str | bytes) -> str:
    with pytest.raises(ParamsError) as error:
        read(folder, data)
    line = str(error.value)
    assert line.startswith("x.csv: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "row", "said"),
    [
        # UnlearnDiffAtk: objects, styles, and its I2P
        ("case_number,prompt,evaluation_seed,evaluation_guidance\n0,a church,69922,7.5\n",
         {"case_number": "0", "prompt": "a church", "seed": "69922", "guidance": "7.5"},
         "x.csv: evaluation_seed read as seed, evaluation_guidance as guidance"),
        ("Unnamed: 0,case_number,prompt,evaluation_seed,artist,evaluation_guidance\n0,0,a field,2219,Vincent,7.5\n",
         {"case_number": "0", "prompt": "a field", "seed": "2219", "guidance": "7.5"},
         "x.csv: evaluation_seed read as seed, evaluation_guidance as guidance; Unnamed: 0, artist not used"),
        # I2P and SPM's copy of it; ESD's, with pandas' index
        (I2P_HEADER.format("sd_seed,sd_guidance_scale") + "\n" + I2P_ROW.format("4261553411,13") + "\n",
         LAMP | {"seed": "4261553411", "guidance": "13"}, "x.csv: sd_seed read as seed, sd_guidance_scale as"),
        ("," + I2P_HEADER.format("evaluation_seed,evaluation_guidance") + ",case_number\n3,"
         + I2P_ROW.format("7,7.5") + ",3\n",
         LAMP | {"seed": "7", "guidance": "7.5", "case_number": "3"}, "column 1, categories, hard,"),
        # ESD's ImageNet and artists, SPM's COCO, Ring-A-Bell, MMA-Diffusion
        (",case_number,evaluation_seed,prompt,label_idx,label_str\n0,0,41955,image of tench,0,tench\n",
         {"case_number": "0", "seed": "41955", "prompt": "image of tench"}, "label_idx, label_str not used"),
        (",case_number,prompt,evaluation_seed,class\n0,0,a player,4068,cassette player\n",
         {"case_number": "0", "seed": "4068", "prompt": "a player"}, "class not used"),
        ("image_id,source,prompt,evaluation_seed,width,height\n203564,coco-30k,a clock,41337,400,400\n",
         {"seed": "41337", "prompt": "a clock"}, "image_id, source, width, height not used"),
        ("sensitive prompt,case_number,evaluation_seed\nlamp \ufffd,0,41\n",
         {"prompt": "lamp \ufffd", "case_number": "0", "seed": "41"}, "sensitive prompt read as prompt,"),
        ("target_prompt,adv_prompt\na lamp,mpla\n", {"prompt": "mpla"}, "adv_prompt read as prompt; target_prompt not"),
        # capitals, spaces, hyphens, nothing to say
        ("Prompt,Seed\na,1\n", {"prompt": "a", "seed": "1"}, "x.csv: Prompt read as prompt, Seed as seed"),
        ("prompt, seed\na, 1\n", {"prompt": "a", "seed": "1"}, ""),
        ("prompt,Guidance-Scale \na,3\n", {"prompt": "a", "guidance": "3"}, "Guidance-Scale read as guidance"),
        ("prompt,seed,guidance\na,1,\n", {"prompt": "a", "seed": "1", "guidance": ""}, ""),
    ],
)  # fmt: skip
def test_published_columns_mean_what_they_mean(tmp_path, text, row, said):
    sheet = read(tmp_path, text)
    assert [found for _, found in sheet.rows] == [row]
    line = csv_files.said(sheet, "x.csv")
    assert said in line if said else line == ""
    assert prompt_files.said(tmp_path, "x.csv") == line


TABLE = [["prompt", "seed"], ["a cat, sitting", "1"], ['a "big" lamp', "2"], ["two\nlines", "3"], ["; and\tmore", "4"]]
WANTED = [{"prompt": prompt, "seed": seed} for prompt, seed in TABLE[1:]]


def written(delimiter: str, end: str, quoting=csv.QUOTE_MINIMAL, extra: int = 0) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([*([*row, *[""] * extra] for row in TABLE), *[[""] * (2 + extra)] * extra])
    return file.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_save_is_the_same_table(tmp_path, delimiter, end, encoding):
    for quoting in (csv.QUOTE_ALL, csv.QUOTE_MINIMAL)[: 1 + (end != "\r")]:  # Python then leaves "two\nlines" unquoted
        for extra in (0, 2):
            text = written(delimiter, end, quoting, extra)
            assert rows(tmp_path, text.encode(encoding)) == WANTED
            assert rows(tmp_path, (end * 2 + text + end * 2).encode(encoding)) == WANTED


def test_lines_are_those_of_the_file(tmp_path):
    text = 'prompt,seed\n"two\nlines",1\n\n"a\nb",2\nc,x\n'
    assert [line for line, _ in read(tmp_path, text.replace("x", "3")).rows] == [2, 5, 7]
    assert "x.csv: line 7: the seed must be" in mistake(tmp_path, text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("prompt,seed,evaluation_seed\na,1,1\n", "the columns 'seed' and 'evaluation_seed' both mean seed; keep one"),
        ("prompt,Prompt\na,b\n", "the columns 'prompt' and 'Prompt' both mean prompt"),
        ("prompt,adv_prompt\na,b\n", "both mean prompt"),
        ("prompt,sead\na,1\n", "the column 'sead' is not known; did you mean 'seed'? (or take it out)"),
        ("prompt,strength\na,1\n", "the column 'strength' is not known; "),
        ("prompt|seed\na|1\n", "the column 'prompt|seed' is not known; did you mean"),
        ("promt,seed\na,1\n", "the column 'promt' is not known; did you mean 'prompt'?"),
        ("prompt,,seed\na,words,1\n", "line 2: column 2 has no name, but holds 'words'"),
        ("prompt,seed\na, b,1\n", "line 2: more fields than the header has; put a prompt with a comma in quotes"),
        ("prompt,seed\na,1,,x\n", "line 2: more fields"),
        ("prompt,seed\na,1\n,\nb,2\n", "line 3: the prompt is empty"),
        ('prompt\n"a" b\n', "line 2: is not CSV"),
        ('prompt\n\n"a\n', "line 3: is not CSV"),
        ("prompt\na\nun thé\n".encode("latin-1"), "line 3: is not in UTF-8; save it as CSV in UTF-8"),
        (b"prompt\na\nb\x00\n", "line 3: has a NUL character"),
        ("prompt\na\n".encode("utf-16-le"), "NUL"),
        ("prompt,seed\n" + "a" * 200_000 + ",1\n", "line 2: is not CSV: field larger than"),
        ("prompt,sha256,case_number\na," + "0" * 64 + ",1\n", "has both prompt and sha256"),
        ("coco_val2014_captions,seed\n10,0\n20,1\n", "line 3: expected one row"),
        (f"case_number,sha256\n٣,{'0' * 64}\n", "line 2: case_number must be a whole number"),
        (f"case_number,sha256\n{'9' * 5000},{'0' * 64}\n", "line 2: case_number must be a whole number"),
        ("prompt,images\na,３\n", "line 2: images must be a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(tmp_path, data, says):
    assert says in mistake(tmp_path, data)


NO_SEEDS = ["", "-1", "1.0", "7.", "1e3", "1.23E+08", "1,23E+08", "+7", " 7 ", "7 ", "0x7", "1_0", "٣", "７", "True"]
NO_SEEDS += ["nan", str(2**64), "9" * 5000, "1'000", "#7"]
NO_GUIDANCE = ["nan", "inf", "-inf", "1_0", "７", "0.5", "-7.5", "7,5", "1e999", "0x7", "high", "+7", "7.5 ", "True"]


@pytest.mark.parametrize("text", NO_SEEDS)
def test_no_seed_is_one_line(tmp_path, text):
    said = mistake(tmp_path, f'prompt,seed\na,1\nb,"{text}"\n')
    assert said.startswith(f"x.csv: line 3: the seed must be a whole number from 0 to {2**64 - 1}, found")
    assert ("a spreadsheet has rounded it" in said) == text.startswith(("1.23", "1,23"))


@pytest.mark.parametrize("text", NO_GUIDANCE)
def test_no_guidance_is_one_line(tmp_path, text):
    assert "line 2: the guidance must be a number from 1 up" in mistake(tmp_path, f'prompt,guidance\na,"{text}"\n')


def test_seeds_and_guidance_are_the_numbers_written():
    rng = random.Random(0)
    seeds = [0, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, *(rng.getrandbits(64) for _ in range(200))]
    assert [prompt_files.seed(str(seed)) for seed in seeds] == seeds
    for number in [1.0, 7.5, 1e5, *(rng.uniform(1, 1e3) for _ in range(200))]:
        assert prompt_files.guidance(repr(number)) == number


def test_seeds_that_follow_on_must_have_room(tmp_path):
    last = 2**64 - 1
    assert rows(tmp_path, f"prompt,seed,images\na,{last - 4},5\n")
    assert f"line 2: the seed of its last picture, {last + 1}, is" in mistake(
        tmp_path, f"prompt,seed,images\na,{last - 4},6\n"
    )
    path = tmp_path / "x.csv"
    path.write_text(f"prompt,seed\na,{last - prompt_files.RUN_STRIDE}\n")
    prompt_files.read(path, "x.csv", run=1)
    with pytest.raises(ParamsError, match=r"line 2: .* and table.seed 2 times 1000003 added, is beyond"):
        prompt_files.read(path, "x.csv", run=2)


def test_question_files_are_read_in_the_same_way(tmp_path):
    text = 'Question;About;Answer;note\r\n"a; b?";concept;no;x\r\nc?;rest;yes;\r\n;;;\r\n'
    (tmp_path / "q.csv").write_bytes(text.replace(";note", "").replace(";x\r", "\r").encode("utf-8-sig"))
    found = questions.read(tmp_path, "q.csv", "where")
    assert [(one.text, one.about, one.answer) for one in found] == [("a; b?", "concept", "no"), ("c?", "rest", "yes")]
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(ParamsError, match=r"q\.csv: the column 'note' is not known"):
        questions.read(tmp_path, "q.csv", "where")
