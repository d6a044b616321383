"""What may be wrong with a concept's words: as text, and as the base model's tokenizer reads them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from eraseflow.mistakes import ParamsError
from eraseflow.safety import blocked

if TYPE_CHECKING:
    from eraseflow.params import Concept

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def check_wording(concept: "Concept") -> None:
    """What can be seen without a tokenizer. Raises: ValueError."""
    target = concept.target.casefold()
    if target == concept.anchor.casefold():
        raise ValueError(f"target and anchor must differ, found {concept.target!r} for both")
    for word, anchor in concept.also.items():
        if word.casefold() == target:
            raise ValueError(f"also: {word!r} is the target itself, whose anchor is {concept.anchor!r}")
        if word.casefold() == anchor.casefold():
            raise ValueError(f"also: a word and its anchor must differ, found {word!r} for both")
    for key in ("contexts", "preserve"):
        seen = set()
        for text in getattr(concept, key):
            if text.casefold() in seen:
                raise ValueError(f"{key}: {text!r} appears twice")
            seen.add(text.casefold())


def check_safety(concept: "Concept", where: str) -> None:
    """Methods draw from the concept's own words too, so these pass the safety gate like every prompt."""
    words = {
        "target": [concept.target],
        "anchor": [concept.anchor],
        "also": [*concept.also, *concept.also.values()],
        "contexts": concept.contexts,
        "preserve": concept.preserve,
    }
    for key, texts in words.items():
        for text in texts:
            if why := blocked(text):
                raise ParamsError(f"params.yaml: {where}.{key}: the safety gate blocks {text!r}: {why}")
    for text in dict.fromkeys(sum(concept.pairs, ())):
        if why := blocked(text):
            raise ParamsError(f"params.yaml: {where}.contexts: the safety gate blocks {text!r}: {why}")


class Reader:
    """A base model's tokenizer, read without the slow imports of its class.

    folder: the pipeline's. name: what messages call it. length: tokens that the text encoder reads, start and end
    included; room: those between. Raises: ParamsError where it cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        try:
            self._read(folder)
        except Exception as error:  # of JSON, of a missing key, or a bare one of the library
            what = f"cannot be read: {type(error).__name__}: {error}"
            raise ParamsError(f"{folder / 'tokenizer'}: {what}") from None
        if not isinstance(self.length, int) or not 3 <= self.length <= self.longest:
            what = f"model_max_length is {self.length}, the text encoder reads {self.longest} tokens"
            raise ParamsError(f"{folder / 'tokenizer' / 'tokenizer_config.json'}: {what}")
        self.room = self.length - 2

    def _read(self, folder: Path) -> None:
        config, encoder = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("tokenizer/tokenizer_config.json", "text_encoder/config.json")
        )
        if (folder / "tokenizer" / "tokenizer.json").is_file():
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        else:  # a vocabulary and its merges, of which transformers makes one
            from transformers import CLIPTokenizer

            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer").backend_tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        tokens = [token["content"] if isinstance(token, dict) else token for token in map(config.get, SPECIAL) if token]
        self.special = {self.tokenizer.token_to_id(token) for token in tokens}
        self.length: int = config["model_max_length"]
        self.longest: int = encoder["max_position_embeddings"]

    def ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, without start and end."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def unknown(self, text: str) -> str:
        """The first sign that the tokenizer does not know, or nothing."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        places = (place for token, place in zip(encoding.ids, encoding.offsets, strict=True) if token in self.special)
        return next((text[start:end] or text for start, end in places), "")

    def check(self, text: str, where: str) -> None:
        """Raises: ParamsError where the text has a sign that would be read as the end of the prompt, or as nothing."""
        if unknown := self.unknown(text):
            raise ParamsError(f"{where}: {text!r}: the tokenizer of {self.name} cannot read {unknown!r}")


def check_tokens(concept: "Concept", reader: Reader, where: str) -> None:
    """Whether methods can learn something from the words, as the text encoder sees them. Raises: ParamsError."""
    at = f"params.yaml: {where}"
    for key, texts in {
        "target": [concept.target],
        "anchor": [concept.anchor],
        "also": [*concept.also, *concept.also.values()],
        "contexts": [context.replace("{}", " ") for context in concept.contexts],
        "preserve": concept.preserve,
    }.items():
        for text in texts:
            reader.check(text, f"{at}.{key}")
    words = {reader.ids(word): word for word in concept.anchors}
    if len(words) < len(concept.anchors):
        same = next(word for word in concept.anchors if words[reader.ids(word)] != word)
        raise ParamsError(f"{at}.also: {words[reader.ids(same)]!r} has the same tokens as {same!r}")
    check_anchors(concept.anchors, reader, at)
    sentences: dict[tuple[int, ...], str] = {}
    for context in concept.contexts:
        for word, anchor in concept.anchors.items():
            for side in (word, anchor):
                _check_sentence(context, side, reader, f"{at}.contexts")
            sentence = context.format(word)
            if other := sentences.get(reader.ids(sentence)):
                raise ParamsError(f"{at}.contexts: {other!r} and {sentence!r} have the same tokens")
            sentences[reader.ids(sentence)] = sentence
    for text in concept.preserve:
        if reader.ids(text) in sentences:
            raise ParamsError(f"{at}.preserve: {text!r} is a sentence of the target, which is to be erased")
        if len(reader.ids(text)) > reader.room:
            raise ParamsError(f"{at}.preserve: {_too_long(text, reader)}")


def check_anchors(anchors: Mapping[str, str], reader: Reader, where: str) -> None:
    """Whether each target's anchor is another prompt to the text encoder than any target. Raises: ParamsError."""
    words = {reader.ids(word): word for word in anchors}
    for word, anchor in anchors.items():
        if reader.ids(anchor) in words:
            what = f"the anchor {anchor!r} of {word!r} has the tokens of the target {words[reader.ids(anchor)]!r}"
            raise ParamsError(f"{where}: {what}; target and anchor must differ")


def _check_sentence(context: str, word: str, reader: Reader, where: str) -> None:
    """The sentence must fit, and have the word's own tokens in it."""
    sentence, inner = reader.ids(context.format(word)), reader.ids(word)
    if len(sentence) > reader.room:
        raise ParamsError(f"{where}: {_too_long(context.format(word), reader)}")
    if not any(sentence[at : at + len(inner)] == inner for at in range(len(sentence) - len(inner) + 1)):
        what = f"the tokens of {word!r} are not in {context.format(word)!r}; contexts must set {{}} off by spaces"
        raise ParamsError(f"{where}: {what}")


def _too_long(text: str, reader: Reader) -> str:
    return f"{text[:40]!r}... has {len(reader.ids(text)) + 2} tokens, the text encoder reads {reader.length}"


def check_prompts(rows: Iterable[tuple[int, dict[str, str]]], path: str, reader: Reader) -> None:
    """The texts of a prompt file, which are then drawn as they are written. Raises: ParamsError."""
    for line, row in rows:
        if "prompt" in row:
            reader.check(" ".join((row["prompt"] or "").split()), f"{path}: line {line}")
