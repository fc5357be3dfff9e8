"""The Makefile: what is made anew and when, with stand-ins for Python and the launch scripts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pefts.conftest import ROOT

STAND_IN = """#!/bin/sh
echo "$1" >> calls
while [ $# -gt 1 ]; do
    case $1 in
        --output) mkdir -p "$(dirname "$2")"; touch "$2" ;;
        --output_dir) mkdir -p "$2"; touch "$2/manifest.json" ;;
    esac
    shift
done
"""
LAUNCH = 'mkdir -p outputs/demo; echo "$PROCESSES_PER_NODE processes" >> calls\n'
NEEDLES = "data/demo_baselines/store/needle/manifest.json"
RULER = "data/demo_baselines/store/ruler/manifest.json"


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a target in a folder of its own; it returns what was run."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    (tmp_path / "train_local_machine.sh").write_text(LAUNCH)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*arguments: str) -> list[str]:
        calls = tmp_path / "calls"
        calls.write_text("")
        command = ["make", "-o", ".venv/.installed", f"RUN={stand_in}", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return [Path(call).stem for call in calls.read_text().splitlines()]

    return run


def test_other_lengths_make_the_data_of_the_baselines_anew(make, tmp_path):
    made = ["generate_needle", "generate_needle", "preshuffle_data_and_chunk"]
    made += ["generate_ruler", "preshuffle_data_and_chunk"]
    assert make(NEEDLES, RULER) == made
    assert make(NEEDLES, RULER) == []
    stale = tmp_path / "data/demo_baselines/ruler/ruler_16384.jsonl"
    stale.touch()
    assert make(NEEDLES, RULER, "RULER_LENGTHS=1k") == made
    assert not stale.exists()
    assert make(NEEDLES, RULER, "RULER_LENGTHS=1k") == []
    assert make(NEEDLES, "RULER_LENGTHS=1k", "LENGTHS=2k") == made[:3]


def test_demo_data_cut_off_in_the_middle_is_made_anew(make, tmp_path):
    (tmp_path / "data/demo").mkdir(parents=True)
    (tmp_path / "data/demo/train.jsonl").touch()
    target = "data/demo/store/test/manifest.json"
    assert make(target) == ["generate_demo_data", "preshuffle_data_and_chunk"]
    assert make(target) == []


def test_the_demo_trains_in_one_process_on_any_machine(make):
    assert make("outputs/demo/trained")[-1] == "1 processes"
