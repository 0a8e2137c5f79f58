from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mission9.redact import one_line, redact, redact_values, shown

AT_LEISURE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("there is no folder https://me:s3cr3t@host/a b", "there is no folder https://***@host/a b"),
        ("s3a://AKIA1:ab/cd+ef=@bucket/x", "s3a://***@bucket/x"),
        ("https:/me:p@ss@host/x", "https:/***@host/x"),
        ("https://s3cr3t@host", "https://***@host"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?X-Amz-Credential=AK%2F1", "https://h/x?X-Amz-Credential=***"),
        ("https://h/x?sig=abc%3D&se=2030", "https://h/x?sig=***&se=2030"),
        ("https://h/x?token=abc", "https://h/x?token=***"),
        ("sc://host:15002/;use_ssl=true;token=abc;user_id=me", "sc://host:15002/;use_ssl=true;token=***;user_id=me"),
        ("input = {'password': 'abc', 'x': 1}", "input = {'password': '***', 'x': 1}"),
        ('{"aws_secret_access_key": "abc"}', '{"aws_secret_access_key": "***"}'),
        ("--conf spark.hadoop.fs.s3a.secret.key=abc -x", "--conf spark.hadoop.fs.s3a.secret.key=*** -x"),
        ("x = 'https://h/?a=b=c&X-Amz-Signature=abc'", "x = 'https://h/?a=b=c&X-Amz-Signature=***'"),
        ("--runner=https://h/?token=abc", "--runner=https://h/?token=***"),
        ("token=a=token=b c", "token=*** c"),
        ("MLFLOW_TRACKING_PASSWORD=abc", "MLFLOW_TRACKING_PASSWORD=***"),
        ("password: hunter2", "password: ***"),
        ("password: hunter2 for user bob", "password: *** for user bob"),
        ("password: letmein, user: bob", "password: ***, user: bob"),
        ("secret:\n  letmein\nx", "secret:\n  ***\nx"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("Authorization: Basic bWU6cw==, x", "Authorization: ***, x"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': '***'}"),
        ("sent Bearer eyJhbGciOi.J9.x-y_z to it", "sent Bearer *** to it"),
        ("x-amz-security-token: IQoJb3JpZ2luX2VjE==", "x-amz-security-token: ***"),
        ("AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY: ***"),
        ("mysql --password x --user me", "mysql --password *** --user me"),
        ("--api-token letmein --verbose", "--api-token *** --verbose"),
        ("unknown option: --password hunter2", "unknown option: --password ***"),
    ],
)
def test_secrets_are_masked(text: str, wanted: str) -> None:
    assert redact(text) == wanted
    assert redact(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "/data/me@home/images: 12 of 15",
        "file:/data/me@home/x.jpg",
        "components = 'many': give a number",
        "spark://127.0.0.1:7077",
        "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
        "the token: 3 of them; monkey=1, keyboard=2",
        "Training/a=b/1.jpg",
        "token: give one, or leave it away",
        "--token is no option of this command",
        "a password: it must have 12 letters",
        "Basic authentication is needed; a Bearer token",
        "s3 credentials: none in the environment, nor a profile",
        "the key: Training/a.jpg",
        "token: token is missing",
        "arn:aws:secretsmanager:eu-west-1:1:secret",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert shown(text) == text


def test_what_does_not_print_is_escaped() -> None:
    assert one_line("a\nb\rc\x1b[2Jd\u202ee\u2028f\udce9") == r"a\nb\rc\x1b[2Jd\u202ee\u2028f\udce9"
    assert one_line("Pêche 🍑 日本語") == "Pêche 🍑 日本語"


@AT_LEISURE
@given(st.text(st.characters()))
def test_any_text_is_one_line_that_can_be_written(text: str) -> None:
    line = shown(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    line.encode()


def test_settings_keep_what_is_no_text() -> None:
    assert redact_values({"a": "https://u:p@h", "b": 1, "c": None}) == {"a": "https://***@h", "b": 1, "c": None}


@pytest.mark.parametrize(
    "part",
    [
        *("a:/", "a://b:", "secret=", "x", "token ", "_", "a.b-", "x" * 50 + "://", "a:b@", "a='"),
        *("token: ", "token: a ", "--token ", "--", "Bearer ", "Bearer a", "token: a b" + "c" * 100),
    ],
)
def test_long_texts_take_no_long_time(part: str) -> None:
    start = time.process_time()
    redact(part * (100_000 // len(part)) + "secret")
    assert time.process_time() - start < 2
