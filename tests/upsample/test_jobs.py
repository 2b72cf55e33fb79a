import os
import threading
import time
from pathlib import Path

import pytest

from saga_sr.audio.scan import Scan
from saga_sr.support.errors import UserError
from saga_sr.upsample.jobs import JOURNAL, Job, Journal, collect_jobs


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_one_file_goes_to_one_file(tmp_path):
    _touch(tmp_path / "a.mp3")
    out = tmp_path / "new" / "b.flac"
    assert collect_jobs([tmp_path / "a.mp3"], out, None) == [Job(tmp_path / "a.mp3", out)]


def test_a_folder_keeps_its_tree_and_leaves_other_files_alone(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    _touch(
        source / "a.wav", source / "deep" / "er" / "b.OGG", source / "notes.txt", source / ".c.wav"
    )
    assert collect_jobs([source], out, "flac") == [
        Job(source / "a.wav", out / "a.flac"),
        Job(source / "deep" / "er" / "b.OGG", out / "deep" / "er" / "b.flac"),
    ]


def test_files_of_one_name_keep_their_suffix(tmp_path):
    _touch(tmp_path / "a.wav", tmp_path / "a.ogg", tmp_path / "b.wav")
    names = [job.output.name for job in collect_jobs([tmp_path], tmp_path / "out", None)]
    assert names == ["a.ogg.wav", "a.wav.wav", "b.wav"]


def test_an_input_given_twice_is_done_once(tmp_path):
    _touch(tmp_path / "a.wav")
    assert len(collect_jobs([tmp_path / "a.wav", tmp_path], tmp_path / "out", None)) == 1


def test_outputs_inside_the_input_folder_are_no_inputs(tmp_path):
    _touch(tmp_path / "a.wav", tmp_path / "out" / "a.wav")
    jobs = collect_jobs([tmp_path], tmp_path / "out", None)
    assert [job.input for job in jobs] == [tmp_path / "a.wav"]


@pytest.mark.parametrize(
    ("inputs", "output", "audio_format", "message"),
    [
        (["missing.wav"], "out", None, "missing.wav: no such file or folder"),
        (["empty"], "out", None, "empty: no audio files"),
        (["a.wav", "b.wav"], "out.wav", None, "several inputs need a folder"),
        (["in"], "out.wav", None, "several inputs need a folder"),
        (["a.wav"], "out.mp3", None, "allowed are .wav, .flac or a folder"),
        (["a.wav"], "out.wav", "flac", "--format flac: contradicts"),
        (["a.wav"], "notes.txt", None, "notes.txt: it is a file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, inputs, output, audio_format, message):
    _touch(
        tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "in" / "c.wav", tmp_path / "notes.txt"
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        collect_jobs([tmp_path / name for name in inputs], tmp_path / output, audio_format)


def test_two_inputs_never_become_one_file(tmp_path):
    _touch(tmp_path / "1" / "a.wav", tmp_path / "2" / "a.wav")
    with pytest.raises(UserError, match="several inputs would become one file"):
        collect_jobs([tmp_path / "1", tmp_path / "2"], tmp_path / "out", None)


def test_journal_knows_what_is_done_after_a_restart(tmp_path):
    output = tmp_path / "a" / "x.wav"
    _touch(output)
    Journal(tmp_path).add(output, {"input": "x", "seed": 0}, {"peak": 0.5})
    again = Journal(tmp_path)
    assert again.is_done(output, {"input": "x", "seed": 0})
    assert not again.is_done(output, {"input": "x", "seed": 1})
    assert not again.is_done(tmp_path / "other.wav", {"input": "x", "seed": 0})


def test_journal_does_not_trust_an_output_that_changed_or_went(tmp_path):
    output = tmp_path / "x.wav"
    _touch(output)
    Journal(tmp_path).add(output, {"seed": 0}, {})
    output.write_bytes(b"cut short or written over")
    assert not Journal(tmp_path).is_done(output, {"seed": 0})
    output.unlink()
    assert not Journal(tmp_path).is_done(output, {"seed": 0})


def test_a_torn_last_line_costs_only_its_own_file(tmp_path):
    first, second = tmp_path / "1.wav", tmp_path / "2.wav"
    _touch(first, second)
    journal = Journal(tmp_path)
    journal.add(first, {"seed": 0}, {})
    with open(tmp_path / JOURNAL, "a", encoding="utf-8") as file:
        file.write('{"output": "2.wav", "outp')  # the machine lost power here
    again = Journal(tmp_path)
    assert again.is_done(first, {"seed": 0})
    assert not again.is_done(second, {"seed": 0})
    again.add(second, {"seed": 0}, {})
    assert Journal(tmp_path).is_done(second, {"seed": 0})


def test_without_an_output_results_lie_beside_the_inputs(tmp_path, monkeypatch):
    _touch(tmp_path / "old.m4a", tmp_path / "tapes" / "a" / "b.mp3")
    jobs = collect_jobs([tmp_path / "old.m4a", tmp_path / "tapes"], None, None)
    assert [job.output for job in jobs] == [
        tmp_path / "old.restored.wav",
        tmp_path / "tapes.restored" / "a" / "b.wav",
    ]
    assert [job.root for job in jobs] == [None, tmp_path / "tapes.restored"]
    monkeypatch.chdir(tmp_path / "tapes")
    (here,) = collect_jobs([Path(".")], None, "flac")
    assert here.output == tmp_path / "tapes.restored" / "a" / "b.flac"


@pytest.mark.parametrize("name", ["x.m4a", "x.mp4", "x.WEBM", "x.aac", "x.caf"])
def test_an_output_that_cannot_be_written_is_no_folder_of_that_name(name, tmp_path):
    _touch(tmp_path / "a.wav")
    with pytest.raises(UserError, match=r"allowed are \.wav, \.flac or a folder"):
        collect_jobs([tmp_path / "a.wav"], tmp_path / name, None)


@pytest.mark.parametrize("bytes_long", [242, 251, 255])
def test_long_names_stay_legal_and_apart(bytes_long, tmp_path):
    stem = "录" * ((bytes_long - 5) // 3)
    names = [stem + "x" * (bytes_long - 5 - len(stem.encode())) + end for end in ("1.au", "2.au")]
    _touch(*(tmp_path / "in" / name for name in names))
    for output in (tmp_path / "out", None):
        jobs = collect_jobs([tmp_path / "in"], output, "flac")
        _touch(*(job.output for job in jobs))
        assert len({job.output for job in jobs}) == 2
    (one,) = collect_jobs([tmp_path / "in" / names[0]], None, None)
    _touch(one.output)


def test_what_a_folder_holds_beside_audio_is_told(tmp_path):
    _touch(tmp_path / "a.wav", tmp_path / "b.txt", tmp_path / "c.txt", tmp_path / "d.jpg")
    looked = Scan()
    collect_jobs([tmp_path], tmp_path / "out", None, looked)
    assert looked.others_text() == "3 other files left alone: 2 .txt, 1 .jpg"


def test_a_result_of_another_process_counts_as_done(tmp_path):
    mine, theirs = Journal(tmp_path), Journal(tmp_path)
    _touch(tmp_path / "a.wav")
    theirs.add(tmp_path / "a.wav", {"made_by": "m"}, {})
    assert mine.is_done(tmp_path / "a.wav", {"made_by": "m"})


def test_a_name_that_is_not_utf8_is_in_the_journal_too(tmp_path):
    output = tmp_path / os.fsdecode(b"caf\xe9.wav")
    _touch(output)
    Journal(tmp_path).add(output, {"input": "caf\udce9.mp3"}, {})
    (tmp_path / JOURNAL).read_text(encoding="utf-8")
    assert Journal(tmp_path).is_done(output, {"input": "caf\udce9.mp3"})


def test_results_in_the_folder_of_the_inputs_are_no_inputs_of_the_next_run(tmp_path):
    _touch(tmp_path / "a.mp3", tmp_path / "b.ogg")
    first = collect_jobs([tmp_path], tmp_path, None)
    _touch(first[0].output)  # and then it was stopped
    Journal(tmp_path).add(first[0].output, {"seed": 0}, {})
    assert collect_jobs([tmp_path], tmp_path, None) == first


@pytest.mark.parametrize("name", ["wait\x85.wav", "line\u2028sep.wav"])
def test_journal_keeps_names_with_odd_separators(tmp_path, name):
    _touch(tmp_path / name)
    Journal(tmp_path).add(tmp_path / name, {"seed": 0}, {})
    assert Journal(tmp_path).is_done(tmp_path / name, {"seed": 0})


def test_a_line_that_another_process_is_about_to_write_is_waited_for(tmp_path):
    """Between a whole file and its line lies an instant, in which the file looks like another's."""
    output = tmp_path / "a.wav"
    _touch(output)
    journal = Journal(tmp_path)
    other = threading.Timer(0.3, lambda: Journal(tmp_path).add(output, {"seed": 0}, {}))
    other.start()
    assert journal.is_done(output, {"seed": 0})
    other.join()


def test_a_strangers_file_is_waited_for_no_longer_than_a_line_takes(tmp_path):
    output = tmp_path / "a.wav"
    _touch(output)
    os.utime(output, (1e9, 1e9))
    begin = time.perf_counter()
    assert not Journal(tmp_path).is_done(output, {"seed": 0})
    assert time.perf_counter() - begin < 0.5
