"""What a model writes, made fit to be shown: marks checked, no links, code left alone."""

from collections.abc import Sequence

from chatserver.assistant.answering.citations import CitationMarks
from chatserver.assistant.answering.code_spans import CodeSpans
from chatserver.assistant.answering.links import CodeAddresses, Links
from chatserver.assistant.answering.schemas import Source

# More at once is looked at in slices: the work grows faster than the text.
SLICE = 2000


class Cleaner:
    """One answer's text on its way out. What was `shown` before a break is where it goes on."""

    def __init__(
        self, sources: Sequence[Source], *, given: str, cites: bool = True, shown: str = ""
    ) -> None:
        """`given`: all that the model was told, where addresses in code may come from."""
        self.marks = CitationMarks({source.n for source in sources}, shows=cites)
        self._links = Links()
        self._spans = CodeSpans()
        self._code = CodeAddresses(given)
        self._in_code = False
        if shown:
            # Only to know whether the text stands inside of code, and what was cited.
            for is_code, part in self._spans.feed(shown):
                self._in_code = is_code
                if not is_code:
                    self.marks.feed(part)
            self.marks.flush()

    @property
    def removed(self) -> int:
        """How many links were taken out."""
        return self._links.removed

    def feed(self, text: str) -> str:
        """Take more of what the model wrote; give what can be shown by now."""
        text = text.replace("\0", "").encode(errors="replace").decode()
        shown = [
            self._part(is_code, part)
            for at in range(0, len(text), SLICE)
            for is_code, part in self._spans.feed(text[at : at + SLICE])
        ]
        return "".join(shown)

    def flush(self) -> str:
        """Give what was held back: the answer ends here."""
        shown = [self._part(is_code, part) for is_code, part in self._spans.flush()]
        return "".join(shown) + (self._code.flush() if self._in_code else self._end_prose())

    def _part(self, is_code: bool, text: str) -> str:  # noqa: FBT001 - of a pair
        if is_code:
            before = "" if self._in_code else self._end_prose()
            self._in_code = True
            return before + self._code.feed(text)
        before = self._code.flush() if self._in_code else ""
        self._in_code = False
        return before + self._links.feed(self.marks.feed(text))

    def _end_prose(self) -> str:
        return self._links.feed(self.marks.flush()) + self._links.flush()
