"""tests/validation/write_document.py: measurements of cases are kept, compared with the explanations, and documented."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import write_document

DOCUMENTS = Path(__file__).parents[2] / "docs"
MEASURED = {"wall_s": 10.0, "cpu_s": 20.0, "peak_mb": 900.0, "error": None}
#: A slope that differs, and nothing in explanations.yaml that speaks of dq_init's.
DIFFERENT = {"name": "data", "kind": "float32", "compared": 1000, "differing": 3, "largest": 0.5, "p999": 0.5, "beyond": 0.003}


def finished_case(folder: Path, name: str, rows: list[dict]) -> None:
    """The files of a case whose dq_init was compared with these rows."""
    case = folder / "rampflow" / name
    case.mkdir(parents=True, exist_ok=True)
    step = MEASURED | {"step": "dq_init", "exposure": "r1_0001_wfi01_f158", "products": {"exposure": rows}}
    results = {
        "case": {"exercises": f"what {name} is for", "seed": 1},
        "romancal": MEASURED | {"steps": [], "versions": {"romancal": "1.1.0"}},
        "rampflow": MEASURED | {"date": "2026-11-27", "commit": "abc1234", "machine": "one of two cores"},
        "steps": {"steps": [step]},
        "products": {},
    }
    for what, content in results.items():
        (case / f"{what}.json").write_text(json.dumps(content))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Run the program on the working folder tmp_path/work; its exit status and the document."""

    def run():
        words = ["write_document", tmp_path / "work", tmp_path / "kept", tmp_path / "document.md"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        return write_document.main(), (tmp_path / "document.md").read_text()

    (tmp_path / "work").mkdir()
    return run


def test_a_difference_that_nothing_explains_is_named_and_fails(tmp_path, write, capsys):
    finished_case(tmp_path / "work", "plain", [DIFFERENT])
    status, document = write()
    assert status == 1
    assert "**has no explanation**" in document
    assert "plain, dq_init, r1_0001_wfi01_f158 exposure data: has no explanation" in capsys.readouterr().err


def test_a_repeated_case_replaces_its_own_rows_alone(tmp_path, write):
    finished_case(tmp_path / "work", "plain", [DIFFERENT])
    finished_case(tmp_path / "work", "dark", [DIFFERENT | {"differing": 0, "beyond": 0.0}])
    assert write()[0] == 1
    for path in sorted((tmp_path / "work").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    finished_case(tmp_path / "work", "plain", [DIFFERENT | {"differing": 0, "beyond": 0.0}])
    status, document = write()
    assert status == 0
    assert "## plain" in document and "## dark" in document
    assert "**has no explanation**" not in document
    assert "Measured on 2026-11-27 at commit abc1234." in document


def test_a_log_is_not_kept(tmp_path, write):
    log = {
        "name": "log",
        "kind": "meta",
        "compared": 1,
        "differing": 1,
        "ours": f"{'begun. ' * 40}{tmp_path}",
        "romancal": None,
    }
    finished_case(tmp_path / "work", "plain", [log])
    document = write()[1]
    assert "begun. " * 20 in document and str(tmp_path) not in document
    (row,) = pq.read_table(tmp_path / "kept" / "differences.parquet").to_pylist()
    assert str(tmp_path) not in row["ours"] and row["romancal"] == "null"


def test_a_case_that_is_not_finished_is_not_in_the_document(tmp_path, write):
    finished_case(tmp_path / "work", "plain", [])
    finished_case(tmp_path / "work", "dark", [])
    (tmp_path / "work" / "rampflow" / "dark" / "products.json").unlink()
    document = write()[1]
    assert "## dark" not in document
    assert ", dark, " in next(line for line in document.splitlines() if line.startswith("Not run for this document"))


def test_results_of_a_removed_case_are_refused(tmp_path, write, capsys):
    finished_case(tmp_path / "work", "plainer", [])
    with pytest.raises(SystemExit):
        write()
    assert "plainer: there is no such case" in capsys.readouterr().err


def test_the_table_has_every_row_and_what_explains_it(tmp_path, write):
    flags = {"JUMP_DET": {"ours": 3, "romancal": 1}, "SATURATED": {"ours": 0, "romancal": 2}}
    rows = [
        DIFFERENT | {"largest": 0.1 + 0.2, "nan": {"ours": 1, "romancal": 0}, "dtype": {"ours": ">f4", "romancal": "float32"}},
        {"name": "groupdq", "kind": "flags", "compared": 9, "differing": 6, "flags": flags},
        {"name": "pixeldq", "kind": "flags", "compared": 9, "differing": 0, "flags": {}},
        {
            "name": "meta.cal_step.refpix",
            "kind": "meta",
            "compared": 1,
            "differing": 1,
            "ours": [1, None],
            "romancal": "SKIPPED",
        },
    ]
    finished_case(tmp_path / "work", "plain", rows)
    write()
    path = tmp_path / "kept" / "differences.parquet"
    case = write_document.read_table(path)["plain"]
    assert [d.row for d in case.rows] == rows
    assert {(d.exposure, d.step, d.product) for d in case.rows} == {("r1_0001_wfi01_f158", "dq_init", "exposure")}
    assert case.rampflow["commit"] == "abc1234" and case.steps == [
        MEASURED | {"step": "dq_init", "exposure": case.rows[0].exposure}
    ]
    assert pq.read_table(path)["explained_by"].to_pylist() == [[], [], [], ["exposure-meta-cal-step"]]


def test_a_new_kind_of_measurement_is_not_lost_silently(tmp_path, write):
    finished_case(tmp_path / "work", "plain", [DIFFERENT | {"median": 0.1}])
    with pytest.raises(ValueError, match="row data: the table has no column median"):
        write()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            "- {why: a, step: refpix, name: [data, amp33]}\n- {why: b, step: refpix, name: data}",
            ["refpix-data", "refpix-data-2"],
        ),
        ("- {why: a, step: refpix, name: data}\n- {why: b, id: refpix-data, name: x}", ["refpix-data-2", "refpix-data"]),
        ('- {why: a, exposure: "*_wfi18_*", step: end to end, name: "var_*"}', ["wfi18-end-to-end-var"]),
        ("- {why: a, case: slopes}", ["explained-slopes"]),
    ],
)
def test_explanations_get_ids_from_their_patterns(tmp_path, entries, expected):
    (tmp_path / "explanations.yaml").write_text(entries)
    assert [e.id for e in write_document.read_explanations(tmp_path / "explanations.yaml")] == expected


def test_two_explanations_with_one_id_are_refused(tmp_path):
    (tmp_path / "explanations.yaml").write_text("- {why: a, id: same}\n- {why: b, id: same}")
    with pytest.raises(ValueError, match="more than one explanation has the id same"):
        write_document.read_explanations(tmp_path / "explanations.yaml")


@pytest.mark.slow
def test_the_document_matches_the_table(tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    (tmp_path / "validation").mkdir()
    table = DOCUMENTS / "validation" / "differences.parquet"
    (tmp_path / "validation" / table.name).write_bytes(table.read_bytes())
    words = ["write_document", tmp_path / "none", tmp_path / "validation", tmp_path / "validation.md"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert write_document.main() == 0, "a row has no explanation"
    assert (tmp_path / "validation.md").read_text() == (DOCUMENTS / "validation.md").read_text()
    assert pq.read_table(tmp_path / "validation" / table.name).equals(pq.read_table(table))


# ----------------------------------------------------------------------------------------------------------------- bounds
EXPLANATIONS = write_document.read_explanations(Path(write_document.__file__).with_name("explanations.yaml"))


@pytest.fixture(scope="module")
def explained():
    """Rows of the kept table that an explanation explains, by its id; a flag of a data-quality array is a row of its own."""
    cases = write_document.read_table(DOCUMENTS / "validation" / "differences.parquet").values()
    found = {explanation.id: [] for explanation in EXPLANATIONS}
    for difference in (d for case in cases for d in case.rows if write_document.differs(d.row)):
        difference.judge(EXPLANATIONS)
        parts = difference.row.get("flags") or {"": None}
        for (part, counts), reason in zip(parts.items(), difference.reasons, strict=True):
            found[reason].append(difference.row | ({"differing": sum(counts.values())} if part else {}))
    return found


@pytest.mark.parametrize("explanation", EXPLANATIONS, ids=lambda explanation: explanation.id)
@pytest.mark.slow
def test_a_difference_beyond_the_bounds_is_not_explained(explained, explanation):
    """Each row that it explains, enlarged in each of its measures that has a bound."""
    for row in explained[explanation.id]:
        measured = write_document.sizes(row)
        assert not explanation.excess(row, {})
        if write_document.is_numeric(row, measured):
            bounded = explanation.at_most.keys() & measured.keys()
            assert bounded, f"{row['name']} has no bound"
            for key in bounded:
                assert explanation.excess(enlarged(row, key, explanation.at_most[key]), {}), f"{row['name']}: {key}"


def enlarged(row: dict, key: str, bound: float) -> dict:
    """The row with a measure that is larger than a bound."""
    if key == "share":
        return row | {"differing": bound * row["compared"] + 1}
    if key == "nan":
        return row | {"nan": {"ours": bound, "romancal": 1}}
    if row["kind"] == "meta" and key in ("largest", "relative"):
        values = write_document.numbers(row["romancal"])
        step = 1.01 * bound * (1 if key == "largest" else abs(values[0]) or 1)
        return row | {"romancal": values, "ours": [v + step for v in values]}
    return row | {key: 1.01 * bound + (key == "differing")}


@pytest.mark.parametrize("explanation", EXPLANATIONS, ids=lambda explanation: explanation.id)
def test_a_bound_is_near_what_is_measured_or_argued(explained, explanation):
    sizes = [write_document.sizes(row) for row in explained[explanation.id]]
    for key, bound in explanation.at_most.items():
        measured = [size[key] for size in sizes if key in size]
        if measured and not explanation.bound:
            assert bound <= 10 * max(measured), f"{key}: the largest is {max(measured):.3g}; say where {bound:g} comes from"


def test_a_difference_of_numbers_needs_a_bound():
    text = {"name": "meta.x", "kind": "meta", "compared": 1, "differing": 1, "ours": "a", "romancal": "b"}
    number = text | {"ours": 1.5, "romancal": 2.5}
    unknown = text | {"ours": 1.5, "romancal": -999999}
    explanation = write_document.Explanation("because", "x", name="*")
    assert not explanation.excess(text, {}) and not explanation.excess(unknown, {})
    for row in (number, DIFFERENT):
        assert explanation.excess(row, {}) == ["x bounds neither the number nor the size of the differences"]
    assert not write_document.Explanation("because", "x", at_most={"largest": 1}).excess(number, {})
    assert write_document.Explanation("because", "x", at_most={"relative": 0.3}).excess(number, {})
    assert write_document.Explanation("because", "x", at_most={"p999": 0.5}).excess(DIFFERENT | {"p999": None}, {})


def test_values_that_one_pipeline_lacks_need_a_bound_of_their_number():
    row = DIFFERENT | {"nan": {"ours": 2, "romancal": 0}}
    for bounds, explains in (({"largest": 1}, False), ({"largest": 1, "nan": 1}, False), ({"largest": 1, "nan": 2}, True)):
        assert (not write_document.Explanation("because", "x", at_most=bounds).excess(row, {})) == explains
    assert not write_document.Explanation("because", "x", at_most={"share": 0.01}).excess(row, {})


def test_an_explanation_of_an_older_version_does_not_explain_a_new_run():
    explanation = write_document.Explanation("because", "x", case="plain", measured_before="2026-11-29")
    assert explanation.fits("2026-11-28", case="plain")
    assert not explanation.fits("2026-11-29", case="plain") and not explanation.fits("2026-11-28", case="dark")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, [2.0]),
        (True, []),
        (-999999, []),
        ([1, [2, 3.5]], [1.0, 2.0, 3.5]),
        ([1, "a"], []),
        ("[0.47 1e-3  -2.]", [0.47, 1e-3, -2.0]),
        ("POLYGON ICRS  12.5 -31.25", [12.5, -31.25]),
        ("2026-11-29T10:00:00", []),
        (None, []),
    ],
)
def test_numbers_of_an_entry_of_the_metadata(value, expected):
    assert write_document.numbers(value) == expected


def test_columns_with_several_numbers_say_what_they_are():
    rows = [{"magnitude": 17.5, "rampflow": {"psf": [-0.1, 0.0, 0.2], "east": [-1, 0, 1.5]}}]
    header, _, cells, _ = write_document.table_of(rows, "stars")
    assert header == "| magnitude | rampflow psf: 16, 50, 84 % (mag) | rampflow east: 16, 50, 84 % (mas) |"
    assert cells == "| 17.5 | -0.1, 0, 0.2 | -1, 0, 1.5 |"
    slopes = write_document.table_of([{"low": 1, "romancal": {"bias": [0.5, 0.25], "chisq": None}}], "slopes")
    assert slopes[0] == "| low | romancal bias: mean ± uncertainty (DN/s) | romancal chisq |"
    assert slopes[2] == "| 1 | 0.5 ± 0.25 | – |"
    with pytest.raises(KeyError, match="fwhm"):
        write_document.table_of([{"fwhm": [1, 2]}], "stars")


def test_the_document_says_where_a_bound_comes_from():
    explanation = write_document.Explanation(
        "because.", "x", at_most={"largest": 0.5}, bound="Half a pixel.", measured_before="2026-11-29"
    )
    expected = "because. At most: largest 0.5. Half a pixel. Explains only cases measured before 2026-11-29."
    assert write_document.described(explanation) == expected


def test_an_explanation_of_several_flags_is_linked_once():
    assert list(write_document.links(["a", "b", "a"])) == ["[a](#a)", "[b](#b)"]
