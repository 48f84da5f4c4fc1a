"""What two descriptions share that share no word: a landmark and its city, a day's work and its
trade."""

from dataclasses import dataclass

from headscope.evals.drawing import third
from headscope.prompts.base import Split


@dataclass(frozen=True)
class Association:
    """A fact about somebody, and a question that it answers by way of what everybody knows.

    Attributes:
        clue: what is said of somebody, behind the name.
        question: what is asked, without a word of the clue that means something.
        lead: how the answer begins, up to the name.
    """

    clue: str
    question: str
    lead: str


def associations(split: Split) -> list[list[Association]]:
    """Those of a split by kind; within a kind, no clue answers the question of another."""
    return [
        [_home(*pair) for pair in third(_PLACES, split)],
        [_work(*pair) for pair in third(_TRADES, split)],
    ]


def _home(landmark: str, place: str) -> Association:
    return Association(
        f"has a flat right beside {landmark}.",
        f"Which person lives in {place}?",
        f"The person who lives in {place} is",
    )


def _work(clue: str, trade: str) -> Association:
    article = "an" if trade[0] in "aeiou" else "a"
    return Association(
        f"{clue}.",
        f"Which person works as {article} {trade}?",
        f"The person who works as {article} {trade} is",
    )


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    rows = (line.split("|") for line in text.strip().splitlines())
    return tuple((clue.strip(), asked.strip()) for clue, asked in rows)


_PLACES = _pairs(
    """
    the Eiffel Tower | Paris
    Big Ben | London
    the Colosseum | Rome
    the Brandenburg Gate | Berlin
    the Statue of Liberty | New York
    the Golden Gate Bridge | San Francisco
    the Kremlin | Moscow
    the Acropolis | Athens
    the Sagrada Familia | Barcelona
    the Little Mermaid statue | Copenhagen
    the Hagia Sophia | Istanbul
    the Forbidden City | Beijing
    the Charles Bridge | Prague
    the Burj Khalifa | Dubai
    the Space Needle | Seattle
    the Rialto Bridge | Venice
    the Wailing Wall | Jerusalem
    the Taj Mahal | India
    the Great Sphinx | Egypt
    the ruins of Machu Picchu | Peru
    Mount Fuji | Japan
    the rock of Uluru | Australia
    the temple of Angkor Wat | Cambodia
    the statue of Christ the Redeemer | Brazil
    Mount Kilimanjaro | Tanzania
    the Petronas Towers | Malaysia
    Loch Ness | Scotland
    """
)
_TRADES = _pairs(
    """
    kneads dough long before sunrise | baker
    fills cavities and straightens teeth | dentist
    defends clients in court | lawyer
    lands passenger jets in dense fog | pilot
    unblocks drains and replaces leaking pipes | plumber
    saws planks and builds wooden cupboards | carpenter
    trims beards and shaves necks | barber
    collects honey from forty hives | beekeeper
    removes tumors in the operating room | surgeon
    milks the cows and plows the fields | farmer
    casts nets from a small boat | fisherman
    interviews politicians for the daily paper | journalist
    rushes to burning houses with a hose | firefighter
    stamps due dates into borrowed novels | librarian
    watches distant galaxies through a telescope | astronomer
    sews suits and shortens trousers | tailor
    cuts pork chops and makes sausages | butcher
    installs sockets and replaces blown fuses | electrician
    repairs engines and changes tires | mechanic
    takes portraits with an old camera | photographer
    plays nocturnes by Chopin on stage | pianist
    prunes the roses and mows the lawn | gardener
    vaccinates dogs and treats lame horses | veterinarian
    questions suspects and dusts for fingerprints | detective
    sets diamonds into golden rings | jeweler
    prepares tax returns for small companies | accountant
    digs for coal deep under the ground | miner
    """
)
