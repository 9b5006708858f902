"""What the jobs of a run ask for."""

from types import SimpleNamespace

import pytest

from rampflow.workflow import resources

SHAPE = (10, 4096, 4096)  #: a frame is 67.1 MB in single precision


def wildcards(**values):
    """What Snakemake gives a function of a rule."""
    return SimpleNamespace(**values, keys=lambda: list(values))


@pytest.mark.parametrize(
    ("attempt", "on_cluster", "expected"), [(1, False, 1576), (2, False, 3152), (1, True, 1976), (3, True, 5129)]
)
def test_memory_grows_with_the_attempt_and_not_that_of_snakemake(attempt, on_cluster, expected):
    found = resources.memory(100, frames=2, ramps=2, shape=SHAPE, attempt=attempt, on_cluster=on_cluster)
    assert found == expected


def test_a_job_of_an_association_has_no_size():
    assert resources.memory(1000, shape=None, attempt=2, on_cluster=False) == 2000
    assert resources.minutes(30, per_gigabyte=5, shape=None, attempt=1) == 30


def test_functions_of_the_rules_ask_for_the_exposure_of_a_job():
    """Snakemake calls them with the wildcards of a job; those of an association have no exposure."""
    exposure, association = wildcards(stem="a"), wildcards(association="visit")
    local = resources.Resources({"a": SHAPE, "b": (2, 64, 64)}, lambda: 2)
    assert local.memory(100, frames=2, ramps=2)(exposure, 1) == 1576
    assert local.memory(100, frames=2, ramps=2)(association, 2) == 200
    more = {"a": 0.5}
    assert local.memory(100, frames=2, ramps=1.5, more_ramps=more.__getitem__)(exposure, 1) == 1576
    assert local.minutes(5, per_gigabyte=5)(exposure, 2) == 17
    assert local.cores(exposure) == 1
    cluster = resources.Resources({"a": SHAPE}, lambda: None)
    assert cluster.memory(100, frames=2, ramps=2)(exposure, 1) == 1976
    assert cluster.cores(exposure) == 2


def test_minutes_grow_with_the_ramp():
    assert resources.minutes(5, per_gigabyte=5, shape=SHAPE, attempt=1) == 8
    assert resources.minutes(5, per_gigabyte=5, shape=SHAPE, attempt=2) == 17


@pytest.mark.parametrize(("exposures", "cores", "expected"), [(1, 1, 2), (18, 4, 1), (18, 18, 1), (18, 19, 2), (18, None, 2)])
def test_jobs_have_one_core_where_there_are_exposures_for_all(exposures, cores, expected):
    assert resources.threads(exposures, cores) == expected


def test_the_memory_of_an_association_grows_with_its_exposures():
    members = {"small": ["a"], "large": list("abcdefgh")}
    memory = resources.Resources({}, lambda: 2).memory_of_members(1000, per_member=1.5, members=members.__getitem__)
    assert memory(wildcards(association="small"), 1) == 1001
    assert memory(wildcards(association="large"), 1) == 1012
    assert memory(wildcards(association="large"), 2) == 2024
