"""Questions from a causal language model in a directory, by transformers and PyTorch.

Never imports JAX.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3jax.io.hashing import new_digest
from m3jax.synthesize.generators import Generator, Reply, Request


def local_generator(
    directory: Path | str,
    *,
    temperature: float = 0.0,
    max_tokens: int = 200,
    batch: int = 8,
    device: str | None = None,
) -> Generator:
    """A generator that runs the model of a Hugging Face directory with safetensors weights.

    Its chat template is used where it has one. No code of the directory is run. At temperature 0
    the likeliest token is taken. Raises FileNotFoundError for a path that is no model, ImportError
    without PyTorch.
    """
    directory = Path(directory)
    tokenizer, model = _load(directory, device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {
        "do_sample": False, "temperature": None, "top_p": None, "top_k": None,
    }  # fmt: skip
    ends = _ends(model, tokenizer)

    def answer(requests: Sequence[Request]) -> list[Reply]:
        texts = [_chat(tokenizer, request.prompt) for request in requests]
        special = tokenizer.chat_template is None  # a template writes them itself
        found = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=special)
        ids = found["input_ids"].to(model.device)
        mask = found["attention_mask"].to(model.device)
        rows = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id, **sampling,
        )  # fmt: skip
        return [
            _reply(tokenizer, row[ids.shape[1] :].tolist(), int(length), ends, max_tokens)
            for row, length in zip(rows, mask.sum(dim=1).tolist(), strict=True)
        ]

    settings = (temperature, max_tokens)
    return Generator(f"local {_digest(directory)} {settings}", answer, threading.Event(), batch)


def _load(directory: Path, device: str | None) -> tuple[Any, Any]:
    """(tokenizer, model), the model on the device."""
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(f"{directory} is no model: a directory with config.json is needed")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError("a local model needs PyTorch: pip install 'm3jax[torch]'") from error

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
        directory, padding_side="left", **options
    )
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype="auto", use_safetensors=True, **options
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _chat(tokenizer: Any, prompt: str) -> str:
    if tokenizer.chat_template is None:
        return prompt
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a reply."""
    named = model.generation_config.eos_token_id
    named = [named] if isinstance(named, int) else list(named or ())
    return {*named, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}


def _reply(tokenizer: Any, ids: list[int], prompt: int, ends: set[int], most: int) -> Reply:
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
    finish = "stop" if length < most else "length"
    return Reply(text or None, finish, prompt, length)


def _digest(directory: Path) -> str:
    """Of the configuration and of the names, sizes and times of all files: weights are not read."""
    found = new_digest((directory / "config.json").read_bytes(), size=8)
    for file in sorted(directory.iterdir()):
        if file.is_file():
            status = file.stat()
            found.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\0".encode())
    return found.hexdigest()
