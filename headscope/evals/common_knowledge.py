"""Facts that everybody knows, by kind; every third one of a kind belongs to a split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of fact: the sentence that asks for it, and what answers it for each key."""

    sentence: str
    facts: tuple[tuple[str, str], ...]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    lines = (line.split(":") for line in text.strip().splitlines())
    return tuple((key.strip(), answer.strip()) for key, answer in lines)


KINDS = {
    "capital": Kind(
        "The capital of {key} is",
        _pairs(
            """
            France: Paris
            Germany: Berlin
            Italy: Rome
            Spain: Madrid
            Portugal: Lisbon
            Japan: Tokyo
            China: Beijing
            Russia: Moscow
            Greece: Athens
            Egypt: Cairo
            Ireland: Dublin
            Austria: Vienna
            Poland: Warsaw
            Hungary: Budapest
            Norway: Oslo
            Sweden: Stockholm
            Finland: Helsinki
            Denmark: Copenhagen
            Canada: Ottawa
            Cuba: Havana
            Peru: Lima
            """
        ),
    ),
    "opposite": Kind(
        "The opposite of {key} is",
        _pairs(
            """
            hot: cold
            big: small
            up: down
            left: right
            open: closed
            early: late
            fast: slow
            light: dark
            wet: dry
            full: empty
            old: young
            high: low
            hard: soft
            loud: quiet
            rich: poor
            strong: weak
            good: bad
            thick: thin
            """
        ),
    ),
    "young": Kind(
        "A young {key} is called a",
        _pairs(
            """
            dog: puppy
            cat: kitten
            cow: calf
            sheep: lamb
            horse: foal
            bear: cub
            goat: kid
            deer: fawn
            duck: duckling
            goose: gosling
            frog: tadpole
            chicken: chick
            kangaroo: joey
            butterfly: caterpillar
            swan: cygnet
            """
        ),
    ),
    "language": Kind(
        "Most people in {key} speak",
        _pairs(
            """
            France: French
            Germany: German
            Italy: Italian
            Mexico: Spanish
            Brazil: Portuguese
            Japan: Japanese
            Russia: Russian
            Greece: Greek
            England: English
            Poland: Polish
            Hungary: Hungarian
            Sweden: Swedish
            Turkey: Turkish
            Finland: Finnish
            Denmark: Danish
            """
        ),
    ),
}
