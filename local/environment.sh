# Sourced by the launch scripts: which Python, how many processes and threads.

if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
NUM_GPUS=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())') || {
    echo "error: $PYTHON cannot import torch; run 'make setup' or set PYTHON" >&2
    exit 2
}
if [ "$NUM_GPUS" -gt 0 ]; then default_processes=$NUM_GPUS; else default_processes=1; fi
PROCESSES_PER_NODE=${PROCESSES_PER_NODE:-$default_processes}
case $PROCESSES_PER_NODE in
    '' | *[!0-9]* | 0) echo "error: PROCESSES_PER_NODE=$PROCESSES_PER_NODE: must be a number of at least 1" >&2; exit 2 ;;
esac
if [ "$NUM_GPUS" -gt 0 ] && [ "$PROCESSES_PER_NODE" -gt "$NUM_GPUS" ]; then
    echo "error: PROCESSES_PER_NODE=$PROCESSES_PER_NODE: this machine has $NUM_GPUS GPUs" >&2
    exit 2
fi
if [ "$NUM_GPUS" -eq 0 ]; then
    export ACCELERATE_USE_CPU=true
    # Processes that share cores must share threads too, or they slow each other down many times over.
    cores=$(getconf _NPROCESSORS_ONLN)
    threads=$((cores / PROCESSES_PER_NODE))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
    # Waiting threads sleep instead of spinning: where anything else runs, spinning makes a step several times longer.
    export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
    # Keep freed memory instead of returning it: a step allocates the same large tensors again and again, and taking
    # them from the kernel anew each time costs about a tenth of a step (glibc only; elsewhere without effect).
    export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}"
    export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
fi
