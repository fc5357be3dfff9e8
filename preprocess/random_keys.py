"""The random words, numbers and identifiers of RULER's tasks, and the sentences that hold them."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from utils.common_utils import UserError, read_text
from utils.pretrained import PACKAGE_PREFIX, package_resource

_LIST_NAMES = ("adjectivelist.txt", "nounlist.txt", "verblist.txt")

_ADJECTIVES = """
    able acid aged ample amused ancient angry awake aware azure bare basic big bitter blank blind bold brave brief
    bright brisk broad bronze busy calm careful cheap chilly clean clear clever close cloudy coarse cold common cool
    crisp cruel curly curved damp dark dear deep dense dim dizzy double dry dull dusty eager early easy eastern
    elder empty equal exact extra faint fair faithful false famous fancy fast fatal fierce final fine firm fit flat
    fluffy fond foolish formal frail frank free fresh full funny gentle giant glad gleaming global golden grand
    grave gray great greedy green gross half handsome handy happy hard harsh heavy hidden high hollow holy honest
    huge humble hungry icy idle ill inner ivory jolly juicy junior keen kind large last late lazy lean level light
    likely little lively local lonely long loose loud lovely low loyal lucky lunar mad major male mature meek mellow
    merry mild minor misty mobile modern moist moral muddy narrow naval neat new nice noble noisy northern novel
    numb odd old open oral orange pale past patient plain pleasant polite poor precise pretty prime private proud
    public pure purple quaint quick quiet rapid rare raw ready real recent red rich rigid ripe robust rough round
    royal rude rural rusty sacred sad safe salty scarce secret senior severe shallow sharp shiny short shy silent
    silly silver simple sleepy slim slow small smart smooth sober social soft solar solid sore sour southern spare
    spicy square stale stark steady steep stern sticky stiff still strange strict strong sudden sunny super sweet
    swift tall tame tender tense thick thin tidy tiny tired total tough tropical true urban urgent usual vague vast
    vital vivid warm wary weak wealthy western wet white whole wicked wide wild wise wooden yellow young
""".split()

_NOUNS = """
    acorn actor album alley amber anchor angle ankle apple apron arch arena arm arrow ash atlas attic aunt autumn
    award bag baker bakery balcony ball bamboo banana band bank barn barrel basin basket battery bay beach bead beam
    bean bear beard beast beaver bed bee beetle bell belt bench berry bicycle bird biscuit blade blanket blossom
    board boat body bolt bone book boot border bottle boulder bowl box branch brass bread breeze brick bridge broom
    brother brush bubble bucket bud bulb bull bus bush butter button cabin cable cactus cake calf camel camera camp
    canal candle cannon canoe canyon cap captain car card carpet carrot cart castle cat cave cedar cell cellar chain
    chair chalk channel chapel cheese cherry chess chest chicken child chimney church circle city clay clerk cliff
    clock cloth cloud clover coal coast coat coffee coin collar comb comet cook copper coral cord corn corner cotton
    couch cousin cow crab cradle crane crater crayon cream creek crew crow crown crystal cup curtain cushion dairy
    daisy dance daughter dawn deer desert desk dial diamond dinner dish ditch doctor dog doll dolphin donkey door
    dove dragon drawer dress drum duck dune dust eagle ear earth easel echo edge egg elbow elm ember engine envelope
    evening eye fabric face factory falcon farm farmer father feather fence fern ferry field fig film finger fire
    fish flag flame flask flight flock flood floor flour flower flute foam fog folder food foot forest fork fossil
    fountain fox frame friend frog frost fruit funnel fur garage garden garlic gate gem ghost giraffe girl glacier
    glass globe glove glue goat goose grain granite grape grass gravel guest guitar gull hail hair hall hammer hand
    handle harbor harp hat hawk hay heart hedge heel helmet hen herb heron hill hinge hive honey hood hook horn
    horse hose hotel house ice inch ink insect iron island ivy jacket jar jaw jelly jewel judge jug jungle kettle
    key king kitchen kite kitten knee knife knot lace ladder lady lake lamb lamp land lantern lap lark lawn lawyer
    leaf leather lemon lens letter library lid lily lime line linen lion lip lizard lock log lotus lumber lung lunch
    magnet maple marble market mask mast match meadow meal medal melon metal midnight milk mill mine mint mirror
    mitten mole money monkey month moon morning moss moth mother motor mountain mouse mouth mud mule muscle museum
    music nail napkin neck needle nephew nerve nest net night north nose notebook nurse nut oak oar oasis oat ocean
    olive onion orchard orchid organ otter oven owl ox oyster paddle page paint palace palm pan panda paper parade
    park parrot party pasta path peach peak pear pearl pebble pen pencil pepper petal piano picnic picture pie
    pigeon pillow pilot pine pipe pirate pitcher planet plank plant plate plaza plum pocket poem poet pole pond pony
    porch port pot potato powder prince puddle pump puppet puppy purse puzzle pyramid quail quarry queen quill quilt
    rabbit raccoon radio rail rain ranch raven razor recipe reef ribbon rice ridge ring river road robin rock rocket
    roof room root rope rose rug ruler saddle sail salad salmon salt sand sandal satin sauce scale scarf school
    scissors screen screw sea seal season seed shadow shark sheep sheet shelf shell shepherd shield ship shirt shoe
    shop shore shoulder shovel shrimp silk sink sister skirt sky sled sleeve slipper smoke snail snake snow soap
    sock sofa soil soldier soup south spark sparrow spider spoon spring spruce squirrel stable stage stair stamp
    star statue steam steel stem stone stool stork storm stove straw stream street string student sugar suit summer
    sun swan sweater swing sword table tail tailor tank tea teacher temple tent theater thimble thorn thread throat
    throne thumb thunder ticket tiger tile timber toast tomato tongue tool tooth torch towel tower town toy train
    tray tree trick trousers trout truck trumpet trunk tulip tunnel turkey turnip turtle twig uncle valley vase
    vault vest village vine violet violin voice volcano wagon waist wall walnut water wave wax weather web wheat
    wheel whistle willow wind window wing winter wire wolf wool worm wrist yarn yard year zebra zipper
""".split()

_VERBS = """
    accept add admire admit advise agree allow amuse announce answer appear applaud appreciate approve argue arrive
    ask attach attack attend avoid bake balance beg behave belong blink boil borrow bounce bow breathe build burn
    buy calculate call care carry carve catch cause change charge chase cheer chew choose chop claim clap climb
    coach collect compare compete complain confuse connect consider contain continue copy correct cough count crash
    crawl cross cry cure dare decide decorate delay deliver depend describe destroy detect develop disagree discover
    dive divide doubt drag draw dream drift drink drive drop earn eat encourage end enjoy enter escape examine
    excite excuse exercise exist expand expect explain explode fade fail fasten fetch fill float flow fold follow
    forgive fry gather glow grab greet grin grip guard guess guide happen harm hate haunt heal heap help hide hope
    hover hug hum hunt identify ignore imagine impress improve include increase inform inject instruct intend invent
    invite itch jog join joke juggle jump kick kiss kneel knit knock laugh launch learn lick lift list listen live
    load look love manage march marry measure meet melt memorize mend moan mourn move multiply murmur nod notice
    obey object observe obtain occur offer order owe own pack pause peel perform phone pinch play plead please point
    polish pour practise pray preach prefer prepare present preserve press pretend prevent print produce promise
    protect provide pull punch punish push question race reach realise receive recognise record reduce reflect
    refuse regret reign reject relax release rely remain remember remind remove repair repeat replace reply report
    request rescue retire return rhyme rinse roll rub ruin rule run rush save scatter scold scratch scream scrub
    search see send separate serve settle shake shave shelter shiver shock shrug sigh sing sip sit skip slap sleep
    slide smile snatch sneeze sniff snore speak spell spill spoil spray sprout squeak squeeze stare start stay steer
    stir stop strengthen stretch strip stroke stuff subtract succeed suffer suggest supply support suppose surprise
    surround suspect suspend swim switch talk tap taste tease tell tempt terrify thank think tickle tie touch tour
    trace trade travel treat tremble trot trust try tug tumble twist type undress unite unlock unpack untie use
    vanish visit wait wake walk wander want warn wash waste watch wave weigh welcome whine whirl whisper win wink
    wipe wish wonder work worry wrap wreck wrestle write yawn yell zoom
""".split()


@dataclass(frozen=True)
class WordLists:
    """Adjectives, nouns and verbs; no word is in a list twice."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]

    def draw_pair(self, rng: random.Random) -> str:
        """Draw `adjective-noun`, as RULER's keys are made."""
        return f"{rng.choice(self.adjectives)}-{rng.choice(self.nouns)}"

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All single words, in alphabetical order."""
        return tuple(sorted({*self.adjectives, *self.nouns, *self.verbs}))

    @property
    def num_words(self) -> int:
        """How many different words `sample` can draw: the single ones and all pairs."""
        return len(self.words) + len(self.adjectives) * len(self.nouns)

    def sample(self, rng: random.Random, count: int) -> list[str]:
        """Draw different words, single ones first and then pairs; a shorter draw is the start of a longer one.

        Args:
            count: at most `num_words`.
        """
        singles = rng.sample(self.words, len(self.words))
        num_pairs = max(0, count - len(singles))
        numbers = range(len(self.adjectives) * len(self.nouns))
        pairs = rng.sample(numbers, num_pairs) if num_pairs else ()
        return singles[:count] + [
            f"{self.adjectives[number // len(self.nouns)]}-{self.nouns[number % len(self.nouns)]}" for number in pairs
        ]


BUILT_IN_WORDS = WordLists(*(tuple(dict.fromkeys(words)) for words in (_ADJECTIVES, _NOUNS, _VERBS)))


def read_word_lists(reference: str) -> WordLists:
    """Read the lists of a folder, or of `package:NAME/relative/path` (RULER's are `package:wonderwords/assets`).

    Lines that hold several words are left out; the official generator keeps them.

    Raises:
        UserError: a list is missing, not UTF-8 or empty.
    """
    if reference.startswith(PACKAGE_PREFIX):
        folder = package_resource(reference, "--words")
    else:
        folder = Path(reference)
    if not folder.is_dir():
        raise UserError(f"--words={reference!r}: no such folder; it holds {', '.join(_LIST_NAMES)}")
    lists = []
    for name in _LIST_NAMES:
        lines = (line.strip() for line in read_text(folder / name).splitlines())
        words = tuple(dict.fromkeys(line for line in lines if line and len(line.split()) == 1))
        if not words:
            raise UserError(f"{folder / name}: holds no word")
        lists.append(words)
    return WordLists(*lists)


def random_number(rng: random.Random) -> str:
    """Draw a number of seven digits."""
    return str(rng.randint(10**6, 10**7 - 1))


def random_uuid(rng: random.Random) -> str:
    """Draw a version 4 UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def magic_sentence(value_type: str, key: str, value: str) -> str:
    """Return RULER's needle; `value_type` is a plural, `numbers` or `uuids`."""
    return f"One of the special magic {value_type} for {key} is: {value}."


def special_magic(value_type: str, keys: Sequence[str], num_values: int) -> str:
    """Return RULER's question for the values of keys, `num_values` of them together."""
    listed = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
    asked = f"is the special magic {value_type[:-1]}" if num_values == 1 else f"are all the special magic {value_type}"
    return f"What {asked} for {listed} mentioned in the provided text?"
