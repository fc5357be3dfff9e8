"""Saving and loading an E2LLM without its backbones, and exporting it with them.

checkpoint/  e2llm_config.json     what the model is made of, and the shape of its backbones
             adapter.safetensors
             encoder_lora/ decoder_lora/   as PEFT writes them; absent where the rank is 0
             manifest.json         size and SHA-256 of every file, written last
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from model.compute import ComputeConfig, default_device
from model.config import E2LLMConfig
from utils.common_utils import UserError, atomic_folder, closest, read_json, sha256_file

if TYPE_CHECKING:
    from model.pro_model import E2LLM

FORMAT_VERSION = 2
"""2: the spread of the embeddings is a factor behind the projection (`Adapter.output_scale`), not in its weights."""
CONFIG_FILE = "e2llm_config.json"
ADAPTER_FILE = "adapter.safetensors"
MANIFEST_FILE = "manifest.json"
LORA_FILE = "adapter_model.safetensors"


def model_tensors(model: "E2LLM") -> dict[str, dict[str, torch.Tensor]]:
    """Return copies of the trained weights, by part: `adapter`, `encoder_lora`, `decoder_lora` (absent at rank 0).

    Weights sharded over processes are made whole, so where they are, all processes must call it.
    """
    parts = {"adapter": model.chunk_encoder.adapter.state_dict()}
    for name, backbone in _lora_backbones(model).items():
        parts[f"{name}_lora"] = get_peft_model_state_dict(backbone)
    return {
        part: {name: whole_on_cpu(tensor, copy=True) for name, tensor in state.items()} for part, state in parts.items()
    }


def save_model(model: "E2LLM", folder: Path, tensors: dict[str, dict[str, torch.Tensor]] | None = None) -> None:
    """Write config, adapter and LoRA weights into an existing folder.

    Args:
        tensors: what `model_tensors` returned, where the model itself holds parts of its weights only.
    """
    tensors = model_tensors(model) if tensors is None else tensors
    content = {
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(model.config),
        "backbones": backbone_shapes(model),
        "folded_encoder_lora": model.folded_encoder_lora,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(tensors["adapter"], folder / ADAPTER_FILE)
    for name, backbone in _lora_backbones(model).items():
        lora_folder = folder / f"{name}_lora"
        lora_folder.mkdir()
        state = tensors[lora_folder.name]
        if not state or not all(tensor.numel() for tensor in state.values()):
            raise RuntimeError(f"{lora_folder.name}: there are no weights to save")
        save_file(state, lora_folder / LORA_FILE)
        lora_config = backbone.peft_config["default"]
        lora_config.base_model_name_or_path = getattr(model.config, name)
        lora_config.save_pretrained(lora_folder)


def load_model(
    model_class: type["E2LLM"],
    path: str | Path,
    compute: ComputeConfig | None = None,
    device: str | torch.device | None = None,
) -> "E2LLM":
    """Build the model of a checkpoint or an export, ready for inference.

    Args:
        model_class: `E2LLM`.
        path: a checkpoint folder, or the folder `export_merged` wrote.
        compute: number format and attention; without it float32 on a processor, where batches and single prompts then
            give the same text, and `auto` on a GPU.
        device: where to put it; the first GPU or the processor by default.

    Raises:
        UserError: the folder is no checkpoint, is damaged, or does not fit its backbones.
    """
    folder = Path(path)
    config = read_config(folder)
    verify_manifest(folder)
    device = torch.device(device) if device is not None else default_device()
    compute = compute or ComputeConfig(dtype="float32" if device.type == "cpu" else "auto")
    model = model_class.from_backbones(config, compute, device, for_training=False)
    load_weights(model, folder)
    # Exports of earlier versions do not say; the contexts of their checkpoints are refused.
    model.folded_encoder_lora = read_json(folder / CONFIG_FILE).get("folded_encoder_lora", "")
    return model.eval()


def read_config(folder: Path) -> E2LLMConfig:
    """Read a checkpoint's model config; references to backbones inside an export become full paths."""
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"{folder}: no checkpoint here (it has no {CONFIG_FILE}); give a folder such as "
            "outputs/RUN/checkpoints/best"
        )
    content = read_json(folder / CONFIG_FILE)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder / CONFIG_FILE}: format_version={version}; this program reads {FORMAT_VERSION}; "
            "use the version of the program that wrote it, or train anew"
        )
    known = [item.name for item in dataclasses.fields(E2LLMConfig)]
    for key in content["config"]:
        if key not in known:
            raise UserError(f"{folder / CONFIG_FILE}: unknown key config.{key}.{closest(key, known)}")
    config = E2LLMConfig(**content["config"])
    for side in ("encoder", "decoder"):
        reference = getattr(config, side)
        if reference.startswith("./") and (folder / reference).is_dir():
            setattr(config, side, str((folder / reference).resolve()))
    return config


def load_weights(model: "E2LLM", folder: Path) -> None:
    """Load adapter and LoRA weights into a model of the same make.

    Raises:
        UserError: a file is missing or damaged, or belongs to another model.
    """
    saved_shapes = read_json(folder / CONFIG_FILE)["backbones"]
    for side, shape in backbone_shapes(model).items():
        if shape != saved_shapes[side]:
            differing = {key: (saved_shapes[side].get(key), shape[key]) for key in shape}
            text = ", ".join(f"{k}: saved {a}, here {b}" for k, (a, b) in differing.items() if a != b)
            raise UserError(f"{folder}: made with another {side} ({text})")
    _load_into(model.chunk_encoder.adapter, folder / ADAPTER_FILE)
    for name, backbone in _lora_backbones(model).items():
        path = folder / f"{name}_lora" / LORA_FILE
        state = _read_safetensors(path)
        expected = get_peft_model_state_dict(backbone)
        _check_fit(path, state, expected)
        set_peft_model_state_dict(backbone, state)


def write_manifest(folder: Path) -> None:
    """Write size and SHA-256 of every file below a folder into its manifest."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / MANIFEST_FILE).write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")


def verify_manifest(folder: Path) -> None:
    """Check a checkpoint's files against its manifest.

    Raises:
        UserError: the manifest or a file is missing or has changed; the message names it.
    """
    for name, entry in read_json(folder / MANIFEST_FILE)["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing from the checkpoint")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(f"{path}: damaged ({path.stat().st_size} bytes, {entry['bytes']} were written)")
        if sha256_file(path) != entry["sha256"]:
            raise UserError(f"{path}: damaged (its SHA-256 is not the one written)")


def export_merged(model: "E2LLM", folder: str | Path) -> None:
    """Fold both LoRAs into their backbones and write plain Hugging Face models beside the adapter.

    The folder then holds `encoder/` and `decoder/`, loadable by transformers alone, and is itself loadable by
    `E2LLM.from_pretrained`. The model in memory is merged too.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: already exists; export to a new folder")
    fold_lora(model)
    model.config = dataclasses.replace(model.config, encoder="./encoder", decoder="./decoder")
    with atomic_folder(folder) as temporary:
        save_model(model, temporary)
        model.chunk_encoder.backbone.save_pretrained(temporary / "encoder")
        model.encoder_tokenizer.save_pretrained(temporary / "encoder")
        model.decoder.save_pretrained(temporary / "decoder")
        model.decoder_tokenizer.save_pretrained(temporary / "decoder")
        write_manifest(temporary)


def fold_lora(model: "E2LLM") -> None:
    """Fold both LoRAs into their backbones, which are plain Hugging Face models from then on: the same outputs but for
    rounding, in less time. The backbones' own weights are gone; `export_merged` can still write the model."""
    for name, backbone in _lora_backbones(model).items():
        if name == "encoder":
            model.folded_encoder_lora = _hash(get_peft_model_state_dict(backbone))
        merged = backbone.merge_and_unload()
        if name == "encoder":
            model.chunk_encoder.backbone = merged
        else:
            model.decoder = merged
    model.config = dataclasses.replace(model.config, encoder_lora_rank=0, decoder_lora_rank=0)


def encoder_tensors(model: "E2LLM") -> dict[str, torch.Tensor]:
    """Return the trained weights that chunk tokens depend on: those of the adapter and of the encoder's LoRA."""
    backbone = model.chunk_encoder.backbone
    lora = get_peft_model_state_dict(backbone) if isinstance(backbone, PeftModel) else {}
    return {**model.chunk_encoder.adapter.state_dict(), **lora}


def encoder_fingerprint(model: "E2LLM", tensors: dict[str, torch.Tensor]) -> str:
    """Return a hash of `encoder_tensors` and of how the model chunks text; LoRA that is folded in counts as it was."""
    lora = {name: tensor for name, tensor in tensors.items() if "lora_" in name}
    adapter = {name: tensor for name, tensor in tensors.items() if name not in lora}
    parts = [_hash(adapter), _hash(lora) if lora else model.folded_encoder_lora]
    parts += [str(model.config.chunk_size), str(model.config.chunk_overlap)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _hash(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def backbone_shapes(model: "E2LLM") -> dict[str, dict]:
    """Return what tells one backbone from another: its type and sizes."""
    keys = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    backbones = {"encoder": model.chunk_encoder.backbone, "decoder": model.decoder}
    return {side: {key: getattr(backbone.config, key) for key in keys} for side, backbone in backbones.items()}


def _lora_backbones(model: "E2LLM") -> dict[str, PeftModel]:
    backbones = {"encoder": model.chunk_encoder.backbone, "decoder": model.decoder}
    return {name: backbone for name, backbone in backbones.items() if isinstance(backbone, PeftModel)}


def whole_on_cpu(tensor: torch.Tensor, copy: bool = False) -> torch.Tensor:
    """Bring a tensor to the processor; one sharded over processes is made whole, for which all of them must call it."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().to("cpu", copy=copy).contiguous()


def _load_into(module: nn.Module, path: Path) -> None:
    state = _read_safetensors(path)
    _check_fit(path, state, module.state_dict())
    module.load_state_dict(state)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing from the checkpoint") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error})") from None


def _check_fit(path: Path, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Refuse weights that do not match a model name by name and shape by shape."""
    differing = sorted(
        name
        for name in state.keys() | expected.keys()
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    )
    if differing:
        name = differing[0]
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (state, expected)]
        name = re.sub(r"^base_model\.model\.", "", name)
        raise UserError(
            f"{path}: of another model ({len(differing)} weights differ, e.g. {name}: saved {shapes[0]}, "
            f"here {shapes[1]})"
        )
