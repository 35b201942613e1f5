# SPDX-License-Identifier: Apache-2.0
"""The tools of tau-bench's airline (Yao et al. 2024), as its published episodes show them, over a state of plain values.

Written from the behaviour that is on record: which calls were refused and in which words, and what each call returned. The
state is ``{"users": ..., "reservations": ...}``; flights never change and are handed over apart.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from agentgym.errors import ToolError
from agentgym.evaluators.replay import Tools

WRITES = (
    "book_reservation", "cancel_reservation", "update_reservation_flights", "update_reservation_baggages",
    "update_reservation_passengers", "send_certificate",
)  # fmt: skip
READS = (
    "get_reservation_details", "get_user_details", "search_direct_flight", "search_onestop_flight", "list_all_airports",
    "calculate", "think",
)  # fmt: skip
TRANSFERS = ("transfer_to_human_agents",)
LOOKS = ("get_reservation_details", "get_user_details")

State = dict[str, Any]


def airline(flights: dict[str, Any]) -> Tools:
    """The tools over these flights."""

    def carry_out(state: State, name: str, arguments: dict[str, Any]) -> object:
        tool: Callable[..., object] | None = getattr(_Desk, name, None) if name in WRITES + LOOKS else None
        if tool is None:
            if name in READS + TRANSFERS:
                return None  # they change nothing, and what they show is not compared
            raise ToolError(f"there is no tool {name!r}")
        try:
            return tool(_Desk(state, flights), **arguments)
        except (TypeError, KeyError) as e:  # an argument too many, too few, or of another kind
            raise ToolError(f"{type(e).__name__}: {e}") from e

    return carry_out


class _Desk:
    def __init__(self, state: State, flights: dict[str, Any]) -> None:
        self.users, self.reservations, self.flights = state["users"], state["reservations"], flights

    def _user(self, user_id: str) -> dict[str, Any]:
        if user_id not in self.users:
            raise ToolError("user not found")
        user: dict[str, Any] = self.users[user_id]
        return user

    def _reservation(self, reservation_id: str) -> dict[str, Any]:
        if reservation_id not in self.reservations:
            raise ToolError("reservation not found")
        reservation: dict[str, Any] = self.reservations[reservation_id]
        return reservation

    def get_user_details(self, user_id: str) -> object:
        return self._user(user_id)

    def get_reservation_details(self, reservation_id: str) -> object:
        return self._reservation(reservation_id)

    def _leg(self, number: str, date: str, cabin: str, seats: int) -> dict[str, Any]:
        """A flight on a day: its price in that cabin, and where it goes."""
        if number not in self.flights:
            raise ToolError(f"flight {number} not found")
        flight = self.flights[number]
        day = flight["dates"].get(date)
        if day is None:
            raise ToolError(f"flight {number} not found on date {date}")
        if day["status"] != "available":
            raise ToolError(f"flight {number} not available on date {date}")
        if day["available_seats"][cabin] < seats:
            raise ToolError(f"not enough seats on flight {number}")
        return {"price": day["prices"][cabin], "origin": flight["origin"], "destination": flight["destination"]}

    def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: str,
        cabin: str,
        flights: list[dict[str, Any]],
        passengers: list[dict[str, Any]],
        payment_methods: list[dict[str, Any]],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: str,
    ) -> object:
        user = self._user(user_id)
        legs = [{**f, **self._leg(f["flight_number"], f["date"], cabin, len(passengers))} for f in flights]
        price = (sum(leg["price"] for leg in legs) + 30 * (insurance == "yes")) * len(passengers) + 50 * nonfree_baggages
        for paid in payment_methods:
            method = user["payment_methods"].get(paid["payment_id"])
            if method is None:
                raise ToolError(f"payment method {paid['payment_id']} not found")
            if method["source"] in ("gift_card", "certificate") and method["amount"] < paid["amount"]:
                raise ToolError(f"not enough balance in payment method {paid['payment_id']}")
        total = sum(paid["amount"] for paid in payment_methods)
        if total != price:
            raise ToolError(f"payment amount does not add up, total price is {price}, but paid {total}")
        for paid in payment_methods:
            method = user["payment_methods"][paid["payment_id"]]
            if method["source"] == "gift_card":
                method["amount"] -= paid["amount"]
            elif method["source"] == "certificate":
                del user["payment_methods"][paid["payment_id"]]
        number = next(n for n in ("HATHAT", "HATHAU", "HATHAV") if n not in self.reservations)
        self.reservations[number] = {
            "reservation_id": number, "user_id": user_id, "origin": origin, "destination": destination,
            "flight_type": flight_type, "cabin": cabin, "flights": legs, "passengers": copy.deepcopy(passengers),
            "payment_history": copy.deepcopy(payment_methods), "created_at": "2024-05-15T15:00:00",
            "total_baggages": total_baggages, "nonfree_baggages": nonfree_baggages, "insurance": insurance,
        }  # fmt: skip
        user["reservations"].append(number)
        return self.reservations[number]

    def cancel_reservation(self, reservation_id: str) -> object:
        reservation = self._reservation(reservation_id)
        history = reservation["payment_history"]
        history += [{"payment_id": p["payment_id"], "amount": -p["amount"]} for p in history]
        reservation["status"] = "cancelled"
        return reservation

    def _charge(self, reservation: dict[str, Any], payment_id: str, price: int) -> dict[str, Any]:
        method = self.users[reservation["user_id"]]["payment_methods"].get(payment_id)
        if method is None:
            raise ToolError("payment method not found")
        if method["source"] == "certificate":
            raise ToolError("certificate cannot be used to update reservation")
        if method["source"] == "gift_card" and method["amount"] < price:
            raise ToolError("gift card balance is not enough")
        found: dict[str, Any] = method
        return found

    def update_reservation_flights(
        self, reservation_id: str, cabin: str, flights: list[dict[str, Any]], payment_id: str
    ) -> object:
        reservation = self._reservation(reservation_id)
        seats = len(reservation["passengers"])
        legs = []
        for f in flights:
            booked = [
                b for b in reservation["flights"]
                if (b["flight_number"], b["date"]) == (f["flight_number"], f["date"]) and cabin == reservation["cabin"]
            ]  # fmt: skip
            if booked:
                leg = {k: booked[0][k] for k in ("price", "origin", "destination")}
            else:
                leg = self._leg(f["flight_number"], f["date"], cabin, seats)
            legs.append({**f, **leg})
        price = (sum(leg["price"] for leg in legs) - sum(b["price"] for b in reservation["flights"])) * seats
        method = self._charge(reservation, payment_id, price)
        if method["source"] == "gift_card":
            method["amount"] -= price
        reservation["flights"] = legs  # the cabin stays what it was: so it is on record
        if price:
            reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
        return reservation

    def update_reservation_baggages(
        self, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
    ) -> object:
        reservation = self._reservation(reservation_id)
        price = 50 * max(0, nonfree_baggages - reservation["nonfree_baggages"])
        method = self._charge(reservation, payment_id, price)
        if method["source"] == "gift_card":
            method["amount"] -= price
        reservation["total_baggages"], reservation["nonfree_baggages"] = total_baggages, nonfree_baggages
        if price:
            reservation["payment_history"].append({"payment_id": payment_id, "amount": price})
        return reservation

    def update_reservation_passengers(self, reservation_id: str, passengers: list[dict[str, Any]]) -> object:
        reservation = self._reservation(reservation_id)
        if len(passengers) != len(reservation["passengers"]):
            raise ToolError("number of passengers does not match")
        reservation["passengers"] = copy.deepcopy(passengers)
        return reservation

    def send_certificate(self, user_id: str, amount: int) -> object:
        methods = self._user(user_id)["payment_methods"]
        number = next(n for i in (3221322, 3221323, 3221324) if (n := f"certificate_{i}") not in methods)
        methods[number] = {"source": "certificate", "amount": amount, "id": number}
        return f"Certificate {number} added to user {user_id} with amount {amount}."


def published_hash(state: State, flights: dict[str, Any]) -> str:
    """The hash of a state as tau-bench publishes it: SHA-256 of the text of nested, sorted tuples."""
    return hashlib.sha256(str(_tuples({**state, "flights": flights})).encode()).hexdigest()


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((k, _tuples(v)) for k, v in sorted(value.items()))
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
