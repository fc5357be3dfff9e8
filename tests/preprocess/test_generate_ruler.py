"""RULER's 13 tasks: lengths, answers, recipes, determinism, and an end for every request."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from preprocess.generate_ruler import main, parse_tasks
from preprocess.haystacks import NOISE
from preprocess.records import parse_record
from preprocess.ruler_templates import NIAH_SETTINGS, TASKS, split_input
from tests.conftest import decoder_tokenizer
from tests.preprocess.test_ruler_questions import hotpotqa_file, squad_file
from utils.common_utils import UserError, read_jsonl
from utils.tokenization import check_template

LENGTHS = (2048, 6000)


def generate(folder, tokenizer: str, *options: str, lengths: str = "2048", num_samples: int = 2) -> list[dict]:
    arguments = ["--output_dir", str(folder), "--tokenizer", tokenizer, "--lengths", lengths]
    main([*arguments, "--overwrite", "--num_samples", str(num_samples), *options])
    return [record for path in sorted(folder.glob("ruler_*.jsonl")) for record in read_jsonl(path)]


def official_input(record: dict) -> str:
    meta = record["meta"]
    return f"{meta['instruction']}{record['context']}{meta['gap']}{record['prompt']}"


@pytest.fixture(scope="module")
def records(tmp_path_factory, backbones) -> list[dict]:
    folder = tmp_path_factory.mktemp("ruler")
    return generate(folder, backbones[1], lengths=",".join(map(str, LENGTHS)))


@pytest.fixture(scope="module")
def by_task(records) -> dict[str, list[dict]]:
    return {task: [record for record in records if record["meta"]["ruler_task"] == task] for task in TASKS}


def test_all_tasks_at_all_lengths(records):
    counts = Counter((record["meta"]["ruler_task"], record["meta"]["length"]) for record in records)
    assert counts == dict.fromkeys(((task, length) for task in TASKS for length in LENGTHS), 2)
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        parse_record(json.dumps(record).encode())


def test_lengths_are_exact_never_above_and_close(records):
    tokenizer = decoder_tokenizer()
    for record in records:
        meta = record["meta"]
        tokens = len(tokenizer(official_input(record), add_special_tokens=False)["input_ids"])
        assert meta["num_tokens"] == tokens + TASKS[meta["ruler_task"]].tokens_to_generate <= meta["length"]
        # A unit of haystack takes up to 350 of the tiny tokenizer's tokens (a document), and a word of an essay few.
        slack = 12 if NIAH_SETTINGS.get(meta["ruler_task"]) and meta["source"] == "generated" else 400
        assert meta["num_tokens"] >= meta["length"] - slack, record["id"]


def test_every_answer_is_in_its_context_and_in_no_prompt(records):
    for record in records:
        assert record["answer"], record["id"]
        for answer in record["answer"]:
            assert answer in record["context"] and answer not in record["prompt"], record["id"]


def test_the_parts_are_those_of_the_official_input(records):
    for record in records:
        sample = split_input(official_input(record), record["meta"]["ruler_task"])
        assert sample.context == record["context"].rstrip() and sample.prompt == record["prompt"]
        assert sample.instruction == record["meta"]["instruction"]


@pytest.mark.parametrize("task", NIAH_SETTINGS)
def test_needles(by_task, task):
    setting = NIAH_SETTINGS[task]
    pattern = rf"One of the special magic {setting.value_type} for (\S+) is: (\S+)\."
    for record in by_task[task]:
        facts = re.findall(pattern, record["context"])
        queries = re.findall(r"special magic \w+ for (.*?) mentioned", record["prompt"])[0]
        asked = re.sub(",? and ", ", ", queries).split(", ")
        assert sorted(value for key, value in facts if key in asked) == sorted(record["answer"])
        assert len(record["answer"]) == setting.num_queries * setting.num_values
        assert len({key for key, _ in facts}) >= setting.num_keys
        plural = len(record["answer"]) > 1
        assert record["prompt"].startswith("What are all the" if plural else "What is the")
        assert record["meta"]["instruction"].startswith("Some" if plural else "A special magic")
        if setting.haystack == "needle":
            assert len(facts) == record["context"].count("\n") + 1
        else:
            assert len(facts) == setting.num_keys * setting.num_values
        assert (NOISE in record["context"]) == (setting.haystack == "repeat")


def test_variable_tracking(by_task):
    for record in by_task["vt"]:
        value = re.search(r"assigned the value (\d+) in", record["prompt"]).group(1)
        assert 10_000 <= int(value) <= 99_998
        chain, own = dict(re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?(\w+)", record["context"])), record["answer"]
        assert len(own) == len(set(own)) == len(chain) == 5
        for name in own:
            while name in chain:
                name = chain[name]
            assert name == value
        # The order of the assignments is that of the chain.
        places = [record["context"].index(f"VAR {name} = ") for name in own]
        assert places == sorted(places)
        assert len(set(re.findall(r"VAR ([A-Z]{3}) =", record["context"]))) == 5
        assert record["context"].count("Question: Find all variables") == 1
        assert re.search(r"they are:  [A-Z]{3}(?: [A-Z]{3}){4}\n\nMemorize and track", record["context"])


@pytest.mark.parametrize(("length", "repeats"), [(2048, (6, 1)), (6000, (30, 3))])
def test_common_words(by_task, length, repeats):
    for record in (each for each in by_task["cwe"] if each["meta"]["length"] == length):
        example, listed = record["context"].rsplit("Memorize the ones that appear most often.\n", 1)
        counts = Counter(re.findall(r"\d+\. (\S+)", listed))
        assert [counts[word] for word in record["answer"]] == [repeats[0]] * 10
        assert {count for word, count in counts.items() if word not in record["answer"]} == {repeats[1]}
        assert re.search(r"most often in the list are: 1\. .* 10\. \S+\nBelow is a numbered list", example)


def test_frequent_words(by_task):
    for record in by_task["fwe"]:
        ranked = Counter(record["context"].split()).most_common(5)
        assert [word for word, _ in ranked[:4]] == ["...", *record["answer"]]
        assert len({count for _, count in ranked}) == 5
        assert all(len(word) == 6 for word in record["answer"])


def test_documents(by_task):
    for task in ("qa_1", "qa_2"):
        for record in by_task[task]:
            numbers = [int(number) for number in re.findall(r"Document (\d+):", record["context"])]
            assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 5
            assert record["prompt"].endswith(" Answer:") and record["meta"]["source"] == "generated"


def test_the_same_for_the_same_seed_whatever_the_processes_and_the_other_tasks(tmp_path, backbones, by_task):
    tasks = ("niah_multikey_1", "vt", "qa_2")
    options = ["--tasks", ",".join(tasks)]
    again = generate(tmp_path / "two", backbones[1], *options, "--num_proc", "2", lengths="6000")
    assert again == [record for task in tasks for record in by_task[task] if record["meta"]["length"] == 6000]
    other = generate(tmp_path / "seed", backbones[1], *options, "--seed", "1", lengths="6000")
    assert not {r["prompt"] for r in other if r["meta"]["ruler_task"] != "qa_2"} & {r["prompt"] for r in again}
    assert not {record["context"] for record in other} & {record["context"] for record in again}


@pytest.mark.parametrize("task", TASKS)
def test_it_ends_with_an_error_where_the_smallest_haystack_does_not_fit(tmp_path, backbones, task):
    with pytest.raises(
        UserError, match=f"--lengths: 150 tokens are too few for sample 0 of {task}: .* or more, or leave"
    ):
        generate(tmp_path, backbones[1], "--tasks", task, lengths="150")
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_trap_of_the_official_generator_ten_documents_that_do_not_fit(tmp_path, backbones):
    hotpotqa = hotpotqa_file(tmp_path / "hotpot.json", num_paragraphs=40)
    with pytest.raises(UserError, match="too few for sample 0 of qa_2"):
        generate(tmp_path, backbones[1], "--tasks", "qa_2", "--hotpotqa", str(hotpotqa), lengths="1024")


def test_files_of_the_user(tmp_path, backbones, capsys):
    (tmp_path / "essays").mkdir()
    (tmp_path / "essays" / "one.txt").write_text("I wrote this.  It is\nshort. Is it? ")
    options = ["--tasks", "niah_single_2,qa_1,qa_2", "--essays", str(tmp_path / "essays")]
    options += ["--squad", str(squad_file(tmp_path / "s.json", 3))]
    options += ["--hotpotqa", str(hotpotqa_file(tmp_path / "h.json", 9))]
    records = generate(tmp_path / "out", backbones[1], *options, lengths="1536", num_samples=1)
    assert [record["meta"]["source"] for record in records] == ["essays", "squad", "hotpotqa"]
    needle, squad, hotpotqa = records
    assert needle["context"].count("I wrote this. It is short. Is it? ") > 20
    assert "One of the special magic numbers" in needle["context"]
    assert "Text 0-0 tells of Ada00." in squad["context"] and squad["answer"] == ["Ada00"]
    assert hotpotqa["context"].count("Town0 is here.") == 10
    output = capsys.readouterr()
    assert "generated" not in output.out
    # Three articles of four short paragraphs are less than the length: said, not hidden.
    assert "warning: qa_1: 1 of 1 samples have less than 95 % of 1,536 tokens" in output.err


def test_generated_haystacks_are_announced(tmp_path, backbones, capsys):
    generate(tmp_path, backbones[1], "--tasks", "vt,qa_1,niah_single_2", lengths="2048", num_samples=1)
    output = capsys.readouterr().out
    assert "note: the haystack or the questions of qa_1, niah_single_2 are generated" in output
    assert "ruler_2048.jsonl: 3 samples" in output


@pytest.mark.parametrize("name", ["ruler", "needle"])
def test_the_prompt_templates_hold_context_and_prompt_and_begin_with_text(name):
    path = Path(__file__).resolve().parents[2] / "prompts" / f"{name}.txt"
    template = path.read_text(encoding="utf-8").rstrip("\n")
    check_template(template, str(path), needs_prompt=True)
    assert template.index("{context}") > 0


def test_options(tmp_path, backbones):
    assert parse_tasks("all") == list(TASKS) and parse_tasks("vt, cwe") == ["vt", "cwe"]
    for options, message in (
        (["--tasks", "vt,vw"], "--tasks: 'vw' is none of"),
        (["--tasks", "vt,vt"], "--tasks: vt is given 2 times"),
        (["--num_proc", "0"], "--num_proc=0"),
    ):
        with pytest.raises(UserError, match=message):
            generate(tmp_path, backbones[1], *options)
    with pytest.raises(UserError, match="--tokenizer='/none': no such file or folder"):
        generate(tmp_path, "/none")
