#!/bin/sh
# Train on several machines; run it on each of them with the same arguments.
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 sh train_multi_node.sh --config configs/train_config.json
# Environment: NNODES, NODE_RANK (0 to NNODES - 1), MASTER_ADDR and MASTER_PORT of the machine with rank 0;
# PROCESSES_PER_NODE (default: the number of GPUs, or 1), PYTHON.
set -eu
cd "$(dirname "$0")"
for name in NNODES NODE_RANK MASTER_ADDR MASTER_PORT; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then
        echo "error: $name is not set; see the head of $0" >&2
        exit 2
    fi
done
case $NNODES$NODE_RANK$MASTER_PORT in
    *[!0-9]*) echo "error: NNODES=$NNODES NODE_RANK=$NODE_RANK MASTER_PORT=$MASTER_PORT: must be whole numbers" >&2; exit 2 ;;
esac
if [ "$NODE_RANK" -ge "$NNODES" ]; then
    echo "error: NODE_RANK=$NODE_RANK: must be below NNODES=$NNODES" >&2
    exit 2
fi
if [ "$MASTER_PORT" -lt 1 ] || [ "$MASTER_PORT" -gt 65535 ]; then
    echo "error: MASTER_PORT=$MASTER_PORT: must lie between 1 and 65535" >&2
    exit 2
fi
. local/environment.sh

exec "$PYTHON" -m accelerate.commands.launch --multi_gpu --num_machines "$NNODES" --machine_rank "$NODE_RANK" \
    --num_processes $((NNODES * PROCESSES_PER_NODE)) --main_process_ip "$MASTER_ADDR" \
    --main_process_port "$MASTER_PORT" --rdzv_backend static --mixed_precision no --dynamo_backend no \
    train_accelerate.py "$@"
