"""Objects per pool are created on first use and dropped with their pool."""

from workers.per_pool import PerPool


def test_per_pool_creates_missing_objects_once_and_drops_unwanted_ones():
    created: list[str] = []
    table = PerPool(lambda name: created.append(name) or name.upper(), ("a",))
    assert (table["a"], table["b"], table["b"]) == ("A", "B", "B")
    assert created == ["a", "b"]
    table.keep({"b"})
    assert list(table) == ["b"]
    assert table["a"] == "A"
    assert created == ["a", "b", "a"]
