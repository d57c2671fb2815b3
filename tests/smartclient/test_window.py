from smartclient.window import Window


def test_it_counts_what_the_last_ten_seconds_hold() -> None:
    window = Window()
    for second in range(20):
        window.add(1000.5 + second)
    assert window.total(1019.5) == 10


def test_it_forgets_by_the_second() -> None:
    window = Window()
    window.add(1000.0)
    window.add(1000.9)
    window.add(1005.0)
    assert [window.total(now) for now in (1009.9, 1010.0, 1014.9, 1015.0)] == [3, 1, 1, 0]


def test_asking_changes_nothing() -> None:
    window = Window()
    for second in range(10):
        window.add(1000.0 + second)
    assert [window.total(1009.0 + later) for later in (0, 3, 9, 10, 500)] == [10, 7, 1, 0, 0]
    assert window.total(1009.0) == 10, "also about a time before the one asked for last"


def test_a_long_silence_empties_it() -> None:
    window = Window()
    window.add(1000.0)
    assert window.total(9999.0) == 0
    window.add(9999.0)
    assert window.total(9999.0) == 1
