"""fetch.py against a stand-in for MAST: searches, links that expire, cut and damaged files."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import asdf
import fetch as program
import numpy as np
import pytest
from object_stores import Fault, serving
from small_files import SCRIPTS, damage_pixels
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request, Response

pytest.importorskip("astroquery")
VISITS = {"r0100101003001001001": "3", "r0100101003001001002": "3", "r0100101004001001001": "4"}
COLUMNS = ("fileSetName", "program", "pass")


@contextlib.contextmanager
def archive(folder, *, lifetime=60.0):
    """MAST's interface of missions, for the raw files of a folder; links to data are valid for some seconds."""
    links = {}

    @Request.application
    def application(request):
        path = request.path
        if path.endswith("/column_list"):
            return Response(json.dumps([{"column_name": n, "qual_type": "varchar", "description": n} for n in COLUMNS]))
        if path.endswith("/retrieve_product"):
            links[link := str(len(links))] = (request.args["product_name"].rpartition("/")[2], time.monotonic())
            return Response("", 302, {"Location": f"/data/{link}"})
        if path.startswith("/data/"):
            name, since = links[path.rpartition("/")[2]]
            if time.monotonic() - since > lifetime:
                return Response("expired", 403)
            answer = send_from_directory(folder, name, request.environ)
            answer.headers["X-Name"] = name
            return answer
        asked = json.loads(request.get_data())
        if path.endswith("list_products"):
            names = [f"{visit}_0001_wfi01_f158" for visit in asked["dataset_ids"]]
            files = [f"{name}_{end}" for name in names for end in ("uncal.asdf", "cal.asdf")]
            sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else 1 for name in files}
            return Response(json.dumps({"products": [{"filename": n, "uri": f"roman/{n}", "size": sizes[n]} for n in files]}))
        wanted = {name: value for condition in asked["conditions"] for name, value in condition.items()}
        rows = [[visit, "1001", number] for visit, number in VISITS.items()]
        rows = [row for row in rows if all(dict(zip(COLUMNS, row, strict=True))[name] == v for name, v in wanted.items())]
        info = [{"name": name, "type": "varchar"} for name in COLUMNS]
        return Response(json.dumps({"info": info, "results": rows}))

    with serving(application) as requests:
        yield requests


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, visit in enumerate(VISITS):
        content = np.random.default_rng(number).integers(0, 60_000, 200_000, np.uint16)
        asdf.AsdfFile({"data": content}).write_to(folder / f"{visit}_0001_wfi01_f158_uncal.asdf")
    return folder


def fetch(server, search, folder, *options):
    """Run the program; astroquery reads the address of the server from its configuration."""
    home = folder.parent / "home"
    for name in ("astropy", "astroquery"):  # astropy 8 and older ones
        (home / name).mkdir(parents=True, exist_ok=True)
        (home / name / "astroquery.cfg").write_text(f"[mast]\nserver = {server.address}\n")
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "fetch.py"), search, "--to", str(folder), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home), "MAST_API_TOKEN": ""},
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_exposures_of_a_search_are_fetched_once(files, tmp_path):
    folder = tmp_path / "l1"
    with archive(files) as server:
        done = fetch(server, "mast:program=1001,pass=3", folder)
        assert done.returncode == 0, done.stderr
        chosen = [f"{visit}_0001_wfi01_f158_uncal.asdf" for visit, number in VISITS.items() if number == "3"]
        assert names(folder) == ["L1_asn.json", *chosen]
        assert all((folder / name).read_bytes() == (files / name).read_bytes() for name in chosen)
        products = json.loads((folder / "L1_asn.json").read_text())["products"]
        assert {product["name"]: [m["expname"] for m in product["members"]] for product in products} == {
            name.partition("_")[0]: [name] for name in chosen
        }
        server.counts.clear()
        assert fetch(server, "mast:program=1001,pass=3", folder).returncode == 0
        assert not server.counts["GET retrieve_product"]


@pytest.mark.slow
def test_each_transfer_asks_for_its_own_link(files, tmp_path):
    """With links that expire before the file before has arrived, one asked for in advance would be refused."""
    with archive(files, lifetime=0.5) as server:
        for number in range(3):
            server.faults[f"/data/{number}"] = Fault(pause=0.2)
        done = fetch(server, "mast:program=1001", tmp_path / "l1", "--transfers", "1")
        assert done.returncode == 0, done.stderr
        assert server.counts["GET retrieve_product"] == 3 and len(names(tmp_path / "l1")) == 4


@pytest.mark.slow
def test_a_cut_transfer_is_continued(files, tmp_path):
    with archive(files) as server:
        server.faults["/data/0"] = Fault(after=150_000)
        done = fetch(server, "mast:pass=4", tmp_path / "l1")
        assert done.returncode == 0, done.stderr
        assert "attempt 2" in done.stderr
        (name,) = (name for name in names(tmp_path / "l1") if name.endswith("uncal.asdf"))
        assert (tmp_path / "l1" / name).read_bytes() == (files / name).read_bytes()


@pytest.mark.slow
def test_a_bad_file_is_named_and_the_others_are_fetched(files, tmp_path):
    bad, *good = sorted(path.name for path in files.iterdir())
    damage_pixels(files / bad)
    with archive(files) as server:
        done = fetch(server, "mast:program=1001", tmp_path / "l1")
    assert done.returncode == 1 and "1 of 3 files are missing" in done.stderr
    assert f"{bad}: block 0 doesn't match its checksum" in done.stderr
    assert names(tmp_path / "l1") == ["L1_asn.json", *good]


@pytest.mark.parametrize(
    "search, text",
    [
        ("program=1001", "is no search; write mast:COLUMN=VALUE"),
        ("mast:program", "is no search"),
        ("mast:programme=1001", "Did you mean 'program'.*The columns: fileSetName, pass, program"),
        ("mast:program=7", "has no raw exposure that fits"),
    ],
)
@pytest.mark.slow
def test_wrong_searches_are_named(files, tmp_path, search, text):
    with archive(files) as server:
        done = fetch(server, search, tmp_path / "l1")
    assert done.returncode == 1 and re.search(text, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_an_archive_that_can_t_be_reached_is_named(tmp_path):
    server = SimpleNamespace(address="http://127.0.0.1:9")
    done = fetch(server, "mast:program=1001", tmp_path / "l1")
    assert done.returncode == 1 and "http://127.0.0.1:9: can't be asked" in done.stderr and "Traceback" not in done.stderr


def test_without_astroquery_the_message_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "astroquery.mast", None)
    assert program.main(["mast:program=1001", "--to", str(tmp_path / "l1")]) == 1
    assert "which is not installed: pip install astroquery; in a clone: make fetch" in capsys.readouterr().err
    assert not (tmp_path / "l1").exists()
