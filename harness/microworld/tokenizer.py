"""Make the small CLIP tokenizer: byte-pair merges learnt from the vocabulary until every word is one token."""

from __future__ import annotations

import json
import string
from collections import Counter
from itertools import pairwise
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT_LENGTH = 24  # tokens; the longest prompt in use needs 17, and every text encoder costs in proportion
_SYMBOLS = string.ascii_lowercase + string.digits + string.punctuation
_SUFFIX = "</w>"


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return byte-pair merges, in order, under which each word ends as one token (ties broken by spelling)."""
    pieces = [[*word[:-1], word[-1] + _SUFFIX] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(piece, best) for piece in pieces]


def _merged(piece: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in piece:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def write_tokenizer(folder: Path, words: tuple[str, ...]) -> int:
    """Write vocab.json, merges.txt and the configuration of a CLIPTokenizer; return the vocabulary size.

    The end token has the highest number, because CLIP's pooling looks for it with an argmax.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters_only = tuple(word for word in words if word.isalnum())
    merges = learn_merges(letters_only)
    tokens = [*_SYMBOLS, *(symbol + _SUFFIX for symbol in _SYMBOLS)]
    seen = set(tokens)
    for left, right in merges:
        if left + right not in seen:  # two splits of one string share a token
            seen.add(left + right)
            tokens.append(left + right)
    tokens += [START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT_LENGTH, "bos_token": START,
        "eos_token": END, "unk_token": END, "pad_token": END, "do_lower_case": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    return len(vocabulary)
