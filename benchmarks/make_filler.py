"""Turn the Jargon File into the filler prose of the needle-in-a-haystack prompts.

One paragraph per line, in the order of the source. See headscope/prompts/data/SOURCE.md.
"""

import argparse
import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

DEBIAN = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
FILLER = Path(__file__).parents[1] / "headscope/prompts/data/filler.txt"

# Sections left out whole: notation, version history and addresses are not running prose; the
# koans and Mel are other people's work, retold; the rest touches on sex, drugs, faith and health.
SKIPPED = re.compile(
    r"Chapter (3|10|11|12)\.|Some AI Koans|The Story of Mel|Bibliography|Appendix C\.|Politics"
    r"|Gender and|Religion|Ceremonial|Sexual Habits|Weaknesses"
)
# "2. [Unix; common] n. " in front of a definition. What the TMRC and Xerox PARC lexicons
# contributed is quoted by permission, so those labels stay, and the brackets then drop the text.
LABEL = re.compile(
    r"(?!.{0,12}(TMRC|XEROX))(\d?[a-z]?\. )?(\[[^]]*\] )*"
    r"((n|v|vt|vi|adj|adv|excl|interj|imp|pl|quant|pref|suff|obs)\.,? |\([^)]*\) (?=[A-Z]))*"
)
# "(see {foo})", "; see also {foo}." and whole sentences like it: there is nothing here to see.
POINTER = r"([Ss]ee|[Cc]ompare|[Cc]ontrast|[Oo]ppose|[Cc]f\.?|[Ss]yn\.|[Qq]\.v\.)"
ASIDE = re.compile(rf" \((but )?{POINTER}[^()]*\)|,? q\.v\.(?=,)|; {POINTER}[^.;]*\{{[^.;]*(?=\.)")
REFERENCE = re.compile(
    rf"(^|(?<=[.!?)\"]) ){POINTER}(?!\w)[^.!?]*(\{{[^}}]*\}}[^.!?{{]*)+([.!?](?= |$)|$)"
)
TYPOGRAPHY = str.maketrans("“”‘’´\xa0", "\"\"''' ")

# Anything here drops the paragraph. Digit runs could pass for a needle.
UNCLEAN = [
    re.compile(r"\d{5}|\d,\d{3}|https?:|www\.|ftp[.:]|[a-z]{2}\.[a-z]{2}|\w@\w|ISBN|magic number"),
    # Code, markup, pronunciations, manual pages, and brackets or braces that survived.
    re.compile(r"[][{}<>|\\^~*_#@=+`→←×−±•©®™─│·]|(^|[ (\"'])/|/['\" ]|\w\(\d|\(\)|  |— ?[,.:;)]"),
    re.compile(r"\$[A-Z]|\d\.\d+\.\d|[?!]\.( |$)"),
    # Text that leans on something that is not there.
    re.compile(r"\bsenses? \d|Crunchly|the following|:$|(as|shown|discussed|listed) below"),
    re.compile(r"\b([Ss]ee|[Cc]ompare|[Cc]ontrast)( also)? (also|under|the entry)"),
    re.compile(r"main text|Appendix|bibliography|translates into|Great Underground|anderswhere"),
]
# Coarse, sexual or hurtful words and drugs, as far as this edition has them outside the rest of
# what is dropped. Each is the beginning of a word, except where \b ends it.
COARSE = re.compile(
    r"\b(fuck|shit|bullsh|piss|bitch|bastard|whore|prick|sex|homosex|gay|porn|virgins?\b|erotic|"
    r"nude|rap(e|ing|ist)|condom|wank|bondage|anal\b|ass\b|fart|excre|urin|bowel|crap|suck|obscen|"
    r"gang.?bang|lewd|suicid|strippers|flesh|in bed\b|drug|marijuana|heroin|halluc|oriental|jewish|"
    r"cretin|mentally|brain.?d[ae]|nazi|hitler|fascis|islam|terroris|miscegen|cherokee|feminis|damn)",
    re.I,
)
# Enough of these tell English from mock German and from lists.
COMMON = re.compile(r"\b(the|an?|of|to|in|is|are|and|or|that|it|for|as|by|with)\b", re.I)
SENTENCE_END = re.compile(r"[.!?][\"')]*(?= [\"'(]*[A-Z0-9]|$)")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|esp|vs|ca|cf|approx|Dr|Mr|Mrs|St|Jr|Inc|Corp|[A-Z])\.")


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of the body, unwrapped; prose is what stands three spaces from the margin."""
    text = text.translate(TYPOGRAPHY)
    skipping = False
    for block in text[text.index("\nChapter 1. ") :].split("\n\n"):
        lines = block.strip("\n").split("\n")
        if not lines[0].startswith(" "):
            skipping = SKIPPED.match(lines[0]) is not None
        # Deeper indents are block quotations (often someone else's words), lists and verse.
        if not skipping and all(re.match(r" {3}\S", line) for line in lines):
            yield " ".join(" ".join(lines).split())


def clean(paragraph: str) -> str:
    """The paragraph without the apparatus of a dictionary."""
    text = REFERENCE.sub("", ASIDE.sub("", LABEL.sub("", paragraph, count=1)))
    text = re.sub(r"\{(\w[^{}]*)\}", r"\1", text)
    text = re.sub(r" ?(--+|—) ?", " — ", text).replace("Birk-en", "Birken")
    return re.sub(r"(?<=\d) — (?=\d)", "-", text).strip()


def is_prose(text: str) -> bool:
    """Whether this is at least three whole sentences of clean English."""
    if any(pattern.search(text) for pattern in UNCLEAN) or COARSE.search(text):
        return False
    sentences = len(SENTENCE_END.findall(ABBREVIATION.sub("", text)))
    letters = sum(character.isalpha() or character == " " for character in text)
    return (
        len(text) >= 200
        and sentences >= 3
        and letters >= 0.92 * len(text)
        and len(COMMON.findall(text)) >= 0.18 * len(text.split())
        and re.match(r"[\"'(]?[A-Z]", text) is not None
        and re.search(r"[.!?][\"')]*$", text) is not None
        and text.count('"') % 2 == 0
        and text.count("(") == text.count(")")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=DEBIAN)
    parser.add_argument("--output", type=Path, default=FILLER)
    arguments = parser.parse_args()
    source = arguments.source.read_bytes()
    candidates = map(clean, paragraphs(gzip.decompress(source).decode()))
    # A dict keeps the order and drops what the source says twice.
    kept = list(dict.fromkeys(filter(is_prose, candidates)))
    output = "".join(f"{paragraph}\n" for paragraph in kept).encode()
    arguments.output.write_bytes(output)
    print(f"{len(kept)} paragraphs, {len(output)} bytes")
    print(f"sha256 of the input:  {hashlib.sha256(source).hexdigest()}")
    print(f"sha256 of the output: {hashlib.sha256(output).hexdigest()}")


if __name__ == "__main__":
    main()
