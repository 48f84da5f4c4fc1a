"""What documents tell of: made-up people, places and objects, their facts and their days."""

import random
from dataclasses import dataclass

from headscope.prompts.base import SPLITS, Split
from headscope.prompts.facts import KEYS, Fact

# Details of sentences; a split uses every third of each list.
_DETAILS: dict[str, tuple[str, ...]] = {
    name: tuple(detail.strip() for detail in line.split("|"))
    for name, line in {
        "place": "the harbor|the old mill|the northern station|the market square|the stone bridge"
        "|the botanical garden|the town library|the fish market|the clock tower|the western gate"
        "|the river school|the chapel on the hill",
        "time": "in early spring|on the first Monday of the month|after the harvest|before sunrise"
        "|during the long winter|on quiet evenings|at the end of summer|around noon|every second "
        "week|in the rainy season|late at night|on the last day of the year",
        "things": "wooden chairs|glass bottles|woollen coats|paper lamps|copper pots|leather shoes"
        "|clay tiles|silk flags|iron hooks|stone bowls|straw hats|linen sheets",
        "who": "a retired sailor|the old baker|two young teachers|a travelling singer"
        "|the postmaster|a quiet gardener|three students|the night watchman|a painter from the "
        "coast|the doctor's sister|a bookbinder|four carpenters",
    }.items()
}


@dataclass(frozen=True)
class Topic:
    """Subjects of one kind; `{key}` is one of them in each of the sentences.

    Attributes:
        names: the parts of their names; a split uses every third of the first parts.
        facts: ways to say and to ask a number about one.
        sentences: what else is said of one, with details to fill in.
    """

    names: tuple[tuple[str, ...], tuple[str, ...]]
    facts: tuple[Fact, ...]
    sentences: tuple[str, ...]

    @property
    def subjects(self) -> int:
        """How many subjects a split has."""
        return len(self.names[0]) // len(SPLITS) * len(self.names[1])

    def keys(self, split: Split, rng: random.Random) -> list[str]:
        """The subjects of a split in a random order, those that share a word far apart."""
        third = self.names[0][_third(split)]
        first = rng.sample(third, len(third))
        second = rng.sample(self.names[1], len(self.names[1]))
        # A first part comes again only when all have come, each time with another second part.
        places = range(len(first) * len(second))
        return [first[i % len(first)] + second[(i + i // len(first)) % len(second)] for i in places]

    def sentence(self, form: int, key: str, split: Split, rng: random.Random) -> str:
        """One of its sentences about a subject, with details of a split."""
        details = {name: rng.choice(words[_third(split)]) for name, words in _DETAILS.items()}
        said = self.sentences[form].format(key=key, **details)
        return said[0].upper() + said[1:]


def _third(split: Split) -> slice:
    return slice(SPLITS.index(split), None, len(SPLITS))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def _numbers(*things: str) -> tuple[Fact, ...]:
    """Facts that give a number of something of a subject."""
    return tuple(
        Fact(f"The {thing} is {{answer}}.", f"What is the {thing}?", f"The {thing} is")
        for thing in things
    )


TOPICS: dict[str, Topic] = {
    "person": Topic(
        (KEYS, (" Velder", " Korth", " Amsel", " Brandow")),
        _numbers("locker code of {key}", "parcel number of {key}", "library card number of {key}"),
        _lines(
            """
            {key} was born near {place}.
            People say that {key} collects {things}.
            A letter to {key} once arrived {time}.
            {who} taught {key} how to mend {things}.
            The neighbours often meet {key} at {place}.
            {key} wrote a short book about {things} and gave it to {who}.
            There is a photograph of {key} with {who} at {place}.
            {key} rarely talks about {things}.
            Together with {who}, {key} planted a tree beside {place}.
            {key} prefers to travel {time}.
            Most of the {things} in the house of {key} come from {who}.
            """
        ),
    ),
    "place": Topic(
        (
            tuple(
                """
                Nor Wes Hal Bram Elder Quin Tor Marl Ash Fen Rook Sil Dun Kirk Har Lind Oak Pen
                Red Stan Thorn Vel Win Yar Cal Dray Ever Glen Hol Ing Kel Lam Mor Nether Os Pres
                """.split()
            ),
            ("vale", "mouth", "stead", "burg", "field", "haven", "wick", "moor", "ford"),
        ),
        _numbers("postal code of {key}", "telephone number of {key}", "map number of {key}"),
        _lines(
            """
            Visitors come to {key} {time}.
            {key} is known for its {things}.
            In {key}, the road to {place} is closed {time}.
            {who} moved to {key} many years ago.
            The shops of {key} sell {things}.
            Every child in {key} knows the way to {place}.
            {key} was founded by {who} and grew slowly.
            A small museum of {things} stands in {key}, right behind {place}.
            The streets of {key} are empty {time}.
            {who} painted the walls of {place} in {key}.
            The people of {key} exchange {things} with their neighbours {time}.
            """
        ),
    ),
    "object": Topic(
        (
            tuple(
                """
                brass silver wooden golden painted rusty polished broken carved tiny heavy folding
                ancient blue copper crystal curved dusty enormous famous foreign gilded green iron
                leather marble modern narrow oval pale red round royal square tall yellow
                """.split()
            ),
            (
                " telescope", " bell", " wardrobe", " sundial", " anchor", " piano", " globe",
                " microscope", " chandelier",
            ),
        ),
        _numbers("inventory number of the {key}", "price of the {key}", "tag number of the {key}"),
        _lines(
            """
            The {key} was found near {place}.
            {who} cleaned the {key} with great care.
            The {key} used to belong to {who}.
            It is said that the {key} was once traded for {things}.
            The {key} may be seen {time}.
            A drawing of the {key} hangs in {place}.
            Nobody knows who made the {key}.
            For years the {key} lay among {things} in a cellar near {place}.
            {who} asked for the {key} {time}.
            The {key} has been repaired twice.
            Next to the {key} there is a box of {things} from {who}.
            """
        ),
    ),
}  # fmt: skip
