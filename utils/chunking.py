"""Lossless chunking: cut a text into pieces of bounded length at the best boundaries there are.

A text is cut into *spans*, pairs of character offsets (start, end). A chunk ends at the best boundary of its back half:

    paragraph > line > sentence end > clause > space

and, where the back half has none, at the best one of its front half, and only then anywhere. Trying the back half first
keeps a paragraph break at character 3 from making a chunk of 3 characters. White space at a break stays with the chunk
before it. No chunk begins inside a combining sequence, unless the sequence alone is longer than a chunk.
"""

import functools
import re
import unicodedata
from array import array
from bisect import bisect_right

from utils.common_utils import UserError

_ZERO_WIDTH_JOINER = "\u200d"

# Marks of the Unicode category M (variation selectors are among them) end below U+20000, but for one late block.
_MARK_RANGES = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))
_OTHER_EXTENDERS = (
    range(0x200D, 0x200E),  # zero-width joiner
    range(0x1F3FB, 0x1F400),  # emoji modifiers (skin tones)
    range(0xE0020, 0xE0080),  # tags, which spell the flags of regions
    range(0xFF9E, 0xFFA0),  # half-width katakana voice marks
    range(0x1160, 0x1200),  # Korean vowels and finals, as decomposed (NFD) text writes them
    range(0xD7B0, 0xD800),
)
_EXTENDERS = frozenset(
    [chr(code) for codes in _MARK_RANGES for code in codes if unicodedata.category(chr(code))[0] == "M"]
    + [chr(code) for codes in _OTHER_EXTENDERS for code in codes]
)
"""Characters that belong to the one before them."""

_LINE_ENDS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_CLOSERS = r"\"'”’»›)\]}」』）】》〉］｝"
_FULL_STOPS = "。！？．｡؟۔।॥።"
_COMMAS = "，、；：､،؛—"
_BOUNDARIES = (
    r"(?:\n[^\S\n]*\n|\u2029)\s*",
    rf"[{_LINE_ENDS}]\s*",
    rf"(?:[.!?…][{_CLOSERS}]*\s|[{_FULL_STOPS}][{_CLOSERS}]*(?![{_FULL_STOPS}{_CLOSERS}]))\s*",
    rf"(?:[,;:–-][{_CLOSERS}]*\s|[{_COMMAS}][{_CLOSERS}]*(?![{_COMMAS}{_CLOSERS}]))\s*",
    r"\s+",
)
"""What a chunk may end with, best first. Latin marks count only before white space: not within 3.14 or 1,000."""


def _last_break(boundary: str) -> re.Pattern:
    """Compile a pattern that matches up to the last `boundary` with a character after it.

    Each boundary begins with a single character and repeats only classes that cannot contain another beginning, so that
    going back over a window takes time linear in its length, whatever the text.
    """
    extenders = "".join(sorted(_EXTENDERS))
    return re.compile(rf"(?s:.*)(?:{boundary})(?=[^{extenders}])(?!(?<=\r)\n)")


_LEVELS = tuple(map(_last_break, _BOUNDARIES))
_REGIONAL_INDICATORS = re.compile("[\U0001f1e6-\U0001f1ff]{2,}")


def _is_regional_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def check_chunk_options(chunk_size: int, chunk_overlap: int = 0) -> None:
    """Raise `UserError` for sizes (both in characters) that no chunking can have."""
    if chunk_size < 1:
        raise UserError(f"chunk_size={chunk_size}: a chunk holds at least 1 character; 512 is usual")
    if chunk_overlap < 0:
        raise UserError(f"chunk_overlap={chunk_overlap}: cannot be negative; 0 turns it off")
    if chunk_overlap >= chunk_size:
        raise UserError(
            f"chunk_overlap={chunk_overlap}: must be smaller than chunk_size={chunk_size}, "
            "or a chunk would hold nothing new; a tenth of chunk_size is usual"
        )


class _Text:
    """A text and where it may be cut. Positions are character offsets; position p lies before character p."""

    def __init__(self, text: str):
        self.text = text

    @functools.cached_property
    def _flag_runs(self) -> array:
        """Start, end, start, end ... of the runs of regional indicators.

        Flags are pairs of them, so whether a cut parts one depends on where the run began. Looking that up, rather than
        walking back, keeps a text made of flags from taking quadratic time.
        """
        return array("q", (offset for run in _REGIONAL_INDICATORS.finditer(self.text) for offset in run.span()))

    def may_cut(self, position: int) -> bool:
        """Tell whether a cut at 0 < `position` < len(text) leaves every combining sequence whole."""
        before, after = self.text[position - 1], self.text[position]
        if after in _EXTENDERS or before == _ZERO_WIDTH_JOINER or (before == "\r" and after == "\n"):
            return False
        if not (_is_regional_indicator(before) and _is_regional_indicator(after)):
            return True
        run_start = self._flag_runs[bisect_right(self._flag_runs, position) - 1]
        return (position - run_start) % 2 == 0

    def overlapping_start(self, earliest: int, end: int) -> int:
        """Return the first position in [earliest, end] at which a chunk may begin; at `end` it may anyway."""
        return next(filter(self.may_cut, range(earliest, end)), end)

    def best_break(self, low: int, high: int) -> int | None:
        """Return the last break of the best level in (low, high], or None where there is no boundary at all."""
        for level in _LEVELS:
            # One more character than may be used, so that the patterns see what follows a break at `high`.
            if match := level.match(self.text, low, high + 1):
                return match.end()
        return None

    def chunk_end(self, start: int, low: int, limit: int) -> int | None:
        """Return where the chunk from `start` ends, in (low, limit]; None where every cut there parts a sequence."""
        middle = max(low, start + (limit - start) // 2)
        end = self.best_break(middle, limit) or self.best_break(low, middle)
        return end or next(filter(self.may_cut, range(limit, low, -1)), None)


def chunk_spans(text: str, chunk_size: int, chunk_overlap: int = 0) -> list[tuple[int, int]]:
    """Cut `text` into chunks of at most `chunk_size` characters and return their (start, end) character offsets.

    The overlap that chunk i declares with the one before it is `spans[i - 1].end - spans[i].start`; without it, the
    chunks joined are the text, character for character. It is `chunk_overlap` at most, and less where the chunk would
    begin inside a combining sequence. An empty text has no chunks.

    Raises:
        UserError: chunk_size < 1, chunk_overlap < 0 or chunk_overlap >= chunk_size.
    """
    check_chunk_options(chunk_size, chunk_overlap)
    source = _Text(text)
    spans = []
    start = end = 0
    while end < len(text):
        start = source.overlapping_start(max(end - chunk_overlap, start + 1), end) if chunk_overlap and end else end
        if start + chunk_size >= len(text):
            next_end = len(text)
        else:
            next_end = source.chunk_end(start, end, start + chunk_size)
        if next_end is None:  # the next sequence does not fit: give up the overlap, and after that the sequence
            start = end
            limit = min(end + chunk_size, len(text))
            next_end = limit if limit == len(text) else source.chunk_end(start, end, limit) or limit
        end = next_end
        spans.append((start, end))
    return spans


def split_into_chunks(text: str, chunk_size: int, chunk_overlap: int = 0) -> list[str]:
    """Cut `text` into chunks; see `chunk_spans`, whose offsets they are taken from."""
    return [text[start:end] for start, end in chunk_spans(text, chunk_size, chunk_overlap)]


def byte_spans(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Turn spans in characters into spans in bytes of the text's UTF-8 form."""
    if text.isascii():
        return spans
    offsets = {0: 0}
    previous = 0
    for position in sorted({position for span in spans for position in span}):
        offsets[position] = offsets[previous] + len(text[previous:position].encode())
        previous = position
    return [(offsets[start], offsets[end]) for start, end in spans]
