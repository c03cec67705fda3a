"""The command line of the pictures."""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.dashboards.interpolation import Choice, Resolution, Target, targets

SOURCE = Path(__file__).parent
ROOT = SOURCE.parent.parent.parent
BUILD = ROOT / ".cache" / "pictures"
IMAGES = ROOT / "docs" / "img"

WIDTH = 1500  # pixels


@dataclass(frozen=True)
class Picture:
    """A dashboard with its first sections.

    `chosen`: for a variable, a query; the label of that name of its highest value is chosen.
    """

    uid: str
    sections: int
    chosen: Mapping[str, str]


BUSY_GROUP = (
    "topk(1, sum by (account, job_group)"
    ' (azure_batch_job_tasks{job_group!="",state=~"active|running"}))'
)

PICTURES = (
    Picture("azure-batch-overview", 4, {}),
    Picture("azure-batch-job", 3, {"account": BUSY_GROUP, "job_group": BUSY_GROUP}),
    Picture("azure-batch-nodes", 3, {}),
    Picture("azure-batch-exporter", 3, {}),
)


def main() -> None:
    """Build what draws, ask Prometheus, and take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards.pictures")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its URL")
    parser.add_argument("--minutes", type=int, default=30, help="how long the time shown is")
    parser.add_argument("--scrape-seconds", type=int, default=10, help="its scrape interval")
    options = parser.parse_args()
    browser = find_browser()
    build()
    resolution = Resolution(options.minutes * 60, options.scrape_seconds)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        model = json.loads((ROOT / "deploy" / "grafana" / f"{picture.uid}.json").read_text())
        data = collect(options.prometheus, model, picture, resolution)
        (BUILD / "dist" / "data.json").write_text(json.dumps(data))
        take(browser, IMAGES / f"{picture.uid}.png", height_of(data))
        print(f"docs/img/{picture.uid}.png")


def find_browser() -> str:
    """Chromium of .cache/, or of PATH; ends the program where there is none."""
    cached = ROOT / ".cache" / "chromium" / "chromium"
    found = str(cached) if cached.exists() else shutil.which("chromium")
    if found is None:
        sys.exit("no chromium: install it, so that it is on PATH")
    return found


def build() -> None:
    """Install Grafana's components below .cache/ and bundle them with what draws."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        if file.suffix in (".json", ".js", ".jsx", ".html"):
            shutil.copy(file, BUILD)
    npm = shutil.which("npm") or sys.exit("no npm: install Node 20 or newer")
    subprocess.run(  # noqa: S603 - our own commands
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=BUILD, check=True
    )
    subprocess.run([npm, "exec", "vite", "build"], cwd=BUILD, check=True)  # noqa: S603


def collect(
    prometheus: str, model: Mapping[str, Any], picture: Picture, resolution: Resolution
) -> dict[str, Any]:
    """All that is drawn: panels with the answers to their queries."""
    now = int(time.time()) // resolution.step * resolution.step
    chosen: dict[str, Choice] = {}
    for name, query in picture.chosen.items():
        highest = ask(prometheus, "query", query=query)
        if not highest:
            sys.exit(f"Prometheus has nothing to choose for {name}: {query}")
        chosen[name] = highest[0]["metric"][name]
    answers: dict[int, list[dict[str, Any]]] = {}
    for target in targets(model, chosen, resolution):
        answers.setdefault(target.panel["id"], []).append(
            {
                "refId": target.ref_id,
                "legendFormat": legend_of(target),
                "result": answer(prometheus, target, resolution, now),
            }
        )
    heads = [n for n, panel in enumerate(model["panels"]) if panel["type"] == "row"]
    end = [*heads, len(model["panels"])][picture.sections]
    return {
        "board": model["title"],
        "variables": [
            (each["label"], chosen.get(each["name"], each["current"]["text"]))
            for each in model["templating"]["list"]
            if each["type"] != "datasource"
        ],
        "shown": {"from": now - resolution.range_seconds, "to": now, "step": resolution.step},
        "panels": [
            {**panel, "targets": answers.get(panel["id"], [])} for panel in model["panels"][:end]
        ],
    }


def legend_of(target: Target) -> str:
    """How a query's series are called."""
    (found,) = (each for each in target.panel["targets"] if each["refId"] == target.ref_id)
    return str(found.get("legendFormat", ""))


def answer(prometheus: str, target: Target, resolution: Resolution, now: int) -> Any:
    """What Prometheus gives for a query, at the end of the time shown or all over it."""
    if target.instant:
        return ask(prometheus, "query", query=target.expression, time=now)
    start = now - resolution.range_seconds
    return ask(
        prometheus,
        "query_range",
        query=target.expression,
        start=start,
        end=now,
        step=resolution.step,
    )


def ask(prometheus: str, path: str, **parameters: object) -> Any:
    """A call of Prometheus' HTTP API."""
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - the user's own URL
        return json.load(response)["data"]["result"]


def height_of(data: Mapping[str, Any]) -> int:
    """Pixels that are enough: tables draw only what is in sight."""
    bottom: int = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in data["panels"])
    return 100 + 38 * bottom


def take(browser: str, file: Path, height: int) -> None:
    """A picture of what is built."""
    from PIL import Image  # nothing else needs these two
    from playwright.sync_api import sync_playwright

    handler = functools.partial(_Quiet, directory=str(BUILD / "dist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": WIDTH, "height": height})
            page.on("pageerror", lambda error: print(error, file=sys.stderr))
            page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            page.wait_for_selector("body[data-drawn]", state="attached", timeout=60_000)
            picture = page.locator("#page").screenshot()
            chromium.close()
        server.shutdown()
    # A panel has few colours: so it is a third of the size.
    Image.open(io.BytesIO(picture)).quantize(256).save(file, optimize=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    main()
