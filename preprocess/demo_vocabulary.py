"""The words the demo world is made of: common English words and names, nearly all of them one token of the decoder.

One-token names and values keep the questions about copying a fact, not about spelling it; the lengths of the words
are such that each sentence fits a line of 80 characters (`demo_phrases`). The pools of values (cities, professions,
...) are shared by all splits; the names of subjects are put together from two pools and belong to one split each
(`demo_world.name_split`).
"""


def _pool(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; the lists below read better without a quote around each word."""
    return tuple(" ".join(item.split()) for item in text.split(","))


FIRST_NAMES = _pool(
    """Abigail, Adam, Alan, Albert, Alice, Amelia, Andrew, Anna, Anton, Arthur, Barbara, Barry, Bella, Bernard,
    Beth, Brian, Carl, Carol, Charles, Clara, Colin, Conrad, Daisy, Daniel, David, Dennis, Diana, Donald, Edgar,
    Edith, Edward, Ellen, Emma, Eric, Ernest, Esther, Flora, Frances, Francis, Frank, Fred, Gary, George, Gerald,
    Gordon, Grace, Graham, Gregory, Hannah, Harold, Harry, Helen, Henry, Herbert, Holly, Howard, Iris, Isaac,
    Ivan, Jack, Jacob, James, Jane, Jason"""
)

LAST_NAMES = _pool(
    """Adams, Allen, Andrews, Arnold, Austin, Bailey, Banks, Barnes, Barrett, Bates, Bell, Blair, Blake, Bond,
    Boyd, Brooks, Brown, Burke, Burns, Burton, Cameron, Carroll, Carson, Clark, Collins, Craig, Cross, Davis,
    Dean, Dixon, Doyle, Dunn, Edwards, Ellis, Evans, Forbes, Foster, Freeman, Frost, Glenn, Goodman, Graves, Gray,
    Greene, Hancock, Hansen, Hardy, Harper, Harris, Hart, Harvey, Hawkins, Hayes, Holland, Holmes, Hopkins, Hunt,
    Jacobs, Jensen, Johnson, Jordan, Keller, Kerr, Klein"""
)

TOWN_FIRST_WORDS = _pool(
    """Apple, Ash, Bear, Beaver, Bell, Bishop, Blue, Bull, Cedar, Clay, Cloud, Coal, Copper, Corn, Duck, Eagle,
    Echo, Fern, Flint, Fox, Frost, Gold, Goose, Green, Honey, Iron, Ivy, King, Lamb, Lemon, Lily, Maple, Mill,
    Miller, Moon, Moss, Oak, Olive, Pine, Queen"""
)
TOWN_SECOND_WORDS = _pool(
    """Bank, Beach, Bend, Bridge, Brook, Canyon, Castle, Cliff, Corner, Court, Cove, Creek, Cross, Crossing, Dale,
    Falls, Farm, Ferry, Ford, Forest, Garden, Gardens, Gates, Glen, Green, Grove, Harbor, Haven, Head, Heights,
    Hill, Hills, Hollow, House, Island, Junction, Lake, Landing, Lodge, Market"""
)
MEETING_FIRST_WORDS = _pool(
    """Ancient, Autumn, Azure, Blue, Bright, Brown, Central, Clear, Cold, Copper, Coral, Crystal, Dark, Deep,
    Diamond, Dry, Early, Eastern, Fast, Global, Gold, Golden, Grand, Gray, Great, Green, Happy, Hidden, Iron,
    Light, Little, Lunar, Modern, Morning, Noble, Orange, Paper, Pearl, Pink, Purple"""
)
MEETING_SECOND_WORDS = _pool(
    """Ant, Arrow, Bear, Beaver, Bee, Bell, Bird, Bridge, Bull, Canyon, Castle, Cat, Cloud, Comet, Cow, Crane,
    Crown, Deer, Dog, Dragon, Duck, Eagle, Fish, Forest, Fox, Frog, Garden, Goose, Hammer, Harbor, Hawk, Horse,
    Island, Key, Lake, Leaf, Lion, Moon, Mouse, Owl"""
)
COMPANY_FIRST_WORDS = _pool(
    """Alpha, Apollo, Arctic, Arrow, Atlas, Avenue, Axis, Bishop, Border, Boulder, Bridge, Bright, Canal, Canyon,
    Capital, Carbon, Castle, Central, Century, Channel, Circle, Classic, Coast, Colony, Comet, Concord, Corner,
    Crescent, Crown, Crystal, Delta, Diamond, Eagle, Echo, Element, Empire, Epic, Express, Fortune, Frontier"""
)
COMPANY_SECOND_WORDS = _pool(
    """Agency, Airlines, Alliance, Bank, Books, Bureau, Center, Control, Council, Crafts, Delivery, Design,
    Devices, Direct, Dynamics, Electric, Energy, Exchange, Factory, Foods, Glass, Goods, Group, Guild, House,
    Labs, Machines, Marine, Market, Media, Metals, Mining, Motors, Network, Networks, Office, Partners, Plant,
    Power, Press"""
)

CITIES = _pool(
    """Athens, Auckland, Baghdad, Barcelona, Beijing, Berkeley, Berlin, Boston, Brussels, Budapest, Cairo,
    Calcutta, Cambridge, Chicago, Cologne, Dallas, Damascus, Delhi, Denver, Detroit, Dresden, Dublin, Edinburgh,
    Geneva, Glasgow, Hamburg, Helsinki, Istanbul, Kabul, Leeds, Lima, Lisbon"""
)
PROFESSIONS = _pool(
    """accountant, actor, architect, artist, baker, biologist, blacksmith, brewer, butcher, captain, carpenter,
    chef, chemist, clerk, coach, composer, conductor, cook, dancer, dentist, designer, detective, doctor, driver,
    economist, editor, engineer, farmer, gardener, geologist, historian, journalist"""
)
HOBBIES = _pool(
    """astronomy, baking, ballet, baseball, bowling, boxing, brewing, bridge, camping, cards, carving, chess,
    climbing, comics, cooking, curling, cycling, dancing, diving, drawing, fencing, films, fishing, football,
    gardening, geology, golf, hiking, history, hockey, hunting, jazz"""
)
INSTRUMENTS = _pool(
    """accordion, banjo, bass, bass drum, bass guitar, bassoon, cello, clarinet, drums, fiddle, flute, gong,
    guitar, harmonica, harp, horn, keyboard, lute, mandolin, oboe, organ, piano, rattle, recorder, saxophone,
    synthesizer, triangle, trumpet, tuba, viola, violin, whistle"""
)
RIVERS = _pool(
    """Alabama, Amazon, Arkansas, Brisbane, Charles, Clarence, Colorado, Columbia, Congo, Dakota, Danube, Dart,
    Delaware, Eden, Fraser, Hudson, Hunter, Illinois, Indus, Iowa, Jefferson, Jordan, Kansas, Kentucky, Mackenzie,
    Madison, Minnesota, Missouri, Murray, Niger, Nile, Ohio"""
)
TOWN_PRODUCTS = _pool(
    """apples, beans, beer, bread, butter, cakes, candles, cheese, chocolate, clocks, corn, cotton, dolls, garlic,
    gloves, grapes, ham, hats, herbs, honey, knives, lace, lavender, leather, linen, marble, milk, mustard,
    noodles, nuts, onions, perfume"""
)
COMPANY_PRODUCTS = _pool(
    """bags, batteries, bearings, beds, boats, books, boots, bottles, boxes, brakes, bulbs, buses, cables,
    cameras, cars, cement, chairs, chips, clocks, computers, curtains, doors, drills, drones, engines, filters,
    glue, helmets, jackets, lamps, lenses, locks"""
)
TOPICS = _pool(
    """airports, bridges, budgets, buses, climate, computers, contracts, courses, earthquakes, elections, energy,
    exports, farming, fires, fishing, forests, gardens, health, heating, hiring, holidays, hotels, housing,
    imports, insurance, lighting, museums, noise, parking, parks, patents, pensions"""
)
MONTHS = _pool("January, February, March, April, May, June, July, August, September, October, November, December")
