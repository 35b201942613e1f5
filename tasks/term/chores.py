# SPDX-License-Identifier: Apache-2.0
"""Chores for a shell: templates that draw files, a wish, the files that there have to be afterwards, and commands that do it.

What has to be there is worked out here, in Python, from the files that were drawn; the commands are only the oracle's.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from agentgym.sandboxenv import File
from agentgym.tasks.code.problem import WORDS
from agentgym.tasks.math.base import between, pick


class Chore(NamedTuple):
    """Something to do."""

    wish: str
    files: dict[str, File]
    """What lies in the workspace at first."""
    after: dict[str, File]
    """What has to lie there in the end, `answers` left out."""
    commands: list[str]
    """How it can be done."""
    answers: dict[str, str] = {}
    """Texts that have to be written: path -> content."""


Rng = np.random.Generator


def _names(rng: Rng, count: int) -> list[str]:
    return [str(w) for w in rng.permutation(WORDS)[:count]]


def _text(rng: Rng, lines: int = 3) -> str:
    return "".join(" ".join(_names(rng, between(rng, 2, 5))) + "\n" for _ in range(lines))


def _noise(rng: Rng) -> dict[str, File]:
    """Files that have nothing to do with it."""
    names = _names(rng, 2)
    return {f"notes/{names[0]}.txt": File(_text(rng)), f"notes/{names[1]}.md": File(_text(rng, 1))}


# -- reading ----------------------------------------------------------------------------------------------------------


def logs(rng: Rng, level: int) -> Chore:
    """Count in logs."""
    services = _names(rng, 3)
    kind = pick(rng, ("ERROR", "WARN"))
    files: dict[str, File] = _noise(rng)
    rows: list[tuple[int, str, str, int]] = []
    for day in range(1, 2 if level == 1 else 4):
        lines = []
        for _ in range(between(rng, 12, 25)):
            hour, what = between(rng, 0, 23), pick(rng, ("INFO", "INFO", "WARN", "ERROR", "ERROR"))
            service, code = pick(rng, services), 100 + between(rng, 1, 4)
            # the word occurs in messages too: only the third column counts
            tail = pick(rng, ("done", "slow", f"after {kind} of peer", "retry"))
            lines.append((hour, f"2026-03-0{day} {hour:02}:{between(rng, 0, 59):02} {what} {service} code={code} {tail}\n"))
            if what == kind:
                rows.append((hour, service, f"code={code}", day))
        files[f"logs/day{day}.log"] = File("".join(line for _, line in sorted(lines, key=lambda x: x[0])))
    column = "cat logs/*.log | tr -s ' '"
    if level == 1:
        wish = f"Count the lines of logs/day1.log whose third column is {kind}, and write the number into the file count.txt."
        answer = f"{len(rows)}\n"
        command = f"{column} | cut -d' ' -f3 | grep -cx {kind} > count.txt"
        return Chore(wish, files, files, [command], {"count.txt": answer})
    if level == 2:
        counts = Counter(service for _, service, _, _ in rows)
        answer = "".join(f"{s} {n}\n" for s, n in sorted(counts.items(), key=lambda x: (-x[1], x[0])))
        wish = (
            f"The fourth column of the logs in logs/ names a service. Write into the file services.txt how many lines of each "
            f"service have {kind} as their third column, over all logs: lines like `{services[0]} 3`, the highest number first, "
            "equal ones in alphabetical order, and no lines for services without any."
        )
        command = (
            f"{column} | cut -d' ' -f3,4 | grep '^{kind} ' | cut -d' ' -f2 | sort | uniq -c | sort -k1,1nr -k2,2 | "
            "sed -E 's/^ *([0-9]+) (.*)$/\\2 \\1/' > services.txt"
        )
        return Chore(wish, files, files, [command], {"services.txt": answer})
    first = between(rng, 6, 10)
    last = first + between(rng, 5, 8)
    counted = Counter((service, code) for hour, service, code, _ in rows if first <= hour < last)
    lines_ = []
    for service in sorted({s for s, _ in counted}):
        best = min(((-n, c) for (s, c), n in counted.items() if s == service))
        lines_.append(f"{service} {best[1]} {-best[0]}\n")
    wish = (
        f"Look at the lines of logs/*.log whose third column is {kind} and whose time is {first:02}:00 or later and before "
        f"{last:02}:00. For each service (fourth column) find the code (fifth column, like code=101) that occurs most often in "
        "them, of equally frequent ones the lowest. Write lines like "
        f"`{services[0]} code=101 3` (service, code, how often), sorted by service, into the file codes.txt."
    )
    command = (
        f"{column} | sed -E 's/^[^ ]+ ([0-9]+):/\\1 /' | "
        f'while read -r h m k s c rest; do h=$((10#$h)); [ "$k" = {kind} ] && [ $h -ge {first} ] && [ $h -lt {last} ] && '
        'echo "$s $c"; done | sort | uniq -c | sort -k2,2 -k1,1nr -k3,3 | '
        'while read -r n s c; do [ "$s" != "$last" ] && echo "$s $c $n"; last=$s; done > codes.txt'
    )
    return Chore(wish, files, files, [command], {"codes.txt": "".join(lines_)})


def tables(rng: Rng, level: int) -> Chore:
    """Sums in tables."""
    shops, goods = _names(rng, 3), _names(rng, 4)
    prices = {g: between(rng, 2, 60) for g in goods}
    rows = [(pick(rng, shops), pick(rng, goods), between(rng, 1, 9)) for _ in range(between(rng, 10, 25))]
    files = {
        **_noise(rng),
        "sales.csv": File("shop,item,pieces\n" + "".join(f"{s},{g},{n}\n" for s, g, n in rows)),
    }
    if level == 1:
        shop = rows[0][0]
        wish = f"sales.csv tells what was sold. Write into the file pieces.txt how many pieces the shop {shop} has sold."
        total = sum(n for s, _, n in rows if s == shop)
        command = f't=0; while IFS=, read -r s g n; do [ "$s" = {shop} ] && t=$((t+n)); done < sales.csv; echo $t > pieces.txt'
        return Chore(wish, files, files, [command], {"pieces.txt": f"{total}\n"})
    if level == 2:
        sums: Counter[str] = Counter()
        for _, g, n in rows:
            sums[g] += n
        wish = (
            "sales.csv tells what was sold. Write the file items.csv: the line `item,pieces`, and below it for each item how many "
            "pieces of it were sold in all shops, sorted by item."
        )
        command = (
            "{ echo item,pieces; tail -n +2 sales.csv | cut -d, -f2 | sort -u | while read -r i; do "
            'echo "$i,$(( $(grep ",$i," sales.csv | cut -d, -f3 | paste -sd+) ))"; done; } > items.csv'
        )
        answer = "item,pieces\n" + "".join(f"{g},{sums[g]}\n" for g in sorted(sums))
        return Chore(wish, files, files, [command], {"items.csv": answer})
    files["prices.csv"] = File("item,cents\n" + "".join(f"{g},{p}\n" for g, p in prices.items()))
    money: Counter[str] = Counter()
    for s, g, n in rows:
        money[s] += n * prices[g]
    wish = (
        "sales.csv tells what was sold, prices.csv what one piece of each item costs. Write the file turnover.csv: the line "
        "`shop,cents`, and below it for each shop what it took in, the highest first, equal ones sorted by shop."
    )
    command = (
        "{ echo shop,cents; tail -n +2 sales.csv | while IFS=, read -r s g n; do "
        'echo "$s $((n * $(grep "^$g," prices.csv | cut -d, -f2)))"; done | sort | '
        '{ t=0; last=; while read -r s c; do [ "$s" != "$last" ] && [ -n "$last" ] && { echo "$last,$t"; t=0; }; '
        'last=$s; t=$((t+c)); done; echo "$last,$t"; } | sort -t, -k2,2nr -k1,1; } > turnover.csv'
    )
    answer = "shop,cents\n" + "".join(f"{s},{c}\n" for s, c in sorted(money.items(), key=lambda x: (-x[1], x[0])))
    return Chore(wish, files, files, [command], {"turnover.csv": answer})


# -- moving -----------------------------------------------------------------------------------------------------------


def renaming(rng: Rng, level: int) -> Chore:
    """Other names for files."""
    names = _names(rng, 5)
    noise = _noise(rng)
    if level == 1:
        files = {f"photos/{n}{pick(rng, ('.JPG', '.JPG', '.jpg', '.PNG'))}": File(_text(rng, 1)) for n in names}
        after = {p.removesuffix(".JPG") + ".jpg" if p.endswith(".JPG") else p: f for p, f in files.items()}
        wish = "Rename every file in photos/ whose name ends in .JPG, so that it ends in .jpg instead."
        return Chore(
            wish,
            {**noise, **files},
            {**noise, **after},
            ['cd photos; for f in *.JPG; do [ -e "$f" ] && mv "$f" "${f%.JPG}.jpg"; done'],
        )
    if level == 2:
        width, prefix = between(rng, 3, 5), pick(rng, ("scan", "page", "shot"))
        numbers = [int(x) for x in rng.permutation(range(1, 130))[:6]]
        files = {f"photos/{pick(rng, ('img', 'IMG', 'dsc'))}_{n}.jpg": File(_text(rng, 1)) for n in numbers}
        after = {f"photos/{prefix}-{int(p.split('_')[1][:-4]):0{width}}.jpg": f for p, f in files.items()}
        wish = (
            f"The files in photos/ are called like img_7.jpg, with various beginnings. Rename each to {prefix}-NUMBER.jpg, with "
            f"its number written in {width} digits: img_7.jpg becomes {prefix}-{7:0{width}}.jpg."
        )
        command = f'cd photos; for f in *.jpg; do n=${{f#*_}}; n=${{n%.jpg}}; mv "$f" "$(printf \'{prefix}-%0{width}d.jpg\' "$n")"; done'
        return Chore(wish, {**noise, **files}, {**noise, **after}, [command])
    files, after = dict(noise), dict(noise)
    for n in _names(rng, 7):
        year, month = between(rng, 2023, 2026), between(rng, 1, 12)
        dated = rng.random() < 0.8
        head = f"date: {year}-{month:02}-{between(rng, 1, 28):02}\n" if dated else "no date\n"
        file = File(head + _text(rng, 2))
        files[f"inbox/{n}.txt"] = file
        after[f"sorted/{year}/{month:02}/{n}.txt" if dated else f"inbox/{n}.txt"] = file
    wish = (
        "The first line of many files in inbox/ is like `date: 2025-03-17`. Move each of these to sorted/YEAR/MONTH/, that is "
        "sorted/2025/03/ for this one, under its own name. Files without such a first line stay where they are."
    )
    command = (
        'for f in inbox/*; do d=$(head -n 1 "$f"); case "$d" in date:*) d=${d#date: }; y=${d%%-*}; m=${d#*-}; m=${m%%-*}; '
        'mkdir -p "sorted/$y/$m"; mv "$f" "sorted/$y/$m/";; esac; done'
    )
    return Chore(wish, files, after, [command])


def archives(rng: Rng, level: int) -> Chore:
    """Files in a tar archive."""
    noise = _noise(rng)
    names = _names(rng, 6)
    inside = {f"{pick(rng, ('docs', 'data'))}/{n}{pick(rng, ('.txt', '.csv', '.bin'))}": File(_text(rng, 1)) for n in names}
    archive = File(_tar(inside))
    if level == 1:
        wish = "Unpack the archive backup.tar into a new folder restored/, and leave the archive where it is."
        after = {**noise, "backup.tar": archive, **{f"restored/{p}": f for p, f in inside.items()}}
        return Chore(
            wish, {**noise, "backup.tar": archive}, after, ["mkdir restored && tar -xf backup.tar -C restored --no-same-owner"]
        )
    ending = pick(rng, (".txt", ".csv"))
    if level == 2:
        wanted = {p: f for p, f in inside.items() if p.endswith(ending)}
        wish = (
            f"Take only the {ending} files out of backup.tar, into the folder restored/ without the folders that they have in "
            "the archive, and then delete the archive."
        )
        after = {**noise, **{f"restored/{p.split('/')[1]}": f for p, f in wanted.items()}}
        command = (
            f"mkdir restored; tar -xf backup.tar -C /tmp --no-same-owner; for f in $(tar -tf backup.tar | grep '\\{ending}$'); do "
            'cp "/tmp/$f" restored/; done; rm backup.tar'
        )
        if not wanted:
            return archives(rng, level)
        return Chore(wish, {**noise, "backup.tar": archive}, after, [command])
    later = {p: File(f.content + "later\n") for p, f in inside.items() if rng.random() < 0.5}
    new = {f"data/{n}.new": File(_text(rng, 1)) for n in _names(rng, 2)}
    now = {p: File(f.content + "now\n") for p, f in inside.items() if rng.random() < 0.3}
    files = {
        **noise,
        "monday.tar": archive,
        "tuesday.tar": File(_tar({**later, **new})),
        **{f"work/{p}": f for p, f in now.items()},
    }
    after = {**files, **{f"work/{p}": f for p, f in {**inside, **later, **new, **now}.items()}}
    wish = (
        "work/ has lost files. monday.tar holds all that was in it on Monday, tuesday.tar what was new or had changed by Tuesday. "
        "Restore what is missing in work/, each file as it was last saved; what is still in work/ stays as it is. The archives "
        "stay, too."
    )
    command = (
        "mkdir -p work /tmp/old; for a in monday tuesday; do tar -xf $a.tar -C /tmp/old --no-same-owner; done; cd /tmp/old; "
        'find . -type f | while read -r f; do t="/workspace/work/$f"; [ -e "$t" ] || { mkdir -p "$(dirname "$t")"; cp "$f" "$t"; }; '
        "done"
    )
    return Chore(wish, files, after, [command])


def _tar(files: dict[str, File]) -> str:
    """An archive, the same bytes everywhere."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(file.data), 0o644, 1_700_000_000
            archive.addfile(info, io.BytesIO(file.data))
    return data.getvalue().decode(errors="surrogateescape")


# -- tidying ----------------------------------------------------------------------------------------------------------


def permissions(rng: Rng, level: int) -> Chore:
    """Who may do what."""
    files: dict[str, File] = {}
    after: dict[str, File] = {}
    script = pick(rng, ("#!/bin/sh\necho {}\n", "#!/usr/bin/env python3\nprint('{}')\n"))
    for n in _names(rng, 8):
        folder, ending = pick(rng, ("bin", "lib", "keys")), pick(rng, (".sh", ".txt", ".pem", ""))
        content = script.format(n) if rng.random() < 0.5 else _text(rng, 1)
        mode = pick(rng, (0o644, 0o664, 0o666, 0o600, 0o755))
        path = f"{folder}/{n}{ending}"
        files[path] = File(content, mode)
        if level == 1:
            new = mode | 0o111 if ending == ".sh" else mode
        elif level == 2:
            new = mode & 0o700 if folder == "keys" else mode & ~0o022
        else:
            new = mode & ~0o002
            new = new | 0o100 if content.startswith("#!") else new & ~0o111
        after[path] = File(content, new)
    wish, command = (
        (
            "Make every file whose name ends in .sh executable for everybody, wherever it lies, and leave its other permissions.",
            "find . -type f -name '*.sh' -exec chmod a+x {} +",
        ),
        (
            "Nobody but their owner may do anything with the files in keys/. All other files must not be writable for group and "
            "others. Leave all other permissions as they are.",
            "[ -d keys ] && chmod -R go-rwx keys/*; find . -type f -not -path './keys/*' -exec chmod go-w {} +",
        ),
        (
            "No file may be writable for others. Files that begin with #! must be executable for their owner, all the other files "
            "must not be executable for anybody. Leave all other permissions as they are.",
            'find . -type f | while read -r f; do chmod o-w "$f"; if [ "$(head -c 2 "$f")" = \'#!\' ]; then chmod u+x "$f"; '
            'else chmod a-x "$f"; fi; done',
        ),
    )[level - 1]
    if files == after:
        return permissions(rng, level)
    return Chore(wish, files, after, [command])


def duplicates(rng: Rng, level: int) -> Chore:
    """Files that are there twice."""
    contents = [_text(rng, 1) for _ in range(3)]
    files = {}
    for n in _names(rng, 8):
        folder = "pool" if level == 1 else pick(rng, ("pool", "pool/more", "keep"))
        files[f"{folder}/{n}.dat"] = File(pick(rng, contents))
    groups: dict[str, list[str]] = {}
    for p in sorted(files):
        groups.setdefault(files[p].content, []).append(p)
    noise = _noise(rng)
    if level == 1:
        wish = (
            "Some files in pool/ have the same content. Write into doubles.txt the paths (like pool/name.dat) of those files that "
            "are not the first of their content in alphabetical order, one a line, sorted."
        )
        extra = sorted(p for g in groups.values() for p in g[1:])
        command = (
            'for f in $(find pool -type f | LC_ALL=C sort); do h=$(sha256sum < $f); case "$seen" in *"$h"*) echo $f;; '
            '*) seen="$seen $h";; esac; done > doubles.txt'
        )
        everything = {**noise, **files}
        return Chore(wish, everything, everything, [command], {"doubles.txt": "".join(f"{p}\n" for p in extra)})
    if level == 2:
        gone = {p for g in groups.values() for p in g[1:]}
        wish = (
            "Some files in pool/, pool/more/ and keep/ (as far as there are these folders) have the same content. Of each group "
            "of equal files keep the one whose path comes first in alphabetical order (keep/ before pool/, by bytes), and delete "
            "the others."
        )
        command = (
            'for f in $(find pool keep -type f 2>/dev/null | LC_ALL=C sort); do h=$(sha256sum < $f); case "$seen" in '
            '*"$h"*) rm $f;; *) seen="$seen $h";; esac; done'
        )
        left = {p: f for p, f in files.items() if p not in gone}
        return Chore(wish, {**noise, **files}, {**noise, **left}, [command])
    kept = {files[p].content for p in files if p.startswith("keep/")}
    gone = {p for p, f in files.items() if not p.startswith("keep/") and f.content in kept}
    if not gone:
        return duplicates(rng, level)
    wish = (
        "Delete every file in pool/ and the folders in it whose content is also that of a file in keep/, and write the paths of "
        "those that you deleted (like pool/name.dat) into deleted.txt, one a line, sorted by bytes. Files that are equal only to "
        "others in pool/ stay."
    )
    command = (
        "hs=$(sha256sum keep/* | cut -d' ' -f1); for f in $(find pool -type f | LC_ALL=C sort); do "
        "h=$(sha256sum $f | cut -d' ' -f1); case \"$hs\" in *$h*) rm $f; echo $f;; esac; done > deleted.txt"
    )
    left = {p: f for p, f in files.items() if p not in gone}
    return Chore(
        wish, {**noise, **files}, {**noise, **left}, [command], {"deleted.txt": "".join(f"{p}\n" for p in sorted(gone))}
    )


def cleaning(rng: Rng, level: int) -> Chore:
    """What can go."""
    files = _noise(rng)
    for n in _names(rng, 6):
        folder = pick(rng, ("src", "src/old", "build"))
        files[f"{folder}/{n}.c"] = File(_text(rng, 2))
        for ending in (".c.bak", ".o", ".tmp"):
            if rng.random() < 0.4:
                files[f"{folder}/{n}{ending}"] = File("" if rng.random() < 0.3 else _text(rng, 1))
        if rng.random() < 0.4:
            del files[f"{folder}/{n}.c"]
    ending = pick(rng, (".o", ".tmp"))
    if level == 1:
        wish = f"Delete every file whose name ends in {ending}, wherever it lies."
        after = {p: f for p, f in files.items() if not p.endswith(ending)}
        command = f"find . -type f -name '*{ending}' -delete"
    elif level == 2:
        wish = (
            "Delete every file whose name ends in .c.bak if the file that it is a copy of (the same path without .bak) is there. "
            "Where that is missing, rename the copy to it instead."
        )
        after = {}
        for p, f in files.items():
            if not p.endswith(".c.bak"):
                after[p] = f
            elif p.removesuffix(".bak") not in files:
                after[p.removesuffix(".bak")] = f
        command = 'find . -name "*.c.bak" | while read -r f; do if [ -e "${f%.bak}" ]; then rm "$f"; else mv "$f" "${f%.bak}"; fi; done'
    else:
        wish = (
            "Below src/: delete every .o and .tmp file (by the end of its name) for which there is a .c file of the same name "
            "beside it, and every empty .bak file. Everything else stays, and so does what lies elsewhere."
        )
        after = {
            p: f
            for p, f in files.items()
            if not (
                p.startswith("src/")
                and (
                    (p.endswith((".o", ".tmp")) and f"{p.rpartition('.')[0]}.c" in files)
                    or (p.endswith(".bak") and not f.content)
                )
            )
        }
        command = (
            "find src -type f -name '*.bak' -empty -delete; find src -type f \\( -name '*.o' -o -name '*.tmp' \\) | "
            'while read -r f; do [ -e "${f%.*}.c" ] && rm "$f"; done'
        )
    if after == files:
        return cleaning(rng, level)
    return Chore(wish, files, after, [command])


# -- editing ----------------------------------------------------------------------------------------------------------


def settings(rng: Rng, level: int) -> Chore:
    """Values in configuration files."""
    sections = _names(rng, 3)
    old, new = between(rng, 2000, 4999), between(rng, 5000, 9999)
    files = _noise(rng)
    hosts = ["app"] if level == 1 else _names(rng, 3)
    for h in hosts:
        body = []
        for s in sections:
            body.append(f"[{s}]\nname = {h}-{s}\nport = {old}\n# port = {old}\nretries = {between(rng, 1, 9)}\n")
            if rng.random() < 0.5:
                body.append(f"debug = {pick(rng, ('yes', 'no'))}\n")
            body.append("\n")
        files[f"etc/{h}.ini"] = File("".join(body))
    section = sections[1]
    after = {}
    for p, f in files.items():
        text = f.content
        if p.endswith(".ini"):
            parts = text.split("[")
            for i, part in enumerate(parts):
                if level == 3 and part and "debug = " not in part:
                    parts[i] = part.rstrip("\n") + "\ndebug = no\n\n"
                elif level == 3 and part:
                    parts[i] = part.replace("debug = yes", "debug = no")
                elif part.startswith(f"{section}]"):
                    parts[i] = part.replace(f"\nport = {old}", f"\nport = {new}")
            text = "[".join(parts)
        after[p] = File(text, f.mode)
    if level < 3:
        where = "etc/app.ini" if level == 1 else "all .ini files in etc/"
        wish = f"In {where}, set port to {new} in the section [{section}], and only there. Comments stay as they are."
        command = f"sed -i '/^\\[{section}\\]/,/^\\[/ s/^port = .*/port = {new}/' etc/*.ini"
        return Chore(wish, files, after, [command])
    wish = (
        "In all .ini files in etc/, every section must say `debug = no`: where it says something else, change it; where it says "
        "nothing about debug, add that line at the end of the section, in front of the empty line. Everything else stays."
    )
    command = (
        "for f in etc/*.ini; do seen=1; while IFS= read -r l; do case \"$l\" in '['*) seen=;; 'debug = '*) l='debug = no'; "
        "seen=1;; '') [ -z \"$seen\" ] && echo 'debug = no'; seen=1;; esac; printf '%s\\n' \"$l\"; done < $f > /tmp/new; "
        "cat /tmp/new > $f; done"
    )
    return Chore(wish, files, after, [command])


def replacing(rng: Rng, level: int) -> Chore:
    """Words in many files."""
    old, new, *others = _names(rng, 6)
    files = {}
    for n in others:
        folder, ending = pick(rng, ("docs", "docs/api", "vendor")), pick(rng, (".md", ".md", ".txt"))
        words = [pick(rng, (old, f"{old}s", f"my_{old}", old.title(), n, "and", f"{old},")) for _ in range(9)]
        files[f"{folder}/{n}{ending}"] = File(f"# {n}\n{' '.join(words)}\n{old}\n")

    def changed(path: str, text: str) -> str:
        if level == 1:
            return text.replace(old, new) if path.endswith(".md") else text
        whole = re.compile(rf"(?<![A-Za-z0-9_]){old}(?![A-Za-z0-9_])")
        if level == 2:
            return text if path.startswith("vendor/") else whole.sub(new, text)
        if path.startswith("vendor/"):
            return text
        head, rest = text.split("\n", 1)
        return head + "\n" + re.sub(rf"(?<![A-Za-z0-9_]){old.title()}(?![A-Za-z0-9_])", new.title(), whole.sub(new, rest))

    after = {p: File(changed(p, f.content)) for p, f in files.items()}
    if after == files:
        return replacing(rng, level)
    if level == 1:
        wish = (
            f"In every .md file, wherever it lies, replace {old} by {new}, also inside of longer words; capital letters matter."
        )
        command = f"find . -name '*.md' -exec sed -i 's/{old}/{new}/g' {{}} +"
    elif level == 2:
        wish = (
            f"In all files except those in vendor/, replace the word {old} by {new}. Only the whole word: {old}s and my_{old} "
            "stay, and capital letters matter."
        )
        command = f"find . -type f -not -path './vendor/*' -exec sed -i -E 's/\\b{old}\\b/{new}/g' {{}} +"
    else:
        wish = (
            f"In all files except those in vendor/, replace the word {old} by {new} and the word {old.title()} by {new.title()}, but "
            f"not in the first line of a file. Only whole words: {old}s and my_{old} stay."
        )
        command = (
            f"find . -type f -not -path './vendor/*' -exec sed -i -s -E '2,$ {{ s/\\b{old}\\b/{new}/g; "
            f"s/\\b{old.title()}\\b/{new.title()}/g }}' {{}} +"
        )
    return Chore(wish, files, after, [command])


TEMPLATES: dict[str, Callable[[Rng, int], Chore]] = {
    "logs": logs,
    "tables": tables,
    "renaming": renaming,
    "archives": archives,
    "permissions": permissions,
    "duplicates": duplicates,
    "cleaning": cleaning,
    "settings": settings,
    "replacing": replacing,
}
"""By name; each has three levels."""
