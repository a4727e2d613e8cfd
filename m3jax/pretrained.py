"""Loading and saving of models: parameters on the mesh, config and tokenizer.

Formats of a directory: Hugging Face (`config.json`), m3jax (`m3jax.json` with Orbax arrays), and
m3jax in int8 (`m3jax.json` with one safetensors file). A name is a bundled model or one of the
Hugging Face hub; only the latter uses the network.
"""

import dataclasses
import logging
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from m3jax import checkpoint, sharding
from m3jax.config import HeadWeights, M3Config
from m3jax.convert import files, quantized
from m3jax.convert.heads import fresh_heads
from m3jax.convert.names import from_torch
from m3jax.io.atomic import new_directory
from m3jax.io.fields import from_json, to_json
from m3jax.io.hashing import new_digest
from m3jax.model.families import family_of, param_sharding
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.model.m3 import abstract_params
from m3jax.text.tokenizer import Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*_linear.pt", "sentencepiece.bpe.model"]
HUB_IGNORED = ["onnx/*", "openvino/*"]  # the weights in the formats of other runtimes
UNTRAINED_HEADS = (
    "its multi-vector and sparse heads were never trained (no colbert_linear.pt and "
    "sparse_linear.pt): the first starts as the identity, the second at random; train them "
    "before use"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model in memory.

    `heads_trained` is False where the multi-vector and sparse heads were made for an encoder that
    had none. `fusion` holds the tuned weights of the hybrid by method (`dense+sparse`, `all`).
    """

    params: dict[str, Any]
    config: M3Config
    tokenizer: Tokenizer
    source: str
    heads_trained: bool = True
    fusion: dict[str, HeadWeights] = dataclasses.field(default_factory=dict)


def load(
    name_or_dir: str | Path,
    *,
    mesh: Mesh | None = None,
    pooling: str | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
) -> Pretrained:
    """Loads a model; each device of `mesh` receives only its shard of each parameter.

    `pooling` overrides the pooling of the dense head; `seed` initialises the heads of a directory
    without any. Raises FileNotFoundError, ValueError or KeyError naming the file.
    """
    directory = resolve(name_or_dir, cache_dir)
    mesh = sharding.make_mesh() if mesh is None else mesh
    tokenizer = load_tokenizer(directory)
    if (directory / checkpoint.METADATA).is_file():
        params, config, heads_trained = _load_ours(directory, mesh)
    else:
        params, config, heads_trained = _load_hugging_face(directory, tokenizer, mesh, seed)
    if pooling is not None:
        config = dataclasses.replace(config, pooling=pooling)
    if tokenizer.vocab_size > config.encoder.vocab_size:
        raise ValueError(
            f"{directory}: the tokenizer has ids up to {tokenizer.vocab_size - 1}, the embedding "
            f"{config.encoder.vocab_size} rows; tokenizer and weights belong to different models"
        )
    if not heads_trained:
        log.warning("%s: %s", directory, UNTRAINED_HEADS)
    fusion = read_fusion(directory)
    return Pretrained(params, config, tokenizer, str(name_or_dir), heads_trained, fusion)


def save(directory: Path | str, model: Pretrained, replace: bool = False) -> None:
    """Writes `model` in the format of m3jax, atomically; `replace` overwrites an old directory."""
    with new_directory(directory, replace) as scratch:
        checkpoint.save_arrays(scratch, model.params)
        _finish(scratch, model, "orbax")


def save_int8(directory: Path | str, model: Pretrained, word_bytes: int | None = None) -> int:
    """Writes `model` in int8, atomically; returns the bytes of the weights.

    With `word_bytes` each row of the word embedding takes so many bytes.
    """
    with new_directory(directory) as scratch:
        size = quantized.write(scratch, model.params, word_bytes)
        _finish(scratch, model, "int8")
    return size


def save_hugging_face(
    directory: Path | str,
    model: Pretrained,
    dtype: str = "float32",
    shard_bytes: int = files.SHARD_BYTES,
) -> None:
    """Writes `model` as a Hugging Face directory, atomically.

    Heads that were never trained are left out, with a warning: readers would take them for trained
    ones.
    """
    if not model.heads_trained:
        log.warning("%s: without heads: %s", directory, UNTRAINED_HEADS)
    with new_directory(directory) as scratch:
        files.write_directory(
            scratch,
            model.params,
            model.config,
            model.tokenizer,
            dtype,
            shard_bytes,
            heads=model.heads_trained,
        )


def from_hf(source: str | Path, output: str | Path) -> None:
    """Converts a Hugging Face directory, or a model of the hub, to an m3jax directory."""
    save(output, load(source))


def to_hf(source: str | Path, output: str | Path, dtype: str = "float32") -> None:
    """Converts an m3jax directory to one for FlagEmbedding and sentence-transformers.

    `dtype` is that of the weights: float32, float16 or bfloat16. Fusion weights are not written,
    since the format cannot hold them.
    """
    save_hugging_face(output, load(source), dtype)


def resolve(name_or_dir: str | Path, cache_dir: str | None = None) -> Path:
    """The local directory of a model; one of the hub is downloaded.

    FileNotFoundError for an unknown name or a failed download.
    """
    path = Path(name_or_dir)
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; name the directory that holds the model")
    name = str(name_or_dir)
    if name in bundled_names():
        return Path(str(resources.files("m3jax") / "assets" / name))
    if not _HUB_NAME.fullmatch(name) or path.is_absolute() or name.startswith("."):
        bundled = ", ".join(bundled_names())
        raise FileNotFoundError(
            f"no model {name!r}: not a directory, not a bundled model ({bundled}), and not of the "
            "form owner/name of the Hugging Face hub"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=HUB_FILES,
                ignore_patterns=HUB_IGNORED,
                cache_dir=cache_dir,
            )
        )
    except Exception as error:  # connection, authorisation, absence: many classes
        raise FileNotFoundError(
            f"{name!r} is not a directory and could not be downloaded from the Hugging Face hub: "
            f"{type(error).__name__}: {error}"
        ) from error


def read_fusion(directory: Path | str) -> dict[str, HeadWeights]:
    """The tuned weights of the hybrid in a directory of m3jax, by method; {} if it has none.

    ValueError names the file if they are malformed.
    """
    if not (Path(directory) / checkpoint.METADATA).is_file():
        return {}
    stored = checkpoint.read_metadata(Path(directory)).get("fusion", {})
    try:
        return {method: from_json(HeadWeights, stored[method]) for method in stored}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{Path(directory) / checkpoint.METADATA}: fusion must hold dense, sparse and colbert "
            f"for each method: {error}"
        ) from error


def write_fusion(directory: Path | str, method: str, weights: HeadWeights) -> None:
    """Stores the weights of a fused method with a model, as its default."""
    check_keeps_fusion(directory)
    values = checkpoint.read_metadata(Path(directory))
    values["fusion"] = values.get("fusion", {}) | {method: to_json(weights)}
    checkpoint.write_metadata(Path(directory), values)


def check_keeps_fusion(directory: Path | str, config: M3Config | None = None) -> None:
    """FileNotFoundError if `directory` cannot store weights: only the formats of m3jax can.

    ValueError if its model has another shape than `config`, the model of an index, and so other
    scores. (A copy in int8 has the same shape, and nearly the same scores.)
    """
    if not (Path(directory) / checkpoint.METADATA).is_file():
        raise FileNotFoundError(
            f"{directory} has no {checkpoint.METADATA}: weights are stored only in a model "
            "directory of m3jax; `m3jax convert from-hf` writes one"
        )
    stored = from_json(M3Config, checkpoint.read_metadata(Path(directory))["config"])
    if config is not None and dataclasses.replace(config, pooling=stored.pooling) != stored:
        raise ValueError(
            f"{directory} is not the model of the index: layers, width, positions or vocabulary "
            "differ. Index with it, and tune on that index"
        )


def bundled_names() -> list[str]:
    """The models that ship inside the package."""
    root = resources.files("m3jax") / "assets"
    return sorted(d.name for d in root.iterdir() if (d / checkpoint.METADATA).is_file())


def fingerprint(params: dict[str, Any], config: M3Config) -> str:
    """16 hex digits of a hash of weights and config, independent of the format on disk."""
    digest = new_digest(repr(sorted(to_json(config).items())).encode(), size=8)
    for path, leaf in sorted(sharding.flatten(params).items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _load_ours(directory: Path, mesh: Mesh) -> tuple[dict[str, Any], M3Config, bool]:
    metadata = checkpoint.read_metadata(directory)
    config = from_json(M3Config, metadata["config"])
    heads_trained = not metadata.get("notes")
    if metadata["weights"] == "int8":
        flat = quantized.read(directory)
        shapes = {p: a.shape for p, a in sharding.flatten(abstract_params(config)).items()}
        if {p: a.shape for p, a in flat.items()} != shapes:
            raise ValueError(f"{directory / quantized.FILE} does not hold the model of its config")
        return _place(flat.items(), mesh), config, heads_trained
    like = sharding.map_params(
        lambda path, leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=param_sharding(path, leaf.shape, mesh)
        ),
        abstract_params(config),
    )
    return checkpoint.load_arrays(directory, like), config, heads_trained


def _load_hugging_face(
    directory: Path, tokenizer: Tokenizer, mesh: Mesh, seed: int
) -> tuple[dict[str, Any], M3Config, bool]:
    config = dataclasses.replace(files.read_config(directory), special_ids=tokenizer.special_ids)
    heads = None
    if files.has_heads(directory):
        heads = files.open_heads(directory)
        if "colbert_linear.weight" in heads.names:
            width = heads.read("colbert_linear.weight").shape[0]
            config = dataclasses.replace(config, colbert_dim=width)
    rows = family_of(config.encoder).parameters
    with files.open_encoder(directory) as encoder:
        flat = _place(from_torch(encoder, config, rows), mesh, nested=False)
    if heads is not None:
        flat |= _place(from_torch(heads, config, HEAD_PARAMETERS), mesh, nested=False)
    else:
        flat |= _place(fresh_heads(config, seed).items(), mesh, nested=False)
    return sharding.unflatten(flat), config, heads is not None


def _place(leaves: Any, mesh: Mesh, nested: bool = True) -> dict[str, Any]:
    """Moves (path, array) pairs to the mesh one by one: the host holds one array at a time."""
    flat = {
        path: sharding.shard_array(array, param_sharding(path, array.shape, mesh))
        for path, array in leaves
    }
    return sharding.unflatten(flat) if nested else flat


def _finish(directory: Path, model: Pretrained, weights: str) -> None:
    model.tokenizer.save(directory, compressed=weights == "int8")
    values = {"config": to_json(model.config), "weights": weights}
    if not model.heads_trained:
        values["notes"] = [UNTRAINED_HEADS]
    if model.fusion:
        values["fusion"] = {method: to_json(weights) for method, weights in model.fusion.items()}
    checkpoint.write_metadata(directory, values)
