"""Stage 2, contrastive pre-training of the dense head on unlabelled pairs [M3 sec. 3.3, app. B.1].

    m3jax data build --input pairs/*.jsonl.gz --output PAIRS --tokenizer retromae/model
    m3jax train --config configs/contrastive.py --model retromae/model --data PAIRS --workdir pre

Cost in the paper: 25,000 steps with the batches of Table 9 (67,200 pairs of up to 500 tokens) on
96 A800-80G. Expected after fine-tuning: MIRACL dense 69.2 against 66.1 without this stage.
"""

from m3jax.config import (
    PRETRAINING_BATCHES,
    ComputeConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StepConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        steps=25_000,
        data=DataConfig(group_size=1, batch_sizes=PRETRAINING_BATCHES, shuffle_ratio=0.002),
        loss=LossConfig(heads=("dense",), self_distill=False),
        optimizer=OptimizerConfig(learning_rate=5e-5, warmup_ratio=0.1, weight_decay=0.01),
        step=StepConfig(split="cached"),
        compute=ComputeConfig(dtype="bfloat16"),
        save_every=500,
    )
