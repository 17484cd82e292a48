"""The plan's history in words."""

from types import SimpleNamespace

from record.history import Entry, append
from report.history import read


def test_changes_of_arms_are_told_in_the_order_of_the_contest_file(tmp_path):
    arms, entries = [f"arm{i}" for i in range(8)], []
    for rate in (1, 2):
        rows = [f'[[arm]]\nname = "{arm}"\nlr = {rate}\n' for arm in arms]
        entry = Entry(
            time="2026-01-02T03:04:05+00:00",
            commit="abc",
            dirty=False,
            sha256="",
            text='[contest]\nname = "c"\n' + "".join(rows),
            settings={},
            seeds={},
            runs=8,
            ended={},
        )
        entries.append(append(tmp_path, entry, entries))
    _, *changes = read(tmp_path, SimpleNamespace(history="")).lines
    assert [line.partition("UTC: ")[2].partition(":")[0] for line in changes] == [
        f"arm {arm}" for arm in arms
    ]
