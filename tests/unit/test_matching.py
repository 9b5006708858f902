"""The limits of the parameters with which stars are matched."""

import pytest
import tweakreg

from rampflow.alignment.matching import LARGEST_SEARCH
from rampflow.errors import RampflowError


@pytest.mark.parametrize("name", ["searchrad", "abs_searchrad"])
def test_a_search_that_takes_too_much_memory_is_refused_by_name(name):
    parameters = {p.name: p.default for p in tweakreg.STEP.parameters}
    tweakreg.matchings(parameters | {name: LARGEST_SEARCH})
    with pytest.raises(RampflowError, match=f"^{name} is .* lower it"):
        tweakreg.matchings(parameters | {name: LARGEST_SEARCH + 1})
