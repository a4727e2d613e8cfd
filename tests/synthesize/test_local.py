"""Questions by a local causal model."""

import pytest

from m3jax.synthesize.generators import Request


def test_a_local_causal_model_answers_in_batches(tiny_dir, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from m3jax.synthesize.local import local_generator

    torch.manual_seed(0)
    directory = tmp_path / "causal"
    config = transformers.LlamaConfig(
        vocab_size=606,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        initializer_range=0.5,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(tiny_dir).save_pretrained(directory)
    made = local_generator(directory, max_tokens=6, batch_size=3)
    some = [Request(text, "", "en") for text in ("the cat", "a much longer text on the mat", "x")]
    together = made.answer(some)
    assert together == [made.answer([request])[0] for request in some]  # padding changes nothing
    assert all(0 < reply.completion_tokens <= 6 for reply in together)
    assert together[0].prompt_tokens < together[1].prompt_tokens
    with pytest.raises(FileNotFoundError, match="is not a model"):
        local_generator(tmp_path / "absent")
