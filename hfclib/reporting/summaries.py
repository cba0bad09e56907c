"""A report in short for other programs, such as continuous integration: JSON, and JUnit XML of its limits."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from hfclib._files import write
from hfclib.reporting.rules import Rule
from hfclib.reporting.stored import Report


@dataclass(frozen=True)
class Result:
    """A limit: its text, the accuracy that it is about, and whether the report meets it, and so fails."""

    rule: str
    value: float
    failed: bool


def limit_results(report: Report, rules: Sequence[str]) -> list[Result]:
    """The results of limits; see `Rule`."""
    parsed = {text: Rule.parse(text) for text in rules}
    return [Result(text, report.value(rule.band, rule.radius), rule.fails(report)) for text, rule in parsed.items()]


def write_json(path: Path, report: Report, limits: Sequence[Result]) -> None:
    """Write the answer: network, data, accuracy with its interval, the crossing radius, each limit, and the summary."""
    from hfclib.reporting import answer

    content = report.content
    crossed, whole = answer.crossing(content), answer.whole_row(content)
    told = {
        "network": content["key"]["settings"]["name"],
        "data": content.get("data_name"),
        "images": whole["images"],
        "accuracy": {name: whole[name] for name in ("accuracy", "low", "high")},
        "crossing_radius": {name: getattr(crossed, name) for name in ("radius", "low", "high")},
        "answer": answer.reads(content),
        "limits": [asdict(limit) for limit in limits],
        "failed": any(limit.failed for limit in limits),
    }
    write(path, (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())


def write_junit(path: Path, report: Report, limits: Sequence[Result]) -> None:
    """Write JUnit XML: one test case per limit, or without limits one that passes."""
    failures = sum(limit.failed for limit in limits)
    name = f"hfc report {report.content['key']['settings']['name']}"
    suite = ElementTree.Element("testsuite", name=name, tests=str(len(limits) or 1), failures=str(failures), errors="0")
    for limit in limits:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=limit.rule)
        if limit.failed:
            ElementTree.SubElement(case, "failure", message=f"{limit.rule}: it is {limit.value:.4f}")
    if not limits:
        ElementTree.SubElement(suite, "testcase", classname=name, name="measured")
    ElementTree.SubElement(suite, "system-out").text = report.content["summary"]
    write(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
