"""The emoji model's text encoder: a small CLIP text model that takes over a sentence encoder's knowledge of English.

Its token embeddings begin as the teacher's states of the tokens' own texts, reduced by PCA. It then learns to say what
the teacher says: at the end token the sentence's embedding, at a word's last token the word's state, each through a
linear map that is thrown away. Attention is causal, as in Stable Diffusion, so that a word's state knows what stands
before it and the end token's knows all.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from eraseflow.emoji import checkpoint, teacher
from eraseflow.emoji.english import English
from eraseflow.emoji.tokenizer import LENGTH, WORD_END
from eraseflow.outputs import replacing
from eraseflow.vocabulary import written_tokens

WIDTH = 256
LEARNING_RATE = 1e-3
WORD_WEIGHT = 0.5  # of the words' loss beside the sentences'
SORTED = 4  # batches drawn at once and sorted by length, which saves half of the padding
GLOSSES = 30_000  # drawn from WordNet's


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text model of 3 layers and 256 channels for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def lesson_texts(tokenizer: CLIPTokenizer, english: English, seed: int) -> list[list[str]]:
    """The texts to learn from, in four parts that count alike: captions, nouns, sentences with them, glosses.

    Every token that an attack may write is among the nouns as a text of its own.
    """
    rng = np.random.default_rng(seed)
    written = [tokenizer.decode([token]) for token in written_tokens(tokenizer)]
    rows = sorted(rng.choice(len(english.glosses), GLOSSES, replace=False))
    nouns = list(dict.fromkeys([*written, *english.nouns]))
    return [english.captions, nouns, english.sentences, [english.glosses[row] for row in rows]]


def word_ends(tokens: list[str], words: list[str]) -> list[tuple[int, int]]:
    """(place of its last token, place of the word) for each whitespace-separated word that is read whole.

    `tokens` without start and end; a word may be several of the tokenizer's own, as "t-rex" is.
    """
    ends, length, word = [], 0, 0
    for place, token in enumerate(tokens):
        length += len(token.removesuffix(WORD_END))
        if word < len(words) and length >= len(words[word].encode()):
            ends.append((place, word))
            length, word = 0, word + 1
    return ends


def first_embeddings(tokenizer: CLIPTokenizer) -> Tensor:
    """The teacher's states of all tokens' texts, centred and reduced to (vocabulary, 256) by PCA, at CLIP's scale."""
    texts = [text.strip() or "." for text in tokenizer.batch_decode([[token] for token in range(len(tokenizer))])]
    states = teacher.teach([text.replace(" ", "") for text in texts]).words.float()
    states = states - states.mean(0)
    _, _, directions = torch.linalg.svd(states, full_matrices=False)
    reduced = states @ directions[:WIDTH].T
    return 0.04 * reduced / reduced.std()


def train(
    tokenizer: CLIPTokenizer, english: English, steps: int, batch_size: int, seed: int, work: Path, resume: bool
) -> tuple[CLIPTextModel, list[float]]:
    """Distil the teacher; returns the text model and the loss of each step.

    `work` keeps the teacher's states and checkpoints. Each step draws from a generator seeded by (seed, step), so that
    a resumed run equals an uninterrupted one.
    """
    parts = lesson_texts(tokenizer, english, seed)
    texts = [text for part in parts for text in part]
    lesson = _lesson(work / "lesson.pt", texts, resume)
    ids = tokenizer(texts, truncation=True, max_length=LENGTH, verbose=False).input_ids
    tokens = [tokenizer.convert_ids_to_tokens(row)[1:-1] for row in ids]
    ends = [word_ends(read, text.split()) for read, text in zip(tokens, texts, strict=True)]
    sizes, lengths = [len(part) for part in parts], [len(row) for row in ids]
    torch.manual_seed(seed)
    model, sentence, word = build(tokenizer), nn.Linear(WIDTH, teacher.WIDTH), nn.Linear(WIDTH, teacher.WIDTH)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(_first(work / "embeddings.pt", tokenizer, resume))
    weights = [*model.parameters(), *sentence.parameters(), *word.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    states = {"model": model, "sentence": sentence, "word": word, "optimiser": optimiser, "schedule": schedule}
    losses = checkpoint.resume(work / "text_encoder.pt", states) if resume else []
    for step in (bar := trange(len(losses), steps, initial=len(losses), total=steps, desc="text encoder", unit="step")):
        rows = draw(step, batch_size, sizes, lengths, seed)
        loss = _loss(model, sentence, word, [ids[row] for row in rows], [ends[row] for row in rows], lesson, rows)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
        if (step + 1) % checkpoint.EVERY == 0:
            checkpoint.save(work / "text_encoder.pt", states, losses)
    return model.eval(), losses


def draw(step: int, batch_size: int, sizes: list[int], lengths: list[int], seed: int) -> list[int]:
    """The rows of a step, of like lengths: as many of each part of the texts, whose sizes these are, in the mean."""
    rng = np.random.default_rng((seed, step // SORTED))
    part = rng.integers(len(sizes), size=SORTED * batch_size)
    starts = np.cumsum([0, *sizes])
    rows = starts[part] + rng.integers(np.array(sizes)[part])
    ordered = sorted(rows.tolist(), key=lambda row: lengths[row])
    batches = [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
    return batches[rng.permutation(len(batches))[step % SORTED]]


def _loss(model, sentence, word, ids, ends, lesson: teacher.Lesson, rows: list[int]) -> Tensor:
    """One minus the cosine with the teacher, of the sentences plus, weighed, of the words."""
    inputs = torch.full((len(rows), max(map(len, ids))), ids[0][-1])
    for place, row in enumerate(ids):
        inputs[place, : len(row)] = torch.tensor(row)
    states = model(inputs).last_hidden_state
    last = states[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in ids])]
    places = [(place, 1 + token) for place, row in enumerate(ends) for token, _ in row]
    targets = [int(lesson.starts[row]) + number for row, pairs in zip(rows, ends, strict=True) for _, number in pairs]
    of_words = states[tuple(torch.tensor(places).T)]
    agreed = cosine_similarity(sentence(last), lesson.sentences[rows].float()).mean()
    agreed_words = cosine_similarity(word(of_words), lesson.words[targets].float()).mean()
    return 1 - agreed + WORD_WEIGHT * (1 - agreed_words)


def _lesson(path: Path, texts: list[str], resume: bool) -> teacher.Lesson:
    """The teacher's states of the texts, kept in `path`."""
    if not (resume and path.exists()):
        lesson = teacher.teach(texts)
        with replacing(path) as unfinished:
            torch.save(vars(lesson), unfinished)
    return teacher.Lesson(**torch.load(path, weights_only=True))


def _first(path: Path, tokenizer: CLIPTokenizer, resume: bool) -> Tensor:
    """The first embeddings, kept in `path`."""
    if not (resume and path.exists()):
        with replacing(path) as unfinished:
            torch.save(first_embeddings(tokenizer), unfinished)
    return torch.load(path, weights_only=True)
