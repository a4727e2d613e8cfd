"""A pruned vocabulary: equal outputs if all pieces are kept, shorter pieces otherwise."""

import json

import numpy as np
import pytest
import tokenizers

from m3jax import M3Embedder
from m3jax.cli.main import main
from m3jax.config import EncoderConfig, M3Config
from m3jax.convert import vocabulary
from m3jax.text.tokenizer import Tokenizer, load_tokenizer

KEPT = ["the cat and the dog", "Die Katze schläft", "the encoder"]


@pytest.fixture(scope="module")
def pruned(tiny_dir, tmp_path_factory):
    """The directory, made by the command, and its report."""
    folder = tmp_path_factory.mktemp("pruned")
    lines = [json.dumps({"text": text, "lang": "xx"}) + "\n" for text in KEPT]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    texts = ["--texts", str(folder / "texts.jsonl"), "--format", "texts"]
    arguments = ["convert", "prune-vocabulary", str(tiny_dir), str(folder / "small"), *texts]
    assert main([*arguments, "--report", str(folder / "report.json")]) == 0
    return folder / "small", json.loads((folder / "report.json").read_text())


def pairs(language, texts):
    return [(language, text) for text in texts]


def by_piece(model, weights):
    return {model.tokenizer.token(int(i)): w for i, w in weights.items()}


def test_texts_whose_pieces_are_kept_give_the_same_outputs(tiny, pruned):
    small = M3Embedder.from_pretrained(pruned[0])
    assert small.config.encoder.vocab_size < tiny.config.encoder.vocab_size
    for text in KEPT:
        a, b = (
            model.encode(text, return_sparse=True, return_colbert_vecs=True)
            for model in (tiny, small)
        )
        np.testing.assert_array_equal(a["dense_vecs"], b["dense_vecs"])
        np.testing.assert_array_equal(a["colbert_vecs"], b["colbert_vecs"])
        want = by_piece(tiny, a["lexical_weights"])
        assert by_piece(small, b["lexical_weights"]) == want and want


def test_other_texts_are_split_into_shorter_pieces(tiny, pruned):
    small = load_tokenizer(pruned[0])
    text = "retrieval of multilingual passages"
    old, new = (t.encode([text], 100)[0] for t in (tiny.tokenizer, small))
    assert len(new) > len(old) and small.unk_id not in new
    assert small.decode(new[1:-1].tolist()) == text
    assert max(new) < small.vocab_size


def test_the_pytorch_world_reads_the_same_ids(pruned):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(pruned[0])
    ours = load_tokenizer(pruned[0])
    for text in (*KEPT, "retrieval übergröße"):
        assert theirs(text)["input_ids"] == ours.encode([text], 100)[0].tolist()
    names = ("<s>", "<pad>", "</s>", "<unk>")
    assert [theirs.convert_tokens_to_ids(n) for n in names] == [0, 1, 2, 3]


def test_a_real_vocabulary_keeps_its_mask_and_every_character(backbone_dir, tmp_path):
    real = load_tokenizer(backbone_dir)
    kept = vocabulary.pieces_to_keep(real, vocabulary.count_pieces(real, pairs("xx", KEPT)))
    config = M3Config(encoder=EncoderConfig(vocab_size=real.vocab_size))
    word = np.arange(real.vocab_size, dtype=np.float32)[:, None]
    params, config, small = vocabulary.prune_vocabulary(
        {"encoder": {"embeddings": {"word": word}}}, config, real, kept, tmp_path
    )
    assert 10_000 < len(kept) == small.vocab_size == config.encoder.vocab_size < 20_000
    assert small.backend.token_to_id("<mask>") == len(kept) - 1
    text = "Ελληνικά 日本語 العربية ไทย हिन्दी 한국어 <mask> ქართული"
    old, new = (t.encode([text], 100)[0] for t in (real, small))
    assert small.unk_id not in new and len(new) > len(old)
    rows = np.asarray(params["encoder"]["embeddings"]["word"])[new, 0].astype(int)
    assert [real.token(i) for i in rows.tolist()] == [small.token(i) for i in new.tolist()]


def test_the_report_counts(tiny, pruned):
    (row,) = pruned[1]
    tokens = int(tiny.tokenizer.count(KEPT).sum()) - 2 * len(KEPT)
    assert row["language"] == "xx" and row["texts"] == 3 and row["kept"] == 1.0
    assert row["before"] == row["after"] == tokens
    assert row["unknown_before"] == row["unknown_after"] == 0


def test_the_most_frequent_pieces_fill_a_given_size(tiny):
    counts = vocabulary.count_pieces(
        tiny.tokenizer, pairs("xx", ["the cat", "the dog", "the cat and"])
    )
    base = len(vocabulary.pieces_to_keep(tiny.tokenizer, {}))
    kept = vocabulary.pieces_to_keep(tiny.tokenizer, counts, size=base + 1)
    assert len(kept) == base + 1
    (extra,) = set(kept.tolist()) - set(vocabulary.pieces_to_keep(tiny.tokenizer, {}).tolist())
    long = {i: n for i, n in counts["xx"].items() if len(tiny.tokenizer.token(i).strip("▁")) > 1}
    assert counts["xx"][extra] == max(long.values())
    with pytest.raises(ValueError, match="below the"):
        vocabulary.pieces_to_keep(tiny.tokenizer, counts, size=base - 1)


def test_languages_with_little_text_weigh_more_below_power_one(tiny):
    texts = [*pairs("aa", ["the cat", "a cat", "one cat"] * 50), ("bb", "the dog")]
    counts = vocabulary.count_pieces(tiny.tokenizer, texts)
    total = {name: counter.total() for name, counter in counts.items()}
    (only,) = [i for i in counts["bb"] if i not in counts["aa"]][:1]
    plain, fair = (vocabulary.importance(counts, power) for power in (1.0, 0.0))
    assert plain[only] == counts["bb"][only]
    assert fair[only] == pytest.approx(counts["bb"][only] / total["bb"])
    often = max(counts["aa"], key=lambda i: counts["aa"][i])
    assert plain[often] > plain[only] and fair[only] > fair[often] / 2


def test_a_text_that_follows_itself_counts_once(tiny):
    once, twice = (
        vocabulary.count_pieces(tiny.tokenizer, pairs("aa", texts))
        for texts in (["the cat", "the dog"], ["the cat", "the cat", "the dog"])
    )
    assert once == twice


def test_only_unigram(tiny, tmp_path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, "<unk>"))
    other = Tokenizer(words, 0, 0, 0, 0, tmp_path)
    with pytest.raises(ValueError, match="only a Unigram"):
        vocabulary.pieces_to_keep(other, {})
