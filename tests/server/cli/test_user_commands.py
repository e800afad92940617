"""`llmasos users`: members, invitations and links, as the machine's owner handles them."""

import json

import pytest


def test_a_member_is_invited_and_the_invitation_is_taken_back(llmasos) -> None:
    """12-2."""
    made = json.loads(llmasos("users", "invite", "eve@example.com", "--role", "viewer", "--json").stdout)
    assert made["url"].startswith("http://localhost:8765/invitations/")
    listed = llmasos("users", "list").stdout
    assert "Local" in listed
    assert "eve@example.com" in listed
    assert llmasos("users", "uninvite", made["id"]).exit_code == 0
    known = json.loads(llmasos("users", "list", "--json").stdout)
    assert known["invitations"] == []
    assert [(it["id"], it["role"]) for it in known["members"]] == [("local", "owner")]


def test_a_link_is_made_for_a_member_alone(llmasos) -> None:
    assert "/sign-in/link/" in llmasos("users", "link").stdout
    refused = llmasos("users", "link", "eve@example.com")
    assert refused.exit_code == 5
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("users", "invite", "eve"), 1),
        (("users", "invite", "eve@example.com", "--role", "king"), 1),
        (("users", "role", "local", "viewer"), 1),
        (("users", "remove", "local"), 1),
        (("users", "remove", "nobody"), 5),
        (("users", "uninvite", "x"), 5),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(llmasos, words: tuple[str, ...], code: int) -> None:
    refused = llmasos(*words)
    assert (refused.exit_code, refused.stderr.count("\n")) == (code, 1)
