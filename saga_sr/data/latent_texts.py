"""Texts of prepared latents: looked up when they are needed, beside the audio or in a given file.

Latents depend on audio and autoencoder, and cost hours; texts depend on neither. So transcripts and
captions may come, change and go after encoding. Where the audio is on another machine, the texts
stand in for themselves that `saga_sr.pre_encode` kept; running it again keeps the present ones.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from saga_sr.data.caption_table import CAPTION_FILE, CaptionTable
from saga_sr.data.latents import NO_TEXT, LatentFolder
from saga_sr.text import read_transcript

Texts = tuple[str | None, str | None]  # caption, transcript


class SegmentTexts:
    """(caption, transcript) of the segments of one audio folder.

    Args:
        folder: the latents.
        caption_file: None: captions.jsonl in the audio folder.
        with_text: whether there are texts at all; without, none is looked for.

    Raises:
        UserError: a caption file is broken.
    """

    def __init__(
        self, folder: LatentFolder, caption_file: Path | None = None, with_text: bool = True
    ) -> None:
        self.folder, self.with_text = folder, with_text
        self.audio_dir = Path(folder.entry.audio_dir)
        self.audio_is_here = self.audio_dir.is_dir()
        beside = self.audio_dir / CAPTION_FILE
        path = caption_file or (beside if beside.is_file() else None)
        self.captions = CaptionTable.read(path) if path is not None and with_text else None

    def __call__(self, segment: int) -> Texts:
        if not self.with_text:
            return None, None
        name = self.folder.audio_name(segment)
        transcript = read_transcript(self.audio_dir / name) if self.audio_is_here else None
        return self._with_transcript(segment, name, transcript)

    def _with_transcript(self, segment: int, name: str, transcript: str | None) -> Texts:
        caption = None
        if self.captions is None or not self.audio_is_here:
            caption, kept = self.folder.kept_texts(segment)
            transcript = transcript if self.audio_is_here else kept
        if self.captions is not None:
            caption = self.captions.lookup(name, *self.folder.span_s(segment))
        return caption, transcript

    def all(self) -> Iterator[Texts]:
        """Those of every segment, in order; each transcript is read once."""
        for name, segments in itertools.groupby(
            range(self.folder.entry.segments), key=self.folder.audio_name
        ):
            transcript = read_transcript(self.audio_dir / name) if self.audio_is_here else None
            for segment in segments:
                yield self._with_transcript(segment, name, transcript)

    def describe(self) -> str | None:
        """Where texts are not the present ones; None where they are."""
        if not self.with_text:
            return None
        if not self.audio_is_here:
            return f"{self.audio_dir} is not here: its texts are those of when it was encoded"
        if self.captions is None and bool((self.folder.table.caption != NO_TEXT).any()):
            return (
                f"{self.audio_dir}: no {CAPTION_FILE} any more, so the captions are those of then"
            )
        return None
