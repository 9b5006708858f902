"""Functions that Snakemake calls with the wildcards of a job, for its inputs and parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rampflow.files import links
from rampflow.files.path_lists import write_list
from rampflow.workflow.job_arguments import given_options


def of_exposure(method: Callable, *arguments: Any) -> Callable[[Any], Any]:
    """Make the function that calls a method with the exposure of a job.

    Parameters
    ----------
    method : callable
        Takes the name of an exposure, and the other arguments.
    *arguments : object
        The other arguments.

    Returns
    -------
    callable
        Function of wildcards.
    """
    return lambda wildcards: method(wildcards.stem, *arguments)


def of_association(method: Callable, *arguments: Any) -> Callable[[Any], Any]:
    """Make the function that calls a method with the association of a job.

    Parameters
    ----------
    method : callable
        Takes the name of an association, and the other arguments.
    *arguments : object
        The other arguments.

    Returns
    -------
    callable
        Function of wildcards.
    """
    return lambda wildcards: method(wildcards.association, *arguments)


def mark_links(mark: Callable[[str], Any], function: Callable[[Any], Any]) -> Callable[[Any], list]:
    """Make the input function that marks those files of another one that are links, see `rampflow.files.links`.

    Parameters
    ----------
    mark : callable
        Marks the name of a file, as Snakemake's `ancient` does.
    function : callable
        Function of wildcards that names a file, or a list of files.

    Returns
    -------
    callable
        Function of wildcards. It returns a list of the files.
    """

    def _mark(wildcards: Any) -> list:
        files = function(wildcards)
        return [mark(path) if links.is_link(path) else path for path in ([files] if isinstance(files, str) else files)]

    return _mark


def options_of_inputs(*names: str) -> Callable[[Any, Any], str]:
    """Make the function that writes named inputs of a job as arguments of its script.

    Parameters
    ----------
    *names : str
        The inputs, each with the name of its option. Inputs that the job does not have are left out.

    Returns
    -------
    callable
        Function of wildcards and input.
    """
    return lambda wildcards, input: given_options(input, names)


def list_of_inputs(name: str) -> Callable[[Any, Any], str]:
    """Make the function that writes an input of a job as one argument, for inputs with too many files for a command line.

    Parameters
    ----------
    name : str
        Name of the input.

    Returns
    -------
    callable
        Function of wildcards and input. It returns ``@FILE``, see `rampflow.files.path_lists.write_list`; an empty text if the
        job does not have the input.
    """

    def _write(wildcards: Any, input: Any) -> str:
        files = input.get(name, [])
        return write_list([files] if isinstance(files, str) else files)

    return _write
