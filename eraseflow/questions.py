"""Yes/no questions about a picture, a CSV with the columns question, about (concept or rest) and answer (yes or no).

A question about the concept asks whether it is drawn; one about the rest asks for what the prompts want besides. The
answer is the right one for a picture that keeps everything but the concept: so no for all questions about the concept.
"""

from dataclasses import dataclass
from pathlib import Path

from eraseflow import csv_files
from eraseflow.mistakes import ParamsError, nearest

COLUMNS = ["question", "about", "answer"]
ABOUT = ("concept", "rest")


@dataclass(frozen=True)
class Question:
    """One line of the file."""

    text: str
    about: str
    answer: str


def read(root: Path, path: str, where: str) -> list[Question]:
    """The questions of the file that `where` in params.yaml names, in order.

    Raises: ParamsError where the file is missing or malformed, or lacks questions about the concept or the rest.
    """
    questions = []
    known: dict[str, set[str]] = {column: set() for column in COLUMNS}
    file = csv_files.find(root, path, where)
    for line, row in csv_files.read(file, path, known, needed=COLUMNS, what="questions").rows:
        question = Question(*(row[column].strip() for column in COLUMNS))
        if mistake := _mistake(question):
            raise ParamsError(f"{path}: line {line}: {mistake}")
        questions.append(question)
    for about in ABOUT:
        if not any(question.about == about for question in questions):
            raise ParamsError(f"{path}: there is no question about the {about}; expected at least one")
    return questions


def _mistake(question: Question) -> str:
    """What is wrong with a question, or nothing."""
    if not question.text:
        return "the question is empty"
    if question.about not in ABOUT:
        return f"about must be concept or rest, found {question.about!r}{nearest(question.about, ABOUT)}"
    if question.answer not in ("yes", "no"):
        return f"the answer must be yes or no, found {question.answer!r}"
    if question.about == "concept" and question.answer == "yes":
        return "the answer to a question about the concept must be no, what is right where the concept is gone"
    return ""
