"""Simple tales that a program composes, so that the model sees stories which keep one hero from the first sentence to the last.

  python tales.py [--count N] [--seed S]           # N tales, separated by a line <|endoftext|>

A tale is an opening, the beats of one plot family, and an ending. Every beat is a template: [one|another] chooses a wording, {slot} fills in a word
(a capital, {Slot}, capitalises it). {p} names the hero and {he} {him} {his} {himself} stand for it; {q} is the second character, of the other gender
where there is one, so that its pronouns {she} {her} {hers} {herself} are never mistaken for the hero's. {aq} introduces it at the first mention.
"""
import argparse
import random
import re
from typing import Iterator

from sample import STORIES

# noun | gender | class | adjectives | home | what it does for a living | what it may be doing as a tale begins (always with a subject before it)
PEOPLE = """
woodcutter|m|work|poor,old,young,strong|in a hut at the edge of the forest|cut wood and sold it in the town|was sharpening {his} axe;came out of the trees with a bundle of wood
fisherman|m|work sea|poor,old,young,grey-haired|in a small house by the sea|caught fish and sold them at the market|was mending {his} net on the shore;pulled {his} boat up on the sand
miller|m|work|old,young,fat,poor|in a mill by the river|ground corn for the whole village|stood in the door of {his} mill, white with flour;was carrying a sack of flour
tailor|m|work|little,poor,young,thin|in a narrow house in the town|made coats for other people|sat at {his} window, sewing a coat;was looking for {his} needle
shoemaker|m|work|poor,old,cheerful,young|in a little house beside the church|made shoes for the people of the town|was working on a pair of boots;laid down {his} hammer and looked out into the street
baker|mf|work|fat,cheerful,old,young|in a warm house on the market square|baked bread for the whole village|was taking the loaves out of the oven;stood at the door of the shop, wiping {his} hands
smith|m|work|strong,old,young,tall|beside the forge at the end of the village|made shoes for horses and nails for the carpenters|was hammering a piece of hot iron;stood before {his} fire
farmer|mf|work|poor,old,young,hard-working|on a farm among the hills|ploughed the fields and kept a few sheep|was digging in the field;came home from the field with a spade
shepherd|m|work herd|young,old,lonely,poor|in a hut on the hillside|kept sheep on the hills|was counting {his} sheep;sat on a stone, playing a wooden pipe
shepherdess|f|work herd|young,poor,lonely,pretty|in a hut on the hillside|kept sheep on the hills|was counting {his} sheep;sat on the grass among {his} lambs
goose girl|f|child|young,poor,barefoot,little|in a cottage by the pond|drove the geese to the meadow every morning|was driving {his} geese over the meadow;sat by the pond, watching the geese
weaver|mf|work|poor,old,young,quiet|in a cottage at the end of the lane|wove cloth from morning till night|was sitting at the loom;was rolling up a piece of blue cloth
potter|mf|work|old,young,poor,patient|in a house of clay by the river|made pots and jugs of red clay|was turning a jug on the wheel;was setting pots in the sun to dry
gardener|mf|work|old,young,quiet,stooping|in a cottage behind the castle garden|looked after roses and apple trees|was watering the roses;was cutting the hedge
hunter|m|work|young,old,tall,silent|in a cabin deep in the forest|knew every path in the forest|was coming down the path with {his} bow;sat by a small fire in the wood
ferryman|m|work sea|old,strong,grey-haired,lonely|in a hut by the wide river|rowed people over the river for a penny|sat in {his} boat, waiting for travellers;was tying {his} boat to a post
charcoal burner|m|work|poor,old,young,lonely|in a hut deep in the forest|burned charcoal in the forest|was watching {his} fire;sat black with smoke before {his} hut
pedlar|m|work walk|old,young,poor,merry|in a rented room above the inn|went from village to village with a pack on {his} back|was walking along the road with {his} pack;sat down by the road and opened {his} pack
soldier|m|walk|old,brave,lame,young|in a small room in the town|had served the king for many years|was walking along the road with an empty purse;sat on a milestone and rubbed {his} tired feet
fiddler|m|walk|merry,poor,young,old|in a little room under the roof of the inn|played at weddings and fairs|was tuning {his} fiddle;was walking along the road with {his} fiddle under {his} arm
carpenter|m|work|young,old,poor,skilful|in a wooden house by the bridge|made tables and chairs|was planing a board;was carrying a ladder through the village
beekeeper|mf|work|old,young,quiet,poor|in a cottage on the heath|kept bees and sold honey|stood among the beehives;was filling jars with honey
milkmaid|f|work|young,pretty,rosy,poor|on a farm beside the river|milked the cows every morning and evening|was carrying two pails of milk;was calling the cows home
kitchen maid|f|child|young,poor,little,hard-working|in the castle kitchen, behind the great oven|scrubbed the pots in the castle kitchen|was scrubbing a great black pot;carried a bucket of water up the steps
spinner|f|work|poor,old,young,patient|in a cottage by the mill stream|spun wool for the whole village|was sitting at the spinning wheel;was winding a ball of grey wool
widow|f|old|poor,old,lonely|in a cottage at the end of the village|lived by spinning and by the eggs of {his} three hens|was sweeping the floor;was gathering sticks by the roadside
old man|m|old|poor,lonely,grey-bearded|in a cottage under the hill|lived on the fruit of {his} little garden|sat on the bench before {his} door;was walking slowly home with a stick in {his} hand
old woman|f|old|poor,lonely,little,bent|in a tiny house beside the wood|gathered herbs and mushrooms|was stirring soup over the fire;was picking herbs by the path
boy|m|child|little,poor,small,barefoot|in a cottage with {his} mother|helped {his} mother in the garden|was throwing stones into the stream;sat on the wall, swinging {his} legs
girl|f|child|little,poor,small,barefoot|in a cottage with {his} mother|helped {his} mother in the garden|was picking flowers in the meadow;sat on the step, eating an apple
orphan|mf|child|poor,little,lonely,hungry|in a barn that belonged to a farmer|looked after another man's cows|was sitting under a hedge;was driving the cows along the lane
miller's daughter|f|child|young,pretty,rosy,little|in the mill by the stream|carried the flour to the market|was feeding the ducks below the mill;stood on the bridge beside the mill
tailor's son|m|child|young,little,thin,poor|in a narrow house in the town|carried the finished coats to the people|was running an errand for {his} father;sat on the steps of {his} father's shop
goatherd|m|child|young,little,poor,merry|in a stone hut on the mountain|kept goats on the mountain|was looking for a lost goat;lay in the grass and watched {his} goats
student|m|walk|poor,young,hungry|in a cold room under the roof|read old books all day long|was walking along the road with a book under {his} arm;shut {his} book and rubbed {his} eyes
prince|m|royal young|young,handsome,tall,lonely|in a castle of white stone|learned to ride and to use a sword|looked out of the highest window of the castle;was riding along the river on a grey horse
princess|f|royal young|young,beautiful,fair-haired,lonely|in a castle of white stone|learned to dance and to read old books|looked out of the highest window of the castle;was walking in the castle garden
king|m|royal|old,young,mighty,rich|in a castle on a rock|ruled over a small country|sat on {his} throne;was walking up and down in the great hall
queen|f|royal|young,old,mighty,rich|in a castle by a lake|ruled over a small country|sat at a high window;was walking among the roses of {his} garden
merchant|m|rich|rich,old,stout,young|in a tall house by the harbour|sold silk and spices|was counting {his} money;stood on the quay and looked for {his} ship
innkeeper|mf|rich|stout,rich,old,cheerful|in an inn at the crossroads|gave travellers soup and a bed|stood in the door of the inn;was rolling a barrel into the cellar
mayor|m|rich|stout,rich,old,solemn|in the biggest house in the town|kept the keys of the town gate|was walking across the market square;sat in a deep chair with {his} hands folded
lord|m|rich|rich,young,old,haughty|in a great house with a hundred windows|owned all the land as far as one could see|was riding home from the hunt;sat down to a dinner of seven dishes
fairy|f|magic|young,tiny,old|in the cup of a lily|took care of the flowers in the wood|was sitting on a mushroom;was washing {his} wings in the dew
dwarf|m|magic|old,little,grey-bearded|in a cave under the mountain|dug for silver in the mountain|was polishing a lantern;came out of a crack in the rock
giant|m|magic big|young,lonely,huge,old|in a cave above the valley|carried rocks and built walls|sat on top of a hill as on a chair;was washing {his} feet in the lake
witch|f|magic|old,young,lonely,little|in a crooked house in the marsh|brewed drinks for coughs and toothache|was stirring a pot of green soup;was looking for {his} broom
elf|m|magic|little,young,tiny|in a hollow oak|mended the wings of butterflies|was sitting on a fern;was sewing a cap from a leaf
wizard|m|magic|old,young,white-haired|in a tower full of books|read the stars and cured the sick|was turning the pages of a great book;was looking for {his} spectacles
"""
# noun | genders | size and kind | adjectives | home | how it moves, and moving | food
ANIMALS = """
fox|mf|mid wood hunter|young,old,red,lean,hungry|in a den under an old oak|trotted,trotting|blackberries
hare|mf|small wood|young,brown,long-legged,old|in the long grass at the edge of the wood|ran,running|clover
rabbit|mf|small wood|little,grey,young,white|in a burrow under the hedge|hopped,hopping|carrots
hedgehog|mf|small wood|little,old,round,young|under a heap of dry leaves|walked,walking|fallen pears
squirrel|mf|small wood climb|red,young,little,quick|in a hole high up in a beech tree|ran,running|nuts
bear|mf|big wood|old,young,brown,huge|in a cave in the forest|walked,walking|honey
wolf|m|big wood hunter|grey,old,hungry,lean|among the rocks in the forest|trotted,trotting|bones
badger|mf|mid wood|old,grey,fat,young|in a deep hole under a hill|walked,walking|roots
deer|mf|big wood|young,shy,slender|in the quietest part of the forest|ran,running|fresh grass
mouse|mf|small farm|little,grey,tiny,young,brown|in a hole behind the barn|ran,running|cheese
mole|mf|small wood|little,old,black,shy|in a tunnel under the meadow|crept,creeping|sweet roots
owl|mf|mid wood bird|old,young,brown,grey|in a hollow elm|flew,flying|berries
crow|mf|mid wood bird|black,old,young,hungry|at the top of a tall pine|flew,flying|bread crusts
sparrow|mf|small farm bird|little,brown,young|under the roof of a barn|flew,flying|seeds
robin|mf|small wood bird|little,young,round|in a holly bush|flew,flying|berries
magpie|mf|mid wood bird|young,old,noisy|in a nest of sticks in a poplar|flew,flying|cherries
lark|mf|small wood bird|young,little,brown|in a nest among the corn|flew,flying|seeds
nightingale|mf|small wood bird|little,young,shy|in a thicket by the stream|flew,flying|berries
stork|mf|mid pond bird|old,tall,young,white|in a great nest on a chimney|flew,flying|water snails
heron|mf|mid pond bird|grey,old,tall,young|among the reeds of the lake|flew,flying|water snails
duck|f|mid pond|white,young,old,fat|in the reeds beside the pond|waddled,waddling|water weed
duckling|mf|small pond young|yellow,little,small|in the reeds with {his} mother|waddled,waddling|water weed
frog|mf|small pond|green,little,young,old|under a stone beside the pond|hopped,hopping|flies
otter|mf|mid pond|young,sleek,brown,old|in a hole in the river bank|ran,running|river mussels
beaver|mf|mid pond|old,young,busy,brown|in a lodge in the middle of the stream|walked,walking|willow bark
turtle|mf|small pond|old,little,slow,green|under the roots by the pond|crept,creeping|lettuce
swan|mf|mid pond|white,young,old|on an island in the lake|waddled,waddling|water weed
goose|f|mid farm|grey,white,old,young|in a yard behind the farmhouse|waddled,waddling|barley
hen|f|mid farm|brown,speckled,old,young|in a yard behind the farmhouse|walked,walking|corn
chick|mf|small farm young|yellow,little,small|in a henhouse with {his} mother|ran,running|crumbs
cock|m|mid farm|red,young,old|in a yard behind the farmhouse|walked,walking|corn
cat|mf|mid farm hunter|black,white,old,young,grey|in the kitchen of a farmhouse|walked,walking|cream
kitten|mf|small farm young|white,grey,little,black|in a basket in a farmhouse kitchen|ran,running|milk
dog|m|mid farm|old,young,brown,shaggy|in a kennel beside the barn|trotted,trotting|bones
puppy|mf|small farm young|brown,little,spotted|in the straw of a stable|ran,running|milk
donkey|mf|big farm|grey,old,young,brown|in a stable on a farm|trotted,trotting|thistles
horse|mf|big farm|white,old,young,brown|in a stable on a farm|trotted,trotting|oats
pony|mf|big farm|little,brown,young,spotted|in a green field beside the road|trotted,trotting|oats
goat|mf|mid farm|white,old,young,black|in a shed beside a mill|walked,walking|cabbage leaves
lamb|mf|small farm young|white,little,black|in a fold on the hillside|ran,running|fresh grass
pig|mf|mid farm|pink,fat,young,old|in a sty on a farm|trotted,trotting|turnips
cow|f|big farm|brown,old,young,white|in a byre on a farm|walked,walking|clover
peacock|m|mid farm bird vain|young,blue,handsome|in the garden of a castle|walked,walking|corn
lion|m|big wild hunter|old,young,mighty|in a cave among the rocks|walked,walking|meat
monkey|mf|mid wild climb|young,little,brown|in a tall fig tree|ran,running|figs
elephant|mf|big wild|old,grey,young|by a great river|walked,walking|young leaves
camel|mf|big wild|old,brown,young|in the shade of some palm trees|walked,walking|dates
ant|mf|small wood|little,black,tiny|in an anthill under a fir tree|crept,creeping|crumbs
snail|mf|small wood|little,slow,brown|under a cabbage leaf|crept,creeping|lettuce
dragon|m|magic big|young,green,old,lonely|in a cave on a mountain|walked,walking|hot porridge
"""
GROUND = ["sat in the morning sun", "was looking for {food}", "was eating {food}", "woke up hungry", "stood still and listened to the wind", "looked up at the clouds",
          "was drinking from a stream", "{went} along a narrow path", "sat in the shade and thought", "lay in the grass, half asleep", "was {going} home", "came to a bridge over a brook"]
AIR = ["sat on a branch", "was looking for {food}", "was eating {food}", "woke up hungry", "looked down from a treetop", "was {going} home over the fields",
       "sat on a gatepost and smoothed {his} feathers", "sat on a wall in the sun", "was drinking from a puddle"]
STEPS = ["looked up at the sky", "sat down to rest", "stood at the gate and looked down the road", "was drawing water from the well", "woke up before the sun",
         "came out of the house", "sat by the fire and thought", "stood still and listened", "crossed the bridge"]
SAYING = "quietly;slowly;softly;after a moment;in a low voice;simply;gravely;without looking up;calmly;thoughtfully;earnestly;in a clear voice".split(";")
PAST = """a ruined tower;a mill with broken sails;a row of poplars;a charcoal burner's hut;a field of flax;a stone cross;a lonely inn;a pond with white ducks;a gallows hill;a flock of grey sheep;a hedge of wild roses;a great hollow oak
a chapel without a roof;an orchard;a farm where a dog barked;a scarecrow in an old hat;a well with a mossy roof;a heap of black rocks;a herd of brown cows;a shepherd's fire""".replace("\n", ";").replace("a gallows hill;", "").split(";")
OVER = "a bridge of stone;a narrow plank;three low hills;a stream full of trout;a windy heath;a fallen tree;a high pass;a wide meadow;a wall of loose stones;a field of stubble;a ridge of sand".split(";")
THROUGH = "a dark fir wood;a village with red roofs;a valley full of mist;a birch wood;a gap in the hills;a marsh;a field of barley;high ferns;a town that was fast asleep;a gate that nobody guarded;a wood full of birdsong".split(";")
NEAR = "a dog barked;an owl hooted;a branch cracked;a door banged;a bell rang;a cart rattled by;a stream murmured;the leaves rustled;a fox barked".split(";")
SKY = "the moon stood over the trees;the sky was full of stars;the clouds hung low;a thin mist rose from the ground;the last light was fading;the wind had dropped;the moon was hidden;the evening star shone;the shadows were blue".split(";")
WORN = "a {c} jacket;a {c} cap;a {c} cloak;a {c} scarf;a {c} hat;{c} stockings;a {c} apron;a long {c} coat".split(";")
COLOURS = "green red blue brown grey yellow black white patched striped".split()
WITH = "carried a stick of hazel wood;had a laughing mouth;had freckles on {his} nose;walked with long steps;had eyes as blue as flax;had a voice like a bell;kept a dried flower in {his} pocket;whistled through {his} teeth;had hands that were never still;" \
       "had a scar on {his} chin;had hair as red as a fox;spoke little;laughed easily;knew a hundred songs".split(";")
EYES = "bright;round;dark;merry;sleepy;clever;gentle;shining;small black".split(";")
MARKS = "a loud voice;a soft voice;a good memory;a great appetite;a cheerful face;a serious face;a warm heart;a quick temper;a love of bright things;a great fear of thunder;a weakness for {food};an answer for everything;a way of walking that made others smile;a friend in every field".split(";")
SINGULAR = dict(m=("he", "him", "his", "himself"), f=("she", "her", "her", "herself"))
NAMES = dict(m="Hans Peter Jack Tom Martin Oliver Ralph Conrad Felix Otto Simon Anton Caspar Robin Edmund Gilbert Hugo Ivan Karl Lucas Matthias Nicholas Osric Rupert Stefan Tobias "
               "Ulric Victor Walter Will Ben Godfrey".split(),
             f="Anna Rosalind Greta Elsa Marion Lucy Clara Alice Bettina Dora Emma Flora Gerda Hilda Ida Jenny Katrin Lena Maria Nell Olga Polly Rosa Sophie Tilda Ursula Vera Wilma "
               "Agnes Bridget Celia Margaret".split())
PETS = dict(m="Bruno Rufus Pip Tuck Barley Max Nibbles Grumble Moss Bramble Tip Flint Oakley Bobbin Patch".split(),
            f="Tansy Dilly Minna Poppy Fern Hazel Pearl Willow Clover Daisy Bess Juniper Mopsy Ruby Tabby".split())
PLACES = """a village at the foot of the mountains;a land of lakes and forests;a town with seven towers;a green valley between two hills;a country where the winters were long
a village beside a slow river;a kingdom by the eastern sea;a little town with crooked streets;a lonely part of the north country;a village among apple orchards
a village on the edge of a great forest;a land where it seldom rained;a quiet valley full of wild flowers;a town where three roads met
a village behind the sand hills;a mountain country;a kingdom so small that one could walk across it in a day;a village with one well and one bell;a land of windmills
a hamlet beside a marsh;a harbour town;a village at the end of a long white road;a country of deep snow and dark pines;a sunny land in the south""".replace("\n", ";").split(";")
WILDS = """a wide forest;a green wood;a quiet valley;a meadow full of daisies;a marsh where the reeds were tall;a land of rocks and streams;a forest of old oaks;the woods beyond the river
a deep valley;the hills above the village;the country round a great lake;a birch wood;a sunny valley;a wood where few people came;the fields beside a broad river""".replace("\n", ";").split(";")
TREASURES = """gold ring;silver key;silver thimble;little brass bell;silver brooch;string of blue beads;red leather purse;golden comb;small silver cup;ivory whistle;copper lantern;wooden flute
blue silk scarf;pair of red shoes;golden pin;painted box;green glass bottle;silver spoon;warm woollen cap;small round mirror;carved walking stick;golden locket;silver buckle""".replace("\n", ";").split(";")
TRINKETS = """blue feather;shiny button;round white stone;red ribbon;little brass bell;golden acorn;pink shell;glass bead;silver thimble;bright new penny;yellow marble;piece of blue glass
green stone;wooden spoon;old brass key;striped pebble;scrap of red silk""".replace("\n", ";").split(";")
FOODS = "a loaf of bread;a pot of honey;a basket of apples;a plum cake;a bowl of soup;a round cheese;a dish of porridge;a berry pie;a bag of nuts;a basket of pears;a jug of milk;six brown eggs".split(";")
SEASONS = dict(
    spring=["It was spring, and the first flowers were out", "The snow had melted at last", "It was a bright April morning", "The cherry trees were in "
        "blossom", "The swallows had just come back"],
    summer=["It was a hot summer's day", "It was midsummer, and the hay smelled sweet", "The corn stood high in the fields", "The sun was shining, and the "
        "bees were humming", "It was a long warm summer evening"],
    autumn=["It was autumn, and the leaves were falling", "The apples were ripe", "A cold wind blew over the empty fields", "It was harvest time", "Mist lay "
        "over the meadows", "The first nuts were falling"],
    winter=["It was winter, and the snow lay deep", "It had snowed all night", "The pond was frozen hard", "It was the coldest day of the year", "Long "
        "icicles hung from the roofs", "The winter nights were long"])
TRAITS = dict(
    plain=["was well liked by all the neighbours", "lived quietly and wanted little", "had never been far from home", "was neither very clever nor very "
        "foolish", "had few friends but good ones",
           "liked to sing in the morning", "went to bed early and got up early", "was content with very little"],
    kind=["had a kind heart", "could not bear to see anyone in trouble", "was always ready to help", "never passed anyone in need", "was gentle with every "
        "living thing", "would share the last crumb with a stranger"],
    proud=["was very proud", "thought {himself} better than everybody else", "looked down on all the others", "never said a friendly word to anyone", "could "
        "not bear to be laughed at", "held {his} head so high that {he} hardly saw the road"],
    boast=["was always boasting", "could not speak three words without praising {himself}", "told everybody how clever {he} was", "liked nothing so much as "
        "to talk about {himself}", "believed that nobody in the world was {his} equal"],
    greedy=["was never content", "always wanted more than {he} had", "envied everyone who had more", "could never have enough", "grumbled from morning till "
        "night because others were richer"],
    lazy=["was very lazy", "did not like work", "liked sleeping better than anything else", "always said that tomorrow would be soon enough", "never did "
        "today what could be left for another day"],
    clever=["was small but clever", "had a quick mind", "thought twice before speaking once", "had sharp eyes and sharper wits", "always kept a cool head"],
    brave=["was afraid of nothing", "had more courage than one would have thought", "did not lose heart easily", "had a brave heart"],
    foolish=["was good-natured but not very wise", "believed everything that {he} was told", "was a simple soul", "always liked best what {he} did not have",
        "never stopped to think"])
GOOD = """And from that day on {p} [was never {sad} again|had no more cares|lived in peace and plenty|wanted for nothing|was the happiest creature for miles around].
[After that|From then on|Ever afterwards] {p} [lived happily|lived long and happily|lived in peace], [and nobody wished {him} ill|and nobody had a better friend|and if {he} has not died, {he} is living there still].
[That night|That evening] {p} [slept soundly|fell asleep with a light heart|sat by the [window|door], looked at the stars and was happy|went to bed tired and {glad}].
So {p} [went home|came home] with a [light|happy|thankful] heart, and [all was well|everything was well again|that is the end of the story|there the story ends].
[The neighbours|The young ones|The children] [still tell this story|heard the story many times], and {p} [smiled whenever it was told|never grew tired of telling it].
{P} [never forgot that day|remembered that day as long as {he} lived], and [was happy to the end of {his} life|the luck that came with it never left {him}].
And so everything [ended well for {p}|turned out well for {p} after all|that had begun badly for {p} came to a good end].
"All's well [now|again|at last]," said {p}, and [it was true|so it was|went home to supper|that was the end of the matter].
Then {p} was [as happy as the day is long|so happy that {he} sang all the way home|happier than {he} had ever been before].""".split("\n")
BAD = """{P} went home [with slow steps|ashamed|in silence], and [told nobody about it|it was a long time before {he} laughed again|had plenty of time to think it over].
[From that day on|After that|Ever since] {p} [was wiser|took better care|thought before {he} spoke|was content with what {he} had].
[It was a hard lesson|The lesson was a hard one|That was a bitter day], but {p} [never needed it twice|learned it well|did not forget it].
"[I have only myself to blame|It serves me right|Next time I will be wiser]," said {p}, and [that was true|nobody said no|went slowly home].
And whenever {p} thought of it afterwards, {he} [grew red to the ears|sighed|shook {his} head at {his} own folly|could not help blushing].""".split("\n")
WORDS = dict(
    sad="[sad|unhappy|sorrowful|heavy-hearted]", glad="[glad|happy|merry|full of joy|contented]", cried="[cried|called|shouted|exclaimed]", ans=
        "[said|answered|replied]",
    soon="[soon|before long|by and by|after a little while|presently]", nextday="[the next day|the next morning|on the following day|early the next "
        "morning|a day later]",
    longtime="[a long time|a long while|many hours|hour after hour]", good="[kind|good|gentle|friendly]", thanks="[thanked {her} with all {his} "
        "heart|thanked {her} again and again|did not know how to thank {her}|could hardly speak for joy]",
    atlast="[at last|in the end|at length|finally]", roads="[over hill and dale|through woods and fields|along dusty roads|from village to village|over "
        "stony paths]", asked="[asked|said]")


def table(text):
    return [row.split("|") for row in text.strip().split("\n")]


CAST = [dict(noun=n, genders=g, classes=["person", *c.split()], adjectives=a.split(","), home=h, work=w, doings=d.split(";") * 2 + (STEPS[:1] + STEPS[4:] if
    "royal" in c or "rich" in c else STEPS), went="walked", going="walking",
             food="bread and cheese", names=NAMES) for n, g, c, a, h, w, d in table(PEOPLE)]
CAST += [dict(noun=n, genders=g, classes=["animal", *c.split()], adjectives=a.split(","), home=h, work=None, doings=AIR if "bird" in c.split() else GROUND,
              went=m.split(",")[0], going=m.split(",")[1], food=f, names=PETS) for n, g, c, a, h, m, f in table(ANIMALS)]
PLOTS = []


def plot(function):
    PLOTS.append(function)
    return function


def capital(text):
    return text[:1].upper() + text[1:]


class Tale:
    def __init__(self, rng):
        self.rng, self.words, self.known, self.moment = rng, dict(WORDS), set(), False
        self.season, self.length = rng.choice(list(SEASONS)), rng.choice([0.2, 0.5, 0.9])

    def pick(self, options):
        return self.rng.choice(options.split(";") if isinstance(options, str) else options)

    def cast(self, wanted, but=(), gender=None):
        """A character of one of the wanted classes (or nouns); `mid+wood` wants both."""
        def fits(c):
            return any(all((w[1:] not in (c["noun"], *c["classes"])) if w[0] == "!" else w in (c["noun"].replace(" ", "_"), *c["classes"]) for w in one.split(
                "+"))
                       for one in wanted.split())
        found = [c for c in CAST if fits(c) and c["noun"] not in but and (gender is None or gender in c["genders"])]
        c = dict(self.pick(found))
        c["gender"] = gender or self.pick(list(c["genders"]))
        c["adjective"] = self.pick(c["adjectives"]) if self.rng.random() < 0.75 else ""
        if c["noun"].startswith("old ") and c["adjective"] in ("old", "young"):
            c["adjective"] = ""
        return c

    def hero(self, wanted, trait="plain", adjective=None):
        self.p = p = self.cast(wanted)
        if adjective is not None:
            p["adjective"] = adjective
        self.trait = self.pick(TRAITS[trait])
        p["name"] = self.pick(p["names"][p["gender"]]) if self.rng.random() < 0.35 else ""
        self.words.update(zip(("he", "him", "his", "himself"), SINGULAR[p["gender"]]), home=p["home"], went=p["went"], going=p["going"], food=p["food"],
                          season=self.season, trait=self.trait)
        self.person = "person" in p["classes"]
        if self.season == "winter" and p["noun"] in ("frog", "turtle", "snail", "ant", "hedgehog", "bear", "badger", "stork", "lark", "nightingale"):
            self.season = "spring"

    def second(self, wanted, key="q"):
        """The second character, of the other gender; `key` others are only named."""
        used = [self.p["noun"]] + [c["noun"] for c in (getattr(self, k, None) for k in "qrs") if c]
        if key == "q":
            self.q = self.cast(wanted, used, "f" if self.p["gender"] == "m" else "m")
            self.words.update(zip(("she", "her", "hers", "herself"), SINGULAR[self.q["gender"]]), qwent=self.q["went"], qhome=self.q["home"])
        else:
            setattr(self, key, self.cast(wanted, used))

    def set(self, **words):
        for key, options in words.items():
            self.words[key] = self.pick(options)

    def a(self, c, full=True):
        return f"a {c['adjective']} {c['noun']}".replace("  ", " ") if full else f"a {c['noun']}"

    def slot(self, key):
        p = self.p
        if key == "p":
            if p["name"] and self.rng.random() < 0.65:
                return p["name"]
            return f"the {p['adjective']} {p['noun']}" if p["adjective"] and self.rng.random() < 0.25 else f"the {p['noun']}"
        if key == "noun":
            return p["noun"]
        if key == "ap":
            return self.a(p) + (self.pick([" called ", " named ", " by the name of ", " called "]) + p["name"] if p["name"] else "")
        if key in "qrs":
            c = getattr(self, key)
            return f"the {c['adjective']} {c['noun']}" if c["adjective"] and self.rng.random() < 0.3 else f"the {c['noun']}"
        if key in ("a_p", "a_q"):
            return "a " + getattr(self, key[2])["noun"]
        if key in ("aq", "ar", "as"):  # introduced once, known ever after
            c = getattr(self, key[1])
            first, _ = key not in self.known, self.known.add(key)
            return self.a(c) if first else "the " + c["noun"]
        if key in ("athing", "agift"):
            first, _ = key not in self.known, self.known.add(key)
            return ("a " if first else "the ") + self.words[key[1:]]
        if key == "oneday":
            if self.moment:
                return self.say("[that same day|not long after that|before long|a little while later|later that day|soon after that]")
            s = self.season
            return self.say(f"[one day|one {s} day|one morning|one {s} morning|it so happened that|now one day|one fine day|it happened one day that|one {s} "
                f"afternoon|one evening]")
        return self.words[key]

    def say(self, template):
        """Choose the wordings, innermost first, then fill the slots from left to right."""
        if "{" not in template and "[" not in template:
            return template
        while "[" in template:
            template = re.sub(r"\[([^\[\]]*)\]", lambda m: self.rng.choice(m[1].split("|")), template)

        for pronoun, noun in (("he", "p"), ("she", "q")):  # the hero is named often, so that nobody forgets who it is
            template = re.sub(r"\{%s\} " % pronoun.capitalize(), lambda m: "{%s} " % noun.upper() if self.rng.random() < 0.4 else m[0], template)
            template = re.sub(r'" \{%s\} said\b' % pronoun, lambda m: '" said {%s}' % noun if self.rng.random() < 0.5 else m[0], template)
        template = re.sub(r"said (\{[pq]\})\.", lambda m: m[0] if self.rng.random() < 0.55 else f"said {m[1]} {self.pick(SAYING)}.", template)

        template = re.sub(r'"([^"]{8,60}),"(?= said \{q\})', lambda m: f'"{m[1]}, {self.address()},"' if self.rng.random() < 0.45 and not re.search(
            "friend|little|good|my ", m[1]) else m[0], template)

        def fill(m):
            text = self.say(self.slot(m[1].lower()))
            return capital(text) if m[1][0].isupper() else text
        return re.sub(r"\{(\w+)\}", fill, template)

    def address(self):
        """How the second character calls the hero."""
        p = self.p
        if not self.person:
            return self.pick([f"little {p['noun']}" if "small" in p["classes"] else f"friend {p['noun']}", p["noun"]])
        if "royal" in p["classes"] or p["noun"] in ("lord", "mayor", "merchant"):
            return "my lord" if p["gender"] == "m" else "my lady"
        if "child" in p["classes"]:
            return self.pick(["my child", "child", "little one"] + [p["noun"]] * (p["noun"] in ("boy", "girl", "goatherd")))
        return self.pick(["good man" if p["gender"] == "m" else "good woman", "friend"] if " " in p["noun"] or p["noun"] == "widow" else [p["noun"], "good " +
            p["noun"], "friend"])

    def maybe(self, template, chance=0.5):
        return self.say(template) if self.rng.random() < chance * self.length else ""

    def scene(self, chance=0.6):
        """What lies by the road."""
        return self.maybe(self.pick([f"The [road|way|path] [led|went|ran] past {self.pick(PAST)}, over {self.pick(OVER)} and through {self.pick(THROUGH)}.",
            f"{{P}} passed {self.pick(PAST)} and {self.pick(PAST[::-1][:7])}, and then came {self.pick(OVER)}.",
                                     f"{{He}} went over {self.pick(OVER)} and through {self.pick(THROUGH)}, until {{he}} saw {self.pick(PAST)}.", f"First "
                                         f"came {self.pick(PAST)}, then {self.pick(THROUGH)}, and {{p}} looked about with wide eyes.",
                                     f"Beyond {self.pick(PAST)} the [road|path] turned, and {{p}} went on through {self.pick(THROUGH)}."]), chance)

    def sky(self, chance=0.5):
        """What the night is like."""
        near = self.pick([n for n in NEAR if self.p["noun"] not in n and "fox" not in n])
        return self.maybe(self.pick([f"{capital(self.pick(SKY))}, and [somewhere|far away|not far off] {near}.", f"[Somewhere|Far away|In the distance] "
            f"{near}, and {self.pick(SKY)}.", f"It was quiet, only [somewhere|now and then|far away] {near}."]), chance)

    def looks(self, chance=0.3):
        if self.person and self.p["noun"] not in ("fairy", "giant", "elf"):
            return self.maybe(f" {{He}} [wore|always wore|went about in] {self.pick(WORN).format(c=self.pick(COLOURS))} and {self.pick(WITH)}.", chance)
        return self.maybe(f" {{He}} had {self.pick(EYES)} eyes and {self.pick(MARKS)}.", chance)

    def open(self, own=(), pair=()):
        """The first sentences. `own` are this plot's openings, `pair` those that bring in the second character; a * marks one that sets a moment."""
        draw = self.rng.random()
        self.own = bool(own) and draw < 0.22
        if self.own:
            text = self.pick(own)
        elif pair and draw < 0.45:
            text = self.pick(pair)
        else:
            text = self.general()
        self.moment = text.startswith("*")
        text = self.say(text.lstrip("*"))
        if not self.own and not self.known:
            text += self.looks()
        if "~" in text:
            return text.replace("~", "")
        return text + self.maybe(" {He} {trait}." if not self.moment else " [Now {p}|This {noun}|{P}] {trait}.", 0.25 if self.moment else 0.5) if "{trait}" not in text else text

    def general(self):
        p, s, rng = self.p, self.season, self.rng
        doing = self.pick(p["doings"])
        where = self.pick(PLACES if self.person else WILDS)
        line = self.pick(SEASONS[s])
        one = p["name"] + self.pick([" the ", " the ", ", the "]) + p["noun"] if p["name"] else "the " + p["noun"]
        if ", the" in one:
            one += ","
        lived = "[lived|there lived|dwelt|there once lived]"
        exist = "[Once upon a time there was|There was once|Once there was|Long ago there was|There once was|Many years ago there was|Once upon a time there lived|Long, long ago there lived|There lived once" \
                "|In the old days there was|A long time ago there was]"
        shapes = [
            exist + " {ap} who {trait}.~", "[Once upon a time there was|There was once|Once there was|Long ago there was|Many years ago there was] {ap} who "
                "lived {home}.", exist + " {ap}.", exist + " {ap}, and {he} {trait}.~", exist + f" {{ap}} in {where}.",
            f"There [lived|once lived|lived long ago] in {where} {{ap}}.", f"In {where} {lived} {{ap}} who {{trait}}.~", f"[Long ago|Many years "
                f"ago|Once|Long, long ago|In the old days], in {where}, [there lived|lived|there was] {{ap}}.",
            f"Far away, in {where}, [lived|there lived] {{ap}}.", f"Far away, [beyond seven hills|beyond the blue mountains|on the other side of the "
                f"sea|where the sun goes down], [in {where}, |]there lived {{ap}}.",
            capital(p["home"]) + f" {lived} {{ap}}.", capital(p["home"]) + f" {lived} {{ap}} who {{trait}}.~", f"*{line}, and {{ap}} {doing}.", f"*{line}. "
                f"{capital(one)} {doing}.",
            f"*{capital(one)} {doing}.", f"*{capital(one)} {doing}.", f"*{capital(one)} {doing}, for [it was still early|there was nothing else to do|the "
                f"day was long|{{he}} was in no hurry].",
            f"*Early one {s} morning {{ap}} {doing}.", f"*One {s} day {{ap}} {doing}.", f"*[One evening|One morning|One day|Late one afternoon|On a {s} "
                f"morning|On a quiet {s} day] {{ap}} {doing}.",
            f"*\"[What a day|What a fine day|How quiet it is today|How good it is to be alive|Another day]!\" said {one}{'' if one.endswith(',') else ','} "
                f"who {doing.replace('woke', 'had woken')}." if doing.startswith(("was", "sat", "woke", "lay")) else f"*{capital(one)} {doing}.",
            f"[Nobody|No one] in {where} [was better known than|was as well known as] {{ap}} who {{trait}}.~", f"[They tell|People tell|The old people tell] "
                f"[a story|a tale] in {where} about {{ap}}. {{He}} {{trait}}.~",
            f"[This is the story of|This is a tale of|I will tell you about|You shall hear about|Here is the story of] {{ap}} who {{trait}}.~", f"In the "
                f"days when [animals could talk|kings still wore crowns|the world was young|your grandmother's grandmother was a child], [there lived|there "
                f"was] {{ap}}.",
            f"[Every day|Every morning|Each day] {one} {p['work']}." if p["work"] and not p["work"].startswith(("had", "knew", "owned", "drove the geese to "
                "the meadow every", "milked")) else f"{exist} {{ap}} in {where}.",
            f"{{Ap}} [once lived|lived|had {{his}} home] {p['home']}.", f"{{Ap}} [once lived|lived] in {where}.", f"{{Ap}} {{trait}}.~", f"The {p['noun']} "
                f"who lived {p['home']} {{trait}}.~",
            f"{{Ap}} [and {{his}} old mother lived|lived all alone] {p['home']}." if "mother" not in p["home"] and not {"royal", "old", "magic"} & set(p[
                "classes"]) and p["adjective"] != "old" and self.person else exist + " {ap}."]
        if p["name"]:
            shapes += [f"{p['name']} was {self.a(p)} who lived {p['home']}.", f"{p['name']} was {self.a(p)}, and {{he}} {{trait}}.~", f"{p['name']} "
                f"[lived|had always lived] {p['home']}. {{He}} was {self.a(p)}.",
                       f"{self.pick(['Everybody', 'Everyone'])} in {where} knew {p['name']}, {self.a(p)} who {{trait}}.~", f"*{p['name']}, {self.a(p)}, "
                           f"{doing}."] * 2
        elif rng.random() < 0.4:
            return f"*The {p['noun']} {doing}."
        if {"child", "young"} & set(p["classes"]) and rng.random() < 0.3:
            return self.siblings()
        return self.pick(shapes)

    def siblings(self):
        p, male = self.p, self.p["gender"] == "m"
        if not p["name"]:
            p["name"] = self.pick(p["names"][p["gender"]])
        if self.person:
            parent = "[king|queen]" if p["noun"] in ("prince", "princess") else "[farmer|poor widow|woodcutter|miller|shoemaker|shepherd|weaver|fisherman|poor man|carpenter|smith]"
            word = "son" if male else "daughter"
            p["noun"] = p["noun"] if "royal" in p["classes"] else "boy" if male else "girl"
        else:
            parent, word = {"duckling": "duck", "chick": "hen", "kitten": "cat", "puppy": "dog", "lamb": "sheep"}[p["noun"]], p["noun"]
            parent = f"[{parent}|{self.pick(['white', 'brown', 'black', 'grey'])} {parent}]"
        n = self.pick("two three four five seven".split())
        rest = "other" if n == "two" else "others"
        last = ("younger" if n == "two" else "youngest")
        p["adjective"] = ""
        s = f"{word}s"
        return self.pick([
            f"[Once there was a|There lived once a|There was a|Long ago there was a] {parent} who had {n} {s}, and the {last} was called {p['name']}. The "
                f"{rest} [went out into the world|were idle|thought only of themselves], but {p['name']} {{trait}}.~",
            f"[Once a|A] {parent} had {n} {s}. The {last}, {p['name']}, {{trait}}, and it is {{his}} story that I will tell.~",
            f"{p['name']} was the {last} of {n} {s} of a {parent}. {{He}} {{trait}}.~",
            f"Of the {n} {s} of a certain {parent}, the {last} was the [best|smallest|merriest]. {{His}} name was {p['name']}, and {{he}} {{trait}}.~"])

    def end(self, kind, morals="", chance=0.3):
        last = self.say(self.pick(GOOD if kind == "good" else BAD))
        return last + (" " + self.say(self.pick(morals)) if morals and self.rng.random() < chance else "")


NEIGHBOURS = ["{Ap} and {aq} [lived side by side|were neighbours|had been friends for years|shared one well]. {P} {trait}.~",
              "[Once upon a time|Long ago|Once], {ap} and {aq} [were good friends|lived close together|were neighbours].", "*{Ap} and {aq} [sat together in "
                  "the sun|were talking over the fence|were sharing their supper].",
              "{Ap} and {aq} had been friends [since they were young|for as long as anyone could remember].", "There [lived once|were once] {ap} and {aq} "
                  "who [were the best of friends|did everything together|could not do without each other]."]


@plot
def lost_thing(t):
    t.hero("animal+!wild person+!royal+!rich+!big")
    t.second("person+!big+!royal" if t.person else "animal+!hunter+!wild+!vain")
    t.set(thing=TREASURES if t.person else TRINKETS, meal=FOODS if t.person else ["everything there was"],
          where="under the old willow;beside the spring;in the ditch by the road;in the long grass by the gate;under the bridge;between the roots of the big "
              "oak", giver="grandmother;mother;oldest friend;father;godmother" if t.person else "mother;grandmother;best friend")
    one, two = t.rng.sample("the miller;the baker;the smith;the priest;the goose girl;the ferryman".split(";") if t.person else "the mole;the snail;the "
        "blackbird;the old toad;the beetle;the wren".split(";"), 2)
    if t.p["noun"] in one + two or t.q["noun"] in one + two:
        one, two = ("the sexton", "the milkman") if t.person else ("the woodpecker", "the bee")
    t.words.update(one=one, two=two)
    loved = "[that {his} {giver} had given {him}|, and {he} loved it more than anything else|, which {he} looked at every evening|, and {he} would not have sold it for a kingdom|that {he} had found one lucky day|, which {he} showed to all {his} friends]"
    beats = [t.open([f"{{Ap}} had {{athing}} {loved}.~", f"There was once {{ap}} who had {{athing}} {loved}.~", "*\"I have lost my {thing}!\" {cried} {p}, "
        "who was the {noun} that lived " + t.p["home"] + ".~" if not t.p["name"] else f"{{Ap}} owned {{athing}}.~",
                     f"{{P}} owned [only one treasure|one thing of beauty]. It was {{athing}} {loved}.~", "When {p} [came home one evening|woke up one "
                         "morning], [{his} {thing} was gone|{he} could not find {his} {thing}].~"]),]
    if "athing" in t.known or "{thing}" in beats[0] or t.words["thing"] in beats[0]:
        t.known.add("athing")
    else:
        beats.append(t.say(f"[Of all {{his}} things {{he}} loved best|The best thing {{he}} owned was|{{He}} had one treasure,|{{P}} owned] {{athing}} "
            f"{loved}."))
        t.known.add("athing")
    if "gone" not in beats[0] and "could not find" not in beats[0] and "have lost" not in beats[0]:
        beats.append(t.say("[{Oneday} {p} looked for it, but it was not in its place|{Oneday} {p} wanted to look at it, and it was gone|{Oneday} the {thing} "
            "was nowhere to be found|But {oneday} {p} came home and saw that the {thing} was missing]."))
    beats += [
        t.say("[{He} looked under the bed and behind the door|{He} turned over every stone and every leaf|{He} searched from top to bottom|{P} searched the "
            "whole day, and in the evening {he} began again], but [in vain|there was no {thing}|{he} found only dust and dead leaves|it was not there]."
              if t.person else "[{He} looked under every leaf|{He} turned over every stone|{P} searched the whole day|{He} crept through the bushes and "
                  "looked into every hole], but [in vain|there was no {thing}|{he} found only dust and dead leaves|it was not there]."),
        t.maybe("[{P} sat down and wept|Tears ran down {his} face|{He} was so {sad} that {he} could not eat|\"What shall I do now?\" said {p}]."),
        t.say("[Then {he} went to {one}|First {p} asked {one}]. \"[Have you seen my {thing}|Do you know where my {thing} is]?\" [said {p}|{he} asked]. \"[I "
            "have seen nothing|I have had my eyes on my work|"
              "I have seen no sign of it|No, and I am sorry],\" said {one}, \"[but ask {two}|but {two} may know|but go to {two}, who sees everything].\""),
        t.maybe("[But {two} only said no|But {two} knew nothing either|{Two} had not seen it either|But {two} was asleep and did not hear the question].", 0.7),
        t.say("[Then {p} met {aq}|On the way home {p} came upon {aq}|{Atlast} {aq} came along|Just then {aq} came round the corner]. \"[Why are you so "
            "sad|What is the matter|What are you looking for]?\" {asked} {q}, and {p} told {her} [everything|the whole story|about the {thing}]."),
        t.pick([t.say("\"[A thing like that lies|I saw something shine] {where}!\" {cried} {q}. \"Come with me.\" [They went there together|{Q} led the "
            "way|{Q} ran ahead], and [there lay the {thing}|there indeed was the {thing}], [half covered with leaves|wet with dew|none the worse for it]."),
                t.say("{Q} [thought for a moment|smiled]. \"[This morning I found something on the road|I picked something up by the stream],\" {she} said, "
                    "\"[and I have kept it safe|and I have been asking everyone whose it is].\" And {she} [held out|brought out|laid before {him}] the "
                    "{thing}."),
                t.say("\"The magpie [loves all that shines|takes whatever glitters|has sharp eyes and quick claws],\" said {q}. They went to the [tall "
                    "poplar|old pine|highest elm], and {q} [called|knocked on the trunk] until the magpie [looked out|put out her head]. \"[Give back what "
                    "is not yours|That is not yours]!\" [said|called] {q}. The magpie was ashamed, and she let the {thing} fall at {p}'s feet."),
                t.say("\"[When did you have it last|Where were you when you last had it]?\" asked {q}. \"[I was asleep by the haystack|I was sitting by the "
                    "brook],\" said {p}. \"[Then let us look there|Then that is where we must look],\" said {q}. And so they did, and {she} [lifted a "
                    "stone|parted the grass|bent down], and there was the {thing}.")]),
        t.say("{P} {thanks}. [\"You must have supper with me,\" {he} said, and they shared {meal} between them|{He} gave {her} half of all {he} had to "
            "eat|The two of them danced for joy in the road|\"Ask me for help whenever you need it,\" {he} said, \"and I will come\"]."),
        t.end("good", ["A good friend is worth more than a {thing}.", "What is lost is [often|sometimes] nearer than we think.", "Whoever asks will find.",
            "[And ever after|And from then on] {p} and {q} were friends."], 0.45)]
    return beats


@plot
def animal_repays(t):
    t.hero("person+!rich+!big", "kind")
    t.second("fox hare hedgehog squirrel badger mouse owl crow swan heron stork otter deer")
    t.set(trap="a hunter's snare;a trap of iron;a thorn bush;an old net;a deep hole;a crack in the ice" if t.season == "winter" else "a hunter's snare;a "
        "trap of iron;a thorn bush;an old net;a deep hole;a tangle of rope",
          lostitem="ring;bag of coins;little key;silver pin", searched="searched until dark;looked for it for three days;went over the ground on {his} knees")
    bird = "bird" in t.q["classes"]
    t.words.update(flew="flew" if bird else "ran", mouth="beak" if bird else "mouth", qn=t.q["noun"])
    repay = t.pick([
        ["[Some time later|A year later|Not many weeks after that] {p} [lost {his} way in the forest|was caught in a great fog on the moor]. [Night fell, "
            "and {he} could not see {his} hand before {his} face|It grew dark, and there was no path to be seen].",
         "[Then something stirred beside {him}|Then {he} heard a small voice|All at once something touched {his} hand]. It was {q}. \"[Follow me|Do not be "
             "afraid|Now it is my turn],\" said {q}, [and {she} went ahead and waited at every turning|and {she} led {him} step by step through the dark], "
             "until {p} saw [the lights of home|{his} own door|a road that {he} knew]."],
        ["[Some time later|A year later|Not many weeks after that] {p} [lost {his} {lostitem} in the deep grass|let {his} {lostitem} fall down a hole]. It "
            "was [all that {he} had|a thing {he} could not do without], and {he} {searched}, but could not find it.",
         "[Then {q} came|Then {she} stood before {him} again, the same {qn}|In the night there was a scratching at the door, and it was {q}], and [in {hers} "
             "{mouth} lay|{she} laid at {his} feet] the {lostitem}. \"[One good turn deserves another|I have not forgotten you|You helped me, and now I have "
             "helped you],\" said {q}."],
        ["[Some time later|A year later|One night not long after] [robbers came|three thieves crept|two wicked men came] [to the house where {p} lay "
            "asleep|while {p} was sleeping].",
         "But {q} [had seen them|was awake]. {She} [{flew} to the window and knocked and knocked|made such a noise that nobody could sleep], and {p} [jumped "
             "up|sprang out of bed] and [{cried} for help|rang the great bell]. The robbers [ran off as fast as they could|fled and never came back]. \"[Now "
             "we are even|I promised you|One kindness calls for another],\" said {q}."],
        ["[That winter|The next year|Some time later] {p} [fell ill|lay sick in bed] [and had nothing to eat in the house|and there was nobody to bring "
            "{him} food].",
         "[But one morning|Then one day] there lay [nuts and berries|apples and mushrooms|a heap of ripe berries] on the doorstep, and [every morning after "
             "that there were more|the next morning there were more]. {P} [looked out|opened the door a little way], and who was it but {q}! {She} [went on "
             "bringing food|did not stop] until {he} was [well|strong] again."]])
    return [
        t.open(["One day {p} found {aq} in {trap}.~", "*{Ap} was walking through the wood and heard something [cry|whimper|call] for help. It was {aq}, "
            "caught in {trap}.~", "*\"Help me!\" {cried} a small voice. {P} stopped and looked about. There was {aq}, caught in {trap}.~",
                "*{Ap} [was on {his} way to market|was coming home from market] when {he} saw {aq} in {trap}.~", "*{Aq} was once caught in {trap}, and "
                    "nobody came by but {ap} who {trait}.~"]),
        "" if "aq" in t.known else t.say("{Oneday} {he} [was walking in the forest|came through the wood|walked along the stream] and [heard a cry|heard "
            "something moan|saw the leaves move]. [It was|There was] {aq}, caught in {trap}."),
        t.say("\"[Please|Oh, please|Good friend|I beg you], [help me|set me free|let me out],\" [begged|said|{cried}] {q}, \"[or I shall die|and one day I "
            "will repay you|and I will never forget it|for I have little ones at home]!\""),
        t.maybe("[Some people would have laughed|Another would have gone by|It would have made a good dinner], but {p} [was sorry for {her}|had a soft "
            "heart|did not think of that].", 0.5),
        t.say("[{P} did not think long|At once {p} knelt down|{P} put down what {he} was carrying], and with [much trouble|careful hands|great patience] "
            "{he} [set {q} free|got {q} out]. [{He} washed the sore foot with cool water|{He} gave {her} a drink and a bit of bread|{He} stroked {her} "
            "gently] and [let {her} go|said, \"Run home now\"|wished {her} good luck]." if not bird else
              "[{P} did not think long|At once {p} knelt down|{P} put down what {he} was carrying], and with [much trouble|careful hands|great patience] "
                  "{he} [set {q} free|got {q} out]. [{He} smoothed the torn feathers|{He} gave {her} a drink and a few crumbs] and [let {her} fly|opened "
                  "{his} hands|wished {her} good luck]."),
        t.maybe("\"[I will not forget this|You will see me again|Call me when you are in need],\" said {q}, and {she} {flew} [away|off among the trees].", 0.8),
        t.say(repay[0]), t.say(repay[1]),
        t.say("[{P} was amazed|{P} could hardly believe it|\"Who would have thought it!\" said {p}|{P} thanked {her} with all {his} heart]. [From then on "
            "there was always a bowl of food before {his} door for {q}|After that the two were friends for life|And from that day on {q} came to see {him} "
            "every evening|And {he} never forgot what {q} had done]."),
        t.end("good", ["A kindness is never lost.", "Whoever helps the weak will be helped in turn.", "Even a small friend may be a great help.", "So one "
            "good deed brings another."], 0.4)]


@plot
def three_tasks(t):
    t.hero("boy girl shepherd tailor goatherd fiddler student orphan soldier person+hunter gardener prince princess milkmaid miller's_daughter tailor's_son "
        "shoemaker goose_girl", "brave")
    t.second("old_man old_woman witch dwarf elf fairy pedlar widow")
    t.set(ruler="king;queen;old king;young queen;proud king;emperor", reward="half the kingdom;a chest of gold;a house with a garden and enough to live "
        "on;whatever the heart desired;a white horse and a purse that was never empty;the castle by the lake")
    tasks = t.rng.sample([
        ("sort a sack of [peas and lentils|poppy seeds and sand] before morning", "[a thousand ants came out of the earth and sorted them grain by grain|all "
            "the mice of the castle came and sorted them in an hour|the doves flew in at the window and picked them apart]"),
        ("bring back a ring from the bottom of the lake", "[a fish came up with the ring in its mouth|the ducks dived down and brought up the ring|a frog "
            "swam up and spat out the ring]"),
        ("fetch a golden feather from the top of the glass mountain", "[an eagle let fall a feather that shone like gold|a crow flew up and came back with "
            "the feather|the wind itself blew the feather down]"),
        ("empty the castle pond with a spoon", "[a stork and all his brothers drank it dry|a mole dug a ditch, and the water ran away|the sun grew so hot "
            "that the pond dried up]"),
        ("keep a hundred hares together for a whole day", "[one note on a little pipe brought every hare back|the hares followed a song as lambs follow "
            "their mother]"),
        ("make the sad little princess laugh", "[a goose that danced on one leg made her laugh till she cried|a fall into the soup did what no jester could "
            "do]"),
        ("bring a bowl of water from the well at the end of the world", "[a swallow carried it drop by drop|a cloud let it rain into the bowl]"),
        ("catch the horse that no man could ride", "[a handful of salt and a kind word made the horse as tame as a lamb|a soft song made the horse stand "
            "still]"),
        ("guard the apple tree on which the golden apples grew for one night", "[a hedgehog sat at the root and pricked the thief|an owl called out when the "
            "thief came near]"),
        ("build a bridge across the river in a single night", "[the beavers came and built until sunrise|the old willow lay down across the water]")], 3)
    n = t.rng.choice([2, 3, 3])
    t.set(n=[["two"], ["three"]][n - 2], land="that country;a far country;the north;the islands")
    helped = t.pick(["gave {her} half of {his} bread", "carried {hers} bundle up the hill", "helped {her} over the stream", "shared {his} last apple with "
        "{her}", "pulled a thorn out of {hers} foot"])
    sentences = []
    for i in range(n):
        task, luck = tasks[i]
        sentences.append(t.say([
            f"[The first task was to {task}|First {{p}} had to {task}|\"First,\" said the {{ruler}}, \"you must {task}\"].",
            f"[The second task was to {task}|Next {{p}} had to {task}|\"That was nothing,\" said the {{ruler}}. \"Now you must {task}\"].",
            f"[The third task was the hardest. {{P}} had to {task}|Last of all {{p}} had to {task}|\"One thing more,\" said the {{ruler}}. \"You must "
                f"{task}\"]."][i])
            + " " + t.say([f"[{{He}} did not know how to begin, but then {{he}} called three times, and|{{He}} remembered the words of {{q}} and called, "
                f"and|{{P}} [sat down and thought|sighed], and then {{he}} called, and] {luck}.",
                           f"[{{P}} called as before, and|{{He}} called a second time, and|{{P}} was not afraid any more. {{He}} called, and] {luck}.",
                           f"[{{P}} called once more, and|For the last time {{he}} called, and|Everyone thought that {{he}} would fail, but {{he}} called "
                               f"again, and] {luck}."][i]))
    return [
        t.open(["The {ruler} of {land} [let it be known|had it cried in every street] that whoever could do {n} hard things should have {reward}. This was "
            "heard by {ap} who {trait}.~",
                "*\"Whoever can do {n} hard things shall have {reward},\" said the {ruler} of {land}. {Ap} stood in the crowd and heard it.~"]),
        "" if t.own else t.say("{Oneday} {p} heard that the {ruler} of {land} [had set|was setting] {n} tasks, and that whoever did them should have "
            "{reward}."),
        t.say("\"[I will try my luck,|Why should I not try?|Who dares nothing wins nothing,|I have nothing to lose,|I am not afraid of hard work,]\" said "
            "{p}, and [set out|went on {his} way|started for the castle]."),
        t.scene(),
        t.say("On the way {he} met {aq} [who was tired and hungry|who sat by the road and sighed|who could go no farther], and {he} " + helped + ". \"[You "
            "have a good heart|That was kindly done|I thank you],\" said {q}. \"[When you are in need, call out, and help will come|Whenever you do not know "
            "what to do, call three times|Call if you need help, and you will not call in vain].\""),
        *sentences,
        t.say("[The {ruler} was astonished.|The {ruler} could hardly believe it.|The whole court wondered.|Then the trumpets were blown.] [{P} was given "
            "{reward}|The promise was kept, and {p} received {reward}|So {p} won {reward}]."),
        t.maybe("[{P} sent for {q}, and {she} had a place by the fire for the rest of {hers} days|But {he} did not forget {q}, and gave {her} a warm coat "
            "and a full purse|The first thing {he} did was to look for {q} and thank {her}].", 0.7),
        t.end("good", ["A kind word by the road is worth more than gold in the pocket.", "Whoever helps others will never stand alone."], 0.25)]


@plot
def boaster(t):
    t.hero("animal+!young+!magic giant tailor smith innkeeper fiddler", "boast")
    t.second("animal+small+!young+!climb+!bird" if not t.person else "old+person child")
    t.season = t.pick("spring;summer;autumn")
    t.words["qn"] = t.q["noun"]
    contest = t.pick(
        [("run faster than the wind", "a race to the old oak", "[ran so fast that {he} did not see the ditch, and fell in head first|was so sure of winning "
            "that {he} lay down for a nap half way and slept till evening|looked back to laugh and ran into a tree]", "[went on step by step without "
            "stopping|kept to the path and did not look round]", "was the first at the oak"),
         ("jump farther than anyone", "a jump over the brook", "[took a great leap, slipped in the mud and landed in the water|shut {his} eyes, leapt, and "
             "came down in the middle of the brook]", "[went to the narrowest place|looked for the stones under the water]", "crossed with dry feet"),
         ("sing more beautifully than anyone", "a song before all the others", "[began so loudly that {his} voice broke|sang so long that everybody fell "
             "asleep]", "[sang one short sweet song|sang softly, from the heart]", "had all the praise")][2 * ("bird" in t.p["classes"]):] if not t.person
             else
        [("lift anything in the world", "a trial with a sack of feathers", "[laughed so much at the light sack that {he} fell over it|threw it so high that "
            "it burst and covered {him} with feathers]", "[took the sack up gently|asked for the door to be opened first]", "carried it away with ease"),
         ("solve any riddle", "three riddles before the whole village", "[answered before {he} had heard the end, and was wrong each time|talked so long "
             "that {he} forgot the question]", "[thought quietly for a while|listened to the end]", "knew all three"),
         ("catch a fish with bare hands", "a day's fishing at the river", "[made such a noise that every fish swam away|leaned over too far and fell into "
             "the river]", "[sat as still as a stone|waited without a word]", "caught one before noon")])
    able, trial, fail, steady, wins = contest
    return [
        t.open([f"*\"I can {able}!\" {{cried}} {{p}} one morning[, so that all could hear|]. Nobody answered but {{aq}}.~" if not t.p["name"] else f"{{Ap}} "
            f"used to say that {{he}} could {able}.~",
                f"{{Ap}} told everyone that {{he}} could {able}.~", f"There was once {{ap}} who [swore|said every day] that {{he}} could {able}.~"],
               ["*{Ap} met {aq} [at the spring|on the path|beside the pond|under a tree|by the gate].", "{Ap} [was always laughing at|used to make fun of] "
                   "{aq}.", "Once upon a time {ap} and {aq} lived in the same [valley|village]." if t.person else "Once upon a time {ap} and {aq} lived in "
                   "the same [wood|valley]."]),
        t.say(f"\"[Look at me!|There is nobody like me!|Who can compare with me?]\" {{he}} [used to say|would say]. \"[I can|I tell you, I can|I, {{a_p}}, "
            f"can] {able}.\"") if not t.moment else t.say(f"\"[Look at me|There is nobody like me]!\" {{he}} {{cried}}. \"[I can|I tell you, I can|I, "
            f"{{a_p}}, can] {able}.\""),
        t.maybe("[The others were tired of hearing it|Everybody smiled and said nothing|The others turned away and went on with their work].", 0.5),
        t.say("[{Oneday} {aq} said|{Oneday} {aq} came up to {him} and said|But {oneday} {aq} answered quietly], \"[Words are cheap|I should like to see "
            "it|That may be, and it may not be]. [Will you try|What do you say to|How would you like|Are you ready for] " + trial + "[, you and I|]?\""),
        t.say("{P} [laughed until {his} sides hurt|laughed out loud|could hardly speak for laughing|looked {q} up and down and laughed]. \"[With you|Against "
            "you]?\" {he} said. \"[Very well, if you want to be laughed at|That will be the joke of the year|I will do it with one eye shut|{A_q} against "
            "{a_p}, that is a good joke|Why not, if you like|I shall win before you have begun|Let it be tomorrow, then].\""),
        t.say("[{Nextday} everyone came to watch|{Nextday} they all came together|All the neighbours came to see it|A great crowd gathered]."),
        t.say(f"{{P}} {fail}."),
        t.say(f"[But {{q}}|{{Q}}, however,|Meanwhile {{q}}] {steady}, and {{she}} {wins}."),
        t.say("[How everybody laughed|How they all clapped and cheered for {q}|The others laughed till the tears came|How they shouted for {q}|How they "
            "laughed at {p}]! {P} [hung {his} head|did not know where to look|wished the ground would open]." ),
        t.say("[\"It is nothing,\" said {q} kindly. \"Another day it may be your turn.\"|\"Well begun is not yet won,\" said {q}.|\"Big words fill no "
            "baskets,\" said {q}.|{Q} did not laugh, but gave {him} a friendly nod.]"),
        t.end("bad", ["Those who boast the loudest often do the least.", "Pride comes before a fall.", "Slow and steady is better than quick and careless.",
            "Empty pots make the most noise."], 0.5)]


@plot
def clever_weak(t):
    t.hero("animal+small+!young hen cock duck goose goat lamb", "clever")
    t.second("fox wolf cat" if t.p["gender"] == "f" else "fox cat")
    trick = t.pick([
        ("\"[I am thin and tough today|I am only skin and bone],\" said {p}. \"[But my fat cousin is coming down this road in an hour|But wait another "
            "month, and I shall be twice as fat]. [Would you not rather wait|Is that not worth waiting for]?\"", "{Q} [licked {hers} lips|thought of the "
            "bigger dinner] and [let {him} go|lifted {hers} paw]. At once {p} {off}, and {she} [waited in vain till dark|is waiting still]."),
        ("\"[You may eat me|I am ready],\" said {p}, \"[but first grant me one wish. Let me sing one last song|but everyone knows that a fine animal like "
            "you washes before dinner].\"", "[{Q} saw no harm in that|\"That is only fair,\" said {q}]. {She} [turned away for a moment|shut {hers} eyes to "
            "wait], and {p} {off}."),
        ("\"[There is a round yellow cheese in the well|I know of a bigger dinner than I am],\" said {p}. \"[Come and look, it lies down there in the "
            "water|Look down into the well, and you will see it].\" It was the moon.", "{Q} leaned over [too far|the edge] to see it, and splash, {she} fell "
            "in! [The water was not deep, but it was very cold|It took {her} till morning to climb out], and by then {p} was [far away|safe at home]."),
        ("\"Hush!\" said {p}. \"[Do you not hear the hunter's dogs?|The farmer is standing behind you with his stick!|Is that a hunter behind you?]\"", "{Q} "
            "[spun round|turned {hers} head] in fright, and in that moment {p} {off}. [There was nobody there at all|Behind {her} there was nothing but an "
            "old tree stump]."),
        ("\"[You have come at the right time|How lucky],\" said {p}. \"[I have swallowed some poison berries and was wondering who would bury me|I have been "
            "ill with the spotted fever, and now I need not die alone].\"", "{Q} [dropped {him} as if {he} were a hot coal|jumped back three steps]. \"[Keep "
            "away from me|I am not hungry after all],\" {she} {cried}, and ran. {P} laughed and {off}."),
        ("\"[What a fine voice you must have|They say that nobody can howl as loud as you],\" said {p}. \"[I should like to hear it before I die|Will you "
            "not let me hear it just once]?\"", "{Q} [was flattered|swelled with pride]. {She} opened {hers} mouth wide, and {p} [slipped out between {hers} "
            "teeth|was free], and {off}.")])
    t.words["off"] = "[slipped into a hole between the stones|slipped under a root]" if t.p["going"] == "creeping" else "[flew up on a high branch|flew up on the barn roof]" if "bird" in t.p["classes"] or t.p["noun"] in ("hen", "cock") else \
        "[slipped into a hole between the stones|was gone through a gap in the hedge|ran and hid among the thorns|dived into the bushes]" if "small" in t.p[
            "classes"] else "[ran home and shut the gate|ran to the farm as fast as {his} legs would go]"
    return [
        t.open(["*\"Now I have you!\" {cried} {aq}, and put one paw on {ap}.~", "{Ap} once [fell into the paws of|was caught by] {aq}.~", "*{Aq} was hungry, "
            "and {she} saw {ap}.~"],
               ["*{Ap} met {aq} [at the edge of the wood|on a lonely path|near a spring|in a clearing].", "{Ap} [and {aq} lived in the same wood, but they "
                   "were no friends|lived not far from the home of {aq}]."]),
        t.say("[{Oneday} {aq} came out of the bushes and caught {him}|{Oneday} {p} was looking for {food} when {aq} sprang out and seized {him}|{Oneday} "
            "{aq} crept up behind {p} and caught {him}|{Oneday} {p} went a little too far from home, and {aq} stood before {him}].") if "aq" not in t.known
            else
        t.maybe("[{Q} had eaten nothing since yesterday|{Q} was as hungry as could be|{Q} smiled and showed all {hers} teeth|{Q} stood right in the way].",
            0.9),
        t.say("\"[You are just what I want for dinner|I have been hoping for a bite like you|Good day, my dinner|I am going to eat you up],\" said {q}[, and "
            "{hers} eyes shone|, and {she} licked {hers} lips|]."),
        t.maybe("{P} [trembled in every limb|was terribly frightened|felt {his} heart beat], but {he} [did not show it|kept {his} wits|thought quickly|let "
            "nobody see it].", 0.85),
        t.say(trick[0]), t.say(trick[1]),
        t.maybe("\"[Come back|You have tricked me|You said you would wait]!\" {cried} {q}. \"[Another time, perhaps|Big teeth are good, but a good head is "
            "better|Good night and good appetite],\" {ans} {p}[ from {his} safe place|].", 0.6),
        t.say("[Hungry and angry, {q} went home|{Q} had to go to bed without supper|{Q} never came that way again|And so {p} escaped from {q}|{Q} took care "
            "not to meet {p} again]."),
        t.end("good", ["Wit is better than strength.", "The small must be clever.", "A cool head is worth more than sharp teeth.", "Whoever wants too much "
            "gets nothing."], 0.4)]


@plot
def remedy(t):
    t.hero("child+!orphan young+person animal+young", "brave")
    t.season = t.pick("summer;autumn")
    t.set(who="mother;grandmother;little brother;little sister;father" if t.person and "royal" not in t.p["classes"] else "mother;father;grandmother" if t.
        person else "mother;grandmother;little brother",
          cure="the blue flower that grows on the mountain;water from the singing spring;an apple from the silver tree;honey from the bees of the black "
              "forest;the herb that grows under the old bridge;a feather of the white bird;a drop of dew from the moonlight rose;three berries from the "
              "island in the lake")
    t.words["cureshort"] = re.match(r"(the|a|an|three)? ?(blue flower|water|apple|honey|herb|feather|drop of dew|berries)", t.words["cure"])[2]
    meet = t.rng.sample([("an old man who had lost his spectacles", "looked until {he} found them in the grass", "pointed out the way"), ("a goose with a "
        "lame foot", "bound up the foot with a leaf", "told {him} which path to take"),
                         ("a brook that was choked with leaves", "cleared the leaves away", "ran clear and showed {him} the way"), ("a beetle lying on its "
                             "back", "turned it over with one finger" if t.person else "turned it over gently", "flew ahead to show {him} the way"),
                         ("an apple tree with a heavy load", "shook the tree until the ripe apples fell", "bent its branches towards the right path"), ("a "
                             "crow with a thorn in its foot", "pulled the thorn out", "flew ahead from tree to tree"),
                         ("a little cloud that was caught on a rock", "blew until it was free", "floated along in front of {him}"), ("a wolf caught between "
                             "two stones", "rolled one of the stones away", "took {him} on its back and ran like the wind"),
                         ("an old woman who could not lift her basket", "carried it to her door", "gave {him} a lantern for the dark wood")], 2)
    (a1, d1, r1), (a2, d2, r2) = meet
    n1, n2 = [re.match(r"an? ((?:old |little |apple )?\w+)", a)[1] for a in (a1, a2)]
    return [
        t.open(["The {who} of {ap} [fell ill|lay ill in bed], and [no one could help|nothing did any good].~", "*\"Your {who} is very ill,\" the doctor said "
            "to {ap}.~" if t.person else "*\"Your {who} is very ill,\" the old owl said to {ap}.~"]),
        "" if t.own else t.say("[{P}'s {who} lay in bed with a fever, and nobody knew what to do|{His} {who} grew weaker every day|The {who} of {p} could "
            "neither eat nor sleep any more|{He} had a {who} who was very ill]."),
        t.say("[{Oneday} an old woman came by and said|{Oneday} a wise old owl came to the window and said|The oldest neighbour shook her head and said], "
            "\"[Only one thing can help, and that is|Nothing can help but|There is just one cure,] {cure}.\""),
        t.say("\"[Then I will fetch it|I will go and find it|I will bring it, however far it is],\" said {p}, and [set out|{he} set out] [at once|the same "
            "hour|before the sun was up|with a brave heart]."),
        t.scene(),
        t.say(f"[First {{he}} came to|On the way {{he}} met with|After an hour {{p}} came upon] {a1}. [{{P}} was in a hurry, but {{he}}|{{He}} stopped "
            f"and|Though time was short, {{he}}] {d1}, and [in return|out of gratitude|as thanks] the {n1} {r1}."),
        t.say(f"[Then there was|A little farther on {{he}} found|Next {{p}} came to] {a2}. [{{P}} did not pass by|Again {{he}} stopped|{{He}} had a good "
            f"heart], and {{he}} {d2}. [For that|As a reward] the {n2} {r2}."),
        t.scene(0.4),
        t.say("[So {p} came to the place where the {cureshort} was to be found|At last {he} reached the place|When the moon rose, {p} stood at the right "
            "place|After a long day's journey {he} was there]. [A great snake lay there on guard, but it was asleep|The way was steep and slippery, but {he} "
            "did not turn back|It was dark and lonely there, but {he} thought of {his} {who}|A voice cried, \"Go back!\" but {he} did not go back], and {he} "
            "took [what {he} needed|what {he} had come for] and hurried home."),
        t.say("[As soon as {his} {who} had tasted it|Hardly had {he} laid it in the hands of {his} {who}|When {his} {who} saw it], [the fever was "
            "gone|colour came back into the pale cheeks|the sickness was over]." if "feather" not in t.words["cure"] and t.person else
              "[Hardly had {he} come in with it|As soon as {his} {who} saw it and smelled it], [the fever was gone|the sickness was over|{his} {who} sat up "
                  "and asked for breakfast]."),
        t.end("good", ["Love finds the longest way short.", "Whoever helps on the road is helped on the road.", "A brave heart can do more than strong arms."],
            0.3)]


@plot
def three_wishes(t):
    t.hero("person+work person+old person+rich", "greedy")
    t.second("fairy dwarf elf wizard witch old_woman old_man")
    t.set(first="a full plate and a warm fire;a new coat;a pot of gold;a cellar full of food;a cow that gave milk all day", second="a house with twenty "
        "rooms;a carriage with four horses;a castle on the hill;a chest of diamonds;a crown and servants",
          third="to rule over the sun and the moon;to own the whole world;to have everything that others had;to be king of the sea and the wind" if t.p[
              "gender"] == "m" else "to rule over the sun and the moon;to own the whole world;to have everything that others had",
          deed="pulled {her} out of a ditch;gave {her} a drink of water;freed {hers} coat from a thorn bush;showed {her} the way;picked up {hers} stick")
    return [
        t.open(["{Ap} once did a small kindness to {aq}, and was given three wishes.~", "*\"Three wishes you shall have, and no more,\" said {aq} to {ap}.~"]),
        t.say("{Oneday} {he} met {aq} on the road and {deed}. \"[For that you shall have three wishes|One good turn deserves three wishes|Wish three times, "
            "and what you wish will be],\" said {q}. \"[But choose well|Only be careful|Take care not to wish for too much].\"") if not t.own else
        t.say("\"[Choose well|Take care|Be wise],\" said {q}, \"[for what is wished cannot be called back|and do not ask for too much].\""),
        t.say("[{P} did not think long|{P} rubbed {his} hands|\"That is easy,\" said {p}]. {He} wished for {first}, and [there it was|hardly had {he} spoken "
            "when it was there|in the blink of an eye {he} had it]."),
        t.say("[For a week {he} was {glad}|For three days {p} was content|That made {him} happy for a little while|{P} looked at it from every side]. [Then "
            "{he} began to grumble|But soon it seemed too little to {p}|Then {p} saw that others had more|But a neighbour had something better, and {p} was "
            "{sad}]. \"[This is nothing|What is that to me|Is that all]!\" {he} {cried}, and wished for {second}. [That came too|It was done|And that, too, "
            "was given|Hardly had {p} said it when it was there|The next morning {p} had it]."),
        t.say("[Still {p} was not content|But even now {p} could not sleep for wishing|A wise head would have stopped there, but not {p}]. \"[Now I want|I "
            "wish],\" [{he} {cried}|said {p} in the middle of the night], \"{third}!\""),
        t.say("[There was a clap of thunder|The wind howled round the house|All the lights went out|Hardly had {p} said it when there was a flash of "
            "lightning|Then {p} heard a roaring as of the sea|The ground trembled under {p}]. [When {p} looked about|When morning came|When {he} opened "
            "{his} eyes], [everything was gone|there was nothing left of it all|all had vanished like smoke], and {he} [sat in {his} old clothes on the bare "
            "ground|stood there as poor as the day {he} was born|had nothing but the shirt on {his} back]."),
        t.maybe("[{Q} stood before {him}|From far away came the voice of {q}]. \"[You had enough, and you did not know it|Whoever wants everything is left "
            "with nothing|I told you to choose well],\" said {q}.", 0.6),
        t.end("bad", ["Whoever wants too much loses what he has.", "Enough is as good as a feast.", "A greedy heart is never full."], 0.4)]


@plot
def good_wish(t):
    t.hero("person+work child+!royal person+old", "kind")
    t.second("fairy dwarf elf wizard witch")
    t.set(need="the well was dry;there was no bread in the village;all the children had a cough;the crops would not grow;no bird sang there any more;a hard "
        "frost had killed the fruit trees",
          selfish="a bag of gold;a fine castle;a coat of silk;a white horse")
    t.words["needs"] = t.words["need"].replace("was", "is").replace("had killed", "has killed").replace(" had a ", " have a ").replace("would not", "will not").replace(
        "sang", "sings").replace(" there any", " here any")
    fixed = {"the well was dry": "clear water rose in the well", "there was no bread in the village": "every oven was full of loaves", "all the children had "
        "a cough": "the children sprang out of bed and ran about",
             "the crops would not grow": "the corn stood high and yellow", "no bird sang there any more": "a hundred birds sang from the roofs", "a hard "
                 "frost had killed the fruit trees": "the trees were white with blossom"}
    return [
        t.open(["*\"One wish, and only one,\" said {aq} to {ap}.~"]),
        t.say("In those days [people were sad in that place|there was trouble in that place], because {need}."),
        t.say("{Oneday} {p} [found {aq} who had fallen into the brook|saw {aq} whose foot was caught under a root|met {aq} who was lost in the rain], and "
            "[helped {her}|took {her} home and warmed {her} by the fire]. \"[One wish is yours|For this you may make one wish|I can give you one wish],\" "
            "said {q}.") if not t.own else
        t.say("That was because {p} had [helped {her} out of the brook|given {her} a place by the fire]."),
        t.say("[{P} thought of {selfish}|First {p} wanted to ask for {selfish}|\"I might have {selfish},\" thought {p}]. [Then {he} heard the children "
            "crying|But then {he} thought of {his} neighbours|But {he} looked at the tired faces in the street], [and {he} was ashamed|and {his} heart was "
            "sore]."),
        t.say("\"[I have all that I need|For myself I want nothing|I do not need much],\" said {p}. \"[But there is trouble here, for|But everyone suffers "
            "because] {needs}. [Help us|Make that good again|That is my wish|If you can, put an end to it|That is what I should like to see changed].\""),
        t.say("{Q} [smiled|nodded|was silent for a moment, then smiled], [clapped {hers} hands|waved a hazel stick|whispered a word], and [in a "
            "moment|before one could count to three|the next morning] " + fixed[t.words["need"]] + "."),
        t.say("[How the people laughed and danced!|There was a feast in the street that night.|The bells rang all day long.|The neighbours came and thanked "
            "{p}.|Old and young came to thank {p}.] {Q} [said to {p}|took {p} aside and said], \"[Because you thought of others, I will add something for "
            "you|A heart like yours shall not go empty],\" and [gave {him}|put into {his} hand] [a purse that was never empty|a small gold coin that came "
            "back whenever it was spent|a ring that brought good luck]."),
        
        t.end("good", ["The best wishes are those we make for others.", "Whoever thinks of others is not forgotten."], 0.3)]


@plot
def winter_guest(t):
    t.hero("person+!royal+!rich+!magic+!walk animal+!wild+!vain+!young+!big", "kind")
    t.season = "winter"
    t.second("old_man old_woman pedlar soldier fairy dwarf orphan fiddler" if t.person else "animal+small+!wild+!pond+!snail+!ant")
    t.set(weather="the wind howled in the chimney;snow was falling thick and fast;the storm shook the door;it was so cold that the trees cracked" if t.person
        else "snow was falling thick and fast;the wind howled over the fields;it was so cold that the trees cracked",
          meal="a little soup;half a loaf;the last of the porridge;a few potatoes;one small cheese" if t.person else "a mouthful of " + t.p["food"])
    gift = t.pick(["a purse that was never empty", "a pot that was always full", "a little bell that called help in need", "a seed that grew into a tree of "
        "golden apples"]) if t.person else t.pick(["the way to a place where food lay under the snow", "a warm bed of moss and feathers", "a song that kept "
        "away the cold"])
    verb = "[was|lay]" if t.person else "came"
    return [
        t.open(["*One winter's night, when {weather}, there was a knock at the door of {ap}.~" if t.person else "*One winter's night, when {weather}, "
            "somebody called outside the home of {ap}.~",
                "*\"Who is there?\" {cried} {ap}, for somebody had knocked, and {weather}.~" if t.person else "*\"Who is there?\" {cried} {ap}. It was "
                    "night, and {weather}.~"]),
        t.say("[One night|One winter's night|On the longest night of the year], when {weather}, [there was a knock at the door|somebody knocked]." if t.person
            else "[One night|One winter's night|On the longest night of the year], when {weather}, [a thin voice was heard outside|somebody called in the "
            "dark].") if not t.own and not t.moment else
        t.say("That night {weather}, and [somebody knocked|somebody called outside].") if not t.own else "",
        t.say("[Outside stood|There stood] {aq}, [wet through|covered with snow|shaking from head to foot|stiff with cold]. \"[May I come in|Have you a "
            "corner for me|Will you let me in]?\" said {q}. \"[Nobody else would open|All the others have sent me away|I can go no farther|I have not eaten "
            "since yesterday|Nobody has any room for {a_q}|I ask only for a place out of the wind].\""),
        t.say("\"[Come in|Come in quickly|You are welcome],\" said {p}. \"[I have not much, but we will share it|There is room for two|Sit down by me and "
            "rest|A guest brings luck|What I have is yours].\" All that {he} had left was {meal}, but {p} [gave {her} the larger half|gave {her} most of "
            "it|divided it fairly]."),
        t.maybe("{P} [let {q} have the bed and slept on the floor|put {hers} wet feet near the fire|sat up all night and kept the fire burning]." if t.person
            else "{P} [let {q} have the warmest corner|lay close to {her} to keep {her} warm|covered {her} with dry leaves].", 0.8),
        t.maybe("[They talked a little of this and that|{Q} told stories until midnight|{Q} said little and soon slept], and outside the storm went on.", 0.4),
        t.say("[In the morning|When day came,|At sunrise] [the storm was over|the sky was clear]. \"[You asked for nothing|You did not ask who I was|You "
            "gave when you had little],\" said {q}. \"[So I will give you something|Now take this from me|Therefore I will leave you something|{A_p} with "
            "such a heart shall not be poor|Here is my thanks for it].\" And {she} [gave {him}|left {him}] " + gift + "." if t.person or not gift.startswith(
            "the way") else
              "[In the morning|When day came,|At sunrise] [the storm was over|the sky was clear]. \"[You gave when you had little|You asked for nothing],\" "
                  "said {q}. \"[Now I will show you something|Come, I will thank you for it].\" And {she} showed {him} " + gift + "."),
        t.maybe("[{P} wanted to thank {her}, but|When {p} looked up,] {q} was gone, [and there was not a footprint in the snow|and nobody in the village had "
            "seen {her}].", 0.5) if t.person else t.maybe("[And {q} stayed until spring|They spent the rest of the winter together].", 0.6),
        t.end("good", ["A warm heart makes a warm house.", "What is given gladly comes back twice.", "No guest is too poor to be welcome."], 0.35)]


@plot
def lost_child(t):
    t.hero("child+!royal+!orphan animal+young", "plain")
    t.second("owl hedgehog deer robin badger crow fairy elf dwarf" if t.person else "owl hedgehog robin badger crow mole hare")
    t.set(why="was looking for strawberries;was following a blue butterfly;wanted to see where the brook came from;ran after a rolling apple;was looking for "
        "the end of the rainbow" if t.season in ("spring", "summer") else
          "was gathering nuts;was following a white hare;wanted to see where the wild geese went;was looking for dry sticks;was chasing a leaf in the wind",
              parent="mother;father;grandmother")
    light = t.pick(["a light between the trees", "the smoke of {his} own chimney", "{his} {parent}'s lantern", "the lamp in the window"]) if t.person else t.pick(
        ["the roof of the barn", "the light of the farmhouse", "the old gate"] if "farm" in t.p["classes"] else ["the pond in the moonlight", "the reeds by "
        "the pond"])
    return [
        t.open(["*\"Where am I?\" said {ap}. There was nothing but trees on every side.~", "*{Ap} {why} and did not see how late it grew.~", "*It was "
            "growing dark, and {ap} was lost in the forest.~"]),
        t.say("{Oneday} {p} {why} and [went deeper and deeper into the forest|did not look where {he} was going|forgot the time]. [{Atlast} {he} stood "
            "still|When {he} looked up, the sun was going down], and [every tree looked like every other|{he} did not know the way back|there was no path "
            "any more].") if not t.own else
        t.say("[{He} had gone too far|{He} went this way and that way], and [every tree looked like every other|there was no path any more]."),
        t.say("[The wind moaned in the branches|It grew cold|The shadows grew long|Somewhere an animal howled], and {p} [began to cry|was very "
            "frightened|sat down on a root and wept|called, but only the echo answered]."),
        t.sky(0.6),
        t.maybe("\"[If only I had stayed at home|Oh, if only my {parent} were here|I shall never get home],\" [sobbed|said] {p}.", 0.6),
        t.say("[Then|All at once|Just then] [something rustled in the leaves|a soft voice spoke], [and there stood|and out came|and it was] {aq}. \"[Who is "
            "crying here|Why do you weep, little one|What are you doing here so late]?\" asked {q}. \"[I am lost|I have lost my way|I cannot find my way "
            "home],\" {ans} {p}."),
        t.say("\"[Then come with me|Do not be afraid|Dry your tears],\" said {q}. \"[I know every tree in this wood|I will show you the way|I know where you "
            "live|It is not so far as you think|Your {parent} is surely waiting for you|{A_q} knows the way in the dark].\""),
        t.say("{Q} went ahead, and {p} [followed close behind|kept near {her}|did not let {her} out of sight]. They [crossed a brook on stepping "
            "stones|passed under great dark firs|went round a black pool|went past the fallen oak] and [climbed a little hill|came through a thicket of "
            "thorns|went along the edge of a marsh], until {p} saw " + light + "."),
        t.say("{His} {parent} [was standing there and calling|ran to meet {him}|had been looking everywhere], and [{he} was hugged and scolded and hugged "
            "again|both of them wept for joy]."),
        t.maybe("[When {p} turned to thank {q}, there was nobody there|{P} put out some crumbs for {q} the next day, and {she} came to fetch them|{Q} only "
            "nodded and went back into the dark wood].", 0.7),
        t.end("good", ["Do not leave the path when evening comes.", "There is a friend to be found even in a dark wood."], 0.3)]


@plot
def thief_found(t):
    t.hero("baker farmer miller innkeeper gardener king queen mayor merchant beekeeper potter widow old_woman shoemaker", "clever")
    t.second("orphan boy girl pedlar" if t.rng.random() < 0.5 else "magpie fox monkey squirrel badger goat")
    human = "person" in t.q["classes"]
    thing = t.pick({"baker": "loaf", "farmer": "goose egg", "miller": "bag of flour", "innkeeper": "cheese", "gardener": "golden pear", "beekeeper": "jar of "
        "honey", "shoemaker": "pair of shoes", "potter": "jug"}.get(t.p["noun"], "silver spoon;apple pie;cheese"))
    trap = t.pick([("strewed flour on the floor and went to bed", "in the morning a line of white footprints led across the yard"), ("hid behind a curtain "
        "and did not sleep", "in the grey light of dawn something moved"),
                   ("tied a little bell to the door and went to bed", "at midnight the bell rang"), ("painted the shelf with honey and said nothing to "
                       "anybody", "in the morning drops of honey led across the yard"),
                   ("stretched a thread across the doorway and waited", "before sunrise the thread broke")])
    t.words.update(stolen=thing, pl=thing.replace("loaf", "loaves").replace("bag", "bags").replace("jar", "jars").replace("pair", "pairs") if thing.startswith
        (("loaf", "bag", "jar", "pair of")) else thing + "s", trap=trap[0], found=trap[1],
                   small=t.pick("a hungry little brother;an old mother who was ill;two little brothers;three small sisters" if human else "a nest full of "
                       "young ones;an empty larder;a hungry family"))
    return [
        t.open(["Every night [one|a] {stolen} vanished from the house of {ap}.~", "When {ap} [came down one morning|woke up one morning], [one|a] {stolen} "
            "was gone.~", "*\"Somebody has taken a {stolen}!\" {cried} {ap}.~"]),
        t.say("{Oneday} {p} saw that [a {stolen} was missing|somebody had stolen a {stolen}]. [The next day another was gone|And it was the same the next "
            "day and the day after|Another {stolen} was gone on Friday, and a third on Saturday|{P} counted them again, and there was one less every "
            "morning|Before the week was out there was hardly a {stolen} left]." if not t.own else "[And so it was the next day and the day after|The next "
            "day another was gone|{P} counted them again, and there was one less every morning|Before the week was out there was hardly a {stolen} left]."),
        t.say("[The neighbours said this and that|Everybody suspected somebody else|Some blamed the servant, and some blamed the cat|{P} asked the whole "
            "street, but nobody had seen a thing|There were as many guesses as neighbours]. \"[Let us not blame anyone without proof|I will find out for "
            "myself|Patience will catch the thief],\" said {p}."),
        t.say("[That evening|The next evening|When it grew dark] {he} {trap}[, and|. Sure enough,] {found}. [{P} followed softly|{He} went on tiptoe to "
            "look], and [behind the woodpile|under the stairs|in the barn|behind the garden wall] sat {aq} with the {stolen}."),
        t.say("\"[So it was you|Now I have found you|So you are the thief]!\" said {p}. {Q} [trembled|hung {hers} head|began to weep]. \"[Forgive me|I was "
            "so hungry|I did not know what else to do],\" said {q}. \"I have {small}.\""),
        t.say("[{P}'s anger melted away|{P} thought it over|{P} was silent for a moment]. \"[You should have asked|Stealing helps nobody|Whoever asks will "
            "not be sent away],\" {he} said. [\"From tomorrow you shall help me, and there will be food enough.\"|\"Work for me an hour a day, and you shall "
            "eat your fill.\"]" if human else
              "[{P}'s anger melted away|{P} thought it over|{P} was silent for a moment]. \"[You should have asked|Stealing helps nobody],\" {he} said. "
                  "\"[Every evening I will put something by the door for you, but take nothing more|Keep this one, and watch over my house in return]."  +
                  "\""),
        t.say("[And so it was done|{Q} promised it and kept the promise|{Q} kissed {his} hand and promised|{Q} agreed with all {hers} heart|And {q} came the "
            "very next morning]. [{Q} turned out to be a good worker|There was never a more faithful helper in the house], and nothing was ever stolen again."
            if human else "[And so it was done|{Q} promised it and kept the promise]. [Never was a house better guarded|The two became good friends|{Q} "
            "watched by the door every night|{P} never forgot the bowl by the door], and nothing was ever stolen again."),
        t.end("good", ["A hungry thief needs bread more than blows.", "Patience finds what anger cannot.", "Stolen bread is bitter, but given bread is sweet."],
            0.35)]


@plot
def storm_rescue(t):
    t.hero("fisherman ferryman boy girl widow shepherd milkmaid carpenter soldier merchant otter beaver heron swan duck", "brave")
    t.second("child+person+!royal merchant prince pedlar old_woman old_man" if t.person else "mouse hedgehog mole kitten chick lamb rabbit squirrel", )
    t.set(water="river;lake;sea" if t.p["noun"] in ("fisherman", "merchant") else "river;lake", thunder="black clouds came up from the west;the sky turned "
        "as dark as night;the wind rose and tore at the trees;it thundered, and the rain came down in sheets",
          where="clinging to a broken boat;holding on to a branch;sitting on a rock in the middle of the water;on an upturned boat" if t.person else
              "clinging to a branch in the water;sitting on a log that turned round and round;on a rock in the middle of the water")
    act = t.pick("pushed a boat into the waves;tied a rope round {himself} and swam out;took a long pole and waded in;rowed out, though the boat was half "
        "full of water" if t.person else "swam out through the waves;swam against the stream;dived under the foam and came up beside {her}" if t.p["noun"] !=
        "heron" else "flew out over the waves;flew low over the water")
    save = t.pick("drew {her} out of the water by the arm;pulled {q} into the arms of the people on the shore;got hold of {her} and did not let go" if t.
        person else "let {her} hold on to {his} tail;took {q} on {his} back;pushed the log to the shore with {q} on it" if t.p["noun"] != "heron" else "took "
        "{q} gently in {his} beak;told {q} to hold on to {his} long legs")
    return [
        t.open(["*The storm broke at noon, and {ap} ran down to the water.~", "*\"Help! Help!\" The cry came over the water, and {ap} heard it.~", "*The "
            "wind had been rising all day, and {ap} did not like the look of the clouds.~"]),
        t.say("{Oneday} {thunder}. [Everyone ran for shelter|The waves of the {water} rose higher and higher|The {water} foamed and roared], and [through "
            "the noise {p} heard a cry|{p}, who was near the {water}, heard a cry for help]."
              if not t.own else "{Thunder}, and the {water} foamed and roared. Out there somebody was crying for help."),
        t.say("[Out there was|Far out {he} saw|{He} shaded {his} eyes and saw] {aq}, {where}. \"[Nobody can help|It is too late|It cannot be done],\" said "
            "[the others|those who stood on the bank|an old neighbour]."),
        t.say("\"[We cannot stand and look on|I will try it all the same|If nobody else goes, I will go],\" said {p}, and {he} " + act + ". [Twice the waves "
            "threw {him} back, but the third time {he} got through|The waves beat over {him}, but {he} did not turn round|The rain blinded {him}, but {he} "
            "followed the cry|{P} could hardly see for rain and foam, but {he} kept on|The cold took {his} breath away, but {p} thought only of {q}]."),
        t.say("[At the last moment|Just as {q} was sinking|When {q} could hold on no longer] {p} [reached {her}|was there] and " + save + ". [So both came "
            "safely to land|Wet and weary they reached the shore|A great wave carried them both to the bank|Little by little {p} came nearer to the land "
            "with {q}, until they were safe|And so {p} and {q} came to the shore]."),
        t.say("[{Q} could not speak for cold|{Q} wept and laughed at once|{Q} opened {hers} eyes and looked about]. \"[You have given me my life|I shall "
            "never forget this|Without you I should be at the bottom of the {water}],\" {she} said." + (" [{P} wrapped {her} in a blanket and gave {her} hot "
            "milk|{P} made a great fire, and they dried their clothes].") * t.person),
        t.maybe("[The next day {q} brought {him} a present, and it was {gift}|After that {q} came to see {him} every week|\"Anyone would have done it,\" "
            "said {p}]."
                .replace("{gift}", t.pick("a new boat;a basket of good things;a golden chain;a warm coat") if t.person else t.pick("a necklace of berries;a "
                    "heap of nuts;a bed of soft grass")), 0.8),
        t.end("good", ["Courage is not to be without fear, but to go all the same.", "In the storm one learns who is a friend."], 0.3)]


@plot
def quarrel(t):
    t.hero("animal+!hunter+!wild+!vain+!magic person+work person+child", "plain")
    t.second("animal+!hunter+!wild+!vain+!magic" if not t.person else "person+work" if "work" in t.p["classes"] else "person+child")
    third = t.pick("the old tortoise;the grandmother of the village;the priest" if t.person else "the old toad;the wise raven;the old ram").replace("the old "
        "tortoise", "the schoolmaster")
    t.set(cause="an apple that lay between them;which of them had seen the first swallow;a pumpkin on the edge of the garden;a word that neither could "
        "remember afterwards;whose turn it was to fetch water" if t.person else
          "a pear that had fallen from a tree;which of them was the older;a warm place in the sun;who should drink first at the spring", third=[third],
          trouble="a flood came, and {q} could not get out of the house alone;the roof of {q} blew down in a gale;{q} fell and hurt a foot;a fire broke out "
              "at the home of {q}" if t.person else
          "a fox crept up behind {q};{q} was caught in a thorn bush;{q} fell into a deep hole;heavy rain drove {q} from home")
    help_ = {"a flood": "came with a ladder and got {her} out", "the roof": "came with hammer and nails and mended it", "{q} fell": "carried {her} home and "
        "bound up the foot" if t.person else "let down a long branch and got {her} out", "a fire": "came running with two buckets", "a fox": "cried a "
        "warning so loud that the fox ran away",
             "{q} was": "bent the thorns aside, one after another", "heavy": "opened the door and made room" if t.person else "moved over and made room for "
                 "{her}"}
    mended = next(v for k, v in help_.items() if t.words["trouble"].startswith(k))
    return [
        t.open(["{Ap} and {aq} [had been friends for years|had never quarrelled], until one day they [quarrelled|fell out] about {cause}.~", "*\"I will "
            "never speak to you again!\" {cried} {ap} to {aq}, and all because of {cause}.~"], NEIGHBOURS),
        t.say("[{P} had a good friend, {aq}|The best friend of {p} was {aq}], and [they did everything together|not a day passed when they did not meet].") if
            "aq" not in t.known else "",
        "" if t.own else t.say("{Oneday} {p} and {q} quarrelled about {cause}. \"[You are wrong|It is mine|That is just like you]!\" {cried} {p}. \"[You are "
            "the one who is wrong|You never listen|You think only of yourself]!\" {cried} {q}."),
        t.say("[They turned their backs on each other|Each went home in anger|They parted without a good-bye], and [for three weeks they did not speak|from "
            "that day they did not greet each other|when they met they looked the other way]."),
        t.say("[But {p} was not happy|At first {p} was pleased with {himself}, but not for long|The evenings were long for {p}]. [Nothing tasted good any "
            "more|There was nobody to laugh with|{He} had nobody to share {his} supper with|{He} kept thinking of {q}|Whenever {he} saw the home of {q}, "
            "{his} heart was heavy]."),
        t.maybe("\"[Which is worth more, a friend or being right|What was it that you quarrelled about]?\" {third} asked {him}. {P} [had no answer|did not "
            "know what to say|was silent].", 0.6),
        t.say("Then [it happened that|one night] {trouble}. [When {p} heard it, all the anger was forgotten|{P} did not stop to think of the quarrel|{P} "
            "heard the noise and ran], and {he} " + mended + "."),
        t.say("[\"I was foolish,\" said {q}. \"So was I,\"|\"I am sorry for what I said,\" said {q}. \"And I am sorry too,\"|\"Forgive me,\" said {q}. \"It "
            "was my fault as much as yours,\"|\"It was all my fault,\" said {q}. \"Let us forget it,\"] said {p}, and [they shook hands|they laughed until "
            "they cried|they fell into each other's arms]." if t.person else
              "[\"I was foolish,\" said {q}. \"So was I,\"|\"I am sorry for what I said,\" said {q}. \"And I am sorry too,\"|\"Forgive me,\" said {q}. \"It "
                  "was my fault as much as yours,\"|\"It was all my fault,\" said {q}. \"Let us forget it,\"] said {p}, and [they laughed until they "
                  "cried|they sat down side by side as before]."),
        t.say("[And the quarrel was never spoken of again|And they never quarrelled again, or only a very little|After that, whatever they had they "
            "shared|From then on {p} and {q} were better friends than ever|And so {p} and {q} were friends once more]."),
        t.end("good", ["A friend is worth more than being right.", "It takes two to quarrel, but one to make peace."], 0.3)]


@plot
def small_saves_large(t):
    t.hero("animal+small+!wild+!bird+!young+!pond", "brave")
    t.second("bear wolf horse donkey deer lion cow fox" if t.p["gender"] == "f" else "cow bear horse deer donkey fox")
    t.set(big="a net that hunters had spread;a rope that was tied to a tree;a snare of strong cord", first="sat down in {hers} way;ran over {hers} nose;ate "
        "a crumb from {hers} dinner;woke {her} from {hers} sleep")
    gnaw = {"mouse": "gnawed through the cords one by one", "squirrel": "bit through the cords one by one", "rabbit": "chewed at the knots until they gave "
        "way", "hare": "chewed at the knots until they gave way",
            "hedgehog": "rubbed the cords with sharp prickles until they broke", "mole": "dug the ground away until the peg came loose", "ant": "called all "
                "the other ants, and together they bit the cords in two",
            "snail": "made the ropes so slippery that they slid off"}.get(t.p["noun"], "pulled at the knots until they came loose")
    return [
        t.open(["*\"Do not step on me!\" {cried} {ap}. {Aq} stopped and looked down.~"], ["*{Ap} once ran across the path of {aq}." if t.p["noun"] not in (
            "snail", "ant", "mole") else "*{Ap} once crept across the path of {aq}.", "{Ap} [and {aq} lived in the same valley|lived close to {aq}]."]),
        t.say("{Oneday} {p} met {aq} and, without meaning to, {first}.") if not t.own else "",
        t.say("\"[You little thing|What a tiny creature you are|I could crush you with one foot],\" [growled|said] {q}. \"[Please let me go|Spare me|Be so "
            "good as to let me live],\" said {p}. \"[Perhaps one day I can help you|A day may come when you need me|You will not be sorry for it|I will "
            "repay you for it|Who knows what I may do for you one day].\""),
        t.say("{Q} [laughed|had to laugh at that|shook with laughter]. \"[You, help me|What could you do for me|How could {a_p} help me]?\" {she} said, but "
            "{she} [let {him} go|did {him} no harm|went away in a good mood]."),
        t.say("[Not long after|Some days later|The next week] {q} was caught in {big}. {She} [pulled and pulled, but the more {she} pulled the tighter it "
            "became|roared so that the whole valley heard it|struggled till {she} was worn out]."),
        t.say("[{P} heard {her} and came|When {p} heard the noise, {he} came as quickly as {he} could|{P} knew the voice at once]. \"[Lie still|Be "
            "patient|Do not move],\" {he} said, \"[and I will see what can be done|it is my turn now|I have not forgotten].\" And {he} " + gnaw + ".", ),
        t.say("[By sunrise|Before the hunters came|In the middle of the night] {q} was free. [{She} bent {hers} great head|{She} looked at {him} for a long "
            "time|{She} lay down so as to be no taller than {he}]. \"[I laughed at you|I was wrong],\" {she} said. \"[Nobody is too small to help|You are "
            "little, but your heart is big|From now on you are under my care|{A_p} has saved {a_q}, and I will tell it everywhere|I owe you my life|Ask of "
            "me what you like].\""),
        t.maybe("[After that|From that day on] [nobody dared to touch {p}|{p} often rode on the back of {q}|the two were always seen together].", 0.7),
        t.end("good", ["Nobody is too small to be a friend in need.", "The strong may need the weak.", "Do not laugh at the small."], 0.35)]


@plot
def lazy_learns(t):
    t.hero("animal+small+!young hare fox duck goose crow cat pig badger bear boy miller farmer shepherd tailor fisherman", "lazy")
    t.second("ant squirrel mouse mole hedgehog beaver" if not t.person else "old_woman widow farmer weaver" if t.p["gender"] == "m" else "farmer old_man")
    t.season = t.pick("summer;autumn")
    t.set(store="nuts;seeds;berries;corn" if not t.person else "wood;turnips;corn;hay", idle="lay in the sun;slept in the shade;danced and sang;sat and "
        "looked at the clouds;played by the brook")
    return [
        t.open(["*\"Why do you work so hard?\" said {ap} to {aq}. \"The sun is shining!\"~"], NEIGHBOURS[2:3] + ["{Ap} and {aq} [were neighbours|lived side "
            "by side]. {P} {trait}.~"]),
        t.say("While the others worked, {p} {idle}. [{Aq} lived near by|Not far away lived {aq}], and {she} carried home {store} from morning till night." if
            "aq" not in t.known else "All day {p} {idle}, but {q} carried home {store} from morning till night."),
        "" if t.own else t.say("\"[Why do you trouble yourself|Come and rest a little|What is the hurry]?\" said {p}.").replace("rest a little?", "rest a "
            "little!"),
        t.say("\"[Winter is coming|The days are growing shorter|A warm day does not last],\" {ans} {q}. \"[Who will feed {a_p} then|Who will feed you "
            "then|Will you not think of it|Have you put anything by|Where will you find {store} in the snow|What will you eat when the fields are white]?\""),
        t.say("{P} [only yawned|laughed and turned over|thought it very funny]. \"[Tomorrow|Tomorrow is another day|There is time enough],\" {he} said."),
        t.say("[But tomorrow came, and the next day too|So the weeks went by], and [one morning the fields were white|then the snow came|then came the "
            "frost]. {P} [had not a crumb to eat|found nothing in {his} house but dust|looked everywhere for something to eat and found nothing]."),
        t.say("[Cold and hungry, {he} went to {q}|At last {he} knocked at the door of {q}|{He} grew thin and went, ashamed, to {q}]. \"[Give me a "
            "little|Spare me a bite|Help me, or I shall starve],\" {he} said."),
        t.pick([t.say("{Q} [looked at {him} for a while|was not hard-hearted]. \"[You shall have something|I will not let you starve],\" {she} said, \"[but "
            "in spring you must work beside me|but you must promise to work next summer].\" [{P} promised, and {he} kept {his} word|And when spring came, "
            "{p} was the first in the field]."),
                t.say("\"[What did you do all summer|What were you doing while I worked]?\" asked {q}. \"[I sang|I slept|I enjoyed the sun],\" said {p} in a "
                    "small voice. {Q} [sighed|shook {hers} head] and gave {him} a little, [but only a little|just enough to live on]. [That winter was the "
                    "longest of {his} life|{P} had all winter to think about it].")]),
        t.end("bad", ["Whoever sleeps in summer goes hungry in winter.", "Tomorrow never comes.", "Work first, and then play."], 0.45)]


@plot
def foolish_bargain(t):
    t.hero("farmer boy shepherd miller widow fisherman shoemaker potter old_man old_woman weaver goatherd", "foolish")
    t.set(home_one="wife;mother;sister;brother" if t.p["gender"] == "m" and "old" not in t.p["classes"] else "sister;brother" if "old" not in t.p["classes"]
        and t.p["gender"] == "f" else "neighbour")
    goods = ["a cow", "a goat", "a goose", "a hen", "a bag of apples", "a whistle"] if t.rng.random() < 0.6 else ["a horse", "a pig", "a sheep", "a duck",
        "a sack of turnips", "a shiny pebble"]
    n = t.rng.choice([2, 3, 3])
    start = t.rng.randrange(0, 3)
    chain = goods[start:start + n] + [goods[-1]] if start + n < 6 else goods[start:]
    noun = [g.split(" ", 1)[1] for g in chain]
    who = t.rng.sample("an old man;a soldier;a pedlar;a butcher;a rider;a beggar;a stout woman;a boy;a goose girl;a student".split(";"), len(chain))
    praise = t.rng.sample("it needs no grass and no stable;it is easier to carry;it makes no trouble at all;there is not another like it in the world;it "
        "eats next to nothing;it will bring luck to the house;a wise person would not think twice".split(";"), len(chain))
    swaps = []
    for i in range(1, len(chain)):
        swaps.append(t.say([f"[On the way {{he}} met|The road was long, and soon {{he}} met|After a mile {{p}} met] {who[i]} who had {chain[i]}. \"[Shall we "
            f"exchange|Will you change with me|Give me your {noun[i-1]} for it],\" said {{w}}, \"[for |because ]{praise[i]}.\"",
                           f"[A little farther on came|Next there came along|At the crossroads stood] {who[i]} with {chain[i]}. \"[What a fine {noun[i]} "
                               f"that is|I have always wanted a {noun[i]}]!\" said {{p}}. \"[Take it for your {noun[i-1]}|You may have it for the "
                               f"{noun[i-1]}],\" was the answer, \"[for|because] {praise[i]}.\"",
                           f"[Then {{p}} saw|In the next village {{he}} saw] {who[i]} with {chain[i]}, and [{{he}} liked it at once|{{he}} could not take "
                               f"{{his}} eyes off it]."][i % 3 if i < 3 else 2].replace("{w}", re.sub(r"^an? ", "the ", who[i])).replace("exchange,\\\"",
                               "exchange"))
                     + " " + t.say([f"[\"Done!\" said {{p}}|{{P}} thought this a good bargain], and {{he}} went on with the {noun[i]}.", f"[So {{p}} gave "
                         f"away the {noun[i-1]}|{{P}} was delighted] and took the {noun[i]}."][i % 2]))
    swaps = [re.sub(r'(Shall we exchange|Will you change with me),"', r'\1?"', s) for s in swaps]
    return [
        t.open([f"*{{Ap}} [was on {{his}} way to market with|set out to sell] {chain[0]}.~", f"{{Ap}} had {chain[0]} and nothing else in the world.~"]),
        t.say(f"{{Oneday}} {{he}} [set out to sell {chain[0]} at the market|led {chain[0]} to market]." if chain[0].split()[1] in ("cow", "goat", "horse",
            "pig", "sheep", "goose") else f"{{Oneday}} {{he}} set out to sell {chain[0]} at the market.") if not t.own else t.say("[The sun was shining, and "
            "{he} whistled as {he} went|There was no money in the house, and it had to be sold]."),
        t.maybe("\"[Ask a good price|Do not let anyone cheat you|Bring home good money],\" {his} {home_one} had said.", 0.7), t.scene(0.5), *swaps,
        t.say(f"[In the evening|When it grew dark|At supper time] {{he}} came home. \"[How much did you get|Where is the money|What have you brought]?\" "
            f"asked {{his}} {{home_one}}. {{P}} [held out the {noun[-1]}|proudly showed the {noun[-1]}|laid the {noun[-1]} on the table]."),
        t.pick([t.say("[\"You simpleton!\" said {his} {home_one}|{His} {home_one} did not know whether to laugh or to cry]. [\"At least you have come "
            "home\"|\"Well, what is done is done\"|\"Next time I will go myself\"].").replace("\".", ".\"") + " " + t.end("bad", ["Whoever changes too often "
            "is left with little.", "Think first, and trade afterwards."], 0.5),
                t.say(f"[Just then a rich traveller came by|A lord who was riding past heard of it]. [He laughed so much at the story that he gave {{p}} a "
                    f"purse of gold|He had never laughed so much in his life, and he paid for the {noun[-1]} with ten gold coins]. \"[You see!|Did I not say "
                    f"so?]\" said {{p}}. \"[It was a good bargain after all|I knew that it would bring luck].\"") + " " + t.end("good", ["Fools have luck "
                    "now and then."], 0.4)])]


@plot
def spell_broken(t):
    t.hero("boy girl woodcutter shepherdess shepherd fiddler miller's_daughter tailor's_son goose_girl kitchen_maid milkmaid soldier student prince princess",
        "kind")
    t.second("frog swan deer bear owl raven cat horse" if t.p["gender"] == "m" else "frog swan deer bear owl cat horse")
    t.set(true="princess;queen;miller's daughter" if t.p["gender"] == "m" else "prince;young king;woodcutter's son", caster="wicked witch;sorcerer;angry "
        "fairy;jealous stepmother", nights="three nights;seven nights;a night and a day;three days",
          task="keep a candle burning at the old well;sit on the black stone and not speak one word;hold me fast, whatever I may turn into;watch beside me "
              "and not fall asleep",
          trouble="[Voices called and mocked|Strange shapes came out of the dark|Rain and hail fell]")
    return [
        t.open(["*\"Do not be afraid of me,\" said {aq} to {ap}.~", "{Ap} once found {aq} that could speak.~"], ["*{Ap} met {aq} [at the edge of the "
            "forest|by a deep well|in a ruined garden]."]),
        t.say("{Oneday} {he} [came to a ruined castle in the wood|went farther into the forest than ever before|sat down by a deep well], and there was "
            "{aq}, [weeping like a human being|with a little gold crown on its head|with the saddest eyes in the world].") if "aq" not in t.known else t.say(
            "[In its eyes were tears|Round its neck hung a golden chain]."),
        t.say("\"[I was not always as you see me|I am not what I seem],\" said {q}. \"[A {caster} laid a spell on me|I am under the spell of a {caster}]. "
            "[Only someone with a kind and patient heart can free me|Nobody has yet been brave enough to free me|And {a_q} I must remain until somebody "
            "takes pity on me|You are the first who has come here in a hundred years|It will last for ever, unless you help me].\" \"[What must I do|How can "
            "I help you|What is to be done]?\" asked {p}."),
        t.say("\"For {nights} you must {task},\" said {q}."), t.maybe("\"That is not easy,\" said {p}, \"[but I will do it|but I give you my word].\"", 0.8),
        t.sky(0.7),
        t.say("[When night fell it began|{P} kept the promise|{P} waited until dark|{P} did as {q} had said|The first hour was quiet enough]. {Trouble}, but "
            "{p} [did not move|thought of the sad eyes and was not afraid|did not give way]. [Sleep came over {him}, but {he} pinched {his} arm|The last "
            "hour was the worst|{He} trembled, but {he} did not leave], and {he} held out to the end."),
        t.say("[Then there was a clap like thunder|Then the sun rose|Then the cock crowed], and [{q} was gone, and in the same place stood|where {q} had "
            "been, there stood] a {true}. \"[You have set me free|The spell is broken|I thank you with all my heart],\" said the {true}."),
        t.say("[The old castle shone as if new|The birds began to sing|All the bells in the land began to ring], and the {caster} [was never seen "
            "again|burst with anger|flew away on the wind]. [{P} and the {true} were married within the year|The two of them stayed together all their "
            "lives|The {true} took {p} home, and there was a feast of seven days]." if "child" not in t.p["classes"] else
              "[The birds began to sing|All the bells in the land began to ring], and the {caster} [was never seen again|burst with anger|flew away on the "
                  "wind]. [The {true} took {p} home, and there was a feast of seven days|They were friends from that hour]."),
        t.end("good", ["A faithful heart is stronger than any spell.", "Do not judge anyone by the outside."], 0.35)]


@plot
def proud_humbled(t):
    t.hero("royal rich peacock lion cock swan horse", "proud")
    t.second("old_man old_woman shepherd shepherdess goose_girl gardener pedlar" if t.person else "mouse sparrow hedgehog frog turtle mole")
    t.set(glass=["mirror" if t.person else "water"], scorn="did not greet {her};ordered {her} out of the way;laughed at {hers} torn coat" if t.person else
        "did not greet {her};told {her} to get out of the way;laughed at {hers} plain brown coat")
    fall = t.pick([("[Not long after, {p} was riding alone when the horse shied and threw {him} into a bog|That autumn {p} lost {his} way in a fog and fell "
        "into a ditch]. [{He} sank up to {his} knees and could not get out|{He} called for servants, but there were none]", "held out a long stick and "
        "pulled {him} out"),
                   ("[Not long after, {p} went bathing in the lake, and a thief stole all {his} clothes|Soon after, {p} bathed in the river, and {his} fine "
                       "clothes floated away]. [{He} stood there shivering, and nobody knew who {he} was|At {his} own gate the guard did not know {him} and "
                       "sent {him} away]", "gave {him} an old cloak and a bowl of soup"),
                   ("[The next winter {p} was lost in the snow, far from home|Not long after, {p} was caught in a snowstorm on the road]. [{He} knocked at many doors, but nobody opened|{His} gold could not buy a single piece of bread there]", "opened the door and gave {him} the place by the fire")]) if t.person else \
        t.pick([("[Not long after, {p} was caught in a bramble bush|That same week {p} was tangled in a hedge]. [The more {he} pulled, the worse it "
            "grew|{He} called and called, but {his} fine friends did not come]", "bent the thorns aside until {he} was free"),
                ("[Not long after, a hunter crept up behind {p}|Soon after, a hunter took aim at {p}]. [{He} was so busy admiring {himself} in the water "
                    "that {he} saw nothing|{He} was looking at {his} own shadow and heard nothing]", "cried, \"Look out!\" just in time")])
    return [
        t.open(["*\"Out of my way!\" {cried} {ap} to {aq}.~", "No mirror was large enough for {ap}, for {he} {trait}.~"], ["*{Ap} met {aq} [at the gate|by "
            "the well|on a narrow bridge].", "{Aq} once lived near the home of {ap}. {P} {trait}.~"]),
        t.maybe("\"[Who is as splendid as I|Is there anyone to compare with me]?\" {he} often said[, looking at {himself} in the {glass}|].", 0.7) if not t.
            moment else "",
        t.say("{Oneday} {p} met {aq} and {scorn}. \"[What do you want here?|Such as you should stay at home!|Do you not know who I am?]\" {he} said.") if not
            t.own or "aq" not in t.known else t.say("\"[Do you not know who I am|What do you want here]?\""),
        t.say("{Q} [made no answer|only bowed|stepped aside]. \"[The road is wide enough for two|Perhaps we shall meet again|The sun shines on both of "
            "us],\" {she} said [quietly|gently|]."),
        t.say(fall[0] + "."),
        t.say("[Then somebody came along|At last help came|Only one came to help], and it was {q}. {She} " + fall[1] + "."),
        t.say("\"[Why do you help me|How can you be kind to me], when I [treated you so badly|was so rude to you]?\" asked {p}. \"[Because you needed it|You "
            "were in trouble, and that is enough|One does not ask who it is that needs help],\" said {q}."),
        t.say("[{P} was deeply ashamed|Then {p} hung {his} head|For the first time in {his} life {p} had nothing to say]. [From that day on {he} greeted "
            "everyone, great or small|After that {he} was a different creature, and never too proud to say good morning|{He} asked {her} to forgive {him}, "
            "and {she} did so gladly]." if not t.person else
              "[{P} was deeply ashamed|Then {p} hung {his} head|For the first time in {his} life {p} had nothing to say]. [From that day on {he} greeted "
                  "everyone, rich or poor|After that {he} was a different person, and never too proud to say good morning|{He} asked {her} to forgive {him}, "
                  "and {she} did so gladly]."),
        t.say("[{P} and {q} became friends|Whenever {p} saw {q} after that, {he} was the first to bow]" + "." ), t.maybe("[Pride comes before a fall.|The "
            "highest tree feels the wind most.|Fine feathers do not make a good heart.]", 0.4)]


@plot
def promise(t):
    t.hero("person+work person+child animal+!hunter+!wild+!vain+!young", "plain")
    t.second("frog swan fairy elf dwarf witch" if t.person else "owl turtle crow hedgehog badger beaver")
    keep = t.rng.random() < 0.6
    t.set(gift="a net that was always full;a golden apple every morning;a lamp that never went out;a hen that laid silver eggs;a mill that ground flour by "
        "itself" if t.person else "the way to a dry warm hole for the winter;the way to a field of sweet clover;the way to a secret spring;the way to a "
        "place where food was never short",
          word="never to tell anyone where it came from;to set a bowl of milk on the step every evening;to come back in a year and a day;never to open the "
              "little black box;to share the half of it with the poor" if t.person else "never to tell anyone where it is;to come back when the moon is "
              "full;to share it with whoever is hungry",
          deed="lifted {her} out of a deep cart track;gave {her} water on a hot day;hid {her} from the hunter;drove away a hawk", )
    return [
        t.open(["*\"Give me your word,\" said {aq} to {ap}, \"and I will give you something in return.\"~", "{Ap} once made a promise to {aq}.~"], NEIGHBOURS[:
            2] if not t.person else []),
        t.say("{Oneday} {p} came upon {aq} and {deed}.") if not t.own else t.say("It came about in this way. {Q} had been in trouble, and {p} had helped "
            "{her}."),
        t.say("\"[I will reward you|You shall not have done it for nothing|For that I will give you something],\" said {q}, and {she} gave {him} {gift}. "
            "\"[But you must promise|In return you must promise|But promise me] {word}.\" \"[I promise|You have my word|With all my heart],\" said {p}.") if t.
            person or not t.words["gift"].startswith("the way") else
        t.say("\"[I will reward you|For that I will show you something],\" said {q}, and {she} showed {him} {gift}. \"[But you must promise|But promise me] "
            "{word}.\" \"[I promise|You have my word],\" said {p}."),
        t.say("[All went well for a long time|Now {p} had good days|{P} had never been so well off], and [{he} wanted for nothing|{he} thanked {q} every "
            "evening in {his} heart]."),
        t.say("[But it is easier to promise than to keep|Then came a day when it was hard to keep the promise|But promises grow heavy with time|But as the "
            "weeks went by {p} thought less and less of {q}|One {season} evening {p} sat and thought about the promise|But the longer it lasted, the harder "
            "it seemed to {p}]. [The neighbours teased {p}|Somebody laughed at {him} for keeping it|{He} was tired and out of humour|A stranger offered "
            "{him} money to break it|{He} had slept badly and was cross], and {he} thought, \"[Who would know|What harm can it do|Must I keep it for ever]?\"") ,
        *([t.say("[But then {p} remembered|\"No,\" said {p} to {himself}|{P} shook {his} head]. \"[A promise is a promise|I gave my word, and I will keep "
            "it|My word is worth more than that],\" {he} said, and {he} [kept it|did as {he} had promised|did not break it]."),
           t.say("[That very night|The next morning|Not an hour later] {q} [came in at the door|stood before {him}]. \"[I wanted to see whether you would be "
               "true|You have been tested, and you were true|Few keep faith as you do],\" {she} said. \"[Now it is yours for ever|From today nothing shall "
               "ever take it from you|Keep what you have, and my friendship with it].\"" if t.person else
                 "[That very night|The next morning|Not an hour later] {q} came by. \"[I wanted to see whether you would be true|Few keep faith as you "
                     "do],\" {she} said. \"[You shall always have my friendship|From now on what is mine is yours].\""),
           t.end("good", ["A promise is a debt.", "Whoever keeps faith will be trusted.", "An honest word is worth more than gold."], 0.4)] if keep else
          [t.say("[And so {p} broke the promise|And {p} did what {he} should not have done|So it came about that {he} did not keep {his} word]. [At once "
              "there was a sound like breaking glass|A cold wind blew|Everything grew still], and [all that {he} had been given was gone|what {q} had given "
              "{him} vanished]." if t.person else
                 "[And so {p} broke the promise|And {p} did what {he} should not have done]. [The next day|When {he} came there again], [all that {he} had "
                     "been given was gone|there was nothing left]."),
           t.say("{P} ran to the place where {he} had first met {q}, and called. [But nobody answered|Only the wind answered|\"You gave your word,\" said a "
               "sad voice, \"and you broke it\"]."),
           t.end("bad", ["A broken promise cannot be mended.", "Think well before you promise, and then keep your word."], 0.5)])]


@plot
def riddles(t):
    t.hero("person+child person+walk shepherd miller goat hare hedgehog fox mouse donkey prince princess", "clever")
    t.second("giant dwarf wizard" if t.p["gender"] == "f" else "witch fairy old_woman")
    riddle = t.rng.sample([
        ("What has teeth but cannot bite?", "A comb"), ("What runs all day and never grows tired?", "The river"), ("What grows smaller the longer it stands?",
            "A candle"), ("What falls but never breaks?", "Night"),
        ("What has one foot and a hat, but no head?", "A mushroom"), ("What goes through the window and does not break the glass?", "The sunlight"), ("What "
            "is full of holes and still holds water?", "A sponge"),
        ("What speaks every language and has no mouth?", "The echo"), ("What follows you all day and hides at night?", "My shadow"), ("What dries you and "
            "grows wet itself?", "A towel"),
        ("Who wears a red coat and has a stone in the heart?", "A cherry"), ("What can you give away and still keep?", "Your word"), ("What goes up the hill "
            "and down the hill and never moves?", "The road"), ("What has a neck but no head?", "A bottle"),
        ("What is white when it is thrown up and yellow when it comes down?", "An egg"), ("What house has no door and no window?", "An egg shell"), ("What "
            "is lighter than a feather and cannot be held for long?", "My breath")], 3)
    n = t.rng.choice([2, 3, 3])
    t.set(where="bridge;mountain pass;gate;narrow path", goal="visit {his} grandmother;go to the fair;fetch salt;find work;see the world" if t.person else
        "eat the green grass on the other side;visit a friend;go to the fair;see the world",
          n=[["two"], ["three"]][n - 2])
    lines = []
    for i, (question, answer) in enumerate(riddle[:n]):
        lines.append(t.say(["\"" + question + "\" [asked|said] {q}.", "\"[That was easy|Anyone might know that|Well guessed|You are no fool|That was only "
            "the beginning|Right]. " + question + "\" [asked|said] {q}.", "\"[Now for the last|Nobody has yet guessed the last one|One more|The last is the "
            "hardest]. " + question + "\" [asked|said] {q}."][i])
                     + " " + t.say(["[{P} thought for a moment|{P} smiled|{P} looked at the sky]. \"" + answer + ",\" {he} said.", "\"" + answer + ",\" "
                         "{ans} {p}[ at once| without stopping to think|].",
                                    "{P} [thought for a long time|thought until the sun was low|scratched {his} head]. [At last {he} laughed|Then {p} jumped "
                                        "up|Suddenly {p} knew it|Then {his} face grew bright]. \"" + answer + "!\" {he} said."][i]))
    return [
        t.open(["*\"Stop! Nobody passes here without an answer,\" said {aq} to {ap}.~", "*{Ap} came to a {where}, and before it stood {aq}.~"]),
        t.say("{Oneday} {p} set out to {goal} and came to a {where}. [But there sat|There, with folded arms, stood] {aq}. ") + t.say("\"[Nobody passes "
            "here|You cannot pass],\" said {q}, \"[until my {n} riddles have been guessed|without guessing my {n} riddles].\"") if not t.own else
        t.say("\"Guess my {n} riddles, and you may go on,\" said {q}. \"[If not, you must work for me for seven years|If not, you must turn back]!\""),
        t.maybe("[Many had tried and had turned back|{P} was a little frightened, but not for long|{P} sat down on a stone]. \"[Ask, then|I am "
            "listening|Begin|Let me hear them],\" [{he} said|said {p}].", 0.9), *lines,
        t.say("{Q} [stamped with rage|laughed and clapped {hers} hands|was so astonished that {she} sat down|sighed deeply]. \"[You must have had a good "
            "teacher|You have a good head|Nobody ever guessed them all before],\" {she} said") + ", " + t.say("and {she} [let {him} pass|stepped aside|had "
            "to let {him} go]."),
        t.maybe("[And because {she} had been so lonely, {p} stopped on the way home and told {her} some new ones|\"Come again and bring me a new riddle,\" "
            "{she} called after {him}|{She} even gave {him} a gold coin for the journey].", 0.7),
        t.scene(0.5) + " " + t.say("[{P} went on {his} way|Whistling, {p} went on|And {p} went over to the other side]. ") + t.end("good", ["A good head "
            "opens every gate.", "Think first, and speak afterwards."], 0.35)]


@plot
def giant_outwitted(t):
    t.hero("tailor boy girl shepherdess goatherd tailor's_son orphan kitchen_maid miller's_daughter old_woman", "clever")
    t.second("giant" if t.p["gender"] == "f" else "witch")
    if t.p["gender"] == "m" and t.rng.random() < 0.7:  # a giantess keeps the pronouns apart
        t.q.update(noun="giantess", adjective=t.pick("huge;old;wicked;greedy"))
    tests = t.rng.sample([("squeezed a stone until it cracked", "took a soft cheese and squeezed it until the whey ran out", "squeeze water out of a stone"),
        ("threw a rock so high that it was long in coming down", "let a lark fly from {his} hand, and it did not come down at all", "throw a stone that "
        "never comes back"),
                          ("ate a whole pot of porridge", "poured one bowl after another into a bag under {his} coat", "eat ten bowls and still be hungry"), (
                              "pulled up a young tree", "tied a rope round the whole wood", "pull up the whole wood at once"),
                          ("blew out ten candles with one breath", "waited until the wind came and blew the door open", "blow a door open with one breath")], 2)
    t.set(harm="took the sheep from the fields;broke down the bridges;drank the wells dry;carried off the harvest every year")
    return [
        t.open(["*\"Who dares to walk on my hill?\" roared {aq}. It was only {ap}.~", "Everybody in the valley was afraid of {aq}, everybody but {ap}.~"]),
        t.say("In those days {aq} lived on the mountain and {harm}, and [nobody dared to say a word|everyone was afraid]. \"[Somebody must do something|I "
            "will see what can be done|Strong arms are not everything],\" said {p}, and [climbed up the mountain|went straight to the cave].") if not t.own
            else t.say("{Q} lived on the mountain and {harm}."),
        t.say("\"[What do you want, little worm?|Take care, for I can swallow you in one bite!]\" [roared|thundered] {q}. \"[Not at all|You are big, but I "
            "am strong|Let us see who is the stronger],\" said {p}."),
        t.say(f"{{Q}} {tests[0][0]}. \"[Do that if you can|Can you do that]!\" {{she}} said. {{P}} {tests[0][1]}. \"[I can {tests[0][2]}|That is nothing. I "
            f"can {tests[0][2]}]!\" {{he}} said.".replace("Can you do that]!", "Now you]!")),
        t.say(f"[{{Q}} was astonished|{{Q}} frowned] and {tests[1][0]}. [{{P}} only laughed|\"Is that all?\" said {{p}}], and {{he}} {tests[1][1]}. \"[And I "
            f"can {tests[1][2]}|Look, I can {tests[1][2]}]!\" {{he}} said."),
        t.say("[Then {q} grew pale|Now {q} began to be afraid|The knees of {q} began to shake]. \"[You are too strong for me|I do not like it here any "
            "more|If the small ones are so strong, I do not want to meet the big ones],\" {she} said, and [that same night {she} packed a sack and went away "
            "over the mountains|ran away over seven hills and never came back]."),
        t.say("[The people came out of their houses and danced|Everybody wanted to see {p}|They carried {p} home on their shoulders], and {he} was given [a "
            "house and a garden|a gold chain|as many sheep as {he} could count|the best coat that could be made]."),
        t.end("good", ["Wit is better than strength.", "A good head is worth two strong arms."], 0.35)]


@plot
def discontent(t):
    t.hero("animal+!magic+!vain+!young", "foolish")
    t.second("fairy owl wizard elf" if t.p["gender"] == "m" else "wizard elf dwarf owl")
    wish = t.rng.sample([("wings like a swallow", "{he} flew so high that {he} grew giddy and fell into a haystack"), ("a mane like a lion", "{he} could not "
        "get through {his} own door, and it was hot besides"), ("a long neck like a swan", "it got caught between the branches"),
                         ("a coat of white wool", "it rained, and the coat grew so heavy that {he} could hardly stir"), ("horns like a stag", "they stuck "
                             "fast in the bushes, and all the others laughed"), ("a voice like a lion", "all {his} friends ran away when {he} said good "
                             "morning"),
                         ("legs as long as a stork's", "{he} could not reach the ground to eat"), ("a tail like a peacock's", "the wind caught it and blew "
                             "{him} into the pond")], 2)
    if "bird" in t.p["classes"]:
        wish = [w for w in wish if "wings" not in w[0]] + [("fur like a bear", "{he} was too heavy to fly")]
    (w1, f1), (w2, f2) = wish[:2]
    return [
        t.open(["*\"Why must I be as I am?\" said {ap}.~", "There was once {ap} who wished to be something else.~"]),
        t.say("[Nothing pleased {him} any more|{P} looked at {himself} in the water and sighed|{P} envied all the others]. \"[If only I had|I would give "
            "anything for|How happy I should be with] " + w1 + "!\" {he} said."),
        t.say("{Oneday} {aq} heard {him}. \"[Well, if it will make you happy|As you wish|Let us see how you like it],\" said {q}, and [touched {him} with a "
            "green twig|blew three times|spoke a word that nobody knew]. At once {p} had " + w1 + "."),
        t.say("[How proud {he} was|How {he} ran about to show it]! But [before evening|the very same day|it was not long before] " + f1 + "."),
        t.say("{P} went back to {q}. \"[That was not the right thing|I made a mistake|This will not do],\" {he} said. \"[Give me|I would rather have|Let me "
            "have] " + w2 + " instead.\" {Q} [sighed and did it|smiled and did as {he} asked|did that too]. [But it was no better|It was worse than before], "
            "for " + f2 + "."),
        t.say("[Sore and tired|That evening|Hungry and sad], {p} came to {q} for the third time. \"[Please make me what I was|I only want to be myself "
            "again|Let me be as I was before],\" {he} [begged|said]."),
        t.say("{Q} [laughed softly|nodded], and [in a moment|in the blink of an eye] it was done. {P} [ate some {food} and found that nothing had ever "
            "tasted so good|looked at {himself} in the pond and was content|jumped for joy and hurried home]."),
        t.end("good", ["It is best to be what one is.", "What suits another may not suit you.", "Everyone is good enough as he is."], 0.45)]


@plot
def magic_pot(t):
    t.hero("widow orphan boy girl weaver potter baker shoemaker old_woman kitchen_maid fisherman", "plain")
    t.second("old_man dwarf wizard elf pedlar" if t.p["gender"] == "f" else "old_woman fairy witch widow")
    thing, makes, go, stop = t.pick([("little pot", "sweet porridge", "Little pot, cook", "Little pot, enough"), ("stone mill", "white salt", "Mill, turn "
        "round", "Mill, stand still"), ("spinning wheel", "silver thread", "Wheel, spin", "Wheel, be done"),
                                     ("brown jug", "fresh milk", "Jug, pour out", "Jug, run dry"), ("wooden spoon", "pea soup", "Spoon, stir round", "Spoon, "
                                         "lie down"), ("small oven", "warm bread", "Oven, bake", "Oven, grow cold")])
    t.set(thing=[thing], makes=[makes], go=[go], stop=[stop], fool="greedy neighbour;curious cousin;lazy servant;jealous cobbler")
    if t.p["noun"] == "mayor":
        t.set(fool=["greedy neighbour"])
    return [
        t.open([f"{{Ap}} had a {thing} that was like no other in the world.~", f"*\"Take this {thing}, and you will never be hungry again,\" said {{aq}} to "
            f"{{ap}}.~"]),
        t.say("{Oneday} there was nothing left in the cupboard but a crust of bread, and {p} shared it with {aq}. \"[Take this {thing} for it|I will leave "
            "you my {thing}|This {thing} is for you],\" said {q}.") if "aq" not in t.known else "",
        t.say("\"[When you say|If you say|As soon as you say], '{go},' it will give you {makes}, and when you say, '{stop},' it will stop. [Do not forget "
            "the words|Tell nobody the words|Use it well|But keep the words to yourself|Share what you have, and it will not fail you].\"") if "aq" in t.known
            else "",
        t.say("[And so it was.|And it was true.|{P} tried it that same evening, and it was true.] [Whenever {p} was hungry|Every morning] {he} said, "
            "\"{Go},\" and [there was {makes} in plenty|out came {makes}, as much as {he} could wish], and when {he} said, \"{Stop},\" it stood still." if
            makes not in ("white salt", "silver thread") else
              "[And so it was.|And it was true.|{P} tried it that same evening.] Whenever there was no money in the house {p} said, \"{Go},\" and out came "
                  "{makes}, and when {he} said, \"{Stop},\" it stood still. {He} sold the {makes} and lived well."),
        t.say("But a {fool} [had been listening at the window|had looked through the keyhole]. [When {p} was out|While {p} was at church|One night], the "
            "{fool} [stole the {thing}|took the {thing} from the shelf] and said, \"{Go}!\""),
        t.say("[Out it came|It began at once], and [at first it was a great joy|the {fool} laughed and danced]. But [how was it to be stopped|who knew the "
            "other words|what were the words to stop it|how could the {fool} make it stop]? It [filled the kitchen|covered the floor], and then [the whole "
            "house|the stairs and the cellar], and then [the street|the yard and the lane]. \"[Stop|Have done|Be quiet]!\" {cried} the {fool}, but [it did "
            "not stop|it went on and on]."),
        t.say("[{P} heard the noise|Somebody ran to fetch {p}], and {he} came [running|as fast as {his} feet would go]. \"{Stop},\" said {p}, and [all was "
            "still|it stopped at once]."),
        t.say("[For a week the whole village had to work to clear the street|It was three days before one could walk down the street again|The {fool} had to "
            "clear it all away with a shovel], and {p} [put the {thing} on the highest shelf|gave everybody in the village a share]."),
        t.end("good", ["Whoever starts a thing should know how to stop it.", "Stolen goods bring no luck."], 0.4)]


@plot
def lonely_friend(t):
    t.hero("giant dragon witch bear wolf owl dwarf old_man widow ferryman charcoal_burner hedgehog badger", "plain")
    t.trait = t.words["trait"] = t.pick("had nobody to talk to;lived quite alone;had not one friend in the world;ate every meal alone")
    t.second("girl orphan goose_girl kitten robin mouse hen" if t.p["gender"] == "m" else "boy orphan goatherd kitten robin mouse puppy")
    t.season = t.pick("spring;summer;autumn")
    scary = t.p["noun"] in "giant dragon witch bear wolf"
    t.set(tried="baked a cake and set out two plates;sang a song at the edge of the wood;planted flowers beside the path" if t.person else "sang a song at "
        "the edge of the wood;laid berries beside the path;called a friendly greeting to everyone who passed")
    opening = t.open(["*\"If only somebody would come,\" said {ap}.~", "{Ap} [sat alone every evening|had nobody to say good night to].~"])
    return [
        opening, "" if t.trait in opening or t.own else t.say("{P} {trait}."),
        t.say("[The evenings were long|On feast days it was worst of all|{He} talked to the stones, but stones do not answer|In the evening {p} listened for "
            "a step outside, but there was none|Many a time {p} sat and looked at the empty path]. " + ("[When people saw {him}, they ran away|Everybody was "
            "afraid of {him}, though {he} meant no harm|Mothers called their children in when {he} came by]." if scary else "[Hardly anyone ever came that "
            "way|Everyone was too busy to stop|Weeks passed without a visitor].")),
        t.say("{Oneday} {p} {tried}, but [nobody came|in the evening {he} was as lonely as before|{he} waited in vain]. [Then {he} wept a little|\"There "
            "must be something wrong with me,\" said {p}|{He} sighed and went to bed]."),
        t.sky(0.6),
        t.say("[The next day|The following evening|A week later] [there was a small sound outside|something stirred before the door], and there [stood|sat] "
            "{aq}, [cold and wet|quite lost|with a sore foot]. \"[Are you not afraid of me|Do you want to come in|What brings you here]?\" asked {p}."),
        t.say("\"[No, you have kind eyes|I am alone too|I have nowhere to go],\" said {q}. \"[May I stay a little|May I sit by you|Will you let me rest "
            "here|Have you room for one more|Shall we be friends]?\" {P} [could hardly speak for joy|was so glad that {he} did not know what to say|made "
            "room at once]."),
        t.say("They [ate together|shared what there was], and {q} [told {him} about the wide world|sang {him} a little song|laughed at all {his} stories]. "
            "[When it grew dark, {p} told {her} the names of the stars|{P} warmed {hers} cold feet|Outside it rained, but neither of them noticed|{P} had "
            "not been so {glad} for years|{Q} fell asleep leaning against {p}]."),
        t.say("[The next day {q} came again|{Q} stayed that night and the next|In the morning {q} did not want to leave]. [And soon others came too, for {q} "
            "told everybody how kind {p} was|And when the others saw it, they were not afraid any longer|From then on there were always two plates on the "
            "table|After that {p} and {q} had supper together every evening|And so {p} was never alone again]." if t.person or scary else "[The next day {q} "
            "came again|{Q} stayed that night and the next]. [And soon others came too, for {q} told everybody how kind {p} was|From then on they were "
            "always together]."),
        t.end("good", ["One friend can drive away a whole winter of loneliness.", "Whoever opens the door may find a friend outside."], 0.3)]


@plot
def hidden_treasure(t):
    t.hero("farmer weaver shoemaker tailor gardener potter smith widow old_man spinner carpenter miller", "plain")
    t.second("old_woman pedlar soldier fairy milkmaid" if t.p["gender"] == "m" else "old_man pedlar soldier student")
    t.set(far="under the bridge of the king's city;at the foot of the old tower by the sea;beside the fountain of the great market", near="under the apple "
        "tree in {his} own garden;under the hearth of {his} own house;behind the loose stone in {his} own wall",
          box="a pot of gold coins;an iron box full of silver;a jar filled with pearls")
    return [
        t.open(["*\"Go and look {far},\" said a voice in a dream to {ap}.~", "{Ap} had the same dream three nights running.~"]),
        t.say("[One night|In the middle of the night] {p} dreamed that a voice said, \"[You will find your luck|Your fortune is waiting] {far}.\" [The next "
            "night the dream came again, and the night after that|Three nights running {he} dreamed it|{P} laughed at it, but the dream came again the next "
            "night|After the third night {p} could think of nothing else].") if not t.own else t.say("[The voice spoke as clearly as a bell|{He} could think "
            "of nothing else]. \"[You will find your luck|Your fortune is waiting] {far},\" it said." if "three nights" not in "" else ""),
        t.say("[So {he} shut up the house|\"I will go and see,\" said {p}. {He} packed some bread|{P} put on {his} good boots] and [walked for many "
            "days|travelled {roads}], until {he} came to the place. {He} looked [here and there|from morning till night], but [there was nothing to be "
            "seen|{he} found nothing but dust and old leaves]."),
        t.say("{Aq} [had been watching {him}|came by and stopped]. \"[What are you looking for|Have you lost something]?\" asked {q}. {P} told {her} about "
            "the dream, and {she} laughed."),
        t.say("\"[Who would go so far for a dream|Dreams are foolish things]{end} said {q}. \"[I myself once dreamed|Only last night I dreamed] that {box} "
            "lay {near2}, [in a village I have never seen|at the house of {ap2}]. [But I stay where I am|Do you think I would go and dig for it]\"".split(
            "{end}")[0].replace("Who would go so far for a dream", "One should not go so far for a dream") + ",\" ") + t.say("said {q}. \"[I myself once "
            "dreamed|Only last night I dreamed] that {box} lay " + re.sub(r"\{his\} own", "a certain", t.words["near"]).replace("a certain garden", "the "
            "garden of a {noun}").replace("a certain house", "a {noun}'s house").replace("a certain wall", "the wall of a {noun}'s house") + ". [But I stay "
            "where I am|But I have more sense than to go and look for it|But I would not walk a mile for it|And yet I stay at home and do my work].\""),
        t.say("[{P} said nothing, but {he} thought the more|{P} pricked up {his} ears|{P} thanked {her} and turned round at once]. {He} hurried home and "
            "[dug|searched] {near}, and there, sure enough, {he} found {box}."),
        t.say("[{He} bought a cow and a new roof|{He} gave half of it to the poor|{He} paid all {his} debts and had plenty left], and {he} [sent a handful "
            "of it to {q}|did not forget to send {q} a share]."),
        t.end("good", ["One must sometimes go far to find what is near.", "Luck may be lying at your own door."], 0.5)]


@plot
def shared_work(t):
    t.hero("hen duck goose mouse pig cat beaver hedgehog farmer widow baker miller gardener", "plain")
    t.trait = t.words["trait"] = t.pick("was never idle;got up before all the others;liked work and did it well;never waited for others to begin")
    t.season = "spring"
    others = t.rng.sample("the cat;the dog;the goat;the sparrow;the sheep;the turkey".split(";") if not t.person else "the tall neighbour;the fat "
        "neighbour;the cobbler;the watchman;the clerk".split(";"), 3)
    others = [o for o in others if o[4:] != t.p["noun"]][:2]
    o1, o2 = others
    t.words.update(o1=o1, o2=o2)
    job, steps, result = t.pick([("plant a row of apple trees", "dig the holes;carry the water;chase away the caterpillars", "the trees were full of red "
        "apples"), ("sow a field of wheat", "pull up the weeds;cut the corn;carry it to the mill", "there was a great warm loaf on the table"),
                                 ("build a house of stone", "fetch the stones;mix the clay;lay the roof", "the house stood there, dry and warm, and the "
                                     "first storm was coming"), ("plant a bed of pumpkins", "water the seeds;drive off the snails;turn the pumpkins to the "
                                     "sun", "there was pumpkin pie enough for ten")])
    t.q = t.p
    excuse = t.rng.sample("I have a sore foot;the sun is too hot;I must have my breakfast first;it looks like rain;I have just lain down;I did not sleep well".
        split(";"), 2)
    s = steps.split(";")
    del s[t.rng.randrange(3)]
    return [
        t.open([f"*\"Who will help me {job}?\" asked {{ap}}.~"]),
        t.say(f"{{Oneday}} {{p}} [wanted|made up {{his}} mind] to {job}.") + " " + t.say(f"\"[Who will help me|Will anyone help me]?\" {{he}} asked.") if not
            t.own else "",
        t.say(f"\"[Not I|Not today|I cannot],\" said {o1}, \"[for |because ]{excuse[0]}.\" \"[Nor I|I cannot either|Ask somebody else],\" said {o2}, \"[for "
            f"|because ]{excuse[1]}.\""),
        t.say("\"[Then I will do it myself|Very well, I will do it alone],\" said {p}, and [{he} did|went to work]."),
        t.say(f"[Then somebody had to {s[0]}|The next thing was to {s[0]}]. \"[Who will help me now|Is anyone coming]?\" called {{p}}. [But {o1} was asleep, "
            f"and {o2} was nowhere to be seen|{capital(o1)} yawned, and {o2} looked the other way]. [So {{p}} did that too|So {{he}} did it alone|So {{p}} "
            f"did it without {o1} and {o2}|And so {{p}} worked on until evening]."),
        t.say(f"[It was {{p}} again who had to {s[1]}|{{P}} had to {s[1]} as well], [and nobody lifted a finger|while the others sat in the shade]."),
        t.say(f"[The weeks went by|Time passed], and [{{atlast}}|one day] {result}. [Then {o1} came running, and {o2} came too|Who came now but {o1} and "
            f"{o2}]. \"[May we have a share|Is there room for us|Will you not give us a little|Have you something for us too]?\" [they said|{{o1}} "
            f"said|{{o2}} said|they asked {{p}}|asked {{o1}}|asked {{o2}}]."),
        t.pick([t.say("\"[Where were you when there was work to do|Who helped me when I called]?\" asked {p}. \"[Those who did not help with the work need "
            "not help with the rest|I did the work alone, and alone I will enjoy it].\" And [{he} shut the door|{p} shut the door|{p} went in and sat down "
            "to supper alone|{o1} and {o2} had to go away again]."),
                t.say("{P} [looked at them|thought it over]. \"[Today you shall have some|You may have a little today],\" {he} said, \"[but next time you "
                    "must help|but next time there will be nothing without work].\" [They hung their heads and promised|{O1} and {o2} promised it|{O1} "
                    "blushed, and {o2} looked at the ground|They were ashamed, and the next time they were the first to come].")]),
        t.say("[That night|That evening] {p} [slept well after {his} work|sat down, tired and content].") , t.maybe("[Whoever will not work should not hope "
            "to eat.|Many hands make light work.|Work tastes bitter, but its fruit is sweet.]", 0.4)]


def join(tale, text):
    """Now and then two short sentences become one, so that lengths vary."""
    parts = re.split(r"(?<=[.!?]) ", text)
    out = parts[:1]
    for part in parts[1:]:
        a = out[-1]
        plain = '"' not in a + part and a.endswith(".") and part.endswith(".") and not re.search(r"\b(and|but|for)\b", a + part)
        if plain and len((a + part).split()) < 22 and re.match(r"(The|He|She|It|They|There|A|An) ", part) and tale.rng.random() < 0.6:
            out[-1] = a[:-1] + ", and " + part[0].lower() + part[1:]
        else:
            out.append(part)
    return " ".join(out)


def finish(tale, beats):
    """Beats into one to four paragraphs; articles before vowels."""
    beats = [re.sub(r"  +", " ", b).strip() for b in beats if b and b.strip()]
    cuts = set(tale.rng.sample(range(1, len(beats)), min(tale.rng.choice([0, 1, 2, 2, 3, 3]), len(beats) - 1)))
    text = "".join(("\n" if i in cuts else " " if i else "") + b for i, b in enumerate(beats))
    text = "\n".join(join(tale, line) for line in text.split("\n"))
    text = re.sub(r" +([.,!?])", r"\1", text)
    text = re.sub(r"((?:called|named|by the name of) [A-Z]\w+) who", r"\1, who", text)
    text = re.sub(r'([.!?]?)"\.', lambda m: (m[1] or ".") + '"', text)
    return re.sub(r"\b([Aa]) (?=(?!one\b|once|us[eu]|uni|eu)[aeiouAEIOU]|hour|honest)", r"\1n ", text)


def stories(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    rng = random.Random(seed)
    held_back = tuple(s.lower() for s in STORIES)
    while count > 0:
        tale = Tale(rng)
        text = finish(tale, rng.choice(PLOTS)(tale))
        if text.lower().startswith(held_back) or not 60 <= len(text.split()) <= 260 or len(text.split()) > 190 and rng.random() < 0.6:
            continue
        p = tale.p
        about = re.sub(r"^a (?=[aeiou])", "an ", tale.a(p, rng.random() < 0.7)) + (f" called {p['name']}" if p["name"] and rng.random() < 0.6 else "")
        count -= 1
        yield about, text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("\n<|endoftext|>\n".join(text for _, text in stories(args.count, args.seed)))


if __name__ == "__main__":
    main()
