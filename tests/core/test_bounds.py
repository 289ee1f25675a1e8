"""A definition from outside costs little, or is refused: to make, to ask, to store and to read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from sched_core import Cron, Interval, InvalidDefinition, JobSpec, codec
from sched_core.schedule import (
    AnyOf,
    Between,
    DstRule,
    Excluding,
    Newest,
    Schedule,
    count_occurrences,
    first_occurrence,
    last_occurrence,
    next_occurrence,
    upcoming,
)
from sched_core.schedule.combined import DEEPEST, MOST_DATES, MOST_PARTS, MOST_QUESTIONS

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURLY = Interval(hours=1, start=START)
LONG = START + 10_000 * DAY
ANY: Any = None
"""A value that a type checker would refuse."""


@frozen
class Asked:
    """A schedule that notes how often it is asked."""

    inner: Interval
    questions: list[int] = field(factory=list, eq=False)

    def first(self, anchor: datetime) -> datetime | None:
        self.questions.append(1)
        return self.inner.first(anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        self.questions.append(1)
        return self.inner.next_after(moment, anchor)

    def count(self, after: datetime, until: datetime, anchor: datetime) -> int:
        self.questions.append(1)
        return self.inner.count(after, until, anchor)

    def last_until(self, moment: datetime, anchor: datetime) -> datetime | None:
        self.questions.append(1)
        return self.inner.last_until(moment, anchor)


@frozen
class Stepped:
    """One that cannot count."""

    asked: Asked

    def first(self, anchor: datetime) -> datetime | None:
        return self.asked.first(anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return self.asked.next_after(moment, anchor)


def days(number: int, every: int = 2, first: int = 0) -> list[date]:
    return [START.date() + timedelta(first + every * each) for each in range(number)]


def nested(wrap: Callable[[Schedule], Schedule], schedule: Schedule, times: int) -> Schedule:
    for _ in range(times):
        schedule = wrap(schedule)
    return schedule


# -- questions ---------------------------------------------------------------

# Each is as large as it may be, or nearly; what occurs is left out for as long as possible.
LARGE: list[tuple[str, Callable[[Schedule], Schedule]]] = [
    ("one Excluding", lambda part: Excluding(part, days(MOST_DATES))),
    (
        "two Excludings that leave out in turn",
        lambda part: Excluding(Excluding(part, days(2500, 4)), days(2500, 4, 2)),
    ),
    (
        "ten Excludings",
        lambda part: nested(lambda inner: Excluding(inner, days(500)), part, DEEPEST),
    ),
    ("dates around a union", lambda part: Excluding(AnyOf(part, part), days(MOST_DATES))),
    (
        "a union that skips inside what skips",
        lambda part: Excluding(AnyOf(part, Excluding(part, days(100, 2, 1))), days(110)),
    ),
    (
        "spans around a union",
        lambda part: nested(
            lambda inner: Between(inner, START + DAY), AnyOf(*[part] * MOST_PARTS), DEEPEST - 1
        ),
    ),
    (
        "a union of unions",
        lambda part: AnyOf(*[AnyOf(*[part] * 10)] * 10),
    ),
    (
        "a union with days left out of all",
        lambda part: AnyOf(*[Excluding(part, days(50, 2, each)) for each in range(MOST_PARTS)]),
    ),
]


@pytest.mark.parametrize("every", [timedelta(milliseconds=1), 2 * DAY])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("make", [row[1] for row in LARGE], ids=[row[0] for row in LARGE])
def test_one_question_is_few_questions_to_the_parts(
    make: Callable[[Schedule], Schedule], every: timedelta, *, counts: bool
) -> None:
    part = Asked(Interval(every, start=START))
    schedule = make(part if counts else Stepped(part))
    questions: list[Callable[[], object]] = [
        lambda: schedule.first(START),
        lambda: schedule.next_after(START - HOUR, START - DAY),
        lambda: count_occurrences(schedule, START - HOUR, LONG, START - DAY),
        lambda: last_occurrence(schedule, START - HOUR, LONG, START - DAY),
    ]
    for question in questions:
        part.questions.clear()
        question()
        # Counting notices once it has put its last question that it was one too many.
        assert 0 < len(part.questions) <= 2 * MOST_QUESTIONS


def test_dates_around_what_is_left_out_already_cost_nothing() -> None:
    """If two Excludings have the same dates, only what is between them is looked at."""
    part = Asked(HOURLY)
    schedule = nested(lambda inner: Excluding(inner, days(200)), part, 5)
    found = count_occurrences(schedule, START, START + 400 * DAY - HOUR, START)
    assert found == (200 * 24, True)
    assert len(part.questions) == 200


def test_a_count_that_is_given_up_is_at_least_so_many() -> None:
    """A year of two unions that meet often, with days left out between."""
    minutes = AnyOf(Cron("* * * * *"), Interval(minutes=1, start=START), Cron("*/2 * * * *"))
    schedule = Excluding(AnyOf(minutes, Interval(seconds=90, start=START)), days(20))
    until = START + 40 * DAY
    number, exact = count_occurrences(schedule, START, until, START)
    assert not exact
    assert 0 < number <= 20 * 24 * 60 * 2
    assert last_occurrence(schedule, START, until, START) == Newest(until, exact=True)


# -- what is too large -------------------------------------------------------

ZONES = (
    sorted(
        f"Etc/GMT{sign}{hours}" for sign, last in (("+", 13), ("-", 15)) for hours in range(last)
    )
    + [
        f"Africa/{city}"
        for city in ["Accra", "Cairo", "Dakar", "Lagos", "Lome", "Tunis", "Bissau", "Luanda"]
    ]
    + [f"Asia/{city}" for city in ["Tokyo", "Seoul", "Dhaka", "Macau", "Hebron", "Gaza"]]
)

REFUSED: list[tuple[str, Callable[[], object], str, str]] = [
    ("parts", lambda: AnyOf(*[HOURLY] * 101), "schedules", "1 to 100"),
    ("parts of parts", lambda: AnyOf(AnyOf(*[HOURLY] * 60), *[HOURLY] * 41), "schedules", "101"),
    (
        "a part used again and again",
        lambda: nested(lambda inner: AnyOf(*[inner] * 100), HOURLY, 4),
        "schedules",
        "not 10000",
    ),
    (
        "spans in spans",
        lambda: nested(lambda inner: Between(inner, START), HOURLY, DEEPEST + 1),
        "schedule",
        "at most 10 levels",
    ),
    (
        "unions of one",
        lambda: nested(AnyOf, HOURLY, 500),
        "schedules",
        "at most 10 levels",
    ),
    ("dates", lambda: Excluding(HOURLY, days(5001)), "dates", "at most 5000"),
    (
        "dates around dates",
        lambda: Excluding(Excluding(HOURLY, days(2501)), days(2500)),
        "dates",
        "at most 5000 over all levels, not 5001",
    ),
    (
        "dates of all parts",
        lambda: AnyOf(*[Excluding(HOURLY, days(501))] * 10),
        "dates",
        "not 5010",
    ),
    (
        "dates around many schedules",
        lambda: Excluding(AnyOf(*[HOURLY] * 100), days(200)),
        "dates",
        "leave out dates that have passed",
    ),
    (
        "unions in dates in unions in dates",
        lambda: Excluding(AnyOf(HOURLY, Excluding(AnyOf(HOURLY), days(200))), days(200)),
        "dates",
        "too many around so many schedules",
    ),
    (
        "zones",
        lambda: AnyOf(*[Cron("0 9 * * *", tz=zone) for zone in ZONES]),
        "schedules",
        "at most 40 time zones, not 42",
    ),
    (
        "days that never end",
        lambda: Excluding(HOURLY, (START.date() + each * DAY for each in naturals())),
        "dates",
        "at most 5000",
    ),
    ("a field by name", lambda: Cron(minute="1," * 500_000 + "1"), "minute", "at most 1000"),
    ("an absurd number", lambda: Cron(minute=10**5000), "minute", "out of bounds"),
    ("an absurd period", lambda: Interval(hours=10**5000), "hours", "out of bounds"),
]


def naturals() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize(
    ("make", "name", "remedy"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_too_large_is_refused(make: Callable[[], object], name: str, remedy: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        make()
    assert caught.value.field == name
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cron(ANY, tz="x" * 10**6),
        lambda: Cron("0 3 * * *", tz="x" * 10**6),
        lambda: Cron("0 3 * * *", dst=ANY),
        lambda: Cron("0 3 * * *", dst="x" * 10**6),  # type: ignore[arg-type]  # refused
        lambda: DstRule(gap="x" * 10**6),  # type: ignore[arg-type]  # refused
        lambda: Between("x" * 10**6, START),  # type: ignore[arg-type]  # refused
        lambda: Excluding(HOURLY, ["x" * 10**6]),  # type: ignore[list-item]  # refused
        lambda: JobSpec("a", "x" * 10**6),  # type: ignore[arg-type]  # refused
        lambda: JobSpec("a", HOURLY, metadata={"a": 10**5000}),
    ],
)
def test_a_message_does_not_repeat_a_large_value(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        make()
    assert len(str(caught.value)) < 1000


# -- what is read from a store -----------------------------------------------

INNER = '["interval",{"every":60}]'


def wrapped(times: int) -> str:
    head = '["between",{"schedule":' * (times - 1)
    tail = ',"start":"2026-01-01T00:00:00Z"}'
    return '{"schedule":' + head + INNER + (tail + "]") * (times - 1) + tail


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        ("between", wrapped(DEEPEST + 1)),
        ("between", wrapped(500)),
        ("between", '{"schedule":' + '["between",{"schedule":' * 5000),
        ("between", "[" * 200_000),
        ("any_of", '{"schedules":[' + ",".join([INNER] * 101) + "]}"),
        ("any_of", '{"schedules":[' + ",".join([INNER] * 50_000) + "]}"),
        ("cron", '{"expression":"' + "1," * 2000 + '1 * * * *","tz":"UTC"}'),
        ("cron", '{"expression":"0 3 * * *","tz":"localtime"}'),
    ],
)
def test_a_stored_definition_out_of_bounds_cannot_be_read(tag: str, body: str) -> None:
    with pytest.raises(codec.Malformed):
        codec.decode_schedule(tag, body)


def test_the_deepest_that_may_be_comes_back_from_a_store() -> None:
    schedule = codec.decode_schedule("between", wrapped(DEEPEST))
    assert codec.encode_schedule(schedule) == wrapped(DEEPEST)


@frozen
class Letter:
    """A third party's kind that keeps much."""

    text: str

    def first(self, anchor: datetime) -> datetime | None:
        return None

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        return None


codec.register("tests.letter", Letter, lambda letter: letter.text, Letter)


def test_what_would_be_too_large_to_store_is_refused() -> None:
    letter = Letter("a" * 999)
    assert codec.decode_schedule("tests.letter", codec.encode_schedule(letter)) == letter
    with pytest.raises(InvalidDefinition, match="schedule: must be at most 262144 characters"):
        codec.encode_schedule(Letter("a" * 262_144))


# -- what a third party's schedule says --------------------------------------


@frozen
class Says:
    """Answers what it is told to."""

    answer: Any

    def first(self, anchor: datetime) -> Any:
        return self.answer(anchor)

    def next_after(self, moment: datetime, anchor: datetime) -> Any:
        return self.answer(moment)


@frozen
class Counts(Says):
    """Claims to be able to count."""

    def count(self, after: datetime, until: datetime, anchor: datetime) -> Any:
        return self.answer(after)

    def last_until(self, moment: datetime, anchor: datetime) -> Any:
        return self.answer(moment)


NONSENSE: list[tuple[str, Callable[[datetime], object], str]] = [
    ("the same", lambda moment: moment, "not after"),
    ("the same elsewhere", lambda moment: moment.astimezone(timezone(HOUR)), "not after"),
    ("an earlier one", lambda moment: moment - HOUR, "not after"),
    ("a naive one", lambda moment: (moment + HOUR).replace(tzinfo=None), "naive"),
    ("a date", lambda moment: moment.date(), "no datetime"),
    ("a text", lambda moment: "tomorrow", "no datetime"),
    ("a number", lambda moment: 10**5000, "no datetime"),
]


@pytest.mark.parametrize(
    ("answer", "says"), [row[1:] for row in NONSENSE], ids=[row[0] for row in NONSENSE]
)
def test_an_answer_that_cannot_be_true_is_refused(
    answer: Callable[[datetime], object], says: str
) -> None:
    """Alone, and inside of combined ones, which would go on asking without end."""
    broken = Says(answer)
    around: list[Schedule] = [
        broken,
        AnyOf(HOURLY, broken),
        Between(broken, START - DAY),
        Excluding(broken, [START.date()]),
        Between(Excluding(AnyOf(broken), [START.date()]), START),
    ]
    for schedule in around:
        questions: list[Callable[[Schedule], object]] = [
            lambda it: next_occurrence(it, START, START),
            lambda it: count_occurrences(it, START, START + DAY, START),
            lambda it: last_occurrence(it, START, START + DAY, START),
            lambda it: upcoming(it, START, 3),
        ]
        for question in questions:
            with pytest.raises(InvalidDefinition, match=r"^schedule: Says\.next_after") as caught:
                question(schedule)
            assert says in str(caught.value)
    if says != "not after":
        with pytest.raises(InvalidDefinition, match=r"^schedule: Says\.first returned"):
            first_occurrence(broken, START)


@pytest.mark.parametrize("number", [-1, 1.5, "many", True, None])
def test_a_count_that_is_none_is_refused(number: object) -> None:
    with pytest.raises(InvalidDefinition, match=r"Counts\.count returned .* no number"):
        count_occurrences(Counts(lambda _: number), START, START + DAY, START)


def test_a_last_moment_that_is_none_is_refused() -> None:
    for answer, says in ((lambda moment: moment + HOUR, "which is after"), (str, "no datetime")):
        with pytest.raises(InvalidDefinition, match=says):
            last_occurrence(Counts(answer), START, START + DAY, START)
    assert last_occurrence(Counts(lambda _: None), START, START + DAY, START).moment is None


# -- the machine -------------------------------------------------------------

WATCHED = """
import sys

started = []

def watch(event, arguments):
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.system"):
        started.append((event, arguments[:1]))

sys.addaudithook(watch)

from datetime import UTC, date, datetime, timedelta
from sched_core import (
    AnyOf, Between, Cron, Excluding, FixedDelay, Interval, JobSpec, Once, StartAtInterval, codec,
    dst_warnings,
)
from sched_core.advice import advise
from sched_core.schedule import count_occurrences, last_occurrence

now = datetime(2026, 1, 1, tzinfo=UTC)
cron = Cron("*/5 9-17 * * mon-fri", tz="America/New_York")
for schedule in (
    cron, Cron(hour=3, tz="Europe/Berlin"), Cron("@daily"), Interval(hours=1), FixedDelay(hours=1),
    Once(now), StartAtInterval(now, hours=1), AnyOf(cron, Once(now)), Between(cron, now),
    Excluding(cron, [date(2026, 1, 1)]),
):
    schedule.upcoming(now, 3)
    count_occurrences(schedule, now, now + timedelta(days=3), now)
    last_occurrence(schedule, now, now + timedelta(days=3), now)
    advise(JobSpec("job", schedule), now=now)
    codec.decode_schedule(codec.tag_of(schedule), codec.encode_schedule(schedule))
dst_warnings(cron, now)
sys.exit(str(started) if started else 0)
"""


def test_no_schedule_starts_a_program() -> None:
    """No schedule needs one to be made, asked, stored or read, or for what it imports."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


NAMES = """
import sys
from sched_core import Cron, Excluding, Interval, InvalidDefinition

for name in sys.argv[1:]:
    for make in (lambda: Cron("@daily", name), lambda: Excluding(Interval(hours=1), [], name)):
        try:
            make()
        except InvalidDefinition as error:
            assert error.field == "tz", error
        else:
            print(name)
"""


def test_zones_of_this_machine_only_are_refused(tmp_path: Path) -> None:
    """Files that lie among the zones, and what a file system without capitals would find."""
    from importlib import resources

    zone = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Berlin").read_bytes()
    names = [
        "localtime", "posixrules", "Factory", "right/UTC", "right/Europe/Berlin",
        "posix/Europe/Berlin", "europe/berlin", "EUROPE/BERLIN", "utc", "Berlin",
    ]  # fmt: skip
    newer = "Land/Capital"  # than the package tzdata
    for name in [*names, newer, "Europe/Berlin"]:
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(zone)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            NAMES,
            *names,
            newer,
            "Europe/Berlin",
            "Etc/UTC",
            "US/Eastern",
            "EST5EDT",
        ],
        env={"PYTHONTZPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(set(done.stdout.split())) == [
        *("EST5EDT", "Etc/UTC", "Europe/Berlin", newer, "US/Eastern")
    ]


def test_a_zone_in_other_letters_is_told_its_name() -> None:
    with pytest.raises(InvalidDefinition, match="its name is 'Europe/Berlin'"):
        Cron("0 3 * * *", tz="europe/berlin")
