"""A model's chat template: Jinja2 from the model's folder, so it runs in a sandbox.

The names it may use are those that Hugging Face gives to templates, less clock and chance: what a
conversation becomes depends on the conversation alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cluster.errors import InvalidArgument
from cluster.request import Message
from cluster.text.tokenizer import FIELD, json_object


class ChatTemplate:
    """Turns messages into the text a model was trained to continue."""

    def __init__(self, source: str, special_names: Mapping[str, str] | None = None) -> None:
        """`special_names` are the variables bos_token, eos_token and so on.

        Raises InvalidArgument when `source` is no template.
        """
        self.source = source
        self._special_names = dict(special_names or {})
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidArgument(
                f"the chat template is malformed: {error}", field=FIELD, limit="a Jinja2 template"
            ) from error

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate:
        """Reads chat_template.jinja or the chat_template of tokenizer_config.json.

        Raises InvalidArgument when there is neither.
        """
        config = json_object(folder / "tokenizer_config.json")
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else _default(config)
        if source is None:
            raise InvalidArgument(
                f"{folder} has no chat template",
                field=FIELD,
                limit="chat_template.jinja, or chat_template in tokenizer_config.json",
            )
        return cls(source, _special_names(config))

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation, up to where the assistant's answer begins.

        Raises InvalidArgument when the template refuses the conversation or fails on it.
        """
        turns = [{"role": str(m.role), "content": m.content} for m in messages]
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=True, tools=None, **self._special_names
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise InvalidArgument(
                f"the model's chat template refuses these messages: {error}",
                field="messages",
                limit="a conversation the model's chat template accepts",
            ) from error


def _default(config: Mapping[str, Any]) -> str | None:
    """`chat_template` is a template, or a list of named ones of which "default" is for chat."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """A special token is written as its text, or as an object with the text as `content`."""
    names: dict[str, str] = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        found = config.get(key)
        text = found.get("content") if isinstance(found, dict) else found
        if isinstance(text, str):
            names[key] = text
    return names


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    del environment.filters["random"]
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _raise
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    """Unlike Jinja's own, leaves < > & and what is not ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
