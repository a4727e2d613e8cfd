"""m3-mini, second training stage: three heads, then self-distillation [M3 sec. 3.3].

    python experiments/train_m3_mini.py --backbone DIR --data TRAIN --work WORK

runs it after the first stage and the mining of negatives. The sparse head starts from a warm-up of
its own and has a higher rate. Long documents stand in groups of their own.
Self-distillation sets in after 40 steps on L. The lower half of the encoder keeps what the stage
before taught it, and costs no backward pass. The sparse loss weighs more than the paper's 0.1,
which one of the script's three runs keeps.
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
