"""junit.xml: a suite a submission, a case a check, as CI systems read it; for who grades, since
failures stand with their whole messages."""

import re
from typing import IO
from xml.etree.ElementTree import Element, SubElement, tostring

from grader.batch import feedback, judged
from grader.batch.feedback import Told
from grader.batch.judged import Judged, is_wrong
from grader.batch.records import Result, Results
from grader.exam.verdict import Check, Outcome

# What no XML 1.0 document may hold, escaped or not.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHARS = 4000


def write(results: Results, told: Told, file: IO[bytes]) -> None:
    file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="kata grade">\n')
    for one in judged.each(results):
        file.write(tostring(_suite(one), "utf-8", xml_declaration=False) + b"\n")
    file.write(b"</testsuites>\n")


def _suite(one: Judged) -> Element:
    suite = Element("testsuite", name=_text(f"{one.who}: {one.slug or 'no kata'}"))
    classname = _text(f"{one.slug or 'no kata'}.{one.who}")
    counts = dict.fromkeys(("failure", "error", "skipped"), 0)
    for check in one.checks:
        case = SubElement(suite, "testcase", classname=classname, name=_text(check.name))
        tag = _tag(check)
        if tag is not None:
            counts[tag] += 1
            said = SubElement(case, tag, message=_text(check.message.partition("\n")[0]))
            if tag != "skipped":
                said.set("type", _text(check.bug or check.part))
                said.text = _text(check.message)
        if check.printed:
            SubElement(case, "system-out").text = _text(check.printed)
    if one.outcome is not Result.PASSED and not any(map(is_wrong, one.checks)):
        # What no check says: not handed in, refused, tampered with.
        case = SubElement(suite, "testcase", classname=classname, name="graded")
        why = one.trouble or f"{feedback.summary(one)} {'; '.join(one.tampered)}"
        tag = "failure" if one.missing or one.tampered else "error"
        counts[tag] += 1
        SubElement(case, tag, message=_text(why), type=str(one.outcome)).text = _text(why)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    suite.set("time", f"{one.seconds:.3f}")
    return suite


def _tag(check: Check) -> str | None:
    outcomes = {Outcome.FAILED: "failure", Outcome.ERROR: "error", Outcome.SKIPPED: "skipped"}
    return outcomes.get(check.outcome)


def _text(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text[:_CHARS])
