"""Needles: sentences that hold a fact, the question that asks for it, and sentences that look like them."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from preprocess.demo_phrases import QUESTIONS, TEMPLATES, mention
from preprocess.demo_vocabulary import CITIES
from preprocess.demo_world import KIND_WEIGHTS, render, split_names, value_pool
from preprocess.haystacks import PROSE_SPLIT
from preprocess.random_keys import WordLists, magic_sentence, random_number, special_magic
from utils.common_utils import UserError

_BLOCK_LINES = 200

SAN_FRANCISCO_SENTENCE = "The best thing to do in {city} is {activity}."
SAN_FRANCISCO_QUESTION = "What is the best thing to do in {city}?"
SAN_FRANCISCO_ANSWER = "eat a sandwich and sit in Dolores Park on a sunny day"
"""Needle and question of github.com/gkamradt/LLMTest_NeedleInAHaystack."""
_ACTIVITIES = (
    "walk along the old harbor in the evening",
    "take the first tram up the hill before breakfast",
    "drink coffee on the main square and watch the rain",
    "rent a bicycle and follow the river to the sea",
    "visit the night market and try the noodles",
    "climb the tower of the town hall at noon",
    "hear the organ in the cathedral on a Friday",
    "swim in the lake behind the botanical garden",
    "listen to a street band near the central station",
    "look for old books under the stone bridge",
    "buy warm bread in the lanes of the old town",
    "fly a kite on the beach in autumn",
)


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, and what nothing else in the context may mention."""

    text: str
    subject: str


@dataclass(frozen=True)
class Question:
    """A question about needles; every answer is asked for, none stands for another."""

    prompt: str
    answers: tuple[str, ...]
    needle: int
    """Number of the needle that it asks for, the first where it asks for several."""


@dataclass(frozen=True)
class NeedleSet:
    """The needles of one context, in the order of their depths, and the questions asked about them."""

    needles: tuple[Needle, ...]
    questions: tuple[Question, ...]
    topic: tuple[str, ...]
    """What distractors have to be like the needles in; equal topics share a haystack of distractors."""


class DemoNeedles:
    """Facts of the demo world about subjects that no training document names, each with the question on it.

    Several needles are about several subjects, tell the same attribute, and are asked for one by one.
    """

    name = "demo"

    def draw(self, rng: random.Random, num_needles: int) -> NeedleSet:
        kind = rng.choices(list(KIND_WEIGHTS), KIND_WEIGHTS.values())[0]
        attribute = rng.choice([attribute for asked, attribute in QUESTIONS if asked == kind])
        if num_needles > len(split_names(kind)[PROSE_SPLIT]):
            raise UserError(
                f"--num_needles={num_needles}: the demo world has {len(split_names(kind)[PROSE_SPLIT])} names of this "
                f"kind ({kind}); ask for fewer"
            )
        needles, questions = [], []
        for number, name in enumerate(rng.sample(split_names(kind)[PROSE_SPLIT], num_needles)):
            text, value = _tell(rng, kind, attribute, name)
            needles.append(Needle(text, name))
            prompt = rng.choice(QUESTIONS[kind, attribute]).format(subject=mention(kind, name))
            questions.append(Question(prompt, (value,), number))
        return NeedleSet(tuple(needles), tuple(questions), (kind, attribute))

    def distractors(self, seed: str, topic: tuple[str, ...]) -> Iterator[list[str]]:
        """Yield lines that tell the same attribute of other subjects."""
        kind, attribute = topic
        names = split_names(kind)[PROSE_SPLIT]
        for number in itertools.count():
            rng = random.Random(f"{seed}:distractors:{kind}:{attribute}:{number}")
            yield [_tell(rng, kind, attribute, rng.choice(names))[0] + "\n" for _ in range(_BLOCK_LINES)]


def _tell(rng: random.Random, kind: str, attribute: str, name: str) -> tuple[str, str]:
    """Return a sentence that tells an attribute of a subject, among others, and the attribute's value."""
    attributes = rng.choice([choice for choice in TEMPLATES[kind] if attribute in choice])
    values = {each: rng.choice(value_pool(kind, each, PROSE_SPLIT)) for each in attributes}
    return render(rng.choice(TEMPLATES[kind][attributes]), mention(kind, name), values), values[attribute]


class NumberNeedles:
    """RULER's needles, a seven-digit number for a pair of words; several are values of one key, asked for at once."""

    name = "numbers"

    def __init__(self, words: WordLists):
        self._words = words

    def draw(self, rng: random.Random, num_needles: int) -> NeedleSet:
        key = self._words.draw_pair(rng)
        values: list[str] = []
        while len(values) < num_needles:
            value = random_number(rng)
            if value not in values:
                values.append(value)
        needles = tuple(Needle(magic_sentence("numbers", key, value), key) for value in values)
        prompt = special_magic("numbers", [key], num_needles)
        return NeedleSet(needles, (Question(prompt, tuple(values), 0),), ())

    def distractors(self, seed: str, topic: tuple[str, ...]) -> Iterator[list[str]]:
        """Yield lines with numbers of other keys."""
        for number in itertools.count():
            rng = random.Random(f"{seed}:distractors:{number}")
            yield [
                magic_sentence("numbers", self._words.draw_pair(rng), random_number(rng)) + "\n"
                for _ in range(_BLOCK_LINES)
            ]


class SanFranciscoNeedle:
    """The published needle: the best thing to do in San Francisco."""

    name = "san_francisco"

    def draw(self, rng: random.Random, num_needles: int) -> NeedleSet:
        if num_needles > 1:
            raise UserError(
                f"--num_needles={num_needles}: the style san_francisco has one needle; use the style demo or numbers"
            )
        city = "San Francisco"
        needle = Needle(SAN_FRANCISCO_SENTENCE.format(city=city, activity=SAN_FRANCISCO_ANSWER), city)
        question = Question(SAN_FRANCISCO_QUESTION.format(city=city), (SAN_FRANCISCO_ANSWER,), 0)
        return NeedleSet((needle,), (question,), ())

    def distractors(self, seed: str, topic: tuple[str, ...]) -> Iterator[list[str]]:
        """Yield lines with the best things to do in other cities."""
        for number in itertools.count():
            rng = random.Random(f"{seed}:distractors:{number}")
            yield [
                SAN_FRANCISCO_SENTENCE.format(city=rng.choice(CITIES), activity=rng.choice(_ACTIVITIES)) + "\n"
                for _ in range(_BLOCK_LINES)
            ]
