"""Ablations by one command: variants of a training, several seeds each, trained, evaluated and put into one table.

    python benchmarks/ablations.py --config configs/ablations.json --output_dir outputs/ablations \\
        [--variants base,no_understanding] [--seeds 0,1,2] [--num_steps 200]

The config names a training, an evaluation and the variants as overrides of them (docs/recipe.md). Each run is made by
train_accelerate.py and eval.py in a folder of its own, OUTPUT_DIR/runs/VARIANT/seed-N. Started again, the command goes
on where it was interrupted. The table, ablations.md and ablations.json, is written anew after each run. A run that
fails is reported and left out; the others go on.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from benchmarks.ablation_table import ablation_text, collect_figures, summarise_runs
from benchmarks.config_overrides import apply_overrides, shorten
from dataset.store import MANIFEST_NAME, ChunkStore
from pefts.checkpoints import STATE_FILE
from pefts.e2llm_args import TrainConfig
from pefts.eval_args import EvalConfig
from utils.common_utils import UserError, atomic_write_text, closest, read_json, run_cli, sha256_file
from utils.config_parsing import parse_config

ROOT = Path(__file__).resolve().parents[1]
SPEC_KEYS = ("train_config", "eval_config", "num_steps", "inputs", "kind", "train", "eval", "variants")
VARIANT_KEYS = ("what", "train", "eval")
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Store:
    """A store that runs read, and the JSONL file that it can be made of."""

    path: Path
    source: str | None
    chunk_size: int
    chunk_overlap: int
    is_own: bool
    """Whether it is the sweep's, for variants, and so made anew when its source changes; else it is left alone."""

    @property
    def is_missing(self) -> bool:
        """Whether it has to be made, for the first time or of another content of its source."""
        if not (self.path / MANIFEST_NAME).is_file():
            return True
        if not self.is_own or self.source is None or not Path(self.source).is_file():
            return False
        return not self._digest_path.is_file() or self._digest_path.read_text() != sha256_file(Path(self.source))

    def make(self, log: Path) -> None:
        """Chunk the source."""
        chunking = ["--chunk_size", str(self.chunk_size), "--chunk_overlap", str(self.chunk_overlap)]
        arguments = ["--input", self.source, "--output_dir", str(self.path), *chunking]
        arguments += ["--overwrite"] if self.is_own else []
        digest = sha256_file(Path(self.source))
        run_script(["preprocess/preshuffle_data_and_chunk.py", *arguments], log, lambda: None)
        if self.is_own:
            atomic_write_text(self._digest_path, digest)

    @property
    def _digest_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.source-sha256")


@dataclass(frozen=True)
class Run:
    """One training with its evaluation."""

    variant: str
    seed: int
    folder: Path
    train: dict
    eval: dict
    stores: tuple[Path, ...]
    """What it reads, in training and evaluation."""

    @property
    def name(self) -> str:
        return f"{self.variant} seed {self.seed}"

    @property
    def is_begun(self) -> bool:
        """Whether a checkpoint is there, from which the training would go on, or the scores of a finished run."""
        return (self.folder / "checkpoints/latest").exists() or self.is_done

    @property
    def is_trained(self) -> bool:
        """Whether the last step is saved, and its validation was not cut off."""
        latest = (self.folder / "checkpoints/latest").resolve()
        is_last = latest.name == f"step-{self.train['num_steps']:06d}"
        return is_last and not read_json(latest / STATE_FILE).get("validation_is_due", False)

    @property
    def is_done(self) -> bool:
        return (self.folder / "eval/metrics.json").is_file()

    def check_data(self, fingerprints: Mapping[Path, str]) -> None:
        """Compare the stores with those that the run was begun with, or note them if it has not begun.

        Raises:
            UserError: a store has another content now, so that the run would not compare with new ones.
        """
        path = self.folder / "stores.json"
        known = read_json(path) if self.is_begun and path.is_file() else {}
        if self.is_begun and not known:
            print(f"warning: {path}: missing, so it is not known what data this run has read", file=sys.stderr)
        for store in self.stores:
            if known.get(str(store), fingerprints[store]) != fingerprints[store]:
                raise UserError(
                    f"{path}: this run was begun with another content of {store}; remove {self.folder} or choose "
                    "another --output_dir"
                )
        content = {str(store): fingerprints[store] for store in self.stores}
        atomic_write_text(path, json.dumps(content, indent=2) + "\n")

    @property
    def step(self) -> int:
        """The last step in the log of the training."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            return max((json.loads(line)["step"] for line in lines), default=0)
        except (OSError, json.JSONDecodeError):  # not begun, or in the middle of a line
            return 0


class Sweep:
    """The runs of some variants and seeds, planned and checked before the first begins.

    Args:
        spec: content of the config file.
        num_steps: steps of each training; None: as the spec or the base training has it.

    Raises:
        UserError: an unknown variant or key, an impossible value, or a run that was begun with other options.
    """

    def __init__(
        self,
        spec: dict,
        source: str,
        output_dir: Path,
        variants: Sequence[str],
        seeds: Sequence[int],
        num_steps: int | None,
    ):
        _check_spec(spec, source)
        self.spec = spec
        self.output_dir = output_dir
        self.descriptions = {name: variant["what"] for name, variant in spec["variants"].items()}
        for name in variants:
            if name not in self.descriptions:
                raise UserError(f"--variants: no {name!r} in {source}.{closest(name, self.descriptions)}")
        train = apply_overrides(read_json(Path(spec["train_config"])), spec.get("train", {}), f"{source}: train")
        num_steps = num_steps or spec.get("num_steps") or train["num_steps"]
        self.base_train = shorten(train, num_steps)
        self.base_eval = apply_overrides(read_json(Path(spec["eval_config"])), spec.get("eval", {}), f"{source}: eval")
        self.stores: dict[Path, Store] = {}
        self.runs = [self._plan(name, seed, source) for name in variants or self.descriptions for seed in seeds]
        self._check_stores(source)

    def _plan(self, variant: str, seed: int, source: str) -> Run:
        """Return a run whose configs have been read as the scripts will read them."""
        folder = self.output_dir / "runs" / variant / f"seed-{seed}"
        place, options = f"{source}: variants.{variant}", self.spec["variants"][variant]
        train = apply_overrides(self.base_train, options.get("train", {}), f"{place}.train")
        evaluation = apply_overrides(self.base_eval, options.get("eval", {}), f"{place}.eval")
        train |= {"output_dir": str(folder), "seed": seed}
        evaluation |= {"output_dir": str(folder / "eval"), "checkpoint": str(folder / "checkpoints/latest")}
        stores = self._point_to_stores(train, evaluation)
        run = Run(variant, seed, folder, train, evaluation, stores)
        for name, config, config_class in (("train", train, TrainConfig), ("eval", evaluation, EvalConfig)):
            path = folder / f"{name}_config.json"
            text = json.dumps(config, indent=2) + "\n"
            if run.is_begun and path.read_text(encoding="utf-8") != text:
                raise UserError(
                    f"{path}: this run was begun with other options; remove {folder} or choose another --output_dir"
                )
            atomic_write_text(path, text)
            parse_config(config_class, ["--config", str(path)])
        return run

    def _point_to_stores(self, train: dict, evaluation: dict) -> tuple[Path, ...]:
        """Let a run of another chunking than the base's read stores of its own; returns the stores it reads."""
        chunking, base_chunking = _chunking(train), _chunking(self.base_train)
        stores: dict[Path, None] = {}
        for options, key in (
            (train["data"], "train"),
            (train["data"], "validation"),
            *((task, "data") for task in evaluation["tasks"]),
            (evaluation.get("reconstruction", {}), "data"),
        ):
            if key in options:
                paths = [self._store(path, chunking, chunking == base_chunking).path for path in options[key]]
                options[key] = [str(path) for path in paths]
                stores |= dict.fromkeys(paths)
        return tuple(stores)

    def _store(self, base_path: str, chunking: tuple[int, int], is_base: bool) -> Store:
        folder = self.output_dir / "stores" / f"chunk-{chunking[0]}-overlap-{chunking[1]}"
        path = Path(base_path) if is_base else folder / base_path.strip("/").replace("/", "-")
        source = self.spec.get("inputs", {}).get(base_path)
        return self.stores.setdefault(path, Store(path, source, *chunking, is_own=not is_base))

    def _check_stores(self, source: str) -> None:
        for store in self.stores.values():
            if (store.path / MANIFEST_NAME).is_file():
                continue
            if store.source is None:
                raise UserError(
                    f"{store.path}: no store there; make it, or name the file it is made of in {source}: inputs"
                )
            if not Path(store.source).is_file():
                raise UserError(f"{source}: inputs: {store.source}: no such file (`make demo` makes the demo's data)")

    def make_stores(self) -> None:
        """Chunk the inputs of stores that are not there yet, and check that begun runs have read what is there now.

        Raises:
            UserError: a store cannot be made, or a run has read another content of one.
        """
        missing = [store for store in self.stores.values() if store.is_missing]
        for store in tqdm(missing, "chunking", unit="store", disable=not missing):
            store.make(self.output_dir / "stores.log")
        fingerprints = {path: ChunkStore([path]).fingerprint for path in self.stores}
        for run in self.runs:
            run.check_data(fingerprints)

    def run(self, command: str) -> dict[str, str]:
        """Make every run that is not there yet, and the table after each; returns what failed, by name of the run."""
        failures = {}
        total = sum(run.train["num_steps"] for run in self.runs)
        with tqdm(total=total, unit="step", dynamic_ncols=True) as progress:
            for index, run in enumerate(self.runs, start=1):
                title = f"[{index}/{len(self.runs)}] {run.name}"
                before = (index - 1) * run.train["num_steps"]
                try:
                    _make(run, lambda stage, of=run, t=title, b=before: _show(progress, f"{t}: {stage}", b + of.step))
                except UserError as error:
                    failures[run.name] = str(error)
                    progress.write(f"{run.name} failed: {error}")
                _show(progress, title, before + run.train["num_steps"])
                self.write_table(command)
        return failures

    def write_table(self, command: str) -> str:
        """Write ablations.json and ablations.md of the runs that are done; returns the latter's text."""
        runs: dict[str, dict] = {}
        for run in self.runs:
            of_variant = runs.setdefault(run.variant, {})
            if run.is_done:
                of_variant[run.seed] = collect_figures(run.folder, self.spec.get("kind"))
        summary = summarise_runs(runs)
        document = {"command": command, "variants": self.spec["variants"], "summary": summary, "runs": runs}
        atomic_write_text(self.output_dir / "ablations.json", json.dumps(document, indent=2) + "\n")
        text = ablation_text(summary, self.descriptions, command)
        atomic_write_text(self.output_dir / "ablations.md", text)
        return text


def _check_spec(spec: dict, source: str) -> None:
    for content, known, place in (
        (spec, SPEC_KEYS, ""),
        *((variant, VARIANT_KEYS, f"variants.{name}.") for name, variant in spec.get("variants", {}).items()),
    ):
        for key in content:
            if key not in known:
                raise UserError(f"{source}: unknown key {place}{key}.{closest(key, known)}")
    missing = [key for key in ("train_config", "eval_config", "variants") if not spec.get(key)]
    missing += [f"variants.{name}.what" for name, variant in spec.get("variants", {}).items() if "what" not in variant]
    if missing:
        raise UserError(f"{source}: lacks {', '.join(missing)}")


def _chunking(train: Mapping) -> tuple[int, int]:
    return train["model"].get("chunk_size", 512), train["model"].get("chunk_overlap", 0)


def _make(run: Run, show: Callable[[str], None]) -> None:
    """Train and evaluate what of a run is not done yet; both scripts continue what they had begun."""
    if run.is_done:
        return
    for script, name, done in (("train_accelerate.py", "train", run.is_trained), ("eval.py", "eval", False)):
        if not done:
            arguments = [script, "--config", str(run.folder / f"{name}_config.json")]
            run_script(arguments, run.folder / f"{name}.out", lambda stage=name: show(stage))


def run_script(arguments: Sequence[str], log: Path, while_waiting: Callable[[], None]) -> None:
    """Run a script of this project, what it prints going to the end of a file; it does not outlive this process.

    It gets one SIGTERM where this process is interrupted, and none of the terminal's own signals: a training takes a
    second signal for an order to stop without saving.

    Raises:
        UserError: it failed; the message has its last line and names the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / arguments[0]), *arguments[1:]],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                while_waiting()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it printed nothing"
        raise UserError(f"{arguments[0]} ended with code {process.returncode}: {last} (all of it: {log})")


def _show(progress: tqdm, description: str, step: int) -> None:
    progress.set_description(description, refresh=False)
    progress.update(max(0, step - progress.n))
    progress.refresh()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/ablations.json"), help="the variants")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/ablations"), help="runs, stores and the table")
    parser.add_argument("--variants", type=_names, default=[], help="comma-separated; default: all of the config")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="comma-separated; default: 0,1,2")
    parser.add_argument("--num_steps", type=_positive, help="steps of each training; the curriculum shrinks with it")
    options = parser.parse_args()
    # As Ctrl-C: what is running is ended, and the next start goes on from there.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    spec = read_json(options.config)
    sweep = Sweep(spec, str(options.config), options.output_dir, options.variants, options.seeds, options.num_steps)
    sweep.make_stores()
    command = shlex.join(["python", "benchmarks/ablations.py", *sys.argv[1:]])
    failures = sweep.run(command)
    print(sweep.write_table(command))
    if failures:
        listed = "\n".join(f"  {name}: {message}" for name, message in failures.items())
        raise UserError(f"{len(failures)} of {len(sweep.runs)} runs failed and are left out:\n{listed}")
    return 0


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _numbers(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


if __name__ == "__main__":
    run_cli(main)
