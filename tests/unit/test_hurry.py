"""What a command imports decides how long a fleet waits for a leader."""

import subprocess
import sys


def _loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_an_aggregator_starts_without_what_only_a_terminal_a_device_or_a_compiled_loop_needs() -> None:
    loaded = _loaded(
        "from headwater.commands import aggregator\n"
        "from headwater.hurry import hurried\n"
        "with hurried():\n"
        "    import headwater.aggregating"
    )
    assert loaded.isdisjoint({"rich", "pygments", "torch", "numba", "matplotlib", "lightkube"})


def test_its_command_line_is_read_before_anything_large_is_imported() -> None:
    assert _loaded("from headwater.commands import aggregator").isdisjoint({"numpy", "aiokafka", "pydantic_core"})


def test_after_the_start_colours_and_the_collector_are_there_again() -> None:
    code = (
        "import gc\n"
        "from headwater.hurry import hurried\n"
        "with hurried():\n"
        "    assert not gc.isenabled()\n"
        "assert gc.isenabled()\n"
        "import rich.console"
    )
    assert "rich" in _loaded(code)
