"""What the page does not do for anybody: numbers beyond use, which would take the machine away.

Visitors and the configs of strangers' models are held to them alike.
"""

from saga_sr.config import ModelConfig
from saga_sr.support.errors import UserError

MAX_SEED = 2**32 - 1
MAX_STEPS = 1000  # ten times the paper's
MAX_GUIDANCE = 10.0
MAX_SAMPLE_RATE = 192_000
MAX_MODEL_CHANNELS = 8
MAX_SEGMENT_S = 190.0  # four times Stable Audio Open's
MAX_LATENT_LENGTH = 1 << 15


def check_config(config: ModelConfig, origin: str) -> None:
    """Raises:
    UserError: lists each value of ``config`` that is beyond the page's limits.
    """
    sampling = config.sampling
    bounds = [
        ("sampling.num_steps", sampling.num_steps, 1, MAX_STEPS),
        ("sampling.guidance_acoustic", sampling.guidance_acoustic, 0, MAX_GUIDANCE),
        ("sampling.guidance_text", sampling.guidance_text, 0, MAX_GUIDANCE),
        ("sample_rate", config.sample_rate, 8000, MAX_SAMPLE_RATE),
        ("audio_channels", config.audio_channels, 1, MAX_MODEL_CHANNELS),
        ("sample_size / sample_rate", config.duration_s, 0, MAX_SEGMENT_S),
        ("sample_size / downsampling_ratio", config.latent_length, 1, MAX_LATENT_LENGTH),
    ]
    problems = [
        f"{key} is {value:g}; the page takes {least:g} to {most:g}"
        for key, value, least, most in bounds
        if not least <= value <= most
    ]
    if problems:
        raise UserError.listing(f"--model {origin}: its config.json is beyond use", problems)
