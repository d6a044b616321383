"""The emoji model's CLIP tokenizer: byte-pair merges in which each word of the captions is one token."""

import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from eraseflow.emoji.vocabulary import all_captions
from eraseflow.outputs import replacing

LENGTH = 24  # tokens a prompt, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"


def build(folder: Path) -> CLIPTokenizer:
    """Learn the merges, save the tokenizer as `folder`, in place of what is there, and return it.

    The end token has the highest id (open_clip pools at the arg-max id) and is the padding, as in
    Stable Diffusion. Every letter and digit stays a token, so that any prompt can be read.
    """
    words = sorted({word for caption in all_captions() for word in caption.text.split()})
    letters = [chr(code) for code in [*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1), *b"-,.!?'"]]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    bpe.train_from_iterator(words, trainer)
    with tempfile.TemporaryDirectory() as temporary:
        _, merges_file = bpe.model.save(temporary)
        merges = [tuple(line.split(" ")) for line in Path(merges_file).read_text(encoding="utf-8").splitlines()[1:]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )
    with replacing(folder) as unfinished:
        tokenizer.save_pretrained(unfinished)
    return tokenizer
