"""The losses of a run's held-out sequences on disk."""

import numpy as np
import pytest

from record import sequences
from record.runlog import RecordError

LOSSES = {
    "val": np.array([1.5, np.nan, 2.5e-8], np.float32),
    "test": np.array([3.25], np.float32),
}


def test_losses_come_back_bit_for_bit(tmp_path):
    sequences.write(tmp_path, LOSSES)
    found = sequences.read(tmp_path)
    assert list(found) == ["val", "test"]
    for split, losses in LOSSES.items():
        assert found[split].dtype == np.float32
        assert np.array_equal(found[split], losses, equal_nan=True)


def test_the_same_losses_are_the_same_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sequences.write(tmp_path / name, LOSSES)
        files.append((tmp_path / name / sequences.FILE).read_bytes())
    assert files[0] == files[1]


def test_a_run_without_the_file_has_no_losses(tmp_path):
    assert sequences.read(tmp_path) == {}
    assert sequences.read(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_file_is_named(tmp_path, keep):
    sequences.write(tmp_path, LOSSES)
    path = tmp_path / sequences.FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError, match=r"sequences\.npz is damaged"):
        sequences.read(tmp_path)
