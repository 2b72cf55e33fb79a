"""Training samples: a function of the draw number, whoever computes them."""

import multiprocessing
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.audio.index import AudioIndex
from saga_sr.data.caption_table import CaptionRecord, CaptionTable
from saga_sr.data.fixed_clips import FixedClips, RepeatedClips
from saga_sr.dataset import (
    AugmentOptions,
    ClipReader,
    DrawSampler,
    Item,
    SAGASRDataset,
    collate,
    degrade,
)
from saga_sr.degradation import Degradations
from saga_sr.lowpass import (
    FAMILIES,
    LowpassOptions,
    apply_lowpass,
    draw_lowpass,
    field_lowpass,
)
from saga_sr.rolloff import N_FFT, spectral_rolloff
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator

RATE = 44100
SIZE = 4096


def _noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((frames, channels))


def _write(path: Path, audio: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def _index(*folders: Path) -> AudioIndex:
    return AudioIndex.scan(folders, cache_dir=folders[0].parent / "cache", progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with what a corpus may hold: short and long, mono to five channels, any rate."""
    root = tmp_path_factory.mktemp("corpus")
    _write(root / "a" / "long.flac", _noise(60_000))
    _write(root / "a" / "deep" / "mono.ogg", _noise(30_000, 1), 22050)
    _write(root / "a" / "short.wav", _noise(1000, 1))
    _write(root / "b" / "phone.wav", _noise(8000, 1), 8000)
    _write(root / "b" / "studio.wav", _noise(60_000, 2), 192_000)
    _write(root / "b" / "five.wav", _noise(20_000, 5))
    _write(root / "b" / "silent.wav", np.zeros((20_000, 2)))
    return root


@pytest.fixture(scope="module")
def reader(corpus: Path) -> ClipReader:
    return ClipReader(_index(corpus / "a", corpus / "b"), SIZE)


def _same(first: Item, second: Item) -> bool:
    (hr, metadata), (other_hr, other_metadata) = first, second
    tensors = torch.equal(hr, other_hr) and torch.equal(
        metadata["lr_audio"], other_metadata["lr_audio"]
    )
    return tensors and _plain(metadata) == _plain(other_metadata)


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key != "lr_audio"}


# --- items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
def test_dataset_every_file_of_the_corpus_gives_a_clean_clip(
    reader: ClipReader, channels: int
) -> None:
    dataset = SAGASRDataset(
        ClipReader(reader.index, SIZE, channels=channels), seed=1, compute_rolloff=True
    )
    seen = set()
    for draw in range(40):
        hr, metadata = dataset[draw]
        seen.add(Path(metadata["audio_path"]).name)
        assert hr.shape == metadata["lr_audio"].shape == (channels, SIZE)
        assert hr.dtype == metadata["lr_audio"].dtype == torch.float32
        assert torch.isfinite(hr).all()
        assert torch.isfinite(metadata["lr_audio"]).all()
        assert metadata["lr_cutoff_hz"] >= 2000
        assert 0 <= metadata["rolloff_high"] < RATE / 2
    assert {"long.flac", "mono.ogg", "phone.wav", "studio.wav", "five.wav", "silent.wav"} <= seen


def test_dataset_metadata_holds_the_keys_of_the_users_plan(reader: ClipReader) -> None:
    hr, metadata = SAGASRDataset(reader, seed=1, compute_rolloff=True)[5]
    assert set(metadata) == {
        "lr_audio", "audio_path", "lr_cutoff_hz", "lr_passband_hz", "hr_end_hz",
        "rolloff_low", "rolloff_high",
        "transcript", "caption", "prompt", "seconds_start", "seconds_total", "draw",
    }  # fmt: skip
    assert metadata["draw"] == 5
    assert metadata["seconds_start"] == 0.0
    assert metadata["seconds_total"] == SIZE / RATE
    assert metadata["rolloff_high"] == float(spectral_rolloff(hr[None], RATE))
    assert metadata["rolloff_low"] == float(spectral_rolloff(metadata["lr_audio"][None], RATE))
    without = SAGASRDataset(reader, seed=1)[5][1]
    assert set(metadata) - set(without) == {"rolloff_low", "rolloff_high"}


def test_dataset_lr_is_the_low_passed_hr(reader: ClipReader) -> None:
    options = LowpassOptions(families=("butter",), min_order=4, max_order=4, max_cutoff_hz=2000)
    hr, metadata = SAGASRDataset(reader, seed=2, lowpass=options)[0]
    assert metadata["lr_cutoff_hz"] == 2000
    spectrum = torch.fft.rfft(metadata["lr_audio"] * torch.hann_window(SIZE)).abs()
    original = torch.fft.rfft(hr * torch.hann_window(SIZE)).abs()
    hz = torch.arange(SIZE // 2 + 1) * RATE / SIZE
    assert 1200 < metadata["lr_passband_hz"] < 2000
    kept, removed = (hz > 300) & (hz < 1000), hz > 8000
    assert spectrum[:, kept].norm() == pytest.approx(float(original[:, kept].norm()), rel=0.02)
    assert spectrum[:, removed].norm() < 1e-3 * original[:, removed].norm()


def test_dataset_silence_stays_silence(reader: ClipReader) -> None:
    silent = [
        item
        for item in map(SAGASRDataset(reader, seed=1, compute_rolloff=True).__getitem__, range(40))
        if item[1]["audio_path"].endswith("silent.wav")
    ]
    assert silent
    for hr, metadata in silent:
        assert not hr.any()
        assert not metadata["lr_audio"].any()
        assert metadata["rolloff_high"] == 0.0


def test_dataset_short_file_lies_whole_and_anywhere_in_the_segment(tmp_path: Path) -> None:
    audio = _noise(1000, 1)
    _write(tmp_path / "in" / "short.wav", audio)
    dataset = SAGASRDataset(ClipReader(_index(tmp_path / "in"), SIZE, channels=1), seed=0)
    offsets = []
    for draw in range(40):
        hr, _ = dataset[draw]
        offset = int(hr[0].nonzero()[0])
        offsets.append(offset)
        np.testing.assert_array_equal(hr[0, offset : offset + 1000], audio[:, 0].astype("f4"))
        assert hr[0].count_nonzero() == 1000
    assert max(offsets) > 2500
    assert min(offsets) < 600


def test_dataset_long_file_is_cropped_uniformly(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "ramp.wav", np.linspace(0.1, 0.9, 50_000)[:, None])
    dataset = SAGASRDataset(ClipReader(_index(tmp_path / "in"), 2000, channels=1), seed=0)
    firsts = np.array([float(dataset[draw][0][0, 0]) for draw in range(80)])
    assert firsts.min() < 0.14
    assert firsts.max() > 0.82
    assert firsts.mean() == pytest.approx(0.1 + 0.8 * 0.48, abs=0.08)


def test_reader_channels_follow_the_documented_rule(tmp_path: Path) -> None:
    constants = np.tile(np.arange(1, 6) / 10, (SIZE, 1))
    for channels in (1, 2, 5):
        _write(tmp_path / "in" / f"{channels}.wav", constants[:, :channels])
    index = _index(tmp_path / "in")  # positions: 1, 2 and 5 channels

    def levels(model_channels: int, position: int, seed: int) -> tuple[float, ...]:
        reader = ClipReader(index, 100, channels=model_channels)
        rng = np.random.default_rng(seed)
        audio = reader.read(reader.draw_start(rng, position, 100), rng)
        return tuple(round(float(level), 3) for level in audio[:, 50])

    assert levels(2, 0, 0) == (0.1, 0.1)
    assert levels(2, 1, 0) == levels(2, 2, 0) == (0.1, 0.2)
    assert {levels(1, 1, seed) for seed in range(20)} == {(0.1,), (0.2,)}
    assert {levels(1, 2, seed) for seed in range(60)} == {(k / 10,) for k in range(1, 6)}


def test_dataset_nan_in_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    audio = _noise(SIZE)
    audio[:, 0] = np.nan
    _write(tmp_path / "in" / "broken.wav", audio)
    with pytest.raises(UserError, match=r"broken\.wav"):
        SAGASRDataset(ClipReader(_index(tmp_path / "in"), SIZE), seed=0)[0]


# --- the low-pass left to the training device ----------------------------------------------------

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]
DRAWS = range(40)


def _deferred(reader: ClipReader) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """A batch of draws as it comes out of a worker process."""
    dataset = SAGASRDataset(reader, seed=1, compute_rolloff=True, defer_lowpass=True)
    return collate([pickle.loads(pickle.dumps(dataset[draw])) for draw in DRAWS])


@pytest.mark.parametrize("device", DEVICES)
def test_degrade_batch_on_a_device_equals_the_workers_items(
    reader: ClipReader, device: str
) -> None:
    hr, metadata = _deferred(reader)
    assert {item["lowpass"]["family"] for item in metadata} == set(FAMILIES)
    assert len({item["lowpass"]["order"] for item in metadata}) > 5
    assert not any("lr_audio" in item or "rolloff_low" in item for item in metadata)
    found = degrade(hr.to(device), metadata, RATE)
    in_worker = SAGASRDataset(reader, seed=1, compute_rolloff=True)
    for draw, item in zip(DRAWS, found, strict=True):
        same_hr, expected = in_worker[draw]
        lr, expected_lr = item.pop("lr_audio"), expected.pop("lr_audio")
        assert torch.equal(hr[draw], same_hr)
        assert lr.device.type == device
        assert (lr.cpu() - expected_lr).norm() <= 1e-3 * expected_lr.norm()  # -60 dB
        one_bin_hz = RATE / N_FFT
        assert abs(item.pop("rolloff_low") - expected.pop("rolloff_low")) <= one_bin_hz
        assert item == expected


@pytest.mark.parametrize("device", DEVICES)
def test_degrade_is_the_same_under_autocast(reader: ClipReader, device: str) -> None:
    hr, metadata = _deferred(reader)
    plain = degrade(hr.to(device), metadata, RATE)
    with torch.autocast(device, torch.bfloat16):
        under_autocast = degrade(hr.to(device), metadata, RATE)
    for one, other in zip(plain, under_autocast, strict=True):
        assert one["lr_audio"].dtype == torch.float32
        assert torch.equal(one.pop("lr_audio"), other.pop("lr_audio"))
        assert one == other


# --- one property: items are a function of (seed, draw) -------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader_any_number_of_workers_gives_the_same_items(
    reader: ClipReader, workers: int
) -> None:
    dataset = SAGASRDataset(reader, seed=3, compute_rolloff=True)
    loader = DataLoader(
        dataset,
        batch_sampler=DrawSampler(3, start=7),
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers == 1 else None,
    )
    for number, (hr, metadata) in enumerate(islice(loader, 4)):
        assert hr.shape == (3, 2, SIZE)
        for item in range(3):
            expected = dataset[7 + 3 * number + item]
            assert _same((hr[item], metadata[item]), expected)


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (2, 2), (1, 4), (3, 5)])
def test_draw_sampler_ranks_together_take_each_draw_once(batch_size: int, world_size: int) -> None:
    start, batches = 11, 6
    samplers = [DrawSampler(batch_size, start, rank, world_size) for rank in range(world_size)]
    taken = [draw for one in samplers for batch in islice(one, batches) for draw in batch]
    count = batches * batch_size * world_size
    assert sorted(taken) == list(range(start, start + count))
    assert count == batches * samplers[0].draws_per_batch


def test_draw_sampler_ranks_split_every_global_batch_alike() -> None:
    """The global batch of a step is the same set of draws for any split that multiplies to it."""

    def step(batch_size: int, world_size: int, accumulate: int) -> set[int]:
        ranks = [DrawSampler(batch_size, 100, rank, world_size) for rank in range(world_size)]
        return {draw for one in ranks for batch in islice(one, accumulate) for draw in batch}

    assert step(8, 1, 1) == step(4, 2, 1) == step(2, 2, 2) == step(1, 4, 2) == step(1, 1, 8)


def test_draw_sampler_resumed_where_it_stopped_continues_the_sequence() -> None:
    whole = list(islice(DrawSampler(4), 6))
    sampler = DrawSampler(4)
    first = list(islice(sampler, 2))
    resumed = pickle.loads(pickle.dumps(DrawSampler(4, start=2 * sampler.draws_per_batch)))
    assert first + list(islice(resumed, 4)) == whole


@pytest.mark.parametrize("batch_size", [0, -1])
def test_draw_sampler_batch_size_below_one_is_an_error(batch_size: int) -> None:
    with pytest.raises(UserError, match="batch size"):
        DrawSampler(batch_size)


def test_dataset_another_seed_gives_other_items(reader: ClipReader) -> None:
    first, second = SAGASRDataset(reader, seed=0), SAGASRDataset(reader, seed=1)
    assert not any(_same(first[draw], second[draw]) for draw in range(10))
    assert _same(first[3], SAGASRDataset(reader, seed=0)[3])


def test_dataset_overfit_repeats_so_many_items(reader: ClipReader) -> None:
    dataset = SAGASRDataset(reader, seed=0, overfit_clips=3)
    for draw in range(3):
        (hr, metadata), (again, later) = dataset[draw], dataset[draw + 6]
        assert torch.equal(hr, again)
        assert torch.equal(metadata["lr_audio"], later["lr_audio"])
        assert later["draw"] == draw + 6


# --- a disk that fails while training runs --------------------------------------------------------


def test_loader_file_that_vanishes_in_training_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saga_sr.audio.file.RETRY_DELAY_S", 0.0)
    path = _write(tmp_path / "in" / "vanishes.wav", _noise(20_000))
    dataset = SAGASRDataset(ClipReader(_index(tmp_path / "in"), SIZE), seed=0)
    context = multiprocessing.get_context("fork")
    loader = DataLoader(
        dataset,
        batch_sampler=DrawSampler(1),
        num_workers=1,
        collate_fn=collate,
        multiprocessing_context=context,
        prefetch_factor=1,
    )
    batches = iter(loader)
    next(batches)
    path.unlink()
    with pytest.raises(UserError, match=r"vanishes\.wav"):
        list(islice(batches, 5))


# --- text -----------------------------------------------------------------------------------------


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    _write(tmp_path / "in" / "said.wav", _noise(3 * RATE, 1))
    (tmp_path / "in" / "said.txt").write_text("你好 world", encoding="utf-8")
    return tmp_path / "in"


def test_dataset_transcript_is_the_text_file_of_the_same_name(spoken: Path) -> None:
    metadata = SAGASRDataset(ClipReader(_index(spoken), SIZE), seed=0)[0][1]
    assert metadata["transcript"] == "你好 world"
    assert metadata["caption"] is None
    assert metadata["prompt"] == "你好 world"


def test_dataset_without_text_has_the_empty_prompt(reader: ClipReader) -> None:
    metadata = SAGASRDataset(reader, seed=0)[0][1]
    assert (metadata["transcript"], metadata["caption"], metadata["prompt"]) == (None, None, "")


def test_dataset_caption_is_that_of_the_crops_seconds(spoken: Path) -> None:
    table = CaptionTable(
        [CaptionRecord("said.wav", "early", 0, 1.5), CaptionRecord("said.wav", "late", 1.5, 3)]
    )
    index = _index(spoken)
    reader = ClipReader(index, RATE, captions=[table])
    dataset = SAGASRDataset(reader, seed=0)
    captions = set()
    for draw in range(20):
        start = reader.draw_start(_crop_rng(index, draw), 0, RATE).start
        metadata = dataset[draw][1]
        assert metadata["caption"] == ("early" if start + RATE / 2 < 1.5 * RATE else "late")
        assert metadata["prompt"] == f"{metadata['caption']} 你好 world"
        captions.add(metadata["caption"])
    assert captions == {"early", "late"}
    disabled = SAGASRDataset(ClipReader(index, RATE, captions=[table], use_caption=False), seed=0)
    assert disabled[0][1]["prompt"] == "你好 world"


def _crop_rng(index: AudioIndex, draw: int) -> np.random.Generator:
    """The generator of a draw of seed 0, after the file was drawn."""
    rng = numpy_generator("sample", 0, draw)
    index.draw(rng)
    return rng


def test_dataset_transcript_that_is_not_utf8_is_named(spoken: Path) -> None:
    (spoken / "said.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match=r"said\.txt"):
        SAGASRDataset(ClipReader(_index(spoken), SIZE), seed=0)[0]


# --- fixed clips ----------------------------------------------------------------------------------


def test_fixed_clips_are_the_same_every_time_and_spread_over_folders_and_files(
    reader: ClipReader,
) -> None:
    clips = FixedClips(reader, 6, 4000.0, seed=1, compute_rolloff=True)
    again = FixedClips(reader, 6, 4000.0, seed=1, compute_rolloff=True)
    assert len(clips) == 6
    assert all(_same(clips[k], again[k]) for k in range(6))
    paths = [Path(clips[k][1]["audio_path"]) for k in range(6)]
    assert [path.is_relative_to(reader.index.folders[0]) for path in paths] == [True, False] * 3
    assert len(set(paths)) == 6
    draw = SAGASRDataset(reader, 0, compute_rolloff=True)[0][1]
    assert set(clips[0][1]) == set(draw) | {"category"}


def test_fixed_clips_have_the_fields_filter_at_the_given_cutoff(reader: ClipReader) -> None:
    hr, metadata = FixedClips(reader, 3, 8000.0)[0]
    assert metadata["lr_cutoff_hz"] == 8000.0
    assert metadata["lr_passband_hz"] == field_lowpass(8000.0).passband_hz(RATE)
    assert torch.equal(metadata["lr_audio"], apply_lowpass(hr, RATE, field_lowpass(8000.0)))


def test_fixed_clips_more_than_files_are_different_clips(tmp_path: Path) -> None:
    _write(tmp_path / "in" / "one.wav", _noise(50_000))
    clips = FixedClips(ClipReader(_index(tmp_path / "in"), SIZE), 4, 4000.0)
    assert len({float(clips[k][0][0, 0]) for k in range(4)}) == 4


def test_fixed_clips_none_is_an_error(reader: ClipReader) -> None:
    with pytest.raises(UserError, match="at least 1"):
        FixedClips(reader, 0, 4000.0)


# --- augmentation ---------------------------------------------------------------------------------


@pytest.fixture
def tone_index(tmp_path: Path) -> AudioIndex:
    time_s = np.arange(4 * RATE) / RATE
    tone = np.stack([np.sin(2 * np.pi * 1000 * time_s), 0.5 * np.sin(2 * np.pi * 1000 * time_s)], 1)
    _write(tmp_path / "in" / "tone.wav", 0.5 * tone)
    return _index(tmp_path / "in")


def _augmented(index: AudioIndex, draws: int = 20, **options: Any) -> list[torch.Tensor]:
    dataset = SAGASRDataset(ClipReader(index, 8820), seed=0, augment=AugmentOptions(**options))
    return [dataset[draw][0] for draw in range(draws)]


def test_augment_gain_stays_in_its_range_and_below_full_scale(tone_index: AudioIndex) -> None:
    peaks = [float(hr.abs().max()) for hr in _augmented(tone_index, gain_db=12.0)]
    assert min(peaks) < 0.3
    assert min(peaks) > 0.5 * 10 ** (-12.1 / 20)
    assert 0.9 < max(peaks) <= 1.0


def test_augment_swap_and_polarity_change_every_second_clip(tone_index: AudioIndex) -> None:
    louder_right = [
        bool(hr[1].abs().max() > hr[0].abs().max())
        for hr in _augmented(tone_index, swap_channels=True)
    ]
    assert 3 < sum(louder_right) < 17
    plain = _augmented(tone_index)
    flipped = _augmented(tone_index, flip_polarity=True)
    signs = [float((a * b).sum().sign()) for a, b in zip(plain, flipped, strict=True)]
    assert 3 < signs.count(-1.0) < 17


def test_augment_speed_moves_the_pitch_within_its_range(tone_index: AudioIndex) -> None:
    pitches_hz = [
        float(torch.fft.rfft(hr[0] * torch.hann_window(8820), n=RATE).abs().argmax())
        for hr in _augmented(tone_index, max_speed_change=0.25)
    ]
    assert min(pitches_hz) < 900
    assert max(pitches_hz) > 1100
    assert 799 <= min(pitches_hz) <= max(pitches_hz) <= 1251


def test_augment_speed_leaves_no_click_at_the_ends(tone_index: AudioIndex) -> None:
    for hr in _augmented(tone_index, draws=8, max_speed_change=0.25):
        for end in (hr[0, :400], hr[0, -400:]):
            assert end.diff().abs().max() < 1.05 * hr[0, 2000:-2000].diff().abs().max()


def test_augment_mix_adds_a_second_clip(tone_index: AudioIndex) -> None:
    plain = _augmented(tone_index)
    mixed = _augmented(tone_index, mix_probability=1.0)
    assert all(hr.abs().max() <= 1.0 for hr in mixed)
    levels = [float(a.std() / b.std()) for a, b in zip(mixed, plain, strict=True)]
    assert min(levels) < 0.9
    assert max(levels) > 1.1
    half = _augmented(tone_index, mix_probability=0.5)
    changed = [not torch.equal(a, b) for a, b in zip(plain, half, strict=True)]
    assert 3 < sum(changed) < 17


def test_augment_bass_turns_the_bass_of_every_second_clip_and_nothing_above(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (4 * RATE, 1))
    _write(tmp_path / "in" / "noise.wav", noise)
    index = _index(tmp_path / "in")
    plain, turned = (torch.stack(_augmented(index, 40, **o)) for o in ({}, {"bass_db": 15.0}))
    changed = [not torch.equal(a, b) for a, b in zip(plain, turned, strict=True)]
    assert 8 < sum(changed) < 32

    def change_db(low_hz: float, high_hz: float) -> torch.Tensor:
        hz = torch.fft.rfftfreq(plain.shape[-1], 1 / RATE)
        band = (hz > low_hz) & (hz < high_hz)
        power = [torch.fft.rfft(x)[:, 0, band].abs().square().sum(1) for x in (plain, turned)]
        return 10 * (power[1] / power[0]).log10()

    assert change_db(0, 50).min() < -5
    assert change_db(0, 50).max() > 5
    assert change_db(0, 50).abs().max() < 15.1
    assert change_db(8000, 20000).abs().max() < 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"bass_db": -1.0},
        {"gain_db": -1.0},
        {"mix_probability": 1.5},
        {"mix_level_db": 3.0},
        {"max_speed_change": -1},
    ],
)
def test_augment_impossible_option_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="augmentation"):
        AugmentOptions(**wrong)


def test_metadata_says_where_the_spectrum_of_the_clip_itself_ends(tmp_path: Path) -> None:
    """As the metric says it, for the clip that the model gets and not for its file."""
    noise = 0.1 * numpy_generator("end").standard_normal((RATE, 1))
    dull = apply_lowpass(torch.from_numpy(noise.T.copy()).float(), RATE, field_lowpass(9000))
    soundfile.write(tmp_path / "dull.wav", dull.T.numpy(), RATE, "FLOAT")
    reader = ClipReader(AudioIndex.scan([tmp_path], progress=False), 16384, RATE, 1)
    for dataset in (SAGASRDataset(reader, seed=1), FixedClips(reader, 1, 4000)):
        hr, metadata = dataset[0]
        assert metadata["hr_end_hz"] == spectrum_end_hz(hr, RATE)
        assert 8500 < metadata["hr_end_hz"] < 10500


def test_end_of_the_spectrum_is_measured_only_where_it_is_asked_for(reader: ClipReader) -> None:
    measured = SAGASRDataset(reader, seed=1)[3]
    plain = SAGASRDataset(reader, seed=1, measure_end=False)[3]
    assert set(measured[1]) - set(plain[1]) == {"hr_end_hz"}
    del measured[1]["hr_end_hz"]
    assert _same(measured, plain)


@pytest.mark.parametrize("shape", [(2, SIZE), (SIZE,)])
def test_apply_lowpass_filter_has_the_signature_of_the_users_plan(
    reader: ClipReader, shape: tuple[int, ...]
) -> None:
    dataset = SAGASRDataset(reader, seed=1)
    audio = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    lr_audio, cutoff = dataset._apply_lowpass_filter(audio)
    assert isinstance(lr_audio, np.ndarray)
    assert lr_audio.shape == shape
    assert lr_audio.dtype == np.float32
    assert 2000 <= cutoff <= 16000
    power = np.abs(np.fft.rfft(lr_audio)) ** 2
    hz = np.fft.rfftfreq(SIZE, 1 / RATE)
    assert power[..., hz > 1.5 * cutoff].mean() < 0.05 * power[..., hz < 0.5 * cutoff].mean()
    again, same_hz = dataset._apply_lowpass_filter(torch.from_numpy(audio), RATE)
    assert same_hz == cutoff
    assert np.array_equal(again.numpy(), lr_audio)
    cutoffs = {dataset._apply_lowpass_filter(audio * gain)[1] for gain in (1, 0.5, 0.25)}
    assert len(cutoffs) == 3  # every clip has its own


def test_apply_lowpass_filter_draws_what_training_draws(reader: ClipReader) -> None:
    dataset = SAGASRDataset(reader, seed=1)
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    audio = torch.from_numpy(_noise(SIZE).T.copy()).float()
    lr_audio, cutoff = dataset._apply_lowpass_filter(audio, rng=rng)
    rolloff_hz = float(spectral_rolloff(audio[None], RATE))
    lowpass = draw_lowpass(twin, rolloff_hz, dataset.lowpass)
    assert cutoff == lowpass.cutoff_hz
    assert torch.equal(lr_audio, apply_lowpass(audio, RATE, lowpass))


def test_repeated_clips_are_exactly_the_items_that_training_repeats(reader: ClipReader) -> None:
    draws = SAGASRDataset(reader, seed=1, overfit_clips=3, measure_end=False)
    clips = RepeatedClips(draws)
    assert len(clips) == 3
    for clip in range(3):
        hr, metadata = clips[clip]
        assert metadata.pop("hr_end_hz") == spectrum_end_hz(hr, RATE)
        again = draws[clip + 3 * 7]
        assert again[1].pop("draw") == clip + 21
        assert metadata.pop("draw") == clip
        assert _same((hr, metadata), again)
    with pytest.raises(IndexError):
        clips[3]
    with pytest.raises(ValueError, match="repeat no clips"):
        RepeatedClips(SAGASRDataset(reader, seed=1))


def test_categories_are_folders_or_first_subfolders(tmp_path: Path) -> None:
    for name in ("music/a/1.wav", "music/b/2.wav", "speech/3.wav", "speech/x/4.wav"):
        _write(tmp_path / "in" / name, _noise(5000))

    def found(*folders: Path, count: int = 4) -> set[tuple[str, str]]:
        clips = FixedClips(ClipReader(_index(*folders), SIZE), count, 4000.0)
        items = [clips[k][1] for k in range(count)]
        return {(Path(item["audio_path"]).stem, item["category"]) for item in items}

    music, speech = tmp_path / "in" / "music", tmp_path / "in" / "speech"
    expected = {("1", "music"), ("2", "music"), ("3", "speech"), ("4", "speech")}
    assert found(tmp_path / "in") == expected
    assert found(music, speech) == expected
    assert found(music) == {("1", "a"), ("2", "b")}
    assert found(music / "a") == {("1", "")}
    twins = {category for _, category in found(music / "a", tmp_path / "in" / "speech" / "x")}
    assert twins == {"a", "x"}


# ---------------------------------------------------------------------------- other degradations
def test_other_degradations_are_functions_of_the_draw_and_leave_the_clips_alone(corpus):
    reader = ClipReader(_index(corpus / "a"), 2 * SIZE)
    plain = SAGASRDataset(reader, seed=3, compute_rolloff=True)
    kinds = Degradations(("lowpass", "codec", "resampler", "residue"))
    other, again = (
        SAGASRDataset(reader, seed=3, compute_rolloff=True, degradations=kinds) for _ in range(2)
    )
    made_by = set()
    for draw in range(12):
        (hr, found), (_, expected), (same_hr, _) = other[draw], again[draw], plain[draw]
        assert torch.equal(hr, same_hr)
        assert torch.equal(found["lr_audio"], expected["lr_audio"])
        assert found["lr_audio"].shape == hr.shape
        assert found["lr_passband_hz"] <= 1.05 * found["lr_cutoff_hz"] < RATE / 2
        assert "lowpass" not in found
        measured = spectral_rolloff(found["lr_audio"][None], RATE).item()
        assert found["rolloff_low"] == pytest.approx(measured)
        made_by.add(str(found.get("degradation", "lowpass")).partition("-")[0])
    assert len(made_by) > 2


def test_residue_alone_changes_some_low_passed_clips_a_little(reader):
    plain = SAGASRDataset(reader, seed=3)
    other = SAGASRDataset(reader, seed=3, degradations=Degradations(("lowpass", "residue")))
    changes = []
    for draw in range(12):
        one, two = plain[draw][1], other[draw][1]
        assert one["lr_cutoff_hz"] == two["lr_cutoff_hz"]
        changes.append((one["lr_audio"] - two["lr_audio"]).abs().max().item())
    assert 0 < sum(change > 0 for change in changes) < 12
    assert max(changes) < 0.05


def test_without_text_no_transcript_is_looked_for(spoken: Path) -> None:
    (spoken / "said.txt").write_bytes("é".encode("latin-1"))
    item = SAGASRDataset(ClipReader(_index(spoken), SIZE, with_text=False), seed=0)[0]
    assert item[1]["transcript"] is None
