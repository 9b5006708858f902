"""What the jobs of a run ask for."""

import pytest

from rampflow.workflow import resources

SHAPE = (10, 4096, 4096)  #: a frame is 67.1 MB in single precision


@pytest.mark.parametrize(
    ("attempt", "on_cluster", "expected"), [(1, False, 1576), (2, False, 3152), (1, True, 1976), (3, True, 5129)]
)
def test_memory_grows_with_the_attempt_and_not_that_of_snakemake(attempt, on_cluster, expected):
    found = resources.memory(100, frames=2, ramps=2, shape=SHAPE, attempt=attempt, on_cluster=on_cluster)
    assert found == expected


def test_a_job_of_an_association_has_no_size():
    assert resources.memory(1000, shape=None, attempt=2, on_cluster=False) == 2000
    assert resources.minutes(30, per_gigabyte=5, shape=None, attempt=1) == 30


def test_minutes_grow_with_the_ramp():
    assert resources.minutes(5, per_gigabyte=5, shape=SHAPE, attempt=1) == 8
    assert resources.minutes(5, per_gigabyte=5, shape=SHAPE, attempt=2) == 17


@pytest.mark.parametrize(("exposures", "cores", "expected"), [(1, 1, 2), (18, 4, 1), (18, 18, 1), (18, 19, 2), (18, None, 2)])
def test_jobs_have_one_core_where_there_are_exposures_for_all(exposures, cores, expected):
    assert resources.threads(exposures, cores) == expected
