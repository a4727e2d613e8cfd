"""Stage 1, RetroMAE on plain texts of up to 8,192 tokens [M3 app. B.1].

    m3jax convert extend-positions xlm-roberta-large xlm-roberta-8k --to 8194
    m3jax train --config configs/retromae.py --model xlm-roberta-8k --data TEXTS --workdir retromae

TEXTS: files with one {"text": ...} per line, or the output of `m3jax data build --format texts`.
Cost in the paper: 20,000 steps of 16 batches of 32 texts on 32 A100-40G. Expected: no retrieval
number of its own; fine-tuned afterwards, MIRACL dense 66.1 against 60.5 without it (Table 7).
"""

from m3jax.config import ComputeConfig, DataConfig, OptimizerConfig, StepConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        objective="retromae",
        steps=20_000,
        data=DataConfig(
            query_length=8192,
            batching="packed",
            row_width=8192,
            length_boundaries=(8192,),
            batch_sizes=(32,),
            one_source=False,
        ),
        optimizer=OptimizerConfig(learning_rate=7e-5, warmup_ratio=0.1),
        step=StepConfig(accumulate=16),
        compute=ComputeConfig(dtype="bfloat16", remat=True),
        save_every=500,
    )
