"""A generator that runs a causal language model with transformers and PyTorch."""

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
    batch_size: int = 8,
    device: str | None = None,
) -> Generator:
    """A generator that runs the model of a Hugging Face directory with safetensors weights.

    Prompts pass through the model's chat template if it has one. No code of the directory is run.
    Decoding is greedy at temperature 0. `device` defaults to a GPU if there is one.

    Raises FileNotFoundError for a directory without a model, ImportError without PyTorch.
    """
    directory = Path(directory)
    tokenizer, model = _load(directory, device)
    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature}
    if not temperature:
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    ends = _ends(model, tokenizer)

    def answer(requests: Sequence[Request]) -> list[Reply]:
        texts = [_chat(tokenizer, request.prompt) for request in requests]
        special = tokenizer.chat_template is None  # a template adds special tokens itself
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=special)
        ids = batch["input_ids"].to(model.device)
        mask = batch["attention_mask"].to(model.device)
        rows = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            **sampling,
        )
        return [
            _reply(tokenizer, row[ids.shape[1] :].tolist(), int(length), ends, max_tokens)
            for row, length in zip(rows, mask.sum(dim=1).tolist(), strict=True)
        ]

    settings = (temperature, max_tokens)
    return Generator(
        f"local {_digest(directory)} {settings}",
        answer,
        threading.Event(),
        batch_size,
        name="local",
        model=str(directory),
    )


def _load(directory: Path, device: str | None) -> tuple[Any, Any]:
    """The tokenizer and the model, which is moved to the device."""
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(f"{directory} is not a model: it has no config.json")
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
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    return {*ends, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])}


def _reply(
    tokenizer: Any, ids: list[int], prompt_tokens: int, ends: set[int], max_tokens: int
) -> Reply:
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(ids[:length], skip_special_tokens=True).strip()
    finish = "stop" if length < max_tokens else "length"
    return Reply(text or None, finish, prompt_tokens, length)


def _digest(directory: Path) -> str:
    """A digest of config.json and of the names, sizes and times of all files, not of weights."""
    digest = new_digest((directory / "config.json").read_bytes(), size=8)
    for file in sorted(directory.iterdir()):
        if file.is_file():
            status = file.stat()
            digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
