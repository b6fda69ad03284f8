"""Facts as text, for terminals."""

from __future__ import annotations

import textwrap

from xsmall.notebook.facts import Facts

__all__ = ["as_text"]

_WIDTH = 100


def as_text(facts: Facts) -> str:
    """A heading, and a line or more for each fact, none longer than 100 characters."""
    width = max((len(name) for name, _ in facts.lines), default=0) + 1
    out = [f"<xsmall .sd of {facts.what}>"]
    for name, text in facts.lines:
        head = f"  {name + ':':<{width}} "
        out += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]
    return "\n".join(out)
