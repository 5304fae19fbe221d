"""Text in the languages of the exports: names from outside are escaped, so that none of them is read as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.names import plain

_MARKDOWN = re.compile(r"[\\`*<>|\[\]$~]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that CommonMark, its tables, or the formulas of GitHub would read; an underscore inside a word is none of them."""
_LINE_START = re.compile(r"^(\d*)([#+.)-])(?=#*\s)")
"""What a line of its own would begin a heading or a list with."""
_ENTITY = re.compile(r"&(?=#?\w+;)")
_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", "*": "{*}", "[": "{[}", "]": "{]}"}  # fmt: skip
"""A star or a bracket in front of a row would belong to the end of the row before."""


def md(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    line = _MARKDOWN.sub(r"\\\g<0>", _ENTITY.sub("&amp;", plain(" ".join(text.split()))))
    return _LINE_START.sub(r"\1\\\2", line)


def tex(text: str) -> str:
    """Return a text that LaTeX shows as it is, on one line."""
    return "".join(_TEX.get(letter, letter) for letter in plain(" ".join(text.split())))


def md_row(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table; the cells are Markdown."""
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


@dataclass(frozen=True)
class Section:
    """A heading with a table and text around it, as plain text: each export writes it in its own language."""

    title: str
    level: int = 2
    before: str = ""
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    after: str = ""

    def markdown(self) -> str:
        """Return the section as Markdown."""
        parts = [f"{'#' * self.level} {md(self.title)}\n"]
        parts += [md(self.before) + "\n"] if self.before else []
        if self.heads:
            rows = [md_row(list(map(md, row))) for row in self.rows]
            parts.append("\n".join([md_row(list(map(md, self.heads))), "|---" * len(self.heads) + "|", *rows]) + "\n")
        parts += [md(self.after) + "\n"] if self.after else []
        return "\n".join(parts)
