"""The table of formats in the docs is the one of the registry."""

from pathlib import Path

from headscope.catalog import profile_formats

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def rows() -> dict[str, list[str]]:
    text = PAGE.read_text().split("## Formats", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_table_says_what_the_formats_say() -> None:
    assert rows() == {
        name: [kind.granularity, kind.expresses, kind.loses, kind.loads]
        for name, kind in profile_formats().items()
    }
