from __future__ import annotations

import numpy as np

from marketfeed.sandbox.noise import identity, mix, normal, uniform


def test_a_hash_is_the_same_on_every_machine() -> None:
    assert identity("NSE:RELIANCE") == 12467819006185186128
    published = 0xE220A8397B1DCDAF  # the first number of splitmix64 from state 0
    assert mix(np.array([0])).tolist() == [published]


def test_normal_numbers_have_mean_0_and_deviation_1() -> None:
    sample = normal(mix(7, np.arange(100_000)))
    assert abs(sample.mean()) < 0.02
    assert abs(sample.std() - 1) < 0.02


def test_uniform_numbers_fill_the_unit_interval() -> None:
    sample = uniform(mix(7, np.arange(100_000)))
    assert 0 <= sample.min() < 0.001
    assert 0.999 < sample.max() < 1
