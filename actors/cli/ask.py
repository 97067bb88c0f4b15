"""`thoth ask` and `thoth chat`: an answer as it is written, what it rests on, and its time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer

from actors.cli.console import plain, printable, results, say, table, write_json
from actors.cli.options import (
    AsJson,
    Collections,
    ConfigFile,
    Endpoint,
    Settings,
    settings_in_force,
)
from actors.cli.serving import client_for
from cluster.client import (
    Answer,
    AskOptions,
    CachedTokens,
    ChatRole,
    Citation,
    Client,
    Delta,
    Message,
    Timings,
)
from cluster.errors import InvalidArgument

Question = Annotated[str, typer.Argument(help="What to ask.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Passages to look up.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Longest answer.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="0 is greedy.")]
TopP = Annotated[
    float | None, typer.Option("--top-p", help="Share of the mass that is drawn from.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="The answer ends before this text; may be repeated."),
]
JsonSchema = Annotated[
    Path | None,
    typer.Option(
        "--json-schema",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The answer is JSON that matches the schema in the file.",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes a drawn answer repeatable.")]
System = Annotated[str | None, typer.Option("--system", help="System message.")]


def ask(  # noqa: PLR0913, PLR0917 - one parameter per option
    question: Question,
    collection: Collections = None,
    top_k: TopK = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop: Stop = None,
    json_schema: JsonSchema = None,
    endpoint: Endpoint = None,
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question, over documents when a collection is named."""
    options = chosen(
        collections=collection,
        top_k=top_k,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=stop,
        json_schema=json_schema and read_schema(json_schema),
    )
    messages = (Message(ChatRole.USER, question),)
    with client_for(settings_in_force(config, settings), endpoint) as client:
        if as_json:
            write_json(client.chat(messages, **options))
        else:
            show_rest(stream_text(client, messages, options))


def chat(  # noqa: PLR0913, PLR0917 - one parameter per option
    collection: Collections = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    system: System = None,
    endpoint: Endpoint = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Talk until the end of input (Ctrl+D)."""
    options = chosen(
        collections=collection,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    messages = [Message(ChatRole.SYSTEM, system)] if system else []
    with client_for(settings_in_force(config, settings), endpoint) as client:
        while (line := read_line()) is not None:
            if not line.strip():
                continue
            messages.append(Message(ChatRole.USER, line))
            answer = stream_text(client, messages, options)
            messages.append(Message(ChatRole.ASSISTANT, answer.text))


def chosen(**options: object) -> AskOptions:
    """Only what was said."""
    said = {name: value for name, value in options.items() if value is not None}
    return cast(AskOptions, said)


def read_schema(file: Path) -> str:
    """Raises InvalidArgument for a file that is no text; the cluster judges what it says."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}", field="json_schema") from None


def read_line() -> str | None:
    """None at the end of input; the prompt is only there for people."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def stream_text(client: Client, messages: Sequence[Message], options: AskOptions) -> Answer:
    """Writes the answer to stdout piece by piece."""
    with client.stream(messages, **options) as stream:
        for event in stream:
            if isinstance(event, Delta):
                sys.stdout.write(printable(event.text))
                sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    return stream.answer()


def show_rest(answer: Answer) -> None:
    """What the answer rests on, and where its time went."""
    if answer.citations:
        show_citations(answer.citations)
    show_timings(answer.timings)
    usage = answer.usage
    say(
        f"{answer.model}: {usage.prompt_tokens} prompt tokens, {_said(usage.cached)}, "
        f"{usage.completion_tokens} generated, ended by {answer.finish_reason} "
        f"[{answer.request_id}]"
    )


def _said(cached: CachedTokens) -> str:
    """How much of the prompt was not computed, and where it was found."""
    tiers = [f"{count} on the {tier}" for tier, count in asdict(cached).items() if count]
    return f"{cached.total} of them reused ({', '.join(tiers)})" if tiers else "none reused"


def show_citations(citations: Sequence[Citation]) -> None:
    rows = table("Documents", "#", "title", "document", "span", "score")
    for citation in citations:
        chunk = citation.chunk
        rows.add_row(
            str(citation.index),
            plain(chunk.title),
            plain(f"{chunk.collection}/{chunk.document_id}"),
            f"{chunk.start}-{chunk.end}",
            f"{chunk.score:.4f}",
        )
    console = results()
    console.print()
    console.print(rows)


def show_timings(timings: Timings) -> None:
    """The parts the cluster accounts for, and what is left of the time to first token."""
    parts = {
        "retrieval": timings.retrieval_s,
        "queue": timings.queue_s,
        "prefill": timings.prefill_s,
    }
    rest_s = timings.time_to_first_token_s - sum(parts.values())
    rows = table("Time to first token", *parts, "the rest", "together", "whole answer")
    seconds = [*parts.values(), max(0.0, rest_s), timings.time_to_first_token_s, timings.total_s]
    rows.add_row(*(f"{value:.3f} s" for value in seconds))
    console = results()
    console.print()
    console.print(rows)
