"""Prompts with a place for chunk tokens, chunks that are split and never cut, padding."""

import copy

import pytest
import torch

from tests.conftest import corpus, decoder_tokenizer, encoder_tokenizer
from utils.common_utils import UserError
from utils.tokenization import ChunkTokenizer, PromptFormatter, check_template, pad_chunks


@pytest.fixture(scope="module")
def decoder():
    return decoder_tokenizer()


@pytest.fixture(scope="module")
def encoder():
    return encoder_tokenizer()


@pytest.mark.parametrize(
    ("template", "needs_prompt", "message"),
    [
        ("{prompt}", True, r"here: the template holds {context} 0 times"),
        ("{context} {context} {prompt}", True, r"here: the template holds {context} 2 times"),
        ("{context}", True, r"here: the template holds {prompt} 0 times"),
        ("{context} {prompt} {prompt}", True, r"here: the template holds {prompt} 2 times"),
        ("{context} {prompt}", False, r"here: the template holds {prompt} 1 times; it must not"),
    ],
)
def test_templates_are_checked(template, needs_prompt, message):
    with pytest.raises(UserError, match=message):
        check_template(template, "here", needs_prompt)


def test_good_templates_pass():
    check_template("{context}\n{prompt}", "here", needs_prompt=True)
    check_template("{context}\nRestate.", "here", needs_prompt=False)
    check_template("{prompt}\n{context}", "here", needs_prompt=True)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("\n It is {{ strftime_now('%Y-%m-%d') }}. {{ messages[0].content }}", "\n It is 2024-07-26. Read "),
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}\n"
            "It is {{ date_string }}. {{ messages[0].content }}",
            "It is 26 Jul 2024. Read ",
        ),
    ],
)
def test_chat_prompts_are_the_same_on_any_day(decoder, template, expected):
    tokenizer = copy.deepcopy(decoder)
    tokenizer.chat_template = template
    assert PromptFormatter(tokenizer, use_chat_template=True)._rendered("Read {context}")[0] == expected


def test_chat_prompts_are_split_at_the_context(decoder):
    formatter = PromptFormatter(decoder, use_chat_template=True)
    ids = formatter.prompt_ids("Read: {context}\n{prompt}!", "Who?")
    assert decoder.decode(ids.prefix_ids) == "<s>user: Read: "
    assert decoder.decode(ids.suffix_ids) == "\nWho?!</s><s>assistant: "


def test_plain_prompts_begin_with_the_beginning_of_sequence_where_nothing_else_stands(decoder):
    formatter = PromptFormatter(decoder, use_chat_template=False)
    ids = formatter.prompt_ids("{context} {prompt} Answer:", "Who?")
    assert ids.prefix_ids == (decoder.bos_token_id,)
    assert decoder.decode(ids.suffix_ids) == " Who? Answer:"
    # This tokenizer does not begin texts with a special token by itself.
    ids = formatter.prompt_ids("Read: {context} {prompt}", "Who?")
    assert decoder.decode(ids.prefix_ids) == "Read: "


def test_prompt_before_the_context(decoder):
    formatter = PromptFormatter(decoder, use_chat_template=False)
    ids = formatter.prompt_ids("{prompt}\n{context}\nAnswer:", "Who?")
    assert decoder.decode(ids.prefix_ids) == "Who?\n"
    assert decoder.decode(ids.suffix_ids) == "\nAnswer:"


def test_braces_in_a_prompt_are_text(decoder):
    formatter = PromptFormatter(decoder, use_chat_template=True)
    prompt = "Print {context} and {prompt} and {0}"
    ids = formatter.prompt_ids("{context}\n{prompt}", prompt)
    assert decoder.decode(ids.suffix_ids) == f"\n{prompt}</s><s>assistant: "


def test_a_prompt_never_begins_with_a_chunk_token():
    tokenizer = decoder_tokenizer()
    tokenizer.bos_token = None
    formatter = PromptFormatter(tokenizer, use_chat_template=False)
    with pytest.raises(UserError, match=r"begins with {context}; put some text before it"):
        formatter.prompt_ids("{context} {prompt}", "Who?")
    assert formatter.prompt_ids("Read: {context} {prompt}", "Who?").prefix_ids


def test_answers_are_ended(decoder):
    formatter = PromptFormatter(decoder, use_chat_template=True)
    ids = formatter.answer_ids("Oslo since 1950")
    assert decoder.decode(ids) == "Oslo since 1950</s>"
    assert ids[-1] == decoder.eos_token_id
    assert formatter.answer_ids("") == (decoder.eos_token_id,)


def test_tokenizers_that_do_not_fit_are_refused():
    tokenizer = decoder_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="model.use_chat_template=true: .*no chat template"):
        PromptFormatter(tokenizer, use_chat_template=True)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        PromptFormatter(tokenizer, use_chat_template=False)


def test_long_chunks_are_split_and_nothing_is_lost(encoder):
    chunks = [corpus()[0], " ".join(corpus()[:4]), corpus()[1]]
    whole = [encoder(chunk, add_special_tokens=False)["input_ids"] for chunk in chunks]
    pieces, counts = ChunkTokenizer(encoder, max_tokens=len(whole[0]) + 2)(chunks)
    assert counts[0] == 1
    assert counts[1] > 3
    assert sum(counts) == len(pieces)
    assert all(len(piece) <= len(whole[0]) + 2 for piece in pieces)
    start = 0
    for count, expected in zip(counts, whole, strict=True):
        own = pieces[start : start + count]
        assert all(piece[0] == encoder.cls_token_id and piece[-1] == encoder.sep_token_id for piece in own)
        assert [token for piece in own for token in piece[1:-1]] == expected
        start += count


def test_no_chunks(encoder):
    assert ChunkTokenizer(encoder, 64)([]) == ([], [])


def test_padding():
    ids, mask = pad_chunks([[5, 6, 7], [8]], pad_token_id=1)
    assert torch.equal(ids, torch.tensor([[5, 6, 7], [8, 1, 1]]))
    assert torch.equal(mask, torch.tensor([[1, 1, 1], [1, 0, 0]]))
    ids, mask = pad_chunks([], pad_token_id=1)
    assert ids.shape == mask.shape == (0, 1)
