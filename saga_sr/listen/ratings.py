"""What listeners answered: any number of the page's CSVs as one table per system and category.

**Post-screening** (ITU-R BS.1534-3): a listener who rates the hidden truth below 90, or the anchor
above 90, in more than 15 % of the clips is left out, and named. Where nobody is left, nothing is
averaged.

**Intervals.** Ratings of one listener resemble each other, and so do ratings of one clip: n of them
are not n independent observations. The variance of a mean is therefore that of crossed random
effects, V = V_listener + V_clip - V_rating (Cameron, Gelbach and Miller, 2011), never less than the
larger of the first two, with Satterthwaite's degrees of freedom. One listener alone speaks for
himself: his interval is over clips.

**Telling apart.** Systems are compared within listener and clip, by the mean of the differences.
Where the interval of truth minus system reaches 0, listeners could not tell them apart.

**Preference.** The share of choices that a system won of another (no difference is half a win),
with the wider of that interval and Wilson's: a handful of equal answers is no certainty.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from saga_sr.support.errors import UserError

FORMAT = "saga_sr.listen/1"
MODES = ("mushra", "preference")
ROLES = ("input", "system", "baseline", "ceiling", "truth", "anchor")
COLUMNS = (
    "format", "page", "title", "mode", "session", "rater", "started_at", "trial", "rated_at",
    "clip", "category", "cutoff_hz", "position", "system", "role", "against", "rating",
)  # fmt: skip
GOOD_RATING = 90.0
BAD_SHARE = 0.15
CONFIDENCE = 0.95
LEAST_UNITS = 3  # clips or listeners below which no interval is given
ALL = "all"
MAX_LISTED = 10


@dataclass(frozen=True)
class Rating:
    """One rated version. ``against`` is the other of a pair, "" for mushra; ``rating`` 0 to 100."""

    page: str
    title: str
    mode: str
    session: str
    rater: str
    trial: int
    rated_at: str
    clip: str
    category: str
    cutoff_hz: float
    position: int
    system: str
    role: str
    against: str
    rating: float

    @property
    def item(self) -> tuple[str, float]:
        """What is heard: a clip at a cutoff."""
        return self.clip, self.cutoff_hz


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; ``low`` and ``high`` are NaN where there is too little."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.low)

    def __str__(self) -> str:
        shown = f"{self.mean:.1f}"
        return f"{shown} [{self.low:.1f}, {self.high:.1f}]" if self.is_known else f"{shown} [–]"


# ---------------------------------------------------------------------------------------------
# Reading


def read_ratings(paths: Sequence[Path]) -> tuple[list[Rating], list[str]]:
    """The ratings of CSVs that the page saved, and notes on what was found twice.

    A file saved again later holds the earlier answers too: of each trial the newest counts.

    Raises:
        UserError: lists every file that cannot be read, and where; or files of several pages.
    """
    problems: list[str] = []
    newest: dict[tuple[str, int, str], Rating] = {}
    repeated = 0
    for path in paths:
        for one in _read_file(path, problems):
            key = (one.session, one.trial, one.system)
            if key in newest:
                repeated += 1
            if key not in newest or one.rated_at >= newest[key].rated_at:
                newest[key] = one
    if problems:
        more = len(problems) - MAX_LISTED
        listed = problems[:MAX_LISTED] + [f"and {more} more"] * (more > 0)
        raise UserError.listing("--ratings: these files cannot be used", listed)
    ratings = list(newest.values())
    if not ratings:
        raise UserError("--ratings: no rating in any of the files")
    pages = sorted({(one.page, one.title) for one in ratings})
    if len(pages) > 1:
        raise UserError.listing(
            "--ratings: these are ratings of different pages; give those of one page at a time",
            [f"{title} (page {page})" for page, title in pages],
        )
    notes = [f"{repeated} ratings are in more than one file; each counts once."] if repeated else []
    return ratings, notes


def _read_file(path: Path, problems: list[str]) -> list[Rating]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
        return []
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","  # some spreadsheets' way
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if missing:
        problems.append(
            f"{path}: not saved by listen.html: no column {', '.join(missing[:4])}"
            + (" ..." if len(missing) > 4 else "")
        )
        return []
    ratings = []
    try:
        for row in reader:
            try:
                ratings.append(_parse(row))
            except ValueError as error:
                problems.append(f"{path}: line {reader.line_num}: {error}")
    except csv.Error as error:
        problems.append(f"{path}: line {reader.line_num}: {error}")
    return ratings


def _parse(row: dict[str, str]) -> Rating:
    if None in row.values() or None in row:
        raise ValueError("it has too few or too many fields")
    if row["format"] != FORMAT:
        raise ValueError(f"format is {row['format']!r}, not {FORMAT!r}")
    for name, allowed in (("mode", MODES), ("role", ROLES)):
        if row[name] not in allowed:
            raise ValueError(f"{name} is {row[name]!r}; allowed: {', '.join(allowed)}")
    for name in ("page", "session", "rater", "clip", "system"):
        if not row[name].strip():
            raise ValueError(f"{name} is empty")
    rating = _number(row, "rating")
    if not 0 <= rating <= 100:
        raise ValueError(f"rating is {rating:g}, not in 0 to 100")
    if (row["mode"] == "preference") != bool(row["against"]):
        raise ValueError(f"against is {row['against']!r} in mode {row['mode']}")
    return Rating(
        row["page"], row["title"], row["mode"], row["session"], row["rater"].strip(),
        int(_number(row, "trial")), row["rated_at"], row["clip"], row["category"],
        _number(row, "cutoff_hz"), int(_number(row, "position")), row["system"], row["role"],
        row["against"], rating,
    )  # fmt: skip


def _number(row: dict[str, str], name: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {row[name]!r}, not a number")
    return value


# ---------------------------------------------------------------------------------------------
# Counting


def screen(ratings: Iterable[Rating]) -> tuple[list[Rating], list[str]]:
    """The mushra ratings of listeners who pass BS.1534's post-screening, and who did not, and why.

    Listeners who never heard the hidden truth cannot be screened; they stay, and are named.
    """
    by_rater: dict[str, list[Rating]] = defaultdict(list)
    for one in ratings:
        by_rater[one.rater].append(one)
    kept, notes = [], []
    for rater, theirs in by_rater.items():
        truths = [one.rating for one in theirs if one.role == "truth"]
        anchors = [one.rating for one in theirs if one.role == "anchor"]
        low = sum(value < GOOD_RATING for value in truths)
        high = sum(value > GOOD_RATING for value in anchors)
        if not truths:
            notes.append(f"{rater} never heard the hidden truth: not screened.")
        if low > BAD_SHARE * len(truths):
            notes.append(
                f"{rater} is left out: the hidden truth was rated below 90 in {low} of "
                f"{len(truths)} clips."
            )
        elif high > BAD_SHARE * len(anchors):
            notes.append(
                f"{rater} is left out: the anchor was rated above 90 in {high} of "
                f"{len(anchors)} clips."
            )
        else:
            kept += theirs
    return kept, notes


def interval(values: Sequence[float], raters: Sequence[str], items: Sequence[object]) -> Interval:
    """Mean and 95 % interval of values that share listeners and clips (see the top of this file).

    Args:
        values, raters, items: a value, who gave it and for which clip, [N] each.
    """
    y = np.asarray(values, dtype=float)
    mean = float(y.mean())
    residuals = y - mean
    parts = []
    for labels in (raters, items):
        sums: dict[object, float] = defaultdict(float)
        for label, residual in zip(labels, residuals, strict=True):
            sums[label] += float(residual)
        groups = len(sums)
        if groups > 1:
            scale = groups / (groups - 1) / len(y) ** 2
            parts.append((scale * sum(value**2 for value in sums.values()), groups))
    if max((groups for _, groups in parts), default=0) < LEAST_UNITS:
        return Interval(mean, math.nan, math.nan, len(y))
    largest = max(part for part, _ in parts)
    variance = largest
    if len(parts) == 2:
        single = float((residuals**2).sum()) / len(y) ** 2
        variance = max(largest, parts[0][0] + parts[1][0] - single)
    below = sum(part**2 / (groups - 1) for part, groups in parts)
    freedom = sum(part for part, _ in parts) ** 2 / below if below else math.inf
    reach = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach, len(y))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` independent answers."""
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - reach, middle + reach


def mean_of(ratings: Sequence[Rating]) -> Interval:
    """Of one system, within 0 to 100."""
    cells = _by_cell(ratings)
    raters, items = zip(*cells, strict=True)
    found = interval(list(cells.values()), raters, items)
    return Interval(found.mean, max(0.0, found.low), min(100.0, found.high), len(ratings))


def difference(ratings: Sequence[Rating], better: str, worse: str) -> Interval | None:
    """``better`` minus ``worse``, of those who rated both on the same clip; None if nobody did."""
    ours = _by_cell([one for one in ratings if one.system == better])
    theirs = _by_cell([one for one in ratings if one.system == worse])
    shared = [cell for cell in ours if cell in theirs]
    if not shared:
        return None
    raters, items = zip(*shared, strict=True)
    return interval([ours[cell] - theirs[cell] for cell in shared], raters, items)


def preference(ratings: Sequence[Rating], one: str, other: str) -> Interval | None:
    """In how many per cent of the choices ``one`` was preferred to ``other``; None without any."""
    won = [r for r in ratings if r.system == one and r.against == other]
    if not won:
        return None
    cells = _by_cell(won)
    raters, items = zip(*cells, strict=True)
    found = interval(list(cells.values()), raters, items)
    low, high = (100 * bound for bound in wilson(found.mean / 100, len(won)))
    if found.is_known:
        low, high = max(0.0, min(low, found.low)), min(100.0, max(high, found.high))
    return Interval(found.mean, low, high, len(won))


def _by_cell(ratings: Iterable[Rating]) -> dict[tuple[str, tuple[str, float]], float]:
    """(rater, clip) -> mean rating: who hears a clip twice counts once."""
    cells: dict[tuple[str, tuple[str, float]], list[float]] = defaultdict(list)
    for one in ratings:
        cells[one.rater, one.item].append(one.rating)
    return {cell: sum(values) / len(values) for cell, values in cells.items()}


# ---------------------------------------------------------------------------------------------
# The table


def report(ratings: Sequence[Rating], notes: Sequence[str] = ()) -> str:
    """Everything that the ratings say, as Markdown."""
    raters = list(dict.fromkeys(one.rater for one in ratings))
    text = [
        "# What listeners heard",
        f"{ratings[0].title} (page {ratings[0].page}). {len(raters)} "
        f"listener{'s' * (len(raters) != 1)}: {', '.join(raters)}. "
        f"Means with {100 * CONFIDENCE:.0f} % intervals over listeners and clips.",
        _bullets(notes),
    ]
    rated = [one for one in ratings if one.mode == "mushra"]
    if rated:
        kept, left_out = screen(rated)
        text += ["## Ratings, 0 to 100", _bullets(left_out)]
        text += _rated(kept) if kept else ["Nobody passed the post-screening: no table."]
    chosen = [one for one in ratings if one.mode == "preference"]
    if chosen:
        text += ["## Preference", *_chosen(chosen)]
    return "\n\n".join(part for part in text if part) + "\n"


def _rated(ratings: Sequence[Rating]) -> list[str]:
    columns = _columns(ratings)
    systems = _systems(ratings)
    means = {name: mean_of([r for r in ratings if r.system == name]).mean for name in systems}
    order = sorted(systems, key=lambda name: -means[name])

    def cell(name: str, column: Sequence[Rating]) -> str:
        theirs = [one for one in column if one.system == name]
        return str(mean_of(theirs)) if theirs else "–"

    tables = [_table("mean", columns, order, cell), _counts(columns)]
    truth = next((name for name, role in systems.items() if role == "truth"), None)
    judged = [n for n in order if systems[n] not in ("truth", "anchor")]
    if truth is not None and judged:
        tables += ["### Can the hidden truth be told from the rest?", "Truth minus version."]
        tables.append(
            _table(
                "truth minus", columns, judged, lambda n, c: _verdict(difference(c, truth, n), 0)
            )
        )
        tables.append(_bullets(_untold(truth, judged, columns)))
    pairs = [(a, b) for i, a in enumerate(judged) for b in judged[i + 1 :]]
    if pairs:
        names = {f"{a} − {b}": (a, b) for a, b in pairs}
        tables += ["### Which is better?", "Difference on the same clips by the same listeners."]
        tables.append(
            _table("", columns, list(names), lambda n, c: _verdict(difference(c, *names[n]), 0))
        )
    return tables


def _untold(truth: str, judged: Sequence[str], columns: dict[str, list[Rating]]) -> list[str]:
    lines = []
    for name in judged:
        where = [
            label
            for label, column in columns.items()
            if (found := difference(column, truth, name)) and found.is_known and found.low <= 0
        ]
        if where:
            lines.append(
                f"Listeners could not tell {truth} from {name} ({', '.join(where)}): either it is "
                "as good, or there are too few ratings to say."
            )
    return lines


def _chosen(ratings: Sequence[Rating]) -> list[str]:
    columns = _columns(ratings)
    systems = list(_systems(ratings))
    names = {
        f"{a} over {b}": (a, b)
        for i, a in enumerate(systems)
        for b in systems[i + 1 :]
        if preference(ratings, a, b) is not None
    }
    return [
        "How often the first was preferred, in per cent; 50 is chance.",
        _table("", columns, list(names), lambda n, c: _verdict(preference(c, *names[n]), 50)),
        _counts(columns),
    ]


def _verdict(found: Interval | None, chance: float) -> str:
    if found is None:
        return "–"
    if not found.is_known:
        return str(found)
    return str(found) + (" not told apart" if found.low <= chance <= found.high else "")


def _columns(ratings: Sequence[Rating]) -> dict[str, list[Rating]]:
    """All, and each category where there are several."""
    categories = sorted({one.category for one in ratings})
    columns = {ALL: list(ratings)}
    if len(categories) > 1:
        columns |= {c: [one for one in ratings if one.category == c] for c in categories}
    return columns


def _systems(ratings: Iterable[Rating]) -> dict[str, str]:
    """Name -> role in the order in which they are found, by name where shuffled."""
    return dict(sorted({one.system: one.role for one in ratings}.items()))


def _counts(columns: dict[str, list[Rating]]) -> str:
    shown = (
        f"{label}: {len({one.rater for one in column})} listeners, "
        f"{len({one.item for one in column})} clips, {len(column)} ratings"
        for label, column in columns.items()
    )
    return "\n".join(f"- {line}" for line in shown)


def _table(
    title: str,
    columns: dict[str, list[Rating]],
    names: Sequence[str],
    cell: Callable[[str, Sequence[Rating]], str],
) -> str:
    header = [title, *columns]
    rows = [[name, *(cell(name, column) for column in columns.values())] for name in names]
    lines = [header, ["---", *["---:"] * len(columns)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
