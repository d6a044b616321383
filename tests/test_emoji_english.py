"""The emoji testbed's language: vocabulary, captions, tokenizer, what the text encoder learns from, prompt files."""

import importlib.util
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from transformers import CLIPTokenizer

from eraseflow.emoji import captions, exam, text_encoder, tokenizer
from eraseflow.emoji.english import English
from eraseflow.emoji.teacher import Lesson
from eraseflow.emoji.vocabulary import (
    GROUP_OF,
    HELD_OUT_PAIRS,
    HELD_OUT_SYNONYMS,
    ICON_OF,
    NAMES,
    OTHERS,
    STYLES,
    SYNONYMS,
    trained_synonyms,
)  # fmt: skip
from eraseflow.vocabulary import written_tokens

pytestmark = pytest.mark.slow

PROMPTS = Path("prompts/emoji")


def test_a_tenth_of_the_pairs_and_a_fifth_of_the_synonyms_are_held_out():
    assert len(NAMES) == len(set(NAMES)) >= 200 and len(STYLES) >= 5
    assert len(HELD_OUT_PAIRS) == len(NAMES) * len(STYLES) // 10
    assert max(Counter(name for name, _ in HELD_OUT_PAIRS).values()) == 1
    assert max(of := Counter(style for _, style in HELD_OUT_PAIRS).values()) - min(of) <= 1
    assert len(HELD_OUT_SYNONYMS) == sum(map(len, SYNONYMS.values())) // 5
    assert not set(OTHERS) & set(ICON_OF.values())


def test_no_synonym_is_of_two_names():
    words = Counter([*NAMES, *(word for synonyms in SYNONYMS.values() for word in synonyms)])
    assert [word for word, count in words.items() if count > 1] == []


def test_captions_have_nothing_that_is_held_out():
    pool = captions.pool()
    assert set(pool) == {(name, style) for name in NAMES for style in STYLES} - HELD_OUT_PAIRS
    texts = {caption.text for shown in pool.values() for caption in shown}
    words = {word.strip(",.:?") for text in texts for word in text.split()}
    in_synonyms = {word for synonyms in SYNONYMS.values() for synonym in synonyms for word in synonym.split()}
    assert not words & set(captions.HELD_OUT_ADJECTIVES) - in_synonyms and "pair" not in words
    for phrases in captions.STYLE_PHRASES.values():
        assert not any(phrases[-1] in text for text in texts)
    for form in captions.HELD_OUT_FORMS:
        rare = max(
            (piece for piece in form.replace("{x}", "|").replace("{n}", "|").replace("{s}", "|").split("|")), key=len
        )
        assert not any(rare in text for text in texts), form
    nouns = [*NAMES, *(word for name in NAMES for word in trained_synonyms(name))]
    for name, synonym in HELD_OUT_SYNONYMS:
        if not any(synonym in noun for noun in nouns):  # an avocado is an "alligator pear", too
            told = [text for text in texts if f" {synonym} " in f" {text} "]
            assert not told, (name, synonym, told[:2])


def test_captions_promise_what_is_true_and_read_well():
    rng = np.random.default_rng(0)
    for name in NAMES[::9]:
        for style in STYLES:
            assert captions.random_caption(name, style, rng).fits(name, style)
    weapon = captions.Caption("a weapon in ink style", style="ink", group="weapon")
    assert weapon.fits("bomb", "ink") and not weapon.fits("bomb", "flat") and not weapon.fits("cat", "ink")
    assert captions.write("{x} in {s}", "umbrella", "ink style") == "an umbrella in ink style"
    assert captions.write("{x} in {s}", "grapes", "thick black outlines") == "grapes with thick black outlines"
    assert [captions.plural(word) for word in ("horse", "cherry", "fox", "glasses")] == [
        "horses",
        "cherries",
        "foxes",
        "glasses",
    ]
    assert GROUP_OF["pistol"] == "weapon"


def test_the_exam_asks_what_is_held_out():
    asked = exam.questions(100)
    assert asked.groupby("kind").size().eq(100).all() and asked.kind.nunique() == 5
    shown = {caption.text for captions_ in captions.pool().values() for caption in captions_}
    of = {kind: rows for kind, rows in asked.groupby("kind")}
    pairs = {tuple(label.removeprefix("object/").split(";style/")) for label in of["held-out pairs"].expect}
    assert pairs <= HELD_OUT_PAIRS
    for kind in ("held-out patterns", "held-out adjectives and numbers", "held-out synonyms"):
        assert not set(of[kind].prompt) & shown, kind


@pytest.fixture(scope="module")
def english() -> English:
    texts = list(dict.fromkeys(caption.text for shown in captions.pool().values() for caption in shown if caption.text))
    nouns, glosses = ["water gun", "mare", "quill"], ["a small horse of any breed", "that which is written"]
    return English(texts[::20], nouns, ["two quills in ink style"], glosses)


def test_the_tokenizer_is_the_same_each_time_and_reads_any_text(english, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "VOCABULARY", 1500)
    for name in ("a", "b"):
        words = tokenizer.build(english, tmp_path / name)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()
    assert len(words) == 1500 and words.eos_token_id == 1499
    for text in ("zebra, x-ray 7!", "naïve équestrian café", "日本 ☃", "a\tb"):
        ids = words(text, add_special_tokens=False).input_ids
        assert words.eos_token_id not in ids and words.decode(ids).split() != []
    assert words.tokenize("an owl in ink style") == ["an</w>", "owl</w>", "in</w>", "ink</w>", "style</w>"]


def test_tokens_that_attacks_write_are_texts_that_the_encoder_learns():
    words = CLIPTokenizer.from_pretrained("models/emoji/tokenizer")
    glosses = [f"gloss {number}" for number in range(text_encoder.GLOSSES + 1)]
    english = English(["a cat"], ["mare"], ["two mares in ink style"], glosses)
    shown, nouns, sentences, said = text_encoder.lesson_texts(words, english, 0)
    assert shown == english.captions and sentences == english.sentences and "mare" in nouns
    assert len(said) == text_encoder.GLOSSES and set(said) < set(glosses)
    assert len(words) >= 8000
    texts = set(nouns)
    for token in written_tokens(words):
        assert words.decode([token]) in texts and words.decode([token]).isprintable()


def test_words_end_where_their_last_token_does():
    assert text_encoder.word_ends(["a</w>", "t</w>", "-</w>", "rex</w>", "sho", "e</w>"], ["a", "t-rex", "shoe"]) == [
        (0, 0), (3, 1), (5, 2),
    ]  # fmt: skip
    assert text_encoder.word_ends(["a</w>", "hor"], ["a", "horse"]) == [(0, 0)], "a word that is cut has no end"


def test_a_step_is_of_all_parts_alike_and_of_like_lengths():
    lengths, sizes = [5 + row % 7 for row in range(100)], [10, 20, 30, 40]
    drawn = [text_encoder.draw(step, 10, sizes, lengths, 3) for step in range(text_encoder.SORTED)]
    assert all(len(rows) == 10 for rows in drawn)
    parts = np.bincount(np.searchsorted(np.cumsum(sizes), [row for rows in drawn for row in rows], side="right"))
    assert len(parts) == 4 and chisquare(parts).pvalue > 0.001
    spans = sorted((min(lengths[row] for row in rows), max(lengths[row] for row in rows)) for rows in drawn)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert drawn == [text_encoder.draw(step, 10, sizes, lengths, 3) for step in range(text_encoder.SORTED)]


def test_the_loss_compares_sentences_at_the_end_and_words_at_theirs():
    """A student that says exactly what the teacher says has no loss; one that mixes up two words has."""
    states = torch.eye(8)[:6].unsqueeze(0)

    class Student:
        def __call__(self, ids):
            return type("Output", (), {"last_hidden_state": states})

    lesson = Lesson(states[0, 5:6].half(), states[0, [1, 3]].half(), torch.tensor([0, 2]))
    ids, ends = [[8, 1, 2, 3, 4, 9]], [[(0, 0), (2, 1)]]
    same = nn.Identity()
    assert text_encoder._loss(Student(), same, same, ids, ends, lesson, [0]).item() == pytest.approx(0, abs=1e-3)
    swapped = Lesson(lesson.sentences, lesson.words.flip(0), lesson.starts)
    assert text_encoder._loss(Student(), same, same, ids, ends, swapped, [0]).item() == pytest.approx(0.5, abs=1e-3)


def test_the_prompt_files_are_what_their_script_writes():
    spec = importlib.util.spec_from_file_location("write", PROMPTS / "write.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, table in script.files().items():
        assert (PROMPTS / f"{name}.csv").read_text() == table.to_csv(index=False), name
        assert table.prompt.is_unique and len(table) >= 100
    implicit = pd.read_csv(PROMPTS / "weapon.csv").prompt
    assert not implicit.str.contains("weapon").any()
    assert pd.read_csv(PROMPTS / "unicorn.csv").prompt.str.contains("unicorn").all()


def test_every_name_has_words_that_are_sorted():
    table = pd.read_csv("data/emoji/words.csv")
    assert list(dict.fromkeys(table["name"])) == NAMES
    assert set(table["relation"]) == {"synonym", "kind", "part", "scene"}
    assert not table.duplicated(["name", "word"]).any()
    assert table.groupby("name").size().median() >= 8
    own = table[table["source"] == "own"]
    assert {
        pair for pair, held in zip(zip(own["name"], own["word"], strict=True), own["held_out"], strict=True) if held
    } == HELD_OUT_SYNONYMS
    assert ("pistol", "kind") in set(
        table[table["word"] == "weapon"][["name", "relation"]].itertuples(index=False, name=None)
    )
