"""Training objectives of M3-Embedding (arXiv 2402.03216v4, sec. 3.3), pure functions of logits.

    b  queries    g  passages of a query's group, the positive first    p  passages = b * g

Logits are scores divided by the temperature. `valid` marks the passages in a query's softmax, which
always include the positive. Padding queries have no valid passage and are excluded from every mean.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from m3jax.config import HeadWeights, LossConfig
from m3jax.types import Scores, Targets

_MASKED = -1e30  # finite, so that 0 * log p stays 0; exp() of it is 0 in float32


def info_nce(logits: Float[Array, "b p"], valid: Bool[Array, "b p"]) -> Float[Array, ""]:
    """The contrastive loss of one head.

    [M3 sec. 3.3]  L_s = -log( exp(s(q, p*) / tau) / sum over p* and P' of exp(s(q, p) / tau) )
    """
    return -query_mean(_positives(_log_softmax(logits, valid)), valid)


def distillation(
    student: Float[Array, "b p"], teacher: Float[Array, "b p"], valid: Bool[Array, "b p"]
) -> Float[Array, ""]:
    """Cross-entropy of one head against the fused logits.

    [M3 sec. 3.3]  L'_* = - sum over p of p(s_inter) log p(s_*)

    The teacher contains the student's own score; it is a constant here.
    """
    target = jnp.exp(_log_softmax(jax.lax.stop_gradient(teacher), valid))
    return -query_mean(jnp.sum(target * _log_softmax(student, valid), axis=-1), valid)


def kl_div(
    logits: Float[Array, "b p"],
    teacher_scores: Float[Array, "b g"],
    valid: Bool[Array, "b p"],
) -> Float[Array, ""]:
    """A re-ranker's scores of the passages of a query's group as soft targets, plus `info_nce`.

    The reference's "kl_div": cross-entropy against softmax(teacher_scores) within the group.
    """
    in_group = group_logits(logits, teacher_scores.shape[1])
    target = jax.nn.softmax(teacher_scores.astype(jnp.float32), axis=-1)
    soft = -query_mean(jnp.sum(target * jax.nn.log_softmax(in_group, axis=-1), axis=-1), valid)
    return soft + info_nce(logits, valid)


def m3_kd_loss(
    logits: Float[Array, "b p"],
    teacher_scores: Float[Array, "b g"],
    valid: Bool[Array, "b p"],
) -> Float[Array, ""]:
    """Cross-entropies in descending order of the re-ranker's scores, passages removed one by one.

    sum over i of teacher_i * CE(logits without the group's passages 0 .. i - 1, target i), averaged
    over queries. The passages with the highest teacher scores are removed first, so the group is
    sorted by teacher score here. The published code relies on a loader that does so; its newer
    loader does not.
    """
    b, p = logits.shape
    g = teacher_scores.shape[1]
    order = jnp.argsort(-teacher_scores, axis=-1, stable=True)
    prob = jax.nn.softmax(teacher_scores.astype(jnp.float32), axis=-1)
    columns = (jnp.arange(b, dtype=order.dtype) * g)[:, None] + order
    remaining, total = valid.at[jnp.arange(b)[:, None], columns].set(True), jnp.zeros(())
    for i in range(g):
        column = columns[:, i : i + 1]
        log_prob = _log_softmax(logits, remaining)
        log_likelihood = jnp.take_along_axis(log_prob, column, axis=-1)[:, 0]
        weight = jnp.take_along_axis(prob, order[:, i : i + 1], axis=-1)[:, 0]
        total = total - query_mean(weight * log_likelihood, valid)
        remaining = remaining.at[jnp.arange(b)[:, None], column].set(False)
    return total


def m3_loss(
    logits: Scores,
    targets: Targets,
    config: LossConfig,
    distill: Bool[Array, ""],
    dense_prefixes: tuple[Float[Array, "b p"], ...] = (),
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The unified objective, and its terms by name for logging.

    [M3 sec. 3.3]  s_inter = w1 s_dense + w2 s_lex + w3 s_mul
                   L  = (l1 L_dense + l2 L_lex + l3 L_mul + L_inter) / 4
                   L' = (l1 L'_dense + l2 L'_lex + l3 L'_mul) / 3
                   L_final = (L + L') / 2 once `distill` is true, before that L

    If n of the three heads train, the divisors are n + 1 and n; a single head has no ensemble, and
    the loss is L_s. `dense_prefixes` are the dense logits of shorter vectors (Matryoshka, Kusupati
    et al. 2022, arXiv 2205.13147): L_dense is then the mean over all widths.
    """
    heads = {name: getattr(logits, name) for name in config.heads}
    valid = valid_passages(targets, len(targets.in_batch), config.mask_duplicates)
    parts = {f"nce/{name}": _head_loss(x, targets, valid, config) for name, x in heads.items()}
    if dense_prefixes:
        shorter = [_head_loss(x, targets, valid, config) for x in dense_prefixes]
        parts["nce/dense"] = sum(shorter, parts["nce/dense"]) / (1 + len(shorter))
    if len(heads) == 1:
        (only,) = parts.values()
        return only, parts | {"total": only}
    fused = fuse(logits, config.fusion)
    parts["nce/fused"] = _head_loss(fused, targets, valid, config)
    teacher = _standardized(logits, fused, valid, config) if config.normalize_teacher else fused
    weight = dataclasses.asdict(config.weights)
    total = sum(weight[h] * parts[f"nce/{h}"] for h in heads) + parts["nce/fused"]
    total = total / (len(heads) + 1)
    if config.self_distill:
        for name, student in heads.items():
            parts[f"kd/{name}"] = distillation(student, teacher, valid)
        soft = sum(weight[h] * parts[f"kd/{h}"] for h in heads) / len(heads)
        total = jnp.where(distill, (total + soft) / 2, total)
    log_prob = _log_softmax(jax.lax.stop_gradient(teacher), valid)
    parts["teacher_entropy"] = -query_mean(jnp.sum(jnp.exp(log_prob) * log_prob, axis=-1), valid)
    return total, parts | {"total": total}


def fuse(logits: Scores, fusion: HeadWeights) -> Float[Array, "b p"]:
    """s_inter: the weighted sum of the scores of the heads that are not None."""
    terms = [
        getattr(fusion, name) * scores
        for name, scores in zip(logits._fields, logits, strict=True)
        if scores is not None
    ]
    return functools.reduce(operator.add, terms)


def valid_passages(targets: Targets, queries: int, mask_duplicates: bool) -> Bool[Array, "b p"]:
    """True for the passages in a query's softmax: its group, and others where `in_batch` allows.

    With `mask_duplicates` a copy of the query's positive, at any other position, is not a negative.
    Padding queries have no valid passage, and their passages are valid for no query.
    """
    keys = jnp.asarray(targets.passage_keys)
    passages = len(keys)
    group = passages // queries
    owner = jnp.arange(passages, dtype=jnp.int32) // group
    valid = jnp.asarray(targets.in_batch)[:, None] | (owner[None] == jnp.arange(queries)[:, None])
    if mask_duplicates:
        first = jnp.arange(queries) * group
        same = keys[None] == keys[first][:, None]
        positive = jnp.arange(passages)[None] == first[:, None]
        valid = valid & (~same | positive)
    if targets.is_real is not None:
        is_real = jnp.asarray(targets.is_real)
        valid = valid & is_real[:, None] & is_real[owner][None]
    return valid


def query_mean(values: Float[Array, " b"], valid: Bool[Array, "b p"]) -> Float[Array, ""]:
    """The mean over the queries that have a valid passage; 0 where none has."""
    counts = valid.any(axis=-1).astype(jnp.float32)
    return jnp.sum(values * counts) / jnp.maximum(counts.sum(), 1.0)


def group_logits(logits: Float[Array, "b p"], group: int) -> Float[Array, "b g"]:
    """The logits of each query's group."""
    b = len(logits)
    columns = (jnp.arange(b) * group)[:, None] + jnp.arange(group)[None]
    return jnp.take_along_axis(logits, columns, axis=-1)


def _head_loss(logits, targets: Targets, valid, config: LossConfig):
    """The contrastive loss of one head; with teacher scores `kl_div` or `m3_kd_loss`.

    With `config.symmetric` it is the mean with the loss from passages to queries.
    """
    if targets.teacher_scores is not None:
        chosen = kl_div if config.teacher_loss == "kl_div" else m3_kd_loss
        return chosen(logits, jnp.asarray(targets.teacher_scores), valid)
    loss = info_nce(logits, valid)
    if not config.symmetric:
        return loss
    # Each positive against all queries: the transpose of the same logits.
    group = logits.shape[1] // len(logits)
    reverse_valid = valid[:, ::group].T
    reverse = _log_softmax(logits[:, ::group].T, reverse_valid)
    return (loss - query_mean(jnp.diagonal(reverse), reverse_valid)) / 2


def _standardized(logits: Scores, fused, valid, config: LossConfig):
    """The teacher from standardised heads, so that their scales do not matter.

    Each head is scaled to mean 0 and standard deviation 1 over the valid passages of a query; the
    weighted sum is then scaled to the standard deviation of the plain weighted sum.
    """
    unit = [None if x is None else _unit(x, valid)[0] for x in logits]
    mixed, _ = _unit(fuse(Scores(*unit), config.fusion), valid)
    return mixed * _unit(fused, valid)[1]


def _unit(x, valid):
    count = jnp.maximum(valid.sum(axis=-1, keepdims=True), 1).astype(jnp.float32)
    mean = jnp.where(valid, x, 0.0).sum(axis=-1, keepdims=True) / count
    square = jnp.where(valid, (x - mean) ** 2, 0.0).sum(axis=-1, keepdims=True) / count
    deviation = jnp.sqrt(jnp.maximum(square, 1e-12))
    return (x - mean) / deviation, deviation


def _positives(matrix: Float[Array, "b p"]) -> Float[Array, " b"]:
    b, p = matrix.shape
    return jnp.take_along_axis(matrix, (jnp.arange(b) * (p // b))[:, None], axis=-1)[:, 0]


def _log_softmax(logits: Float[Array, "b p"], valid: Bool[Array, "b p"]) -> Float[Array, "b p"]:
    """Log-probabilities over the valid passages, always in float32."""
    return jax.nn.log_softmax(jnp.where(valid, logits.astype(jnp.float32), _MASKED), axis=-1)
