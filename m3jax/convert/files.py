"""Reading and writing of Hugging Face model directories.

Reads the directories of FlagEmbedding, sentence-transformers and transformers, and writes one that
all three load. PyTorch is needed for `.bin` and `.pt` files only; they are read with
weights_only=True.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m3jax.config import M3Config
from m3jax.convert.names import COLBERT_FILE, SPARSE_FILE, TorchCheckpoint, to_torch
from m3jax.model.families import family_named, family_of
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.text.tokenizer import Tokenizer

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SHARD_BYTES = 5_000_000_000
HEAD_FILES = {"colbert_linear": COLBERT_FILE, "sparse_linear": SPARSE_FILE}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; FileNotFoundError or ValueError names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: not a model directory")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, expected a JSON object")
    return values


def read_config(directory: Path) -> M3Config:
    """The config of the model in `directory`; ValueError names the file and the setting.

    `colbert_dim` is the hidden size here; the weights of the head have the width.
    """
    path = directory / "config.json"
    values = read_json(path)
    try:
        encoder = family_named(values.get("model_type")).read_settings(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return M3Config(
        encoder=encoder, colbert_dim=encoder.hidden_size, pooling=_read_pooling(directory)
    )


def has_heads(directory: Path) -> bool:
    """Whether the directory has both heads; ValueError if it has only one."""
    present = [file for file in HEAD_FILES.values() if (directory / file).is_file()]
    if len(present) == 1:
        (absent,) = set(HEAD_FILES.values()) - set(present)
        raise ValueError(f"{directory} has {present[0]} but not {absent}: an incomplete checkpoint")
    return len(present) == 2


@contextlib.contextmanager
def open_encoder(directory: Path) -> Iterator[TorchCheckpoint]:
    """The encoder's tensors, from safetensors or .bin, in one file or in shards."""
    read: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for file in _weight_files(directory):
            is_safetensors = file.suffix == ".safetensors"
            read |= _open_safetensors(file, stack) if is_safetensors else _torch(file)
        yield TorchCheckpoint(list(read), lambda name: read[name](), str(directory))


def _weight_files(directory: Path) -> list[Path]:
    """The files with the encoder's weights; FileNotFoundError names a missing one."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        single, index = directory / name, directory / f"{name}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            files = [directory / f for f in sorted(set(read_json(index)["weight_map"].values()))]
            absent = [file.name for file in files if not file.is_file()]
            if absent:
                raise FileNotFoundError(f"{index} names {absent[0]}, which does not exist")
            return files
    raise FileNotFoundError(
        f"{directory} has no weights: expected model.safetensors or pytorch_model.bin"
    )


def open_heads(directory: Path) -> TorchCheckpoint:
    """The tensors of the two heads, named as in `HEAD_PARAMETERS`."""
    read = {}
    for stem, file in HEAD_FILES.items():
        read |= {f"{stem}.{name}": get for name, get in _torch(directory / file).items()}
    return TorchCheckpoint(list(read), lambda name: read[name](), str(directory))


def write_directory(
    directory: Path,
    params: dict[str, Any],
    config: M3Config,
    tokenizer: Tokenizer,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
    heads: bool = True,
) -> None:
    """Writes weights, tokenizer and the settings that the three libraries read.

    `heads=False` leaves out the files of the two heads. A weight file has at most `shard_bytes`
    unless one tensor is larger.
    """
    family, layers = family_of(config.encoder), config.encoder.layers
    rows = family.parameters
    tensors = {n: t.astype(DTYPES[dtype]) for n, t in to_torch(params, rows, layers)}
    _write_safetensors(directory, tensors, shard_bytes)
    if heads:
        _write_heads(directory, params, layers, dtype)
    tokenizer.save(directory)
    _set_max_length(
        directory / "tokenizer_config.json", family.tokenizer_class, config.encoder.max_length
    )
    for name, values in _settings(config, dtype).items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_heads(directory: Path, params: dict[str, Any], layers: int, dtype: str) -> None:
    """Writes the two heads with PyTorch: their readers expect `.pt` files."""
    torch = require_torch(f"writing {COLBERT_FILE} and {SPARSE_FILE}")
    heads = dict(to_torch(params, HEAD_PARAMETERS, layers))
    for stem, file in HEAD_FILES.items():
        state = {
            part: torch.from_numpy(heads[f"{stem}.{part}"].copy()).to(getattr(torch, dtype))
            for part in ("weight", "bias")
        }
        torch.save(state, directory / file)


def _set_max_length(path: Path, tokenizer_class: str, max_length: int) -> None:
    """Sets model_max_length of a tokenizer_config.json: readers truncate texts to this length."""
    values = read_json(path) if path.is_file() else {"tokenizer_class": tokenizer_class}
    values = values | {"model_max_length": max_length}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def require_torch(what: str) -> Any:
    """The torch module; an ImportError names what needs it and how to install it."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{what} needs PyTorch: pip install 'm3jax[torch]'") from error
    return torch


def _open_safetensors(file: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    try:
        handle = stack.enter_context(safe_open(str(file), framework="np"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read, is it complete? {error}") from error
    return {name: lambda name=name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


def _torch(file: Path) -> dict[str, Any]:
    torch = require_torch(f"reading {file.name}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, ...
        raise ValueError(f"{file} cannot be read as a PyTorch state dict: {error}") from error
    return {name: lambda tensor=tensor: tensor.float().numpy() for name, tensor in state.items()}


def _read_pooling(directory: Path) -> Literal["cls", "mean"]:
    """The pooling of sentence-transformers' config; "cls", as in M3, if there is none."""
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return "cls"
    values = read_json(path)
    mode = values.get("pooling_mode")
    if mode == "cls" or values.get("pooling_mode_cls_token"):
        return "cls"
    if mode == "mean" or values.get("pooling_mode_mean_tokens"):
        return "mean"
    raise ValueError(f"{path}: m3jax supports pooling by [CLS] or mean only")


def _write_safetensors(directory: Path, tensors: dict[str, np.ndarray], shard_bytes: int) -> None:
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _settings(config: M3Config, dtype: str) -> dict[str, Any]:
    encoder = config.encoder
    modules = ["Transformer", "Pooling", "Normalize"][: 3 if config.normalize else 2]
    return {
        "config.json": family_of(encoder).settings(config, dtype),
        "modules.json": [
            {
                "idx": number,
                "name": str(number),
                "path": f"{number}_{name}" if number else "",
                "type": f"sentence_transformers.models.{name}",
            }
            for number, name in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": encoder.hidden_size,
            "pooling_mode_cls_token": config.pooling == "cls",
            "pooling_mode_mean_tokens": config.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": encoder.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
    }
