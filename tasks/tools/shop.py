# SPDX-License-Identifier: Apache-2.0
"""The database of a small mail-order shop: its records, what can be done to them, and how a shop is drawn.

The operations enforce what a database enforces: that records exist, that amounts add up, that an order does not go back
in time. The shop's house rules are not enforced here: keeping them is the work of whoever uses the database.

Money is whole cents, dates are ISO texts (``2026-03-14``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from itertools import chain
from typing import Literal, TypeVar

import msgspec
import numpy as np

from agentgym.errors import ToolError

Status = Literal["pending", "packed", "shipped", "delivered", "cancelled"]
"""Stations of an order, in this order; it can be cancelled until it is shipped."""

T = TypeVar("T")


class Customer(msgspec.Struct):
    """Someone who has ordered before."""

    name: str
    email: str
    street: str
    city: str
    zip_code: str
    """Five digits."""


class Product(msgspec.Struct):
    """Something that the shop sells."""

    name: str
    cents: int
    """Today's price of one; orders keep what was paid."""
    stock: int


class Line(msgspec.Struct):
    """One position of an order."""

    product: str
    """Product id."""
    quantity: int
    cents: int
    """Paid for all of the line's pieces together."""
    refunded: int = 0
    """Cents paid back for this line."""


class Payment(msgspec.Struct):
    """How an order was paid."""

    method: str
    cents: int
    """Paid for the whole order: its lines and the shipping."""
    refunded: int = 0
    """Cents paid back, to the same method."""


class Order(msgspec.Struct, omit_defaults=True):
    """What a customer ordered, and where it is."""

    customer: str
    """Customer id."""
    status: Status
    placed: str
    """ISO date."""
    delivered: str | None
    """ISO date; None while the order is not delivered."""
    tracking: str | None
    """The carrier's number; None before shipping."""
    street: str
    city: str
    zip_code: str
    lines: list[Line]
    payment: Payment
    note: str = ""
    """What a supplier or a carrier has written to it."""


class Shop(msgspec.Struct):
    """The database."""

    today: str
    """ISO date."""
    customers: dict[str, Customer]
    """By id, ``C-1``."""
    products: dict[str, Product]
    """By id, ``P-1``."""
    orders: dict[str, Order]
    """By id, ``O-1042``."""
    handed_over: bool = False
    """Whether the conversation was handed over to a colleague."""

    # -- operations; each refuses with a ToolError and then has changed nothing -----------------------------------------

    def order(self, order_id: str) -> Order:
        """The order of that number."""
        if order_id not in self.orders:
            raise ToolError(f"there is no order {order_id[:40]!r}")
        return self.orders[order_id]

    def refund(self, order_id: str, line: int, cents: int) -> str:
        """Pays ``cents`` of line ``line`` (counted from 1) back; never more than was paid and is not yet paid back."""
        order = self.order(order_id)
        if not 1 <= line <= len(order.lines):
            raise ToolError(f"order {order_id} has lines 1 to {len(order.lines)}, not {line}")
        position, payment = order.lines[line - 1], order.payment
        most = min(position.cents - position.refunded, payment.cents - payment.refunded)
        if not 1 <= cents <= most:
            raise ToolError(f"at most {most} cents of line {line} of order {order_id} can be paid back, not {cents}")
        position.refunded += cents
        payment.refunded += cents
        return f"{cents} cents paid back by {payment.method}"

    def cancel(self, order_id: str) -> str:
        """Cancels an order that has not left the house: all is paid back and the goods return to stock."""
        order = self.order(order_id)
        if order.status not in ("pending", "packed"):
            raise ToolError(f"order {order_id} is {order.status}: it can no longer be cancelled")
        order.status = "cancelled"
        order.payment.refunded = order.payment.cents
        for line in order.lines:
            line.refunded = line.cents
            self.products[line.product].stock += line.quantity
        return f"order {order_id} is cancelled, {order.payment.cents} cents paid back by {order.payment.method}"

    def change_address(self, order_id: str, street: str, city: str, zip_code: str) -> str:
        """Sends an order that has not arrived to another address."""
        order = self.order(order_id)
        if order.status in ("delivered", "cancelled"):
            raise ToolError(f"order {order_id} is {order.status}: its address can no longer be changed")
        if not (len(zip_code) == 5 and zip_code.isascii() and zip_code.isdigit()):
            raise ToolError(f"a postcode has five digits, unlike {zip_code[:20]!r}")
        street, city = " ".join(street.split()), " ".join(city.split())
        if not street or not city:
            raise ToolError("street and city must not be empty")
        order.street, order.city, order.zip_code = street, city, zip_code
        return f"order {order_id} goes to {street}, {city}, {zip_code}"

    def hand_over(self) -> str:
        """Passes the conversation on to a colleague."""
        if self.handed_over:
            raise ToolError("the conversation was handed over before")
        self.handed_over = True
        return "a colleague takes over"


def dollars(cents: int) -> str:
    """An amount as a customer reads it: ``$12.50``."""
    return f"${cents // 100}.{cents % 100:02d}"


# -- drawing ----------------------------------------------------------------------------------------------------------


_TWO = np.uint64(2)


class Dice:
    """Many small draws from a few large ones: a numpy call for each would cost more than all the rest of a task."""

    def __init__(self, rng: np.random.Generator) -> None:
        # 62 bits, so that the remainder of a division by a small number is as good as uniform. The raw bits are what
        # `rng.integers(1 << 62)` draws, at a third of its cost
        raw = rng.bit_generator.random_raw
        draws = iter(lambda: (raw(128) >> _TWO).tolist(), None)
        self._next: Callable[[], int] = chain.from_iterable(draws).__next__

    def below(self, n: int) -> int:
        """0 to ``n`` - 1."""
        return self._next() % n

    def between(self, low: int, high: int) -> int:
        """``low`` to ``high``, both included."""
        return low + self._next() % (high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """One of ``choices``."""
        return choices[self._next() % len(choices)]

    def some(self, choices: Sequence[T], k: int) -> list[T]:
        """``k`` different ones of ``choices``, in random order."""
        rest = list(choices)
        return [rest.pop(self._next() % len(rest)) for _ in range(k)]


_GOODS = (
    "desk lamp", "wool blanket", "tea kettle", "garden shears", "picture frame", "rain jacket", "chess set",
    "bread knife", "wall clock", "watering can", "pillow case", "bicycle bell", "coffee grinder", "bird feeder",
)  # fmt: skip
_FIRST = ("Ada", "Bruno", "Chloe", "Dario", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Lamin")
_LAST = ("Abbot", "Berger", "Castro", "Dogan", "Ekberg", "Fontaine", "Gruber", "Haddad", "Ito", "Jansen", "Kowal", "Lund")
_STREETS = ("Alder Road", "Brook Lane", "Canal Street", "Dove Hill", "Elm Court", "Ferry Street", "Grove Way", "High Street")
_CITIES = ("Ashby", "Brinton", "Colwick", "Dunmore", "Easton", "Farnley")
_METHODS = ("card", "bank transfer", "wallet")

CUSTOMERS = 3
PRODUCTS = 6
_LINES = 3
_FIRST_DAY = date(2026, 1, 1).toordinal()


def address(dice: Dice) -> tuple[str, str, str]:
    """A street with number, a city and a postcode."""
    return f"{dice.between(1, 99)} {dice.pick(_STREETS)}", dice.pick(_CITIES), str(dice.between(10_000, 99_999))


def people(dice: Dice, n: int) -> list[str]:
    """``n`` different names, at most twelve."""
    return [f"{first} {last}" for first, last in zip(dice.some(_FIRST, n), dice.some(_LAST, n), strict=True)]


def new_shop(dice: Dice) -> Shop:
    """A shop with customers and products and without orders."""
    today = date.fromordinal(_FIRST_DAY + 200 + dice.below(2000)).isoformat()
    customers = {}
    for i, (first, last) in enumerate(zip(dice.some(_FIRST, CUSTOMERS), dice.some(_LAST, CUSTOMERS), strict=True), 1):
        customers[f"C-{i}"] = Customer(f"{first} {last}", f"{first}.{last}@example.org".lower(), *address(dice))
    products = {
        f"P-{i}": Product(name, 25 * dice.between(20, 400), dice.below(50))
        for i, name in enumerate(dice.some(_GOODS, PRODUCTS), 1)
    }
    return Shop(today, customers, products, {})


def order_numbers(dice: Dice, n: int) -> list[str]:
    """``n`` different order ids, ascending."""
    number, numbers = 1000 + dice.below(8000), []
    for _ in range(n):
        number += dice.between(1, 9)
        numbers.append(f"O-{number}")
    return numbers


def new_order(dice: Dice, shop: Shop, customer: str, status: Status, days: int) -> Order:
    """An order of that customer that reached ``status`` so many days ago; nothing of it is paid back."""
    today = date.fromisoformat(shop.today).toordinal()
    under_way = {"pending": 0, "packed": 1, "shipped": 3, "delivered": 6, "cancelled": 1}[status]
    lines = []
    for product in dice.some(list(shop.products), dice.between(1, _LINES)):
        quantity = dice.pick((1, 1, 1, 2, 3))
        # a tenth of them was on sale: what was paid is to be read from the order, not from today's price
        price = shop.products[product].cents * (100 if dice.below(3) else 90) // 100
        lines.append(Line(product, quantity, quantity * price))
    paid = sum(line.cents for line in lines) + dice.pick((0, 495, 695))
    home = shop.customers[customer]
    order = Order(
        customer,
        status,
        placed=date.fromordinal(today - days - under_way).isoformat(),
        delivered=date.fromordinal(today - days).isoformat() if status == "delivered" else None,
        tracking=f"PX-{dice.between(100_000, 999_999)}" if status in ("shipped", "delivered") else None,
        street=home.street,
        city=home.city,
        zip_code=home.zip_code,
        lines=lines,
        payment=Payment(dice.pick(_METHODS), paid, paid if status == "cancelled" else 0),
    )
    if status == "cancelled":
        for line in lines:
            line.refunded = line.cents
    return order
