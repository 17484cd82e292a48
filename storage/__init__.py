"""Files that survive a crash, and folders that one process at a time may write."""

from storage.files import publish, read_json, remove_leftovers, write_atomically, write_json
from storage.locks import LockedError, is_locked, lock

__all__ = [
    "LockedError",
    "is_locked",
    "lock",
    "publish",
    "read_json",
    "remove_leftovers",
    "write_atomically",
    "write_json",
]
