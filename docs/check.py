"""Check the documentation: code blocks run as they stand, a built site loads nothing from elsewhere.

python docs/check.py                    run the code blocks of README.md and of docs/
python docs/check.py docs/glossary.md   of these pages
python docs/check.py --site site        that a built site has no dead links and loads nothing from elsewhere
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from blocks import LANGUAGES, plan, problems

ROOT = Path(__file__).resolve().parent.parent
# the commands of README.md set up a fresh environment: .ci/run runs them
README = ROOT / "README.md"

LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
}
# <link> with these relations is fetched by a browser; others (canonical, next) are not
FETCHED = {"stylesheet", "icon", "preload", "preconnect", "prefetch", "modulepreload", "dns-prefetch"}


class Page(HTMLParser):
    """What a page loads, where it leads, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.leads.append(values["href"])
        for kind, key in LOADS:
            if (
                tag == kind
                and key in values
                and (tag != "link" or FETCHED & set(values.get("rel", "").split()))
            ):
                self.loads.append(values[key])


def site_problems(site: Path) -> list[str]:
    """What is wrong with the built pages: loads from elsewhere, links that lead nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found: list[str] = []
    known: set[str] = set()
    for path, page in pages.items():
        found += [f"{path.relative_to(site)} loads {url}" for url in page.loads if elsewhere(url)]
        for url in page.leads:
            if not elsewhere(url) and not url.startswith(("mailto:", "javascript:")):
                problem = dead(path, url, pages, site)
                # a dead link of the navigation is on every page: it is reported once
                found += [f"{path.relative_to(site)}: {problem}"] if problem and problem not in known else []
                known.add(problem)
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(site)} loads from elsewhere"
            for mark in ("url(http", "url(//", "@import")
            if mark in text
        ]
    return found


def elsewhere(url: str) -> bool:
    """Whether a URL leaves the site."""
    return url.startswith(("http://", "https://", "//"))


def dead(path: Path, url: str, pages: dict[Path, Page], site: Path) -> str:
    """Why a link of the page at `path` leads nowhere, or nothing."""
    target, _, anchor = url.partition("#")
    if url.startswith("/"):  # 404.html alone: it is shown at any address
        path, target = site / "index.html", target.lstrip("/") or "index.html"
    goal = (path.parent / unquote(target)).resolve() if target else path.resolve()
    goal = goal / "index.html" if goal.is_dir() else goal
    if not goal.exists():
        return f"no {goal.relative_to(site) if goal.is_relative_to(site) else goal}"
    page = pages.get(goal)
    if anchor and page is not None and unquote(anchor) not in page.anchors:
        return f"no anchor #{anchor} in {goal.relative_to(site)}"
    return ""


def pages() -> list[Path]:
    """README.md and every page below docs/ that has something to run."""
    found = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name != "_template.md"]
    return [README, *(path for path in found if plan(path.read_text(encoding="utf-8")))]


def run(path: Path) -> tuple[int, str, float]:
    """Exit status, messages and CPU seconds of a page's blocks, in a process and a folder of their own."""
    settings = {
        "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "COLUMNS": "110", "NO_COLOR": "1",
        # the commands installed beside this Python come first
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--page", str(path), folder]
        done = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True)
    text, _, seconds = done.stdout.rstrip().rpartition("\n")
    if done.stderr:
        return 1, done.stdout + done.stderr, 0.0
    return done.returncode, text, float(seconds)


def page(path: Path, folder: Path) -> int:
    """Run the blocks of a page here; print what is wrong and, last, the CPU seconds it took."""
    languages = [name for name in LANGUAGES if name != "bash" or path != README]
    found = problems(path, folder, languages)
    print("\n".join(found))
    print(f"{sum(os.times()[:4]):.1f}")
    return bool(found)


def main(arguments: list[str]) -> int:
    """Exit status 1 if anything is wrong."""
    if arguments[:1] == ["--site"]:
        found = site_problems(Path(arguments[1]).resolve())
        print("\n".join(found) or "the site is whole")
        return bool(found)
    if arguments[:1] == ["--page"]:
        return page(Path(arguments[1]), Path(arguments[2]))
    asked = [Path(name).resolve() for name in arguments] or pages()
    status, total = 0, 0.0
    with ThreadPoolExecutor(2) as pool:
        for path, (code, text, seconds) in zip(asked, pool.map(run, asked), strict=True):
            total += seconds
            print(f"{seconds:6.1f} s  {path.relative_to(ROOT)}  {'failed' if code else 'ok'}", flush=True)
            if code:
                print(text)
                status = 1
    print(f"{total:6.1f} s of CPU in all")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
