"""Convert, check, extend and shrink checkpoints. DST appears when it is complete.

from-hf           a Hugging Face directory or hub name to an m3jax (Orbax) directory
to-hf             an m3jax directory to one for FlagEmbedding, sentence-transformers, transformers
extend-positions  a longer position table; texts of up to the old length give the same outputs
init-heads        heads for an encoder that has none: an identity, and token weights fitted to
                  texts; for a mean-pooled embedder (E5), a [CLS] trained to match its mean
prune-vocabulary  only the tokens that given texts need; ids renumbered, tokenizer rebuilt
merge             the mean of models trained from the same start: often better than each
quantize          int8 rows, a quarter of the size
verify            the largest difference of all outputs of two models on multilingual texts
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from m3jax.cli.options import add_flags, deprecated_alias, format_fusion

if TYPE_CHECKING:
    from m3jax.pretrained import Pretrained

EXAMPLES = """\
examples:
  m3jax convert from-hf BAAI/bge-m3 bge-m3-m3jax
  m3jax convert to-hf checkpoint bge-m3-finetuned --dtype float16
  m3jax convert extend-positions xlm-roberta-base xlm-roberta-8k --to 8194
  m3jax convert init-heads multilingual-e5 start --texts passages.jsonl --cls-from-mean
  m3jax convert prune-vocabulary MODEL SMALL --texts train/ --size 64000
  m3jax convert merge RUN-1/model RUN-2/model merged
  m3jax convert merge BAAI/bge-m3 RUN/model milder --weights 0.3,0.7
  m3jax convert verify bge-m3-m3jax BAAI/bge-m3
  m3jax convert verify bge-m3-m3jax bge-m3-finetuned --torch
"""
TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `convert` and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(
        name: str, run, first: str, second: str, help: str, sources: str | None = None
    ) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name,
            help=help,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument(
            first.lower(), metavar=first, nargs=sources, help="a model's directory or name"
        )
        sub.add_argument(second.lower(), metavar=second, help=second_help[second])
        sub.set_defaults(act=run)
        return sub

    second_help = {"DST": "a new directory", "B": "another model's directory or name"}
    action("from-hf", _from_hf, "SRC", "DST", "Hugging Face directory to m3jax")
    to_hf = action("to-hf", _to_hf, "SRC", "DST", "m3jax to a Hugging Face directory")
    to_hf.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the weights",
    )
    extend = action("extend-positions", _extend, "SRC", "DST", "longer texts for the same model")
    extend.add_argument("--to", type=int, default=8194, metavar="ROWS", help="default: 8194")
    init = action("init-heads", _init_heads, "SRC", "DST", "heads for an encoder that has none")
    _add_init_heads(init)
    prune = action("prune-vocabulary", _prune, "SRC", "DST", "only the tokens that texts need")
    _add_prune(prune)
    mean = "the mean of models trained from the same start"
    merge = action("merge", _merge, "SRC", "DST", mean, sources="+")
    merge.add_argument("--weights", metavar="W,W", help="weight of each SRC (default: equal)")
    quantize = action("quantize", _quantize, "SRC", "DST", "int8 rows, a quarter of the size")
    quantize.add_argument(
        "--word-bytes",
        type=int,
        metavar="N",
        help="bytes of each word embedding (default: its width); a quarter of the width costs "
        "little if training continues from there",
    )
    verify = action("verify", _verify, "A", "B", "compare all outputs of two models")
    verify.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"default: {TOLERANCE}")
    verify.add_argument("--torch", action="store_true", help="compute B by PyTorch (transformers)")
    verify.add_argument("--max-length", type=int, default=512, help="tokens (default: 512)")


def _add_init_heads(init: argparse.ArgumentParser) -> None:
    init.add_argument("--texts", metavar="FILE", help="JSON Lines (default: the sample corpus)")
    init.add_argument(
        "--cls-from-mean",
        action="store_true",
        help="train the upper half of the layers, without labels, until [CLS] matches the mean of "
        "all tokens; needs thousands of --texts",
    )


def _add_prune(prune: argparse.ArgumentParser) -> None:
    prune.add_argument("--texts", nargs="+", required=True, metavar="PATH", help="training files")
    add_flags(prune, "--format")
    prune.add_argument(
        "--min-count", type=int, default=1, help="keep tokens with this many occurrences"
    )
    prune.add_argument("--size", type=int, help="maximum size of the vocabulary")
    prune.add_argument(
        "--language-smoothing",
        type=float,
        default=1.0,
        metavar="P",
        help="exponent of each language's share; below 1, small languages count more (default: 1)",
    )
    deprecated_alias(prune, "--power", "--language-smoothing")
    prune.add_argument("--report", metavar="JSON", help="also write the table to a file")


def run(options: argparse.Namespace) -> int:
    """Runs the action."""
    return options.act(options)


def _from_hf(options: argparse.Namespace) -> int:
    from m3jax import pretrained

    pretrained.from_hf(options.src, options.dst)
    return _report(options.dst)


def _to_hf(options: argparse.Namespace) -> int:
    from m3jax import pretrained

    pretrained.to_hf(options.src, options.dst, options.dtype)
    fusion = format_fusion(pretrained.read_fusion(pretrained.resolve(options.src)))
    note = f"the format cannot hold the fusion weights {fusion}" if fusion else ""
    return _report(options.dst, note)


def _extend(options: argparse.Namespace) -> int:
    from m3jax import pretrained
    from m3jax.convert.positions import extend_positions

    model = pretrained.load(options.src)
    params, config = extend_positions(model.params, model.config, options.to)
    _save_like(options.src, options.dst, dataclasses.replace(model, params=params, config=config))
    return _report(
        options.dst, f"{model.config.encoder.max_length} -> {config.encoder.max_length} tokens"
    )


def _init_heads(options: argparse.Namespace) -> int:
    from m3jax import pretrained
    from m3jax.convert.heads import fit_sparse_head
    from m3jax.data.sample import sample_passages
    from m3jax.io.jsonl import read_records

    model = pretrained.load(options.src)
    if model.heads_trained:
        raise ValueError(f"{options.src} already has heads; they would be lost")
    if options.cls_from_mean and not options.texts:
        raise ValueError(
            "--cls-from-mean needs --texts: thousands of texts like those to be searched"
        )
    texts = [r.text for r in (read_records(options.texts) if options.texts else sample_passages())]
    if options.cls_from_mean:
        model = _cls_from_mean(model, texts)
    params = fit_sparse_head(model.params, model.config, model.tokenizer, texts)
    _save_like(
        options.src, options.dst, dataclasses.replace(model, params=params, heads_trained=True)
    )
    return _report(options.dst, f"token weights fitted to {len(texts)} texts")


def _cls_from_mean(model: "Pretrained", texts: list[str]) -> "Pretrained":
    """The model with [CLS] trained to match its mean; the lower half of the layers is frozen."""
    from m3jax.train.cls_from_mean import CLSFromMeanOptions, distill_mean_pooling

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0 or step == steps:
            print(f"step {step:,} of {steps:,}  1 - cosine {loss:.4f}", file=sys.stderr, flush=True)

    frozen = CLSFromMeanOptions(freeze_layers=model.config.encoder.layers // 2)
    params = distill_mean_pooling(
        model.params, model.config, model.tokenizer, texts, frozen, progress=progress
    )
    config = dataclasses.replace(model.config, pooling="cls")
    return dataclasses.replace(model, params=params, config=config)


def _prune(options: argparse.Namespace) -> int:
    import tempfile

    from m3jax import pretrained
    from m3jax.convert import vocabulary

    model = pretrained.load(options.src)
    kept = vocabulary.pieces_to_keep(
        model.tokenizer,
        vocabulary.count_pieces(model.tokenizer, _texts(options)),
        min_count=options.min_count,
        size=options.size,
        power=options.language_smoothing,
    )
    with tempfile.TemporaryDirectory(prefix="m3jax-vocabulary-") as scratch:
        params, config, tokenizer = vocabulary.prune_vocabulary(
            model.params, model.config, model.tokenizer, kept, Path(scratch)
        )
        small = dataclasses.replace(model, params=params, config=config, tokenizer=tokenizer)
        _save_like(options.src, options.dst, small)
        rows = vocabulary.compare_tokenizers(model.tokenizer, tokenizer, kept, _texts(options))
    _print_comparison(rows, options.report)
    return _report(options.dst, f"{model.config.encoder.vocab_size:,} -> {len(kept):,} pieces")


def _texts(options: argparse.Namespace):
    """Yields (language, text) of every text in the files."""
    from m3jax.data.examples import read_records_of
    from m3jax.io.jsonl import BadRecords

    for _, values, example in read_records_of(options.texts, options.format, BadRecords(0)):
        language = example.lang or example.source
        yield language, example.query
        for text in (*example.positives, *example.negatives):
            yield str(values.get("pos_lang") or language), text


def _print_comparison(rows, report: str | None) -> None:
    import json

    from rich.table import Table

    from m3jax.cli.tables import wide_console

    table = Table("language", "texts", "tokens kept", "length", "unknown before", "after")
    for row in rows:
        longer = 100 * (row.after / max(row.before, 1) - 1)
        counts = (str(row.unknown_before), str(row.unknown_after))
        kept = f"{100 * row.kept:.1f}%"
        table.add_row(row.language, f"{row.texts:,}", kept, f"{longer:+.1f}%", *counts)
    wide_console().print(table)
    if report:
        text = json.dumps([row._asdict() for row in rows], indent=1, ensure_ascii=False)
        Path(report).write_text(text + "\n", encoding="utf-8")


def _merge(options: argparse.Namespace) -> int:
    from m3jax import pretrained
    from m3jax.convert.merge import merge_params

    try:
        given = options.weights.split(",") if options.weights else [1.0] * len(options.src)
        weights = [float(weight) for weight in given]
    except ValueError:
        raise ValueError(
            f"--weights must be numbers separated by commas, got {options.weights!r}"
        ) from None
    model = pretrained.load(options.src[0])

    def params_of(name: str) -> dict:
        other = model if name == options.src[0] else pretrained.load(name)
        if not other.heads_trained:
            raise ValueError(f"{name} has no heads; m3jax convert init-heads makes them")
        if _architecture(other) != _architecture(model):
            raise ValueError(
                f"{name} and {options.src[0]} differ in vocabulary, pooling or encoder; only "
                "models trained from the same start can be merged"
            )
        return other.params

    params = merge_params([lambda name=name: params_of(name) for name in options.src], weights)
    _save_like(options.src[0], options.dst, dataclasses.replace(model, params=params))
    return _report(options.dst, f"the mean of {len(options.src)} models{_fusion_of(options.src)}")


def _fusion_of(sources: list[str]) -> str:
    """A note on the fusion weights of merged models: those of the first one are kept."""
    from m3jax import pretrained

    kept = [format_fusion(pretrained.read_fusion(pretrained.resolve(name))) for name in sources]
    if not any(kept):
        return ""
    origin = f"those of {sources[0]} ({kept[0]})" if kept[0] else f"none, as {sources[0]} has none"
    return f"; fusion weights: {origin}; `m3jax tune-weights --save` tunes them"


def _architecture(model: "Pretrained") -> tuple:
    """What models must share so that their parameters can be averaged."""
    encoder = dataclasses.replace(model.config.encoder, dropout=0.0)
    return dataclasses.replace(model.config, encoder=encoder), model.tokenizer.backend.get_vocab()


def _quantize(options: argparse.Namespace) -> int:
    from m3jax import pretrained

    size = pretrained.save_int8(options.dst, pretrained.load(options.src), options.word_bytes)
    return _report(options.dst, f"{size / 1e6:.1f} MB of weights")


def _verify(options: argparse.Namespace) -> int:
    from m3jax import pretrained
    from m3jax.convert.reference import differences, torch_outputs
    from m3jax.data.sample import sample_passages

    texts = [passage.text for passage in sample_passages()[::4]]
    first = _outputs(options.a, texts, options.max_length)
    if options.torch:
        second = torch_outputs(pretrained.resolve(options.b), texts, options.max_length)
    else:
        second = _outputs(options.b, texts, options.max_length)
    largest = differences(first, second)
    for head, gap in largest.items():
        print(f"{head:8} largest difference {gap:.3e}")
    passed = max(largest.values()) <= options.tolerance
    relation = "within" if passed else "ABOVE"
    print(f"{relation} the tolerance {options.tolerance:g} on {len(texts)} texts")
    return 0 if passed else 1


def _outputs(name: str, texts: list[str], max_length: int):
    from m3jax.config import ComputeConfig
    from m3jax.convert.reference import Outputs
    from m3jax.embed.embedder import M3Embedder

    model = M3Embedder.from_pretrained(name, compute=ComputeConfig(dtype="float32"))
    out = model.encode(texts, max_length=max_length, return_sparse=True, return_colbert_vecs=True)
    sparse = [{int(t): w for t, w in weights.items()} for weights in out["lexical_weights"]]
    return Outputs(list(out["dense_vecs"]), sparse, out["colbert_vecs"])


def _save_like(source: str, target: str, model) -> None:
    """Writes the model in the format of `source`."""
    from m3jax import checkpoint, pretrained

    ours = (pretrained.resolve(source) / checkpoint.METADATA).is_file()
    (pretrained.save if ours else pretrained.save_hugging_face)(target, model)


def _report(directory: str, note: str = "") -> int:
    print(f"wrote {Path(directory)}" + (f" ({note})" if note else ""))
    return 0
