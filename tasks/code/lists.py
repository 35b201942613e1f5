# SPDX-License-Identifier: Apache-2.0
"""Templates of functions over lists, numbers and tables."""

from __future__ import annotations

import numpy as np

from agentgym.tasks.code.problem import Problem, between, code, numbers, pick, words

_TESTS = {
    "even": ("is even", "x % 2 == 0"),
    "odd": ("is odd", "x % 2 == 1"),
    "positive": ("is above 0", "x > 0"),
    "negative": ("is below 0", "x < 0"),
    "third": ("is divisible by 3", "x % 3 == 0"),
    "small": ("is at most 10", "x <= 10"),
    "large": ("is above 10", "x > 10"),
}
_MAPS = {
    "square": ("squared", "x * x"),
    "double": ("doubled", "2 * x"),
    "distance": ("replaced by its distance from 10", "abs(x - 10)"),
    "negate": ("negated", "-x"),
    "last": ("replaced by the last decimal digit of its absolute value", "abs(x) % 10"),
}
_REDUCE = {
    "total": ("their sum", "sum(kept)"),
    "count": ("how many different values there are among them", "len(set(kept))"),
    "largest": ("the largest of them, or 0 if there is none", "max(kept, default=0)"),
    "smallest": ("the smallest of them, or 0 if there is none", "min(kept, default=0)"),
    "span": ("the largest less the smallest of them, or 0 if there is none", "max(kept) - min(kept) if kept else 0"),
}


def select(rng: np.random.Generator, level: int) -> Problem:
    """Keep, change, reduce."""
    first, second = (str(n) for n in rng.permutation(sorted(_TESTS))[:2])
    change, reduce = pick(rng, sorted(_MAPS)), pick(rng, sorted(_REDUCE))
    says, test = _TESTS[first]
    if level == 3:
        join = pick(rng, ("and", "or"))
        says = f"{says} {join} {_TESTS[second][0]}"
        test = f"({test}) {join} ({_TESTS[second][1]})"
    step = "" if level == 1 else f", {_MAPS[change][0]}"
    value = "x" if level == 1 else _MAPS[change][1]
    return Problem(
        f"{reduce}_of_{first}" + ("" if level == 1 else f"_{change}"),
        "numbers: list[int]",
        "int",
        f"Take every number of the list that {says}{step}, and return {_REDUCE[reduce][0]}.",
        f"kept = [{value} for x in numbers if {test}]\nreturn {_REDUCE[reduce][1]}",
        lambda r: (numbers(r, 9),),
        (([],), ([7],), ([-6, 12, 12],)),
    )


def chunks(rng: np.random.Generator, level: int) -> Problem:
    """Parts of a list."""
    k = between(rng, 2, 4)
    if level == 1:
        side = pick(rng, ("left", "right"))
        return Problem(
            f"turn_{side}",
            "items: list[int], steps: int",
            "list[int]",
            f"Return a new list with the items moved {side} by `steps` places, those that fall off coming back at the other "
            "end. `steps` is 0 or more and may be more than the length.",
            code(
                """
                if not items:
                    return []
                at = steps % len(items)
                return items[$at:] + items[:$at]
                """,
                at="at" if side == "left" else "len(items) - at",
            ),
            lambda r: (numbers(r, 7, 0, 20), between(r, 0, 12)),
            (([], 3), ([5], 4), ([1, 2, 3], 3)),
        )
    if level == 2:
        which = pick(rng, ("first", "second"))
        return Problem(
            f"reverse_{which}_blocks",
            "items: list[int]",
            "list[int]",
            f"Cut the list into blocks of {k} items (the last one may be shorter). Reverse every other block, beginning with "
            f"the {which} one, and return all items in one list.",
            code(
                """
                result = []
                for number, start in enumerate(range(0, len(items), $k)):
                    block = items[start : start + $k]
                    result += block[::-1] if number % 2 == $first else block
                return result
                """,
                k=k,
                first=int(which == "second"),
            ),
            lambda r: (numbers(r, 11, 0, 30),),
            (([],), ([1],), (list(range(2 * k + 1)),)),
        )
    what, test = pick(rng, (("rises all the way", "<"), ("falls all the way", ">")))
    return Problem(
        f"longest_run_{'up' if test == '<' else 'down'}",
        "items: list[int], slack: int",
        "int",
        f"Return the length of the longest stretch of neighbouring items that {what}. At most `slack` times in a stretch an "
        "item may equal the one before it. The empty list gives 0.",
        code(
            """
            best = 0
            for start in range(len(items)):
                equal = 0
                end = start + 1
                while end < len(items):
                    if items[end] == items[end - 1]:
                        equal += 1
                        if equal > slack:
                            break
                    elif not items[end - 1] $test items[end]:
                        break
                    end += 1
                best = max(best, end - start)
            return best
            """,
            test=test,
        ),
        lambda r: (numbers(r, 10, 0, 5), between(r, 0, 2)),
        (([], 0), ([3], 0), ([2, 2, 2, 2], 1)),
    )


def grouping(rng: np.random.Generator, level: int) -> Problem:
    """Dictionaries of what belongs together."""
    says, key = pick(
        rng,
        (
            ("first letter", "word[0]"),
            ("last letter", "word[-1]"),
            ("length", "len(word)"),
            ("number of vowels (a, e, i, o, u)", "sum(c in 'aeiou' for c in word)"),
        ),
    )
    key_type = "str" if key.startswith("word[") else "int"
    if level == 1:
        return Problem(
            pick(rng, ("tally", "count_by", "histogram")),
            "words: list[str]",
            f"dict[{key_type}, int]",
            f"Count the words by {says}: return a dictionary from that to the number of words. No word is empty.",
            code(
                """
                result = {}
                for word in words:
                    key = $key
                    result[key] = result.get(key, 0) + 1
                return result
                """,
                key=key,
            ),
            lambda r: (words(r, 8),),
            (([],), (["oak"],)),
        )
    least = between(rng, 2, 3)
    if level == 2:
        return Problem(
            pick(rng, ("gather", "group_words", "bundle")),
            "words: list[str]",
            f"dict[{key_type}, list[str]]",
            f"Group the words by {says}. Leave out groups of fewer than {least} words. Within a group words are in alphabetical "
            "order, and a word that occurs twice stands there twice. No word is empty.",
            code(
                """
                groups = {}
                for word in words:
                    groups.setdefault($key, []).append(word)
                return {k: sorted(g) for k, g in groups.items() if len(g) >= $least}
                """,
                key=key,
                least=least,
            ),
            lambda r: (words(r, 12, 3),),
            (([],), (["oak", "oak", "oak"],)),
        )
    order = pick(rng, ("largest", "smallest"))
    return Problem(
        pick(rng, ("standings", "leaders", "podium")),
        "sales: list[tuple[str, int]], places: int",
        "list[str]",
        "`sales` holds pairs of a name and an amount, which may be negative. Add up the amounts of each name, and return the "
        f"names of the `places` {order} sums, the {order} first. Where sums are equal, the name with more pairs comes first, "
        "then the one that comes first in the alphabet. Names whose sum is 0 are left out.",
        code(
            """
            sums, counts = {}, {}
            for name, amount in sales:
                sums[name] = sums.get(name, 0) + amount
                counts[name] = counts.get(name, 0) + 1
            names = [n for n in sums if sums[n] != 0]
            names.sort(key=lambda n: ($sign sums[n], -counts[n], n))
            return names[:places]
            """,
            sign="-" if order == "largest" else "",
        ),
        lambda r: ([(w, between(r, -3, 6)) for w in words(r, 3, 2) for _ in range(between(r, 1, 3))], between(r, 1, 3)),
        (([], 2), ([("oak", 1), ("elm", 1)], 1), ([("oak", 2), ("oak", -2)], 1)),
    )


def intervals(rng: np.random.Generator, level: int) -> Problem:
    """Stretches on a line."""

    def draw(r: np.random.Generator) -> list[tuple[int, int]]:
        starts = [between(r, 0, 20) for _ in range(between(r, 0, 5))]
        return [(s, s + between(r, 1, 6)) for s in starts]

    noun = pick(rng, ("stretches", "spans", "slots"))
    about = f"`{noun}` holds pairs (start, end) with start < end; the end is not part of it. They may overlap, in any order. "
    edges = (([],), ([(0, 3), (3, 5)],), ([(2, 9), (3, 4)],))
    merge = """
        merged = []
        for start, end in sorted($noun):
            if merged and start <= merged[-1][1] + $gap:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        """
    if level == 1:
        return Problem(
            pick(rng, ("covered", "total_length")),
            f"{noun}: list[tuple[int, int]]",
            "int",
            f"{about}Return how long they are together, counting what several cover once.",
            code(merge, noun=noun, gap=0) + "\nreturn sum(end - start for start, end in merged)",
            lambda r: (draw(r),),
            edges,
        )
    gap = between(rng, 1, 3)
    if level == 2:
        return Problem(
            f"join_{noun}",
            f"{noun}: list[tuple[int, int]]",
            "list[tuple[int, int]]",
            f"{about}Join those that overlap, touch, or have at most {gap} between them, and return the result in order.",
            code(merge, noun=noun, gap=gap) + "\nreturn merged",
            lambda r: (draw(r),),
            edges,
        )
    least = between(rng, 2, 4)
    return Problem(
        f"gaps_between_{noun}",
        f"{noun}: list[tuple[int, int]], begin: int, end: int",
        "list[tuple[int, int]]",
        f"{about}Return in order the pairs (start, end) of what lies between `begin` and `end` and is covered by none of them, "
        f"as far as it is at least {least} long.",
        code(
            """
            free, at = [], begin
            for start, stop in sorted($noun):
                if min(start, end) - at >= $least:
                    free.append((at, min(start, end)))
                at = max(at, stop)
            if end - at >= $least:
                free.append((at, end))
            return free
            """,
            noun=noun,
            least=least,
        ),
        lambda r: (draw(r), between(r, 0, 5), between(r, 15, 30)),
        (([], 0, 9), ([(0, 30)], 2, 20), ([(5, 8)], 5, 8)),
    )


def grid(rng: np.random.Generator, level: int) -> Problem:
    """Tables of numbers."""

    def draw(r: np.random.Generator) -> list[list[int]]:
        width = between(r, 1, 4)
        return [[between(r, -3, 9) for _ in range(width)] for _ in range(between(r, 1, 4))]

    about = "`table` is a list of rows of equal length, at least one row and one column. "
    if level == 1:
        axis = pick(rng, ("row", "column"))
        says, reduce = pick(rng, (("sum", "sum(line)"), ("largest number", "max(line)"), ("smallest number", "min(line)")))
        return Problem(
            f"{axis}_{reduce[:3]}",
            "table: list[list[int]]",
            "list[int]",
            f"{about}Return the {says} of each {axis}, in order.",
            f"lines = {'table' if axis == 'row' else 'zip(*table)'}\nreturn [{reduce} for line in lines]",
            lambda r: (draw(r),),
            (([[4]],), ([[1, 2], [3, -1]],)),
        )
    if level == 2:
        says, turn = pick(
            rng,
            (
                ("turned by a quarter to the right", "zip(*table[::-1])"),
                ("turned by a quarter to the left", "list(zip(*table))[::-1]"),
                ("mirrored along the diagonal from top left to bottom right", "zip(*table)"),
            ),
        )
        k = between(rng, 2, 4)
        return Problem(
            pick(rng, ("turned", "flip_table", "reshape")),
            "table: list[list[int]]",
            "list[list[int]]",
            f"{about}Return the table {says}, with every negative number replaced by 0 and every other one multiplied by {k}.",
            f"return [[max(x, 0) * {k} for x in row] for row in {turn}]",
            lambda r: (draw(r),),
            (([[4]],), ([[1, 2], [3, -1]],)),
        )
    test, says = pick(rng, ((">", "larger"), ("<", "smaller")))
    edge = pick(rng, ("up, down, left and right", "in all eight directions"))
    near = "abs(i - r) + abs(j - c) == 1" if edge.startswith("up") else "max(abs(i - r), abs(j - c)) == 1"
    return Problem(
        pick(rng, ("peaks", "standouts", "count_cells")),
        "table: list[list[int]]",
        "int",
        f"{about}Count the cells whose number is {says} than those of all their neighbours {edge}. Beyond the border there are "
        "no neighbours; a cell without any counts.",
        code(
            """
            count = 0
            for r, row in enumerate(table):
                for c, value in enumerate(row):
                    near = [x for i, line in enumerate(table) for j, x in enumerate(line) if $near]
                    count += all(value $test x for x in near)
            return count
            """,
            near=near,
            test=test,
        ),
        lambda r: (draw(r),),
        (([[4]],), ([[1, 1], [1, 1]],)),
    )


def recurrence(rng: np.random.Generator, level: int) -> Problem:
    """Numbers defined by earlier numbers."""
    a, b, c, m = between(rng, 2, 4), between(rng, 1, 5), between(rng, 1, 3), pick(rng, (97, 101, 1009))
    name = pick(rng, ("term", "member", "series_at", "nth"))
    about = "A series is defined by "
    if level == 1:
        return Problem(
            name, "n: int", "int",
            f"{about}f(0) = {b} and f(n) = {a} * f(n - 1) - {c}. Return f(n) for an n of 0 or more.",
            f"value = {b}\nfor _ in range(n):\n    value = {a} * value - {c}\nreturn value",
            lambda r: (between(r, 0, 15),), ((0,), (1,)),
        )  # fmt: skip
    if level == 2:
        return Problem(
            name, "n: int", "int",
            f"{about}f(0) = {b}, f(1) = {c} and f(n) = ({a} * f(n - 1) + f(n - 2)) mod {m}. Return f(n); n may be large, up to "
            "100000.",
            code(
                """
                x, y = $b, $c
                for _ in range(n):
                    x, y = y, ($a * y + x) % $m
                return x
                """,
                a=a, b=b, c=c, m=m,
            ),
            lambda r: (between(r, 0, 400),), ((0,), (1,), (2,), (50000,)),
        )  # fmt: skip
    return Problem(
        name, "n: int", "int",
        f"{about}f(0) = {b}; for an even n above 0 it is f(n) = f(n / 2) + {c}, for an odd n it is "
        f"f(n) = ({a} * f((n - 1) / 2) + f((n - 1) / 4, rounded down)) mod {m}. Return f(n); n may have up to 15 digits.",
        code(
            """
            if n == 0:
                return $b
            known = {}

            def f(k):
                if k == 0:
                    return $b
                if k not in known:
                    if k % 2 == 0:
                        known[k] = f(k // 2) + $c
                    else:
                        known[k] = ($a * f((k - 1) // 2) + f((k - 1) // 4)) % $m
                return known[k]

            return f(n)
            """,
            a=a, b=b, c=c, m=m,
        ),
        lambda r: (between(r, 0, 10 ** between(r, 1, 12)),), ((0,), (1,), (2,), (10**15 - 1,)),
    )  # fmt: skip


def digits(rng: np.random.Generator, level: int) -> Problem:
    """Numbers by their digits."""
    base = between(rng, 3, 9)
    if level == 1:
        says, test = pick(rng, (("even", "% 2 == 0"), ("odd", "% 2 == 1"), ("above 4", "> 4"), ("below 5", "< 5")))
        return Problem(
            pick(rng, ("digit_sum", "add_digits")), "n: int", "int",
            f"Return the sum of those decimal digits of n (0 or more) that are {says}.",
            f"return sum(int(d) for d in str(n) if int(d) {test})",
            lambda r: (between(r, 0, 10 ** between(r, 1, 9)),), ((0,), (7,), (1234567890,)),
        )  # fmt: skip
    if level == 2:
        return Problem(
            pick(rng, ("in_base", "write_number")), "n: int", "str",
            f"Write n in base {base}, most significant digit first, with a minus sign in front where it is negative; and a "
            "point after every third digit, counted from the right, where more digits follow on the left.",
            code(
                """
                if n == 0:
                    return "0"
                left, shown, count = abs(n), "", 0
                while left:
                    if count and count % 3 == 0:
                        shown = "." + shown
                    shown = str(left % $base) + shown
                    left //= $base
                    count += 1
                return ("-" if n < 0 else "") + shown
                """,
                base=base,
            ),
            lambda r: (between(r, -(10 ** between(r, 1, 6)), 10 ** between(r, 1, 6)),), ((0,), (base**3,), (-(base**3) + 1,)),
        )  # fmt: skip
    factor = between(rng, 3, 9)
    return Problem(
        pick(rng, ("next_number", "following")), "n: int", "int",
        f"Return the least whole number above n (0 to 100000) whose decimal digits are all different and whose digit sum is "
        f"divisible by {factor}.",
        code(
            """
            x = n + 1
            while len(set(str(x))) < len(str(x)) or sum(map(int, str(x))) % $factor != 0:
                x += 1
            return x
            """,
            factor=factor,
        ),
        lambda r: (between(r, 0, 10 ** between(r, 1, 4)),), ((0,), (9,), (9876,)),
    )  # fmt: skip


def coins(rng: np.random.Generator, level: int) -> Problem:
    """Sums made of parts."""
    parts = sorted({1, *(between(rng, 2, 12) for _ in range(3))})
    noun = pick(rng, ("coins", "stamps", "weights"))
    if level == 1:
        return Problem(
            f"{noun}_by_size", "amount: int", "list[int]",
            f"There are {noun} of {', '.join(map(str, parts))}, as many as needed. Make up `amount` (0 or more) by taking the "
            "largest that still fits, again and again. Return what was taken, in that order.",
            code(
                """
                taken = []
                for part in $parts:
                    taken += [part] * (amount // part)
                    amount %= part
                return taken
                """,
                parts=parts[::-1],
            ),
            lambda r: (between(r, 0, 60),), ((0,), (1,)),
        )  # fmt: skip
    if level == 2:
        return Problem(
            f"fewest_{noun}", f"{noun}: list[int], amount: int", "int",
            f"Return the least number of {noun} that make up `amount` (0 or more), each used as often as needed, or -1 if they "
            "cannot. Their values are above 0.",
            code(
                """
                best = [0] + [None] * amount
                for total in range(1, amount + 1):
                    ways = [best[total - x] for x in $noun if x <= total and best[total - x] is not None]
                    best[total] = min(ways) + 1 if ways else None
                return -1 if best[amount] is None else best[amount]
                """,
                noun=noun,
            ),
            lambda r: (sorted({between(r, 2, 12) for _ in range(3)}), between(r, 0, 50)),
            (([5], 0), ([4, 6], 7), ([1, 5, 6, 9], 11)),
        )  # fmt: skip
    most = between(rng, 2, 3)
    return Problem(
        f"ways_with_{noun}", f"{noun}: list[int], amount: int", "int",
        f"In how many ways can `amount` be made of the {noun}, each value used at most {most} times? The order does not matter; "
        "the values are different and above 0. There is one way to make 0.",
        code(
            """
            ways = [1] + [0] * amount
            for x in $noun:
                ways = [sum(ways[t - k * x] for k in range($most + 1) if k * x <= t) for t in range(amount + 1)]
            return ways[amount]
            """,
            noun=noun, most=most,
        ),
        lambda r: (sorted({between(r, 1, 9) for _ in range(5)}), between(r, 0, 25)),
        (([], 0), ([], 3), ([2], 6)),
    )  # fmt: skip


TEMPLATES = {
    "select": select,
    "chunks": chunks,
    "grouping": grouping,
    "intervals": intervals,
    "grid": grid,
    "recurrence": recurrence,
    "digits": digits,
    "coins": coins,
}
"""By name."""
