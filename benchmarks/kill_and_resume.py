"""Kill a training of two processes again and again, continue it, and compare it with the same training left alone.

    python benchmarks/kill_and_resume.py --kills 20 --work_dir /tmp/kills

Every kill is a SIGKILL: of all its processes at once (as a power cut), or of a single training process, in turn.
Moments are drawn at random from the writing of a checkpoint (every second kill) or from the first three seconds
of training. The tiny models and data are those of the tests. Ends with exit code 1 if the weights, or the optimizer's
state, differ in a single bit.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import save_backbones
from tests.launches import Launch, all_gone
from tests.pefts.conftest import results, town_records, train_options, write_store

WINDOW_SECONDS = 3


def main() -> int:
    """Run both trainings and compare."""
    options = parse_options()
    rng = random.Random(options.seed)
    config = make_config(options.work_dir, options.num_steps)
    print("the run left alone", flush=True)
    end_well(start(config, options, "alone"))
    tally = {"everything": 0, "one process": 0, "while a checkpoint was being written": 0, "partial folders left": 0}
    run = options.work_dir / "killed"
    for index in range(options.kills):
        launch = start(config, options, "killed")
        if not wait_for_moment(launch, run, rng, at_checkpoint=index % 2 == 0):
            print(f"kill {index + 1}: the run ended before it; start over with more --num_steps")
            return 1
        family = launch.family()
        # Seen before the kill: a folder under its temporary name is a checkpoint being written.
        tally["while a checkpoint was being written"] += bool(partial_folders(run))
        if index % 4 < 2:
            tally["everything"] += 1
            victims = family
        else:
            tally["one process"] += 1
            victims = [rng.choice(launch.ranks() or family)]
        for process in victims:
            process.kill()
        launch.wait()
        if not all_gone(family):
            print(f"kill {index + 1}: processes are left: {family}")
            return 1
        tally["partial folders left"] += bool(partial_folders(run))
        print(f"kill {index + 1} of {options.kills}: {newest_step(run)} of {options.num_steps} steps saved", flush=True)
    end_well(start(config, options, "killed"))
    alone, killed = (results(options.work_dir / name / "checkpoints/latest") for name in ("alone", "killed"))
    differing = [name for name in alone if alone[name] != killed[name]]
    print(f"kills: {options.kills} ({', '.join(f'{key}: {count}' for key, count in tally.items())})")
    print(f"differing files: {differing or 'none'} of {len(alone)}")
    return 1 if differing else 0


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="empty or new folder for models, data and runs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--num_steps", type=int, default=300, help="steps of the run; it must outlast the kills")
    parser.add_argument("--engine", default="ddp", help="launch file in local/, without its ending")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    if any(options.work_dir.iterdir()):
        parser.error(f"--work_dir {options.work_dir}: not empty")
    return options


def make_config(folder: Path, num_steps: int) -> Path:
    """Write tiny models, data and a config with dropout and a checkpoint every third step; returns its path."""
    stores = write_store(folder / "train", town_records()), write_store(folder / "validation", town_records(8, seed=2))
    content = train_options(folder / "unused", save_backbones(folder), *stores)
    content |= {"num_steps": num_steps, "timeout_seconds": 60}
    content["checkpoint"] = {"save_every": 3, "validate_every": num_steps}
    path = folder / "config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def start(config: Path, options: argparse.Namespace, name: str) -> Launch:
    """Start, or continue, a run of two processes."""
    return Launch(config, "--output_dir", str(options.work_dir / name), engine=options.engine)


def end_well(launch: Launch) -> None:
    """Wait for a run to come to its end."""
    if launch.wait() != 0:
        sys.exit(f"error: a run that was left alone failed:\n{launch.text}")


def wait_for_moment(launch: Launch, run: Path, rng: random.Random, at_checkpoint: bool) -> bool:
    """Wait for the moment of a kill; false if the run ends before."""
    before = newest_step(run)
    log_size = len(launch.text)
    while "trained:" not in launch.text[log_size:] and launch.process.poll() is None:
        time.sleep(0.02)
    if not at_checkpoint:
        time.sleep(rng.uniform(0, WINDOW_SECONDS))
        return launch.process.poll() is None
    while launch.process.poll() is None:
        if partial_folders(run):
            time.sleep(rng.uniform(0, 0.02))
            return launch.process.poll() is None
        if newest_step(run) > before + 3:  # three checkpoints went by unseen: any moment will do
            return True
        time.sleep(0.002)
    return False


def partial_folders(run: Path) -> list[Path]:
    """Return the checkpoints under their temporary names."""
    return list((run / "checkpoints").glob(".step-*.partial"))


def newest_step(run: Path) -> int:
    """Return the step of the newest checkpoint, 0 without one."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


if __name__ == "__main__":
    sys.exit(main())
