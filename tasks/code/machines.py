# SPDX-License-Identifier: Apache-2.0
"""Templates of functions that follow rules step by step: robots, machines, nested lists, queues."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentgym.tasks.code.problem import Problem, between, code, letters, numbers, pick, words


def robot(rng: np.random.Generator, level: int) -> Problem:
    """Moves on a plane."""
    name = pick(rng, ("walk", "drive", "follow"))
    if level == 1:
        up, down, left, right = pick(rng, ("NSWE", "UDLR", "^v<>"))
        size = between(rng, 1, 3)
        return Problem(
            name, "moves: str", "tuple[int, int]",
            f"A robot stands at (0, 0). {up} takes it {size} up (y grows), {down} {size} down, {left} and {right} 1 to the left "
            "and to the right (x grows to the right). Return (x, y) after all moves.",
            code(
                """
                x = moves.count("$right") - moves.count("$left")
                y = $size * (moves.count("$up") - moves.count("$down"))
                return x, y
                """,
                up=up, down=down, left=left, right=right, size=size,
            ),
            lambda r: (letters(r, up + down + left + right, 12),), (("",), (up + right + down + left,)),
        )  # fmt: skip
    faces = pick(rng, (("up", 0), ("right", 1), ("down", 2), ("left", 3)))
    table = "[(0, 1), (1, 0), (0, -1), (-1, 0)]"
    about = (
        f"A robot stands at (0, 0) and faces {faces[0]} (x grows to the right, y grows up). F takes it one step ahead, L and R "
        "turn it by a quarter to the left and to the right on the spot"
    )
    if level == 2:
        return Problem(
            name, "moves: str", "tuple[int, int]",
            f"{about}; a digit repeats the move in front of it so many further times. The first move is no digit, and no digit "
            "follows a digit. Return (x, y) after all moves.",
            code(
                """
                steps, heading, x, y = $table, $heading, 0, 0
                before = ""
                for c in moves:
                    move, times = (before, int(c)) if c.isdigit() else (c, 1)
                    before = move
                    for _ in range(times):
                        if move == "F":
                            x, y = x + steps[heading][0], y + steps[heading][1]
                        else:
                            heading = (heading + (1 if move == "R" else 3)) % 4
                return x, y
                """,
                table=table, heading=faces[1],
            ),
            lambda r: ("".join(pick(r, "FFLR") + pick(r, ("", "", "0", "2", "3")) for _ in range(between(r, 0, 9))),),
            (("",), ("F3",), ("R2F",)),
        )  # fmt: skip
    half = between(rng, 2, 4)
    return Problem(
        name, "moves: str, walls: list[tuple[int, int]]", "tuple[int, int, int]",
        f"{about}. It never leaves the square in which x and y lie between -{half} and {half}, nor enters one of the cells "
        "`walls`: where it cannot go ahead it stays, and turns by a quarter to the right instead. Return x, y and how many "
        "different cells it has stood on.",
        code(
            """
            steps, heading, x, y = $table, $heading, 0, 0
            seen = {(0, 0)}
            for move in moves:
                if move == "F":
                    there = x + steps[heading][0], y + steps[heading][1]
                    if there in walls or max(abs(there[0]), abs(there[1])) > $half:
                        heading = (heading + 1) % 4
                    else:
                        x, y = there
                        seen.add(there)
                else:
                    heading = (heading + (1 if move == "R" else 3)) % 4
            return x, y, len(seen)
            """,
            table=table, heading=faces[1], half=half,
        ),
        lambda r: (
            letters(r, "FFFLR", 18),
            [c for c in ((between(r, -half, half), between(r, -half, half)) for _ in range(between(r, 0, 4))) if c != (0, 0)],
        ),
        (("", []), ("F" * 10, []), ("FFRFF", [(0, 1), (1, 0)])),
    )  # fmt: skip


def machine(rng: np.random.Generator, level: int) -> Problem:
    """Small machines that take commands."""
    name = pick(rng, ("execute", "operate", "simulate"))
    k = between(rng, 2, 5)
    if level == 1:
        top = between(rng, 6, 12)
        return Problem(
            name, "commands: list[str]", "int",
            f"A counter begins at 0. 'up' adds 1, 'down' takes away 1, 'jump' adds {k}, 'reset' sets it to 0. After each command "
            f"a counter below 0 becomes 0 and one above {top} becomes {top}. Return its value at the end.",
            code(
                """
                value = 0
                for c in commands:
                    value = 0 if c == "reset" else value + {"up": 1, "down": -1, "jump": $k}[c]
                    value = min(max(value, 0), $top)
                return value
                """,
                k=k, top=top,
            ),
            lambda r: ([pick(r, ("up", "up", "down", "jump", "jump", "reset")) for _ in range(between(r, 0, 12))],),
            (([],), (["down", "up"],), (["jump"] * 6,)),
        )  # fmt: skip
    if level == 2:
        dup, swap = pick(rng, (("dup", "swap"), ("copy", "flip"), ("twice", "turn")))

        def program(r: np.random.Generator) -> str:
            return " ".join(
                pick(r, (str(between(r, -9, 9)), str(between(r, 0, 9)), "+", "*", dup, swap)) for _ in range(between(r, 0, 10))
            )

        return Problem(
            name, "program: str", "list[int]",
            f"A program is words with spaces between them. A whole number goes onto the stack; + and * take two numbers off and "
            f"put their sum or product on; {dup} puts the top number on once more; {swap} exchanges the two top numbers. A word "
            "that lacks the numbers it needs does nothing. Return the stack at the end, its top last.",
            code(
                """
                stack = []
                for word in program.split():
                    if word in ("+", "*", "$swap"):
                        if len(stack) >= 2:
                            b, a = stack.pop(), stack.pop()
                            stack += [b, a] if word == "$swap" else [a + b] if word == "+" else [a * b]
                    elif word == "$dup":
                        stack += stack[-1:]
                    else:
                        stack.append(int(word))
                return stack
                """,
                dup=dup, swap=swap,
            ),
            lambda r: (program(r),), (("",), ("+",), (f"2 3 {swap} {dup} *",)),
        )  # fmt: skip
    most = between(rng, 20, 40)

    def jumps(r: np.random.Generator) -> list[tuple[Any, ...]]:
        made: list[tuple[Any, ...]] = []
        for _ in range(between(r, 0, 6)):
            made.append(
                pick(
                    r,
                    (
                        ("add", pick(r, "ab"), between(r, -3, 5)),
                        ("add", pick(r, "ab"), between(r, -3, 5)),
                        ("move", pick(r, "ab")),
                        ("jump", pick(r, "ab"), between(r, -3, 3)),
                    ),
                )
            )
        return made

    return Problem(
        name, "program: list[tuple]", "tuple[int, int]",
        "A machine has two registers, a and b, both 0. ('add', r, n) adds n to register r; ('move', r) sets register r to the "
        "value of the other one; ('jump', r, n) goes on n commands further on (n may be negative or 0) if register r is above "
        f"0. After any other command the next one follows. It stops outside of the program, or after {most} commands. Return "
        "(a, b).",
        code(
            """
            registers, at = {"a": 0, "b": 0}, 0
            for _ in range($most):
                if not 0 <= at < len(program):
                    break
                operation, r, *n = program[at]
                at += 1
                if operation == "add":
                    registers[r] += n[0]
                elif operation == "move":
                    registers[r] = registers["b" if r == "a" else "a"]
                elif registers[r] > 0:
                    at += n[0] - 1
            return registers["a"], registers["b"]
            """,
            most=most,
        ),
        lambda r: (jumps(r),),
        (([],), ([("add", "a", 1), ("jump", "a", 0)],), ([("add", "a", 2), ("add", "b", 3), ("add", "a", -1), ("jump", "a", -2)],)),
    )  # fmt: skip


def nested(rng: np.random.Generator, level: int) -> Problem:
    """Lists in lists."""

    def draw(r: np.random.Generator, depth: int = 3) -> list[Any]:
        return [draw(r, depth - 1) if depth and r.random() < 0.4 else between(r, -5, 9) for _ in range(between(r, 0, 4))]

    about = "`tree` is a list of whole numbers and of lists like itself, to any depth. "
    if level == 1:
        says, test = pick(rng, (("positive", "> 0"), ("negative", "< 0"), ("even", "% 2 == 0")))
        name = pick(rng, ("leaves", "flat", "collect"))
        return Problem(
            name, "tree: list", "list[int]",
            f"{about}Return all numbers in it that are {says}, in the order in which they stand there.",
            code(
                """
                result = []
                for x in tree:
                    if isinstance(x, list):
                        result += $name(x)
                    elif x $test:
                        result.append(x)
                return result
                """,
                name=name, test=test,
            ),
            lambda r: (draw(r),), (([],), ([[[]]],), ([1, [-2, [4]]],)),
        )  # fmt: skip
    step = between(rng, 1, 2)
    if level == 2:
        return Problem(
            pick(rng, ("weighted", "deep_sum", "weigh")), "tree: list", "int",
            f"{about}Return the sum of the numbers, each multiplied by its depth: 1 in `tree` itself and {step} more in each list "
            "further inside. A list that holds no number itself, though lists, adds 1 to the sum.",
            code(
                """
                def total(x, depth):
                    result = 1 if x and all(isinstance(y, list) for y in x) else 0
                    for y in x:
                        result += total(y, depth + $step) if isinstance(y, list) else depth * y
                    return result

                return total(tree, 1)
                """,
                step=step,
            ),
            lambda r: (draw(r),), (([],), ([[[]]],), ([3, [2, [-1]]],)),
        )  # fmt: skip
    keep = between(rng, 1, 2)
    side = pick(rng, ("first", "last"))
    cut = f"[:{keep}]" if side == "first" else f"[-{keep}:]"
    return Problem(
        pick(rng, ("prune", "trimmed", "cut_back")), "tree: list, depth: int", "list",
        f"{about}Return a copy in which every list more than `depth` lists deep (`tree` itself is 1 deep) is replaced by the sum "
        f"of all numbers in it, and in which of the numbers of each list that is left only the {side} {keep} "
        f"{'is' if keep == 1 else 'are'} kept, sums counting as numbers. Lists that end up empty are left out, but for `tree` "
        "itself. `depth` is 1 or more.",
        code(
            """
            def total(x):
                return sum(total(y) if isinstance(y, list) else y for y in x)

            def copy(x, level):
                items = []
                for y in x:
                    if isinstance(y, list):
                        y = total(y) if level == depth else copy(y, level + 1)
                        if y == []:
                            continue
                    items.append(y)
                kept = [i for i, y in enumerate(items) if not isinstance(y, list)]$cut
                return [y for i, y in enumerate(items) if isinstance(y, list) or i in kept]

            return copy(tree, 1)
            """,
            cut=cut,
        ),
        lambda r: (draw(r), between(r, 1, 3)), (([], 1), ([[[]], 2], 1), ([1, [2, 3, [4, 5]], 6], 2)),
    )  # fmt: skip


def queue(rng: np.random.Generator, level: int) -> Problem:
    """Who is served when."""
    name = pick(rng, ("serve", "line_up", "process_jobs"))
    k = between(rng, 2, 4)
    if level == 1:
        return Problem(
            name, "names: list[str]", "list[str]",
            f"People stand in a ring. Counting begins with the first one; every {k}th person leaves, and the counting goes on with "
            "the one behind them. Return the names in the order of leaving.".replace("2th", "2nd").replace("3th", "3rd"),
            code(
                """
                ring, gone, at = list(names), [], 0
                while ring:
                    at = (at + $k - 1) % len(ring)
                    gone.append(ring.pop(at))
                return gone
                """,
                k=k,
            ),
            lambda r: (words(r, 7),), (([],), (["oak"],), (["a", "b", "c", "d", "e"],)),
        )  # fmt: skip
    if level == 2:
        return Problem(
            name, "work: dict[str, int]", "list[str]",
            f"`work` tells how many units of work each job needs, 1 or more; jobs wait in the order of the dictionary. The first "
            f"one is worked on for at most {k} units; what is not done then goes to the end of the line. Return the jobs in the "
            "order in which they are done.",
            code(
                """
                line, done = list(work.items()), []
                while line:
                    job, left = line.pop(0)
                    if left > $k:
                        line.append((job, left - $k))
                    else:
                        done.append(job)
                return done
                """,
                k=k,
            ),
            lambda r: ({w: between(r, 1, 12) for w in words(r, 6)},), (({},), ({"oak": 9},), ({"a": k + 1, "b": k},)),
        )  # fmt: skip
    return Problem(
        name, "arrivals: list[tuple[int, int]], desks: int", "list[int]",
        "`arrivals` holds pairs (time of arrival, time that is needed) of customers, in the order of arrival. There are `desks` "
        "desks, 1 or more, all free at time 0. A customer who finds a desk free goes to it (to the one with the lowest number); who "
        "finds none waits for the one that is free first (of equal ones that with the lowest number), but leaves at once if "
        f"that would take longer than {k * 2}. Return for each customer how long they waited, or -1 for those who left.",
        code(
            """
            free, waited = [0] * desks, []
            for arrival, need in arrivals:
                desk = min(range(desks), key=lambda d: (max(free[d], arrival), d))
                wait = max(free[desk] - arrival, 0)
                if wait > $most:
                    waited.append(-1)
                else:
                    waited.append(wait)
                    free[desk] = arrival + wait + need
            return waited
            """,
            most=k * 2,
        ),
        lambda r: (
            list(zip(sorted(numbers(r, 8, 0, 15, 8)), numbers(r, 8, 1, 9, 8), strict=True))[: between(r, 0, 8)],
            between(r, 1, 3),
        ),
        (([], 1), ([(0, 5), (0, 5), (0, 5)], 1), ([(1, 20), (2, 3), (3, 1)], 2)),
    )  # fmt: skip


TEMPLATES = {"robot": robot, "machine": machine, "nested": nested, "queue": queue}
"""By name."""
