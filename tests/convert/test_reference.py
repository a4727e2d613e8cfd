"""Differences between outputs."""

import numpy as np

from m3jax.convert.reference import Outputs, differences


def test_what_is_no_number_differs():
    good = Outputs([np.ones(2)], [{5: 1.0}], [np.ones((1, 2))])
    bad = Outputs([np.array([1.0, np.nan])], [{5: float("nan")}], [np.full((1, 2), np.nan)])
    assert differences(good, good) == {"dense": 0.0, "sparse": 0.0, "colbert": 0.0}
    assert set(differences(good, bad).values()) == {np.inf}
