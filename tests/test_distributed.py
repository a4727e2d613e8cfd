"""Arguments of jax.distributed.initialize from flags and environment."""

import pytest

from m3jax.distributed import arguments_of


def test_where_the_other_processes_are():
    assert arguments_of(None, None, None, {}) is None
    assert arguments_of(None, None, None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}) == {}
    assert arguments_of(None, None, None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None
    assert arguments_of(None, None, None, {"TPU_WORKER_HOSTNAMES": "a,b"}) == {}
    want = {"coordinator_address": "h:1", "num_processes": 4, "process_id": 2}
    assert arguments_of("h:1", 4, 2, {}) == want
    assert arguments_of("h:1", 4, None, {"JOB_COMPLETION_INDEX": "2"}) == want
    for bad in (("h:1", None, None), ("h:1", 2, 2), ("h", 2, 0), (None, 2, 0)):
        with pytest.raises(ValueError):
            arguments_of(*bad, {})
