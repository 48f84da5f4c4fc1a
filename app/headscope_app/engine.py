"""What works behind the pages: processes with a model, that plan, that read results; jobs."""

from dataclasses import dataclass, field

import dash

from headscope_app.jobs import Jobs
from headscope_app.library import Library
from headscope_app.live import Live
from headscope_app.planning import Planning
from headscope_app.results import Results

_NAME = "headscope"  # of the Flask server's extension


@dataclass
class Engine:
    """All that an app starts besides itself; nothing runs before it is asked for something."""

    library: Library
    live: Live = field(init=False)
    planning: Planning = field(init=False)
    jobs: Jobs = field(init=False)
    results: Results = field(init=False)

    def __post_init__(self) -> None:
        self.live = Live()
        self.planning = Planning(self.library)
        self.jobs = Jobs(self.library.roots.folders)
        self.results = Results()

    def close(self, keep_jobs: bool = False) -> None:
        """End all processes.

        Args:
            keep_jobs: leave scans and validations running; the next server finds them.
        """
        self.live.close()
        self.planning.close()
        self.results.close()
        self.jobs.close(keep_jobs)


def engine_of(app: dash.Dash, library: Library) -> Engine:
    """The engine of an app, made where there is none yet."""
    extensions = app.server.extensions
    if _NAME not in extensions:
        extensions[_NAME] = Engine(library)
    return extensions[_NAME]


def stop(app: dash.Dash, keep_jobs: bool = False) -> None:
    """End what an app has started, if anything; see `Engine.close`."""
    if _NAME in app.server.extensions:
        app.server.extensions[_NAME].close(keep_jobs)
