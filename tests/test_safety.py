"""The safety gate: what it stops however it is written, what it lets through, and that nothing takes it long."""

import csv
import time
from pathlib import Path

import pytest

from eraseflow import train
from eraseflow.safety import PHRASES, WORDS, blocked

ROOT = Path(__file__).parent.parent
TERMS = [term.replace("*", "") for term in (*WORDS, *PHRASES)]


@pytest.mark.parametrize("term", TERMS)
def test_every_term_in_every_spelling(term):
    spellings = [
        term,
        term.upper(),
        term.title(),
        f"({term})",
        f"the_{term}_2",
        f"1{term}",
        "-".join(term),
        ".".join(term),
        "\u200b".join(term),  # zero-width spaces
        term.replace(" ", "-"),
        term.replace(" ", ""),
        term.translate(str.maketrans("aeiost", "431057")),
        term.translate(str.maketrans("aeocpxy", "аеосрху")),  # Cyrillic letters
        "".join(letter + "\u0301" if letter in "aeiou" else letter for letter in term),  # accents
        "".join(chr(ord(letter) + 0xFEE0) if letter != " " else letter for letter in term),  # full width
        "".join(letter * 4 if letter in "aeiou" else letter for letter in term),
    ]
    if " " not in term:
        spellings.append(" ".join(term))
    passed = [text for text in spellings if not blocked(f"a garden with {text}, oil painting")]
    assert not passed


@pytest.mark.parametrize(
    "text",
    [
        "12 years old", "12-year-old", "12yo", "12 y.o.", "12 y/o", "12 yrs old", "12yr old", "1 2 years old",
        "twelve years old", "Twelve-year-old", "aged 12", "age of 12", "age: 12", "ages 5 to 7", "aged five",
        "17 years of age", "0 years old", "2.5 years old", "15-16 years old", "15 to 25 years old", "15/16 yo",
        "seventeen year olds", "18 months old", "six weeks, 6 weeks old", "under 18", "below eighteen",
        "younger than 18", "1７ years old", "5th grade", "tenth-grader", "\U0001f467", "\U0001f9d2", "\U0001f6b8",
        "grandchildren", "fairychild", "cowgirl", "childhood", "highschool", "high-school",
    ],
)  # fmt: skip
def test_ages_emoji_and_compounds(text):
    assert blocked(f"a garden with {text}")
    assert blocked(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "a unicorn in flat style", "a woman, 25 years old", "thirty-five years old", "eighteen years old",
        "a 100-year-old oak", "an 115 years old house", "2 0 years old", "page 12", "the stone age, 3d render",
        "older than 18", "a kidney", "a boycott", "between towns", "a cowboy hat", "canteen", "a minority", "nineteen",
        "tadpoles", "ladder", "glass", "class", "5 min or less", "a cherry tree", "the 17th of May", "aged whisky",
        "grade A", "photograph", "velveteen", "a toot", "b", "l", "portrait of a man", "school of fish",
        "\U0001f469", "\U0001f434", "été à la plage", "東京の夜", "café", "мост",
    ],
)  # fmt: skip
def test_what_is_let_through(text):
    assert blocked(text) is None


def test_why_names_the_word():
    assert blocked("a Y.o.u.n.g tree") == "it has an age word ('y.o.u.n.g')"
    assert blocked("7 years old") == "it names an age under 18 ('7 years old')"


def test_no_prompt_of_the_repository_is_blocked():
    files = list((ROOT / "prompts").rglob("*.csv"))
    assert {file.parent.name for file in files} >= {"emoji", "sd14"}
    for file in files:
        with file.open(newline="") as rows:
            stopped = {row["prompt"]: why for row in csv.DictReader(rows) if (why := blocked(row.get("prompt", "")))}
        assert not stopped, file


@pytest.mark.parametrize("text", ["!" * 5000, "l|" * 3000, "a " * 3000, "1 " * 3000, "gir" * 2000, "-i-" * 2000])
def test_no_text_takes_long(text):
    started = time.process_time()
    blocked(text)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("option", ["target_prompt", "anchor_prompt"])
def test_the_train_command_draws_from_no_blocked_prompt(monkeypatch, tmp_path, option):
    words = {"target_prompt": "a unicorn", "anchor_prompt": "a horse"} | {option: "a young tree"}
    arguments = [part for key, value in words.items() for part in (f"--{key}", value)]
    monkeypatch.setattr("sys.argv", ["train", *arguments, "--name", "x", "--save_dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"--{option}: the safety gate blocks it"):
        train.main()
