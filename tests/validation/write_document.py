"""write_document: judge what the cases measured, and write docs/validation.md.

    python write_document.py VALIDATION docs/validation docs/validation.md

VALIDATION has the working folders of the Snakefile beside this file, one of each simulator. What a finished case measured there
goes to docs/validation/differences.parquet and replaces the case's earlier rows; the document shows all cases of that file, so
that cases need not be run at the same time. The exit status is 1, and the differences are named, when one has no explanation in
explanations.yaml or is larger than the explanation, or the limits of `LIMITS`, allow. A difference of numbers is explained only
by an explanation that bounds how many values differ or by how much.

The table has a row per compared array, catalog column, WCS or entry of the metadata, in the order of the comparison:

``case``, ``exposure``, ``step``, ``product``, ``name``, ``kind``
    What was compared. `step` is "end to end" for the products of the whole chain.
``compared``, ``differing``, ``largest``, ``p999``, ``beyond``, ``relative``, ``nan``, ``flags``, ``dtype``, ``only_in``
    As compare.py has them.
``ours``, ``romancal``
    The two values as JSON, of what is one value.
``explained_by``
    Ids of the explanations of a difference; the document has them.

The settings of each case, versions, times and the comparison with the truth are JSON in the file's metadata, key ``cases``.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).resolve().parent

#: Largest share of an image's values that may differ by more than `compare` calls small: 1e-4 DN/s + 1e-5 relative for
#: slopes, one unit in the last place for half precision. An explanation may allow more.
LIMITS = {"float32": 1e-5, "float16": 1e-4}
END_TO_END = "end to end"
LONGEST_TEXT = 160  #: characters of a value that are kept and shown
RESULTS = ("case", "romancal", "rampflow", "steps", "products")  #: the files of a case, .json
TABLE = "differences.parquet"
PLACEHOLDER = -999999  #: RAD's value of a number that is not known
#: Measures that count values, so that a bound on one of them bounds values that are NaN in one pipeline alone, too.
COUNTS = ("differing", "share", "beyond", "nan")
NOT_NUMBERS = ("meta", "error", "file", "column", "shape")  #: kinds of rows that compare words, files or names
#: What the numbers of a column with several are, by truth_*.py and the end of the column's name, and how they are written.
SEVERAL = {
    "stars": {
        **dict.fromkeys(("psf", "aperture"), (": 16, 50, 84 % (mag)", ", ")),
        **dict.fromkeys(("east", "north"), (": 16, 50, 84 % (mas)", ", ")),
    },
    "slopes": {
        "bias": (": mean ± uncertainty (DN/s)", " ± "),
        "relative": (": mean ± uncertainty (of the rate)", " ± "),
        "sigma": (": mean ± uncertainty (of the quoted error)", " ± "),
    },
    "jumps": {"rate": (": from, to (e⁻/s)", " to "), "height": (": from, to (e⁻)", " to ")},
}
SIMULATORS = {"rampflow": "", "romanisim": "_romanisim"}  #: folders of results, and what they add to the names of cases


# ---------------------------------------------------------------------------------------------------------- explanations
@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why some rows differ, and by how much they may.

    Attributes
    ----------
    why : str
    id : str
        Name in the document and in the table.
    case, table, exposure, step, product, name, flag : str or tuple of str
        Patterns of the rows that it explains: `table` of the case's ``ma-table``, `flag` of the flags in a data-quality array.
    measured_before : str
        Date, as "2026-11-29": it explains only cases that were measured before, by an older version of rampflow.
    at_most : dict
        Bounds by the measures of `sizes`, as ``largest`` or ``share``.
    bound : str
        Where a bound comes from that is more than ten times as large as what is measured.
    """

    why: str
    id: str = ""
    case: str | tuple = "*"
    table: str | tuple = "*"
    exposure: str | tuple = "*"
    step: str | tuple = "*"
    product: str | tuple = "*"
    name: str | tuple = "*"
    flag: str | tuple = "*"
    measured_before: str = ""
    at_most: dict = dataclasses.field(default_factory=dict)
    bound: str = ""

    def fits(self, date: str, **row: str) -> bool:
        """Whether it speaks of a row (or a flag in it) of a case that was measured on this date."""
        if self.measured_before and date >= self.measured_before:
            return False
        return all(any(fnmatch.fnmatchcase(value, p) for p in patterns(getattr(self, key))) for key, value in row.items())

    def excess(self, row: dict, limits: dict) -> list[str]:
        """What of a row is larger than it may be, or has no bound."""
        measured, bounds = sizes(row), limits | self.at_most
        if "nan" in measured and not bounds.keys() & set(COUNTS):
            bounds["nan"] = 0
        if is_numeric(row, measured) and not bounds.keys() & measured.keys():
            return [f"{self.id} bounds neither the number nor the size of the differences"]
        return [
            f"{key} is {measured[key]:.3g}, more than {bound:g}"
            for key, bound in bounds.items()
            if measured.get(key, 0) > bound
        ]


def sizes(row: dict) -> dict[str, float]:
    """Number and size of the differences of a row, by the names that bounds have.

    Parameters
    ----------
    row : dict
        Row of `compare`.

    Returns
    -------
    dict of str to float
        ``differing``, ``largest``, ``relative``, ``beyond`` and ``p999`` where the row has them; ``share`` of the values that
        differ; ``nan``, how many are finite in one pipeline alone. Of metadata, ``largest`` and ``relative`` follow from the
        two values.
    """
    measured = {key: row[key] for key in ("differing", "largest", "relative", "beyond", "p999") if row.get(key) is not None}
    measured["share"] = row["differing"] / max(row["compared"], 1)
    if row.get("nan"):
        measured["nan"] = sum(row["nan"].values())
    first, second = (numbers(row.get(which)) for which in ("ours", "romancal"))
    if row["kind"] == "meta" and first and len(first) == len(second):
        pairs = [(abs(a - b), abs(b)) for a, b in zip(first, second, strict=True)]
        measured["largest"] = max(difference for difference, _ in pairs)
        measured["relative"] = max((difference / size for difference, size in pairs if size), default=0.0)
    return measured


def numbers(value) -> list[float]:
    """The numbers of an entry of the metadata: a number, a list or printed array of them, or a footprint; none if unknown."""
    if isinstance(value, list):
        parts = [numbers(v) for v in value]
        return [n for part in parts for n in part] if all(parts) else []
    if isinstance(value, str) and value.startswith(("[", "POLYGON")):
        return [float(n) for n in re.findall(r"[-+]?[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?", value)]
    known = isinstance(value, int | float) and not isinstance(value, bool) and value != PLACEHOLDER
    return [float(value)] if known else []


def is_numeric(row: dict, measured: dict) -> bool:
    """Whether a row compares numbers, so that its explanation needs a bound."""
    return row["kind"] not in NOT_NUMBERS or "largest" in measured


def read_explanations(path: Path) -> list[Explanation]:
    """Read explanations.yaml.

    An entry without ``id`` gets one from its patterns, as "refpix-data"; of several with the same, the second gets "-2".

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Explanation
        In the order of the file.

    Raises
    ------
    ValueError
        Two entries have the same ``id``.
    """
    entries = yaml.safe_load(path.read_text())
    given = [entry["id"] for entry in entries if "id" in entry]
    if doubled := sorted({name for name in given if given.count(name) > 1}):
        raise ValueError(f"{path}: more than one explanation has the id {', '.join(doubled)}")
    taken, explanations = set(given), []
    for entry in entries:
        name = entry.get("id") or derived_id(entry, taken)
        taken.add(name)
        explanations.append(Explanation(**entry | {"id": name}))
    return explanations


def derived_id(entry: dict, taken: set[str]) -> str:
    """Id of an explanation from the first pattern of each of its keys, different from those that are taken."""
    keys = ("case", "table", "exposure", "step", "product", "name", "flag")
    words = " ".join(re.sub(r"\[.*?\]|[*?]", " ", patterns(entry[key])[0]) for key in keys if key in entry)
    stem = "explained-" * ("-" not in (slug := "-".join(re.findall(r"[a-z0-9]+", words.lower())))) + slug
    numbered = (f"{stem}-{number}" for number in range(2, len(taken) + 3))
    return stem if stem not in taken else next(name for name in numbered if name not in taken)


def patterns(given) -> tuple:
    """One pattern or several, as several."""
    return (given,) if isinstance(given, str) else tuple(given)


@dataclasses.dataclass
class Difference:
    """A row of `compare` and where it comes from, judged.

    Attributes
    ----------
    case, table, date, exposure, step, product : str
        `date` on which the case was measured.
    row : dict
    reasons : list of str
        Ids of the explanations.
    problems : list of str
        What nothing explains.
    """

    case: str
    table: str
    date: str
    exposure: str
    step: str
    product: str
    row: dict
    reasons: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def judge(self, explanations: list[Explanation]) -> None:
        """Find what explains it."""
        place = {name: getattr(self, name) for name in ("case", "table", "exposure", "step", "product")}
        place["name"] = self.row["name"]
        image = self.row["name"] in ("data", "err", "dumo", "chisq") or self.row["name"].startswith("var_")
        limits = {"beyond": LIMITS[self.row["kind"]]} if image and self.row["kind"] in LIMITS else {}
        parts = {flag: {"flag": flag} for flag in self.row["flags"]} if self.row.get("flags") else {"": {}}
        for part, flag in parts.items():
            row = self.row | ({"differing": sum(self.row["flags"][part].values())} if part else {})
            excesses = []
            for explanation in explanations:
                if explanation.fits(self.date, **place, **flag):
                    if not (excess := explanation.excess(row, limits)):
                        self.reasons.append(explanation.id)
                        break
                    excesses += excess
            else:
                self.problems.append(f"{part} {'; '.join(excesses) or 'has no explanation'}".strip())

    def __str__(self):
        return f"{self.case}, {self.step}, {self.exposure} {self.product} {self.row['name']}: {'; '.join(self.problems)}"


def differs(row: dict) -> bool:
    """Whether a row of `compare` has a difference."""
    return bool(row["differing"] or row.get("dtype"))


# --------------------------------------------------------------------------------------------------------------- results
def clipped(node):
    """Results with long texts cut to what the document shows: logs, say, which tell of the machine and not of the numbers."""
    if isinstance(node, dict):
        return {key: clipped(value) for key, value in node.items()}
    if isinstance(node, list):
        return [clipped(value) for value in node]
    return node[:LONGEST_TEXT] + "…" if isinstance(node, str) and len(node) > LONGEST_TEXT else node


@dataclasses.dataclass
class Case:
    """The results of a case.

    Attributes
    ----------
    name : str
    settings, romancal, rampflow, truth : dict
        The files case.json, romancal.json, rampflow.json and truth_*.json.
    steps : list of dict
        What each of our steps took.
    rows : list of Difference
        All rows of all comparisons, and one of each failure.
    """

    name: str
    settings: dict
    romancal: dict
    rampflow: dict
    steps: list[dict]
    truth: dict[str, dict]
    rows: list[Difference] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, name: str, folder: Path) -> Case:
        """Read a finished case in its working folder."""
        results = {what: clipped(json.loads((folder / f"{what}.json").read_text())) for what in RESULTS}
        truth = {path.stem.removeprefix("truth_"): json.loads(path.read_text()) for path in sorted(folder.glob("truth_*.json"))}
        steps = results["steps"]["steps"]
        measured = [{key: value for key, value in step.items() if key != "products"} for step in steps]
        case = cls(name, results["case"], results["romancal"], results["rampflow"], measured, clipped(truth))
        case.rows = list(case._differences(steps, results["products"]))
        return case

    def information(self) -> dict:
        """All but the rows."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("name", "rows")}

    @property
    def table(self) -> str:
        """The multi-accumulation table of its exposures."""
        return self.settings.get("common", {}).get("ma-table", "imaging")

    @property
    def date(self) -> str:
        """When it was measured."""
        return self.rampflow["date"]

    def _differences(self, steps: list[dict], products: dict[str, list[dict]]) -> Iterator[Difference]:
        for step in steps:
            for product, rows in step["products"].items():
                for row in rows:
                    yield Difference(self.name, self.table, self.date, step["exposure"], step["step"], product, row)
            if step["error"]:
                yield self._failure(step["exposure"], step["step"], step["error"], None)
        if self.romancal["error"] or self.rampflow["error"]:
            yield self._failure("", END_TO_END, self.rampflow["error"], self.romancal["error"])
        for name, rows in products.items():
            stem, _, product = name.partition(".")[0].rpartition("_")
            for row in rows:
                yield Difference(self.name, self.table, self.date, stem, END_TO_END, product, row)

    def _failure(self, exposure: str, step: str, ours: str | None, theirs: str | None) -> Difference:
        row = {"name": "error", "kind": "error", "compared": 1, "differing": 1, "ours": ours, "romancal": theirs}
        return Difference(self.name, self.table, self.date, exposure, step, "", row)

    def romancal_step(self, exposure: str, step: str) -> dict:
        """What romancal's step took: its alignment is that of all exposures."""
        return next(
            (s for s in self.romancal["steps"] if s["step"] == step and s["exposure"] in (exposure, None)),
            {},
        )


def finished_cases(folder: Path) -> dict[str, Path]:
    """Working folders of the finished cases, by the name of the case."""
    return {
        case.name + suffix: case
        for simulator, suffix in SIMULATORS.items()
        for case in sorted((folder / simulator).glob("*/"))
        if all((case / f"{what}.json").exists() for what in RESULTS)
    }


# ----------------------------------------------------------------------------------------------------------------- table
_COUNTS = pa.struct([("ours", pa.int64()), ("romancal", pa.int64())])
_PLACE = {name: pa.dictionary(pa.int32(), pa.string()) for name in ("case", "exposure", "step", "product")}
_ROW = {
    **{"name": pa.string(), "kind": pa.string(), "compared": pa.int64(), "differing": pa.int64()},
    **{name: pa.float64() for name in ("largest", "p999", "beyond", "relative")},
    **{"nan": _COUNTS, "flags": pa.list_(pa.struct([("flag", pa.string()), *_COUNTS]))},
    **{"dtype": pa.struct([("ours", pa.string()), ("romancal", pa.string())]), "only_in": pa.string()},
    **{"ours": pa.string(), "romancal": pa.string()},
}
SCHEMA = pa.schema(_PLACE | _ROW | {"explained_by": pa.list_(pa.string())})


def _stored(row: dict) -> dict:
    """A row of `compare` as the table has it."""
    if unknown := row.keys() - _ROW.keys():
        raise ValueError(f"row {row['name']}: the table has no column {', '.join(sorted(unknown))}; add it to SCHEMA")
    stored = row | {key: json.dumps(row[key]) for key in ("ours", "romancal") if key in row}
    if "flags" in row:
        stored["flags"] = [{"flag": flag, **counts} for flag, counts in row["flags"].items()]
    return stored


def _restored(stored: dict) -> dict:
    """A row of the table as `compare` has it."""
    row = {key: stored[key] for key in _ROW if stored[key] is not None}
    if "flags" in row:
        row["flags"] = {flag.pop("flag"): flag for flag in row["flags"]}
    return row | {key: json.loads(row[key]) for key in ("ours", "romancal") if key in row}


def write_table(path: Path, cases: list[Case]) -> None:
    """Write all rows of all cases to one Parquet file, and the rest of what they measured to its metadata."""
    places = tuple(_PLACE)
    rows = [
        {place: getattr(d, place) for place in places} | _stored(d.row) | {"explained_by": d.reasons}
        for case in cases
        for d in case.rows
    ]
    information = json.dumps({case.name: case.information() for case in cases})
    path.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        writer.add_key_value_metadata({"cases": information})


def read_table(path: Path) -> dict[str, Case]:
    """Read what `write_table` wrote, by the name of the case; the differences are not judged."""
    information = json.loads(pq.read_metadata(path).metadata[b"cases"])
    cases = {name: Case(name, **rest) for name, rest in information.items()}
    for stored in pq.read_table(path).to_pylist():
        case = cases[stored["case"]]
        place = {name: stored[name] for name in ("exposure", "step", "product")}
        case.rows.append(Difference(case.name, case.table, case.date, row=_restored(stored), **place))
    return cases


# -------------------------------------------------------------------------------------------------------------- document
def table(header: list[str], rows: list[list]) -> list[str]:
    """Lines of a Markdown table; a column whose header ends with a colon is aligned to the right."""
    rules = ["---:" if name.endswith(":") else "---" for name in header]
    return [
        "| " + " | ".join(name.removesuffix(":") for name in header) + " |",
        "|" + "|".join(rules) + "|",
        *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows),
        "",
    ]


def anchor(heading: str) -> str:
    """Name of a heading in a link, as GitHub makes it."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def number(value: float | None, form: str = ".3g") -> str:
    """A number, or a dash for none."""
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:{form}}"


def seconds_and_memory(measured: dict) -> list[str]:
    """Wall-clock and CPU seconds, MB."""
    return [number(measured.get("wall_s"), ".1f"), number(measured.get("cpu_s"), ".1f"), number(measured.get("peak_mb"), ".0f")]


def short(exposure: str) -> str:
    """Number of an exposure in its visit."""
    parts = exposure.split("_")
    return str(int(parts[1])) if len(parts) > 1 and parts[1].isdigit() else "all"


def describe(row: dict) -> str:
    """What differs, beside the numbers of the table."""
    words = [
        f"{flag}: {n['ours']:,} only in rampflow, {n['romancal']:,} only in romancal"
        for flag, n in row.get("flags", {}).items()
    ]
    if row.get("nan"):
        words.append(f"not finite: {row['nan']['ours']:,} only in rampflow, {row['nan']['romancal']:,} only in romancal")
    if row.get("dtype"):
        words.append(f"{row['dtype']['ours']} and {row['dtype']['romancal']}")
    if "only_in" in row:
        words.append(f"in {row['only_in']} alone")
    elif "ours" in row:
        words.append(f"rampflow {_clip(row['ours'])}, romancal {_clip(row['romancal'])}")
    if row.get("relative"):
        words.append(f"relative {row['relative']:.2g}")
    return "; ".join(words)


def _clip(value) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    return clipped(text)


def step_table(case: Case, rows: list[Difference]) -> list[str]:
    """What each step compared, and what it took on both sides."""
    lines = []
    several = len({step["exposure"] for step in case.steps}) > 2
    for step in case.steps:
        mine = [d.row for d in rows if d.step == step["step"] and d.exposure == step["exposure"] and d.row["kind"] != "error"]
        arrays = [row for row in mine if row["kind"] != "meta"]
        theirs = case.romancal_step(step["exposure"], step["step"])
        lines.append(
            [
                step["step"] + (f" ({short(step['exposure'])})" if several else ""),
                number(sum(row["compared"] for row in arrays)) if mine else "–",
                number(sum(row["differing"] for row in arrays)) if mine else "–",
                *seconds_and_memory(step),
                *seconds_and_memory(theirs),
            ]
        )
    lines.append([f"**{END_TO_END}**", *_counts(rows), *seconds_and_memory(case.rampflow), *seconds_and_memory(case.romancal)])
    header = ["step", "values compared:", "that differ:", "rampflow: s:", "CPU s:", "MB:", "romancal: s:", "CPU s:", "MB:"]
    return table(header, lines)


def _counts(rows: list[Difference]) -> list[str]:
    products = [d.row for d in rows if d.step == END_TO_END and d.row["kind"] not in ("meta", "error", "file")]
    return [number(sum(row[key] for row in products)) if products else "–" for key in ("compared", "differing")]


def grouped(found: list[Difference]) -> list[list[Difference]]:
    """Columns of a catalog and entries of the metadata together where one reason explains them, and each other row alone."""
    groups = {}
    for d in found:
        alone = d.problems or (d.product != "cat" and d.row["kind"] != "meta")
        key = (d.step, d.exposure, d.product, d.row["kind"] == "meta", *d.reasons, d.row["name"] if alone else "")
        groups.setdefault(key, []).append(d)
    return list(groups.values())


def what(group: list[Difference]) -> str:
    """Names of the rows of a group, after the product that has them."""
    product = group[0].product
    return ("" if product in ("exposure", "") else f"{product}: ") + ", ".join(d.row["name"] for d in group)


def links(reasons: list[str]) -> Iterator[str]:
    """Links to explanations, one to each, which may explain several flags."""
    return (f"[{name}](#{name})" for name in dict.fromkeys(reasons))


def measures(group: list[Difference]) -> list[str]:
    """Sizes of the differences of a row, and its words; of a group, the largest relative one."""
    row = group[0].row
    if len(group) > 1:
        relative = max(d.row.get("relative") or 0 for d in group)
        return ["–", "–", "–", f"relative {relative:.2g} at most" if relative else ""]
    return [
        number(row.get("largest")) + (" mas" if row["kind"] == "wcs" else ""),
        number(row.get("p999")),
        number(row.get("beyond"), ".1e") if row.get("beyond") else "–",
        describe(row),
    ]


def difference_table(rows: list[Difference]) -> list[str]:
    """Every row with a difference, and what explains it."""
    found = [d for d in rows if differs(d.row)]
    if not found:
        return ["Nothing differs.", ""]
    several = len({d.exposure for d in rows if d.exposure}) > 2
    lines = [
        [
            group[0].step + (f" ({short(group[0].exposure)})" if several else ""),
            what(group),
            number(sum(d.row["compared"] for d in group)),
            number(sum(d.row["differing"] for d in group)),
            *measures(group),
            " ".join([*links(group[0].reasons), *(f"**{p}**" for d in group for p in d.problems)]),
        ]
        for group in grouped(found)
    ]
    header = ["step", "what", "compared:", "differ:", "largest:", "99.9 %:", "not small:", "", "explained by"]
    return table(header, lines)


def identical_line(rows: list[Difference]) -> str:
    """The rows without a difference, in one line."""
    steps = dict.fromkeys(d.step for d in rows)
    clean = [step for step in steps if not any(differs(d.row) for d in rows if d.step == step)]
    arrays = sum(not differs(d.row) and d.row["kind"] != "meta" for d in rows)
    entries = sum(d.row["compared"] for d in rows if not differs(d.row) and d.row["kind"] == "meta")
    return (
        f"Identical in every value: {', '.join(clean) or 'no step as a whole'}; in all, {arrays} arrays and columns and "
        f"{entries:,} entries of the metadata."
    )


def case_section(case: Case) -> list[str]:
    """A case: what it is, what it took, what differs."""
    made_with = json.dumps({k: v for k, v in case.settings.items() if k in ("seed", "common", "exposures", "sky")})
    exercises, parameters = case.settings["exercises"], json.dumps(case.settings.get("parameters", {}))
    lines = [f"## {case.name}", "", f"{exercises[0].upper()}{exercises[1:]}.", ""]
    own = f", of rampflow alone `{json.dumps(case.settings['rampflow'])}`" if "rampflow" in case.settings else ""
    lines += [f"Simulated with `{made_with}`; parameters of both `{parameters}`{own}."]
    lines += [f"Measured on {case.rampflow['date']} at commit {case.rampflow['commit']}."]
    return [*lines, "", *step_table(case, case.rows), identical_line(case.rows), "", *difference_table(case.rows)]


def summary(cases: list[Case]) -> list[str]:
    """One line per case."""
    lines = []
    for case in cases:
        found = [d for d in case.rows if differs(d.row)]
        open_rows = sum(bool(d.problems) for d in found)
        ours, theirs = case.rampflow, case.romancal
        lines.append(
            [
                f"[{case.name}](#{anchor(case.name)})",
                case.settings["exercises"],
                len(case.rows),
                len(found),
                open_rows or "none",
                f"{ours['wall_s']:.0f} / {theirs['wall_s']:.0f}" if not theirs["error"] else f"{ours['wall_s']:.0f} / failed",
                f"{ours['peak_mb']:.0f} / {theirs['peak_mb']:.0f}",
            ]
        )
    header = ["case", "what it exercises", "rows:", "with a difference:", "unexplained:", "s, rampflow / romancal:", "MB:"]
    return table(header, lines)


def truth_section(cases: list[Case], pictures: str) -> list[str]:
    """Both pipelines against the simulated truth: each picture and its numbers."""
    lines = []
    for case in cases:
        for what, numbers in case.truth.items():
            lines += [f"### Truth of {what}", "", f"Case {case.name}, measured by tests/validation/truth_{what}.py.", ""]
            lines += [f"![{what}]({pictures}/{what}.png)", "", "<details><summary>Numbers</summary>", ""]
            for key, rows in numbers.items():
                lines += [f"{key}:", "", *table_of(rows, what)] if isinstance(rows, list) else [f"{key}: {number(rows)}", ""]
            lines += ["</details>", ""]
    return ["## Against the truth", "", *lines] if lines else []


def table_of(rows: list[dict], what: str) -> list[str]:
    """A table of mappings of one of truth_*.py; a mapping in one of them is several columns, a list several numbers in one."""
    flat = [dict(_flat(row)) for row in rows]
    if not flat:
        return []
    several = {name: SEVERAL[what][name.split()[-1]] for name, value in flat[0].items() if len(value) > 1}
    header = [name + several.get(name, ("",))[0] + ":" for name in flat[0]]
    cells = [[several.get(name, ("", " "))[1].join(map(number, value)) for name, value in row.items()] for row in flat]
    return table(header, cells)


def _flat(row: dict, prefix: str = ""):
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value if isinstance(value, list) else [value]


def document(cases: list[Case], explanations: list[Explanation], missing: list[str], kept: str) -> str:
    """The whole document; `kept` is the folder of the table and the pictures."""
    used = {name for case in cases for d in case.rows for name in d.reasons}
    versions = {name: version for case in cases for name, version in case.romancal["versions"].items()}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    machines = "; ".join(dict.fromkeys(case.rampflow["machine"] for case in cases))
    lines = [
        "# The same numbers as romancal",
        "",
        "`make validate` writes this page. It simulates full frames, runs romancal and rampflow on them with the same",
        "references, and compares all values that they write:",
        "",
        "    make validate                          # all cases: several hours, and 25 GB of disk per running case",
        '    make validate CASES="plain wfi18"      # some of them',
        "    make validate SIMULATOR=romanisim      # the cases that STScI's simulator can make",
        "",
        f"All rows of all comparisons are in the table [{TABLE}]({kept}/{TABLE}) (parquet).",
        "Its column `explained_by` has the ids that are headings below. The rows of a case stay until it is run again, so that",
        "the cases may have different dates. [differences.md](differences.md) describes the deliberate differences.",
        "",
        "- **Steps**: each step of rampflow gets the output of romancal's previous step, and the results are compared.",
        "- **End to end**: the whole chain from the raw file.",
        "- **Bold**: a difference without an explanation, or larger than its explanation allows. `make validate` then fails.",
        "- **Not small**: share of values that differ by more than 10⁻⁴ DN/s + 10⁻⁵ relative; in half-precision planes, by",
        "  more than one unit in the last place.",
        "- **s**: seconds of one run, on a machine that ran other programs too. [Performance](performance.md) has benchmarks.",
        "- **MB**: largest resident memory of a process.",
        "",
        f"romancal's environment: {packages}. Machine: {machines}.",
        "",
        *summary(cases),
    ]
    if missing:
        lines += [f"Not run for this document: {', '.join(missing)}.", ""]
    lines += truth_section(cases, kept)
    for case in cases:
        lines += case_section(case)
    lines += [
        "## Explanations",
        "",
        "The bounds are checked whenever this page is written. A difference of numbers is explained only by an explanation",
        "with a bound:",
        "",
        "- **differing**, **share**: number of values that differ, and their share.",
        "- **beyond**: share of values that are not small.",
        "- **nan**: number of values that are finite in one pipeline alone.",
        "- **largest**, **relative**, **p999**: largest difference, absolute and relative, and its 99.9 % quantile.",
        "",
    ]
    for explanation in explanations:
        if explanation.id in used:
            lines += [f"### {explanation.id}", "", described(explanation), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def described(explanation: Explanation) -> str:
    """The text of an explanation, with its bounds."""
    bounds = ", ".join(f"{key} {bound:g}" for key, bound in explanation.at_most.items())
    parts = [explanation.why, f"At most: {bounds}." if bounds else "", explanation.bound]
    if explanation.measured_before:
        parts.append(f"Explains only cases measured before {explanation.measured_before}.")
    return " ".join(part for part in parts if part)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="working folders of the Snakefile")
    parser.add_argument("kept", type=Path, help=f"folder of {TABLE} and of the pictures")
    parser.add_argument("output", type=Path, help="the document (.md), beside that folder")
    args = parser.parse_args()
    explanations = read_explanations(HERE / "explanations.yaml")
    known = yaml.safe_load((HERE / "cases.yaml").read_text())["cases"]
    names = [
        name + suffix for suffix in SIMULATORS.values() for name, case in known.items() if not suffix or case.get("romanisim")
    ]
    finished = finished_cases(args.folder)
    if strangers := sorted(finished.keys() - set(names)):
        parser.error(f"{args.folder}: {', '.join(strangers)}: there is no such case in cases.yaml; remove the folder")
    kept = read_table(args.kept / TABLE) if (args.kept / TABLE).exists() else {}
    kept |= {name: Case.read(name, folder) for name, folder in finished.items()}
    cases = [kept[name] for name in names if name in kept]
    if not cases:
        parser.error(f"{args.folder}: has no finished case")
    for case in cases:
        for difference in case.rows:
            if differs(difference.row):
                difference.judge(explanations)
    write_table(args.kept / TABLE, cases)
    for folder in finished.values():
        for picture in folder.glob("truth_*.png"):
            shutil.copyfile(picture, args.kept / picture.name.removeprefix("truth_"))
    missing = [name for name in known if name not in kept]
    args.output.write_text(document(cases, explanations, missing, args.kept.name))
    unexplained = [difference for case in cases for difference in case.rows if difference.problems]
    for difference in unexplained:
        print(difference, file=sys.stderr)
    print(f"{args.output}: {len(cases)} cases, {len(unexplained)} unexplained differences")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
