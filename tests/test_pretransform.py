"""Pretransforms: lossless where they claim to be, deterministic, and frozen."""

import math

import pytest
import torch
from stable_audio_tools.models.autoencoders import create_autoencoder_from_config
from stable_audio_tools.models.blocks import SnakeBeta
from tiny_models import built, tiny_vae

from saga_sr.config import MDCTConfig, parse_model_config
from saga_sr.families import create_pretransform
from saga_sr.pretransform import AutoencoderPretransform
from saga_sr.support.snake import Snake
from saga_sr.weightfree.mdct import MDCTPretransform

RATE = 44100


def _mdct(hop: int = 64, channels: int = 1, **values: object) -> MDCTPretransform:
    return MDCTPretransform(MDCTConfig(hop=hop, channels=channels, **values), RATE)


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("power", [1.0, 0.6])
def test_mdct_round_trip_is_perfect(channels: int, frames: int, power: float) -> None:
    mdct = _mdct(channels=channels, power=power, band_hz=(0, RATE / 2), band_std=(1.0, 0.05))
    audio = _noise(2, channels, frames * 64)
    latent = mdct.encode(audio)
    assert latent.shape == (2, channels * 64, frames)
    torch.testing.assert_close(mdct.decode(latent), audio, atol=2e-5, rtol=0)


def test_mdct_is_orthonormal() -> None:
    first, second = _noise(1, 1, 640), _noise(1, 1, 640, seed=1)
    mdct = _mdct()
    inner = (mdct.encode(first) * mdct.encode(second)).sum()
    torch.testing.assert_close(inner, (first * second).sum(), atol=1e-3, rtol=1e-4)


def test_mdct_of_inner_frames_is_the_textbook_transform() -> None:
    """Sine window of 2N samples around a block, times cosines that are even at its left edge."""
    hop, audio = 64, _noise(1, 1, 640).double()
    n, k = torch.arange(2 * hop).double(), torch.arange(hop).double()
    window = torch.sin(math.pi / (2 * hop) * (n + 0.5))
    phase = math.pi / hop * (n[:, None] - hop / 2 + 0.5) * (k + 0.5)
    latent = _mdct().encode(audio.float())[0].double()
    for block in range(1, 9):
        start = block * hop - hop // 2
        segment = audio[0, 0, start : start + 2 * hop] * window
        expected = math.sqrt(2 / hop) * segment @ torch.cos(phase)
        torch.testing.assert_close(latent[:, block], expected, atol=1e-5, rtol=0)


def test_mdct_places_a_tone_in_its_band() -> None:
    tone = torch.sin(2 * torch.pi * 5000 * torch.arange(64 * 64) / RATE)
    energy = _mdct().encode(tone[None, None])[0].square().sum(dim=1)
    assert int(energy.argmax()) == int(5000 / (RATE / 2) * 64)


def test_mdct_content_ends_where_the_spectrum_does() -> None:
    pretransform = MDCTPretransform(MDCTConfig(hop=64, channels=2), 44100)
    content = pretransform.content(torch.tensor([0.0, 5512.5, math.inf]))
    assert content.shape == (3, 128, 1)
    assert content.sum(dim=(1, 2)).tolist() == [0, 32, 128]
    assert content[1].flatten().unflatten(0, (2, 64))[:, :16].all()  # of both channels


def test_mdct_of_silence_is_silence() -> None:
    mdct = _mdct(power=0.6)
    assert not mdct.decode(mdct.encode(torch.zeros(1, 1, 640))).any()


def test_mdct_chunk_with_margin_equals_the_whole() -> None:
    mdct = _mdct()
    latent = mdct.encode(_noise(1, 1, 64 * 12))
    margin = mdct.margin_frames
    chunk = mdct.decode(latent[..., 4 - margin : 8 + margin])
    inner = chunk[..., margin * 64 : -margin * 64]
    torch.testing.assert_close(inner, mdct.decode(latent)[..., 4 * 64 : 8 * 64])


def _vae() -> AutoencoderPretransform:
    model = built(tiny_vae())
    assert isinstance(model.pretransform, AutoencoderPretransform)
    return model.pretransform


def test_vae_latent_is_the_posterior_mean_of_stable_audio_tools() -> None:
    vae, audio = _vae(), 0.1 * _noise(2, 2, 4096)
    with torch.no_grad():
        _, info = vae.model.encode(audio, return_info=True)
        mean, _ = info["pre_bottleneck_latents"].chunk(2, dim=1)
        torch.testing.assert_close(vae.encode(audio), mean)
        torch.testing.assert_close(vae.decode(mean), vae.model.decode(mean))
        drawn = [vae.model.encode(audio) for _ in range(2)]
    assert not torch.equal(*drawn)  # the trap: their encode draws with ambient noise
    assert torch.equal(vae.encode(audio), vae.encode(audio))


@pytest.mark.parametrize("shape", [(2, 4, 1000), (1, 4, 70_000), (1, 4, 1)])
def test_snake_is_the_function_of_stable_audio_tools(shape: tuple[int, int, int]) -> None:
    theirs = SnakeBeta(4)
    torch.nn.init.normal_(theirs.alpha)
    torch.nn.init.normal_(theirs.beta)
    ours, x = Snake(theirs.alpha, theirs.beta), 3 * _noise(*shape)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_vae_without_their_snakes_has_the_same_parameters_and_function() -> None:
    config = parse_model_config(tiny_vae())
    raw = config.model.pretransform.config.model_dump(mode="json")
    theirs = create_autoencoder_from_config({"sample_rate": RATE, "model": raw})
    vae = create_pretransform(config)
    assert isinstance(vae, AutoencoderPretransform)
    vae.model.load_state_dict(theirs.state_dict())
    audio = 0.1 * _noise(1, 2, 4096)
    with torch.no_grad():
        mean, _ = theirs.encoder(audio).chunk(2, dim=1)
        torch.testing.assert_close(vae.encode(audio), mean, atol=1e-5, rtol=1e-4)


def test_vae_folded_weight_norm_keeps_the_function() -> None:
    config = parse_model_config(tiny_vae())
    torch.manual_seed(0)
    vae = create_pretransform(config)
    assert isinstance(vae, AutoencoderPretransform)
    audio = 0.1 * _noise(1, 2, 4096)
    before = vae.encode(audio)
    vae.fold_weight_norm()
    torch.testing.assert_close(vae.encode(audio), before, atol=1e-5, rtol=1e-4)
    assert not any("weight_g" in name for name in vae.state_dict())


def test_vae_item_by_item_equals_one_batch() -> None:
    vae, audio = _vae(), 0.1 * _noise(3, 2, 4096)
    together = vae.encode(audio)
    vae.iterate_batch = True
    torch.testing.assert_close(vae.encode(audio), together, atol=1e-6, rtol=1e-4)


def test_vae_decoded_in_chunks_with_margin_equals_the_whole() -> None:
    vae = _vae()
    latent, margin, ratio = _noise(1, 8, 64), vae.margin_frames, vae.downsampling_ratio
    whole = vae.decode(latent)
    chunk = vae.decode(latent[..., 24 - margin : 40 + margin])
    inner = chunk[..., margin * ratio : -margin * ratio]
    torch.testing.assert_close(inner, whole[..., 24 * ratio : 40 * ratio], atol=1e-6, rtol=1e-4)


def test_pretransforms_have_no_trainable_parameters() -> None:
    vae = create_pretransform(parse_model_config(tiny_vae()))
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    assert not list(_mdct().parameters())
    assert not _mdct().state_dict()  # constants of the config, not weights


def test_oobleck_of_stable_audio_tools_takes_the_full_config() -> None:
    raw = parse_model_config(tiny_vae()).model.pretransform.config.model_dump(mode="json")
    assert create_autoencoder_from_config({"sample_rate": RATE, "model": raw}).latent_dim == 8
