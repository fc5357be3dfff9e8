"""Convert a data set from its release's own files to JSONL: train.jsonl, validation.jsonl, test.jsonl.

    python preprocess/convert.py qmsum --input_dir QMSum/data/ALL --output_dir data/qmsum
    python preprocess/convert.py NAME --help

docs/data_sets.md tells what to download for each, and how it is converted.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.converters import govreport, longbench_v2, narrativeqa, qmsum, quality, table, triviaqa
from preprocess.converters.release import SPLITS, choose_splits, report, write_split
from preprocess.writing import add_overwrite, check_new, writing
from utils.common_utils import UserError, run_cli

CONVERTERS = {
    converter.name: converter
    for converter in (
        qmsum.CONVERTER,
        govreport.CONVERTER,
        quality.CONVERTER,
        narrativeqa.CONVERTER,
        triviaqa.CONVERTER,
        longbench_v2.CONVERTER,
        table.CONVERTER,
    )
}
"""The data sets by name. A further one is a module with its `Converter` and an entry here."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for converter in CONVERTERS.values():
        options = names.add_parser(
            converter.name, help=converter.summary, description=converter.summary, allow_abbrev=False
        )
        converter.add_options(options)
        options.add_argument("--output_dir", type=Path, required=True, help="folder for the JSONL files")
        add_overwrite(options)
        options.add_argument("--splits", help="comma-separated names of splits (default: all that are there)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"--output_dir={args.output_dir}: this is a file; name a folder")
    converter = CONVERTERS[args.name]
    with writing(args.output_dir, "--output_dir"):
        splits = list(choose_splits(converter.find_splits(args), args.splits, SPLITS, "the input"))
        check_new([args.output_dir / f"{split.name}.jsonl" for split in splits], args.overwrite)
        for split in splits:
            report(split, args.output_dir / f"{split.name}.jsonl", write_split(converter, split, args))


if __name__ == "__main__":
    run_cli(main)
