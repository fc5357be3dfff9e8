"""The questions of RULER's qa_1 and qa_2, with documents that answer them and documents that do not.

From the user's files in the formats of SQuAD and HotpotQA, or generated in the demo world in their place.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from preprocess.demo_questions import sample_questions
from preprocess.demo_world import Document, build_document
from preprocess.haystacks import PROSE_SPLIT
from preprocess.text_length import TokenCount
from utils.common_utils import UserError, read_json

_HEADER = "Document 1000:\n"
_PASSAGE_LINES = 4
_OWN_LINES = 16
_FILLER_LINES = 100


@dataclass(frozen=True)
class DocumentQuestion:
    """A question, every one of whose answers is right, and the documents that are always given with it."""

    text: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    related: tuple[str, ...] = ()
    """Documents on the same subject, which are taken before others."""
    not_mentioned: tuple[str, ...] = ()
    """Names that no other document may mention."""


class QuestionSet(Protocol):
    """Questions by number, and the documents to give with each."""

    source: str

    def question(self, index: int) -> DocumentQuestion: ...

    def haystack(
        self, question: DocumentQuestion, rng: random.Random, measure: TokenCount, length: int
    ) -> tuple[list[str], np.ndarray]:
        """Return documents, the question's own first, and the token costs of each.

        They are longer than `length` tokens together, or all there are.
        """


def _haystack(
    question: DocumentQuestion, others: list[str], other_costs: np.ndarray, rng: random.Random, measure: TokenCount
) -> tuple[list[str], np.ndarray]:
    """Put the question's documents, related ones and others in the order in which they are taken."""
    related = rng.sample(question.related, len(question.related))
    first = [*question.documents, *related]
    taken = set(first)
    order = rng.sample(range(len(others)), len(others))
    order = [
        number
        for number in order
        if others[number] not in taken and not any(name in others[number] for name in question.not_mentioned)
    ]
    costs = np.concatenate([measure.each([_HEADER + document + "\n\n" for document in first]), other_costs[order]])
    return first + [others[number] for number in order], costs


class FileQuestions:
    """Questions of a file, in its order, with all documents of the file."""

    def __init__(self, source: str, path: Path, questions: list[DocumentQuestion], documents: set[str]):
        self.source = source
        self._path = path
        self._questions = questions
        self._documents = sorted(documents)
        self._costs: np.ndarray | None = None

    def question(self, index: int) -> DocumentQuestion:
        """Return question number `index`.

        Raises:
            UserError: the file has no more.
        """
        if index >= len(self._questions):
            raise UserError(f"{self._path}: holds {len(self._questions):,} questions; lower --num_samples to that")
        return self._questions[index]

    def haystack(
        self, question: DocumentQuestion, rng: random.Random, measure: TokenCount, length: int
    ) -> tuple[list[str], np.ndarray]:
        if self._costs is None:
            self._costs = measure.each([_HEADER + document + "\n\n" for document in self._documents])
        return _haystack(question, self._documents, self._costs, rng, measure)


class GeneratedQuestions:
    """Questions about generated passages: one fact (`hops` 1), or a fact reached by way of another (2).

    No other passage mentions the subjects that a question is about.
    """

    source = "generated"

    def __init__(self, hops: int, seed: int):
        self._kind = {1: "one_fact", 2: "two_facts"}[hops]
        self._seed = f"{seed}:questions:{hops}"
        self._passages: list[str] = []
        self._costs = np.empty(0)

    def question(self, index: int) -> DocumentQuestion:
        rng = random.Random(f"{self._seed}:{index}")
        while True:
            document = build_document(rng, PROSE_SPLIT, _OWN_LINES)
            for drawn in sample_questions(rng, document, {self._kind: 1}, _OWN_LINES):
                # "the person who plays the harp" may fit a person of another passage as well.
                if "the person who" not in drawn["prompt"]:
                    return _passage_question(document, drawn)

    def haystack(
        self, question: DocumentQuestion, rng: random.Random, measure: TokenCount, length: int
    ) -> tuple[list[str], np.ndarray]:
        # Twice the length, since passages that mention the question's subjects are left out.
        while self._costs.sum() < 2 * length:
            number = len(self._passages)
            document = build_document(random.Random(f"{self._seed}:passages:{number}"), PROSE_SPLIT, _FILLER_LINES)
            passages = _passages(document)
            self._passages += passages
            costs = measure.each([_HEADER + passage + "\n\n" for passage in passages])
            self._costs = np.concatenate([self._costs, costs])
        # What a longer sample before this one has added is not used, so that samples do not depend on each other.
        end = int(np.searchsorted(np.cumsum(self._costs), 2 * length)) + 1
        return _haystack(question, self._passages[:end], self._costs[:end], rng, measure)


def _passages(document: Document) -> list[str]:
    texts = [sentence.text for sentence in document.sentences]
    return [" ".join(texts[start : start + _PASSAGE_LINES]) for start in range(0, len(texts), _PASSAGE_LINES)]


def _passage_question(document: Document, drawn: dict) -> DocumentQuestion:
    passages = _passages(document)
    evidence = drawn["meta"]["evidence"]
    own = sorted({line // _PASSAGE_LINES for line in evidence})
    return DocumentQuestion(
        text=drawn["prompt"],
        answers=(drawn["answer"],),
        documents=tuple(passages[number] for number in own),
        related=tuple(passage for number, passage in enumerate(passages) if number not in own),
        not_mentioned=tuple({document.sentences[line].subject for line in evidence}),
    )


def read_squad(path: Path) -> FileQuestions:
    """Read a SQuAD release file (1.1 or 2.0); questions without an answer are left out, as by RULER.

    Raises:
        UserError: the file is not in SQuAD's format, or has no question with an answer.
    """
    data = read_json(path)
    if not isinstance(data, dict) or "data" not in data:
        raise UserError(f"{path}: no SQuAD file: it is an object with the key 'data'")
    questions, documents = [], set()
    try:
        for article in data["data"]:
            contexts = [paragraph["context"] for paragraph in article["paragraphs"]]
            documents.update(contexts)
            for paragraph in article["paragraphs"]:
                own = paragraph["context"]
                related = tuple(dict.fromkeys(context for context in contexts if context != own))
                for asked in paragraph["qas"]:
                    answers = tuple(dict.fromkeys(answer["text"] for answer in asked["answers"]))
                    if answers and not asked.get("is_impossible", False):
                        questions.append(DocumentQuestion(asked["question"], answers, (own,), related))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no SQuAD file: {error!r} in data[].paragraphs[].qas[]") from None
    return _file_questions("squad", path, questions, documents)


def read_hotpotqa(path: Path) -> FileQuestions:
    """Read a HotpotQA release file (distractor setting); all ten paragraphs of a question are its documents.

    Raises:
        UserError: the file is not in HotpotQA's format, or has no question.
    """
    data = read_json(path)
    questions, documents = [], set()
    try:
        for asked in data:
            own = tuple(dict.fromkeys(f"{title}\n{''.join(sentences)}" for title, sentences in asked["context"]))
            documents.update(own)
            questions.append(DocumentQuestion(asked["question"], (asked["answer"],), own))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no HotpotQA file: {error!r} in a question's context, question or answer") from None
    return _file_questions("hotpotqa", path, questions, documents)


def _file_questions(source: str, path: Path, questions: list[DocumentQuestion], documents: set[str]) -> FileQuestions:
    if not questions:
        raise UserError(f"{path}: holds no question with an answer")
    return FileQuestions(source, path, questions, documents)
