"""m3-mini, first training stage: dense only, on pairs in 130 languages [M3 sec. 3.3, app. B.1].

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --workdir WORK

runs all stages. Texts are short and rows packed, so that there is little padding. The loss of
translation pairs is symmetric. All examples of a batch come from one source, so that negatives
cannot be recognized by their language alone. The two lowest layers are frozen. Of the three runs
that the script makes, one freezes four layers and has a lower learning rate, one freezes none.
"""

from m3jax.config import DataConfig, LossConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(
            group_size=1,
            query_length=64,
            passage_length=144,
            length_boundaries=(48, 144),
            batch_sizes=(112, 48),
            batching="packed",
            row_width=256,
            drop_below=24,
        ),
        loss=LossConfig(heads=("dense",), self_distill=False, symmetric=True),
        optimizer=OptimizerConfig(
            learning_rate=1e-4,
            warmup_ratio=0.1,
            layer_decay=0.9,
            freeze_embeddings=True,
            freeze_layers=2,
        ),
        save_every=40,
        log_every=10,
    )
