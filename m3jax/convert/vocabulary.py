"""A smaller vocabulary: the pieces that some texts need, ids closed up, the tokenizer rebuilt.

Of XLM-R's 250,002 pieces most texts use a part, and the embedding of the rest is most of a small
model. A text whose pieces are all kept gives the same pieces and so the same outputs; others are
spelled in shorter pieces, down to single characters, which are kept for every script.
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
COMPARED = 1000  # texts a language, at most, whose spelling is compared


class Spelling(NamedTuple):
    """How much longer the texts of one language became."""

    language: str
    texts: int
    before: int  # tokens
    after: int
    kept: float  # share of the old tokens whose piece is kept
    unknown_before: int  # tokens that are <unk>
    unknown_after: int


def count_pieces(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Counter[int]]:
    """How often each id occurs in (language, text) pairs, by language; texts in a row count once.

    A passage of many questions stands in training files once for each, in lines that follow.
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
    """What each id is worth: sum over languages of n(id) / N * N^power, N tokens in all.

    1 is plain frequency; below it, languages of which there is little text weigh more.
    """
    worth: dict[int, float] = defaultdict(float)
    for counter in counts.values():
        total = counter.total()
        for i, n in counter.items():
            worth[i] += n * total ** (power - 1)
    return dict(worth)


def pieces_to_keep(
    tokenizer: Tokenizer,
    counts: dict[str, Counter[int]],
    *,
    min_count: int = 1,
    size: int | None = None,
    power: float = 1.0,
) -> Int[np.ndarray, " kept"]:
    """Ids to keep, ascending: special tokens, single characters, then the pieces by `importance`.

    A piece counts from `min_count` occurrences on; `size` limits the whole vocabulary. Raises
    ValueError where `size` does not even hold the special tokens and characters.
    """
    state = _unigram(tokenizer)
    special = {token["id"] for token in state["added_tokens"]} | set(tokenizer.special_ids)
    pieces = [piece for piece, _ in state["model"]["vocab"]]
    always = special | {i for i, p in enumerate(pieces) if len(p.removeprefix(SPACE)) <= 1}
    worth = importance(counts, power)
    often = Counter[int]()
    for counter in counts.values():
        often.update(counter)
    wanted = sorted(
        (i for i, n in often.items() if n >= min_count and i not in always),
        key=lambda i: (-worth[i], i),
    )
    if size is not None:
        if size < len(always):
            raise ValueError(
                f"size {size:,} is below the {len(always):,} special tokens and single characters "
                "that are always kept"
            )
        wanted = wanted[: size - len(always)]
    return np.array(sorted(always | set(wanted)), np.int64)


def prune(
    params: Params, config: M3Config, tokenizer: Tokenizer, kept: Int[np.ndarray, " kept"],
    directory: Path,
) -> tuple[Params, M3Config, Tokenizer]:  # fmt: skip
    """The model with only these ids; its tokenizer's files are written to `directory`.

    Raises ValueError for a vocabulary whose special tokens do not come first, as XLM-R's do:
    positions are counted from the id of <pad>, which must stay.
    """
    small = _write_tokenizer(tokenizer, kept, directory)
    if small.pad_id != tokenizer.pad_id:
        raise ValueError(f"{tokenizer.directory}: <pad> must be among the first ids to stay there")
    flat = flatten(params)
    path = family_of(config.encoder).table("v")
    flat[path] = jnp.asarray(np.asarray(flat[path])[kept])
    shape = dataclasses.replace(config.encoder, vocab_size=len(kept))
    config = dataclasses.replace(config, encoder=shape, special_ids=small.special_ids)
    return unflatten(flat), config, small


def compare(
    old: Tokenizer, new: Tokenizer, kept: Int[np.ndarray, " kept"], texts: Iterable[tuple[str, str]]
) -> list[Spelling]:
    """Both tokenizers on (language, text) pairs, by language: the first 1,000 texts of each."""
    by_language: dict[str, list[str]] = defaultdict(list)
    for language, text in texts:
        if len(by_language[language]) < COMPARED and text not in by_language[language][-1:]:
            by_language[language].append(text)
    found, table = [], set(kept.tolist())
    for language, some in sorted(by_language.items()):
        before, after = _ids(old, some), _ids(new, some)
        found.append(
            Spelling(
                language,
                len(some),
                len(before),
                len(after),
                sum(i in table for i in before) / max(len(before), 1),
                before.count(old.unk_id),
                after.count(new.unk_id),
            )  # fmt: skip
        )
    return found


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
