#!/bin/sh
# Train on this machine: all its GPUs, or the processor.
#   sh train_local_machine.sh [--accelerate_config local/ds_config_zero2.yaml] --config configs/train_config.json [--group.key value ...]
# Environment: PROCESSES_PER_NODE (default: the number of GPUs, or 1), LAUNCH_CONFIG (the engine, as --accelerate_config;
# default: DDP), MASTER_PORT (default: a free one), PYTHON.
set -eu
cd "$(dirname "$0")"
. local/environment.sh
keep_freed_memory

if [ "$PROCESSES_PER_NODE" -eq 1 ] && [ "$engine" = MULTI_GPU ]; then
    exec "$PYTHON" train_accelerate.py "$@"
fi
if [ -n "${MASTER_PORT:-}" ]; then check_number MASTER_PORT 1 65535; fi
launch 1 0 127.0.0.1 "${MASTER_PORT:-0}" "$@"
