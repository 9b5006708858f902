"""World coordinate systems as trees of a file: built, evaluated, and made into objects of gwcs.

To make an object of a tree, asdf, gwcs and astropy are imported, which takes two seconds, and the transforms of an image are
a dozen lines of arithmetic. So they are computed from the tree; gwcs is asked where a tree has a transform of another kind.
The transforms and their parts are those of the ASDF transform schemas
(https://asdf-transform-schemas.readthedocs.io) and of gwcs's (https://asdf-wcs-schemas.readthedocs.io).
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from rampflow.files.asdf_writer import create_asdf
from rampflow.files.stored_array import StoredArray
from rampflow.files.yaml_tree import tagged
from rampflow.imports import import_asdf

GWCS = "tag:stsci.edu:gwcs/"
TRANSFORM = "tag:stsci.edu:asdf/transform/"
UNIT_TAG = "tag:stsci.edu:asdf/unit/unit-1.0.0"
BOX_TAG = TRANSFORM + "property/bounding_box-1.2.0"

#: Version of the tag of each kind of transform, as they are written.
_VERSIONS = {
    **dict.fromkeys(("compose", "concatenate", "identity", "scale", "shift"), "1.4.0"),
    "affine": "1.5.0",
    "rotate_sequence_3d": "1.2.0",
    "spherical_cartesian": "1.3.0",
}


class UnknownTransform(ValueError):
    """A transform that is not computed here."""


# -------------------------------------------------------------------------------------------------------------- objects
def wcs_of_tree(node: dict):
    """The object of a WCS's tree, or of a transform's."""
    asdf = import_asdf()
    with tempfile.TemporaryDirectory(prefix="rampflow-") as folder:
        path = Path(folder) / "wcs.asdf"
        with create_asdf(path, {"wcs": node}):
            pass
        with asdf.config_context() as config:
            config.validate_on_read = False  # the tree is of a file that was valid; to check it again takes half the time
            with asdf.open(path, lazy_load=False, memmap=False) as file:
                return file["wcs"]


# ------------------------------------------------------------------------------------------------------------- building
def transform(kind: str, inputs: list[str], outputs: list[str], **parts) -> dict:
    """The tree of a transform.

    Parameters
    ----------
    kind : str
        Its name in the schemas, as ``shift``.
    inputs, outputs : list of str
        Names of the coordinates.
    **parts
        What else the schema asks for.
    """
    home = GWCS if kind == "spherical_cartesian" else TRANSFORM
    return tagged(parts | {"inputs": inputs, "outputs": outputs}, f"{home}{kind}-{_VERSIONS[kind]}")


def compose(*transforms: dict, **parts) -> dict:
    """Some transforms, one after the other; `parts` as ``name`` are of the whole."""

    def pair(first, second):
        return transform("compose", first["inputs"], second["outputs"], forward=[first, second])

    whole = functools.reduce(pair, transforms)
    whole.update(parts)
    return whole


def concatenate(kind: str, **parts: list) -> dict:
    """A transform of two coordinates, each by one of the same kind; of each part there are two values."""
    each = (dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True))
    forward = [transform(kind, ["x"], ["y"], **one) for one in each]
    return transform("concatenate", ["x0", "x1"], ["y0", "y1"], forward=forward)


def bounding_box(**intervals: list[float]) -> dict:
    """The tree of a bounding box: first and last value of each input."""
    return tagged({"ignore": [], "intervals": intervals, "order": "F"}, BOX_TAG)


def plane_frame(name: str, axes: list[str], unit: str) -> dict:
    """The tree of a frame of two axes in a plane."""
    return tagged(
        {
            "axes_names": axes,
            "axes_order": [0, 1],
            "axis_physical_types": [f"custom:{axis}" for axis in axes],
            "name": name,
            "unit": [tagged(unit, UNIT_TAG), tagged(unit, UNIT_TAG)],
        },
        GWCS + "frame2d-1.2.0",
    )


def sky_frame(name: str) -> dict:
    """The tree of the frame of right ascension and declination, ICRS."""
    icrs = tagged({"frame_attributes": {}}, "tag:astropy.org:astropy/coordinates/frames/icrs-1.1.0")
    return tagged(
        {
            "axes_names": ["lon", "lat"],
            "axes_order": [0, 1],
            "axis_physical_types": ["pos.eq.ra", "pos.eq.dec"],
            "name": name,
            "reference_frame": icrs,
            "unit": [tagged("deg", UNIT_TAG), tagged("deg", UNIT_TAG)],
        },
        GWCS + "celestial_frame-1.2.0",
    )


def wcs_of_steps(*steps: tuple[dict, dict | None]) -> dict:
    """The tree of a WCS: each frame with the transform to the next one."""
    steps = [tagged({"frame": frame, "transform": node}, GWCS + "step-1.3.0") for frame, node in steps]
    return tagged({"name": "", "pixel_shape": None, "steps": steps}, GWCS + "wcs-1.4.0")


def box_of(node: dict) -> tuple | None:
    """The bounding box of a transform's tree: first and last x, and first and last y; `None` without one.

    Raises
    ------
    UnknownTransform
        It is not made of numbers.
    """
    box = node.get("bounding_box")
    if box is None:
        return None
    if isinstance(box, dict):  # its order says how it was given, not how it is written
        intervals = [box["intervals"][name] for name in node["inputs"]]
    else:  # the oldest form: a list, y first
        intervals = box[::-1]
    if not all(isinstance(end, int | float) for interval in intervals for end in interval):
        raise UnknownTransform("a bounding box with units")
    return tuple(tuple(interval) for interval in intervals)


# ----------------------------------------------------------------------------------------------------------- evaluation
def kind_of(node: dict) -> str:
    """Kind of a transform's tree: the name in its tag, without the version."""
    return getattr(node, "tag", "").rpartition("/")[2].rpartition("-")[0]


def evaluate(node: dict, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Transform coordinates.

    Parameters
    ----------
    node : dict
        Tree of a transform.
    *values : numpy.ndarray
        Its inputs.

    Raises
    ------
    UnknownTransform
        It is, or has in it, one that is not computed here.
    """
    kind = kind_of(node)
    if kind not in _FORWARD:
        raise UnknownTransform(f"a transform of the kind {kind!r}")
    return _FORWARD[kind](node, *values)


def inverse(node: dict) -> dict:
    """The tree of the inverse of a transform: the one that it names, or the one that follows from its kind.

    Raises
    ------
    UnknownTransform
        There is none, or it is not computed here.
    """
    if "inverse" in node:
        return node["inverse"]
    kind = kind_of(node)
    if kind not in _INVERSE:
        raise UnknownTransform(f"the inverse of a transform of the kind {kind!r}")
    result = _INVERSE[kind](node)
    result.update(inputs=node["outputs"], outputs=node["inputs"])
    return result


def _number(node, name):
    if not isinstance(node[name], int | float):
        raise UnknownTransform(f"{name} with a unit")
    return node[name]


def _array(node, name):
    values = node[name]
    if isinstance(values, StoredArray):
        return values.read()
    if isinstance(values, dict):
        raise UnknownTransform(f"{name} with a unit")
    return np.asarray(values, float)


def _compose(node, *values):
    for part in node["forward"]:
        values = evaluate(part, *values)
    return values


def _concatenate(node, *values):
    results = []
    for part in node["forward"]:
        if "inputs" not in part:
            raise UnknownTransform("a transform of the oldest form")
        count = len(part["inputs"])
        results += evaluate(part, *values[:count])
        values = values[count:]
    return tuple(results)


def _arithmetic(function):
    def compute(node, *values):
        first, second = (evaluate(part, *values) for part in node["forward"])
        return tuple(function(a, b) for a, b in zip(first, second, strict=True))

    return compute


def _polynomial(node, *values):
    coefficients = _array(node, "coefficients")
    for name in ("domain", "window"):
        if (np.reshape(node.get(name) or (), (-1, 2)) != (-1, 1)).any():
            raise UnknownTransform(f"a polynomial with a {name}")
    polynomial = np.polynomial.polynomial
    evaluators = {1: polynomial.polyval, 2: polynomial.polyval2d}
    if coefficients.ndim not in evaluators:
        raise UnknownTransform(f"a polynomial of {coefficients.ndim} variables")
    return (evaluators[coefficients.ndim](*values, coefficients),)


def _affine(node, x, y):
    matrix, shift = _array(node, "matrix"), _array(node, "translation")
    return tuple(row[0] * x + row[1] * y + offset for row, offset in zip(matrix, shift, strict=True))


def _rotate(node, *values):
    """Turn the axes about one of them after the other, in degrees."""
    if node["rotation_type"] != "cartesian":
        raise UnknownTransform("a rotation of spherical coordinates")
    for angle, axis in zip(node["angles"], node["axes_order"], strict=True):
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        about = "xyz".index(axis)
        values, (i, j) = list(values), ((about + 1) % 3, (about + 2) % 3)
        values[i], values[j] = cosine * values[i] + sine * values[j], cosine * values[j] - sine * values[i]
    return tuple(values)


def _spherical(node, *values):
    wrap = _number(node, "wrap_lon_at")
    if node["transform_type"] == "spherical_to_cartesian":
        lon, lat = np.radians(values)
        return np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    x, y, z = values
    lon, lat = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return (np.mod(lon, 360) if wrap == 360 else lon), lat


_FORWARD = {
    "compose": _compose,
    "concatenate": _concatenate,
    "add": _arithmetic(np.add),
    "subtract": _arithmetic(np.subtract),
    "multiply": _arithmetic(np.multiply),
    "divide": _arithmetic(np.divide),
    "identity": lambda node, *values: values,
    "remap_axes": lambda node, *values: tuple(values[i] for i in node["mapping"]),
    "constant": lambda node, *values: (np.full(np.shape(values[0]), float(_number(node, "value"))),),
    "shift": lambda node, value: (value + _number(node, "offset"),),
    "scale": lambda node, value: (value * _number(node, "factor"),),
    "affine": _affine,
    "polynomial": _polynomial,
    "rotate_sequence_3d": _rotate,
    "spherical_cartesian": _spherical,
}


def _inverse_affine(node):
    matrix = np.linalg.inv(_array(node, "matrix"))
    return tagged({"matrix": matrix, "translation": -matrix @ _array(node, "translation")}, node.tag)


def _inverse_remap(node):
    mapping = node["mapping"]
    if sorted(mapping) != list(range(len(node["inputs"]))):
        raise UnknownTransform("the inverse of a mapping that is no permutation")
    return tagged({"mapping": [mapping.index(i) for i in range(len(mapping))]}, node.tag)


def _inverse_spherical(node):
    first, _, second = node["transform_type"].partition("_to_")
    return tagged({**node, "transform_type": f"{second}_to_{first}"}, node.tag)


_INVERSE = {
    "compose": lambda node: tagged({"forward": [inverse(part) for part in reversed(node["forward"])]}, node.tag),
    "concatenate": lambda node: tagged({"forward": [inverse(part) for part in node["forward"]]}, node.tag),
    "identity": lambda node: tagged(dict(node), node.tag),
    "remap_axes": _inverse_remap,
    "shift": lambda node: tagged({"offset": -_number(node, "offset")}, node.tag),
    "scale": lambda node: tagged({"factor": 1 / _number(node, "factor")}, node.tag),
    "affine": _inverse_affine,
    "rotate_sequence_3d": lambda node: tagged(
        {**node, "angles": [-angle for angle in reversed(node["angles"])], "axes_order": node["axes_order"][::-1]}, node.tag
    ),
    "spherical_cartesian": _inverse_spherical,
}


def with_border(tree: dict, width: int) -> dict:
    """The tree of the WCS of the same image with a border of some pixels around it."""
    first, *others = tree["steps"]
    node = first["transform"]
    inner = concatenate("shift", offset=[float(-width), float(-width)])
    outer = transform("compose", inner["inputs"], node["outputs"], forward=[inner, node])
    box = box_of(node)
    if box is not None:
        intervals = {name: [low, high + 2 * width] for name, (low, high) in zip(inner["inputs"], box, strict=True)}
        outer["bounding_box"] = bounding_box(**intervals)
    step = tagged({**first, "transform": outer}, first.tag)
    return tagged({**tree, "steps": [step, *others]}, tree.tag)


def in_memory(node):
    """A tree with its arrays in memory: those of a few numbers, as polynomials have, are then written in the tree itself."""
    if isinstance(node, StoredArray):
        return node.read()
    if isinstance(node, dict):
        copy = {key: in_memory(value) for key, value in node.items()}
    elif isinstance(node, list):
        copy = [in_memory(value) for value in node]
    else:
        return node
    return tagged(copy, node.tag) if hasattr(node, "tag") else copy


def check_transform(node: dict) -> None:
    """Raise whatever error comes of a tree that is no transform of two coordinates to two: it is tried at the origin."""
    box_of(node)
    try:
        results = evaluate(node, np.zeros(1), np.zeros(1))
    except UnknownTransform:
        results = wcs_of_tree(node)(np.zeros(1), np.zeros(1))
    if len(results) != 2:
        raise TypeError(f"it gives {len(results)} coordinates")


class Wcs:
    """A WCS computed from its tree: pixels to the sky and back. It is called as gwcs's.

    Parameters
    ----------
    tree : dict

    Attributes
    ----------
    bounding_box : tuple or None
        First and last x, and first and last y.
    """

    def __init__(self, tree: dict):
        self._tree = tree
        self._transforms = [step["transform"] for step in tree["steps"] if step.get("transform") is not None]
        try:
            self.bounding_box = box_of(self._transforms[0])
        except UnknownTransform:
            self.bounding_box = self._object.bounding_box

    @functools.cached_property
    def _object(self):
        return wcs_of_tree(self._tree)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination of pixels, degrees; NaN outside the bounding box."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        try:
            ra, dec = functools.reduce(lambda values, node: evaluate(node, *values), self._transforms, (x, y))
        except UnknownTransform:
            return self._object(x, y)
        if self.bounding_box is not None:
            (x0, x1), (y0, y1) = self.bounding_box
            outside = (x < x0) | (x > x1) | (y < y0) | (y > y1)
            ra, dec = np.where(outside, np.nan, ra), np.where(outside, np.nan, dec)
        return ra, dec

    def invert(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of positions on the image, degrees."""
        try:
            backward = [inverse(node) for node in reversed(self._transforms)]
            start = np.asarray(ra, float), np.asarray(dec, float)
            return functools.reduce(lambda values, node: evaluate(node, *values), backward, start)
        except UnknownTransform:
            return self._object.invert(ra, dec)


def pixel_width(distortion: dict, shape: tuple[int, int]) -> float:
    """Width of a pixel in the middle of a detector: the square root of its area.

    Parameters
    ----------
    distortion : dict
        Tree of a transform from pixels to a plane.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    float
        In the plane's unit.
    """
    u, v = _plane_around_middle(distortion, shape)
    return float(abs((u[0] - u[1]) * (v[2] - v[3]) - (u[2] - u[3]) * (v[0] - v[1])) ** 0.5)


def middle_of(distortion: dict, shape: tuple[int, int]) -> tuple[float, float]:
    """Place of the middle of a detector.

    Parameters
    ----------
    distortion : dict
        Tree of a transform from pixels to a plane.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    u, v : float
        In the plane's unit.
    """
    u, v = _plane_around_middle(distortion, shape)
    return float(np.mean(u)), float(np.mean(v))


def _plane_around_middle(distortion, shape):
    x, y = _around_middle(shape)
    try:
        return evaluate(distortion, x, y)
    except UnknownTransform:
        return wcs_of_tree(distortion)(x, y)


def pixel_solid_angle(wcs: Wcs, shape: tuple[int, int]) -> float:
    """Area of a pixel in the middle of an image, sr; NaN where the WCS has no position there.

    Parameters
    ----------
    wcs : Wcs
    shape : tuple of int
        Rows and columns.
    """
    longitude, latitude = np.radians(wcs(*_around_middle(shape)))
    points = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]).T
    return float(np.linalg.norm(np.cross(points[0] - points[1], points[2] - points[3])))


def _around_middle(shape):
    # x and y: half a pixel to the right and left of the middle, and above and below it.
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return np.array([x + 0.5, x - 0.5, x, x]), np.array([y, y, y + 0.5, y - 0.5])


def s_region(wcs) -> str | None:
    """Footprint of an image: the corners of the WCS's bounding box on the sky.

    Parameters
    ----------
    wcs : Wcs or gwcs.wcs.WCS

    Returns
    -------
    str or None
        ``POLYGON ICRS`` and ra, dec of the corners in degrees, ra from 0 to 360; `None` where a corner is not finite.
    """
    (x0, x1), (y0, y1) = wcs.bounding_box
    corners = np.transpose(wcs(np.array([x0, x0, x1, x1]), np.array([y0, y1, y1, y0])))
    if not np.isfinite(corners).all():
        return None
    corners[corners[:, 0] < 0, 0] += 360
    # Two spaces after ICRS, as in romancal's products, so that a search for the one finds the other.
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in corners.ravel())


def footprint_distance(one, other) -> float | None:
    """Largest distance of a corner of a footprint to the nearest corner of another, arcsec.

    Parameters
    ----------
    one, other : str
        As `s_region` writes them.

    Returns
    -------
    float or None
        `None` where one of them is no polygon (a placeholder).
    """
    vectors = []
    for region in (one, other):
        words = region.split() if isinstance(region, str) else []
        try:
            angles = np.radians(np.array(words[2:], float).reshape(-1, 2))
        except ValueError:
            return None
        if [word.upper() for word in words[:2]] != ["POLYGON", "ICRS"] or not len(angles) or not np.isfinite(angles).all():
            return None
        ra, dec = angles.T
        vectors.append(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1))
    chords = np.linalg.norm(vectors[0][:, None] - vectors[1], axis=-1).min(axis=1)
    return float(np.degrees(2 * np.arcsin(np.minimum(chords / 2, 1))).max() * 3600)
