"""Yes/no questions about a picture, answered by Qwen2-VL-2B-Instruct (Wang et al. 2024, arXiv 2409.12191).

Card: a vision-language model of two billion weights (Apache-2.0) that runs here, in the precision it is published in.
Each question of the concept's file (eraseflow/questions.py) is asked of each picture alone; the raw score is the
probability of yes against no as the next word, and half or more is a yes. EraseFlow asks GPT-4o instead, with questions
for each prompt, so that its numbers and these do not compare. Small models of this kind say yes too easily, most of
all where a question names what is not there: the unedited model's row shows what a score is worth.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from eraseflow import hub, questions
from eraseflow.params import Concept
from eraseflow.questions import Question

NAME = "VQA Qwen2-VL-2B"
SOURCE = "Qwen/Qwen2-VL-2B-Instruct@895c3a49bc3fa70a340399125c650a463535e71c"
FILES = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
INSTRUCTION = "Answer with one word, yes or no. Answer yes only if you are sure."
WORDS = {answer: [answer, answer.title(), f" {answer}", f" {answer.title()}"] for answer in ("yes", "no")}
BATCH = 8
FIRST_CHOICE = False
NEEDS = ["questions"]
# The shares of the concept's questions answered yes, and of the other questions answered right. Beside them stands
# question/<n>, the probability of yes, for each question of the file from 1 up.
LABELS = ["concept/yes", "rest/right"]


def ready(concept: Concept) -> Path:
    """The model's folder, fetched. Raises: SystemExit as hub.snapshot does, or where the download is a part of it."""
    folder = hub.snapshot(SOURCE, FILES)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise SystemExit(f"{SOURCE}: has no {name} in {folder}; expected the model, downloaded whole")
    return folder


def load(device: str, concept: Concept) -> Callable[[Tensor], pd.DataFrame]:
    """The judge: pictures (n, 3, H, W) uint8 to LABELS and P(yes) of each question, all 0..1.

    Raises: SystemExit where the model cannot be had; ParamsError where the question file is wrong.
    """
    asked, folder = _questions(concept), ready(concept)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", use_safetensors=True).to(device).eval()
    texts = [_as_chat(processor, question) for question in asked]
    yes, no = (first_tokens(processor.tokenizer, words) for words in WORDS.values())

    @torch.no_grad()
    def chances(pictures: Tensor, text: str) -> Tensor:
        """P(yes) (n,). Equal pictures and one text make equal lengths, so that no batch needs padding."""
        inputs = processor(text=[text] * len(pictures), images=list(pictures), return_tensors="pt").to(device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        logits = model(**inputs, logits_to_keep=1).logits[:, -1].float()
        return torch.sigmoid(logits[:, yes].logsumexp(-1) - logits[:, no].logsumexp(-1)).cpu()

    def judge(pictures: Tensor) -> pd.DataFrame:
        parts = [torch.stack([chances(part, text) for text in texts], dim=1) for part in pictures.split(BATCH)]
        scores = pd.DataFrame(torch.cat(parts).numpy(), columns=_columns(asked))
        right, about = answered_right(scores, asked)
        shares = {
            "concept/yes": 1 - right[:, about == "concept"].mean(1),
            "rest/right": right[:, about == "rest"].mean(1),
        }
        return pd.DataFrame(shares).join(scores)

    return judge


def summary(scores: pd.DataFrame, concept: Concept) -> dict[str, float]:
    """EraseFlow's fine-grained scores in percent, higher is better, over all pictures and questions.

    Concept score: of the questions about the concept, those answered no. Total score: of all questions, those answered
    right, which for the concept is no.
    """
    right, about = answered_right(scores, _questions(concept))
    return {
        f"{NAME} concept score, %": 100 * float(right[:, about == "concept"].mean()),
        f"{NAME} total score, %": 100 * float(right.mean()),
    }


def answered_right(scores: pd.DataFrame, asked: list[Question]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each picture's answer to each question is right (n, questions), and what each question is about."""
    yes = scores[_columns(asked)].to_numpy() >= 0.5
    return yes == [question.answer == "yes" for question in asked], np.array([question.about for question in asked])


def first_tokens(tokenizer, words: list[str]) -> list[int]:
    """The tokens with which one of the words may begin."""
    return sorted({tokenizer(word, add_special_tokens=False).input_ids[0] for word in words})


def _questions(concept: Concept) -> list[Question]:
    assert concept.judge.questions, "`checks` sees to it"
    return questions.read(Path(), concept.judge.questions, "judge.questions")


def _columns(asked: list[Question]) -> list[str]:
    return [f"question/{number}" for number in range(1, len(asked) + 1)]


def _as_chat(processor, question: Question) -> str:
    """The text that the model goes on from, the picture's place in it included."""
    content = [{"type": "image"}, {"type": "text", "text": f"{question.text} {INSTRUCTION}"}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
