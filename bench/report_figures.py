"""Figures of a report as SVG files, drawn by plotly in a browser as the page draws them.

    python -m report runs/sgd_sai_small
    python -m bench.report_figures runs/sgd_sai_small/report.html grid_maps --out docs/results

Writes <out>/<contest>_<figure>.svg, the contest being the folder's name, on white. Without names of
figures it lists those of the page. Needs Chromium, chromedriver and selenium, as the tests of the
page do.
"""

from __future__ import annotations

import argparse
import urllib.parse
from pathlib import Path

import pytest

from tests.report.browser import browser, open_page, wait_until_drawn

WIDTH = 860  # px
OPEN = "document.querySelectorAll('#figures details').forEach((fold) => (fold.open = true))"
NAMES = "return [...document.querySelectorAll('figure.plotted')].map((f) => f.id.slice(4))"
IMAGE = """
const [name, width, done] = arguments;
const plot = document.querySelector(`#fig-${name} .plot`);
Plotly.relayout(plot, { paper_bgcolor: "white" })
  .then(() => Plotly.toImage(plot, { format: "svg", width, height: plot.layout.height }))
  .then(done);
"""
PREFIX = "data:image/svg+xml,"


def images(page: Path, names: list[str]) -> dict[str, str]:
    """The SVG of each figure that is named; the page may have folded it away.

    Raises:
        ValueError: a name is none of the page's figures, or there are no names.
    """
    with browser(1280, 1000) as session:
        open_page(session, page)
        session.execute_script(OPEN)
        wait_until_drawn(session)
        present: list[str] = session.execute_script(NAMES)
        if not names or set(names) - {*present}:
            raise ValueError(f"{page} has the figures {', '.join(present)}; give some of these")
        uris = {name: session.execute_async_script(IMAGE, name, WIDTH) for name in names}
        return {name: urllib.parse.unquote(uri.removeprefix(PREFIX)) for name, uri in uris.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("page", type=Path, metavar="report.html")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="its id; none: list them")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="(%(default)s)")
    options = parser.parse_args()
    if not options.page.is_file():
        parser.error(f"there is no file {options.page}")
    if not options.out.is_dir():
        parser.error(f"there is no folder {options.out}")
    try:
        found = images(options.page, options.figures)
    except (ValueError, pytest.skip.Exception) as error:
        parser.error(str(error))
    for name, image in found.items():
        path = options.out / f"{options.page.resolve().parent.name}_{name}.svg"
        path.write_text(image + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
