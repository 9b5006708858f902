"""Write an association file of raw exposures or calibrated images, with one product per visit.

The members of a product are aligned to each other and to the astrometric catalog jointly::

    python scripts/make_association.py L1_asn.json r*_uncal.asdf

The file contains all visits. (romancal reads only the first product of a file: give it one file per visit.)
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

from rampflow.command_line import script_parser
from rampflow.errors import RampflowError, raise_problems
from rampflow.files.atomic import replacing
from rampflow.step.program import reported_errors
from rampflow.workflow.association import describe_visits
from rampflow.workflow.exposure_names import stem_of, visit_of


def make_association(exposures: list[Path], folder: Path) -> dict:
    """Make the content of an association file.

    Parameters
    ----------
    exposures : list of pathlib.Path
        Raw files or calibrated images.
    folder : pathlib.Path
        Folder of the association file; the names of its members are relative to it.

    Returns
    -------
    dict
        The content, with ``products``: each has the ``name`` of a visit and its ``members``.

    Raises
    ------
    RampflowError
        A file doesn't exist, is given twice, or has the name of neither.
    """
    given = Counter(path.absolute() for path in exposures)
    problems = [f"{path}: does not exist" for path in given if not path.is_file()]
    problems += [f"{path}: is given {count} times; name it once" for path, count in given.items() if count > 1]
    raise_problems(problems)
    visits: dict[str, list[str]] = {}
    for path in sorted(exposures):
        visits.setdefault(visit_of(stem_of(path)), []).append(os.path.relpath(path, folder))
    return describe_visits(visits)


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    parser = script_parser("make_association.py", __doc__ or "")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="association file to write (.json)")
    parser.add_argument(
        "exposures",
        metavar="EXPOSURE",
        type=Path,
        nargs="+",
        help="raw exposures (_uncal.asdf), ramps, or calibrated images (_cal.asdf)",
    )
    arguments = parser.parse_args(argv)
    with reported_errors("make_association") as outcome:
        if arguments.output.suffix != ".json":
            raise RampflowError(f"{arguments.output}: an association file's name must end in .json")
        association = make_association(arguments.exposures, arguments.output.absolute().parent)
        with replacing(arguments.output) as partial:
            partial.write_text(json.dumps(association, indent=2) + "\n")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
