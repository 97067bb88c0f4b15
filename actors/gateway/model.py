"""The model as its gateway knows it: a name, a length, and text to ids and back. No weights."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config import ThothConfig
from cluster.text.grammar import Grammars
from cluster.text.prompt import PromptBuilder
from cluster.text.template import ChatTemplate
from cluster.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """`context_tokens` is the longest prompt plus answer."""

    name: str
    context_tokens: int
    tokenizer: Tokenizer
    prompts: PromptBuilder
    grammars: Grammars


def load_served_model(config: ThothConfig) -> ServedModel:
    """Finds, checks and if need be converts the model: seconds of work, for a thread.

    Raises Refused, naming what is wrong with the model.
    """
    # Reading a model folder needs torch, which takes seconds to import: the event loop must not.
    from cluster.models.catalogue import resolve_model  # noqa: PLC0415
    from cluster.models.config import decoder_config  # noqa: PLC0415
    from cluster.models.folder import read_json  # noqa: PLC0415

    folder = resolve_model(config.model.source, config.models_dir)
    tokenizer = Tokenizer.from_folder(folder.path)
    trained_for = decoder_config(read_json(folder.path / "config.json")).max_position
    return ServedModel(
        name=config.model.name or folder.name,
        context_tokens=min(config.model.context_tokens or trained_for, trained_for),
        tokenizer=tokenizer,
        prompts=PromptBuilder(
            tokenizer, ChatTemplate.from_folder(folder.path), config.gateway.system_prompt
        ),
        grammars=Grammars(tokenizer, tokenizer.vocab_size),
    )
