"""The control kind `text`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aigc_sdk.codes import decode
from aigc_sdk.errors import InvalidRequest, printable, shown
from aigc_sdk.kinds import NAMED, Array, CodedKind, json_or_text

if TYPE_CHECKING:
    from aigc_sdk.card import Control


class TextKind(CodedKind):
    """A text: code points int32 (p,) of the characters in `choices`."""

    name = "text"

    def is_code(self, choice: str) -> bool:
        """Tell whether it is one character."""
        return len(choice) == 1

    def join(self, choices: Sequence[str]) -> str:
        """Return the text of characters."""
        return "".join(choices)

    def allowed(self, control: "Control") -> str:
        """Return how long it may be."""
        most = self.bounds(control)[1]
        return f"a text of at most {most} characters, of the {len(control.choices)} that the model knows"

    def accepts(self, control: "Control", value: object) -> bool:
        """Tell whether it is a text of the characters that the model knows."""
        most = self.bounds(control)[1]
        return isinstance(value, str) and len(value) <= most and not set(value).difference(control.choices)

    def decode(self, control: "Control", value: Any, where: str) -> list[int]:
        """Return the code points, or raise an error that names the characters that the model does not know."""
        if self.accepts(control, value):
            return [*map(ord, value)]
        if isinstance(value, str) and len(value) <= self.bounds(control)[1]:
            unknown = sorted(set(value).difference(control.choices))
            some = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:NAMED])
            more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
            raise InvalidRequest(f"{where} has characters that the model does not know: {printable(some)}{more}.")
        found = f"a text of {len(value)} characters" if isinstance(value, str) else shown(value)
        raise InvalidRequest(f"{where} is {found}; give {self.allowed(control)}.")

    def record(self, row: Array) -> str:
        """Return the text."""
        return decode(row)

    def from_words(self, control: "Control", words: str) -> Any:
        """Return the words, whatever they look like, but for a JSON list of texts."""
        value = json_or_text(words)
        return value if isinstance(value, list) and words not in control.choices else words

    def wrong(self, control: "Control") -> list[Any]:
        """Return what is no text, too long, or of characters that no model knows."""
        return [{}, 7, None, control.choices[0] * (int(self.bounds(control)[1]) + 1), "\ud800", "\x00"]
