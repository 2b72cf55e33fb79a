"""A comparison picture shows what is in the audio, on scales that all panels share."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor

from saga_sr.audio.spectrogram import (
    RANGE_DB,
    comparison_figure,
    comparison_image,
    draw_comparison,
    spectrogram_db,
)
from saga_sr.support.errors import UserError

RATE = 44100


def tone(hz: float, amplitude: float = 1.0, seconds: float = 0.5, channels: int = 1) -> Tensor:
    time_s = torch.arange(round(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * torch.pi * hz * time_s).repeat(channels, 1)


@pytest.mark.parametrize("amplitude", [1.0, 0.1])
def test_spectrogram_of_a_tone_peaks_at_its_frequency_and_level(amplitude: float) -> None:
    hz = 300 * RATE / 2048
    level_db = spectrogram_db(tone(hz, amplitude, channels=2))
    middle = level_db[:, level_db.shape[1] // 2]
    assert middle.argmax() == 300
    assert middle.max() == pytest.approx(20 * np.log10(amplitude), abs=0.05)


def test_spectrogram_of_a_long_clip_has_a_bounded_width() -> None:
    assert spectrogram_db(torch.zeros(1, 60 * RATE)).shape[1] < 1300


@pytest.mark.parametrize("num_panels", [1, 2, 3, 4, 7])
def test_comparison_any_number_of_panels_gives_a_picture(num_panels: int) -> None:
    panels = {f"panel {i}": tone(1000 * (i + 1)) for i in range(num_panels)}
    image = comparison_image(panels, RATE, 4000.0, "title")
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.std() > 1


def test_comparison_panels_share_the_scale_and_carry_title_and_cutoff() -> None:
    panels = {"loud": tone(1000), "quiet": tone(1000, 0.01), "short": tone(1000, seconds=0.1)}
    figure = draw_comparison(panels, RATE, 4000.0)
    axes = figure.axes[:3]
    limits = {image.get_clim() for one in axes for image in one.get_images()}
    assert len(limits) == 1
    low, high = limits.pop()
    assert high - low == pytest.approx(RANGE_DB)
    assert high == pytest.approx(0, abs=1.5)
    assert [one.get_title() for one in axes] == ["loud", "quiet", "short"]
    assert {float(np.asarray(one.get_lines()[0].get_ydata())[0]) for one in axes} == {4.0}
    assert {one.get_xlim() for one in axes} == {(0.0, 0.5)}
    assert {one.get_ylim() for one in axes} == {(0.0, 22.05)}


def test_comparison_without_a_cutoff_draws_no_line() -> None:
    figure = draw_comparison({"one": tone(1000)}, RATE, None)
    assert figure.axes[0].get_lines() == []


def test_comparison_of_silence_and_of_a_clip_shorter_than_the_window_is_drawn() -> None:
    image = comparison_image({"a": torch.zeros(2, RATE), "b": tone(1000)[:, :100]}, RATE, 4000)
    assert image.std() > 1


def test_comparison_file_is_a_png_and_equal_from_run_to_run(tmp_path: Path) -> None:
    panels = {"one": tone(1000), "two": tone(9000)}
    for name in ("a.png", "b.png"):
        comparison_figure(panels, RATE, 4000.0, tmp_path / "new" / name)
    first, second = (
        matplotlib.image.imread(tmp_path / "new" / name) for name in ("a.png", "b.png")
    )
    np.testing.assert_array_equal(first, second)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]


def test_comparison_file_in_an_impossible_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file"):
        comparison_figure({"one": tone(1000)}, RATE, None, tmp_path / "file" / "picture.png")


@pytest.mark.parametrize("panels", [{}, {"one": torch.zeros(1, 0)}, {"one": torch.zeros(100)}])
def test_comparison_of_nothing_is_refused(panels: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="panel"):
        draw_comparison(panels, RATE, None)
