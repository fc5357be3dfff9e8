"""What a launch may ask for: every disagreement named, none passed over."""

import os
import signal
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from pefts import launch as launch_module
from pefts.agreement import AgreedError, raise_together
from pefts.engines import Engine, Fsdp2Engine, Zero3Engine, ZeroEngine
from pefts.launch import (
    Launch,
    check_launch,
    lost_contact,
    read_launch,
    run_launched,
    start_accelerator,
)
from utils.common_utils import UserError

DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2"}
FSDP = {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "engine", "name"),
    [
        ({}, Engine, "one process"),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}, Engine, "DDP"),
        (DEEPSPEED, ZeroEngine, "DeepSpeed ZeRO-2"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, ZeroEngine, "DeepSpeed ZeRO-1"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, Zero3Engine, "DeepSpeed ZeRO-3"),
        (
            DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            ZeroEngine,
            "DeepSpeed ZeRO-2 with optimizer offload",
        ),
        (FSDP | {"FSDP_VERSION": "2"}, Fsdp2Engine, "FSDP2"),
    ],
)
def test_the_engine_a_launch_asks_for(environment, engine, name):
    launch = read_launch(environment)
    assert (launch.engine, launch.name) == (engine, name)
    assert launch.num_processes == int(environment.get("WORLD_SIZE", 1))


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_single_process_started_for_several_is_refused(monkeypatch, num_processes):
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["--cpu", "--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no"]
    parsed, _, _ = _validate_launch_command(launch_command_parser().parse_args([*arguments, "train_accelerate.py"]))
    _, environment = prepare_simple_launcher_cmd_env(parsed)
    if num_processes == 1:
        assert read_launch(environment).num_processes == 1
        return
    with pytest.raises(UserError, match="asked for several processes and started one, as it does with --cpu"):
        read_launch(environment)


def test_one_process_beside_the_variables_of_several_is_not_refused():
    """A shell may export these for train_multi_node.sh, and others for accelerate."""
    addresses = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    environment = addresses | {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no"}
    assert read_launch(environment).name == "one process"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"E2LLM_NUM_PROCESSES": "2"}, "2 processes were asked for and 1 started"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "MEGATRON_LM is not supported"),
        (DEEPSPEED | {"ACCELERATE_USE_CPU": "true"}, "use_cpu: true .* DDP instead of DeepSpeed"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "zero_stage: 0 in the launch file: must be 1, 2 or 3"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "deepspeed_config_file in the launch file"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, "zero3_init_flag: true"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, "offload_optimizer_device: nvme"),
        (DEEPSPEED | {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, "offload_param_device: cpu"),
        (FSDP | {"FSDP_VERSION": "1"}, "fsdp_version: 1 in the launch file: only 2 is supported"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params: true"),
        (FSDP | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading: true"),
    ],
)
def test_what_a_launch_cannot_ask_for(environment, message):
    with pytest.raises(UserError, match=message):
        read_launch(environment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gradient_accumulation_steps": "4"},
            "gradient_accumulation_steps: 4 in the launch file: set it to 1; data.micro_batch_size=4 decides",
        ),
        ({"gradient_clipping": "0.5"}, r"gradient_clipping: 0.5 in the launch file, optim.max_grad_norm=1.0"),
        ({"mixed_precision": "bf16"}, r"mixed_precision: bf16 in the launch file, compute.dtype=float32 \(float32"),
        ({"mixed_precision": "fp16"}, "mixed_precision: fp16"),
        (
            {"num_processes": 3},
            "data.understanding_batch_size=4: not divisible by the 3 processes of this run; make it a multiple, or "
            "start fewer with PROCESSES_PER_NODE",
        ),
    ],
)
def test_a_launch_that_disagrees_with_the_config(make_config, options, message):
    with pytest.raises(UserError, match=message):
        check_launch(Launch(**options), make_config())


def test_a_launch_that_agrees_with_the_config(make_config):
    check_launch(Launch(gradient_clipping="1.0", num_processes=2), make_config())
    check_launch(Launch(mixed_precision="bf16"), make_config("--compute.dtype", "bfloat16"))


def test_what_deepspeed_needs_is_named(make_config, tmp_path, monkeypatch):
    zero = Launch(ZeroEngine, zero_stage=2, num_processes=2)
    monkeypatch.setattr(launch_module, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="DeepSpeed is not installed: pip install -r requirements-deepspeed.txt"):
        check_launch(zero, make_config())
    monkeypatch.setattr(launch_module, "find_spec", lambda _name: object())
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no-such-compiler: not found on PATH; .*apt-get install g\+\+"):
        check_launch(zero, make_config())
    monkeypatch.setattr(launch_module.shutil, "which", lambda program, path: program)
    lock = tmp_path / "deepspeed_shm_comm/lock"
    lock.parent.mkdir()
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    check_launch(zero, make_config())
    os.utime(lock, (time.time() - 3600, time.time() - 3600))
    with pytest.raises(UserError, match=r"deepspeed_shm_comm/lock: left by a build that was cut off"):
        check_launch(zero, make_config())


def test_an_accelerator_of_another_kind_is_refused(make_config, monkeypatch):
    """As `accelerate launch` without --multi_gpu on a processor: every process believes that it is alone."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="asked for DDP on 2 processes; accelerate made it NO on 1"):
        start_accelerator(Launch(num_processes=2), make_config())
    assert start_accelerator(Launch(), make_config()).num_processes == 1


def test_an_error_of_one_process_is_one_of_all():
    accelerator = Accelerator(cpu=True)
    raise_together(accelerator, None)
    with pytest.raises(AgreedError, match="the disk is full"):
        raise_together(accelerator, "the disk is full")


def test_which_errors_mean_a_lost_process(make_config, tmp_path):
    config = make_config("--timeout_seconds", "9")
    gloo = RuntimeError("[/pytorch/third_party/gloo/pair.cc:553] Connection closed by peer [::1]:21. This is typical")
    lost = lost_contact(gloo, config, tmp_path / "step-000004")
    assert lost.exit_code == 3
    assert "timeout_seconds=9 (Connection closed by peer [::1]:21). Look for its own message" in str(lost)
    assert "step-000004; continue with --resume auto" in str(lost)
    assert "newest checkpoint: none" in str(lost_contact(torch.distributed.DistBackendError("?"), config, None))
    assert lost_contact(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), config, None) is None


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(None, 0), (SystemExit(143), 143), (UserError("no"), 2), (RuntimeError("no"), 1), (SystemExit("text"), 1)],
)
def test_a_launched_process_leaves_its_exit_code(tmp_path, monkeypatch, capsys, outcome, code):
    class Ended(BaseException):
        pass

    def main():
        if outcome:
            raise outcome

    def end(number):
        raise Ended(number)

    monkeypatch.setenv("E2LLM_EXIT_CODES", str(tmp_path))
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(launch_module.os, "_exit", end)
    monkeypatch.setattr(launch_module.logging, "shutdown", lambda: None)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Ended) as caught:
            run_launched(main)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught.value.args == (code,)
    assert (tmp_path / "3").read_text() == str(code)
    assert ("Traceback" in capsys.readouterr().err) == isinstance(outcome, RuntimeError)
