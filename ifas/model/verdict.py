"""The tokens that say Yes (live) and No (spoof), whatever the tokenizer makes of the two words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ifas.core.errors import ConfigError

YES, NO = "Yes", "No"


@dataclass(frozen=True)
class VerdictTokens:
    """Token ids of the two verdicts. `yes[0] != no[0]`: the score compares the logits of these two.

    Attributes:
        shared: ids that both words begin with (some tokenizers put a lone word boundary first); part of the prompt.
        yes, no: what follows.
    """

    shared: tuple[int, ...]
    yes: tuple[int, ...]
    no: tuple[int, ...]

    def of(self, live: bool) -> tuple[int, ...]:
        """Ids of one verdict."""
        return self.yes if live else self.no


def verdict_tokens(tokenizer: Any) -> VerdictTokens:
    """Finds the first token in which the two words differ.

    Raises:
        ConfigError: the tokenizer can't write one of the words, or they don't differ before one of them ends.
    """
    yes, no = (list(tokenizer.encode(word, add_special_tokens=False)) for word in (YES, NO))
    fix = "choose a language model whose tokenizer knows both words"
    if not yes or not no or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in (*yes, *no)):
        raise ConfigError(f"the tokenizer can't write {YES!r} and {NO!r}: {yes} and {no}", fix)
    same = 0
    while same < min(len(yes), len(no)) and yes[same] == no[same]:
        same += 1
    if same == min(len(yes), len(no)):
        raise ConfigError(f"the tokens of {YES!r} ({yes}) and {NO!r} ({no}) can't be told apart", fix)
    return VerdictTokens(shared=tuple(yes[:same]), yes=tuple(yes[same:]), no=tuple(no[same:]))
