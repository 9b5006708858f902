"""Functions that Snakemake calls with the wildcards of a job."""

from pathlib import Path
from types import SimpleNamespace

from rampflow.files.links import FOLDER
from rampflow.files.path_lists import read_list
from rampflow.workflow.input_functions import list_of_inputs, mark_links, of_association, of_exposure, options_of_inputs

WILDCARDS = SimpleNamespace(stem="a1", association="a")


def test_methods_get_the_exposure_or_the_association_of_a_job():
    def method(*arguments):
        return arguments

    assert of_exposure(method)(WILDCARDS) == ("a1",)
    assert of_exposure(method, "linearity")(WILDCARDS) == ("a1", "linearity")
    assert of_association(method, 1)(WILDCARDS) == ("a", 1)


def test_only_links_are_marked():
    link = f"{FOLDER}/0123abcd/a_cal.asdf"

    def mark(path):
        return ("marked", path)

    assert mark_links(mark, of_exposure(lambda stem: link))(WILDCARDS) == [("marked", link)]
    assert mark_links(mark, of_exposure("results/{}_flat.asdf".format))(WILDCARDS) == ["results/a1_flat.asdf"]
    files = [link, "results/a_cat.parquet"]
    assert mark_links(mark, of_association(lambda name: files))(WILDCARDS) == [("marked", link), files[1]]


def test_options_are_those_of_the_inputs_that_a_job_has():
    options = options_of_inputs("catalog", "ramps", "stars")
    assert options(WILDCARDS, {"catalog": "a b.parquet", "ramps": ["1", "2"]}) == "--catalog 'a b.parquet' --ramps 1 2"
    assert options(WILDCARDS, {}) == ""


def test_a_list_of_inputs_is_one_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [f"{k}.asdf" for k in range(3)]
    argument = list_of_inputs("images")(WILDCARDS, {"images": images})
    assert argument.startswith("@") and Path(argument[1:]).is_file() and read_list([argument]) == images
    assert read_list([list_of_inputs("images")(WILDCARDS, {"images": "1.asdf"})]) == ["1.asdf"]
    assert list_of_inputs("catalogs")(WILDCARDS, {"images": images}) == ""
