"""The shell scripts: what they start, and what they refuse, with a stand-in for Python that prints its arguments."""

import os
import subprocess
import sys

import pytest

from tests.pefts.conftest import ROOT

STAND_IN = f"""#!/bin/sh
case "$2" in
    *device_count*) echo "${{STAND_IN_GPUS:-0}}" ;;
    *socket*) exec {sys.executable} "$@" ;;
    *) [ -z "${{STAND_IN_MALLOC:-}}" ] || echo "malloc=${{MALLOC_MMAP_THRESHOLD_:-}} ${{MALLOC_TRIM_THRESHOLD_:-}}"
       echo "processes=${{E2LLM_NUM_PROCESSES:-}} cpu=${{ACCELERATE_USE_CPU:-}} $*" ;;
esac
"""
DROPPED = (
    "SLURM_",
    "PET_",
    "MASTER_",
    "NODE_RANK",
    "NNODES",
    "PROCESSES_PER_NODE",
    "LAUNCH_CONFIG",
    "ACCELERATE_",
    "MALLOC_",
)


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script with arguments and environment variables."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run_script(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(DROPPED)}
        environment |= {"PYTHON": str(stand_in)} | variables
        command = ["sh", str(ROOT / script), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run_script


def test_an_evaluation_has_no_engine(run):
    assert run("eval.sh", "--batch_size", "3").stdout == "processes= cpu=true eval.py --batch_size 3\n"
    for arguments in (
        ["--accelerate_config", "local/ds_config_zero2.yaml", "--batch_size", "3"],
        ["--batch_size", "3", "--accelerate_config=local/fsdp2.yaml"],
    ):
        result = run("eval.sh", *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("error: --accelerate_config")
        assert "chooses the engine of a training, and an evaluation has none; leave it out" in result.stderr
        assert result.stdout == ""


def test_freed_memory_is_kept_by_trainings_on_the_processor_alone(run):
    shown, kept = {"STAND_IN_MALLOC": "1"}, "malloc=4294967296 17179869184\n"
    assert run("eval.sh", **shown).stdout.startswith("malloc= \n"), "peak memory is measured there"
    assert run("train_local_machine.sh", **shown).stdout.startswith(kept)
    assert run("train_multi_node.sh", **shown, **NODES).stdout.startswith(kept)
    assert run("train_local_machine.sh", STAND_IN_GPUS="1", **shown).stdout.startswith("malloc= \n")
    own = run("train_local_machine.sh", MALLOC_MMAP_THRESHOLD_="65536", **shown).stdout
    assert own.startswith("malloc=65536 17179869184\n")


NODES = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


def test_one_process_needs_no_launcher(run):
    assert run("train_local_machine.sh", "--num_steps", "3").stdout == (
        "processes= cpu=true train_accelerate.py --num_steps 3\n"
    )


def test_two_processes_with_each_engine(run):
    for arguments, variables, cpu, kind in (
        ([], {}, "true", "--config_file local/ddp.yaml"),
        (["--accelerate_config", "local/ds_config_zero2.yaml"], {}, "", "--config_file local/ds_config_zero2.yaml"),
        ([], {"LAUNCH_CONFIG": "local/fsdp2.yaml"}, "true", "--config_file local/fsdp2.yaml"),
    ):
        result = run("train_local_machine.sh", *arguments, "--seed", "1", PROCESSES_PER_NODE="2", **variables)
        assert result.stdout.startswith(f"processes=2 cpu={cpu} local/launch.py {kind} "), result
        assert "--num_processes 2" in result.stdout
        assert ("--multi_gpu" in result.stdout) == ("ddp" in kind)
        assert result.stdout.endswith(" train_accelerate.py --seed 1\n")


def test_all_gpus_are_taken(run):
    assert "--num_processes 4" in run("train_local_machine.sh", STAND_IN_GPUS="4").stdout
    result = run("train_local_machine.sh", STAND_IN_GPUS="4", PROCESSES_PER_NODE="8")
    assert (result.returncode, result.stderr) == (2, "error: PROCESSES_PER_NODE=8: this machine has 4 GPUs\n")


def test_a_node_of_several(run):
    result = run("train_multi_node.sh", "--seed", "1", PROCESSES_PER_NODE="4", **NODES)
    assert result.stdout.startswith("processes=8 cpu= local/launch.py --config_file local/ds_config_zero2.yaml ")
    for option in ("machine_rank 1", "num_processes 8", "main_process_ip 127.0.0.1", "main_process_port 29511"):
        assert f"--{option} " in result.stdout


def test_nodes_under_slurm(run, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho localhost\necho other\n")
    scontrol.chmod(0o755)
    variables = {"SLURM_JOB_ID": "70012", "SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "localhost"}
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = run("train_multi_node.sh", PATH=path, PROCESSES_PER_NODE="2", **variables)
    assert "--num_machines 2 --machine_rank 1 " in result.stdout, result
    assert "--main_process_ip localhost --main_process_port 30012 " in result.stdout
    # A node's rank is no more than its rank: the job's number decides the port.
    result = run("train_multi_node.sh", PATH=path, **(variables | {"SLURM_NODEID": "2"}))
    assert result.stderr == "error: NODE_RANK=2: must be below NNODES=2\n"


def test_nodes_in_the_names_of_torchrun(run):
    names = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_NPROC_PER_NODE": "3"}
    addresses = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29512"}
    for variables in (names, {"GROUP_WORLD_SIZE": "2", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "3"}):
        result = run("train_multi_node.sh", **variables, **addresses)
        assert "--num_machines 2 --machine_rank 1 --num_processes 6 " in result.stdout, result


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"NODE_RANK": ""}, "NODE_RANK is not set; see the head of"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set; see the head of"),
        ({"NNODES": "two"}, "NNODES=two: must be a whole number"),
        ({"NODE_RANK": "2"}, "NODE_RANK=2: must be below NNODES=2"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0: must be at least 1"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000: must be at most 65535"),
        ({"MASTER_ADDR": "no-such-host.invalid"}, "MASTER_ADDR=no-such-host.invalid: no such host"),
        ({"PROCESSES_PER_NODE": "0"}, "PROCESSES_PER_NODE=0: must be at least 1"),
        (
            {"LAUNCH_CONFIG": "local/none.yaml"},
            "LAUNCH_CONFIG=local/none.yaml: no such file; the ones that come along:",
        ),
    ],
)
def test_what_a_node_refuses(run, changed, message):
    result = run("train_multi_node.sh", **(NODES | changed))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stdout == ""


def test_a_port_in_use_is_refused_on_the_first_node(run):
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run("train_multi_node.sh", **(NODES | {"NODE_RANK": "0", "MASTER_PORT": port}))
    assert result.returncode == 2
    assert f"MASTER_PORT={port}: in use on this machine" in result.stderr
