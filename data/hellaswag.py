"""HellaSwag: beginnings of a text with four endings each, one of which is right.

A model answers with the ending whose tokens have the lowest mean cross-entropy after the beginning;
the share of right answers is called acc_norm. Chance is 1 in 4. The questions are of Zellers et al.
2019 (arXiv:1905.07830); build-nanogpt and llm.c score them in the same way: the plain text, without
a template, examples or an end-of-text token before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from data.formats import DataError
from data.vocabulary import GPT2, tokenizer_name

if TYPE_CHECKING:
    from torch import Tensor, nn

HUB, DATASET = "hub", "Rowan/hellaswag"
PASS_TOKENS = 2048  # in one pass, or one longer question; a token's logits take some 600 kB
ENDINGS = 4
UNSCORED = -100  # a target that cross-entropy leaves out


class _Question(BaseModel):
    """A line of HellaSwag's files, which hold more. The hub's labels are strings."""

    ctx: str = Field(min_length=1)
    endings: tuple[str, str, str, str]
    label: int = Field(ge=0, lt=ENDINGS)


class HellaSwag:
    """Questions in GPT-2's tokens, shared by all ranks.

    Which questions go through the model together does not depend on the number of ranks, so neither
    do the answers.

    Raises:
        DataError: a question is longer than `block_size` tokens; one line.
    """

    def __init__(
        self,
        questions: Sequence[_Question],
        *,
        source: str,
        block_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.labels = np.array([question.label for question in questions])
        asked = json.dumps([[each.ctx, each.endings, each.label] for each in questions])
        self.hash = hashlib.sha256(asked.encode()).hexdigest()
        self.rank, self.world_size = rank, world_size
        contexts = _tokens([question.ctx for question in questions])
        # As in the running text, a space precedes an ending: GPT-2's tokens of words hold it.
        endings = _tokens([f" {ending}" for question in questions for ending in question.endings])
        self.rows = [(contexts[i // ENDINGS], ending) for i, ending in enumerate(endings)]
        lengths = np.array([len(a) + len(b) - 1 for a, b in self.rows]).reshape(-1, ENDINGS)
        self.lengths = lengths.max(1)  # inputs of each question's longest row
        if (self.lengths > block_size).any():
            first = int(np.argmax(self.lengths > block_size))
            raise DataError(
                f"HellaSwag: question {first + 1} of '{source}' has {self.lengths[first]} tokens,"
                f" more than block_size {block_size}; it takes a model with a block_size of"
                f" {self.lengths.max()} or more, or a file of shorter questions"
            )

    @classmethod
    def opened(
        cls, source: str | None, directory: Path | str | None, vocab_size: int, **how: int
    ) -> HellaSwag | None:
        """The questions of `source`, a file of JSON lines or "hub"; None without one.

        directory, vocab_size: of the model's tokens, which must be GPT-2's. how: block_size, and
        rank and world_size, as HellaSwag takes them.

        Raises:
            DataError: the tokens are others, the questions cannot be read, or one is too long.
        """
        if source is None:
            return None
        name = tokenizer_name(directory, vocab_size)
        if (name, vocab_size) != (GPT2.name, GPT2.vocab_size):
            raise DataError(
                f"HellaSwag needs GPT-2's vocabulary, {GPT2.vocab_size} tokens; this model has"
                f" {vocab_size}{f', made by {name!r}' if name else ''}: leave it out, or train on"
                " data that were made with GPT-2's (python -m data text PATH --tokenizer gpt2)"
            )
        return cls(_read(source), source=source, **how)

    def __len__(self) -> int:
        return len(self.labels)

    def right(self, model: nn.Module, passed: Callable[[], object] = lambda: None) -> Tensor:
        """1 for each question that `model` answers rightly, else 0; float32 (questions,).

        A question of another rank has 0, so the sum over all ranks has all.

        model: not compiled, since lengths differ; called as train_gpt2.GPT, with `by_sequence`.
        passed: called after each pass, for a progress bar.
        """
        import torch  # here, so that `python -m data` starts without it

        device = next(model.parameters()).device
        found = torch.zeros(len(self), device=device)
        with torch.no_grad():
            for places in self.passes():
                tokens, targets = (torch.from_numpy(x).to(device) for x in self._rows(places))
                # A mean over the whole row, in which all but the ending's tokens count as 0.
                means = model(tokens, targets, by_sequence=True) * tokens.size(1)
                losses = (means / (targets != UNSCORED).sum(1)).view(-1, ENDINGS)
                labels = torch.from_numpy(self.labels[places]).to(device)
                found[torch.from_numpy(places).to(device)] = (losses.argmin(1) == labels).float()
                passed()
        return found

    def passes(self) -> Iterator[np.ndarray]:
        """This rank's share: the questions, by number, that go through the model together."""
        order = np.argsort(self.lengths, kind="stable")  # neighbours have little padding
        passes, begin = [], 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and self._cost(end + 1 - begin, order[end]) <= PASS_TOKENS:
                end += 1
            passes.append(order[begin:end])
            begin = end
        yield from passes[self.rank :: self.world_size]

    def _cost(self, questions: int, longest: int) -> int:
        return int(questions * ENDINGS * self.lengths[longest])

    def _rows(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of some questions, int64 (4 * questions, their longest row).

        Padding follows the text, so it changes nothing before it; it has no target.
        """
        shape = len(places) * ENDINGS, int(self.lengths[places].max())
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, UNSCORED)
        rows = [self.rows[place * ENDINGS + i] for place in places for i in range(ENDINGS)]
        for i, (context, ending) in enumerate(rows):
            row = np.concatenate([context, ending])
            tokens[i, : len(row) - 1] = row[:-1]
            targets[i, len(context) - 1 : len(row) - 1] = ending
        return tokens, targets


def _tokens(texts: Sequence[str]) -> list[np.ndarray]:
    """The tokens of each text, without an end-of-text token."""
    tokenizer = GPT2()
    ids = tokenizer.encode(texts)
    return [part[1:] for part in np.split(ids, np.flatnonzero(ids == tokenizer.eot_id))[1:]]


def _read(source: str) -> list[_Question]:
    if source == HUB:
        return [_question(row, f"row {i}") for i, row in enumerate(_downloaded())]
    try:
        lines = Path(source).read_text("utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        from configs.validation import first_line

        raise DataError(
            f"HellaSwag: '{source}' cannot be read ({first_line(error)}); give a file as"
            f" hellaswag_val.jsonl, or {HUB}"
        ) from None
    return [_question(line, f"{source}:{i}") for i, line in enumerate(lines, start=1)]


def _question(given: str | dict[str, Any], where: str) -> _Question:
    try:
        if isinstance(given, str):
            return _Question.model_validate_json(given)
        return _Question.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{where} is no question of HellaSwag ({f'{key}: ' if key else ''}"
            f"{first['msg']}); it needs ctx (text), endings ({ENDINGS} texts) and label (0 to"
            f" {ENDINGS - 1}), as a line of hellaswag_val.jsonl has them"
        ) from None


def _downloaded() -> Any:
    """The rows of the validation split, which the hub's client keeps for the next run."""
    try:
        from datasets import load_dataset

        return load_dataset(DATASET, split="validation")
    except Exception as error:  # the network, the hub or its client: the user can mend it
        from configs.validation import first_line

        raise DataError(
            f"HellaSwag: {DATASET} cannot be had from the Hugging Face hub"
            f" ({first_line(error)}); without a network give a file, hellaswag_val.jsonl"
        ) from None
