"""What documents tell of: made-up people, places and objects, their facts and their days."""

import random
from dataclasses import dataclass

from headscope.prompts.base import SPLITS, Split
from headscope.prompts.facts import KEYS, Fact

# Details of sentences; a split uses every third of each list.
_DETAILS: dict[str, tuple[str, ...]] = {
    name: tuple(line.split("|"))
    for name, line in {
        "place": "the harbor|the old mill|the northern station|the market square|the stone bridge"
        "|the botanical garden|the town library|the fish market|the clock tower"
        "|the western gate|the river school|the chapel on the hill|the lower ferry"
        "|the glass works|the grain hall|the orchard road|the customs house|the upper meadow"
        "|the salt stores|the covered bridge|the rope walk|the spring behind the church"
        "|the eastern quay|the old tannery|the town baths|the bell foundry|the lighthouse"
        "|the riding school|the flower market|the weavers' hall|the court of justice"
        "|the hospital garden|the winter theatre|the lime avenue|the boat sheds"
        "|the fire station|the canal lock|the wool exchange|the high terrace|the cattle fair"
        "|the paper mill|the guest house|the empty barracks|the music school|the terminus"
        "|the vineyard steps|the cemetery wall|the water tower",
        "time": "in early spring|on the first Monday of the month|after the harvest|before sunrise"
        "|during the long winter|on quiet evenings|at the end of summer|around noon"
        "|every second week|in the rainy season|late at night|on the last day of the year"
        "|between two trains|once in a fortnight|on market days|when the river is high"
        "|at the new moon|through most of autumn|an hour before closing|on the eve of a holiday"
        "|when the school is out|as soon as the snow melts|in the first week of June"
        "|on windy afternoons|twice in a season|long after dark|on the shortest day"
        "|while the shops are shut|every other Sunday|when the lamps are lit"
        "|in the middle of the week|at low tide|during the spring fair|on foggy mornings"
        "|before the first frost|shortly after breakfast|when the bells have rung"
        "|in years without a flood|on the king's birthday|towards the evening"
        "|from May until August|on payday|at the change of shifts|in the hottest month"
        "|whenever it is dry|on the night of the fair|after the last ferry"
        "|in the hour before dinner",
        "things": "wooden chairs|glass bottles|woollen coats|paper lamps|copper pots|leather shoes"
        "|clay tiles|silk flags|iron hooks|stone bowls|straw hats|linen sheets|brass keys"
        "|oak barrels|silver thimbles|felt slippers|tin whistles|wicker baskets|horn combs"
        "|velvet cushions|pewter mugs|ash ladders|cork floats|bone needles|cotton sails"
        "|slate boards|birch brooms|marble steps|rubber boots|wax candles|steel springs"
        "|canvas tents|porcelain cups|reed mats|bronze bells|maple trays|hemp ropes"
        "|ivory buttons|gilt frames|pine shelves|enamel signs|rush lights|zinc buckets"
        "|cedar boxes|wool blankets|jade rings|flint knives|amber beads",
        "who": "a retired sailor|the old baker|two young teachers|a travelling singer"
        "|the postmaster|a quiet gardener|three students|the night watchman"
        "|a painter from the coast|the doctor's sister|a bookbinder|four carpenters"
        "|the ferryman|a widow from the valley"
        "|two brothers|the choir master|a clerk of the court|the piano tuner|five apprentices"
        "|a lady with a parrot|the stationmaster|an honest pawnbroker|a pair of acrobats"
        "|the head cook|a beekeeper|the new tenant|a cousin of the mayor|six fishermen"
        "|the last miller|an amateur astronomer|the young surgeon|a maker of clocks|two nuns"
        "|the tax collector|a shepherd with his dog|the stage manager|a student of law"
        "|the village midwife|a poor engraver|the colonel's nephew|three sisters"
        "|a dealer in horses|the river pilot|an old schoolfriend|the gamekeeper"
        "|a nervous photographer|two surveyors|the lame cobbler",
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
