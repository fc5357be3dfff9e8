"""Reading lines from parts of a file, and what a record must hold."""

import io
import json
import random

import pytest

from preprocess.records import BadRecord, iter_lines, parse_record


@pytest.mark.parametrize("seed", range(20))
def test_adjoining_ranges_yield_every_line_once(seed):
    rng = random.Random(seed)
    for _ in range(50):
        data = b"".join(rng.choice([b"a", b"bcd", b"\n", b"\r\n", b"x" * 9]) for _ in range(rng.randint(1, 30)))
        size, most = rng.randint(1, len(data) + 2), rng.randint(1, 12)
        lines = [
            line
            for start in range(0, len(data), size)
            for line in iter_lines(io.BytesIO(data), start, min(start + size, len(data)), most)
        ]
        expected = data.splitlines(keepends=True)
        assert b"\r" not in data.replace(b"\r\n", b"")
        assert lines == [line if len(line.removesuffix(b"\n")) <= most else None for line in expected], (
            data,
            size,
            most,
        )


def test_a_long_line_is_never_held_whole():
    class Spy(io.BytesIO):
        largest = 0

        def readline(self, size=-1):
            assert size > 0, "an unbounded readline"
            line = super().readline(size)
            self.largest = max(self.largest, len(line))
            return line

    spy = Spy(b"a\n" + b"x" * 5_000_000 + b"\nb\n")
    assert list(iter_lines(spy, 0, 5_000_005, 100)) == [b"a\n", None, b"b\n"]
    assert spy.largest <= 1 << 20


def parse(**fields):
    return parse_record(json.dumps(fields).encode())


def test_all_fields_are_read():
    record = parse(context=" kept \n", prompt="p", answer=["a", "b"], id=17, task="qa", meta={"é": [1, None]}, extra=1)
    assert (record.context, record.prompt, record.answers) == (b" kept \n", "p", ["a", "b"])
    assert (record.id, record.task, json.loads(record.meta)) == ("17", "qa", {"é": [1, None]})
    assert record.ignored_keys == ["extra"]


def test_null_counts_as_absent():
    record = parse(context="c", prompt=None, answer=None, id=None, task=None, meta=None)
    assert (record.prompt, record.answers, record.id, record.task, record.meta) == (None, [], None, "", "{}")


def test_a_surrogate_pair_is_one_character():
    assert parse_record(rb'{"context": "\ud83d\ude80"}').context.decode() == "🚀"


BAD_LINES = {
    "cut off": (b'{"context": "a"\r\n', "broken_json", "column 16"),
    "deep": (b'{"meta": ' + b"[" * 200_000, "broken_json", "recursion"),
    "huge number": (b'{"context": "a", "id": ' + b"9" * 5_000 + b"}", "broken_json", "digits"),
    "deep meta": (b'{"context": "a", "meta": {"m": ' + b"[" * 3_000 + b"]" * 3_000 + b"}}", "broken_json", "recursion"),
    "array": (b'[{"context": "a"}]', "not_an_object", "found a list"),
    "string": (b'"context"', "not_an_object", "found a string"),
    "no context": (b'{"prompt": "p", "answer": "a"}', "missing_context", 'no "context"'),
    "null context": (b'{"context": null}', "missing_context", 'no "context"'),
    "misspelt": (b'{"contxt": "a"}', "missing_context", 'there is "contxt": did you mean "context"'),
    "context a number": (b'{"context": 5}', "wrong_type", "found a number"),
    "context a list": (b'{"context": ["a"]}', "wrong_type", "found a list"),
    "empty context": (b'{"context": ""}', "empty_context", '"context" is empty'),
    "white context": (b'{"context": " \\n\\u3000"}', "empty_context", '"context" is empty'),
    "prompt a list": (b'{"context": "c", "prompt": ["p"], "answer": "a"}', "wrong_type", '"prompt"'),
    "empty prompt": (b'{"context": "c", "prompt": " ", "answer": "a"}', "empty_prompt", '"prompt" is empty'),
    "no answer": (b'{"context": "c", "prompt": "p"}', "prompt_without_answer", 'without "answer"'),
    "answers": (b'{"context": "c", "prompt": "p", "answers": ["a"]}', "prompt_without_answer", 'did you mean "answer"'),
    "no prompt": (b'{"context": "c", "answer": "a"}', "answer_without_prompt", 'without "prompt"'),
    "answer a number": (b'{"context": "c", "prompt": "p", "answer": 4}', "wrong_type", "found a number"),
    "answer an object": (b'{"context": "c", "prompt": "p", "answer": {"a": 1}}', "wrong_type", "found an object"),
    "answer mixed": (b'{"context": "c", "prompt": "p", "answer": ["a", null]}', "wrong_type", "a list with null"),
    "no answers": (b'{"context": "c", "prompt": "p", "answer": []}', "empty_answer", '"answer" is empty'),
    "white answer": (b'{"context": "c", "prompt": "p", "answer": ["a", " "]}', "empty_answer", "has an empty string"),
    "id a float": (b'{"context": "c", "id": 1.5}', "wrong_type", '"id"'),
    "id a boolean": (b'{"context": "c", "id": true}', "wrong_type", "found a boolean"),
    "task a number": (b'{"context": "c", "task": 1}', "wrong_type", '"task"'),
    "meta a list": (b'{"context": "c", "meta": []}', "wrong_type", '"meta" must be an object'),
    "latin-1": (b'{"context": "caf\xe9"}', "invalid_utf8", "0xe9 at byte 17"),
    "lone surrogate": (rb'{"context": "a\ud800b"}', "lone_surrogate", r"\ud800"),
    "lone in answer": (rb'{"context": "c", "prompt": "p", "answer": "\udc00"}', "lone_surrogate", '"answer"'),
    "lone in meta": (rb'{"context": "c", "meta": {"\ud800": 1}}', "lone_surrogate", '"meta"'),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_records_are_refused_with_their_reason(name):
    line, reason, message = BAD_LINES[name]
    with pytest.raises(BadRecord) as caught:
        parse_record(line)
    assert caught.value.reason == reason
    assert message in str(caught.value)
