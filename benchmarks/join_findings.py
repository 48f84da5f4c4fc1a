"""Put findings on interventions and studies behind the other findings, in docs/findings.md.

What `benchmarks/findings.py` wrote stays; all from that heading on is written anew from the
files that are there:

    python benchmarks/findings_cache.py --device cuda > benchmarks/results/findings_cache.txt
    python benchmarks/join_findings.py
"""

from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.storage import write

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "docs" / "findings.md"
RESULTS = ROOT / "benchmarks" / "results"
HEADING = "## Interventions and studies"
TOPICS = {
    "cache": "Keys in the cache",
    "order": "The order of documents",
    "compression": "Shorter prompts and pauses",
    "focus": "Directions and concepts",
    "act": "Calibrated sinks",
    "steering": "Steering and sinks",
    "logits": "What is said",
    "selection": "Selected keys, documents apart",
    "gates": "Trained gates",
    "training": "Gradients, agreement, circuits",
}
ABOUT = f"""{HEADING}

Measured on smollm2 on an H100, ACT on a CPU. Each script declares its claims and the rules of its
verdicts beforehand, in its docstring, and says there what a trial saw. The model has 135 million
parameters: a verdict is about the claim on this model. The cache and steering runs were in
bfloat16, all others in float32, which every script uses now. To repeat them, run the first line
for each topic, then the second:

```sh
python benchmarks/findings_cache.py --device cuda > benchmarks/results/findings_cache.txt
python benchmarks/join_findings.py
```
"""


def section(title: str, result: Path) -> str:
    """One topic: its command, date and versions as code, and its table."""
    text = result.read_text(encoding="utf-8").strip()
    at = text.find("\n\n|")
    if at < 0:
        raise HeadscopeError(f"{result} holds no table; run its script again.")
    return f"### {title}\n\n```\n{text[:at].strip()}\n```\n\n{text[at:].strip()}\n"


def main() -> None:
    written = FINDINGS.read_text(encoding="utf-8")
    before = written.split("\n## Interventions")[0].rstrip() + "\n"
    there = {RESULTS / f"findings_{topic}.txt": title for topic, title in TOPICS.items()}
    parts = [section(title, path) for path, title in there.items() if path.exists()]
    write(FINDINGS, "\n".join([before, ABOUT, *parts]).encode())


if __name__ == "__main__":
    main()
