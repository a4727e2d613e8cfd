"""Stage 3, three heads with self-knowledge distillation on labelled data [M3 sec. 3.3, app. B.1].

    m3jax data build --input train/*.jsonl --output TRAIN --tokenizer pre/model
    m3jax train --config configs/finetune.py --model pre/model --data TRAIN --workdir tuned

The same command fine-tunes a released model on your own data: --model BAAI/bge-m3.
Cost in the paper: one pass with the batches of Table 9 (1,152 queries of up to 500 tokens, 8
passages each) on 24 A800-80G. Expected: MIRACL nDCG@10 dense 69.2, sparse 53.9, multi-vector 70.5,
all 71.5 (Table 1); without self-distillation 68.7, 36.7, 69.3 (Table 6).
"""

from m3jax.config import (
    ComputeConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StepConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        epochs=1,
        data=DataConfig(group_size=8, shuffle_ratio=0.002),
        loss=LossConfig(self_distill_start=6000),
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_ratio=0.1, weight_decay=0.01),
        step=StepConfig(split="cached"),
        compute=ComputeConfig(dtype="bfloat16"),
        save_every=500,
    )
