"""Pruning of the vocabulary to the pieces that given texts need.

Most texts use a fraction of XLM-R's 250,002 pieces, and the embedding of the others is most of a
small model. Ids are renumbered and the tokenizer is rebuilt. A text whose pieces are all kept has
the same pieces and so the same outputs; others are split into shorter pieces, down to single
characters, which are kept for every script.
"""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Int

from m3jax.config import M3Config
from m3jax.model.families import family_of
from m3jax.model.m3 import Params
from m3jax.sharding import flatten, unflatten
from m3jax.text.tokenizer import Tokenizer, load_tokenizer

SPACE = "▁"
BATCH = 500  # texts tokenised at once
COMPARED = 1000  # texts per language that are compared


class TokenCounts(NamedTuple):
    """Tokens of the texts of one language with both tokenizers."""

    language: str
    texts: int
    before: int  # tokens with the old tokenizer
    after: int
    kept: float  # share of these whose piece is kept
    unknown_before: int  # <unk> tokens
    unknown_after: int


def count_pieces(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Counter[int]]:
    """Counts of each id in (language, text) pairs, by language; consecutive equal texts count once.

    In training files a passage with several questions is repeated in consecutive lines.
    """
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    batches: dict[str, list[str]] = defaultdict(list)
    last: dict[str, str] = {}
    for language, text in texts:
        if text in (last.get(language), *batches[language][-1:]):
            continue
        last[language] = text
        batches[language].append(text)
        if len(batches[language]) == BATCH:
            counts[language].update(_ids(tokenizer, batches.pop(language)))
    for language, batch in batches.items():
        counts[language].update(_ids(tokenizer, batch))
    return dict(counts)


def importance(counts: dict[str, Counter[int]], power: float) -> dict[int, float]:
    """The weight of each id: sum over languages of n(id) / N * N^power, N the tokens of a language.

    Power 1 is the frequency; below 1, languages with few texts have a larger weight.
    """
    weights: dict[int, float] = defaultdict(float)
    for counter in counts.values():
        total = counter.total()
        for i, n in counter.items():
            weights[i] += n * total ** (power - 1)
    return dict(weights)


def pieces_to_keep(
    tokenizer: Tokenizer,
    counts: dict[str, Counter[int]],
    *,
    min_count: int = 1,
    size: int | None = None,
    power: float = 1.0,
) -> Int[np.ndarray, " kept"]:
    """Ids to keep, ascending: special tokens, single characters, and the most important pieces.

    Pieces need `min_count` occurrences and are ranked by `importance`; `size` limits the
    vocabulary. Raises ValueError if `size` is below the number of special tokens and characters.
    """
    state = _unigram(tokenizer)
    special = {token["id"] for token in state["added_tokens"]} | set(tokenizer.special_ids)
    pieces = [piece for piece, _ in state["model"]["vocab"]]
    always = special | {i for i, p in enumerate(pieces) if len(p.removeprefix(SPACE)) <= 1}
    weights = importance(counts, power)
    totals = Counter[int]()
    for counter in counts.values():
        totals.update(counter)
    ranked = sorted(
        (i for i, n in totals.items() if n >= min_count and i not in always),
        key=lambda i: (-weights[i], i),
    )
    if size is not None:
        if size < len(always):
            raise ValueError(
                f"size {size:,} is below the {len(always):,} special tokens and single characters "
                "that are always kept"
            )
        ranked = ranked[: size - len(always)]
    return np.array(sorted(always | set(ranked)), np.int64)


def prune_vocabulary(
    params: Params,
    config: M3Config,
    tokenizer: Tokenizer,
    kept: Int[np.ndarray, " kept"],
    directory: Path,
) -> tuple[Params, M3Config, Tokenizer]:
    """The model with the ids of `kept` only; its tokenizer's files are written to `directory`.

    Raises ValueError if the id of <pad> would change, from which positions are counted: the special
    tokens must have the first ids, as in XLM-R.
    """
    pruned = _write_tokenizer(tokenizer, kept, directory)
    if pruned.pad_id != tokenizer.pad_id:
        raise ValueError(
            f"{tokenizer.directory}: <pad> must be one of the first ids, as its id may not change"
        )
    flat = flatten(params)
    path = family_of(config.encoder).table("v")
    flat[path] = jnp.asarray(np.asarray(flat[path])[kept])
    shape = dataclasses.replace(config.encoder, vocab_size=len(kept))
    config = dataclasses.replace(config, encoder=shape, special_ids=pruned.special_ids)
    return unflatten(flat), config, pruned


def compare_tokenizers(
    old: Tokenizer, new: Tokenizer, kept: Int[np.ndarray, " kept"], texts: Iterable[tuple[str, str]]
) -> list[TokenCounts]:
    """Token counts with both tokenizers of the first 1,000 texts of each language.

    `texts` are (language, text) pairs.
    """
    by_language: dict[str, list[str]] = defaultdict(list)
    for language, text in texts:
        if len(by_language[language]) < COMPARED and text not in by_language[language][-1:]:
            by_language[language].append(text)
    rows, kept_ids = [], set(kept.tolist())
    for language, sample in sorted(by_language.items()):
        before, after = _ids(old, sample), _ids(new, sample)
        rows.append(
            TokenCounts(
                language=language,
                texts=len(sample),
                before=len(before),
                after=len(after),
                kept=sum(i in kept_ids for i in before) / max(len(before), 1),
                unknown_before=before.count(old.unk_id),
                unknown_after=after.count(new.unk_id),
            )
        )
    return rows


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [i for ids in tokenizer.encode(texts, 1 << 30) for i in ids[1:-1].tolist()]


def _unigram(tokenizer: Tokenizer) -> dict[str, Any]:
    state = json.loads(tokenizer.backend.to_str())
    if state["model"]["type"] != "Unigram":
        raise ValueError(
            f"{tokenizer.directory}: only a Unigram (SentencePiece) vocabulary can be pruned, this "
            f"one is {state['model']['type']}"
        )
    return state


def _write_tokenizer(tokenizer: Tokenizer, kept: np.ndarray, directory: Path) -> Tokenizer:
    state = _unigram(tokenizer)
    new_id = {int(old): new for new, old in enumerate(kept)}
    model = state["model"]
    model["vocab"] = [model["vocab"][i] for i in kept]
    model["unk_id"] = new_id[model["unk_id"]]
    for token in state["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for token in (state["post_processor"] or {}).get("special_tokens", {}).values():
        token["ids"] = [new_id[i] for i in token["ids"]]
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.save(str(directory / "tokenizer.json"), pretty=False)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = tokenizer.directory / name
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            if "added_tokens_decoder" in values:
                values["added_tokens_decoder"] = {
                    str(new_id[int(i)]): token
                    for i, token in values["added_tokens_decoder"].items()
                }
            text = json.dumps(values, indent=2, ensure_ascii=False)
            (directory / name).write_text(text + "\n", encoding="utf-8")
    return load_tokenizer(directory)
