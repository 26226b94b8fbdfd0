from app.monitor.progress import Progress

STALLED_S = 100.0


def seen():
    return Progress(STALLED_S)


def test_a_partition_that_is_read_to_its_end_is_never_stalled():
    progress = seen()
    for now_s in range(0, 1_000, 50):
        progress.look("t", 0, 7, 7, now_s)
    assert progress.wrong(1_000.0) is None


def test_markers_at_the_end_of_transactions_are_nothing_to_wait_for():
    progress = seen()
    progress.fetched("t", 0, 4)
    progress.finished("t", 0, 4)
    for now_s in (0.0, 50.0, 500.0):
        progress.look("t", 0, 6, 6, now_s)
    assert progress.wrong(501.0) is None
    assert progress.lag() == {("t", 0): 0}


def test_records_that_the_consumer_does_not_fetch_are_a_stall():
    progress = seen()
    for now_s in (0.0, 1.0, 60.0, 102.0):
        progress.look("t", 0, 9, 5, now_s)
    assert "t 0 has not moved" in progress.wrong(102.0)
    assert progress.lag() == {("t", 0): 4}


def test_records_that_come_out_of_no_stream_are_a_stall_though_the_consumer_has_them():
    progress = seen()
    progress.look("t", 0, 5, 5, 0.0)
    progress.fetched("t", 0, 5)
    for now_s in (1.0, 2.0, 110.0):
        progress.look("t", 0, 6, 6, now_s)
    assert progress.wrong(110.0) is not None


def test_what_moves_is_not_stalled_however_far_behind():
    progress = seen()
    for step in range(20):
        progress.look("t", 0, 10_000, step, step * 50.0)
    assert progress.wrong(19 * 50.0 + 1) is None


def test_what_was_fetched_and_never_looked_at_is_no_stall():
    progress = seen()
    progress.fetched("t", 0, 5)  # the library handed it over before the first look, or after the partition went
    assert (progress.wrong(10_000.0), progress.lag()) == (None, {})
    progress.look("t", 0, 6, 6, 10_000.0)
    assert progress.wrong(10_000.0 + STALLED_S - 1) is None
    assert progress.wrong(10_000.0 + STALLED_S + 1) is not None


def test_after_a_rebalance_nothing_is_known():
    progress = seen()
    progress.look("t", 0, 9, 5, 0.0)
    progress.look("t", 0, 9, 5, 1.0)
    progress.begin_anew()
    assert (progress.wrong(10_000.0), progress.lag()) == (None, {})
