"""References to tokenizers: folders with and without a model, and what is none."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import decoder_tokenizer
from utils import pretrained
from utils.common_utils import UserError, atomic_folder
from utils.pretrained import load_tokenizer, resolve_backbone


def test_a_folder_of_a_tokenizer_alone_will_do(tmp_path):
    decoder_tokenizer().save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    text = "Ada lives in Rome."
    assert load_tokenizer(str(tmp_path), "--tokenizer")(text).input_ids == decoder_tokenizer()(text).input_ids


def test_a_missing_padding_token_is_the_end_of_sequence(tmp_path):
    tokenizer = decoder_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), "--tokenizer").pad_token == "</s>"


def test_what_is_no_reference(tmp_path):
    with pytest.raises(UserError, match="--tokenizer='.*': .* holds neither config.json nor tokenizer_config.json"):
        load_tokenizer(str(tmp_path), "--tokenizer")
    with pytest.raises(UserError, match="--tokenizer='./none': no such file or folder"):
        load_tokenizer("./none", "--tokenizer")


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A file that passes for a decoder, with a cache of its own."""
    monkeypatch.setenv("E2LLM_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    path.touch()
    return path


def test_a_second_process_waits_for_the_conversion_of_the_first(gguf, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    converted = []

    def convert(source, folder):
        converted.append(source)
        # Another process, as `flock` takes another opening of the file for one.
        waiting = other.submit(resolve_backbone, str(gguf), "model.decoder")
        deadline = time.monotonic() + 60
        while "waiting for another process" not in caplog.text:
            assert time.monotonic() < deadline and not waiting.done()
            time.sleep(0.01)
        with atomic_folder(folder) as temporary:
            (temporary / "config.json").touch()
        results.append(waiting)

    monkeypatch.setattr(pretrained, "_convert_gguf", convert)
    results = []
    with ThreadPoolExecutor() as other:
        folder = resolve_backbone(str(gguf), "model.decoder")
        assert results[0].result(timeout=60) == folder
    assert converted == [gguf]
    assert resolve_backbone(str(gguf), "model.decoder") == folder and converted == [gguf]


def test_a_conversion_that_fails_says_what_to_do(gguf, monkeypatch):
    def lacks_gguf(*_arguments):
        raise ImportError("Please install torch and gguf>=0.10.0")

    monkeypatch.setattr(pretrained, "_convert_gguf", lacks_gguf)
    with pytest.raises(UserError, match=r"model.decoder='.*tiny.gguf': .*`pip install gguf`"):
        resolve_backbone(str(gguf), "model.decoder")
    monkeypatch.setenv("E2LLM_CACHE_DIR", str(gguf))
    with pytest.raises(UserError, match=r"cannot be converted into .*E2LLM_CACHE_DIR names another folder"):
        resolve_backbone(str(gguf), "model.decoder")
    with pytest.raises(
        UserError, match=r"'no_such_package' is not installed .*requirements-demo.txt.*pip install gguf"
    ):
        resolve_backbone("package:no_such_package/model.gguf", "model.decoder")


def test_the_same_file_elsewhere_is_not_converted_again(gguf, tmp_path, monkeypatch):
    converted = []

    def convert(source, folder):
        converted.append(source)
        with atomic_folder(folder) as temporary:
            (temporary / "config.json").touch()

    monkeypatch.setattr(pretrained, "_convert_gguf", convert)
    content = bytes(range(256)) * 2000
    gguf.write_bytes(content)
    folder = resolve_backbone(str(gguf), "model.decoder")
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / gguf.name
    copy.write_bytes(content)
    assert resolve_backbone(str(copy), "model.decoder") == folder
    copy.write_bytes(content[:-1] + b"!")
    assert resolve_backbone(str(copy), "model.decoder") != folder
    assert converted == [gguf, copy]


def test_a_file_that_is_no_gguf_is_named(gguf, monkeypatch):
    def refuse(*_arguments):
        raise ValueError("GGUF magic invalid")

    monkeypatch.setattr(pretrained, "_convert_gguf", refuse)
    with pytest.raises(
        UserError, match=r"tiny.gguf': no GGUF file that can be read \(GGUF magic invalid\); download it"
    ):
        resolve_backbone(str(gguf), "model.decoder")
    with pytest.raises(UserError, match=r"the Python package 'no.such' is not installed"):
        resolve_backbone("package:no.such/model.gguf", "model.decoder")
