#!/bin/sh
# Train on several machines; run it once on each of them with the same arguments.
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 sh train_multi_node.sh --config configs/train_config.json
# Environment: NNODES, NODE_RANK (0 to NNODES - 1), MASTER_ADDR and MASTER_PORT of the machine with rank 0;
# PROCESSES_PER_NODE (default: the number of GPUs, or 1), LAUNCH_CONFIG (the engine; default: local/ds_config_zero2.yaml),
# PYTHON. Under Slurm (local/train.sbatch) and where torchrun's names are set (GROUP_WORLD_SIZE, GROUP_RANK,
# LOCAL_WORLD_SIZE; PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE) they are derived.
set -eu
cd "$(dirname "$0")"

if [ -n "${SLURM_JOB_ID:-}" ] && [ -n "${SLURM_NODEID:-}" ]; then
    NNODES=${NNODES:-${SLURM_NNODES:-}}
    NODE_RANK=${NODE_RANK:-$SLURM_NODEID}
    if [ -z "${MASTER_ADDR:-}" ]; then
        MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" 2>/dev/null | head -n 1)
    fi
    # The same on all machines of a job, and another for the next job.
    MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
fi
NNODES=${NNODES:-${GROUP_WORLD_SIZE:-${PET_NNODES:-}}}
NODE_RANK=${NODE_RANK:-${GROUP_RANK:-${PET_NODE_RANK:-}}}
MASTER_ADDR=${MASTER_ADDR:-${PET_MASTER_ADDR:-}}
MASTER_PORT=${MASTER_PORT:-${PET_MASTER_PORT:-}}
if [ -z "${PROCESSES_PER_NODE:-}" ]; then PROCESSES_PER_NODE=${LOCAL_WORLD_SIZE:-${PET_NPROC_PER_NODE:-}}; fi
LAUNCH_CONFIG=${LAUNCH_CONFIG:-local/ds_config_zero2.yaml}
. local/environment.sh
keep_freed_memory

for name in NNODES NODE_RANK MASTER_ADDR MASTER_PORT; do
    eval "value=\${$name:-}"
    [ -n "$value" ] || fail "$name is not set; see the head of $0"
done
check_number NNODES 1
check_number NODE_RANK 0
check_number MASTER_PORT 1 65535
[ "$NODE_RANK" -lt "$NNODES" ] || fail "NODE_RANK=$NODE_RANK: must be below NNODES=$NNODES"
"$PYTHON" -c 'import socket, sys; socket.getaddrinfo(sys.argv[1], None)' "$MASTER_ADDR" 2>/dev/null ||
    fail "MASTER_ADDR=$MASTER_ADDR: no such host; give the address of the machine with NODE_RANK=0"
if [ "$NODE_RANK" -eq 0 ]; then
    "$PYTHON" -c 'import socket, sys; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", int(sys.argv[1])))' \
        "$MASTER_PORT" 2>/dev/null || fail "MASTER_PORT=$MASTER_PORT: in use on this machine; choose another on all machines"
fi
# These would reach the processes as well, and belong to another launcher.
unset GROUP_WORLD_SIZE GROUP_RANK LOCAL_WORLD_SIZE WORLD_SIZE RANK LOCAL_RANK
launch "$NNODES" "$NODE_RANK" "$MASTER_ADDR" "$MASTER_PORT" "$@"
