"""What the page says, in English and in Chinese; `static/words.json` holds the words.

The browser's language decides. What Python says is chosen by the request's ``Accept-Language``,
what the scripts say by ``navigator.language``, which browsers send as the former.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saga_sr.support.errors import UserError

LANGUAGES = ("en", "zh")
WORDS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "static" / "words.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Message:
    """A sentence of `WORDS`; a value may be a message of its own.

    ``str`` gives it in English.
    """

    key: str
    values: dict[str, Any] = field(default_factory=dict)

    def text(self, language: str) -> str:
        """The sentence in one of `LANGUAGES`."""
        values = {
            name: value.text(language) if isinstance(value, Message) else value
            for name, value in self.values.items()
        }
        return WORDS[self.key][language].format(**values)

    def __str__(self) -> str:
        return self.text("en")


def message(key: str, **values: Any) -> Message:
    return Message(key, values)


class PageError(UserError):
    """A mistake of a visitor that the page can tell in the visitor's language."""

    def __init__(self, key: str, **values: Any) -> None:
        self.message = Message(key, values)
        super().__init__(str(self.message))


def language_of(accept_language: str) -> str:
    """The page's language for an ``Accept-Language`` header: its first entry decides."""
    return "zh" if accept_language.strip().lower().startswith("zh") else "en"
