# SPDX-License-Identifier: Apache-2.0
"""Word problems, put together from hand-written scenes: a beginning, things that happen one after the other, a question.

A scene keeps one running quantity. Each step changes it by an operation that makes sense in the scene (nobody gives away
more than there is, everything is shared out evenly), so that every problem has one answer, a whole number of at least 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentgym.tasks.math.base import Levelled, between, pick

_PEOPLE = (
    ("Amara", "she", "her"), ("Bruno", "he", "his"), ("Chen", "he", "his"), ("Daria", "she", "her"),
    ("Elias", "he", "his"), ("Farah", "she", "her"), ("Goran", "he", "his"), ("Hana", "she", "her"),
    ("Ines", "she", "her"), ("Jonas", "he", "his"), ("Kofi", "he", "his"), ("Lena", "she", "her"),
    ("Mateo", "he", "his"), ("Nadia", "she", "her"), ("Oskar", "he", "his"), ("Priya", "she", "her"),
    ("Rosa", "she", "her"), ("Samir", "he", "his"), ("Tilda", "she", "her"), ("Viktor", "he", "his"),
)  # fmt: skip

_MOST = 20_000


class Scene(NamedTuple):
    """A hand-written template. Texts may hold ``{name}``, ``{they}``, ``{They}``, ``{their}``, ``{thing}``, ``{n}``."""

    things: tuple[str, ...]
    """What is counted, in the plural; one is chosen."""
    start: str
    """The beginning; ``{n}`` is the first quantity."""
    steps: tuple[tuple[str, str], ...]
    """(operation, sentence); operations: ``+``, ``-``, ``*``, ``/`` by ``{n}``. Each is told once at most."""
    question: str


SCENES = (
    Scene(
        ("apples", "pears", "plums"),
        "{name} picks {n} {thing} in the orchard.",
        (
            ("+", "Then {they} finds {n} more {thing} in the shed."),
            ("-", "{They} gives {n} of them to a neighbour."),
            ("*", "Friends bring their own {thing}, and now there are {n} times as many as before."),
            ("/", "{They} packs the {thing} evenly into {n} crates, keeps one crate and sends the others away."),
            ("-", "{They} throws away {n} {thing} that have gone bad."),
            ("+", "On the way home {they} buys {n} {thing} from a farmer."),
        ),
        "How many {thing} does {name} have now?",
    ),
    Scene(
        ("stickers", "stamps", "postcards"),
        "{name} has an album with {n} {thing}.",
        (
            ("+", "{Their} aunt sends {n} more."),
            ("-", "{They} trades away {n} {thing} for a poster."),
            ("*", "{They} inherits so many that the collection becomes {n} times as large."),
            ("/", "{They} divides the collection into {n} equal parts and keeps only one of them."),
            ("+", "At a fair {they} wins another {n} {thing}."),
            ("-", "{Their} brother loses {n} of them."),
        ),
        "How many {thing} are left in the collection of {name}?",
    ),
    Scene(
        ("euros", "dollars"),
        "{name} starts the month with {n} {thing} in {their} account.",
        (
            ("+", "{They} is paid {n} {thing} for painting a fence."),
            ("-", "A new pair of shoes costs {n} {thing}, which {they} pays from the account."),
            ("*", "{They} puts everything into a lucky bet, and the balance becomes {n} times what it was."),
            ("/", "{They} shares the balance evenly with some friends, so that {n} people, {name} included, get the same."),
            ("-", "The phone bill takes {n} {thing} more."),
            ("+", "{Their} grandmother adds {n} {thing} as a present."),
        ),
        "How many {thing} are in the account of {name} in the end?",
    ),
    Scene(
        ("passengers", "people"),
        "We follow a ferry that leaves the harbour with {n} {thing} on board.",
        (
            ("+", "At the first stop {n} {thing} get on."),
            ("-", "At the lighthouse {n} {thing} get off."),
            ("*", "At the big island so many get on that there are {n} times as many {thing} on board as before."),
            ("-", "At the fishing village {n} {thing} leave the ferry."),
            ("+", "At the castle {n} {thing} come on board."),
            ("/", "In a storm the {thing} are moved to {n} smaller boats, the same number in each, and we follow one of them."),
        ),
        "How many {thing} are now on board of the boat that we follow?",
    ),
    Scene(
        ("books", "magazines", "maps"),
        "A small library owns {n} {thing}.",
        (
            ("+", "{name} donates {n} {thing} to it."),
            ("-", "A leaking roof ruins {n} of its {thing}."),
            ("*", "After a merger with the town archive it owns {n} times as many {thing}."),
            ("/", "The {thing} are then spread evenly over {n} branches, and only one branch stays open."),
            ("+", "The mayor pays for {n} new {thing}."),
            ("-", "The library sells {n} {thing} that nobody has asked for in years."),
        ),
        "How many {thing} does the library have now?",
    ),
    Scene(
        ("cookies", "muffins", "pretzels"),
        "{name} bakes {n} {thing} for the school party.",
        (
            ("-", "{Their} dog eats {n} of them."),
            ("+", "{Their} father bakes {n} more."),
            ("*", "{They} reads the guest list again and bakes until there are {n} times as many."),
            ("/", "{They} lays out the {thing} evenly on {n} trays and takes one tray to the party."),
            ("-", "The first guests eat {n} {thing}."),
            ("+", "A guest brings {n} {thing} from a bakery."),
        ),
        "How many {thing} are at the party now?",
    ),
    Scene(
        ("litres of water", "litres of rain water"),
        "A tank in the garden of {name} holds {n} {thing}.",
        (
            ("+", "A night of rain adds {n} litres."),
            ("-", "{name} waters the beans with {n} litres."),
            ("*", "After a week of storms the tank holds {n} times as much as before."),
            ("-", "A crack in the wall lets {n} litres run out."),
            ("/", "{name} pours all of it into {n} barrels, the same amount into each, and uses up all barrels but one."),
            ("+", "A neighbour pumps in {n} litres."),
        ),
        "How many litres of water does {name} have left?",
    ),
    Scene(
        ("sheep", "goats", "cows"),
        "A farmer called {name} owns {n} {thing}.",
        (
            ("+", "In spring {n} young ones are born."),
            ("-", "{They} sells {n} {thing} at the market."),
            ("*", "Years later the herd has grown to {n} times its size."),
            ("/", "{They} divides the herd evenly into {n} herds and keeps only one of them."),
            ("-", "One winter {n} animals of the herd are lost."),
            ("+", "A merchant brings {n} more {thing}."),
        ),
        "How many animals are in the herd of {name} now?",
    ),
    Scene(
        ("points",),
        "In the first round of a game {name} scores {n} {thing}.",
        (
            ("+", "In the next round {they} wins {n} {thing}."),
            ("-", "A foul costs {name} {n} {thing}."),
            ("*", "A bonus card multiplies {their} score by {n}."),
            ("/", "An unlucky card divides {their} score by {n}."),
            ("+", "For a clever move the referee awards {n} extra {thing}."),
            ("-", "{They} pays {n} {thing} for a hint."),
        ),
        "What is the score of {name} now?",
    ),
    Scene(
        ("metres", "steps"),
        "On {their} walk {name} first covers {n} {thing} on a straight road, away from home.",
        (
            ("+", "{They} goes on for another {n} {thing}."),
            ("-", "{They} turns round and walks back {n} {thing}, then turns to face away from home once more."),
            ("*", "{They} keeps going until {they} is {n} times as far from home as before."),
            ("+", "After a rest {they} walks {n} {thing} further."),
            ("-", "{They} has dropped a glove and goes back {n} {thing} to fetch it, and stays there for a while."),
            ("+", "At a signpost {they} decides to walk {n} {thing} more, still away from home."),
        ),
        "How many {thing} from home is {name} now?",
    ),
    Scene(
        ("bricks", "tiles", "planks"),
        "A truck brings {n} {thing} to a building site.",
        (
            ("+", "In the afternoon {n} {thing} are added to the pile."),
            ("-", "The workers use {n} {thing} for a wall."),
            ("*", "Further deliveries make the pile {n} times as large."),
            ("/", "The pile is split evenly between {n} sites, and {name} counts what stays on this one."),
            ("-", "When {name} unloads a pallet, {n} {thing} break."),
            ("+", "{name} finds {n} good {thing} from an older building."),
        ),
        "How many {thing} that can be used are on this site now?",
    ),
    Scene(
        ("seeds", "bulbs"),
        "{name} buys a bag of {n} {thing}.",
        (
            ("+", "{They} adds {n} {thing} from last year."),
            ("-", "Birds steal {n} of the {thing}."),
            ("*", "{They} orders so many that {they} has {n} times as many as before."),
            ("/", "{They} sorts the {thing} evenly into {n} bags and keeps one bag."),
            ("-", "{They} plants {n} {thing} along the path."),
            ("+", "A gardener gives {name} {n} {thing}."),
        ),
        "How many {thing} does {name} still have?",
    ),
    Scene(
        ("photos", "songs", "videos"),
        "{name} has {n} {thing} on {their} phone.",
        (
            ("+", "On a trip {they} saves {n} more."),
            ("-", "{They} deletes {n} {thing} to make room."),
            ("*", "After copying everything from an old phone {they} has {n} times as many {thing} as before."),
            ("/", "{They} sorts the {thing} into {n} folders of equal size and deletes all folders but one."),
            ("+", "{Their} cousin sends {n} {thing}."),
            ("-", "An update damages {n} {thing}, which {they} then removes."),
        ),
        "How many {thing} are on the phone now?",
    ),
    Scene(
        ("lanterns", "candles", "balloons"),
        "For a festival the town prepares {n} {thing}.",
        (
            ("-", "The wind destroys {n} of them."),
            ("+", "The school makes {n} more {thing}."),
            ("*", "The council then decides to have {n} times as many, and they are made."),
            ("/", "The {thing} are shared out evenly among {n} streets, and {name} looks after those of one street."),
            ("-", "Children carry off {n} {thing}."),
            ("+", "A shop adds {n} {thing} for free."),
        ),
        "How many {thing} are still there to be looked after?",
    ),
)


class Word(Levelled):
    """A little story with ``level`` steps and a question about how many there are in the end."""

    family = "math.word"
    top_level = 4

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """A scene, a person, a thing, and ``level`` different steps in an order that works out."""
        scene = pick(rng, SCENES)
        name, they, their = pick(rng, _PEOPLE)
        words = {"name": name, "they": they, "They": they.capitalize(), "their": their, "Their": their.capitalize()}
        words["thing"] = pick(rng, scene.things)
        value = between(rng, 12, 60) * pick(rng, (1, 2, 3, 4, 6))
        told = [scene.start.format(n=value, **words)]
        left = list(range(len(scene.steps)))
        for k in range(self.level):
            i, n, value = _step(rng, scene, left, value, last=k == self.level - 1)
            left.remove(i)
            told.append(scene.steps[i][1].format(n=n, **words))
        told.append(scene.question.format(**words))
        return " ".join(told), value


def _step(rng: np.random.Generator, scene: Scene, left: list[int], value: int, *, last: bool) -> tuple[int, int, int]:
    """A step that is possible now: its place in the scene, its number, and the quantity after it."""
    # a division leaves one share of many, which the sentences of other steps do not fit: it ends the story
    divisors = [d for d in range(2, 10) if value % d == 0 and value // d >= 2] if last else []
    possible = {"+": True, "-": value >= 8, "*": value <= _MOST, "/": bool(divisors)}
    i = pick(rng, [i for i in left if possible[scene.steps[i][0]]])
    operation = scene.steps[i][0]
    if operation == "+":
        n = between(rng, 3, 60)
        return i, n, value + n
    if operation == "-":
        n = between(rng, 3, min(value - 3, 80))
        return i, n, value - n
    if operation == "*":
        n = between(rng, 2, 5)
        return i, n, value * n
    n = pick(rng, divisors)
    return i, n, value // n
