"""FlagEmbedding's own training model on the same batch: slow, and in a Python of its own.

Set up as in embed/test_flagembedding.py.
"""

import dataclasses
import json
import pickle
import shutil
import subprocess

import jax
import numpy as np
import pytest
from support import ten_steps
from support.flagembedding import flag_python
from support.train_batches import FINETUNE, make_batch, value_and_grad

from m3jax import pretrained, sharding
from m3jax.convert.names import to_torch
from m3jax.model.heads import HEAD_PARAMETERS
from m3jax.model.xlm_roberta import XLM_ROBERTA
from m3jax.train.optimizer import make_schedule

pytestmark = [pytest.mark.slow, pytest.mark.parity]

CODE = """
import pickle, sys, torch
from transformers import AutoTokenizer
from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
    EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner)
directory, source, target = sys.argv[1:]
batch = pickle.load(open(source, "rb"))
model = EncoderOnlyEmbedderM3Model(
    EncoderOnlyEmbedderM3Runner.get_model(directory),
    tokenizer=AutoTokenizer.from_pretrained(directory), temperature=0.02,
    kd_loss_type=batch["kind"], normalize_embeddings=True, unified_finetuning=True,
    use_self_distill=True, self_distill_start_step=-1).float().train()
if not batch["in_batch"]:
    # Its ensemble scores are local already; cutting them again is an IndexError (issue 1410).
    cut, group = model.get_local_score, len(batch["p"]["input_ids"]) // len(batch["q"]["input_ids"])
    model.get_local_score = lambda q, p, s: s if s.shape[1] == group else cut(q, p, s)
sides = [{k: torch.tensor(v).long() for k, v in batch[s].items()} for s in ("q", "p")]
loss = model(*sides, teacher_scores=batch["teacher"],
             no_in_batch_neg_flag=not batch["in_batch"]).loss
loss.backward()
names = {"model.": "", "colbert_linear": "colbert_linear", "sparse_linear": "sparse_linear"}
grads = {n.removeprefix("model."): p.grad.numpy()
         for n, p in model.named_parameters() if p.grad is not None}
pickle.dump((loss.item(), grads), open(target, "wb"))
"""


def without_dropout(tiny_dir, tmp_path):
    directory = shutil.copytree(tiny_dir, tmp_path / "model")
    settings = json.loads((directory / "config.json").read_text())
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (directory / "config.json").write_text(json.dumps(settings))
    return directory


def features(texts):
    mask = (texts.segment_ids > 0).astype(np.int64)
    return {"input_ids": texts.token_ids, "attention_mask": mask}


def in_flagembedding(code, directory, content, tmp_path):
    """What the code pickles, run by the Python that has FlagEmbedding."""
    (tmp_path / "batch").write_bytes(pickle.dumps(content))
    out = subprocess.run(
        [flag_python(), "-c", code, directory, tmp_path / "batch", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return pickle.loads((tmp_path / "out").read_bytes())


@pytest.mark.parametrize(
    ("group", "kind", "in_batch", "teacher"),
    [
        (2, "m3_kd_loss", True, False),
        (2, "m3_kd_loss", True, True),
        (8, "kl_div", True, True),
        (2, "kl_div", False, False),
    ],
)
def test_loss_and_gradients_equal_the_reference(tiny_dir, tmp_path, group, kind, in_batch, teacher):
    directory = without_dropout(tiny_dir, tmp_path)
    model = pretrained.load(directory)
    batch = make_batch(model, 4, group, teacher, in_batch)
    given = batch.targets.teacher_scores
    content = {
        "q": features(batch.queries),
        "p": features(batch.passages),
        "kind": kind,
        "in_batch": in_batch,
        "teacher": None if given is None else given.reshape(-1).tolist(),
    }
    want, want_grads = in_flagembedding(CODE, directory, content, tmp_path)
    config = dataclasses.replace(FINETUNE, teacher_loss=kind)
    (loss, _), grads = value_and_grad(model, batch, config)
    np.testing.assert_allclose(loss, want, rtol=1e-6, atol=5e-6)
    for name, ours in to_torch(grads, (*XLM_ROBERTA.parameters, *HEAD_PARAMETERS), 3):
        if name.endswith("key.bias"):
            continue  # zero but for rounding
        theirs = want_grads[name]
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale, rtol=0, err_msg=name)


LOOP = """
import pickle, sys, torch
from transformers import AutoTokenizer
from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
    EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner)
directory, source, target = sys.argv[1:]
given = pickle.load(open(source, "rb"))
# Its counter of forward passes must exceed the start.
model = EncoderOnlyEmbedderM3Model(
    EncoderOnlyEmbedderM3Runner.get_model(directory),
    tokenizer=AutoTokenizer.from_pretrained(directory), temperature=0.02, kd_loss_type="kl_div",
    normalize_embeddings=True, unified_finetuning=True, use_self_distill=True,
    self_distill_start_step=given["start"] - 1).float().train()
groups = {}
for name, p in model.named_parameters():
    kept = name.endswith("bias") or "LayerNorm" in name
    rate = given["rate"] * (given["sparse_rate"] if "sparse_linear" in name else 1.0)
    groups.setdefault((rate, 0.0 if kept else given["decay"]), []).append(p)
optimizer = torch.optim.AdamW([{"params": ps, "lr": rate, "weight_decay": decay}
                               for (rate, decay), ps in groups.items()], eps=1e-8)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: given["factors"][n])
losses = []
for batch in given["batches"]:
    optimizer.zero_grad()
    sides = [{k: torch.tensor(v).long() for k, v in batch[s].items()} for s in ("q", "p")]
    loss = model(*sides, teacher_scores=None, no_in_batch_neg_flag=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), given["clip"])
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
pickle.dump(losses, open(target, "wb"))
"""


def test_ten_steps_equal_the_reference(tiny_dir, tmp_path):
    """Its own model class, in a loop with AdamW, against our trainer."""
    directory = without_dropout(tiny_dir, tmp_path)
    model = pretrained.load(directory, mesh=sharding.make_mesh(devices=jax.devices()[:1]))
    batches = ten_steps.make_batches(model)
    schedule = make_schedule(ten_steps.OPTIMIZER, ten_steps.STEPS)
    content = {
        "batches": [{"q": features(b.queries), "p": features(b.passages)} for b in batches],
        "factors": [float(np.asarray(schedule(n))) for n in range(ten_steps.STEPS + 1)],
        "start": ten_steps.START,
        "rate": ten_steps.OPTIMIZER.learning_rate,
        "sparse_rate": ten_steps.OPTIMIZER.sparse_rate,
        "clip": ten_steps.OPTIMIZER.clip_norm,
        "decay": ten_steps.OPTIMIZER.weight_decay,
    }
    want = in_flagembedding(LOOP, directory, content, tmp_path)
    ours = ten_steps.our_losses(model, batches, "none")
    np.testing.assert_allclose(ours, want, rtol=1e-4)
