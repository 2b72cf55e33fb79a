"""What autocast must not touch: a step in bfloat16 sees the audio that one in float32 sees."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import built, text_and_rolloff, tiny_demo, tiny_vae
from torch import Tensor

from saga_sr.config import MDCTConfig
from saga_sr.lowpass import apply_lowpass, field_lowpass
from saga_sr.model import SAGASRModel
from saga_sr.support.precision import full_precision, in_full_precision
from saga_sr.support.randomness import torch_generator
from saga_sr.weightfree.mdct import MDCTPretransform

RATE = 44100
PASSBAND_HZ = torch.tensor([4000.0, 4000.0])


def _low_passed(model: SAGASRModel) -> tuple[Tensor, Tensor]:
    shape = (2, model.config.audio_channels, model.config.sample_size)
    hr = 0.1 * torch.randn(shape, generator=torch_generator("precision"))
    return hr, apply_lowpass(hr, RATE, field_lowpass(4000))


def _latent(model: SAGASRModel, hr: Tensor, lr: Tensor) -> Tensor:
    return torch.cat([model.encode(hr), model.encode(lr)])


def _audio(model: SAGASRModel, hr: Tensor, lr: Tensor) -> Tensor:
    return model.decode(model.encode(hr))


def _start(model: SAGASRModel, hr: Tensor, lr: Tensor) -> Tensor:
    cond = model.condition(lr, passband_hz=PASSBAND_HZ)
    return cond.frame.leave(torch.ones_like(cond.lr_latent))


def _rolloff(model: SAGASRModel, hr: Tensor, lr: Tensor) -> Tensor:
    rolloff_hz = model.condition(lr, passband_hz=PASSBAND_HZ).rolloff_hz
    assert rolloff_hz is not None
    return rolloff_hz


@pytest.mark.parametrize("compute", [_latent, _audio, _start, _rolloff])
def test_all_but_the_dit_is_the_same_under_autocast(
    compute: Callable[[SAGASRModel, Tensor, Tensor], Tensor],
) -> None:
    model = built(text_and_rolloff(tiny_demo()))
    hr, lr = _low_passed(model)
    plain = compute(model, hr, lr)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = compute(model, hr, lr)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(plain, under_autocast)


def test_a_vae_decodes_the_same_under_autocast() -> None:
    model = built(tiny_vae())
    latent = torch.randn(1, model.config.latent_dim, 8, generator=torch_generator("vae"))
    with torch.no_grad():
        plain = model.decode(latent)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.decode(latent), plain)


def test_quiet_highs_beside_a_loud_tone_survive_autocast() -> None:
    """In bfloat16 the products put noise over the whole frame, 50 dB below its loudest bin."""
    pretransform = MDCTPretransform(MDCTConfig(hop=512, channels=1), RATE)
    times = torch.arange(64 * 512) / RATE
    audio = 0.5 * torch.sin(2 * torch.pi * 440 * times)[None, None]
    with torch.autocast("cpu", torch.bfloat16):
        amplitude = pretransform.encode(audio).abs()[..., 2:-2]
        blocks = pretransform._rotate(audio.view(1, -1, 512), pretransform.sine)
        in_half = (blocks @ pretransform.basis).float()[0, 2:-2].abs()
    loudest = amplitude.max()
    assert 20 * (amplitude[:, 400:].max() / loudest).log10() < -90
    assert 20 * (in_half[:, 400:].max() / in_half.max()).log10() > -75  # what it was


def test_a_half_precision_tensor_is_made_float32_and_double_is_left() -> None:
    class Adder:
        @in_full_precision
        def plus(self, first: Tensor, more: float) -> Tensor:
            assert not torch.is_autocast_enabled("cpu")
            return first + more

    with torch.autocast("cpu", torch.bfloat16):
        assert Adder().plus(torch.ones(2, dtype=torch.bfloat16), 1.0).dtype == torch.float32
        assert Adder().plus(torch.ones(2, dtype=torch.float64), more=1.0).dtype == torch.float64
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        with full_precision(torch.ones(1)):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_full_precision_on_the_meta_device_is_no_context_of_any_device() -> None:
    with (
        torch.autocast("cpu", torch.bfloat16),
        full_precision(torch.ones(1, device="meta")),
    ):
        assert torch.is_autocast_enabled("cpu")
