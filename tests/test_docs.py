"""The commands in the documentation."""

import json
import re

import pytest

from tests.pefts.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_stores_are_chunked_as_the_config_beside_them_asks(path):
    for block in _BLOCK.findall(path.read_text(encoding="utf-8")):
        sizes = {int(size) for size in re.findall(r"--chunk_size (\d+)", block)}
        for name in re.findall(r"configs/\w+\.json", block):
            model = json.loads((ROOT / name).read_text()).get("model", {})
            if sizes and "chunk_size" in model:
                assert sizes == {model["chunk_size"]}, f"{name} in:\n{block}"
