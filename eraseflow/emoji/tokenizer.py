"""The emoji model's CLIP tokenizer: byte-pair merges learned from captions and a dictionary of English."""

import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from eraseflow.emoji.english import English
from eraseflow.outputs import replacing

LENGTH = 24  # tokens a prompt, start and end included
VOCABULARY = 20_000
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# Captions and nouns count as often as this, so that the words with which people ask for pictures are whole tokens.
CAPTION_WEIGHT, NOUN_WEIGHT = 4, 8
# As CLIP's: words, single digits, runs of other signs.
PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def build(english: English, folder: Path) -> CLIPTokenizer:
    """Learn the merges, save the tokenizer as `folder`, in place of what is there, and return it.

    Every byte is a token, so that any text can be read. The end token has the highest id (open_clip pools at the
    arg-max id) and is the padding, as in Stable Diffusion.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters += [letter + WORD_END for letter in letters]
    bpe = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Letters that are given as special tokens have fixed ids: by these the trainer decides between merges equally often
    # seen, which would otherwise differ from run to run.
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, special_tokens=letters, end_of_word_suffix=WORD_END, show_progress=False
    )
    bpe.train_from_iterator(english.captions * CAPTION_WEIGHT + english.nouns * NOUN_WEIGHT + english.glosses, trainer)
    with tempfile.TemporaryDirectory() as temporary:
        _, merges_file = bpe.model.save(temporary)
        merges = [tuple(line.split(" ")) for line in Path(merges_file).read_text(encoding="utf-8").splitlines()[1:]]
    tokens = list(dict.fromkeys([*letters, *("".join(pair) for pair in merges), START, END]))
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
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
