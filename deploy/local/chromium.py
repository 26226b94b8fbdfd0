"""A browser without a display, for tests of pages: the machine's own Chromium, else out of Debian's packages.

Nothing is installed and no rights are needed: apt tells which packages are missing here and fetches them, and they
are unpacked into a folder of our own, fonts included. 100 MB, 300 MB unpacked.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.artifacts import _apt, _fetch_once, _said
from deploy.local.errors import DownloadFailed

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core", "fontconfig-config")
_ALL_OF_IT = ("chromium", *_PACKAGES[1:])  # where the shell is no package of its own
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>{tree}/usr/share/fonts</dir>
  <cachedir>{cache}</cachedir>
  <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


@dataclass(frozen=True, slots=True)
class Browser:
    """environment: what it needs beside the machine's own."""

    executable: Path
    environment: dict[str, str] = field(default_factory=dict)


def chromium() -> Browser:
    """The first of its names on the path, else fetched once.

    Raises DownloadFailed; where there is no apt too, so that whoever needs it installs it.
    """
    for name in _NAMES:
        if installed := shutil.which(name):
            return Browser(Path(installed))
    if shutil.which("apt-get") is None:
        raise DownloadFailed("there is no Chromium here, and no apt-get to fetch it with: install chromium")
    return _of(_fetch_once("chromium-debian", _fetch))


def _of(folder: Path) -> Browser:
    tree = folder / "tree"
    places = [tree / "usr" / "lib" / "chromium" / name for name in ("chromium-headless-shell", "chromium")]
    executable = next((place for place in places if place.is_file()), None)
    if executable is None:  # Ubuntu's package only points to a snap
        raise RuntimeError("the distribution's packages hold no browser: install chromium")
    fonts = folder / "fonts.conf"
    if not fonts.is_file():  # not while fetching: the folder had another name then
        own = fonts.with_suffix(f".{os.getpid()}")
        own.write_text(_FONTS.format(tree=tree, cache=folder / "font-cache"))
        own.replace(fonts)
    libraries = sorted({str(path.parent) for path in (tree / "usr" / "lib").rglob("*.so*")})
    return Browser(executable, {"LD_LIBRARY_PATH": ":".join(libraries), "FONTCONFIG_FILE": str(fonts)})


def _fetch(target: Path) -> None:
    """Raises RuntimeError, also if it lacks a library."""
    work = target / "work"
    (work / "archives" / "partial").mkdir(parents=True)
    (work / "lists" / "partial").mkdir(parents=True)
    own_cache = (f"Dir::Cache={work}", "Debug::NoLocking=1")
    try:
        _download(_PACKAGES, work, own_cache)
    except RuntimeError:  # an image without package lists: fetch some of our own, which takes no rights
        own_lists = (*own_cache, f"Dir::State::Lists={work / 'lists'}")
        _apt("update", within=work, options=own_lists)
        try:
            _download(_PACKAGES, work, own_lists)
        except RuntimeError:
            _download(_ALL_OF_IT, work, own_lists)
    for package in sorted((work / "archives").glob("*.deb")):
        _said(["dpkg", "-x", str(package), str(target / "tree")], within=work)
    shutil.rmtree(work)
    browser = _of(target)
    _starts(browser, target)
    (target / "fonts.conf").unlink()


def _download(packages: tuple[str, ...], work: Path, options: tuple[str, ...]) -> None:
    """What of these, and of what they need, is not installed here."""
    order = ("--download-only", "--no-install-recommends", "--reinstall", "--yes", "install", *packages)
    _apt(*order, within=work, options=options)


def _starts(browser: Browser, within: Path) -> None:
    shell = [f"{name}={value}" for name, value in browser.environment.items()]
    _said(["env", *shell, str(browser.executable), "--version"], within=within)
