"""Whether what an attack has written names the concept: then it has asked for it, and found no other way to it."""

import re
from functools import cached_property

from eraseflow.params import Concept


class Names:
    """What names a concept: of its targets the words that their anchors lack, and of a category also its members.

    So "running" names a running shoe that is to become a shoe, and "shoe" does not. Members are the objects that the
    judge counts, each as a whole.
    """

    def __init__(self, concept: Concept, tokenizer) -> None:
        self.own = [word for target, anchor in concept.anchors.items() for word in _own(target, anchor)]
        counts = getattr(concept.judge, "counts", []) if concept.kind == "category" else []
        self.members = [label.removeprefix("object/") for label in counts if label.startswith("object/")]
        self.tokenizer = tokenizer

    @cached_property
    def words(self) -> re.Pattern:
        """Finds these words; one of three letters or fewer only where it stands alone."""
        words = dict.fromkeys([*self.own, *self.members])
        return re.compile("|".join(re.escape(word) if len(word) > 3 else rf"\b{re.escape(word)}\b" for word in words))

    @cached_property
    def tokens(self) -> set[int]:
        """The ids of all tokens that the targets' words are read as, and of members that are one token."""
        own, members = (
            self.tokenizer(words, add_special_tokens=False).input_ids if words else []
            for words in (self.own, self.members)
        )
        return {token for ids in own for token in ids} | {ids[0] for ids in members if len(ids) == 1}

    def among(self, tokens: list[int]) -> bool:
        """Whether tokens, chosen by an attack, have one of these, or a word within what they write."""
        return bool(self.tokens & set(tokens) or (tokens and self.words.search(self.tokenizer.decode(tokens).lower())))


def _own(target: str, anchor: str) -> list[str]:
    """The target's words that its anchor lacks; all of them where it lacks none."""
    words, others = (re.findall(r"\w+", text.lower()) for text in (target, anchor))
    return [word for word in words if word not in others] or words
