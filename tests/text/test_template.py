"""Chat templates: what they may do, and where they are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.errors import InvalidArgument
from cluster.request import ChatRole, Message
from cluster.text.template import ChatTemplate

HELLO = (Message(ChatRole.USER, "Hello"),)


def test_blocks_leave_no_blank_lines_and_special_names_are_known() -> None:
    template = ChatTemplate(
        "{{ bos_token }}\n{% for m in messages %}\n  {% if true %}\n{{ m.role }}: {{ m.content }}\n"
        "  {% endif %}\n{% endfor %}",
        {"bos_token": "<s>"},
    )
    assert template.render(HELLO) == "<s>\nuser: Hello\n"


def test_loops_may_be_left_and_json_keeps_its_characters() -> None:
    source = "{% for m in messages %}{% break %}{% endfor %}{{ {'a': '<é>'} | tojson }}"
    assert ChatTemplate(source).render(HELLO) == '{"a": "<é>"}'


def test_the_jinja_file_comes_before_the_tokenizer_config(tmp_path: Path) -> None:
    config = {"chat_template": "config {{ eos_token }}", "eos_token": {"content": "</s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.from_folder(tmp_path).render(HELLO) == "config </s>"
    (tmp_path / "chat_template.jinja").write_text("file {{ eos_token }}")
    assert ChatTemplate.from_folder(tmp_path).render(HELLO) == "file </s>"


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.from_folder(tmp_path).render(HELLO) == "yes"


def test_a_folder_without_a_template_says_where_one_belongs(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="has no chat template") as caught:
        ChatTemplate.from_folder(tmp_path)
    assert caught.value.field == "model.source"


def test_a_malformed_template_is_the_models_fault() -> None:
    with pytest.raises(InvalidArgument, match="malformed") as caught:
        ChatTemplate("{% for %}")
    assert caught.value.field == "model.source"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ raise_exception('roles must alternate') }}", id="its own refusal"),
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="a way out"),
        pytest.param("{{ messages.append(1) }}", id="a change of what it was given"),
        pytest.param("{{ strftime_now('%d %b') }}", id="the clock"),
        pytest.param("{{ [1, 2] | random }}", id="chance"),
        pytest.param("{{ 1 / 0 }}", id="arithmetic"),
        pytest.param("{% include 'other' %}", id="another file"),
    ],
)
def test_a_template_cannot_reach_outside_the_conversation(source: str) -> None:
    with pytest.raises(InvalidArgument):
        ChatTemplate(source).render(HELLO)
