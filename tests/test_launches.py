"""Real launches of two processes on the processor: every engine killed and continued, and every fault seen to its end.

A launch takes about 15 seconds on two idle cores. All runs here are the same six steps without dropout, so that all of
them must come to the losses of one process.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from model.pro_model import E2LLM
from pefts.e2llm_args import TrainConfig
from tests.launches import MISSING, Launch, all_gone, losses
from tests.pefts.conftest import RESULT_FILES, parsed, town_records, train_options, trainer_of, write_store

NUM_STEPS = 6
TOLERANCE = 1e-4
"""Relative, of a step's loss. Sums over processes and micro-batches differ in the last bits of float32, and AdamW
divides by the gradient's own size, so that the smallest gradients carry them on at full step size."""
needs_deepspeed = pytest.mark.skipif(bool(MISSING), reason=MISSING or "never")
ENGINE_NAMES = {
    "ddp": "DDP",
    "fsdp2": "FSDP2",
    "ds_config_zero2": "DeepSpeed ZeRO-2",
    "ds_config_zero2_offload": "DeepSpeed ZeRO-2 with optimizer offload",
    "ds_config_zero3": "DeepSpeed ZeRO-3",
}
ENGINES = [
    "ddp",
    "fsdp2",
    pytest.param("ds_config_zero2", marks=needs_deepspeed),
    pytest.param("ds_config_zero2_offload", marks=needs_deepspeed),
    pytest.param("ds_config_zero3", marks=needs_deepspeed),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory, backbones) -> dict:
    """Options of the six steps."""
    folder = tmp_path_factory.mktemp("launches")
    stores = write_store(folder / "train", town_records()), write_store(folder / "validation", town_records(8, seed=2))
    options = train_options(folder / "run", backbones, *stores)
    options |= {"num_steps": NUM_STEPS, "timeout_seconds": 120, "logging": {"every": 1, "tensorboard": False}}
    options["model"] |= {"lora_dropout": 0.0, "encoder_dropout": 0.0}
    # Chunks make several micro-batches, a different number in each process; so do a process's rows.
    options["compute"] |= {"encoder_token_budget": 48, "recompute_chunks": True}
    options["data"]["micro_batch_size"] = 1
    options["checkpoint"] = {"save_every": 2, "validate_every": NUM_STEPS}
    return options


@pytest.fixture(scope="module")
def reference(base, tmp_path_factory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("reference")
    trainer_of(parsed(TrainConfig, base | {"output_dir": str(folder / "run")}, folder)).train()
    return folder / "run"


@pytest.fixture
def config(base, tmp_path) -> Path:
    """The config file of a run in tmp_path/run."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(base | {"output_dir": str(tmp_path / "run")}))
    return path


def assert_same_losses(run: Path, reference: Path) -> None:
    """The losses of a run's every step are those of the reference."""
    assert set(losses(run)) == set(range(1, NUM_STEPS + 1))
    assert losses(run) == pytest.approx(losses(reference), rel=TOLERANCE)


def assert_same_checkpoint(checkpoint: Path, reference: Path) -> None:
    """A checkpoint has the tensors of the reference, all of them and whole."""
    for name in RESULT_FILES:
        tensors, expected = load_file(checkpoint / name), load_file(reference / name)
        assert tensors.keys() == expected.keys()
        for key, tensor in tensors.items():
            assert tensor.shape == expected[key].shape, key
            assert torch.allclose(tensor, expected[key], rtol=0.05, atol=2e-3), (name, key)


def test_accumulation_changes_nothing(base, reference, tmp_path):
    options = base | {"output_dir": str(tmp_path / "run"), "data": base["data"] | {"micro_batch_size": 4}}
    trainer_of(parsed(TrainConfig, options, tmp_path)).train()
    assert_same_losses(tmp_path / "run", reference)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_killed_and_continued(engine, config, tmp_path, reference):
    run = tmp_path / "run"
    launch = Launch(config, engine=engine)
    launch.wait_for_step(run, 3)
    family, ranks = launch.family(), launch.ranks()
    assert len(ranks) == 2
    ranks[1].kill()
    assert launch.wait() != 0
    assert all_gone(family)
    assert not (run / f"checkpoints/step-{NUM_STEPS:06d}").exists(), "it was to be killed in the middle"
    assert "continue with --resume auto" in launch.text

    launch = Launch(config, engine=engine)
    assert launch.wait() == 0, launch.text
    assert "continuing from" in launch.text
    assert_same_losses(run, reference)
    assert_same_checkpoint(run / "checkpoints/latest", reference / "checkpoints/latest")
    launched = json.loads((run / "config.json").read_text())["launch"]
    assert launched["num_processes"] == 2
    assert launched["engine"] == ENGINE_NAMES[engine]
    E2LLM.from_pretrained(run / "checkpoints/latest")


@needs_deepspeed
def test_a_run_goes_from_engine_to_engine(config, tmp_path, reference):
    """ZeRO-2 on two processes, stopped by SIGTERM; one process; ZeRO-1 on two."""
    run = tmp_path / "run"
    launch = Launch(config, engine="ds_config_zero2")
    launch.wait_for_step(run, 1)
    family = launch.family()
    launch.process.send_signal(signal.SIGTERM)
    assert launch.wait() == 128 + signal.SIGTERM, launch.text
    assert all_gone(family)
    step = json.loads((run / "checkpoints/latest/trainer_state.json").read_text())["step"]
    assert step < NUM_STEPS - 1

    options = json.loads(config.read_text())
    trainer = trainer_of(parsed(TrainConfig, options, tmp_path))
    assert trainer.step == step
    while trainer.step < NUM_STEPS - 1:
        trainer.train_step(trainer.train_data[trainer.step])
    trainer.save()
    launch = Launch(config, engine="ds_config_zero1")
    assert launch.wait() == 0, launch.text
    assert losses(run)[NUM_STEPS] == pytest.approx(losses(reference)[NUM_STEPS], rel=TOLERANCE)
    assert_same_checkpoint(run / "checkpoints/latest", reference / "checkpoints/latest")


class Node(NamedTuple):
    """A machine of a launch, as far as one machine can play it."""

    address: str
    prefix: tuple[str, ...]
    """What a command begins with to run there."""
    variables: dict[str, str]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


@pytest.fixture(params=["loopback", "two network namespaces"])
def network(request) -> Iterator[list[Node]]:
    """Two nodes: both on loopback, or each with a network of its own and a cable between them."""
    if request.param == "loopback":
        yield [Node("127.0.0.1", (), {}), Node("127.0.0.1", (), {})]
        return
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = [f"e2llm{os.getpid()}n{rank}" for rank in (0, 1)]
    nodes = [
        Node(f"10.213.77.{rank + 1}", ("ip", "netns", "exec", name), {"GLOO_SOCKET_IFNAME": "cable"})
        for rank, name in enumerate(names)
    ]
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("this machine allows no network namespaces")
        ends = [f"name cable netns {name}" for name in names]
        subprocess.run(f"ip link add {ends[0]} type veth peer {ends[1]}".split(), check=True)
        for name, node in zip(names, nodes, strict=True):
            for command in (f"addr add {node.address}/24 dev cable", "link set cable up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield nodes
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@needs_deepspeed
def test_two_nodes_killed_and_continued(network, config, tmp_path, reference):
    """Two launchers, a process each; the second node is killed, launcher and all."""
    run = tmp_path / "run"

    def start_nodes() -> list[Launch]:
        common = {"NNODES": "2", "MASTER_ADDR": network[0].address, "MASTER_PORT": str(free_port())}
        options = {"engine": "ds_config_zero2", "processes": 1, "script": "train_multi_node.sh"}
        return [
            Launch(config, prefix=node.prefix, NODE_RANK=str(rank), **options, **common, **node.variables)
            for rank, node in enumerate(network)
        ]

    nodes = start_nodes()
    nodes[0].wait_for_step(run, 3)
    family = [process for node in nodes for process in node.family()]
    for process in nodes[1].family():
        process.kill()
    assert [node.wait() for node in nodes] == [3, -signal.SIGKILL], nodes[0].text
    assert all_gone(family)
    nodes = start_nodes()
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].text
    assert_same_losses(run, reference)


def test_faults_end_a_run_and_leave_its_checkpoint(config, tmp_path):
    """One run through a hanging process, a disk that takes no more, a non-finite loss, and SIGINT to one process."""
    run = tmp_path / "run"
    launch = Launch(config, "--timeout_seconds", "5")
    launch.wait_for_step(run, 2)
    family, ranks = launch.family(), launch.ranks()
    ranks[1].suspend()
    assert launch.wait() == 3, launch.text
    assert all_gone(family)
    assert "has not answered for timeout_seconds=5" in launch.text
    step = json.loads((run / "checkpoints/latest/trainer_state.json").read_text())["step"]
    assert 2 <= step < NUM_STEPS

    if shutil.which("prlimit"):
        launch = Launch(config, prefix=("prlimit", "--fsize=8192"))  # as on a full disk, a file takes only so much
        assert launch.wait() == 2, launch.text
        assert launch.text.count("the checkpoint could not be written") == 1, launch.text
        assert json.loads((run / "checkpoints/latest/trainer_state.json").read_text())["step"] == step

    launch = Launch(config, "--optim.learning_rate", "1e38", "--num_steps", "9")
    assert launch.wait() == 2, launch.text
    assert f"changed since the checkpoint: num_steps was {NUM_STEPS}, is 9" in launch.text
    assert "changed since the checkpoint: optim.learning_rate was 0.005, is 1e+38" in launch.text
    assert launch.text.count("nothing was updated. It was computed on: ") == 1, "one process says it"
    kept = sorted((run / "checkpoints").glob("step-*"))
    assert kept

    config.write_text(json.dumps(json.loads(config.read_text()) | {"output_dir": str(tmp_path / "other")}))
    launch = Launch(config)
    launch.wait_for_step(tmp_path / "other", 1)
    launch.ranks()[1].send_signal(signal.SIGINT)
    assert launch.wait() == 128 + signal.SIGINT, launch.text
    step = json.loads((tmp_path / "other/checkpoints/latest/trainer_state.json").read_text())["step"]
    assert 1 <= step < NUM_STEPS
