"""RetroMAE: the loss against PyTorch, what the masks promise, and memory at 8,192 tokens."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
import transformers
from support.tiny import TEXTS

from m3jax import pretrained, sharding
from m3jax.config import ComputeConfig, EncoderConfig, M3Config, RetroMAEConfig
from m3jax.convert.names import to_torch
from m3jax.io.fields import override
from m3jax.model.families import param_sharding
from m3jax.model.m3 import PLAIN, abstract_params, encode_batch
from m3jax.model.retromae import abstract_retromae, cross_entropy, decode, init_retromae
from m3jax.model.xlm_roberta import XLM_ROBERTA
from m3jax.text.batches import rows_of_tokens
from m3jax.text.packing import pack_texts
from m3jax.train.retromae import (
    MaskedTokens,
    Masks,
    loss_of_masks,
    mask_tokens,
    most_masked,
    retromae_loss,
    visible_context,
)
from m3jax.types import TextBatch

MASK = 605  # the tiny model has six rows that no token uses
CONFIG = RetroMAEConfig(mask_id=MASK, logits_chunk=40)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def model(tiny_dir):
    """The tiny model with a decoder and a head, both wide (std 0.2), no bias or scale at rest."""
    loaded = pretrained.load(tiny_dir, mesh=sharding.make_mesh(devices=jax.devices()[:1]))
    leaves, tree = jax.tree.flatten(init_retromae(loaded.config, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    extra = tree.unflatten([x + e for x, e in zip(leaves, noise, strict=True)])
    return dataclasses.replace(loaded, params=loaded.params | extra)


@pytest.fixture(scope="module")
def token_ids(model):
    return model.tokenizer.encode([text for text in TEXTS if len(text) > 1], 48)


@pytest.fixture(scope="module")
def batch(token_ids) -> TextBatch:
    return rows_of_tokens(token_ids, [[i] for i in range(len(token_ids))], 48, pad_id=1)[0]


def random_batch(width, rows=1, texts=1, real=1.0, vocab=600) -> TextBatch:
    """Rows of `texts` equally long texts that fill the share `real` of the width."""
    rng = np.random.default_rng(0)
    length = int(width * real) // texts
    ids = [
        np.array([0, *rng.integers(4, vocab, length - 2), 2], np.int32) for _ in range(rows * texts)
    ]
    layout = np.arange(rows * texts).reshape(rows, texts).tolist()
    return rows_of_tokens(ids, layout, width, pad_id=1)[0]


def draw(model_config, batch, config=CONFIG, key=KEY):
    """Masked tokens and the decoder's whole mask [n, s, s]."""
    tokens = mask_tokens(batch, model_config, config, key)
    visible = visible_context(jnp.asarray(batch.segment_ids), config.decoder_mask, key)
    return tokens, visible(jnp.arange(batch.token_ids.shape[1], dtype=jnp.int32))


def whole(seen):
    """A mask that stands in memory as the function that the decoder asks."""
    return lambda columns: jnp.asarray(seen)[:, columns]


def value_and_grad(model, batch, tokens, visible, compute=PLAIN):
    def loss(params):
        return loss_of_masks(params, batch, Masks(tokens, visible), model.config, CONFIG, compute)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)


@pytest.fixture(scope="module")
def plain(model, batch):
    """(masked tokens, mask, loss, metrics, gradients) of the batch, the whole mask in one block."""
    tokens, seen = draw(model.config, batch)
    (loss, metrics), grads = value_and_grad(model, batch, tokens, whole(seen))
    return tokens, seen, loss, metrics, grads


def assert_gradients_close(ours, theirs, tolerance):
    ours, theirs = sharding.flatten(ours), sharding.flatten(theirs)
    assert sorted(ours) == sorted(theirs)
    for path, want in theirs.items():
        scale = max(float(np.abs(want).max()), 1e-6)
        if path.endswith("key/bias"):
            scale = 1.0  # zero but for rounding: softmax does not see a shift of all scores
        np.testing.assert_allclose(ours[path], want, atol=tolerance * scale, rtol=0, err_msg=path)


def torch_loss(directory, extra, batch, tokens, seen, eps):
    """The objective written down plainly: all logits, the whole mask, one text a row."""
    encoder = transformers.XLMRobertaModel.from_pretrained(directory, add_pooling_layer=False)
    encoder.eval()
    weights = {p: torch.tensor(np.asarray(x)) for p, x in sharding.flatten(extra).items()}
    weights = {path: x.requires_grad_() for path, x in weights.items()}
    ids = torch.tensor(np.asarray(batch.token_ids)).long()
    positions = torch.tensor(batch.positions).long()
    real = torch.tensor(batch.segment_ids).long()
    read = torch.tensor(np.asarray(tokens.token_ids)).long()
    masked = torch.tensor(np.asarray(tokens.masked))

    def linear(name, x):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}/scale"], weights[f"{name}/bias"], eps)

    def guess_loss(hidden, where):
        inner = norm("mlm/norm", F.gelu(linear("mlm/dense", hidden)))
        logits = inner @ encoder.embeddings.word_embeddings.weight.T + weights["mlm/bias"]
        return F.cross_entropy(logits[where], ids[where])

    hidden = encoder(read, real, position_ids=positions).last_hidden_state
    sentence = hidden[:, :1]
    embedded = encoder.embeddings(input_ids=ids, position_ids=positions)
    context = torch.cat([sentence, embedded[:, 1:]], dim=1)
    query = sentence + encoder.embeddings.position_embeddings(positions)

    def heads(x):
        return x.reshape(*x.shape[:2], encoder.config.num_attention_heads, -1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        heads(linear("decoder/query", query)),
        heads(linear("decoder/key", context)),
        heads(linear("decoder/value", context)),
        # A row of padding sees everything, so that no row is empty.
        (torch.tensor(np.asarray(seen)) | (real == 0)[:, :, None])[:, None],
    )
    mixed = mixed.transpose(1, 2).reshape(query.shape)
    middle = norm("decoder/output_norm", query + linear("decoder/output", mixed))
    outer = linear("decoder/down", F.gelu(linear("decoder/up", middle)))
    decoded = norm("decoder/down_norm", middle + outer)

    rebuilt = torch.zeros_like(masked)
    for row, length in enumerate(batch.lengths[:, 0]):
        rebuilt[row, 1 : length - 1] = True
    losses = guess_loss(hidden, masked), guess_loss(decoded, rebuilt)
    (losses[0] + losses[1]).backward()
    return losses, dict(encoder.named_parameters()), weights


@pytest.mark.parity
def test_loss_and_every_gradient_equal_torch(tiny_dir, model, batch, plain):
    tokens, seen, loss, metrics, grads = plain
    extra = {name: model.params[name] for name in ("decoder", "mlm")}
    eps = model.config.encoder.eps
    want, named, weights = torch_loss(tiny_dir, extra, batch, tokens, seen, eps)
    np.testing.assert_allclose(metrics["encoder_loss"], want[0].detach(), rtol=1e-5)
    np.testing.assert_allclose(metrics["decoder_loss"], want[1].detach(), rtol=1e-5)
    np.testing.assert_allclose(loss, (want[0] + want[1]).detach(), rtol=1e-5)
    for name, ours in to_torch(grads, XLM_ROBERTA.parameters, 3):
        theirs = cast(torch.Tensor, named[name].grad)
        scale = 1.0 if name.endswith("key.bias") else float(theirs.abs().max())
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale, rtol=0, err_msg=name)
    assert_gradients_close(
        {name: grads[name] for name in extra},
        sharding.unflatten({path: np.asarray(w.grad) for path, w in weights.items()}),
        1e-4,
    )
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads["heads"]))


def test_packed_rows_equal_padded_ones_under_the_same_masks(model, token_ids, plain):
    tokens, seen, want, _, want_grads = plain
    rows = pack_texts([len(ids) for ids in token_ids], 90)
    packed, slots = rows_of_tokens(token_ids, rows, 90, pad_id=1)
    assert packed.lengths.shape[1] > 2
    ids, masked = packed.token_ids.copy(), np.zeros(packed.token_ids.shape, bool)
    packed_seen = np.zeros((len(rows), 90, 90), bool)
    for slot in slots:
        here = slice(slot.start, slot.start + slot.length)
        ids[slot.row, here] = tokens.token_ids[slot.text, : slot.length]
        masked[slot.row, here] = tokens.masked[slot.text, : slot.length]
        packed_seen[slot.row, here, here] = seen[slot.text, : slot.length, : slot.length]
    packed_tokens = MaskedTokens(jnp.asarray(ids), jnp.asarray(masked))
    (got, _), grads = value_and_grad(model, packed, packed_tokens, whole(packed_seen))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert_gradients_close(grads, want_grads, 2e-5)


def test_blocks_change_nothing(model, batch, plain):
    """The mask is drawn inside the blocks, of which the last is not full, and is still the same."""
    tokens, _, want, _, want_grads = plain
    visible = visible_context(jnp.asarray(batch.segment_ids), CONFIG.decoder_mask, KEY)
    compute = ComputeConfig(query_block=7)
    (got, _), grads = value_and_grad(model, batch, tokens, visible, compute)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert_gradients_close(grads, want_grads, 1e-5)


def test_bfloat16_stays_close(model, batch, plain):
    tokens, seen, want, _, _ = plain
    compute = ComputeConfig(dtype="bfloat16")
    (half, _), grads = value_and_grad(model, batch, tokens, whole(seen), compute)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((half, grads)))
    np.testing.assert_allclose(half, want, rtol=2e-2)


@pytest.mark.parametrize(("width", "texts"), [(64, 1), (8192, 1), (8192, 11)])
def test_the_encoder_masks_its_share_at_any_length(width, texts):
    batch = random_batch(width, rows=2, texts=texts, real=0.9)
    model = M3Config(encoder=EncoderConfig(vocab_size=606))
    tokens = jax.jit(mask_tokens, static_argnums=(1, 2))(batch, model, CONFIG, KEY)
    ids, masked = np.asarray(tokens.token_ids), np.asarray(tokens.masked)
    special = np.isin(batch.token_ids, model.special_ids)
    assert not masked[special].any()
    for row in range(2):
        for text in range(1, texts + 1):
            here = batch.segment_ids[row] == text
            assert masked[row, here].sum() == round(0.3 * (here.sum() - 2))
    assert (masked.sum(axis=1) <= most_masked(batch, CONFIG)).all()
    assert (ids == batch.token_ids)[~masked].all()
    if width > 1000:  # about 4,400 masked tokens: three standard deviations are 0.02
        assert (ids[masked] == MASK).mean() == pytest.approx(0.8, abs=0.02)
        assert (ids == batch.token_ids)[masked].mean() == pytest.approx(0.1, abs=0.02)


def test_short_and_odd_texts(model):
    """One token is masked at least; specials and a spelt-out <mask> never; none where empty."""
    texts = [[0, 2], [0, 9, 2], [0, 3, MASK, 9, 2, 1, 2], [0], *[[0, 9]] * 4, [0, 9, 9, 2]]
    arrays = [np.array(ids, np.int32) for ids in texts]
    for rows, width in (([[i] for i in range(9)], 8), ([[0, 1, 2, 3], [4, 5, 6, 7, 8]], 16)):
        batch, slots = rows_of_tokens(arrays, rows, width, pad_id=1)
        drawn = jax.jit(mask_tokens, static_argnums=(1, 2))(batch, model.config, CONFIG, KEY)
        masked = np.asarray(drawn.masked)
        found = {s.text: masked[s.row, s.start : s.start + s.length] for s in slots}
        assert [int(found[i].sum()) for i in range(9)] == [0, 1, 1, 0, 1, 1, 1, 1, 1]
        assert found[1][1] and found[2][3] and not masked[batch.segment_ids == 0].any()
        assert (masked.sum(axis=1) <= most_masked(batch, CONFIG)).all()


def test_empty_texts_and_rows_cost_nothing(model):
    """Nothing to guess is a loss of 0 with gradients of 0, not NaN."""
    batch, _ = rows_of_tokens([np.array([0, 2], np.int32)], [[0]], 8, pad_id=1, num_rows=2)

    def loss(params):
        return retromae_loss(params, batch, model.config, CONFIG, KEY)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(model.params)
    assert value == 0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_every_token_is_masked_equally_often(model):
    batch = random_batch(22)
    keys = jax.random.split(KEY, 2000)
    masked = jax.jit(jax.vmap(lambda key: mask_tokens(batch, model.config, CONFIG, key).masked))
    share = np.asarray(masked(keys)).mean(axis=(0, 1))
    np.testing.assert_allclose(share[1:21], 0.3, atol=0.045)  # 4.4 standard deviations
    np.testing.assert_array_equal(share[[0, 21]], 0)


@pytest.mark.parametrize(("width", "texts"), [(64, 1), (8192, 1), (8192, 5)])
def test_the_attention_mask_of_the_decoder(width, texts):
    batch = random_batch(width, rows=2, texts=texts, real=0.9)
    columns = np.arange(1, width, 1 if width < 100 else 199).astype(np.int32)
    visible = visible_context(jnp.asarray(batch.segment_ids), 0.5, KEY)
    seen = np.asarray(jax.jit(visible)(columns))
    length = int(width * 0.9) // texts
    for row in range(2):
        for number, column in enumerate(columns):
            segment = batch.segment_ids[row, column]
            if segment == 0:
                assert not seen[row, number].any()
                continue
            start = (segment - 1) * length
            own, outside = slice(start, start + length), seen[row, number].copy()
            outside[own] = False
            assert not outside.any()
            assert seen[row, number, start]
            assert column == start or not seen[row, number, column]
            # Four standard deviations of a share of `length` fair draws.
            assert abs(seen[row, number, own].mean() - 0.5) < 4 * 0.5 / length**0.5 + 2 / length
    assert not (seen[0] == seen[1]).all(axis=-1).all()  # rows draw on their own


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_the_decoder_mask_ratio(ratio):
    batch = random_batch(1000, rows=2)
    visible = visible_context(jnp.asarray(batch.segment_ids), ratio, KEY)
    seen = np.asarray(jax.jit(visible)(np.arange(1, 21, dtype=np.int32)))
    assert seen.mean() == pytest.approx(1 - ratio, abs=0.012)  # five standard deviations


def test_masks_are_functions_of_the_key(model, batch):
    config = model.config
    (one, seen), (same, same_seen) = draw(config, batch), draw(config, batch)
    other, other_seen = draw(config, batch, key=jax.random.key(8))
    assert (one.token_ids == same.token_ids).all() and (seen == same_seen).all()
    assert (one.masked != other.masked).any() and (seen != other_seen).any()


def test_chunked_logits_equal_unchunked_ones(model):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(3, 25, 32)).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, 606, (3, 25)).astype(np.int32))
    mask = jnp.asarray(rng.random((3, 25)) < 0.6)
    params = {"encoder": model.params["encoder"], "mlm": model.params["mlm"]}

    def ours(params, hidden):
        return cross_entropy(params, hidden, labels, mask, model.config.encoder, 30)

    def plain(params, hidden):
        mlm = params["mlm"]
        inner = hidden @ mlm["dense"]["kernel"] + mlm["dense"]["bias"][None, None]
        inner = inner * (1 + jax.scipy.special.erf(inner / np.sqrt(2).astype(np.float32))) / 2
        inner = inner - inner.mean(-1, keepdims=True)
        inner = inner / jnp.sqrt((inner**2).mean(-1, keepdims=True) + 1e-5)
        inner = inner * mlm["norm"]["scale"][None, None] + mlm["norm"]["bias"][None, None]
        logits = inner @ params["encoder"]["embeddings"]["word"].T + mlm["bias"][None, None]
        chosen = jax.nn.one_hot(labels, 606)
        losses = -(jax.nn.log_softmax(logits) * chosen).sum(-1)
        right = (logits.argmax(-1) == labels)[mask]
        return losses[mask].mean(), right.astype(jnp.float32).mean()

    got, grads = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(params, hidden)
    want, want_grads = jax.value_and_grad(plain, (0, 1), has_aux=True)(params, hidden)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert_gradients_close(grads[0], want_grads[0], 1e-5)
    np.testing.assert_allclose(grads[1], want_grads[1], atol=1e-6)


def test_accuracy_counts_the_best_guess(model):
    params = {"encoder": model.params["encoder"], "mlm": dict(model.params["mlm"])}
    params["mlm"]["bias"] = jnp.zeros(606).at[17].set(1e4)
    labels = jnp.array([[17, 17, 3, 17]])
    mask = jnp.array([[True, True, True, False]])
    _, accuracy = cross_entropy(params, jnp.ones((1, 4, 32)), labels, mask, model.config.encoder, 2)
    assert accuracy == pytest.approx(2 / 3)


def test_a_token_affects_only_the_queries_that_attend_to_it(model):
    """Bit for bit. Its own row least of all: there is no way but the text's embedding."""
    batch = random_batch(32, texts=2)
    _, seen = draw(model.config, batch)
    sentences = jax.random.normal(KEY, (1, 2, 32))

    @jax.jit
    def decoded(token_ids, sentences):
        return decode(
            model.params,
            batch._replace(token_ids=token_ids),
            sentences,
            lambda columns: seen[:, columns],
            model.config.encoder,
        )

    ids = jnp.asarray(batch.token_ids)
    before = decoded(ids, sentences)
    for column in range(32):
        after = decoded(ids.at[0, column].add(100), sentences)
        changed = np.asarray((before != after).any(axis=-1))[0]
        first = column in (0, 16)  # its place holds the embedding, the token is not looked at
        np.testing.assert_array_equal(changed, ~np.array(first) & np.asarray(seen[0, :, column]))
    moved = np.asarray((before != decoded(ids, sentences.at[0, 1].add(1.0))).any(axis=-1))[0]
    np.testing.assert_array_equal(moved, np.arange(32) >= 16)  # the text's embedding, every row


def test_the_encoder_does_not_see_the_masked_tokens(model, batch):
    """With no random and no kept tokens, what stood under <mask> makes no difference."""
    config = dataclasses.replace(CONFIG, mask_share=1.0, random_share=0.0)
    tokens = mask_tokens(batch, model.config, config, KEY)
    other = np.where(np.asarray(tokens.masked), 50, batch.token_ids).astype(np.int32)
    again = mask_tokens(batch._replace(token_ids=other), model.config, config, KEY)
    assert (np.asarray(tokens.token_ids)[np.asarray(tokens.masked)] == MASK).all()
    np.testing.assert_array_equal(tokens.token_ids, again.token_ids)


def test_eight_devices_draw_the_masks_and_give_the_loss_of_one(model):
    batch = random_batch(40, rows=8, real=0.8)
    mesh = sharding.make_mesh(2, 2, 2)
    place = param_sharding

    def loss(params, batch):
        return retromae_loss(params, batch, model.config, CONFIG, KEY)[0]

    step = jax.jit(jax.value_and_grad(loss))
    want, want_grads = step(model.params, batch)
    spread = sharding.map_params(
        lambda path, x: jax.device_put(np.asarray(x), place(path, x.shape, mesh)), model.params
    )
    got, grads = step(spread, jax.device_put(batch, sharding.batch_sharding(mesh)))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert_gradients_close(grads, want_grads, 2e-5)


def test_dropout_is_drawn_from_its_key_in_encoder_and_decoder(model, batch):
    @jax.jit
    def loss(dropout_key):
        return retromae_loss(
            model.params, batch, model.config, CONFIG, KEY, dropout_key=dropout_key
        )[1]

    one, same, other = (loss(jax.random.key(number)) for number in (1, 1, 2))
    for name in ("encoder_loss", "decoder_loss"):
        assert one[name] == same[name] != other[name]


def test_the_decoder_may_start_as_the_last_layer(model):
    extra = init_retromae(model.config, KEY, model.params["encoder"])
    for path, leaf in sharding.flatten(extra["decoder"]).items():
        last = sharding.flatten(model.params["encoder"]["layers"])[path][-1]
        np.testing.assert_array_equal(leaf, last)
    assert jax.tree.map(jnp.shape, extra) == jax.tree.map(
        jnp.shape, abstract_retromae(model.config)
    )


def test_an_m3_model_ignores_the_extra_parameters(model, batch):
    plain = {name: model.params[name] for name in ("encoder", "heads")}
    a, b = encode_batch(model.params, batch, model.config), encode_batch(plain, batch, model.config)
    assert (a.dense == b.dense).all()


def test_wrong_settings_are_refused(model, batch):
    with pytest.raises(ValueError, match="not in the vocabulary of 606 tokens"):
        retromae_loss(model.params, batch, model.config, RetroMAEConfig(), KEY)
    for wrong in ("encoder_mask=0.0", "decoder_mask=1.0", "logits_chunk=0"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            override(CONFIG, wrong)
    with pytest.raises(ValueError, match="sum to at most 1"):
        RetroMAEConfig(mask_share=0.95)


def test_both_losses_fall_on_texts_seen_again_and_again(model, token_ids):
    batch, _ = rows_of_tokens(
        [ids[:20] for ids in token_ids], [[i] for i in range(6)], 20, pad_id=1
    )
    config = dataclasses.replace(CONFIG, logits_chunk=1000)
    params = jax.tree.map(lambda x: x / 4 if x.ndim > 1 else x, model.params)
    optimizer = optax.adam(1e-2)

    def step(carry, key):
        params, state = carry
        grads, metrics = jax.grad(
            lambda params: retromae_loss(params, batch, model.config, config, key), has_aux=True
        )(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), metrics

    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and int32 counts
        carry = params, optimizer.init(params)
        _, history = jax.jit(lambda *args: jax.lax.scan(step, *args))(
            carry, jax.random.split(KEY, 30)
        )
    for name in ("encoder_loss", "decoder_loss"):
        assert history[name][-5:].mean() < history[name][0] - 1.5, (name, history[name])


def test_memory_at_8192_tokens_holds_neither_all_pairs_nor_all_logits():
    """Temporary memory of the gradient step, compiled and not run, XLM-R's vocabulary."""
    encoder = EncoderConfig(hidden_size=32, layers=2, heads=2, intermediate_size=64)
    model = M3Config(encoder=encoder, colbert_dim=32)
    config = RetroMAEConfig(mask_id=250_001, logits_chunk=32)
    params = abstract_params(model) | abstract_retromae(model)

    def loss(params, batch, key):
        return retromae_loss(params, batch, model, config, key, compute=ComputeConfig(remat=True))[
            0
        ]

    def temporary(tokens):
        batch = jax.eval_shape(
            lambda: TextBatch(
                *[jnp.zeros((1, tokens), jnp.int32)] * 3,
                is_cls=jnp.zeros((1, tokens), bool),
                lengths=jnp.zeros((1, 1), jnp.int32),
            )
        )
        key = jax.eval_shape(lambda: jax.random.key(0))
        compiled = jax.jit(jax.grad(loss)).lower(params, batch, key).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    small, large = temporary(2048), temporary(8192)
    print(f"temporary memory: {small / 1e6:.0f} MB at 2,048 tokens, {large / 1e6:.0f} MB at 8,192")
    assert large - small < 8192**2  # not even one byte for each pair of tokens
    assert large < 8192 * 250_002 * 4 / 20  # of the decoder's logits
