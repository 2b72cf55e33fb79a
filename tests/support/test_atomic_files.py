"""Files appear whole or not at all, also under names that nobody expects and beside others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from saga_sr.support.files import (
    atomic_path,
    fitting_name,
    json_text,
    remove_leftovers,
    write_json_atomic,
)


def test_a_name_that_fits_stays_as_it_is() -> None:
    assert fitting_name("old", ".restored.wav") == "old.restored.wav"


@pytest.mark.parametrize("letter", ["x", "é", "录", "𝄞", "\udce9"])
def test_a_name_that_is_too_long_is_cut_between_characters(letter: str, tmp_path: Path) -> None:
    names = {fitting_name(letter * 200 + "x" * count, ".restored.wav") for count in range(50, 60)}
    assert len(names) == 10
    for name in names:
        assert len(os.fsencode(name)) <= 255
        (tmp_path / name).touch()
        if letter != "\udce9":
            name.encode("utf-8")


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".wav")
    with atomic_path(path, locked=True) as temporary:
        temporary.write_text("whole", encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    code = (
        "import os, sys\n"
        "from saga_sr.support.files import atomic_path\n"
        "with atomic_path(sys.argv[1], locked=True) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.readline() or os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        remove_leftovers(path)
        assert len(list(tmp_path.iterdir())) == 1
        writer.stdin.write("go on\n")
    assert path.read_text(encoding="utf-8") == "half"

    killed = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


def test_json_reads_back_whatever_the_names(tmp_path: Path) -> None:
    value = {"caf\udce9.wav": "录音"}
    write_json_atomic(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    assert "录音" in json_text({"name": "录音"})
