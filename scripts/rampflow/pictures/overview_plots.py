"""The interactive parts of a page of many exposures, of the library Bokeh: its plots, and how they follow the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, CustomJS, HoverTool, LinearColorMapper, Model
from bokeh.models.annotations import ColorBar
from bokeh.models.formatters import CustomJSTickFormatter
from bokeh.models.labeling import NoOverlap
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from rampflow.pictures.footprints import outline_exposures
from rampflow.pictures.overview import MEASURED
from rampflow.pictures.overview_table import FIRST_NUMBER, MARKED, make_table, make_widgets, title_of

#: Centers of the detectors WFI01 to WFI18 in the focal plane, mm (Roman's optical design of 2021-02-04).
LEFT_HALF = (
    *((-22.14, 12.15), (-22.29, -37.03), (-22.44, -82.06)),
    *((-66.42, 20.90), (-66.92, -28.28), (-67.42, -73.06)),
    *((-110.70, 42.20), (-111.48, -6.98), (-112.64, -51.06)),
)
CENTERS = (*LEFT_HALF, *((-x, y) for x, y in LEFT_HALF))
DETECTORS = tuple(f"WFI{place + 1:02d}" for place in range(len(CENTERS)))
DETECTOR_WIDTH = 40.88  #: mm: 4088 pixels of 10 µm

#: Columns that the plots and the table always need.
ALWAYS = ("stem", "state", "outliers", "note", "page", "time")
COLOR_MAP: Any = Cividis256
ORDINARY, UNKNOWN, INK, STAR = "#0072b2", "#dde2e8", "#1a1f29", "#e69f00"
SELECTED_SIZE = 9  #: of a point that is selected, pixels; others have 4
PLOT_SIZE: Any = {"width": 600, "height": 400, "sizing_mode": "scale_width"}
HOVERS = [("", "@stem"), ("value", "@value{0.[0000]}"), ("state", "@state"), ("note", "@note")]


def make_document(
    texts: Mapping[str, Any], columns: Mapping[str, np.ndarray], scripts: Path, stars: np.ndarray | None = None
) -> Document:
    """Make the interactive parts of the page.

    Parameters
    ----------
    texts : mapping
        From `rampflow.pictures.overview.text_columns`, in the order of the page.
    columns : mapping of str to numpy.ndarray
        Columns of the table of exposures, in the same order.
    scripts : pathlib.Path
        Folder with ``overview_*.js``: what happens in the page when a widget changes.
    stars : numpy.ndarray, optional
        Right ascension and declination of stars for the map of the sky, degrees, of shape (n, 2).

    Returns
    -------
    bokeh.document.Document
        Its roots are named: ``table``, ``search``, ``state``, ``detector``, ``optical_element``, ``exposure_type``,
        ``unusual``, ``number``, ``minimum``, ``maximum``, ``columns``, ``focal_plane``, ``trend``, ``distribution``, ``sky``.
    """
    corners, centers = outline_exposures(columns)
    # The table copies all columns of its source when it is filtered or sorted. It has those that are shown, and no others.
    details = {name: values for name, values in texts.items() if name not in ALWAYS} | {
        name: columns[name] for name in MEASURED
    }
    always = {name: texts[name] for name in ALWAYS}
    always |= {"ra": centers[:, 0], "dec": centers[:, 1], "value": columns[FIRST_NUMBER]}
    source, others = ColumnDataSource(always, name="exposures"), ColumnDataSource(details, name="details")
    # Typed arrays are read faster than a list of corners for each exposure. An element is 0.1 arcsec at most.
    flat = {"x": corners[..., 0].ravel().astype("f4"), "y": corners[..., 1].ravel().astype("f4")}
    kept = BooleanFilter(booleans=[True] * len(texts["stem"]), name="kept")
    drawn = BooleanFilter(booleans=kept.booleans, name="drawn")
    widgets, table = make_widgets(texts), make_table(source, CDSView(filter=kept))
    colors = LinearColorMapper(palette=COLOR_MAP, low=0, high=1, nan_color=UNKNOWN)
    points: Any = {"source": source, "view": CDSView(filter=drawn), "nonselection_fill_alpha": 0.15}
    points |= {"selection_line_color": INK, "selection_line_width": 2}
    names = ("time", "value", "one", "stem", "note", "ra", "dec")
    marks = ColumnDataSource({name: [] for name in names}, name="marks")
    focal_plane, focal_parts = _make_focal_plane()
    sky, sky_parts = _make_sky(points, marks, colors, centers[:, 1], stars)
    distribution, bars = _make_distribution(marks)
    trend = _make_trend(points, marks)
    plots = {"focal_plane": focal_plane, "trend": trend, "distribution": distribution, "sky": sky}
    arguments: dict[str, Any] = {"source": source, "others": others, "kept": kept, "drawn": drawn, "table": table}
    arguments |= {"colors": colors, "marks": marks, "bars": bars, "sky": sky, "corners": ColumnDataSource(flat)}
    arguments |= {"trend_axis": trend.yaxis[0], "distribution_axis": distribution.xaxis[0], "marked_color": MARKED}
    arguments |= {"titles": {name: title_of(name) for name in MEASURED}, "always": list(always)}
    arguments |= {**widgets, **focal_parts, **sky_parts}
    draw_footprints = CustomJS.from_file(scripts / "overview_footprints.js", **arguments)
    arguments["draw_footprints"] = draw_footprints
    scripted = {
        name: CustomJS.from_file(scripts / f"overview_{name}.js", **arguments) for name in ("columns", "filter", "chosen")
    }
    widgets["number"].js_on_change("value", scripted["columns"], scripted["filter"])
    widgets["search"].js_on_change("value_input", scripted["filter"])
    widgets["unusual"].js_on_change("active", scripted["filter"])
    widgets["columns"].js_on_change("value", scripted["columns"])
    for name in ("state", "detector", "optical_element", "exposure_type", "minimum", "maximum"):
        widgets[name].js_on_change("value", scripted["filter"])
    source.selected.js_on_change("indices", scripted["chosen"])
    for limits in (sky.x_range, sky.y_range):
        limits.js_on_change("end", draw_footprints)
    sky.js_on_change("inner_width", draw_footprints)
    document = Document()
    for root in (table, *widgets.values(), *plots.values()):
        document.add_root(root)
    document.js_on_event("document_ready", scripted["columns"], scripted["filter"])
    return document


def _plot(**options: Any) -> Any:
    plot = figure(
        tools="pan,box_zoom,wheel_zoom,box_select,tap,reset,save",
        active_drag=None,  # so that a finger scrolls the page
        active_tap="tap",
        toolbar_location="above",
        output_backend="canvas",
        **PLOT_SIZE,
        **options,
    )
    plot.toolbar.logo = None
    return plot


def _ring(marks: ColumnDataSource) -> Any:
    """How outliers are marked."""
    return {"source": marks, "size": 11, "fill_color": None, "line_color": MARKED, "line_width": 2}


def _make_focal_plane() -> tuple[Any, dict[str, Model]]:
    """Map of the focal plane, and what the scripts change in it."""
    unknown: dict[str, Any] = {"value": [np.nan] * len(CENTERS), "text": [""] * len(CENTERS), "ink": [INK] * len(CENTERS)}
    unknown |= {"count": [0] * len(CENTERS), "marked": [0] * len(CENTERS)}
    x, y = zip(*CENTERS, strict=True)
    focal = ColumnDataSource({"x": x, "y": y, "detector": DETECTORS, **unknown}, name="focal")
    by_detector = LinearColorMapper(palette=COLOR_MAP, low=0, high=1, nan_color=UNKNOWN)
    plot = _plot(name="focal_plane", match_aspect=True)
    # The places are those of the instrument's drawings. Their distances in mm are of no use here, and the names need the room.
    plot.grid.visible = plot.axis.visible = False
    plot.outline_line_color = None
    fill: Any = {"field": "value", "transform": by_detector}
    squares = plot.rect("x", "y", DETECTOR_WIDTH, DETECTOR_WIDTH, source=focal, line_color="#5a6472", fill_color=fill)
    for words, down, style in (("detector", -7, "bold"), ("text", 8, "normal")):
        text: Any = {"text_align": "center", "text_baseline": "middle", "text_font_size": "11px", "text_font_style": style}
        plot.text("x", "y", words, source=focal, y_offset=down, text_color="ink", **text)
    plot.add_layout(ColorBar(color_mapper=by_detector, height=10), "below")
    tooltips = [("", "@detector"), ("median", "@text"), ("exposures", "@count"), ("outliers", "@marked")]
    plot.add_tools(HoverTool(renderers=[squares], tooltips=tooltips))
    return plot, {"focal": focal, "by_detector": by_detector}


def _make_trend(points: Any, marks: ColumnDataSource) -> Any:
    """Plot of the number by time."""
    plot = _plot(name="trend", x_axis_type="datetime")
    plot.xaxis.axis_label = "start of the exposure (UTC)"
    plot.xaxis.major_label_policy = NoOverlap(min_distance=8)
    dots = plot.scatter("time", "value", size=4, marker="square", fill_color=ORDINARY, line_color=None, **points)
    dots.selection_glyph.size = SELECTED_SIZE
    plot.scatter("time", "value", marker="circle", **_ring(marks))
    plot.add_tools(HoverTool(renderers=[dots], tooltips=HOVERS, limit=3))
    return plot


def _make_distribution(marks: ColumnDataSource) -> tuple[Any, ColumnDataSource]:
    """Histogram of the number, and the source of its bars."""
    bars = ColumnDataSource({"left": [0], "right": [1], "top": [1]}, name="bars")
    plot = _plot(name="distribution", y_axis_type="log")
    plot.yaxis.axis_label = "exposures"
    plot.quad("left", "right", "top", 0.5, source=bars, fill_color=ORDINARY, line_color="#ffffff", fill_alpha=0.7)
    triangles = plot.scatter("value", "one", marker="inverted_triangle", **_ring(marks))
    plot.add_tools(HoverTool(renderers=[triangles], tooltips=[HOVERS[0], ("", "@note")], limit=3))
    return plot, bars


def _make_sky(
    points: Any, marks: ColumnDataSource, colors: LinearColorMapper, declinations: np.ndarray, stars: np.ndarray | None
) -> tuple[Any, dict[str, Model]]:
    """Map of the footprints on the sky, and what the scripts change in it."""
    known = declinations[np.isfinite(declinations)]
    stretch = max(float(np.cos(np.radians(statistics.median(known.tolist())))), 0.1) if known.size else 1.0
    plot = _plot(name="sky", match_aspect=True, aspect_scale=stretch)
    plot.x_range.flipped = True
    plot.xaxis.axis_label, plot.yaxis.axis_label = "right ascension (deg)", "declination (deg)"
    plot.xaxis.formatter = CustomJSTickFormatter(code="return `${+((tick + 720) % 360).toFixed(6)}`")
    plot.xaxis.major_label_policy = NoOverlap(min_distance=8)
    fill: Any = {"field": "value", "transform": colors}
    # Those in view, if they are few: all of a large survey take long to draw, and each is smaller than a pixel of the screen.
    columns = ("xs", "ys", "stem", "state", "note")
    outlines = ColumnDataSource({name: [] for name in (*columns, "value", "line")}, name="outlines")
    lost = ColumnDataSource({name: [] for name in (*columns, "ra", "dec")}, name="lost")
    footprints = plot.patches("xs", "ys", source=outlines, fill_color=fill, fill_alpha=0.5, line_color="line")
    hatched: Any = {"fill_color": None, "line_color": MARKED, "hatch_pattern": "x", "hatch_color": MARKED, "hatch_weight": 1}
    plot.patches("xs", "ys", source=lost, **hatched)
    if stars is not None and len(stars):
        first = np.nanmedian(points["source"].data["ra"])
        ra = first + (stars[:, 0] - first + 180) % 360 - 180
        places = ColumnDataSource({"ra": ra.astype("f4"), "dec": stars[:, 1].astype("f4")}, name="stars")
        plot.scatter("ra", "dec", source=places, size=2, fill_color=STAR, line_color=None)
    dots = plot.scatter("ra", "dec", size=4, marker="square", fill_color=fill, line_color=None, **points)
    dots.selection_glyph.size = SELECTED_SIZE
    plot.scatter("ra", "dec", marker="circle", **_ring(marks))
    crosses = plot.scatter("ra", "dec", source=lost, size=9, marker="x", line_color=MARKED, line_width=2)
    names = ColumnDataSource({"x": [], "y": [], "text": []}, name="names")
    plate: Any = {"background_fill_color": "#ffffff", "background_fill_alpha": 0.8, "border_radius": 3, "padding": 1}
    style: Any = {"text_align": "center", "text_baseline": "middle", "text_font_size": "11px", "text_color": INK}
    plot.text("x", "y", "text", source=names, y_offset=-12, **style, **plate)
    plot.add_layout(ColorBar(color_mapper=colors, height=10), "below")
    plot.add_tools(HoverTool(renderers=[footprints, dots], tooltips=HOVERS, limit=3))
    plot.add_tools(HoverTool(renderers=[crosses], tooltips=[HOVERS[0], *HOVERS[2:]], limit=3))
    return plot, {"outlines": outlines, "lost": lost, "names": names}
