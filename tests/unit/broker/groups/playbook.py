"""Transcripts of dialogues with one group: what is said to it, what it says, line by line.

A line with ``>`` is said to the group, the lines below it are everything that it does then::

    > join A                      JoinGroup of client A (v4 unless it says v=N)
    A: MEMBER_ID_REQUIRED A-1
    > join A as A-1
    > at 3                        the clock moves to 3 s, stopping at every deadline before
    A: joined 1 range leader A-1 members A-1
    > sync A-1 gen 1 A-1=all
    store 1 range leader A-1: A-1=all
    > stored                      the oldest store is replicated (or failed: stored CODE)
    A-1: assigned all

Member ids are ``<client or instance id>-<running number>``. Times are seconds.
"""

import math
from collections.abc import Callable
from difflib import unified_diff
from textwrap import dedent

from kavka.broker.groups.group import Group
from kavka.broker.groups.image import GroupImage
from kavka.broker.groups.messages import (
    AnswerJoin,
    Effect,
    Join,
    JoinResult,
    Leave,
    Moment,
    StoreGroup,
    Sync,
    SyncResult,
)
from kavka.broker.groups.settings import GroupSettings
from kavka.protocol.errors import ErrorCode

START_MS = 1_500_000_000_000


class Waiter:
    """Stands for a request that waits; it may be answered once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answered = False

    def __call__(self, result: JoinResult | SyncResult) -> None:
        raise AssertionError("a pure group does not call its waiters")


def show_join(result: JoinResult) -> str:
    if result.error is not ErrorCode.NONE:
        return f"{result.error.name} {result.member_id}".rstrip()
    text = f"joined {result.generation} {result.protocol} leader {result.leader}"
    if result.members:
        text += " members " + " ".join(member.member_id for member in result.members)
    return text + (" skip-assignment" if result.skip_assignment else "")


def show_sync(result: SyncResult) -> str:
    if result.error is not ErrorCode.NONE:
        return result.error.name
    return f"assigned {result.assignment.decode() or 'nothing'}"


def show_image(image: GroupImage) -> str:
    members = " ".join(f"{m.member_id}={m.assignment.decode()}" for m in image.members)
    return f"{image.generation} {image.protocol} leader {image.leader}: {members}".rstrip(": ")


class Player:
    """One group and its clock, driven by commands."""

    def __init__(self, settings: GroupSettings) -> None:
        self.settings = settings
        self.seconds = 0.0
        self.ids = 0
        self.group = Group("g", settings, self.new_id, self.now())
        self.output: list[str] = []
        self.stores: list[StoreGroup] = []
        self.image: GroupImage | None = None

    def new_id(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}-{self.ids}"

    def now(self) -> Moment:
        return Moment(self.seconds, START_MS + round(self.seconds * 1000))

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StoreGroup):
                self.stores.append(effect)
                self.output.append(f"store {show_image(effect.image)}")
                continue
            waiter = effect.waiter
            assert isinstance(waiter, Waiter)
            assert not waiter.answered, "a request is answered once"
            waiter.answered = True
            if isinstance(effect, AnswerJoin):
                self.output.append(f"{waiter.name}: {show_join(effect.result)}")
            else:
                self.output.append(f"{waiter.name}: {show_sync(effect.result)}")

    def say(self, command: str) -> None:
        words = command.split()
        handler: Callable[[list[str]], None] = getattr(self, f"do_{words[0]}")
        handler(words[1:])

    # -- commands ---------------------------------------------------------------------------

    def do_join(self, words: list[str]) -> None:
        options = _options(words[1:])
        version = int(options.get("v", "4"))
        session_ms = round(float(options.get("session", "10")) * 1000)
        rebalance_ms = round(float(options.get("rebalance", "60")) * 1000)
        names = options.get("protocols", "range").split(",")
        metadata = options.get("meta", "").encode()
        join = Join(
            _after("as", words) or "",
            _after("static", words),
            words[0],
            "/127.0.0.1",
            session_ms,
            rebalance_ms,
            options.get("type", "consumer"),
            tuple((name, metadata) for name in names if name),
            options.get("reason"),
            needs_known_id=version >= 4,
            can_skip_assignment=version >= 9,
        )
        self.carry_out(self.group.join(join, Waiter(words[0]), self.now()))

    def do_sync(self, words: list[str]) -> None:
        options = _options(words)
        assignments = tuple(
            (key, value.encode()) for key, value in options.items() if key not in ("type", "proto")
        )
        sync = Sync(
            words[0],
            _after("static", words),
            int(_after("gen", words) or "-1"),
            options.get("type"),
            options.get("proto"),
            assignments,
        )
        self.carry_out(self.group.sync(sync, Waiter(words[0]), self.now()))

    def do_beat(self, words: list[str]) -> None:
        generation = int(_after("gen", words) or "-1")
        code = self.group.heartbeat(words[0], _after("static", words), generation, self.now())
        self.output.append(code.name)

    def do_commit(self, words: list[str]) -> None:
        generation = int(_after("gen", words) or "-1")
        member_id = "" if words[0] == "nobody" else words[0]
        code = self.group.may_commit(member_id, _after("static", words), generation, self.now())
        self.output.append(code.name)

    def do_leave(self, words: list[str]) -> None:
        instance_id = _after("static", words)
        member_id = "" if words[0] == "static" else words[0]
        error, errors, effects = self.group.leave([Leave(member_id, instance_id)], self.now())
        self.output.append((errors[0] if error is ErrorCode.NONE else error).name)
        self.carry_out(effects)

    def do_at(self, words: list[str]) -> None:
        target = float(words[0])
        assert target >= self.seconds
        while self.group.next_deadline() <= target:
            self.seconds = max(self.seconds, self.group.next_deadline())
            before = self.group.next_deadline()
            self.carry_out(self.group.on_time(self.now()))
            after = self.group.next_deadline()
            assert after > before or after == math.inf, "time stands still"
        self.seconds = target

    def do_stored(self, words: list[str]) -> None:
        store = self.stores.pop(0)
        code = ErrorCode[words[0]] if words else ErrorCode.NONE
        if code is ErrorCode.NONE:
            self.image = store.image
        self.carry_out(self.group.stored(store.ticket, code, self.now()))

    def do_describe(self, words: list[str]) -> None:
        shown = self.group.describe()
        members = " ".join(
            f"{m.member_id}[{m.metadata.decode()}]={m.assignment.decode()}" for m in shown.members
        )
        self.output.append(f"{shown.state} {shown.protocol_type} {shown.protocol} {members}")

    def do_history(self, words: list[str]) -> None:
        for event in self.group.history:
            self.output.append(f"{event.generation} {event.reason} ({event.client_id})")

    def do_unload(self, words: list[str]) -> None:
        self.carry_out(self.group.unload())

    def do_restart(self, words: list[str]) -> None:
        assert self.image is not None
        self.stores.clear()
        self.group = Group.restore("g", self.image, self.settings, self.new_id, self.now())


def _after(word: str, words: list[str]) -> str | None:
    return words[words.index(word) + 1] if word in words else None


def _options(words: list[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in words if "=" in word)
    return {key: value for key, _, value in pairs}


def play(transcript: str, settings: GroupSettings | None = None) -> Player:
    """Say the lines with ``>`` and compare everything else with what the group does."""
    player = Player(settings or GroupSettings())
    expected = [line.split("  #")[0].rstrip() for line in dedent(transcript).strip().splitlines()]
    for line in expected:
        if line.startswith(">"):
            player.output.append(line)
            player.say(line[1:].strip())
    # Blank ends come from empty protocol names and the like.
    spoken = [line.rstrip() for line in player.output]
    difference = list(unified_diff([line for line in expected if line], spoken, lineterm="", n=99))
    assert not difference, "\n".join(["not as written:", *difference[2:]])
    return player
