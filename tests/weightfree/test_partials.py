"""Partials go on where they would be, noise has none, and levels stay as they are."""

import pytest
import torch

from saga_sr.weightfree.partials import continue_partials, local_mean

BIN_HZ, FRAME_S, HEARD, BINS, FRAMES = 43.0, 0.0116, 90, 400, 32


def _noise(seed: int = 0) -> torch.Tensor:
    """Power of noise, [1, BINS, FRAMES]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, BINS, FRAMES, generator=generator).square()


def _comb(spacing: float, seed: int = 0) -> torch.Tensor:
    """Power of noise with partials 20 dB above it, ``spacing`` bins apart."""
    power = _noise(seed)
    power[:, [round(k * spacing) for k in range(1, int((BINS - 1) / spacing))]] *= 100
    return power


def _continued(power: torch.Tensor) -> torch.Tensor:
    heard = torch.tensor([HEARD])
    return continue_partials(power, heard, FRAME_S, BIN_HZ)


@pytest.mark.parametrize("spacing", [5.0, 7.0, 9.5])
def test_partials_continue_at_multiples_of_the_fundamental(spacing: float) -> None:
    """The first octave above the end has its peaks where the full spectrum has them."""
    power = _comb(spacing)
    low = power.clone()
    low[:, HEARD:] = 0
    pattern = _continued(low)
    assert not pattern[:, :HEARD].any()
    partials = [
        round(k * spacing) for k in range(1, int(2 * HEARD / spacing)) if k * spacing > HEARD
    ]
    between = [round(k * spacing + spacing / 2) for k in range(1, int(2 * HEARD / spacing) - 1)]
    between = [b for b in between if b > HEARD]
    assert float(pattern[:, partials].mean()) > 0.5
    assert float(pattern[:, between].mean()) < 0


def test_what_lies_above_the_heard_band_does_not_matter() -> None:
    one, other = _comb(7.0), _comb(7.0)
    other[:, HEARD:] = 5.0
    heard = [_continued(power) for power in (one, other)]
    assert torch.equal(heard[0], heard[1])


def test_noise_has_no_partials_to_continue() -> None:
    sure = torch.stack([_continued(_noise(seed)).abs().mean() for seed in range(5)])
    comb = _continued(_comb(7.0)).abs().mean()
    assert float(sure.mean()) < 0.1 * float(comb)


def test_nothing_heard_and_silence_give_nothing() -> None:
    none = continue_partials(_noise(), torch.tensor([0]), FRAME_S, BIN_HZ)
    silence = continue_partials(
        torch.zeros(1, BINS, FRAMES), torch.tensor([HEARD]), FRAME_S, BIN_HZ
    )
    for pattern in (none, silence):
        assert torch.isfinite(pattern).all()
        assert not pattern.any()


def test_rows_do_not_see_each_other() -> None:
    power, heard = torch.cat([_comb(5.0), _comb(9.0)]), torch.tensor([90, 120])
    both = continue_partials(power, heard, FRAME_S, BIN_HZ)
    for row in range(2):
        alone = continue_partials(power[row : row + 1], heard[row : row + 1], FRAME_S, BIN_HZ)
        torch.testing.assert_close(both[row : row + 1], alone)


def test_local_mean_keeps_constants_and_smooths_the_rest() -> None:
    assert torch.allclose(local_mean(torch.full((2, 50, 3), 7.0), BIN_HZ), torch.tensor(7.0))
    spike = torch.zeros(1, 101, 1)
    spike[0, 50] = 15.0  # bins in 560 Hz
    means = local_mean(spike, BIN_HZ)
    torch.testing.assert_close(means.sum(), torch.tensor(15.0))
    assert float(means.max()) == pytest.approx(1.0)
