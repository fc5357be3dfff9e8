"""RULER's wording, put together and taken apart again."""

import pytest

from preprocess.ruler_templates import COMMON_WORDS, QA, TASKS, VARIABLE_TRACKING, check_task, compose, split_input
from utils.common_utils import UserError

NIAH_INPUT = (
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "number afterwards.\nOne of the special magic numbers for a is: 1.\nNoise.\nWhat is the special magic number for a "
    "mentioned in the provided text? The special magic number for a mentioned in the provided text is"
)


def test_there_are_13_tasks_with_the_official_answer_lengths():
    lengths = {task: wording.tokens_to_generate for task, wording in TASKS.items()}
    assert len(lengths) == 13 and sum(task.startswith("niah_") for task in lengths) == 8
    assert {lengths[task] for task in lengths if task.startswith("niah")} == {128}
    assert [lengths[task] for task in ("vt", "cwe", "fwe", "qa_1", "qa_2")] == [30, 120, 50, 32, 32]
    with pytest.raises(UserError, match="--tasks: 'niah_single_4' is none of .* Did you mean 'niah_single_"):
        check_task("niah_single_4", "--tasks")


def test_an_official_needle_input_is_taken_apart():
    sample = split_input(NIAH_INPUT, "niah_single_2")
    assert sample.context == "One of the special magic numbers for a is: 1.\nNoise."
    assert sample.prompt.startswith("What is the special magic number for a ")
    assert sample.prompt.endswith("provided text is")
    assert sample.input == NIAH_INPUT
    assert split_input(NIAH_INPUT, "vt") is None and split_input("Something else.", "niah_single_2") is None


def test_an_input_without_line_ends_is_taken_apart():
    flat = " ".join(NIAH_INPUT.split())
    sample = split_input(flat, "niah_single_2")
    assert sample.context == "One of the special magic numbers for a is: 1. Noise." and sample.input == flat


def test_a_solved_example_belongs_to_the_context():
    example = compose(VARIABLE_TRACKING, "noise\nVAR A = 1", ("A",), query=1, num_variables=5)
    solved = f"{example.input} A\n"
    sample = compose(VARIABLE_TRACKING, "noise\nVAR B = 2", ("B",), solved, query=2, num_variables=5)
    assert sample.instruction == "" and sample.context.startswith(solved)
    assert sample.context.endswith("hidden in the following text.\n\nnoise\nVAR B = 2")
    assert sample.prompt.startswith("Question: Find all variables that are assigned the value 2 in")
    assert sample.prompt.endswith("5 variables are assgined the value 2, they are: ")
    taken = split_input(sample.input, "vt")
    assert (taken.instruction, taken.context, taken.prompt) == ("", sample.context, sample.prompt)


def test_the_last_question_counts():
    example = compose(COMMON_WORDS, "1. a 2. b", ("a",))
    sample = compose(COMMON_WORDS, "1. c 2. d", ("c",), f"{example.input} 1. a")
    taken = split_input(sample.input, "cwe")
    assert taken.context == sample.context and taken.prompt == sample.prompt
    assert "1. a 2. b" in taken.context and taken.context.endswith("1. c 2. d")
    qa = compose(QA, "Document 1:\nAnswer the question based on facts.", ("x",), query="Who {is} it?")
    taken = split_input(qa.input, "qa_1")
    assert taken.context == "Document 1:\nAnswer the question based on facts." and taken.prompt == qa.prompt
    assert qa.prompt.endswith("Question: Who {is} it? Answer:") and qa.gap == "\n\n"
