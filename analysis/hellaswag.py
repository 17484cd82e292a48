"""`python -m analysis hellaswag`: how many of HellaSwag's questions a trained model answers."""

from __future__ import annotations

from analysis.progress import bar
from analysis.trained import each_checkpoint, origin_of, trained
from data.hellaswag import HellaSwag
from record.hellaswag import numbers, words


def answer(sources: list[str], questions: str, device: str) -> None:
    """Print the accuracy of each model, in float32.

    sources: as `trained` takes them, or FOLDER@all. questions: a file, or "hub".

    Raises:
        ConfigError: there is no such model; one line.
        DataError: its vocabulary is not GPT-2's, or the questions cannot be read.
        RecordError: a checkpoint is damaged.
    """
    sources = [each for source in sources for each in each_checkpoint(source)]
    for source in sources:
        origin_of(source)  # or refuses, before any is asked
    for source in sources:
        found = trained(source, device)
        shape = found.model.shape
        quiz = HellaSwag.opened(
            questions, found.data_dir, shape.vocab_size, block_size=shape.block_size
        )
        assert quiz, "there are questions"
        with bar("hellaswag", total=len(list(quiz.passes()))) as progress:
            right = quiz.right(found.model, progress.update)
        print(f"{found.source}: HellaSwag {words(numbers(right))}", flush=True)
