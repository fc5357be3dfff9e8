#!/bin/sh
# Evaluate a checkpoint and write the report.
#   sh eval.sh [--config configs/eval_config.json] [--key value ...]
set -eu
cd "$(dirname "$0")"
. local/environment.sh

exec "$PYTHON" eval.py "$@"
