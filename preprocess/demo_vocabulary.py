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
    """Abigail, Adam, Alan, Albert, Alice, Amelia, Andrew, Anna, Anton, Arthur, Barbara, Barry, Bella, Bernard, Beth,
    Brian, Carl, Carol, Charles, Clara, Colin, Conrad, Daisy, Daniel, David, Dennis, Diana, Donald, Edgar, Edith,
    Edward, Ellen, Emma, Eric, Ernest, Esther, Flora, Frances, Francis, Frank, Fred, Gary, George, Gerald, Gordon,
    Grace, Graham, Gregory, Hannah, Harold, Harry, Helen, Henry, Herbert, Holly, Howard, Iris, Isaac, Ivan, Jack,
    Jacob, James, Jane, Jason, Jerome, Joan, Joel, John, Joseph, Judith, Julia, Julian, Justin, Karen, Karl, Kate,
    Keith, Kelly, Kenneth, Lewis, Louis, Luke, Maria, Mark, Martin, Mary, Matthew, Michael, Neil, Paul, Peter, Richard,
    Robert, Samuel, Scott, Simon, Stephen, Thomas, Victor, William"""
)

LAST_NAMES = _pool(
    """Adams, Allen, Andrews, Arnold, Austin, Bailey, Banks, Barnes, Barrett, Bates, Bell, Blair, Blake, Bond, Boyd,
    Brooks, Brown, Burke, Burns, Burton, Cameron, Carroll, Carson, Clark, Collins, Craig, Cross, Davis, Dean, Dixon,
    Doyle, Dunn, Edwards, Ellis, Evans, Forbes, Foster, Freeman, Frost, Glenn, Goodman, Graves, Gray, Greene, Hancock,
    Hansen, Hardy, Harper, Harris, Hart, Harvey, Hawkins, Hayes, Holland, Holmes, Hopkins, Hunt, Jacobs, Jensen,
    Johnson, Jordan, Keller, Kerr, Klein, Knight, Logan, Marsh, Maxwell, Meyer, Mills, Monroe, Moore, Morgan, Morris,
    Murphy, Murray, Nelson, Norris, Palmer, Parker, Parsons, Payne, Perkins, Perry, Powell, Pratt, Quinn, Reed, Rhodes,
    Riley, Roberts, Rogers, Ross, Russell, Smith, Webster, West, Wilson, Wood, Young"""
)

TOWN_FIRST_WORDS = _pool(
    """Apple, Ash, Bear, Beaver, Bell, Bishop, Blue, Bull, Cedar, Clay, Cloud, Coal, Copper, Corn, Duck, Eagle, Echo,
    Fern, Flint, Fox, Frost, Gold, Goose, Green, Honey, Iron, Ivy, King, Lamb, Lemon, Lily, Maple, Mill, Miller, Moon,
    Moss, Oak, Olive, Pine, Queen, Rain, Raven, Reed, Rose, Salt, Sand, Shadow, Silver, Snow, Spring, Star, Stone,
    Storm, Sugar, Summer, Sun, Swan, Tin, Wheat, White, Willow, Wind, Winter, Wolf"""
)
TOWN_SECOND_WORDS = _pool(
    """Bank, Beach, Bend, Bridge, Brook, Canyon, Castle, Cliff, Corner, Court, Cove, Creek, Cross, Crossing, Dale,
    Falls, Farm, Ferry, Ford, Forest, Garden, Gardens, Gates, Glen, Green, Grove, Harbor, Haven, Head, Heights, Hill,
    Hills, Hollow, House, Island, Junction, Lake, Landing, Lodge, Market, Mills, Mount, Park, Pass, Peak, Plains,
    Point, Pond, Port, Rapids, Ridge, Road, Rock, Sands, Shore, Springs, Square, Station, Summit, Trail, Valley, View,
    Wells, Woods"""
)
MEETING_FIRST_WORDS = _pool(
    """Ancient, Autumn, Azure, Blue, Bright, Brown, Central, Clear, Cold, Copper, Coral, Crystal, Dark, Deep, Diamond,
    Dry, Early, Eastern, Fast, Global, Gold, Golden, Grand, Gray, Great, Green, Happy, Hidden, Iron, Light, Little,
    Lunar, Modern, Morning, Noble, Orange, Paper, Pearl, Pink, Purple, Quiet, Rapid, Red, Round, Royal, Ruby, Secret,
    Silent, Silver, Slow, Soft, Solar, Spring, Steel, Stone, Summer, Sweet, Swift, Western, White, Wild, Winter,
    Yellow, Young"""
)
MEETING_SECOND_WORDS = _pool(
    """Ant, Arrow, Bear, Beaver, Bee, Bell, Bird, Bridge, Bull, Canyon, Castle, Cat, Cloud, Comet, Cow, Crane, Crown,
    Deer, Dog, Dragon, Duck, Eagle, Fish, Forest, Fox, Frog, Garden, Goose, Hammer, Harbor, Hawk, Horse, Island, Key,
    Lake, Leaf, Lion, Moon, Mouse, Owl, Penguin, Planet, Rabbit, Rat, Raven, Ring, River, Robin, Rocket, Rose, Salmon,
    Shark, Shield, Snake, Spider, Star, Swan, Sword, Tiger, Tower, Turtle, Valley, Whale, Wolf"""
)
COMPANY_FIRST_WORDS = _pool(
    """Alpha, Apollo, Arctic, Arrow, Atlas, Avenue, Axis, Bishop, Border, Boulder, Bridge, Bright, Canal, Canyon,
    Capital, Carbon, Castle, Central, Century, Channel, Circle, Classic, Coast, Colony, Comet, Concord, Corner,
    Crescent, Crown, Crystal, Delta, Diamond, Eagle, Echo, Element, Empire, Epic, Express, Fortune, Frontier, Galaxy,
    Gateway, Global, Harbor, Harvest, Heritage, Horizon, Imperial, Island, Jupiter, Legend, Liberty, Magnet, Mercury,
    Metro, Neptune, Nova, Omega, Orbit, Orion, Pacific, Quantum, Sigma, Vector"""
)
COMPANY_SECOND_WORDS = _pool(
    """Agency, Airlines, Alliance, Bank, Books, Bureau, Center, Control, Council, Crafts, Delivery, Design, Devices,
    Direct, Dynamics, Electric, Energy, Exchange, Factory, Foods, Glass, Goods, Group, Guild, House, Labs, Machines,
    Marine, Market, Media, Metals, Mining, Motors, Network, Networks, Office, Partners, Plant, Power, Press, Products,
    Railway, Records, Research, Sciences, Security, Services, Shop, Sisters, Society, Software, Sons, Steel, Stores,
    Studio, Supply, Systems, Team, Tools, Trading, Trust, Union, Works, Workshop"""
)

CITIES = _pool(
    """Athens, Auckland, Baghdad, Barcelona, Beijing, Berkeley, Berlin, Boston, Brussels, Budapest, Cairo, Calcutta,
    Cambridge, Chicago, Cologne, Dallas, Damascus, Delhi, Denver, Detroit, Dresden, Dublin, Edinburgh, Geneva, Glasgow,
    Hamburg, Helsinki, Istanbul, Kabul, Leeds, Lima, Lisbon, London, Lyon, Madrid, Manila, Melbourne, Miami, Milan,
    Montreal, Moscow, Mumbai, Munich, Nairobi, Naples, Oslo, Oxford, Paris, Perth, Prague, Rome, Seattle, Seoul,
    Singapore, Stockholm, Tehran, Tokyo, Toronto, Tunis, Vancouver, Venice, Vienna, Warsaw, Zurich"""
)
PROFESSIONS = _pool(
    """accountant, actor, architect, artist, baker, biologist, blacksmith, brewer, butcher, captain, carpenter, chef,
    chemist, clerk, coach, composer, conductor, cook, dancer, dentist, designer, detective, doctor, driver, economist,
    editor, engineer, farmer, gardener, geologist, historian, journalist, judge, lawyer, librarian, manager, mechanic,
    miner, monk, musician, novelist, nurse, officer, painter, pharmacist, philosopher, photographer, physicist, pilot,
    poet, priest, printer, professor, scientist, sculptor, secretary, shepherd, singer, soldier, surgeon, tailor,
    teacher, translator, writer"""
)
HOBBIES = _pool(
    """astronomy, baking, ballet, baseball, bowling, boxing, brewing, bridge, calligraphy, camping, cards, carving,
    chess, climbing, comics, cooking, curling, cycling, dancing, diving, drawing, fencing, films, fishing, football,
    gardening, geology, golf, hiking, history, hockey, hunting, jazz, knitting, magic, music, opera, origami, painting,
    photography, poetry, poker, pottery, puzzles, reading, rowing, rugby, sailing, sewing, singing, skating, skiing,
    soccer, sports, surfing, swimming, tennis, theater, travel, walking, weaving, woodworking, writing, yoga"""
)
INSTRUMENTS = _pool(
    """accordion, bagpipes, banjo, bass, bass drum, bass guitar, bassoon, bugle, cello, chimes, clarinet, concertina,
    congas, cornet, cowbell, double bass, drums, euphonium, fiddle, flute, folk flute, folk guitar, French horn, gong,
    grand piano, guitar, hand bells, hand drum, hand organ, harmonica, harp, horn, jazz guitar, keyboard, koto, lap
    harp, lute, lyre, mandolin, oboe, organ, piano, pipe organ, post horn, rattle, recorder, saxophone, sitar, steel
    drum, synthesizer, tin whistle, toy piano, triangle, trombone, trumpet, tuba, ukulele, viola, violin, whistle, wind
    harp, wood block, xylophone, zither"""
)
RIVERS = _pool(
    """Alabama, Amazon, Arkansas, Avon, Barrow, Brisbane, Calder, Charles, Clarence, Colorado, Columbia, Congo, Conwy,
    Dakota, Danube, Dart, Delaware, Derwent, Eden, Elbe, Ember, Forth, Foyle, Fraser, Hudson, Hunter, Illinois, Indus,
    Iowa, Jefferson, Jordan, Kansas, Kentucky, Loire, Mackenzie, Madison, Mekong, Mersey, Minnesota, Missouri, Murray,
    Niger, Nile, Ohio, Orange, Orwell, Pearl, Potomac, Rhine, Salmon, Savannah, Senegal, Shannon, Snake, Tennessee,
    Thames, Tiber, Trent, Trinity, Victoria, Volga, Warren, Wisconsin, Yukon"""
)
TOWN_PRODUCTS = _pool(
    """almonds, apples, beans, beer, bread, butter, cakes, candles, carrots, cheese, cherries, chocolate, cider,
    clocks, corn, cotton, dolls, figs, garlic, gloves, grapes, ham, hats, herbs, honey, knives, lace, lavender,
    leather, lemons, linen, marble, milk, mustard, noodles, nuts, olives, onions, oranges, oysters, peaches, pears,
    perfume, pies, porcelain, potatoes, pottery, rice, roses, salmon, salt, shoes, silk, soap, spices, sugar, tea,
    tiles, tomatoes, trout, vinegar, walnuts, wine, wool"""
)
COMPANY_PRODUCTS = _pool(
    """bags, batteries, bearings, beds, boats, books, boots, bottles, boxes, brakes, bulbs, buses, cables, cameras,
    cars, cement, chairs, chips, clocks, computers, curtains, desks, doors, drills, drones, engines, filters, glue,
    helmets, jackets, lamps, lenses, locks, maps, mirrors, nails, ovens, paint, paper, phones, pipes, planes, plastics,
    pots, pumps, radios, robots, scanners, screws, sensors, ships, shirts, socks, stoves, tables, tents, tires, tools,
    toys, tractors, trains, vaccines, valves, windows"""
)
TOPICS = _pool(
    """airports, backups, bridges, budgets, buses, climate, computers, contracts, courses, earthquakes, elections,
    energy, exports, farming, fires, fishing, forests, gardens, harbors, health, heating, hiring, holidays, hotels,
    housing, imports, insurance, lighting, museums, noise, parking, parks, passwords, patents, pensions, prices,
    printing, privacy, recycling, research, roads, safety, salaries, sales, schools, security, software, sports,
    storms, taxes, theaters, tourism, traffic, training, trains, translation, travel, trees, voting, wages, waste,
    water, websites, weeds"""
)
MONTHS = _pool("January, February, March, April, May, June, July, August, September, October, November, December")
