"""configs/finetune.py at the size of two CPU cores: minutes.

    m3jax train --config configs/mini/finetune.py --model DIR --data train.jsonl.gz --workdir run

DIR: a small encoder; its sparse head may start at random. Expected: the losses of all three heads
fall, the sparse one most, and again after self-distillation starts at step 100.
"""

from m3jax.config import DataConfig, LossConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        steps=300,
        data=DataConfig(
            group_size=2,
            query_length=64,
            passage_length=256,
            length_boundaries=(64, 128, 256),
            batch_sizes=(16, 12, 8),
        ),
        loss=LossConfig(self_distill_start=100),
        optimizer=OptimizerConfig(
            learning_rate=2e-5, sparse_rate=20.0, warmup_ratio=0.1, freeze_embeddings=True
        ),
        save_every=100,
    )
