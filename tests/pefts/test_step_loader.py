"""Steps prepared by background processes, under the limits of the system."""

import subprocess
import sys

import pytest

COUNTING = """
import resource, sys
import torch
from pefts.step_loader import step_data

class Steps(torch.utils.data.Dataset):
    def __getitem__(self, step):
        return [torch.full((2,), step) for _ in range(150)]

resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[1])))
# Kept, as a step's tensors are while it is trained on and the next ones wait behind it.
print(sum(int(tensor[0]) for tensors in list(step_data(Steps(), range(8), num_workers=1)) for tensor in tensors))
"""


@pytest.mark.parametrize("hard_limit", [200, 8192], ids=["the system grants no more", "the system grants more"])
def test_steps_of_many_tensors_arrive_under_a_low_limit_of_open_files(hard_limit):
    command = [sys.executable, "-c", COUNTING, str(hard_limit)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 150 * sum(range(8))
