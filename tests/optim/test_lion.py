"""Lion against an oracle and its package."""

import inspect
import re
import textwrap

import pytest

from optim.lion import Lion
from tests.jobs import ROOT
from tests.optim.recorded import SIGN, assert_equals_oracle, assert_equals_package


def test_equals_its_oracle():
    assert_equals_oracle("lion", 1e-2, **SIGN)


def test_equals_lion_pytorch():
    package = pytest.importorskip("lion_pytorch")

    def make(named, lr):
        return package.Lion(named.values(), lr=lr, **SIGN)

    assert_equals_package("lion", make, **SIGN)


def test_contributing_shows_its_code_as_it_is():
    code = re.sub(r'""".*?"""', '"""..."""', inspect.getsource(Lion), count=1, flags=re.DOTALL)
    assert textwrap.indent(code, "    ") in (ROOT / "CONTRIBUTING.md").read_text()
