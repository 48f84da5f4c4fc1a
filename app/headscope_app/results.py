"""Evals, validations and other results, read by a process of its own: their classes need torch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from headscope.errors import HeadscopeError
from headscope_app.library import Library
from headscope_app.listing import Place
from headscope_app.worker import Worker

SHOWN = (
    "validation",
    "evaluation",
    "effects",
    "patch_map",
    "pareto",
    "pruning",
    "sparse_plan",
    "sparse_profile",
    "bench",
)
"""Kinds that have a page."""

_OF_HEADS = ("validation", "effects", "patch_map")
_TIMEOUT = 60.0  # seconds


@dataclass
class Results:
    """Asks the process, which is started by the first question."""

    worker: Worker = field(
        default_factory=lambda: Worker(
            "headscope_app.results_worker", "The process that reads results", (), _TIMEOUT
        )
    )

    def show(self, library: Library, id: str, theme: str) -> tuple[Place, dict[str, Any]]:
        """A file of results: model, command, claims, tables, charts as SVG.

        Raises:
            HeadscopeError: it is gone, damaged, or of a kind that has no page.
        """
        place = library.file(id)
        library.check(place)
        request = {"do": "show", "kind": place.kind, "path": str(place.path), "theme": theme}
        try:
            return place, self.worker.ask(request)[0]
        except HeadscopeError as error:
            raise HeadscopeError(library.roots.without(str(error))) from error

    def of_head(self, library: Library, run: str, head: str) -> list[dict[str, Any]]:
        """What results of the run's model say of a head: those in the run, and loose ones."""
        info = library.run(run).info
        files = self.files(library, run)
        if info is None or not files or info.model.fingerprint is None:
            return []
        given = []
        for file in files:
            with suppress(HeadscopeError):  # said where the file itself is opened
                library.check(file)
                given.append({"kind": file.kind, "path": str(file.path), "id": file.id})
        asked = {"do": "head", "files": given, "head": head, "fingerprint": info.model.fingerprint}
        return self.worker.ask(asked)[0]

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    @staticmethod
    def files(library: Library, run: str) -> Sequence[Place]:
        """Files that may say something about single heads of a run."""
        return [f for f in library.files() if f.run in ("", run) and f.kind in _OF_HEADS]
