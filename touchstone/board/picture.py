"""A picture of a page, by a headless Chromium: `reports/scoreboard.png` for the README comes from the real page."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser() -> str | None:
    """The path of a Chromium on this machine, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def make_picture(page: Path, png: Path, *, width: int = 1280, height: int = 1340, seconds: float = 60.0) -> Path:
    """Draw the top of `page` (`width` × `height` CSS pixels, light scheme) into `png` and return its path.

    Raises:
        FileNotFoundError: there is no such page, or no Chromium on the path.
        RuntimeError: the browser ended without a picture, or took longer than `seconds`; its last words are quoted.
    """
    if not page.is_file():
        raise FileNotFoundError(f"page must be a file, got {page}")
    program = browser()
    if program is None:
        raise FileNotFoundError(
            f"no Chromium on the path (looked for {', '.join(BROWSERS)}): install chromium to draw {png.name}"
        )
    png.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch) / "page.png"
        command = [
            program,
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            f"--user-data-dir={scratch}/profile",
            f"--window-size={width},{height}",
            f"--screenshot={drawn}",
            *(
                ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            ),  # Chromium refuses root's sandbox
            page.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{program} took longer than {seconds} s to draw {page.name}") from error
        if done.returncode != 0 or not drawn.is_file():
            raise RuntimeError(f"{program} drew no picture of {page.name}: {done.stderr.strip()[-300:]}")
        shutil.copyfile(drawn, png)
    return png
