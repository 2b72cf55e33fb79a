"""What a section found: figures, verdicts against targets, and what it could not do."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from saga_sr.support.tables import markdown_table

PASS, MISS, WRONG, DRY = "pass", "miss", "WRONG", "rehearsed"


@dataclass(frozen=True)
class Finding:
    """Attributes:
    what, measured, target: in words, with units.
    verdict: `PASS`, or `MISS` of a speed, `WRONG` for results that differ, `DRY` in a rehearsal.
    """

    what: str
    measured: str
    target: str
    verdict: str


@dataclass
class Report:
    """Attributes:
    rehearsed: speeds and sizes are those of no GPU, so that no target is held against them.
    """

    rehearsed: bool
    findings: list[Finding] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def at_least(self, what: str, value: float, target: float, unit: str = "") -> None:
        self._judge(what, value, f"at least {target:g}{unit}", unit, value >= target)

    def at_most(self, what: str, value: float, target: float, unit: str = "") -> None:
        self._judge(what, value, f"at most {target:g}{unit}", unit, value <= target)

    def agrees(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Two ways to the same result differ by ``value``; more than ``limit`` is an error, in a
        rehearsal too."""
        verdict = PASS if value <= limit else WRONG
        self.findings.append(
            Finding(what, f"{value:.3g}{unit}", f"at most {limit:g}{unit}", verdict)
        )

    def _judge(self, what: str, value: float, target: str, unit: str, reached: bool) -> None:
        verdict = DRY if self.rehearsed else PASS if reached else MISS
        self.findings.append(Finding(what, f"{value:.3g}{unit}", target, verdict))

    def say(self, text: str) -> None:
        self.text.append(text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.text.append(markdown_table(header, rows))
