"""The error that users read, and texts for its messages."""

from typing import SupportsInt

MAX_PROBLEMS = 20  #: problems that one error message lists


class RampflowError(Exception):
    """User-facing error: names the file, the field and the remedy."""


def raise_problems(problems: list[str], remedy: str = "") -> None:
    """Raise one error for several problems.

    Parameters
    ----------
    problems : list of str
        A line for each problem.
    remedy : str
        A line that follows them.

    Raises
    ------
    RampflowError
        There is a problem.
    """
    if problems:
        more = [f"... and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise RampflowError("\n".join(problems[:MAX_PROBLEMS] + more + [remedy] * bool(remedy)))


def counted(number: SupportsInt, one: str, many: str = "") -> str:
    """Write a number with its noun, and with what depends on it.

    Parameters
    ----------
    number : int
        The number.
    one : str
        What follows 1, as ``star`` or ``star is left out``.
    many : str
        What follows other numbers; by default `one` with an s.

    Returns
    -------
    str
        Number and text: ``0 stars``, ``1 star``, ``2 stars are left out``.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


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
