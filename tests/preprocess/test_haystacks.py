"""Haystacks: lossless pieces of bounded length, growth on demand, and the user's files."""

import itertools

import pytest

from preprocess.demo_world import split_names
from preprocess.haystacks import Haystack, noise_blocks, prose_blocks, read_texts, split_pieces, text_blocks
from preprocess.text_length import CharacterCount
from utils.common_utils import UserError


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two? (Three!)\n\nFour", ["One. ", "Two? ", "(Three!)\n\n", "Four"]),
        ("Pi is 3.14 here. “So.” Yes", ["Pi is 3.14 here. ", "“So.” ", "Yes"]),
        ("好。再见。", ["好。", "再见。"]),
    ],
)
def test_pieces_end_where_sentences_do(text, pieces):
    assert split_pieces(text) == pieces


WORDS_WITHOUT_SENTENCES = "alpha beta gamma delta " * 60


@pytest.mark.parametrize(
    "text",
    ["x" * 1000, "word " * 500, WORDS_WITHOUT_SENTENCES, "a\n" * 9, "。" * 5, " \n lead", "tail \n"],
)
def test_pieces_joined_are_the_text_and_none_is_long(text):
    pieces = split_pieces(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 400


def test_a_long_run_without_sentences_is_cut_between_words():
    pieces = split_pieces(WORDS_WITHOUT_SENTENCES)
    assert len(pieces) > 1 and all(piece.endswith(" ") for piece in pieces)


def test_a_haystack_grows_as_far_as_asked_and_does_not_depend_on_what_was_asked_before():
    def fresh() -> Haystack:
        return Haystack(prose_blocks("0"), "\n", CharacterCount())

    pieces, costs = fresh().upto(20_000)
    assert costs.sum() >= 20_000 > costs[:-1].sum()
    assert costs.tolist() == [len(piece) for piece in pieces]
    grown = fresh()
    grown.upto(50_000)
    assert grown.upto(20_000)[0] == pieces


def test_prose_names_no_subject_of_the_training_documents():
    lines = list(itertools.chain.from_iterable(itertools.islice(prose_blocks("0"), 5)))
    assert len(set(lines)) > 450 and all(line.endswith(".\n") for line in lines)
    known = split_names("person")["train"]
    assert not [name for name in known for line in lines if name in line]
    assert lines != list(itertools.chain.from_iterable(itertools.islice(prose_blocks("1"), 5)))


def test_noise_and_repeated_text():
    line = "".join(next(noise_blocks()))
    assert line.startswith(
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\nThe "
    )
    assert len(next(noise_blocks())) == 100
    blocks = text_blocks("One. Two.")
    assert next(blocks) == next(blocks) == ["One. ", "Two.\n"]


def test_text_files_and_folders(tmp_path):
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "c.json").write_text("{}")
    assert read_texts([tmp_path], "--text") == "first\n\nsecond"
    assert read_texts([tmp_path / "b.txt"], "--text") == "second"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--text: the folder .*empty holds no .txt or .md"):
        read_texts([tmp_path / "empty"], "--text")
    with pytest.raises(UserError, match="no such file"):
        read_texts([tmp_path / "d.txt"], "--text")
    (tmp_path / "e.txt").write_text(" \n")
    with pytest.raises(UserError, match="no text there"):
        read_texts([tmp_path / "e.txt"], "--text")
