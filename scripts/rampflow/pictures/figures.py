"""Figures of the report: their colors, which the color-blind tell apart, their sizes, and their encoding."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

#: Okabe and Ito's palette (https://jfly.uni-koeln.de/color/).
BLACK, ORANGE, SKY, GREEN, BLUE, RED = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
COLOR_MAP = "cividis"

WIDTH = 4.6  #: inches: as wide as a column of the report, so that text keeps its size on a phone
DPI = 200

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "image.cmap": COLOR_MAP,
    "image.origin": "lower",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
}


def new_figure(height: float) -> Figure:
    """Make a figure of the report.

    Parameters
    ----------
    height : float
        Its height, inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, of the report's width and style.
    """
    matplotlib.rcParams.update(STYLE)
    return Figure((WIDTH, height), layout="constrained")


def picture(figure: Figure, title: str, caption: str) -> dict:
    """Draw a figure as the report takes it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    title, caption : str
        Its title and caption.

    Returns
    -------
    dict
        ``title``, ``caption``, and ``source``: the picture itself as a data URI.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=DPI, pil_kwargs={"quality": 85})
    return {"title": title, "caption": caption, "source": data_uri(buffer.getvalue())}


def data_uri(content: bytes, kind: str = "image/webp") -> str:
    """Write a file's content as a URI, to be embedded in a page.

    Parameters
    ----------
    content : bytes
        The content.
    kind : str
        Its media type.

    Returns
    -------
    str
        The URI.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
