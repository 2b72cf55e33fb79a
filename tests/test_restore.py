"""One segment from LR to SR."""

import pytest
import torch
from tiny_models import built, changed, text_and_rolloff, tiny_demo

from saga_sr.model import Conditioning, SAGASRModel
from saga_sr.restore import generate, restore, segment_noise
from saga_sr.rolloff import spectral_rolloff, unit_to_hz
from saga_sr.sampler import guidance, solver_plan

F2 = text_and_rolloff(tiny_demo())


def _audio(size: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(size, 1, 4096, generator=torch.Generator().manual_seed(0))


def _condition(
    model: SAGASRModel, audio: torch.Tensor, *given: torch.Tensor | None
) -> Conditioning:
    return model.condition(audio, *given, passband_hz=torch.full((len(audio),), 4000.0))


def test_noise_is_a_function_of_its_key_alone() -> None:
    config = built(tiny_demo()).config
    first = segment_noise(config, [("a", 1), ("a", 2)])
    second = segment_noise(config, [("a", 2)])
    assert torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])
    assert first.std() == pytest.approx(1, abs=0.05)


def test_condition_measures_the_input_and_takes_the_default_target() -> None:
    model = built(changed(F2, sampling__target_rolloff=0.4))
    audio = _audio()
    cond = _condition(model, audio)
    default = unit_to_hz(model.config.sampling.target_rolloff, 44100)
    torch.testing.assert_close(cond.rolloff_hz[:, 0], spectral_rolloff(audio, 44100))
    torch.testing.assert_close(cond.rolloff_hz[:, 1], default.expand(2))
    assert not cond.text.any()
    given = _condition(model, audio, None, torch.tensor([1000.0, 2000.0]))
    assert given.rolloff_hz[:, 1].tolist() == [1000.0, 2000.0]


def test_condition_of_f0_is_the_lr_latent_alone() -> None:
    cond = _condition(built(tiny_demo()), _audio())
    assert cond.text is None
    assert cond.rolloff_hz is None


def test_guidance_has_a_text_branch_only_where_there_is_text() -> None:
    model, audio = built(F2), _audio()
    sampling = model.config.sampling.model_copy(
        update={"guidance_acoustic": 1.4, "guidance_text": 1.2}
    )
    text = torch.randn(2, 12, 24)
    assert len(guidance(sampling, _condition(model, audio).text)) == 2
    assert len(guidance(sampling, _condition(model, audio, text).text)) == 3


def test_restore_is_sample_and_decode_and_does_not_depend_on_the_batch() -> None:
    model, audio = built(F2), _audio()
    sampling = model.config.sampling.model_copy(update={"num_steps": 3, "guidance_acoustic": 1.4})
    noise = segment_noise(model.config, [("n", 0), ("n", 1)])
    together = restore(model, _condition(model, audio), noise, sampling)
    assert together.shape == audio.shape
    alone = restore(model, _condition(model, audio[1:]), noise[1:], sampling)
    torch.testing.assert_close(together[1:], alone, atol=1e-4 * float(alone.abs().max()), rtol=1e-3)
    with torch.no_grad():
        latent = generate(model, _condition(model, audio), noise, sampling)
    torch.testing.assert_close(together, model.decode(latent))
    assert torch.equal(together, restore(model, _condition(model, audio), noise, sampling))


def test_level_makes_restoring_independent_of_the_gain() -> None:
    """With every frame measured against the input's own level, a quieter file is the same file."""
    raw = text_and_rolloff(tiny_demo(model__pretransform__config__level_floor=1e-6))
    model, audio = built(raw), _audio()
    sampling = model.config.sampling.model_copy(update={"num_steps": 3})
    noise = segment_noise(model.config, [("n", 0), ("n", 1)])
    loud = restore(model, _condition(model, audio), noise, sampling)
    quiet = restore(model, _condition(model, 0.01 * audio), noise, sampling)
    torch.testing.assert_close(quiet, 0.01 * loud, atol=1e-4 * float(quiet.abs().max()), rtol=1e-2)


def test_plan_has_the_steps_that_were_asked_for() -> None:
    sampling = built(F2).config.sampling
    for solver, evaluations in (("euler", 5), ("midpoint", 10)):
        asked = sampling.model_copy(update={"num_steps": 5, "solver": solver})
        assert len(solver_plan(asked)) == evaluations
