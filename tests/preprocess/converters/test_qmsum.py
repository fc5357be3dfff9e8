"""The QMSum converter, on small meetings in the release's format."""

import json
from pathlib import Path

import pytest

from preprocess.convert import main
from utils.common_utils import UserError, read_jsonl

TURNS = [
    {"speaker": "Grad A", "content": "OK , we 're {vocalsound} on ."},
    {"speaker": "Grad B", "content": "  "},
    {"speaker": "Grad B", "content": "{disfmarker} {pause}"},
    {"speaker": "Grad A", "content": "Let 's talk\nabout costs ."},
    {"speaker": "Professor C", "content": "Fine ."},
]


def meeting(**changes) -> dict:
    return {
        "topic_list": [{"topic": "costs", "relevant_text_span": [["3", "4"]]}],
        "general_query_list": [{"query": "Summarize the meeting.", "answer": "They spoke of costs."}],
        "specific_query_list": [
            {"query": "What was said of costs?", "answer": "Fine.", "relevant_text_span": [["1", "2"], ["2", "4"]]},
            {"query": "Who began?", "answer": "Grad A.", "relevant_text_span": [["0", "0"]]},
        ],
        "meeting_transcripts": TURNS,
    } | changes


def write_release(folder: Path, **splits: dict) -> Path:
    for split, meetings in splits.items():
        (folder / split).mkdir(parents=True)
        for name, content in meetings.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / split / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def convert(source: Path, target: Path, *options: str) -> list[dict]:
    main(["qmsum", "--input_dir", str(source), "--output_dir", str(target), "--overwrite", *options])
    return list(read_jsonl(target / "train.jsonl"))


def test_one_record_a_query_with_the_whole_meeting(tmp_path, capsys):
    source = write_release(tmp_path / "ALL", train={"b": meeting(), "a": meeting()})
    records = convert(source, tmp_path / "out")
    assert [record["id"] for record in records] == [
        *("a:general:0", "a:specific:0", "a:specific:1"),
        *("b:general:0", "b:specific:0", "b:specific:1"),
    ]
    assert records[1] == {
        "id": "a:specific:0",
        "task": "qmsum",
        "context": "Grad A: OK , we 're {vocalsound} on .\nGrad B: {disfmarker} {pause}\n"
        "Grad A: Let 's talk about costs .\nProfessor C: Fine .",
        "prompt": "What was said of costs?",
        "answer": "Fine.",
        "meta": {
            "meeting": "a",
            "kind": "specific",
            "topic_span": [[1, 2], [2, 4]],
            "line_span": [[1, 1], [1, 3]],
        },
    }
    assert records[0]["meta"] == {"meeting": "a", "kind": "general"}
    printed = capsys.readouterr()
    assert "6 records from 2 meetings, 10 turns, 6 queries, 2 general queries, 4 specific queries" in printed.out
    assert "dropped: 2 turns without content\n" in printed.out
    assert "warning: train: 2 meetings, but 162 are published (QMSum's paper)" in printed.err
    assert "warning: train: 6 queries, but 1,257 are published" in printed.err


def test_noise_markers_are_stripped_and_what_they_leave_empty_is_dropped(tmp_path, capsys):
    source = write_release(tmp_path / "ALL", train={"a": meeting()})
    records = convert(source, tmp_path / "out", "--strip_noise_markers")
    lines = records[1]["context"].split("\n")
    assert lines == ["Grad A: OK , we 're on .", "Grad A: Let 's talk about costs .", "Professor C: Fine ."]
    assert records[1]["meta"]["topic_span"] == [[1, 2], [2, 4]]
    assert records[1]["meta"]["line_span"] == [[1, 2]], "the first span lost all its turns"
    assert "1 turns without content, 1 turns of noise markers only" in capsys.readouterr().out


def test_spans_alone_are_the_context_and_queries_without_them_are_dropped(tmp_path, capsys):
    queries = meeting()["specific_query_list"] + [{"query": "q", "answer": "a", "relevant_text_span": [["1", "1"]]}]
    source = write_release(tmp_path / "ALL", train={"a": meeting(specific_query_list=queries)})
    records = convert(source, tmp_path / "out", "--context", "spans")
    assert [record["id"] for record in records] == ["a:specific:0:spans", "a:specific:1:spans"]
    assert [record["context"].split("\n") for record in records] == [
        ["Grad B: {disfmarker} {pause}", "Grad A: Let 's talk about costs .", "Professor C: Fine ."],
        ["Grad A: OK , we 're {vocalsound} on ."],
    ], "a line that two spans hold comes once"
    assert records[0]["meta"] == {"meeting": "a", "kind": "specific", "topic_span": [[1, 2], [2, 4]]}
    dropped = "dropped: 1 turns without content, 1 general queries without spans, 1 specific queries without spans"
    printed = capsys.readouterr()
    assert dropped in printed.out
    assert "2 records from 1 meetings, 5 turns, 4 queries" in printed.out


def test_splits_are_kept_apart_and_chosen(tmp_path):
    source = write_release(tmp_path / "ALL", train={"a": meeting()}, val={"v": meeting()}, test={"t": meeting()})
    convert(source, tmp_path / "out")
    for name, stem in (("train", "a"), ("validation", "v"), ("test", "t")):
        assert {record["meta"]["meeting"] for record in read_jsonl(tmp_path / "out" / f"{name}.jsonl")} == {stem}
    convert(source, tmp_path / "some", "--splits", "train,validation")
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["train.jsonl", "validation.jsonl"]
    main(["qmsum", "--input_dir", str(source / "val"), "--output_dir", str(tmp_path / "one")])
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["validation.jsonl"]


def test_the_published_counts_give_no_warning(tmp_path, capsys):
    queries = [{"query": f"q{number}", "answer": "a", "relevant_text_span": []} for number in range(7)]
    full = {f"m{number}": meeting(specific_query_list=queries[: 7 if number < 27 else 6]) for number in range(35)}
    convert(write_release(tmp_path / "ALL", val=full, train={"a": meeting()}), tmp_path / "out")
    warnings = capsys.readouterr().err
    assert "warning: train" in warnings
    assert "warning: validation" not in warnings, "35 meetings and 35 + 237 queries are what is published"


def test_oddities_are_counted(tmp_path, capsys):
    odd = meeting(
        specific_query_list=[
            {"query": " ", "answer": "a", "relevant_text_span": []},
            {"query": "q", "answer": "a", "relevant_text_span": [["3", "5"]]},
        ]
    )
    source = write_release(tmp_path / "ALL", train={"a": odd})
    (source / "train" / "notes.txt").write_text("mine")
    records = convert(source, tmp_path / "out")
    assert [record["id"] for record in records] == ["a:general:0", "a:specific:1"]
    printed, warnings = capsys.readouterr()
    assert "dropped: 1 turns without content, 1 queries without text" in printed
    assert "1 relevant_text_spans reach outside" in warnings
    assert "1 files that are not .json" in warnings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"bad\.json:1: not valid JSON"),
        ("[]", r"bad\.json: expected a JSON object, found list"),
        ({"Data": []}, r"bad\.json: the key meeting_transcripts is missing"),
        (meeting(meeting_transcripts=[{"speaker": "A"}]), r"the key meeting_transcripts\[0\]\.content is missing"),
        (meeting(meeting_transcripts=[]), "no turn with content"),
        (meeting(general_query_list="x"), "general_query_list is of type str, expected list"),
        (meeting(general_query_list=[{"query": "q"}]), r"the key general_query_list\[0\]\.answer is missing"),
        (
            meeting(specific_query_list=[{"query": "q", "answer": "a", "relevant_text_span": [["1"]]}]),
            r"specific_query_list\[0\]\.relevant_text_span: \['1'\] is not a pair",
        ),
    ],
)
def test_foreign_files_are_named_with_the_key(tmp_path, content, message):
    source = write_release(tmp_path / "ALL", train={"bad": content})
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_missing_folders_are_named(tmp_path):
    source = write_release(tmp_path / "ALL", train={})
    with pytest.raises(UserError, match=r"train: holds no \.json file"):
        convert(source, tmp_path / "out")
    with pytest.raises(UserError, match="no folder train, val or test in it"):
        convert(tmp_path / "nowhere", tmp_path / "out")
