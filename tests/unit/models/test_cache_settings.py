"""What may be said about the result cache, and what is refused by name."""

import pytest
from pydantic import ValidationError

from app.answering.scoring import MOST_ROWS
from app.settings.models import ModelCache
from app.settings.reading import environment_names
from app.wiring.result_cache import MOST_ROWS_SHARED, most_rows


def test_it_is_off_unless_asked_for():
    cache = ModelCache()
    assert (cache.enabled, cache.redis_url, cache.max_bytes, cache.ttl_s, cache.budget_s) == (
        False, None, 67_108_864, 300.0, 0.003,
    )  # fmt: skip


def test_the_environment_can_say_everything():
    assert {"INFERENCE_MODELS__CACHE__ENABLED", "INFERENCE_MODELS__CACHE__REDIS_URL"} <= environment_names().keys()


def test_the_password_comes_from_a_file(tmp_path):
    (tmp_path / "password").write_text("correct horse\n")
    cache = ModelCache(redis_url="redis://cache:6379/1", redis_password_file=tmp_path / "password")
    assert cache.password() == "correct horse"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"redis_url": "http://cache"}, "expected redis://host:port/database"),
        ({"redis_url": "cache:6379"}, "expected redis://host:port/database"),
        (
            {"redis_url": "redis://" + "user:pw@cache"},
            "credentials belong in redis_username and redis_password_file",
        ),
        ({"redis_url": "redis://cache?socket_timeout=60"}, "options in the URL are not taken"),
        ({"redis_password": "x"}, "redis_password is of no use without redis_url"),
        ({"redis_url": "redis://cache", "redis_ca_file": "ca.pem"}, "needs a redis_url that begins with rediss://"),
        ({"redis_url": "rediss://cache", "redis_ca_file": "/none"}, "redis_ca_file: cannot read /none"),
        ({"redis_url": "redis://cache", "redis_password_file": "/none"}, "redis_password_file: cannot read /none"),
        ({"budget_s": 0}, "greater than 0"),
        ({"budget_s": float("nan")}, "finite"),
        ({"ttl_s": 0}, "greater than 0"),
        ({"max_bytes": -1}, "greater than or equal to 0"),
        ({"size": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, problem):
    with pytest.raises(ValidationError, match=problem):
        ModelCache(**given)


def test_password_and_file_are_not_both_given(tmp_path):
    (tmp_path / "password").write_text("a")
    both = {"redis_password": "b", "redis_password_file": tmp_path / "password"}
    with pytest.raises(ValidationError, match="choose one"):
        ModelCache(redis_url="redis://cache", **both)


def test_with_a_redis_fewer_rows_are_one_look_up():
    assert most_rows(ModelCache()) == most_rows(ModelCache(enabled=True)) == MOST_ROWS
    shared = ModelCache(enabled=True, redis_url="redis://127.0.0.1")
    assert most_rows(shared) == MOST_ROWS_SHARED < MOST_ROWS
