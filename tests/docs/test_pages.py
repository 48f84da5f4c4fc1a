"""The pages that the documentation makes: one for every method, and links that lead somewhere."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headscope import catalog
from headscope.errors import HeadscopeError
from headscope.evals.describing import parsed
from headscope.evals.evaluate import chosen_evals
from headscope.model import HeadModel
from headscope.registry import find

DOCS = Path(__file__).parents[2] / "docs"
REGISTRIES = {
    "probes": catalog.probes,
    "interventions": catalog.interventions,
    "patterns": catalog.patterns,
    "selectors": catalog.selectors,
    "exporters": catalog.profile_formats,
    "importers": catalog.formats,
    "evals": catalog.evals,
}


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    from making import site

    kept, made = site.kept(), site.generated()
    assert not set(kept) & set(made)
    texts = {name: data.decode() for name, data in kept.items() if name.endswith((".md", ".svg"))}
    every = dict.fromkeys(kept, "") | texts | made
    return {name: site.resolved(text) for name, text in every.items()}


@pytest.mark.parametrize("folder", REGISTRIES)
def test_every_method_has_its_page(folder: str, pages: dict[str, str]) -> None:
    found = {
        name for name in pages if name.startswith(f"methods/{folder}/") and name.endswith("md")
    }
    names = REGISTRIES[folder]()
    assert found == {f"methods/{folder}/{name}.md" for name in [*names, "index"]}
    for name in names:
        assert f"[`{name}`]({name}.md)" in pages[f"methods/{folder}/index.md"]


@pytest.mark.parametrize("folder", REGISTRIES)
def test_every_parameter_says_what_it_means(folder: str) -> None:
    from making.docstrings import Docstring

    silent = [
        f"{name}.{field.name}"
        for name, kind in REGISTRIES[folder]().items()
        for field in dataclasses.fields(kind)
        if not Docstring.of(kind).meanings.get(field.name)
    ]
    assert silent == []


def test_links_and_pictures_lead_to_pages_that_exist(pages: dict[str, str]) -> None:
    broken = []
    for name, text in pages.items():
        prose = re.sub(r"(?s)(`{3,}).*?\1|`[^`\n]*`", "", text) if name.endswith(".md") else ""
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if not target.startswith("https://"):
                place = (DOCS / name).parent / target
                place = Path(*place.resolve().relative_to(DOCS).parts)
                broken += [] if str(place) in pages else [f"{name}: {target}"]
    assert broken == []


def test_the_navigation_names_every_page(pages: dict[str, str]) -> None:
    from making.site import filled

    def leaves(nav: object) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        else:
            for each in nav.values() if isinstance(nav, dict) else nav:
                yield from leaves(each)

    nav = filled(yaml.safe_load((DOCS / "site.yml").read_text())["nav"], list(pages))
    assert sorted(leaves(nav)) == sorted(name for name in pages if name.endswith(".md"))


def test_a_page_says_what_the_docstring_says(pages: dict[str, str]) -> None:
    page = pages["methods/interventions/pasta.md"]
    assert "https://arxiv.org/abs/2311.02262" in page
    meaning = "the factor, above 0 and at most 1; 0.01 in the paper."
    assert f"| `alpha` | `float` | `0.01` | {meaning} |" in page
    assert "--with pasta:span=needle" in page
    retrieval = pages["methods/probes/retrieval.md"]
    assert "| `retrieval` | retrieval &gt; 0.1 | Wu et al. 2024" in retrieval
    assert "key &lt; sink" in pages["methods/patterns/streaming.md"]


@pytest.mark.model
def test_commands_that_change_heads_are_understood(smollm2: HeadModel) -> None:
    from making import commands

    for name, kind in catalog.interventions().items():
        text = commands.change(kind)
        if text is None:
            assert name in ("patch", "rescale_concept")
        elif any(f"{field}=" in text for field in kind.files):
            with pytest.raises(HeadscopeError, match="there is no such file"):
                parsed(text, smollm2)  # trained things are read from files, made by nobody here
        else:
            assert parsed(text, smollm2)[0].name == name


def test_commands_that_measure_are_understood() -> None:
    from making import commands

    for name in catalog.probes():
        asked = commands.scan(name).split()
        assert find(catalog.probes(), asked[asked.index("--probes") + 1], "probe").name == name
    for name in set(catalog.evals()) - {"own"}:
        asked = commands.ask(name).split()
        assert chosen_evals([asked[asked.index("--tasks") + 1]], None, 1, 0)[0].name == name


def test_results_are_listed_with_command_date_and_versions() -> None:
    from making.results import results

    found = {each.path.name: each for each in results()}
    assert found["memory.txt"].command == "python benchmarks/memory.py"
    assert found["memory.txt"].date.startswith("2026-")
    assert "torch" in found["memory.txt"].made
    assert all(each.command for each in found.values())
