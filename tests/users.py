"""Other users of this machine, as files know them; the tests must run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def as_user(user: int, group: int) -> Iterator[None]:
    """Let files be made and opened with this user's rights."""
    if os.geteuid():
        pytest.skip("only root can act as another user")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
