"""Pictures: the spectrograms of several versions of one clip, side by side.

One picture answers at a glance what no number does: whether the new band continues what is below
the cutoff, when it appears, and whether a line is left at the seam. All panels of a picture share
their time, frequency and colour scales, so that what looks louder is louder. Colours run over
100 dB down from the loudest point of all panels. Validation, `upsample` and `evaluate` draw with
this.

matplotlib is used through its Agg canvas and never through pyplot: no display is needed, no global
state is touched, and figures are freed when they go out of scope.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from saga_sr.support.files import atomic_path

RANGE_DB = 100.0
FLOOR_DB = -150.0  # what digital silence is taken for
MAX_COLUMNS = 3
DPI = 110
_N_FFT = 2048
_MAX_FRAMES = 1200  # more columns than a panel has pixels
COLOUR_MAP = "magma"
_PANEL_IN = (4.0, 2.8)  # width and height with what is between panels, in inches
_LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 0.6, 0.95, 0.5


def comparison_figure(
    panels: Mapping[str, Tensor],
    sample_rate: int,
    cutoff_hz: float | None,
    path: Path | str,
    title: str = "",
) -> None:
    """Write the panels of `comparison_image` as a PNG file, whole or not at all.

    Raises:
        UserError: the folder cannot be made.
        ValueError: no panels, or an empty clip.
    """
    figure = draw_comparison(panels, sample_rate, cutoff_hz, title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def comparison_image(
    panels: Mapping[str, Tensor], sample_rate: int, cutoff_hz: float | None, title: str = ""
) -> np.ndarray:
    """The panels as an RGB picture [H, W, 3] uint8, for TensorBoard's ``add_image(..., "HWC")``.

    Args:
        panels: title -> audio [C, T] in [-1, 1]; channels are averaged in power, lengths may
            differ.
        sample_rate: of all panels, in Hz.
        cutoff_hz: where to draw the dashed line; None draws none.
        title: above all panels.
    """
    figure = draw_comparison(panels, sample_rate, cutoff_hz, title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_comparison(
    panels: Mapping[str, Tensor], sample_rate: int, cutoff_hz: float | None, title: str = ""
) -> Figure:
    """The matplotlib figure behind `comparison_figure` and `comparison_image`."""
    if not panels:
        raise ValueError("a comparison needs at least one panel")
    levels_db = {name: spectrogram_db(audio) for name, audio in panels.items()}
    loudest_db = max(top_of_scale_db(level) for level in levels_db.values())
    duration_s = max(audio.shape[-1] for audio in panels.values()) / sample_rate
    rows = ceil(len(panels) / MAX_COLUMNS)
    columns = ceil(len(panels) / rows)
    figure, grid = _grid(rows, columns, has_title=bool(title))
    for axes, (name, level_db) in zip(grid.flat, levels_db.items(), strict=False):
        panel_s = panels[name].shape[-1] / sample_rate
        image = _draw_panel(axes, level_db, panel_s, sample_rate, loudest_db)
        axes.set_title(name, fontsize=10)
        if cutoff_hz is not None:
            axes.axhline(cutoff_hz / 1000, color="white", linestyle="--", linewidth=0.9, alpha=0.8)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    _label(figure, grid, image, duration_s, title)
    return figure


def spectrogram_db(audio: Tensor) -> np.ndarray:
    """Power spectrogram [C, T] -> [F, N] in dB: 0 dB is a full-scale sine; at least -150 dB.

    The hop grows with the length of the clip, so that a picture of an hour costs little more than
    one of a second.
    """
    audio = audio.detach().float().cpu()
    if audio.dim() != 2 or audio.shape[-1] == 0:
        raise ValueError(f"a panel is audio [channels, samples], not {list(audio.shape)}")
    hop = max(_N_FFT // 8, ceil(audio.shape[-1] / _MAX_FRAMES))
    window = torch.hann_window(_N_FFT)
    spectrum = torch.stft(
        audio, _N_FFT, hop, window=window, pad_mode="constant", return_complex=True
    )
    power = (2 / window.sum() * spectrum.abs()).square().mean(dim=0)
    return (10 * power.clamp(min=10 ** (FLOOR_DB / 10)).log10()).numpy()


def top_of_scale_db(level_db: np.ndarray) -> float:
    """What the brightest colour means: the loudest point, but so that silence is the darkest."""
    return max(float(level_db.max()), FLOOR_DB + RANGE_DB)


def _grid(rows: int, columns: int, has_title: bool) -> tuple[Figure, np.ndarray]:
    """An empty figure of equal panels, with room for labels, titles and the colour bar.

    The margins are fixed: matplotlib's constrained layout takes longer than all the rest.
    """
    width, height = _LEFT_IN + columns * _PANEL_IN[0] + _RIGHT_IN, rows * _PANEL_IN[1] + _BOTTOM_IN
    top_in = 0.3 if has_title else 0.0
    figure = Figure(figsize=(width, height + top_in), dpi=DPI)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=_LEFT_IN / width,
        right=1 - _RIGHT_IN / width,
        bottom=_BOTTOM_IN / (height + top_in),
        top=1 - (top_in + 0.3) / (height + top_in),
        wspace=0.06,
        hspace=0.22,
    )
    return figure, grid


def _draw_panel(
    axes: Axes, level_db: np.ndarray, duration_s: float, sample_rate: int, loudest_db: float
) -> AxesImage:
    return axes.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=(0.0, duration_s, 0.0, sample_rate / 2000),
        cmap=COLOUR_MAP,
        vmin=loudest_db - RANGE_DB,
        vmax=loudest_db,
        interpolation="antialiased",
    )


def _label(
    figure: Figure, grid: np.ndarray, image: AxesImage, duration_s: float, title: str
) -> None:
    """Axis labels, the colour bar that all panels share, and the title."""
    grid[0, 0].set_xlim(0, duration_s)
    for axes in grid[:, 0]:
        axes.set_ylabel("frequency (kHz)", fontsize=9)
    for axes in grid.flat:
        axes.tick_params(labelsize=8)
        if axes.get_visible():
            axes.set_facecolor(
                image.get_cmap()(0.0)
            )  # a shorter clip ends in the colour of silence
    for column in range(grid.shape[1]):
        lowest = [axes for axes in grid[:, column] if axes.get_visible()][-1]
        lowest.set_xlabel("time (s)", fontsize=9)
        lowest.tick_params(labelbottom=True)
    right = figure.subplotpars.right
    place = (right + 0.15 / figure.get_figwidth(), figure.subplotpars.bottom)
    size = (0.16 / figure.get_figwidth(), figure.subplotpars.top - figure.subplotpars.bottom)
    colour_bar = figure.colorbar(image, cax=figure.add_axes((*place, *size)))
    colour_bar.set_label("level (dBFS)", fontsize=9)
    colour_bar.ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.06 / figure.get_figheight(), va="top")
