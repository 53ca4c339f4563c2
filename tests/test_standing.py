"""Where sites stand, by what a run has written."""

from server.sites.standing import Standing, changes, spans, standings

GONE = "its node is not connected"
LINES = [
    {"round": 0, "clients": {}, "missing": {}},
    {"round": 1, "clients": {"a": {}, "b": {}}, "missing": {}},
    {"round": 2, "clients": {"a": {}}, "missing": {"b": GONE}, "failed": {"b": GONE}},
    {"round": 3, "clients": {"a": {}, "b": {}}, "missing": {"c": "late"}},
    {"round": 4, "clients": {"a": {}}, "missing": {"c": "late", "b": GONE}},
]


def test_a_site_is_missing_since_the_first_of_the_last_rounds_without_it() -> None:
    found = standings(LINES, ["a", "b", "c"], {"x": "classes"}, {"b": GONE, "c": "late", "d": "never"})
    assert found == {
        "a": Standing("takes part"),
        "b": Standing("missing since round 4", GONE),
        "c": Standing("missing since round 3", "late"),
        "d": Standing("missing since round 5", "never"),  # lost in the round that did not end
        "x": Standing("refused", "classes"),
    }


def test_a_site_that_never_came_is_missing_from_the_start() -> None:
    assert standings([], [], {}, {"d": "not yet"}) == {"d": Standing("missing from the start", "not yet")}
    first = [{"round": 0, "missing": {"d": "not yet"}}]
    assert standings(first, [], {}, {"d": "not yet"})["d"].state == "missing from the start"


def test_a_site_that_came_back_takes_part_again() -> None:
    assert standings(LINES, ["b"], {}, {})["b"] == Standing("takes part again", "was missing in rounds 2, 4")


def test_who_was_lost_and_who_is_back_is_said_once() -> None:
    said = [changes(before, line) for before, line in zip([{}, *LINES], LINES, strict=False)]
    # That b failed in round 2 is said with the round.
    assert said == [[], [], [], ["c is missing: late", "b is back"], [f"b is missing: {GONE}"]]


def test_what_is_no_run_is_no_reason_to_fail() -> None:
    assert standings([{"round": "x", "missing": 5}], ["a"], {}, {}) == {"a": Standing("takes part")}
    assert changes({"missing": None}, {}) == []


def test_rounds_in_short() -> None:
    assert [spans([2]), spans([3, 5, 6, 7])] == ["round 2", "rounds 3, 5–7"]
    assert spans(list(range(1, 40, 2))) == "20 rounds, the last 39"
