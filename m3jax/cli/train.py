"""Train or fine-tune with a config file; the same command resumes an interrupted run.

A config is a Python file with a function config() that returns an m3jax.TrainConfig. configs/ has
one for each stage of the paper, configs/mini/ the same for two CPU cores. --set changes one field.
The trained model is DIR/model, which every other command accepts.
"""

import argparse
import runpy
from pathlib import Path

EXAMPLES = """\
examples:
  m3jax train --config configs/finetune.py --model BAAI/bge-m3 --data train.jsonl --workdir run
  m3jax train --config configs/mini/finetune.py --model DIR --data built --workdir run \\
      --set steps=200 --set optimizer.learning_rate=2e-5
  m3jax train --config configs/finetune.py --model BAAI/bge-m3 --data built --workdir run \\
      --fit-memory auto
  m3jax convert to-hf run/model bge-m3-finetuned
  srun m3jax train --config configs/finetune.py --workdir SHARED/run        # many hosts
  m3jax train ... --coordinator 10.0.0.1:1234 --processes 2 --process 0      # without SLURM
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `train`."""
    parser.add_argument("--config", required=True, metavar="FILE.py", help="config file")
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="directory of the run: checkpoints, metrics, model",
    )
    parser.add_argument("--model", metavar="MODEL", help="model to start from (field model)")
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="a built data set, or files (field train_data)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change one field of the config",
    )
    parser.add_argument(
        "--fit-memory",
        metavar="SIZE",
        help="reduce data.batch_sizes and step.sub_tokens until every step fits the memory of a "
        "device: auto (ask the GPU or TPU), or a size such as 80GB or 16GiB. The sizes are found "
        "by compiling, printed, and stored in DIR",
    )
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")
    hosts = parser.add_argument_group("many hosts, if the cluster does not provide these")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="process 0's address")
    hosts.add_argument("--processes", type=int, metavar="N", help="number of processes")
    hosts.add_argument("--process", type=int, metavar="I", help="number of this process, from 0")


def run(options: argparse.Namespace) -> int:
    """Trains; returns 0 if the run is finished or was stopped by a signal."""
    config = read_config(options)
    if options.print_config:
        import json

        from m3jax.io.fields import to_json

        print(json.dumps(to_json(config), indent=2))
        return 0
    from m3jax import distributed

    distributed.start(options.coordinator, options.processes, options.process)
    import jax

    from m3jax.train import fit_memory
    from m3jax.train.loop import train_model

    memory = fit_memory.device_memory(options.fit_memory) if options.fit_memory else None
    evaluate = _evaluator(
        config
    )  # first, so that a wrong path is reported before anything is loaded
    log = print if jax.process_index() == 0 else lambda line: None
    workdir = Path(options.workdir)
    result = train_model(config, workdir, memory=memory, evaluate=evaluate, log=log)
    if result.model is not None and jax.process_index() == 0:
        print(f"{result.step} steps done; the model: {result.model}")
    return 0


def read_config(options: argparse.Namespace):
    """The config of the file with the changes of the command line.

    Raises FileNotFoundError or ValueError naming the file or the field.
    """
    import dataclasses

    from m3jax.config import TrainConfig
    from m3jax.io.fields import override

    path = Path(options.config)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    make = runpy.run_path(str(path)).get("config")
    if not callable(make):
        raise ValueError(f"{path} defines no function config()")
    config = make()
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path}: config() must return a TrainConfig, got {type(config).__name__}")
    if options.model:
        config = dataclasses.replace(config, model=options.model)
    if options.data:
        config = dataclasses.replace(config, train_data=tuple(options.data))
    config = override(config, *options.set)
    if not config.model:
        raise ValueError("no model to start from: --model MODEL, or the config's field model")
    return config


def _evaluator(config):
    """The evaluation function of the config, if it has an evaluation task."""
    if not config.evaluate_task:
        return None
    from m3jax.evaluate.callback import evaluator

    return evaluator(config)
