"""The tree of Markdown that the site is built from: kept pages, and those made for one build."""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from making import dashboard, methods, notebooks, outline, results

from headscope import catalog, storage

DOCS = Path(__file__).parents[1]
_KEPT = {".md", ".svg", ".css", ".png", ".webp"}
_RESULT = re.compile(r"\]\(\.\./benchmarks/results/(\w+)\.(?:txt|md)\)")


def generated() -> dict[str, str]:
    """Every page and picture that is not kept in git, by its path in the site."""
    pictures = {
        f"methods/patterns/{name}.svg": outline.outline(kind())
        for name, kind in catalog.patterns().items()
    }
    made = methods.pages() | results.pages() | notebooks.pages() | dashboard.pages()
    return made | pictures


def kept() -> dict[str, bytes]:
    """Every page and picture that is kept in docs/, by its path in the site."""
    return {
        path.relative_to(DOCS).as_posix(): path.read_bytes()
        for path in sorted(DOCS.rglob("*"))
        if path.suffix in _KEPT
    }


def assemble(folder: Path) -> Path:
    """Write the whole tree and its configuration; what was in the folder goes.

    Returns:
        The configuration, for `mkdocs build -f`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    made = {place: content.encode() for place, content in generated().items()} | kept()
    for place, content in made.items():
        path = folder / "pages" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(resolved(content.decode()).encode() if path.suffix == ".md" else content)
    config = yaml.safe_load((DOCS / "site.yml").read_text())
    config["nav"] = filled(config["nav"], list(made))
    storage.write(folder / "mkdocs.yml", yaml.safe_dump(config, sort_keys=False).encode())
    return folder / "mkdocs.yml"


def resolved(markdown: str) -> str:
    """Links to files of results lead to their pages."""
    return _RESULT.sub(r"](benchmarks/\1.md)", markdown)


def filled(nav: Any, pages: list[str]) -> Any:
    """A navigation in which every `folder/index.md` stands for all pages of its folder."""
    if isinstance(nav, list):
        return [filled(each, pages) for each in nav]
    if isinstance(nav, str):
        return nav
    ((title, target),) = nav.items()
    if isinstance(target, list) or not target.endswith("/index.md"):
        return {title: filled(target, pages)}
    folder = target.removesuffix("index.md")
    return {title: [path for path in pages if path.startswith(folder) and path.endswith(".md")]}
