"""An evaluation measures what it says, says what it leaves out, and can be computed again."""

import csv
import json
import math
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import built, tiny_demo
from tiny_restorer import tiny_model
from tiny_text_models import build_tiny_t5

from saga_sr import metrics
from saga_sr.audio.index import AudioIndex
from saga_sr.evaluate import __main__ as evaluate_flags
from saga_sr.evaluate import evaluation, scores
from saga_sr.evaluate.clips import choose_clips, other_texts
from saga_sr.evaluate.competitors import Model
from saga_sr.evaluate.example import Example
from saga_sr.evaluate.report import Results
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.support.errors import UserError
from saga_sr.support.files import sha256_of
from saga_sr.upsample.options import UpsampleOptions

RATE = 44100


def noise(seconds: float, seed: int, channels: int = 1) -> np.ndarray:
    """Pink noise [T, C], RMS 0.1."""
    num_samples = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, num_samples)))
    spectrum /= np.maximum(np.fft.rfftfreq(num_samples, 1 / RATE), 100) ** 0.5
    audio = np.fft.irfft(spectrum, num_samples)
    return (0.1 * audio / audio.std()).T.astype(np.float32)


def write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype="FLOAT" if path.suffix == ".wav" else None)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories of short noise; one clip ends at 10 kHz, one is silent, one is stereo."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        write(folder / f"music/{number}.wav", noise(0.4, number))
    write(folder / "music/stereo.flac", noise(0.4, 7, channels=2))
    lossy = torch.from_numpy(noise(0.4, 8).T.copy())
    write(folder / "speech/lossy.wav", apply_lowpass(lossy, RATE, field_lowpass(10000.0)).T.numpy())
    write(folder / "speech/full.wav", noise(0.4, 9))
    write(folder / "speech/silent.wav", np.zeros((RATE // 4, 1), np.float32))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model().save_pretrained(tmp_path_factory.mktemp("models") / "tiny" / "export")


def run(data: Path, output: Path, *arguments: str | Path, pictures: int = 0) -> dict[str, Any]:
    """Run the command in this process; returns run.json."""
    flags = ["--data", data, "--output", output, "--num_pictures", pictures, *arguments]
    evaluation.main(evaluate_flags.parse_args([str(flag) for flag in flags]))
    return json.loads((output / "run.json").read_text(encoding="utf-8"))


@lru_cache
def csv_lines(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values(output: Path, **wanted: str) -> dict[str, float]:
    """clip -> value of the lines of clips.csv whose fields are as wanted; NaN for none."""
    lines = [
        line
        for line in csv_lines(output / "clips.csv")
        if all(line[key] == value for key, value in wanted.items())
    ]
    assert len({line["clip"] for line in lines}) == len(lines)
    return {line["clip"]: float(line["value"] or "nan") for line in lines}


@pytest.fixture(scope="session")
def report(data: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One full run that several tests look at."""
    output = tmp_path_factory.mktemp("report")
    run(
        data, output, "--model", model_folder, "--cutoffs", "4000", "9000", "--write_audio", "all",
        "--sweep", "num_steps", "1", "2", "--num_steps", "2", pictures=1,
    )  # fmt: skip
    return output


# --- one run on all of it


def test_evaluate_summary_has_the_means_of_the_csv(report: Path) -> None:
    lines = (report / "report.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| LSD, band error (dB) |"))
    header, rows = lines[start], lines[start + 2 : start + 10]
    assert header.split(" | ")[1:] == [
        "music, 4 kHz", "speech, 4 kHz", "music, 9 kHz", "speech, 9 kHz |"
    ]  # fmt: skip
    for metric, part in (("lsd", 0), ("high_band_error_db", 1)):
        for row in rows:
            name, cell = row.strip("| ").split(" | ")[:2]
            wanted = {"category": "music", "cutoff_hz": "4000", "row": name, "metric": metric}
            mean = np.nanmean(list(values(report, **wanted).values()))
            assert float(cell.split(", ")[part]) == pytest.approx(mean, abs=0.0051)


def test_evaluate_measures_every_row_of_every_category_and_cutoff(report: Path) -> None:
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    rows = ["unprocessed", "ceiling", "band replication", "shaped noise", "start", "tiny"]
    rows += ["tiny num_steps=1", "tiny num_steps=2"]
    assert list(record["rows"]) == rows
    found = [(line["category"], line["cutoff_hz"], line["row"]) for line in record["results"]]
    groups = [("music", 4000.0), ("speech", 4000.0), ("music", 9000.0), ("speech", 9000.0)]
    assert found == [(*group, row) for group in groups for row in rows]


def test_evaluate_csv_figures_can_be_computed_again_from_the_audio(report: Path) -> None:
    for row in ("shaped noise", "tiny"):
        estimate, truth = (
            torch.from_numpy(soundfile.read(report / "audio" / path, dtype="float32")[0])[
                None, None
            ]
            for path in (f"{row}/4000/music/1.wav", "truth/music/1.wav")
        )
        wanted = {"row": row, "cutoff_hz": "4000"}
        lsd_hf = metrics.lsd(estimate, truth, low_hz=4000.0).item()
        error_db = metrics.high_band_error_db(estimate, truth, 4000.0).item()
        assert values(report, metric="lsd_hf", **wanted)["music/1"] == pytest.approx(lsd_hf, 1e-4)
        assert values(report, metric="high_band_error_db", **wanted)["music/1"] == pytest.approx(
            error_db, 1e-4
        )


def test_evaluate_json_means_are_those_of_the_csv(report: Path) -> None:
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    for line in record["results"]:
        wanted = {"row": line["row"], "cutoff_hz": f"{line['cutoff_hz']:g}"}
        for metric, mean in line["means"].items():
            of_clips = values(report, category=line["category"], metric=metric, **wanted)
            if metric == "seam_step_db":
                of_clips = {clip: abs(value) for clip, value in of_clips.items()}
            present = [value for value in of_clips.values() if not math.isnan(value)]
            assert line["clips"][metric] == len(present)
            if metric == "level_in_silence_db":  # no frame of this noise is silent
                assert (mean, present) == (None, [])
            else:
                assert len(present) == len(of_clips)
                assert mean == pytest.approx(np.mean(present), rel=1e-4, abs=1e-6)


def test_evaluate_json_says_which_stretch_of_which_file_was_measured(
    report: Path, data: Path
) -> None:
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    assert [clip["clip"] for clip in record["clips"]] == [
        "music/0", "music/1", "music/2", "music/stereo",
        "speech/full", "speech/lossy", "speech/silent",
    ]  # fmt: skip
    for clip in record["clips"]:
        assert clip["sha256"] == sha256_of(data / clip["file"])
    stereo = record["clips"][3]
    assert (stereo["channels"], stereo["start"], stereo["length"]) == (2, 0, 0.4 * RATE)
    assert record["lsd_definitions"]["saga"]["floor"] == 1e-6
    assert record["lowpass"][0] == {
        "family": "cheby1", "order": 8, "cutoff_hz": 4000.0, "resample": False,
    }  # fmt: skip
    weights = record["rows"]["tiny"]["sha256"]["model.safetensors"]
    assert len(weights) == 64


def test_evaluate_silent_and_dull_clips_are_named_and_not_averaged(report: Path) -> None:
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    assert record["not_measured"]["4000"] == {"speech/silent": "silent"}
    assert list(record["not_measured"]["9000"]) == ["speech/lossy", "speech/silent"]
    assert list(values(report, category="speech", row="tiny", cutoff_hz="9000", metric="lsd")) == [
        "speech/full"
    ]
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "Silent and not measured: 1 (speech/silent)" in text
    assert "### speech, 9 kHz (1 clip)" in text
    assert "What tiny was trained on is not known" in text
    assert record["shared_sources"] == {"tiny": None}
    assert "Truths of 1 of these clips stop at 10." in text


def test_evaluate_a_lossy_truth_is_measured_up_to_where_it_stops(report: Path) -> None:
    # Noise above 10 kHz is no error where the truth has nothing to compare it with.
    wanted = {"row": "shaped noise", "cutoff_hz": "4000", "metric": "lsd_hf"}
    estimate, truth = (
        torch.from_numpy(soundfile.read(report / "audio" / path, dtype="float32")[0])[None, None]
        for path in ("shaped noise/4000/speech/lossy.wav", "truth/speech/lossy.wav")
    )
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    (end_hz,) = (c["truth_end_hz"] for c in record["clips"] if c["clip"] == "speech/lossy")
    assert end_hz == pytest.approx(10200, rel=0.03)
    expected = metrics.lsd(estimate, truth, low_hz=4000.0, high_hz=end_hz).item()
    assert values(report, **wanted)["speech/lossy"] == pytest.approx(expected, rel=1e-4)
    assert metrics.lsd(estimate, truth, low_hz=4000.0).item() > 1.2 * expected


def test_evaluate_ceiling_of_the_mdct_is_perfect_and_input_is_kept(report: Path) -> None:
    ceiling = values(report, row="ceiling", cutoff_hz="4000", metric="lsd_hf")
    assert max(ceiling.values()) < 0.05
    assert len(ceiling) == 6
    for row in ("band replication", "shaped noise", "tiny"):
        kept_db = values(report, row=row, cutoff_hz="4000", metric="si_sdr_low")
        assert min(kept_db.values()) > 40
    unprocessed = values(report, row="unprocessed", cutoff_hz="4000", metric="si_sdr_low")
    assert set(unprocessed.values()) == {metrics.SI_SDR_LIMIT_DB}


def test_evaluate_a_swept_point_equals_the_model_run_that_way(report: Path) -> None:
    plain = values(report, row="tiny", metric="lsd", cutoff_hz="4000")  # --num_steps 2
    assert plain == values(report, row="tiny num_steps=2", metric="lsd", cutoff_hz="4000")
    assert plain != values(report, row="tiny num_steps=1", metric="lsd", cutoff_hz="4000")


def test_evaluate_start_is_the_same_whatever_the_dit_and_fills_the_band() -> None:
    audio = torch.from_numpy(noise(0.3, 1).T.copy())  # several windows
    lowpass = field_lowpass(6000.0)
    example = Example("clip", audio, apply_lowpass(audio, RATE, lowpass), RATE, lowpass)
    row = Model("tiny", built(tiny_demo()), "", UpsampleOptions(num_steps=2))
    whole, start = row.restore(example), row.start("start").restore(example)
    for parameter in row.model.dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert torch.equal(row.start("start").restore(example), start)
    assert not torch.equal(row.restore(example), whole)
    assert start.shape == audio.shape
    above = [one - apply_lowpass(one, RATE, field_lowpass(7000.0)) for one in (start, audio)]
    ratio_db = 20 * math.log10(above[0].std() / above[1].std())
    assert -30 < ratio_db < 30


def test_evaluate_says_once_of_all_rows_how_many_clips_have_a_value(report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "- All rows: in silence (dBFS) has a value for 0 of 4 clips." in text
    assert "tiny: in silence" not in text


def test_evaluate_page_shows_existing_pictures_and_no_swept_row_in_the_boxplots(
    report: Path,
) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    shown = [line.split("](")[1].rstrip(")") for line in text.splitlines() if "](" in line]
    assert {"boxplots-4000.png", "boxplots-9000.png", "sweep-num_steps.png"} <= set(shown)
    assert "spectrograms/music-4000-tiny-best.png" in shown
    for name in shown:
        assert (report / name).stat().st_size > 1000


def test_evaluate_offline_distance_with_too_few_frames_is_refused_and_said(report: Path) -> None:
    record = json.loads((report / "run.json").read_text(encoding="utf-8"))
    assert {line["distances"]["FD offline"] for line in record["results"]} == {None}
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "FD offline is not reported: 4 frames are not more than its 32 dimensions" in text


# --- the same, again and otherwise


def test_evaluate_twice_gives_the_same_figures_and_another_seed_others(
    data: Path, model_folder: Path, tmp_path: Path
) -> None:
    common = ("--model", f"m={model_folder}", "--cutoffs", "4000", "--num_clips", "1")
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        run(data, tmp_path / name, *common, "--seed", seed)
    first, again, other = (values(tmp_path / n, row="m", metric="lsd") for n in "abc")
    assert first == again
    assert first != other


def test_evaluate_predictions_of_our_own_outputs_score_the_same(
    report: Path, data: Path, tmp_path: Path
) -> None:
    run(data, tmp_path, "--predictions", f"theirs={report / 'audio/tiny'}", "--cutoffs", "4000")
    for metric in ("lsd", "high_band_error_db", "seam_step_db"):
        theirs = values(tmp_path, row="theirs", metric=metric)
        ours = values(report, row="tiny", cutoff_hz="4000", metric=metric)
        assert theirs == pytest.approx(ours, rel=1e-4)
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert len(record["rows"]["theirs"]["sha256"]) == 6


def test_evaluate_oracle_target_and_default_target_differ(
    data: Path, model_folder: Path, tmp_path: Path
) -> None:
    common = ("--model", f"m={model_folder}", "--cutoffs", "4000", "--num_clips", "1")
    scored = {}
    for target in ("default", "oracle", "0.2"):
        run(data, tmp_path / target, *common, "--target_rolloff", target)
        scored[target] = tuple(values(tmp_path / target, row="m", metric="lsd_hf").values())
    assert len(set(scored.values())) == 3


@pytest.fixture(scope="session")
def controlled(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that hears text beside one that does not, with all controls."""
    folder = tmp_path_factory.mktemp("controlled")
    said = {"music/0.wav": "wind", "music/1.wav": "rain", "speech/full.wav": "a cat"}
    for name in said:
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_bytes((data / name).read_bytes())
    lines = [json.dumps({"path": name, "caption": text}) + "\n" for name, text in said.items()]
    (folder / "data/captions.jsonl").write_text("".join(lines), encoding="utf-8")
    raw = tiny_demo(model__diffusion__compute_rolloff=True)
    built(raw).save_pretrained(folder / "deaf")
    text = {"t5_model_name": str(build_tiny_t5(folder / "t5")), "max_length": 8, "dim": 16}
    raw["model"]["conditioning"]["configs"][0]["config"] = text
    raw["model"]["diffusion"]["cross_attention_cond_ids"] = ["prompt"]
    built(raw).save_pretrained(folder / "text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return run(
            folder / "data", folder / "out", "--cutoffs", "4000", "--num_steps", "2",
            "--model", folder / "deaf", folder / "text", "--num_listen", "0",
            "--controls", "wrong_text", "no_text", "other_seed", "target_rolloff=0.2",
            "true_rolloff", "no_replacement",
        )  # fmt: skip


def test_evaluate_controls_say_whether_a_condition_is_heeded(controlled: dict[str, Any]) -> None:
    rows = [name for name in controlled["rows"] if name.startswith(("deaf", "text"))]
    assert rows == [
        "deaf", "text", "deaf other seed", "deaf target_rolloff=0.2", "deaf true roll-off",
        "deaf without replacement", "text wrong text", "text no text", "text other seed",
        "text target_rolloff=0.2", "text true roll-off", "text without replacement",
    ]  # fmt: skip
    for line in controlled["results"]:
        if line["row"].endswith("without replacement"):
            assert line["means"]["change_db"] < 0.5  # above the cutoff next to nothing changes
        elif line["row"] in rows[2:]:
            assert line["means"]["change_db"] > 1e-3  # of random weights: everything is heeded
        else:
            assert "change_db" not in line["means"]
    assert controlled["rows"]["text wrong text"]["text"] == "other"
    assert controlled["rows"]["text true roll-off"]["target_rolloff"] == "oracle"
    assert controlled["rows"]["deaf"]["text"] == "none"


def test_evaluate_without_replacement_leaves_the_low_band_to_the_model(
    controlled: dict[str, Any],
) -> None:
    means = {
        line["row"]: line["means"] for line in controlled["results"] if line["category"] == "music"
    }
    with_it, without = means["text"], means["text without replacement"]
    assert without["lsd"] > with_it["lsd"]
    assert without["lsd_hf"] == pytest.approx(with_it["lsd_hf"], rel=0.1)
    assert without["si_sdr"] < with_it["si_sdr"]


def test_evaluate_velocity_error_is_of_models_and_hears_their_conditions(
    controlled: dict[str, Any],
) -> None:
    errors = {
        line["row"]: line["means"].get("velocity_error")
        for line in controlled["results"]
        if line["category"] == "music"
    }
    with_error = [name for name, error in errors.items() if error is not None]
    assert with_error == [name for name in errors if name.startswith(("deaf", "text"))]
    assert errors["text other seed"] == errors["text"]  # its noise is fixed
    assert len({round(errors[f"text{end}"], 6) for end in ("", " wrong text", " no text")}) == 3


def test_evaluate_differences_are_of_systems_and_controls(controlled: dict[str, Any]) -> None:
    music = [line for line in controlled["differences"] if line["category"] == "music"]
    pairs = {(line["row"], line["minus"]): line for line in music}
    assert ("text", "deaf") in pairs
    assert ("deaf", "text") not in pairs
    assert ("text", "start of text") in pairs
    assert ("text wrong text", "text") in pairs
    line = pairs["text", "deaf"]
    results = {one["row"]: one for one in controlled["results"] if one["category"] == "music"}
    means = {row: one["means"] for row, one in results.items()}
    assert line["differences"]["lsd"] == pytest.approx(means["text"]["lsd"] - means["deaf"]["lsd"])
    assert line["clips"]["lsd"] == 2
    low, high = line["intervals"]["lsd"]
    assert low <= line["differences"]["lsd"] <= high
    ours, theirs = (results[row]["distances"]["KD offline"] for row in ("text", "deaf"))
    assert line["differences"]["KD offline"] == pytest.approx(ours - theirs)


def test_evaluate_one_file_has_no_interval(controlled: dict[str, Any]) -> None:
    speech = next(line for line in controlled["results"] if line["category"] == "speech")
    assert set(speech["intervals"].values()) == {None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["wrong_words"], "true_rolloff, no_replacement, target_rolloff=X"),
        (["target_rolloff=1"], r"1 is not in \[0, 1\)"),
        (["other_seed", "other_seed"], "one is given twice"),
        (["wrong_text", "--no_text"], "does not go with --no_text"),
        (["true_rolloff", "--target_rolloff", "oracle"], "gives it all rows"),
        (["no_replacement", "--crossover", "off"], "is all rows without it"),
    ],
)
def test_evaluate_wrong_controls_are_refused(data: Path, flags: list[str], message: str) -> None:
    arguments = ["--data", str(data), "--output", "x", "--model", "m", "--controls", *flags]
    with pytest.raises(UserError, match=message):
        evaluate_flags.parse_args(arguments)


def test_evaluate_wrong_text_of_clips_without_text_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tiny_model(text_model=str(build_tiny_t5(tmp_path / "t5"))).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="wrong_text: the clips have no two different texts"):
        run(data, tmp_path / "out", "--model", folder, "--controls", "wrong_text")


def test_other_texts_give_every_text_another_one() -> None:
    texts = [f"text {number}" for number in range(9)]
    other = other_texts([*texts, "", *texts], seed=0)
    assert sorted(other) == sorted(other.values()) == texts
    assert all(one != text for text, one in other.items())
    assert other == other_texts(list(reversed(texts)), seed=0) != other_texts(texts, seed=1)
    assert other_texts(["one", "", "one"], seed=0) == {}


def test_evaluate_mono_mixes_the_truth_down(data: Path, tmp_path: Path) -> None:
    record = run(data, tmp_path, "--cutoffs", "4000", "--mono", "--write_audio", "inputs")
    assert {clip["channels"] for clip in record["clips"]} == {1}
    mixed, _ = soundfile.read(tmp_path / "audio/truth/music/stereo.wav")
    source, _ = soundfile.read(data / "music/stereo.flac")
    np.testing.assert_allclose(mixed, source.mean(axis=1), atol=1e-6)
    assert not (tmp_path / "audio/shaped noise").exists()


def test_evaluate_data_without_categories_is_one_category(data: Path, tmp_path: Path) -> None:
    record = run(data / "music", tmp_path, "--cutoffs", "4000", "--num_clips", "2")
    assert {line["category"] for line in record["results"]} == {"music"}
    assert len(record["clips"]) == 2


def test_evaluate_envelope_of_a_dull_corpus_makes_duller_noise(data: Path, tmp_path: Path) -> None:
    dull = torch.from_numpy(noise(1.0, 3).T.copy())
    write(tmp_path / "dull/a.wav", apply_lowpass(dull, RATE, field_lowpass(2000.0)).T.numpy())
    common = ("--cutoffs", "4000", "--num_clips", "1")
    record = run(data, tmp_path / "out", *common, "--noise_envelope", tmp_path / "dull")
    assert record["rows"]["shaped noise"]["envelope_hz"][-1] < 2500


# --- clips


def test_choose_clips_a_category_does_not_depend_on_the_others(data: Path) -> None:
    both = choose_clips(AudioIndex.scan([data]), 2, 0.2, RATE, seed=0)
    assert [clip.name for clip in both] == [
        "music/1",
        "music/stereo",
        "speech/full",
        "speech/silent",
    ]
    alone = choose_clips(AudioIndex.scan([data / "music"]), 2, 0.2, RATE, seed=0)
    assert len({clip.crop.length for clip in both}) == 1
    assert [clip.crop.position for clip in alone] == [clip.crop.position for clip in both[:2]]
    again = choose_clips(AudioIndex.scan([data]), 2, 0.2, RATE, seed=0)
    other = choose_clips(AudioIndex.scan([data]), 2, 0.2, RATE, seed=1)
    assert both == again != other


def test_choose_clips_two_files_of_one_stem_have_two_names(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "b.wav"):
        write(tmp_path / name, noise(0.1, 1))
    clips = choose_clips(AudioIndex.scan([tmp_path]), 9, 1.0, RATE, seed=0)
    assert sorted(clip.name for clip in clips) == ["a-flac", "a-wav", "b"]


# --- mistakes


def test_evaluate_unfit_predictions_are_all_listed_before_any_work(
    data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    write(folder / "music/0.wav", noise(0.4, 0), rate=48000)
    write(folder / "music/1.wav", noise(0.3, 1))
    write(folder / "music/2.wav", noise(0.4, 2, channels=2))
    write(folder / "4000/music/stereo.wav", noise(0.4, 2, channels=2))
    (folder / "speech").mkdir()
    (folder / "speech/full.wav").write_text("not audio", encoding="utf-8")
    with pytest.raises(UserError) as error:
        run(data, tmp_path / "out", "--predictions", folder, "--cutoffs", "4000")
    message = str(error.value)
    assert "5 of 6 clips cannot be measured" in message
    assert "music/0.wav: 48000 Hz, the truth has 44100 Hz" in message
    assert "music/1.wav: 13230 samples, the truth has 17640" in message
    assert "music/2.wav: 2 channels, the truth has 1 (--mono" in message
    assert "speech/full.wav: unreadable" in message
    assert "4000/speech/lossy: no such file" in message
    assert not (tmp_path / "out").exists()


def test_evaluate_predictions_a_few_samples_off_are_cut_or_filled(
    report: Path, data: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    for path in sorted((report / "audio/inputs/4000").rglob("*.wav")):
        audio, _ = soundfile.read(path, dtype="float32", always_2d=True)
        audio = audio[:-80] if path.stem == "1" else np.concatenate([audio, audio[:60]])
        write(theirs / path.relative_to(report / "audio/inputs/4000"), audio)
    run(data, tmp_path / "out", "--predictions", theirs, "--cutoffs", "4000")
    for clip, value in values(tmp_path / "out", row="theirs", metric="lsd").items():
        unprocessed = values(report, row="unprocessed", cutoff_hz="4000", metric="lsd")[clip]
        assert value == pytest.approx(unprocessed, abs=0.1 if clip == "music/1" else 1e-4)


def test_evaluate_only_silent_clips_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "data/a.wav", np.zeros((RATE, 1), np.float32))
    with pytest.raises(UserError, match="no clip can be measured: silent"):
        run(tmp_path / "data", tmp_path / "out", "--cutoffs", "4000")


def test_evaluate_report_is_not_replaced_without_being_told(report: Path, data: Path) -> None:
    arguments = ["--data", str(data), "--output", str(report)]
    with pytest.raises(UserError, match="a report is there; --overwrite replaces it"):
        evaluate_flags.parse_args(arguments)
    assert evaluate_flags.parse_args([*arguments, "--overwrite"]).overwrite


def test_evaluate_cutoff_at_nyquist_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="30000 Hz is not below 22050"):
        run(data, tmp_path / "out", "--cutoffs", "4000", "30000")


def test_evaluate_model_of_another_rate_is_refused(
    data: Path, model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"sample rates differ\n.*44100 Hz\n.*48000 Hz"):
        run(data, tmp_path, "--model", model_folder, "--sample_rate", "48000")


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["nonsense", "1"], "not an option to sweep; allowed: num_steps"),
        (["num_steps", "1.5"], "1.5 is no number of steps"),
        (["target_rolloff", "1.0"], r"1 is not in \[0, 1\)"),
        (["num_steps", "x"], "could not convert"),
    ],
)
def test_evaluate_wrong_sweeps_are_refused(data: Path, sweep: list[str], message: str) -> None:
    arguments = ["--data", str(data), "--output", "x", "--model", "m", "--sweep", *sweep]
    with pytest.raises(UserError, match=message):
        evaluate_flags.parse_args(arguments)


def test_evaluate_missing_extra_says_what_to_install(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if "openl3" in sys.modules:
        pytest.skip("openl3 is installed")
    with pytest.raises(UserError, match=r"--openl3: .*pip install openl3"):
        run(data, tmp_path / "out", "--openl3", "music")


def test_evaluate_help_and_wrong_flags_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['evaluate', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('saga_sr.evaluate', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    wrong = ["--data", str(tmp_path / "nowhere"), "--output", str(tmp_path)]
    for arguments, expected in ((["--help"], "0 False"), (wrong, "2 False")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().endswith(expected)
        assert "Traceback" not in done.stderr


# --- scores


@pytest.mark.parametrize(
    ("heard", "said", "expected"),
    [
        ("a b c", "a b c", 0.0),
        ("a x c", "a b c", 1 / 3),
        ("a c", "a b c", 1 / 3),
        ("a b b c", "a b c", 1 / 3),
        ("", "a b", 1.0),
        ("x y z w", "a b", 2.0),
    ],
)
def test_error_rate_counts_the_fewest_edits(heard: str, said: str, expected: float) -> None:
    assert scores.error_rate(heard, said) == pytest.approx(expected)
    if heard and said:
        torchmetrics = pytest.importorskip("torchmetrics")
        theirs = torchmetrics.functional.text.word_error_rate([heard], [said]).item()
        assert scores.error_rate(heard, said) == pytest.approx(theirs)


def test_error_rate_of_nothing_said_is_no_number() -> None:
    assert math.isnan(scores.error_rate("a", ""))


def test_results_mean_leaves_out_clips_without_a_value() -> None:
    results = Results(scores.CLIP_METRICS, ["row"])
    for clip, value in (("a", 1.0), ("b", float("nan")), ("c", -3.0)):
        results.add(("music", 4000.0), "row", clip, {"si_sdr": value, "seam_step_db": value})
    assert results.mean(("music", 4000.0), "row", "si_sdr") == (-1.0, 2)
    assert results.mean(("music", 4000.0), "row", "seam_step_db") == (2.0, 2)  # magnitudes


def test_results_picks_are_the_extremes_and_the_middle() -> None:
    results = Results(scores.CLIP_METRICS, ["row"])
    group = ("music", 4000.0)
    for clip, value in (("a", 5.0), ("b", 1.0), ("c", 3.0), ("d", float("nan"))):
        results.add(group, "row", clip, {"high_band_error_db": value})
    assert results.picks(group, "row") == {"best": "b", "median": "c", "worst": "a"}


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, random wav2vec 2.0 of two letters: what it hears is nonsense, but always the same."""
    import transformers

    folder = tmp_path_factory.mktemp("recogniser")
    vocabulary = {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    config = transformers.Wav2Vec2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(16, 16), conv_stride=(40, 20), conv_kernel=(40, 20),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.Wav2Vec2ForCTC(config)
        model.lm_head.weight.data *= 30
    model.save_pretrained(folder)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), unk_token="<unk>")
    transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(), tokenizer
    ).save_pretrained(folder)
    return folder


def test_recogniser_hears_the_truth_in_the_truth_and_less_in_noise(recogniser: Path) -> None:
    of = scores.recogniser_metrics(str(recogniser), torch.device("cpu"))
    truth = torch.from_numpy(noise(1.0, 1).T.copy())
    other = torch.from_numpy(noise(1.0, 2).T.copy())
    example = Example("clip", truth, truth, RATE, field_lowpass(4000.0))
    assert of["cer"].compute(scores.Measured(truth, example, None)) == 0
    assert of["cer"].compute(scores.Measured(other, example, None)) > 0


def test_recogniser_prefers_the_transcript_to_what_it_hears(recogniser: Path) -> None:
    of = scores.recogniser_metrics(str(recogniser), torch.device("cpu"))
    truth = torch.from_numpy(noise(1.0, 1).T.copy())
    example = Example("clip", truth, truth, RATE, field_lowpass(4000.0), transcript="Z, z?")
    assert of["wer"].compute(scores.Measured(truth, example, None)) >= 0.5


def test_recogniser_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--recogniser .*cannot be loaded"):
        scores.recogniser_metrics(str(tmp_path / "nothing"), torch.device("cpu"))


def test_evaluate_pictures_do_not_depend_on_what_was_kept_in_memory(
    data: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--model", model_folder, "--cutoffs", "4000", "--num_clips", "1")
    run(data, tmp_path / "kept", *common, pictures=1)
    monkeypatch.setattr(evaluation, "KEPT_BYTES", 0)
    run(data, tmp_path / "again", *common, pictures=1)
    pictures = sorted((tmp_path / "kept/spectrograms").iterdir())
    assert len(pictures) == 2
    for path in pictures:
        assert path.read_bytes() == (tmp_path / "again/spectrograms" / path.name).read_bytes()


def test_degradations_give_rows_of_their_own(data, model_folder, tmp_path):
    record = run(
        data, tmp_path / "r", "--model", model_folder, "--cutoffs", "4000", "--num_steps", "2",
        "--degradations", "gsm", "zoh-11025", "--num_clips", "1",
    )  # fmt: skip
    categories = {line["category"] for line in record["results"]}
    assert {"speech", "speech, gsm", "speech, zoh-11025"} <= categories
    kept = {
        line["cutoff_hz"] for line in record["results"] if line["category"] == "speech, zoh-11025"
    }
    assert len(kept) == 1
    assert 3000 < kept.pop() < 11_025 / 2


def test_degradations_say_which_clips_could_not_be_measured(data, tmp_path):
    record = run(data, tmp_path / "r", "--cutoffs", "4000", "--degradations", "gsm", "mp3-320")
    report = (tmp_path / "r/report.md").read_text(encoding="utf-8")
    gsm = report.split("### speech, gsm")[1].split("###")[0]
    assert "Not measured: 1 of 3 clips (speech/silent: silent)" in gsm
    assert list(record["not_measured"].values()).count({"speech/silent": "silent"}) == 2
    # At 320 kbit/s nothing is missing of any clip.
    left_out = r"of music, mp3-320: its truth ends at 22050 Hz, and \d+ Hz of it are kept"
    assert re.search(left_out, report)


def test_a_degradation_that_does_not_exist_is_said_before_anything_is_measured(data, tmp_path):
    with pytest.raises(UserError, match="degradation 'mp4': allowed are mp3-KBPS"):
        run(data, tmp_path / "r", "--degradations", "mp4")


def test_auto_is_the_precision_that_the_record_names(
    data: Path, model_folder: Path, tmp_path: Path
) -> None:
    flags = ("--model", model_folder, "--cutoffs", "4000", "--num_clips", "1", "--num_listen", "0")
    auto = run(data / "music", tmp_path / "auto", *flags, "--precision", "auto")
    assert auto["options"]["precision"] == "auto"
    others = {"32-true", "bf16-mixed"} - {auto["precision"]}
    assert len(others) == 1

    def measured(precision: str) -> Any:
        record = run(data / "music", tmp_path / precision, *flags, "--precision", precision)
        return record["results"]

    assert measured(auto["precision"]) == auto["results"]
    assert measured(others.pop()) != auto["results"]
