"""Masks secrets in texts that others wrote: error messages, command lines, URLs, log lines.

The values of names such as `password` are masked, and texts that have the shape of a credential.
Our own secrets are masked wherever they stand. One of others in free text, with neither a name
nor a known shape, cannot be recognised.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

MASK = "<redacted>"

is_suspect = re.compile(r"[\s=:%>\\@J]").search
"""Whether a text has one of the characters of which each secret has one; J is that of "eyJ"."""

HIDDEN_AT_MOST = 300
"""Texts that are masked as a whole; the oldest one is forgotten first."""

_hidden: list[str] = []
"""Longer ones first: one may be a part of another."""

_hidden_since: dict[str, None] = {}


def hide(secret: str) -> None:
    """Mask this secret of ours from now on, also as it is written in a form, a URL or JSON.

    One of less than 8 characters is not: it may be part of any word.
    """
    if len(secret) < 8:
        return
    for written in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]):
        _hidden_since.pop(written, None)
        _hidden_since[written] = None
    while len(_hidden_since) > HIDDEN_AT_MOST:
        del _hidden_since[next(iter(_hidden_since))]
    _hidden[:] = sorted(_hidden_since, key=len, reverse=True)


_STEMS = (
    *("pass", "pwd", "token", "secret", "credential", "sig", "sas", "key"),
    *("bearer", "basic", "authorization", "eyj"),
)
"""Each text with a secret has one of these, in lower case, or user information in a URL."""

_USER_INFO = re.compile(r"://[^\s/?#\"'<>]+@")

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]{7,}[\w.-]*")

_NAME = (
    r"(?:pass(?:word|wd|phrase)|pwd|token|secret|credential|SharedAccessSignature"
    r"|(?:(?<![a-z])|(?<=3[bf])|(?<=0a)|(?<=26)|(?<=\\[nrt]))sig|(?<![a-z])sas(?==)|(?<=[-_])key"
    r"|(?:api|access|account|shared|storage|private|signing|master|secret|subscription|functions"
    r"|primary|secondary)[-_ ]?key)"
)
# password2, TOKEN_PROD, secretValue; not secretName: that names a secret only.
_SUFFIX = (
    r"(?![-_]?(?:name|file|path|type)\b)(?:s\b|(?:[-_0-9]|(?-i:[A-Z]))[\w-]{0,40})?(?![a-z0-9])"
)
_ORDINARY = (
    r"(?:an?|the|this|is|was|are|has|had|be|not|no|none|null|true|false|of|or|and|for|from|in|to|by"
    r"|expired|invalid|missing|required|denied|failed|could|cannot|must|should|auth\w*|scheme"
    r"|challenge|tokens?|keys?|secrets?|credentials?|passwords?)(?=[.,;:!?)]*(?:\s|$))"
)
"""Words that follow "Bearer" or "token:" in a sentence, and are no secret."""

# `secret:job-1` is the id of a job of the schedule "secret".
_SEPARATOR = (
    r"\\*[\"']?\s{0,4}"
    rf"(?:=>?|:=|%(?:25)*3[ad]|:(?!//|job-\d|\s{{0,4}}{_ORDINARY})|>(?=[^\s<]))\s{{0,4}}[\[({{]?"
)
_NAMED = re.compile(
    rf"""(?=[abcfkmpst-])(?P<kept>
        authorization\\*["']?\s{{0,4}}[:=]\s{{0,4}}(?!{_ORDINARY})\\*["']?(?:[a-z]+[ ]+)?
        |\b(?:bearer|SharedKey(?:Lite)?|SharedAccessSignature)\s+(?!{_ORDINARY})
        |\bbasic\s+(?=[a-z0-9+/]{{8}})(?=\S*(?:[0-9=]|(?-i:[a-z][A-Z])))
        |(?<![\w-])--?[\w-]{{0,40}}?{_NAME}{_SUFFIX}\s+(?!--)
        |{_NAME}{_SUFFIX}{_SEPARATOR}
    )
    (?:
        (?P<escaped_double>\\+")[^"]*
        |(?P<escaped_single>\\+')[^']*
        |(?P<double>")[^"\\]*(?:\\.[^"\\]*)*
        |(?P<single>')[^'\\]*(?:\\.[^'\\]*)*
        |(?:(?!</|%26|[&;](?:amp;)?\s{{0,4}}[\w.-]{{1,40}}=)[^\s"'])+
    )""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_MASKED = rf"\g<kept>\g<escaped_double>\g<escaped_single>\g<double>\g<single>{MASK}"
is_secret_name = re.compile(rf"{_NAME}s?\Z", re.IGNORECASE).search
"""Whether a value of this name is a secret."""


def redact(text: str) -> str:
    """The text with each secret in it replaced by `<redacted>`; the name of a secret stays."""
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, MASK)
    if not is_suspect(text):
        return text
    lower = text.lower()
    if "://" in lower and "@" in lower:
        text = _USER_INFO.sub(f"://{MASK}@", text)
    if not any(stem in lower for stem in _STEMS):
        return text
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _NAMED.sub(_MASKED, text)
    return _JSON_WEB_TOKEN.sub(MASK, text)
