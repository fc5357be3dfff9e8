"""The words the demo world is made of: common English words and names, which tokenise into one to three tokens.

The pools of values (cities, professions, ...) are shared by all splits; the names of subjects are put together from two
pools and belong to one split each (`demo_world.name_split`).
"""


def _pool(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; the lists below read better without a quote around each word."""
    return tuple(" ".join(item.split()) for item in text.split(","))


FIRST_NAMES = _pool(
    """Abigail, Adam, Adele, Agnes, Alan, Albert, Alice, Amelia, Andrew, Anna, Anton, Arthur, Barbara, Barry, Bella,
    Bernard, Beth, Bonnie, Boris, Brenda, Brian, Bruno, Carl, Carmen, Carol, Cecilia, Celia, Charles, Chloe, Clara,
    Colin, Conrad, Daisy, Daniel, David, Debra, Dennis, Derek, Diana, Donald, Donna, Dora, Doris, Douglas, Duncan,
    Edgar, Edith, Edward, Elena, Ellen, Emil, Emma, Eric, Ernest, Esther, Eugene, Felicia, Felix, Fiona, Flora,
    Frances, Francis, Frank, Fred, Gary, George, Gerald, Gilbert, Gina, Gloria, Gordon, Grace, Graham, Gregory,
    Greta, Gwen, Hannah, Harold, Harry, Hazel, Heidi, Helen, Henry, Herbert, Hilda, Holly, Howard, Hugo, Ingrid,
    Irene, Iris, Isaac, Ivan, Jack, Jacob, James, Jane, Jason, Jenny, Jerome, Joan, Joel, John, Jonas, Joseph,
    Judith, Julia, Julian, Justin, Karen, Karl, Kate, Keith, Kelly, Kenneth, Kevin, Kurt, Lars, Laura, Lawrence,
    Leah, Lena, Leonard, Lewis, Linda, Louis, Lucas, Lucy, Luke, Lydia, Mabel, Magnus, Mara, Marcus, Maria, Mark,
    Martha, Martin, Mary, Matthew, Maurice, Michael, Miles, Mona, Nadia, Nancy, Naomi, Nathan, Neil, Nicholas,
    Nigel, Nina, Nora, Norman, Olga, Oliver, Olivia, Oscar, Otto, Owen, Patrick, Paul, Paula, Penny, Peter, Petra,
    Philip, Rachel, Ralph, Raymond, Richard, Rita, Robert, Roberta, Roger, Roland, Ronald, Rosa, Rupert, Ruth,
    Sally, Samuel, Sara, Scott, Sheila, Simon, Sofia, Sonia, Stanley, Stephen, Steven, Stuart, Susan, Tara, Teresa,
    Thelma, Thomas, Timothy, Tina, Toby, Tony, Ursula, Valerie, Vera, Victor, Vincent, Vivian, Walter, Wanda,
    Warren, Wendy, Willa, William, Yvonne"""
)

LAST_NAMES = _pool(
    """Adams, Allen, Anderson, Andrews, Arnold, Atkinson, Austin, Bailey, Baldwin, Ballard, Banks, Barnes, Barrett,
    Bates, Beck, Bell, Bennett, Benson, Berger, Black, Blair, Blake, Bond, Bowen, Boyd, Bradley, Brady, Brooks,
    Brown, Bryant, Buchanan, Burke, Burns, Burton, Byrne, Caldwell, Cameron, Campbell, Carlson, Carroll, Carson,
    Chapman, Clark, Clayton, Coleman, Collins, Connor, Conway, Craig, Crawford, Cross, Curtis, Dalton, Davidson,
    Davis, Dawson, Dean, Dixon, Donnelly, Doyle, Drake, Duffy, Dunn, Eaton, Edwards, Elliott, Ellis, Evans, Farrell,
    Ferguson, Fleming, Flynn, Forbes, Foster, Fraser, Freeman, Frost, Garrett, Gibson, Gilmore, Glenn, Goodman,
    Goodwin, Graves, Gray, Greene, Hammond, Hancock, Hansen, Hardy, Harper, Harris, Hart, Hartley, Harvey, Hawkins,
    Hayes, Henderson, Hicks, Higgins, Hoffman, Holland, Holmes, Hopkins, Horton, Hudson, Hughes, Hunt, Hutton,
    Ingram, Irwin, Jacobs, Jenkins, Jennings, Jensen, Johnson, Jordan, Keller, Kemp, Kerr, Klein, Knight, Lambert,
    Larsen, Lawson, Leach, Lindsay, Lloyd, Logan, Lowe, Lynch, Maddox, Malone, Manning, Marsh, Marshall, Maxwell,
    McCarthy, McCoy, Meyer, Mills, Mitchell, Monroe, Moore, Moran, Morgan, Morris, Morrison, Morton, Murphy, Murray,
    Nelson, Nichols, Nolan, Norris, Norton, Olsen, Osborne, Owens, Palmer, Parker, Parsons, Patterson, Payne,
    Pearce, Perkins, Perry, Peterson, Phillips, Pierce, Powell, Pratt, Preston, Quinn, Ramsey, Randall, Reed,
    Reeves, Reynolds, Rhodes, Richards, Riley, Roberts, Robinson, Rogers, Ross, Rowe, Russell, Ryan, Sanders,
    Saunders, Schmidt, Schultz, Sharp, Shaw, Shelton, Sherman, Simmons, Simpson, Sinclair, Sloan, Smith, Snyder,
    Spencer, Stanton, Steele, Stevens, Stewart, Stokes, Sullivan, Sutton, Swanson, Sweeney, Talbot, Tate, Thompson,
    Thornton, Todd, Townsend, Tucker, Tyler, Underwood, Vance, Vaughn, Wade, Wagner, Wallace, Walsh, Walters, Ward,
    Warner, Watson, Watts, Webb, Webster, Weiss, Wells, West, Wheeler, Whitney, Wilcox, Wilkins, Williams, Wilson,
    Winters, Wolfe, Wood, Wright, Yates, Young"""
)

TOWN_FIRST_WORDS = _pool(
    """Maple, Cedar, Oak, Pine, Birch, Willow, Elm, Ash, Beech, Juniper, Laurel, Walnut, Chestnut, Cherry, Apple,
    Peach, Plum, Olive, Lemon, Clover, Fern, Heather, Ivy, Lily, Rose, Thistle, Moss, Reed, Barley, Wheat, Corn,
    Honey, Sugar, Salt, Sand, Stone, Pebble, Chalk, Clay, Slate, Flint, Coal, Tin, Lead, Cloud, Rain, Snow, Frost,
    Storm, Thunder, Wind, Sun, Moon, Star, Shadow, Echo, Eagle, Raven, Swan, Falcon, Otter, Beaver, Badger, Fox,
    Wolf, Bear, Elk, Bull, Lamb, Goose, Duck, Trout, King, Queen, Bishop, Abbot, Friar, Saint, Pilgrim, Hunter,
    Miller, Potter"""
)
TOWN_SECOND_WORDS = _pool(
    """Ridge, Falls, Grove, Hollow, Springs, Creek, Point, Heights, Hills, Bay, Beach, Cove, Crossing, Junction,
    Landing, Park, Plains, Rapids, Rock, Shore, View, Bend, Bluff, Field, Fields, Wood, Woods, Hill, Lake, Lakes,
    Mill, Mills, Gate, Gates, Green, Corner, Market, Mount, Pass, Peak, Pond, Port, Road, Run, Sands, Square,
    Station, Summit, Trail, Village, Well, Wells, Wharf, Cliff, Cliffs, Ferry, Ford, Glen, Haven, Head"""
)
MEETING_FIRST_WORDS = _pool(
    """Amber, Azure, Bronze, Copper, Coral, Crimson, Crystal, Diamond, Emerald, Golden, Granite, Green, Indigo,
    Iron, Ivory, Jade, Marble, Orange, Pearl, Purple, Ruby, Scarlet, Silver, Velvet, Violet, White, Yellow, Blue,
    Black, Red, Bright, Silent, Hidden, Gentle, Rapid, Frozen, Misty, Sunny, Windy, Northern, Southern, Eastern,
    Western, Lucky, Noble, Royal, Ancient, Modern, Distant, Lonely, Stormy, Sacred, Secret, Solar, Lunar, Winter,
    Summer, Spring, Autumn, Morning"""
)
MEETING_SECOND_WORDS = _pool(
    """Falcon, Eagle, Raven, Heron, Swan, Owl, Hawk, Robin, Sparrow, Dove, Crane, Stork, Pelican, Penguin, Parrot,
    Tiger, Lion, Leopard, Panther, Jaguar, Bear, Wolf, Fox, Badger, Otter, Beaver, Rabbit, Squirrel, Horse, Pony,
    Camel, Elephant, Buffalo, Bison, Deer, Moose, Whale, Dolphin, Shark, Salmon, Turtle, Lizard, Cobra, Dragon,
    Phoenix, Unicorn, Spider, Beetle, Butterfly, Lantern, Anchor, Arrow, Hammer, Mountain, Valley, River, Forest,
    Island, Harbor, Castle, Tower, Bridge, Garden, Meadow, Canyon, Glacier, Comet, Planet, Rocket, Compass, Candle,
    Mirror, Feather, Crown, Shield, Sword"""
)
COMPANY_FIRST_WORDS = _pool(
    """Acorn, Alpha, Anchor, Anvil, Apex, Apollo, Arcade, Arctic, Argo, Arrow, Aspen, Atlas, Aurora, Avenue, Axis,
    Beacon, Bishop, Bolt, Border, Boulder, Bravo, Bridge, Bright, Canal, Canyon, Capital, Carbon, Cascade, Castle,
    Central, Century, Champion, Channel, Circle, Citadel, Classic, Coast, Cobalt, Colony, Comet, Concord, Condor,
    Corner, Cosmos, Crescent, Crown, Crystal, Delta, Diamond, Eagle, Echo, Eclipse, Element, Empire, Epic, Equator,
    Everest, Express, Fortune, Frontier, Galaxy, Gateway, Global, Granite, Harbor, Harvest, Hercules, Heritage,
    Horizon, Imperial, Island, Jupiter, Keystone, Legend, Liberty, Magnet, Mercury, Meridian, Metro, Neptune,
    Nordic, Nova, Omega, Orbit, Orion, Pacific, Pioneer, Pyramid, Quantum, Regal, Saturn, Sigma, Spectrum, Stellar,
    Sterling, Titan, Triangle, Unity, Vector, Zenith"""
)
COMPANY_SECOND_WORDS = _pool(
    """Agency, Alliance, Associates, Brands, Brothers, Bureau, Center, Company, Concern, Concepts, Corporation,
    Council, Design, Direct, Dynamics, Enterprise, Exchange, Factory, Forge, Foundry, Group, Guild, Holdings, House,
    Industries, Innovations, Institute, Labs, Limited, Machines, Makers, Networks, Office, Partners, Plant,
    Products, Resources, Sciences, Services, Sisters, Solutions, Sons, Studios, Supply, Systems, Technology,
    Trading, Trust, Union, Ventures, Workshop, Works"""
)

CITIES = _pool(
    """Lisbon, Madrid, Paris, London, Berlin, Vienna, Prague, Warsaw, Rome, Milan, Naples, Venice, Turin, Athens,
    Dublin, Oslo, Helsinki, Stockholm, Hamburg, Munich, Cologne, Dresden, Zurich, Geneva, Brussels, Antwerp,
    Rotterdam, Utrecht, Lyon, Nantes, Seville, Valencia, Barcelona, Porto, Budapest, Bucharest, Belgrade, Zagreb,
    Riga, Moscow, Istanbul, Ankara, Cairo, Tunis, Algiers, Lagos, Nairobi, Tehran, Baghdad, Damascus, Beirut, Delhi,
    Mumbai, Calcutta, Lahore, Karachi, Kabul, Bangkok, Hanoi, Manila, Jakarta, Singapore, Beijing, Shanghai, Tokyo,
    Osaka, Kyoto, Seoul, Sydney, Melbourne, Perth, Auckland, Toronto, Montreal, Vancouver, Ottawa, Boston, Chicago,
    Denver, Dallas, Seattle, Portland, Atlanta, Miami, Detroit, Baltimore, Havana, Lima, Bogota, Santiago, Caracas,
    Glasgow, Edinburgh, Liverpool, Bristol, Leeds"""
)
PROFESSIONS = _pool(
    """teacher, nurse, doctor, surgeon, dentist, pharmacist, lawyer, judge, notary, banker, accountant, economist,
    baker, butcher, brewer, cook, waiter, barber, tailor, weaver, shoemaker, jeweler, goldsmith, blacksmith,
    locksmith, watchmaker, glassblower, carpenter, bricklayer, plumber, painter, sculptor, architect, engineer,
    mechanic, electrician, miner, welder, printer, bookbinder, librarian, editor, journalist, novelist, poet,
    translator, actor, dancer, singer, composer, conductor, photographer, farmer, gardener, shepherd, beekeeper,
    forester, fisherman, sailor, pilot, astronaut, driver, postman, diplomat, soldier, detective, firefighter,
    chemist, physicist, biologist, botanist, geologist, astronomer, historian, philosopher, linguist, priest, monk,
    clerk, secretary, salesman, surveyor, midwife, optician, florist, magician, clown, referee, coach"""
)
HOBBIES = _pool(
    """chess, fencing, archery, pottery, knitting, embroidery, quilting, sketching, origami, calligraphy, juggling,
    birdwatching, stargazing, hiking, climbing, cycling, rowing, sailing, swimming, diving, surfing, skating,
    skiing, curling, bowling, golf, tennis, badminton, cricket, baseball, basketball, volleyball, handball, rugby,
    hockey, boxing, wrestling, judo, karate, yoga, running, riding, fishing, gardening, cooking, photography,
    poetry, camping, canoeing, caving, gymnastics, backgammon, checkers, dominoes, billiards, darts, card games,
    crosswords, model trains, kite flying, coin collecting, stamp collecting, wood carving, table tennis"""
)
INSTRUMENTS = _pool(
    """violin, viola, cello, double bass, harp, guitar, banjo, mandolin, ukulele, lute, sitar, zither, piano, organ,
    harpsichord, accordion, concertina, harmonica, flute, piccolo, clarinet, oboe, bassoon, saxophone, trumpet,
    cornet, bugle, trombone, tuba, horn, euphonium, drums, snare drum, tambourine, triangle, xylophone, marimba,
    vibraphone, glockenspiel, bagpipes, recorder, ocarina, tin whistle, fiddle, bongos, congas, timpani, cymbals,
    castanets, dulcimer, lyre, keyboard, synthesizer, kazoo, panpipes, gong, bells, maracas, cowbell, steel drum,
    bass guitar, balalaika, koto, oud"""
)
RIVERS = _pool(
    """Alder, Avon, Barrow, Blyth, Brede, Calder, Clyde, Conwy, Crouch, Danube, Dart, Derwent, Eden, Elbe, Ember,
    Forth, Foyle, Frome, Garonne, Humber, Isar, Kennet, Lagan, Lark, Loire, Lune, Main, Medway, Mersey, Meuse, Mole,
    Moselle, Neckar, Nene, Nile, Nith, Oder, Orwell, Otter, Ouse, Rhine, Rhone, Ribble, Rother, Saale, Seine,
    Severn, Shannon, Soar, Somme, Spey, Stour, Swale, Tagus, Tamar, Tees, Teme, Thames, Tiber, Trent, Tweed, Tyne,
    Vistula, Volga, Wear, Weser, Yare"""
)
TOWN_PRODUCTS = _pool(
    """cheese, honey, wine, cider, beer, bread, butter, chocolate, marmalade, mustard, olives, almonds, walnuts,
    apples, cherries, plums, pears, peaches, figs, lemons, oranges, melons, grapes, strawberries, mushrooms,
    saffron, lavender, roses, tulips, herbs, salt, sausages, ham, oysters, salmon, trout, noodles, pancakes,
    gingerbread, lace, linen, silk, wool, carpets, baskets, tiles, porcelain, glassware, candles, soap, perfume,
    dolls, puppets, clocks, knives, hats, gloves, shoes, saddles, kites, marble, umbrellas, vinegar, biscuits"""
)
COMPANY_PRODUCTS = _pool(
    """bicycles, tractors, pumps, engines, batteries, bulbs, lamps, cables, pipes, valves, bearings, springs,
    screws, nails, hammers, drills, saws, ladders, elevators, cranes, trucks, buses, trains, ships, boats, tires,
    brakes, mirrors, windows, doors, locks, safes, desks, chairs, tables, beds, curtains, stoves, ovens, freezers,
    kettles, toasters, blenders, radios, telephones, cameras, lenses, telescopes, microscopes, scanners, computers,
    sensors, robots, drones, satellites, helmets, tents, backpacks, jackets, boots, socks, paint, glue, paper,
    envelopes, pencils, bottles, boxes, vaccines, bandages, cement, bricks"""
)
TOPICS = _pool(
    """parking fees, bus routes, school meals, street lights, library hours, office rents, travel costs, staff
    holidays, summer festivals, winter markets, flood defences, water pipes, road repairs, bridge tolls, cycle
    lanes, noise limits, fire drills, first aid, sick leave, pension plans, salary scales, night shifts, canteen
    menus, coffee machines, computer upgrades, phone contracts, data backups, password rules, website design, press
    releases, sales targets, price increases, export licences, import duties, factory tours, machine repairs, spare
    parts, delivery times, packaging waste, recycling bins, energy bills, solar panels, heating costs, window
    cleaning, garden walls, tree planting, playground safety, swimming lessons, museum tickets, theatre seats,
    concert dates, art prizes, student grants, exam dates, teacher training, language courses, research funds,
    patent claims, hiring plans, new uniforms, harbour fees, ferry times, airport taxes, taxi ranks, dog licences,
    rat control, bird shelters"""
)
MONTHS = _pool("January, February, March, April, May, June, July, August, September, October, November, December")
