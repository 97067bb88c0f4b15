"""Text of the families' kinds of tokenizers and templates, against transformers: whole folders as
transformers writes them, chat_template.jinja and all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.llama.tokenization_llama import LlamaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from cluster.request import ChatRole, Message
from cluster.text.prompt import PromptBuilder
from cluster.text.template import ChatTemplate
from cluster.text.tokenizer import Tokenizer
from tests.tiny_model import tiny_tokenizer

CONVERSATION = (
    Message(ChatRole.SYSTEM, "Be brief."),
    Message(ChatRole.USER, "It's e\u0301té 2024, isn't it?\n\n  Yes 😀"),
    Message(ChatRole.ASSISTANT, "It is."),
    Message(ChatRole.USER, "Why?"),
)
LLAMA_3 = (
    "{%- for message in messages %}"
    "{{- (bos_token if loop.first else '') + '<|start_header_id|>' + message.role"
    " + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{%- endif %}"
)
QWEN = (
    "{%- set system = namespace(said=messages[0].role == 'system') %}"
    "{%- if not system.said %}{{- '<|im_start|>system\nHelp.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content.split('</think>')[-1].lstrip('\n')"
    " + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system, turns = messages[0]['content'], messages[1:] %}"
    "{%- else %}{%- set system, turns = '', messages %}{%- endif %}"
    "{{- bos_token }}"
    "{%- for message in turns %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('user and assistant take turns') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}"
    "{{- '[INST] ' + (system + '\n\n' if loop.last and system else '') + message['content']"
    " + '[/INST]' }}"
    "{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def words_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tiny_tokenizer().to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def llama_3() -> PreTrainedTokenizerFast:
    backend = tiny_tokenizer()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    names = ("begin_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id")
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA_3,
    )


def qwen() -> PreTrainedTokenizerFast:
    vocab, merges = words_and_merges()
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=QWEN,
    )


def mistral() -> PreTrainedTokenizerFast:
    """SentencePiece's kind: blanks are ▁, unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [chr(code) for code in range(0x21, 0x7F)] + ["▁", "▁W", "is", "▁i", "▁is"]
    merges = [("▁", "W"), ("i", "s"), ("▁", "i"), ("▁", "is")]
    return LlamaTokenizer(
        vocab={piece: id_ for id_, piece in enumerate(pieces)},
        merges=merges,
        additional_special_tokens=["[INST]", "[/INST]"],
        chat_template=MISTRAL,
    )


@pytest.fixture(params=[llama_3, qwen, mistral])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    request.param().save_pretrained(tmp_path)
    return tmp_path


def test_the_template_lies_beside_the_tokenizer(folder: Path) -> None:
    """As transformers has written it since version 4.50."""
    assert (folder / "chat_template.jinja").is_file()
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())


def test_a_conversation_becomes_the_ids_of_transformers(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": str(m.role), "content": m.content} for m in CONVERSATION],
        add_generation_prompt=True,
        return_dict=False,
    )
    ours = PromptBuilder(Tokenizer.from_folder(folder), ChatTemplate.from_folder(folder))
    assert list(ours.build(CONVERSATION).segments[0]) == theirs


def test_plain_text_becomes_the_ids_of_transformers(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_folder(folder)
    for message in CONVERSATION:
        ids = theirs.encode(message.content, add_special_tokens=False)
        assert list(ours.encode(message.content)) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_every_end_that_the_family_lists_ends_an_answer(tmp_path: Path) -> None:
    tokenizer = llama_3()
    tokenizer.save_pretrained(tmp_path)
    names = ("<|endoftext|>", "<|eom_id|>", "<|eot_id|>")
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    assert Tokenizer.from_folder(tmp_path).eos_ids == set(ids)
