"""Generate RULER's 13 tasks (arXiv 2404.06654) to the token length of a tokenizer: JSONL for the chunking step.

    python preprocess/generate_ruler.py --output_dir data/ruler --tokenizer MODEL --lengths 4k,8k,128k --num_samples 50

A file a length, `ruler_4096.jsonl`, byte-identical for the same options whatever --num_proc. Essays and documents that
are not given (--essays, --squad, --hotpotqa) are generated, and the records say so. `docs/needle_and_ruler.md`
describes the tasks and where they differ from the official generator's, whose files convert_ruler.py reads.
"""

import argparse
import functools
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from preprocess.haystacks import read_texts
from preprocess.parallel import ordered_map
from preprocess.random_keys import BUILT_IN_WORDS, read_word_lists
from preprocess.ruler_essays import Essay, prose_words, text_words
from preprocess.ruler_questions import GeneratedQuestions, read_hotpotqa, read_squad
from preprocess.ruler_tasks import Materials, draft_sample
from preprocess.ruler_templates import NIAH_SETTINGS, TASKS, RulerSample, check_task
from preprocess.text_length import DoesNotFit, TokenCount, fit_largest, no_repeats, parse_length
from preprocess.writing import add_overwrite, check_new, writing
from utils.common_utils import UserError, atomic_write_lines, run_cli
from utils.pretrained import load_tokenizer


@dataclass(frozen=True)
class Sources:
    """What samples are made of, as options name it."""

    tokenizer: str
    essays: tuple[Path, ...] = ()
    squad: Path | None = None
    hotpotqa: Path | None = None
    words: str | None = None
    seed: int = 0


class Job(NamedTuple):
    """One sample to make."""

    task: str
    length: int
    index: int


@functools.lru_cache(maxsize=1)
def open_materials(sources: Sources) -> Materials:
    """Load what the samples are made of, once in each process."""
    measure = TokenCount(load_tokenizer(sources.tokenizer, "--tokenizer"))
    if sources.essays:
        blocks = functools.partial(text_words, read_texts(sources.essays, "--essays"))
    else:
        blocks = functools.partial(prose_words, sources.seed)
    return Materials(
        measure=measure,
        words=read_word_lists(sources.words) if sources.words else BUILT_IN_WORDS,
        essay=Essay(blocks, measure),
        questions={
            "qa_1": read_squad(sources.squad) if sources.squad else GeneratedQuestions(1, sources.seed),
            "qa_2": read_hotpotqa(sources.hotpotqa) if sources.hotpotqa else GeneratedQuestions(2, sources.seed),
        },
    )


def make_record(sources: Sources, job: Job) -> dict:
    """Make the largest sample that stays within the length, with room for the answer.

    Raises:
        UserError: the smallest sample is longer.
    """
    materials = open_materials(sources)
    reserved = TASKS[job.task].tokens_to_generate
    seed = f"{sources.seed}:ruler:{job.task}:{job.length}:{job.index}"
    draft = draft_sample(job.task, materials, job.length, seed, job.index)
    try:
        fit = fit_largest(
            draft.build,
            lambda sample: materials.measure(sample.input),
            draft.costs,
            job.length - reserved,
            draft.smallest,
        )
    except DoesNotFit as error:
        raise UserError(
            f"--lengths: {job.length:,} tokens are too few for sample {job.index} of {job.task}: its smallest haystack "
            f"takes {error.length:,} tokens with the question, and the answer {reserved}; ask for "
            f"{error.length + reserved:,} or more, or leave {job.task} out with --tasks"
        ) from None
    return _record(job, fit.built, fit.length + reserved, _source(sources, job.task))


def _source(sources: Sources, task: str) -> str:
    """Name where the haystack of a task comes from: the user's files, or a generator."""
    given = {"qa_1": ("squad", sources.squad), "qa_2": ("hotpotqa", sources.hotpotqa)}
    if task in given:
        name, path = given[task]
        return name if path else "generated"
    if task in NIAH_SETTINGS and NIAH_SETTINGS[task].haystack == "essay":
        return "essays" if sources.essays else "generated"
    return "recipe"


def _record(job: Job, sample: RulerSample, num_tokens: int, source: str) -> dict:
    return {
        "id": f"{job.task}-{job.length}-{job.index}",
        "task": "ruler",
        "context": sample.context,
        "prompt": sample.prompt,
        "answer": list(sample.answers),
        "meta": {
            "kind": job.task,
            "ruler_task": job.task,
            "length": job.length,
            "num_tokens": num_tokens,
            "source": source,
            "instruction": sample.instruction,
            "gap": sample.gap,
        },
    }


def parse_tasks(text: str) -> list[str]:
    """Read task names separated by commas; `all` is all 13."""
    tasks = list(TASKS) if text == "all" else [item.strip() for item in text.split(",")]
    for task in tasks:
        check_task(task, "--tasks")
    return no_repeats(tasks, "--tasks")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="folder for a file a length")
    add("--tokenizer", required=True, help="counts the tokens: hub id, folder or package: reference")
    add("--lengths", required=True, help="tokens of prompt and answer together: 4k,8k,128k,1m (k = 1,024)")
    add("--tasks", default="all", help="separated by commas")
    add("--num_samples", type=int, default=500, help="for each task and length; the official number is 500")
    add("--essays", type=Path, nargs="+", default=[], metavar="PATH", help="text files or folders of essays")
    add("--squad", type=Path, metavar="JSON", help="SQuAD release file, for qa_1 (official: dev-v2.0.json)")
    add("--hotpotqa", type=Path, metavar="JSON", help="for qa_2 (official: hotpot_dev_distractor_v1.json)")
    add("--words", metavar="FOLDER", help="word lists (official: package:wonderwords/assets; default: built-in ones)")
    add("--seed", type=int, default=0, help="another seed gives other samples")
    add("--num_proc", type=int, default=1, help="worker processes")
    add_overwrite(parser)
    return parser.parse_args(arguments)


def path_of(length: int, output_dir: Path) -> Path:
    """Return the file of a length."""
    return output_dir / f"ruler_{length}.jsonl"


def write_length(length: int, args: argparse.Namespace, tasks: list[str], sources: Sources) -> None:
    """Write the file of one length and print, by task, how much of the length its samples use."""
    jobs = [Job(task, length, index) for task in tasks for index in range(args.num_samples)]
    path = path_of(length, args.output_dir)
    used: dict[str, list[int]] = defaultdict(list)

    def lines(records: Iterator[dict]) -> Iterator[str]:
        for record in tqdm(records, total=len(jobs), desc=f"{length:,} tokens", disable=None):
            used[record["meta"]["ruler_task"]].append(record["meta"]["num_tokens"])
            yield json.dumps(record, ensure_ascii=False) + "\n"

    with ordered_map(args.num_proc) as run:
        atomic_write_lines(path, lines(run(functools.partial(make_record, sources), jobs)))
    print(f"{path}: {len(jobs):,} samples, {min(map(min, used.values())):,} to {max(map(max, used.values())):,} tokens")
    for task, tokens in used.items():
        if min(tokens) < 0.95 * length:
            short = sum(count < 0.95 * length for count in tokens)
            print(
                f"warning: {task}: {short} of {len(tokens)} samples have less than 95 % of {length:,} tokens (the "
                f"shortest {min(tokens):,}); its haystack has no more, or its units are large for this length",
                file=sys.stderr,
            )


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    tasks = parse_tasks(args.tasks)
    lengths = no_repeats([parse_length(item, "--lengths") for item in args.lengths.split(",")], "--lengths")
    check_new([path_of(length, args.output_dir) for length in lengths], args.overwrite)
    for option in ("num_samples", "num_proc"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option}={getattr(args, option)}: it must be at least 1")
    sources = Sources(args.tokenizer, tuple(args.essays), args.squad, args.hotpotqa, args.words, args.seed)
    open_materials(sources)
    generated = [task for task in tasks if _source(sources, task) == "generated"]
    if generated:
        print(f"note: the haystack or the questions of {', '.join(generated)} are generated, not the official ones")
    with writing(args.output_dir, "--output_dir"):
        for length in lengths:
            write_length(length, args, tasks, sources)


if __name__ == "__main__":
    run_cli(main)
