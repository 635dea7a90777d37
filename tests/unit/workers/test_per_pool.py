from workers.per_pool import PerPool


def test_what_is_not_there_is_made_once_and_what_nobody_wants_goes():
    made: list[str] = []
    table = PerPool(lambda name: made.append(name) or name.upper(), ("a",))
    assert (table["a"], table["b"], table["b"]) == ("A", "B", "B")
    assert made == ["a", "b"]
    table.keep({"b"})
    assert list(table) == ["b"]
    assert table["a"] == "A"
    assert made == ["a", "b", "a"]
