"""Scripts that write data: stopped in the middle, or refused by the disk."""

import errno
import os
import signal

import pytest

from preprocess import convert, convert_ruler, generate_demo_data, generate_needle
from preprocess.writing import writing
from utils.common_utils import UserError, atomic_write_lines


def test_sigterm_leaves_no_temporary_file(tmp_path):
    def lines():
        yield "one\n"
        os.kill(os.getpid(), signal.SIGTERM)
        yield "two\n"

    with pytest.raises(SystemExit) as stop, writing(tmp_path / "a.jsonl", "--output"):
        atomic_write_lines(tmp_path / "a.jsonl", lines())
    assert stop.value.code == 143
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_when_asked(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "c", "context": "c"}\n')
    before = (tmp_path / "train.jsonl").read_text()
    table = [
        "table",
        "--input",
        str(tmp_path / "train.jsonl"),
        "--output_dir",
        str(tmp_path),
        "--context_field",
        "text",
    ]
    needle = ["--output", str(tmp_path / "train.jsonl"), "--lengths", "200", "--unit", "characters", "--depths", "50"]
    demo = [
        "--output_dir",
        str(tmp_path),
        "--train_lengths",
        "1:2",
        "--validation_lengths",
        "1:2",
        "--test_lengths",
        "1:2",
    ]
    for script, arguments in ((convert, table), (generate_needle, needle), (generate_demo_data, demo)):
        with pytest.raises(UserError, match=r"train.jsonl: exists; name another place, or replace it with --overwrite"):
            script.main(arguments)
        assert (tmp_path / "train.jsonl").read_text() == before
    generate_needle.main([*needle, "--overwrite"])
    assert (tmp_path / "train.jsonl").read_text() != before


def test_a_full_disk(tmp_path):
    message = r"--output_dir=.*out: .*No space left on device; the disk must hold twice as much; make room"
    with pytest.raises(UserError, match=message), writing(tmp_path / "out", "--output_dir", needs="twice as much"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "is_output"),
    [("in.jsonl", False), ("out/a", True), (".out.partial/spool/0", True), (".out.lock", True), (".", True)],
)
def test_inputs_are_told_from_outputs(tmp_path, name, is_output):
    file = str(tmp_path / name)
    message = f"--output_dir={tmp_path}/out: .*written to" if is_output else f"^{file}: Permission denied$"
    with pytest.raises(UserError, match=message), writing(tmp_path / "out", "--output_dir"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)


def test_a_reader_of_the_output_that_went_away_is_no_error_of_the_disk(tmp_path):
    with pytest.raises(BrokenPipeError), writing(tmp_path / "out", "--output_dir"):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_no_script_ends_in_a_traceback_where_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "rows.jsonl").write_text('{"context": "c", "prompt": "p", "answer": "a"}\n')
    official = tmp_path / "4096" / "cwe.jsonl"
    official.parent.mkdir()
    text = (
        "Memorize the ones that appear most often.\\n1. a\\nQuestion: What are the 10 most common words in the above "
        "list? Answer:"
    )
    official.write_text(f'{{"index": 0, "input": "{text}", "outputs": ["a"], "length": 9}}\n')
    folder = ["--output_dir", str(tmp_path / "file" / "out")]
    needle = ["--output", str(tmp_path / "file" / "n.jsonl")]
    few = ["--train_lengths", "1:2", "--validation_lengths", "1:2", "--test_lengths", "1:2"]
    table = ["table", "--input", str(tmp_path / "rows.jsonl"), "--context_field", "context"]
    for main, arguments in (
        (generate_needle.main, [*needle, "--lengths", "999", "--unit", "characters"]),
        (generate_demo_data.main, [*folder, *few]),
        (convert_ruler.main, [*folder, "--input", str(official)]),
        (convert.main, [*table, *folder]),
    ):
        with pytest.raises(UserError, match=r"--output.*=.*file/.*name a place that can be written to"):
            main(arguments)
