"""Documents of the demo world: who and what they tell of, with values drawn at random, one sentence a line.

A document holds sentences about people, towns, meetings and companies. Their names belong to one split each, by a hash,
so that nothing can be learned about a test document's subjects; the values (cities, professions, years, ...) are drawn
from pools that all splits share, so that their words can be learned.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from preprocess import demo_vocabulary as vocabulary
from preprocess.demo_phrases import TEMPLATES, mention, with_article

SPLITS = ("train", "validation", "test")
KIND_WEIGHTS = {"person": 50, "place": 20, "meeting": 15, "company": 15}
RECUR_SHARE = 0.3
"""Share of the person sentences, where there is an earlier person with attributes to spare, that go on about them."""
LINK_SHARE = 0.6
"""Share of the values that can name another subject of the document (`LINKS`) and do."""
FIGURE_WEIGHT = 0.25
"""Weight of a set of attributes with a figure among them, beside one of words alone: a figure takes a token a digit,
whose order a single chunk token learns to hold last of all."""

NAME_PARTS = {
    "person": (vocabulary.FIRST_NAMES, vocabulary.LAST_NAMES),
    "place": (vocabulary.TOWN_FIRST_WORDS, vocabulary.TOWN_SECOND_WORDS),
    "meeting": (vocabulary.MEETING_FIRST_WORDS, vocabulary.MEETING_SECOND_WORDS),
    "company": (vocabulary.COMPANY_FIRST_WORDS, vocabulary.COMPANY_SECOND_WORDS),
}

LINKS = {
    ("person", "birth_city"): "place",
    ("person", "employer"): "company",
    ("meeting", "chair"): "person",
    ("company", "city"): "place",
}
"""Attributes whose value may be the name of another subject, and that subject's kind."""

VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("person", "birth_city"): vocabulary.CITIES,
    ("person", "birth_year"): tuple(str(year) for year in range(1901, 2000)),
    ("person", "profession"): vocabulary.PROFESSIONS,
    ("person", "hobby"): vocabulary.HOBBIES,
    ("person", "instrument"): vocabulary.INSTRUMENTS,
    ("place", "river"): vocabulary.RIVERS,
    ("place", "population"): tuple(f"{thousands},000" for thousands in range(3, 100)),
    ("place", "founded"): tuple(str(year) for year in range(1701, 1800)),
    ("place", "product"): vocabulary.TOWN_PRODUCTS,
    ("meeting", "date"): tuple(f"{day} {month}" for month in vocabulary.MONTHS for day in range(1, 29)),
    ("meeting", "room"): tuple(str(number) for number in range(11, 100)),
    ("meeting", "topic"): vocabulary.TOPICS,
    ("company", "product"): vocabulary.COMPANY_PRODUCTS,
    ("company", "revenue"): tuple(f"{millions} million" for millions in range(11, 100)),
    ("company", "headcount"): tuple(str(people) for people in range(110, 1000, 10)),
    ("company", "city"): vocabulary.CITIES,
}
"""The pools of values. A chair and an employer are not here: they are names of the split (`value_pool`)."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One line of a document: what it is about (kind and name), the values it states by attribute, and its text."""

    kind: str
    subject: str
    values: dict[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """Sentences of one split; line i of the context is sentence i."""

    split: str
    sentences: list[Sentence]

    @property
    def context(self) -> str:
        return "\n".join(sentence.text for sentence in self.sentences)

    def subjects(self) -> dict[tuple[str, str], list[int]]:
        """Return the lines about each subject (kind, name), in the order in which the subjects appear."""
        lines: dict[tuple[str, str], list[int]] = {}
        for number, sentence in enumerate(self.sentences):
            lines.setdefault((sentence.kind, sentence.subject), []).append(number)
        return lines


def name_split(kind: str, name: str) -> str:
    """Return the split a subject's name belongs to, by a hash: train 60 %, validation 10 %, test 30 %.

    The test split is large so that it has names for documents of 20,000 words.
    """
    bucket = hashlib.sha256(f"{kind}:{name}".encode()).digest()[0] % 10
    return "train" if bucket < 6 else "validation" if bucket == 6 else "test"


@cache
def split_names(kind: str) -> dict[str, tuple[str, ...]]:
    """Return all names of a kind, by the split they belong to."""
    firsts, seconds = NAME_PARTS[kind]
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    for first, second in product(firsts, seconds):
        if first != second:
            names[name_split(kind, f"{first} {second}")].append(f"{first} {second}")
    return {split: tuple(items) for split, items in names.items()}


def value_pool(kind: str, attribute: str, split: str) -> tuple[str, ...]:
    """Return the values an attribute is drawn from in a split, links to subjects of the document aside."""
    pool = VALUES.get((kind, attribute))
    return split_names(LINKS[kind, attribute])[split] if pool is None else pool


def max_sentences(split: str) -> int:
    """Return how many sentences a document of a split may have, so that its subjects have names, all different."""
    shares = {kind: weight / sum(KIND_WEIGHTS.values()) for kind, weight in KIND_WEIGHTS.items()}
    # Some are kept in reserve, since the kinds of a document's sentences are drawn.
    return int(min(len(split_names(kind)[split]) / share for kind, share in shares.items()) * 0.82)


def build_document(rng: random.Random, split: str, num_sentences: int) -> Document:
    """Draw a document of `num_sentences` lines (at most `max_sentences(split)`) from `rng`."""
    kinds = rng.choices(list(KIND_WEIGHTS), KIND_WEIGHTS.values(), k=num_sentences)
    slots = list(_cast(rng, split, kinds))
    names = {kind: list(dict.fromkeys(name for slot, name, _ in slots if slot == kind)) for kind in KIND_WEIGHTS}
    sentences = []
    for kind, name, attributes in slots:
        values = {attribute: _draw_value(rng, split, kind, attribute, names) for attribute in attributes}
        template = rng.choice(TEMPLATES[kind][attributes])
        sentences.append(Sentence(kind, name, values, render(template, mention(kind, name), values)))
    return Document(split, sentences)


def render(template: str, subject: str, values: dict[str, str]) -> str:
    """Fill a template in; the sentence begins with a capital letter."""
    text = template.format(subject=subject, a_profession=with_article(values.get("profession", "-")), **values)
    return text[0].upper() + text[1:]


def _cast(rng: random.Random, split: str, kinds: list[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield kind, name and attributes of each sentence: no subject tells an attribute twice, only people recur."""
    new_names = {kind: iter(rng.sample(split_names(kind)[split], kinds.count(kind))) for kind in KIND_WEIGHTS}
    untold: dict[str, list[tuple[str, ...]]] = {}
    for kind in kinds:
        if kind == "person" and untold and rng.random() < RECUR_SHARE:
            name = rng.choice(list(untold))
            choices = untold.pop(name)
        else:
            name, choices = next(new_names[kind]), list(TEMPLATES[kind])
        attributes = rng.choices(choices, [_weight(kind, choice) for choice in choices])[0]
        if kind == "person" and (rest := [choice for choice in choices if not set(choice) & set(attributes)]):
            untold[name] = rest
        yield kind, name, attributes


def _weight(kind: str, attributes: tuple[str, ...]) -> float:
    return FIGURE_WEIGHT if any(is_figure(kind, attribute) for attribute in attributes) else 1.0


def is_figure(kind: str, attribute: str) -> bool:
    """Tell whether an attribute's values are figures, not words."""
    return any(character.isdigit() for character in VALUES.get((kind, attribute), ("",))[0])


def _draw_value(rng: random.Random, split: str, kind: str, attribute: str, names: dict[str, list[str]]) -> str:
    """Draw a value: the name of another subject of the document, where the attribute allows it, or one of the pool."""
    linked = names.get(LINKS.get((kind, attribute), ""), [])
    if linked and rng.random() < LINK_SHARE:
        return rng.choice(linked)
    return rng.choice(value_pool(kind, attribute, split))
