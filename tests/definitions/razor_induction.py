from definitions import Case
from definitions.echo import on_latest


def define(case: Case) -> dict[str, list[float]]:
    return {"razor_induction": on_latest(case, 1)}
