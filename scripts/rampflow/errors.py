"""The one error that a user is meant to read."""

MOST = 20  #: problems that are told at once


class RampflowError(Exception):
    """Something that the user can mend: the message names the file, the field and the remedy."""


def raise_together(problems: list[str], remedy: str = "") -> None:
    """Raise one error of all problems, a line for each and one for a remedy of all, where there are any.

    Raises
    ------
    RampflowError
    """
    if problems:
        more = [f"... and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise RampflowError("\n".join(problems[:MOST] + more + [remedy] * bool(remedy)))
