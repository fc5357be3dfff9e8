"""Chunking: what every text must satisfy, the choice of the boundary, and the time adversarial texts take."""

import random
import re
import time
import unicodedata
from itertools import chain, pairwise

import pytest

from utils.chunking import _EXTENDERS, byte_spans, chunk_spans, split_into_chunks
from utils.common_utils import UserError

PIECES = {
    "prose": ["word", "a", " ", " ", ". ", ", ", "! ", "\n", "\n\n", "3.14", "—", '." '],
    "cjk": ["中", "文字", "。", "，", "」", "！？", "\u3000", "\n"],
    "sequences": ["e", "\u0301", "👩", "\u200d", "🏽", "\U0001f1eb", "\U0001f1f7", "\ufe0f", "\r", "\n", " ", "각"],
    "breaks": ["\n", "\r\n", " ", "\t", "\u2029", "x"],
}


def random_text(rng: random.Random) -> str:
    pieces = rng.choice([*PIECES.values(), list(chain(*PIECES.values()))])
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 120)))


def parts_sequence(text: str, position: int) -> bool:
    """Judge a cut the slow way, from the definition."""
    before, after = text[position - 1], text[position]
    flags_before = len(re.search("[\U0001f1e6-\U0001f1ff]*\\Z", text[:position]).group())
    return (
        unicodedata.category(after)[0] == "M"
        or "\u200d" in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or (before, after) == ("\r", "\n")
        or ("\U0001f1e6" <= after <= "\U0001f1ff" and flags_before % 2 == 1)
    )


def longest_sequence(text: str) -> int:
    cuts = [0] + [p for p in range(1, len(text)) if not parts_sequence(text, p)] + [len(text)]
    return max(after - before for before, after in pairwise(cuts))


@pytest.mark.parametrize("seed", range(40))
def test_every_text_is_kept_whole(seed):
    rng = random.Random(seed)
    for _ in range(50):
        text, size = random_text(rng), rng.randint(1, 40)
        overlap = rng.randrange(size) if rng.random() < 0.6 else 0
        spans = chunk_spans(text, size, overlap)
        case = f"{text!r} size={size} overlap={overlap} spans={spans}"

        starts_without_overlap = [0, *(end for _, end in spans)][: len(spans)]
        assert "".join(text[a:end] for a, (_, end) in zip(starts_without_overlap, spans, strict=True)) == text, case
        assert all(0 < end - start <= size for start, end in spans), case
        assert all(0 <= before[1] - after[0] <= overlap for before, after in pairwise(spans)), case
        assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(spans)), case
        assert split_into_chunks(text, size, overlap) == [text[start:end] for start, end in spans]
        if text and longest_sequence(text) <= size:
            cuts = {position for span in spans for position in span} - {0, len(text)}
            assert not any(parts_sequence(text, cut) for cut in cuts), case


@pytest.mark.parametrize("seed", range(10))
def test_a_paragraph_break_in_the_back_half_is_always_taken(seed):
    rng = random.Random(seed)
    taken = 0
    for _ in range(100):
        text, size = "".join(rng.choice(PIECES["prose"]) for _ in range(120)), rng.randint(8, 40)
        for start, end in chunk_spans(text, size)[:-1]:
            if "\n\n" in text[start + size // 2 : start + size]:
                assert text[len(text[:end].rstrip()) : end].count("\n") > 1, (text, size, start, end)
                taken += 1
    assert taken > 20, "the random texts never reached the case"


@pytest.mark.parametrize(
    ("text", "size", "chunks"),
    [
        ("One two.\n\nThree four. Five\nsix seven", 30, ["One two.\n\nThree four. Five\n", "six seven"]),
        ("One two three.\n\nFour. Five\nsix seven", 26, ["One two three.\n\n", "Four. Five\nsix seven"]),
        ("Alpha beta. Gamma\ndelta, epsilon zeta", 28, ["Alpha beta. Gamma\n", "delta, epsilon zeta"]),
        ("Alpha, beta gamma. Delta, epsilon zeta", 30, ["Alpha, beta gamma. ", "Delta, epsilon zeta"]),
        ('He said "go." Then, they went', 22, ['He said "go." ', "Then, they went"]),
        ("alpha beta gamma; delta epsilon zeta", 26, ["alpha beta gamma; ", "delta epsilon zeta"]),
        ("pi is 3.14159265 or 1,000,000 not", 16, ["pi is ", "3.14159265 or ", "1,000,000 not"]),
        ("他说：「走吧。」然后他们离开了，没有回来", 11, ["他说：「走吧。」", "然后他们离开了，", "没有回来"]),
        ("真的吗！？是的，我确定", 7, ["真的吗！？", "是的，我确定"]),
        ("一二三。四五六！？七八", 8, ["一二三。", "四五六！？七八"]),
        ("一二。三四五。」六七", 7, ["一二。", "三四五。」六七"]),
        ("wait—there is more", 10, ["wait—", "there is ", "more"]),
        ("a \n\nbcdefghijklmnop", 16, ["a \n\n", "bcdefghijklmnop"]),
        ("abc\n\ndefghij klm nop", 16, ["abc\n\ndefghij ", "klm nop"]),
        ("abcdefghijkl", 5, ["abcde", "fghij", "kl"]),
        ("one   two", 6, ["one   ", "two"]),
        ("para\n\n    indented text", 14, ["para\n\n    ", "indented text"]),
        ("para one\r\n\r\npara two", 15, ["para one\r\n\r\n", "para two"]),
        ("x" * 5 + "\r\n" + "y" * 5, 6, ["xxxxx", "\r\n", "yyyyy"]),
        ("", 5, []),
        ("short", 5, ["short"]),
    ],
)
def test_the_best_boundary_is_chosen(text, size, chunks):
    assert split_into_chunks(text, size) == chunks


def test_overlap_repeats_the_end_of_the_chunk_before():
    assert chunk_spans("aaaa bbbb cccc dddd", 10, 3) == [(0, 10), (7, 15), (12, 19)]
    # The second chunk would begin at the accent, so that its overlap shrinks by one.
    assert chunk_spans("abcde\u0301fgh", 7, 2) == [(0, 7), (6, 9)]


def test_a_sequence_longer_than_a_chunk_is_cut_and_no_other():
    text = "e" + "\u0301" * 9 + "abc"
    assert split_into_chunks(text, 4) == ["e\u0301\u0301\u0301", "\u0301" * 4, "\u0301" * 2 + "ab", "c"]
    flags = "\U0001f1eb\U0001f1f7" * 4
    assert split_into_chunks(flags, 3) == ["\U0001f1eb\U0001f1f7"] * 4
    assert split_into_chunks("a👩🏽\u200d🚀b", 4) == ["a", "👩🏽\u200d🚀", "b"]


def test_the_overlap_gives_way_to_a_sequence_that_needs_the_room():
    text = "abcd" + "e" + "\u0301" * 3
    assert chunk_spans(text, 4, 2) == [(0, 4), (4, 8)]


def test_every_mark_of_this_python_is_known():
    marks = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "M"}
    assert marks
    assert marks <= _EXTENDERS


@pytest.mark.parametrize("text", ["plain text", "naïve 中文 👩🏽\u200d🚀 text, with e\u0301"])
def test_byte_spans_select_the_same_chunks(text):
    spans = chunk_spans(text, 6, 2)
    encoded = text.encode()
    assert [encoded[a:b].decode() for a, b in byte_spans(text, spans)] == [text[a:b] for a, b in spans]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-5, 0), (10, -1), (10, 10), (10, 11)])
def test_impossible_sizes_are_refused(size, overlap):
    with pytest.raises(UserError, match=rf"chunk_(size={size}|overlap={overlap}):.*(usual|0)"):
        chunk_spans("text", size, overlap)


@pytest.mark.parametrize(
    "unit", ["x", " ", "\n", "\u0301", "\u200d", "\U0001f1e6", ".)", " \u0301", "\n ", "。」", "\r\n", ".", "\n\r"]
)
def test_time_is_linear_on_adversarial_texts(unit):
    """Eight times the text in about eight times the time, with the chunk growing along (one window is the text)."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit)) + "x"
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            spans = chunk_spans(text, length // 2)
            best = min(best, time.perf_counter() - begin)
            assert spans[-1][1] == len(text)
        return best

    small, large = seconds(4_000), seconds(32_000)
    assert large < 30 * small + 0.005, f"{small:.4f} s for 4,000 characters, {large:.4f} s for 32,000"
