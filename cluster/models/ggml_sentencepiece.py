"""SentencePiece's BPE in a GGUF, as a `tokenizer.json`.

SentencePiece (arXiv 1808.06226) has no list of merges: of all neighbours that together are a
piece it joins those whose piece has the highest score, the leftmost of equals, and starts over.
Here every way to cut a piece in two becomes a merge, in the order of the pieces' scores. That is
the same as long as scores differ. The runs of blanks in Llama's vocabulary share one score; for
such runs both ways are tried when a file is converted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers

from cluster.models.gguf_config import Metadata

# Values of tokenizer.ggml.token_type.
_NORMAL, _UNKNOWN, _BYTE = 1, 2, 6
_BLANK = "▁"
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
# Runs are tried up to so many times the longest piece.
_TRIED = 5


def sentencepiece_of(metadata: Metadata) -> Tokenizer:
    """Raises Unsupported where merges could not do what scores do, InvalidArgument for a list that
    is missing."""
    tokens = metadata.items("tokenizer.ggml.tokens", str)
    scores = metadata.items("tokenizer.ggml.scores", float)
    types = metadata.items("tokenizer.ggml.token_type", int)
    _refuse_variants(metadata)
    if not len(set(tokens)) == len(tokens) == len(scores) == len(types):
        raise metadata.refusal("tokenizer.ggml.model", "distinct pieces, each with score and type")
    if {t for t, type_ in zip(tokens, types, strict=True) if type_ == _BYTE} != _BYTES:
        raise metadata.refusal("tokenizer.ggml.model", "pieces for all 256 bytes")
    ids = {token: id_ for id_, token in enumerate(tokens)}
    pieces = {t: scores[id_] for t, id_ in ids.items() if types[id_] == _NORMAL}
    cuts = {piece: _cuts(metadata, piece, pieces, ids) for piece in pieces}
    made = sorted((p for p in pieces if cuts[p]), key=lambda p: (-pieces[p], ids[p]))
    model = models.BPE(
        vocab=ids,
        merges=[cut for piece in made for cut in cuts[piece]],
        unk_token=tokens[types.index(_UNKNOWN)] if _UNKNOWN in types else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    _try_equals(metadata, model, {piece: pieces[piece] for piece in made})
    return _with_blanks(model, bool(metadata.fields.get("tokenizer.ggml.add_space_prefix", True)))


def _refuse_variants(metadata: Metadata) -> None:
    for name in ("remove_extra_whitespaces", "precompiled_charsmap", "merges"):
        if metadata.fields.get(f"tokenizer.ggml.{name}"):
            raise metadata.refusal(f"tokenizer.ggml.{name}", f"a vocabulary without {name}")


def _cuts(
    metadata: Metadata, piece: str, pieces: Mapping[str, float], ids: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Every cut of a piece into two pieces, in the order of their ids."""
    cuts = []
    for at in range(1, len(piece)):
        halves = piece[:at], piece[at:]
        if all(half in pieces for half in halves):
            cuts.append(halves)
        elif all(half in pieces or len(half) == 1 for half in halves):
            # SentencePiece joins characters that are no pieces; a merge cannot.
            raise metadata.refusal(
                "tokenizer.ggml.model", f"a vocabulary with every character of {piece!r}"
            )
    return sorted(cuts, key=lambda cut: (ids[cut[0]], ids[cut[1]]))


def _try_equals(metadata: Metadata, model: models.BPE, scores: Mapping[str, float]) -> None:
    """Pieces that share a score must be runs of one character, and merges must join those as
    SentencePiece does."""
    by_score: dict[float, list[str]] = defaultdict(list)
    for piece, score in scores.items():
        by_score[score].append(piece)
    for equals in by_score.values():
        if len(equals) > 1 and not _are_joined_alike(model, equals):
            raise metadata.refusal(
                "tokenizer.ggml.model", f"pieces whose scores differ, unlike those of {equals[:2]}"
            )


def _are_joined_alike(model: models.BPE, equals: Sequence[str]) -> bool:
    characters = set("".join(equals))
    if len(characters) > 1:
        return False
    character = characters.pop()
    lengths = frozenset(map(len, equals))
    bare = Tokenizer(model)
    return all(
        [len(piece) for piece in bare.encode(character * length).tokens]
        == _joined_run(length, lengths)
        for length in range(1, _TRIED * max(lengths) + 1)
    )


def _joined_run(length: int, lengths: frozenset[int]) -> list[int]:
    """Lengths of the pieces of a run, the leftmost neighbours that make a piece joined first."""
    run = [1] * length
    at = 0
    while at < len(run) - 1:
        if run[at] + run[at + 1] in lengths:
            run[at : at + 2] = [run[at] + run[at + 1]]
            at = max(at - 1, 0)
        else:
            at += 1
    return run


def _with_blanks(model: models.BPE, prefix: bool) -> Tokenizer:
    """A blank is ▁, and one is put before the text, which decoding takes away again."""
    tokenizer = Tokenizer(model)
    replace = normalizers.Replace(" ", _BLANK)
    restore = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_BLANK), replace])
        restore.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = replace
    tokenizer.decoder = decoders.Sequence(restore)
    return tokenizer
