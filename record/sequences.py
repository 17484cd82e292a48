"""The losses of a run on each held-out sequence, after its last update: sequences.npz.

    read(run)["test"]    # float32 (sequences,), nats per token, in the order of the text

Their mean is the run's final loss on that split. With them a report can tell what a difference owes
to the text from what it owes to the seeds.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from record.runlog import RecordError
from storage import write_atomically

FILE = "sequences.npz"


def write(directory: Path, losses: Mapping[str, NDArray[np.float32]]) -> None:
    """Replace the file in the run's folder; losses: by split, float32 (sequences,).

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, **losses)  # type: ignore[arg-type]  # numpy 2.0 has no allow_pickle
    write_atomically(directory / FILE, [content.getvalue()])


def read(directory: Path) -> dict[str, NDArray[np.float32]]:
    """The losses by split; {} without the file: the run has not ended, or is of an older version.

    Raises:
        RecordError: the file is damaged.
    """
    path = directory / FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {split: arrays[split] for split in arrays.files}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is damaged ({error}); its losses are not used") from None
