"""Token ids equal those of transformers; bad texts and directories are refused."""

import subprocess
import sys

import pytest
from support.tiny import TEXTS

from m3jax.text.batches import cls_columns
from m3jax.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return load_tokenizer(tiny_dir)


def test_tokens_are_those_of_transformers(tokenizer, tiny_dir):
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(tiny_dir)
    for max_length in (2, 3, 10, 128):
        want = theirs(TEXTS, truncation=True, max_length=max_length)["input_ids"]
        got = [ids.tolist() for ids in tokenizer.encode(TEXTS, max_length)]
        assert got == want


def test_a_lone_surrogate_becomes_a_replacement_character(tokenizer):
    broken, replaced = tokenizer.encode(["a \ud800 b", "a \ufffd b"], 20)
    assert broken.tolist() == replaced.tolist()


def test_what_is_no_text_is_refused_by_number(tiny_dir):
    """In a process of its own: under pytest the type checker may be the first to complain."""
    code = (
        "import sys; from m3jax.text.tokenizer import load_tokenizer\n"
        "load_tokenizer(sys.argv[1]).encode(['a', 3], 9)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tiny_dir)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 1 and "TypeError: text 1 is int, not a string: 3" in out.stderr


def test_max_length_must_leave_room(tokenizer):
    with pytest.raises(ValueError, match="max_length"):
        tokenizer.encode(["fine"], 1)


def test_mcls_inserts_cls_before_every_so_many_tokens(tokenizer):
    (plain,) = tokenizer.encode([TEXTS[-1]], 128)
    pieces = plain[1:-1].tolist()
    (ids,) = tokenizer.encode([TEXTS[-1]], 128, cls_every=20)
    is_cls = cls_columns(len(ids), 20)
    assert (ids[is_cls] == tokenizer.cls_id).all()
    assert is_cls.sum() == -(-len(pieces) // 20) > 1
    assert ids[~is_cls].tolist() == [*pieces, tokenizer.eos_id][: (~is_cls).sum()]
    short = tokenizer.encode([TEXTS[0]], 128, cls_every=64)[0]
    assert short.tolist() == tokenizer.encode([TEXTS[0]], 128)[0].tolist()
    assert len(tokenizer.encode([TEXTS[-1]], 20, cls_every=7)[0]) == 20


def test_a_directory_without_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json"):
        load_tokenizer(tmp_path)
