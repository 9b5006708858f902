"""WCS trees: what is computed from them is what gwcs makes of them, and what is not known here is left to gwcs."""

import numpy as np
import pytest
from assign_wcs import make_wcs
from astropy import units
from astropy.modeling import models
from astropy.modeling.models import AffineTransformation2D, Const1D, Identity, Mapping, Polynomial1D, Polynomial2D, Scale, Shift
from simulator.simulate_references import Detector, make_distortion
from small_files import META, tree_of_wcs

from rampflow.files.asdf_io import tagged
from rampflow.wcs import wcs_tree
from rampflow.wcs.wcs_tree import UnknownTransform, Wcs, box_of, check_transform, evaluate, inverse, s_region, wcs_of_tree

SHAPE = (248, 248)
POINTING = {name: META[f"wcsinfo.{name}"] for name in ("v2_ref", "v3_ref")} | {
    "roll_ref": 60.0,
    "ra_ref": 0.0,
    "dec_ref": -66.0,
}
X, Y = np.meshgrid(np.linspace(-0.5, 247.5, 11), np.linspace(-0.5, 247.5, 11))
SKY = {"rtol": 0, "atol": 1e-12}  # degrees


def distortion():
    return next(iter(make_distortion(Detector("WFI07", 256, 1)).values())).coordinate_distortion_transform.copy()


def assigned(model, scale=1.00005):
    return make_wcs(tree_of_wcs(model), dict(POINTING), scale, SHAPE)


@pytest.fixture(scope="module")
def corrected():
    """A WCS that tweakwcs has corrected."""
    from tweakwcs import RomanWCSCorrector

    corrector = RomanWCSCorrector(wcs=wcs_of_tree(assigned(distortion())), wcsinfo=POINTING)
    corrector.set_correction(matrix=[[1.0001, 2e-4], [-3e-4, 0.9999]], shift=[0.3, -0.2])
    return tree_of_wcs(corrector.wcs)


@pytest.fixture
def alone(monkeypatch):
    """Without gwcs's help."""
    monkeypatch.setattr(wcs_tree, "wcs_of_tree", None)


@pytest.mark.parametrize("which", ["assigned", "corrected"])
def test_positions_are_gwcs_s(which, corrected, alone):
    tree = corrected if which == "corrected" else assigned(distortion())
    ours, theirs = Wcs(tree), wcs_of_tree(tree)
    ra, dec = ours(X, Y)
    np.testing.assert_allclose((ra, dec), theirs(X, Y), **SKY)
    inner = np.s_[1:-1, 1:-1]  # gwcs's inverse is NaN where its way there and back ends outside the bounding box
    np.testing.assert_allclose(ours.invert(ra[inner], dec[inner]), theirs.invert(ra[inner], dec[inner]), rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours(100.0, 50.0), theirs(100.0, 50.0), **SKY)
    assert ours(np.empty(0), np.empty(0))[0].shape == (0,)
    assert ours.bounding_box == theirs.bounding_box.bounding_box(order="F")
    np.testing.assert_array_equal(np.isnan(ours([-1, 0, 0], [0, 248, 0])), [[True, True, False]] * 2)
    assert s_region(ours) == s_region(theirs)


@pytest.mark.parametrize(
    "model",
    [
        Shift(1.5) & Scale(-2.0),
        Mapping((1, 0)) | Identity(1) & Scale(3.0),
        AffineTransformation2D([[1, 0.2], [-0.1, 2]], [3, -4]),
        Mapping((0, 0, 1)) | Const1D(2.0) & Identity(2) | Mapping((1, 2)),
        Polynomial1D(3, c0=1, c1=2, c3=-0.01) & Polynomial1D(1, c0=-4, c1=0.1),
        Mapping((0, 1, 0, 1)) | Polynomial2D(3, c0_0=1, c1_0=2, c1_2=1e-5) & Polynomial2D(1, c0_1=1),
        Identity(2) + Mapping((1, 0)),
        Identity(2) - Mapping((1, 0)),
        Identity(2) * Mapping((1, 0)),
        Mapping((0, 1)) / (Shift(400) & Shift(500)),
    ],
)
def test_each_transform_is_astropy_s(model, alone):
    tree = tree_of_wcs(model)
    np.testing.assert_allclose(evaluate(tree, X, Y), model(X, Y), rtol=1e-14, atol=1e-12)
    check_transform(tree)
    try:
        expected = model.inverse
    except NotImplementedError:
        with pytest.raises(UnknownTransform):
            inverse(tree)
    else:
        np.testing.assert_allclose(evaluate(inverse(tree), X, Y), expected(X, Y), rtol=1e-13, atol=1e-12)


UNKNOWN = [
    Mapping((0, 1)) | models.Rotation2D(30.0),
    Mapping((0, 1, 0, 1)) | Polynomial2D(1, c1_0=1, x_domain=(-2, 2)) & Polynomial2D(1, c0_1=1),
]


@pytest.mark.parametrize("model", UNKNOWN)
def test_what_is_not_known_here_is_left_to_gwcs(model):
    with pytest.raises(UnknownTransform):
        evaluate(tree_of_wcs(model), X, Y)
    whole = model.copy() | distortion()
    whole.inverse = distortion().inverse | models.Rotation2D(-30.0)
    check_transform(tree_of_wcs(whole))
    tree = assigned(whole)
    ours, theirs = Wcs(tree), wcs_of_tree(tree)
    np.testing.assert_array_equal(ours(X, Y), theirs(X, Y))
    np.testing.assert_array_equal(ours.invert(*ours(X, Y)), theirs.invert(*theirs(X, Y)))
    assert s_region(ours) == s_region(theirs)


def test_a_number_with_a_unit_is_not_known_here():
    with pytest.raises(UnknownTransform):
        evaluate(tree_of_wcs(Shift(1 * units.pix) & Shift(1 * units.pix)), X, Y)


@pytest.mark.parametrize("node", [{"inputs": ["a", "b"], "intervals": {"b": [5, 6], "a": [1, 2]}}, [[5, 6], [1, 2]]])
def test_a_bounding_box_is_read_in_both_forms(node):
    model = {"inputs": ["a", "b"], "bounding_box": node}
    assert box_of(model) == ((1, 2), (5, 6))
    assert box_of({"inputs": ["a", "b"]}) is None


def test_a_damaged_transform_is_refused():
    tree = tree_of_wcs(distortion())
    tree["forward"][0]["forward"][0]["forward"][0]["forward"][0].pop("offset")
    with pytest.raises(KeyError):
        check_transform(tree)
    with pytest.raises(TypeError, match="gives 4 coordinates"):
        check_transform(tree_of_wcs(Mapping((0, 1, 0, 1))))
    with pytest.raises(Exception, match="object"):
        check_transform(tagged({"inputs": ["x", "y"]}, "tag:stsci.edu:asdf/core/no_such_thing-1.0.0"))
