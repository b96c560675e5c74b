"""Text of tokens that come one by one."""

from __future__ import annotations

from ifas.model.processor import IfasProcessor
from ifas.model.whole_clauses import BROKEN


class GrowingText:
    """Turns tokens into pieces of text that, joined, are `IfasProcessor.text` of all tokens.

    All tokens are decoded at each step, since the text of a token may depend on those before it (a leading space, bytes
    of one character). Text that may still change is held back: bytes that do not make a whole character yet, and the
    last word where the tokenizer cleans up spaces, since punctuation may be joined to it.
    """

    def __init__(self, processor: IfasProcessor) -> None:
        self._processor = processor
        self._tidies = bool(getattr(processor.tokenizer, "clean_up_tokenization_spaces", False))
        self._ids: list[int] = []
        self._said = ""

    def add(self, token: int) -> str:
        """What a token adds; often empty."""
        self._ids.append(token)
        text = self._processor.text(self._ids).rstrip(BROKEN).rstrip()
        return self._piece(text.rpartition(" ")[0] if self._tidies else text)

    def end(self) -> str:
        """What is still to say when no token follows."""
        return self._piece(self._processor.text(self._ids))

    def _piece(self, text: str) -> str:
        if not text.startswith(self._said):
            return ""
        piece = text[len(self._said) :]
        self._said = text
        return piece
