"""Steps prepared by background processes, under the limits of the system."""

import subprocess
import sys

COUNTING = """
import resource, time
import torch
from pefts.step_loader import step_data

class Steps(torch.utils.data.Dataset):
    def __getitem__(self, step):
        time.sleep(2 * (step == 0))  # so that the others wait behind it
        return [torch.full((2,), step) for _ in range(300)]

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
print(sum(int(tensor[0]) for tensors in step_data(Steps(), range(9), num_workers=2) for tensor in tensors))
"""


def test_steps_of_many_tensors_arrive_under_a_low_limit_of_open_files():
    result = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 300 * sum(range(9))
