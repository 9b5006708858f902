"""tests/validation/write_document.py: what cases measured is kept, judged and written down."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "validation"))

import write_document

DOCUMENTS = Path(__file__).parent.parent / "docs"
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


def test_a_case_that_is_run_again_takes_its_own_place_and_leaves_the_others(tmp_path, write):
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
    assert str(tmp_path) not in (tmp_path / "kept" / "plain.json").read_text()


def test_a_case_that_is_not_finished_is_not_in_the_document(tmp_path, write):
    finished_case(tmp_path / "work", "plain", [])
    finished_case(tmp_path / "work", "dark", [])
    (tmp_path / "work" / "rampflow" / "dark" / "products.json").unlink()
    document = write()[1]
    assert "## dark" not in document
    assert ", dark, " in next(line for line in document.splitlines() if line.startswith("Not run for this document"))


def test_results_of_a_case_that_is_no_more_are_refused(tmp_path, write, capsys):
    finished_case(tmp_path / "work", "plainer", [])
    with pytest.raises(SystemExit):
        write()
    assert "plainer: there is no such case" in capsys.readouterr().err


def test_the_document_is_that_of_the_kept_results(tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    words = ["write_document", tmp_path / "none", DOCUMENTS / "validation", tmp_path / "validation.md"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert write_document.main() == 0, "a row has no explanation"
    assert (tmp_path / "validation.md").read_text() == (DOCUMENTS / "validation.md").read_text()
