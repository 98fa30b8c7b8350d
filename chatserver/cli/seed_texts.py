"""What people say and documents tell in the demo data: a shop that sells and mends bicycles."""

from typing import Final

FIRST_NAMES: Final = (
    *("Ada", "Ben", "Chiara", "Dmitri", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kaya"),
    *("Lena", "Mateo", "Noor", "Oskar", "Priya", "Quentin", "Rosa", "Samir", "Tilda", "Umar"),
    *("Vera", "Wiktor", "Xenia", "Yusuf", "Zoë"),
)
LAST_NAMES: Final = (
    *("Almeida", "Berg", "Castillo", "Dahl", "Ekström", "Fischer", "Gallo", "Haddad", "Ito"),
    *("Jansen", "Kowalski", "Lindqvist", "Moreau", "Novák", "Okafor", "Petit", "Rossi", "Schmidt"),
    *("Tanaka", "Ueda", "Virtanen", "Weber", "Yilmaz"),
)
TEAMS: Final = (
    *("Workshop", "Orders", "Shop floor", "Website", "Suppliers", "Marketing", "Accounting"),
    *("Winter season", "Cargo bikes", "Rentals", "Spare parts", "Training", "New branch"),
)
CHANNELS: Final = ("Announcements", "Product news", "Events", "Service bulletins")
COMPLAINTS: Final = (
    *("brakes squeak", "gears skip", "delivery is late", "light flickers", "wrong colour"),
    *("battery does not charge", "invoice is missing", "saddle slips", "flat tyre again"),
)
MODELS: Final = (
    *(
        "Birch 3",
        "Birch 5 Cargo",
        "Heron",
        "Heron E",
        "Kestrel Road",
        "Otter Kids 20",
        "Otter Kids 24",
    ),
    *("Tern Folding", "Wren City", "Wren City E"),
)
PARTS: Final = (
    *("brake pads", "a chain", "a rear light", "an inner tube", "a saddle clamp", "handlebar tape"),
    *("a derailleur hanger", "mudguards", "a kickstand", "a hub gear cable"),
)
REACTIONS: Final = ("👍", "❤️", "😂", "🎉", "👀", "🙏")

# Dialogues of a team; a line is said by the person whose number it has, `{…}` is filled in.
TEAM_TALK: Final = (
    (
        (0, "Morning! Who has {part} for a {model} in stock?"),
        (1, "Two left on shelf {shelf}. Shall I put one aside?"),
        (0, "Yes please, the customer comes at {hour}."),
        (1, "Done, order {order} is written on it."),
    ),
    (
        (0, "The {model} from {day} is ready, test ride was fine."),
        (2, "Great. I'll call the customer."),
        (2, "She collects it at {hour}."),
    ),
    (
        (1, "Supplier says {part} will be {weeks} weeks late."),
        (0, "Again? That is order {order}, promised for {day}."),
        (3, "We can take it from the demo bike and put the new one in later."),
        (0, "Good idea, let's do that."),
        (1, "I'll write it into the order."),
    ),
    (
        (2, "Can somebody cover {day} afternoon for me?"),
        (3, "I can, if you take my Saturday."),
        (2, "Deal, thank you!"),
    ),
    (
        (0, "Reminder: stocktaking on {day} at {hour}. Please finish open repairs before."),
        (1, "Will the shop be closed?"),
        (0, "From noon on, yes. The note for the door is printed."),
    ),
    (
        (3, "Photos of the {model} are up: https://shop.example/{order}"),
        (1, "They look lovely. The price is still last year's, though."),
        (3, "Fixed, thanks for spotting it."),
    ),
    (
        (1, "How tight does the stem of the {model} go? The sticker is gone."),
        (0, "5 Nm, and carbon paste on the seat post."),
        (1, "Thanks!"),
    ),
)
SUPPORT_TALK: Final = (
    (
        (0, "Hello, I bought a {model} (order {order}) and the {complaint}. What can I do?"),
        (1, "Sorry to hear that! Since when, and does it happen all the time?"),
        (0, "Since {day}, mostly when it rains."),
        (1, "Then please bring it in. {day} at {hour} is free, it takes twenty minutes."),
        (0, "I'll be there, thanks."),
    ),
    (
        (0, "Is {part} for the {model} covered by the warranty?"),
        (1, "Parts that wear are covered for six months, everything else for two years."),
        (0, "It is four months old."),
        (1, "Then it's on us. Bring order {order}, we change it while you wait."),
    ),
    (
        (0, "Where is my order {order}? It said {day}."),
        (1, "It left our warehouse this morning and arrives tomorrow before {hour}."),
        (0, "Perfect."),
    ),
)
DIRECT_TALK: Final = (
    (
        (0, "Are you coming to the ride on {day}?"),
        (1, "Sure, where do we meet?"),
        (0, "At the shop, {hour}."),
    ),
    (
        (0, "Did you see the new {model}?"),
        (1, "Yes! I want one."),
        (0, "Staff discount until {day} 😉"),
    ),
    (
        (0, "Could you look at order {order} before lunch?"),
        (1, "On it."),
        (1, "Done, only {part} was missing."),
    ),
    ((0, "Thanks for your help on {day}."), (1, "Any time!")),
)
CHANNEL_TALK: Final = (
    ((0, "New in the shop: the {model}, in {weeks} colours. Test rides from {day}."),),
    ((0, "Service bulletin {order}: please check {part} of every {model} that comes in."),),
    ((0, "We open at {hour} on {day} because of the fair."),),
)

INSTRUCTIONS: Final = (
    "You help customers of a bicycle shop. Be brief and friendly, and say when you do not know."
)
GUIDES: Final = (
    (
        "Returns and refunds",
        """\
# Returns and refunds

A bicycle that was ordered online can be sent back within 30 days of delivery, unused and with all
parts. Book the collection in your account or write to support; the collection costs 29 euros, which
we pay if the bicycle was delivered damaged or wrong.

The refund reaches the means of payment within five working days after our workshop has looked at
the bicycle. If parts are missing we deduct their price and say so before we do.

Helmets, tyres that were mounted and vouchers can not be returned.
""",
    ),
    (
        "Warranty and wear",
        """\
# Warranty

Frames are covered for ten years, all other parts for two years. Parts that wear with use, such as
brake pads, chains, cassettes, tyres and cables, are covered for six months.

The warranty ends when a part that matters for safety was changed by somebody who is no workshop.
Batteries of e-bikes are covered for two years or 700 full charges, whichever comes first; below
60 % of their capacity within that time they are replaced.

For a claim bring the bicycle and the number of the order. A repair under warranty takes four
working days on average.
""",
    ),
    (
        "Workshop and opening hours",
        """\
# The workshop

The shop is open from Tuesday to Saturday, 10:00 to 19:00; the workshop closes at 18:00. Inspections
are by appointment, punctures are mended while you wait.

A small inspection (brakes, gears, bolts) costs 59 euros, a large one (also bearings, wheels and
cleaning) 129 euros. The first inspection within 90 days of buying is free.

While your bicycle is with us we lend you a Wren City for 5 euros a day, if one is there.
""",
    ),
)
SHEET: Final = """\
# {model}

The {model} weighs {weight} kg in size M and carries up to {load} kg with its rider. It has {gears}
gears, {brakes} brakes and tyres of {tyre} mm at {pressure} bar.

Inspection: after 300 km, then every {interval} km. The stem is tightened with 5 Nm, the seat post
with 6 Nm, the wheels with {axle} Nm.

Article number {number}. Spare parts are kept for ten years after the last one was sold.
"""
