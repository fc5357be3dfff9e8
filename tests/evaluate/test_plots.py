"""The plots: PNG of the promised width, drawn for one mode, several kinds, and single points."""

import struct

import pytest

from evaluate.plots import bucket_name, plot_needle_heatmap, plot_score_by_chunks, plot_training_curves
from evaluate.training_log import Curve


def png_size(path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def group(mode: str, chunks: tuple[int, int] | None, value: float | None, **kind) -> dict:
    low = None if value is None else value - 1
    score = {"value": value, "low": low, "high": None if value is None else value + 1, "n": 5}
    return {"group": {"mode": mode, **kind, "chunks": chunks}, "scores": {"f1": score}}


@pytest.mark.parametrize(
    "groups",
    [
        [group("model", (1, 1), 5.0), group("model", (2, 3), 50.0), group("closed_book", (2, 3), 0.0)],
        [group("model", (n, n), 50.0, kind=f"kind {k}") for n in (1, 8) for k in range(10)],
        # Contexts without a chunk have a place on the log axis; what was not measured is left out.
        [group("model", (0, 0), 1.0), group("model", (4, 7), 2.0), group("model", None, 3.0), group("x", (4, 7), None)],
    ],
)
def test_score_by_chunks(tmp_path, groups):
    path = tmp_path / "plots" / "f1.png"
    plot_score_by_chunks(path, groups, "f1", "t: score")
    assert png_size(path)[0] == 1000
    assert [item.name for item in path.parent.iterdir()] == ["f1.png"]


def test_training_curves(tmp_path):
    curves = {("train", "reasoning"): Curve({1: 3.0, 2: 2.0}), ("validation", "reasoning"): Curve({2: 2.5}, {2: 3.0})}
    plot_training_curves(tmp_path / "one.png", curves)
    curves["train", "understanding"] = Curve({1: 4.0})
    plot_training_curves(tmp_path / "two.png", curves)
    assert png_size(tmp_path / "one.png")[0] == png_size(tmp_path / "two.png")[0] == 1000


def test_bucket_name():
    assert (bucket_name((8, 8)), bucket_name((8, 15))) == ("8", "8-15")


@pytest.mark.parametrize("size", [1, 6, 60])
def test_needle_heatmap(tmp_path, size):
    path = tmp_path / "heatmap.png"
    lengths, depths = [1000 * n for n in range(1, size + 1)], list(range(size))
    values = {(length, depth): 50.0 for length in lengths for depth in depths[: size - size // 3]}
    plot_needle_heatmap(path, lengths, depths, values, "needle", "chunks")
    width, height = png_size(path)
    assert width == 1000 and 350 <= height <= 1000


def test_a_heatmap_shows_its_scores(tmp_path):
    """Another score gives another picture, so that the cells are not all of one colour or empty."""
    pictures = set()
    for name, value in (("low", 0.0), ("high", 100.0), ("absent", None)):
        values = {(1, 0): 0.0} | ({} if value is None else {(1, 50): value})
        plot_needle_heatmap(tmp_path / name, [1], [0, 50], values, "t")
        pictures.add((tmp_path / name).read_bytes())
    assert len(pictures) == 3
