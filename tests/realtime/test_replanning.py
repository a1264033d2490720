from shortcut_policy.realtime.replanning import Replanning


def run(every, due_after, latencies, ticks):
    """Ticks of the requests and of the lateness, of a policy that takes the given numbers of ticks."""
    replanning = Replanning(every, due_after)
    asked, late, arrival = [], [], None
    for tick in range(ticks):
        if arrival == tick:
            replanning.answered()
            arrival = None
        if replanning.is_late(tick):
            late.append(tick)
        if replanning.asks(tick):
            asked.append(tick)
            arrival = tick + latencies[len(asked) - 1]
    return asked, late


def test_answers_in_time_keep_the_appointments():
    assert run(3, 2, [1, 2, 2, 1], 11) == ([0, 3, 6, 9], [])


def test_an_answer_that_is_late_is_so_once():
    assert run(3, 1, [1, 2, 1, 1], 11) == ([0, 3, 6, 9], [4])


def test_who_waits_for_an_answer_asks_as_soon_as_it_is_there_and_both_are_late():
    # wanted at 3 and due at 4; there at 8, when the next one has been wanted since 6; that is asked for at 8
    assert run(3, 1, [1, 5, 1, 1], 13) == ([0, 3, 8, 11], [4, 8])


def test_no_answer_is_asked_for_and_missed_but_once():
    assert run(3, 1, [1, 100], 30) == ([0, 3], [4])


def test_what_is_refused_is_asked_for_again_and_stays_late():
    replanning = Replanning(every=3, due_after=1)
    assert replanning.asks(0)
    replanning.refused()
    assert replanning.is_late(1)
    assert replanning.asks(1)
    replanning.refused()
    assert not replanning.is_late(2)
    assert replanning.asks(2)
    replanning.answered()
    assert [tick for tick in range(3, 9) if replanning.asks(tick)] == [5]
