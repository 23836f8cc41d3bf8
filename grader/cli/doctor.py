"""doctor: whether this machine is as it should be."""

from pathlib import Path

import click

from grader.cli import common, terminal


@click.command("doctor")
@common.as_json
@common.in_workspace
def doctor_command(json_: bool, workspace: Path | None) -> int:
    """Whether this machine has what grading needs, and which layers of the box hold."""
    from grader.practice import doctor
    from grader.views import findings
    from grader.web import bundle

    symptoms = doctor.examine(
        lambda: common.find_workspace(workspace), editor=bundle.editor() is not None
    )
    good = all(symptom.ok for symptom in symptoms if symptom.needed)
    if json_:
        terminal.say_json({"ok": good, "checks": symptoms})
    else:
        terminal.say(*findings.machine(symptoms, terminal.width(), terminal.colour()))
    return 0 if good else 1
