"""Masks secrets in texts that others wrote: error messages, command lines, URLs, log lines.

The values of names such as `password` are masked, and texts that have the shape of a credential.
Our own secrets are masked wherever they stand. One of others in free text, with neither a name
nor a known shape, cannot be recognised.

A text is masked as it stands, then as it reads decoded: there are too many ways to write `sig=`.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "<redacted>"

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


_WITHOUT_DOT = (
    r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}|glpat-[\w-]{20,}|xox[a-z]-[\w-]{10,}"
    r"|A[KS]IA[A-Z1-7]{16}\b|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|dckr_[op]at_[\w-]{20,}"
    r"|hf_[A-Za-z0-9]{34}"
)
"""Tokens that begin with the mark of who issued them, and may be in an id: it has no dot."""

_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])eyJ[\w-]{7,}(?:\\?[.=][\w-]*)*(?:\r?\n[ \t]{0,20}[\w.=-]{16,})*"
    rf"|\b(?:{_WITHOUT_DOT}|xapp-\d-[\w-]{{10,}}|SG\.[\w-]{{16,}}\.[\w-]{{32,}}"
    r"|ya29\.[\w-]{20,}|pypi-AgEI[\w-]{16,}|hv[sbr]\.[\w-]{24,}"
    r"|sk-(?:[A-Za-z0-9]{32,}|(?:proj|ant)-[\w-]{20,})|[rs]k_(?:live|test)_[A-Za-z0-9]{16,})"
    r"|[\w.~-]{3}\dQ~[\w.~-]{30,}"  # client secret of Entra ID
    r"|\b[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{27}",  # key of an Azure AI resource
    re.ASCII,
)
_TOKEN_IN_ID = re.compile(rf"(?<![A-Za-z0-9])(?:eyJ[\w-]{{30,}}|{_WITHOUT_DOT})", re.ASCII)

_KEY = re.compile(
    r"(?<![\w+/-])(?:(?=[^=]{0,42}[0-9])(?=[^=]{0,42}[A-Z])[\w+/-]{43}=|[\w+/-]{54}=="
    r"|[\w+/-]{86}==)(?![\w=])",
    re.ASCII,
)
"""A key of an Azure resource: 32, 40 or 64 bytes in base64."""

_may_be_secret = re.compile(r"[\s=:%>\\@~&G-Z\x7f-\U0010ffff]").search
# All but letters, digits and `_:.,-`: written so, it takes a third of the time.
_is_odd_for_ids = re.compile(r"[\0-+/;-@\[-^`{-\U0010ffff]").search


def is_suspect(text: str) -> bool:
    """Whether a text may have a secret. Most short texts of the service may not."""
    return _may_be_secret(text) is not None or _may_be_token(text) or "sk-" in text


def are_suspect_ids(text: str) -> bool:
    """Whether ids, with commas between them, may have a secret, or are no ids at all."""
    return (
        _is_odd_for_ids(text) is not None
        or (_may_be_token(text) and _TOKEN_IN_ID.search(text) is not None)
        or len(text) > 1000
    )


def _may_be_token(text: str) -> bool:
    # An expression takes ten times as long, and there are 100,000 ids.
    return (
        "eyJ" in text
        or "gh" in text
        or "glpat" in text
        or "xox" in text
        or "IA" in text
        or "AIz" in text
        or "npm_" in text
        or "at_" in text
        or "hf_" in text
    )


_TOKEN_STEMS = (
    *("eyJ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "_oat_", "glpat-", "xox", "xapp-"),
    *("SG.", "AKIA", "ASIA", "AIza", "ya29.", "npm_", "pypi-", "hf_", "hvs.", "hvb.", "hvr."),
    *("sk-", "sk_", "rk_", "Q~", "JQQJ9"),
)
"""Each token has one of these."""

_STEMS = (
    *("pass", "pw", "token", "secret", "credential", "sig", "sas", "key", "bearer", "basic"),
    *("authorization", "cookie", "connection", "code=", "assertion", "-u", "-user", "login"),
    *("mysql", "mariadb", "redis-cli", "securestring"),
)
"""Each text with the name of a secret has one of these, in lower case."""

# The second form has a / ? or # in the password, which no port has; the third has no scheme.
_USER_INFO = re.compile(
    r"(://)[^\s/?#\"'<>]+@"
    r"|(://)[^\s/?#@:\[\"'<>]{0,100}:(?!\d*[/?#])[^\s@\"'<>]{1,200}@"
    r"|((?<![^\s\"'=(]))[\w.%+-]{1,100}:[^\s@/\"']{1,200}@(?=[\w.-]{1,200}:\d)"
)

_PRIVATE_KEY = re.compile(
    r"-{4,5} ?BEGIN[\sA-Z0-9+]{1,40}PRIVATE[\s+]KEY(?: BLOCK)? ?-{4}"
    r".*?(?:-{4} ?END[\sA-Z0-9+]{1,40}PRIVATE[\s+]KEY(?: BLOCK)? ?-{4,5}|\Z)"
    r"|Private-Lines:.*?(?:Private-(?:MAC|Hash): ?\w+|\Z)",
    re.DOTALL | re.IGNORECASE,
)

_SURE_NAME = (
    r"(?:pass(?:[-_ ]?(?:word|phrase|code)|wd|in|out)|pwd|(?<![a-z])pw(?=\s?[=:])"
    r"|(?<!max[-_])(?<!num[-_])(?<!unexpected\s)token|secret|credential|SharedAccessSignature"
    r"|connection[-_ ]?string|client[-_]?assertion"
    r"|cookie|(?<![a-z])(?:x-amz-)?signature(?==)|(?<=[?&])code(?==[\w%+/-]{20})"
    r"|(?<![a-z])sig|(?<![a-z])sas(?==)"
    r"|(?:api|access|account|shared|storage|private|signing|master|secret|subscription|functions"
    r"|primary|secondary|encryption)[-_\s]{0,2}key)"
)
_NAME = rf"(?:{_SURE_NAME}|(?<=[-_])(?:pass|key))"
# password2, TOKEN_PROD, secretValue, token[0]; not secretName: that names a secret only.
_SUFFIX = (
    r"(?![-_]?(?:name|file|path|type)\b)"
    r"(?:s\b|(?:[-_0-9]|(?-i:[A-Z]))[\w-]{0,40})?(?:\[[^\]\s]{0,40}\])?(?![a-z0-9])"
)
_ORDINARY = (
    r"(?:an?|the|this|is|was|are|has|had|be|not|no|none|null|true|false|of|or|and|for|from|in|to|by"
    r"|expired|invalid|missing|required|denied|failed|could|cannot|must|should|auth\w*|scheme"
    r"|challenge|did|put|write|see|set|unset|use|unknown|tokens?|keys?"
    r"|secrets?|credentials?|passwords?)(?=[.,;:!?)]*(?:\s|$))"
)
"""Words that follow "Bearer" or "token:" in a sentence, and are no secret."""

# `secret:job-1` is the id of a job of the schedule "secret". Then come pairs of a name and a
# value, and XML. After it may stand what YAML, a shell or Python has before a value.
_SEPARATOR = (
    r"(?:\\{0,9}[\"']?\s{0,20}"
    rf"(?:[-+!?:]?={{1,2}}>?|->|:(?!//|job-\d+(?![\w-])|\s{{0,20}}{_ORDINARY}))"
    r"|\\{0,9}[\"']?\s{0,20},?\s{0,20}\\{0,9}[\"']?value\\{0,9}[\"']?\s{0,20}[:=]"
    r"|(?:\s[\w:.-]{1,40}=[\"'][^<>]{0,100})?>(?:\s{0,20}\n\s{0,20})?(?:<!\[CDATA\[)?(?=[^\s<]))"
    r"\s{0,20}(?:\\\s{1,20}|[|>][-+]?\s{1,20}|!!?\w{1,20}\s{1,20}|&\w{1,20}\s{1,20}|-\s{1,20})?"
    r"(?:[bru$@](?=\\{0,9}[\"']))?"
)
_NAMED = re.compile(
    rf"""(?=[abcefkmlprst("'\\-])(?P<kept>
        authorization(?:\\{{0,9}}["']?\s{{0,20}}(?:[:=]>?|->)|\\{{0,9}}["'],)\s{{0,20}}b?\\{{0,9}}["']?
            (?:(?:token|(?!{_ORDINARY})[a-z][\w-]{{0,40}})[ ]+(?!{_ORDINARY}))?(?!{_ORDINARY})
        |\b(?:bearer[\s:=+]|SharedKey(?:Lite)?\s|SharedAccessSignature\s)\s*(?!{_ORDINARY})
        |\bConvertTo-SecureString\s+(?:-String\s+)?
        |\bbasic\s+(?=[a-z0-9+/]{{8}})(?=\S*(?:[0-9=]|(?-i:[a-z][A-Z])))
        |(?<![\w-])--?[\w-]{{0,40}}?{_NAME}{_SUFFIX}\s+(?:\\\s+)?(?!--)
        |(?<![\w-])(?:-u\s{{0,4}}|--(?:proxy-)?user[\s=]\s{{0,4}})["']?[\w.@\\-]{{1,100}}:
            (?!\d+(?![^\s"']))
        |\b(?:login|sshpass|mysql\w{{0,10}}|mariadb)\b[^\n|;&]{{0,200}}?\s(?-i:-p)\s{{0,4}}(?![\s-])
        |\bredis-cli\b[^\n|;&]{{0,200}}?\s-a\s{{1,4}}
        |(?:\(b?\\{{0,9}}["']|\\{{0,9}}["']--?)[\w-]{{0,40}}?{_NAME}{_SUFFIX}\\{{0,9}}["'],\s{{0,20}}b?(?=\\{{0,9}}["'])
        |{_NAME}{_SUFFIX}{_SEPARATOR}
    )
    (?:
        (?P<escaped_double>\\{{1,9}}")[^"]*
        |(?P<escaped_single>\\{{1,9}}')[^']*
        |(?P<encoded>&quot;|&\#3[49];|&apos;|\\u002[27]|%2[27])(?:(?!(?P=encoded)).)*
        |(?P<double>")[^"\\]*(?:\\.[^"\\]*)*
        |(?P<single>')[^'\\]*(?:\\.[^'\\]*|'(?:"'"|\\')'[^'\\]*)*
        |(?P<list>\$?[\[({{])(?:"[^"]*"|'[^']*'|[^\])}}"'])*
        |(?:(?!</|[&;](?:amp;)?\s{{0,4}}[\w.-]{{1,40}}=)(?:\\\s|[^\s"']))+
    )
    (?:["'](?=\w)[^\s"']+)*  # "a"b, as a shell joins them
    (?:\r?\n[ \t]{{0,20}}[a-z0-9+/]{{4,100}}={{1,2}}(?=[\s;"']|\Z))*  # base64 on the next line""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_MASKED = (
    rf"\g<kept>\g<escaped_double>\g<escaped_single>\g<encoded>\g<double>\g<single>\g<list>{MASK}"
)
_WHOLE_LINE = re.compile(
    r"(authorization\W{1,4}(?:digest|aws4[\w-]*|hawk|oauth)\s)[^\r\n]+"
    r"|(cookie\s?:\s?)[^\r\n\"']+",
    re.IGNORECASE,
)
# In a pair of a name and a value `sort_key` and `render_pass` are ordinary names.
is_secret_name = re.compile(
    rf"(?:{_SURE_NAME}s?[-_]?\d{{0,4}}|(?<![a-z])(?:authorization|signature|sas|pw)|\Apass)\Z",
    re.IGNORECASE | re.ASCII,
).search
"""Whether a value of this name is a secret."""


def _mask(text: str) -> str:
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, MASK)
    if not is_suspect(text):
        return text
    if "@" in text:
        text = _USER_INFO.sub(rf"\1\2\3{MASK}@", text)
    lower = text.lower()
    if "private" in lower:
        text = _PRIVATE_KEY.sub(MASK, text)
    if any(stem in lower for stem in _STEMS):
        text = _WHOLE_LINE.sub(rf"\1\2{MASK}", text)
        text = _NAMED.sub(_MASKED, text)
    if "=" in text:
        text = _KEY.sub(MASK, text)
    return _TOKEN.sub(MASK, text) if any(stem in text for stem in _TOKEN_STEMS) else text


_is_encoded = re.compile(r"[%&\\\x7f-\U0010ffff]").search
_BACKSLASH = re.compile(r"\\(?:(?:u00|x)([0-9a-f]{2})|[nrt]|(\W))", re.IGNORECASE)


def _of_web(text: str) -> str:
    return unicodedata.normalize("NFKC", html.unescape(unquote(text)))


def _of_code(text: str) -> str:
    return _BACKSLASH.sub(lambda found: found[2] or chr(int(found[1] or "a", 16)), text)


DECODERS = (_of_web, _of_code) * 3
"""In turn, because a URL may be in a URL that is in JSON. Few, so that time stays linear."""


def redact(text: str) -> str:
    """The text with each secret in it replaced by `<redacted>`; the name of a secret stays.

    If a secret shows only in the decoded text, the decoded text is returned.
    """
    masked = read = _mask(text)
    for decode in DECODERS if _is_encoded(masked) else ():
        decoded = decode(read)
        if decoded == read:
            continue
        read = _mask(decoded)
        if read != decoded:
            masked = read
    return masked


_is_id = re.compile(r"[\w:.-]*", re.ASCII).fullmatch


def redact_id(text: str) -> str:
    """An id with each token in it masked. Words such as `key` make no id a secret.

    What has other characters than an id may have is masked as any text.
    """
    if not _is_id(text):
        return redact(text)
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, MASK)
    return _TOKEN_IN_ID.sub(MASK, text) if _may_be_token(text) else text


def redact_all(value: Any) -> Any:
    """The same lists and mappings with each text masked, and what has the name of a secret."""
    if isinstance(value, dict):
        return {
            redact(name): MASK
            if isinstance(each, str) and is_secret_name(name)
            else redact_all(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_all(each) for each in value]
    return redact(value) if isinstance(value, str) else value
