"""Exhibits: what notebooks, reports, pages and the samples of a training show of contents."""

import base64
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Exhibit:
    """Something to look at or to listen to, as a file of its own.

    Attributes:
        mime: what the data is: "image/png", "image/svg+xml", "text/plain" (in UTF-8), "audio/wav", "video/mp4", ...
        data: the bytes of the file.
        caption: what it shows, in words, for those who cannot see it.
    """

    mime: str
    data: bytes
    caption: str = ""

    @property
    def suffix(self) -> str:
        """What the name of such a file ends in.

        Example:
            >>> Exhibit("image/svg+xml", b"").suffix
            '.svg'
        """
        kind = self.mime.partition("/")[2].partition("+")[0]
        return {"plain": ".txt", "jpeg": ".jpg"}.get(kind, f".{kind}")

    def to_html(self) -> str:
        """Return it as HTML; every text is escaped.

        Example:
            >>> Exhibit("text/plain", b"a < b").to_html()
            '<pre>a &lt; b</pre>'
        """
        kind, words = self.mime.partition("/")[0], escape(self.caption)
        if kind == "text":
            return f"<pre>{escape(self.data.decode('utf-8', 'replace'))}</pre>"
        source = f'src="data:{escape(self.mime)};base64,{base64.b64encode(self.data).decode()}"'
        if kind in ("audio", "video"):
            return f'<{kind} controls title="{words}" {source}></{kind}>'
        return f'<img alt="{words}" {source}>'
