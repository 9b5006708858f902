"""Texts of messages."""

import pytest

from rampflow.errors import counted


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0, "star"), "0 stars"),
        ((1, "star"), "1 star"),
        ((2, "star"), "2 stars"),
        ((1, "match", "matches"), "1 match"),
        ((3, "match", "matches"), "3 matches"),
        ((1, "row is", "rows are"), "1 row is"),
    ],
)
def test_a_number_has_its_noun(words, expected):
    assert counted(*words) == expected
