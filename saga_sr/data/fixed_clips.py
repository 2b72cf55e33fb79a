"""Fixed clips, to validate or to overfit: each is the same whenever it is asked for."""

from copy import copy
from math import ceil

from torch.utils.data import Dataset

from saga_sr.audio.band_end import spectrum_end_hz
from saga_sr.dataset import ClipReader, Item, SAGASRDataset, clip_rolloff_hz, degrade, one_thread
from saga_sr.lowpass import field_lowpass
from saga_sr.support.errors import UserError
from saga_sr.support.randomness import numpy_generator


class RepeatedClips(Dataset[Item]):
    """The clips that ``overfit_clips`` repeats, each once, as validation wants them: it shows
    whether a model remembers what it was trained on.

    Args:
        draws: with ``overfit_clips``.
    """

    def __init__(self, draws: SAGASRDataset) -> None:
        if not draws.overfit_clips:
            raise ValueError("these draws repeat no clips")
        self.draws = copy(draws)
        self.draws.measure_end = True  # metrics end there

    @property
    def reader(self) -> ClipReader:
        return self.draws.reader

    def __len__(self) -> int:
        return self.draws.overfit_clips

    def __getitem__(self, clip: int) -> Item:
        if not 0 <= clip < len(self):
            raise IndexError(clip)
        return self.draws[clip]


class FixedClips(Dataset[Item]):
    """A fixed list of clips with one fixed low-pass: what validation measures on.

    The clips take turns between the folders and are spread evenly over the paths of each, so that
    subfolders (music, speech, effects) are all heard. The start of each is drawn from the seed.
    Items are those of `SAGASRDataset`; their ``draw`` is the position in the list. Their
    ``category`` is that of `ClipReader.categories`.

    Args:
        reader: where clips come from.
        num_clips: how many; more than there are files means several clips of a file.
        cutoff_hz: of `saga_sr.lowpass.field_lowpass`.
        seed: of the starts.
        compute_rolloff: put ``rolloff_low`` and ``rolloff_high`` into the metadata.
    """

    def __init__(
        self,
        reader: ClipReader,
        num_clips: int,
        cutoff_hz: float,
        seed: int = 0,
        compute_rolloff: bool = False,
    ) -> None:
        if num_clips < 1:
            raise UserError(f"the number of fixed clips is {num_clips}; at least 1 is needed")
        self.reader = reader
        self.num_clips = num_clips
        self.lowpass = field_lowpass(cutoff_hz)
        self.seed = seed
        self.compute_rolloff = compute_rolloff
        self._categories = reader.categories([self._position(n) for n in range(num_clips)])

    def __len__(self) -> int:
        return self.num_clips

    @one_thread
    def __getitem__(self, clip: int) -> Item:
        if not 0 <= clip < self.num_clips:
            raise IndexError(clip)
        rng = numpy_generator("fixed clip", self.seed, clip)
        crop = self.reader.draw_start(rng, self._position(clip), self.reader.sample_size)
        hr = self.reader.read(crop, rng)
        metadata = self.reader.metadata(crop, self.lowpass) | {"draw": clip}
        metadata["category"] = self._categories[clip]
        metadata["hr_end_hz"] = spectrum_end_hz(hr, self.reader.sample_rate)
        if self.compute_rolloff:
            metadata["rolloff_high"] = clip_rolloff_hz(hr, self.reader.sample_rate)
        return hr, degrade(hr[None], [metadata], self.reader.sample_rate)[0]

    def _position(self, clip: int) -> int:
        """The file of a clip."""
        turn, folder = divmod(clip, len(self.reader.index.folders))
        turns = ceil((self.num_clips - folder) / len(self.reader.index.folders))
        files = self.reader.index.files_of(folder)
        return files[(2 * turn + 1) * len(files) // (2 * turns)]
