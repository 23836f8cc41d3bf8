"""A plan as calendar entries (RFC 5545, `kata plan --ics`).

Each is of a whole day and leaves the day free: the plan knows days and minutes, and not the hour at
which a learner has time. A day reminds at nine in the morning, the interview at six the evening
before. A UID is that of the day, or of the interview: a later file brings the same entries up to
date, with a higher SEQUENCE, and moves the interview's. No file takes an entry away: days after an
interview that was moved nearer stay until they are deleted.
"""

from datetime import UTC, date, datetime, timedelta

from icalendar import Alarm, Calendar, Event

from grader import __version__
from grader.recall.planning import Outlook
from grader.views.today import STOPS, minutes, of_day

_SINCE = 1_577_836_800  # 2020 began: SEQUENCE holds 31 bits, and seconds since then last to 2088
_DAY = timedelta(days=1)
_MORNING, _EVE = timedelta(hours=9), timedelta(hours=-6)  # from the midnight that begins the day


def file(shown: Outlook, now: datetime) -> bytes:
    """The days of the plan that hold something, and the interview. now: with a time zone."""
    calendar = Calendar()
    calendar.add("prodid", f"-//lora-kata//kata plan {__version__}//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    for day in shown.forecast.days:
        if day.minutes and day.day != shown.plan.interview:
            dated = "".join(f", {STOPS[stop.kind]}" for stop, _ in day.stops)
            summary = f"Kata: {minutes(day.minutes)}{dated}"
            text = f"{of_day(day)}.\n\n`kata today` says what is next."
            calendar.add_component(_entry(f"{day.day}", day.day, summary, text, _MORNING, now))
    day_of_it, text = shown.plan.interview, "What the days of `kata plan` lead to."
    calendar.add_component(_entry("interview", day_of_it, "Interview", text, _EVE, now))
    return bytes(calendar.to_ical())


def _entry(
    name: str, day: date, summary: str, text: str, reminds: timedelta, now: datetime
) -> Event:
    entry = Event()
    entry.add("uid", f"kata-plan-{name}@lora-kata")
    stamp = now.astimezone(UTC)
    entry.add("dtstamp", stamp)
    entry.add("last-modified", stamp)
    entry.add("sequence", int(stamp.timestamp()) - _SINCE)
    entry.add("dtstart", day)
    entry.add("dtend", day + _DAY)
    entry.add("transp", "TRANSPARENT")
    entry.add("summary", summary)
    entry.add("description", text)
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("trigger", reminds)
    alarm.add("description", summary)
    entry.add_component(alarm)
    return entry
