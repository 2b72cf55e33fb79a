"""Messages reach whoever reads them, and end nothing where nobody does."""

import subprocess
import sys

PROGRAM = """
import sys
from saga_sr.support.errors import run_cli, UserError

def main():
    for number in range(3000):
        print(number, sys.argv[1])
    print("finished", file=sys.stderr)

raise SystemExit(run_cli(main))
"""


def test_a_reader_that_goes_ends_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "x" * 100],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        errors = program.stderr.read()
    assert (program.returncode, errors) == (0, "finished\n")


def test_a_name_that_the_output_cannot_show_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", PROGRAM, b"caf\xe9-\xe5\xbd\x95"],
        env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"finished\n")
    assert done.stdout.startswith(b"0 caf\\udce9")
