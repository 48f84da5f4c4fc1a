"""What benchmarks printed, a page a file, and the list of them."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"
_SHOWN = 200_000  # characters; JSON beside a text is left to the repository


@dataclass(frozen=True)
class Result:
    """One file of results.

    Attributes:
        command: its first command, or first line where it names none.
        made: the line with date and versions, "" where there is none.
    """

    path: Path
    command: str
    made: str

    @classmethod
    def of(cls, path: Path) -> "Result":
        lines = [line.strip("`# ") for line in path.read_text().splitlines()[:12]]
        lines = [line for line in lines if line]
        command = next((line[2:] for line in lines if line.startswith("$ ")), lines[0])
        dated = (line for line in lines if line.startswith("20") and "·" in line)
        return cls(path, command, next(dated, ""))

    @property
    def page(self) -> str:
        return f"benchmarks/{self.path.stem}.md"

    @property
    def date(self) -> str:
        return self.made.partition(" · ")[0]

    def markdown(self) -> str:
        text = self.path.read_text()
        where = f"`benchmarks/results/{self.path.name}`"
        if self.path.suffix == ".md":
            return text if text.startswith("# ") else f"# {self.path.stem}\n\n{where}\n\n{text}"
        fence = "`" * 5
        return f"# {self.path.stem}\n\n{where}\n\n{fence}text\n{text}\n{fence}\n"


def results() -> list[Result]:
    """Every text of results, by name."""
    paths = sorted(FOLDER.glob("*.txt")) + sorted(FOLDER.glob("*.md"))
    return [Result.of(path) for path in sorted(paths)]


def pages() -> dict[str, str]:
    """The pages by path, the list first."""
    found = results()
    rows = [
        f"| [{each.path.stem}]({each.path.stem}.md) | `{_cut(each.command)}` | {each.date} "
        f"| {each.made.partition(' · ')[2]} |"
        for each in found
    ]
    head = (
        "# Benchmarks\n\nEvery script in `benchmarks/` prints its command, versions and date "
        "first; these are the files in `benchmarks/results/` as they were printed. What they come "
        "to stands in [findings](../findings.md), [kernels](../kernels.md) and "
        "[profiles](../profiles.md).\n\n| result | command | date | with |\n|---|---|---|---|\n"
    )
    return {"benchmarks/index.md": head + "\n".join(rows) + "\n"} | {
        each.page: each.markdown() for each in found
    }


def _cut(text: str, most: int = 90) -> str:
    text = text.replace("|", "\\|").replace("`", "")
    return text if len(text) <= most else text[: most - 1] + "…"
