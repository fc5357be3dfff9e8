# Sourced by the launch scripts: which Python, how many processes and threads, which engine.

fail() {
    echo "error: $*" >&2
    exit 2
}

# check_number NAME LOWEST [HIGHEST]: the variable holds a whole number within these.
check_number() {
    eval "value=\${$1:-}"
    case $value in
        '' | *[!0-9]*) fail "$1=$value: must be a whole number" ;;
    esac
    [ "$value" -ge "$2" ] || fail "$1=$value: must be at least $2"
    [ -z "${3:-}" ] || [ "$value" -le "$3" ] || fail "$1=$value: must be at most $3"
}

if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
NUM_GPUS=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())') ||
    fail "$PYTHON cannot import torch; run 'make setup' or set PYTHON"
if [ "$NUM_GPUS" -gt 0 ]; then default_processes=$NUM_GPUS; else default_processes=1; fi
PROCESSES_PER_NODE=${PROCESSES_PER_NODE:-$default_processes}
check_number PROCESSES_PER_NODE 1
if [ "$NUM_GPUS" -gt 0 ] && [ "$PROCESSES_PER_NODE" -gt "$NUM_GPUS" ]; then
    fail "PROCESSES_PER_NODE=$PROCESSES_PER_NODE: this machine has $NUM_GPUS GPUs"
fi

# The engine: a file of accelerate, from the variable or from --accelerate_config FILE before the script's own options.
if [ "${1:-}" = "--accelerate_config" ]; then
    [ $# -ge 2 ] || fail "--accelerate_config: name a file, e.g. local/ds_config_zero2.yaml"
    LAUNCH_CONFIG=$2
    shift 2
fi
for argument in "$@"; do
    case $argument in
        --accelerate_config | --accelerate_config=*)
            fail "$argument: goes first, before the script's own options: --accelerate_config local/ddp.yaml --config ..." ;;
    esac
done
LAUNCH_CONFIG=${LAUNCH_CONFIG:-}
if [ -n "$LAUNCH_CONFIG" ]; then
    [ -f "$LAUNCH_CONFIG" ] || fail "LAUNCH_CONFIG=$LAUNCH_CONFIG: no such file; the ones that come along: $(echo local/*.yaml)"
    engine=$(sed -n 's/^distributed_type: *//p' "$LAUNCH_CONFIG")
else
    LAUNCH_CONFIG=local/ddp.yaml
    engine=MULTI_GPU
fi

if [ "$NUM_GPUS" -eq 0 ]; then
    # DeepSpeed finds the processor by itself; told of it, accelerate would train with DDP instead.
    if [ "$engine" != DEEPSPEED ]; then export ACCELERATE_USE_CPU=true; else unset ACCELERATE_USE_CPU; fi
    export DS_ACCELERATOR=cpu
    # Processes that share cores must share threads too, or they slow each other down many times over.
    cores=$(getconf _NPROCESSORS_ONLN)
    threads=$((cores / PROCESSES_PER_NODE))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
    # Waiting threads sleep instead of spinning: where anything else runs, spinning makes a step several times longer.
    export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
fi

# keep_freed_memory: for a training on the processor, whose steps allocate the same large tensors again and again; taking
# them from the kernel anew each time costs about a tenth of a step (glibc only; elsewhere without effect).
keep_freed_memory() {
    [ "$NUM_GPUS" -eq 0 ] || return 0
    export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}"
    export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
}

# launch MACHINES RANK ADDRESS PORT ARGUMENTS...: start this machine's processes of a training.
launch() {
    machines=$1 rank=$2 address=$3 port=$4
    shift 4
    export E2LLM_NUM_PROCESSES=$((machines * PROCESSES_PER_NODE))
    # accelerate takes --multi_gpu for DDP, GPUs or not, and refuses it for a single process.
    if [ "$engine" = MULTI_GPU ] && [ "$E2LLM_NUM_PROCESSES" -gt 1 ]; then set -- --multi_gpu train_accelerate.py "$@"
    else set -- train_accelerate.py "$@"; fi
    exec "$PYTHON" local/launch.py --config_file "$LAUNCH_CONFIG" --num_machines "$machines" --machine_rank "$rank" \
        --num_processes "$E2LLM_NUM_PROCESSES" --main_process_ip "$address" --main_process_port "$port" \
        --rdzv_backend static "$@"
}
