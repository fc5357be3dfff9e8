"""How the demo world is told and asked about: templates of sentences, questions, clauses and descriptions.

`{subject}` stands for the subject as it is mentioned in running text (`mention`), an attribute's name for its value,
and `{a_profession}` for the profession with its article. The templates' lengths are such that every combination of
names and values gives a line of 41 to 80 characters with its line break (a test tries the extremes): two lines never
fit one chunk of 80 characters, and one always does.
"""

TEMPLATES: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {
    "person": {
        ("birth_city", "birth_year", "profession"): (
            "{subject}, {a_profession}, was born in {birth_city} in {birth_year}.",
            "Born in {birth_city} in {birth_year}, {subject} worked as {a_profession}.",
        ),
        ("birth_city", "birth_year"): (
            "{subject} was born in {birth_city} in the year {birth_year}.",
            "In the year {birth_year} {subject} was born in {birth_city}.",
        ),
        ("birth_city", "profession"): (
            "{subject} was born in {birth_city} and worked as {a_profession}.",
            "Born in {birth_city}, {subject} worked as {a_profession}.",
        ),
        ("profession", "employer"): (
            "{subject} worked for {employer} as {a_profession}.",
            "As {a_profession}, {subject} worked for {employer}.",
        ),
        ("profession", "hobby"): (
            "{subject} worked as {a_profession} and was fond of {hobby}.",
            "{subject}, {a_profession} by trade, was fond of {hobby}.",
        ),
        ("hobby", "instrument"): (
            "{subject} was fond of {hobby} and played the {instrument}.",
            "{subject} played the {instrument} and was fond of {hobby}.",
        ),
        ("employer", "instrument"): (
            "{subject} worked for {employer} and played the {instrument}.",
            "{subject} played the {instrument} and worked for {employer}.",
        ),
    },
    "place": {
        ("river", "population"): (
            "{subject} lies on the river {river} and has {population} people.",
            "With {population} people, {subject} lies on the river {river}.",
        ),
        ("founded", "product"): (
            "{subject} was founded in {founded} and is known for {product}.",
            "Known for {product}, {subject} was founded in {founded}.",
        ),
        ("river", "product"): (
            "{subject} lies on the river {river} and is known for {product}.",
            "Known for {product}, {subject} lies on the river {river}.",
        ),
        ("river", "founded"): (
            "{subject} was founded in {founded} on the river {river}.",
            "{subject}, founded in {founded}, lies on the river {river}.",
        ),
        ("river", "population", "product"): (
            "{subject} on the {river} has {population} people and is known for {product}.",
            "Known for {product}, {subject} on the {river} has {population} people.",
        ),
    },
    "meeting": {
        ("chair", "topic"): (
            "{chair} chaired {subject} about {topic}.",
            "{subject} about {topic} was chaired by {chair}.",
        ),
        ("chair", "room"): (
            "{chair} chaired {subject} in room {room}.",
            "{subject} in room {room} was chaired by {chair}.",
        ),
        ("date", "topic"): (
            "{subject} on {date} was about {topic}.",
            "On {date}, {subject} was about {topic}.",
        ),
        ("date", "room", "topic"): (
            "{subject} on {date} in room {room} was about {topic}.",
            "On {date} in room {room}, {subject} was about {topic}.",
        ),
    },
    "company": {
        ("product", "city"): (
            "{subject} makes {product} and is based in {city}.",
            "The company {subject}, based in {city}, makes {product}.",
        ),
        ("revenue", "headcount"): (
            "{subject} has {headcount} people and a revenue of {revenue} euros.",
            "With {headcount} people, {subject} has a revenue of {revenue} euros.",
        ),
        ("product", "revenue"): (
            "{subject} makes {product} and has a revenue of {revenue} euros.",
            "Making {product}, {subject} has a revenue of {revenue} euros.",
        ),
        ("product", "headcount", "city"): (
            "{subject} in {city} makes {product} and has {headcount} people.",
            "Based in {city}, {subject} has {headcount} people and makes {product}.",
        ),
    },
}

QUESTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("person", "birth_city"): ("Where was {subject} born?", "In which city was {subject} born?"),
    ("person", "birth_year"): ("When was {subject} born?", "In which year was {subject} born?"),
    ("person", "profession"): ("What did {subject} work as?", "What was the job of {subject}?"),
    ("person", "employer"): ("Who did {subject} work for?", "Which company did {subject} work for?"),
    ("person", "hobby"): ("What was {subject} fond of?", "What was the hobby of {subject}?"),
    ("person", "instrument"): ("What did {subject} play?", "Which instrument did {subject} play?"),
    ("place", "river"): ("Which river is {subject} on?", "On which river is {subject}?"),
    ("place", "population"): ("How many people live in {subject}?", "How many people does {subject} have?"),
    ("place", "founded"): ("When was {subject} founded?", "In which year was {subject} founded?"),
    ("place", "product"): ("What is {subject} known for?", "Which product is {subject} known for?"),
    ("meeting", "chair"): ("Who chaired {subject}?", "Who was the chair of {subject}?"),
    ("meeting", "date"): ("When was {subject}?", "On which date was {subject}?"),
    ("meeting", "room"): ("In which room was {subject}?", "What was the room of {subject}?"),
    ("meeting", "topic"): ("What was {subject} about?", "What was the topic of {subject}?"),
    ("company", "product"): ("What does {subject} make?", "Which product does {subject} make?"),
    ("company", "revenue"): (
        "How many euros is the revenue of {subject}?",
        "What is the revenue of {subject} in euros?",
    ),
    ("company", "headcount"): ("How many people work for {subject}?", "How many people does {subject} have?"),
    ("company", "city"): ("Where is {subject} based?", "In which city is {subject} based?"),
}

CLAUSES: dict[tuple[str, str], str] = {
    ("person", "birth_city"): "was born in {value}",
    ("person", "birth_year"): "was born in the year {value}",
    ("person", "profession"): "worked as {value}",
    ("person", "employer"): "worked for {value}",
    ("person", "hobby"): "was fond of {value}",
    ("person", "instrument"): "played the {value}",
    ("place", "river"): "lies on the river {value}",
    ("place", "population"): "has {value} people",
    ("place", "founded"): "was founded in {value}",
    ("place", "product"): "is known for {value}",
    ("meeting", "chair"): "was chaired by {value}",
    ("meeting", "date"): "was on {value}",
    ("meeting", "room"): "was in room {value}",
    ("meeting", "topic"): "was about {value}",
    ("company", "product"): "makes {value}",
    ("company", "revenue"): "has a revenue of {value} euros",
    ("company", "headcount"): "has {value} people",
    ("company", "city"): "is based in {value}",
}
"""What is said of a subject by one of its values: `Who {clause}?`, `the person who {clause}`."""

WHICH_QUESTIONS: dict[str, tuple[str, ...]] = {
    "person": ("Who {clause}?", "Which person {clause}?"),
    "place": ("Which town {clause}?", "What is the town that {clause}?"),
    "meeting": ("Which meeting {clause}?", "What is the meeting that {clause}?"),
    "company": ("Which company {clause}?", "What is the company that {clause}?"),
}

DESCRIPTIONS: dict[tuple[str, str], str] = {
    ("meeting", "chair"): "the chair of {subject}",
    ("person", "birth_city"): "the town where {subject} was born",
    ("person", "employer"): "the company that {subject} worked for",
    ("company", "city"): "the town where {subject} is based",
}
"""Another subject named by way of a subject whose attribute it is; it takes a subject's place in `QUESTIONS`."""

SUMMARY_QUESTIONS = ("What does the text tell of?", "Summarize the text.")

KIND_NOUNS = {
    "person": ("person", "people"),
    "place": ("town", "towns"),
    "meeting": ("meeting", "meetings"),
    "company": ("company", "companies"),
}


def mention(kind: str, name: str) -> str:
    """Return a subject as running text names it: `Mara Benson`, but `the Amber Falcon meeting`."""
    return f"the {name} meeting" if kind == "meeting" else name


def with_article(noun: str) -> str:
    """Put `a` or `an` before a profession."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
