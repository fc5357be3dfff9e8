"""The 13 tasks of RULER (arXiv 2404.06654): their settings, and how a sample is put into words and taken apart again.

    input = instruction + context + question + answer prefix

Wording and settings are those of github.com/hsiehjackson/RULER (scripts/data/synthetic/constants.py, synthetic.yaml),
with its spelling of "assgined".
"""

import re
from dataclasses import dataclass

from utils.common_utils import UserError, closest


@dataclass(frozen=True)
class Wording:
    """What stands around the context of a family of tasks, and how many tokens an answer may take."""

    instruction: str
    """Up to the context, with the white space before it."""
    question: str
    """From the context to the answer prefix, without the white space between context and question."""
    answer_prefix: str
    gap: str
    """The white space between context and question."""
    tokens_to_generate: int
    input_pattern: re.Pattern
    """Finds `instruction` and `question` (with all after it) in an input, also in one without line ends."""


def _pattern(instruction: str, question: str) -> re.Pattern:
    """Compile a pattern for an input: the first instruction, the context, and the last question."""
    return re.compile(rf"(?s)(?P<instruction>.*?{instruction})(?P<context>.+\S)(?P<gap>\s+)(?P<question>{question}.*)")


NIAH = Wording(
    instruction="{magic_is} hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {value} afterwards.\n",
    question="{question}",
    answer_prefix=" The special magic {value} for {query} mentioned in the provided text {verb}",
    gap="\n",
    tokens_to_generate=128,
    input_pattern=_pattern(
        r"hidden within the following text\. Make sure to memorize it\. I will quiz you about the \w+ afterwards\.\s",
        r"What (?:is|are all) the special magic ",
    ),
)
VARIABLE_TRACKING = Wording(
    instruction="Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
    question="Question: Find all variables that are assigned the value {query} in the text above.",
    answer_prefix=" Answer: According to the chain(s) of variable assignment in the text above, {num_variables} "
    "variables are assgined the value {query}, they are: ",
    gap="\n",
    tokens_to_generate=30,
    input_pattern=_pattern(
        r"Memorize and track the chain\(s\) of variable assignment hidden in the following text\.\s+",
        r"Question: Find all variables that are assigned the value ",
    ),
)
COMMON_WORDS = Wording(
    instruction="Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n",
    question="Question: What are the 10 most common words in the above list?",
    answer_prefix=" Answer: The top 10 words that appear most often in the list are:",
    gap="\n",
    tokens_to_generate=120,
    input_pattern=_pattern(r"Memorize the ones that appear most often\.\s", r"Question: What are the 10 most common "),
)
FREQUENT_WORDS = Wording(
    instruction="Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. ",
    question="Question: Do not provide any explanation. Please ignore the dots '....'. "
    "What are the three most frequently appeared words in the above coded text?",
    answer_prefix=" Answer: According to the coded text above, the three most frequently appeared words are:",
    gap="\n",
    tokens_to_generate=50,
    input_pattern=_pattern(
        r"Find the three most frequently appeared coded words\.\s", r"Question: Do not provide any explanation\."
    ),
)
QA = Wording(
    instruction="Answer the question based on the given documents. Only give me the answer and do not output any other "
    "words.\n\nThe following are given documents.\n\n",
    question="Answer the question based on the given documents. Only give me the answer and do not output any other "
    "words.\n\nQuestion: {query}",
    answer_prefix=" Answer:",
    gap="\n\n",
    tokens_to_generate=32,
    input_pattern=_pattern(
        r"The following are given documents\.\s+", r"Answer the question based on the given documents\. Only give me "
    ),
)


@dataclass(frozen=True)
class NiahSetting:
    """A needle setting: what the haystack is made of and how many keys, values and queries there are."""

    haystack: str
    """`repeat` (noise), `essay`, or `needle` (needles of other keys)."""
    key_type: str = "words"
    value_type: str = "numbers"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1


NIAH_SETTINGS = {
    "niah_single_1": NiahSetting("repeat"),
    "niah_single_2": NiahSetting("essay"),
    "niah_single_3": NiahSetting("essay", value_type="uuids"),
    "niah_multikey_1": NiahSetting("essay", num_keys=4),
    "niah_multikey_2": NiahSetting("needle"),
    "niah_multikey_3": NiahSetting("needle", key_type="uuids", value_type="uuids"),
    "niah_multivalue": NiahSetting("essay", num_values=4),
    "niah_multiquery": NiahSetting("essay", num_keys=4, num_queries=4),
}
TASKS: dict[str, Wording] = {
    **dict.fromkeys(NIAH_SETTINGS, NIAH),
    "vt": VARIABLE_TRACKING,
    "cwe": COMMON_WORDS,
    "fwe": FREQUENT_WORDS,
    "qa_1": QA,
    "qa_2": QA,
}


def check_task(task: str, source: str) -> None:
    """Raise `UserError` for a name that is none of the 13 tasks; `source` names the option or file."""
    if task not in TASKS:
        raise UserError(f"{source}: {task!r} is none of {', '.join(TASKS)}.{closest(task, TASKS)}")


@dataclass(frozen=True)
class RulerSample:
    """A sample in its parts; `input` is what the official generator writes."""

    instruction: str
    """Up to the context, with the white space before it."""
    context: str
    gap: str
    """White space between context and prompt."""
    prompt: str
    """Question and answer prefix."""
    answers: tuple[str, ...]

    @property
    def input(self) -> str:
        return f"{self.instruction}{self.context}{self.gap}{self.prompt}"


def compose(
    wording: Wording, context: str, answers: tuple[str, ...], example: str = "", **fields: object
) -> RulerSample:
    """Put a sample into words.

    Args:
        example: a solved sample to stand before; it then belongs to the context, and so does the instruction after it.
        fields: what the wording's placeholders stand for.
    """
    instruction = wording.instruction.format(**fields)
    prompt = (wording.question + wording.answer_prefix).format(**fields)
    if example:
        instruction, context = "", f"{example}\n{instruction}{context}"
    return RulerSample(instruction, context, wording.gap, prompt, answers)


def split_input(text: str, task: str) -> RulerSample | None:
    """Take an official `input` apart, without its answers; None where the task's wording is not found in it.

    A solved example before the sample (vt, cwe) becomes a part of the context, together with the instruction between.
    """
    match = TASKS[task].input_pattern.fullmatch(text)
    if match is None:
        return None
    instruction, context, gap, prompt = match.group("instruction", "context", "gap", "question")
    if TASKS[task] in (VARIABLE_TRACKING, COMMON_WORDS) and TASKS[task].input_pattern.fullmatch(instruction + context):
        instruction, context = "", instruction + context
    return RulerSample(instruction, context, gap, prompt, ())
