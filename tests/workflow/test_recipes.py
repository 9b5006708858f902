"""Recipes: how existing files were made, and which of them must be made again."""

import os
import shutil

import declarations
import pytest
from small_files import every_reference, image, run, succeed, write_image

from rampflow.workflow import recipes

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def flat(tmp_path):
    """An image that dark_current and flatfield have made, in this order, from the recipe OLD."""
    given = every_reference(tmp_path)
    before = write_image(tmp_path / "before.asdf", image())
    for name in ("dark_current", "flatfield"):
        types = [word for r in declarations.steps()[name].references for word in (f"--{r.type}", given[r.type])]
        after = tmp_path / f"{name}.asdf"
        succeed(name, before, after, *types, RAMPFLOW_RECIPE=OLD)
        before = after
    return after


def test_a_step_logs_its_recipe_and_the_file_keeps_those_of_all_steps(flat):
    assert recipes.recipes_in(flat) == {"dark_current": OLD, "flatfield": OLD}


def test_a_step_by_hand_has_no_recipe(tmp_path):
    before = write_image(tmp_path / "before.asdf", image())
    done = run("flatfield", before, tmp_path / "out.asdf", "--flat", every_reference(tmp_path)["flat"])
    assert done.returncode == 0 and "Recipe" not in done.stderr
    assert recipes.recipes_in(tmp_path / "out.asdf") == {}


@pytest.mark.parametrize("name", ["text.asdf", "text.parquet", "missing.asdf"])
def test_a_file_that_is_not_a_product_has_no_recipes(tmp_path, name):
    if name.startswith("text"):
        (tmp_path / name).write_text("nothing")
    assert recipes.recipes_in(tmp_path / name) == {}


def test_differences_are_found_for_each_step(flat, tmp_path):
    store, same = tmp_path / "made.json", {"dark_current": OLD, "flatfield": OLD}
    missing = tmp_path / "missing.asdf"
    assert recipes.differing({flat: same, missing: same}, store) == {}
    assert recipes.differing({flat: same | {"flatfield": NEW}}, store) == {flat: ["flatfield"]}
    # A step that is left out now, one that is new.
    assert recipes.differing({flat: {"flatfield": OLD}}, store) == {flat: ["dark_current"]}
    assert recipes.differing({flat: same | {"photom": OLD}}, store) == {flat: ["photom"]}


def test_a_file_is_opened_once_as_long_as_it_stays_the_same(flat, tmp_path, monkeypatch):
    store, opened = tmp_path / "made.json", []
    monkeypatch.setattr(recipes, "recipes_in", lambda path: opened.append(path) or {"flatfield": OLD})
    for _ in range(3):
        recipes.differing({flat: {"flatfield": OLD}}, store)
    assert opened == [flat]
    flat.touch()
    recipes.differing({flat: {"flatfield": OLD}}, store)
    assert opened == [flat, flat]


def test_files_of_this_run_are_left_to_snakemake(flat, tmp_path):
    """Snakemake knows their parameters: it repeats from the step that changed, not the whole exposure."""
    store, expected = tmp_path / "made.json", {flat: {"flatfield": NEW}}
    recipes.remember(expected, flat.stat().st_mtime - 1, store=store)
    assert recipes.differing(expected, store) == {} and recipes.are_as_remembered(expected, store)
    other = {flat: {"flatfield": OLD}}
    assert recipes.differing(other, store) == {} and not recipes.are_as_remembered(other, store)
    # Another file in its place has no stamp.
    shutil.copyfile(flat, tmp_path / "copy")
    os.replace(tmp_path / "copy", flat)
    assert recipes.differing(expected, store) == {flat: ["flatfield", "dark_current"]}
    assert not recipes.are_as_remembered(expected, store)


def test_older_files_were_not_made_by_this_run(flat, tmp_path):
    store = tmp_path / "made.json"
    recipes.remember({flat: {}}, flat.stat().st_mtime + 1, store=store)
    assert recipes.differing({flat: {}}, store) == {flat: ["dark_current", "flatfield"]}


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_store_is_made_again(flat, tmp_path, content):
    store = tmp_path / "made.json"
    store.write_text(content)
    assert recipes.differing({flat: {"dark_current": OLD, "flatfield": OLD}}, store) == {}


def test_stamps_tell_new_from_old_files(tmp_path, flat):
    stamp = tmp_path / "redo/exposure/a"
    recipes.set_stamp(stamp, outdated=False)
    assert stamp.stat().st_mtime < flat.stat().st_mtime
    recipes.set_stamp(stamp, outdated=True)
    assert stamp.stat().st_mtime > flat.stat().st_mtime
    recipes.set_stamp(stamp, outdated=False)
    assert stamp.stat().st_mtime < flat.stat().st_mtime
