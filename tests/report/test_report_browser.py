"""The page in a real browser: nothing sticks out of it, no label is cut off or lies on another."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ovit_deploy.report.gather import gather
from ovit_deploy.report.html import html
from ovit_deploy.report.sections import sections

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=10000",
    "--window-size=1500,900",
    "--dump-dom",
]
# A window of a browser is at least 500 pixels wide, a frame in it is as narrow as it is told.
AROUND = """<!DOCTYPE html><html><body><iframe src="page.html" style="border:0;width:{width}px;height:800px"></iframe>
<script>addEventListener("message", event => document.body.dataset.found = event.data);</script></body></html>"""
MEASURE = """
<script>
const page = document.documentElement, cut = [], over = [], dull = [];
document.querySelectorAll("details").forEach(one => one.open = true);
const light = colour => {
  const [r, g, b] = colour.match(/[0-9.]+/g).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = light(getComputedStyle(document.body).backgroundColor);
const dim = colour => {
  const [low, high] = [light(colour), ground].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05) < 4.5;
};
document.querySelectorAll("p, th, td, summary, a, h1, h2, h3").forEach(one => {
  if (dim(getComputedStyle(one).color)) dull.push(one.textContent);
});
document.querySelectorAll("figure > svg").forEach(svg => {
  const frame = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map(text => text.getBoundingClientRect());
  boxes.forEach((a, i) => {
    const name = texts[i].textContent;
    if (!texts[i].style.fill && dim(getComputedStyle(texts[i]).fill)) dull.push(name);
    if (a.left < frame.left || a.right > frame.right || a.top < frame.top || a.bottom > frame.bottom) cut.push(name);
    boxes.slice(i + 1).forEach((b, j) => {
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        over.push(name + " on " + texts[i + 1 + j].textContent);
    });
  });
});
const figures = [...document.querySelectorAll("figure > svg")].map(svg => svg.getBoundingClientRect().width);
parent.postMessage(
  JSON.stringify({width: page.clientWidth, scroll: page.scrollWidth, ground, cut, over, dull, figures}), "*");
</script>
</body>"""


def measured(text: str, width: int, scheme: str, folder: Path) -> dict[str, Any]:
    """What the browser says of the page at a width of so many pixels."""
    assert CHROMIUM
    (folder / "page.html").write_text(text.replace("</body>", MEASURE))
    (folder / "around.html").write_text(AROUND.format(width=width))
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    choice = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    page = [f"--user-data-dir={folder / 'profile'}", (folder / "around.html").absolute().as_uri()]
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *sandbox, choice, *page], capture_output=True, text=True, check=True, timeout=120
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out_or_is_covered_or_dim(make, tmp_path: Path, width: int, scheme: str) -> None:
    names = ["deit_75-20261123-140001-a-rather-long-name-of-a-run", "b", "c"]
    rows = [{}, {"latency": {"median_ms": 97.3}, "engine": "openvino:precision=bf16,sparse_weights=0.5"}, {}]
    found = gather([make(name, row=row) for name, row in zip(names, rows, strict=True)])
    text = html(found.title, found.created, sections(found))
    told = measured(text, width, scheme, tmp_path)
    assert told["width"] == width
    assert told["scroll"] <= told["width"]
    assert (told["ground"] < 0.1) == (scheme == "dark")
    assert not told["cut"] + told["over"] + told["dull"]
    assert len(told["figures"]) == 11
    assert min(told["figures"]) > 200


def test_a_single_run_has_bars_that_fit(make, tmp_path: Path) -> None:
    found = gather([make()])
    told = measured(html(found.title, found.created, sections(found)), 360, "light", tmp_path)
    assert not told["cut"] + told["over"]
