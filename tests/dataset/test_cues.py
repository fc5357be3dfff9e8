"""Cues: of the chunk they name, of no other, and a function of their arguments alone."""

import random

import pytest

from dataset.cues import MAX_CUE_CHARACTERS, choose_cues, own_cues

LINES = [
    "Ivan Harper played the bassoon and worked for Carbon Group.\n",
    "Ivan Harper, a captain, was born in Delhi in 1993.\n",
    "Albert Hawkins worked as a coach and was fond of hiking.\n",
    "Alice Carroll worked for Bright Goods and played the saxophone.\n",
]


def holds(chunk: str, cue: str) -> bool:
    return cue.casefold() in chunk.casefold()


def test_a_cue_is_of_its_chunk_and_of_no_other():
    rng = random.Random(0)
    words = "red green blue amber coral Rome Oslo Lima 17 1950 of and the".split()
    seen = 0
    for seed in range(300):
        chunks = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 8))) for _ in range(rng.randint(1, 6))]
        cues = choose_cues(chunks, 3, seed)
        assert len(cues) == len({cue.chunk for cue in cues}) == min(3, len(chunks))
        for cue in cues:
            others = [chunk for index, chunk in enumerate(chunks) if index != cue.chunk]
            assert holds(chunks[cue.chunk], cue.text)
            assert cue.is_unique != any(holds(other, cue.text) for other in others)
            seen += cue.is_unique
    assert seen > 600


def test_the_same_arguments_give_the_same_cues_and_every_chunk_gets_its_turn():
    chosen = [choose_cues(LINES, 2, seed) for seed in range(60)]
    assert chosen == [choose_cues(LINES, 2, seed) for seed in range(60)]
    assert {cue.chunk for cues in chosen for cue in cues} == {0, 1, 2, 3}
    texts = {cue.text for cues in chosen for cue in cues if cue.chunk == 1}
    assert texts == {"Delhi", "1993", "captain", "born"}


def test_names_numbers_and_long_words_come_first():
    others = [line.casefold() for line in LINES[1:]]
    assert own_cues(LINES[0], others) == ["bassoon", "Carbon Group"]
    alone = own_cues(LINES[2], [])
    assert alone == ["Albert Hawkins", "worked", "coach", "fond", "hiking"]


@pytest.mark.parametrize(
    ("chunk", "others", "expected"),
    [
        ("one red two", ["one red", "red two", "two one"], ["one red two"]),
        ("he is a he", ["is he", "a is"], ["he is", "is a", "a he"]),
        ("- * -", ["- *", "* -"], ["- * -"]),
        ("the same", ["and the same"], []),
        ("   \n", ["something"], []),
    ],
)
def test_phrases_and_beginnings_where_no_word_is_unique(chunk, others, expected):
    assert own_cues(chunk, others) == expected


def test_chunks_with_nothing_of_their_own_are_asked_about_last():
    chunks = ["a b c d e f g", "a b c d e f g", "a quiet lake"]
    for seed in range(10):
        assert [(cue.chunk, cue.is_unique) for cue in choose_cues(chunks, 1, seed)] == [(2, True)]
        cues = choose_cues(chunks, 3, seed)
        assert [cue.is_unique for cue in cues] == [True, False, False]
        assert cues[1].text == "a b c d e"


def test_writing_without_spaces_is_cut():
    (cue,) = choose_cues(["\u6f22" * 300], 1, 0)
    assert cue.is_unique
    assert len(cue.text) == MAX_CUE_CHARACTERS
