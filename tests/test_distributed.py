"""Arguments of jax.distributed.initialize from flags and environment."""

import pytest

from m3jax.distributed import initialize_arguments


def test_where_the_other_processes_are():
    assert initialize_arguments(None, None, None, {}) is None
    assert initialize_arguments(None, None, None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}) == {}
    assert (
        initialize_arguments(None, None, None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None
    )
    assert initialize_arguments(None, None, None, {"TPU_WORKER_HOSTNAMES": "a,b"}) == {}
    want = {"coordinator_address": "h:1", "num_processes": 4, "process_id": 2}
    assert initialize_arguments("h:1", 4, 2, {}) == want
    assert initialize_arguments("h:1", 4, None, {"JOB_COMPLETION_INDEX": "2"}) == want
    for bad in (("h:1", None, None), ("h:1", 2, 2), ("h", 2, 0), (None, 2, 0)):
        with pytest.raises(ValueError):
            initialize_arguments(*bad, {})
