from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import (
    AppsPermission,
    HttpPermission,
    LimitsRequest,
    LocalisedText,
    ModelPermission,
    Permission,
    SecretPlace,
    SecretsPermission,
    StoragePermission,
)
from llmasos.kernel.grants import carry_over, difference, intersect, intersect_all, is_within

WHY = LocalisedText(en="Because.")
# Few names, so that they coincide often.
HOSTS = st.sampled_from(
    ["*", "https://a.com", "https://a.com:443", "https://*.a.com", "https://b.a.com", "https://*.b.a.com", "http://a.com",
     "https://a.com:8443", "https://c.com"]
)  # fmt: skip
PLACES = st.builds(
    SecretPlace, name=st.sampled_from(["k", "l"]), host=st.sampled_from(["https://a.com", "https://a.com:443"]),
    header=st.sampled_from(["A", "a", "b"]),
)  # fmt: skip


def some(strategy: st.SearchStrategy, least: int = 1) -> st.SearchStrategy:
    return st.lists(strategy, min_size=least, max_size=4).map(tuple)


MODELS = st.builds(
    ModelPermission, capability=st.just("model"), reason=st.just(WHY), tiers=some(st.sampled_from(["fast", "best"])),
    models=some(st.sampled_from(["m", "n"]), 0), max_output_tokens=st.integers(1, 4), embeddings=st.booleans(),
)  # fmt: skip
HTTP = st.builds(
    HttpPermission, capability=st.just("http"), reason=st.just(WHY), hosts=some(HOSTS),
    methods=some(st.sampled_from(["GET", "POST"])), max_response_bytes=st.integers(1, 3),
)  # fmt: skip
STORAGE = st.builds(StoragePermission, capability=st.just("storage"), reason=st.just(WHY), max_bytes=st.integers(1, 3))
SECRETS = st.builds(SecretsPermission, capability=st.just("secrets"), reason=st.just(WHY), secrets=some(PLACES))
APPS = st.builds(
    AppsPermission, capability=st.just("apps"), reason=st.just(WHY), apps=some(st.sampled_from(["a/b", "a/c"]))
)
KINDS = [MODELS, HTTP, STORAGE, SECRETS, APPS]
PERMISSIONS = st.one_of(KINDS)
PAIRS = st.one_of([st.tuples(kind, kind) for kind in KINDS])
TRIPLES = st.one_of([st.tuples(kind, kind, kind) for kind in KINDS])
SETS = st.lists(PERMISSIONS, unique_by=lambda p: p.capability, max_size=5)


@given(PERMISSIONS)
def test_within_is_reflexive(a: Permission) -> None:
    assert is_within(a, a)


@settings(max_examples=500)
@given(TRIPLES)
def test_within_is_transitive(triple: tuple[Permission, Permission, Permission]) -> None:
    a, b, c = triple
    if is_within(a, b) and is_within(b, c):
        assert is_within(a, c)


@given(PERMISSIONS, PERMISSIONS)
def test_different_capabilities_share_nothing(a: Permission, b: Permission) -> None:
    if a.capability != b.capability:
        assert not is_within(a, b)
        assert intersect(a, b) is None


@settings(max_examples=500)
@given(PAIRS)
def test_an_intersection_is_within_both_and_is_valid(pair: tuple[Permission, Permission]) -> None:
    a, b = pair
    both = intersect(a, b)
    if both is None:
        assert not is_within(a, b)
        assert not is_within(b, a)
        return
    assert is_within(both, a)
    assert is_within(both, b)
    assert type(both).model_validate(both.model_dump()) == both


@settings(max_examples=500)
@given(TRIPLES)
def test_an_intersection_is_the_greatest_of_what_is_within_both(
    triple: tuple[Permission, Permission, Permission],
) -> None:
    a, b, c = triple
    if is_within(c, a) and is_within(c, b):
        both = intersect(a, b)
        assert both is not None
        assert is_within(c, both)


@given(PAIRS)
def test_the_order_of_an_intersection_does_not_matter(pair: tuple[Permission, Permission]) -> None:
    ab, ba = intersect(*pair), intersect(*reversed(pair))
    assert (ab is None) == (ba is None)
    if ab is not None and ba is not None:
        assert is_within(ab, ba)
        assert is_within(ba, ab)


@given(SETS, SETS)
def test_a_callee_never_gets_more_than_it_or_its_caller_has(mine: list[Permission], theirs: list[Permission]) -> None:
    """SECURITY R5."""
    a, b = ({p.capability: p for p in each} for each in (mine, theirs))
    for name, grant in intersect_all(a, b).items():
        assert is_within(grant, a[name])
        assert is_within(grant, b[name])


@given(SETS, SETS)
def test_a_difference_names_all_that_is_new(old: list[Permission], new: list[Permission]) -> None:
    found = difference(old, new)
    before = {p.capability: p for p in old}
    assert {p.capability for p in found.removed} == set(before) - {p.capability for p in new}
    for permission in new:
        covered = permission.capability in before and is_within(permission, before[permission.capability])
        assert covered == (permission not in found.added + found.widened)
    assert not difference(new, new).asks_for_more


@given(SETS, SETS, SETS)
def test_carried_grants_never_exceed_what_was_granted_or_is_asked(
    granted: list[Permission], asked: list[Permission], new: list[Permission]
) -> None:
    kept = carry_over({p.capability: p for p in granted}, asked, new)
    for name, grant in kept.items():
        assert is_within(grant, next(p for p in granted if p.capability == name))
        assert is_within(grant, next(p for p in new if p.capability == name))


def http(*hosts: str, optional: bool = False) -> HttpPermission:
    return HttpPermission(capability="http", hosts=hosts, reason=WHY, optional=optional)


def test_what_was_declined_is_not_asked_again_nor_granted() -> None:
    asked = [http("https://a.com", optional=True)]
    assert not difference(asked, asked).asks_for_more
    assert carry_over({}, asked, asked) == {}
    assert difference(asked, [http("https://b.com")]).widened


def test_a_wildcard_covers_its_servers_and_not_the_reverse() -> None:
    assert is_within(http("https://b.a.com"), http("https://*.a.com"))
    assert not is_within(http("https://*.a.com"), http("https://b.a.com"))
    assert intersect(http("*"), http("https://a.com")) == http("https://a.com")


def test_raised_limits_need_consent_and_lowered_ones_do_not() -> None:
    low, high = LimitsRequest(tokens_per_day=10), LimitsRequest(tokens_per_day=20, memory_mib=128)
    assert difference([], [], low, high).raised_limits == ("memory_mib", "tokens_per_day")
    assert difference([], [], high, low).raised_limits == ()
    assert difference([], [], low, LimitsRequest()).raised_limits == ("tokens_per_day",)


@given(HOSTS, HOSTS)
def test_two_patterns_are_nested_or_apart(a: str, b: str) -> None:
    one, other = HostPattern.parse(a), HostPattern.parse(b)
    servers = [("https", host, port) for host in ("a.com", "b.a.com", "x.b.a.com", "c.com") for port in (443, 8443)]
    shared = [server for server in servers if one.matches(*server) and other.matches(*server)]
    if shared:
        assert one.covers(other) or other.covers(one)
