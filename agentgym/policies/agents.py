# SPDX-License-Identifier: Apache-2.0
"""A user's own agent, unchanged: a Python function, a program, or a service behind HTTP.

    agent:my_pkg.bot:answer      (messages, tools) -> message       called every turn
    agent:bot.py:run             (session)                          called once an episode, drives itself
    cmd:python bot.py            one process an episode, a line of JSON for each turn
    http://localhost:9000/act    POST {messages, tools, ...} -> {message}

In all of them messages and tools are OpenAI chat dictionaries. An agent is told nothing that gives its task away: the
task's id names its variant, so what it gets instead is an opaque ``episode``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import os
import secrets
import shlex
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agentgym import registry
from agentgym.chat import Message, clean_text
from agentgym.errors import AgentGymError, DefinitionError, InfrastructureError, NotFoundError, UsageError
from agentgym.policies.http1 import Http1, HttpFault, Reply, parse_url
from agentgym.policies.oracle import as_completion
from agentgym.policies.transport import BUSY, RETRIED, Caller, Fault, Patience, count, dollars, retry_after
from agentgym.policies.wire import ShapeError, error_text, from_openai, loads, message_to_openai
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling, Usage
from agentgym.toolspec import ToolSpec

THREADS = 64
"""Most turns at once of an agent that is an ordinary, blocking function."""

PROCESSES = 16
"""Most processes of a program at once; ``--concurrency`` may ask for fewer."""

MAX_LINE_BYTES = 16 << 20
"""A longer line from a program is refused."""

STDERR_BYTES = 2000
"""How much of the end of a program's stderr goes into an error's text."""

TURN_S = 600.0
"""Seconds that a program has for a turn."""

GRACE_S = 2.0
"""Seconds that an agent has to put things in order when its episode is over."""


class EpisodeOver(AgentGymError):
    """Raised in an agent that goes on after its episode has ended."""


# -- what an agent is told, and what it answers -------------------------------------------------------------------------


class _Talk:
    """The side of an episode that an agent sees: turns the conversation into dictionaries, each message once."""

    def __init__(self) -> None:
        # not the task id, which tells the variant; and another one where the episode is played again
        self.episode = secrets.token_hex(8)
        self.turn = -1
        self._rows: list[dict[str, Any]] = []

    def view(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> dict[str, Any]:
        """What the agent is told in this turn. The caller must not change it."""
        self.turn += 1
        self._rows += [message_to_openai(m) for m in conversation[len(self._rows) :]]
        return {
            "episode": self.episode,
            "turn": self.turn,
            "messages": self._rows,
            "tools": [t.to_openai() for t in tools],
            "sampling": msgspec.to_builtins(sampling),
        }


def _copy(view: dict[str, Any]) -> dict[str, Any]:
    """A copy that an agent may change as it likes."""
    copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return copied


def as_answer(value: Any) -> Completion:
    """What an agent returned, as a policy's answer.

    Args:
        value: a text; a message as an OpenAI dictionary, or as an object of the ``openai`` package; ``{"message": ...}``
            with, if it likes, ``usage`` (``prompt_tokens``, ``completion_tokens``, ``cost_usd``); a `Message`; a
            `Completion`.

    Raises:
        ShapeError: anything else.
    """
    if isinstance(value, Completion):
        return value
    if isinstance(value, Message):
        return as_completion(value)
    if isinstance(value, str):
        return as_completion(clean_text(value))
    if not isinstance(value, dict) and callable(dump := getattr(value, "model_dump", None)):
        value = dump(exclude_none=True)
    usage = Usage()
    if isinstance(value, dict) and "message" in value:
        usage = _usage(value.get("usage"))
        value = value["message"]
        if isinstance(value, str):
            value = {"content": value}
    completion = as_completion(from_openai(value))
    return Completion(completion.message, usage, completion.finish_reason)


def _usage(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    return Usage(
        count(said.get("prompt_tokens")),
        count(said.get("completion_tokens")),
        cost_usd=dollars(said.get("cost_usd", said.get("cost"))),
    )


def _timed(completion: Completion, begun: float) -> Completion:
    return msgspec.structs.replace(completion, latency_s=completion.latency_s or time.monotonic() - begun)


# -- Python functions ---------------------------------------------------------------------------------------------------


class Session:
    """An episode, as handed to an agent that drives itself: ``async def run(session)``.

    ```
    async def run(session):
        while not session.done:
            message = await my_model(session.messages, session.tools)
            await session.send(message)
    ```

    Ordinary functions get a `SyncSession`, whose ``send`` blocks instead.
    """

    def __init__(self, view: dict[str, Any]) -> None:
        self.episode: str = view["episode"]
        """Names the episode, and tells nothing about it."""
        self.sampling: dict[str, Any] = view["sampling"]
        """What the caller asks for, such as ``seed`` and ``temperature``; may be empty."""
        self.tools: list[dict[str, Any]] = view["tools"]
        """The offered tools."""
        self.messages: list[dict[str, Any]] = view["messages"]
        """The whole conversation so far; renewed by each `send`."""
        self.done = False
        """Whether the episode is over; nothing can be sent any more."""
        self._said: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._heard: asyncio.Future[list[dict[str, Any]]] | None = None

    async def send(self, message: Any, usage: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Plays a turn.

        Args:
            message: whatever `as_answer` knows.
            usage: what the turn has consumed: ``prompt_tokens``, ``completion_tokens``, ``cost_usd``.

        Returns:
            the new messages; none where the episode is over.

        Raises:
            EpisodeOver: it was over before.
            UsageError: another turn is being played.
            ShapeError: the message is none.
        """
        if self.done:
            raise EpisodeOver("the episode is over: look at session.done before sending")
        if self._said.done():
            raise UsageError(
                "a turn is being played: wait for its answer before sending again; calls made at once belong in one message"
            )
        completion = as_answer(message)
        if usage is not None:
            completion = msgspec.structs.replace(completion, usage=_usage(usage))
        self._heard = asyncio.get_running_loop().create_future()
        self._said.set_result(completion)
        return await self._heard

    def _tell(self, view: dict[str, Any]) -> None:
        """The environment's answer to what was sent."""
        new = view["messages"][len(self.messages) + 1 :]  # without the agent's own message
        self.messages = view["messages"]
        self._said = asyncio.get_running_loop().create_future()
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(new)

    def _finish(self) -> bool:
        """Ends it; returns whether the agent was waiting for an answer."""
        self.done = True
        if self._heard is not None and not self._heard.done():
            self._heard.set_result([])
            return True
        return False


class SyncSession:
    """`Session` for ordinary functions, which run in a thread of their own."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def send(self, message: Any, usage: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Plays a turn; see `Session.send`."""
        if self._session.done:
            raise EpisodeOver("the episode is over: look at session.done before sending")
        return asyncio.run_coroutine_threadsafe(self._session.send(message, usage), self._loop).result()


class AgentPolicy(PolicyBase):
    """A Python function that answers: ``--model agent:pkg.module:function`` or ``agent:file.py:function``.

    With two parameters, ``(messages, tools)``, it is called every turn and returns its message. With one, it is called
    once an episode with a `Session` and drives itself; what it returns, if anything, is its last message, and if the
    episode is not over by then, the agent is taken to have nothing more to say. Either may be async; if it is not, it runs
    in a thread. A class is instantiated for every episode, and the instance called.

    What an agent raises is not an answer, so it ends the episode as an infrastructure outcome.

    Raises:
        NotFoundError: there is no such module, file or name.
        DefinitionError: what is there cannot be imported, or cannot be called like this.
    """

    def __init__(self, argument: str | Callable[..., Any]) -> None:
        if not argument:
            raise UsageError("which agent? Expected agent:pkg.module:function or agent:file.py:function")
        self.agent: Callable[..., Any] = _load(argument) if isinstance(argument, str) else argument
        place = argument if isinstance(argument, str) else getattr(argument, "__qualname__", type(argument).__name__)
        self.name = f"agent:{place}"
        made = isinstance(self.agent, type)
        call = getattr(self.agent, "__call__", None)  # noqa: B004 - of a class, this is what its instances do
        if not callable(self.agent) or (made and not inspect.isfunction(call)):
            raise DefinitionError(f"{self.name} cannot be called: an agent is a function (messages, tools) or (session)")
        try:
            parameters = inspect.signature(call if made else self.agent).parameters.values()  # type: ignore[arg-type]
        except (ValueError, TypeError):
            raise DefinitionError(
                f"{self.name} does not tell its parameters; wrap it in a function (messages, tools)"
            ) from None
        needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        number = len(needed) - made
        if number not in (1, 2):
            raise DefinitionError(
                f"{self.name} must take (messages, tools), to be called every turn, or (session), to be called once an"
                f" episode; it takes {number} parameters"
            )
        self._whole = number == 1
        self._async = inspect.iscoroutinefunction(self.agent) or inspect.iscoroutinefunction(call)
        if not self._async:
            self.slots = THREADS

    def begin(self, context: EpisodeContext) -> Policy:
        """A player of one episode."""
        agent = self.agent() if isinstance(self.agent, type) else self.agent
        return (_WholeEpisode if self._whole else _EachTurn)(self, agent)

    def fingerprint(self) -> dict[str, Any]:
        """Name, and hash of the source file."""
        result = {"name": self.name}
        with contextlib.suppress(TypeError, OSError):
            known = inspect.isroutine(self.agent) or isinstance(self.agent, type)
            file = inspect.getsourcefile(self.agent if known else type(self.agent))
            with open(file or "", "rb") as f:
                result["source"] = hashlib.sha256(f.read()).hexdigest()[:12]
        return result

    async def _call(self, agent: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function of either kind."""
        if self._async:
            return await agent(*arguments)
        result = await _in_thread(agent, *arguments)
        return await result if inspect.isawaitable(result) else result


def _load(place: str) -> Any:
    """What is at a place in the user's code, which may fail as it is imported: a package or a key is missing."""
    try:
        return registry.load_place(place)
    except AgentGymError:
        raise
    except Exception as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{at.filename.rsplit('/', 1)[-1]}:{at.lineno}"
        raise DefinitionError(f"agent:{place} cannot be imported: {type(e).__name__}: {e} ({where})") from e


def _in_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """What a blocking function will return or raise.

    Its thread is a daemon of its own, not one of a pool: an agent that hangs must neither keep the process from ending nor
    take a place from those that do not.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def set_(method: str, value: Any) -> None:
        if not done.done():
            getattr(done, method)(value)

    def work() -> None:
        try:
            method, value = "set_result", function(*arguments)
        except BaseException as e:
            # futures refuse StopIteration, and then nobody would ever hear of it
            plain = isinstance(e, Exception) and not isinstance(e, StopIteration)
            method, value = "set_exception", e if plain else RuntimeError(f"{type(e).__name__}: {e}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(set_, method, value)

    threading.Thread(target=work, name="agentgym-agent", daemon=True).start()
    return done


class _EachTurn(PolicyBase):
    """An agent that is called every turn."""

    def __init__(self, policy: AgentPolicy, agent: Callable[..., Any]) -> None:
        self.name = policy.name
        self._policy = policy
        self._agent = agent
        self._talk = _Talk()

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The function's answer."""
        begun = time.monotonic()
        view = _copy(self._talk.view(conversation, tools, sampling))
        try:
            answer = as_answer(await self._policy._call(self._agent, view["messages"], view["tools"]))
        except Exception as e:
            raise _failure(self.name, e) from e
        return _timed(answer, begun)


class _WholeEpisode(PolicyBase):
    """An agent that drives its episode itself."""

    def __init__(self, policy: AgentPolicy, agent: Callable[..., Any]) -> None:
        self.name = policy.name
        self._policy = policy
        self._agent = agent
        self._talk = _Talk()
        self._session: Session | None = None
        self._running: asyncio.Future[Any] | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """What the agent sends next; an empty message where it has ended."""
        begun = time.monotonic()
        view = _copy(self._talk.view(conversation, tools, sampling))
        if self._session is None:
            self._session = Session(view)
            self._running = self._start(self._session)
        else:
            self._session._tell(view)
        assert self._running is not None
        said = self._session._said
        last = self._running.done()
        await asyncio.wait({said, self._running}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if said.done():
                answer = said.result()
            else:
                result = self._running.result()
                answer = as_completion("") if last or result is None else as_answer(result)
        except Exception as e:
            raise _failure(self.name, e) from e
        return _timed(answer, begun)

    def _start(self, session: Session) -> asyncio.Future[Any]:
        if self._policy._async:
            task: asyncio.Future[Any] = asyncio.ensure_future(self._agent(session))
            return task
        return _in_thread(self._agent, SyncSession(session, asyncio.get_running_loop()))

    async def end(self) -> None:
        """Tells the agent that it is over; one that does not end then is cancelled."""
        if self._session is None or self._running is None:
            return
        waiting = self._session._finish()
        if not self._running.done():
            if waiting:
                await asyncio.wait({self._running}, timeout=GRACE_S)
            self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # what it did after the end concerns nobody
            await self._running


_TRANSIENT = {"APIConnectionError", "APITimeoutError", "RateLimitError", "InternalServerError", "ServiceUnavailableError"}


def _failure(name: str, error: Exception) -> InfrastructureError:
    """What it means that an agent raised: not an answer, so nothing that could be scored."""
    if isinstance(error, InfrastructureError):
        return error
    if isinstance(error, ShapeError):
        return InfrastructureError(f"{name} must return an assistant message: {error}", retryable=False)
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
        at += "; each run has an event loop of its own, so make async clients inside of the agent, not once for all runs"
    causes: list[BaseException] = [error]  # frameworks raise errors of their own "from" what the client raised
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    passing = any(map(_passes, causes))
    return InfrastructureError(f"{name} raised {type(error).__name__}: {error}{at}", retryable=passing)


def _passes(error: BaseException) -> bool:
    """Whether this is what a busy or absent model server means."""
    status = getattr(error, "status_code", None)
    named = any(c.__name__ in _TRANSIENT for c in type(error).__mro__)  # LangChain, for one, derives its own from OpenAI's
    return status in RETRIED or named or isinstance(error, (ConnectionError, TimeoutError))


# -- programs -----------------------------------------------------------------------------------------------------------


class CommandPolicy(PolicyBase):
    """A program that answers: ``--model "cmd:python my_agent.py --fast"``. One process plays one episode.

    Each turn it reads a line of JSON from stdin, ``{"episode", "turn", "messages", "tools", "sampling"}``, and writes one
    to stdout: ``{"message": {...}}``, with ``"usage"`` if it likes, or ``{"error": "why"}``. At the end of the episode
    its stdin is closed; two seconds later it and its process group are killed. Its stderr is its own; the end of it is
    shown where it fails. It is the user's own program and runs without a sandbox, with the user's environment.

    Args:
        argument: the command, as in a shell, but without one: no pipes, no variables.
        turn_s: seconds for a turn.

    Raises:
        UsageError: no command, or one that cannot be read.
        NotFoundError: there is no such program.
    """

    slots = PROCESSES

    def __init__(self, argument: str, *, turn_s: float = TURN_S) -> None:
        try:
            self.command = shlex.split(argument)
        except ValueError as e:
            raise UsageError(f"the command of cmd: cannot be read: {e}") from None
        if not self.command:
            raise UsageError('which program? Expected cmd:PROGRAM, e.g. --model "cmd:python my_agent.py"')
        if shutil.which(self.command[0]) is None:
            raise NotFoundError(f"there is no program {self.command[0]!r} to run; is it installed, executable and on the PATH?")
        self.name = f"cmd:{argument}"
        self.turn_s = turn_s

    def begin(self, context: EpisodeContext) -> Policy:
        """A player with a process of its own, started at the first turn."""
        return _Process(self)

    def fingerprint(self) -> dict[str, Any]:
        """The command, and a hash of each file that it names."""
        files = {}
        for word in self.command:
            with contextlib.suppress(OSError), open(shutil.which(word) or word, "rb") as f:
                files[os.path.basename(word)] = hashlib.sha256(f.read()).hexdigest()[:12]
        return {"name": self.name, "files": files}


class _Process(PolicyBase):
    """One episode of a program."""

    def __init__(self, policy: CommandPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._talk = _Talk()
        self._process: asyncio.subprocess.Process | None = None
        self._stderr = b""
        self._listening: asyncio.Task[None] | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The program's answer.

        Raises:
            InfrastructureError: it ended, broke the protocol, or took too long.
        """
        begun = time.monotonic()
        line = msgspec.json.encode(self._talk.view(conversation, tools, sampling)) + b"\n"
        if self._process is None:
            await self._start()
        try:
            async with asyncio.timeout(self._policy.turn_s):
                answer = await self._exchange(line)
        except TimeoutError:
            raise await self._broken(f"gave no answer within {self._policy.turn_s:.0f} s") from None
        if not answer.endswith(b"\n"):
            raise await self._broken("ended before it answered")
        try:
            value = loads(answer)
            if isinstance(value, dict) and value.get("error") and "message" not in value:
                raise await self._broken(f"reports an error: {str(value['error'])[:300]}")
            if not isinstance(value, dict) or "message" not in value:
                raise ShapeError('a line must be an object with a "message"')
            return _timed(as_answer(value), begun)
        except ShapeError as e:
            raise await self._broken(f"wrote to stdout what is no answer: {e}. Its own output belongs on stderr") from None

    async def _start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._policy.command, stdin=pipe, stdout=pipe, stderr=pipe, limit=MAX_LINE_BYTES, start_new_session=True
            )
        except OSError as e:
            raise InfrastructureError(f"{self.name} cannot be started: {e.strerror or e}", retryable=False) from None
        self._listening = asyncio.create_task(self._listen(self._process.stderr))

    async def _listen(self, stream: asyncio.StreamReader | None) -> None:
        """Keeps stderr flowing, and the end of it."""
        while stream is not None and (data := await stream.read(65536)):
            self._stderr = (self._stderr + data)[-STDERR_BYTES:]

    async def _exchange(self, line: bytes) -> bytes:
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(ConnectionError):  # it has ended, which reading tells better
            stdin.write(line)
            await stdin.drain()
        try:
            return await stdout.readline()
        except ValueError:
            raise await self._broken(f"wrote a line longer than {MAX_LINE_BYTES >> 20} MiB") from None

    async def _broken(self, what: str) -> InfrastructureError:
        """The error for a process that did ``what``; ends it."""
        process = self._process
        await self.end()
        status = None if process is None else process.returncode
        how = "" if status is None or status == -signal.SIGKILL else f" (exit status {status})"
        tail = " ".join(self._stderr.decode("utf-8", "replace").split())
        said = f"; its stderr ends: ...{tail[-500:]}" if tail else "; it wrote nothing to stderr"
        return InfrastructureError(f"{self.name} {what}{how}{said}", retryable=False)

    async def end(self) -> None:
        """Closes the program's stdin, gives it a moment, and kills what is left of its process group."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await process.wait()
        finally:
            # also when it has ended: what it started may not have
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if self._listening is not None:
                with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                    # the pipe stays open as long as anyone who left the group holds it
                    await asyncio.wait_for(self._listening, GRACE_S)


# -- services -----------------------------------------------------------------------------------------------------------


class HttpAgentPolicy(PolicyBase):
    """An agent behind HTTP: ``--model http://localhost:9000/act``.

    Each turn is a POST of ``{"episode", "turn", "messages", "tools", "sampling"}``, answered by ``{"message": {...}}``,
    with ``"usage"`` if it likes. Failed calls are repeated as those to models are, so that an agent may be asked the same
    turn twice; ``episode`` and ``turn`` tell. Credentials in the URL are sent as basic authentication and never recorded.

    Raises:
        UsageError: the URL makes no sense.
    """

    def __init__(self, argument: str, *, patience: Patience | None = None) -> None:
        origin = parse_url(argument)
        self.name = origin.shown
        self._target = "" if origin.path else "/"
        self._http = Http1(origin)
        self.patience = patience or Patience()
        secrets = (origin.basic or "", *origin.credentials.split(":", 1))
        self._caller = Caller(self.name, self.patience, tuple(s for s in secrets if len(s) >= 4))

    def begin(self, context: EpisodeContext) -> Policy:
        """A player of one episode."""
        return _Remote(self)

    def fingerprint(self) -> dict[str, Any]:
        """The URL without credentials, and how calls went so far."""
        result: dict[str, Any] = {"name": self.name}
        if self._caller.counts:
            result["served"] = {"calls": dict(sorted(self._caller.counts.items()))}
        return result

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _ask(self, body: bytes) -> Completion:
        async def attempt(timeout: float) -> Completion:
            try:
                reply = await self._http.call("POST", self._target, body, timeout)
            except HttpFault as e:
                raise Fault(e.kind, str(e)) from None
            if reply.status != 200:
                raise self._refused(reply)
            try:
                value = loads(reply.body)
                if not isinstance(value, dict) or "message" not in value:
                    raise ShapeError('it must be an object with a "message"')
                return as_answer(value)
            except ShapeError as e:
                raise Fault("malformed", f"the agent's reply is no answer: {e}") from None

        return await self._caller.call(attempt)

    def _refused(self, reply: Reply) -> Exception:
        text, _ = error_text(reply.body)
        what = f"the agent answers with status {reply.status}{f': {text}' if text else ''}"
        if reply.status in RETRIED:
            return Fault("busy" if reply.status in BUSY else "server", what, retry_after(reply.headers))
        return InfrastructureError(self._caller.clean(f"{self.name}: {what}"), retryable=False)


class _Remote(PolicyBase):
    """One episode of an agent behind HTTP."""

    def __init__(self, policy: HttpAgentPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._talk = _Talk()

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The agent's answer."""
        begun = time.monotonic()
        body = msgspec.json.encode(self._talk.view(conversation, tools, sampling))
        return _timed(await self._policy._ask(body), begun)


def http_agent(argument: str) -> HttpAgentPolicy:
    """``http://HOST/PATH``; what is behind the first colon arrives here."""
    return HttpAgentPolicy(f"http:{argument}" if argument.startswith("//") else argument)


def https_agent(argument: str) -> HttpAgentPolicy:
    """``https://HOST/PATH``."""
    return HttpAgentPolicy(f"https:{argument}" if argument.startswith("//") else argument)
