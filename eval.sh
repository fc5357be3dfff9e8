#!/bin/sh
# Evaluate a checkpoint and write the report: on all GPUs of this machine, or the processor.
#   sh eval.sh [--config configs/eval_config.json] [--key value ...]
# Environment: PROCESSES_PER_NODE (default: the number of GPUs, or 1), PYTHON.
set -eu
cd "$(dirname "$0")"

for argument in "$@"; do
    case $argument in
        --accelerate_config*)
            echo "error: $argument: chooses the engine of a training, and an evaluation has none; leave it out" >&2
            exit 2
            ;;
    esac
done
. local/environment.sh

if [ "$PROCESSES_PER_NODE" -eq 1 ]; then
    exec "$PYTHON" eval.py "$@"
fi
exec "$PYTHON" -m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes "$PROCESSES_PER_NODE" \
    --main_process_port 0 --mixed_precision no --dynamo_backend no eval.py "$@"
