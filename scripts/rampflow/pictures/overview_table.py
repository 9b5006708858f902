"""The table of a page of many exposures, and the widgets that filter it, of the library Bokeh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bokeh.models import CDSView, ColumnDataSource
from bokeh.models.widgets.groups import CheckboxGroup
from bokeh.models.widgets.inputs import MultiSelect, NumericInput, Select, TextInput
from bokeh.models.widgets.tables import DataTable, HTMLTemplateFormatter, TableColumn

from rampflow.pictures.overview import MEASURED
from rampflow.quality.numbers import NUMBERS

#: Columns of the table besides those of numbers, with their widths in pixels.
TEXT_WIDTHS = {
    **{"stem": 300, "state": 75, "note": 260, "detector": 65, "optical_element": 65, "exposure_type": 95},
    **{"exposure_start_time": 165, "association": 190, "steps": 180, "failed_step": 110, "reason": 220},
    **{"ma_table_name": 100, "crds_context": 130, "calibration_software_version": 170},
}
NUMBER_WIDTH = 75  #: at least, so that a heading fits
ROW_HEIGHT, MAXIMUM_HEIGHT = 26, 460
#: Columns that the table has when the page is opened.
SHOWN = (
    *("stem", "state", "note", "detector", "optical_element", "exposure_start_time", "image_median", "image_rms"),
    *("good_pixel_fraction", "jump_rate", "psf_fwhm", "depth", "n_matches", "rmse_after"),
)
HEADINGS = {"stem": "exposure", "optical_element": "element", "exposure_start_time": "start"}
FIRST_NUMBER = "image_median"  #: in the plots when the page is opened
MARKED = "#b34700"  #: color of outliers and of exposures without products

# Texts of users are escaped (<%-), and a number that is an outlier has the color of outliers. Of a name that is wider than its
# column, the end is shown: the beginning is the same for all exposures of a visit.
NAME = (
    '<div title="<%- value %>" style="direction: rtl; text-align: left; overflow: hidden; text-overflow: ellipsis">'
    '<% if (page) { %><a href="<%- page %>"><bdi><%- value %></bdi></a><% } else { %><bdi><%- value %></bdi><% } %></div>'
)
STATE = (
    '<% const style = value === "complete" ? "" : "color: COLOR; font-weight: 600" %>'
    '<span class="<%- value %>" style="<%- style %>"><%- value %></span>'
)
TEXT = '<span title="<%- value %>"><%- value %></span>'
NOTE = '<span title="<%- value %>" style="color: COLOR"><%- value %></span>'
NUMBER = (
    '<% const marked = outliers.split(",").includes("NAME"); %>'
    '<% const style = marked ? "color: #fff; background: COLOR; padding: 0 4px" : "" %>'
    '<span class="<%- marked ? "outlier" : "" %>" style="<%- style %>" title="<%- marked ? note : "" %>">'
    '<%- Number.isFinite(value) ? (Number.isInteger(value) ? value : value.toPrecision(4)) : "–" %></span>'
)


def title_of(name: str) -> str:
    """Name a number with its unit, for axes and menus.

    Parameters
    ----------
    name : str
        Name of the number.

    Returns
    -------
    str
        Its title, with the unit in parentheses.
    """
    number = NUMBERS[name]
    return f"{number.title} ({number.unit.replace(' / ', '/')})" if number.unit else number.title


def make_table(source: ColumnDataSource, view: CDSView) -> DataTable:
    """Make the table of exposures.

    Parameters
    ----------
    source : bokeh.models.ColumnDataSource
        Columns that are shown, and those that the templates of cells need.
    view : bokeh.models.CDSView
        The exposures that pass the filters.

    Returns
    -------
    bokeh.models.DataTable
        Table with a column for each text and number; those beyond `SHOWN` are hidden.
    """
    order = {name: place for place, name in enumerate((*SHOWN, *TEXT_WIDTHS, *MEASURED))}
    columns = sorted((_column(name) for name in (*TEXT_WIDTHS, *MEASURED)), key=lambda column: order[column.field])
    return DataTable(
        source=source,
        view=view,
        columns=columns,
        name="table",
        height=min(ROW_HEIGHT * (len(source.data["stem"]) + 2), MAXIMUM_HEIGHT),
        sizing_mode="stretch_width",
        autosize_mode="none",
        index_position=None,
        row_height=ROW_HEIGHT,
        sortable=True,
        reorderable=False,
    )


def _column(name: str) -> TableColumn:
    number = NUMBERS.get(name)
    if number is not None and not number.is_text:
        template, width, title = NUMBER.replace("NAME", name), max(NUMBER_WIDTH, 7 * len(title_of(name))), title_of(name)
    else:
        template, width = {"stem": NAME, "state": STATE, "note": NOTE}.get(name, TEXT), TEXT_WIDTHS[name]
        title = HEADINGS.get(name, name)
    formatter = HTMLTemplateFormatter(template=template.replace("COLOR", MARKED))
    return TableColumn(field=name, title=title, width=width, formatter=formatter, visible=name in SHOWN)


def make_widgets(texts: Mapping[str, Any]) -> dict[str, Any]:
    """Make the widgets that choose exposures, the number in the plots and the columns of the table.

    Parameters
    ----------
    texts : mapping
        From `rampflow.pictures.overview.text_columns`.

    Returns
    -------
    dict
        Widgets by name.
    """
    wide: Any = {"sizing_mode": "stretch_width"}
    groups: dict[str, list[Any]] = {}
    for name in MEASURED:
        groups.setdefault(NUMBERS[name].section, []).append((name, title_of(name)))
    columns: list[Any] = [(name, HEADINGS.get(name, name)) for name in TEXT_WIDTHS]
    columns += [(name, title_of(name)) for name in MEASURED]
    return {
        "search": TextInput(title="Search", placeholder="words in any text of an exposure", name="search", **wide),
        "state": _choices(texts["state"], "State", "state"),
        "detector": _choices(texts["detector"], "Detector", "detector"),
        "optical_element": _choices(texts["optical_element"], "Optical element", "optical_element"),
        "exposure_type": _choices(texts["exposure_type"], "Type", "exposure_type"),
        "unusual": CheckboxGroup(labels=["only outliers, failed and outdated ones"], active=[], name="unusual", **wide),
        "number": Select(title="Number in the plots", options=groups, value=FIRST_NUMBER, name="number", **wide),
        "minimum": NumericInput(title="at least", mode="float", value=None, name="minimum", **wide),
        "maximum": NumericInput(title="at most", mode="float", value=None, name="maximum", **wide),
        "columns": MultiSelect(title="Columns", options=columns, value=list(SHOWN), size=12, name="columns", **wide),
    }


def _choices(values: list[str], title: str, name: str) -> MultiSelect:
    return MultiSelect(title=title, options=sorted(set(values) - {""}), size=4, name=name, sizing_mode="stretch_width")
