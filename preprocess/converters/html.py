"""From HTML to plain text, for articles and film scripts."""

import re
from html.parser import HTMLParser

SCRIPT_START, SCRIPT_END = "\ue000", "\ue001"
"""Private-use characters around what stood in a script or style element, where it is kept."""

_UNSEEN = ("script", "style", "title")
_LINE_BREAKS = {"br", "div", "dd", "dt", "hr", "li", "table", "td", "th", "tr", "ul", "ol", "dl"}
_LINE_BREAKS |= {"article", "aside", "center", "footer", "header", "main", "nav", "section"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote"}


def looks_like_html(text: str) -> bool:
    """Tell whether a text is a web page or a part of one rather than plain text."""
    return re.search(r"<(?:!doctype|html|head|body|pre|p|br|div|table)\b[^>]*>", text, re.IGNORECASE) is not None


def html_to_text(html: str, mark_scripts: bool = False) -> str:
    """Return the text of HTML: line breaks for block elements, entities resolved, comments dropped.

    Lines inside `<pre>` stay as they are; elsewhere white space is squeezed. Scripts, styles and the title are dropped,
    or with `mark_scripts` kept between SCRIPT_START and SCRIPT_END, for a caller who looks for a place in them.
    """
    parser = _TextParser(mark_scripts)
    parser.feed(html)
    parser.close()
    text = "".join(parser.pieces)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


class _TextParser(HTMLParser):
    def __init__(self, mark_scripts: bool):
        super().__init__(convert_charrefs=True)
        self.mark_scripts = mark_scripts
        self.pieces: list[str] = []
        self._unseen: str | None = None
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in _UNSEEN:
            self._unseen = tag
        elif tag in _LINE_BREAKS:
            self._break("\n")
        elif tag in _PARAGRAPHS:
            self._break("\n\n")
            self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = None
        elif tag in _LINE_BREAKS:
            self._break("\n")
        elif tag in _PARAGRAPHS:
            self._break("\n\n")
            self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._unseen is not None:
            if self.mark_scripts:
                self.pieces += [SCRIPT_START, data, SCRIPT_END]
            return
        if not self._pre:
            # A page's own line breaks mean nothing outside <pre>, and neither do spaces at the beginning of a line.
            data = re.sub(r"\s+", " ", data)
            if not self.pieces or self.pieces[-1].endswith(("\n", " ")):
                data = data.lstrip()
        if data:
            self.pieces.append(data)

    def _break(self, text: str) -> None:
        """Break the line, unless there are breaks enough already."""
        ending = "".join(self.pieces[-2:])
        missing = len(text) - (len(ending) - len(ending.rstrip("\n")))
        if self.pieces and missing > 0:
            self.pieces.append("\n" * missing)
