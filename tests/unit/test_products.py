"""The comparison of products notices differences."""

import pytest
from products import arrays_of, assert_same_products
from small_files import image, write_image


def test_a_changed_pixel_is_noticed(tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    name, data = "one_cal.asdf", image()
    write_image(tmp_path / "a" / name, data)
    write_image(tmp_path / "b" / name, data)
    data[3, 4] += 1
    write_image(tmp_path / "c" / name, data)
    assert any(key.endswith(".data") for key in arrays_of(tmp_path / "a" / name))
    assert_same_products(tmp_path / "b", tmp_path / "a")
    with pytest.raises(AssertionError, match="data"):
        assert_same_products(tmp_path / "c", tmp_path / "a")
