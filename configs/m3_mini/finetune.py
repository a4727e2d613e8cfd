"""m3-mini, second training stage: three heads, then self-distillation [M3 sec. 3.3].

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --workdir WORK

runs all stages. The sparse head is trained alone first and has a higher learning rate. Long
documents have a length group of their own. Self-distillation starts at step 40. The lower half of
the encoder is frozen and needs no backward pass. The weight of the sparse loss is higher than the
paper's 0.1, which one of the script's three runs uses.
"""

from m3jax.config import DataConfig, HeadWeights, LossConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(
            group_size=2,
            query_length=48,
            passage_length=1024,
            length_boundaries=(384, 1024),
            batch_sizes=(32, 4),
            batching="packed",
            row_width=256,
            drop_below=4,
        ),
        loss=LossConfig(
            self_distill_start=40, weights=HeadWeights(dense=1.0, sparse=0.2, colbert=1.0)
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-5,
            sparse_rate=20.0,
            colbert_rate=4.0,
            warmup_ratio=0.1,
            layer_decay=0.9,
            freeze_embeddings=True,
            freeze_layers=6,
        ),
        save_every=40,
        log_every=10,
    )
