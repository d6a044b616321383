"""The safety gate: nothing is generated from a prompt whose wording touches minors.

Every prompt passes it before it is written into a concept's prompts.csv, and every adversarial text before it is
drawn. It is a list of age words, wide on purpose: it would rather refuse a harmless prompt ("a young tree") than
let one through. It reads English, and sees through capitals, accents, look-alike letters, digits and signs in the
place of letters, words spelled out or cut by signs, and emoji. It knows words, not meanings: a sentence that
describes without naming passes, so prompt files also flag rows (`minor_related_term`).
"""

import re
import unicodedata

# `*` stands for any letters.
WORDS = """
*child* *girl *girls girly girlish girlhood boy boys boyish boyhood schoolboy* babyboy* tomboy* kid kids kiddo*
kiddie* kiddy schoolkid* teen teens teenag* teenie* teeny preteen* tween tweens adolescen* pubescen* prepubescen*
puber* juvenil* minor minors underage* young younger youngest youngster* youth* toddler* infant* infancy baby*
babies newborn* neonat* tyke* lad lads laddie* lass lassie* lasses bairn* cherub* putto putti cupid* student*
schooler* schoolmate* schoolage* preschool* kindergart* nursery daycare grader* enfant* bambin* loli lolis lolicon*
lolita* shota*
""".split()  # noqa: SIM905
SCHOOLS = ["elementary", "primary", "grade", "middle", "high", "secondary", "boarding"]
PHRASES = ["under age*", "new born*", "junior high*", "school age*", "school uniform*"]
PHRASES += [f"{kind} school*" for kind in SCHOOLS]

# What may stand for a letter beside itself.
SWAPS = {"a": "4@", "e": "3", "i": "1!|", "l": "1|", "o": "0", "s": "5$", "t": "7"}
LOOKALIKES = str.maketrans("аеосрхуіѕкмтвнαεοικτυ", "aeocpxyiskmtbhaeoiktu")  # Cyrillic and Greek
GAP = r"[\W_]{0,3}"  # bounded, like all that repeats here, so that no text takes long
TO_SEVENTEEN = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
)
GRADES = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"


def blocked(text: str) -> str | None:
    """Why nothing may be generated from this text, or None: it names an age word or an age under 18."""
    plain = _plain(text)
    if found := AGE.search(plain):
        return f"it names an age under 18 ({found[0].strip()!r})"
    if found := TERMS.search(plain):
        return f"it has an age word ({found[0].strip()!r})"
    return None


def _plain(text: str) -> str:
    """Small letters without accents and invisible characters, none more than twice in a row; emoji as their names."""
    if not text.isascii():
        text = _letters(text)
    return re.sub(r"(\D)\1{2,}", r"\1\1", text.casefold())


def _letters(text: str) -> str:
    """Plain letters for accented, wide, ringed and look-alike ones; nothing for invisible characters."""
    signs = unicodedata.normalize("NFKD", text)
    named = (f" {unicodedata.name(c, '')} " if unicodedata.category(c) == "So" else c for c in signs)
    kept = (c for c in "".join(named) if unicodedata.category(c) not in ("Mn", "Cf"))
    return "".join(kept).casefold().translate(LOOKALIKES)


def _letter(letter: str) -> str:
    one = f"[{re.escape(letter + SWAPS.get(letter, ''))}]"
    return f"{one}{one}?"  # searched faster than {1,2}


def _written(term: str) -> str:
    """The term with signs between its letters ("k-i.d"), repeated letters ("kiiid") and any gap for a space."""
    other = {"*": "[a-z]*", " ": GAP}
    return r"[^\sa-z0-9]{0,3}".join(other.get(sign) or _letter(sign) for sign in term)


def _spelled(word: str) -> str:
    """The word with a gap after each of its letters ("k i d")."""
    return r"[\W_]{1,3}".join(map(_letter, word.strip("*")))


def _terms() -> re.Pattern:
    written, spelled = map(_written, [*WORDS, *PHRASES]), map(_spelled, WORDS)
    return re.compile(rf"(?<![a-z])(?:{'|'.join([*written, *spelled])})(?![a-z])")


def _age() -> re.Pattern:
    """Ages from 0 to 17 in years, any age in months, weeks or days, "under 18", and school grades."""
    # "thirty-five" is no five, "115" no 15, "2 0" no 0.
    word = rf"(?<![a-z])(?<!ty[\W_])(?:{TO_SEVENTEEN})(?![a-z])"
    number = rf"(?:(?<!\d)(?<!\d )(?:1 ?[0-7]|0?\d)(?!\d)(?:[.,]\d\d?(?!\d))?|{word})"
    reach = r"(?: ?(?:to|or|and|[-–/,]) ?\d\d?)?"  # "15 to 16"
    years = rf"(?:(?:years?|yrs?|y){GAP}(?:olds?|of{GAP}age)|y{GAP}o)(?![a-z])"
    forms = [
        rf"{number}{reach}{GAP}{years}",
        rf"(?<![a-z])age[ds]?(?:{GAP}(?:of|is|was))?{GAP}{number}(?![a-z])",
        rf"\d{GAP}(?:months?|weeks?|days?){GAP}old",
        rf"(?:under|below|younger{GAP}than|less{GAP}than|not{GAP}yet){GAP}(?:18|eighteen)(?!\d)",
        rf"(?:\d(?:st|nd|rd|th)|(?<![a-z])(?:{GRADES})){GAP}grade",
    ]
    return re.compile("|".join(forms))


TERMS, AGE = _terms(), _age()
