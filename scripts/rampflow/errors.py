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


def shortened(value: object) -> str:
    """Text of a value for a message.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    str
        Its text, cut after 300 characters.
    """
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def one_line(error: Exception) -> str:
    """Text of an error for a message.

    Parameters
    ----------
    error : Exception
        The error.

    Returns
    -------
    str
        Its text in one line, cut after 300 characters; the name of its type where it has none.
    """
    return shortened(" ".join((str(error) or type(error).__name__).split()))
