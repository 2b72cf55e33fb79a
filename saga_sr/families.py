"""The one choice between the two families: the paper's autoencoder, or an MDCT without weights."""

from saga_sr.config import AutoencoderPretransformSection, ModelConfig
from saga_sr.frame import Family
from saga_sr.pretransform import AutoencoderPretransform, Pretransform
from saga_sr.weightfree.mdct import MDCTPretransform
from saga_sr.weightfree.told import PatchFamily


def create_pretransform(config: ModelConfig) -> Pretransform:
    """The pretransform that a model config names, frozen, in evaluation mode."""
    section = config.model.pretransform
    if isinstance(section, AutoencoderPretransformSection):
        pretransform: Pretransform = AutoencoderPretransform(section, config.sample_rate)
    else:
        pretransform = MDCTPretransform(section.config, config.sample_rate)
    return pretransform.eval().requires_grad_(False)


def create_family(config: ModelConfig, pretransform: Pretransform) -> Family:
    """What the family of ``pretransform`` brings to the method."""
    patch = config.model.diffusion.patch
    if patch is None:
        return Family()
    assert isinstance(pretransform, MDCTPretransform)  # as the config's relations say
    return PatchFamily(config, pretransform, patch)


def targets_end_with_spectrum(config: ModelConfig) -> bool:
    """Whether `Pretransform.content` depends on where a clip's own spectrum ends, so that training
    must measure it; an autoencoder's channels are no frequencies."""
    return not isinstance(config.model.pretransform, AutoencoderPretransformSection)
