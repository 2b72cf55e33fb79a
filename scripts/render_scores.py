"""Render MIDI scores through a soundfont: music whose every note and instrument is known.

Each piece becomes some files, all functions of its name alone:

    written     as its composer wrote it, every channel on its first instrument
    other-N     other instruments, another key, another tempo (a bass stays a bass)
    drums-N     an excerpt of the drums and the bass, by another kit

File names carry the instruments, ``PIECE--KIND--INSTRUMENT--...``, for the captions. The
synthesizer is TinySoundFont (``pip install tinysoundfont``): some thirty times real time on a core,
full-band, dry. It draws nothing at random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from saga_sr.support.errors import UserError
from saga_sr.support.files import atomic_path
from saga_sr.support.randomness import numpy_generator

SAMPLE_RATE = 44_100
BLOCK = 512  # samples between two looks at the score: 12 ms
TAIL_S = 2.0
PEAK = 0.9
OTHER, DRUMS = 2, 2  # versions of a piece
EXCERPT_S = 20.0  # of drums; their patterns repeat
DRUM_CHANNEL, DRUM_BANK = 9, 128
BASSES = range(32, 40)  # General MIDI
# Pianos to pads but basses, timpani and orchestra hits; no sound effects, no percussion.
MELODIC = (*range(32), *range(40, 47), *range(48, 55), *range(56, 96), *range(104, 112))


@dataclass(frozen=True)
class Arrangement:
    """What to play of a score, and how.

    Attributes:
        kind: in the file's name.
        programs: channel -> General MIDI program (of drums, the kit), for channels that sound.
        semitones: up, of all but the drums.
        tempo: times as fast.
        start_s, seconds: the stretch that is kept, in rendered time.
    """

    kind: str
    programs: dict[int, int]
    semitones: int = 0
    tempo: float = 1.0
    start_s: float = 0.0
    seconds: float = float("inf")


def synthesizer() -> Any:
    """The module ``tinysoundfont``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tinysoundfont.midi
    except ImportError as error:
        raise UserError(
            "--sets scores renders music with tinysoundfont, which is not installed: "
            "pip install --no-deps -r requirements-scores.txt"
        ) from error
    return tinysoundfont


def render_folder(scores: Path, soundfont: Path, output: Path) -> None:
    """Render every MIDI file of ``scores`` into ``output``.

    Raises:
        UserError: TinySoundFont is not installed, or there is no score.
    """
    tinysoundfont = synthesizer()
    paths = sorted(scores.glob("*.mid"))
    if not paths:
        raise UserError(f"{scores}: no MIDI file in it")
    synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE, gain=-12)
    bank = synth.sfload(str(soundfont))
    kits = [p for p in range(128) if synth.sfpreset_name(bank, DRUM_BANK, p)]
    output.mkdir(parents=True, exist_ok=True)
    for path in paths:
        events = tinysoundfont.midi.load(str(path))
        for arrangement in arrangements(path.stem, events, kits):
            names = [
                synth.sfpreset_name(bank, 0, program)
                for channel, program in arrangement.programs.items()
                if channel != DRUM_CHANNEL
            ]
            names = list(dict.fromkeys(names)) + ["drums"] * (DRUM_CHANNEL in arrangement.programs)
            words = [name.lower().replace(" ", "_") for name in names]
            target = output / ("--".join([path.stem, arrangement.kind, *words]) + ".flac")
            audio = render(synth, bank, events, arrangement)
            with atomic_path(target) as temporary:
                soundfile.write(temporary, audio, SAMPLE_RATE, subtype="PCM_16", format="FLAC")


def arrangements(piece: str, events: Sequence[Any], kits: Sequence[int]) -> Iterator[Arrangement]:
    """What becomes of a piece."""
    written = _programs(events)
    yield Arrangement("written", written)
    end_s = max(event.t for event in events)
    for number in range(1, OTHER + 1):
        rng = numpy_generator("scores", piece, "other", number)
        programs = {}
        for channel, program in written.items():
            alike = BASSES if program in BASSES else MELODIC
            programs[channel] = int(rng.choice(kits if channel == DRUM_CHANNEL else alike))
        semitones, tempo = int(rng.integers(-5, 7)), float(rng.uniform(0.85, 1.2))
        yield Arrangement(f"other-{number}", programs, semitones, tempo)
    if DRUM_CHANNEL not in written:
        return
    for number in range(1, DRUMS + 1):
        rng = numpy_generator("scores", piece, "drums", number)
        chosen = {c: int(rng.choice(BASSES)) for c, p in written.items() if p in BASSES}
        chosen = chosen if rng.random() < 0.5 else {}
        chosen[DRUM_CHANNEL] = int(rng.choice(kits))
        start_s = float(rng.uniform(0.1, 0.8)) * max(end_s - EXCERPT_S, 0.0)
        yield Arrangement(
            f"drums-{number}", chosen, tempo=float(rng.uniform(0.85, 1.2)),
            start_s=start_s, seconds=EXCERPT_S,
        )  # fmt: skip


def render(synth: Any, bank: int, events: Sequence[Any], arrangement: Arrangement) -> np.ndarray:
    """Play an arrangement; [T, 2] float32 with a peak of `PEAK`."""
    from tinysoundfont.midi import ControlChange, NoteOff, NoteOn, PitchBend

    synth.sounds_off()
    synth.generate(SAMPLE_RATE // 2)  # what rang fades
    for channel in range(16):  # as a new synthesizer would stand
        synth.control_change(channel, 121, 0)  # which leaves these:
        synth.pitchbend(channel, 8192)
        synth.pitchbend_range(channel, 2.0)
        synth.set_tuning(channel, 0.0)
    for channel, program in arrangement.programs.items():
        is_drums = channel == DRUM_CHANNEL
        synth.program_select(channel, bank, DRUM_BANK if is_drums else 0, program, is_drums)
    blocks: list[np.ndarray] = []
    until_s = arrangement.start_s + arrangement.seconds
    played_s = 0.0

    def play(seconds: float) -> None:
        nonlocal played_s
        while played_s < seconds:
            blocks.append(np.frombuffer(bytes(synth.generate(BLOCK)), np.float32).reshape(-1, 2))
            played_s += BLOCK / SAMPLE_RATE

    for event in sorted(events, key=lambda event: event.t):
        at_s, channel, action = event.t / arrangement.tempo, event.channel, event.action
        if at_s > until_s:
            break
        if channel not in arrangement.programs:
            continue
        play(at_s)
        shift = 0 if channel == DRUM_CHANNEL else arrangement.semitones
        match action:
            case NoteOn(key=key, velocity=velocity):
                synth.noteon(channel, min(max(key + shift, 0), 127), velocity)
            case NoteOff(key=key):
                synth.noteoff(channel, min(max(key + shift, 0), 127))
            case ControlChange(control=control, control_value=value) if control not in (0, 32):
                synth.control_change(channel, control, value)
            case PitchBend(pitch_bend=value):
                synth.pitchbend(channel, value)
    synth.notes_off()
    play(min(played_s + TAIL_S, until_s))
    audio = np.concatenate(blocks)[round(arrangement.start_s * SAMPLE_RATE) :]
    return audio * (PEAK / max(float(np.abs(audio).max(initial=0.0)), 1e-9))


def _programs(events: Sequence[Any]) -> dict[int, int]:
    """channel -> its first program, for channels that have notes."""
    from tinysoundfont.midi import NoteOn, ProgramChange

    sounding = {event.channel for event in events if isinstance(event.action, NoteOn)}
    programs = dict.fromkeys(sorted(sounding), 0)
    for event in sorted(events, key=lambda event: -event.t):
        if isinstance(event.action, ProgramChange) and event.channel in programs:
            programs[event.channel] = event.action.program
    return programs
