"""Markdown tables that also read well in a terminal: columns are padded to one width."""

import unicodedata
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Lay out a table; the columns whose numbers are in `right` are aligned to the right.

    Bars and line ends inside a cell are replaced, so that any text may be a cell; None is shown as a dash.
    """
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(3, *(_width(row[column]) for row in cells)) for column in range(len(header))]
    rule = "|" + "|".join("-" * (w + 1) + (":" if c in right else "-") for c, w in enumerate(widths)) + "|"
    lines = [_line(row, widths, right) for row in cells]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = []
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - _width(text))
        padded.append(space + text if column in right else text + space)
    return "| " + " | ".join(padded) + " |"


def _cell(value: object) -> str:
    return "–" if value is None else one_line(str(value)).replace("|", "\\|")


def one_line(text: str) -> str:
    """Squeeze white space to single spaces and mark control characters, which a terminal would obey."""
    text = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(character) == "Cc" else character for character in text)


def _width(text: str) -> int:
    """Return the number of terminal columns: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def score_text(score: dict) -> str | None:
    """Write a score as `57.4 [52.1, 62.8]`, without the interval where there is none; None where nothing was scored."""
    if score["value"] is None:
        return None
    if score["low"] is None:
        return f"{score['value']:.1f}"
    return f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
