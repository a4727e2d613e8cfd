"""The objective in PyTorch: transformers' encoder and the reference formulas."""

import torch
import transformers
from support import reference_loss

from m3jax.train.objectives import (
    TrainBatch,
)


def torch_model(directory):
    """Transformers' encoder and both linear heads."""
    encoder = transformers.XLMRobertaModel.from_pretrained(directory, add_pooling_layer=False)
    encoder.eval()
    heads = {}
    for stem in ("colbert_linear", "sparse_linear"):
        state = torch.load(directory / f"{stem}.pt", weights_only=True)
        heads[stem] = torch.nn.Linear(*state["weight"].shape[::-1])
        heads[stem].load_state_dict(state)
    return encoder, heads


def torch_scores_loss(encoder, heads, batch: TrainBatch, group, **options):
    """The reference formulas on transformers' hidden states."""

    def encode(texts):
        ids = torch.tensor(texts.token_ids).long()
        mask = torch.tensor(texts.segment_ids).long()
        hidden = encoder(ids, mask).last_hidden_state
        normalize = torch.nn.functional.normalize
        weights = heads["sparse_linear"](hidden)[..., 0].relu() * mask
        vectors = normalize(heads["colbert_linear"](hidden[:, 1:]) * mask[:, 1:, None], dim=-1)
        return normalize(hidden[:, 0], dim=-1), ids, weights, vectors, mask[:, 1:].float()

    q, p = encode(batch.queries), encode(batch.passages)
    vocab = encoder.config.vocab_size
    scores = (
        reference_loss.dense(q[0], p[0]),
        reference_loss.sparse(q[1], q[2], p[1], p[2], vocab, (0, 1, 2, 3)),
        reference_loss.colbert(q[3], q[4], p[3], p[4], padding_competes=True),
    )
    return reference_loss.total_loss(scores, 0.02, group, **options)
