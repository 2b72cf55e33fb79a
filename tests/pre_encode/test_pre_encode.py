"""Paired latents: the same items as from audio, made once, whatever happens on the way."""

import hashlib
import importlib
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from tiny_models import ROOT, built, changed, text_and_rolloff, tiny_demo, tiny_vae

from saga_sr.audio.index import AudioIndex
from saga_sr.audio.packed_names import PackedNames
from saga_sr.config import ModelConfig, load_model_config, parse_model_config
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.data.latent_dataset import LatentDataset
from saga_sr.data.latents import (
    FolderEntry,
    LatentFolder,
    LowpassEntry,
    Manifest,
    SegmentTable,
    encoding_of,
    folder_path,
    is_latent_folder,
    probe_weights,
    same_weights,
    shard_path,
    write_shard,
)
from saga_sr.dataset import ClipReader, DrawSampler, Item, collate
from saga_sr.degradation import Degradations
from saga_sr.lowpass import LowpassOptions
from saga_sr.pre_encode import encode
from saga_sr.pre_encode.__main__ import parse_options
from saga_sr.pre_encode.encode import SegmentClips, cut_folder
from saga_sr.support.errors import UserError
from saga_sr.training import run as training_run
from saga_sr.training.data import TrainingData, open_training_data
from saga_sr.training.flags import parse_options as train_options
from saga_sr.training.metrics_csv import read_metrics
from saga_sr.weights import fold_weight_norm

RATE = 44100
SIZE = 4096


@pytest.fixture(scope="module", autouse=True)
def _own_cache_and_one_thread(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGA_SR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")  # bit for bit the same in every process
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for name, length, channels in (("a/long.wav", 40_000, 2), ("a/mono.wav", 12_000, 1),
                                   ("a/short.wav", 900, 2), ("b/other.wav", 9_000, 2)):  # fmt: skip
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, 0.1 * rng.standard_normal((length, channels)), RATE)
    (root / "a" / "long.txt").write_text("说的话 spoken", encoding="utf-8")
    caption = CaptionRecord("mono.wav", "a caption", 0, 1)
    (root / "a" / "captions.jsonl").write_text(caption.to_line(), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(text_and_rolloff(tiny_demo())), encoding="utf-8")
    return path


def _arguments(audio: Path, output: Path, config_file: Path, **more: Any) -> list[str]:
    given = {"variants": 1, "dtype": "float32", "shard_segments": 4, "num_workers": 0} | more
    flags = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    return [
        "--audio_dir", str(audio / "a"), str(audio / "b"), "--output_dir", str(output),
        "--model_config", str(config_file), "--accelerator", "cpu", *flags,
    ]  # fmt: skip


def _encode(audio: Path, output: Path, config_file: Path, **more: Any) -> Path:
    encode.main(parse_options(_arguments(audio, output, config_file, **more)))
    return output


@pytest.fixture(scope="module")
def latents(audio: Path, config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _encode(audio, tmp_path_factory.mktemp("out") / "latents", config_file)


def _config(path: Path) -> ModelConfig:
    return load_model_config(path)


def _clips(audio: Path, variants: int = 1, channels: int = 1, **cut: Any) -> SegmentClips:
    index = AudioIndex.scan([audio / "a", audio / "b"], progress=False)
    tables = [CaptionTable.read(audio / "a" / "captions.jsonl"), None]
    reader = ClipReader(index, SIZE, channels=channels, captions=tables)
    settings = {"hop_s": SIZE / RATE, "jitter": 0.0, "seed": 0} | cut
    cuts = [cut_folder(reader, folder, **settings) for folder in range(2)]
    return SegmentClips(reader, cuts, variants, LowpassOptions(), settings["seed"])


class FromAudio(LatentDataset):
    """The on-the-fly path: the items that `LatentDataset` picks, as audio."""

    clips: SegmentClips

    def __getitem__(self, draw: int) -> Item:
        folder, segment, variant = self.pick(draw)
        clip = self.clips[folder, segment]
        metadata = {"lr_audio": clip["lr"][variant], "draw": draw, "audio_path": ""}
        for name in ("lr_cutoff_hz", "lr_passband_hz", "rolloff_low"):
            metadata[name] = float(clip[name][variant])
        for name in ("rolloff_high", "hr_end_hz"):
            metadata[name] = float(clip[name])
        return clip["hr"], metadata


def _from_audio(latents: Path, config: ModelConfig, clips: SegmentClips, seed: int) -> FromAudio:
    dataset = FromAudio([latents], config, seed, compute_rolloff=True)
    dataset.clips = clips
    return dataset


# --- the same results ---------------------------------------------------------------------------


@pytest.mark.parametrize("variants", [1, 3])
def test_latents_of_a_draw_equal_the_encoded_audio_of_the_draw(
    audio: Path, config_file: Path, tmp_path: Path, variants: int
) -> None:
    output = _encode(audio, tmp_path / "latents", config_file, variants=variants)
    dataset = LatentDataset([output], _config(config_file), seed=5, compute_rolloff=True)
    from_audio = _from_audio(output, _config(config_file), _clips(audio, variants), seed=5)
    encode = built(tiny_demo()).encode
    chosen = set()
    for draw in range(12):
        (latent, metadata), (hr, expected) = dataset[draw], from_audio[draw]
        assert expected.pop("audio_path") == ""
        torch.testing.assert_close(latent, encode(hr[None])[0], atol=1e-5, rtol=1e-5)
        lr_latent = encode(expected.pop("lr_audio")[None])[0]
        torch.testing.assert_close(metadata["lr_latent"], lr_latent, atol=1e-5, rtol=1e-5)
        assert {name: metadata[name] for name in expected} == expected
        chosen.add(dataset.pick(draw)[2])
    assert chosen == set(range(variants))


def test_other_degradations_are_as_in_training_and_part_of_the_contract(
    audio: Path, config_file: Path, tmp_path: Path
) -> None:
    kinds = ("lowpass", "codec", "resampler", "residue")
    flags = [*_arguments(audio, tmp_path / "latents", config_file, variants=3), "--degradations"]
    encode.main(parse_options([*flags, *kinds]))
    clips = _clips(audio, 3)
    clips.degradations = Degradations(kinds, _config(config_file).training.degradations)
    made_by = {str(clips._variant(clips[0, 0]["hr"], 9e3, (0, 0, k)).degradation) for k in range(9)}
    assert len(made_by) > 2
    dataset = LatentDataset([tmp_path / "latents"], _config(config_file), 5, compute_rolloff=True)
    from_audio = _from_audio(tmp_path / "latents", _config(config_file), clips, seed=5)
    encoder = built(tiny_demo()).encode
    for draw in range(6):
        expected = from_audio[draw][1]
        latent = encoder(expected.pop("lr_audio")[None])[0]
        torch.testing.assert_close(dataset[draw][1]["lr_latent"], latent, atol=1e-5, rtol=1e-5)
        assert dataset[draw][1]["lr_cutoff_hz"] == expected["lr_cutoff_hz"]
    with pytest.raises(UserError, match="degradations"):
        encode.main(parse_options([*flags, "lowpass", "codec"]))


def test_identity_of_a_set_of_low_passes_is_that_of_before_there_were_others(
    latents: Path,
) -> None:
    manifest = Manifest.load(latents)
    assert manifest.degradations is None
    place = {"folders": {"__all__": {"audio_dir"}}, "degradations": True}
    before = manifest.model_dump_json(exclude=place)
    assert "degradations" not in before
    assert manifest.id == hashlib.sha256(before.encode("utf-8")).hexdigest()


@pytest.mark.parametrize("raw", [tiny_demo(), tiny_vae()], ids=["MDCT", "VAE"])
def test_training_from_latents_and_from_audio_has_the_same_loss_curve(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any]
) -> None:
    """The training script, whole, with the same draws, one variant and fp32 latents: only where its
    batches come from differs."""
    monkeypatch.syspath_prepend(ROOT)
    train = importlib.import_module("train_saga_sr")
    raw = changed(raw, model__diffusion__compute_rolloff=True, training__learning_rate=1e-3)
    config_file, vae = tmp_path / "config.json", tmp_path / "vae.ckpt"
    config_file.write_text(json.dumps(raw), encoding="utf-8")
    weights: dict[str, Path] = {}
    if built(raw).pretransform.needs_weights:
        torch.save({"state_dict": built(raw).pretransform.model.state_dict()}, vae)
        weights = {"pretransform_ckpt": vae}
    latents = _encode(audio, tmp_path / "latents", config_file, **weights)
    clips = _clips(audio, channels=_config(config_file).audio_channels)

    def curves(name: str) -> list[tuple[int, str, float]]:
        """(step, metric, value) of the loss and of the gradient norm."""
        flags = {"train_dir": latents, "model_config": config_file, "batch_size": 2,
                 "max_steps": 12, "num_workers": 0, "accelerator": "cpu", "precision": "32-true",
                 "logger": "csv", "output_dir": tmp_path / name} | weights  # fmt: skip
        words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
        assert train.main(train_options([*words, "--compute_rolloff"])) == 0
        rows = read_metrics(tmp_path / name / "metrics.csv")
        return sorted(row for row in rows if row[1] in ("train/loss", "train/grad_norm"))

    expected = curves("latents")
    on_the_fly = TrainingData(_from_audio(latents, _config(config_file), clips, seed=0))
    monkeypatch.setattr(training_run, "open_training_data", lambda options, config: on_the_fly)
    found = curves("audio")
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in expected], rtol=1e-4)
    assert len(expected) == 2 * 12


def test_latents_in_half_precision_are_half_as_large_and_close(
    audio: Path, latents: Path, config_file: Path, tmp_path: Path
) -> None:
    half = _encode(audio, tmp_path / "half", config_file, dtype="float16")
    config = _config(config_file)
    full = LatentDataset([latents], config, seed=0)
    for draw in range(4):
        hr, metadata = LatentDataset([half], config, seed=0)[draw]
        expected, others = full[draw]
        assert hr.dtype == torch.float32
        torch.testing.assert_close(hr, expected, atol=5e-3, rtol=1e-3)
        torch.testing.assert_close(metadata["lr_latent"], others["lr_latent"], atol=5e-3, rtol=1e-3)
    sizes = [sum(p.stat().st_size for p in root.rglob("*.safetensors")) for root in (half, latents)]
    assert sizes[0] < 0.6 * sizes[1]


# --- segments -----------------------------------------------------------------------------------


def test_cut_folder_segments_cover_every_file_and_weigh_its_seconds(audio: Path) -> None:
    table = _clips(audio).tables[0]  # long.wav, mono.wav, short.wav
    starts = [table.start[table.file == row].tolist() for row in range(3)]
    assert starts[0] == [*range(0, 40_000 - SIZE, SIZE), 40_000 - SIZE]
    assert starts[1] == [0, SIZE, 12_000 - SIZE]
    assert len(starts[2]) == 1
    assert -(SIZE - 900) <= starts[2][0] <= 0
    weights = np.diff(table.cumulative_s, prepend=0)
    for row, length in enumerate((40_000, 12_000, 900)):
        assert weights[table.file == row].sum() == pytest.approx(length / RATE)


def test_cut_folder_jitter_moves_segments_inside_their_files(audio: Path) -> None:
    still, moved = (_clips(audio, hop_s=0.05, jitter=jitter).tables[0] for jitter in (0.0, 1.0))
    assert len(still.start) == len(moved.start)
    inside = moved.file < 2
    shift = (moved.start - still.start)[inside]
    assert shift.min() >= 0
    assert shift.max() <= round(0.05 * RATE)
    assert len(set(shift.tolist())) > 5
    ends = np.array([40_000, 12_000])[moved.file[inside]]
    assert (moved.start[inside] + SIZE <= ends).all()


def test_texts_are_those_beside_the_audio_and_follow_use_caption(
    latents: Path, config_file: Path
) -> None:
    config = _config(config_file)
    dataset, without = (
        LatentDataset([latents], config, seed=1, use_caption=use) for use in (True, False)
    )
    prompts: dict[str, set[tuple[str, str]]] = {}
    for draw in range(30):
        metadata = dataset[draw][1]
        name = Path(metadata["audio_path"]).name
        pair = (metadata["prompt"], without[draw][1]["prompt"])
        prompts.setdefault(name, set()).add(pair)
    assert prompts["long.wav"] == {("说的话 spoken", "说的话 spoken")}
    assert prompts["mono.wav"] == {("a caption", "")}
    assert prompts["other.wav"] == {("", "")}
    texts = list(dataset.texts())
    assert set(texts) == {(None, "说的话 spoken"), ("a caption", None), (None, None)}
    assert len(texts) == sum(folder.entry.segments for folder in dataset.folders)
    assert texts.count((None, "说的话 spoken")) == 10  # the segments of long.wav


def test_metadata_has_the_keys_of_the_audio_path_with_latents(
    latents: Path, config_file: Path
) -> None:
    metadata = LatentDataset([latents], _config(config_file), seed=0, compute_rolloff=True)[7][1]
    assert set(metadata) == {
        "lr_latent", "audio_path", "lr_cutoff_hz", "lr_passband_hz", "hr_end_hz",
        "rolloff_low", "rolloff_high",
        "transcript", "caption", "prompt", "seconds_start", "seconds_total", "draw",
    }  # fmt: skip
    assert Path(metadata["audio_path"]).is_file()
    assert metadata["draw"] == 7
    plain = LatentDataset([latents], _config(config_file), seed=0)[7][1]
    assert set(metadata) - set(plain) == {"rolloff_low", "rolloff_high"}


# --- texts come later -----------------------------------------------------------------------------


def _prompts(root: Path, config_file: Path, **more: Any) -> dict[str, str]:
    """Relative path -> prompt, over all draws."""
    dataset = LatentDataset([root], _config(config_file), seed=1, **more)
    items = [dataset[draw][1] for draw in range(400)]
    found = {"/".join(Path(m["audio_path"]).parts[-2:]): m["prompt"] for m in items}
    assert set(dataset.texts()) == {(m["caption"], m["transcript"]) for m in items}
    return found


@pytest.fixture
def own_audio(audio: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audio, tmp_path / "own"))


def test_texts_that_come_after_encoding_count_and_cost_nothing(
    own_audio: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = _encode(own_audio, tmp_path / "latents", config_file)
    assert _prompts(latents, config_file)["b/other.wav"] == ""
    (own_audio / "b/other.txt").write_text("later", encoding="utf-8")
    (own_audio / "a/long.txt").unlink()
    records = [CaptionRecord("mono.wav", "changed", 0, 1), CaptionRecord("short.wav", "new")]
    table = "".join(record.to_line() for record in records)
    (own_audio / "a/captions.jsonl").write_text(table, encoding="utf-8")
    expected = {
        "a/long.wav": "", "a/mono.wav": "changed", "a/short.wav": "new", "b/other.wav": "later",
    }  # fmt: skip
    assert _prompts(latents, config_file) == expected

    written = {path: path.stat().st_mtime_ns for path in latents.rglob("*.safetensors")}
    capsys.readouterr()
    _encode(own_audio, latents, config_file)
    assert "other texts than before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in written} == written
    own_audio.rename(tmp_path / "moved")  # as on a machine without the audio
    assert _prompts(latents, config_file) == expected
    _encode(tmp_path / "moved", latents, config_file)  # the same audio elsewhere
    assert {path: path.stat().st_mtime_ns for path in written} == written
    (tmp_path / "moved/b/other.txt").write_text("there", encoding="utf-8")
    assert _prompts(latents, config_file)["b/other.wav"] == "there"


def test_caption_files_may_be_given_to_training_from_latents(
    own_audio: Path, config_file: Path, tmp_path: Path
) -> None:
    latents = _encode(own_audio, tmp_path / "latents", config_file)
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    files[0].write_text(CaptionRecord("long.wav", "given").to_line(), encoding="utf-8")
    files[1].write_text("", encoding="utf-8")
    prompts = _prompts(latents, config_file, caption_files=files)
    assert prompts["a/long.wav"] == "given 说的话 spoken"
    assert prompts["a/mono.wav"] == ""
    with pytest.raises(UserError, match="1 files for the 2 audio folders"):
        LatentDataset([latents], _config(config_file), seed=0, caption_files=files[:1])


def test_captions_of_latents_are_those_of_the_same_seconds_of_audio(audio: Path) -> None:
    """Where a file's end lies inside a segment, too."""
    clips = _clips(audio)
    table, files = clips.tables[0], clips.reader.index.files_of(0)
    for segment, (row, start) in enumerate(zip(table.file, table.start, strict=True)):
        manifest = SimpleNamespace(encoding={"sample_rate": RATE, "sample_size": SIZE})
        folder = LatentFolder.__new__(LatentFolder)
        vars(folder).update(table=table, manifest=manifest, root=Path(), number=0)
        end_s = min((start + SIZE) / RATE, clips.reader.index.duration_s[files[row]])
        expected = (max(start, 0) / RATE, pytest.approx(end_s))
        assert folder.span_s(segment) == expected


def test_set_of_the_format_before_is_trained_on_and_finished(
    own_audio: Path, config_file: Path, tmp_path: Path
) -> None:
    """Its identity counted the texts and the place of the audio."""
    latents = _encode(own_audio, tmp_path / "latents", config_file)
    manifest = Manifest.load(latents)
    tables = [SegmentTable.load(folder_path(latents, k), manifest.folders[k].segments)
              for k in range(2)]  # fmt: skip
    source = encode._source_with_texts(manifest.source, tables)
    older = manifest.model_copy(update={"format": "saga_sr latents 2", "source": source})
    for path in sorted(latents.rglob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        write_shard(path, tensors, older)
    older.save(latents)
    (own_audio / "b/other.txt").write_text("later", encoding="utf-8")
    assert _prompts(latents, config_file)["b/other.wav"] == "later"
    written = _shards(latents)
    shard_path(latents, 0, 1).unlink()
    _encode(own_audio, latents, config_file)
    assert _shards(latents) == written


def test_other_audio_is_said_in_words(own_audio: Path, config_file: Path, tmp_path: Path) -> None:
    latents = _encode(own_audio, tmp_path / "latents", config_file)
    soundfile.write(own_audio / "a/mono.wav", np.zeros(12_001), RATE)
    with pytest.raises(UserError, match=r"audio files are others") as error:
        _encode(own_audio, latents, config_file)
    assert not re.search("[0-9a-f]{64}", str(error.value))


# --- draws --------------------------------------------------------------------------------------


def test_dataset_folders_and_sets_are_drawn_equally_often(
    audio: Path, latents: Path, config_file: Path, tmp_path: Path
) -> None:
    second = _encode(audio, tmp_path / "second", config_file, seed=1)
    dataset = LatentDataset([latents, second], _config(config_file), seed=0)
    counts = np.bincount([dataset.pick(draw)[0] for draw in range(2000)], minlength=4) / 2000
    np.testing.assert_allclose(counts, 0.25, atol=0.04)


def test_dataset_is_the_same_in_workers_and_after_pickling(
    latents: Path, config_file: Path
) -> None:
    dataset = LatentDataset([latents], _config(config_file), seed=0)
    expected = dataset[3]
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 20_000
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=DrawSampler(2, start=3), num_workers=1, collate_fn=collate
    )
    hr, metadata = next(iter(loader))
    for latent, values in ((hr[0], metadata[0]), copy[3]):
        assert torch.equal(latent, expected[0])
        assert torch.equal(values["lr_latent"], expected[1]["lr_latent"])
        assert values["prompt"] == expected[1]["prompt"]


def test_dataset_overfit_repeats_so_many_items(latents: Path, config_file: Path) -> None:
    dataset = LatentDataset([latents], _config(config_file), seed=0, overfit_clips=2)
    assert torch.equal(dataset[1][0], dataset[5][0])
    assert dataset[5][1]["draw"] == 5


# --- stopped and started ------------------------------------------------------------------------


def _shards(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*.safetensors"))
    }


def test_pre_encode_restarted_writes_only_what_is_missing(
    audio: Path, latents: Path, config_file: Path, tmp_path: Path
) -> None:
    output = _encode(audio, tmp_path / "latents", config_file)
    whole = _shards(output)
    assert whole == _shards(latents)
    lost, cut = shard_path(output, 0, 1), shard_path(output, 0, 2)
    lost.unlink()
    os.truncate(cut, cut.stat().st_size - 10)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    with pytest.raises(UserError, match=r"1 of 4 shards are not there yet"):
        LatentDataset([output], _config(config_file), seed=0)
    _encode(audio, output, config_file)
    assert _shards(output) == whole
    rewritten = {p for p in before if p.stat().st_mtime_ns != before[p]}
    assert rewritten == {cut}


def test_pre_encode_killed_at_any_moment_is_finished_by_the_same_command(
    audio: Path, config_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents"
    arguments = (audio, output, config_file)
    process = multiprocessing.get_context("fork").Process(
        target=_encode, args=arguments, kwargs={"shard_segments": 1}
    )
    process.start()
    deadline = time.monotonic() + 300  # long: it ends with the third shard
    while not shard_path(output, 0, 2).exists() and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.kill()
    process.join()
    assert shard_path(output, 0, 2).exists()
    undisturbed = _encode(audio, tmp_path / "undisturbed", config_file, shard_segments=1)
    _encode(audio, output, config_file, shard_segments=1)
    assert _shards(output) == _shards(undisturbed)


def _encode_as_rank(rank: int, port: int, arguments: tuple[Path, Path, Path]) -> None:
    """One of two processes, as a cluster's launcher starts them."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    _encode(*arguments, devices=2)


def test_pre_encode_two_processes_make_the_same_set(
    audio: Path, latents: Path, config_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_encode_as_rank, args=(rank, port, (audio, output, config_file)))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert _shards(output) == _shards(latents)


# --- refusals -----------------------------------------------------------------------------------


def test_pre_encode_other_arguments_in_the_same_folder_are_listed(
    audio: Path, latents: Path, config_file: Path
) -> None:
    with pytest.raises(UserError, match=r"seed: 0 -> 7"):
        _encode(audio, latents, config_file, seed=7)


def test_pre_encode_folder_with_other_files_is_refused(
    audio: Path, config_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(UserError, match=r"thesis\.doc"):
        _encode(audio, tmp_path, config_file)


def test_pre_encode_random_autoencoder_is_refused(audio: Path, tmp_path: Path) -> None:
    config_file = tmp_path / "vae.json"
    config_file.write_text(json.dumps(tiny_vae()), encoding="utf-8")
    with pytest.raises(UserError, match="--pretransform_ckpt"):
        _encode(audio, tmp_path / "latents", config_file)


@pytest.mark.parametrize(
    "wrong", [{"variants": 0}, {"jitter": 2}, {"hop_s": 0}, {"batch_size": 0}, {"seed": -1}]
)
def test_pre_encode_impossible_flags_are_named(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} is"):
        parse_options(_arguments(tmp_path, tmp_path, tmp_path, **wrong))


@pytest.mark.parametrize("kinds", [["residue"], ["codec", "codec"]])
def test_degradations_that_say_nothing_are_refused(kinds: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--degradations"):
        parse_options([*_arguments(tmp_path, tmp_path, tmp_path), "--degradations", *kinds])


@pytest.mark.parametrize("flag", ["--augment", "--lowpass_resample", "--lowpass_on_device"])
def test_training_flags_without_effect_on_latents_are_refused(
    latents: Path, config_file: Path, flag: str
) -> None:

    folders = ["--train_dir", str(latents), "--model_config", str(config_file)]
    with pytest.raises(UserError, match=f"{flag}: without effect on prepared latents"):
        open_training_data(train_options([*folders, flag]), _config(config_file))


def test_pre_encode_help_needs_no_torch() -> None:
    program = (
        "import runpy, sys; sys.argv = ['pre_encode', '--help']\n"
        "try: runpy.run_module('saga_sr.pre_encode', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--variants" in done.stdout


def test_dataset_other_segment_length_or_pretransform_is_listed(
    latents: Path, config_file: Path
) -> None:
    other = parse_model_config(
        tiny_demo(sample_size=8192, model__pretransform__config__power=0.123)
    )
    with pytest.raises(UserError, match=r"power: .* -> 0\.123(.|\n)*sample_size: 4096 -> 8192"):
        LatentDataset([latents], other, seed=0)
    LatentDataset([latents], _config(config_file), seed=0).check_weights(
        built(tiny_demo()).pretransform
    )


def test_dataset_another_vae_is_refused_and_the_same_one_accepted(
    audio: Path, tmp_path: Path
) -> None:
    config_file = tmp_path / "vae.json"
    config_file.write_text(json.dumps(tiny_vae()), encoding="utf-8")
    model = built(tiny_vae())
    saved = tmp_path / "vae.ckpt"
    torch.save({"state_dict": model.pretransform.model.state_dict()}, saved)
    output = _encode(audio, tmp_path / "latents", config_file, pretransform_ckpt=saved)
    dataset = LatentDataset([output], _config(config_file), seed=0)
    dataset.check_weights(model.pretransform)
    dataset.check_weights(model.half().float().pretransform)
    with pytest.raises(UserError, match="other weights"):
        dataset.check_weights(built(tiny_vae(), seed=1).pretransform)


def test_probe_weights_do_not_depend_on_the_decoder() -> None:
    model, other = built(tiny_vae()), built(tiny_vae())
    with torch.no_grad():
        for parameter in other.pretransform.model.decoder.parameters():
            parameter.add_(1.0)
    first, second = probe_weights(model.pretransform), probe_weights(other.pretransform)
    assert first == second
    fold_weight_norm(model)
    with torch.no_grad():
        next(other.pretransform.model.encoder.parameters()).mul_(1.01)
    assert not same_weights(first, probe_weights(other.pretransform))


# --- damage -------------------------------------------------------------------------------------


@pytest.fixture
def copied(latents: Path, tmp_path: Path) -> Path:
    for path in latents.rglob("*"):
        if path.is_file():
            target = tmp_path / "copy" / path.relative_to(latents)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "copy"


def _read_all(root: Path, config: ModelConfig) -> None:
    dataset = LatentDataset([root], config, seed=0)
    for draw in range(24):
        dataset[draw]


def _refusal(root: Path, config: ModelConfig) -> str:
    """What a `UserError` says, or nothing where all could be read."""
    try:
        _read_all(root, config)
    except UserError as error:
        return str(error)
    return ""


def test_damaged_files_are_errors_that_name_them_and_never_tracebacks(
    copied: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a set, cut, emptied, overwritten at random or gone: an error or good data."""
    monkeypatch.setattr("saga_sr.audio.file.RETRY_DELAY_S", 0.0)
    config, rng = _config(config_file), np.random.default_rng(0)
    refusals = []
    for path in sorted(p for p in copied.rglob("*") if p.is_file()):
        good = path.read_bytes()
        position = int(rng.integers(min(len(good), 200)))
        for bad in (None, b"", good[: len(good) // 2], good[:position] + b"\xff\x80" * 8):
            path.unlink(missing_ok=True)
            if bad is not None:
                path.write_bytes(bad)
            refusals.append(_refusal(copied, config))
        path.write_bytes(good)
    assert sum(bool(refusal) for refusal in refusals) > 40
    assert all(str(copied) in refusal for refusal in refusals if refusal)
    assert _refusal(copied, config) == ""


def test_shard_of_another_set_is_refused(copied: Path, config_file: Path) -> None:
    path = shard_path(copied, 0, 0)
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    manifest = Manifest.load(copied).model_copy(update={"seed": 99})
    write_shard(path, tensors, manifest)
    with pytest.raises(UserError, match="another set"):
        _read_all(copied, _config(config_file))


def test_is_latent_folder_tells_latents_from_audio(latents: Path, audio: Path) -> None:
    assert is_latent_folder(latents)
    assert not is_latent_folder(audio)


# --- size ---------------------------------------------------------------------------------------


def test_set_of_a_million_segments_opens_quickly_in_bounded_memory(tmp_path: Path) -> None:
    """1,000,000 segments: about 1,650 hours at the paper's segment length."""
    count, per_shard = 1_000_000, 8192
    config = parse_model_config(text_and_rolloff(tiny_demo()))
    manifest = Manifest(
        encoding=encoding_of(config),
        weights_probe=(), latent_dim=1, latent_length=1, dtype="float16", precision="32-true",
        variants=1, hop_s=SIZE / RATE, jitter=0.0, seed=0, shard_segments=per_shard, source="",
        lowpass=LowpassEntry(**{k: v for k, v in vars(LowpassOptions()).items()}),
        folders=(FolderEntry(audio_dir="/audio", segments=count, hours=1650.0),),
    )  # fmt: skip
    names = PackedNames.pack([b"file-%06d.wav" % k for k in range(50_000)])
    texts = PackedNames.pack([b"text %06d" % k for k in range(50_000)])
    rows = np.arange(count, dtype=np.int32) // 20
    SegmentTable(
        {
            "start": np.zeros(count, dtype=np.int64), "file": rows,
            "cumulative_s": np.arange(1, count + 1, dtype=np.float64),
            "caption": rows, "transcript": np.full(count, -1, dtype=np.int32),
            "names_blob": names.blob, "names_ends": names.ends,
            "texts_blob": texts.blob, "texts_ends": texts.ends,
        }
    ).save(folder_path(tmp_path, 0))  # fmt: skip
    for shard in range(manifest.shards(0)):
        size = min(per_shard, count - shard * per_shard)
        tensors = {"hr": torch.zeros(size, 1, 1), "lr": torch.zeros(size, 1, 1, 1)}
        tensors |= {
            name: torch.zeros(size, 1) for name in ("lr_cutoff_hz", "lr_passband_hz", "rolloff_low")
        }
        tensors |= {name: torch.zeros(size) for name in ("rolloff_high", "hr_end_hz")}
        write_shard(shard_path(tmp_path, 0, shard), tensors, manifest)
    manifest.save(tmp_path)
    began, held = time.process_time(), _resident_bytes()
    dataset = LatentDataset([tmp_path], config, seed=0)
    segments = {dataset.pick(draw)[1] for draw in range(500)}
    prompts = {dataset[draw][1]["prompt"] for draw in range(500)}
    assert time.process_time() - began < 5.0
    assert _resident_bytes() - held < 60e6
    assert len(segments) > 490
    assert len(prompts) > 450


def _resident_bytes() -> float:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
