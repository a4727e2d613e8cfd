"""configs/contrastive.py at the size of two CPU cores: minutes.

    m3jax train --config configs/mini/contrastive.py --model DIR --data pairs.jsonl.gz --workdir run

DIR: a small encoder. Expected: the in-batch accuracy of the dense head rises from the first steps.
"""

from m3jax.config import DataConfig, LossConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        steps=300,
        data=DataConfig(
            group_size=1,
            query_length=64,
            passage_length=128,
            length_boundaries=(32, 64, 128),
            batch_sizes=(32, 24, 16),
        ),
        loss=LossConfig(heads=("dense",), self_distill=False),
        optimizer=OptimizerConfig(learning_rate=5e-5, warmup_ratio=0.1, freeze_embeddings=True),
        save_every=100,
    )
