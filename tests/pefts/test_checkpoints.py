"""The checkpoints of a run: complete or absent, linked, pruned, found again."""

import json

import pytest
import torch

from pefts.checkpoints import RunCheckpoints, read_trainer_state
from utils.common_utils import UserError


@pytest.fixture
def checkpoints(tmp_path) -> RunCheckpoints:
    return RunCheckpoints(tmp_path / "checkpoints", keep_last=2)


@pytest.fixture
def save(checkpoints, model):
    """Return a function that saves a checkpoint of a step."""

    def save_step(step: int, best_step: int | None = None):
        tensors = {"exp_avg/weight": torch.full((2,), float(step))}
        return checkpoints.save(model, tensors, {"step": step, "best_step": best_step})

    return save_step


def names(checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def damage(path) -> None:
    file = path / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def test_nothing_yet(checkpoints):
    assert checkpoints.steps() == []
    assert checkpoints.newest_complete() is None
    assert checkpoints.target("best") is None


def test_a_checkpoint_holds_model_and_state(save):
    path = save(500)
    assert path.name == "step-000500"
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    sides = [f"{side}_lora/{file}" for side in ("encoder", "decoder") for file in ("adapter_model.safetensors",)]
    assert files >= {"e2llm_config.json", "adapter.safetensors", "optimizer.safetensors", "trainer_state.json", *sides}
    assert set(json.loads((path / "manifest.json").read_text())["files"]) == files - {"manifest.json"}
    state, tensors = read_trainer_state(path)
    assert state["step"] == 500
    assert tensors["exp_avg/weight"].tolist() == [500.0, 500.0]


def test_links_and_pruning(save, checkpoints):
    save(10, 10)
    save(20, 10)
    save(30, 10)
    save(40, 10)
    assert names(checkpoints) == ["best", "latest", "step-000010", "step-000030", "step-000040"]
    assert checkpoints.target("best") == checkpoints.path(10).resolve()
    assert checkpoints.target("latest") == checkpoints.path(40).resolve()
    save(1000000, 1000000)
    assert names(checkpoints) == ["best", "latest", "step-000040", "step-1000000"]
    assert checkpoints.steps() == [40, 1000000]
    assert checkpoints.target("best") == checkpoints.path(1000000).resolve()


def test_links_stay_relative(save, checkpoints, tmp_path):
    save(10, 10)
    checkpoints.folder.rename(tmp_path / "moved")
    assert (tmp_path / "moved/latest/manifest.json").is_file()


def test_a_best_step_without_a_folder_is_not_linked(save, checkpoints):
    save(20, 10)
    assert names(checkpoints) == ["latest", "step-000020"]


def test_the_newest_undamaged_one_is_taken(save, checkpoints, caplog):
    for step in (10, 20, 30):
        save(step, 10)
    damage(checkpoints.path(30))
    assert checkpoints.newest_complete() == checkpoints.path(20)
    (message,) = (record.getMessage() for record in caplog.records)
    assert "skipping the checkpoint of step 30" in message
    assert "adapter.safetensors: damaged (100 bytes" in message
    (checkpoints.path(20) / "manifest.json").unlink()
    assert checkpoints.newest_complete() == checkpoints.path(10)
    (checkpoints.path(10) / "manifest.json").write_bytes(b"\x00\xff")
    assert checkpoints.newest_complete() is None


def test_a_damaged_later_one_goes_with_the_next_save(save, checkpoints):
    for step in (10, 20, 30):
        save(step)
    damage(checkpoints.path(30))
    save(25)
    assert names(checkpoints) == ["latest", "step-000020", "step-000025"]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(save, checkpoints):
    for step in (10, 20):
        save(step)
    damage(checkpoints.path(20))
    save(20)
    assert checkpoints.newest_complete() == checkpoints.path(20)


def test_what_a_killed_process_left_is_removed(save, checkpoints):
    save(10)
    for name in (".step-000013.partial", ".step-000010.old"):
        (checkpoints.folder / name).mkdir()
        (checkpoints.folder / name / "file").touch()
    assert checkpoints.steps() == [10]
    save(20)
    assert names(checkpoints) == ["latest", "step-000010", "step-000020"]


def test_a_checkpoint_cut_off_while_it_was_replaced_is_put_back(save, checkpoints):
    save(10)
    aside = checkpoints.folder / ".step-000020.old"
    save(20).rename(aside)
    assert checkpoints.newest_complete() == checkpoints.path(10)
    checkpoints.put_back()
    checkpoints.put_back()
    assert checkpoints.newest_complete() == checkpoints.path(20)
    aside.mkdir()
    checkpoints.put_back()
    assert checkpoints.newest_complete() == checkpoints.path(20), "it has been replaced"


def test_a_checkpoint_without_its_training_state_is_named(save):
    path = save(10)
    (path / "optimizer.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match=r"optimizer.safetensors: damaged"):
        read_trainer_state(path)
    (path / "optimizer.safetensors").unlink()
    with pytest.raises(UserError, match=r"optimizer.safetensors: missing, so training cannot continue"):
        read_trainer_state(path)
    (path / "trainer_state.json").unlink()
    with pytest.raises(UserError, match=r"trainer_state.json: no such file"):
        read_trainer_state(path)
