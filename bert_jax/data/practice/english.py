"""Words and topics of English stories."""

from bert_jax.data.practice.grammar import Fact, Grammar, Topic

WOMEN = ("Anna", "Clara", "Emma", "Grace", "Helen", "Julia", "Laura", "Maria", "Nina", "Rosa", "Sarah", "Zoe")
MEN = ("Adam", "Ben", "Carl", "David", "Frank", "George", "Henry", "Jack", "Louis", "Martin", "Paul", "Simon")
WORDS = {
    "person": (*WOMEN, *MEN),
    "city": (
        "London", "Paris", "Berlin", "Madrid", "Rome", "Vienna", "Prague", "Lisbon", "Dublin", "Oslo", "Athens",
        "Cairo", "Lima", "Toronto", "Boston", "Sydney", "Delhi", "Tokyo", "New York", "Cape Town",
    ),
    "group": (
        "Green Market", "Sunset Cafe", "Eagle Club", "Rose Theatre", "Hope School", "Morning Press", "River Hotel",
        "North Bank", "Silver Garage", "Saint Mary Hospital",
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": ("morning", "noon", "evening", "night"),
    "pet": ("cat", "dog", "rabbit", "parrot", "hen", "duck", "goat"),
    "petname": ("Misty", "Spot", "Ginger", "Mochi", "Pickle", "Star", "Coffee", "Lulu", "Pip", "Bella"),
    "yard": ("park", "garden", "field", "yard", "meadow", "river bank"),
    "bed": ("rug", "wooden box", "chair", "basket", "kitchen floor"),
    "color": ("white", "black", "grey", "brown", "yellow", "red"),
    "food": ("rice", "fish", "bread", "cheese", "spinach", "carrots", "bananas", "mangoes", "lemons", "beans", "nuts"),
    "price": ("five", "eight", "ten", "twelve", "twenty"),
    "dish": ("soup", "curry", "salad", "stew", "pasta", "pancakes", "roast chicken", "fried rice"),
    "taste": ("salty", "spicy", "sweet", "fresh", "delicious"),
    "subject": ("mathematics", "history", "biology", "physics", "French", "geography", "drawing"),
    "crop": ("wheat", "corn", "cotton", "barley", "potatoes", "tobacco", "grapes", "tea"),
    "month": ("January", "March", "April", "June", "August", "October", "December"),
    "vehicle": ("train", "bus", "ship", "plane", "old car", "motorbike"),
    "gift": ("silk scarf", "box of biscuits", "story book", "straw hat", "jar of honey"),
    "score": ("two to one", "three to nil", "one to nil", "four to two"),
    "sport": ("football", "badminton", "volleyball", "basketball", "table tennis"),
    "instrument": ("guitar", "flute", "violin", "piano", "drum", "trumpet"),
    "book": ("Blue Sea", "First Rain", "Long Way Home", "Eastern Sky", "Wooden House"),
}  # fmt: skip

PET = Topic(
    opening=(
        Fact.of(
            "{person} has a {pet} named {petname}.",
            ("Who has a {pet}?", "person"),
            ("What is the name of the {pet}?", "petname"),
        ),
        Fact.of("A {pet} named {petname} lives with {person}.", ("Who does {petname} live with?", "person")),
    ),
    facts=(
        Fact.of("The {pet} is {color}.", ("What colour is {petname}?", "color")),
        Fact.of("Every {time} {petname} plays in the {yard}.", ("Where does {petname} play?", "yard")),
        Fact.of("The {pet} is [very|quite|rather] tame and likes to be held."),
        Fact.of("{person} feeds {petname} with {food} and clean water.", ("What does {petname} eat?", "food")),
        Fact.of("When it is tired, {petname} sleeps on the {bed}.", ("What does {petname} sleep on?", "bed")),
        Fact.of("When it rains, the {pet} hides under the table."),
        Fact.of("{person2} often comes to see {petname}.", ("Who often comes to see {petname}?", "person2")),
    ),
)
MARKET = Topic(
    opening=(
        Fact.of("On {day} {person} went to the market in {city}.", ("When did {person} go to the market?", "day")),
        Fact.of("{person} sells {food} at the market in {city}.", ("Where does {person} sell {food}?", "city")),
    ),
    facts=(
        Fact.of("The market was [busy|crowded|full] from the {time} on."),
        Fact.of(
            "{person2} bought {food} and {food2} there.",
            ("Who bought {food}?", "person2"),
            ("What did {person2} buy with {food}?", "food2"),
        ),
        Fact.of("The {food} cost only {price} coins.", ("How many coins did the {food} cost?", "price")),
        Fact.of("The buyers asked for less, but the seller [smiled|refused|laughed]."),
        Fact.of("Next to the market is the {group}.", ("What is next to the market?", "group")),
        Fact.of("The {food2} from {city2} cost more.", ("Where is the {food2} that cost more from?", "city2")),
        Fact.of("At last the basket of {person} was full."),
    ),
)
SCHOOL = Topic(
    opening=(
        Fact.of("{person} studies {subject} at school.", ("What does {person} study?", "subject")),
        Fact.of("This year {person} goes to school in {city}.", ("Where does {person} go to school?", "city")),
    ),
    facts=(
        Fact.of("{his} teacher, {person2}, explains with patience.", ("Who is the teacher?", "person2")),
        Fact.of("The lesson in {subject} begins in the {time}.", ("When does the lesson begin?", "time")),
        Fact.of("The pupils [write|read|talk] in the classroom."),
        Fact.of("The test in {subject} is on {day}.", ("When is the test in {subject}?", "day")),
        Fact.of("After the lesson they play {sport}.", ("What do they play?", "sport")),
        Fact.of("{person} got a [good|high|fine] mark in the test."),
        Fact.of("The books were bought at the {group}.", ("Where were the books bought?", "group")),
    ),
)
FARM = Topic(
    opening=(
        Fact.of(
            "{person} grows {crop} near {city}.",
            ("What does {person} grow?", "crop"),
            ("Who grows {crop}?", "person"),
        ),
        Fact.of("The farmers near {city} grow {crop}.", ("Where do the farmers grow {crop}?", "city")),
    ),
    facts=(
        Fact.of("[Heavy|Strong|Light] rain has fallen since {month}.", ("Since when has rain fallen?", "month")),
        Fact.of("The fields have become [green|wet|fertile]."),
        Fact.of("The {crop} on the farm grew quickly."),
        Fact.of("{person2} helps on the farm every {day}.", ("Who helps on the farm?", "person2")),
        Fact.of("The harvest of {crop} is sold to the {group}.", ("Who is the {crop} sold to?", "group")),
        Fact.of("The price of {crop} in {city2} is rising.", ("Where is the price of {crop} rising?", "city2")),
        Fact.of("The farmers hope that the weather stays [sunny|good|mild]."),
    ),
)
TRAVEL = Topic(
    opening=(
        Fact.of(
            "{person} took the {vehicle} from {city} to {city2}.",
            ("Where did {person} come from?", "city"),
            ("Where did {person} go?", "city2"),
            ("What did {person} take?", "vehicle"),
        ),
        Fact.of("On {day} {person} left for {city2}.", ("When did {person} leave?", "day")),
    ),
    facts=(
        Fact.of("The journey was [long|slow|pleasant]."),
        Fact.of("From the window of the {vehicle} {he} saw [mountains|the sea|fields|forests]."),
        Fact.of("{person2} was waiting in {city2}.", ("Who was waiting in {city2}?", "person2")),
        Fact.of("{person} brought a {gift} with {him}.", ("What did {person} bring?", "gift")),
        Fact.of("The {vehicle} arrived at {time}.", ("When did the {vehicle} arrive?", "time")),
        Fact.of("They had {dish} together.", ("What did they have?", "dish")),
        Fact.of("That night they stayed near the {group}.", ("What did they stay near?", "group")),
    ),
)
SPORT = Topic(
    opening=(
        Fact.of("{person} plays {sport} for the {group}.", ("Who does {person} play for?", "group")),
        Fact.of("The {sport} match was held in {city}.", ("Where was the match held?", "city")),
    ),
    facts=(
        Fact.of("The crowd [cheered|clapped|sang] during the whole match."),
        Fact.of("The team from {city2} played more [slowly|roughly|carefully].", ("Where is the team from?", "city2")),
        Fact.of("{person2} has trained the team since {month}.", ("Who has trained the team?", "person2")),
        Fact.of("The final score was {score}.", ("What was the final score?", "score")),
        Fact.of("The referee blew the whistle and the match was over."),
        Fact.of("The team wears {color} shirts.", ("What colour are the shirts?", "color")),
        Fact.of("The next training of the team is on {day}.", ("When is the next training?", "day")),
    ),
)
KITCHEN = Topic(
    opening=(
        Fact.of(
            "{person} is cooking {dish} for the family.",
            ("Who is cooking {dish}?", "person"),
            ("What is {person} cooking?", "dish"),
        ),
        Fact.of("The recipe for the {dish} comes from {city}.", ("Where does the recipe come from?", "city")),
    ),
    facts=(
        Fact.of("It is made of {food} and {food2}.", ("What is in it besides {food}?", "food2")),
        Fact.of("The spices are [ground|crushed|fried] first."),
        Fact.of("The {dish} is cooked over a small fire."),
        Fact.of("It tastes {taste}.", ("How does it taste?", "taste")),
        Fact.of("{person2} tried it and [smiled|nodded|asked for more].", ("Who tried it?", "person2")),
        Fact.of("The {dish} is served at {time}.", ("When is the {dish} served?", "time")),
        Fact.of("The rest of the {dish} is sent to the {group}.", ("Where is the rest sent?", "group")),
    ),
)
ARTS = Topic(
    opening=(
        Fact.of("{person} is learning to play the {instrument}.", ("What is {person} learning to play?", "instrument")),
        Fact.of("{person} is reading the book {book}.", ("What is {person} reading?", "book")),
    ),
    facts=(
        Fact.of("Every {time} {he} practises at the {group}.", ("Where does {person} practise?", "group")),
        Fact.of("The {instrument} sounds [sweet|soft|bright]."),
        Fact.of("{person2} wrote a song about {city}.", ("Who wrote a song?", "person2")),
        Fact.of("The concert will be held in {city2}.", ("Where will the concert be held?", "city2")),
        Fact.of("The story {book} made the listeners [cry|laugh|think]."),
        Fact.of("A ticket costs {price} coins.", ("How many coins does a ticket cost?", "price")),
        Fact.of("They will play again in {month}.", ("When will they play again?", "month")),
    ),
)
GRAMMAR = Grammar(
    words=WORDS,
    topics={
        "pet": PET, "market": MARKET, "school": SCHOOL, "farm": FARM, "travel": TRAVEL, "sport": SPORT,
        "kitchen": KITCHEN, "arts": ARTS,
    },
    women=frozenset(WOMEN),
)  # fmt: skip
