"""Random models of XLM-R's form, with a tokenizer of pieces from the sample corpus."""

import collections
import functools
import math
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from m3jax.data.sample import sample_passages

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
VOCAB = 600

# Many scripts, repeated words, special tokens spelt out, nothing, one character, odd Unicode.
TEXTS = [
    "the cat sat on the mat and the dog sat on the cat",
    "",
    "x",
    "Die Katze schläft auf dem Sofa, die Katze!",
    "北京是中国的首都。北京很大。",
    "القاهرة عاصمة مصر",
    "emoji 👩‍👩‍👧 and a zero\u200bwidth space",
    "text with <s> and </s> and <unk> spelt out",
    "here is <pad> in the middle of a text",
    " leading and   many    spaces\n\tand lines ",
    "e\u0301 and é are the same after normalisation",
    "ภาษาไทย is not in the vocabulary",
    " ".join(f"word{i}" for i in range(60)),
]


def write_tiny_model(
    directory: Path,
    *,
    layers: int = 3,
    hidden: int = 32,
    colbert_dim: int | None = None,
    max_positions: int = 130,
    heads: bool = True,
    seed: int = 0,
) -> None:
    """Wide weights (std 0.2): with the usual 0.02 a tanh GELU would pass at 1e-5.

    Checked by hand, mutating the encoder one line at a time: tanh GELU, LayerNorm eps 1e-6, no
    attention scale, no mask, and positions from 0 each break the parity tests.
    """
    directory.mkdir(parents=True)
    torch.manual_seed(seed)
    config = transformers.XLMRobertaConfig(
        vocab_size=VOCAB + 6,  # more rows than tokens, as XLM-R checkpoints may have
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=max_positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        initializer_range=0.2,
    )
    model = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    if heads:
        for file, width in (("colbert_linear", colbert_dim or hidden), ("sparse_linear", 1)):
            linear = torch.nn.Linear(hidden, width)
            torch.nn.init.normal_(linear.weight, std=0.2)
            torch.nn.init.constant_(linear.bias, 1.0)  # some tokens weigh, some do not
            torch.save(linear.state_dict(), directory / f"{file}.pt")
    (directory / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(directory)


@functools.cache
def tokenizer_json() -> str:
    """A unigram tokenizer of XLM-R's form: NFKC, metaspace, `<s> pieces </s>`."""
    normalizer, metaspace = normalizers.NFKC(), pre_tokenizers.Metaspace()
    # Three languages only: the scripts of the others become <unk>.
    texts = [p.text for p in sample_passages() if p.lang in ("en", "fr", "pt")]
    words = collections.Counter(
        word
        for text in [*texts, *TEXTS[:10], TEXTS[-1]]
        for word, _ in metaspace.pre_tokenize_str(normalizer.normalize_str(text))
    )
    scores = {piece: 0.0 for piece in SPECIAL} | unigram_pieces(words, VOCAB - len(SPECIAL))
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), SPECIAL.index("<unk>")))
    tokenizer.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = metaspace  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer.to_str()


def unigram_pieces(words: collections.Counter[str], size: int) -> dict[str, float]:
    """Every character, then the substrings that cover most text, with log frequencies.

    The library's own trainer gives other pieces at every run, and with them a test of gradients
    would meet, once in some tens of runs, two tokens so near that the maximum of MaxSim is either.
    """
    counts: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + 8, len(word)) + 1):
                counts[word[start:end]] += count
    ranked = sorted(counts, key=lambda piece: (len(piece) > 1, -counts[piece] * len(piece), piece))
    total = sum(counts[piece] for piece in ranked[:size])
    return {piece: math.log(counts[piece] / total) for piece in ranked[:size]}
