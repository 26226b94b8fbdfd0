"""Nothing is passed over, whatever the library makes of reads, seeks and rebalances."""

from hypothesis import given
from hypothesis import strategies as st

from app.monitor.inbox import Inbox
from app.monitor.reading import Reading, Stretch
from app.monitor.stage import Read

PLACE = ("summaries", 0)
LENGTH = 12


def stretch(start, end, markers=frozenset()):
    """What a broker has there; markers: offsets without a record."""
    offsets = [offset for offset in range(start, end) if offset not in markers]
    return Stretch(start, end, [Read(*PLACE, offset, 0, b"k", b"v") for offset in offsets])


def reading(most=1_000):
    inbox = Inbox(most, 10**6)
    fetched, started = [], []
    made = Reading(lambda *last: fetched.append(last), started.append)
    made.feed(PLACE[0], inbox)
    made.fetched, made.started = fetched, started
    return made, inbox


def offsets(inbox):
    return [record.offset for record in inbox._records]


def test_nothing_is_read_before_it_is_known_from_where():
    made, inbox = reading()
    assert made.due() == (0, {})
    made.take(0, {PLACE: stretch(0, 5)})
    assert (offsets(inbox), made.place(*PLACE)) == ([], None)


def test_a_read_goes_on_behind_markers_at_the_end_of_the_one_before():
    made, inbox = reading()
    made.start(0, {PLACE: 3})
    made.take(0, {PLACE: stretch(3, 6, markers={5})})
    made.take(0, {PLACE: stretch(6, 7, markers={6})})
    assert (made.due(), offsets(inbox)) == ((0, {PLACE: 7}), [3, 4])
    assert (made.fetched, made.started) == ([(*PLACE, 4)], [{PLACE: 3}])


def test_a_fetch_from_before_a_seek_is_dropped_and_nothing_is_below_it():
    """How faust lost a summary: what came late was ahead, and what was read again was below what had been seen."""
    made, inbox = reading()
    made.start(0, {PLACE: 0})
    late = {PLACE: stretch(0, 5)}
    made.start(0, {PLACE: 2})
    made.take(0, late)
    made.take(0, {PLACE: stretch(2, 4)})
    made.take(0, {PLACE: stretch(5, 9)})
    assert (offsets(inbox), made.place(*PLACE)) == ([2, 3], 4)


def test_what_an_assignment_that_has_ended_still_brings_is_void():
    made, inbox = reading()
    made.start(0, {PLACE: 0})
    made.begin_anew()
    made.take(0, {PLACE: stretch(0, 5)})
    made.start(0, {PLACE: 5})
    assert (made.due(), offsets(inbox)) == ((1, {}), [])


def test_a_topic_whose_inbox_is_full_is_not_read_and_the_others_are():
    made, _ = reading(most=2)
    other = Inbox(2, 10**6)
    made.feed("parts", other)
    made.start(0, {PLACE: 0, ("parts", 0): 0, ("nobody's", 0): 0})
    made.take(0, {PLACE: stretch(0, 3)})
    assert made.due() == (0, {("parts", 0): 0})
    assert made.place(*PLACE) == 3


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 5)),
    st.tuples(st.just("arrive"), st.integers(0, 3)),
    st.tuples(st.just("seek"), st.integers(0, LENGTH)),
    st.tuples(st.just("rebalance"), st.integers(0, LENGTH)),
)


@given(st.lists(ACTIONS, max_size=60), st.sets(st.integers(0, LENGTH - 1)))
def test_after_any_reads_seeks_and_rebalances_each_record_follows_the_one_before(actions, markers):
    """Reads may arrive late, in any order or never; a seek may come at any time, to anywhere that is not ahead."""
    made, inbox = reading()
    under_way, starts = [], []
    for action, number in actions:
        epoch, due = made.due()
        if action == "ask" and due:
            start = due[PLACE]
            under_way.append((epoch, {PLACE: stretch(start, min(start + number, LENGTH), markers)}))
        elif action == "arrive" and under_way:
            made.take(*under_way.pop(min(number, len(under_way) - 1)))
        elif action == "seek":
            made.start(made.epoch, {PLACE: min(number, made.place(*PLACE) or 0)})
            starts.append(made.place(*PLACE))
        elif action == "rebalance":
            made.begin_anew()
            inbox.clear()
            made.start(made.epoch, {PLACE: 0})
            starts = [0]
        reached = starts[0] if starts else 0
        for offset in offsets(inbox):
            assert offset <= reached or set(range(reached, offset)) <= markers  # the next, or one that came before
            reached = max(reached, offset + 1)
