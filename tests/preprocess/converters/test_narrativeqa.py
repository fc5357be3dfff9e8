"""NarrativeQA, on files in the release's format."""

import csv
import gzip

import pytest

from preprocess.convert import main
from preprocess.converters.narrativeqa import read_story, trim_story
from preprocess.converters.release import Counts
from utils.common_utils import UserError, read_jsonl

BOOK = """The Project Gutenberg EBook of A Tale

*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***

Produced by  Ann Smith

A TALE

It was\ra dark night. The end.

End of the Project Gutenberg EBook of A Tale
*** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***
Subscribe to hear about new eBooks.
A line of the server.
"""
SCRIPT = """<html><head><title>Heat</title></head><body><a href="/">Home</a>
<pre><script>if (window != top) go()</script>
<b>                HEAT
</b>
     He runs &amp; runs.
                          THE END
</pre><p>Back to the index. The end of the page.</p></body></html>
"""


def document(name: str, set_name: str, **changes) -> dict:
    return {
        "document_id": name,
        "set": set_name,
        "kind": "gutenberg",
        "story_url": "http://x",
        "story_word_count": "8",
        "story_start": "Produced by Ann",
        "story_end": "new eBooks .",
    } | changes


def qa(name: str, set_name: str, question: str, answer1: str = "one", answer2: str = "two") -> dict:
    return {"document_id": name, "set": set_name, "question": question, "answer1": answer1, "answer2": answer2}


def write_csv(path, rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_release(folder, documents: list[dict], questions: list[dict], stories: dict[str, str | bytes]):
    (folder / "tmp").mkdir(parents=True)
    write_csv(folder / "documents.csv", documents)
    write_csv(folder / "qaps.csv", questions)
    for name, story in stories.items():
        content = story if isinstance(story, bytes) else story.encode()
        (folder / "tmp" / f"{name}.content").write_bytes(content)
    return folder


def convert(source, target, *options: str, split: str = "train") -> list[dict]:
    main(["narrativeqa", "--input_dir", str(source), "--output_dir", str(target), "--overwrite", *options])
    return list(read_jsonl(target / f"{split}.jsonl"))


def test_one_record_a_question_with_the_trimmed_story_and_both_answers(tmp_path, capsys):
    source = write_release(
        tmp_path / "in",
        [document("b1", "train"), document("b2", "valid"), document("b3", "test")],
        [qa("b1", "train", "Who?"), qa("b2", "valid", "Why?"), qa("b1", "train", "Where? "), qa("b3", "test", "How?")],
        {"b1": BOOK, "b2": BOOK, "b3": gzip.compress(BOOK.encode())},
    )
    records = convert(source, tmp_path / "out")
    assert records[0] == {
        "id": "b1:0",
        "task": "narrativeqa",
        "context": "Produced by  Ann Smith\n\nA TALE\n\nIt was\na dark night. The end.",
        "prompt": "Who?",
        "answer": ["one", "two"],
        "meta": {"document": "b1", "kind": "gutenberg"},
    }
    assert [(r["id"], r["prompt"]) for r in records] == [("b1:0", "Who?"), ("b1:1", "Where?")]
    for split, name in (("validation", "b2"), ("test", "b3")):
        (record,) = read_jsonl(tmp_path / "out" / f"{split}.jsonl")
        assert record["id"] == f"{name}:0" and record["context"] == records[0]["context"]
    printed = capsys.readouterr()
    assert "2 records from 1 stories, 2 questions" in printed.out
    assert "1 stories, but 1,102 are published" in printed.err
    assert "do not hold" not in printed.err and "error pages" not in printed.err


def test_scripts_of_films_lose_markup_and_what_surrounds_them(tmp_path, capsys):
    film = document("m", "train", kind="movie", story_start="if ( window", story_end="THE END", story_word_count="6")
    source = write_release(tmp_path / "in", [film], [qa("m", "train", "Who?")], {"m": SCRIPT})
    (record,) = convert(source, tmp_path / "out")
    # The place of the first words, which stand in a script, counts; the script itself is dropped.
    assert record["context"] == "HEAT\n\n     He runs & runs.\n                          THE END"
    assert record["meta"]["kind"] == "movie"
    assert "do not hold" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "start", "end", "trimmed", "warnings"),
    [
        # White space between the words of a mark may be anything, also none; the last end counts.
        ("x He said: go. He ran. go. y", "He said :", "go .", "He said: go. He ran. go.", 0),
        ("a BONNIE\n&  CLYDE b FADE OUT. c", "BONNIE & CLYDE", "FADE OUT .", "BONNIE\n&  CLYDE b FADE OUT.", 0),
        # An end that stands only before the start is not the end.
        ("THE END. Start here and stop", "Start here", "THE END", "Start here and stop", 1),
        ("all of it", "not there", "nor this", "all of it", 2),
        # Characters that mean something in a pattern.
        ("x (a*b)? y... z", "( a*b ) ?", "...", "(a*b)? y...", 0),
        # Without its own marks, those of Gutenberg are still found.
        (
            "head\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\nbody\nEnd of Project Gutenberg's X",
            "q",
            "q",
            "body",
            2,
        ),
        ("body\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence", "body", "licence", "body", 0),
    ],
)
def test_trim_story(text, start, end, trimmed, warnings):
    counts = Counts()
    assert trim_story(text, start, end, counts) == trimmed
    assert counts.odd.total() == warnings


def test_missing_stories_stop_the_run_or_are_counted(tmp_path, capsys):
    documents = [document("b1", "train"), document("b2", "train")]
    questions = [qa("b1", "train", "Who?"), qa("b2", "train", "Why?"), qa("b2", "train", "How?")]
    source = write_release(tmp_path / "in", documents, questions, {"b1": BOOK})
    with pytest.raises(UserError, match=r"b2\.content: no such file.*download_stories.sh.*--skip_missing_stories"):
        convert(source, tmp_path / "out")
    assert len(convert(source, tmp_path / "out", "--skip_missing_stories")) == 1
    assert "dropped: 1 stories that are not there, 2 questions about them" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere: no such folder.*--stories_dir"):
        convert(source, tmp_path / "out", "--stories_dir", str(tmp_path / "nowhere"))
    (source / "tmp").rename(tmp_path / "stories")
    assert convert(source, tmp_path / "out", "--stories_dir", str(tmp_path / "stories"), "--skip_missing_stories")


def test_oddities_are_counted(tmp_path, capsys):
    documents = [document("b1", "train", story_word_count="1000"), document("b2", "train")]
    questions = [
        qa("b1", "train", "Who?", answer2=" "),
        qa("b1", "train", " "),
        qa("b2", "train", "Why?", answer1="", answer2=""),
    ]
    latin = BOOK.replace("dark", "très \x93dark").encode("cp1252", errors="ignore")
    source = write_release(tmp_path / "in", documents, questions, {"b1": "<p>Not found</p>", "b2": latin})
    (record,) = convert(source, tmp_path / "out")
    assert record["answer"] == ["one"] and record["context"] == "Not found"
    printed = capsys.readouterr()
    assert "dropped: 2 questions without text or answer" in printed.out
    assert "1 stories have fewer than half of the published words, such as b1.content" in printed.err
    assert "1 stories do not hold their first words" in printed.err
    assert "1 stories are not UTF-8 and were read as Windows-1252" in printed.err


def test_foreign_files_are_named(tmp_path):
    source = write_release(tmp_path / "in", [document("b1", "train")], [qa("b1", "test", "Who?")], {"b1": BOOK})
    with pytest.raises(UserError, match=r"qaps.csv, question 1: document 'b1' is not in the set 'test'"):
        convert(source, tmp_path / "out")
    write_csv(source / "qaps.csv", [{"document_id": "b1", "question": "Who?"}])
    with pytest.raises(UserError, match="qaps.csv: no column set"):
        convert(source, tmp_path / "out")
    (source / "qaps.csv").write_bytes(b"document_id,set,question,answer1,answer2\nb1,train\n")
    with pytest.raises(UserError, match="qaps.csv, row 1: has fewer values than columns"):
        convert(source, tmp_path / "out")
    (source / "qaps.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="qaps.csv: not a CSV file in UTF-8"):
        convert(source, tmp_path / "out")
    (source / "qaps.csv").unlink()
    with pytest.raises(UserError, match="qaps.csv: no such file"):
        convert(source, tmp_path / "out")


def test_a_download_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "a.content"
    path.write_bytes(gzip.compress(b"Once upon a time. " * 100)[:-12])
    document = {"story_start": "Once", "story_end": "time", "story_word_count": "400"}
    with pytest.raises(UserError, match=r"a\.content: a damaged or incomplete gzip file .* download_stories.sh again"):
        read_story(path, document, Counts())


def test_a_story_without_text_is_named(tmp_path):
    source = write_release(tmp_path / "in", [document("b1", "train")], [qa("b1", "train", "Who?")], {"b1": "<p> </p>"})
    with pytest.raises(UserError, match=r"b1\.content: no text in it"):
        convert(source, tmp_path / "out")
