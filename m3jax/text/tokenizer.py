"""Text to token ids: a Hugging Face fast tokenizer, without padding and without tensors."""

import dataclasses
import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers

# The tokenizer files that transformers and sentence-transformers expect beside the weights.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
    "added_tokens.json",
)
COMPRESSED = "tokenizer.json.gz"  # replaces tokenizer.json in small directories
_DEFAULT_SPECIAL = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that writes a text as `<s> ... </s>`, as XLM-R does. Made by `load_tokenizer`."""

    backend: tokenizers.Tokenizer
    cls_id: int
    pad_id: int
    eos_id: int
    unk_id: int
    directory: Path

    @property
    def special_ids(self) -> tuple[int, int, int, int]:
        """Ids that have no lexical weight [M3 sec. 3.2]: cls, pad, eos, unk."""
        return (self.cls_id, self.pad_id, self.eos_id, self.unk_id)

    @property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(
        self, texts: Sequence[str], max_length: int, cls_every: int | None = None
    ) -> list[np.ndarray]:
        """Token ids of each text as int32: [CLS] first, end of sentence last.

        Texts are truncated to `max_length` tokens. With `cls_every` (MCLS; 256 in [M3 app. B.2]) a
        [CLS] is inserted before every further `cls_every` tokens; these count in `max_length`.

        Raises TypeError for an item that is not a string, ValueError for a `max_length` below 2.
        """
        if max_length < 2:
            raise ValueError(f"max_length must leave room for <s> and </s>, got {max_length}")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {number} is {type(text).__name__}, not a string: {text!r}")
        return [self._wrap(ids, max_length, cls_every) for ids in self._token_ids(list(texts))]

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """The number of tokens of each text, with [CLS] and end of sentence, untruncated; int32."""
        return np.array([len(encoding) + 2 for encoding in self._encodings(list(texts))], np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def token(self, token_id: int) -> str:
        """The spelling of a token in the vocabulary; '▁' stands for a leading space."""
        return self.backend.id_to_token(int(token_id)) or "<unk>"

    def fingerprint(self) -> str:
        """The SHA-256 of tokenizer.json."""
        return hashlib.sha256(self._file()).hexdigest()

    def save(self, directory: Path, compressed: bool = False) -> None:
        """Copies the tokenizer files to `directory`, and writes tokenizer.json if there is none.

        With `compressed`, only the files that `load_tokenizer` needs are written,
        tokenizer.json as gzip.
        """
        for name in FILES:
            source = self.directory / name
            if source.is_file() and not (
                compressed and name.startswith(("tokenizer.", "sentence"))
            ):
                shutil.copyfile(source, directory / name)
        if compressed:
            # Without a time stamp in the header, equal models are equal files.
            (directory / COMPRESSED).write_bytes(gzip.compress(self._file(), 9, mtime=0))
        elif not (directory / "tokenizer.json").is_file():
            (directory / "tokenizer.json").write_bytes(self._file())

    def _file(self) -> bytes:
        """The contents of tokenizer.json; serialised if it was made from a SentencePiece file."""
        data = _read_file(self.directory)
        return self.backend.to_str(pretty=True).encode() if data is None else data

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._encodings(texts)]

    def _encodings(self, texts: list[str]) -> list[tokenizers.Encoding]:
        try:
            return self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            # A lone surrogate is not valid UTF-8; it becomes U+FFFD, as in any decoder.
            clean = [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t in texts]
            return self.backend.encode_batch_fast(clean, add_special_tokens=False)

    def _wrap(self, ids: list[int], max_length: int, cls_every: int | None) -> np.ndarray:
        if cls_every is None or len(ids) <= cls_every:
            return np.array([self.cls_id, *ids[: max_length - 2], self.eos_id], np.int32)
        out: list[int] = []
        for start in range(0, len(ids), cls_every):
            out += [self.cls_id, *ids[start : start + cls_every]]
        out = out[: max_length - 1]
        return np.array([*out, self.eos_id], np.int32)


def load_tokenizer(directory: Path | str) -> Tokenizer:
    """Loads the tokenizer in `directory`.

    Raises FileNotFoundError if it has none, ValueError if a file is damaged or the vocabulary lacks
    a special token.
    """
    directory = Path(directory)
    if (data := _read_file(directory)) is not None:
        try:
            backend = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(
                f"{directory / 'tokenizer.json'} is not a readable tokenizer: {error}"
            ) from error
        backend.no_truncation()
        backend.no_padding()
    elif (directory / "sentencepiece.bpe.model").is_file():
        # transformers has the rules that turn a SentencePiece file into a fast tokenizer.
        from transformers import AutoTokenizer

        backend = AutoTokenizer.from_pretrained(directory, use_fast=True).backend_tokenizer
    else:
        raise FileNotFoundError(
            f"{directory} has no tokenizer: expected tokenizer.json or sentencepiece.bpe.model"
        )
    names = _special_names(directory)
    ids: dict[str, int] = {}
    for role, name in names.items():
        token_id = backend.token_to_id(name)
        if token_id is None:
            raise ValueError(f"{directory}: the tokenizer's vocabulary lacks {role} {name!r}")
        ids[role] = token_id
    return Tokenizer(
        backend, ids["cls_token"], ids["pad_token"], ids["eos_token"], ids["unk_token"], directory
    )


def _read_file(directory: Path) -> bytes | None:
    """The contents of tokenizer.json or tokenizer.json.gz; None if there is neither."""
    if (directory / "tokenizer.json").is_file():
        return (directory / "tokenizer.json").read_bytes()
    if not (directory / COMPRESSED).is_file():
        return None
    try:
        return gzip.decompress((directory / COMPRESSED).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{directory / COMPRESSED} cannot be read, is it complete? {error}"
        ) from error


def _special_names(directory: Path) -> dict[str, str]:
    """The spelling of the four special tokens by role: from the files, else XLM-R's."""
    names = dict(_DEFAULT_SPECIAL)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (directory / file).is_file():
            values = json.loads((directory / file).read_text(encoding="utf-8"))
            for role in names:
                token = values.get(role)
                if token is not None:
                    names[role] = token["content"] if isinstance(token, dict) else token
    return names
