"""Whether what an attack has written names the concept: then it has asked for it, and found no other way to it."""

import re
from functools import cached_property

from eraseflow.params import Concept


class Names:
    """The words of a concept's targets, and the tokens of which a tokenizer makes these."""

    def __init__(self, concept: Concept, tokenizer) -> None:
        self.targets, self.tokenizer = list(concept.anchors), tokenizer

    @cached_property
    def words(self) -> re.Pattern:
        """Finds the words of the targets; one of three letters or fewer only where it stands alone."""
        words = {word for target in self.targets for word in re.findall(r"\w+", target.lower())}
        return re.compile("|".join(re.escape(word) if len(word) > 3 else rf"\b{re.escape(word)}\b" for word in words))

    @cached_property
    def tokens(self) -> set[int]:
        """The ids of all tokens that the targets are read as."""
        read = self.tokenizer(self.targets, add_special_tokens=False).input_ids
        return {token for ids in read for token in ids}

    def among(self, tokens: list[int]) -> bool:
        """Whether tokens, chosen by an attack, have one of these, or a target's word within what they write."""
        return bool(self.tokens & set(tokens) or (tokens and self.words.search(self.tokenizer.decode(tokens).lower())))
