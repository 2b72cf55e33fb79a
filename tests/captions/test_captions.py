"""The caption job end to end, with a tiny real Qwen2-Audio."""

import hashlib
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from tiny_text_models import build_tiny_qwen2_audio

from saga_sr.audio.index import AudioIndex
from saga_sr.captions.__main__ import parse_options
from saga_sr.captions.folder import CaptionJob, caption_folder, split_seconds
from saga_sr.captions.qwen import CAPTION_PROMPT, Captioner, to_caption_audio
from saga_sr.data.caption_table import CaptionLog, CaptionRecord, CaptionTable
from saga_sr.support.errors import run_cli

TOKENS = 10
RATE = 16000


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_qwen2_audio(tmp_path_factory.mktemp("models") / "tiny-qwen"))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


def sound(duration_s: float, seed: int, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """[T, C]: a tone and noise of its own loudness, so that the tiny model tells seeds apart."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate)) / rate
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 6000) * time_s)
    hiss = rng.uniform(0, 0.1) * rng.standard_normal((len(time_s), channels))
    return (tone[:, None] + hiss).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files, six clips at --segment_s 2."""
    audio = tmp_path / "audio"
    (audio / "音乐").mkdir(parents=True)
    soundfile.write(audio / "a.wav", sound(1.5, 1), RATE, subtype="FLOAT")
    soundfile.write(audio / "b.wav", sound(5.0, 2), RATE, subtype="FLOAT")
    soundfile.write(audio / "click.wav", sound(0.02, 3), RATE, subtype="FLOAT")
    soundfile.write(audio / "音乐" / "歌.flac", sound(1.0, 4, channels=2, rate=44100), 44100)
    return audio


def caption(argv: list[str]) -> int:
    return run_cli(lambda: caption_folder(parse_options(argv)))


def run(folder: Path, qwen: str, *flags: str) -> int:
    always = ["--segment_s", "2", "--max_new_tokens", str(TOKENS), "--model", qwen]
    return caption(["--audio_dir", str(folder), *always, *flags])


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def caption_by_hand(qwen: str, audio: np.ndarray, prompt: str = CAPTION_PROMPT) -> str:
    """The library's own processor and model on one clip [T], 16 kHz."""
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    processor = AutoProcessor.from_pretrained(qwen)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(qwen)
    inputs = processor(text=prompt, audio=[audio], sampling_rate=RATE, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return " ".join(answer.split())


# --- what is written ------------------------------------------------------------------------------


def test_job_writes_one_line_per_clip_of_every_file(folder: Path, qwen: str) -> None:
    assert run(folder, qwen) == 0
    lines = read_lines(folder / "captions.jsonl")
    spans = {(line["path"], line["start"], line["end"]) for line in lines}
    assert spans == {
        ("a.wav", 0.0, 1.5),
        ("b.wav", 0.0, 1.667),
        ("b.wav", 1.667, 3.333),
        ("b.wav", 3.333, 5.0),
        ("click.wav", 0.0, 0.02),
        ("音乐/歌.flac", 0.0, 1.0),
    }
    for line in lines:
        assert line["caption"]
        assert line["model"] == "tiny-qwen"
        assert line["hash"] == hashlib.sha256((folder / line["path"]).read_bytes()).hexdigest()
    assert len(CaptionTable.read(folder / "captions.jsonl").records) == 6


def test_job_writes_what_the_model_says_of_each_clip_alone(folder: Path, qwen: str) -> None:
    run(folder, qwen, "--batch_size", "4")
    table = CaptionTable.read(folder / "captions.jsonl")
    b = sound(5.0, 2)[:, 0]
    second = b[round(1.667 * RATE) : round(3.333 * RATE)]
    assert table.lookup("b.wav", 1.667, 3.333) == caption_by_hand(qwen, second)
    assert table.lookup("a.wav", 0.0, 1.5) == caption_by_hand(qwen, sound(1.5, 1)[:, 0])
    assert len({record.caption for record in table.records}) >= 4  # it tells files apart


def test_captioner_hears_mono_at_16_khz() -> None:
    stereo = sound(1.0, 5, channels=2, rate=44100).T
    expected = librosa.resample(stereo.mean(0), orig_sr=44100, target_sr=RATE, res_type="soxr_hq")
    np.testing.assert_allclose(to_caption_audio(stereo, 44100), expected, atol=1e-5)


def test_captioner_named_instruct_asks_through_the_chat_template(qwen: str, tmp_path: Path) -> None:
    instruct = str(shutil.copytree(qwen, tmp_path / "tiny-Instruct"))
    clip = sound(1.0, 6)[:, 0]
    prompt = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nGenerate the caption in English:<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    chat = Captioner(instruct, max_new_tokens=TOKENS).caption([clip])
    assert chat == [caption_by_hand(qwen, clip, prompt)]
    plain = Captioner(instruct, style="caption", max_new_tokens=TOKENS).caption([clip])
    assert plain == [caption_by_hand(qwen, clip)]
    assert chat != plain


def test_captioner_in_bf16_runs(qwen: str) -> None:
    assert Captioner(qwen, dtype="bf16", max_new_tokens=TOKENS).caption([sound(1.0, 7)[:, 0]])[0]


@pytest.mark.parametrize(
    ("duration_s", "segment_s"), [(0.02, 10), (10, 10), (10.01, 10), (305.3, 30)]
)
def test_split_seconds_covers_a_file_with_equal_parts(duration_s: float, segment_s: float) -> None:
    spans = split_seconds(duration_s, segment_s)
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(duration_s, abs=1e-3)
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    lengths = [end - start for start, end in spans]
    assert max(lengths) <= segment_s + 1e-3
    assert max(lengths) - min(lengths) < 3e-3
    assert len(spans) == -(-duration_s // segment_s)


# --- restart --------------------------------------------------------------------------------------


def test_job_restarted_with_all_done_asks_nothing(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    run(folder, qwen)
    before = (folder / "captions.jsonl").read_bytes()
    assert run(folder, qwen) == 0
    assert (folder / "captions.jsonl").read_bytes() == before
    assert "0 new captions, 6 clips were known" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.55, 0.98])
def test_job_killed_in_mid_line_ends_as_if_it_had_not_been(
    folder: Path, qwen: str, kept: float, capsys: pytest.CaptureFixture
) -> None:
    run(folder, qwen)
    path = folder / "captions.jsonl"
    whole = path.read_bytes()
    cut = whole[: int(kept * len(whole)) or 5]
    assert not cut.endswith(b"\n")
    path.write_bytes(cut)
    capsys.readouterr()
    assert run(folder, qwen) == 0
    assert path.read_bytes() == whole
    missing = 6 - cut.count(b"\n")
    assert f"{missing} new captions" in capsys.readouterr().out


def test_job_keeps_a_last_line_that_an_editor_left_without_end(folder: Path, qwen: str) -> None:
    run(folder, qwen)
    path = folder / "captions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.rstrip(b"\n"))
    run(folder, qwen)
    assert path.read_bytes() == whole


def test_job_captions_a_changed_file_again(folder: Path, qwen: str) -> None:
    run(folder, qwen)
    old = CaptionTable.read(folder / "captions.jsonl").lookup("a.wav", 0.0, 1.5)
    changed = 0 * sound(1.5, 1)
    soundfile.write(folder / "a.wav", changed, RATE, subtype="FLOAT")
    run(folder, qwen)
    new = CaptionTable.read(folder / "captions.jsonl").lookup("a.wav", 0.0, 1.5)
    assert new == caption_by_hand(qwen, changed[:, 0])
    assert new != old


def test_job_leaves_what_was_written_by_hand(folder: Path, qwen: str) -> None:
    path = folder / "captions.jsonl"
    line = CaptionRecord("b.wav", "我写的: three birds").to_line()
    path.write_text(line, encoding="utf-8")
    run(folder, qwen)
    assert path.read_text(encoding="utf-8").startswith(line)
    assert [entry["path"] for entry in read_lines(path)].count("b.wav") == 1
    assert len(read_lines(path)) == 4


def test_job_in_shards_makes_together_what_one_makes(
    folder: Path, qwen: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(folder, qwen, "--output", str(tmp_path / "one.jsonl"))
    output = tmp_path / "parts.jsonl"
    for shard in ("1/2", "2/2"):
        assert run(folder, qwen, "--output", str(output), "--shard", shard) == 0
    parts = [read_lines(tmp_path / f"parts.{i}of2.jsonl") for i in (1, 2)]
    assert all(parts)
    capsys.readouterr()
    assert run(folder, qwen, "--output", str(output)) == 0
    assert "0 new captions, 6 clips were known" in capsys.readouterr().out
    assert read_lines(output) == read_lines(tmp_path / "one.jsonl")
    assert len(parts[0]) + len(parts[1]) == 6


def test_job_with_other_shards_repeats_nothing(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    run(folder, qwen, "--shard", "1/2")
    half_line = (folder / "captions.1of2.jsonl").open("ab")
    half_line.write(b'{"path": "b.wav", "st')  # as if that shard were writing just now
    half_line.close()
    capsys.readouterr()
    for i in (1, 2, 3):
        assert run(folder, qwen, "--shard", f"{i}/3") == 0
    made = sum(len(read_lines(folder / f"captions.{i}of3.jsonl")) for i in (1, 2, 3))
    done_before = (folder / "captions.1of2.jsonl").read_bytes().count(b"\n")
    assert made == 6 - done_before


# --- low-passed audio -----------------------------------------------------------------------------


def test_job_from_lr_captions_the_low_passed_audio(folder: Path, qwen: str) -> None:
    from scipy import signal

    assert run(folder, qwen, "--from", "lr", "--cutoff_hz", "4000") == 0
    lines = read_lines(folder / "captions.lr4000.jsonl")
    assert {line["cutoff_hz"] for line in lines} == {4000.0}
    stereo = soundfile.read(folder / "音乐" / "歌.flac")[0].T
    sections = signal.cheby1(8, 0.1, 4000, fs=44100, output="sos")
    low = signal.sosfiltfilt(sections, stereo).mean(axis=0)
    low = librosa.resample(
        low.astype(np.float32), orig_sr=44100, target_sr=RATE, res_type="soxr_hq"
    )
    heard = _audio_of(folder, "音乐/歌.flac", 4000.0)
    np.testing.assert_allclose(heard[200:-200], low[200:-200], atol=1e-4)
    caption = next(line["caption"] for line in lines if line["path"] == "音乐/歌.flac")
    assert caption == caption_by_hand(qwen, heard)


def _audio_of(folder: Path, path: str, cutoff_hz: float) -> np.ndarray:
    """What the job hands to the model for a file of one clip."""
    flags = ["--audio_dir", str(folder), "--from", "lr", "--cutoff_hz", str(cutoff_hz)]
    index = AudioIndex.scan([folder])
    origin = CaptionRecord("", "", model="m", cutoff_hz=cutoff_hz)
    log = CaptionLog(folder.parent / "other.jsonl", [], origin)
    job = CaptionJob(parse_options(flags), index, log, origin)
    position = [index.relative_path(i) for i in range(len(index))].index(path)
    audio = job._read(position, CaptionRecord(path, "", 0.0, float(index.duration_s[position])))
    log.close()
    return audio


def test_job_refuses_to_mix_captions_of_two_origins(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    run(folder, qwen)
    output = str(folder / "captions.jsonl")
    assert run(folder, qwen, "--from", "lr", "--cutoff_hz", "4000", "--output", output) == 2
    assert "give another --output" in capsys.readouterr().err


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--segment_s", "31"], "--segment_s is 31"),
        (["--segment_s", "nan"], "--segment_s is nan"),
        (["--from", "lr"], "go together"),
        (["--cutoff_hz", "4000"], "go together"),
        (["--from", "lr", "--cutoff_hz", "8000"], "hears nothing above"),
        (["--shard", "0/4"], "--shard is 0/4"),
        (["--shard", "5/4"], "--shard is 5/4"),
        (["--shard", "one"], "--shard is one"),
    ],
)
def test_flags_that_cannot_be_are_named(
    tmp_path: Path, flags: list[str], part: str, capsys: pytest.CaptureFixture
) -> None:
    assert caption(["--audio_dir", str(tmp_path), *flags]) == 2
    assert part in capsys.readouterr().err


def test_job_with_a_file_that_cannot_be_read_does_the_others_and_names_it(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    broken = sound(1.0, 8)
    broken[5000] = np.nan
    soundfile.write(folder / "aa.wav", broken, RATE, subtype="FLOAT")
    assert run(folder, qwen) == 1
    printed = capsys.readouterr().out
    assert "1 files failed" in printed
    assert "aa.wav" in printed
    assert len(read_lines(folder / "captions.jsonl")) == 6


def test_job_with_broken_lines_in_its_output_names_them(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    (folder / "captions.jsonl").write_text('{"path"\n{"caption": "x"}\n', encoding="utf-8")
    assert run(folder, qwen) == 2
    message = capsys.readouterr().err
    assert "line 1: broken JSON" in message
    assert "line 2: path is missing" in message


def test_job_beside_another_that_writes_the_same_file_is_refused(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    other = CaptionLog(folder / "captions.jsonl", [], CaptionRecord("", ""))
    assert run(folder, qwen) == 2
    assert "another run is writing" in capsys.readouterr().err
    other.close()


def test_job_with_a_model_out_of_reach_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(folder, "Qwen/no-such-model") == 2
    message = capsys.readouterr().err
    for part in ("Qwen/no-such-model", "hf download", "--model", "F0"):
        assert part in message


def test_job_with_a_model_of_another_kind_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    assert run(folder, str(tmp_path / "t5")) == 2
    assert "a t5 model, qwen2_audio is needed" in capsys.readouterr().err


def test_job_in_4bit_without_a_gpu_says_what_it_needs(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture
) -> None:
    assert run(folder, qwen, "--dtype", "4bit", "--device", "cpu") == 2
    assert "bitsandbytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "allowed: auto, cpu, cuda, cuda:N, mps"), ("cuda:", "no device"),
     ("cuda:99", "none on this machine")],
)  # fmt: skip
def test_job_on_a_device_that_is_not_there_says_so(
    folder: Path, qwen: str, capsys: pytest.CaptureFixture, device: str, message: str
) -> None:
    assert run(folder, qwen, "--device", device) == 2
    said = capsys.readouterr().err
    assert f"--device {device}: " in said
    assert message in said


def test_help_and_bad_flags_do_not_import_torch() -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('saga_sr.captions', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    for flags, code in (["--help"], 0), (["--audio_dir", "x", "--shard", "9"], 2):
        done = subprocess.run(
            [sys.executable, "-c", program, *flags], capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1] == f"{code} False"
