"""Attention and heads: texts do not attend to each other, special tokens have no weight, shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from m3jax import sharding
from m3jax.config import ATTENTION, ComputeConfig, EncoderConfig, M3Config
from m3jax.model.attention import BACKENDS, Case, attend, choose_backend, resolve_backend
from m3jax.model.heads import lexical_mask, normalize, pool, token_mask
from m3jax.model.m3 import abstract_params, encode_batch, init_params
from m3jax.text.batches import rows_of_tokens

CONFIG = M3Config(
    encoder=EncoderConfig(
        vocab_size=50,
        hidden_size=16,
        layers=2,
        heads=4,
        intermediate_size=32,
        max_positions=66,
    ),
    colbert_dim=8,
)


@pytest.fixture(scope="module")
def params():
    wide = init_params(CONFIG, jax.random.key(0))
    return jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, wide)


def texts(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [np.array([0, *rng.integers(4, 50, n - 2), 2], np.int32)[:n] for n in lengths]


def test_attention_is_softmax_within_a_segment():
    """Re-derived with numpy for every pair of a packed row."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 1, 6, 2, 4)).astype(np.float32)
    segments = np.array([[1, 1, 2, 2, 2, 0]], np.int32)
    got = attend(
        *map(jnp.asarray, (q, k, v, segments, np.array([[2, 3]]))), backend="xla", query_block=128
    )
    for s in range(5):
        seen = segments[0] == segments[0, s]
        for h in range(2):
            scores = k[0, seen, h] @ q[0, s, h] / np.sqrt(4)
            weights = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(got[0, s, h], weights @ v[0, seen, h], atol=1e-5)


@pytest.mark.parametrize("block", [100, 128, 1300])
def test_blocked_attention_equals_plain(block):
    from m3jax.model import attention

    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(x) for x in rng.normal(size=(3, 2, 1300, 2, 8)).astype(np.float32))
    segments = jnp.asarray(np.sort(rng.integers(0, 4, (2, 1300)))[:, ::-1].astype(np.int32))
    lengths = jnp.asarray([[400, 400, 400], [400, 400, 400]])
    mask = attention._mask(segments, segments, True)
    blocked = attend(q, k, v, segments, lengths, "xla", block)
    np.testing.assert_allclose(blocked, attention._plain(q, k, v, mask), atol=2e-6)


def case(dtype=jnp.bfloat16, head_width=64, packed=False, devices=None):
    return Case(dtype, head_width, packed, jax.devices() if devices is None else devices)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A device as JAX describes it, on a machine without one."""

    compute_capability: str
    platform: str = "gpu"


def test_registry_has_the_names_of_the_config():
    assert {"auto", *BACKENDS} == set(ATTENTION)


def test_backend_by_name_and_automatically():
    assert resolve_backend("auto", case()) == "xla"  # on the CPU of this test
    with pytest.raises(ValueError, match="is a CPU, not an NVIDIA GPU"):
        resolve_backend("cudnn", case())


@pytest.mark.parametrize("capability", ["8.0", "9.0", "12.0"])
def test_cudnn_serves_padded_half_precision_rows_only(capability):
    devices = [Gpu(capability)] * 2
    assert resolve_backend("auto", case(devices=devices)) == "cudnn"
    assert resolve_backend("auto", case(packed=True, devices=devices)) == "xla"
    assert resolve_backend("auto", case(jnp.float32, devices=devices)) == "xla"
    with pytest.raises(ValueError, match="packed"):
        resolve_backend("cudnn", case(packed=True, devices=devices))
    with pytest.raises(ValueError, match="multiple of 8"):
        resolve_backend("cudnn", case(head_width=12, devices=devices))
    assert resolve_backend("auto", case(head_width=256, devices=devices)) == "xla"


@pytest.mark.parametrize(
    ("capability", "reason"),
    [("7.5", "7.5, not 8.0"), ("gfx90a", "no NVIDIA GPU"), ("", "reports no compute capability")],
)
def test_gpus_without_the_fused_kernel_take_xla(capability, reason):
    """A T4 or V100 is too old for it; an AMD GPU has another."""
    for devices in ([Gpu(capability)], [Gpu("9.0"), Gpu(capability)]):
        assert resolve_backend("auto", case(jnp.float16, devices=devices)) == "xla"
        with pytest.raises(ValueError, match=reason):
            resolve_backend("cudnn", case(jnp.float16, devices=devices))


def test_backend_is_chosen_from_the_devices_of_the_mesh():
    """The program may be compiled for GPUs on a machine that has none."""
    compute = ComputeConfig(dtype="bfloat16")
    encoder = dataclasses.replace(CONFIG.encoder, hidden_size=32)
    padded, _ = rows_of_tokens(texts(5), [[0]], 5, pad_id=1)
    packed, _ = rows_of_tokens(texts(5, 5), [[0, 1]], 10, pad_id=1)
    hopper = Mesh(np.array([[[Gpu("9.0")]]]), sharding.AXES)
    for batch, mesh, name in (
        (padded, hopper, "cudnn"),
        (packed, hopper, "xla"),
        (padded, sharding.make_mesh(), "xla"),
        (padded, None, "xla"),
    ):
        assert choose_backend(compute, encoder, batch, mesh).attention == name
    with pytest.raises(ValueError, match="is a CPU"):
        choose_backend(ComputeConfig(attention="cudnn"), encoder, padded, sharding.make_mesh())


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no NVIDIA GPU here")
def test_cudnn_equals_xla_on_real_tokens():
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in rng.normal(size=(3, 4, 256, 2, 64)))
    lengths = np.array([[256], [100], [1], [17]], np.int32)
    segments = (np.arange(256) < lengths).astype(np.int32)
    a, b = (
        attend(q, k, v, jnp.asarray(segments), jnp.asarray(lengths), name, 128)
        for name in ("xla", "cudnn")
    )
    keep = segments.astype(bool)
    np.testing.assert_allclose(
        np.asarray(a, np.float32)[keep], np.asarray(b, np.float32)[keep], atol=2e-2
    )


def dense(encoding) -> jax.Array:
    assert encoding.dense is not None
    return encoding.dense


def encode(params, batch, config=CONFIG):
    return jax.jit(encode_batch, static_argnums=2)(params, batch, config)


def test_packed_padded_and_alone_agree(params):
    tokens = texts(30, 5, 17, 2, 9)
    rows = [[0, 1, 2], [3, 4]]
    packed, slots = rows_of_tokens(tokens, rows, 60, pad_id=1)
    together = encode(params, packed)
    for slot in slots:
        alone = encode(params, rows_of_tokens([tokens[slot.text]], [[0]], 40, pad_id=1)[0])
        here = slice(slot.start, slot.start + slot.length)
        np.testing.assert_allclose(
            together.dense[slot.row, slot.segment], alone.dense[0, 0], atol=1e-5
        )
        np.testing.assert_allclose(
            together.sparse[slot.row, here], alone.sparse[0, : slot.length], atol=1e-5
        )
        np.testing.assert_allclose(
            together.colbert[slot.row, here], alone.colbert[0, : slot.length], atol=1e-5
        )


def test_a_neighbour_never_changes_a_text(params):
    """Bit for bit: in a packed row and in a padded batch."""
    first = texts(20, 15, 25, seed=1)
    second = [first[0], *texts(15, 25, seed=2)]
    for rows in ([[0, 1, 2]], [[0], [1], [2]]):
        a, b = (
            encode(params, rows_of_tokens(tokens, rows, 60, pad_id=1)[0])
            for tokens in (first, second)
        )
        assert (a.dense[0, 0] == b.dense[0, 0]).all()
        assert (a.sparse[0, :20] == b.sparse[0, :20]).all()
        assert (a.colbert[0, :20] == b.colbert[0, :20]).all()
        assert not (a.dense == b.dense).all()  # the neighbours themselves did change


def test_no_gradient_crosses_from_one_text_to_another(params):
    batch, _ = rows_of_tokens(texts(20, 15), [[0, 1]], 40, pad_id=1)

    def first_text(word):
        inner = params["encoder"]["embeddings"] | {"word": word}
        tree = params | {"encoder": params["encoder"] | {"embeddings": inner}}
        return jnp.sum(dense(encode_batch(tree, batch, CONFIG))[0, 0] ** 3)

    grad = jax.grad(first_text)(params["encoder"]["embeddings"]["word"])
    mine = set(batch.token_ids[0, :20].tolist())
    others = sorted(set(batch.token_ids[0, 20:35].tolist()) - mine)
    assert (grad[np.array(others)] == 0).all()
    assert (grad[np.array(sorted(mine))] != 0).any(axis=1).all()


def test_special_tokens_and_padding_never_weigh(params):
    batch, _ = rows_of_tokens([np.array([0, 7, 3, 1, 0, 9, 2], np.int32)], [[0]], 10, pad_id=1)
    np.testing.assert_array_equal(
        lexical_mask(batch, CONFIG.special_ids)[0],
        [False, True, False, False, False, True, False, False, False, False],
    )
    out = encode(params, batch)
    assert (out.sparse[0, [0, 2, 3, 4, 6, 7, 8, 9]] == 0).all()


def test_colbert_leaves_the_first_token_out_and_the_last_in(params):
    batch, _ = rows_of_tokens(texts(5, 3), [[0], [1]], 8, pad_id=1)
    assert np.asarray(token_mask(batch)).tolist() == [
        [False, True, True, True, True, False, False, False],
        [False, True, True, False, False, False, False, False],
    ]
    out = encode(params, batch)
    norms = np.linalg.norm(out.colbert, axis=-1)
    np.testing.assert_allclose(norms, np.asarray(token_mask(batch)).astype(float), atol=1e-6)


def test_pooling_by_hand():
    hidden = jnp.arange(12.0).reshape(1, 6, 2)
    batch, _ = rows_of_tokens(texts(3, 2), [[0, 1]], 6, pad_id=1)
    np.testing.assert_allclose(pool(hidden, batch, "cls")[0], [[0, 1], [6, 7]])
    np.testing.assert_allclose(pool(hidden, batch, "mean")[0], [[2, 3], [7, 8]])
    mcls, _ = rows_of_tokens(texts(6), [[0]], 6, pad_id=1, cls_every=1)  # [CLS] at 0, 2, 4
    np.testing.assert_allclose(pool(hidden, mcls, "cls")[0], [[4, 5]])


def test_normalize_has_a_finite_gradient_at_zero():
    assert jnp.isfinite(jax.grad(lambda x: normalize(x).sum())(jnp.zeros(4))).all()
    np.testing.assert_allclose(normalize(jnp.array([3.0, 4.0])), [0.6, 0.8], atol=1e-6)


def test_only_the_heads_asked_for_are_computed(params):
    batch, _ = rows_of_tokens(texts(5), [[0]], 8, pad_id=1)
    out = encode_batch(params, batch, CONFIG, heads=("sparse",))
    assert out.dense is None and out.colbert is None and out.sparse is not None


def test_dropout_needs_a_key_and_changes_the_output(params):
    batch, _ = rows_of_tokens(texts(20), [[0]], 20, pad_id=1)
    a, b, same = (
        dense(encode_batch(params, batch, CONFIG, dropout_key=jax.random.key(i))) for i in (0, 1, 0)
    )
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(a, same)


def test_bfloat16_keeps_parameters_and_outputs_float32(params):
    batch, _ = rows_of_tokens(texts(20), [[0]], 20, pad_id=1)
    out = encode_batch(params, batch, CONFIG, ComputeConfig(dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in out[:3] if leaf is not None} == {jnp.dtype("float32")}


def test_the_large_model_has_its_known_size():
    """XLM-R-large with 8,194 positions, no pooler: 567,754,752 parameters, and the two heads."""
    large = abstract_params(M3Config())
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    by_hand = (250_002 + 8194 + 1 + 2) * 1024 + 24 * (
        4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    )
    assert count(large["encoder"]) == by_hand
    assert count(large["heads"]) == 1024 * 1024 + 1024 + 1024 + 1


def test_unnormalised_outputs(params):
    batch, _ = rows_of_tokens(texts(9), [[0]], 9, pad_id=1)
    raw = encode(params, batch, dataclasses.replace(CONFIG, normalize=False))
    unit = encode(params, batch)
    np.testing.assert_allclose(normalize(raw.dense), unit.dense, atol=1e-6)
    assert abs(float(jnp.linalg.norm(raw.dense[0, 0])) - 1) > 0.01
