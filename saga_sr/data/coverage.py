"""How many clips of a corpus have a text, said before training begins."""

from collections.abc import Iterable
from dataclasses import dataclass

from saga_sr.data.caption_table import CAPTION_FILE
from saga_sr.text import text_parts


@dataclass(frozen=True)
class TextCoverage:
    """How many clips get which text: the report at the start of a training run with text."""

    both: int
    caption_only: int
    transcript_only: int
    none: int

    @property
    def total(self) -> int:
        return self.both + self.caption_only + self.transcript_only + self.none

    def __str__(self) -> str:
        return (
            f"text: {self.total} clips: {self.both} with caption and transcript, "
            f"{self.caption_only} with a caption, {self.transcript_only} with a transcript, "
            f"{self.none} with none"
        )

    def warning(self) -> str | None:
        """A loud paragraph where most clips have no text, else None."""
        if 2 * self.none <= self.total:
            return None
        return (
            f"WARNING: {self.none} of {self.total} clips ({self.none / self.total:.0%}) have NO "
            "TEXT. They train with the null condition, so this run learns little from text and is "
            "close to one without it.\n"
            f"  captions: python -m saga_sr.captions --audio_dir DIR --output DIR/{CAPTION_FILE}\n"
            "  transcripts: a UTF-8 file of the same name beside the audio: a.wav -> a.txt"
        )


def text_coverage(
    clips: Iterable[tuple[str | None, str | None]], use_caption: bool
) -> TextCoverage:
    """Count what `text_for_clip` gives for each (caption, transcript) of ``clips``."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for caption, transcript in clips:
        used_caption, used_transcript = text_parts(caption, transcript, use_caption)
        counts[bool(used_caption), bool(used_transcript)] += 1
    return TextCoverage(*counts.values())
