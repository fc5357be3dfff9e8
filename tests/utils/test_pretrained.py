"""References to tokenizers: folders with and without a model, and what is none."""

import pytest

from tests.conftest import decoder_tokenizer
from utils.common_utils import UserError
from utils.pretrained import load_tokenizer


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
