"""The page for newcomers, run word for word on a real broker."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from tests.markdown import ROOT

PAGE = (ROOT / "docs" / "first-fleet.md").read_text(encoding="utf-8")
_STEP = re.compile(
    r"<!-- (file|run|terminal|kill|close|wait)(?:: ([^>]+))? -->\n(?:```\w+\n(.*?)^```)?", re.MULTILINE | re.DOTALL
)

BUDGET_S = 300.0
"""What a machine with much other work may need; an idle one with two cores needs about a fifth."""


@dataclass(slots=True)
class Reader:
    """Somebody who follows the page in an empty folder, with a terminal for each role."""

    folder: Path
    environment: Mapping[str, str]
    until: float = field(default_factory=lambda: time.monotonic() + BUDGET_S)
    terminals: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    printed: str = ""

    def follow(self, step: str, name: str, block: str) -> None:
        """Do what one marked place of the page says."""
        match step:
            case "file":
                (self.folder / name).write_text(block, encoding="utf-8")
            case "run":
                self._run(self._arguments(block))
            case "terminal":
                self._open(name, self._arguments(block))
            case "kill":
                self.terminals[name].kill()
                assert self.terminals.pop(name).wait() == -signal.SIGKILL
            case "close":
                self._close(name)
            case "wait" if name == "accuracy 0.9":
                self._wait(lambda: max(self._scores("accuracy"), default=0.0) > 0.9, "the accuracy rose above 0.9")
            case "wait" if name == "a newer version":
                before = max(self._scores("version"))
                self._wait(lambda: max(self._scores("version")) > before, "a newer version was scored")
            case _:
                pytest.fail(f"the page has a mark that this test does not know: {step} {name}")

    def abandon(self) -> None:
        """Leave nothing running, whatever happened."""
        for process in self.terminals.values():
            process.kill()
            process.wait()

    def _arguments(self, block: str) -> list[str]:
        program, *arguments = shlex.split(block.replace("\\\n", " "))
        start = [sys.executable, "-m", "headwater"] if program == "headwater" else [sys.executable]
        assert program in ("headwater", "python"), f"{program} is no program of this page"
        # Tests share a machine: the port of the metrics is whichever is free.
        return [*start, *arguments, *(["--listen-port", "0"] if arguments[0] == "aggregator" else [])]

    def _run(self, arguments: list[str]) -> None:
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=max(1.0, self.until - time.monotonic()),
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        self.printed += done.stdout

    def _open(self, name: str, arguments: list[str]) -> None:
        with self._log(name) as log:
            self.terminals[name] = subprocess.Popen(
                arguments, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def _close(self, name: str) -> None:
        """Ctrl-C in one terminal, which must end in order."""
        process = self.terminals[name]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0, f"{name} did not end in order: {self._logs()}"
        del self.terminals[name]

    def _log(self, name: str) -> IO[bytes]:
        return (self.folder / f"{name}.log").open("ab")

    def _scores(self, score: str) -> Iterator[float]:
        text = (self.folder / "evaluator.log").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if '"event":"version_evaluated"' in line]
        return (float(found) for line in lines for found in re.findall(rf'"{score}":([0-9.e-]+)', line))

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        while not happened():
            for name, process in self.terminals.items():
                assert process.poll() is None, f"{name} ended by itself: {self._logs()}"
            assert time.monotonic() < self.until, f"within {BUDGET_S:.0f} s it never came that {what}: {self._logs()}"
            time.sleep(0.1)

    def _logs(self) -> str:
        """The end of what every terminal shows."""
        tails = [f"{log.stem}:\n{log.read_text(encoding='utf-8')[-1500:]}" for log in self.folder.glob("*.log")]
        return "\n".join(tails)


@pytest.fixture
def reader(tmp_path: Path, bootstrap: str) -> Iterator[Reader]:
    environment = {
        **os.environ,
        "HEADWATER_BOOTSTRAP": bootstrap,
        "HEADWATER_LOG_FORMAT": "json",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(ROOT),
    }
    someone = Reader(folder=tmp_path, environment=environment)
    yield someone
    someone.abandon()


@pytest.mark.slow
@pytest.mark.timeout(BUDGET_S + 60)
def test_who_follows_the_page_has_a_fleet_that_learns_and_survives_a_kill(reader: Reader) -> None:
    for step, name, block in _STEP.findall(PAGE):
        reader.follow(step, name.strip(), block)
    assert set(reader.terminals) == {"aggregator"}
    right = re.search(r"(\d+)% of new windows are right", reader.printed)
    assert right is not None
    assert int(right.group(1)) >= 85
    assert "every hash agrees" in reader.printed


def test_the_page_marks_all_it_needs() -> None:
    steps = [(step, name.strip()) for step, name, _ in _STEP.findall(PAGE)]
    assert steps.count(("terminal", "aggregator")) == 2
    assert {"file", "run", "terminal", "kill", "close", "wait"} == {step for step, _ in steps}
    assert len(re.findall(r"^```", PAGE, re.MULTILINE)) == 2 * (
        2 + len([s for s, _ in steps if s in ("file", "run", "terminal")])
    )
