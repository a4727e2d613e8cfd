"""Ten steps of training beside a plain PyTorch loop: the same weights, batches and AdamW."""

import numpy as np
import pytest
import torch
from support.ten_steps import GROUP, OPTIMIZER, START, STEPS, make_batches, our_losses
from support.torch_objective import torch_model, torch_scores_loss

from m3jax.types import TrainBatch


@pytest.fixture(scope="module")
def batches(model) -> list[TrainBatch]:
    return make_batches(model)


def torch_losses(directory, batches) -> list[float]:
    """Nothing of ours: transformers' encoder, the reference's formulas, torch's AdamW."""
    encoder, heads = torch_model(directory)
    decayed, kept, sparse = [], [], []
    for name, parameter in encoder.named_parameters():
        (kept if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    decayed.append(heads["colbert_linear"].weight)
    kept.append(heads["colbert_linear"].bias)
    rate, decay, tripled = OPTIMIZER.learning_rate, OPTIMIZER.weight_decay, OPTIMIZER.sparse_rate
    sparse = heads["sparse_linear"]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "lr": rate, "weight_decay": decay},
            {"params": kept, "lr": rate, "weight_decay": 0.0},
            {"params": [sparse.weight], "lr": tripled * rate, "weight_decay": decay},
            {"params": [sparse.bias], "lr": tripled * rate, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    warm, rest = OPTIMIZER.warmup_steps, STEPS - OPTIMIZER.warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: n / warm if n < warm else 1 - (n - warm) / rest
    )
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    losses = []
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = torch_scores_loss(encoder, heads, batch, GROUP, self_distill=number >= START)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, OPTIMIZER.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parity
@pytest.mark.parametrize("split", ["none", "cached"])
def test_ten_losses_equal_those_of_a_pytorch_loop(tiny_dir, model, batches, split):
    ours = our_losses(model, batches, split)
    want = torch_losses(tiny_dir, batches)
    np.testing.assert_allclose(ours, want, rtol=1e-4)
    if split == "none":
        again = torch_losses(tiny_dir, [batches[0]] * STEPS)
        assert again[START - 1] < 0.97 * again[0]  # the steps are large enough to matter
