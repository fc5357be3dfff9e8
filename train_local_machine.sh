#!/bin/sh
# Train on this machine: all its GPUs, or the processor.
#   sh train_local_machine.sh [--config configs/train_config.json] [--group.key value ...]
# Environment: PROCESSES_PER_NODE (default: the number of GPUs, or 1), PYTHON.
set -eu
cd "$(dirname "$0")"
. local/environment.sh

if [ "$PROCESSES_PER_NODE" -eq 1 ]; then
    exec "$PYTHON" train_accelerate.py "$@"
fi
exec "$PYTHON" -m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes "$PROCESSES_PER_NODE" \
    --mixed_precision no --dynamo_backend no train_accelerate.py "$@"
