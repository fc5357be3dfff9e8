"""From HTML to text."""

import pytest

from preprocess.converters.html import SCRIPT_END, SCRIPT_START, html_to_text, looks_like_html


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\ntwo   three</p> <p>four</p>", "One two three\n\nfour"),
        ("<p>a</p><p>b<br/>c<br> d</p>", "a\n\nb\nc\nd"),
        ("x <b>bold</b> and <i>more</i>.", "x bold and more."),
        ("&lt;b&gt; &amp; &eacute;&#8212;&nbsp;", "<b> & é—"),
        ("<pre>INT. HOUSE\n\n   JOHN\n  Hello,  you.\n</pre>", "INT. HOUSE\n\n   JOHN\n  Hello,  you."),
        ("<pre><b>INT. HOUSE\n</b>   JOHN\n</pre>after   it", "INT. HOUSE\n   JOHN\n\nafter it"),
        ("a<!-- no -->b<style>p {}</style><script>if (x < y) go();</script>c", "abc"),
        ("<title>No</title><body>Yes", "Yes"),
        ("<ul><li>one<li>two</ul><table><tr><td>three</td></tr></table>", "one\ntwo\nthree"),
        ("<div>Title</div>Body text", "Title\nBody text"),
        ("<div><div>a</div></div>b<table><tr><th>c</th></tr></table>d<ul><li>e</li></ul>f", "a\nb\nc\nd\ne\nf"),
        ("<header>a</header>b<section>c</section>d<center>e</center>f", "a\nb\nc\nd\ne\nf"),
        ("plain", "plain"),
        ("a < b and b > c", "a < b and b > c"),
        ("", ""),
    ],
)
def test_html_to_text(html, text):
    assert html_to_text(html) == text


def test_scripts_may_be_kept_between_marks():
    html = "<title>T</title><pre>one <script>if (window) go();</script>two</pre>"
    marked = html_to_text(html, mark_scripts=True)
    assert marked == (f"{SCRIPT_START}T{SCRIPT_END}\n\none {SCRIPT_START}if (window) go();{SCRIPT_END}two")


def test_web_pages_are_told_from_text():
    for page in ("<!DOCTYPE html><x>", "<HTML>", "text <pre class='a'>", "a<br>b", "<p>"):
        assert looks_like_html(page), page
    for text in ("a < b", "<person> speaks", "The <i>Nautilus</i>", "x <pretty> y", ""):
        assert not looks_like_html(text), text
