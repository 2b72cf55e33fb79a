"""The one choice between the two families: the paper's autoencoder, or an MDCT without weights."""

from saga_sr.config import AutoencoderPretransformSection, ModelConfig
from saga_sr.pretransform import AutoencoderPretransform, Pretransform
from saga_sr.weightfree.mdct import MDCTPretransform


def create_pretransform(config: ModelConfig) -> Pretransform:
    """The pretransform that a model config names, frozen, in evaluation mode."""
    section = config.model.pretransform
    if isinstance(section, AutoencoderPretransformSection):
        pretransform: Pretransform = AutoencoderPretransform(section, config.sample_rate)
    else:
        pretransform = MDCTPretransform(section.config, config.sample_rate)
    return pretransform.eval().requires_grad_(False)
