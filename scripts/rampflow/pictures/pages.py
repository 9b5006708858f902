"""Pages of HTML, made of a template and its content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rampflow.files.atomic import replacing

if TYPE_CHECKING:
    from jinja2 import Template


def write_page(path: Path, template: Path, content: dict) -> None:
    """Write the page that a template makes of its content.

    Parameters
    ----------
    path : pathlib.Path
        The page.
    template : pathlib.Path
        The template, of Jinja.
    content : dict
        Values of the template's variables.
    """
    with replacing(path) as partial:
        partial.write_text(read_template(template).render(content), encoding="utf-8")


def read_template(path: Path) -> Template:
    """Read the template of a page.

    Parameters
    ----------
    path : pathlib.Path
        The template, of Jinja.

    Returns
    -------
    jinja2.Template
        The template. It escapes values, and has the filter ``number``, see `format_number`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = format_number
    return environment.get_template(path.name)


def format_number(value: float | None, form: str = ".3g") -> str:
    """Write a number as text.

    Parameters
    ----------
    value : float or None
        The number.
    form : str
        Its format, as `format` takes it.

    Returns
    -------
    str
        The text; a dash where there is no number.
    """
    return "–" if value is None or not np.isfinite(value) else format(value, form)
