"""The reference's scores and losses in PyTorch, written from their formulas, plainly.

Vocabulary-wide sparse vectors, the full tensor of token products, and padded passage places that
compete with similarity 0: what m3jax is held against, quirk included.
"""

import torch
from torch.nn import functional as F


def dense(q, p):
    return q @ p.T


def sparse(q_ids, q_weights, p_ids, p_weights, vocab: int, special: tuple[int, ...]):
    """Largest weight of each token of the vocabulary, special ones zero, inner products."""

    def wide(ids, weights):
        table = torch.zeros(*ids.shape, vocab, dtype=weights.dtype)
        table = torch.scatter(table, -1, ids[..., None], weights[..., None]).max(dim=1).values
        keep = torch.ones(vocab, dtype=weights.dtype)
        keep[list(special)] = 0
        return table * keep

    return wide(q_ids, q_weights) @ wide(p_ids, p_weights).T


def colbert(q, q_mask, p, p_mask, padding_competes: bool):
    products = torch.einsum("qic,pjc->qipj", q * q_mask[..., None], p * p_mask[..., None])
    if not padding_competes:
        products = products.masked_fill(~p_mask.bool()[None, None], -torch.inf)
    best = products.max(-1).values * q_mask[:, :, None]
    return best.sum(1) / q_mask.sum(-1, keepdim=True)


def distill(kind: str, teacher, student, group: int):
    """Soft cross-entropy, or the chain in which stronger passages leave first."""
    if kind == "kl_div":
        return -(F.log_softmax(student, -1) * teacher).sum(-1).mean()
    labels = torch.arange(len(student)) * (group if student.shape[1] > group else 0)
    mask, total = torch.zeros_like(student), torch.zeros(())
    for i in range(group):
        loss = F.cross_entropy(student + mask, labels + i, reduction="none")
        total = total + (teacher[:, i] * loss).mean()
        mask = torch.scatter(mask, -1, (labels + i)[:, None], torch.finfo(torch.float32).min)
    return total


def head_loss(scores, teacher, kind: str, in_batch: bool, group: int):
    """(the scores that take part, the loss) of one head or of the ensemble."""
    rows = torch.arange(len(scores))
    local = torch.stack([scores[i, i * group : (i + 1) * group] for i in rows])
    used = scores if in_batch else local
    target = rows * group if in_batch else torch.zeros_like(rows)
    if teacher is None:
        return used, F.cross_entropy(used, target)
    if kind == "kl_div":
        return used, distill(kind, teacher, local, group) + F.cross_entropy(used, target)
    return used, distill(kind, teacher, used, group)


def total_loss(
    scores,
    temperature,
    group,
    *,
    teacher_scores=None,
    kind="kl_div",
    in_batch=True,
    self_distill=True,
):
    """L, or (L + L') / 2, with w = (1, 0.3, 1) and lambda = (1, 0.1, 1)."""
    d, s, c = (x / temperature for x in scores)
    teacher = None if teacher_scores is None else F.softmax(teacher_scores, -1)
    out = [head_loss(x, teacher, kind, in_batch, group) for x in (d, s, c, d + 0.3 * s + c)]
    (d, l_d), (s, l_s), (c, l_c), (e, l_e) = out
    loss = (l_d + l_e + 0.1 * l_s + l_c) / 4
    if self_distill:
        target = F.softmax(e.detach(), -1)
        k_d, k_s, k_c = (distill("kl_div", target, x, group) for x in (d, s, c))
        loss = (loss + (k_d + 0.1 * k_s + k_c) / 3) / 2
    return loss
