"""Start of a multi-process program: every process runs the same command and joins the others.

flags      --coordinator HOST:PORT --processes N --process I
SLURM      no flags: srun sets SLURM_*
TPU pod    no flags: the metadata server has the addresses
Kubernetes an indexed job (JOB_COMPLETION_INDEX) with --coordinator and --processes
Open MPI   no flags: mpirun sets OMPI_*
"""

import os
from collections.abc import Mapping
from typing import Any

import jax


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Calls jax.distributed.initialize; must precede any use of devices. One process: no effect.

    Raises ValueError for flags that contradict each other.
    """
    arguments = initialize_arguments(coordinator, processes, process, os.environ)
    if arguments is not None:
        jax.distributed.initialize(**arguments)


def initialize_arguments(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    environment: Mapping[str, str],
) -> dict[str, Any] | None:
    """The arguments of jax.distributed.initialize: {} if it detects them, None for one process."""
    if coordinator is not None:
        index = environment.get("JOB_COMPLETION_INDEX")  # an indexed job of Kubernetes
        process = int(index) if process is None and index is not None else process
        if processes is None or process is None:
            raise ValueError("--coordinator needs --processes and --process as well")
        if not 0 <= process < processes:
            raise ValueError(f"--process {process} must lie between 0 and {processes - 1}")
        if ":" not in coordinator:
            raise ValueError(f"--coordinator must be HOST:PORT, got {coordinator!r}")
        return {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    if processes is not None or process is not None:
        raise ValueError("--processes and --process need --coordinator HOST:PORT")
    tasks = environment.get("SLURM_NTASKS", "1")
    on_slurm = "SLURM_PROCID" in environment and tasks.isdigit() and int(tasks) > 1
    on_mpi = int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    on_pod = len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
    return {} if on_slurm or on_mpi or on_pod else None
