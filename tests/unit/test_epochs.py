"""Groups of exposures by epoch."""

from types import SimpleNamespace

import pytest

from rampflow.alignment.epochs import groups_by_epoch


def exposures(*epochs):
    return [SimpleNamespace(stem=f"exposure_{index}", epoch=epoch) for index, epoch in enumerate(epochs)]


def test_exposures_within_a_tenth_of_a_year_are_one_group():
    assert groups_by_epoch(exposures(2027.50, 2027.00, 2027.09, 2027.45, 2027.11)) == [[1, 2], [4], [0, 3]]


def test_an_exposure_without_an_epoch_is_named():
    with pytest.raises(ValueError, match="exposure_1: has no epoch"):
        groups_by_epoch(exposures(2027.0, None))
