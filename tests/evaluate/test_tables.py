"""Tables stay aligned and whole whatever their cells hold."""

from evaluate.tables import markdown_table, one_line, score_text


def test_columns_are_aligned_to_the_widest_cell():
    table = markdown_table(["task", "n"], [["short", 5], ["a longer name", 1234]], right=(1,))
    assert table.splitlines() == [
        "| task          |    n |",
        "|---------------|-----:|",
        "| short         |    5 |",
        "| a longer name | 1234 |",
    ]


def test_bars_line_ends_and_wide_characters_keep_the_table_whole():
    lines = markdown_table(["kind", "n"], [["a|b\nc", 1], ["会议", None]]).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| a\\|b c | 1   |"
    # Two wide characters take four terminal columns.
    assert lines[3] == "| 会议   | –   |"


def test_control_characters_are_marked():
    assert one_line("a\x1b[31m\n b\x00") == "a\ufffd[31m b\ufffd"


def test_a_table_without_rows_is_a_header():
    assert len(markdown_table(["a", "b"], []).splitlines()) == 2


def test_score_text():
    assert score_text({"value": 57.44, "low": 50.0, "high": 61.25}) == "57.4 [50.0, 61.2]"
    assert score_text({"value": 57.44, "low": None, "high": None}) == "57.4"
    assert score_text({"value": None, "low": None, "high": None}) is None
