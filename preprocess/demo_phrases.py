"""How the demo world is told and asked about: templates of sentences, questions, clauses and descriptions.

`{subject}` stands for the subject as it is mentioned in running text (`mention`), an attribute's name for its value,
and `{a_profession}` for the profession with its article. The templates' lengths are such that every combination of
names and values gives a line of 70 to 124 characters with its line break (a test tries the extremes).
"""

TEMPLATES: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {
    "person": {
        ("birth_city", "birth_year", "profession"): (
            "{subject} was born in {birth_city} in {birth_year} and later worked as {a_profession} elsewhere.",
            "Born in {birth_city} in {birth_year}, {subject} worked as {a_profession} until retirement age.",
            "{subject}, {a_profession} by trade, was born in {birth_year} in the very heart of {birth_city}.",
        ),
        ("birth_city", "birth_year"): (
            "{subject} was born in {birth_city} in {birth_year}, as an old register of the parish shows.",
            "It was in {birth_city} that {subject} was born in {birth_year}, the youngest of a large family.",
            "In {birth_year} {subject} was born in {birth_city}, in a small house near the old market.",
        ),
        ("birth_city", "profession"): (
            "{subject} was born in {birth_city} and worked as {a_profession} for more than twenty years.",
            "As {a_profession}, {subject} travelled a lot but always missed {birth_city}, the place of birth.",
            "{subject}, who was born in {birth_city}, was trained as {a_profession} at an early age.",
        ),
        ("profession", "employer"): (
            "{subject} worked as {a_profession} and was employed by {employer} for many years.",
            "For most of a long career, {employer} employed {subject} as {a_profession} in its main office.",
            "{subject} joined {employer} as {a_profession} and never wanted to work anywhere else.",
        ),
        ("profession", "hobby"): (
            "{subject} worked as {a_profession} and was fond of {hobby} on free afternoons and on Sundays.",
            "As {a_profession} by day, {subject} had little time for {hobby}, a favourite hobby since school.",
            "After work as {a_profession}, {subject} spent nearly every evening of the week on {hobby}.",
        ),
        ("hobby", "instrument"): (
            "{subject} was fond of {hobby} and played the {instrument} in a small band with some old friends.",
            "In the evenings {subject} played the {instrument}, and the weekends were kept for {hobby}.",
            "Those who knew {subject} remember a love of {hobby} and a talent for the {instrument}.",
        ),
        ("employer", "instrument"): (
            "{subject} was employed by {employer} and played the {instrument} at every office party.",
            "At {employer}, where {subject} was employed, everybody had heard the {instrument} after lunch.",
            "{subject} played the {instrument} on Fridays and worked for {employer} all the rest of the week.",
        ),
    },
    "place": {
        ("river", "population"): (
            "{subject} is a quiet town on the river {river} with {population} inhabitants and an old stone bridge.",
            "With {population} inhabitants, {subject} is one of the larger towns that lie on the river {river}.",
            "The town of {subject} lies on the river {river} and has {population} inhabitants at the last count.",
        ),
        ("founded", "product"): (
            "{subject} was founded in {founded} and is known all over the country for its {product}.",
            "The town of {subject}, which was founded in {founded}, is known far and wide for its {product}.",
            "Known for its {product}, the town of {subject} was founded in {founded} by a handful of families.",
        ),
        ("river", "founded"): (
            "{subject} was founded in {founded} at a ford of the river {river}, where two trade roads met.",
            "The town of {subject} lies on the river {river} and was founded in {founded} by a group of monks.",
            "Founded in {founded}, the town of {subject} stands on a low hill above the river {river}.",
        ),
        ("river", "population", "product"): (
            "{subject}, a town of {population} inhabitants on the river {river}, is known for its {product}.",
            "The town of {subject} on the river {river} has {population} inhabitants and is known for its {product}.",
            "Known for its {product}, {subject} lies on the river {river} and has {population} inhabitants.",
        ),
    },
    "meeting": {
        ("chair", "topic"): (
            "{subject} was chaired by {chair} and dealt with {topic} from start to end.",
            "When {topic} had to be settled, {chair} chaired {subject} with a firm hand.",
            "{chair} was in the chair at {subject}, where a vote on {topic} was taken.",
        ),
        ("chair", "room"): (
            "{subject} was chaired by {chair} and was held in room {room} of the main building.",
            "In room {room} of the north wing, {chair} chaired {subject} until late at night.",
            "{chair} was in the chair when {subject} was held in room {room} on the upper floor.",
        ),
        ("date", "topic"): (
            "{subject} took place on {date} and dealt with {topic} for more than two hours.",
            "On {date} it was {subject} that had to take a decision about {topic}, at last.",
            "A decision about {topic} was taken at {subject}, which took place on {date}.",
        ),
        ("date", "room", "topic"): (
            "{subject} took place on {date} in room {room} and dealt with {topic} at some length.",
            "On {date}, in room {room}, {subject} took a clear decision about {topic}.",
            "The people at {subject} met on {date} in room {room} to deal with {topic}.",
        ),
    },
    "company": {
        ("product", "city"): (
            "{subject} is based in {city} and makes {product} that are sold in a dozen countries.",
            "From its head office in {city}, {subject} makes and sells {product} of every size and price.",
            "The firm {subject}, based in {city}, makes {product} and little else, but makes them well.",
        ),
        ("revenue", "headcount"): (
            "{subject} employs {headcount} people and had a revenue of {revenue} euros in the last year.",
            "With only {headcount} people, {subject} had a revenue of {revenue} euros in the last year.",
            "A revenue of {revenue} euros was reported by {subject}, which employs {headcount} people.",
        ),
        ("product", "revenue"): (
            "{subject} makes {product} and had a revenue of {revenue} euros in the last financial year.",
            "Mostly by selling its {product}, {subject} had a revenue of {revenue} euros in the last year.",
            "A revenue of {revenue} euros was reported by {subject}, a firm that makes {product}.",
        ),
        ("product", "headcount", "city"): (
            "{subject}, which is based in {city}, makes {product} and employs {headcount} people there.",
            "The firm {subject} employs {headcount} people in {city}, where it is based, and makes {product}.",
            "In {city}, where it is based, {subject} employs {headcount} people and makes {product}.",
        ),
    },
}

QUESTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("person", "birth_city"): (
        "In which city was {subject} born?",
        "Where was {subject} born?",
        "What is the birthplace of {subject}?",
    ),
    ("person", "birth_year"): (
        "In which year was {subject} born?",
        "When was {subject} born?",
        "What is the year of birth of {subject}?",
    ),
    ("person", "profession"): (
        "What was the profession of {subject}?",
        "What did {subject} work as?",
        "Which profession did {subject} have?",
    ),
    ("person", "employer"): (
        "Which company employed {subject}?",
        "Who was the employer of {subject}?",
        "Which company did {subject} work for?",
    ),
    ("person", "hobby"): (
        "What was the hobby of {subject}?",
        "Which hobby did {subject} have?",
        "What was {subject} fond of?",
    ),
    ("person", "instrument"): (
        "Which instrument did {subject} play?",
        "What instrument was played by {subject}?",
        "Which musical instrument did {subject} play?",
    ),
    ("place", "river"): (
        "Which river does {subject} lie on?",
        "On which river lies {subject}?",
        "What is the name of the river of {subject}?",
    ),
    ("place", "population"): (
        "How many inhabitants does {subject} have?",
        "What is the number of inhabitants of {subject}?",
        "How many people live in {subject}?",
    ),
    ("place", "founded"): (
        "In which year was {subject} founded?",
        "When was {subject} founded?",
        "What is the founding year of {subject}?",
    ),
    ("place", "product"): (
        "What is {subject} known for?",
        "Which product is {subject} known for?",
        "For which product is {subject} known?",
    ),
    ("meeting", "chair"): (
        "Who chaired {subject}?",
        "Who was the chair of {subject}?",
        "Who was in the chair at {subject}?",
    ),
    ("meeting", "date"): (
        "On which date did {subject} take place?",
        "When did {subject} take place?",
        "What was the date of {subject}?",
    ),
    ("meeting", "room"): (
        "In which room number was {subject} held?",
        "What was the room number of {subject}?",
        "What was the number of the room of {subject}?",
    ),
    ("meeting", "topic"): (
        "What did {subject} deal with?",
        "What was the topic of {subject}?",
        "Which topic did {subject} deal with?",
    ),
    ("company", "product"): (
        "What does {subject} make?",
        "Which product does {subject} make?",
        "What is the product of {subject}?",
    ),
    ("company", "revenue"): (
        "What was the revenue of {subject} in euros?",
        "How many euros was the revenue of {subject}?",
        "Which revenue in euros did {subject} have?",
    ),
    ("company", "headcount"): (
        "How many people does {subject} employ?",
        "What is the number of people employed by {subject}?",
        "How many people work for {subject}?",
    ),
    ("company", "city"): (
        "In which city is {subject} based?",
        "Where is {subject} based?",
        "In which place is {subject} based?",
    ),
}

CLAUSES: dict[tuple[str, str], str] = {
    ("person", "birth_city"): "was born in {value}",
    ("person", "birth_year"): "was born in the year {value}",
    ("person", "profession"): "worked as {value}",
    ("person", "employer"): "was employed by {value}",
    ("person", "hobby"): "was fond of {value}",
    ("person", "instrument"): "played the {value}",
    ("place", "river"): "lies on the river {value}",
    ("place", "population"): "has {value} inhabitants",
    ("place", "founded"): "was founded in {value}",
    ("place", "product"): "is known for its {value}",
    ("meeting", "chair"): "was chaired by {value}",
    ("meeting", "date"): "took place on {value}",
    ("meeting", "room"): "was held in room {value}",
    ("meeting", "topic"): "dealt with {value}",
    ("company", "product"): "makes {value}",
    ("company", "revenue"): "had a revenue of {value} euros",
    ("company", "headcount"): "employs {value} people",
    ("company", "city"): "is based in {value}",
}
"""What is said of a subject by one of its values: `Who {clause}?`, `the person who {clause}`."""

WHICH_QUESTIONS: dict[str, tuple[str, ...]] = {
    "person": ("Who {clause}?", "Which person {clause}?", "What is the name of the person who {clause}?"),
    "place": ("Which town {clause}?", "What is the name of the town that {clause}?"),
    "meeting": ("Which meeting {clause}?", "What is the name of the meeting that {clause}?"),
    "company": ("Which company {clause}?", "What is the name of the company that {clause}?"),
}

DESCRIPTIONS: dict[tuple[str, str], str] = {
    ("meeting", "chair"): "the chair of {subject}",
    ("person", "birth_city"): "the town where {subject} was born",
    ("person", "employer"): "the company that employed {subject}",
    ("company", "city"): "the town where {subject} is based",
}
"""Another subject named by way of a subject whose attribute it is; it takes a subject's place in `QUESTIONS`."""

SUMMARY_QUESTIONS = ("What does the text tell of?", "Summarize the text.", "Who and what is the text about?")

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
