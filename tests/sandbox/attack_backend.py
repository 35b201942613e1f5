# SPDX-License-Identifier: Apache-2.0
"""The sandbox backends behind the JSON interface of the attack corpus: one request on stdin, one reply on stdout.

    echo '{"op": "run", "lang": "python", "code": "print(6*7)"}' | python tests/sandbox/attack_backend.py namespace

With ``--serve`` it reads requests and writes replies line by line until its input ends. See ``attacks/README.md``.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentgym.sandbox import open_backend
from agentgym.sandbox.protocol import Backend, ExecResult, Sandbox, SandboxDeadError, SandboxError, SandboxSpec


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def told(result: ExecResult) -> dict[str, Any]:
    return {
        "status": "killed" if result.status == "interrupted" else result.status,
        "exit_code": result.exit_code,
        "stdout": encoded(result.stdout),
        "stderr": encoded(result.stderr),
        "total": result.stdout_bytes + result.stderr_bytes,
        "wall": result.wall_s,
    }


class Wrong(BaseException):
    """The candidate gave no valid answer. Not an Exception: hidden tests cannot swallow it by accident."""


def grade(sandbox: Sandbox, code: str, tests: str, timeout_s: float) -> tuple[bool, str]:
    """Runs hidden tests here and the candidate there: arguments go in, plain data comes out, nothing else.

    The candidate can print what it likes: an answer counts only on a line that starts with a word drawn for this call.
    """
    deadline = time.monotonic() + timeout_s
    candidate = sandbox.session("python")

    def turn(source: str) -> ExecResult:
        left = deadline - time.monotonic()
        if left <= 0 or not candidate.alive:
            raise Wrong("no time left, or the candidate ended")
        result = candidate.run(source, timeout_s=left)
        if result.status != "ok" or result.exit_code != 0:
            raise Wrong(f"{result.status} {result.exit_code}")
        return result

    def solve(*args: object) -> Any:
        import secrets

        word = secrets.token_hex(16)
        call = (
            f"import json as _json\n_json = _json.dumps(solve(*_json.loads({json.dumps(args)!r})))\nprint('\\n{word}' + _json)"
        )
        lines = [x for x in turn(call).stdout.split(b"\n") if x.startswith(word.encode())]
        if len(lines) != 1:
            raise Wrong("no answer, or several")
        try:
            return json.loads(lines[0][len(word) :])
        except ValueError:
            raise Wrong("an answer that is no data") from None

    try:
        turn(code)
        exec(compile(tests, "hidden tests", "exec"), {"solve": solve})
    except (Wrong, SandboxError) as e:
        return False, repr(e)
    except AssertionError:
        return False, "a hidden test failed"
    return True, ""


def answer(backend: Backend, request: dict[str, Any], spec: SandboxSpec) -> dict[str, Any]:
    operation, limit = request["op"], request.get("timeout", 5)
    with backend.create(spec) as sandbox:
        if operation == "grade":
            passed, why = grade(sandbox, request["code"], request["tests"], limit)
            return {"passed": passed, "why": why}
        if operation == "turns":
            replies, box = [], sandbox
            try:
                for turn in request["turns"]:
                    if turn.get("new_sandbox"):
                        box.close()
                        box = backend.create(spec)
                    replies.append(told(box.exec(turn["code"], turn["lang"], timeout_s=limit)))
            finally:
                box.close()
            text = b"".join(base64.b64decode(r["stdout"]) for r in replies)
            return {"turns": replies, "stdout": encoded(text), "status": replies[-1]["status"]}
        reply = told(sandbox.exec(request["code"], request["lang"], timeout_s=limit))
        if operation == "copyout":
            import tempfile

            try:
                with tempfile.TemporaryDirectory() as folder:
                    tree = sandbox.copy_out(folder + "/out")
                files = {path: encoded(content[: 1 << 20]) for path, content in tree.files.items()}
                reply["copy"] = {"files": files, "refused": [list(r) for r in tree.refused]}
            except SandboxDeadError as e:
                reply["copy"] = {"files": {}, "refused": [["*", str(e)]]}
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", help="namespace, bwrap or docker")
    parser.add_argument("--serve", action="store_true", help="requests and replies line by line")
    parser.add_argument("--events", action="store_true", help="observe what the code does")
    args = parser.parse_args()
    spec = SandboxSpec(events=True, protected=("**",)) if args.events else SandboxSpec()
    with open_backend(args.backend) as backend:
        if args.serve:
            for line in sys.stdin:
                print(json.dumps(answer(backend, json.loads(line), spec)), flush=True)
        else:
            print(json.dumps(answer(backend, json.load(sys.stdin), spec)))


if __name__ == "__main__":
    main()
