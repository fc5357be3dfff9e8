"""Needle contexts: never longer than asked for, the needle where it belongs, the same for the same options."""

import json
import random
from collections import defaultdict

import numpy as np
import pytest

from preprocess.demo_phrases import QUESTIONS
from preprocess.demo_world import SPLITS, name_split
from preprocess.generate_needle import hide, main, needle_depths, parse_grid, parse_lengths
from preprocess.needles import SanFranciscoNeedle
from preprocess.records import parse_record
from tests.conftest import decoder_tokenizer
from utils.chunking import chunk_spans
from utils.common_utils import UserError, read_jsonl

STYLES = ("demo", "san_francisco", "numbers")


def generate(path, *options: str) -> list[dict]:
    main(["--output", str(path), "--overwrite", *options])
    return list(read_jsonl(path))


def characters(path, *options: str, lengths: str = "1500") -> list[dict]:
    return generate(path, "--unit", "characters", "--lengths", lengths, *options)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("filler", ["prose", "noise", "needles", "text"])
def test_every_style_in_every_filler(tmp_path, style, filler):
    options = ["--needle_style", style, "--filler", filler, "--depths", "0,40,100"]
    if filler == "text":
        (tmp_path / "own.txt").write_text("A first sentence of mine. A second one, longer than the first. " * 9)
        options += ["--text", str(tmp_path / "own.txt")]
    records = characters(tmp_path / "n.jsonl", *options)
    assert [record["meta"]["depth"] for record in records] == [0, 40, 100]
    for record in records:
        parse_record(json.dumps(record).encode())
        (needle,) = record["meta"]["needles"]
        assert 1350 < len(record["context"]) == record["meta"]["measured_length"] <= 1500
        assert record["context"].count(needle) == 1
        assert record["answer"][0] in needle and record["answer"][0] not in record["prompt"]
        # Sentence-aligned: nothing but a whole sentence before it.
        before = record["context"].split(needle)[0]
        assert not before or before.rstrip()[-1] in ".!?"
    first, middle, last = (record["context"] for record in records)
    assert first.startswith(records[0]["meta"]["needles"][0])
    assert last.endswith(records[2]["meta"]["needles"][0])
    assert 25 < records[1]["meta"]["needle_depth"] <= 40
    assert middle.index(records[1]["meta"]["needles"][0]) == pytest.approx(0.4 * 1500, abs=180)


def test_tokens_are_those_of_the_tokenizer_and_never_too_many(tmp_path, backbones):
    tokenizer = decoder_tokenizer()
    records = generate(tmp_path / "n.jsonl", "--lengths", "300,2k", "--tokenizer", backbones[1], "--depths", "0:100:4")
    assert len(records) == 8
    for record in records:
        count = len(tokenizer(record["context"], add_special_tokens=False)["input_ids"])
        assert record["meta"]["length"] - 60 < count == record["meta"]["measured_length"] <= record["meta"]["length"]


def test_chunks_are_those_of_the_store(tmp_path):
    records = generate(tmp_path / "n.jsonl", "--lengths", "3,16", "--unit", "chunks", "--chunk_size", "80")
    assert {record["meta"]["length"] for record in records} == {3, 16}
    for record in records:
        spans = chunk_spans(record["context"], 80)
        assert len(spans) == record["meta"]["length"]
        assert record["meta"]["needles"][0] in [record["context"][start:end].rstrip() for start, end in spans]


def test_depth_100_is_the_end_where_costs_are_fractions():
    needle_set = SanFranciscoNeedle().draw(random.Random(0), 1)
    for cost in (0.7, 1 / 3):
        hidden = hide(needle_set, [f"{number}. " for number in range(8)], np.full(8, cost), "\n", [100])
        assert hidden.depths == (100.0,)
        assert hidden.context.endswith(needle_set.needles[0].text.rstrip())


def test_demo_needles_are_asked_as_in_the_demo_data_about_subjects_of_no_training_document(tmp_path):
    records = characters(tmp_path / "n.jsonl", "--depths", "0:100:6", "--samples", "5", lengths="400")
    templates = {question.split("{subject}")[0] for questions in QUESTIONS.values() for question in questions}
    assert len({record["prompt"] for record in records}) > 20
    for record in records:
        assert any(record["prompt"].startswith(template) for template in templates)
    train = SPLITS[0]
    subjects = {" ".join(record["prompt"].rstrip("?").split()[-2:]) for record in records}
    people = {name for name in subjects if name.istitle() and name.split()[0] in {"Jane", "Adam", "Alice", "Clara"}}
    assert all(name_split("person", name) != train for name in people)


def test_nothing_else_mentions_the_subject(tmp_path):
    for record in characters(tmp_path / "n.jsonl", "--depths", "0:100:3", lengths="60000"):
        (needle,) = record["meta"]["needles"]
        rest = record["context"].replace(needle, "")
        words = record["prompt"].rstrip("?").split()
        names = [" ".join(words[n : n + 2]) for n in range(len(words) - 1)]
        subjects = [name for name in names if name in needle and name[0].isupper() and name.split()[1][0].isupper()]
        assert subjects, record["prompt"]
        assert not any(subject in rest for subject in subjects)


def test_several_needles(tmp_path):
    assert needle_depths(10, 3) == [10, 40, 70]
    numbers = characters(tmp_path / "n.jsonl", "--needle_style", "numbers", "--num_needles", "3", "--depths", "10")
    assert len(numbers) == 1 and len(set(numbers[0]["answer"])) == 3
    places = [numbers[0]["context"].index(value) for value in numbers[0]["answer"]]
    assert places == sorted(places)
    assert numbers[0]["prompt"].startswith("What are all the special magic numbers for")
    facts = characters(tmp_path / "d.jsonl", "--num_needles", "3", "--depths", "10")
    assert len({record["context"] for record in facts}) == 1 and len({record["prompt"] for record in facts}) == 3
    depths = [record["meta"]["needle_depth"] for record in facts]
    assert depths == pytest.approx([10, 40, 70], abs=8) and depths == sorted(depths)
    assert len({record["id"] for record in facts}) == 3
    with pytest.raises(UserError, match="--num_needles=2: the style san_francisco has one"):
        characters(tmp_path / "s.jsonl", "--needle_style", "san_francisco", "--num_needles", "2")


def test_the_file_depends_on_the_seed_and_a_context_on_nothing_beside_its_cell(tmp_path):
    one = characters(tmp_path / "a.jsonl", "--depths", "0,50", lengths="500,900")
    characters(tmp_path / "b.jsonl", "--depths", "0,50", lengths="500,900")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    other = characters(tmp_path / "c.jsonl", "--depths", "0,50", "--seed", "1", lengths="500,900")
    assert not {record["context"] for record in one} & {record["context"] for record in other}
    alone = characters(tmp_path / "d.jsonl", "--depths", "50", lengths="900,500")
    by_id = {record["id"]: record for record in one}
    assert [by_id[record["id"]] for record in alone] == alone


def test_depths_share_their_haystack_and_samples_do_not(tmp_path):
    by_sample = defaultdict(set)
    for record in characters(tmp_path / "n.jsonl", "--depths", "0,100", "--samples", "2"):
        rest = record["context"].replace(record["meta"]["needles"][0], "").strip()
        by_sample[record["id"].split("-")[-2]].add(rest[:800])
    assert len(by_sample["0"]) == len(by_sample["1"]) == 1 and by_sample["0"] != by_sample["1"]


def test_what_is_left_out_of_a_text_is_counted(tmp_path, capsys):
    (tmp_path / "own.txt").write_text("San Francisco has fog. Fog is white. ")
    records = characters(
        tmp_path / "n.jsonl",
        *("--needle_style", "san_francisco", "--filler", "text", "--text", str(tmp_path / "own.txt"), "--depths", "50"),
    )
    assert "has fog" not in records[0]["context"] and records[0]["context"].count("Fog is white.") > 50
    assert records[0]["meta"]["left_out_sentences"] > 50
    assert "sentences that mention the subject" in capsys.readouterr().out
    (tmp_path / "own.txt").write_text("San Francisco has fog.")
    with pytest.raises(UserError, match="every sentence mentions San Francisco"):
        characters(
            tmp_path / "n.jsonl",
            *("--needle_style", "san_francisco", "--filler", "text", "--text", str(tmp_path / "own.txt")),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "10", "--unit", "characters"], "--lengths: 10 characters are fewer than the .* of the needles"),
        (["--lengths", "1k"], "--unit tokens: name the tokenizer"),
        (["--lengths", "1k", "--unit", "chunks", "--tokenizer", "x"], "--unit chunks counts no tokens"),
        (["--lengths", "1k", "--unit", "chunks", "--chunk_size", "0"], "chunk_size=0"),
        (["--lengths", "1k", "--unit", "characters", "--filler", "text"], "--filler text goes with --text"),
        (["--lengths", "1k", "--unit", "characters", "--text", "x"], "--filler text goes with --text"),
        (["--lengths", "1k", "--unit", "characters", "--samples", "0"], "--samples=0"),
        (["--lengths", "1k", "--unit", "characters", "--depths", "0,101"], "--depths='0,101': 101 is not between"),
        (["--lengths", "1k", "--unit", "characters", "--num_needles", "9999"], "ask for fewer"),
    ],
)
def test_impossible_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        main(["--output", str(tmp_path / "n.jsonl"), "--overwrite", *options])
    assert not list(tmp_path.iterdir())


def test_grids():
    assert parse_grid("0:100:5", "--depths", 0, 100) == [0, 25, 50, 75, 100]
    assert parse_grid("0, 12.5", "--depths", 0, 100) == [0, 12.5]
    assert parse_lengths("1k:4k:4") == [1024, 2048, 3072, 4096]
    assert parse_lengths("500,2k") == [500, 2048]
    for text in ("0:100", "a", "0:100:x", "", "0:1:9"):
        with pytest.raises(UserError, match="--depths"):
            parse_grid(text, "--depths", 0, 100)


def test_word_lists_of_the_user(tmp_path):
    (tmp_path / "w").mkdir()
    for name, word in (("adjective", "odd"), ("noun", "newt"), ("verb", "go")):
        (tmp_path / "w" / f"{name}list.txt").write_text(word)
    (record,) = characters(
        tmp_path / "n.jsonl", "--needle_style", "numbers", "--words", str(tmp_path / "w"), "--depths", "0"
    )
    assert "odd-newt" in record["prompt"]
