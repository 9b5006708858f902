"""The interactive parts of the survey's page: table, filters and plots, of the library Bokeh."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, CustomJS, HoverTool, LinearColorMapper, Model
from bokeh.models.annotations import ColorBar
from bokeh.models.widgets.groups import CheckboxGroup
from bokeh.models.widgets.inputs import MultiSelect, NumericInput, Select, TextInput
from bokeh.models.widgets.tables import DataTable, HTMLTemplateFormatter, TableColumn
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from rampflow.pictures.survey import MEASURED
from rampflow.quality.numbers import NUMBERS

#: Centers of the detectors WFI01 to WFI18 in the focal plane, mm (Roman's optical design of 2021-02-04).
LEFT_HALF = (
    *((-22.14, 12.15), (-22.29, -37.03), (-22.44, -82.06)),
    *((-66.42, 20.90), (-66.92, -28.28), (-67.42, -73.06)),
    *((-110.70, 42.20), (-111.48, -6.98), (-112.64, -51.06)),
)
CENTERS = (*LEFT_HALF, *((-x, y) for x, y in LEFT_HALF))
DETECTORS = tuple(f"WFI{place + 1:02d}" for place in range(len(CENTERS)))
DETECTOR_WIDTH = 40.88  #: mm: 4088 pixels of 10 µm

#: Columns of the table besides those of numbers, with their widths in pixels.
TEXT_WIDTHS = {
    **{"stem": 320, "state": 75, "outlier_text": 260, "detector": 65, "optical_element": 60, "exposure_type": 95},
    **{"exposure_start_time": 165, "association": 190, "steps": 180, "failed_step": 110, "reason": 220},
    **{"ma_table_name": 100, "crds_context": 130, "calibration_software_version": 170},
}
NUMBER_WIDTH = 95
#: Columns that the table has when the page is opened.
SHOWN = (
    *("stem", "state", "outlier_text", "detector", "optical_element", "exposure_start_time", "image_median", "image_rms"),
    *("good_pixel_fraction", "jump_rate", "psf_fwhm", "depth", "n_matches", "rmse_after"),
)
FIRST_NUMBER = "image_median"
#: Columns that the plots and the table always need.
ALWAYS = ("stem", "state", "outliers", "outlier_text", "page", "time")

COLOR_MAP: Any = Cividis256
ORDINARY, MARKED, UNKNOWN = "#0072b2", "#b34700", "#dde2e8"
PLOT_HEIGHT = 340

# Texts of users are escaped (<%-), and a number that is an outlier has the color of outliers.
LINK = '<% if (page) { %><a href="<%- page %>"><%- value %></a><% } else { %><%- value %><% } %>'
STATE = (
    '<% const style = value === "complete" ? "" : "color: COLOR; font-weight: 600" %>'
    '<span class="<%- value %>" style="<%- style %>"><%- value %></span>'
)
TEXT = '<span title="<%- value %>"><%- value %></span>'
OUTLIER_TEXT = '<span title="<%- value %>" style="color: COLOR"><%- value %></span>'
NUMBER = (
    '<% const marked = outliers.split(",").includes("NAME"); %>'
    '<% const style = marked ? "color: #fff; background: COLOR; padding: 0 4px" : "" %>'
    '<span class="<%- marked ? "outlier" : "" %>" style="<%- style %>">'
    '<%- Number.isFinite(value) ? (Number.isInteger(value) ? value : value.toPrecision(4)) : "–" %></span>'
)


def _title(name: str) -> str:
    """Name of a number with its unit, for axes and menus."""
    number = NUMBERS[name]
    return f"{number.title} ({number.unit.replace(' / ', '/')})" if number.unit else number.title


def _column(name: str) -> TableColumn:
    number = NUMBERS.get(name)
    if number is not None and not number.is_text:
        template, width = NUMBER.replace("NAME", name), NUMBER_WIDTH
    else:
        template = {"stem": LINK, "state": STATE, "outlier_text": OUTLIER_TEXT}.get(name, TEXT)
        width = TEXT_WIDTHS[name]
    formatter = HTMLTemplateFormatter(template=template.replace("COLOR", MARKED))
    heading = {"stem": "exposure", "outlier_text": "outliers", "optical_element": "element", "exposure_start_time": "start"}
    title = heading.get(name) or (name if number is None or number.is_text else _title(name))
    return TableColumn(field=name, title=title, width=width, formatter=formatter, visible=name in SHOWN)


def _choices(values: list[str], title: str, name: str) -> MultiSelect:
    return MultiSelect(title=title, options=sorted(set(values) - {""}), size=4, name=name, sizing_mode="stretch_width")


def _plot(**options: Any) -> Any:
    plot = figure(
        height=PLOT_HEIGHT,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,box_select,tap,reset,save",
        active_drag=None,  # so that a finger scrolls the page
        active_tap="tap",
        toolbar_location="above",
        output_backend="canvas",
        **options,
    )
    plot.toolbar.logo = None
    return plot


def make_document(texts: Mapping[str, Any], columns: Mapping[str, np.ndarray], scripts: Path) -> Document:
    """Make the interactive parts of the page.

    Parameters
    ----------
    texts : mapping
        From `rampflow.pictures.survey.text_columns`, in the order of the page.
    columns : mapping of str to numpy.ndarray
        Columns of numbers of the table of exposures, in the same order.
    scripts : pathlib.Path
        Folder with ``survey_*.js``: what happens in the page when a widget changes.

    Returns
    -------
    bokeh.document.Document
        Its roots are named: ``table``, ``search``, ``state``, ``detector``, ``optical_element``, ``exposure_type``,
        ``unusual``, ``number``, ``minimum``, ``maximum``, ``columns``, ``focal_plane``, ``trend``, ``distribution``, ``sky``.
    """
    # The table copies all columns of its source when it is filtered or sorted. It has those that are shown, and no others.
    details = {name: values for name, values in texts.items() if name not in ALWAYS} | {
        name: columns[name] for name in MEASURED
    }
    always = {name: texts[name] for name in ALWAYS}
    always |= {"ra": columns["ra_ref"], "dec": columns["dec_ref"], "value": columns[FIRST_NUMBER]}
    source, others = ColumnDataSource(always, name="exposures"), ColumnDataSource(details, name="details")
    kept = BooleanFilter(booleans=[True] * len(texts["stem"]), name="kept")
    drawn = BooleanFilter(booleans=kept.booleans, name="drawn")
    widgets = _make_widgets(texts)
    table = DataTable(
        source=source,
        view=CDSView(filter=kept),
        columns=[_column(name) for name in (*TEXT_WIDTHS, *MEASURED)],
        name="table",
        height=460,
        sizing_mode="stretch_width",
        autosize_mode="none",
        index_position=None,
        row_height=26,
        sortable=True,
        reorderable=False,
    )
    order = {name: place for place, name in enumerate((*SHOWN, *TEXT_WIDTHS, *MEASURED))}
    table.columns.sort(key=lambda column: order[column.field])
    colors = LinearColorMapper(palette=COLOR_MAP, low=0, high=1, nan_color=UNKNOWN)
    plots, parts = _make_plots(source, CDSView(filter=drawn), colors, columns)
    arguments: dict[str, Any] = {
        "source": source,
        "others": others,
        "kept": kept,
        "drawn": drawn,
        "colors": colors,
        "table": table,
    }
    arguments |= {"titles": {name: _title(name) for name in MEASURED}, "always": list(always), "sky": plots["sky"]}
    arguments |= {**widgets, **parts}
    draw_footprints = CustomJS.from_file(scripts / "survey_footprints.js", **arguments)
    arguments["draw_footprints"] = draw_footprints
    scripted = {
        name: CustomJS.from_file(scripts / f"survey_{name}.js", **arguments) for name in ("columns", "filter", "chosen")
    }
    widgets["number"].js_on_change("value", scripted["columns"], scripted["filter"])
    widgets["search"].js_on_change("value_input", scripted["filter"])
    widgets["unusual"].js_on_change("active", scripted["filter"])
    widgets["columns"].js_on_change("value", scripted["columns"])
    for name in ("state", "detector", "optical_element", "exposure_type", "minimum", "maximum"):
        widgets[name].js_on_change("value", scripted["filter"])
    source.selected.js_on_change("indices", scripted["chosen"])
    document = Document()
    for root in (table, *widgets.values(), *plots.values()):
        document.add_root(root)
    for limits in (plots["sky"].x_range, plots["sky"].y_range):
        limits.js_on_change("end", draw_footprints)
    document.js_on_event("document_ready", scripted["columns"], scripted["filter"])
    return document


def _make_widgets(texts: Mapping[str, Any]) -> dict[str, Any]:
    wide: Any = {"sizing_mode": "stretch_width"}
    groups: dict[str, list[Any]] = {}
    for name in MEASURED:
        groups.setdefault(NUMBERS[name].section, []).append((name, _title(name)))
    table_columns: list[Any] = [(name, name) for name in TEXT_WIDTHS] + [(name, _title(name)) for name in MEASURED]
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
        "columns": MultiSelect(title="Columns", options=table_columns, value=list(SHOWN), size=12, name="columns", **wide),
    }


def _make_plots(
    source: ColumnDataSource,
    view: CDSView,
    colors: LinearColorMapper,
    columns: Mapping[str, np.ndarray],
) -> tuple[dict[str, figure], dict[str, Model]]:
    """Plots by name, and what the scripts change in them."""
    hovers = [("", "@stem"), ("value", "@value{0.[0000]}"), ("state", "@state"), ("outliers", "@outlier_text")]
    points: Any = {"source": source, "view": view, "nonselection_fill_alpha": 0.15}

    unknown: dict[str, Any] = {"value": [np.nan] * len(CENTERS), "text": [""] * len(CENTERS)}
    unknown |= {"count": [0] * len(CENTERS), "marked": [0] * len(CENTERS)}
    x, y = zip(*CENTERS, strict=True)
    focal = ColumnDataSource({"x": x, "y": y, "detector": DETECTORS, **unknown}, name="focal")
    by_detector = LinearColorMapper(palette=COLOR_MAP, low=0, high=1, nan_color=UNKNOWN)
    focal_plane = _plot(name="focal_plane", match_aspect=True)
    focal_plane.grid.visible = False
    focal_plane.xaxis.axis_label = focal_plane.yaxis.axis_label = "position in the focal plane (mm)"
    squares = focal_plane.rect(
        "x",
        "y",
        DETECTOR_WIDTH,
        DETECTOR_WIDTH,
        source=focal,
        line_color="#5a6472",
        fill_color={"field": "value", "transform": by_detector},
    )
    for words, up in (("detector", 7), ("text", -7)):
        focal_plane.text(
            "x",
            "y",
            words,
            source=focal,
            y_offset=-up,
            text_align="center",
            text_baseline="middle",
            text_font_size="10px",
            text_color="#1a1f29",
            background_fill_color="#ffffff",
            background_fill_alpha=1.0,
        )
    focal_plane.add_layout(ColorBar(color_mapper=by_detector, width=10), "right")
    focal_plane.add_tools(
        HoverTool(
            renderers=[squares],
            tooltips=[("", "@detector"), ("median", "@text"), ("exposures", "@count"), ("outliers", "@marked")],
        )
    )

    marks = ColumnDataSource({"time": [], "value": [], "one": [], "stem": [], "outlier_text": []}, name="marks")
    ring: Any = {"source": marks, "fill_color": None, "line_color": MARKED, "line_width": 2}
    trend = _plot(name="trend", x_axis_type="datetime")
    trend.xaxis.axis_label = "start of the exposure (UTC)"
    dots = trend.scatter("time", "value", size=4, marker="square", fill_color=ORDINARY, line_color=None, **points)
    trend.scatter("time", "value", size=11, marker="circle", **ring)
    trend.add_tools(HoverTool(renderers=[dots], tooltips=hovers, limit=3))

    bars = ColumnDataSource({"left": [0], "right": [1], "top": [1]}, name="bars")
    distribution = _plot(name="distribution", y_axis_type="log")
    distribution.yaxis.axis_label = "exposures"
    distribution.quad("left", "right", "top", 0.5, source=bars, fill_color=ORDINARY, line_color="#ffffff", fill_alpha=0.7)
    triangles = distribution.scatter("value", "one", size=11, marker="inverted_triangle", **ring)
    distribution.add_tools(HoverTool(renderers=[triangles], tooltips=[hovers[0], ("", "@outlier_text")], limit=3))

    known = columns["dec_ref"][np.isfinite(columns["dec_ref"])]
    stretch = max(float(np.cos(np.radians(statistics.median(known.tolist())))), 0.1) if known.size else 1.0
    sky = _plot(name="sky", match_aspect=True, aspect_scale=stretch)
    sky.x_range.flipped = True
    sky.xaxis.axis_label, sky.yaxis.axis_label = "right ascension (deg)", "declination (deg)"
    fill: Any = {"field": "value", "transform": colors}
    places = sky.scatter("ra", "dec", size=4, marker="square", fill_color=fill, line_color=None, **points)
    # Those in view, if they are few: all of a large survey take long to draw, and each is smaller than a pixel of the screen.
    outlines = ColumnDataSource({"xs": [], "ys": [], "value": [], "stem": [], "state": [], "outlier_text": []}, name="outlines")
    footprints = sky.patches("xs", "ys", source=outlines, fill_color=fill, line_color=fill, fill_alpha=0.5)
    sky.add_layout(ColorBar(color_mapper=colors, width=10), "right")
    sky.add_tools(HoverTool(renderers=[footprints, places], tooltips=hovers, limit=3))

    plots = {"focal_plane": focal_plane, "trend": trend, "distribution": distribution, "sky": sky}
    parts: dict[str, Any] = {"focal": focal, "by_detector": by_detector, "marks": marks, "bars": bars, "outlines": outlines}
    return plots, parts | {"trend_axis": trend.yaxis[0], "distribution_axis": distribution.xaxis[0]}
