"""A report in short for other programs, such as continuous integration: JSON, and JUnit XML of its limits."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from hfclib._files import write
from hfclib.reporting.limits import Limit
from hfclib.reporting.stored import Report


@dataclass(frozen=True)
class Result:
    """A limit: its text, the accuracy that it is about, and whether the report meets it, and so fails."""

    limit: str
    value: float
    failed: bool


def limit_results(report: Report, limits: Sequence[str]) -> list[Result]:
    """The results of limits; see `Limit`."""
    parsed = {text: Limit.parse(text) for text in limits}
    return [Result(text, report.value(limit.band, limit.radius), limit.fails(report)) for text, limit in parsed.items()]


def write_json(path: Path, report: Report, results: Sequence[Result]) -> None:
    """Write the answer: network, data, accuracy with its interval, the crossing radius, each limit, and the summary."""
    from hfclib.reporting import answer

    content = report.content
    crossed, whole = answer.crossing(content), answer.whole_row(content)
    facts = {
        "network": content["key"]["settings"]["name"],
        "data": content.get("data_name"),
        "images": whole["images"],
        "accuracy": {name: whole[name] for name in ("accuracy", "low", "high")},
        "crossing_radius": {name: getattr(crossed, name) for name in ("radius", "low", "high")},
        "answer": answer.reads(content),
        "limits": [asdict(result) for result in results],
        "failed": any(result.failed for result in results),
    }
    write(path, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode())


def write_junit(path: Path, report: Report, results: Sequence[Result]) -> None:
    """Write JUnit XML: one test case per limit, or without limits one that passes."""
    failures = sum(result.failed for result in results)
    name = f"hfc report {report.content['key']['settings']['name']}"
    suite = ElementTree.Element(
        "testsuite", name=name, tests=str(len(results) or 1), failures=str(failures), errors="0"
    )
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=result.limit)
        if result.failed:
            ElementTree.SubElement(case, "failure", message=f"{result.limit}: it is {result.value:.4f}")
    if not results:
        ElementTree.SubElement(suite, "testcase", classname=name, name="measured")
    ElementTree.SubElement(suite, "system-out").text = report.content["summary"]
    write(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
