import io
import json
import os
import re
import signal as signals
import subprocess
import sys
import time
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recordings import crashed, encode, melody, silent_film, write
from scipy import signal
from tiny_models import built, tiny_levels
from tiny_restorer import RATE, tiny_model
from tiny_text_models import build_tiny_t5

from saga_sr.model import SAGASRModel
from saga_sr.support.errors import EXIT_OK, EXIT_PARTIAL, EXIT_USER_ERROR, UserError, run_cli
from saga_sr.support.randomness import numpy_generator
from saga_sr.upsample.__main__ import parse_args
from saga_sr.upsample.command import main
from saga_sr.upsample.jobs import JOURNAL
from saga_sr.upsample.options import UpsampleOptions, upsample

SHIPPED = Path(__file__).parents[2] / "models" / "saga-sr-demo"


def _dull(frames: int, channels: int = 1, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise below a fifth of the rate, float32 [T, C]."""
    noise = 0.1 * numpy_generator("dull", seed).standard_normal((frames, channels))
    sos = signal.cheby1(8, 0.05, 0.2 * rate, fs=rate, output="sos")
    return signal.sosfiltfilt(sos, noise, axis=0, padlen=min(500, frames - 1)).astype(np.float32)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return str(tiny_model().save_pretrained(tmp_path_factory.mktemp("model")))


@pytest.fixture
def command(model_folder, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        flags = [str(argument) for argument in arguments]
        code = run_cli(lambda: main(parse_args(["--model", model_folder, *flags])))
        return code, *capsys.readouterr()

    return run


# ---------------------------------------------------------------------------- in Python
@pytest.mark.parametrize("shape", [(3000,), (1, 3000), (2, 3000), (5, 3000)])
def test_upsample_keeps_the_shape_and_the_kind_of_its_input(shape):
    audio = _dull(3000, int(np.prod(shape[:-1])), 8000).T.reshape(shape)
    found = upsample(tiny_model(), audio, 8000)
    assert isinstance(found, np.ndarray)
    assert found.shape == (*shape[:-1], round(3000 * RATE / 8000))
    again = upsample(tiny_model(), torch.from_numpy(audio), 8000)
    assert torch.equal(again, torch.from_numpy(found))


def test_upsample_adds_a_high_band_and_keeps_the_low_one():
    audio = _dull(20_000, 1, RATE).T
    found = upsample(tiny_model(), audio, RATE)
    hz, before = signal.welch(audio[0], RATE, nperseg=2048)
    _, after = signal.welch(found[0], RATE, nperseg=2048)
    assert np.abs(10 * np.log10(after / before))[(hz > 100) & (hz < 7800)].max() < 0.1
    assert 10 * np.log10(after / before)[hz > 12_000].min() > 20


def test_upsample_lets_full_band_audio_and_silence_pass():
    audio = 0.1 * numpy_generator("full").standard_normal((2, 30_000)).astype(np.float32)
    assert np.array_equal(upsample(tiny_model(), audio, RATE), audio)
    assert not upsample(tiny_model(), np.zeros((1, 5000), np.float32), 8000).any()


def test_channels_that_end_in_different_places_are_restored_one_by_one(command, tmp_path):
    """A full-band host on the left keeps every sample, his guest on the telephone gets highs."""
    full = 0.1 * numpy_generator("host").standard_normal((RATE, 1)).astype(np.float32)
    telephone = _dull(RATE, 1)
    both = np.concatenate([full, telephone], axis=1)
    soundfile.write(tmp_path / "call.wav", both, RATE, subtype="FLOAT")
    code, said, _ = command(tmp_path / "call.wav", "--output", tmp_path / "out.wav")
    assert code == EXIT_OK
    assert re.search(r"its channels differ: 1 full-band, 2 (8[5-9]|9[0-4])\d\d Hz", said)
    found = soundfile.read(tmp_path / "out.wav", always_2d=True)[0]
    np.testing.assert_array_equal(found[:, 0], full[:, 0])
    alone = upsample(tiny_model(), telephone.T, RATE)
    np.testing.assert_allclose(found[:, 1], alone[0], atol=1e-5)
    given = upsample(tiny_model(), both.T, RATE, UpsampleOptions(input_cutoff_hz=5000.0))
    assert np.abs(given[0] - full[:, 0]).max() > 1e-3


def test_upsample_of_full_band_audio_with_a_given_cutoff_replaces_what_is_above():
    audio = 0.1 * numpy_generator("full").standard_normal((1, 30_000)).astype(np.float32)
    found = upsample(tiny_model(), audio, RATE, UpsampleOptions(input_cutoff_hz=5000))
    assert np.abs(found - audio).max() > 0.05


def test_upsample_reports_progress_up_to_its_end():
    seen = []
    upsample(
        tiny_model(), _dull(30_000).T, RATE, progress=lambda now, total: seen.append((now, total))
    )
    assert sum(now for now, _ in seen) == seen[-1][1] > 4
    assert len({total for _, total in seen}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (UpsampleOptions(prompt="rain"), "--prompt: this model was trained without text"),
        (UpsampleOptions(caption="auto"), "--caption auto: this model was trained without text"),
        (UpsampleOptions(target_rolloff=1.0), "--target_rolloff is 1; allowed"),
        (UpsampleOptions(target_rolloff_hz=30_000), "--target_rolloff_hz is 30000; allowed"),
        (UpsampleOptions(target_rolloff=0), "which this one has not learnt"),
        (UpsampleOptions(target_rolloff_hz=0), "which this one has not learnt"),
        (UpsampleOptions(input_cutoff_hz=30_000), "--input_cutoff_hz is 30000; allowed"),
        (UpsampleOptions(num_steps=-1), r"sampling\.num_steps is -1"),
        (
            UpsampleOptions(level_gain_db=3.0),
            "--level_gain_db: this model's latents have no levels",
        ),
    ],
)
def test_upsample_with_an_option_that_does_not_suit_the_model_says_so(options, message):
    with pytest.raises(UserError, match=message):
        upsample(tiny_model(), _dull(5000).T, RATE, options)


def test_the_new_band_is_raised_by_the_level_gain_with_and_without_the_dit():
    model, audio = built(tiny_levels(sampling__num_steps=2)), _dull(20_000)
    for steps in (None, 0):
        plain, louder = (
            upsample(
                model,
                audio[:, 0],
                RATE,
                UpsampleOptions(num_steps=steps, level_gain_db=db, input_cutoff_hz=5000.0),
            )
            for db in (None, 6.0)
        )
        high = signal.butter(8, 7000, "high", fs=RATE, output="sos")
        before, after = (np.square(signal.sosfilt(high, x)).mean() for x in (plain, louder))
        assert 10 * np.log10(after / before) == pytest.approx(6.0, abs=1.0)


@pytest.mark.parametrize("bad", [np.zeros((1, 0)), np.full((1, 100), np.nan)])
def test_upsample_of_nothing_or_of_nan_is_an_error(bad):
    with pytest.raises(UserError, match=r"empty|NaN"):
        upsample(tiny_model(), bad.astype(np.float32), RATE)


def test_the_prompt_reaches_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tiny_model(text_model=str(build_tiny_t5(tmp_path / "t5")))
    audio = _dull(6000).T
    none, rain, again = (
        upsample(model, audio, RATE, UpsampleOptions(prompt=prompt))
        for prompt in ("", "rain", "rain")
    )
    assert np.array_equal(rain, again)
    assert np.abs(rain - none).max() > 1e-3


# ---------------------------------------------------------------------------- one command
def test_a_mixed_folder_comes_out_right_in_one_command(tmp_path, command):
    source, out = tmp_path / "in", tmp_path / "out"
    files = {
        "phone.wav": (_dull(1600, 1, 8000), 8000),
        "deep/stereo.flac": (_dull(9000, 2, 22_050), 22_050),
        "deep/er/five.wav": (_dull(9000, 5, 48_000), 48_000),
        "song.ogg": (_dull(20_000, 2), RATE),
        "silent.wav": (np.zeros((8000, 1), np.float32), 16_000),
    }
    for name, (audio, rate) in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(source / name, audio, rate)
    (source / "broken.mp3").write_bytes(b"not audio at all")

    code, printed, errors = command(source, "--output", out)
    assert code == EXIT_PARTIAL
    assert errors.count("error:") == 1
    assert "broken.mp3" in errors
    assert "5 of 6 files done, 1 failed" in errors
    assert "Traceback" not in errors
    assert "silent.wav: 16000 Hz, 1 ch, 0.50 s, silent" in printed
    for name, (audio, rate) in files.items():
        found, found_rate = soundfile.read((out / name).with_suffix(".wav"), always_2d=True)
        assert found_rate == RATE
        assert found.shape == (round(len(audio) * RATE / rate), audio.shape[1])
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert written == {JOURNAL, *(Path(name).stem + ".wav" for name in files)}


def test_what_phones_films_and_old_machines_wrote_comes_out_whole(tmp_path, command):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    tone, slow = melody(0.5), melody(0.5, 8000)
    encode(source / "memo.m4a", tone, "aac")
    encode(source / "film.mp4", tone, "aac", film=True)
    encode(source / "page.webm", tone, "libopus")
    for suffix in ("au", "caf", "w64"):
        write(source / f"game.{suffix}", tone)
    write(source / "phone.wav", slow, 8000, subtype="GSM610")
    (source / "crashed.wav").write_bytes(crashed(write(tmp_path / "a.wav", tone).read_bytes()))
    write(source / os.fsdecode(b"caf\xe9.wav"), tone)
    silent_film(source / "quiet.mp4")
    for name in ("a.txt", "b.txt", "c.jpg", ".hidden.wav"):
        (source / name).touch()

    code, printed, errors = command(source, "--output", out)
    assert (code, errors) == (EXIT_OK, "")
    assert "3 other files left alone: 2 .txt, 1 .jpg" in printed
    assert "its header was never finished" in printed
    assert "quiet.mp4: it holds no sound (no audio stream): left alone" in printed
    found = {path.name: soundfile.SoundFile(os.fsencode(path)).frames for path in out.glob("*.wav")}
    assert found.pop("phone.wav") == pytest.approx(RATE // 2, abs=0.07 * RATE)
    assert set(found.values()) == {RATE // 2}
    assert len(found) == 8
    assert command(source, "--output", out)[1].count("done before") == 9


def test_two_processes_share_an_output_folder(tmp_path, model_folder):
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(4):
        write(source / f"{number}.wav", _dull(20_000, seed=number), RATE)
    command = [sys.executable, "-m", "saga_sr.upsample", str(source), "--model", model_folder]
    both = [
        subprocess.Popen(
            [*command, "--output", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    errors = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [EXIT_OK, EXIT_OK], errors
    assert {path.name for path in out.iterdir()} == {JOURNAL, *(f"{k}.wav" for k in range(4))}


def test_a_result_lies_beside_its_input_and_never_over_anything(tmp_path, command):
    write(tmp_path / "old.wav", _dull(4000), RATE)
    assert command(tmp_path / "old.wav")[0] == EXIT_OK
    before = (tmp_path / "old.restored.wav").read_bytes()
    code, _, errors = command(tmp_path / "old.wav")
    assert code == EXIT_USER_ERROR
    assert "old.restored.wav: exists already" in errors
    assert (tmp_path / "old.restored.wav").read_bytes() == before


def test_an_interrupted_run_continues_where_it_stopped(tmp_path, command):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(3):
        soundfile.write(source / f"{index}.wav", _dull(4000, seed=index), RATE)
    assert command(source, "--output", out)[0] == EXIT_OK
    samples = {path: soundfile.read(path)[0] for path in out.glob("*.wav")}
    times = {path: path.stat().st_mtime_ns for path in samples}
    # As if it had been killed in the third file: neither it nor its line is there.
    lines = (out / JOURNAL).read_text(encoding="utf-8").splitlines(keepends=True)
    (out / JOURNAL).write_text("".join(lines[:2]), encoding="utf-8")
    (out / "2.wav").unlink()

    code, printed, _ = command(source, "--output", out)
    assert code == EXIT_OK
    assert printed.count("done before") == 2
    # The samples, not the bytes: libsndfile stamps float WAVs with the time.
    assert all(np.array_equal(soundfile.read(path)[0], found) for path, found in samples.items())
    assert [p.name for p in samples if p.stat().st_mtime_ns != times[p]] == ["2.wav"]


def test_a_run_that_is_stopped_leaves_whole_files_only(tmp_path, model_folder):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    soundfile.write(source / "1.wav", _dull(4000), RATE)
    soundfile.write(source / "2.wav", _dull(60 * RATE), RATE)
    command = [sys.executable, "-m", "saga_sr.upsample", str(source), "--model", model_folder]
    with subprocess.Popen([*command, "--output", str(out)], stderr=subprocess.PIPE) as process:
        for _ in range(1200):
            if any(out.glob(".2.*")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signals.SIGTERM)  # Ctrl-C takes the same way
        errors = process.communicate()[1].decode()
    assert process.returncode == 128 + signals.SIGINT
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert {path.name for path in out.iterdir()} == {"1.wav", JOURNAL}


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path, command):
    """SIGKILL leaves no time to remove a temporary file; others' files are not touched."""
    soundfile.write(tmp_path / "a.wav", _dull(4000), RATE)
    out = tmp_path / "out"
    out.mkdir()
    for name in (".a.0123abcd.tmp.wav", ".a.b.0123abcd.tmp.wav", ".a.wav", "a.tmp.wav"):
        (out / name).write_bytes(b"half")
    assert command(tmp_path / "a.wav", "--output", out)[0] == EXIT_OK
    found = {path.name for path in out.iterdir()}
    assert found == {"a.wav", JOURNAL, ".a.b.0123abcd.tmp.wav", ".a.wav", "a.tmp.wav"}


def test_other_options_or_another_input_do_not_count_as_done(tmp_path, command):
    path, out = tmp_path / "a.wav", tmp_path / "out"
    soundfile.write(path, _dull(4000), RATE)
    assert command(path, "--output", out)[0] == EXIT_OK
    code, _, errors = command(path, "--output", out, "--num_steps", 2)
    assert code == EXIT_USER_ERROR
    assert "exists already (--overwrite replaces it)" in errors
    assert command(path, "--output", out, "--num_steps", 2, "--overwrite")[0] == EXIT_OK
    soundfile.write(path, _dull(5000), RATE)
    assert command(path, "--output", out, "--num_steps", 2)[0] == EXIT_USER_ERROR


def test_a_file_of_which_nothing_is_left_does_not_stop_the_others(tmp_path, command):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", np.ones(1), 96_000)
    soundfile.write(tmp_path / "in" / "b.wav", _dull(4000), RATE)
    code, _, errors = command(tmp_path / "in", "--output", tmp_path / "out")
    assert "a.wav: too short: 1 samples at 96000 Hz are none at 44100 Hz" in errors
    assert (code, (tmp_path / "out" / "b.wav").is_file()) == (1, True)


def test_an_existing_file_is_kept_without_overwrite(tmp_path, command):
    soundfile.write(tmp_path / "a.wav", _dull(4000), RATE)
    (tmp_path / "b.wav").write_bytes(b"precious")
    code, _, errors = command(tmp_path / "a.wav", "--output", tmp_path / "b.wav")
    assert (code, (tmp_path / "b.wav").read_bytes()) == (EXIT_USER_ERROR, b"precious")
    assert "b.wav: exists already" in errors
    assert command(tmp_path / "a.wav", "--output", tmp_path / "b.wav", "--overwrite")[0] == EXIT_OK
    assert soundfile.info(tmp_path / "b.wav").frames == 4000


def test_an_input_is_never_overwritten(tmp_path, command):
    path = tmp_path / "a.wav"
    soundfile.write(path, _dull(4000), RATE)
    before = path.read_bytes()
    for output in (path, tmp_path):
        code, _, errors = command(path, "--output", output, "--overwrite")
        assert code == EXIT_USER_ERROR
        assert "it is the input" in errors
    assert path.read_bytes() == before


def test_candidates_lie_side_by_side_and_are_those_of_their_seeds(tmp_path, command):
    soundfile.write(tmp_path / "a.wav", _dull(4000), RATE)
    command(tmp_path / "a.wav", "--output", tmp_path / "b.wav", "--num_candidates", 3, "--seed", 5)
    found = [soundfile.read(tmp_path / f"b.seed{seed}.wav")[0] for seed in (5, 6, 7)]
    command(tmp_path / "a.wav", "--output", tmp_path / "c.wav", "--seed", 6)
    assert np.array_equal(soundfile.read(tmp_path / "c.wav")[0], found[1])
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_samples_over_full_scale_are_reported(tmp_path, command):
    audio = _dull(9000)
    soundfile.write(tmp_path / "loud.wav", 1.2 * audio / np.abs(audio).max(), RATE, subtype="FLOAT")
    _, printed, _ = command(tmp_path / "loud.wav", "--output", tmp_path / "f.wav")
    assert "samples are over full scale and kept as they are" in printed
    arguments = ("--output", tmp_path / "i.wav", "--bits", "16")
    _, printed, _ = command(tmp_path / "loud.wav", *arguments)
    assert "samples are over full scale and clipped by the 16 bit format" in printed


def test_bandwidth_is_reported_and_recorded(tmp_path, command):
    soundfile.write(tmp_path / "a.wav", _dull(40_000), RATE)
    _, printed, _ = command(tmp_path / "a.wav", "--output", tmp_path / "out")
    assert "band ends at" in printed
    record = json.loads((tmp_path / "out" / JOURNAL).read_text(encoding="utf-8"))
    assert record["band_end_hz"] == pytest.approx(0.2 * RATE, rel=0.05)
    assert record["output"] == "a.wav"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_no_message_shares_its_line_with_a_bar(tmp_path, command, monkeypatch):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", _dull(4000), RATE)
    (tmp_path / "c.wav").write_bytes(b"no audio")
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    command(tmp_path, "--output", tmp_path / "out")
    text = terminal.getvalue().replace("\x1b[A", "")  # up to the outer bar's line
    lines = [line.split("\r")[-1].strip() for line in text.split("\n")]
    assert any("files: 100%" in line for line in lines)
    messages = [line for line in lines if " Hz, " in line or "-> " in line or "error" in line]
    assert len(messages) == 5
    assert all(m.startswith((str(tmp_path), "->", "error: ")) for m in messages), messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "float", "--output", "b.flac"], "--bits float: a .flac file holds 24, 16"),
        (["--prompt", "rain", "--output", "b.wav"], "--prompt: this model was trained without"),
        (["--target_rolloff_hz", "30000", "--output", "b.wav"], "--target_rolloff_hz is 30000"),
        (["--device", "cuda", "--output", "b.wav"], "--device cuda: there is none"),
        (["--model", "no_such_folder", "--output", "b.wav"], "no_such_folder"),
        (["--output", "/proc/nowhere/out"], "/proc/nowhere/out: the folder cannot be made"),
    ],
)
def test_a_wrong_option_is_one_message_before_any_work(tmp_path, command, arguments, message):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has one")
    soundfile.write(tmp_path / "a.wav", _dull(4000), RATE)
    arguments = [str(tmp_path / a) if a.startswith("b.") else a for a in arguments]
    code, printed, errors = command(tmp_path / "a.wav", *arguments)
    assert code == EXIT_USER_ERROR
    assert message in errors
    assert errors.count("error:") == 1
    assert printed == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--target_rolloff", "1.0"],
        ["--target_rolloff", "0.5", "--target_rolloff_hz", "9000"],
        ["--num_steps", "0"],
        ["--input_cutoff_hz", "-5"],
        ["--solver", "rk45"],
    ],
)
def test_impossible_flags_end_with_code_2(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(["a.wav", "--model", "m", "--output", "o", *flags])
    assert stop.value.code == EXIT_USER_ERROR
    assert flags[-2] in capsys.readouterr().err


def test_help_and_flag_errors_come_without_torch():
    program = (
        "import sys, runpy\n"
        "try:\n    runpy.run_module('saga_sr.upsample', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)\n"
    )
    for flags, expected in ((["--help"], "0 False"), (["--num_steps", "0"], "2 False")):
        result = subprocess.run(
            [sys.executable, "-c", program, *flags], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[-1] == expected


# ---------------------------------------------------------------------------- a trained model
def test_the_target_rolloff_raises_the_high_band_of_the_shipped_model():
    """The paper's control: more asked for, more comes (docs/upsample.md measures real clips)."""
    model = SAGASRModel.from_pretrained(SHIPPED)
    size, rate = model.config.sample_size, model.config.sample_rate
    attacks = np.exp(-(np.arange(size) % (size // 4)) / 2000)[:, None].astype(np.float32)
    audio = (3 * attacks * _dull(size)).T
    levels_db = []
    for target in (0.3, 0.9):
        options = UpsampleOptions(target_rolloff=target, num_steps=4)
        added = upsample(model, audio, rate, options) - audio
        levels_db.append(10 * np.log10(np.square(added).mean()))
    assert levels_db[1] > levels_db[0] + 0.3


def test_another_number_of_steps_keeps_the_shape_of_the_models_schedule() -> None:
    audio = _dull(RATE // 4).T
    results = {}
    for steps, emulated, asked in ((8, 8, 4), (4, 4, None), (4, None, None)):
        model = copy(tiny_model())  # which others use as it is
        config = model.config.replacing("sampling.num_steps", steps)
        model.config = config.replacing("sampling.emulate_linear_steps", emulated)
        options = UpsampleOptions(num_steps=asked)
        results[steps, emulated] = upsample(model, audio, RATE, options)
    assert np.array_equal(results[8, 8], results[4, 4])  # linear steps stay linear
    assert not np.array_equal(results[4, 4], results[4, None])


# ---------------------------------------------------------------------------- the pure model
def test_crossover_off_is_what_the_model_generates(command, tmp_path):
    soundfile.write(tmp_path / "in.wav", _dull(8192), RATE, "FLOAT")
    found = {}
    for mode in ("soft", "off"):
        out = tmp_path / f"{mode}.wav"
        assert command(tmp_path / "in.wav", "--output", out, "--crossover", mode)[0] == EXIT_OK
        found[mode] = torch.from_numpy(soundfile.read(out, dtype="float32")[0])
    original = torch.from_numpy(_dull(8192)[:, 0])
    low = slice(0, 200)  # bins of an FFT of 8192: up to 1.08 kHz
    kept, own, truth = (
        torch.fft.rfft(audio * torch.hann_window(8192))[low]
        for audio in (found["soft"], found["off"], original)
    )
    assert (kept - truth).norm() < 0.01 * truth.norm()
    assert (own - truth).norm() < 0.01 * truth.norm()  # patches below the cutoff are told
    assert not torch.allclose(found["soft"], found["off"], atol=1e-3)  # those across it are made


def test_t_schedule_can_be_chosen_after_training():
    model, audio = copy(tiny_model()), _dull(6000).T
    found = {
        emulated: upsample(model, audio, RATE, UpsampleOptions(num_steps=4, emulate_linear_steps=n))
        for emulated, n in (("linear", 4), ("long", 40))
    }
    config = model.config.replacing("sampling.num_steps", 4)
    model.config = config.replacing("sampling.emulate_linear_steps", 4)
    assert np.array_equal(upsample(model, audio, RATE), found["linear"])
    assert not np.array_equal(found["linear"], found["long"])
    with pytest.raises(UserError, match="emulate_linear_steps is 0"):
        upsample(model, audio, RATE, UpsampleOptions(emulate_linear_steps=0))
