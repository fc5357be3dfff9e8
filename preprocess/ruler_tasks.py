"""The samples of RULER's tasks before their size is known: random parts drawn, haystack still to be fitted.

A draft builds the sample of any size; sizes count words of an essay, lines of noise or needles, words of a list, or
documents, as the task goes. The recipes follow github.com/hsiehjackson/RULER; `docs/needle_and_ruler.md` lists where
they differ.
"""

import math
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preprocess.haystacks import NOISE
from preprocess.random_keys import WordLists, magic_sentence, random_number, random_uuid, special_magic
from preprocess.ruler_essays import Essay
from preprocess.ruler_questions import QuestionSet
from preprocess.ruler_templates import (
    COMMON_WORDS,
    FREQUENT_WORDS,
    NIAH,
    NIAH_SETTINGS,
    QA,
    VARIABLE_TRACKING,
    NiahSetting,
    RulerSample,
    compose,
)
from preprocess.text_length import TokenCount, fit_largest

DEPTHS = tuple(np.round(np.linspace(0, 100, 40)).astype(int).tolist())
"""The depths that RULER hides needles at in essays, in per cent of the sentences."""

NUM_HOPS = 4
EXAMPLE_TOKENS = 500
"""Length of the solved example of variable tracking, its answer included."""

NUM_COMMON_WORDS = 10
SHORT_LIST_LENGTH = 4096
"""Below this length the list of cwe has 6 and 1 repeats, and its example 3 and 1; else 30 and 3, and 10 and 3."""

CODED_WORD_LETTERS = 6
# Fewer words would give ranks 2 to 5 of the frequencies equal counts.
_FEWEST_CODED_WORDS = 64
# Unit costs are the mean over this many units; the fit corrects what they are wrong by.
_COST_SAMPLE = 64


@dataclass(frozen=True)
class Draft:
    """A sample of any size."""

    build: Callable[[int], RulerSample]
    """Size -> the sample; equal sizes give equal samples."""
    costs: np.ndarray
    """Estimated tokens of each unit of the haystack, [largest size]."""
    smallest: int


@dataclass
class Materials:
    """What all samples of a run are made of."""

    measure: TokenCount
    words: WordLists
    essay: Essay
    questions: dict[str, QuestionSet]
    """By task, qa_1 and qa_2."""


def draft_sample(task: str, materials: Materials, length: int, seed: str, index: int) -> Draft:
    """Draw the random parts of a sample.

    Args:
        task: one of the 13.
        length: tokens that the sample may have.
        seed: of this sample alone.
        index: number of the sample; picks the question of qa_1 and qa_2.
    """
    if task in NIAH_SETTINGS:
        return _niah(NIAH_SETTINGS[task], materials, length, seed)
    if task in materials.questions:
        return _qa(materials.questions[task], materials.measure, length, seed, index)
    return {"vt": _variable_tracking, "cwe": _common_words, "fwe": _frequent_words}[task](materials, length, seed)


def _constant_costs(measure: TokenCount, units: list[str], length: int, smallest: int) -> np.ndarray:
    """Return the mean cost of sample units, as often as units may fit into `length` tokens."""
    cost = float(measure.each(units).mean())
    return np.full(smallest + math.ceil(1.5 * length / max(cost, 0.5)), cost)


def _niah(setting: NiahSetting, materials: Materials, length: int, seed: str) -> Draft:
    rng = random.Random(f"{seed}:needles")
    draw = {"words": materials.words.draw_pair, "numbers": random_number, "uuids": random_uuid}
    draw_key, draw_value = draw[setting.key_type], draw[setting.value_type]
    keys = _distinct(lambda: draw_key(rng), setting.num_keys)
    values = _distinct(lambda: draw_value(rng), setting.num_keys * setting.num_values)
    values_by_key = {key: values[n * setting.num_values : (n + 1) * setting.num_values] for n, key in enumerate(keys)}
    needles = [magic_sentence(setting.value_type, key, value) for key in keys for value in values_by_key[key]]
    rng.shuffle(needles)
    queries = rng.sample(keys, setting.num_queries)
    answers = tuple(value for key in queries for value in values_by_key[key])
    fields = _niah_fields(setting, queries, len(answers))

    def lines(count: int) -> list[str]:
        if setting.haystack == "repeat":
            return [NOISE] * count
        other = random.Random(f"{seed}:haystack")
        made: list[str] = []
        while len(made) < count:
            key, value = draw_key(other), draw_value(other)
            # A needle with a key or value that is asked for would make the answer wrong.
            if key not in values_by_key and value not in answers:
                made.append(magic_sentence(setting.value_type, key, value))
        return made

    def build_essay(size: int) -> RulerSample:
        depths = sorted(random.Random(f"{seed}:places").sample(DEPTHS, len(needles)))
        return compose(NIAH, materials.essay.with_needles(size, needles, depths), answers, **fields)

    def build_lines(size: int) -> RulerSample:
        text = lines(size)
        places = sorted(random.Random(f"{seed}:places").sample(range(size), len(needles)), reverse=True)
        for place, needle in zip(places, needles, strict=True):
            text.insert(place, needle)
        return compose(NIAH, "\n".join(text), answers, **fields)

    if setting.haystack == "essay":
        return Draft(build_essay, materials.essay.costs(length), smallest=0)
    units = [f"{line}\n" for line in lines(_COST_SAMPLE)]
    return Draft(build_lines, _constant_costs(materials.measure, units, length, len(needles)), smallest=len(needles))


def _niah_fields(setting: NiahSetting, queries: list[str], num_answers: int) -> dict[str, str]:
    """Return what the wording's placeholders stand for, in the singular where one value is asked for."""
    one = num_answers == 1
    value = setting.value_type[:-1] if one else setting.value_type
    question = special_magic(setting.value_type, queries, num_answers)
    return {
        "magic_is": f"A special magic {value} is" if one else f"Some special magic {value} are",
        "value": value,
        "question": question,
        "query": question.split(" for ", 1)[1].removesuffix(" mentioned in the provided text?"),
        "verb": "is" if one else "are",
    }


def _distinct(draw: Callable[[], str], count: int) -> list[str]:
    """Draw until there are `count` different ones."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw()] = None
    return list(drawn)


def _variable_tracking(materials: Materials, length: int, seed: str) -> Draft:
    """One chain of five variables among lines of noise, after a solved example of 500 tokens with shorter names."""
    measure = materials.measure
    line_cost = measure.each([f"{NOISE}\n "])
    example_draft = Draft(
        _chain_builder(f"{seed}:example", num_letters=3, example=""), np.repeat(line_cost, EXAMPLE_TOKENS), NUM_HOPS + 2
    )
    example = fit_largest(
        example_draft.build,
        lambda sample: measure(_solved(sample)),
        example_draft.costs,
        # Where the smallest example is longer than 500 tokens for this tokenizer, it is taken as it is.
        max(EXAMPLE_TOKENS, measure(_solved(example_draft.build(example_draft.smallest)))),
        example_draft.smallest,
    ).built
    build = _chain_builder(seed, num_letters=5, example=_solved(example))
    smallest = NUM_HOPS + 2
    return Draft(build, _constant_costs(measure, [f"{NOISE}\n "], length, smallest), smallest)


def _solved(sample: RulerSample) -> str:
    return f"{sample.input} {' '.join(sample.answers)}\n"


def _chain_builder(seed: str, num_letters: int, example: str) -> Callable[[int], RulerSample]:
    """Return what hides a chain of assignments, drawn from `seed`, in so many lines of noise."""
    rng = random.Random(f"{seed}:chain")
    names = _distinct(lambda: "".join(rng.choices(string.ascii_uppercase, k=num_letters)), NUM_HOPS + 1)
    value = rng.randint(10_000, 99_998)
    chain = [f"VAR {names[0]} = {value}"] + [f"VAR {names[n + 1]} = VAR {names[n]} " for n in range(NUM_HOPS)]

    def build(size: int) -> RulerSample:
        lines = [f"{NOISE}\n"] * size
        places = sorted(random.Random(f"{seed}:places").sample(range(size), len(chain)))
        for number, (place, assignment) in enumerate(zip(places, chain, strict=True)):
            lines.insert(place + number, assignment)
        fields = {"query": value, "num_variables": len(names)}
        return compose(VARIABLE_TRACKING, " ".join(lines), tuple(names), example, **fields)

    return build


def _common_words(materials: Materials, length: int, seed: str) -> Draft:
    """A numbered list in which ten words come up more often than the rest, after a solved example."""
    short = length < SHORT_LIST_LENGTH
    example_words, example_repeats, repeats = (20, (3, 1), (6, 1)) if short else (40, (10, 3), (30, 3))
    words = materials.words
    solved = _list_sample(words.sample(random.Random(f"{seed}:example"), example_words), *example_repeats, f"{seed}:0")
    example = f"{solved.input} {' '.join(f'{n}. {word}' for n, word in enumerate(solved.answers, start=1))}"

    def build(size: int) -> RulerSample:
        return _list_sample(words.sample(random.Random(f"{seed}:words"), size), *repeats, seed, example)

    units = [f" 1234. {word}" * repeats[1] for word in words.sample(random.Random(f"{seed}:costs"), _COST_SAMPLE)]
    smallest = NUM_COMMON_WORDS + 1
    costs = _constant_costs(materials.measure, units, length, smallest)[: words.num_words]
    return Draft(build, costs, smallest)


def _list_sample(
    words: list[str], common_repeats: int, other_repeats: int, seed: str, example: str = ""
) -> RulerSample:
    common, others = words[:NUM_COMMON_WORDS], words[NUM_COMMON_WORDS:]
    listed = common * common_repeats + others * other_repeats
    random.Random(f"{seed}:order").shuffle(listed)
    text = " ".join(f"{number}. {word}" for number, word in enumerate(listed, start=1))
    return compose(COMMON_WORDS, text, tuple(common), example)


def _frequent_words(materials: Materials, length: int, seed: str) -> Draft:
    """Coded words with frequencies by Zipf's law (exponent 2); the most frequent is a noise of dots."""
    rng = random.Random(f"{seed}:words")
    vocabulary_size = max(8, length // 50)
    coded = _distinct(lambda: "".join(rng.choices(string.ascii_lowercase, k=CODED_WORD_LETTERS)), vocabulary_size)
    vocabulary = ["...", *coded[1:]]
    shares = np.arange(1, len(vocabulary) + 1, dtype=np.float64) ** -2 / (math.pi**2 / 6)

    def build(size: int) -> RulerSample:
        counts = (size * shares).astype(int).tolist()
        listed = [word for word, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
        random.Random(f"{seed}:order").shuffle(listed)
        return compose(FREQUENT_WORDS, " ".join(listed), tuple(vocabulary[1:4]))

    costs_by_rank = materials.measure.each([f" {word}" for word in vocabulary[:_COST_SAMPLE]])
    cost = float(costs_by_rank @ shares[:_COST_SAMPLE])
    return Draft(build, np.full(_FEWEST_CODED_WORDS + math.ceil(2 * length / cost), cost), _FEWEST_CODED_WORDS)


def _qa(questions: QuestionSet, measure: TokenCount, length: int, seed: str, index: int) -> Draft:
    """A question with its documents among others, shuffled and numbered."""
    question = questions.question(index)
    documents, costs = questions.haystack(question, random.Random(f"{seed}:documents"), measure, length)
    num_own = len(question.documents)

    def build(size: int) -> RulerSample:
        chosen = documents[:size]
        random.Random(f"{seed}:order").shuffle(chosen)
        text = "\n\n".join(f"Document {number}:\n{document}" for number, document in enumerate(chosen, start=1))
        return compose(QA, text, question.answers, query=question.text)

    return Draft(build, costs, num_own)
