"""Acceptance: a folder of mixed real files through one command, and what came out of it.

    python benchmarks/reliability/acceptance.py --model MODEL --audio_dir VAL --folder FOLDER \\
        --options --num_steps 8 --precision bf16-mixed

Writes FOLDER/in: real clips of ``--audio_dir``, resampled to every common rate, mono and stereo, as
WAV, FLAC, OGG and MP3, 0.2 s to 10 min (clips one after the other), in subfolders and under a
Chinese name, and beside them a silent, a full-band, an empty, a truncated, a corrupt and a NaN
file. Then ``python -m saga_sr.upsample FOLDER/in --output FOLDER/out`` runs twice: the first run is
killed (SIGKILL) in the middle of the long file, the second continues. Printed is for every file

    kept    difference between output and input below 80 % of the measured end, dB of the input
    added   level above the measured end against the level of the input in the octave below it
    joints  level in the windows' overlaps less the level between them, above the end, minus the
            same of the band below it: pumping would show here
    clicks  mean rise of the level above the end from one 6 ms frame to the next at the borders of
            overlaps, less the same everywhere

and what is wrong: a length, a rate, a channel count, a message that is missing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal as dsp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

RATE = 44100
KILLED = "long/ten_minutes_22k.wav"


@dataclass(frozen=True)
class Case:
    """A file to write: where, how, and how long."""

    name: str
    rate: int
    channels: int
    seconds: float
    subtype: str | None = None


CASES = [
    Case("phone_8k.wav", 8000, 1, 12.3, "PCM_16"),
    Case("alaw_8k.wav", 8000, 1, 3.0, "ALAW"),
    Case("old_11k_stereo.flac", 11_025, 2, 5.0, "PCM_16"),
    Case("radio_16k.ogg", 16_000, 1, 8.0, "VORBIS"),
    Case("sub/录音_22k.mp3", 22_050, 2, 9.0, "MPEG_LAYER_III"),
    Case("sub/deep er/stereo_32k.flac", 32_000, 2, 4.0, "PCM_24"),
    Case("sub/dull_44k.wav", 44_100, 2, 6.0, "PCM_24"),
    Case("dull_48k_mono.wav", 48_000, 1, 6.0, "FLOAT"),
    Case("blink_16k.wav", 16_000, 1, 0.2, "PCM_16"),
    Case("blink_48k_stereo.ogg", 48_000, 2, 0.2, "VORBIS"),
    Case(KILLED, 22_050, 1, 600.0, "PCM_16"),
]
FULL_BAND, SILENT = "full_44k.flac", "silent_32k.wav"
BAD = {
    "empty.wav": "empty",
    "zero_bytes.ogg": "zero_bytes.ogg",
    "corrupt.mp3": "corrupt.mp3",
    "cut_off.flac": "cut_off.flac",
    "nan_float.wav": "NaN",
}


# ---------------------------------------------------------------------------- the folder
def real_audio(folder: Path, seconds: float, seed: int) -> np.ndarray:
    """Clips of ``folder`` one after the other, again and again: [T, 2] at 44.1 kHz."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".flac", ".ogg", ".wav")]
    np.random.default_rng(seed).shuffle(files)  # type: ignore[arg-type]
    parts, missing = [], round(seconds * RATE)
    while missing > 0:
        for path in files:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
            if rate == RATE and missing > 0:
                parts.append(np.repeat(audio, 2, axis=1)[:, :: audio.shape[1]][:missing, :2])
                missing -= len(parts[-1])
    audio = 0.7 * np.concatenate(parts)
    fade = np.linspace(0, 1, round(0.01 * RATE))[:, None]  # a file that starts with a step has no
    audio[: len(fade)] *= fade  # band of its own there
    return audio


def write_case(case: Case, audio_dir: Path, folder: Path, seed: int) -> None:
    audio = real_audio(audio_dir, case.seconds, seed)
    audio = audio if case.channels == 2 else audio.mean(axis=1, keepdims=True)
    if case.rate >= RATE:  # would be full-band otherwise
        sos = dsp.cheby1(8, 0.05, 7000, fs=RATE, output="sos")
        audio = dsp.sosfiltfilt(sos, audio, axis=0)
    audio = soxr.resample(audio, RATE, case.rate, quality="VHQ")
    path = folder / case.name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, case.rate, subtype=case.subtype)


def write_folder(audio_dir: Path, folder: Path) -> None:
    for seed, case in enumerate(CASES):
        write_case(case, audio_dir, folder, seed)
    noise = 0.1 * np.random.default_rng(0).standard_normal((3 * RATE, 2))
    soundfile.write(folder / FULL_BAND, noise, RATE)
    soundfile.write(folder / SILENT, np.zeros(64_000), 32_000)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    (folder / "zero_bytes.ogg").write_bytes(b"")
    (folder / "corrupt.mp3").write_bytes(b"this was never audio" * 400)
    whole = (folder / FULL_BAND).read_bytes()
    (folder / "cut_off.flac").write_bytes(whole[: len(whole) // 2])
    noise[RATE, 0] = np.nan
    soundfile.write(folder / "nan_float.wav", noise, RATE, subtype="FLOAT")


# ---------------------------------------------------------------------------- the command
def upsample(flags: argparse.Namespace, kill: bool = False) -> tuple[int, str]:
    """Run the command; with ``kill``, SIGKILL it while the long file is being written."""
    command = [sys.executable, "-m", "saga_sr.upsample", str(flags.folder / "in")]
    command += ["--model", flags.model, "--output", str(flags.folder / "out"), *flags.options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    long_output = flags.folder / "out" / KILLED
    while kill and process.poll() is None:
        if any(long_output.parent.glob(f".{long_output.stem}*")):
            time.sleep(5)
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    printed = process.communicate()[0]
    return process.returncode, printed


# ---------------------------------------------------------------------------- the results
def level_db(audio: np.ndarray) -> float:
    return 10 * np.log10(np.square(audio).mean() + 1e-20)


def banded(audio: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """[T, C] between two frequencies (an elliptic filter, forwards and backwards)."""
    nyquist_hz = RATE / 2
    kind = "highpass" if high_hz >= nyquist_hz else "lowpass" if low_hz <= 0 else "bandpass"
    edges = {"highpass": low_hz, "lowpass": high_hz, "bandpass": (low_hz, high_hz)}[kind]
    sos = dsp.ellip(8, 0.05, 90, edges, kind, fs=RATE, output="sos")
    return dsp.sosfiltfilt(sos, audio, axis=0, padlen=min(1000, len(audio) - 1))


def measured(source: Path, output: Path, end_hz: float, model: str) -> list[float]:
    """kept, added, joints, clicks (see above)."""
    given, rate = soundfile.read(source, dtype="float64", always_2d=True)
    given = soxr.resample(given, rate, RATE, quality="VHQ")
    found = soundfile.read(output, dtype="float64", always_2d=True)[0]
    length = min(len(given), len(found))
    given, found = given[:length], found[:length]
    kept = level_db(banded(found - given, 0, 0.8 * end_hz)) - level_db(
        banded(given, 0, 0.8 * end_hz)
    )
    high = banded(found, 1.05 * end_hz, RATE / 2)
    low = banded(given, end_hz / 2, 0.9 * end_hz)
    return [kept, level_db(high) - level_db(low), *at_joints(high, low, model)]


def at_joints(high: np.ndarray, low: np.ndarray, model: str) -> tuple[float, float]:
    """joints and clicks; frames below -80 dBFS count for nothing."""
    from saga_sr.model import SAGASRModel
    from saga_sr.upsample.windows import WindowGrid

    network = SAGASRModel.from_pretrained(model)
    hop = network.config.downsampling_ratio
    frames = len(high) // hop
    margin = network.pretransform.margin_frames
    grid = WindowGrid.covering(frames, network.config.latent_length, margin)
    levels = [
        10 * np.log10(np.square(band[: frames * hop]).reshape(frames, -1).mean(axis=1) + 1e-20)
        for band in (high, low)
    ]
    shared = (np.arange(frames) % grid.hop < grid.overlap) & (np.arange(frames) >= grid.hop)
    loud = (levels[0] > -80) & (levels[1] > -80)
    if not (shared & loud).any():
        return 0.0, 0.0
    change = (levels[0] - levels[1])[loud]
    inside = shared[loud]
    rise = np.abs(np.diff(levels[0]))
    border = np.flatnonzero(np.diff(shared.astype(int)))
    audible = loud[:-1] & loud[1:]
    at_border = rise[[b for b in border if audible[b]]]
    clicks = at_border.mean() - rise[audible].mean() if len(at_border) else 0.0
    return change[inside].mean() - change[~inside].mean(), clicks


def check_outputs(flags: argparse.Namespace, printed: str) -> list[str]:
    """Print a row per file; return what is wrong."""
    source, out = flags.folder / "in", flags.folder / "out"
    lines = (out / "upsample.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["output"]: record for record in map(json.loads, lines)}
    wrong = [f"no message about {name}" for name, word in BAD.items() if word not in printed]
    expected = [*(case.name for case in CASES), FULL_BAND, SILENT]
    names = {Path(name).with_suffix(".wav").as_posix() for name in expected}
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    wrong += [f"{name}: unexpected or missing" for name in there ^ {*names, "upsample.jsonl"}]
    print("| file | s | end (Hz) | kept | added | joints | clicks | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in expected:
        output = out / Path(name).with_suffix(".wav")
        before, after = soundfile.info(source / name), soundfile.info(output)
        frames = round(before.frames * RATE / before.samplerate)
        if (after.frames, after.samplerate, after.channels) != (frames, RATE, before.channels):
            wrong.append(f"{name}: {after}")
        record = records[output.relative_to(out).as_posix()]
        if name in (FULL_BAND, SILENT):
            same = np.allclose(soundfile.read(output)[0], soundfile.read(source / name)[0][0], 1)
            wrong += [] if record["passed_through"] or same else [f"{name}: was changed"]
            continue
        end_hz = record["band_end_hz"]
        values = measured(source / name, output, end_hz, flags.model)
        cells = " | ".join(f"{value:+.2f}" for value in values)
        print(
            f"| {name} | {before.duration:.1f} | {end_hz:.0f} | {cells} | {record['seconds']:.1f} |"
        )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--audio_dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="new; keeps in/ and out/")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of the command")
    flags = parser.parse_args()
    write_folder(flags.audio_dir, flags.folder / "in")
    code, printed = upsample(flags, kill=True)
    print(f"killed: code {code}, {printed.count('  -> ')} files were done\n", flush=True)
    code, printed = upsample(flags)
    print(printed, f"\nexit code {code}, {printed.count('done before')} files done before\n")
    wrong = check_outputs(flags, printed)
    wrong += [] if code == 1 else [f"exit code {code}, not 1"]
    print("\n" + "\n".join(wrong or ["nothing is wrong"]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
