"""Runs many `kata` commands one after another, each in a fork of one process that has imported
what they need: `python all_pages.py < JOBS`, where JOBS is a JSON list of objects with the
arguments of `run`. Prints a JSON list of what that gives.
"""

import json
import os
import sys
import tempfile
from importlib import import_module

import grader.exam.examiner  # noqa: F401 – torch, once for all that grade
from grader import cli


def run(words: list[str], folder: str, environment: dict[str, str], typed: str) -> tuple[int, str]:
    """Exit code and output, both streams in one."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        told.write(typed.encode())
        told.seek(0)
        pid = os.fork()
        if pid == 0:
            for file, number in ((told, 0), (said, 1), (said, 2)):
                os.dup2(file.fileno(), number)
            os.chdir(folder)
            os.environ.update(environment)
            sys.argv[:] = ["kata", *words]
            cli.main()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return status, said.read().decode()


if __name__ == "__main__":
    for module in cli._COMMANDS:
        import_module(f"grader.cli.{module}")
    print(json.dumps([run(**job) for job in json.load(sys.stdin)]))
