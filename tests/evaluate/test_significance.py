"""Confidence intervals and paired tests against SciPy's."""

import numpy as np
import pytest
import scipy.stats

from m3jax.evaluate.significance import (
    bootstrap_means,
    compare,
    holm,
    interval,
    randomization_p,
)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.random((300, 60)) ** 2  # mean 1/3
    hits = 0
    for values in draws:
        low, high = interval(bootstrap_means(values, samples=400))
        assert low <= values.mean() <= high
        hits += low <= 1 / 3 <= high
    assert 0.90 < hits / 300 < 0.985
    np.testing.assert_array_equal(bootstrap_means(draws[0]), bootstrap_means(draws[0]))
    theirs = scipy.stats.bootstrap(
        (draws[0],), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    ours = interval(bootstrap_means(draws[0], samples=20_000))
    np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert interval(bootstrap_means(np.zeros(0))) == (0.0, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2])
def test_randomization_equals_scipys_exact_test(shift):
    rng = np.random.default_rng(1)
    a = rng.random(13)
    b = np.where(rng.random(13) < 0.3, a, a - shift + rng.normal(0, 0.1, 13))
    exact = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**13,
    ).pvalue
    assert randomization_p(a - b, samples=40_000) == pytest.approx(exact, abs=0.012)


def test_pairs_of_methods_are_compared():
    rng = np.random.default_rng(2)
    base = rng.random(200)
    methods = {"a": base, "b": base - 0.1 + rng.normal(0, 0.1, 200), "c": base.copy()}
    rows = {(row.a, row.b): row for row in compare(methods, samples=2000)}
    assert set(rows) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert rows["a", "b"].difference == pytest.approx(np.mean(base - methods["b"]))
    assert rows["a", "b"].t_p == pytest.approx(scipy.stats.ttest_rel(base, methods["b"]).pvalue)
    assert rows["a", "b"].randomization_p == pytest.approx(1 / 2001)
    assert rows["a", "c"].randomization_p == rows["a", "c"].t_p == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
