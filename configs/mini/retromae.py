"""configs/retromae.py at the size of two CPU cores: minutes.

    m3jax train --config configs/mini/retromae.py --model DIR --data texts.jsonl --workdir run

DIR: a small encoder. The vocabulary head starts at random, so the loss starts near
2 ln(vocabulary) and falls within the first hundred steps.
"""

from m3jax.config import DataConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        objective="retromae",
        steps=200,
        data=DataConfig(
            query_length=48,
            length_boundaries=(48,),
            batch_sizes=(6,),
            batching="padded_to_group",
            one_source=False,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_ratio=0.1),
        save_every=100,
        log_every=10,
    )
